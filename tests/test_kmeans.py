"""k-means: Lloyd's algorithm against a plain second writing, and its kinship with EM."""

import itertools
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import DATA

import jaxgmm as jg
from jaxgmm.em._kmeans import _by_label

FAITHFUL = DATA["faithful"]


def _labels(x, centres):
    return np.argmin(((x[:, None, :] - centres) ** 2).sum(axis=-1), axis=1)


def _lloyd(x, centres, weight, rounds=300):
    """Lloyd's algorithm as in the textbook; no cluster may become empty."""
    n_iter, moved = 0, True
    while moved and n_iter < rounds:
        n_iter += 1
        labels = _labels(x, centres)
        new = np.stack(
            [np.average(x[labels == k], 0, weight[labels == k]) for k in range(len(centres))]
        )
        moved = not np.allclose(new, centres, rtol=0, atol=1e-13 * np.abs(x).max())
        centres = new
    return new, n_iter


def _blobs(n, d, k, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(k, d))[rng.integers(k, size=n)] * 4 + rng.normal(size=(n, d))


# D and K on both sides of every way in which scores are made; n on both sides of a block.
@pytest.mark.parametrize(("n", "d", "k"), [(400, 1, 3), (5000, 2, 4), (6000, 12, 5), (900, 2, 300)])
def test_every_restart_is_lloyds_algorithm(key, n, d, k):
    x, weight = _blobs(n, d, min(k, 6)), np.random.default_rng(1).uniform(0.5, 2, n)
    hard = jg.kmeans(x, k, key=key, n_init=3, sample_weight=weight)
    record = jax.tree.map(np.asarray, hard.restarts)
    assert record.converged.all()
    for start, centres, inertia, n_iter in zip(*record[:4], strict=True):
        expected, rounds = _lloyd(x, start, weight)
        assert n_iter == rounds
        np.testing.assert_allclose(centres, expected, rtol=0, atol=1e-12)
        squares = ((x - centres[_labels(x, centres)]) ** 2).sum(axis=1)
        np.testing.assert_allclose(inertia, weight @ squares, rtol=1e-12)
    np.testing.assert_array_equal(hard.labels, _labels(x, np.asarray(hard.centres)))
    assert hard.labels.dtype == jnp.int32
    assert hard.inertia == record.inertia.min() == record.inertia[hard.best]


def test_against_scikit_learn(key):
    cluster = pytest.importorskip("sklearn.cluster")
    x = _blobs(3000, 3, 8)
    hard = jg.kmeans(x, 8, key=key, n_init=4)
    for start, inertia, n_iter in zip(
        hard.restarts.start, hard.restarts.inertia, hard.restarts.n_iter, strict=True
    ):
        theirs = cluster.KMeans(8, init=np.asarray(start), n_init=1, tol=0).fit(x)
        np.testing.assert_allclose(inertia, theirs.inertia_, rtol=1e-12)
        assert n_iter == theirs.n_iter_


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_results_follow_the_dtype_and_move_with_the_data(key, dtype):
    # Multiples of 1/4 stay exact at an offset of 1e6 in float32 too.
    x = np.round(4 * _blobs(500, 2, 3)).astype(dtype) / 4
    hard = jg.kmeans(x, 3, key=key, n_init=1)
    assert hard.centres.dtype == hard.restarts.inertia.dtype == dtype
    for scale, offset in [(1, 1e6), (2.0**40, 0), (2.0**-40, 0)]:
        stepped = dtype == "float32" and offset
        said = pytest.warns(UserWarning, match="steps of 0.0625") if stepped else nullcontext()
        with said:
            moved = jg.kmeans((scale * x + offset).astype(dtype), 3, key=key, n_init=1)
        np.testing.assert_array_equal(moved.labels, hard.labels)
        np.testing.assert_allclose(moved.inertia / scale**2, hard.inertia, rtol=1e-4)
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(
            (np.asarray(moved.centres) - offset) / scale,
            hard.centres,
            rtol=0,
            atol=4 * eps * (offset + 100),
        )


