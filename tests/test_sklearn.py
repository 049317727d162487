"""The door for scikit-learn users: its numbers, its shapes, its manners."""

import pickle

import jax
import numpy as np
import pytest
from helpers import SMALL

import jaxgmm as jg

pytest.importorskip("sklearn")

from sklearn import mixture
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from jaxgmm.sklearn import BayesianGaussianMixture, GaussianMixture

TYPES = ("full", "tied", "diag", "spherical")
DATA = {name: jg.datasets.load(name).x for name in ("faithful", "iris")}
# So far apart that no row is in doubt.
SEPARATED = np.random.default_rng(0).normal(size=(60, 2)) + np.repeat([[0.0], [60.0]], 30, axis=0)


def quick(*chosen):
    """All types of covariance, those that were not chosen in the slow lane."""
    slow = lambda name: () if name in chosen else pytest.mark.slow
    return [pytest.param(name, marks=slow(name)) for name in TYPES]


def the_start(x, covariance_type):
    """Two components a standard deviation apart on each side, with the covariance of all rows."""
    covariance = np.cov(x.T)
    variances = np.diag(covariance)
    precisions = {
        "full": np.stack([np.linalg.inv(covariance)] * 2),
        "tied": np.linalg.inv(covariance),
        "diag": np.stack([1 / variances] * 2),
        "spherical": np.full(2, 1 / variances.mean()),
    }
    apart = np.outer([-1, 1], np.sqrt(variances))
    return {
        "weights_init": [0.4, 0.6],
        "means_init": x.mean(axis=0) + apart,
        "precisions_init": precisions[covariance_type],
    }


# -- scikit-learn's numbers ------------------------------------------------------------


def check_same(ours, theirs, x, names, rtol):
    for name in names:
        one, other = getattr(ours, name), getattr(theirs, name)
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * np.abs(other).max())
    probabilities = theirs.predict_proba(x)
    np.testing.assert_allclose(ours.predict_proba(x), probabilities, atol=10 * rtol)
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))


@pytest.mark.parametrize("covariance_type", quick("full"))
@pytest.mark.parametrize("data", ["faithful", pytest.param("iris", marks=pytest.mark.slow)])
def test_maximum_likelihood_from_the_same_start(data, covariance_type):
    x = DATA[data]
    start = the_start(x, covariance_type)
    options = {"covariance_type": covariance_type, "tol": 1e-13, "max_iter": 2000}
    ours = GaussianMixture(2, **options, **start).fit(x)
    theirs = mixture.GaussianMixture(2, **options, **start).fit(x)
    names = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")
    check_same(ours, theirs, x, names, rtol=1e-6)
    for number in (ours.lower_bound_, ours.lower_bounds_[-1], ours.score(x)):
        assert number == pytest.approx(theirs.score(x), rel=1e-12)
    assert ours.lower_bounds_.shape == (ours.n_iter_,)
    assert ours.bic(x) == pytest.approx(theirs.bic(x), rel=1e-12)
    assert ours.aic(x) == pytest.approx(theirs.aic(x), rel=1e-12)
    np.testing.assert_allclose(ours.score_samples(x), theirs.score_samples(x), rtol=1e-6)


@pytest.mark.parametrize("covariance_type", quick("full"))
def test_each_step_is_scikit_learns(covariance_type):
    """Where nothing stops early, its bound is that of a step before."""
    x = DATA["faithful"]
    start = the_start(x, covariance_type)
    options = {"n_components": 2, "covariance_type": covariance_type, "tol": 0, "max_iter": 8}
    with pytest.warns(ConvergenceWarning):
        ours = GaussianMixture(**options, **start).fit(x)
    with pytest.warns(ConvergenceWarning):
        theirs = mixture.GaussianMixture(**options, **start).fit(x)
    np.testing.assert_allclose(ours.lower_bounds_[:-1], theirs.lower_bounds_[1:], rtol=1e-12)
    check_same(ours, theirs, x, ("weights_", "means_", "covariances_"), rtol=1e-9)


NAMES = ("means_", "covariances_", "mean_precision_", "degrees_of_freedom_")
PRIORS = {
    "mean_prior_",
    "mean_precision_prior_",
    "degrees_of_freedom_prior_",
    "covariance_prior_",
    "weight_concentration_prior_",
}


