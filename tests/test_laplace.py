"""Laplace's approximation: its centres, its draws, its evidence against exact ones."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumeration import exact, one_component
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import potential_energy, unconstrain_fn
from posteriors import FAITHFUL

import jaxgmm as jg
from jaxgmm.bayes import _laplace
from jaxgmm.bayes._ascent import ascend
from jaxgmm.local import inverse_root

# Between an estimate and the truth, in its standard errors: one false alarm in two million.
SIGMAS = 5.0

STANDARD = (FAITHFUL - FAITHFUL.mean(axis=0)) / FAITHFUL.std(axis=0)
PRIOR = {"mean": [0.0, 0.0], "mean_precision": 0.1, "dof": 4.0, "scale": 0.5 * np.eye(2)}


@functools.cache
def the_fit(dtype="float64"):
    model = jg.Mixture(jg.Gaussian(), 2, prior=jg.ConjugatePrior(concentration=2.0, **PRIOR))
    x = STANDARD.astype(dtype)
    return jg.fit(model, x, key=jax.random.key(0), n_init=4, tol=1e-14, max_iter=20_000)


def laplace(fit, x, seed=1, **options):
    options = {"method": "laplace", "progress": False} | options
    return jg.sample(fit.model, x, key=jax.random.key(seed), start=fit, **options)


FEW = np.array([0.0, 0.4, 1.1, 2.9, 3.2, 4.5, 3.7])


def few_rows(concentration, weights=None):
    prior = jg.ConjugatePrior(
        concentration=concentration, mean=[2.0], mean_precision=0.5, dof=5.0, scale=2.0
    )
    return jg.Mixture(jg.Gaussian("spherical"), 2, prior=prior, weights=weights)


@functools.cache
def the_posterior(measure="unconstrained", dtype="float64"):
    return laplace(the_fit(dtype), STANDARD.astype(dtype), measure=measure)


# -- the centre ----------------------------------------------------------------------


@pytest.mark.slow
def test_the_declared_centre_is_the_mode_of_em():
    post, fit = the_posterior("declared"), the_fit()
    for name, value in fit.model.sites(fit.params).items():
        np.testing.assert_allclose(post.diagnostics["centre"][name], value, rtol=0, atol=1e-8)
    assert np.max(post.log_joint) < fit.log_joint


@pytest.mark.slow
def test_the_unconstrained_centre_is_the_minimum_of_numpyros_potential():
    program, args = the_fit().model.numpyro_model, (STANDARD,)
    at = unconstrain_fn(program, args, {}, the_posterior().diagnostics["centre"])
    flat, unravel = ravel_pytree(at)
    potential = lambda z: potential_energy(program, args, {}, unravel(z))
    assert np.max(np.abs(jax.grad(potential)(flat))) < 1e-6 * len(STANDARD)
    # And not that of the declared density.
    apart = ravel_pytree(unconstrain_fn(program, args, {}, the_fit().model.sites(the_fit().params)))
    assert np.max(np.abs(jax.grad(potential)(apart[0]))) > 0.1


@pytest.mark.turn
@pytest.mark.parametrize("measure", ["unconstrained", "declared"])
def test_newton_climbs_from_a_start_that_is_no_mode(measure):
    start = the_fit().model.params(
        means=[[-2.0, 1.0], [0.5, -1.0]], covariances=[4 * np.eye(2), 0.3 * np.eye(2)]
    )
    far = jg.fit(the_fit().model, STANDARD, start=start, max_iter=0)
    post = laplace(far, STANDARD, measure=measure)
    found, expected = post.diagnostics, the_posterior(measure).diagnostics
    assert found["converged"]
    assert found["n_steps"] > expected["n_steps"]
    order = np.argsort(found["centre"]["means"][:, 0])
    right = np.argsort(expected["centre"]["means"][:, 0])
    for name, value in found["centre"].items():
        np.testing.assert_allclose(value[order], expected["centre"][name][right], atol=1e-8)


@pytest.mark.turn
def test_a_saddle_is_told():
    even = np.full((len(STANDARD), 2), 0.5)
    between = jg.fit(the_fit().model, STANDARD, start=even, max_iter=0)
    post = laplace(between, STANDARD, measure="declared")
    assert not post.diagnostics["converged"]
    assert str(post.diagnostics["status"]).startswith("not a maximum: the density rises in ")
    assert np.all(np.isfinite(post.log_joint))
    assert np.all(np.isfinite(post.log_weights))


@pytest.mark.slow
def test_a_component_without_rows_has_a_mode_in_one_measure_only():
    """Under flat weights the declared density has its top at weight zero, infinitely far."""
    model = few_rows(1.0)
    start = model.params(weights=[1 - 1e-9, 1e-9], means=[2.0, 90.0], covariances=[2.0, 0.1])
    fit = jg.fit(model, FEW, start=start, max_iter=20_000)
    assert fit.n_empty == 1
    inside = laplace(fit, FEW, n_draws=4000).diagnostics
    assert inside["converged"]
    assert np.all(inside["centre"]["weights"] > 0.01)
    outside = laplace(fit, FEW, n_draws=4000, measure="declared")
    assert not outside.diagnostics["converged"]
    assert str(outside.diagnostics["status"]).startswith("not identified: 1 flat direction")
    assert outside.pareto_k > 1


def test_newton_stays_where_there_are_no_derivatives():
    kink = lambda v: -jnp.sum(jnp.sqrt(jnp.abs(v)))
    derivatives = lambda v: (jax.grad(kink)(v), jax.hessian(kink)(v))
    end = ascend(kink, derivatives, jnp.zeros(2), lambda value: 1e-12)
    assert not end.arrived
    assert np.all(end.point == 0)
    assert not np.any(np.isfinite(end.curvature))


# -- draws -------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["unconstrained", "declared"])
def test_the_weights_make_the_posterior_of_the_draws(measure):
    """Gibbs, exact, against the weighed draws; without weights the means are biased."""
    post = the_posterior(measure)
    exact = jg.sample(
        the_fit().model, STANDARD, key=jax.random.key(7), start=the_fit(), method="gibbs",
        progress=False,
    )  # fmt: skip
    assert post.draws["means"].shape == (4, 1000, 2, 2)
    assert post.pareto_k < 0.6
    weights = np.exp(post.log_weights)
    assert weights.sum() == pytest.approx(1)
    for name in ("weights", "means", "covariances"):
        truth = exact.draws[name].mean(axis=(0, 1))
        spread = exact.draws[name].std(axis=(0, 1))
        weighed = np.tensordot(weights, post.draws[name], 2)
        error = spread * np.sqrt(np.sum(weights**2) + 1 / 1000)
        assert np.all(np.abs(weighed - truth) < SIGMAS * error)


def test_log_weights_are_those_of_the_declared_densities():
    """Checked in units that are not the data's own: draws are weighed up to one factor."""
    scale = np.array([3.0, 0.01])
    prior = {**PRIOR, "scale": 0.5 * np.diag(scale**2)}
    model = jg.Mixture(jg.Gaussian(), 2, prior=jg.ConjugatePrior(concentration=2.0, **prior))
    start = the_fit().params
    start = model.params(
        weights=start.weights,
        means=start.means * scale,
        covariances=start.covariances * np.outer(scale, scale),
    )
    fit = jg.fit(model, STANDARD * scale, start=start, tol=1e-14)
    post, plain = laplace(fit, STANDARD * scale), the_posterior()
    moved = len(STANDARD) * np.sum(np.log(scale))
    assert post.evidence.log_evidence + moved == pytest.approx(
        plain.evidence.log_evidence, abs=1e-5
    )
    np.testing.assert_allclose(post.log_weights, plain.log_weights, atol=1e-4)


