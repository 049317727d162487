"""Newton's method to the top of a density: never downwards, from any start."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

_MAX_STEPS = 100
# What is added to the absolute curvature, in shares of the largest: all are tried at once.
_DAMPING = (0.0, *np.logspace(-10, 2, 13))


class Ascent(NamedTuple):
    """Where Newton's method is.

    Attributes
    ----------
    point : (d,) array
    value : scalar
    gradient : (d,) array
    curvature : (d, d) array
        Minus the Hessian.
    n_steps : int
        Steps taken.
    going : bool
        Whether there is a step to take.
    arrived : bool
        Whether the last step promised no gain beyond rounding.
    """

    point: Float[Array, " d"]
    value: Array
    gradient: Float[Array, " d"]
    curvature: Float[Array, "d d"]
    n_steps: Array
    going: Array
    arrived: Array


def ascend(
    value: Callable[[Array], Array],
    derivatives: Callable[[Array], tuple[Array, Array]],
    point: Float[Array, " d"],
    rounding: Callable[[Array], Array],
) -> Ascent:
    """A stationary point of ``value`` that is no lower than the start.

    Steps solve ``(|H| + m I) step = gradient`` for several dampings m, where |H| is minus the
    Hessian with its eigenvalues made positive; the one that ends highest is taken, and
    none that does not end higher. Once the undamped step promises no more than ``rounding``
    of the value, it is taken and is the last one.

    Parameters
    ----------
    value : callable
        From a point to the objective.
    derivatives : callable
        From a point to gradient and Hessian.
    point : (d,) array
        Where to start.
    rounding : callable
        From a value to how much of it rounding may have changed.

    References
    ----------
    Levenberg (1944), Quarterly of Applied Mathematics 2:164-168; Nocedal and Wright (2006),
    Numerical Optimization, 2nd ed., section 3.4.
    """
    damping = jnp.asarray(_DAMPING, point.dtype)
    eps = jnp.finfo(point.dtype).eps

    def at(point: Array, value: Array, n_steps: Array, going: Array, arrived: Array) -> Ascent:
        gradient, hessian = derivatives(point)
        return Ascent(point, value, gradient, -hessian, n_steps, going, arrived)

    def body(state: Ascent) -> Ascent:
        curvature, axes = jnp.linalg.eigh(state.curvature)
        largest = jnp.max(jnp.abs(curvature))
        # Curvature below its own rounding is none.
        curvature = jnp.maximum(jnp.abs(curvature), point.size * eps * largest)
        slope = axes.T @ state.gradient
        steps = (slope / (curvature + damping[:, None] * largest)) @ axes.T
        values = lax.map(lambda step: value(state.point + step), steps)
        values = jnp.where(jnp.isnan(values), -jnp.inf, values)
        bound = rounding(state.value)
        arrived = jnp.sum(slope**2 / curvature) <= bound
        best = jnp.where(arrived, 0, jnp.argmax(values))
        moves = values[best] > state.value - jnp.where(arrived, bound, 0)
        return at(
            jnp.where(moves, state.point + steps[best], state.point),
            jnp.where(moves, values[best], state.value),
            state.n_steps + moves,
            moves & ~arrived,
            arrived,
        )

    first = at(point, value(point), jnp.array(0), jnp.array(True), jnp.array(False))
    finite = jnp.all(jnp.isfinite(first.gradient)) & jnp.all(jnp.isfinite(first.curvature))
    first = first._replace(going=finite & jnp.isfinite(first.value))
    return lax.while_loop(lambda s: s.going & (s.n_steps < _MAX_STEPS), body, first)
