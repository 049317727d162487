"""Where two components coincide EM stops, and nothing there is a maximum."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgmm as jg
from jaxgmm.em._saddle import twins

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from three_coins import THROWS, Coins, ThreeCoins

RNG = np.random.default_rng(0)
# Two groups that a start may hold as one, and a third far away.
LABELS = np.repeat(np.arange(3), 80)
GROUPS = np.array([0.0, 4.0, 100.0])[LABELS] + RNG.standard_normal(240)
MODEL = jg.Mixture(jg.Gaussian("full"), 3)


def _equal(means):
    """A component on the two groups and its copy, or another unequal pair."""
    pooled = np.var(GROUPS[LABELS < 2])
    return MODEL.params(
        weights=[0.5, 0.5 - 1 / 3, 1 / 3], means=means, covariances=[[[pooled]]] * 2 + [[[1.0]]]
    )


@pytest.mark.turn
def test_a_fit_is_pushed_off_a_saddle():
    truth = jg.fit(MODEL, GROUPS, start=np.eye(3)[LABELS])
    means = [GROUPS[LABELS < 2].mean()] * 2 + [100.0]
    fit = jg.fit(MODEL, GROUPS, start=_equal(means))
    assert fit.converged
    assert fit.rate < 1
    np.testing.assert_allclose(fit.log_joint, truth.log_joint, atol=1e-6)
    # The trace is that of the run that ended here.
    assert fit.trace[-1] == fit.log_joint == fit.restarts.log_joint[0]
    # Its siblings stay, and are called what they are.
    several = jg.fit(MODEL, GROUPS, start=jax.tree.map(lambda a: jnp.stack([a] * 3), _equal(means)))
    assert sorted(several.restarts.status) == [jg.Status.CONVERGED] + [jg.Status.SADDLE] * 2
    np.testing.assert_allclose(several.log_joint, truth.log_joint, atol=1e-6)


@pytest.mark.turn
def test_a_fit_beside_a_saddle_is_pushed_off():
    """Where gains are as good as none though the steps grow."""
    middle = GROUPS[LABELS < 2].mean()
    beside = _equal([middle - 1e-3, middle + 3e-3, 100.0])
    x = jnp.asarray(GROUPS)
    run = jg.em.run(MODEL.resolve(x), x, beside)
    fit = jg.fit(MODEL, GROUPS, start=beside)
    assert fit.converged
    assert fit.log_joint > run.log_joint + 10


def test_a_saddle_that_nothing_proper_lies_above_is_named():
    """Of five rows every split has a component on fewer than D + 1.5: only spurious ends."""
    x = np.array([-1.0, -0.4, 0.1, 0.3, 1.0])
    model = jg.Mixture(jg.Gaussian("full"), 2)
    start = model.params(means=[x.mean()] * 2, covariances=[[[x.var()]]] * 2)
    fit = jg.fit(model, x, start=start)
    assert fit.status == jg.Status.SADDLE
    assert not fit.converged
    assert "components coincide" in fit.message
    np.testing.assert_allclose(fit.params.means[:, 0], x.mean(), atol=1e-12)


@pytest.mark.turn
def test_equal_labels_may_be_a_maximum():
    """Held together by a prior, or of a model whose rows tell no labels apart."""
    x = RNG.standard_normal((60, 2))
    prior = jg.ConjugatePrior(
        concentration=5.0, mean=np.zeros(2), mean_precision=300.0, dof=300.0, scale=300 * np.eye(2)
    )
    fit = jg.fit(jg.Mixture(jg.Gaussian(), 2, prior=prior), x, start=np.eye(2)[np.arange(60) % 2])
    assert fit.converged
    np.testing.assert_allclose(*fit.params.means, atol=1e-4)
    coins = jg.fit(ThreeCoins(), THROWS, start=Coins(*map(jnp.asarray, (0.5, 0.5, 0.5))))
    assert coins.converged
    np.testing.assert_allclose(coins.params.p, coins.params.q)


@pytest.mark.parametrize("weighted", [False, True])
def test_how_far_labels_are_apart(weighted):
    x = jnp.asarray(GROUPS)[:, None]
    weight = jnp.where(jnp.asarray(LABELS) < 2, 1.0, 0.5) if weighted else None
    model = MODEL.resolve(x)
    look = jax.jit(lambda params: twins(model, params, x, weight))
    equal = look(_equal([2.0, 2.0, 100.0]))
    assert sorted(equal.pair.tolist()) == [0, 1]
    np.testing.assert_allclose(equal.apart, 0, atol=1e-12)
    # One minus the mean of q (1 - q) over its value at the mean, by hand.
    params = _equal([0.0, 4.0, 100.0])
    labels = np.asarray(model.responsibilities(params, x))
    rows = np.ones(240) if weight is None else np.asarray(weight)
    both = labels[:, :2].sum(axis=1)
    q = labels[LABELS < 2, 0] / both[LABELS < 2]
    mass = (rows * both)[LABELS < 2]
    mean = np.average(q, weights=mass)
    expected = 1 - np.average(q * (1 - q), weights=mass) / (mean * (1 - mean))
    np.testing.assert_allclose(look(params).apart, expected, rtol=1e-6)
    np.testing.assert_array_equal(look(params).pair, np.argsort(-(rows @ labels)[:2]))
    one = jg.Mixture(jg.Gaussian(), 1).resolve(x)
    assert twins(one, one.params(means=[0.0], covariances=[[[1.0]]]), x, None).apart == 1
