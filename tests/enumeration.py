"""Exact evidence: closed form at one component, the sum over all assignments at few rows."""

import itertools
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln, logsumexp, multigammaln

import jaxgmm as jg

X = np.array([[0.0, 0.3], [0.4, -0.2], [1.1, 0.9], [2.9, 3.6], [3.2, 2.4], [4.5, 3.9], [0.2, 2.0]])
PRIOR = jg.ConjugatePrior(
    concentration=1.5,
    mean=np.array([1.5, 1.5]),
    mean_precision=0.5,
    dof=6.0,
    scale=np.array([[4.0, 1.0], [1.0, 3.0]]),
)


def the_model(k, weights=None, **other):
    """Under `PRIOR`, or one with ``other`` hyper-parameters."""
    prior = jg.ConjugatePrior(**{**vars(PRIOR), **other})
    return jg.Mixture(jg.Gaussian("full"), k, prior=prior, weights=weights)


def one_component(x, prior):
    """log p(x) under a normal-inverse-Wishart prior (Murphy, 2007, equation 266)."""
    n, d = x.shape
    if n == 0:
        return 0.0
    dof, kappa = prior.dof + n, prior.mean_precision + n
    before = np.reshape(prior.scale, (d, d))
    centre = x.mean(axis=0)
    apart = centre - np.asarray(prior.mean)
    pull = prior.mean_precision * n / kappa * np.outer(apart, apart)
    after = before + (x - centre).T @ (x - centre) + pull
    log_det = lambda matrix: np.linalg.slogdet(matrix)[1]
    return (
        -n * d / 2 * np.log(np.pi)
        + multigammaln(dof / 2, d) - multigammaln(prior.dof / 2, d)
        + prior.dof / 2 * log_det(before) - dof / 2 * log_det(after)
        + d / 2 * np.log(prior.mean_precision / kappa)
    )  # fmt: skip


class Exact(NamedTuple):
    log_evidence: float
    mean: np.ndarray  # posterior mean of the mean of the mixture
    first_count: np.ndarray  # (n + 1,) probabilities of how many rows the first label has


def exact(x, k, weights=None, prior=PRIOR):
    """The posterior of a few rows, summed over all assignments to K components.

    Components are ``full``, or of one feature, where ``x`` may be a vector.
    """
    x = np.reshape(x, (len(x), -1))
    logs, centres, firsts = [], [], []
    for labels in itertools.product(range(k), repeat=len(x)):
        z = np.array(labels)
        counts = np.bincount(z, minlength=k)
        log_p = sum(one_component(x[z == j], prior) for j in range(k))
        if weights is None:
            alpha = np.broadcast_to(prior.concentration, k)
            after = alpha + counts
            log_p += np.sum(gammaln(after) - gammaln(alpha))
            log_p += gammaln(np.sum(alpha)) - gammaln(np.sum(after))
            share = after / np.sum(after)
        else:
            share = np.asarray(weights)
            log_p += counts @ np.log(share)
        sums = prior.mean_precision * np.asarray(prior.mean) + np.eye(k)[z].T @ x
        logs.append(log_p)
        firsts.append(counts[0])
        centres.append(share @ (sums / (prior.mean_precision + counts)[:, None]))
    total = logsumexp(logs)
    chance = np.exp(np.array(logs) - total)
    first_count = np.bincount(firsts, weights=chance, minlength=len(x) + 1)
    return Exact(total, chance @ np.array(centres), first_count)


def summed(n, k, concentration, one):
    """Log evidence of n units under Dirichlet weights, summed over all assignments to K labels.

    ``one`` gives log p of those units, a mask of them, that a component has.
    """
    logs = []
    for labels in itertools.product(range(k), repeat=n):
        z = np.array(labels)
        after = concentration + np.bincount(z, minlength=k)
        log_p = sum(one(z == j) for j in range(k))
        log_p += np.sum(gammaln(after) - gammaln(concentration))
        logs.append(log_p + gammaln(k * concentration) - gammaln(np.sum(after)))
    return logsumexp(logs)
