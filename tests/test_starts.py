"""Where EM starts: rules, their keys, and the memory that they do not take."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import DATA
from scipy.cluster.hierarchy import fcluster, linkage

import jaxgmm as jg
from jaxgmm.em._kmeans import MOST_ROWS, centring, some_rows, spread_rows
from jaxgmm.em._start import DETERMINISTIC, SHORT_STEPS, nearest_centre, ward_labels

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from three_coins import THROWS, ThreeCoins

FAITHFUL = jnp.asarray(DATA["faithful"])
RANDOM = sorted(set(jg.em.STARTS) - set(DETERMINISTIC))
MODEL = jg.Mixture(jg.Gaussian("full"), 3)


def _labels(name, key, x=FAITHFUL, weight=None, model=MODEL):
    """All responsibilities of a start at once."""
    return jg.em.STARTS[name](key, model, x, weight)(x, 0)


@pytest.mark.parametrize("name", RANDOM)
def test_starts_differ_and_repeat(key, name):
    labels = jax.jit(jax.vmap(lambda one: _labels(name, one)))(jax.random.split(key, 6))
    assert labels.shape == (6, len(FAITHFUL), 3)
    assert labels.dtype == FAITHFUL.dtype
    np.testing.assert_allclose(labels.sum(axis=-1), 1, rtol=1e-12)
    # Whatever the names of the components: the sorted masses tell starts apart.
    masses = np.sort(np.asarray(labels).sum(axis=1), axis=-1).round(6)
    assert len(np.unique(masses, axis=0)) > (1 if name == "k-means" else 3)
    again = jax.jit(lambda one: _labels(name, one))(jax.random.split(key, 6)[2])
    np.testing.assert_allclose(again, labels[2], rtol=1e-12)


@pytest.mark.parametrize("name", sorted(jg.em.STARTS))
def test_every_start_fits_in_float32(key, name):
    fit = jg.fit(MODEL, DATA["faithful"].astype("float32"), key=key, n_init=4, start=name)
    assert fit.converged
    assert fit.params.means.dtype == "float32"
    assert len(fit.restarts.status) == (1 if name in DETERMINISTIC else 4)


def test_a_deterministic_start_needs_no_key():
    fits = [jg.fit(MODEL, DATA["faithful"], start="hierarchical") for _ in range(2)]
    assert fits[0].log_joint == fits[1].log_joint


@pytest.mark.parametrize("name", RANDOM)
def test_rows_of_zero_weight_are_absent(key, name):
    far = jnp.concatenate([FAITHFUL, FAITHFUL + 1e4])
    weight = jnp.concatenate([jnp.ones(len(FAITHFUL)), jnp.zeros(len(FAITHFUL))])
    for one in jax.random.split(key, 5):
        masses = weight @ _labels(name, one, far, weight)
        assert jnp.all(masses > 0.05 * len(FAITHFUL) / 3)


@pytest.mark.parametrize("name", RANDOM)
def test_blocks_are_the_whole(key, name):
    """However the rows come in blocks, each gets the same responsibilities."""
    label = jg.em.STARTS[name](key, MODEL, FAITHFUL, None)
    whole = label(FAITHFUL, 0)
    parts = [label(FAITHFUL[first : first + 100], first) for first in (0, 100, 200)]
    np.testing.assert_array_equal(jnp.concatenate(parts), whole)
    # A block's index may be traced.
    np.testing.assert_array_equal(jax.jit(label)(FAITHFUL[100:200], jnp.int32(100)), whole[100:200])


def test_random_responsibilities_are_uniform_on_the_simplex(key):
    x = jnp.zeros((20000, 1))
    drawn = np.asarray(_labels("random-responsibilities", key, x))
    # Dirichlet(1, 1, 1): means 1/3, variances 1/18, covariances -1/36.
    np.testing.assert_allclose(drawn.mean(axis=0), 1 / 3, atol=0.01)
    expected = (3 * np.eye(3) - 1) / 36
    np.testing.assert_allclose(np.cov(drawn, rowvar=False), expected, atol=2e-3)


def test_the_nearest_centre_is_exact_for_coinciding_rows():
    rows = jnp.array([[1e8, 1.0], [1e8, 1.0 + 2**-20], [0.0, 0.0]])
    np.testing.assert_array_equal(nearest_centre(rows, lambda x: x)(rows, 0), np.eye(3))


def test_seeds_are_different_rows(key):
    """k-means++ takes each distinct row before any twice, at an offset too."""
    distinct = 1e6 + jnp.arange(5.0)[:, None] * jnp.array([1.0, -1.0])
    rows, weight = jnp.repeat(distinct, 20, axis=0), jnp.ones(100)
    chart, _ = centring(rows, weight)
    for one in jax.random.split(key, 20):
        seeds = chart.invert(spread_rows(one, chart.apply(rows), weight, 5))
        assert len(np.unique(np.asarray(seeds), axis=0)) == 5


def test_seeds_follow_squared_distances(key):
    """The first of the seeds is a row at random; with one candidate the next has probability D^2.

    Greedy seeding keeps the better of two candidates, so the chance of the far row is higher.
    """
    rows, weight = jnp.array([[0.0], [1.0], [2.0]]), jnp.array([0.5, 0.25, 0.25])
    draw = jax.jit(jax.vmap(lambda one: spread_rows(one, rows, weight, 2)[:, 0]))
    seeds = np.asarray(draw(jax.random.split(key, 8000)))
    first = [np.mean(seeds[:, 0] == value) for value in (0, 1, 2)]
    np.testing.assert_allclose(first, weight, atol=0.02)
    second = seeds[seeds[:, 0] == 0, 1]
    # From 0 the masses are 1/4 and 4/4, and 1 (inertia 1/4) beats 2 (inertia 1/4) in a tie of
    # which the first candidate is kept.
    np.testing.assert_allclose(np.mean(second == 2), 4 / 5, atol=0.02)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_subset_of_many_rows(key, weighted):
    n = 3 * MOST_ROWS + 17
    x = jnp.arange(n, dtype=float)[:, None]
    weight = jnp.where(jnp.arange(n) < n // 2, 0.0, 1.0) if weighted else None
    rows, kept = some_rows(key, x, weight)
    assert rows.shape == (MOST_ROWS, 1)
    assert np.all(kept == 1)
    assert not np.array_equal(rows, some_rows(jax.random.key(1), x, weight)[0])
    drawn = np.asarray(rows[:, 0])
    assert np.all(np.diff(drawn) >= 0)
    low = n // 2 if weighted else 0
    assert drawn.min() >= low
    # One row of each stratum: quantiles are those of the data.
    np.testing.assert_allclose(np.median(drawn), (low + n) / 2, rtol=1e-3)
    if not weighted:
        assert len(np.unique(drawn)) == MOST_ROWS


@pytest.mark.turn
def test_no_start_holds_responsibilities_of_all_rows(key):
    """Memory of a compiled start: blocks, not (n, K) numbers."""
    x, k = jnp.zeros((2**19, 2), jnp.float32), 64
    model = jg.Mixture(jg.Gaussian("diag"), k).resolve(x).standardise(x)
    for name in RANDOM:
        first = lambda x, key, name=name: model.statistics(
            jg.em.STARTS[name](key, model, x, None), x
        )
        memory = jax.jit(first).lower(x, key).compile().memory_analysis()
        assert memory.temp_size_in_bytes < len(x) * k * 4 / 2, name


# -- the first covariances ---------------------------------------------------------------

_PEAKS = {
    "two near and one far": (np.array([0.0, 4.0, 100.0]), 200),
    "far enough for ten": (8.0 * np.arange(10), 100),
}


@pytest.mark.turn
@pytest.mark.parametrize("name", _PEAKS)
def test_what_is_plain_to_see_is_found(key, name):
    """By every restart from clusters: what is far away does not blur what is near."""
    centres, n = _PEAKS[name]
    labels = np.repeat(np.arange(len(centres)), n)
    x = centres[labels] + np.random.default_rng(0).standard_normal(len(labels))
    model = jg.Mixture(jg.Gaussian("full"), len(centres))
    best = jg.fit(model, x, start=np.eye(len(centres))[labels]).log_likelihood
    for start in ("k-means++", "k-means", "hierarchical", "short-run"):
        record = jg.fit(model, x, key=key, start=start, n_init=8).restarts
        at_best = np.sum(np.abs(record.log_likelihood - best) < 1e-3)
        assert at_best >= (len(record.status) if start != "short-run" else 4), start


@pytest.mark.parametrize("structure", ["full", "diag", "spherical"])
def test_first_covariances_are_shrunk_towards_the_one_within_clusters(structure):
    """Half-way at D + 1 rows; a cluster without rows begins as one row like all of them."""
    x = np.asarray(FAITHFUL)
    sizes = [200, 68, 3, 1, 0]
    labels = np.repeat(np.arange(5), sizes)
    model = jg.Mixture(jg.Gaussian(structure), 5).resolve(x)
    hard = jnp.asarray(np.eye(5)[labels])
    params = model.standardise(FAITHFUL).first_params(
        lambda rows, first: jax.lax.dynamic_slice_in_dim(hard, first, len(rows)), FAITHFUL, None
    )
    params = model.standardise(FAITHFUL).to_user(params)
    means = np.array([x[labels == k].mean(axis=0) for k in range(4)] + [x.mean(axis=0)])
    np.testing.assert_allclose(params.means, means, rtol=1e-10)
    np.testing.assert_allclose(params.weights, np.array([*sizes[:4], 1]) / 273, rtol=1e-12)
    own = np.array([np.cov(x[labels == k], rowvar=False, bias=True) for k in range(3)])
    own = np.concatenate([own, np.zeros((1, 2, 2))])
    within = np.einsum("k,kij->ij", sizes[:4], own) / 272
    share = 9 / (9 + np.array(sizes[:4]) ** 2)[:, None, None]
    expected = np.append((1 - share) * own + share * within, [np.cov(x.T, bias=True)], axis=0)
    kept = {
        "full": np.ones((2, 2)),
        "diag": np.eye(2),
        "spherical": np.eye(2),
    }[structure]
    expected = expected * kept
    if structure == "spherical":
        expected = np.trace(expected, axis1=1, axis2=2)[:, None, None] / 2 * np.eye(2)
    np.testing.assert_allclose(params.covariances, expected, rtol=1e-9, atol=1e-12)


def test_starts_by_name_of_a_model_of_ones_own(key):
    """Hard labels alone would be chances of zero and one."""
    fit = jg.fit(ThreeCoins(), THROWS, key=key, n_init=3)
    assert fit.converged
    chance = fit.params.pi * fit.params.p + (1 - fit.params.pi) * fit.params.q
    np.testing.assert_allclose(chance, 0.6, rtol=1e-6)


# -- Ward's linkage --------------------------------------------------------------------


def test_ward_is_scipys_on_whitened_rows():
    x = np.asarray(FAITHFUL)
    labels = ward_labels(MODEL, FAITHFUL)
    assert labels.dtype == np.int32
    centred = (x - x.mean(axis=0)) / x.std(axis=0)
    left, _, _ = np.linalg.svd(centred, full_matrices=False)
    expected = fcluster(linkage(left, "ward"), 3, "maxclust")
    pairs = set(zip(labels.tolist(), expected.tolist(), strict=True))
    assert len(pairs) == 3
    # Columns in any units, a repeated and a constant column, and an offset change nothing.
    wide = np.column_stack([1e6 + 1e-3 * x[:, 0], 50 * x[:, 1], x[:, 1], np.full(len(x), 7.0)])
    np.testing.assert_array_equal(ward_labels(MODEL, jnp.asarray(wide[:, [0, 1, 3]])), labels)
    assert len(np.unique(ward_labels(MODEL, jnp.asarray(wide)))) == 3


def test_ward_of_a_subset_labels_every_row():
    rng = np.random.default_rng(0)
    own = rng.integers(3, size=700)
    x = jnp.asarray(20.0 * np.eye(3)[own] + rng.standard_normal((700, 3)))
    for most_rows in (100, 699, 700):
        labels = ward_labels(MODEL, x, most_rows=most_rows)
        assert len(set(zip(labels.tolist(), own.tolist(), strict=True))) == 3
    weight = (own != 1).astype(float)
    labels = ward_labels(jg.Mixture(jg.Gaussian(), 2), x, weight, most_rows=100)
    assert len(set(zip(labels[own != 1].tolist(), own[own != 1].tolist(), strict=True))) == 2


@pytest.mark.parametrize("rows", [[[1.0, 2.0]], [[1.0, 2.0]] * 6, [[0.0], [0.0], [4.0], [4.0]]])
def test_ward_of_few_distinct_rows(rows):
    labels = ward_labels(MODEL, jnp.array(rows))
    np.testing.assert_array_equal(labels, np.unique(rows, axis=0, return_inverse=True)[1].ravel())


# -- short runs ----------------------------------------------------------------------------


@pytest.mark.turn
def test_the_best_short_run_goes_on(key):
    """It starts above where the average random start is after as many steps."""
    x = DATA["iris"]
    model = jg.Mixture(jg.Gaussian("full"), 3, prior="fraley-raftery")
    short = jg.fit(model, x, key=key, start="short-run", n_init=4, max_iter=0)
    plain = jg.fit(model, x, key=key, start="random", n_init=40, max_iter=SHORT_STEPS)
    after = np.asarray(plain.restarts.log_joint)
    assert np.all(np.asarray(short.restarts.log_joint) > np.mean(after))
    assert len(set(np.asarray(short.restarts.log_joint).tolist())) > 1
