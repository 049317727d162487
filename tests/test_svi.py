"""Variational inference: bounds that hold, draws with their densities, what is refused."""

import functools

import jax
import numpy as np
import numpyro.infer.autoguide as autoguide
import pytest
from enumeration import exact, one_component

import jaxgmm as jg
from jaxgmm.bayes._svi import _convergence

SIGMAS = 5.0

X = np.array([0.0, 0.4, 1.1, 2.9, 3.2, 4.5, 3.7])
PRIOR = jg.ConjugatePrior(concentration=2.0, mean=[2.0], mean_precision=0.5, dof=5.0, scale=2.0)


@functools.cache
def the_fit(dtype="float64"):
    model = jg.Mixture(jg.Gaussian("spherical"), 2, prior=PRIOR)
    return jg.fit(model, X.astype(dtype), key=jax.random.key(0), n_init=8, tol=1e-12)


def svi(fit=None, x=X, seed=1, **options):
    fit = the_fit() if fit is None else fit
    options = {"method": "svi", "n_steps": 2000, "progress": False} | options
    return jg.sample(fit.model, x, key=jax.random.key(seed), start=fit, **options)


@functools.cache
def the_posterior():
    return svi()


def low_rank(model):
    return autoguide.AutoLowRankMultivariateNormal(model, rank=1, init_scale=0.2)


GUIDES = ["full-rank"] + [
    pytest.param(guide, marks=pytest.mark.slow)
    for guide in ("mean-field", "low-rank", autoguide.AutoDiagonalNormal, low_rank)
]


@pytest.mark.parametrize("guide", GUIDES)
def test_the_elbo_is_below_the_sum_over_all_assignments(guide):
    """And above that sum less one labelling's share and the guide's own gap."""
    post = the_posterior() if guide == "full-rank" else svi(guide=guide)
    found, truth = post.diagnostics, exact(X, 2, prior=PRIOR).log_evidence
    assert found["converged"]
    assert found["elbo"] < truth + SIGMAS * found["elbo_error"]
    assert found["elbo"] > truth - 1.5
    assert found["elbo_trace"].shape == (2000,)
    name = guide if isinstance(guide, str) else guide.__name__
    assert found["guide"] == name
    # The final value is that of the draws, and the trace's end agrees with it.
    end = found["elbo_trace"][-500:]
    error = np.hypot(found["elbo_error"], end.std() / np.sqrt(500))
    assert abs(end.mean() - found["elbo"]) < SIGMAS * error + 0.02
    # Weights average to the evidence wherever the guide covers the posterior: the draws have
    # the density that they claim, in units that are not the data's.
    assert np.exp(post.log_weights).sum() == pytest.approx(1)
    assert post.pareto_k < 1


@pytest.mark.turn
def test_one_component_is_near_its_closed_form_under_sample_weights():
    """K = 1: the guide covers the posterior, so importance weights correct it to the truth."""
    x = np.random.default_rng(0).normal(size=(40, 2)) * [1.0, 30.0]
    prior = jg.ConjugatePrior(
        mean=[0.0, 0.0], mean_precision=1.0, dof=6.0, scale=np.diag([3.0, 2700.0])
    )
    copies = np.arange(40) % 3
    model = jg.Mixture(jg.Gaussian(), 1, prior=prior)
    fit = jg.fit(model, x, key=jax.random.key(0), sample_weight=copies)
    post = svi(fit, x, sample_weight=copies, n_steps=3000)
    truth = one_component(np.repeat(x, copies, axis=0), prior)
    found = post.diagnostics
    assert truth - 0.3 < found["elbo"] < truth + SIGMAS * found["elbo_error"]
    assert post.pareto_k < 0.7
    weights = np.exp(post.log_weights)
    mean = np.tensordot(weights, post.draws["means"][:, :, 0], 2)
    rows = np.repeat(x, copies, axis=0)
    exact = rows.sum(axis=0) / (len(rows) + 1)
    error = post.draws["means"][:, :, 0].std(axis=(0, 1)) * np.sqrt(np.sum(weights**2))
    assert np.all(np.abs(mean - exact) < SIGMAS * error)