@pytest.mark.slow
def test_single_precision_stays_single():
    post, wide = the_posterior(dtype="float32"), the_posterior()
    assert {str(draw.dtype) for draw in post.draws.values()} == {"float32"}
    assert post.diagnostics["converged"]
    apart = abs(post.evidence.log_evidence - wide.evidence.log_evidence)
    assert apart < SIGMAS * np.hypot(post.evidence.error, wide.evidence.error)


# -- evidence --------------------------------------------------------------------------


@pytest.mark.turn
def test_one_component_has_a_closed_form_and_a_weight_is_a_number_of_copies():
    prior = jg.ConjugatePrior(**PRIOR)
    assert one_component(STANDARD, prior) == pytest.approx(-563.177028, abs=1e-6)
    model = jg.Mixture(jg.Gaussian(), 1, prior=prior)
    copies = np.arange(len(STANDARD)) % 3
    fit = jg.fit(model, STANDARD, key=jax.random.key(0), sample_weight=copies)
    evidence = laplace(fit, STANDARD, sample_weight=copies).evidence
    truth = one_component(np.repeat(STANDARD, copies, axis=0), prior)
    assert abs(evidence.log_evidence - truth) < SIGMAS * evidence.error < 0.1


@pytest.mark.parametrize("measure", ["unconstrained", "declared"])
def test_two_separate_components_have_a_known_evidence(measure):
    """-416.6318 of one labelling, found by bridge sampling and Chib's method elsewhere."""
    post = the_posterior(measure)
    apart = abs(post.evidence.log_evidence - (-416.6318 + math.log(2)))
    assert apart < SIGMAS * post.evidence.error < 0.1
    assert post.evidence.method.endswith("summed over all labellings")
    assert post.diagnostics["pareto_k_t"] < 0.3
    laplace_formula = post.diagnostics["log_evidence_laplace"]
    assert 0.01 < abs(laplace_formula - post.evidence.log_evidence) < 0.5


