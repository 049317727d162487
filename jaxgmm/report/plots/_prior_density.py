"""Marginal densities of priors that have a closed form, for the figure of the marginals."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array
from scipy import stats

from jaxgmm._contract import LatentModel, innermost
from jaxgmm._programs import program


def prior_density(
    model: LatentModel, site: str, index: tuple[int, ...], grid: np.ndarray
) -> np.ndarray | None:
    """Of one number of a site along ``grid``; None where there is no closed form."""
    written = model.describe().prior(site, index)
    if isinstance(written, dist.Distribution):
        return _marginal(written, index, grid)
    return None if written is None else written(grid)


def _marginal(distribution: Any, index: tuple[int, ...], grid: np.ndarray) -> np.ndarray | None:
    """Of one number under a NumPyro distribution of a whole site, or of the last of its axes."""
    distribution = innermost(distribution)
    shape = distribution.batch_shape + distribution.event_shape
    own = tuple(min(i, n - 1) for i, n in zip(index[len(index) - len(shape) :], shape, strict=True))
    entry = own[len(distribution.batch_shape) :]
    if isinstance(distribution, dist.Dirichlet):
        concentration = np.asarray(distribution.concentration, np.float64)[own[:-1]]
        first = concentration[own[-1]]
        return stats.beta.pdf(grid, first, np.sum(concentration) - first)
    if isinstance(distribution, dist.MultivariateNormal):
        variance = np.asarray(distribution.covariance_matrix)[(*own, own[-1])]
        return stats.norm.pdf(grid, np.asarray(distribution.loc)[own], np.sqrt(variance))
    if entry or isinstance(distribution, dist.ImproperUniform):
        return None
    values = np.broadcast_to(grid.reshape(-1, *[1] * len(shape)), (len(grid), *shape))
    log_density = np.asarray(_log_density(distribution, values), np.float64)
    return np.exp(log_density)[(slice(None), *own)]


@program()
def _log_density(distribution: dist.Distribution, values: Array) -> Array:
    """Minus infinity outside of the support."""
    inside = distribution.support(values)
    values = jnp.where(inside, values, distribution.support.feasible_like(values))
    return jnp.where(inside, distribution.log_prob(values), -jnp.inf)
