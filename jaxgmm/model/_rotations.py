"""Frames by plane rotations: never upwards, at a price that does not grow with the angles' cube.

A concave cost of the variances along the axes lies below its tangent. The tangent is a sum over
axes, of which a turn in the plane of two changes their two terms: its best angle is that of an
eigenvector of a 2 x 2 matrix, and turns in planes that share no axis do not disturb each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxgmm.local import MOST_ROUNDS, ROUNDING

Cost = Callable[[Float[Array, "k d"], Float[Array, " k"]], Array]


class _State(NamedTuple):
    frame: Float[Array, "d d"]
    scatter: Float[Array, "k d d"]  # seen in the frame
    value: Array
    sweeps: Array
    going: Array


def swept(
    frame: Float[Array, "d d"],
    scatter: Float[Array, "k d d"],
    shares: Float[Array, " k"],
    cost: Cost,
) -> Float[Array, "d d"]:
    """A frame along whose axes a concave ``cost`` of the variances is no higher.

    Sweeps over all planes until one gains no more than rounding.

    References
    ----------
    Flury and Gautschi (1986), SIAM J. Sci. Stat. Comput. 7:169-184, for planes in turn; Browne
    and McNicholas (2014), Adv. Data Anal. Classif. 8:217-226, for the tangent.
    """
    planes = jnp.asarray(_planes(frame.shape[0]))
    eps = jnp.finfo(frame.dtype).eps

    def turn(
        carry: tuple[Array, Array], plane: Int[Array, "2 planes"]
    ) -> tuple[tuple[Array, Array], None]:
        (frame, seen), (p, q) = carry, plane
        slopes = jax.grad(cost)(_variances(seen), shares)
        weights = slopes[:, p] - slopes[:, q]
        first, both, second = (
            jnp.sum(weights * seen[:, i, j], axis=0) for i, j in ((p, p), (p, q), (q, q))
        )
        flat = (both == 0) & (first == second)
        angle = jnp.where(flat, 0, 0.5 * jnp.arctan2(-2 * both, second - first))
        cos, sin = jnp.cos(angle), jnp.sin(angle)

        def rotated(columns: Array) -> Array:
            one, other = columns[..., p], columns[..., q]
            columns = columns.at[..., p].set(cos * one + sin * other)
            return columns.at[..., q].set(cos * other - sin * one)

        return (rotated(frame), rotated(jnp.swapaxes(rotated(seen), 1, 2))), None

    def body(state: _State) -> _State:
        (frame, seen), _ = lax.scan(turn, (state.frame, state.scatter), planes)
        value = cost(_variances(seen), shares)
        gain = state.value - value
        frame, seen, kept = jax.tree.map(
            lambda new, old: jnp.where(gain > 0, new, old),
            (frame, seen, value),
            (state.frame, state.scatter, state.value),
        )
        going = gain > ROUNDING * eps * (1 + jnp.abs(value))
        return _State(frame, seen, kept, state.sweeps + 1, going)

    seen = jnp.einsum("ij,kil,lm->kjm", frame, scatter, frame)
    first = cost(_variances(seen), shares)
    initial = _State(frame, seen, first, jnp.array(0), jnp.array(True))
    return lax.while_loop(lambda s: s.going & (s.sweeps < MOST_ROUNDS), body, initial).frame


def _variances(seen: Float[Array, "k d d"]) -> Float[Array, "k d"]:
    return jnp.diagonal(seen, axis1=1, axis2=2)


def _planes(d: int) -> Int[np.ndarray, "rounds 2 planes"]:
    """Every pair of axes once, in rounds of pairs that share none (a round-robin tournament).

    Where d is odd an axis sits out each round, as a pair of its own that no turn moves.
    """
    even = d + d % 2
    circle, rounds = list(range(even)), []
    for _ in range(even - 1):
        pairs = [(circle[i], circle[-1 - i]) for i in range(even // 2)]
        rounds.append([(min(p), max(p) if max(p) < d else min(p)) for p in pairs])
        circle = [circle[0], circle[-1], *circle[1:-1]]
    return np.swapaxes(np.array(rounds), 1, 2)
