"""Newton's method on a small manifold: never upwards, and differentiable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Steps after which an M-step goes on as it is: EM needs no more than a gain.
MOST_ROUNDS = 60
# Shares of a Newton step that are tried at once.
_SHARES = tuple(4.0**-i for i in range(9))
# Units of rounding of the objective below which a promised gain cannot be seen.
ROUNDING = 64.0
# Curvature counts as no less than this share of the largest, both of unit diagonal: a longer
# step along a flat direction would only be refused.
_LEAST_CURVATURE = 1e-6


class _State(NamedTuple):
    point: Any
    value: Array
    step: Array
    gain: Array
    rounds: Array
    going: Array


def minimise(
    value: Callable[[Any, Any], Array],
    move: Callable[[Any, Array], Any],
    point: Any,
    size: int,
    data: Any,
) -> Any:
    """A minimum of ``value(point, data)``, no higher than the start.

    Parameters
    ----------
    value : callable
        The objective, of the order of one. All that derivatives are wanted for must come
        through ``data``.
    move : callable
        A chart: ``move(point, step)`` is the point ``size`` numbers away, smooth, and zero
        leaves the point where it is.
    point
        Where to start.
    size : int
        Dimension of the manifold.
    data
        A pytree.

    Returns
    -------
    point
        Steps go along the absolute curvature (Newton's where the objective is convex, down
        elsewhere) until the gain they promise is below the objective's rounding; a last
        step squares the distance that is left. Derivatives are those of the implicit
        function.

    References
    ----------
    Nocedal and Wright (2006), Numerical Optimization, 2nd ed., section 3.4.
    """
    if size == 0:
        return point
    dtype = jax.tree.leaves(data)[0].dtype
    here = jnp.zeros(size, dtype)
    last = lax.stop_gradient(_descend(value, move, *lax.stop_gradient((point, data)), here))
    return differentiable(value, move, last.point, last.step, data)


def differentiable(
    value: Callable[[Any, Any], Array],
    move: Callable[[Any, Array], Any],
    point: Any,
    step: Float[Array, " p"],
    data: Any,
) -> Any:
    """The minimum of ``value(point, data)`` that lies a ``step`` from ``point``, once found.

    Derivatives are those of the implicit function.
    """

    def gradient(step: Array) -> Array:
        return jax.grad(lambda s: value(move(point, s), data))(step)

    here = jnp.zeros_like(step)
    step = lax.custom_root(gradient, here, lambda _, __: step, _solve_symmetric)
    return move(point, step)


def _descend(value: Any, move: Any, point: Any, data: Any, here: Float[Array, " p"]) -> _State:
    eps = jnp.finfo(here.dtype).eps
    shares = jnp.asarray(_SHARES, here.dtype)

    def body(state: _State) -> _State:
        nearby = lambda step: value(move(state.point, step), data)
        step, gain = _downwards(*derivatives(nearby, here))
        values = jax.vmap(lambda share: nearby(share * step))(shares)
        values = jnp.where(jnp.isfinite(values), values, jnp.inf)
        best = jnp.argmin(values)
        arrived = gain <= ROUNDING * eps * (1 + jnp.abs(state.value))
        lower = values[best] < state.value
        going = lower & ~arrived
        moved = move(state.point, jnp.where(going, shares[best], 0) * step)
        return _State(
            point=moved,
            value=jnp.where(going, values[best], state.value),
            # The step that is left to take: none where the method got stuck.
            step=jnp.where(arrived, step, 0),
            gain=gain,
            rounds=state.rounds + 1,
            going=going,
        )

    first = value(point, data)
    initial = _State(
        point, first, here, jnp.inf * jnp.ones_like(first), jnp.array(0), jnp.array(True)
    )
    return lax.while_loop(lambda s: s.going & (s.rounds < MOST_ROUNDS), body, initial)


def derivatives(value: Callable[[Array], Array], at: Array) -> tuple[Array, Array]:
    """Gradient and Hessian; compiled code holds the gradient once."""

    def twice(step: Array) -> tuple[Array, Array]:
        gradient = jax.grad(value)(step)
        return gradient, gradient

    hessian, gradient = jax.jacfwd(twice, has_aux=True)(at)
    return gradient, hessian


def _downwards(gradient: Array, hessian: Array) -> tuple[Array, Array]:
    """A Newton step on the absolute curvature, and twice the gain that it promises."""
    size = jnp.abs(jnp.diagonal(hessian))
    eps = jnp.finfo(gradient.dtype).eps
    scale = 1 / jnp.sqrt(jnp.maximum(size, eps * jnp.max(size)) + jnp.finfo(eps.dtype).tiny)
    values, vectors = jnp.linalg.eigh(hessian * scale * scale[:, None])
    curvature = jnp.abs(values)
    # Along a flat direction, such as the turn of a circle, there is nothing to gain.
    flat = curvature <= gradient.size * eps * jnp.max(curvature)
    along = jnp.where(flat, 0, vectors.T @ (scale * gradient) / jnp.where(flat, 1, curvature))
    step = -scale * (vectors @ along)
    return step, -gradient @ step


def uphill(gradient: Float[Array, " p"], hessian: Float[Array, "p p"]) -> Float[Array, " p"]:
    """A Newton step on the absolute curvature, floored: up wherever the gradient is not zero.

    Linear in the gradient: the derivative at a stationary point is that of the implicit function.
    """
    size = lax.stop_gradient(jnp.abs(jnp.diagonal(hessian)))
    largest = jnp.max(size)
    info = jnp.finfo(gradient.dtype)
    scale = 1 / jnp.sqrt(jnp.maximum(size, info.eps * largest) + info.tiny)
    values, vectors = jnp.linalg.eigh(lax.stop_gradient(hessian) * scale * scale[:, None])
    curvature = jnp.abs(values)
    curvature = jnp.maximum(curvature, _LEAST_CURVATURE * jnp.max(curvature)) + info.tiny
    return scale * (vectors @ ((vectors.T @ (scale * gradient)) / curvature))


def _solve_symmetric(linear: Any, right: Array) -> Array:
    return jnp.linalg.pinv(jax.jacobian(linear)(right), hermitian=True) @ right
