"""Rows seen through a mixture, in the form of its density that keeps their digits.

The fast form is one matrix product; where its terms cancel, the centred one is needed
(`_centred`). Everything outside EM's own steps, whose sums say more, asks here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxgmm._numerics import map_over_blocks, sum_over_blocks, total_log_sum_exp
from jaxgmm.model._gaussian import Gaussian, GaussianParams


class _View(NamedTuple):
    """One form: log p(label, row) of a block of rows, and how many to look at in one."""

    logits: Callable[[Array], Float[Array, "k n"]]
    block: int


def _look(
    family: Gaussian, params: GaussianParams, x: Array, see: Callable[[_View], Array]
) -> Array:
    """What ``see`` makes of the form that keeps its digits at ``params``."""

    def view(form: str) -> _View:
        shown, _ = family.centred_on(params)
        k = params.means.shape[0]
        block = shown.block_rows(x, k)
        if form == "centred":
            block = shown.centred(params.means).block_rows(x, k)
        return _View(functools.partial(_logits, family, params, form=form), block)

    if family.form is not None:
        return see(view(family.form))
    lost = family.loses_digits(params)
    return lax.cond(lost, lambda: see(view("centred")), lambda: see(view("fast")))


@functools.partial(jax.jit, static_argnames="see")
def by_row(
    family: Gaussian,
    params: GaussianParams,
    x: Array,
    see: Callable[[Float[Array, "k n"]], Array],
) -> Float[Array, "n ..."]:
    """``see`` of log p(label, row) for each row.

    Where the form is settled, all at once: whoever settles it differentiates, block by block.
    """

    def of(view: _View) -> Array:
        whole = x.shape[0] if family.form is not None else view.block
        return map_over_blocks(lambda rows: see(view.logits(rows)), x, whole)

    return _look(family, params, x, of)


@jax.jit
def total(
    family: Gaussian, params: GaussianParams, x: Array, sample_weight: Array | None
) -> Float[Array, ""]:
    """Weighted sum of the rows' log densities, one block at a time."""

    def of(view: _View) -> Array:
        def block(rows: Array, weights: Array, _: Array | int) -> Array:
            return total_log_sum_exp(view.logits(rows), weights, sample_weight is None)

        return sum_over_blocks(block, x, sample_weight, view.block)

    return _look(family, params, x, of)


@functools.partial(jax.jit, static_argnames="form")
def _logits(family: Gaussian, params: GaussianParams, x: Array, form: str) -> Float[Array, "k n"]:
    """log p(label, row), in the units that keep the squares of the rows small."""
    shown, working = family.centred_on(params)
    density = shown.centred(working.means) if form == "centred" else shown
    log_density = density.log_density(working, density.features(x))
    return jnp.log(params.weights)[:, None] + log_density
