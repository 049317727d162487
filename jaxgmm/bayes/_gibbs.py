"""Blocked Gibbs sampling of a model with a conjugate prior, compiled once per shape.

A sweep draws all labels given the parameters, then all parameters given the labels. It
costs one E-step.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray

from jaxgmm._checks import everywhere
from jaxgmm._contract import Assignment, LatentModel, Params, Statistics
from jaxgmm._numerics import normalise
from jaxgmm._programs import program, rung
from jaxgmm._sharded import of_block, rows_here
from jaxgmm.bayes._chains import Draws, chains_first, iterate, run, trail
from jaxgmm.bayes._engine import Engine
from jaxgmm.labels import row_keys, sampled_labels


class Chain(NamedTuple):
    """Where a chain is: parameters, its key, and whether they are those before."""

    params: Params
    key: PRNGKeyArray
    refused: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gibbs(Engine):
    """Data augmentation: all labels given the parameters, then all parameters given the labels.

    A chain from each start, where the prior is conjugate. A weight is a number of copies of a row,
    and each copy has a label of its own: the target is that of the marginal likelihood to the
    power of the weight. It has no options.

    References
    ----------
    Diebolt and Robert (1994), JRSS B 56:363-375.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> jg.bayes.Gibbs()
    Gibbs()
    """

    name = "gibbs"

    def draw(self, model, x, sample_weight, starts, key, schedule, progress):
        counted = sample_weight is not None and sample_weight.dtype != bool
        if counted:
            everywhere(x, lambda: check_copies(rows_here(sample_weight), model.imputes))
        chains = starts.n_chains
        state = Chain(
            starts.params, jax.random.split(key, chains), jax.device_put(np.zeros(chains, bool))
        )
        # A sweep records what it starts from: the first one, the start, is no draw.
        schedule = schedule._replace(n_warmup=schedule.n_warmup + 1)
        kept = _room(model, x, sample_weight, state, rung(schedule.n_draws))

        def advance(state: Chain, kept: Draws, start: int, stop: int) -> tuple[Chain, Draws]:
            return _advance(model, x, sample_weight, state, kept, start, stop, schedule[1:])

        _, kept = run(advance, state, kept, schedule.total, f"Gibbs, {chains} chains", progress)
        return chains_first(kept, schedule.n_draws)._replace(n_warmup=schedule.n_warmup - 1)


def check_copies(weights: np.ndarray, imputes: bool = False) -> None:
    """Refuse weights that are no numbers of copies."""
    if np.any(weights % 1 != 0):
        raise ValueError(
            "sample_weight: Gibbs sampling labels each copy of a row, so weights must be whole "
            'numbers; use method="nuts"'
        )
    if imputes and np.any(weights > 1):
        raise ValueError(
            "sample_weight: Gibbs sampling imputes each row once, so that rows with missing values "
            'or noise count once or not at all; repeat the rows, or use method="nuts"'
        )


def _sweep(
    model: LatentModel, x: Array, sample_weight: Array | None, chain: Chain
) -> tuple[Chain, Draws]:
    """Parameters to parameters by way of labels; the record is of the former."""
    keys = jax.random.split(chain.key, 3)
    return swept(model, chain, keys, *labelled(model, x, sample_weight, chain.params, keys[1]))


def swept(
    model: LatentModel,
    chain: Chain,
    keys: Key[Array, " 3"],
    statistics: Statistics,
    log_likelihood: Array,
) -> tuple[Chain, Draws]:
    """The end of a sweep whose labels were drawn by the second of three ``keys``."""
    key, _, key_params = keys
    record = Draws(chain.params, {"diverging": chain.refused}, log_likelihood)
    drawn = model.updated(statistics).draw_prior(key_params)
    # Only rounding can take a draw out of the space of the density: the chain then waits.
    refused = model.collapsed(drawn)
    params = jax.tree.map(functools.partial(jnp.where, refused), chain.params, drawn)
    return Chain(params, key, refused), record


def labelled(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    params: Params,
    key: PRNGKeyArray,
    before: Array | int = 0,
) -> tuple[Statistics, Array]:
    """Statistics of the rows with labels and missing values drawn, and the log-likelihood.

    A weight is a number of copies of a row, each with a label of its own, or says whether the
    row is there. ``before`` says how many rows there are before these.
    """
    if model.imputes:
        key, key_values = jax.random.split(key)
        model = model.imputing(key_values)
    assign: Assignment = lambda logits, first: sampled_labels(key, logits, before + first)
    if sample_weight is None or sample_weight.dtype == bool:
        return model.e_step(params, x, sample_weight, assign)
    return model.e_step(
        params, x, None, functools.partial(_labelled_copies, key, sample_weight, before)
    )


def _labelled_copies(
    key: PRNGKeyArray,
    copies: Float[Array, " all"],
    before: Array | int,
    logits: Float[Array, "k n"],
    first_row: Array | int,
) -> tuple[Array, Array]:
    """How many copies of each row each label gets, and log p(row) once per copy."""
    probability, log_density = normalise(logits)
    copies = of_block(copies, first_row, logits.shape[1])
    draw = functools.partial(jax.random.multinomial, dtype=logits.dtype)
    counts = jax.vmap(draw)(row_keys(key, logits, before + first_row), copies, probability.T)
    return counts.T, copies * log_density


@program(static_argnames="n_draws")
def _room(
    model: LatentModel, x: Array, sample_weight: Array | None, state: Chain, n_draws: int
) -> Draws:
    sweep = functools.partial(_sweep, model, x, sample_weight)
    return trail(jax.eval_shape(jax.vmap(sweep), state)[1], n_draws)


@program(donate_argnames="kept")
def _advance(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    state: Chain,
    kept: Draws,
    start: Array | int,
    stop: Array | int,
    counts: Any,
) -> tuple[Chain, Draws]:
    sweep = functools.partial(_sweep, model, x, sample_weight)
    step = lambda _, state: jax.vmap(sweep)(state)
    n_warmup, thinning = counts
    return iterate(step, state, kept, start, stop, n_warmup, thinning, x)
