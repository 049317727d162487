"""What is true of a posterior, by NumPy and SciPy alone: modes, their curvature and their mass."""

from typing import NamedTuple

import numpy as np
from enumeration import one_component
from scipy import stats
from scipy.optimize import minimize
from scipy.special import gammaln, logsumexp, multigammaln

# Draws of each mode's own Student t, and its degrees of freedom.
_DRAWS, _DOF = 4000, 6


def log_joint(x, prior, weights, means, covariances):
    """(S,) log densities of full mixtures and of the data, as the sites are declared.

    ``weights`` (S, K), ``means`` (S, K, D), ``covariances`` (S, K, D, D).
    """
    k, d = means.shape[-2:]
    alpha = np.broadcast_to(prior.concentration, k)
    scale, dof, kappa = np.reshape(prior.scale, (d, d)), prior.dof, prior.mean_precision
    log_det = np.linalg.slogdet(covariances)[1]
    precision = np.linalg.inv(covariances)
    square = lambda v: np.einsum("skna,skab,sknb->skn", v, precision, v)
    rows = x[None, None] - means[:, :, None]
    normal = -0.5 * (d * np.log(2 * np.pi) + log_det[..., None] + square(rows))
    apart = (means - np.asarray(prior.mean))[:, :, None]
    centre = -0.5 * (d * np.log(2 * np.pi / kappa) + log_det + kappa * square(apart)[..., 0])
    wishart = (
        dof / 2 * np.linalg.slogdet(scale)[1] - dof * d / 2 * np.log(2) - multigammaln(dof / 2, d)
        - (dof + d + 1) / 2 * log_det - np.einsum("ab,skba->sk", scale, precision) / 2
    )  # fmt: skip
    dirichlet = gammaln(alpha.sum()) - gammaln(alpha).sum()
    dirichlet = dirichlet + np.sum((alpha - 1) * np.log(weights), axis=1)
    likelihood = logsumexp(np.log(weights)[..., None] + normal, axis=1).sum(axis=1)
    return likelihood + dirichlet + np.sum(centre + wishart, axis=1)


# -- a mode in coordinates without bounds ---------------------------------------------------


def _unpacked(vectors, k, d):
    """Weights, means and covariances at (S, p) vectors, and the log volume of that map."""
    split = np.cumsum([k - 1, k * d])
    ratios, means, roots = np.split(vectors, split, axis=1)
    ratios = np.concatenate([ratios, np.zeros((len(vectors), 1))], axis=1)
    log_weights = ratios - logsumexp(ratios, axis=1, keepdims=True)
    lower, diagonal = np.tril_indices(d), np.arange(d)
    factor = np.zeros((len(vectors), k, d, d))
    factor[..., lower[0], lower[1]] = roots.reshape(len(vectors), k, -1)
    logs = factor[..., diagonal, diagonal].copy()
    factor[..., diagonal, diagonal] = np.exp(logs)
    volume = log_weights.sum(axis=1) * (k > 1) + k * d * np.log(2)
    volume = volume + np.sum(logs * (d - diagonal + 1), axis=(1, 2))
    means = means.reshape(-1, k, d)
    return np.exp(log_weights), means, factor @ np.swapaxes(factor, -1, -2), volume


def _packed(x, labels, k):
    """The vector of a partition's own shares, means and covariances."""
    d, lower, diagonal = x.shape[1], np.tril_indices(x.shape[1]), np.arange(x.shape[1])
    parts = [x[labels == j] for j in range(k)]
    shares = np.log([len(part) for part in parts])
    roots = []
    for part in parts:
        factor = np.linalg.cholesky(np.cov(part.T, bias=True).reshape(d, d) + 1e-3 * np.eye(d))
        factor[diagonal, diagonal] = np.log(np.diag(factor))
        roots.append(factor[lower])
    means = [part.mean(axis=0) for part in parts]
    return np.concatenate([shares[:-1] - shares[-1], np.ravel(means), np.ravel(roots)])


def _slope(value, at, step=1e-5):
    moves = step * np.eye(len(at))
    return (value(at + moves) - value(at - moves)) / (2 * step)


def _derivatives(value, at, step=1e-4):
    """Gradient and Hessian by central differences of a function of many vectors at once."""
    p = len(at)
    moves = step * np.eye(p)
    both = np.array([i + j for i in moves for j in moves])
    cross = np.array([i - j for i in moves for j in moves])
    f = lambda shift: value(at + shift)
    hessian = (f(both) - f(cross) - f(-cross) + f(-both)).reshape(p, p) / (4 * step**2)
    return (f(moves) - f(-moves)) / (2 * step), hessian


