"""Engines on filled up rows: numbers are those of the rows alone, nearby sizes share programs."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import jaxgmm as jg


def rows(n, seed=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=n) + 4.0 * (np.arange(n) % 2)


def fitted(x, **options):
    model = jg.Mixture(jg.Gaussian("V"), 2, prior="fraley-raftery")
    return jg.fit(model, x, key=jax.random.key(0), n_init=2, **options)


def drawn(fit, x, method, **options):
    settings = {"n_draws": 20, "progress": False, **options}
    settings |= {"n_warmup": 20} if method in ("nuts", "gibbs") else {}
    return jg.sample(fit.model, x, key=jax.random.key(1), start=fit, method=method, **settings)


SLOW = pytest.mark.turn


@pytest.mark.parametrize(
    ("method", "weighted"),
    [
        ("gibbs", False),
        ("vb", True),
        *(pytest.param(m, w, marks=SLOW) for m in ("nuts", "svi", "laplace") for w in (0, 1)),
        pytest.param("gibbs", True, marks=SLOW),
        pytest.param("vb", False, marks=SLOW),
    ],
)
def test_draws_are_those_of_the_rows_alone(method, weighted, monkeypatch):
    x = rows(33)  # filled up to 36
    weight = {"sample_weight": 1.0 + np.arange(33) % 3} if weighted else {}
    fit = fitted(x, **weight)
    filled = drawn(fit, x, method, **weight)
    monkeypatch.setattr(jg.Mixture, "fills_up", False)
    alone = drawn(fit, x, method, **weight)
    for name, draws in alone.draws.items():
        np.testing.assert_allclose(filled.draws[name], draws, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(filled.log_likelihood, alone.log_likelihood, rtol=1e-6)
    np.testing.assert_allclose(filled.label_clarity, alone.label_clarity, rtol=1e-6, atol=1e-9)
    assert filled.pointwise_log_likelihood().shape == (4, 20, 33)


# Evidence of two populations of particles: resampled, so that rounding may move any of them.
@SLOW
def test_particles_are_of_the_rows_alone(monkeypatch):
    x = rows(33)
    fit = fitted(x)
    filled = drawn(fit, x, "smc", n_draws=200)
    monkeypatch.setattr(jg.Mixture, "fills_up", False)
    alone = drawn(fit, x, "smc", n_draws=200)
    error = np.hypot(filled.evidence.error, alone.evidence.error)
    assert abs(filled.evidence.log_evidence - alone.evidence.log_evidence) < 4 * error


@SLOW
@pytest.mark.parametrize("method", ["stephens", "ecr", "data-based"])
def test_labels_are_matched_by_the_rows_alone(method, monkeypatch):
    x = rows(33)
    post = drawn(fitted(x), x, "gibbs")
    filled = post.relabel(method)
    monkeypatch.setattr(jg.Mixture, "fills_up", False)
    alone = post.relabel(method)
    np.testing.assert_array_equal(filled.labels, alone.labels)
    np.testing.assert_allclose(filled.label_clarity, alone.label_clarity, rtol=1e-10)


@SLOW
def test_everything_serves_sizes_nearby(compilations):
    def work(n, seed):
        x = rows(n, seed)
        fit = fitted(x)
        post = drawn(fit, x, "gibbs", n_draws=100)
        jg.standard_errors(fit, x, kind="sandwich")
        jg.bootstrap(fit, x, key=jax.random.key(4), n_replicates=7)
        jg.evidence(post, key=jax.random.key(2), n_proposals=100)
        post.responsibilities(), post.log_prob(), post.co_clustering()
        post.sample_assignments(jax.random.key(3))
        return jg.compare(fit, post)

    work(66, 3)
    with compilations:
        verdict = work(71, 4)
    assert compilations.count == 0
    assert verdict.posterior.x.shape == (71, 1)


def test_rows_are_seen_alike_and_sizes_nearby_share_what_sees_them(compilations, monkeypatch):
    x = rows(36)
    fit = fitted(x)
    weight = 1.0 + np.arange(36) % 3

    def seen(n):
        looks = fit.model.log_prob, fit.model.responsibilities, fit.model.predict
        sums = fit.model.log_likelihood(fit.params, x[:n], weight[:n])
        return [np.asarray(look(fit.params, x[:n])) for look in looks] + [sums]

    seen(36)
    with compilations:
        filled = seen(33)
    assert compilations.count == 0
    monkeypatch.setattr(jg.Mixture, "fills_up", False)
    for ours, alone in zip(filled, seen(33), strict=True):
        assert ours.shape == alone.shape
        np.testing.assert_allclose(ours, alone, rtol=1e-12, atol=1e-14)


# -- rows with holes ---------------------------------------------------------------------------


def with_holes(n, dtype=np.float64):
    x = np.stack([rows(n), rows(n, 5)], axis=1).astype(dtype)
    x[2::7, 0] = x[4::9, 1] = np.nan
    x[5] = np.nan  # a row without any value
    return x


@pytest.mark.parametrize(
    ("n", "dtype", "weighted"),
    [
        (45, "float32", True),
        pytest.param(44, "float32", False, marks=SLOW),  # a rung itself
        pytest.param(33, "float64", True, marks=SLOW),
        *(pytest.param(n, "float64", w, marks=SLOW) for n in (36, 37) for w in (False, True)),
    ],
)
def test_fits_with_holes_are_those_of_the_rows_alone(n, dtype, weighted, monkeypatch):
    x = with_holes(n, dtype)
    weight = {"sample_weight": 1.0 + np.arange(n) % 3} if weighted else {}
    model = jg.Mixture(jg.Gaussian(), 2, prior="fraley-raftery")
    fitted = lambda: jg.fit(model, x, key=jax.random.key(0), n_init=2, **weight)
    filled = fitted()
    monkeypatch.setattr(jg.Mixture, "fills_up", False)
    alone = fitted()
    rtol = 1e-8 if dtype == "float64" else 1e-4
    assert filled.n_rows == alone.n_rows == n
    np.testing.assert_allclose(filled.log_joint, alone.log_joint, rtol=rtol)
    np.testing.assert_allclose(filled.bic, alone.bic, rtol=rtol)
    np.testing.assert_allclose(filled.params.means, alone.params.means, rtol=1e2 * rtol)


def test_rows_with_holes_share_programs_and_draws(compilations, monkeypatch):
    model = jg.Mixture(jg.Gaussian(), 2, prior="fraley-raftery")

    def work(n):
        x = with_holes(n)
        fit = jg.fit(model, x, key=jax.random.key(0), n_init=2)
        post = drawn(fit, x, "gibbs")
        key = jax.random.key(2)
        return post, fit.model.impute(fit.params, x, key), post.impute(key), post.replicate(key)

    work(36)
    with compilations:
        filled = work(33)
    assert compilations.count == 0
    monkeypatch.setattr(jg.Mixture, "fills_up", False)
    alone = work(33)
    for name, draws in alone[0].draws.items():
        np.testing.assert_allclose(filled[0].draws[name], draws, rtol=1e-6, atol=1e-8)
    for ours, theirs in zip(filled[1:], alone[1:], strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-8)


# -- models of one's own -----------------------------------------------------------------------


def two_rates(counts):
    """A NumPyro program of two kinds of rows."""
    share = numpyro.sample("share", dist.Dirichlet(jnp.ones(2)))
    rates = numpyro.sample("rates", dist.Gamma(2.0, 0.2).expand([2]).to_event(1))
    with numpyro.plate("rows", len(counts)):
        kind = numpyro.sample("kind", dist.Categorical(share))
        numpyro.sample("count", dist.Poisson(rates[kind]), obs=counts)


def about_their_mean(x):
    """One whose prior is made of the rows."""
    means = numpyro.sample("means", dist.Normal(jnp.mean(x), 10.0).expand([2]).to_event(1))
    with numpyro.plate("rows", len(x)):
        kind = numpyro.sample("kind", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(means[kind], 1.0), obs=x)


def counts(n):
    return np.random.default_rng(n).poisson(np.where(np.arange(n) % 3, 3.0, 20.0))


@pytest.mark.parametrize("method", [None, pytest.param("laplace", marks=SLOW)])
def test_programs_of_ones_own_share_what_is_compiled(method, compilations):
    def work(n):
        model = jg.from_numpyro(two_rates, counts(n))
        fit = jg.fit(model, counts(n), key=jax.random.key(0), n_init=2)
        return fit, None if method is None else drawn(fit, counts(n), method)

    work(36)
    with compilations:
        filled, post = work(33)
    assert compilations.count == 0
    assert filled.model.sample(filled.params, jax.random.key(1), 50).shape == (50, 1)
    exact = filled.model.log_joint(filled.params, jnp.asarray(counts(33), float)[:, None])
    np.testing.assert_allclose(filled.log_joint, exact, rtol=1e-10)
    if post is not None:
        alone = np.sum(post.pointwise_log_likelihood(), axis=-1)
        np.testing.assert_allclose(post.log_likelihood, alone, rtol=1e-10)


def test_a_prior_that_is_made_of_rows_keeps_them():
    x = rows(33)
    model = jg.from_numpyro(about_their_mean, x)
    prior = lambda means: dist.Normal(x.mean(), 10.0).log_prob(means).sum()
    means = jnp.array([0.5, 4.0])
    np.testing.assert_allclose(model.log_prior({"means": means}), prior(means), rtol=1e-12)


class Halves(NamedTuple):
    """How many rows each label has, and their sum."""

    rows: jax.Array
    total: jax.Array


@jg.model.pytree
@dataclasses.dataclass(frozen=True)
class Own(jg.LatentModel):
    """Two normals of variance one, each as probable."""

    fills_up = True
    n_components = 2

    def prior_sites(self):
        return {"means": lambda _: dist.Normal(0.0, 5.0).expand([2]).to_event(1)}

    def likelihood(self, params):
        normals = dist.Independent(dist.Normal(params["means"][:, None], 1.0), 1)
        return dist.MixtureSameFamily(dist.Categorical(probs=jnp.full(2, 0.5)), normals)

    def sites(self, params):
        return params

    def from_sites(self, sites):
        return dict(sites)

    def logits(self, params, x):
        return -((x[:, 0] - params["means"][:, None]) ** 2 + math.log(8 * math.pi)) / 2

    def responsibilities(self, params, x):
        return jax.nn.softmax(self.logits(params, x), axis=0).T

    def statistics(self, responsibilities, x, sample_weight=None):
        if callable(responsibilities):
            responsibilities = responsibilities(x, 0)
        weight = jnp.ones(len(x), x.dtype) if sample_weight is None else sample_weight
        return Halves(weight @ responsibilities, (weight * x[:, 0]) @ responsibilities)

    def e_step(self, params, x, sample_weight=None, assign=jg.expected_labels):
        labels, value = assign(self.logits(params, x), 0)
        weight = jnp.ones(len(x), x.dtype) if sample_weight is None else sample_weight
        return self.statistics(labels.T, x, sample_weight), weight @ value

    def m_step(self, statistics, params=None):
        return {"means": statistics.total / (statistics.rows + 1 / 25)}

    def n_parameters(self, n_features):
        return 2


@pytest.mark.parametrize(("dtype", "weighted"), [("float64", True), ("float32", False)])
def test_a_model_that_says_so_is_filled_up(dtype, weighted, compilations, monkeypatch):
    def fitted(n):
        weight = {"sample_weight": 1.0 + np.arange(n) % 3} if weighted else {}
        x = rows(n).astype(dtype)
        return jg.fit(Own(), x, key=jax.random.key(0), n_init=2, **weight)

    fitted(36)
    with compilations:
        filled = fitted(33)
    assert compilations.count == 0
    monkeypatch.setattr(Own, "fills_up", False)
    with compilations:
        alone = fitted(33)
    assert compilations.count > 0
    rtol = 1e-10 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(filled.log_joint, alone.log_joint, rtol=rtol)
    np.testing.assert_allclose(filled.params["means"], alone.params["means"], rtol=1e2 * rtol)


# -- what draws rows of its own, and what has no model -------------------------------------------


@SLOW
def test_calibrations_of_sizes_nearby_share_a_program(compilations, monkeypatch):
    prior = jg.ConjugatePrior(mean=[0.0], mean_precision=0.5, dof=5.0, scale=[[2.0]])
    model = jg.Mixture(jg.Gaussian(), 1, prior=prior)

    def ranks(n):
        settings = {"n_datasets": 20, "n_init": 1, "n_draws": 19, "progress": False}
        return jg.calibrate(model, n=n, method="vb", key=jax.random.key(0), **settings).ranks

    ranks(36)
    with compilations:
        filled = ranks(33)
    assert compilations.count == 0
    monkeypatch.setattr(jg.Mixture, "fills_up", False)
    np.testing.assert_array_equal(filled, ranks(33))


@SLOW
def test_likelihood_ratio_tests_of_sizes_nearby_share_programs(compilations, monkeypatch):
    one = jg.Mixture(jg.Gaussian("E"), 1)

    def tested(n):
        return jg.bootstrap_lrt(one, rows(n), key=jax.random.key(0), n_replicates=19, n_init=2)

    tested(36)
    with compilations:
        filled = tested(33)
    assert compilations.count == 0
    monkeypatch.setattr(jg.Mixture, "fills_up", False)
    alone = tested(33)
    assert filled.n_failed == alone.n_failed
    np.testing.assert_allclose(filled.statistic, alone.statistic, rtol=1e-6)
    np.testing.assert_allclose(filled.statistics, alone.statistics, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_clusters_of_sizes_nearby_share_a_program(weighted, compilations):
    def found(n):
        weight = {"sample_weight": 1.0 + np.arange(n) % 3} if weighted else {}
        return jg.kmeans(rows(n), 2, key=jax.random.key(0), n_init=3, **weight)

    found(36)
    with compilations:
        hard = found(33)
    assert compilations.count == 0
    x, weight = rows(33), 1.0 + np.arange(33) % 3 if weighted else np.ones(33)
    own = np.asarray(hard.labels)
    assert own.shape == (33,)
    means = [np.average(x[own == k], weights=weight[own == k]) for k in range(2)]
    np.testing.assert_allclose(np.ravel(hard.centres), means, rtol=1e-12)
    np.testing.assert_allclose(hard.inertia, weight @ (x - np.take(means, own)) ** 2, rtol=1e-12)
