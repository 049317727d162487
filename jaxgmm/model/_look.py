"""Rows seen through a mixture, in the form of its density that keeps their digits.

Of Gaussians the fast form is one matrix product; where its terms cancel, the centred one is
needed (`_centred`). Everything outside EM's own steps, whose sums say more, asks here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgmm._contract import Params
from jaxgmm._numerics import map_over_blocks, normalise, sum_over_blocks, total_log_sum_exp
from jaxgmm._programs import program
from jaxgmm._sharded import beside_rows
from jaxgmm.model._family import Family, View


@program(static_argnames="see")
def by_row(
    family: Family,
    params: Params,
    x: Array,
    see: Callable[[Float[Array, "k n"]], Array],
) -> Float[Array, "n ..."]:
    """``see`` of log p(label, row) for each row."""
    family, params = beside_rows(x, (family, params))
    log_weights = jnp.log(params.weights)[:, None]

    def of(view: View) -> Array:
        block = x.shape[0] if view.whole else view.block
        return map_over_blocks(lambda rows: see(log_weights + view.log_density(rows)), x, block)

    return family.look(params, x, of)


@program()
def total(
    family: Family, params: Params, x: Array, sample_weight: Array | None
) -> Float[Array, ""]:
    """Weighted sum of the rows' log densities, one block at a time."""
    family, params = beside_rows(x, (family, params))
    log_weights = jnp.log(params.weights)[:, None]

    def of(view: View) -> Array:
        # Truth values say which rows are there.
        whole = sample_weight is None or sample_weight.dtype == bool

        def block(rows: Array, weights: Array, _: Array | int) -> Array:
            logits = log_weights + view.log_density(rows)
            return total_log_sum_exp(logits, weights, whole)

        return sum_over_blocks(block, x, sample_weight, view.block)

    return family.look(params, x, of)


@program()
def counts(family: Family, params: Params, x: Array) -> Float[Array, " n"]:
    """How often each row counts in the M-step of its component, the label summed out."""
    labels = by_row(family, params, x, _probabilities)
    block = family.block_rows(x, labels.shape[1])
    return jnp.sum(labels * map_over_blocks(lambda r: family.row_weights(params, r).T, x, block), 1)


@program()
def fill(family: Family, params: Params, x: Array, key: PRNGKeyArray | None) -> Float[Array, "n d"]:
    """The rows with their holes filled, the labels summed out; with a key all is drawn."""
    if key is None:
        return family.impute(params, x, by_row(family, params, x, _probabilities), None)
    key, key_labels = jax.random.split(key)
    noise = jax.random.gumbel(key_labels, (len(x), params.weights.shape[0]), x.dtype)
    label = jnp.argmax(by_row(family, params, x, jnp.transpose) + noise, axis=1)
    labels = jax.nn.one_hot(label, noise.shape[1], dtype=x.dtype)
    return family.impute(params, x, labels, key)


def _probabilities(logits: Float[Array, "k n"]) -> Float[Array, "n k"]:
    return normalise(logits)[0].T


@program(static_argnames="form")
def log_density(family: Any, params: Params, x: Array, form: str) -> Float[Array, "k n"]:
    """log p(row | label) of Gaussians in one of their forms."""
    return family.seen(params, x, form)
