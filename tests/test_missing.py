"""Missing values: NaN is a row without that column, in every engine."""

import dataclasses
import doctest
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import PRIORS, STRUCTURE_OF, mixture, soft_labels, tree_allclose
from numpyro.infer.util import log_density
from scipy.special import logsumexp

import jaxgmm as jg

KEY = jax.random.key(0)
IRIS = jg.datasets.load("iris").x
QUICK = ("full",)
each_structure = pytest.mark.parametrize(
    "structure",
    [pytest.param(s, marks=[pytest.mark.slow] * (s not in QUICK)) for s in STRUCTURE_OF],
)


# Compiled, as in every engine: one program and not one for each operation.
_e_step = jax.jit(lambda model, params, x: model.e_step(params, x))
_log_joint = jax.jit(lambda model, params, x: model.log_joint(params, x))


@jax.jit
def _from_labels(model, labels, x):
    return model.m_step(model.statistics(labels, x))


def _with_holes(x, share=0.15, seed=0):
    return np.where(np.random.default_rng(seed).random(x.shape) < share, np.nan, x)


HOLES = _with_holes(IRIS)
HOLES[7] = np.nan  # a row without any value


def _start(model):
    """Iris's three species, in the order of the file: means, and one spherical covariance."""
    means = np.stack([rows.mean(axis=0) for rows in np.split(IRIS, 3)])
    return model.params(weights=[0.3, 0.3, 0.4], means=means, covariances=[0.5 * np.eye(4)] * 3)


@functools.cache
def _tight_fit(structure, prior):
    model = mixture(structure, prior, IRIS, 3)
    return jg.fit(model, HOLES, start=_start(model), tol=1e-14, max_iter=20000)


# -- law 11: a NaN is a row without that column -----------------------------------------


def _reference(params, x):
    """Log density of each row: the mixture of the normal densities of the columns it has."""
    weights, means, covariances = (
        np.asarray(a) for a in (params.weights, params.means, params.covariances)
    )
    found = np.empty((len(x), len(weights)))
    for i, row in enumerate(np.asarray(x)):
        o = np.flatnonzero(~np.isnan(row))
        for k, log_weight in enumerate(np.log(weights)):
            inner, apart = covariances[k][np.ix_(o, o)], row[o] - means[k, o]
            square = apart @ np.linalg.solve(inner, apart)
            log_det = np.linalg.slogdet(inner)[1] + len(o) * np.log(2 * np.pi)
            found[i, k] = log_weight - 0.5 * (square + log_det)
    return logsumexp(found, axis=1)


def _somewhere(structure, prior, seed=0):
    model = mixture(structure, prior, IRIS, 3).resolve(HOLES)
    labels = jnp.asarray(soft_labels(len(HOLES), 3, seed))
    working = model.standardise(jnp.asarray(HOLES))
    return model, working.to_user(_from_labels(working, labels, jnp.asarray(HOLES)))


@each_structure
def test_one_density(structure):
    model, params = _somewhere(structure, "conjugate")
    expected, rows = _reference(params, HOLES), jnp.asarray(HOLES)
    assert np.isnan(HOLES).any(axis=1).sum() > 50
    np.testing.assert_allclose(model.log_prob(params, rows), expected, rtol=1e-10, atol=1e-12)
    joint = np.sum(expected) + model.log_prior(params)
    sites = model.sites(params)
    working = model.standardise(rows)
    _, by_em = _e_step(working, working.to_working(params), rows)
    program = jax.jit(lambda sites: log_density(model.numpyro_model, (rows,), {}, sites)[0])(sites)
    found = [_log_joint(model, params, rows), by_em + model.log_prior(params), program]
    np.testing.assert_allclose(found, joint, rtol=1e-10)


def test_rows_that_the_model_has_not_seen():
    params = _start(jg.Mixture(jg.Gaussian(), 3))
    x = _with_holes(IRIS, share=0.5, seed=3)
    expected = _reference(params, x)
    for model in (jg.Mixture(jg.Gaussian(), 3), _tight_fit("full", "none").model):
        np.testing.assert_allclose(
            model.log_prob(params, jnp.asarray(x)), expected, rtol=1e-10, atol=1e-12
        )
        labels = model.responsibilities(params, x)
        np.testing.assert_allclose(jnp.sum(labels, axis=1), 1)
        np.testing.assert_array_equal(model.predict(params, x), jnp.argmax(labels, axis=1))
    # Where rows are traced, nobody can look for patterns that are new.
    known = jg.Mixture(jg.Gaussian(), 3).resolve(x[:20])
    traced = np.asarray(jax.jit(known.log_prob)(params, x))
    new = np.isnan(traced)
    assert 0 < new.sum() < len(x) - 20
    np.testing.assert_allclose(traced[~new], expected[~new], rtol=1e-10, atol=1e-12)


