"""Exact evidence: closed form at one component, the sum over all assignments at few rows."""

import itertools

import numpy as np
from scipy.special import gammaln, logsumexp, multigammaln


def one_component(x, prior):
    """log p(x) under a normal-inverse-Wishart prior (Murphy, 2007, equation 266)."""
    n, d = x.shape
    dof, kappa = prior.dof + n, prior.mean_precision + n
    centre = x.mean(axis=0)
    apart = centre - np.asarray(prior.mean)
    pull = prior.mean_precision * n / kappa * np.outer(apart, apart)
    scale = prior.scale + (x - centre).T @ (x - centre) + pull
    log_det = lambda matrix: np.linalg.slogdet(matrix)[1]
    return (
        -n * d / 2 * np.log(np.pi)
        + multigammaln(dof / 2, d) - multigammaln(prior.dof / 2, d)
        + prior.dof / 2 * log_det(prior.scale) - dof / 2 * log_det(scale)
        + d / 2 * np.log(prior.mean_precision / kappa)
    )  # fmt: skip


def two_components(x, prior, weights=None):
    """log p(x) of rows of one feature, every assignment to two labels counted."""

    def marginal(rows):
        n = len(rows)
        if n == 0:
            return 0.0
        kappa, centre = prior.mean_precision + n, rows.mean()
        a, a0, b0 = (prior.dof + n) / 2, prior.dof / 2, prior.scale / 2
        pull = prior.mean_precision * n / kappa * (centre - prior.mean[0]) ** 2
        b = b0 + (np.sum((rows - centre) ** 2) + pull) / 2
        return (
            gammaln(a) - gammaln(a0) + a0 * np.log(b0) - a * np.log(b)
            + 0.5 * np.log(prior.mean_precision / kappa) - n / 2 * np.log(2 * np.pi)
        )  # fmt: skip

    def labelling(counts):
        if weights is not None:
            return counts @ np.log(weights)
        alpha = np.broadcast_to(prior.concentration, 2)
        after = alpha + counts
        ratio = np.sum(gammaln(after) - gammaln(alpha))
        return ratio + gammaln(alpha.sum()) - gammaln(after.sum())

    terms = []
    for labels in itertools.product([0, 1], repeat=len(x)):
        z = np.array(labels)
        counts = np.bincount(z, minlength=2)
        terms.append(labelling(counts) + sum(marginal(x[z == k]) for k in (0, 1)))
    return logsumexp(terms)
