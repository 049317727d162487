"""Sums of logarithms against SciPy's, and their slopes against responsibilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from jaxgmm._numerics import map_over_blocks, total_log_sum_exp

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