def test_many_columns_and_patterns():
    rng = np.random.default_rng(0)
    x = _with_holes(rng.normal(size=(300, 19)), share=0.4)
    model = jg.Mixture(jg.Gaussian("tied"), 2)
    factor = rng.normal(size=(19, 19))
    params = model.params(
        means=rng.normal(size=(2, 19)), covariances=factor @ factor.T + np.eye(19)
    )
    expected = _reference(params, x[:40])
    np.testing.assert_allclose(model.log_prob(params, x)[:40], expected, rtol=1e-10)


# -- no holes, and one -------------------------------------------------------------------


@each_structure
def test_without_holes_the_form_is_the_complete_one(structure):
    x = jnp.asarray(IRIS)
    plain = mixture(structure, "none", IRIS, 3).resolve(IRIS).standardise(x)
    assert not plain.incomplete
    complete = np.ones((1, 4), bool)
    aware = dataclasses.replace(plain, family=dataclasses.replace(plain.family, patterns=complete))
    params = _from_labels(plain, jnp.asarray(soft_labels(150, 3)), x)
    tree_allclose(_e_step(aware, params, x), _e_step(plain, params, x), 1e-10, 1e-10)


@pytest.mark.turn
def test_a_row_without_any_value_is_no_row():
    x = np.concatenate([IRIS, np.full((1, 4), np.nan)])
    model = jg.Mixture(jg.Gaussian("VEE"), 3)
    here, there = (jg.fit(model, rows, start=_start(model), tol=1e-14) for rows in (IRIS, x))
    assert there.model.incomplete
    assert not here.model.incomplete
    np.testing.assert_allclose(there.log_likelihood, here.log_likelihood, rtol=1e-10)
    np.testing.assert_allclose(there.bic, here.bic, rtol=1e-10)
    tree_allclose(there.params, here.params, 1e-6, 1e-8)


# -- EM ----------------------------------------------------------------------------------


def _numpy_em(x, weights, means, covariances, steps):
    """Ghahramani and Jordan's (1994) steps for free covariances, a row at a time."""
    k, d = means.shape
    trace = []
    for _ in range(steps + 1):
        log_joint = np.empty((len(x), k))
        filled, spread = np.empty((len(x), k, d)), np.zeros((len(x), k, d, d))
        for i, row in enumerate(x):
            o, m = np.flatnonzero(~np.isnan(row)), np.flatnonzero(np.isnan(row))
            for j in range(k):
                apart, inner = row[o] - means[j, o], covariances[j][np.ix_(o, o)]
                solved = np.linalg.solve(inner, apart)
                log_det = np.linalg.slogdet(inner)[1]
                log_joint[i, j] = np.log(weights[j]) - 0.5 * (
                    apart @ solved + log_det + len(o) * np.log(2 * np.pi)
                )
                across = covariances[j][np.ix_(m, o)]
                filled[i, j, o] = row[o]
                filled[i, j, m] = means[j, m] + across @ solved
                spread[i, j][np.ix_(m, m)] = covariances[j][np.ix_(m, m)] - (
                    across @ np.linalg.solve(inner, across.T)
                )
        top = log_joint.max(axis=1, keepdims=True)
        log_rows = top[:, 0] + np.log(np.exp(log_joint - top).sum(axis=1))
        trace.append(log_rows.sum())
        if len(trace) > steps:
            return np.array(trace), weights, means, covariances
        labels = np.exp(log_joint - log_rows[:, None])
        counts = labels.sum(axis=0)
        weights = counts / len(x)
        means = np.einsum("nk,nkd->kd", labels, filled) / counts[:, None]
        apart = filled - means
        second = np.einsum("nkd,nke->nkde", apart, apart) + spread
        covariances = np.einsum("nk,nkde->kde", labels, second) / counts[:, None, None]


def test_em_is_that_of_another_program():
    model, steps = jg.Mixture(jg.Gaussian("full"), 3), 25
    start = _start(model)
    fit = jg.fit(model, HOLES, start=start, tol=0, max_iter=steps)
    first = (np.asarray(a) for a in (start.weights, start.means, start.covariances))
    trace, *expected = _numpy_em(HOLES, *first, steps)
    np.testing.assert_allclose(fit.trace, trace, rtol=1e-8)
    found = fit.params.weights, fit.params.means, fit.params.covariances
    tree_allclose(found, tuple(expected), 1e-8, 1e-8)