def test_draws_are_shaped_and_weighed_like_any_others():
    post = the_posterior()
    assert post.draws["means"].shape == (4, 1000, 2, 1)
    assert post.evidence is None
    assert len(np.unique(post.draws["weights"][..., 0])) == 4000
    params = jax.tree.map(lambda leaf: leaf[1, 7], post.params)
    expected = float(post.model.log_joint(params, post.x))
    assert post.log_joint[1, 7] == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
def test_a_bar_changes_no_number():
    np.testing.assert_array_equal(svi(progress=True).log_joint, the_posterior().log_joint)


@pytest.mark.slow
def test_fixed_weights_stay():
    model = jg.Mixture(jg.Gaussian("spherical"), 2, prior=PRIOR, weights=[0.3, 0.7])
    post = svi(jg.fit(model, X, key=jax.random.key(0), n_init=8))
    assert np.all(post.params.weights.sum(axis=-1) == 1.0)
    assert post.diagnostics["elbo"] < exact(X, 2, [0.3, 0.7], PRIOR).log_evidence


@pytest.mark.slow
def test_single_precision_stays_single():
    post = svi(the_fit("float32"), X.astype("float32"))
    assert {str(draw.dtype) for draw in post.draws.values()} == {"float32"}
    assert post.diagnostics["elbo"] == pytest.approx(the_posterior().diagnostics["elbo"], abs=0.05)


def test_a_second_call_compiles_nothing(compilations):
    svi()
    prior = jg.ConjugatePrior(concentration=3.0, mean=[1.0], mean_precision=1.0, dof=4.0, scale=3.0)
    model = jg.Mixture(jg.Gaussian("spherical"), 2, prior=prior)
    fit = jg.fit(model, X + 1, key=jax.random.key(0), n_init=8)
    with compilations:
        svi(fit, X + 1, seed=2, learning_rate=0.02)
    assert compilations.count == 0


def test_convergence_is_judged_by_the_last_quarter():
    noise = np.random.default_rng(0).normal(size=4000)
    assert _convergence(noise)["converged"]
    rising = _convergence(noise + np.linspace(0, 8, 4000))
    assert not rising["converged"]
    assert rising["elbo_gain"] == pytest.approx(2, abs=SIGMAS * rising["elbo_gain_error"])
    assert rising["status"].startswith("not converged: the last quarter of the steps gained 2")
    # 0.6 nats that may be none: neither is known.
    stopped = _convergence(noise[:40] + np.repeat([0, 0, 0, 0.5], 10))
    assert not stopped["converged"]
    assert abs(stopped["elbo_gain"]) < 2 * stopped["elbo_gain_error"] + 0.1
    assert stopped["status"].startswith("cannot tell: the last quarter of the steps gained")
    lost = _convergence(np.full(4000, np.nan))
    assert not lost["converged"]
    assert lost["n_refused"] == 4000
    assert "not finite" in lost["status"]


def test_options_are_checked_by_name():
    with pytest.raises(ValueError, match=r"guide: unknown name 'fullrank'; did you mean"):
        svi(guide="fullrank")
    with pytest.raises(TypeError, match=r"guide: needs a name .* found 3"):
        svi(guide=3)
    with pytest.raises(TypeError, match=r"guide: needs to make a NumPyro AutoGuide, found"):
        svi(guide=lambda model: model)
    with pytest.raises(ValueError, match=r"AutoLaplaceApproximation .*method=\"laplace\""):
        svi(guide=autoguide.AutoLaplaceApproximation)
    with pytest.raises(ValueError, match="n_steps: must be at least 4, found 0"):
        svi(n_steps=0)
    with pytest.raises(ValueError, match="learning_rate: must be positive, found 0"):
        svi(learning_rate=0)
    with pytest.raises(TypeError, match=r"measure: not an option of method='svi'.*n_steps"):
        svi(measure="declared")