@pytest.mark.parametrize(
    ("concentration", "weights"),
    [(2.0, None), ([1.5, 2.5], None), (2.0, [0.3, 0.7])],
    ids=["symmetric", "unequal prior", "fixed weights"],
)
def test_evidence_is_the_sum_over_all_assignments(concentration, weights):
    """Seven rows: labellings overlap, and one labelling times K! would count some twice."""
    fit = jg.fit(few_rows(concentration, weights), FEW, key=jax.random.key(0), n_init=8)
    post = laplace(fit, FEW, n_draws=4000)
    truth = exact(FEW, 2, weights, fit.model.prior).log_evidence
    assert post.diagnostics["pareto_k_t"] < 0.7
    assert post.evidence.error < 0.1
    assert abs(post.evidence.log_evidence - truth) < SIGMAS * post.evidence.error


def scores(fit, x, truth, n_keys, **options):
    """Errors in units of what is reported, and as they are, over as many keys."""
    keys = range(n_keys)
    found = [laplace(fit, x, seed, n_chains=1, **options).evidence for seed in keys]
    apart = np.array([e.log_evidence for e in found]) - truth
    return apart / np.array([e.error for e in found]), apart, [e.pareto_k for e in found]


@pytest.mark.slow
def test_the_error_of_the_evidence_covers_where_the_posterior_is_skewed():
    """Eight rows for three variances: the t at the mode is off by .3, and reports a third of it."""
    x = np.array([[-2.0], [-1.5], [-1.0], [0.0], [0.3], [2.0], [2.2], [4.0]])
    prior = jg.ConjugatePrior(
        concentration=1.0, mean=[0.5], mean_precision=0.1, dof=4.0, scale=[[3.0]]
    )
    fit = jg.fit(jg.Mixture(jg.Gaussian(), 3, prior=prior), x, key=jax.random.key(0))
    z, apart, _ = scores(fit, x, exact(x, 3, prior=fit.model.prior).log_evidence, 10)
    assert np.sqrt(np.mean(z**2)) < 1.5
    assert np.max(np.abs(z)) < 3
    assert np.sqrt(np.mean(apart**2)) < 0.15


@pytest.mark.slow
def test_the_error_of_the_evidence_covers_with_three_variances():
    """The t at the mode has an error of .09 to .11 here, and its draws show .06."""
    rng = np.random.default_rng(60)
    centres = np.array([[0.0, 0.0], [4.0, 0.0], [2.0, 3.48]])
    x = np.concatenate([rng.normal(centre, 1, (20, 2)) for centre in centres])
    prior = jg.ConjugatePrior(
        concentration=1.0, mean=x.mean(axis=0), mean_precision=0.1, dof=4.0, scale=x.var()
    )
    model = jg.Mixture(jg.Gaussian("VII"), 3, prior=prior)
    fit = jg.fit(model, x, key=jax.random.key(0))
    draw = functools.partial(jg.sample, fit.model, x, start=fit, method="gibbs", progress=False)
    truth = jg.evidence(draw(key=jax.random.key(9), n_draws=4000), key=jax.random.key(3))
    z, apart, k = scores(fit, x, truth.log_evidence, 100, n_draws=4000)
    assert np.mean(np.abs(z) > 3) < 0.05
    assert np.sqrt(np.mean(apart**2)) < 0.06
    assert np.mean(np.array(k) < 0.7) > 0.9


@pytest.mark.slow
def test_many_labels_add_the_logarithm_of_their_orders(monkeypatch):
    """What is done above five components, on two that lie so far apart that it is right."""
    monkeypatch.setattr(_laplace, "_MOST_LABELLINGS", 1)
    post = laplace(the_fit(), STANDARD, n_draws=500)  # a count of its own: compiled here
    method = post.evidence.method
    assert method.endswith("of one labelling, plus the log of how many there are")
    apart = abs(post.evidence.log_evidence - (-416.6318 + math.log(2)))
    assert apart < SIGMAS * post.evidence.error < 0.2
    expected = the_posterior().diagnostics["log_evidence_laplace"]
    assert post.diagnostics["log_evidence_laplace"] == pytest.approx(expected)


# -- what weights cannot tell ------------------------------------------------------------


