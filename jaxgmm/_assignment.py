"""Matching of labels: the cheapest permutation, and how much the next one costs."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# All permutations are tried up to this many labels, the Hungarian method above.
_ENUMERATE = 5


def cheapest(cost: Float[Array, "s k k"]) -> Int[Array, "s k"]:
    """``order`` minimising ``sum_k cost[order[k], k]`` for each of S matrices."""
    draws, k, _ = cost.shape
    if k <= _ENUMERATE:
        orders, totals = _all_orders(cost)
        return orders[jnp.argmin(totals, axis=1)]
    shape = jax.ShapeDtypeStruct((draws, k), jnp.int32)
    return jax.pure_callback(_hungarian, shape, cost)


def margin(cost: Float[Array, "s k k"], order: Int[Array, "s k"]) -> Float[Array, " s"]:
    """What the second-cheapest permutation costs more than the cheapest, ``order``.

    Infinite where there is no other.
    """
    draws, k, _ = cost.shape
    if k == 1:
        return jnp.full(draws, jnp.inf, cost.dtype)
    if k <= _ENUMERATE:
        totals = jnp.sort(_all_orders(cost)[1], axis=1)
        return totals[:, 1] - totals[:, 0]
    shape = jax.ShapeDtypeStruct((draws,), cost.dtype)
    return jax.pure_callback(_hungarian_margin, shape, cost, order)


def _all_orders(cost: Array) -> tuple[Array, Array]:
    """Every permutation and its total cost under each matrix."""
    k = cost.shape[1]
    orders = jnp.array(list(itertools.permutations(range(k))), jnp.int32)
    return orders, jnp.sum(cost[:, orders, jnp.arange(k)], axis=-1)


def _hungarian(cost: Array | np.ndarray) -> np.ndarray:
    """Columns are the new labels: solve the transposed problem by SciPy."""
    from scipy.optimize import linear_sum_assignment

    # Matrices of a NumPy array: each one taken from a JAX array would be a call of its own.
    solved = [linear_sum_assignment(one.T)[1] for one in np.asarray(cost)]
    return np.asarray(solved, np.int32)


def _hungarian_margin(cost: Array, order: Array) -> np.ndarray:
    """Another permutation lacks at least one pair of the best: forbid each in turn."""
    costs, orders = np.asarray(cost), np.asarray(order)
    draws, k = orders.shape
    labels = np.arange(k)
    total = lambda matrix, chosen: matrix[chosen, labels].sum()
    gaps = np.empty(draws, costs.dtype)
    for s in range(draws):
        # More than any permutation can save, so a forbidden pair is never taken.
        barrier = 1 + 2 * k * np.ptp(costs[s])
        others = np.repeat(costs[s][None], k, axis=0)
        others[labels, orders[s], labels] += barrier
        best = total(costs[s], orders[s])
        gaps[s] = min(total(costs[s], other) for other in _hungarian(others)) - best
    return gaps
