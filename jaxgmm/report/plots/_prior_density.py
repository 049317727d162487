"""Marginal densities of priors that have a closed form, for the figure of the marginals."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from scipy import stats

from jaxgmm._contract import LatentModel
from jaxgmm.model import ConjugatePrior, Mixture

# Structures whose covariances have the prior of any matrix or variance: the others bind them.
_MATRICES, _VARIANCES = ("full", "tied"), ("diag", "spherical", "EEI", "EII")


def prior_density(
    model: LatentModel, site: str, index: tuple[int, ...], grid: np.ndarray
) -> np.ndarray | None:
    """Of one number of a site along ``grid``; None where there is no closed form."""
    if isinstance(model, Mixture) and isinstance(model.prior, ConjugatePrior):
        return _conjugate(model, site, index, grid)
    elif isinstance(model, Mixture) and model.prior_name == "sites":
        distribution = model.prior.by_site.get(site)
    else:
        try:
            distribution = model.prior_sites()[site]({})
        except KeyError:  # it depends on the sites before it
            return None
    return None if distribution is None else _marginal(distribution, index, grid)


def _conjugate(
    model: Mixture, site: str, index: tuple[int, ...], grid: np.ndarray
) -> np.ndarray | None:
    """Beta, Student's t and inverse gamma; Gelman et al. (2013), sections 3.3 to 3.6."""
    prior, name = model.prior, model.family.name
    if site == "weights":
        concentration = np.asarray(prior.concentration, np.float64)
        concentration = np.broadcast_to(concentration, model.n_components)
        return _beta(concentration, index[-1], grid)
    if site == "sticks":
        return _marginal(model.prior_sites()[site]({}), index, grid)
    dof, scale = float(prior.dof), np.asarray(prior.scale, np.float64)
    if name in _MATRICES:
        if site == "covariances":
            return _inverse_wishart(dof, scale, index[-2:], grid)
        dof -= len(scale) - 1
        own = scale[index[-1], index[-1]]
    elif name in _VARIANCES:
        own = scale if scale.ndim == 0 else scale[index[-1]]
        if site == "covariances":
            return stats.invgamma.pdf(grid, dof / 2, scale=own / 2)
    else:
        return None
    spread = np.sqrt(own / dof / float(prior.mean_precision))
    return stats.t.pdf(grid, dof, float(prior.mean[index[-1]]), spread)


def _beta(concentration: np.ndarray, entry: int, grid: np.ndarray) -> np.ndarray:
    """Of an entry of a vector with a Dirichlet distribution."""
    first = concentration[entry]
    return stats.beta.pdf(grid, first, np.sum(concentration) - first)


def _inverse_wishart(
    dof: float, scale: np.ndarray, entry: tuple[int, ...], grid: np.ndarray
) -> np.ndarray:
    """Of an entry; the block of two features is inverse-Wishart with fewer degrees of freedom."""
    i, j = entry
    dof -= len(scale) - 1
    if i == j:
        return stats.invgamma.pdf(grid, dof / 2, scale=scale[i, i] / 2)
    # The covariance is a variance times a slope, independent of it, with Student's t: an
    # average over quantiles of the variance.
    levels = (np.arange(256) + 0.5) / 256
    variances = stats.invgamma.ppf(levels, dof / 2, scale=scale[i, i] / 2)[:, None]
    slope = scale[i, j] / scale[i, i]
    residual = scale[j, j] - slope * scale[i, j]
    spread = np.sqrt(residual / (dof + 1) / scale[i, i])
    return np.mean(stats.t.pdf(grid / variances, dof + 1, slope, spread) / variances, axis=0)


def _marginal(distribution: Any, index: tuple[int, ...], grid: np.ndarray) -> np.ndarray | None:
    """Of one number under a NumPyro distribution of a whole site, or of the last of its axes."""
    while isinstance(distribution, (dist.Independent, dist.ExpandedDistribution)):
        distribution = distribution.base_dist
    shape = distribution.batch_shape + distribution.event_shape
    own = tuple(min(i, n - 1) for i, n in zip(index[len(index) - len(shape) :], shape, strict=True))
    entry = own[len(distribution.batch_shape) :]
    if isinstance(distribution, dist.Dirichlet):
        return _beta(np.asarray(distribution.concentration, np.float64)[own[:-1]], own[-1], grid)
    if isinstance(distribution, dist.MultivariateNormal):
        variance = np.asarray(distribution.covariance_matrix)[(*own, own[-1])]
        return stats.norm.pdf(grid, np.asarray(distribution.loc)[own], np.sqrt(variance))
    if entry or isinstance(distribution, dist.ImproperUniform):
        return None
    values = jnp.broadcast_to(grid.reshape(-1, *[1] * len(shape)), (len(grid), *shape))
    inside = np.asarray(distribution.support(values))
    values = jnp.where(inside, values, distribution.support.feasible_like(values))
    log_density = np.asarray(distribution.log_prob(values), np.float64)
    return np.where(inside, np.exp(log_density), 0.0)[(slice(None), *own)]