def eight_rows():
    """One variance, of which the posterior is known: inverse-gamma."""
    x = np.random.default_rng(8).normal(size=(8, 1))
    prior = jg.ConjugatePrior(mean=[0.0], mean_precision=0.1, dof=3.0, scale=[[1.0]])
    fit = jg.fit(jg.Mixture(jg.Gaussian(), 1, prior=prior), x, key=jax.random.key(0), n_init=1)
    dof, centre = 11.0, x.mean()
    scale = 1 + np.sum((x - centre) ** 2) + 0.1 * 8 / 8.1 * centre**2
    return fit, x, scale / (dof - 2) * np.sqrt(2 / (dof - 4))


@pytest.mark.slow
def test_a_spread_that_good_weights_miss_has_a_pareto_k_of_its_own():
    fit, x, truth = eight_rows()
    name = "covariances[0, x0, x0]"
    found = [laplace(fit, x, seed) for seed in range(10)]
    good = [post.summary().loc[name] for post in found if post.pareto_k < 0.7]
    assert len(good) > 5
    assert np.mean([row["sd"] for row in good]) < 0.95 * truth
    assert np.median([row["pareto_k"] for row in good]) > 0.7
    # With many rows the weights tell most spreads.
    assert the_posterior().summary()["pareto_k"].median() < 0.5


@pytest.mark.slow
def test_the_verdict_names_a_spread_that_weights_miss():
    fit, x, _ = eight_rows()
    post = next(p for p in (laplace(fit, x, s) for s in range(10)) if p.pareto_k < 0.6)
    verdict = jg.compare(fit, post)
    line = verdict.checks.loc["largest Pareto k of an sd"]
    assert (line["verdict"], line["value"] > 0.7) == ("warning", True)
    assert line["meaning"].startswith("the weights cannot tell the sd of")


# -- size, cache, options ----------------------------------------------------------------


@pytest.mark.slow
def test_hundreds_of_dimensions():
    """n = 10,000, D = 8, K = 5, d = 224: a Hessian in blocks of rows."""
    rng = np.random.default_rng(0)
    k, d, n = 5, 8, 10_000
    means, labels = 2 * rng.normal(size=(k, d)), rng.integers(0, k, n)
    mix = rng.normal(size=(k, d, d)) / 2 + np.eye(d)
    x = means[labels] + np.einsum("nij,nj->ni", mix[labels], rng.normal(size=(n, d)))
    model = jg.Mixture(jg.Gaussian(), k, prior="fraley-raftery")
    fit = jg.fit(model, x, key=jax.random.key(0), n_init=4, tol=1e-14)
    post = laplace(fit, x, n_chains=1, measure="declared")
    assert post.diagnostics["converged"]
    np.testing.assert_allclose(post.diagnostics["centre"]["means"], fit.params.means, atol=1e-6)
    assert post.pareto_k < 0.7
    # The curvature is the information of the standard errors, in other coordinates.
    errors = jg.standard_errors(fit, x).standard_errors["means"]
    np.testing.assert_allclose(post.draws["means"].std(axis=(0, 1)), errors, rtol=0.2)


def test_a_second_call_compiles_nothing(compilations):
    laplace(the_fit(), STANDARD)
    x = STANDARD + np.array([0.5, -3.0])  # other data of the same shape
    prior = {**PRIOR, "dof": 5.0}
    model = jg.Mixture(jg.Gaussian(), 2, prior=jg.ConjugatePrior(concentration=2.0, **prior))
    fit = jg.fit(model, x, key=jax.random.key(0), n_init=4)
    with compilations:
        laplace(fit, x, seed=6, measure="declared")
    assert compilations.count == 0


def test_options_are_checked_by_name():
    with pytest.raises(ValueError, match=r"measure: unknown name 'declare'; did you mean"):
        laplace(the_fit(), STANDARD, measure="declare")
    with pytest.raises(TypeError, match=r"guide: not an option of method='laplace'.*measure"):
        laplace(the_fit(), STANDARD, guide="full-rank")


def test_the_root_inside_programs_follows_the_matrix():
    """Two devices differ in the last digit of a curvature, and draws of theirs by no more."""
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    units = np.array([1e-3, 1.0, 1.0, 10.0, 1e4])
    # In its own units every eigenvector of the block of four may be any.
    scaled = np.eye(5)
    scaled[0, 4] = scaled[4, 0] = 0.5
    matrix = scaled * units * units[:, None]
    root, definite = inverse_root(jnp.asarray(matrix), single=False)
    assert definite
    own = np.asarray(root) * units[:, None]
    np.testing.assert_allclose(own @ own.T @ scaled, np.eye(5), atol=1e-14)
    noise = turn @ np.diag([1e-15, -2e-15, 3e-15, -1e-15, 1e-15]) @ turn.T
    near, _ = inverse_root(jnp.asarray(matrix + noise * units * units[:, None]), single=False)
    np.testing.assert_allclose(np.asarray(near) * units[:, None], own, atol=1e-13)
    assert not inverse_root(jnp.asarray(-matrix), single=False)[1]