def test_weights_are_repetitions(key):
    x, weight = FAITHFUL, np.arange(len(FAITHFUL)) % 3
    repeated = np.repeat(x, weight, axis=0)
    weighted = jg.kmeans(x, 3, key=key, sample_weight=weight)
    counted = jg.kmeans(repeated, 3, key=key)
    np.testing.assert_allclose(weighted.inertia, counted.inertia, rtol=1e-10)
    np.testing.assert_array_equal(np.repeat(weighted.labels, weight), counted.labels)


def test_an_empty_cluster_moves_to_the_farthest_row():
    from jaxgmm.em._kmeans import centring, lloyd

    # The middle centre of three loses all its rows in the first round.
    x = jnp.array([[0.0], [1.0], [2.0], [10.0], [11.0], [30.0]])
    weight = jnp.ones(6)
    chart, _ = centring(x, weight)
    start = chart.apply(jnp.array([[1.0], [100.0], [11.0]]))
    centres, n_iter, converged = lloyd(x, weight, start, chart, 1)
    assert (int(n_iter), bool(converged)) == (1, False)
    np.testing.assert_allclose(chart.invert(centres), [[1.0], [30.0], [17.0]], rtol=1e-12)
    centres, _, converged = lloyd(x, weight, start, chart, 10)
    assert converged
    np.testing.assert_allclose(chart.invert(centres), [[1.0], [30.0], [10.5]], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fewer_distinct_rows_than_clusters(key, dtype):
    x = np.repeat(np.array([[0.1, 1e3], [0.3, 1e3]], dtype), 7, axis=0)
    hard = jg.kmeans(x, 5, key=key, n_init=4)
    assert hard.converged
    assert hard.inertia <= len(x) * (4e3 * np.finfo(dtype).eps) ** 2
    assert np.isfinite(hard.centres).all()
    assert len(np.unique(hard.labels)) == 2


def test_many_rows(key):
    """Seeds come from a subset, labels from every row; zero weight is no row."""
    n = 2**16 + 4321
    x, weight = _blobs(n, 2, 3), np.ones(n)
    weight[: n // 2], x[: n // 2] = 0, 1e4
    hard = jg.kmeans(x, 3, key=key, n_init=2, sample_weight=weight)
    inside = jg.kmeans(x[n // 2 :], 3, key=key, n_init=2)
    np.testing.assert_allclose(hard.inertia, inside.inertia, rtol=1e-10)
    assert np.abs(hard.restarts.start).max() < 100
    plain = jg.kmeans(x, 4, key=key, n_init=2)
    np.testing.assert_array_equal(plain.labels, _labels(x, np.asarray(plain.centres)))


def test_tolerance_and_iterations(key):
    x = _blobs(2000, 2, 8)
    exact = jg.kmeans(x, 8, key=key, n_init=2)
    loose = jg.kmeans(x, 8, key=key, n_init=2, tol=1e-2)
    assert loose.converged
    assert np.all(loose.restarts.n_iter <= exact.restarts.n_iter)
    assert loose.restarts.n_iter.sum() < exact.restarts.n_iter.sum()
    stopped = jg.kmeans(x, 8, key=key, n_init=2, max_iter=1)
    assert (stopped.n_iter, stopped.converged) == (1, False)
    assert "out of iterations" in repr(stopped)
    assert "converged" in repr(exact)


def test_nothing_compiles_again(key, compilations):
    run = lambda x, key, tol: jg.kmeans(x, 2, key=key, n_init=2, tol=tol)
    run(FAITHFUL, key, None)
    with compilations:
        run(FAITHFUL[::-1].copy(), jax.random.key(5), 1e-3)
    assert compilations.count == 0


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": [[1.0], [np.nan]]}, ValueError, "x: .*non-finite"),
        ({"n_clusters": 0}, ValueError, "n_clusters: must be at least 1"),
        ({"n_clusters": 2.0}, TypeError, "n_clusters: needs a whole number"),
        ({"n_clusters": 7}, ValueError, "n_clusters: 7 clusters need at least as many rows"),
        ({"sample_weight": [1, 0, 0, 0, 0, 0]}, ValueError, "found 1"),
        ({"sample_weight": [1, -1, 1, 1, 1, 1]}, ValueError, "sample_weight: negative"),
        ({"key": 3}, TypeError, "key: needs a typed random key"),
        ({"key": None}, ValueError, "key: k-means"),
        ({"n_init": 0}, ValueError, "n_init: must be at least 1"),
        ({"max_iter": 0}, ValueError, "max_iter: must be at least 1"),
        ({"tol": -1.0}, ValueError, "tol: needs a finite number"),
        ({"tol": "small"}, ValueError, "tol: needs a finite number"),
    ],
)
def test_bad_input(key, change, error, words):
    given = {"x": np.arange(6.0), "n_clusters": 2, "key": key, **change}
    with pytest.raises(error, match=words):
        jg.kmeans(given.pop("x"), given.pop("n_clusters"), **given)


# -- kinship with EM -----------------------------------------------------------------


def _hard(logits, _):
    """Each row in its most probable component alone."""
    labels = jnp.argmax(logits, axis=0)
    return (labels == jnp.arange(len(logits))[:, None]).astype(logits.dtype), jnp.max(logits, 0)


@jax.jit
def _classification_step(model, params, x):
    """One step of classification EM (Celeux and Govaert, 1992)."""
    working = model.standardise(x)
    statistics, _ = working.e_step(working.to_working(params), x, assign=_hard)
    return working.to_user(working.m_step(statistics))


def test_classification_em_is_lloyds_algorithm_step_by_step():
    from jaxgmm.em._kmeans import centring, lloyd

    x, k = jnp.asarray(FAITHFUL), 4
    start = x[:k]
    model = jg.Mixture(jg.Gaussian("EII"), k, weights="equal").resolve(x)
    spread = jnp.broadcast_to(jnp.var(x) * jnp.eye(2), (k, 2, 2))
    params = model.params(means=start, covariances=spread)
    chart, _ = centring(x, jnp.ones(len(x)))
    rounds = jax.jit(lambda n: lloyd(x, jnp.ones(len(x)), chart.apply(start), chart, n))
    last = int(rounds(300)[1])
    assert last > 5
    for n_iter in range(1, last + 1):
        params = _classification_step(model, params, x)
        centres = chart.invert(rounds(n_iter)[0])
        np.testing.assert_allclose(params.means, centres, rtol=1e-12)


def test_responsibilities_tend_to_lloyds_assignments(key):
    """As the common variance goes to 0, each row belongs to its nearest mean alone."""
    x = FAITHFUL / FAITHFUL.std(axis=0)
    hard = jg.kmeans(x, 3, key=key)
    model = jg.Mixture(jg.Gaussian("spherical"), 3, weights="equal").resolve(x)
    gaps = []
    for variance in (1.0, 1e-1, 1e-2, 1e-3, 1e-5):
        params = model.params(
            means=hard.centres, covariances=jnp.broadcast_to(variance * jnp.eye(2), (3, 2, 2))
        )
        soft = np.asarray(model.responsibilities(params, x))
        np.testing.assert_array_equal(soft.argmax(axis=1), hard.labels)
        gaps.append(1 - soft[np.arange(len(x)), hard.labels].mean())
    assert all(later < earlier for earlier, later in itertools.pairwise(gaps))
    assert gaps[-1] < 1e-6


@pytest.mark.parametrize("shape", [(50,), (50, 3)])
def test_sums_of_a_label_are_the_same_however_a_device_makes_them(shape, monkeypatch):
    rng = np.random.default_rng(3)
    values, labels = jnp.array(rng.normal(size=shape)), jnp.array(rng.integers(4, size=50))
    one_by_one = _by_label(values, labels, 4)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    np.testing.assert_allclose(_by_label(values, labels, 4), one_by_one, atol=1e-13)