def check_bayesian(x, covariance_type, kind, names, rtol):
    options = {
        "n_components": 2,
        "covariance_type": covariance_type,
        "weight_concentration_prior_type": kind,
        "tol": 1e-10,
        "reg_covar": 0,
        "max_iter": 2000,
    }
    ours = BayesianGaussianMixture(random_state=0, **options).fit(x)
    # Sticks are not exchangeable: the components in the same order.
    for seed in range(20):
        theirs = mixture.BayesianGaussianMixture(random_state=seed, **options).fit(x)
        if np.array_equal(np.argsort(ours.means_[:, 0]), np.argsort(theirs.means_[:, 0])):
            break
    check_same(ours, theirs, x, names, rtol)
    for name in PRIORS:
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-12)
    for name in ("precisions_cholesky_", "weights_"):
        assert getattr(ours, name).shape == getattr(theirs, name).shape
    np.testing.assert_allclose(ours.lower_bound_, ours.lower_bounds_[-1])
    return ours, theirs


@pytest.mark.turn
@pytest.mark.parametrize("covariance_type", ["full", pytest.param("tied", marks=pytest.mark.slow)])
def test_variational_bayes_where_the_updates_are_the_same(covariance_type):
    """To its own optimum, from another start."""
    names = (*NAMES, "weights_", "weight_concentration_")
    x = DATA["faithful"]
    ours, theirs = check_bayesian(x, covariance_type, "dirichlet_distribution", names, 2e-6)
    if covariance_type == "full":
        np.testing.assert_allclose(ours.score_samples(x), theirs.score_samples(x), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("kind", ["dirichlet_process", "dirichlet_distribution"])
def test_variational_bayes_where_labels_are_certain(covariance_type, kind):
    ours, theirs = check_bayesian(SEPARATED, covariance_type, kind, NAMES, 1e-9)
    for one, other in zip(ours.weight_concentration_, theirs.weight_concentration_, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


# -- manners -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    return GaussianMixture(2, random_state=3).fit(SMALL)


@pytest.fixture(scope="module")
def bayesian():
    return BayesianGaussianMixture(n_components=3, random_state=3, tol=1e-2).fit(SMALL)


@pytest.mark.turn
def test_what_comes_back_is_numpy(fitted):
    arrays = [value for value in vars(fitted).values() if hasattr(value, "shape")]
    arrays += [fitted.predict(SMALL), fitted.predict_proba(SMALL), *fitted.sample(5)]
    for array in arrays:
        assert type(array) is np.ndarray
        assert array.flags.writeable
    assert fitted.predict_proba(SMALL).shape == (90, 2)
    np.testing.assert_allclose(fitted.predict_proba(SMALL).sum(axis=1), 1)
    np.testing.assert_array_equal(fitted.predict(SMALL), fitted.predict_proba(SMALL).argmax(axis=1))
    assert fitted.converged_ is True
    assert fitted.score(SMALL) == pytest.approx(fitted.lower_bound_, rel=1e-12)


def test_the_fit_goes_on_to_jaxgmm(fitted):
    found = fitted.result_
    assert isinstance(found, jg.Fit)
    np.testing.assert_array_equal(found.params.means, fitted.means_)
    assert fitted.bic(SMALL) == pytest.approx(found.bic)
    assert fitted.aic(SMALL) == pytest.approx(found.aic)


@pytest.mark.turn
def test_a_copy_says_the_same(fitted, bayesian):
    for estimator in (fitted, bayesian):
        again = pickle.loads(pickle.dumps(estimator))
        np.testing.assert_array_equal(again.predict_proba(SMALL), estimator.predict_proba(SMALL))
        fresh = clone(estimator)
        assert fresh.get_params() == estimator.get_params()
        with pytest.raises(NotFittedError):
            fresh.predict(SMALL)


def test_seeds(fitted, compilations):
    again = clone(fitted).fit(SMALL)
    np.testing.assert_array_equal(again.means_, fitted.means_)
    state = clone(fitted).set_params(random_state=np.random.RandomState(3)).fit(SMALL)
    np.testing.assert_array_equal(state.means_, fitted.means_)
    rows, labels = fitted.sample(2000)
    np.testing.assert_array_equal(rows, fitted.sample(2000)[0])
    with compilations:  # 1,990 rows are drawn by the program of 2,000
        fewer, of = fitted.sample(1990)
    assert compilations.count == 0
    assert fewer.shape == (1990, 2)
    assert abs(np.mean(of) - np.mean(labels)) < 0.01
    assert rows.shape == (2000, 2)
    assert np.all(np.diff(labels) >= 0)
    np.testing.assert_allclose(np.bincount(labels) / 2000, fitted.weights_, atol=0.05)
    for k in range(2):
        error = np.abs(rows[labels == k].mean(axis=0) - fitted.means_[k])
        assert np.all(error < 5 * np.sqrt(np.diag(fitted.covariances_[k]) / np.sum(labels == k)))


@pytest.mark.slow
def test_warm_start_goes_on(fitted):
    with pytest.warns(ConvergenceWarning):
        going = GaussianMixture(2, random_state=3, max_iter=1, tol=1e-9, warm_start=True).fit(SMALL)
    bounds = [going.lower_bound_]
    for _ in range(2):
        with pytest.warns(ConvergenceWarning):
            going.fit(SMALL)
        bounds.append(going.lower_bound_)
    assert np.all(np.diff(bounds) > 0)
    at_once = GaussianMixture(2, random_state=3, max_iter=3, tol=1e-9)
    with pytest.warns(ConvergenceWarning):
        at_once.fit(SMALL)
    np.testing.assert_allclose(at_once.lower_bounds_, bounds, rtol=1e-12)


@pytest.mark.turn
def test_a_warm_start_gives_a_component_without_rows_a_new_one():
    near, far = SMALL - SMALL.mean(axis=0), SMALL - SMALL.mean(axis=0) + [0, 500]
    mixture = GaussianMixture(2, random_state=0, warm_start=True, max_iter=500, tol=1e-6)
    mixture.fit(np.concatenate([near, far])).fit(near)
    assert mixture.converged_
    assert mixture.weights_.min() > 0.2
    assert mixture.lower_bound_ > GaussianMixture(1).fit(near).lower_bound_ + 0.1


@pytest.mark.slow
def test_warm_start_of_variational_bayes(bayesian):
    again = clone(bayesian).set_params(warm_start=True, tol=1e-9, max_iter=1000).fit(SMALL)
    before = again.n_iter_
    bound = again.lower_bound_
    again.fit(SMALL)
    assert again.n_iter_ < before
    assert again.lower_bound_ == pytest.approx(bound, rel=1e-10)


def test_some_of_a_start_may_be_given(fitted):
    means = fitted.means_[::-1]
    with pytest.warns(ConvergenceWarning):
        found = GaussianMixture(2, means_init=means, random_state=0, max_iter=1, tol=1e-9).fit(
            SMALL
        )
    assert np.all(
        np.linalg.norm(found.means_ - means, axis=1) < np.linalg.norm(means[0] - means[1])
    )


@pytest.mark.slow
def test_weights_are_copies(fitted):
    copies = np.arange(90) % 2 + 1
    # From parameters, whose way does not depend on how rows are drawn.
    start = {"weights_init": fitted.weights_, "means_init": fitted.means_}
    start["precisions_init"] = fitted.precisions_
    weighted = GaussianMixture(2, tol=1e-12, **start).fit(SMALL, sample_weight=copies)
    repeated = GaussianMixture(2, tol=1e-12, **start).fit(np.repeat(SMALL, copies, axis=0))
    np.testing.assert_allclose(weighted.means_, repeated.means_, rtol=1e-6)
    assert weighted.lower_bound_ == pytest.approx(repeated.lower_bound_, rel=1e-10)


def test_criteria_count_weights():
    x, weight = DATA["faithful"], np.arange(272) % 3
    copies = np.repeat(x, weight, axis=0)
    estimator = GaussianMixture(2, random_state=3).fit(x)
    for name in ("score", "bic", "aic"):
        weighted = getattr(estimator, name)(x, sample_weight=weight)
        np.testing.assert_allclose(weighted, getattr(estimator, name)(copies), rtol=1e-12)
        assert weighted != getattr(estimator, name)(x)
    with pytest.raises(ValueError, match="sample_weight: negative"):
        estimator.bic(x, sample_weight=-weight)


@pytest.mark.parametrize("size", [40, 45])
def test_rows_are_looked_at_in_blocks(fitted, monkeypatch, size):
    x = SMALL
    names = ("predict_proba", "score_samples", "predict")
    whole = {name: getattr(fitted, name)(x) for name in names}
    monkeypatch.setattr("jaxgmm.sklearn._ROWS_AT_ONCE", size)
    for name in names:
        np.testing.assert_allclose(getattr(fitted, name)(x), whole[name], rtol=1e-12)


@pytest.mark.double
def test_float32_stays(fitted):
    found = GaussianMixture(2, random_state=3).fit(SMALL.astype(np.float32))
    for name in ("weights_", "means_", "covariances_", "precisions_cholesky_"):
        assert getattr(found, name).dtype == np.float32
    np.testing.assert_allclose(found.lower_bound_, fitted.lower_bound_, rtol=1e-3)


@pytest.mark.turn
def test_variational_bayes_labels_rows(bayesian):
    assert bayesian.predict_proba(SMALL).shape == (90, 3)
    assert bayesian.weights_.sum() == pytest.approx(1)
    taken, left = bayesian.weight_concentration_
    assert taken.shape == left.shape == (3,)
    assert bayesian.mean_precision_.sum() == pytest.approx(90 + 3)
    params = bayesian.posterior_.draw_prior(jax.random.key(0))
    assert params.means.shape == (3, 2)
    assert bayesian.sample(4)[0].shape == (4, 2)


def test_names_of_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(SMALL, columns=["length", "pause"])
    found = GaussianMixture(2, random_state=3).fit(frame)
    assert found.feature_names_in_.tolist() == ["length", "pause"]
    assert found.result_.feature_names == ("length", "pause")
    with pytest.raises(ValueError, match="feature names"):
        found.predict(frame.rename(columns={"pause": "wait"}))


def test_verbose_is_a_line_for_each_restart(fitted, capsys):
    clone(fitted).set_params(verbose=1).fit(SMALL)
    bound = f"{fitted.n_iter_} iterations, lower bound {fitted.lower_bound_:.5f}"
    assert capsys.readouterr().out == f"Initialization 0: {bound}\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_params": "kmean"}, "init_params: unknown name 'kmean'; did you mean 'kmeans'"),
        ({"covariance_type": "ful"}, "covariance_type: .*did you mean 'full'"),
        ({"n_components": 91}, "n_samples >= n_components, but got n_components = 91"),
        ({"tol": -1.0}, "tol: "),
        ({"reg_covar": -1.0}, "reg_covar: "),
        ({"prior": "fraley"}, "prior: .*did you mean 'fraley-raftery'"),
        ({"weights_init": [0.5]}, r"weights_init: .*shape of \(2,\), but got \(1,\)"),
        ({"weights_init": [0.5, 0.6]}, r"weights_init: .*sum\(weights\) = 1.10000"),
        ({"weights_init": [0.0, 1.0]}, "weights_init: should be positive"),
        ({"weights_init": ["a", "b"]}, "weights_init: needs numbers, found text"),
        ({"means_init": [[3.0, 70.0]]}, r"means_init: .*shape of \(2, 2\), but got \(1, 2\)"),
        ({"means_init": [[np.nan] * 2] * 2}, "means_init: holds a value that is not finite"),
        ({"precisions_init": np.eye(2)}, r"precisions_init: .*shape of \(2, 2, 2\)"),
        ({"precisions_init": np.zeros((2, 2, 2))}, "precisions_init: .*symmetric, positive-def"),
        ({"precisions_init": [[[1, 2], [0, 1]]] * 2}, "precisions_init: .*symmetric"),
        (
            {"precisions_init": -np.ones((2, 2)), "covariance_type": "diag"},
            "precisions_init: The parameter 'diag precision' should be positive",
        ),
        (
            {
                "precisions_init": [np.diag([1, 2]), np.diag([1, 9])],
                "covariance_type": "VEV",
                "reg_covar": 0,
            }
            | {"weights_init": [0.5, 0.5], "means_init": np.ones((2, 2))},
            "precisions_init: not of the 'VEV' structure",
        ),
    ],
)
def test_refusals(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        GaussianMixture(**{"n_components": 2} | options).fit(SMALL)


DISGUISED = {
    "masked": (np.ma.masked_array(SMALL, mask=SMALL > 90), "X: .*masked value"),
    "times": (np.ones((9, 2), "m8[s]"), "X: .*times"),
    "dates": (np.ones((9, 2), "M8[s]"), "X: .*times"),
}


@pytest.mark.parametrize("case", DISGUISED)
def test_what_scikit_learn_would_take_for_numbers_is_refused(fitted, case):
    x, message = DISGUISED[case]
    for look in (clone(fitted).fit, fitted.predict, fitted.score):
        with pytest.raises((ValueError, TypeError), match=message):
            look(x)


def test_columns_that_cannot_be_fitted_are_called_by_name():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(SMALL, columns=["length", "pause"]).assign(pause=1.0)
    with pytest.raises(ValueError, match=r"^X: column 'pause' is constant"):
        GaussianMixture(2, reg_covar=0).fit(frame)


def test_refusals_of_variational_bayes():
    for options, message in (
        ({"covariance_type": "VEV"}, "covariance_type: unknown name 'VEV'"),
        ({"weight_concentration_prior": 0}, "weight_concentration_prior: must be positive"),
        ({"weight_concentration_prior_type": "process"}, "did you mean 'dirichlet_process'"),
        ({"degrees_of_freedom_prior": 0.5}, "'degrees_of_freedom_prior' .* than 1, but got 0.500"),
        ({"mean_precision_prior": -1}, "'mean_precision_prior' .* than 0, but got -1.000"),
        ({"mean_prior": [1.0]}, r"mean_prior: .*shape of \(2,\), but got \(1,\)"),
        ({"covariance_prior": 1.0}, r"covariance_prior: .*shape of \(2, 2\), but got \(\)"),
        ({"covariance_prior": -np.eye(2)}, "full covariance_prior' should be symmetric, positive"),
    ):
        with pytest.raises(ValueError, match=message):
            BayesianGaussianMixture(**options).fit(SMALL)


@pytest.mark.turn
def test_a_prior_leads_to_the_mode_of_the_posterior():
    mixture = GaussianMixture(2, prior="fraley-raftery", random_state=0, tol=1e-10, max_iter=1000)
    found = mixture.fit(SMALL).result_
    model = jg.Mixture(jg.Gaussian("full"), 2, prior="fraley-raftery")
    direct = jg.fit(model, SMALL, key=jax.random.key(0), n_init=4)
    assert found.log_joint == pytest.approx(direct.log_joint, abs=1e-6)
    assert mixture.lower_bound_ == pytest.approx(found.log_joint / len(SMALL), rel=1e-12)
    assert mixture.score(SMALL) == pytest.approx(found.log_likelihood / len(SMALL), rel=1e-10)


@pytest.mark.slow
def test_a_prior_leads_to_a_verdict():
    mixture = GaussianMixture(2, prior="fraley-raftery", random_state=0, tol=1e-10, max_iter=1000)
    found = mixture.fit(SMALL).result_
    post = jg.sample(
        found.model, SMALL, key=jax.random.key(1), method="gibbs", start=found, progress=False
    )
    verdict = jg.compare(found, post)
    assert verdict.decided
    assert verdict.point == "mode"


@pytest.mark.slow
def test_structures_of_mclust():
    found = GaussianMixture(2, covariance_type="VEV", reg_covar=0, random_state=0).fit(SMALL)
    assert found.covariances_.shape == found.precisions_.shape == (2, 2, 2)
    assert found.bic(SMALL) == pytest.approx(found.result_.bic)
    assert found.score(SMALL) == pytest.approx(found.lower_bound_)
    found.set_params(warm_start=True).fit(SMALL)
    assert found.sample(3)[0].shape == (3, 2)


def test_pipeline(fitted):
    whole = make_pipeline(StandardScaler(), GaussianMixture(2, random_state=3)).fit(SMALL)
    np.testing.assert_array_equal(
        np.sort(np.bincount(whole.predict(SMALL))), np.sort(np.bincount(fitted.predict(SMALL)))
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_grid_search():
    grid = {"n_components": [1, 2], "covariance_type": ["diag"]}
    search = GridSearchCV(GaussianMixture(random_state=0), grid, cv=2).fit(SMALL)
    assert search.best_params_["n_components"] == 2


# -- scikit-learn's own checks -------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks([GaussianMixture(), BayesianGaussianMixture()])
def test_scikit_learns_checks(estimator, check):
    check(estimator)
