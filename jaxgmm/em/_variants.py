"""Other ways to label the rows: classification, stochastic and annealed EM, as steps.

They differ from EM in the assignment alone. `classification` climbs an objective of its
own; `stochastic` and the soft part of `annealing` climb none, so that the laws of descent
and of convergence do not bind them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgmm._contract import LatentModel, expected_labels
from jaxgmm.em._step import Move, Point, Step, choose, em_step, evaluate, next_params
from jaxgmm.labels import one_hot, sampled_labels

# Annealing starts at this inverse temperature and reaches one after so many steps. Much
# lower or slower, and all components fall together before they can part again.
_SOFTEST, _ANNEALING_STEPS = 0.7, 20


def hard_labels(logits: Float[Array, "k n"], first_row: Array | int) -> tuple[Array, Array]:
    """Each row wholly in its most probable label, and its log density jointly with it."""
    labels = jnp.argmax(logits, axis=0)
    return one_hot(labels, logits), jnp.max(logits, axis=0)


def tempered_labels(
    inverse_temperature: Array, logits: Float[Array, "k n"], first_row: Array | int
) -> tuple[Array, Array]:
    """Posterior probabilities to a power at most one, rescaled, and log p(row)."""
    softened, _ = expected_labels(inverse_temperature * logits, first_row)
    return softened, expected_labels(logits, first_row)[1]


def classification(
    model: LatentModel, x: Array, sample_weight: Array | None, key: PRNGKeyArray | None
) -> Step:
    """Classification EM (Celeux and Govaert, 1992, Comput. Stat. Data Anal. 14:315-332).

    The objective is the classification likelihood, the sum over rows of the largest
    log p(label, row), plus the log prior; it rises and ends in finitely many steps.
    """
    return em_step(model, x, sample_weight, hard_labels, declared=False)


class _Chain(NamedTuple):
    key: PRNGKeyArray
    drawn: Array
    best: Point


def stochastic(
    model: LatentModel, x: Array, sample_weight: Array | None, key: PRNGKeyArray | None
) -> Step:
    """Stochastic EM (Celeux and Diebolt, 1985, Comput. Stat. Quarterly 2:73-82).

    Labels are drawn anew in every step, for ``max_iter`` steps. The result is the point of
    the highest log joint that the chain visited (Biernacki, Celeux and Govaert, 2003,
    Comput. Stat. Data Anal. 41:561-575), which needs no burn-in and which a switch of the
    labels does not spoil, as it would an average. Labels on which a component would
    collapse are drawn again.
    """

    assert key is not None

    def init(point: Point, start: Array) -> _Chain:
        return _Chain(jax.random.fold_in(key, start), jnp.int32(0), point)

    def update(point: Point, chain: _Chain) -> tuple[Point, _Chain, Array]:
        params = next_params(model, point)
        refused = model.collapsed(params) & ~jnp.isnan(point.log_likelihood)
        params = choose(refused, point.params, params)
        assign = functools.partial(sampled_labels, jax.random.fold_in(chain.key, chain.drawn))
        new = evaluate(model, params, x, sample_weight, assign)
        better = ~(new.objective <= chain.best.objective)
        best = choose(better, new, chain.best)
        return new, _Chain(chain.key, chain.drawn + 1, best), jnp.int32(Move.OTHER)

    return Step(init, update, result=lambda point, chain: chain.best)


def annealing(
    model: LatentModel, x: Array, sample_weight: Array | None, key: PRNGKeyArray | None
) -> Step:
    """Deterministic annealing EM (Ueda and Nakano, 1998, Neural Networks 11:271-282).

    Labels are softened by an inverse temperature that rises geometrically to one, by one
    step of EM each; from there on this is EM. The trace shows the log joint throughout.
    """

    def update(point: Point, done: Array) -> tuple[Point, Array, Array]:
        left = jnp.maximum(1 - done / _ANNEALING_STEPS, 0.0).astype(point.log_likelihood.dtype)
        assign = functools.partial(tempered_labels, _SOFTEST**left)
        new = evaluate(model, next_params(model, point), x, sample_weight, assign)
        move = jnp.where(done > _ANNEALING_STEPS, Move.EM, Move.OTHER)
        return new, done + 1, jnp.int32(move)

    return Step(lambda *_: jnp.int32(0), update)


def _expectation(
    model: LatentModel, x: Array, sample_weight: Array | None, key: PRNGKeyArray | None
) -> Step:
    return em_step(model, x, sample_weight)


# A new variant is a function (model, x, sample_weight, key) -> step and one line here.
ALGORITHMS: dict[str, Callable[[LatentModel, Array, Array | None, PRNGKeyArray | None], Step]] = {
    "em": _expectation,
    "classification": classification,
    "stochastic": stochastic,
    "annealing": annealing,
}
RANDOM_ALGORITHMS = {"stochastic"}
