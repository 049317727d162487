"""The verdict's words against its numbers: every kind of fit is called what it is."""

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from posteriors import FAITHFUL, agreement, first_draws, old_faithful

import jaxgmm as jg
from jaxgmm.report import curvature


def test_agreement_is_called_agreement():
    verdict = agreement()
    assert verdict.decided
    assert verdict.summary.startswith("EM's answer is a mode of this posterior")
    assert "the two agree" in verdict.summary
    assert not (verdict.checks["verdict"] == "fail").any()


def test_invariants_come_first_and_every_parameter_has_a_row():
    table = agreement().table
    assert list(table.index[:4]) == [
        "log_joint", "log_likelihood", "sorted_weights[0]", "sorted_weights[1]",
    ]  # fmt: skip
    # 2 weights, 2 x 2 means, 2 x 3 distinct covariances.
    assert len(table) == 4 + 2 + 4 + 6
    assert "covariances[1, x0, x1]" in table.index


def test_rows_are_computed_from_the_draws():
    fit, post = old_faithful()
    row = agreement().table.loc["means[1, x0]"]
    draws = post.draws["means"][:, :, 1, 0]
    assert row["map"] == pytest.approx(float(fit.params.means[1, 0]))
    assert row["mean"] == pytest.approx(draws.mean())
    assert row["z"] == pytest.approx((row["map"] - draws.mean()) / draws.std(ddof=1))
    assert row["eti95_low"] == pytest.approx(np.quantile(draws, 0.025))
    assert row["inside_95"] == (row["eti95_low"] <= row["map"] <= row["eti95_high"])


def test_basins_share_out_the_posterior():
    fit, _ = old_faithful()
    basins = agreement().basins
    first = ["share", "log_joint", "found_by_restarts", "visited"]
    assert list(basins.columns) == [*first, "share_low", "share_high", "weights", "laplace_share"]
    assert basins["share"].sum() == pytest.approx(1)
    assert basins["log_joint"].iloc[0] == pytest.approx(fit.log_joint, abs=1e-6)
    assert basins["found_by_restarts"].iloc[0] == 4


@pytest.mark.turn
def test_a_fit_that_stopped_too_early_is_called_so():
    fit, post = old_faithful()
    centre = FAITHFUL.mean(axis=0)
    start = fit.model.params(
        means=[centre - [0.5, 5], centre + [0.5, 5]], covariances=[np.cov(FAITHFUL.T)] * 2
    )
    early = jg.fit(fit.model, FAITHFUL, start=start, max_iter=2)
    verdict = jg.compare(early, post)
    assert "stopped before the mode" in verdict.summary
    assert verdict.point == "stopped early"
    checks = verdict.checks["verdict"]
    assert checks["Newton decrement (sd)"] == "fail"
    # No normal distribution stands around a point that is no mode.
    assert checks["Pareto k of the Gaussian at the mode"] == "not applicable"
    assert checks["posterior sd / standard error, farthest from 1"] == "not applicable"
    # It lies in the basin of the posterior's only mode all the same.
    assert verdict.basins["share"][0] == 1


def test_a_saddle_is_called_a_saddle():
    """Two components at one place are a fixed point of EM, and not a maximum."""
    fit, post = old_faithful()
    # A fit that goes on leaves it.
    stuck = jg.fit(fit.model, FAITHFUL, start=np.full((272, 2), 0.5), max_iter=0)
    verdict = jg.compare(stuck, post)
    assert verdict.point == "saddle"
    assert "saddle" in verdict.summary
    assert "EM's answer is a mode" not in verdict.summary


def test_another_prior_is_another_target():
    fit, post = old_faithful()
    prior = dataclasses.replace(fit.model.prior, dof=fit.model.prior.dof + 3)
    other = jg.fit(
        dataclasses.replace(fit.model, prior=prior), FAITHFUL, key=jax.random.key(0), n_init=4
    )
    verdict = jg.compare(other, post)
    assert not verdict.decided
    assert "different targets" in verdict.summary


def test_a_sampler_that_did_not_converge_gives_no_verdict_but_all_tables():
    fit, post = old_faithful()
    short = first_draws(post, 10)
    verdict = jg.compare(fit, short)
    assert not verdict.decided
    assert "No verdict on the posterior" in verdict.summary
    assert "ESS" in verdict.summary
    assert len(verdict.table) == len(agreement().table)
    assert "No verdict" in repr(verdict)


