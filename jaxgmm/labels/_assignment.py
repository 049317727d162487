"""Renaming of labels: which there are, the cheapest of them, and how much the next one costs.

Labels may be renamed within a group only: ``groups`` has a number for each label, those of one
group the same. None stands for a single group.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float, Int

# All permutations are tried up to this many labels, the Hungarian method above.
_ENUMERATE = 5


# What labels may be called: a number for each, those of one group the same.
Groups = tuple[int, ...]


def members(groups: Groups) -> list[Int[np.ndarray, " m"]]:
    """The labels of each group."""
    found = np.asarray(groups)
    return [np.flatnonzero(found == group).astype(np.int32) for group in dict.fromkeys(groups)]


def n_renamings(groups: Groups) -> int:
    """How many names the labels may have."""
    return math.prod(math.factorial(len(own)) for own in members(groups))


def renamings(groups: Groups) -> Int[np.ndarray, "orders k"]:
    """All of them as permutations, the one that changes nothing first."""
    each = [list(itertools.permutations(own)) for own in members(groups)]
    orders = np.empty((n_renamings(groups), len(groups)), np.int32)
    for order, chosen in zip(orders, itertools.product(*each), strict=True):
        for own, names in zip(members(groups), chosen, strict=True):
            order[own] = names
    return orders


def check_renaming(order: Any, groups: Groups) -> None:
    """Refuse, with a `ValueError`, a permutation that leaves the groups; traced ones pass."""
    if isinstance(order, Tracer):
        return
    found, known = np.asarray(order), np.asarray(groups)
    if not np.array_equal(np.sort(found), np.arange(len(groups))):
        raise ValueError(f"order: needs each of {len(groups)} labels once, found {found.tolist()}")
    if not np.array_equal(known[found], known):
        raise ValueError(
            f"order: labels may be renamed within their groups {groups} only, found "
            f"{found.tolist()}"
        )


def cheapest(cost: Float[Array, "s k k"], groups: Groups | None = None) -> Int[Array, "s k"]:
    """``order`` minimising ``sum_k cost[order[k], k]`` for each of S matrices."""
    draws, k, _ = cost.shape
    if groups is None or len(set(groups)) == 1:
        return _cheapest(cost)
    order = jnp.zeros((draws, k), jnp.int32)
    for own in members(groups):
        chosen = _cheapest(cost[:, own[:, None], own])
        order = order.at[:, own].set(jnp.asarray(own)[chosen])
    return order


def margin(
    cost: Float[Array, "s k k"], order: Int[Array, "s k"], groups: Groups | None = None
) -> Float[Array, " s"]:
    """What the second-cheapest renaming costs more than the cheapest, ``order``.

    Infinite where there is no other.
    """
    if groups is None or len(set(groups)) == 1:
        return _margin(cost, order)
    least = jnp.full(len(cost), jnp.inf, cost.dtype)
    # The next renaming differs within one group.
    for own in members(groups):
        within = jnp.searchsorted(own, order[:, own]).astype(jnp.int32)
        least = jnp.minimum(least, _margin(cost[:, own[:, None], own], within))
    return least


def _cheapest(cost: Float[Array, "s k k"]) -> Int[Array, "s k"]:
    if cost.shape[1] <= _ENUMERATE:
        orders, totals = _all_orders(cost)
        return orders[jnp.argmin(totals, axis=1)]
    return jax.vmap(_hungarian)(cost)


def _margin(cost: Float[Array, "s k k"], order: Int[Array, "s k"]) -> Float[Array, " s"]:
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
    orders = jnp.asarray(renamings((0,) * k))
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
