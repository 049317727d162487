"""Values within their supports: steps that never leave, edges, and the way inwards.

On unit intervals, simplices and half lines steps are multiplicative, so that a value on the edge
stays where it is, and the derivatives along all other steps are finite.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpyro.distributions import biject_to, constraints

# Values closer to an edge than this share may have been drawn to it.
_NEAR = 0.01
# And where the logarithm of their distance from it is known by less than so many rows they have.
_HELD_ROWS = 1e-3


def freedom(support: Any, value: Array) -> int:
    """How many numbers `stepped` takes."""
    if _base(support) is constraints.simplex:
        return value.size // value.shape[-1] * (value.shape[-1] - 1)
    return biject_to(support).inv(value).size


def stepped(support: Any, value: Array, step: Float[Array, " m"]) -> Array:
    """The value a step away: a smooth map of its `freedom`, zero to the value itself."""
    base = _base(support)
    if base is constraints.simplex:
        # Logits against the largest entry, which is not zero.
        largest, others = _largest(value), step.reshape(*value.shape[:-1], -1)
        logits = jnp.where(largest, 0, jnp.take_along_axis(_padded(others), _place(largest), -1))
        powers = value * jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
        return powers / jnp.sum(powers, axis=-1, keepdims=True)
    if base is constraints.unit_interval:
        odds = value * jnp.exp(step.reshape(value.shape))
        return odds / (odds + 1 - value)
    if base is constraints.positive:
        return value * jnp.exp(step.reshape(value.shape))
    to_value = biject_to(support)
    origin = to_value.inv(value)
    return to_value(origin + step.reshape(origin.shape))


def at_edge(support: Any, value: Array) -> Bool[Array, " m"]:
    """Which numbers of a step move a value that is close to an edge of its support.

    On half lines, which have no scale, that is close beside the largest of the component's.
    """
    base = _base(support)
    if base is constraints.simplex:
        # The places of the steps: all but the largest entry's.
        order = jnp.argsort(_largest(value), axis=-1, stable=True)[..., :-1]
        return jnp.ravel(jnp.take_along_axis(value, order, -1) < _NEAR)
    if base is constraints.unit_interval:
        return jnp.ravel(jnp.minimum(value, 1 - value) < _NEAR)
    if base is constraints.positive:
        return jnp.ravel(value <= _NEAR * _most(value))
    return jnp.zeros(freedom(support, value), bool)


def held(near: np.ndarray, information: np.ndarray) -> Bool[np.ndarray, " m"]:
    """Which values the likelihood holds on an edge, as far as rounding and tolerance go.

    Of those ``near`` one (see `at_edge`) the ones about whose distance the ``information``, minus
    the second derivatives along the steps, says nothing.
    """
    return np.asarray(near) & (np.abs(information) < _HELD_ROWS)


def inwards(support: Any, value: Array, margin: Array | float) -> Array:
    """The value, or where it is closer to an edge than ``margin`` a point at that distance."""
    base = _base(support)
    if base is constraints.simplex:
        held = jnp.maximum(value, margin)
        held = held / jnp.sum(held, axis=-1, keepdims=True)
        return jnp.where(jnp.all(value >= margin, axis=-1, keepdims=True), value, held)
    if base is constraints.unit_interval:
        return jnp.clip(value, margin, 1 - margin)
    if base is constraints.positive:
        most = _most(value)
        return jnp.maximum(value, margin * jnp.where(most > 0, most, 1))
    return value


def least_share(value: Array) -> float:
    """What stands for a share of zero: its logarithm has two finite derivatives."""
    return 4 * float(jnp.finfo(value.dtype).tiny) ** 0.5


def _base(support: Any) -> Any:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def _most(value: Array) -> Array:
    """The largest over the components."""
    return jnp.max(value, axis=0, keepdims=True) if value.ndim else value


def _largest(value: Array) -> Bool[Array, "... m"]:
    """One entry of each simplex."""
    return jnp.arange(value.shape[-1]) == jnp.argmax(value, axis=-1, keepdims=True)


def _place(largest: Bool[Array, "... m"]) -> Array:
    """For each entry which of the steps is its own; the largest has none."""
    others = jnp.where(largest, 0, 1)
    return jnp.cumsum(others, axis=-1) - others


def _padded(steps: Array) -> Array:
    return jnp.concatenate([steps, jnp.zeros_like(steps[..., :1])], axis=-1)
