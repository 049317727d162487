"""Orientations: turns of a frame, and the frame that several scatter matrices share."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxgmm.local import differentiable, minimise
from jaxgmm.model._rotations import swept

_GOLDEN = 0.6180339887498949
# A step of Newton's method costs the cube of the angles, D (D - 1) / 2: up to so many axes it is
# quicker than sweeps of rotations, which converge more slowly.
_FEW_AXES = 6


def turned(frame: Float[Array, "*b d d"], turn: Float[Array, "*b p"]) -> Float[Array, "*b d d"]:
    """A frame turned by D (D - 1) / 2 angles (Cayley's map of a skew matrix)."""
    d = frame.shape[-1]
    rows, columns = jnp.triu_indices(d, 1)
    upper = jnp.zeros((*turn.shape[:-1], d, d), turn.dtype).at[..., rows, columns].set(0.5 * turn)
    skew, one = upper - jnp.swapaxes(upper, -1, -2), jnp.eye(d, dtype=turn.dtype)
    return frame @ jnp.linalg.solve(one - skew, one + skew)


def along(frame: Float[Array, "*b d d"], matrices: Float[Array, "*b d d"]) -> Float[Array, "*b d"]:
    """Variances along the axes of a frame."""
    return jnp.einsum("...ij,...ik,...kj->...j", frame, matrices, frame)


def assembled(frame: Float[Array, "*b d d"], variances: Float[Array, "*b d"]) -> Array:
    """Matrices with these variances along the axes of a frame."""
    return jnp.einsum("...ij,...j,...kj->...ik", frame, variances, frame)


def axes(matrices: Float[Array, "*b d d"]) -> Float[Array, "*b d d"]:
    """Eigenvectors, by ascending eigenvalue."""
    return jnp.linalg.eigh(matrices)[1]


def shared_axes(matrices: Float[Array, "k d d"]) -> Float[Array, "d d"]:
    """Eigenvectors of matrices that share them: those of a combination without ties."""
    k = matrices.shape[0]
    weights = 1 + (_GOLDEN * jnp.arange(k, dtype=matrices.dtype)) % 1
    return axes(jnp.tensordot(weights / jnp.trace(matrices, axis1=1, axis2=2), matrices, axes=1))


def common_frame(
    scatter: Float[Array, "k d d"],
    counts: Float[Array, " k"],
    cost: Callable[[Float[Array, "k d"], Float[Array, " k"]], Array],
    previous: Float[Array, "k d d"] | None,
) -> Float[Array, "d d"]:
    """The frame that minimises a cost of the variances along its axes.

    The cost has several minima over the orthogonal matrices. The search starts where it is
    lowest among the axes of the pooled scatter, of each component's, and those of the
    ``previous`` covariances, so that it ends no higher than there. It goes by Newton's method
    where the angles are few, else by rotations, for which the cost must be concave.
    """
    d = scatter.shape[-1]
    shares = counts / jnp.sum(counts)

    def objective(frame: Array, data: tuple[Array, Array]) -> Array:
        scatter, shares = data
        return cost(along(frame, scatter), shares)

    starts = axes(jnp.concatenate([jnp.sum(scatter, axis=0, keepdims=True), scatter]))
    if previous is not None:
        starts = jnp.concatenate([shared_axes(previous)[None], starts])
    costs = jax.vmap(lambda frame: objective(frame, (scatter, shares)))(starts)
    start = starts[jnp.argmin(jnp.where(jnp.isnan(costs), jnp.inf, costs))]
    size, data = d * (d - 1) // 2, (scatter, shares)
    if d <= _FEW_AXES:
        return minimise(objective, turned, start, size, data)
    found = lax.stop_gradient(swept(*lax.stop_gradient((start, *data)), cost))
    return differentiable(objective, turned, found, jnp.zeros(size, found.dtype), data)
