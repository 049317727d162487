"""scikit-learn's own tests of its mixtures, from the installed package, run on ours."""

import importlib.util
import pathlib
import re

import numpy as np
import pytest

pytest.importorskip("sklearn.mixture.tests")

import sklearn.mixture
import sklearn.mixture.tests

from jaxgmm.sklearn import BayesianGaussianMixture, GaussianMixture

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# What fails, and why no user meets it. A test of these that passes is a failure here.
_PRIVATE = "calls private methods of scikit-learn's classes"
EXCEPTIONS = {
    "test_compare_covar_type": _PRIVATE,
    "test_gaussian_mixture_precisions_init": _PRIVATE,
    "test_gaussian_mixture_all_init_does_not_estimate_gaussian_parameters": _PRIVATE,
    "test_bayesian_mixture_weights": (
        "a truncated process has no stick after the last: its weights, (taken / (taken + left)) "
        "times what was left before, sum to one with the last taking all (docs/scikit-learn.md)"
    ),
    "test_gaussian_mixture_setting_best_params": (
        "all that is found has a component on a single row: refused with advice, where "
        "scikit-learn returns its variance of 4e-16"
    ),
    "test_regularisation": (
        "wants other words; ours say what leaves the likelihood without a bound, and "
        "what to do. Whether a ridge makes them a fit is tested below"
    ),
    "test_check_weights": "wants the largest weight called the smallest, as scikit-learn 1.9 does",
}
# Not run at all: those of scikit-learn's switch for arrays of other libraries, which ours has no
# use for, and one that compares to the last bit what is added up in another order (see below).
_LEFT_OUT = re.compile(".*array_api.*|test_init")
# Those that compile the least; the others take minutes.
QUICK = {
    "test_check_means",
    "test_compute_log_det_cholesky",
    "test_gaussian_mixture_log_probabilities",
    "test_gaussian_mixture_predict_predict_proba",
    "test_gaussian_mixture_single_component_stable",
    "test_max_iter_zero",
    "test_mixture_n_components_greater_than_n_samples_error",
    "test_score",
    "test_score_samples",
    "test_suffstat_sk_diag",
    "test_suffstat_sk_full",
    "test_suffstat_sk_tied",
}
QUICK |= {name for name, reason in EXCEPTIONS.items() if reason is _PRIVATE}


def _tests():
    """Test functions of modules that are imported while scikit-learn's classes are ours."""
    with pytest.MonkeyPatch.context() as patch:
        for ours in (GaussianMixture, BayesianGaussianMixture):
            patch.setattr(sklearn.mixture, ours.__name__, ours)
        for file in sorted(pathlib.Path(sklearn.mixture.tests.__file__).parent.glob("test_*.py")):
            spec = importlib.util.spec_from_file_location(f"ours_{file.stem}", file)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            for name, test in vars(module).items():
                if name.startswith("test_") and not _LEFT_OUT.fullmatch(name):
                    # Some names are in two of the files.
                    yield f"{file.stem}__{name}", test if name in QUICK else pytest.mark.turn(test)


TESTS = dict(_tests())
globals().update(TESTS)


@pytest.fixture(autouse=True)
def _exceptions(request):
    reason = EXCEPTIONS.get(request.function.__name__)
    if reason:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))


def test_exceptions_and_quick_tests_are_tests():
    assert {name.partition("__")[2] for name in TESTS} >= QUICK


@pytest.mark.turn
def test_more_starts_are_no_worse():
    """scikit-learn's `test_init`, up to rounding: a start alone and among ten differ by it."""
    for seed in range(15):
        x = np.random.RandomState(seed).standard_normal((50, 2)) + np.arange(50)[:, None] % 2
        options = {"n_components": 2, "max_iter": 1, "random_state": seed}
        one, ten = (GaussianMixture(n_init=n, **options).fit(x).lower_bound_ for n in (1, 10))
        assert ten >= one - 1e-14 * abs(one)


@pytest.mark.turn
@pytest.mark.parametrize(
    "covariance_type",
    [
        "full",
        pytest.param(
            "tied",
            marks=pytest.mark.xfail(
                reason="every restart collapses, which scikit-learn's do not", strict=True
            ),
        ),
    ],
)
def test_a_ridge_fits_equal_rows(covariance_type):
    """The half of scikit-learn's `test_regularisation` that is not about words."""
    x = np.repeat([[1.0], [0.0]], 5, axis=0) * np.ones(5)
    mixture = GaussianMixture(10, covariance_type=covariance_type, reg_covar=0, random_state=0)
    with pytest.raises(ValueError, match=r"^X: only 2 distinct rows.*reg_covar"):
        mixture.fit(x)
    mixture.set_params(reg_covar=1e-6).fit(x)
    assert np.all(np.isfinite(mixture.covariances_))
    assert mixture.score(x) > 0


# scikit-learn's own fixtures, which its `conftest.py` keeps.
@pytest.fixture(params=[np.float64, pytest.param(np.float32, marks=pytest.mark.turn)])
def global_dtype(request):
    return request.param


@pytest.fixture
def global_random_seed():
    return 42
