"""Acceleration: the same optimum in fewer evaluations, and never a lower objective."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import DATA, SMALL, mixture, starts, tree_allclose

import jaxgmm as jg

FOLDER = Path(__file__).parent / "data"
EPS = np.finfo(float).eps
each_acceleration = pytest.mark.parametrize("acceleration", jg.em.ACCELERATIONS)


def slow_case():
    """A sample of 500 on which EM hardly moves, from the start of the stored answers.

    R's SQUAREM 2021.1 takes 3620 evaluations for EM and 123 for SQUAREM there.
    """
    x = np.loadtxt(FOLDER / "slow_normal2.csv", skiprows=1)
    model = jg.Mixture(jg.Gaussian("V"), 2)
    return x, model, model.params(means=[-0.5, 2.0], covariances=np.ones((2, 1, 1)))


# The largest eigenvalues of EM's Jacobian in the stored answers.
SLOW_RATE, WAITING_RATE = 0.9952437729147433, 0.6580516926645904


@each_acceleration
def test_a_tenth_of_the_evaluations_to_the_same_optimum(acceleration):
    x, model, start = slow_case()
    plain = jg.fit(model, x, start=start, max_iter=5000)
    fast = jg.fit(model, x, start=start, max_iter=5000, acceleration=acceleration)
    best = -826.3133300975652
    for fit in (plain, fast):
        assert fit.converged
        # The stated bound, twice: an Aitken estimate is an estimate.
        assert best - fit.log_likelihood <= 2 * fit.tol * len(x)
    assert 10 * fast.n_evaluations <= plain.n_evaluations


@pytest.mark.turn
def test_the_rate_of_em_is_the_fraction_of_missing_information():
    x, model, start = slow_case()
    fit = jg.fit(model, x, start=start, tol=1e-14, max_iter=10000)
    np.testing.assert_allclose(fit.rate, SLOW_RATE, atol=1e-3)
    assert "rate 0.995" in repr(fit)
    waiting = DATA["faithful"][:, 1]
    start = model.params(means=[50.0, 80.0], covariances=np.full((2, 1, 1), 25.0))
    fit = jg.fit(model, waiting, start=start, tol=1e-14)
    np.testing.assert_allclose(fit.rate, WAITING_RATE, atol=1e-3)
    assert np.isnan(jg.fit(model, waiting, start=start, max_iter=1).rate)


@pytest.mark.turn
@each_acceleration
@pytest.mark.parametrize("prior", ["none", "conjugate"])
def test_the_objective_never_falls(acceleration, prior):
    x = DATA["faithful"]
    fit = jg.fit(mixture("full", prior, x, 3), x, start=starts(x, 3, 8), acceleration=acceleration)
    runs = fit.restarts
    assert np.all(runs.status == jg.Status.CONVERGED)
    for trace, n_iter, last in zip(runs.trace, runs.n_iter, runs.log_joint, strict=True):
        path = trace[: n_iter + 1]
        np.testing.assert_allclose(path[-1], last, rtol=1e-13)
        # Sums of n rows, each of order one in working units, round.
        assert np.min(np.diff(path)) >= -64 * EPS * (len(x) + np.max(np.abs(path)))
    # Every number of the record counts: steps kept, and evaluations with those in vain.
    assert np.all(runs.n_evaluations >= runs.n_iter + 1)
    assert fit.n_evaluations == runs.n_evaluations[fit.best]


@pytest.mark.turn
@each_acceleration
def test_where_every_leap_collapses_em_goes_on(acceleration):
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Abyss(jg.Mixture):
        """Every leap ends where nothing is defined."""

        def from_coordinates(self, vector, like):
            return jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), like)

    x, start = jnp.asarray(SMALL), jnp.asarray(starts(SMALL, 2, 1)[0])
    model = Abyss(jg.Gaussian("diag"), 2).resolve(x)
    plain = jg.em.run(model, x, start)
    run = jg.em.run(model, x, start, acceleration=acceleration)
    assert run.converged
    assert run.n_evaluations > run.n_iter + 1
    assert run.n_iter >= plain.n_iter
    steps = slice(0, plain.n_iter + 1)
    np.testing.assert_allclose(run.trace[steps], plain.trace[steps], rtol=1e-12)


@pytest.mark.slow
@each_acceleration
def test_an_accelerated_run_is_a_function_to_map_and_differentiate(acceleration):
    x, stack = jnp.asarray(SMALL), jnp.asarray(starts(SMALL, 2, 3))
    model = mixture("diag", "conjugate", SMALL, 2).resolve(x)

    def run(labels, dof=6.0, acceleration=acceleration):
        prior = dataclasses.replace(model.prior, dof=dof)
        one = dataclasses.replace(model, prior=prior)
        return jg.em.run(one, x, labels, tol=1e-13, acceleration=acceleration)

    loop = [run(labels) for labels in stack]
    together = jax.jit(jax.vmap(run))(stack)
    heights = jnp.stack([one.log_joint for one in loop])
    np.testing.assert_allclose(together.log_joint, heights, rtol=1e-12)

    def spread(dof, acceleration):
        return jnp.sum(run(stack[0], dof, acceleration).params.covariance_site)

    slopes = [jax.jit(jax.grad(spread), static_argnums=1)(6.0, a) for a in (acceleration, None)]
    np.testing.assert_allclose(*slopes, rtol=1e-5)


@pytest.mark.turn
def test_many_restarts_end_where_em_does(key):
    x, model = SMALL, mixture("full", "fraley-raftery", SMALL, 2)
    fits = [
        jg.fit(model, x, key=key, n_init=30, acceleration=name)
        for name in (None, *jg.em.ACCELERATIONS)
    ]
    for fit in fits[1:]:
        np.testing.assert_allclose(fit.log_joint, fits[0].log_joint, atol=1e-7)
        tree_allclose(np.sort(fit.params.weights), np.sort(fits[0].params.weights), 1e-4)


def test_names_are_checked_at_the_door(key):
    model = jg.Mixture(jg.Gaussian("diag"), 2)
    with pytest.raises(ValueError, match=r"acceleration.*did you mean 'squarem'"):
        jg.fit(model, SMALL, key=key, acceleration="squareem")
    with pytest.raises(ValueError, match=r"acceleration.*algorithm='em'"):
        jg.fit(model, SMALL, key=key, acceleration="squarem", algorithm="classification")
    with pytest.raises(ValueError, match=r"acceleration.*did you mean 'anderson'"):
        jg.em.run(model.resolve(SMALL), jnp.asarray(SMALL), some_start(), acceleration="andersen")


def some_start():
    return jnp.asarray(starts(SMALL, 2, 1)[0])
