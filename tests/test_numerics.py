"""Sums of logarithms against SciPy's, and their slopes against responsibilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import digamma, gammaln, logsumexp, softmax

from jaxgmm._numerics import (
    block_rows,
    log_factorial,
    map_over_blocks,
    sum_over_blocks,
    total_log_sum_exp,
)

ROUNDING = {np.float32: 1e-6, np.float64: 1e-14}


def _logits(k, n, dtype):
    rng = np.random.default_rng(k + n)
    return (30 * rng.standard_normal((k, n))).astype(dtype)


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(("k", "n"), [(1, 5), (2, 16), (2, 272), (3, 1001), (300, 64)])
def test_one_logarithm_of_many_factors_is_the_sum_of_theirs(k, n, dtype):
    logits = _logits(k, n, dtype)
    weight = (np.arange(n) % 3 > 0).astype(dtype)
    exact = weight.astype(float) @ logsumexp(logits.astype(float), axis=0)
    size = np.abs(logits).max() * n
    for whole in (True, False):
        total, slope = jax.value_and_grad(total_log_sum_exp)(jnp.asarray(logits), weight, whole)
        assert total.dtype == dtype
        assert abs(total - exact) < ROUNDING[dtype] * size
        shares = weight * softmax(logits.astype(float), axis=0)
        np.testing.assert_allclose(slope, shares, atol=100 * ROUNDING[dtype])


@pytest.mark.parametrize("dtype", ROUNDING)
def test_no_product_of_largest_factors_overflows(dtype):
    for k in (1, 2, 7, 128, 5000):
        logits = jnp.zeros((k, 100), dtype)  # every sum of exponentials is k
        total = total_log_sum_exp(logits, jnp.ones(100, dtype), True)
        np.testing.assert_allclose(total, 100 * np.log(k), rtol=10 * ROUNDING[dtype])


def test_impossible_rows_and_unknown_ones_show():
    logits = jnp.zeros((2, 20)).at[:, 3].set(-jnp.inf)
    ones = jnp.ones(20)
    assert total_log_sum_exp(logits, ones, True) == -jnp.inf
    assert jnp.isnan(total_log_sum_exp(logits.at[0, 3].set(jnp.nan), ones, True))


@pytest.mark.parametrize("n", [3, 4, 9, 12])
def test_rows_by_blocks_are_rows(n):
    x = jnp.arange(3.0 * n).reshape(n, 3)
    square = lambda rows: jnp.stack([rows[:, 0] ** 2, rows[:, 2]], axis=1)
    by_blocks = lambda rows: map_over_blocks(square, rows, 4)
    np.testing.assert_array_equal(by_blocks(x), square(x))
    slope = jax.grad(lambda rows: jnp.sum(by_blocks(rows) ** 2))(x)
    np.testing.assert_allclose(slope, jax.grad(lambda r: jnp.sum(square(r) ** 2))(x))


@pytest.mark.parametrize(("n", "block"), [(1010, 1000), (1001, 333), (131072, 993)])
def test_blocks_share_the_rows_evenly(n, block):
    seen = []

    def count(rows, weights, _):
        seen.append(len(rows))
        return jnp.sum(weights)

    assert sum_over_blocks(count, jnp.ones((n, 1)), None, block) == n
    # Whole lines of the cache, and hardly a row that is counted twice.
    (rows,) = set(seen)
    assert rows % 8 == 0
    assert -(-n // rows) * rows < 1.03 * n


def test_blocks_fill_the_cache_and_never_much_more():
    assert 0.99 * 2**17 < block_rows(20, np.float64) * 20 * 8 <= 2**17
    assert block_rows(1, np.float64) == 2048
    assert block_rows(1000, np.float64) == 512
    assert block_rows(20_000, np.float64) == 256


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(
    "counts", [[0, 1, 2, 170, 1023], [0, 3, 1024], [5e5, 7], [0.5, 3], [np.inf, 1], [np.nan, 1]]
)
def test_factorials_are_those_of_the_gamma_function(counts, dtype):
    counts = np.array(counts, dtype)
    exact = gammaln(counts.astype(float) + 1)
    found, slope = jax.jvp(log_factorial, (jnp.asarray(counts),), (jnp.full_like(counts, 2),))
    assert found.dtype == dtype
    rtol = 10 * ROUNDING[dtype]
    np.testing.assert_allclose(found, exact, rtol, rtol)
    there = np.isfinite(counts)
    np.testing.assert_allclose(slope[there], 2 * digamma(counts.astype(float) + 1)[there], 1e-5)
    lanes = jax.vmap(log_factorial)(jnp.asarray([counts, counts]))
    np.testing.assert_allclose(lanes, [exact, exact], rtol, rtol)


def test_factorials_of_integers_are_no_integers():
    np.testing.assert_allclose(log_factorial(np.array([0, 3, 2000])), gammaln([1, 4, 2001]), 1e-14)
    np.testing.assert_allclose(log_factorial(np.array([1, 5])), np.log([1, 120]), 1e-14)
