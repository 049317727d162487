"""The posterior of a few rows, summed by hand over all assignments to K full components."""

import itertools
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln, logsumexp, multigammaln

import jaxgmm as jg

X = np.array([[0.0, 0.3], [0.4, -0.2], [1.1, 0.9], [2.9, 3.6], [3.2, 2.4], [4.5, 3.9], [0.2, 2.0]])
SCALE = np.array([[4.0, 1.0], [1.0, 3.0]])
CONCENTRATION, MEAN_PRECISION, DOF = 1.5, 0.5, 6.0
MEAN = np.array([1.5, 1.5])


def the_model(k, weights=None, mean=MEAN, dof=DOF):
    prior = jg.ConjugatePrior(
        concentration=CONCENTRATION, mean=mean, mean_precision=MEAN_PRECISION, dof=dof, scale=SCALE
    )
    return jg.Mixture(jg.Gaussian("full"), k, prior=prior, weights=weights)


class Exact(NamedTuple):
    log_evidence: float
    mean: np.ndarray  # posterior mean of the mean of the mixture


def exact(x, k, weights=None):
    """Given labels, the marginal likelihood is a ratio of normalisers (Murphy, 2007, eq. 266)."""
    n, d = x.shape
    logs, centres = [], []
    for labels in itertools.product(range(k), repeat=n):
        z = np.array(labels)
        counts = np.bincount(z, minlength=k)
        log_p = -n * d / 2 * np.log(np.pi)
        means = []
        for j in range(k):
            rows, m = x[z == j], counts[j]
            centre = rows.mean(axis=0) if m else MEAN
            kappa, dof = MEAN_PRECISION + m, DOF + m
            apart = centre - MEAN
            scale = SCALE + (rows - centre).T @ (rows - centre)
            scale = scale + MEAN_PRECISION * m / kappa * np.outer(apart, apart)
            log_p += multigammaln(dof / 2, d) - multigammaln(DOF / 2, d)
            log_p += DOF / 2 * np.linalg.slogdet(SCALE)[1] - dof / 2 * np.linalg.slogdet(scale)[1]
            log_p += d / 2 * np.log(MEAN_PRECISION / kappa)
            means.append((MEAN_PRECISION * MEAN + m * centre) / kappa)
        if weights is None:
            alpha = CONCENTRATION + counts
            log_p += gammaln(k * CONCENTRATION) - k * gammaln(CONCENTRATION)
            log_p += np.sum(gammaln(alpha)) - gammaln(np.sum(alpha))
            share = alpha / alpha.sum()
        else:
            share = np.asarray(weights)
            log_p += counts @ np.log(share)
        logs.append(log_p)
        centres.append(share @ np.array(means))
    total = logsumexp(logs)
    return Exact(total, np.exp(np.array(logs) - total) @ np.array(centres))
