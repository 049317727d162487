"""Newton's method to the top of a density: never downwards, from any start."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

MAX_STEPS = 100
# What is added to the absolute curvature, in shares of the largest: all are tried at once.
_DAMPING = (0.0, *np.logspace(-10, 2, 13))


class Ascent(NamedTuple):
    """Where Newton's method is.

    Attributes
    ----------
    point : (d,) array
    gradient : (d,) array
    curvature : (d, d) array
        Minus the Hessian.
    n_steps : int
        Steps taken.
    going : bool
        Whether there may be a step to take.
    arrived : bool
        Whether the last step promised no gain beyond rounding.
    done : bool
        Whether nothing is left to compute.
    """

    point: Float[Array, " d"]
    gradient: Float[Array, " d"]
    curvature: Float[Array, "d d"]
    n_steps: Array
    going: Array
    arrived: Array
    done: Array


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

    Returns
    -------
    Ascent
        With the derivatives at its point.

    References
    ----------
    Levenberg (1944), Quarterly of Applied Mathematics 2:164-168; Nocedal and Wright (2006),
    Numerical Optimization, 2nd ed., section 3.4.
    """

    def body(state: Ascent) -> Ascent:
        gradient, hessian = derivatives(state.point)
        found = proposed(state.point, gradient, hessian)
        # The objective itself comes last: compiled code holds it once.
        heights = lax.map(value, found.points)
        return taken(state, gradient, hessian, found, heights, rounding(heights[-1]))

    return lax.while_loop(lambda state: ~state.done, body, beginning(point))


def beginning(point: Float[Array, " d"]) -> Ascent:
    """Nothing is computed yet."""
    nothing, no = jnp.zeros_like(point), jnp.array(False)
    square = nothing[:, None] * nothing
    return Ascent(point, nothing, square, jnp.array(0), ~no, no, no)


class Proposals(NamedTuple):
    """Where a step may lead, and last the point itself; and what the undamped one promises."""

    points: Float[Array, "s d"]
    promise: Array


def proposed(point: Float[Array, " d"], gradient: Array, hessian: Array) -> Proposals:
    """The ends of the damped steps."""
    damping, eps = jnp.asarray(_DAMPING, point.dtype), jnp.finfo(point.dtype).eps
    curvature, axes = jnp.linalg.eigh(-hessian)
    largest = jnp.max(jnp.abs(curvature))
    # Curvature below its own rounding is none.
    curvature = jnp.maximum(jnp.abs(curvature), point.size * eps * largest)
    slope = axes.T @ gradient
    steps = (slope / (curvature + damping[:, None] * largest)) @ axes.T
    points = point + jnp.concatenate([steps, jnp.zeros((1, point.size), point.dtype)])
    return Proposals(points, jnp.sum(slope**2 / curvature))


def taken(
    state: Ascent,
    gradient: Array,
    hessian: Array,
    found: Proposals,
    heights: Float[Array, " s"],
    bound: Array | float,
    most: Array | int = MAX_STEPS,
) -> Ascent:
    """The step that ends highest, if any is a step; ``bound`` is the rounding of a height."""
    heights, height = jnp.nan_to_num(heights[:-1], nan=-jnp.inf), heights[-1]
    arrived = found.promise <= bound
    best = jnp.where(arrived, 0, jnp.argmax(heights))
    higher = heights[best] > height - jnp.where(arrived, bound, 0)
    moves = state.going & higher & (state.n_steps < most)
    return Ascent(
        point=jnp.where(moves, found.points[best], state.point),
        gradient=gradient,
        curvature=-hessian,
        n_steps=state.n_steps + moves,
        going=moves & ~arrived,
        arrived=state.arrived | arrived,
        done=~moves,
    )
