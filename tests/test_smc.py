"""Tempered SMC: against sums over all assignments, Gibbs sampling, and its own contract."""

import functools

import jax
import numpy as np
import pytest
from arviz_stats.base import array_stats
from enumeration import X, exact, the_model
from posteriors import FAITHFUL
from scipy import stats

import jaxgmm as jg
from jaxgmm.bayes import _smc


@functools.cache
def few_rows(sample_weight=None, **options):
    options = {"n_draws": 100, "n_chains": 8, "progress": False} | options
    weight = None if sample_weight is None else np.array(sample_weight)
    fit = jg.fit(the_model(2), X, key=jax.random.key(0), n_init=4, sample_weight=weight)
    options |= {"method": "smc", "start": fit, "sample_weight": weight}
    return jg.sample(fit.model, X, key=jax.random.key(1), **options)


def agrees(evidence, truth, populations):
    """Within the Student interval of the populations' mean at 1 in 10,000."""
    bound = stats.t.ppf(1 - 0.5e-4, populations - 1)
    assert abs(evidence.log_evidence - truth) < bound * evidence.error


def test_evidence_is_the_sum_over_all_assignments():
    post = few_rows()
    agrees(post.evidence, exact(X, 2).log_evidence, 8)
    assert 0 < post.evidence.error < 0.2
    assert "all labellings" in post.evidence.method


def test_draws_are_the_posterior():
    post, truth = few_rows(), exact(X, 2)
    mean = np.einsum("cdk,cdkj->cdj", post.draws["weights"], post.draws["means"])
    for j in (0, 1):
        by_population = mean[..., j].mean(axis=1)
        error = by_population.std(ddof=1) / np.sqrt(8)
        bound = stats.t.ppf(1 - 0.5e-4, 7)
        assert abs(by_population.mean() - truth.mean[j]) < bound * error
    assert array_stats.rhat(post.log_joint) < 1.05


@pytest.mark.turn
def test_a_weight_is_a_power_of_the_density():
    copies = (2, 0, 1, 1, 3, 1, 0)
    truth = exact(np.repeat(X, copies, axis=0), 2).log_evidence
    agrees(few_rows(copies).evidence, truth, 8)


def test_the_ladder_rises_to_one_and_every_population_ends_there():
    post = few_rows()
    powers, by_population = post.diagnostics["powers"], post.diagnostics["log_evidence"]
    assert powers.shape[0] == by_population.shape[0] == 8
    for ladder in powers:
        known = ladder[np.isfinite(ladder)]
        assert np.all(np.diff(np.concatenate([[0.0], known])) >= 0)
        # The last rung moves what the one before has weighed.
        assert known[-1] == known[-2] == 1
        assert known[-3] < 1
    assert np.log(np.mean(np.exp(by_population))) == pytest.approx(post.evidence.log_evidence)
    assert post.sample_stats["acceptance_rate"].shape == (8, 100)


def test_no_two_draws_are_one_and_both_labellings_are_drawn():
    post = few_rows()
    first = post.draws_raw["means"][..., 0, 0]
    assert len(np.unique(first)) > 0.9 * first.size
    swapped = np.mean(post.labels[..., 0] == 1)
    assert 0.2 < swapped < 0.8


def test_a_bar_changes_nothing():
    np.testing.assert_array_equal(
        few_rows(progress=True).draws_raw["means"], few_rows().draws_raw["means"]
    )


@pytest.mark.slow
def test_a_second_call_compiles_nothing(compilations):
    few_rows()
    model = the_model(2, mean=[0.0, 0.0], dof=7.0)
    fit = jg.fit(model, X + 1.0, key=jax.random.key(0), n_init=4)
    with compilations:
        jg.sample(
            fit.model, X + 1.0, key=jax.random.key(2), start=fit, method="smc", n_draws=100,
            n_chains=8, progress=False, target_ess=0.4,
        )  # fmt: skip
    assert compilations.count == 0


def test_what_smc_cannot_do_it_refuses():
    fit = jg.fit(the_model(2), X, key=jax.random.key(0), n_init=4)
    sample = functools.partial(
        jg.sample, fit.model, X, key=jax.random.key(0), start=fit, method="smc", progress=False
    )
    with pytest.raises(ValueError, match=r"n_chains: .*at least 2, found 1"):
        sample(n_chains=1)
    with pytest.raises(ValueError, match=r"thinning: .*n_moves"):
        sample(thinning=2)
    with pytest.raises(ValueError, match=r"target_ess: .*found 1\.5"):
        sample(target_ess=1.5)
    with pytest.raises(ValueError, match="n_moves: must be at least 1"):
        sample(n_moves=0)
    with pytest.raises(TypeError, match=r"n_steps: not an option .*target_ess, n_moves"):
        sample(n_steps=3)


@pytest.mark.turn
def test_a_prior_without_draws_is_named_and_what_to_use_instead():
    """Its measure does not integrate to one, so there is no evidence to climb to either."""
    model = jg.Mixture(jg.Gaussian("VEI"), 2, prior="fraley-raftery")
    fit = jg.fit(model, X, key=jax.random.key(0), n_init=2)
    with pytest.raises(ValueError, match=r'"smc" .* prior of \'VEI\' .*method="nuts"'):
        jg.sample(
            fit.model, X, key=jax.random.key(0), start=fit, method="smc", n_draws=100,
            progress=False,
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["tied", "diag", "spherical"])
def test_smc_and_gibbs_draw_from_one_posterior(structure):
    model = jg.Mixture(jg.Gaussian(structure), 2, prior="fraley-raftery")
    fit = jg.fit(model, FAITHFUL, key=jax.random.key(0), n_init=4)
    draw = functools.partial(
        jg.sample, fit.model, FAITHFUL, start=fit, n_draws=250, n_chains=8, progress=False
    )
    one = draw(method="smc", key=jax.random.key(1))
    other = draw(method="gibbs", key=jax.random.key(2))
    for quantity in one.invariants():
        a, b = (p.invariants()[quantity] for p in (one, other))
        spread = [np.var(v.mean(axis=1), ddof=1) / 8 for v in (a, b)]
        bound = stats.t.ppf(1 - 0.5e-5, 14)
        assert abs(a.mean() - b.mean()) < bound * np.sqrt(sum(spread))
    agrees(one.evidence, jg.evidence(other, key=jax.random.key(3)).log_evidence, 8)


@pytest.mark.slow
def test_particles_moved_a_few_at_a_time_are_those_moved_at_once(monkeypatch):
    whole = few_rows()
    monkeypatch.setattr(_smc, "_BLOCK_NUMBERS", {jax.default_backend(): 8 * 7 * 2 * 7})
    parts = few_rows.__wrapped__()
    np.testing.assert_allclose(
        parts.diagnostics["log_evidence"], whole.diagnostics["log_evidence"], rtol=1e-6
    )


def test_a_ladder_without_end_is_no_posterior(monkeypatch):
    fit = jg.fit(the_model(2), X, key=jax.random.key(0), n_init=4)
    monkeypatch.setattr(_smc, "_climb", lambda model, x, weight, population, *_: population)
    with pytest.raises(FloatingPointError, match=r"not all populations .* 500 rungs"):
        jg.sample(
            fit.model, X, key=jax.random.key(0), start=fit, method="smc", n_draws=100, n_chains=8,
            progress=False,
        )  # fmt: skip


def test_results_are_finite_numbers():
    post = few_rows()
    assert all(np.all(np.isfinite(draw)) for draw in post.draws.values())
    assert np.all(np.isfinite(post.log_joint))