class Mode(NamedTuple):
    """A mode of the density of the unbounded coordinates, of one labelling."""

    height: float  # declared log joint at the declared mode that lies beside it
    log_evidence: float  # importance sampling from the mode's own t
    laplace: float  # Laplace's own formula


def mode(x, prior, labels, k=2, seed=0):
    """The mode to which a partition's own moments lead, and the mass around it."""
    d = x.shape[1]

    def value(vectors, declared=0.0):
        weights, means, covariances, volume = _unpacked(np.atleast_2d(vectors), k, d)
        return log_joint(x, prior, weights, means, covariances) + (1 - declared) * volume

    def climb(start, declared):
        target = lambda v: -value(v, declared)[0]
        slope = lambda v: -_slope(lambda w: value(w, declared), v)
        return minimize(target, start, jac=slope, method="BFGS", options={"gtol": 1e-5})

    top = climb(_packed(x, labels, k), 0.0).x
    height = -float(climb(top, 1.0).fun)
    precision = -_derivatives(value, top)[1]
    root = np.linalg.inv(np.linalg.cholesky(precision)).T
    p, log_det = len(top), np.linalg.slogdet(root)[1]
    laplace = float(value(top)[0] + p / 2 * np.log(2 * np.pi) + log_det)
    student = stats.multivariate_t(top, root @ root.T, df=_DOF, seed=seed)
    draws = student.rvs(_DRAWS)
    log_weights = value(draws) - student.logpdf(draws)
    return Mode(height, float(logsumexp(log_weights) - np.log(_DRAWS)), laplace)


# -- the declared density at a point --------------------------------------------------------


class Shape(NamedTuple):
    newton_decrement: float
    n_rising: int


def shape(x, prior, params):
    """Newton decrement and rising directions of the declared log joint, without bounds."""
    weights, means, covariances = map(
        np.asarray, (params.weights, params.means, params.covariance_site)
    )
    (k, d), diagonal = means.shape, np.arange(means.shape[1])
    factor = np.linalg.cholesky(covariances)
    factor[:, diagonal, diagonal] = np.log(factor[:, diagonal, diagonal])
    ratios, roots = np.log(weights[:-1] / weights[-1]), factor[:, *np.tril_indices(d)]
    at = np.concatenate([ratios, means.ravel(), roots.ravel()])

    def value(vectors):
        return log_joint(x, prior, *_unpacked(vectors, k, d)[:3])

    gradient, hessian = _derivatives(value, at)
    ahead = np.abs(gradient @ np.linalg.solve(-hessian, gradient))
    return Shape(float(np.sqrt(ahead)), int(np.sum(np.linalg.eigvalsh(hessian) > 0)))


# -- one component: all in closed form ------------------------------------------------------


class OneComponent(NamedTuple):
    """The posterior of one Gaussian: ``mean`` is a t, ``covariance`` inverse-Wishart."""

    mean: np.ndarray
    mean_sd: np.ndarray
    covariance: np.ndarray
    variance_sd: np.ndarray
    log_evidence: float


def one_gaussian(x, prior):
    """Murphy (2007), sections 8 and 9."""
    n, d = x.shape
    kappa, dof = prior.mean_precision + n, prior.dof + n
    centre = x.mean(axis=0)
    apart = centre - np.asarray(prior.mean)
    scale = np.reshape(prior.scale, (d, d)) + (x - centre).T @ (x - centre)
    scale = scale + prior.mean_precision * n / kappa * np.outer(apart, apart)
    mean = (prior.mean_precision * np.asarray(prior.mean) + n * centre) / kappa
    free = dof - d - 1
    variance = np.diag(scale)
    return OneComponent(
        mean=mean,
        mean_sd=np.sqrt(variance / (kappa * free)),
        covariance=scale / free,
        variance_sd=variance / free * np.sqrt(2 / (free - 2)),
        log_evidence=one_component(x, prior),
    )


def left_out(x, prior):
    """Sum of log densities of each row given the others: a multivariate t each."""
    every = one_component(x, prior)
    return sum(every - one_component(np.delete(x, i, axis=0), prior) for i in range(len(x)))
