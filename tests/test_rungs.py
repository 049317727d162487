"""Engines on filled up rows: numbers are those of the rows alone, nearby sizes share programs."""

import jax
import numpy as np
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
