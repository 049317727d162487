"""Evidence mode by mode: exact at one component, copies for weights, nothing at a saddle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumeration import one_component

import jaxgmm as jg

ROWS = np.random.default_rng(0).normal(size=(60, 2)) * [1.0, 30.0] + [5.0, 0.0]
PRIOR = jg.ConjugatePrior(
    concentration=2.0, mean=[0.0, 0.0], mean_precision=0.1, dof=5.0, scale=np.diag([1.0, 900.0])
)


def stack(*params):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)


@pytest.mark.turn
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_component_is_near_its_closed_form(dtype):
    """Laplace's formula is off by a share of 1/n: 0.046 nats here."""
    x = ROWS.astype(dtype)
    fit = jg.fit(jg.Mixture(jg.Gaussian("full"), 1, prior=PRIOR), x, start=np.ones((60, 1)))
    found = jg.bayes.mode_evidence(fit.model, x, fit.restarts.params)
    assert found.shape == (1,)
    assert found[0] == pytest.approx(one_component(ROWS, PRIOR), abs=0.1)


@pytest.mark.turn
def test_weights_are_copies():
    copies = np.arange(60) % 3
    model = jg.Mixture(jg.Gaussian("full"), 1, prior=PRIOR)
    fit = jg.fit(model, ROWS, start=np.ones((60, 1)), sample_weight=copies)
    weighted = jg.bayes.mode_evidence(fit.model, ROWS, fit.restarts.params, copies)
    repeated = jg.bayes.mode_evidence(
        fit.model, np.repeat(ROWS, copies, axis=0), fit.restarts.params
    )
    assert weighted == pytest.approx(repeated, rel=1e-10)


@pytest.mark.slow
def test_nothing_lies_around_a_saddle():
    """Two components at one place, among them those of the better fit."""
    x = np.concatenate([ROWS, ROWS + [10.0, 0.0]])
    model = jg.Mixture(jg.Gaussian("full"), 2, prior=PRIOR)
    apart = jg.fit(model, x, start=np.repeat(np.eye(2), 60, axis=0))
    # Newton's method stays where the two are alike, and climbs to the best such point.
    same = model.params(means=[x.mean(axis=0)] * 2, covariances=[np.cov(x.T)] * 2)
    modes = stack(apart.params, same)
    found = jg.bayes.mode_evidence(apart.model, x, modes)
    assert np.isfinite(found[0])
    assert found[1] == -np.inf
    turned = jg.bayes.mode_evidence(
        apart.model, x, stack(apart.model.permute(apart.params, jnp.array([1, 0])))
    )
    assert turned == pytest.approx(found[:1], abs=1e-6)  # of one labelling, whichever it is


def test_modes_that_do_not_fit_are_refused():
    model = jg.Mixture(jg.Gaussian("full"), 2, prior=PRIOR).resolve(ROWS)
    one = model.params(means=ROWS[:2], covariances=[np.eye(2)] * 2)
    three = jax.tree.map(lambda leaf: leaf[:, :1], stack(one, one))
    for modes in (one, three, "modes"):
        with pytest.raises(ValueError, match=r"modes: needs a stack of parameters of this model"):
            jg.bayes.mode_evidence(model, ROWS, modes)
