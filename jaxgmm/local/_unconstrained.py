"""Densities of parameters in one measure or another: unconstrained, declared, the user's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro import validation_enabled
from numpyro.distributions import biject_to

from jaxgmm._contract import LatentModel, Params, Sites

# Matrices over all dimensions, up to this many.
DENSE_LIMIT = 300


def to_vector(model: LatentModel, params: Params) -> Float[Array, " d"]:
    """Unconstrained coordinates of all sites, one after the other."""
    return _raveled(model, params)[0]


def by_site(model: LatentModel, vector: Float[Array, " d"], like: Params) -> Sites:
    """The unconstrained coordinates of each site; ``like`` are any parameters."""
    return _raveled(model, like)[1](vector)


def from_vector(
    model: LatentModel, vector: Float[Array, " d"], like: Params
) -> tuple[Params, Array]:
    """The inverse of `to_vector`, and the log volume that it gives a unit of the vector.

    ``like`` are any parameters of the same shapes. A density of the sites, as they are
    declared, is that of the vector divided by the volume.
    """
    coordinates = by_site(model, vector, like)
    sites: Sites = {}
    log_volume = jnp.zeros((), vector.dtype)
    for name, conditional in model.prior_sites().items():
        to_site = biject_to(conditional(sites).support)
        sites[name] = to_site(coordinates[name])
        log_volume += jnp.sum(to_site.log_abs_det_jacobian(coordinates[name], sites[name]))
    return model.from_sites(sites), log_volume


def log_density(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    vector: Float[Array, " d"],
    like: Params,
) -> Array:
    """What NumPyro's model has as log density of its unconstrained coordinates."""
    # Each vector is of parameters within their supports: nothing is to be checked.
    with validation_enabled(False):
        params, log_volume = from_vector(model, vector, like)
        return model.log_joint(params, x, sample_weight) + log_volume


def spread(
    model: LatentModel, x: Array, sample_weight: Array | None, params: Params, least: float
) -> Float[Array, "d d"] | None:
    """A root of the inverse curvature at ``params``; None where that has too many dimensions.

    By its columns, the axes of the curvature, chains may start and guides be sized. Curvature
    counts as no less than ``least`` of the largest.
    """
    centre = to_vector(model, params)
    if centre.size > DENSE_LIMIT:
        return None
    height = lambda vector: log_density(model, x, sample_weight, vector, params)
    curvature, axes = jnp.linalg.eigh(-jax.hessian(height)(centre))
    floor = least * jnp.max(jnp.abs(curvature))
    return axes / jnp.sqrt(jnp.maximum(jnp.abs(curvature), floor))


def log_units(model: LatentModel) -> Array | float:
    """What a log density of the sites gains when they are measured in the user's units."""
    units = model.log_units()
    return 0.0 if units is None else units


def _raveled(model: LatentModel, params: Params) -> tuple[Array, Any]:
    sites = model.sites(params)
    prior = model.prior_sites().items()
    return ravel_pytree({name: biject_to(d(sites).support).inv(sites[name]) for name, d in prior})
