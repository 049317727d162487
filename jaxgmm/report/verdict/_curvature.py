"""Gradient and curvature of the log joint at a point, in the declared coordinates.

Sites are moved along their own tangent space: sum-zero for weights, symmetric for
covariances, and by a chart where they fill a curved set. No Jacobian of an unconstraining
map enters; the units are the model's working ones, so that the numbers do not depend on
the user's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro.distributions import biject_to, constraints

from jaxgmm._contract import LatentModel, Params, Sites, held
from jaxgmm._numerics import block_rows, sum_over_blocks, widened
from jaxgmm._programs import on_rung, program
from jaxgmm.local import spectrum

# Newton decrement up to which a point counts as stationary: it is the distance to the
# mode of the local quadratic, in posterior standard deviations.
STATIONARY = 1e-3
STATIONARY_FLOAT32 = 1e-1


@dataclasses.dataclass(frozen=True)
class Curvature:
    """What the log joint looks like around a point.

    Attributes
    ----------
    newton_decrement : float
        ``sqrt(g' H^-1 g)`` over the directions that are not flat: the distance to the
        top of the local quadratic, in standard deviations. Free of units.
    gradient_norm : float
        Largest component of the gradient, per row, in working units.
    eigenvalues : (d,) array
        Of minus the Hessian, scaled to unit diagonal, ascending.
    n_flat, n_negative : int
        Directions without curvature, and with curvature of the wrong sign.
    stationary : bool
        Whether the Newton decrement is below its threshold.
    """

    newton_decrement: float
    threshold: float
    gradient_norm: float
    eigenvalues: np.ndarray
    n_flat: int
    n_negative: int

    @property
    def stationary(self) -> bool:
        return self.newton_decrement < self.threshold


def curvature(
    model: LatentModel, params: Params, x: Array, sample_weight: Array | None
) -> Curvature:
    """`Curvature` of the log joint at ``params`` (user's units)."""
    # What counts as flat or as arrived depends on the precision of the fit.
    single = jnp.asarray(x).dtype == jnp.float32
    model, params, x, sample_weight = widened((model, params, x, sample_weight))
    model = model.settled(params)
    near = np.asarray(_edges(model, params))
    edged = bool(np.any(near))
    found = _derivatives(model, params, *on_rung(model, x, sample_weight), edged)
    gradient, hessian = map(np.asarray, found)
    if edged:  # what lies on an edge is no direction to move in
        free = ~held(near, np.diag(hessian))
        gradient, hessian = gradient[free], hessian[np.ix_(free, free)]
    shape = spectrum(-hessian, single)
    return Curvature(
        newton_decrement=shape.newton_decrement(gradient),
        threshold=STATIONARY_FLOAT32 if single else STATIONARY,
        gradient_norm=float(np.max(np.abs(gradient), initial=0) / x.shape[0]),
        eigenvalues=shape.values,
        n_flat=shape.n_flat,
        n_negative=shape.n_negative,
    )


@program()
def _edges(model: LatentModel, params: Params) -> Array:
    return model.edges(params)


@program(static_argnames="edged")
def _derivatives(
    model: LatentModel,
    params: Params,
    x: Array,
    sample_weight: Array | None,
    edged: bool = False,
) -> tuple[Array, Array]:
    """Along the sites; where some lie on edges, ``edged``, along the model's own chart."""
    working = model.standardise(x, sample_weight)
    here = working.to_working(params)
    at = working.sites(here)
    ways = {name: _way(support, at[name]) for name, support in supports(working, at)}
    sizes = [size for size, _ in ways.values()]

    def params_at(step: Array) -> Params:
        if edged:
            return working.retract(here, step)
        pieces = jnp.split(step, np.cumsum(sizes)[:-1])
        moved = {
            name: move(piece) for (name, (_, move)), piece in zip(ways.items(), pieces, strict=True)
        }
        return working.from_sites(moved)

    def at_origin(function: Callable[[Array], Array]) -> tuple[Array, Array]:
        return jax.grad(function)(origin), jax.hessian(function)(origin)

    def block(rows: Array, weights: Array, _: Array | int) -> tuple[Array, Array]:
        return at_origin(lambda step: working.log_likelihood(params_at(step), rows, weights))

    size = working.tangent_size(here) if edged else sum(sizes)
    origin = jnp.zeros(size, jax.tree.leaves(at)[0].dtype)
    # The Hessian of a block of rows holds a number per row, component and direction.
    size = block_rows(len(origin) * model.n_components, origin.dtype)
    likelihood = sum_over_blocks(block, x, sample_weight, size)
    prior = at_origin(lambda step: working.log_prior(params_at(step)))
    return jax.tree.map(jnp.add, likelihood, prior)


def supports(model: LatentModel, sites: Sites) -> list[tuple[str, Any]]:
    """Each site's support, from the prior that declares it."""
    return [(name, d(sites).support) for name, d in model.prior_sites().items()]


def _way(support: Any, value: Array) -> tuple[int, Callable[[Array], Array]]:
    """How many numbers move a site within its support, and the site that they move it to."""
    chart, basis = biject_to(support), tangent_basis(support, value)
    free = math.prod(chart.inverse_shape(value.shape))
    if basis.shape[-1] == free:
        return free, lambda step: value + basis @ step
    origin = chart.inv(value)
    return free, lambda step: chart(origin + step.reshape(origin.shape))


def tangent_basis(support: Any, value: Array) -> Array:
    """Directions (shape of the site, m) along which a site may move within a flat support."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    size, last = value.size, value.shape[-1] if value.ndim else 1
    if support is constraints.simplex:
        block = np.linalg.qr(np.eye(last) - 1 / last)[0][:, : last - 1]
    elif support is constraints.positive_definite:
        rows, columns = np.triu_indices(last)
        block = np.zeros((last, last, len(rows)))
        block[rows, columns, np.arange(len(rows))] = 1
        block[columns, rows, np.arange(len(rows))] = 1
        block = block.reshape(last * last, -1)
    else:
        block = np.eye(1)
    copies = size // block.shape[0]
    basis = np.kron(np.eye(copies), block)
    return jnp.asarray(basis.reshape(*value.shape, -1), value.dtype)
