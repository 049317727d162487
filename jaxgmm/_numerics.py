"""Arithmetic with a stated contract, shared by every room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Rows handled at once by `sum_over_blocks`: working memory is O(block), and the
# features of one block stay in cache.
BLOCK_ROWS = 8192

# Share of `sqrt(n) eps |objective|` that a sum of n rounded terms may lose, times
# the dozen or so operations behind every term.
_ROUNDING_FACTOR = 64.0


class Affine(NamedTuple):
    """The map ``z = (x - shift) / scale`` between user's and working units."""

    shift: Float[Array, " d"]
    scale: Float[Array, " d"]

    def apply(self, x: Array) -> Array:
        return (x - self.shift) / self.scale

    def invert(self, z: Array) -> Array:
        return z * self.scale + self.shift

    @property
    def log_scale(self) -> Array:
        """log |dx/dz| of one row."""
        return jnp.sum(jnp.log(self.scale))


def as_rows(x: Array) -> Array:
    """Data with a column axis: a vector is one feature."""
    return x[:, None] if x.ndim == 1 else x


def log_sum_exp(logits: Float[Array, "k n"]) -> Float[Array, " n"]:
    """log of the column sums of ``exp(logits)``; a column of -inf gives -inf."""
    top = jnp.max(logits, axis=0)
    safe = lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0.0))
    return jnp.log(jnp.sum(jnp.exp(logits - safe), axis=0)) + safe


def rounding_bound(objective: Array, total_weight: Array, cancellation: Array) -> Array:
    """How far rounding alone may lower an objective that sums ``total_weight`` rows.

    Row terms are of order one to ten in working units, and ``cancellation`` more where
    large parts of them cancel, so that the bound counts the rows as well as the sum.
    """
    eps = jnp.finfo(objective.dtype).eps
    return _ROUNDING_FACTOR * eps * (jnp.abs(objective) + total_weight * (1 + cancellation))


def weighted_moments(x: Array, sample_weight: Array | None) -> tuple[Array, Array, Array]:
    """Total weight, mean and scatter matrix about the mean (two passes, no cancellation)."""
    rows = x.shape[0]
    weight = jnp.ones(rows, x.dtype) if sample_weight is None else sample_weight
    total = jnp.sum(weight)
    # A first row as provisional origin keeps the mean exact at large offsets.
    mean = x[0] + weight @ (x - x[0]) / total

    def block_scatter(block: Array, w: Array, _: Array | int) -> Array:
        centred = block - mean
        return (w * centred.T) @ centred

    return total, mean, sum_over_blocks(block_scatter, x, weight)


def sum_over_blocks(
    function: Callable[..., Any], x: Array, weight: Array, block: int = BLOCK_ROWS
) -> Any:
    """Sum ``function(rows, weights, first)``, a pytree of statistics, over blocks of rows.

    ``first`` is the index of the first row of a block.

    Holds one block of intermediates at a time. The tail that does not fill a block
    is summed on its own, so nothing is padded or copied.
    """
    n = x.shape[0]
    if n <= block:
        return function(x, weight, 0)
    full, tail = divmod(n, block)

    def add(total: Any, start: Array) -> tuple[Any, None]:
        rows = lax.dynamic_slice_in_dim(x, start, block)
        weights = lax.dynamic_slice_in_dim(weight, start, block)
        return jax.tree.map(jnp.add, total, function(rows, weights, start)), None

    total, _ = lax.scan(add, function(x[:block], weight[:block], 0), block * jnp.arange(1, full))
    if tail:
        last = function(x[full * block :], weight[full * block :], full * block)
        total = jax.tree.map(jnp.add, total, last)
    return total


def symmetrise(matrix: Float[Array, "... d d"]) -> Float[Array, "... d d"]:
    return 0.5 * (matrix + jnp.swapaxes(matrix, -1, -2))
