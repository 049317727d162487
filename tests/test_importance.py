"""Importance weights of draws whose target is known."""

import numpy as np
import pytest
from scipy import stats

from jaxgmm.bayes._importance import importance


def weighed(sd, shape=(4, 1000)):
    """Draws of N(0, sd), their target N(0, 1) times e^7, and the weights."""
    draws = np.random.default_rng(0).normal(scale=sd, size=shape)
    target, proposal = 7 + stats.norm.logpdf(draws), stats.norm.logpdf(draws, scale=sd)
    return draws, target, proposal, importance(target, proposal)


def test_a_proposal_that_covers_the_target():
    draws, _, _, found = weighed(1.5)
    weights = np.exp(found.log_weights)
    assert weights.shape == draws.shape
    assert weights.sum() == pytest.approx(1)
    assert found.pareto_k < 0.5
    assert abs(found.log_mean - 7) < 5 * found.error < 0.1
    assert np.sum(weights * draws**2) == pytest.approx(1, abs=0.1)


def test_a_proposal_that_does_not():
    assert weighed(0.4)[3].pareto_k > 0.7


def test_draws_without_a_target_weigh_nothing():
    draws, target, proposal, _ = weighed(1.5)
    outside = np.abs(draws) > 1  # a third of the target's mass, half of the draws
    nothing = np.where(draws > 1, -np.inf, np.nan)
    cut = importance(np.where(outside, nothing, target), proposal)
    assert np.all(np.exp(cut.log_weights[outside]) == 0)
    assert abs(cut.log_mean - 7 - np.log(0.6827)) < 5 * cut.error < 0.2


def test_few_draws_have_no_tail():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="n_draws: importance weights need at least 25 draws"):
        importance(rng.normal(size=(4, 6)), rng.normal(size=(4, 6)))
    assert importance(rng.normal(size=(5, 5)), rng.normal(size=(5, 5))).error > 0