def test_one_column_with_holes_has_a_closed_form():
    """Anderson (1957), JASA 52:200-203: the likelihood factorises."""
    x = IRIS[:, [0, 2]].copy()
    x[40:] = np.where(np.random.default_rng(1).random((110, 2)) < [0, 0.6], np.nan, x[40:])
    both = x[~np.isnan(x[:, 1])]
    mean, variance = x[:, 0].mean(), x[:, 0].var()
    slope = np.cov(both.T, bias=True)[0, 1] / both[:, 0].var()
    intercept = both[:, 1].mean() - slope * both[:, 0].mean()
    left = np.mean((both[:, 1] - intercept - slope * both[:, 0]) ** 2)
    fit = jg.fit(jg.Mixture(jg.Gaussian(), 1), x, key=KEY, n_init=1, tol=1e-14)
    np.testing.assert_allclose(fit.params.means[0], [mean, intercept + slope * mean], rtol=1e-8)
    across = slope * variance
    covariance = [[variance, across], [across, left + slope * across]]
    np.testing.assert_allclose(fit.params.covariances[0], covariance, rtol=1e-7)


@pytest.mark.parametrize(
    ("structure", "prior"),
    [
        pytest.param(s, p, marks=[pytest.mark.slow] * ((s, p) != ("full", "fraley-raftery")))
        for s in STRUCTURE_OF
        for p in PRIORS
    ],
)
def test_the_gradient_vanishes_at_the_fit(structure, prior):
    fit, x = _tight_fit(structure, prior), jnp.asarray(HOLES)
    assert fit.converged
    working = fit.model.standardise(x)
    here = working.to_working(fit.params)

    def along(step):
        return working.log_joint(working.retract(here, step), x)

    slope = jax.jit(jax.grad(along))(jnp.zeros(working.tangent_size(here)))
    assert jnp.max(jnp.abs(slope)) < 1e-6 * len(x)
    np.testing.assert_allclose(fit.log_joint, fit.model.log_joint(fit.params, x), rtol=1e-12)


@functools.partial(jax.jit, static_argnames="steps")
def _chain(model, x, labels, sample_weight=None, steps=40):
    working = model.standardise(x, sample_weight)

    def step(params, _):
        statistics, log_likelihood = working.e_step(params, x, sample_weight)
        return working.m_step(statistics, params), log_likelihood + working.log_prior(params)

    first = working.m_step(working.statistics(labels, x, sample_weight))
    params, objectives = jax.lax.scan(step, first, length=steps)
    return objectives, params


@each_structure
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_em_never_descends(structure, dtype):
    x = jnp.asarray(HOLES, dtype)
    model = mixture(structure, "conjugate", IRIS, 3).resolve(x)
    objectives, params = _chain(model, x, jnp.asarray(soft_labels(150, 3), dtype))
    assert objectives.dtype == params.weights.dtype == dtype
    bound = jnp.finfo(dtype).eps * 64 * (jnp.max(jnp.abs(objectives)) + len(x))
    assert jnp.min(jnp.diff(objectives)) >= -bound
    assert objectives[-1] - objectives[0] > 100 * bound


@each_structure
def test_statistics_add(structure):
    model, params = _somewhere(structure, "none")
    x = jnp.asarray(HOLES)
    working = model.standardise(x)
    params = working.to_working(params)
    whole, value = _e_step(working, params, x)
    parts = [_e_step(working, params, rows)[0] for rows in (x[:31], x[31:])]
    tree_allclose(working.add(*parts), whole, 1e-11, 1e-11)
    many, sum_of_many = _e_step(working, params, jnp.tile(x, (40, 1)))  # several blocks
    tree_allclose((many.counts, many.means), (40 * whole.counts, whole.means), 1e-11, 1e-12)
    tree_allclose((many.scatter, sum_of_many), (40 * whole.scatter, 40 * value), 1e-11, 1e-9)


def test_a_weight_counts_rows():
    counts = np.arange(150) % 3
    model, labels = mixture("full", "fraley-raftery", IRIS, 3), soft_labels(150, 3)
    repeated, each = np.repeat(HOLES, counts, axis=0), np.repeat(labels, counts, axis=0)
    weight = jnp.asarray(counts, float)
    weighted = _chain(model.resolve(HOLES, weight), jnp.asarray(HOLES), labels, weight, steps=9)
    rows = _chain(model.resolve(repeated), jnp.asarray(repeated), each, steps=9)
    tree_allclose(weighted, rows, 1e-10, 1e-10)


