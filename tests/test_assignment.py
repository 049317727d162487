"""Matching of labels against a search through all permutations."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgmm.labels import _relabel
from jaxgmm.labels._assignment import cheapest, check_renaming, margin, n_renamings, renamings


@pytest.mark.parametrize("k", [1, 2, 4, 5, 6, 7])
def test_the_cheapest_permutation_and_what_the_next_one_costs(k):
    costs = np.random.default_rng(1).normal(size=(12, k, k))
    orders = jax.jit(cheapest)(jnp.asarray(costs))
    margins = np.asarray(jax.jit(margin)(jnp.asarray(costs), orders))
    every = np.array(list(itertools.permutations(range(k))))
    for cost, order, gap in zip(costs, np.asarray(orders), margins, strict=True):
        totals = np.sort(cost[every, np.arange(k)].sum(axis=1))
        assert cost[order, np.arange(k)].sum() == pytest.approx(totals[0])
        assert gap == pytest.approx(totals[1] - totals[0] if k > 1 else np.inf)


def test_the_hungarian_method_ends_where_costs_are_no_numbers():
    costs = np.random.default_rng(2).normal(size=(6, 6, 6))
    costs[0], costs[1, 2], costs[2, :, 3], costs[3, 1, 1], costs[4, 0] = (np.nan,) * 4 + (np.inf,)
    orders = np.asarray(jax.jit(cheapest)(jnp.asarray(costs)))
    assert orders.shape == (6, 6)
    assert np.array_equal(np.sort(orders[5]), np.arange(6))


GROUPS = [(0, 0, 1), (0, 1, 0, 2, 1), (0, 1, 2), (0, 0, 0, 0, 0, 0, 1, 1), (1, 0)]


@pytest.mark.parametrize("groups", GROUPS, ids=str)
def test_labels_keep_to_their_groups(groups):
    """Against a search through all permutations, of which most leave a group."""
    k, known = len(groups), np.array(groups)
    every = np.array([o for o in itertools.permutations(range(k)) if np.all(known[[*o]] == known)])
    found = renamings(groups)
    assert {tuple(order) for order in found} == {tuple(order) for order in every}
    assert len(found) == len(every) == n_renamings(groups)
    assert np.array_equal(found[0], np.arange(k))
    costs = np.random.default_rng(1).normal(size=(12, k, k))
    of_groups = jax.jit(lambda cost: cheapest(cost, groups))
    orders = of_groups(jnp.asarray(costs))
    margins = np.asarray(jax.jit(lambda c, o: margin(c, o, groups))(jnp.asarray(costs), orders))
    for cost, order, gap in zip(costs, np.asarray(orders), margins, strict=True):
        totals = np.sort(cost[every, np.arange(k)].sum(axis=1))
        assert cost[order, np.arange(k)].sum() == pytest.approx(totals[0])
        assert gap == pytest.approx(totals[1] - totals[0] if len(every) > 1 else np.inf)


def test_a_renaming_that_leaves_a_group_is_refused():
    check_renaming(np.array([1, 0, 2]), (0, 0, 1))
    with pytest.raises(ValueError, match=r"order: .* within their groups \(0, 0, 1\) only, found"):
        check_renaming([2, 0, 1], (0, 0, 1))
    with pytest.raises(ValueError, match="order: needs each of 3 labels once"):
        check_renaming([0, 0, 2], (0, 0, 1))


@pytest.mark.parametrize("k", [2, 3])
def test_every_rule_keeps_labels_in_their_groups(k):
    """All labels but the last may be renamed: it stays, whatever the draws say."""
    groups = (0,) * k + (1,)
    rng = np.random.default_rng(0)
    clear = np.repeat(np.eye(k + 1), 4, axis=1) * 0.9 + 0.1 / (k + 1)
    clear = clear / clear.sum(axis=0)
    shuffles = np.array([rng.permutation(k + 1) for _ in range(30)])
    drawn = jnp.asarray(clear[shuffles])
    values = jnp.asarray(np.arange(k + 1)[shuffles] + rng.normal(size=shuffles.shape) / 9)
    x = jnp.repeat(jnp.arange(k + 1.0), 4)[:, None]
    orders = [
        _relabel.stephens(drawn, jnp.asarray(clear), groups),
        _relabel.ecr(drawn, jnp.argmax(jnp.asarray(clear), axis=0), groups),
        _relabel.pivotal(values[:, :, None], jnp.arange(k + 1.0)[:, None], groups),
        _relabel.ordering(values, groups),
        _relabel.data_based(drawn, x, jnp.asarray(clear), groups),
    ]
    kept = shuffles[:, k] == k
    assert 0 < kept.sum() < len(kept)
    for order in map(np.asarray, orders):
        assert np.all(order[:, k] == k)
        assert np.array_equal(
            np.sort(order, axis=1), np.broadcast_to(np.arange(k + 1), order.shape)
        )
        # Where the last label was its own all others are found.
        renamed = np.take_along_axis(shuffles, order, axis=1)
        assert np.array_equal(renamed[kept], np.broadcast_to(np.arange(k + 1), renamed[kept].shape))
    assert np.all(np.isfinite(_relabel.clarity(drawn, orders[0], groups)))
