"""Classification, stochastic and annealed EM."""

import jax
import numpy as np
import pytest
from helpers import DATA, SMALL, mixture, some_params, starts, tree_allclose

import jaxgmm as jg

each_algorithm = pytest.mark.parametrize("algorithm", jg.em.ALGORITHMS)
MODEL = mixture("full", "fraley-raftery", SMALL, 2)


def fitted(algorithm, x=SMALL, seed=0, model=MODEL, **options):
    """From the same parameters, whatever the rows; short chains."""
    start = some_params(model.resolve(SMALL), SMALL)
    if algorithm == "stochastic":
        options = {"max_iter": 120, "key": jax.random.key(seed)} | options
    return jg.fit(model, x, start=start, algorithm=algorithm, **options)


@each_algorithm
def test_numbers_are_the_model_s_own_at_the_final_parameters(algorithm):
    fit = fitted(algorithm)
    at = fit.model, fit.params
    np.testing.assert_allclose(fit.log_likelihood, at[0].log_likelihood(at[1], SMALL), rtol=1e-12)
    np.testing.assert_allclose(fit.log_prior, at[0].log_prior(at[1]), rtol=1e-12)
    assert fit.algorithm == algorithm
    assert fit.trace.shape == (fit.n_iter + 1,)
    names = {"em": "EM"}
    assert names.get(algorithm, f"{algorithm} EM") in repr(fit)


@each_algorithm
def test_a_row_without_weight_is_not_there(algorithm):
    weight = (np.arange(len(SMALL)) % 5 > 0).astype(float)
    moved = np.where(weight[:, None] > 0, SMALL, SMALL + 50)
    one, other = (fitted(algorithm, x, sample_weight=weight) for x in (SMALL, moved))
    np.testing.assert_allclose(other.trace, one.trace, rtol=1e-11)
    tree_allclose(other.params, one.params, 1e-9)


@pytest.mark.parametrize("algorithm", ["classification", "annealing"])
def test_a_weight_counts_rows(algorithm):
    counts = np.arange(len(SMALL)) % 3
    weighted = fitted(algorithm, sample_weight=counts)
    rows = fitted(algorithm, np.repeat(SMALL, counts, axis=0))
    assert weighted.n_iter == rows.n_iter
    np.testing.assert_allclose(weighted.trace, rows.trace, rtol=1e-11)
    tree_allclose(weighted.params, rows.params, 1e-9)


def test_classification_climbs_its_own_likelihood_to_a_fixed_point():
    fit = fitted("classification")
    assert fit.converged
    assert np.all(np.diff(fit.trace) >= 0)
    assert fit.trace[-1] == fit.trace[-2]  # finitely many partitions: the last step moves none
    labels = np.eye(2)[fit.model.predict(fit.params, SMALL)]
    again = jg.fit(MODEL, SMALL, start=labels, max_iter=0)
    tree_allclose(again.params, fit.params, 1e-10)
    # The objective: each row under its own component, and the prior.
    log_joint_rows = np.stack(
        [
            np.log(w) + jax.scipy.stats.multivariate_normal.logpdf(SMALL, m, c)
            for w, m, c in zip(
                fit.params.weights, fit.params.means, fit.params.covariances, strict=True
            )
        ]
    )
    np.testing.assert_allclose(fit.trace[-1] - fit.log_prior, log_joint_rows.max(axis=0).sum())


def test_a_chain_returns_the_best_point_that_it_visited():
    one, same, other = (fitted("stochastic", seed=seed) for seed in (0, 0, 1))
    assert one.n_iter == one.max_iter == 120
    assert one.status == jg.Status.OUT_OF_ITERATIONS
    np.testing.assert_allclose(one.log_joint, np.max(one.trace), rtol=1e-13)
    np.testing.assert_array_equal(one.trace, same.trace)
    assert not np.array_equal(one.trace, other.trace)
    assert np.min(np.diff(one.trace)) < 0  # it does not climb
    optimum = fitted("em").log_joint
    assert 0 < optimum - one.log_joint < 1  # half the dimension, and the best of 120 beats it


def test_restarts_of_a_chain_draw_their_own_labels(key):
    start = np.stack([starts(SMALL, 2, 1)[0]] * 2)
    fit = jg.fit(MODEL, SMALL, start=start, algorithm="stochastic", key=key, max_iter=5)
    assert fit.restarts.trace[0, 0] == fit.restarts.trace[1, 0]
    assert fit.restarts.trace[0, 1] != fit.restarts.trace[1, 1]


def test_a_draw_that_empties_a_component_is_drawn_again(key):
    # A component of weight 1e-3 expects a tenth of a row: most draws leave it none.
    model = jg.Mixture(jg.Gaussian("tied"), 2)
    centre = SMALL.mean(axis=0)
    start = model.params(
        weights=[0.999, 0.001], means=[centre, centre], covariances=np.cov(SMALL, rowvar=False)
    )
    fit = jg.fit(model, SMALL, start=start, algorithm="stochastic", key=key, max_iter=30)
    assert fit.n_iter == 30
    assert np.isfinite(fit.trace).all()
    assert fit.trace[1] == fit.trace[0]


def test_annealing_ends_as_em_at_a_mode():
    fit = fitted("annealing")
    assert fit.converged
    assert fit.n_iter > 20
    np.testing.assert_allclose(fit.trace[-1], fit.log_joint, rtol=1e-13)
    plain = jg.fit(MODEL, SMALL, start=fit.params)
    assert plain.log_joint - fit.log_joint < 1e-7
    x = DATA["galaxies"]
    four = jg.Mixture(jg.Gaussian("V"), 4)
    ends = [
        len(jg.fit(four, x, start=starts(x, 4, 20), algorithm=name).optima)
        for name in ("em", "annealing")
    ]
    assert ends[1] < ends[0]  # what softening is for: fewer poor optima


def test_names_and_keys_are_checked_at_the_door():
    labels = starts(SMALL, 2, 1)
    with pytest.raises(ValueError, match=r"algorithm.*did you mean 'classification'"):
        jg.fit(MODEL, SMALL, start=labels, algorithm="clasification")
    with pytest.raises(ValueError, match="key: algorithm 'stochastic' is random"):
        jg.fit(MODEL, SMALL, start=labels, algorithm="stochastic")


def test_a_second_chain_compiles_nothing(compilations):
    fitted("stochastic", seed=2)
    with compilations:
        fitted("stochastic", SMALL + 1, seed=3)
    assert compilations.count == 0
