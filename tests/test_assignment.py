"""Matching of labels against a search through all permutations."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgmm._assignment import cheapest, margin


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
