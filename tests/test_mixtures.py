"""Mixtures of normals: each function against SciPy, or against sums that are written out."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, optimize, stats

import jaxgmm as jg
from jaxgmm import mixtures as mx

KEY = jax.random.key(0)


def spread(seed, d):
    root = np.random.default_rng(seed).normal(size=(d, d)) / 2
    return root @ root.T + 0.3 * np.eye(d)


def made(k=3, d=3, seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(k, 3.0))
    covariances = np.stack([spread(seed + j, d) for j in range(k)])
    return mx.Normals(weights, 2 * rng.normal(size=(k, d)), covariances)


def density(mixture, x):
    """By SciPy."""
    parts = zip(*map(np.asarray, mixture), strict=True)
    return sum(w * stats.multivariate_normal(m, c).pdf(x) for w, m, c in parts)


ROWS = np.random.default_rng(1).normal(size=(7, 3))


def test_the_density_and_its_marginals_are_scipys():
    mixture = made()
    np.testing.assert_allclose(mx.log_density(mixture, ROWS), np.log(density(mixture, ROWS)))
    two = mx.marginal(mixture, [2, 0])
    np.testing.assert_allclose(
        density(two, ROWS[:, [2, 0]]),
        [
            integrate.quad(lambda y, a=a, b=b: density(mixture, [a, y, b]), -15, 15, limit=200)[0]
            for a, _, b in ROWS
        ],
        rtol=1e-6,
    )


@pytest.mark.parametrize("known", [[1], [2, 0]])
def test_the_joint_is_the_marginal_times_the_conditional(known):
    mixture, rest = made(), [j for j in range(3) if j not in known]
    at = jax.vmap(lambda row: mx.conditional(mixture, known, row[jnp.array(known)]))(ROWS)
    own = jax.vmap(lambda m, row: mx.log_density(m, row[None, jnp.array(rest)])[0])(at, ROWS)
    of_known = mx.log_density(mx.marginal(mixture, known), ROWS[:, known])
    np.testing.assert_allclose(own + of_known, np.log(density(mixture, ROWS)), rtol=1e-9)


def test_an_affine_map_is_that_of_the_rows():
    mixture, matrix, shift = made(), np.array([[1.0, 2, 0], [0, -1, 3], [1, 0, 1]]), np.arange(3.0)
    there = mx.affine(mixture, matrix, shift)
    moved = density(there, ROWS @ matrix.T + shift)
    np.testing.assert_allclose(moved, density(mixture, ROWS) / abs(np.linalg.det(matrix)))


def test_a_product_is_the_product_of_the_densities():
    one, other = made(3), made(2, seed=9)
    both, log_mass = mx.product(one, other)
    assert both.weights.shape == (6,)
    np.testing.assert_allclose(
        np.exp(log_mass) * density(both, ROWS), density(one, ROWS) * density(other, ROWS)
    )


def test_moments_stay_as_they_are_whoever_is_taken_together():
    mixture = made(4)
    w, m, c = mixture
    mean = w @ m
    covariance = np.einsum("k,kij->ij", w, c + np.einsum("ki,kj->kij", m - mean, m - mean))
    pairs = mx.collapse(mixture, [0, 1, 0, 1])
    assert pairs.means.shape == (2, 3)
    np.testing.assert_allclose(pairs.weights, [w[0] + w[2], w[1] + w[3]])
    for found in (mx.collapse(mixture), mx.collapse(pairs)):
        np.testing.assert_allclose(found.means[0], mean)
        np.testing.assert_allclose(found.covariances[0], covariance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_quantiles_undo_the_distribution_function(dtype):
    mixture = mx.Normals(*(np.asarray(a, dtype) for a in made(d=1)))
    x = np.linspace(-4, 4, 9, dtype=dtype)
    p = mx.cdf(mixture, x)
    exact = sum(
        w * stats.norm.cdf(x, m[0], c[0, 0] ** 0.5) for w, m, c in zip(*mixture, strict=True)
    )
    assert p.dtype == dtype
    tol = 1e-6 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(p, exact, atol=tol)
    inner = slice(2, 7)
    np.testing.assert_allclose(mx.quantile(mixture, p[inner]), x[inner], atol=1000 * tol)
    np.testing.assert_array_equal(mx.quantile(mixture, [0.0, 1.0]), [-np.inf, np.inf])
    assert np.isnan(mx.quantile(mixture, 1.2))


def test_modes_are_where_a_search_ends():
    mixture = made(d=2, seed=3)
    found = mx.modes(mixture)
    ends = []
    for start in np.asarray(mixture.means):
        end = optimize.minimize(lambda x: -np.log(density(mixture, x)), start, tol=1e-12).x
        if not any(np.allclose(end, other, atol=1e-3) for other in ends):
            ends.append(end)
    own = np.asarray(found.points)[np.asarray(found.distinct)]
    assert len(own) == len(ends) == int(found.count)
    np.testing.assert_allclose(own, ends, atol=1e-4)
    # Two that are two standard deviations apart have one mode between them.
    near = mx.Normals(np.array([0.5, 0.5]), np.array([[-0.9], [0.9]]), np.ones((2, 1, 1)))
    assert int(mx.modes(near).count) == 1
    np.testing.assert_allclose(mx.modes(near).points, 0, atol=1e-4)
    far = near._replace(means=np.array([[-1.5], [1.5]]))
    assert int(mx.modes(far).count) == 2
    # The middle of three, where the density is lowest, is no mode.
    saddle = mx.Normals(
        np.array([0.49, 0.02, 0.49]), np.array([[-3.0], [0], [3]]), np.ones((3, 1, 1))
    )
    assert np.asarray(mx.modes(saddle).distinct).tolist() == [True, False, True]


def test_regions_of_highest_density_hold_what_they_should():
    mixture = made(d=1, seed=4)
    ends = mx.highest_density_intervals(mixture, 0.8)
    mass = np.sum(np.diff(mx.cdf(mixture, ends), axis=1))
    assert mass == pytest.approx(0.8, abs=1e-8)
    heights = density(mixture, ends.reshape(-1, 1))
    np.testing.assert_allclose(heights, heights[0], rtol=1e-6)
    level = mx.highest_density_level(mixture, 0.8, KEY)
    assert abs(level.value - np.log(heights[0])) < 5 * level.error
    assert 0 < level.error < 0.1


def test_divergences_are_bounded_and_estimated():
    one, other = made(2, d=1, seed=1), made(3, d=1, seed=2)
    log_ratio = lambda x: np.log(density(one, x) / density(other, x))
    exact = integrate.quad(lambda x: density(one, x) * log_ratio(x), -12, 12, limit=300)[0]
    estimate = mx.kl_monte_carlo(one, other, KEY)
    assert abs(estimate.value - exact) < 5 * estimate.error
    bound = float(mx.kl_bound(one, other))
    assert exact < bound < exact + np.log(6)
    assert float(mx.kl_bound(one, one)) == pytest.approx(0, abs=1e-6)


def test_the_bound_of_transport_is_within_thousandths_of_the_best_plan():
    one, other = made(4, seed=5), made(3, seed=6)
    cost = np.zeros((4, 3))
    for k in range(4):
        for j in range(3):
            a, b = one.covariances[k], other.covariances[j]
            values = np.linalg.eigvals(a @ b).real
            apart = np.sum((one.means[k] - other.means[j]) ** 2)
            cost[k, j] = apart + np.trace(a + b) - 2 * np.sum(np.sqrt(values))
    rows, columns = np.kron(np.eye(4), np.ones(3)), np.kron(np.ones(4), np.eye(3))
    margins = np.concatenate([one.weights, other.weights])
    best = optimize.linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=margins)
    found = float(mx.wasserstein_bound(one, other))
    assert np.sqrt(best.fun) * (1 - 1e-9) <= found < 1.005 * np.sqrt(best.fun)
    assert float(mx.wasserstein_bound(one, one)) < 0.02
    sliced = mx.sliced_wasserstein(one, other, KEY)
    assert float(sliced.value) < found


def test_in_one_dimension_the_sliced_distance_is_that_of_quantiles():
    one, other = made(2, d=1, seed=1), made(3, d=1, seed=2)
    gap = lambda u: float(mx.quantile(one, u) - mx.quantile(other, u)) ** 2
    exact = np.sqrt(np.mean([gap(u) for u in (np.arange(200) + 0.5) / 200]))
    found = mx.sliced_wasserstein(one, other, KEY, 3)
    assert float(found.value) == pytest.approx(exact, rel=0.01)
    assert float(found.error) < 1e-6
    assert float(found.value) < float(mx.wasserstein_bound(one, other))


def test_rows_have_the_moments_of_the_mixture():
    mixture = made()
    x = np.asarray(mx.draw(mixture, KEY, 20_000))
    whole = mx.collapse(mixture)
    error = np.sqrt(np.diag(whole.covariances[0]) / len(x))
    assert np.all(np.abs(x.mean(axis=0) - whole.means[0]) < 5 * error)
    np.testing.assert_allclose(np.cov(x.T), whole.covariances[0], atol=0.15)


def test_a_fit_and_draws_are_mixtures_too():
    model = jg.Mixture(jg.Gaussian("diag"), 2)
    params = model.params(means=[[0.0, 1.0], [3.0, 4.0]], covariances=[[1.0, 2.0], [1.0, 1.0]])
    np.testing.assert_allclose(
        mx.log_density(params, ROWS[:, :2]), model.log_prob(params, ROWS[:, :2])
    )
    draws = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), params)
    many = jax.vmap(lambda draw: mx.quantile(mx.marginal(draw, 0), jnp.array([0.1, 0.9])))(draws)
    np.testing.assert_allclose(many[0], mx.quantile(mx.marginal(params, 0), [0.1, 0.9]))
    assert many.shape == (3, 2)
    counts = jax.vmap(lambda draw: mx.modes(draw).count)(draws)
    assert counts.tolist() == [2, 2, 2]


@pytest.mark.slow
def test_the_page_runs():
    page = (pathlib.Path(__file__).parents[1] / "docs" / "mixtures.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    scope = {}
    exec(code, scope)
    assert 78 < float(scope["expected"](4.0)) < 82
    assert len(mx.highest_density_intervals(scope["waiting"], 0.9)) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: mx.marginal(m, 3), r"columns: need positions below 3, found \[3\]"),
        (lambda m: mx.marginal(m, [1, -2]), r"columns: each once, found \[1, 1\]"),
        (lambda m: mx.conditional(m, [0, 1, 2], [0.0] * 3), "columns: all 3 are known"),
        (lambda m: mx.conditional(m, [0, 1], [0.0]), r"values: need one for each of 2 column"),
        (lambda m: mx.collapse(m, [0, 2, 2]), "groups: need 3 numbers from 0 without a gap"),
        (lambda m: mx.quantile(m, 0.5), "mixture: has 3 columns, and this is for one"),
        (lambda m: mx.highest_density_intervals(made(d=1), 1.5), "probability: needs a number"),
        (lambda m: mx.marginal(3, 0), "mixture: needs weights, means and covariances.* found int"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(made())