# -- imputation --------------------------------------------------------------------------


def test_imputations_are_conditional_expectations():
    model = jg.Mixture(jg.Gaussian(), 3)
    params = _start(model)
    filled = np.asarray(model.impute(params, HOLES))
    there = ~np.isnan(HOLES)
    np.testing.assert_array_equal(filled[there], HOLES[there])
    # Spherical components: the holes have the means of the labels.
    expected = model.responsibilities(params, HOLES) @ params.means
    np.testing.assert_allclose(filled[~there], np.asarray(expected)[~there], rtol=1e-10)
    np.testing.assert_array_equal(model.impute(params, IRIS), IRIS)


def test_draws_have_the_conditional_distribution():
    covariance = np.array([[2.0, 1.2, 0.3], [1.2, 1.5, -0.4], [0.3, -0.4, 1.0]])
    model = jg.Mixture(jg.Gaussian(), 2)
    params = model.params(weights=[0.3, 0.7], means=[[0.0, 1, 2], [0.5, 4, 0]],
                          covariances=[covariance] * 2)  # fmt: skip
    n = 40_000
    x = np.tile([1.5, np.nan, np.nan], (n, 1))
    drawn = np.asarray(model.impute(params, x, KEY))[:, 1:]
    label = np.asarray(model.responsibilities(params, x[:1]))[0]
    slope = covariance[1:, 0] / covariance[0, 0]
    means = np.array([[1.0, 2.0], [4.0, 0.0]]) + np.outer([1.5, 1.0], slope)
    inner = covariance[1:, 1:] - np.outer(slope, covariance[0, 1:])
    mean = label @ means
    whole = inner + np.einsum("k,ki,kj->ij", label, means - mean, means - mean)
    error = np.sqrt(np.diag(whole) / n)
    assert np.all(np.abs(drawn.mean(axis=0) - mean) < 5 * error)
    np.testing.assert_allclose(np.cov(drawn.T), whole, atol=0.05)


def test_drawn_statistics_have_the_expected_ones_as_means():
    """What a Gibbs sweep draws is on average what EM takes: one component, so no labels."""
    model = jg.Mixture(jg.Gaussian(), 1, prior="fraley-raftery").resolve(HOLES)
    x = jnp.asarray(HOLES)
    working = model.standardise(x)
    params = _from_labels(working, jnp.ones((150, 1)), x)
    expected, value = _e_step(working, params, x)
    draw = lambda key: working.imputing(key).e_step(params, x)
    drawn, values = jax.jit(jax.vmap(draw))(jax.random.split(KEY, 600))
    np.testing.assert_allclose(values, value, rtol=1e-10)

    # About one origin, where means over draws are expectations.
    def second(statistics):
        outer = statistics.means[..., :, None] * statistics.means[..., None, :]
        return statistics.scatter + statistics.counts[..., None, None] * outer

    for of in (second, lambda statistics: statistics.means):
        values = np.asarray(of(drawn))
        error = values.std(axis=0) / np.sqrt(600)
        assert np.all(np.abs(values.mean(axis=0) - np.asarray(of(expected))) < 5 * error)


# -- engines -----------------------------------------------------------------------------


@pytest.mark.slow
def test_samplers_agree():
    x = _with_holes(IRIS[:60, :2], share=0.3)
    model = jg.Mixture(jg.Gaussian(), 1, prior="fraley-raftery")
    fit = jg.fit(model, x, key=KEY, n_init=1)
    found = {
        method: jg.sample(model, x, key=jax.random.key(i), method=method, start=fit,
                          n_draws=2000, progress=False)
        for i, method in enumerate(("nuts", "gibbs", "smc", "laplace", "svi"))
    }  # fmt: skip
    exact = found.pop("gibbs").draws
    for name, post in found.items():
        for site in ("means", "covariances"):
            ours, theirs = post.draws[site], exact[site]
            spread = theirs.std(axis=(0, 1))
            # Laplace and SVI are approximations: within a fifth of a standard deviation.
            most = 0.1 if name in ("nuts", "smc") else 0.25
            apart = np.abs(ours.mean(axis=(0, 1)) - theirs.mean(axis=(0, 1)))
            assert np.all(apart < most * spread), (name, site, apart / spread)


