"""A step of EM: from one point of the search to the next, at the price of one E-step.

Whatever changes the path (acceleration, other ways to label the rows) is a `Step` too, so
that one loop runs them all.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxgmm._contract import Assignment, LatentModel, Params, Statistics, expected_labels
from jaxgmm._numerics import rounding_bound, then
from jaxgmm._sharded import of_block


class Point(NamedTuple):
    """Parameters, and what the E-step says of them."""

    params: Params
    statistics: Statistics
    log_likelihood: Array  # NaN until the first E-step
    log_prior: Array
    collapsed: Array

    @property
    def objective(self) -> Array:
        return self.log_likelihood + self.log_prior

    @property
    def sound(self) -> Array:
        """Whether the density is defined and finite here."""
        return ~self.collapsed & jnp.isfinite(self.objective)


class Move(enum.IntEnum):
    """What an update did, so that the loop judges convergence and descent by EM steps only."""

    EM = 0
    OTHER = 1  # a leap, or a step towards another objective
    REFUSED = 2  # tried, and stayed


class Step(NamedTuple):
    """A way to go on; ``memory`` is whatever it carries from one update to the next.

    Attributes
    ----------
    init : (point, number of the restart) -> memory
        The point is not evaluated yet: the first update does that and moves nowhere.
    update : (point, memory) -> (point, memory, `Move`)
        One M-step and one E-step.
    result : (point, memory) -> point
        What a run that ends here returns.
    declared : bool
        Whether the objective of its points is the model's own.
    leaps : bool
        Whether it moves other than by its own steps of EM.
    """

    init: Callable[[Point, Array], Any]
    update: Callable[[Point, Any], tuple[Point, Any, Array]]
    result: Callable[[Point, Any], Point] = lambda point, _: point
    declared: bool = True
    leaps: bool = False


def em_step(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    assign: Assignment = expected_labels,
    declared: bool = True,
) -> Step:
    """An M-step, then an E-step at the parameters it gave (Dempster, Laird and Rubin, 1977)."""
    if not model.closed:
        return _guarded_step(model, x, sample_weight)

    def update(point: Point, memory: None) -> tuple[Point, None, Array]:
        params = next_params(model, point)
        return evaluate(model, params, x, sample_weight, assign), memory, jnp.int32(Move.EM)

    return Step(lambda *_: None, update, declared=declared)


def _guarded_step(model: LatentModel, x: Array, sample_weight: Array | None) -> Step:
    """A share of an M-step that may overshoot, then an E-step; refused where that is lower.

    The memory is the share: a quarter after a refusal, twice as much after a step that was kept,
    at most all of it. By Fisher's identity the gradient of Q is that of the objective, so that a
    short enough step rises.
    """
    total = jnp.asarray(x.shape[0], x.dtype) if sample_weight is None else jnp.sum(sample_weight)

    m_step: Callable[..., Params] = model.m_step

    def moved(point: Point, share: Array) -> Params:
        first = m_step(point.statistics, point.params, share)
        if model.newton == 1:
            return first
        held = _held_labels(model, point.params, x)

        def again(_: Array, params: Params) -> Params:
            statistics, _ = model.e_step(params, x, sample_weight, held)
            return m_step(statistics, params, share)

        return lax.fori_loop(1, model.newton, again, first)

    def update(point: Point, share: Array) -> tuple[Point, Array, Array]:
        first = jnp.isnan(point.log_likelihood)
        params = choose(first, point.params, moved(point, share))
        new = evaluate(model, params, x, sample_weight)
        bound = rounding_bound(point.objective, total, model.cancellation(point.params))
        # Up a pole is a way up too: the loop says where that leads.
        higher = jnp.isfinite(new.objective) & (new.objective >= point.objective - bound)
        kept, whole = first | higher, share == 1
        move = jnp.where(kept, jnp.where(whole, Move.EM, Move.OTHER), Move.REFUSED)
        share = jnp.where(kept, jnp.minimum(1, 2 * share), share / 4)
        return choose(kept, new, point), share, move.astype(jnp.int32)

    return Step(lambda *_: jnp.ones((), x.dtype), update)


def _held_labels(model: LatentModel, params: Params, x: Array) -> Assignment:
    """The labels of EM at ``params``, wherever the E-step is made."""

    def assign(logits: Float[Array, "k n"], first_row: Array | int) -> tuple[Array, Array]:
        rows = of_block(x, first_row, logits.shape[1])
        return model.responsibilities(params, rows).T, expected_labels(logits, first_row)[1]

    return assign


def evaluate(
    model: LatentModel,
    params: Params,
    x: Array,
    sample_weight: Array | None,
    assign: Assignment = expected_labels,
) -> Point:
    return evaluated(model, params, *model.e_step(params, x, sample_weight, assign))


def evaluated(
    model: LatentModel, params: Params, statistics: Statistics, log_likelihood: Array
) -> Point:
    """The point at which an E-step was made."""
    log_prior = then(log_likelihood, lambda: model.log_prior(params))
    return Point(params, statistics, log_likelihood, log_prior, model.collapsed(params))


def unevaluated(model: LatentModel, params: Params, x: Array) -> Point:
    """A start: parameters whose statistics nobody has computed yet."""
    empty = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(lambda: evaluate(model, params, x, None)),
    )
    unknown = jnp.full_like(empty.log_likelihood, jnp.nan)
    return empty._replace(params=params, log_likelihood=unknown)


def next_params(model: LatentModel, point: Point) -> Params:
    """The M-step; at a start its own parameters, so that the program holds one E-step."""
    moved = model.m_step(point.statistics, point.params)
    return choose(jnp.isnan(point.log_likelihood), point.params, moved)


def choose(condition: Array, yes: Any, no: Any) -> Any:
    """One of two trees by a scalar condition."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
