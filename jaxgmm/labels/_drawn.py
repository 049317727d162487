"""Labels drawn from their posterior, for every engine that draws them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from jaxgmm._numerics import normalise


def sampled_labels(
    key: PRNGKeyArray, logits: Float[Array, "k n"], first_row: Array | int
) -> tuple[Float[Array, "k n"], Float[Array, " n"]]:
    """Each row wholly in a label drawn from its posterior, and log p(row).

    The noise of a row depends on the key and on the row's index alone, so that labels do
    not depend on how rows are cut into blocks.
    """
    probability, log_density = normalise(logits)
    return one_hot(drawn_labels(key, probability, first_row), logits), log_density


def drawn_labels(
    key: PRNGKeyArray, probability: Float[Array, "k n"], first_row: Array | int
) -> Int[Array, " n"]:
    """A label for each row, as in `sampled_labels`."""
    uniform = jax.vmap(lambda k: jax.random.uniform(k, (), probability.dtype))
    return _inverse_cdf(probability, uniform(row_keys(key, probability, first_row)))


def row_keys(
    key: PRNGKeyArray, logits: Float[Array, "k n"], first_row: Array | int
) -> Key[Array, " n"]:
    """A key for each row of a block."""
    rows = first_row + jnp.arange(logits.shape[1])
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)


def one_hot(labels: Int[Array, " n"], logits: Float[Array, "k n"]) -> Float[Array, "k n"]:
    """Ones where the labels are, in the form of ``logits``."""
    return jax.nn.one_hot(labels, logits.shape[0], dtype=logits.dtype, axis=0)


def _inverse_cdf(probability: Float[Array, "k n"], uniform: Float[Array, " n"]) -> Int[Array, " n"]:
    # At the edges of rounded sums a label of no probability to speak of could be hit, far
    # more often than its probability: those below rounding have none.
    known = probability > jnp.finfo(probability.dtype).eps
    edges = jnp.cumsum(jnp.where(known, probability, 0), axis=0)
    return jnp.sum(edges[:-1] <= uniform * edges[-1], axis=0)