@pytest.mark.turn
def test_gibbs_runs_and_goes_on():
    model = jg.Mixture(jg.Gaussian(), 2, prior="fraley-raftery")
    x = HOLES[:80, 2:]
    fit = jg.fit(model, x, key=KEY, n_init=2)
    post = jg.sample(fit.model, x, key=KEY, method="gibbs", start=fit, n_chains=2, n_draws=50,
                     progress=False)  # fmt: skip
    assert np.all(np.isfinite(post.log_likelihood))
    expected = fit.model.log_likelihood(jax.tree.map(lambda a: a[1, 7], post.params), x)
    np.testing.assert_allclose(post.log_likelihood[1, 7], expected, rtol=1e-10)
    filled, there = post.impute(KEY), ~np.isnan(x)
    assert filled.shape == (2, 50, 80, 2)
    assert np.all(filled[..., there] == x[there])
    assert np.all(filled[..., ~there].std(axis=(0, 1)) > 0.05)


@pytest.mark.slow
def test_the_whole_way(tmp_path):
    model = jg.Mixture(jg.Gaussian(), 2, prior="fraley-raftery")
    x = HOLES[:, 2:]
    fit = jg.fit(model, x, key=KEY, n_init=4)
    errors = jg.em.standard_errors(fit, x)
    assert all(np.all(np.isfinite(error)) for error in errors.standard_errors.values())
    again = jg.bootstrap(fit, x, key=KEY, n_replicates=4)
    assert np.all(np.isfinite(again.draws["means"]))
    post = jg.sample(fit.model, x, key=KEY, start=fit, n_chains=2, n_draws=200, progress=False)
    verdict = jg.compare(fit, post)
    assert verdict.point == "mode"
    assert "nan" not in verdict.summary.lower()
    verdict.save(tmp_path / "report")
    fit.save(tmp_path / "fit.npz")
    tree_allclose(jg.load(tmp_path / "fit.npz").model, fit.model, 0)


@pytest.mark.slow
def test_select_over_structures():
    models = [jg.Mixture(jg.Gaussian(s), k) for s in ("EII", "full") for k in (1, 2)]
    choice = jg.select(models, HOLES[:, 2:], key=KEY, n_init=2, progress=False)
    assert np.all(np.isfinite(choice.table["bic"].astype(float)))
    alone = jg.fit(models[0], HOLES[:, 2:], key=KEY, n_init=1)
    row = choice.table[(choice.table["structure"] == "EII") & (choice.table["n_components"] == 1)]
    np.testing.assert_allclose(row["bic"].astype(float), alone.bic, rtol=1e-8)


@pytest.mark.slow
def test_a_fit_differentiates():
    """The mean of a column with holes moves with its values."""
    x = jnp.asarray(HOLES[:, :2])
    model = jg.Mixture(jg.Gaussian("diag"), 1).resolve(x)
    start = model.params(means=[[5.0, 3.0]], covariances=[[1.0, 1.0]])
    mean = lambda shift: jg.em.run(model, x + shift, start, tol=1e-12).params.means[0, 0]
    np.testing.assert_allclose(jax.grad(mean)(0.0), 1.0, rtol=1e-6)


@pytest.mark.slow
def test_the_page_on_missing_values():
    found = doctest.testfile("../docs/missing.md")
    assert found.attempted
    assert not found.failed


# -- doors -------------------------------------------------------------------------------


def test_what_is_refused():
    infinite, empty = HOLES.copy(), HOLES.copy()
    infinite[3, 1], empty[:, 2] = np.inf, np.nan
    model = jg.Mixture(jg.Gaussian(), 2, prior="fraley-raftery")
    with pytest.raises(ValueError, match="x: non-finite value inf at row 3, column 1"):
        jg.fit(model, infinite, key=KEY)
    with pytest.raises(ValueError, match="x: column 2 has no value at all; leave it out"):
        jg.fit(model, empty, key=KEY)
    with pytest.raises(ValueError, match="x: variational Bayes has no bound"):
        jg.sample(model, HOLES, key=KEY, method="vb", progress=False)
    with pytest.raises(ValueError, match="sample_weight: Gibbs sampling imputes each row once"):
        jg.sample(model, HOLES, key=KEY, method="gibbs", sample_weight=np.full(150, 2),
                  progress=False)  # fmt: skip


def test_float64_far_from_zero_keeps_its_digits_in_float32():
    """Columns with holes are measured from an origin as whole ones are."""
    from jaxgmm.model._origin import centred_rows

    x = HOLES + 1e7
    near, origin = centred_rows(x, jnp.asarray(x, "float32"))
    np.testing.assert_array_equal(np.isnan(near), np.isnan(x))
    np.testing.assert_allclose(near.astype(float) + origin, x, rtol=1e-12)