def test_a_verdict_prints_on_one_screen_and_has_its_details():
    verdict = agreement()
    screen, details = str(verdict), verdict.details()
    # What is not ok, by name and in words; a table of what is, on request.
    checks = verdict.checks
    checks = checks[checks["verdict"] != "not applicable"]
    amiss = checks.index[checks["verdict"] != "ok"]
    for name in checks.index:
        assert (f": {name} " in screen) == (name in amiss)
        assert name in details
    assert f"Of {len(checks)} checks {len(amiss)} are not ok" in screen or not len(amiss)
    assert "the fit" in screen
    assert "means[1, x0]" not in screen
    assert "means[1, x0]" in details
    worst = checks.assign(verdict="fail")
    many = pd.concat([verdict.basins] * 30)
    for one in (verdict, dataclasses.replace(verdict, checks=worst, basins=many)):
        lines = str(one).splitlines()
        assert len(lines) <= 24 + 3 * len(one.checks[one.checks["verdict"] == "fail"])
        assert max(map(len, lines)) <= 110
    assert "22 more optima" in "".join(lines)


@pytest.mark.slow
def test_a_ridge_is_not_identified_and_not_a_saddle():
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    import three_coins

    verdict = three_coins.main(small=True)
    assert "not identified: two flat directions" in verdict.summary
    assert "saddle" not in verdict.summary
    fit = verdict.fit
    assert verdict.point == "not identified"
    assert np.allclose(fit.params, (0.40641711, 0.53684211, 0.64324324), atol=1e-8)


@pytest.mark.parametrize("case", ["data", "weights", "type"])
def test_compare_refuses_what_does_not_belong_together(case):
    fit, post = old_faithful()
    if case == "type":
        with pytest.raises(TypeError, match="needs a Fit and a Posterior"):
            jg.compare(post, fit)
        return
    x = FAITHFUL + (case == "data")
    weight = np.ones(len(x)) if case == "weights" else None
    other = jg.fit(fit.model, x, key=jax.random.key(0), n_init=4, sample_weight=weight)
    with pytest.raises(ValueError, match="other data or weights"):
        jg.compare(other, post)


def test_the_newton_decrement_does_not_depend_on_units():
    fit, _ = old_faithful()
    scale, shift = np.array([60.0, 1 / 60]), np.array([1e3, -5.0])
    moved = jg.Mixture(jg.Gaussian("full"), 2, prior="fraley-raftery").resolve(
        FAITHFUL * scale + shift
    )
    off = dataclasses.replace(fit.params, means=fit.params.means + 0.01)
    there = dataclasses.replace(
        off,
        means=off.means * scale + shift,
        covariance_site=off.covariance_site * scale * scale[:, None],
    )
    here, far = (
        curvature(jg.standard_errors(jg.fit(model, x, start=start, max_iter=0), x))
        for model, start, x in (
            (fit.model, off, FAITHFUL),
            (moved, there, FAITHFUL * scale + shift),
        )
    )
    assert here.newton_decrement == pytest.approx(far.newton_decrement, rel=1e-6)
    assert np.allclose(here.eigenvalues, far.eigenvalues, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["vb", "gibbs"])
def test_broken_sticks_are_judged_by_their_weights_too(method):
    """The site is the sticks; the weights are made of them, for draws and for EM alike."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=30), rng.normal(5, 1, size=20)])
    prior = jg.ConjugatePrior(
        concentration=2.0, mean=[2.0], mean_precision=0.1, dof=4.0, scale=2.0, stick_breaking=True
    )
    model = jg.Mixture(jg.Gaussian("spherical"), 2, prior=prior)
    fit = jg.fit(model, x, key=jax.random.key(0), n_init=8, tol=1e-12)
    post = jg.sample(
        fit.model, x, key=jax.random.key(1), start=fit, method=method, n_draws=200, progress=False
    )
    verdict = jg.compare(fit, post)
    lighter, heavier = np.sort(fit.params.weights)
    assert verdict.table.loc["sorted_weights[0]", "map"] == pytest.approx(lighter)
    assert verdict.table.loc["sticks[0]", "map"] == pytest.approx(float(fit.params.weights[0]))
    assert verdict.basins["weights"].iloc[0] == pytest.approx((lighter, heavier), abs=1e-3)
    assert verdict.basins["share"].iloc[0] > 0.9
