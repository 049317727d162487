"""Few shapes: what is filled up, and that nothing of it is seen."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxgmm as jg
from jaxgmm._programs._shapes import in_slices, on_rung, rung


def test_eight_numbers_of_rows_until_they_double():
    rungs = {rung(n, 8) for n in range(256, 512)}
    assert len(rungs) == 9
    assert rungs >= {256, 288, 480, 512}
    assert all(n <= rung(n, 8) <= 1.125 * n for n in range(1, 5000))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_are_added_at_weight_zero(dtype):
    x = jnp.arange(66.0, dtype=dtype).reshape(33, 2)
    model, own = jg.Mixture(jg.Gaussian(), 2), jnp.arange(1, 34, dtype=dtype)
    rows, there = on_rung(model, x, None)
    assert rows.shape == (36, 2)
    assert (rows.dtype, there.dtype) == (dtype, bool)
    np.testing.assert_array_equal(rows[:33], x)
    np.testing.assert_array_equal(there, [True] * 33 + [False] * 3)
    weight = on_rung(model, x, own)[1]
    assert weight.dtype == dtype
    np.testing.assert_array_equal(weight, [*own, 0, 0, 0])


@pytest.mark.parametrize(("count", "size"), [(1, 16), (17, 16), (400, 16), (1000, 1024)])
def test_slices_are_of_few_sizes_and_leave_no_trace(count, size):
    seen = []

    def call(part):
        seen.append(len(part["a"]))
        return {"twice": 2 * part["a"], "sum": part["b"].sum(axis=1)}

    draws = {"a": np.arange(count), "b": np.arange(2.0 * count).reshape(count, 2)}
    found = in_slices(call, draws)
    np.testing.assert_array_equal(found["twice"], 2 * draws["a"])
    np.testing.assert_array_equal(found["sum"], draws["b"].sum(axis=1))
    assert set(seen) == {size}
    chains = {name: leaf.reshape(1, *leaf.shape) for name, leaf in draws.items()}
    assert in_slices(call, chains, axes=2)["sum"].shape == (1, count)
