"""Matching of labels: the cheapest permutation, and how much the next one costs."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

# All permutations are tried up to this many labels, the Hungarian method above.
_ENUMERATE = 5


def cheapest(cost: Float[Array, "s k k"]) -> Int[Array, "s k"]:
    """``order`` minimising ``sum_k cost[order[k], k]`` for each of S matrices."""
    if cost.shape[1] <= _ENUMERATE:
        orders, totals = _all_orders(cost)
        return orders[jnp.argmin(totals, axis=1)]
    return jax.vmap(_hungarian)(cost)


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
    return jax.vmap(_hungarian_margin)(cost, order)


def _all_orders(cost: Array) -> tuple[Array, Array]:
    """Every permutation and its total cost under each matrix."""
    k = cost.shape[1]
    orders = jnp.array(list(itertools.permutations(range(k))), jnp.int32)
    return orders, jnp.sum(cost[:, orders, jnp.arange(k)], axis=-1)


def _hungarian(cost: Float[Array, "k k"]) -> Int[Array, " k"]:
    """Shortest augmenting paths (Jonker and Volgenant, 1987), one new label after another.

    Compiled, not SciPy's: a callback waits for its own argument, for ever, where the host has a
    single core (jax-ml/jax, issue 24255).
    """
    k = cost.shape[0]
    # Column 0 stands for the new label that is to be placed; labels count from one.
    price = jnp.pad(cost.T, ((1, 0), (1, 0)))
    labels = jnp.arange(k + 1)

    def place(label: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        row_dual, column_dual, owner = state
        owner = owner.at[0].set(label)

        def search(path: tuple[Array, ...]) -> tuple[Array, ...]:
            row_dual, column_dual, distance, before, seen, at = path
            seen = seen.at[at].set(True)
            reduced = price[owner[at]] - row_dual[owner[at]] - column_dual
            nearer = ~seen & (reduced < distance)
            distance = jnp.where(nearer, reduced, distance)
            before = jnp.where(nearer, at, before)
            ahead = jnp.where(seen, jnp.inf, distance)
            step = jnp.min(ahead)
            row_dual = row_dual.at[owner].add(jnp.where(seen, step, 0))
            column_dual = column_dual - jnp.where(seen, step, 0)
            return row_dual, column_dual, ahead - step, before, seen, jnp.argmin(ahead)

        # Every search sees another column; costs that are no numbers end when all are seen.
        searching = lambda path: (owner[path[-1]] != 0) & ~jnp.all(path[-2])
        nowhere = jnp.full(k + 1, jnp.inf, cost.dtype)
        unseen = jnp.zeros(k + 1, bool)
        root = jnp.zeros_like(label)
        start = (row_dual, column_dual, nowhere, jnp.zeros_like(labels), unseen, root)
        row_dual, column_dual, _, before, _, at = lax.while_loop(searching, search, start)

        def give_way(walk: tuple[Array, Array]) -> tuple[Array, Array]:
            owner, at = walk
            return owner.at[at].set(owner[before[at]]), before[at]

        owner, _ = lax.while_loop(lambda walk: walk[1] != 0, give_way, (owner, at))
        return row_dual, column_dual, owner

    dual = jnp.zeros(k + 1, cost.dtype)
    _, _, owner = lax.fori_loop(1, k + 1, place, (dual, dual, jnp.zeros_like(labels)))
    return jnp.zeros(k + 1, jnp.int32).at[owner].set(labels.astype(jnp.int32) - 1)[1:]


def _hungarian_margin(cost: Float[Array, "k k"], order: Int[Array, " k"]) -> Array:
    """Another permutation lacks at least one pair of the best: forbid each in turn."""
    k = cost.shape[0]
    labels = jnp.arange(k)
    # More than any permutation can save, so a forbidden pair is never taken.
    barrier = 1 + 2 * k * (jnp.max(cost) - jnp.min(cost))
    forbidden = jnp.zeros((k, k, k), cost.dtype).at[labels, order, labels].set(barrier)
    others = jax.vmap(_hungarian)(cost + forbidden)
    total = lambda chosen: jnp.sum(cost[chosen, labels])
    return jnp.min(jax.vmap(total)(others)) - total(order)
