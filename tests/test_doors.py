"""What is refused before anything runs, and what the refusal says."""

import pathlib
import pickle
import re

import jax
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import xarray as xr
from helpers import SMALL, STRUCTURES, soft_labels

import jaxgmm as jg
from jaxgmm._checks import check_rows, warn_of_narrowing
from jaxgmm.files._tables import feature_names

KEY = jax.random.key(0)
FULL = jg.Mixture(jg.Gaussian("full"), 2)
MULTINOMIAL = jg.Mixture(jg.families.Multinomial(), 2)
ROW_3_COLUMN_1 = SMALL.copy()
ROW_3_COLUMN_1[3, 1] = np.nan
LABELS = soft_labels(len(SMALL), 2)


def _prior(**changes):
    fields = {"mean": [3.0, 70.0], "mean_precision": 0.1, "dof": 5.0, "scale": np.eye(2)}
    return jg.ConjugatePrior(**fields | changes)


def _fit(model=FULL, x=SMALL, **options):
    return jg.fit(model, x, **{"key": KEY, "n_init": 2} | options)


def _with(**changes):
    return jg.Mixture(jg.Gaussian("full"), 2, prior=_prior(**changes))


REFUSALS = {
    # data
    "nan": (lambda: _fit(MULTINOMIAL, ROW_3_COLUMN_1), ValueError, "x: .*row 3, column 1"),
    "infinite": (lambda: _fit(x=[1.0, np.inf, 2.0]), ValueError, "x: .*row 1, column 0"),
    "string": (lambda: _fit(x="faithful.csv"), TypeError, "x: .*string"),
    "strings": (lambda: _fit(x=[["a", "b"], ["c", "d"]]), TypeError, "x: needs"),
    "objects": (lambda: _fit(x=np.array([[1, "b"]], dtype=object)), TypeError, "x: needs"),
    "ragged": (lambda: _fit(x=[[1.0, 2.0], [3.0]]), ValueError, "x: "),
    "complex": (lambda: _fit(x=SMALL + 1j), TypeError, "x: needs real"),
    "3-D": (lambda: _fit(x=SMALL[None]), ValueError, r"x: .*\(1, 90, 2\)"),
    "no rows": (lambda: _fit(x=SMALL[:0]), ValueError, "x: has no rows"),
    # weights
    "negative weight": (
        lambda: _fit(sample_weight=np.r_[1.0, -1.0, np.ones(88)]),
        ValueError,
        "sample_weight: negative.*row 1",
    ),
    "weight shape": (lambda: _fit(sample_weight=[1.0]), ValueError, r"sample_weight: .*\(90,\)"),
    "no weight": (lambda: _fit(sample_weight=np.zeros(90)), ValueError, "sample_weight: all"),
    "nan weight": (
        lambda: _fit(sample_weight=np.full(90, np.nan)),
        ValueError,
        "sample_weight: non-finite",
    ),
    # model
    "K = 0": (lambda: jg.Mixture(jg.Gaussian(), 0), ValueError, "n_components: .*at least 1"),
    "K = 2.0": (lambda: jg.Mixture(jg.Gaussian(), 2.0), TypeError, "n_components: needs a whole"),
    "no family": (lambda: jg.Mixture("full", 2), TypeError, "family: "),
    "structure": (lambda: jg.Gaussian("ful"), ValueError, "structure: .*did you mean 'full'"),
    "prior": (
        lambda: jg.Mixture(jg.Gaussian(), 2, prior="fraley-raftry"),
        ValueError,
        "prior: .*did you mean 'fraley-raftery'",
    ),
    "ridge": (lambda: jg.Gaussian(reg_covar=-1.0), ValueError, "reg_covar: "),
    "weights sum": (lambda: jg.Mixture(jg.Gaussian(), 2, weights=[0.5, 0.6]), ValueError, "weig"),
    "weights name": (
        lambda: jg.Mixture(jg.Gaussian(), 2, weights="equel"),
        ValueError,
        "weights: .*did you mean 'equal'",
    ),
    "V in 2-D": (lambda: _fit(jg.Mixture(jg.Gaussian("V"), 2)), ValueError, "structure: .*'full'"),
    "not a model": (lambda: _fit("full"), TypeError, "model: "),
    # prior
    "concentration": (lambda: _fit(_with(concentration=0.5)), ValueError, "concentration"),
    "concentrations": (lambda: _fit(_with(concentration=[1, 1, 1])), ValueError, r"\(2,\)"),
    "prior mean": (lambda: _fit(_with(mean=[1.0])), ValueError, r"prior: mean .*\(2,\)"),
    "precision": (lambda: _fit(_with(mean_precision=0.0)), ValueError, "prior: mean_precision"),
    "dof": (lambda: _fit(_with(dof=1.0)), ValueError, "prior: dof .*above 1"),
    "prior shape": (lambda: _fit(_with(scale=np.eye(3))), ValueError, r"prior: scale .*\(2, 2\)"),
    "prior scale": (lambda: _fit(_with(scale=-np.eye(2))), ValueError, "prior: scale .*definite"),
    "asymmetric": (lambda: _fit(_with(scale=[[2, 1], [0, 2]])), ValueError, "prior: scale .*symm"),
    # the run
    "no key": (lambda: jg.fit(FULL, SMALL), ValueError, "key: .*jax.random.key"),
    "int key": (lambda: _fit(key=0), TypeError, "key: .*int"),
    "raw key": (lambda: _fit(key=jax.random.PRNGKey(0)), TypeError, "key: "),
    "keys": (lambda: _fit(key=jax.random.split(KEY)), ValueError, r"key: .*\(2,\)"),
    "start name": (lambda: _fit(start="kmeans"), ValueError, "start: .*did you mean 'k-means'"),
    "start shape": (lambda: _fit(start=LABELS[:5]), ValueError, r"start: .*\(90, 2\)"),
    "start sum": (lambda: _fit(start=2 * LABELS), ValueError, "start: .*sum to one"),
    "start negative": (lambda: _fit(start=-LABELS), ValueError, "start: .*negative"),
    "start kind": (lambda: _fit(start={"means": 1}), TypeError, "start: "),
    "start of another K": (
        lambda: _fit(start=FULL.params(means=SMALL[:2, :1], covariances=[[[1.0]]] * 2)),
        ValueError,
        "start: parameters need shapes",
    ),
    "n_init": (lambda: _fit(n_init=0), ValueError, "n_init: "),
    "max_iter": (lambda: _fit(max_iter=-1), ValueError, "max_iter: "),
    "tol": (lambda: _fit(tol=-1.0), ValueError, "tol: "),
    "tol nan": (lambda: _fit(tol=float("nan")), ValueError, "tol: "),
    # parameters
    "means": (lambda: FULL.params(means=[[1.0]], covariances=1), ValueError, r"means: .*\(2, D\)"),
    "covariances": (
        lambda: FULL.params(means=SMALL[:2], covariances=[-np.eye(2)] * 2),
        ValueError,
        "covariances: .*positive definite",
    ),
    "not tied": (
        lambda: jg.Mixture(jg.Gaussian("tied"), 2).params(
            means=SMALL[:2], covariances=[np.eye(2), 2 * np.eye(2)]
        ),
        ValueError,
        "covariances: .*'tied'",
    ),
    "a rule has no density": (
        lambda: jg.Mixture(jg.Gaussian(), 2, prior="fraley-raftery").log_prior(None),
        ValueError,
        "'fraley-raftery'.*resolve",
    ),
    # data sets
    "data set": (lambda: jg.datasets.load("fathful"), ValueError, "name: .*'faithful'"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refused(name):
    call, error, message = REFUSALS[name]
    with pytest.raises(error) as caught:
        call()
    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)


# -- data on which a structure without a prior has no maximum ----------------------------

CONSTANT = np.column_stack([SMALL[:, 0], np.full(len(SMALL), 5.0)])
PARALLEL = np.column_stack([SMALL[:, 0], 2 * SMALL[:, 0] + 1])
HOPELESS = {
    "too few rows": (SMALL[:1], 2, "1 rows", STRUCTURES),
    "equal rows": (np.ones((9, 2)), 2, "all rows are equal", STRUCTURES),
    "few distinct rows": (np.repeat(SMALL[:2], 9, axis=0), 3, "2 distinct rows", STRUCTURES),
    "constant column": (CONSTANT, 2, "column 1 is constant", ("full", "tied", "diag")),
    "dependent columns": (PARALLEL, 2, "linearly dependent", ("full", "tied")),
}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("name", HOPELESS)
def test_refused_exactly_where_the_likelihood_is_unbounded(name, structure):
    x, k, message, unbounded = HOPELESS[name]
    options = {"x": x, "start": soft_labels(len(x), k), "max_iter": 20}
    plain = jg.Mixture(jg.Gaussian(structure), k)
    if structure in unbounded:
        with pytest.raises(ValueError, match=f"x: .*{message}.*prior"):
            _fit(plain, **options)
    else:
        assert np.isfinite(_fit(plain, **options).log_joint)


@pytest.mark.parametrize("structure", ["full", "spherical"])
@pytest.mark.parametrize("name", HOPELESS)
def test_a_proper_prior_makes_it_a_fit(name, structure):
    x, k, *_ = HOPELESS[name]
    prior = _prior(scale=np.eye(2) if structure == "full" else 1.0)
    model = jg.Mixture(jg.Gaussian(structure), k, prior=prior)
    fit = _fit(model, x=x, start=soft_labels(len(x), k), max_iter=20)
    assert np.isfinite(fit.log_joint)
    assert fit.status in (jg.Status.CONVERGED, jg.Status.OUT_OF_ITERATIONS)


def test_a_vector_is_one_feature():
    model = jg.Mixture(jg.Gaussian("V"), 2)
    start = soft_labels(len(SMALL), 2)
    vector, column = (jg.fit(model, x, start=start) for x in (SMALL[:, 0], SMALL[:, :1]))
    assert vector.params.means.shape == (2, 1)
    assert vector.log_joint == column.log_joint
    assert np.all(vector.trace == column.trace)


# -- tables of every library -------------------------------------------------------------


class ArrowLike:
    """What tells an Arrow table apart: its names are not its columns."""

    column_names = ("wing", "tail")
    columns = ("the", "data")

    def __array__(self, dtype=None, copy=None):
        return np.array([[1.0, 2.0], [3.0, 4.0]])


def _frame(**columns):
    return pd.DataFrame(columns)


def _arrow():
    return pytest.importorskip("pyarrow").table({"wing": [1.0, 3.0], "tail": [2, 4]})


def _polars(kind="DataFrame"):
    polars = pytest.importorskip("polars")
    return getattr(polars, kind)({"wing": [1.0, 3.0], "tail": [2, 4]})


NAMED = {
    "pandas": lambda: _frame(wing=[1.0, 3.0], tail=[2, 4]),
    "nullable": lambda: _frame(wing=[1.0, 3.0], tail=[2, 4]).convert_dtypes(),
    "several dtypes": lambda: _frame(wing=np.array([1, 3], object), tail=np.float32([2, 4])),
    "like Arrow": ArrowLike,
    "Arrow": _arrow,
    "polars": _polars,
    "xarray": lambda: xr.DataArray(
        [[1.0, 2.0], [3.0, 4.0]], dims=("obs", "part"), coords={"part": ["wing", "tail"]}
    ),
}


@pytest.mark.parametrize("table", NAMED)
def test_tables_keep_the_names_of_their_columns(table):
    table = NAMED[table]()
    assert feature_names(table) == ("wing", "tail")
    rows = np.asarray(check_rows(table))
    np.testing.assert_array_equal(rows, [[1, 2], [3, 4]])
    assert rows.dtype == np.float64


def test_series_keep_their_names():
    values = [1.0, 2.0, 4.0]
    for series in (pd.Series(values, name="wing"), xr.DataArray(values, dims="obs", name="wing")):
        assert feature_names(series) == ("wing",)
        assert check_rows(series).shape == (3, 1)
    assert feature_names(pd.Series(values)) == feature_names(values) == ("x0",)
    assert feature_names(xr.DataArray(np.eye(2), name="wing")) == ("x0", "x1")
    data = jg.datasets.load("faithful")
    assert feature_names(data) == data.feature_names
    np.testing.assert_array_equal(check_rows(data), data.x)


def test_a_fit_has_the_names_of_its_data():
    fit = jg.fit(FULL, pd.DataFrame(SMALL, columns=["length", "pause"]), start=LABELS, max_iter=1)
    assert fit.feature_names == ("length", "pause")


DAYS = pd.to_timedelta([1, None, 3], unit="D")
NO_NUMBERS = {
    "masked": (np.ma.masked_array(np.eye(3), mask=np.eye(3)), "3 masked.*row 0, column 0; drop"),
    "masked in a list": ([np.ma.masked_array([1.0, 2.0], [0, 1])] * 2, "2 masked.*row 0, column 1"),
    "masked vector": (np.ma.masked_array([1.0, 2.0], mask=[0, 1]), "1 masked.*row 1;"),
    "not a time": (np.array([1, 2, "NaT"], dtype="m8[D]"), r"times \(dtype timedelta64\[D\]\)"),
    "times": (_frame(wait=DAYS), "times .* in column.* 'wait'; make them numbers"),
    "times and numbers": (_frame(a=[1, 2, 3], wait=DAYS), "Timedelta.*at row 0, column 'wait'"),
    "dates": (
        _frame(a=[1.0], day=pd.to_datetime(["2020-01-01"])),
        "Timestamp.*row 0, column 'day'",
    ),
    "numpy times": (np.array([[np.timedelta64(1, "D"), "x"]], object), "timedelta64.*column 0"),
    "text": (_frame(wing=[1.0, 2.0], kind=["robin", "wren"]), "'robin' at row 0, column 'kind'"),
    "numbers as text": (_frame(wing=["1", "2"], tail=[1, 2]), "'1' at row 0, column 'wing'"),
    "text only": (np.array([["1", "2"]]), "found text"),
    "complex": (_frame(wing=[1, 2j]), "needs real numbers, found dtype complex128"),
    "NA": (_frame(wing=[1, 2], tail=pd.array([1, None])), "nan at row 1, column 'tail'; drop"),
    "None": ([[1.0, None]], "nan at row 0, column 1"),
    "NaN": (_frame(wing=[1, 2], tail=[np.nan, 2]), "nan at row 0, column 'tail'"),
    "NaN in a series": (pd.Series([1, np.inf], name="wing"), "inf at row 1, column 'wing'"),
    "sparse": (scipy.sparse.eye_array(3, format="csr"), r"found a csr_array; pass x\.toarray\(\)"),
    "dict": ({"wing": [1, 2]}, r"found a dict; .*pandas\.DataFrame\(x\)"),
    "fields": (np.zeros(2, [("a", float), ("b", int)]), r"fields 'a', 'b'; .*pandas\.DataFrame"),
    "path": (pathlib.Path("rows.csv"), "Path; load the file first"),
    "nothing": (None, "array or a table of numbers, found a NoneType"),
    "set of arrays": (xr.Dataset({"a": ("obs", [1.0])}), "found a Dataset; make a table"),
}


@pytest.mark.parametrize("case", NO_NUMBERS)
def test_what_is_no_table_of_numbers_is_refused_by_name(case):
    x, message = NO_NUMBERS[case]
    with pytest.raises((TypeError, ValueError), match=f"^x: .*{message}"):
        check_rows(x)


def test_an_array_with_a_mask_that_hides_nothing_is_an_array():
    np.testing.assert_array_equal(check_rows(np.ma.masked_array(SMALL, mask=False)), SMALL)


def test_a_lazy_table_is_refused_by_name():
    with pytest.raises(TypeError, match=r"x: .*LazyFrame that has none yet; pass x\.collect\(\)"):
        check_rows(_polars("LazyFrame"))


def test_masked_rows_are_refused_after_a_fit_too():
    params = FULL.params(means=SMALL[:2], covariances=[np.eye(2)] * 2)
    masked = np.ma.masked_array(SMALL, mask=SMALL > 90)
    for look in (FULL.log_prob, FULL.responsibilities, FULL.predict):
        with pytest.raises(ValueError, match=r"x: .*masked value"):
            look(params, masked)


def test_masked_weights_are_refused():
    weight = np.ma.masked_array(np.ones(len(SMALL)), mask=np.arange(len(SMALL)) == 7)
    with pytest.raises(ValueError, match=r"sample_weight: 1 masked value.*row 7"):
        _fit(sample_weight=weight)


def test_columns_are_called_by_their_names():
    x = pd.DataFrame(CONSTANT, columns=["length", "pause"])
    with pytest.raises(ValueError, match="x: column 'pause' is constant") as caught:
        _fit(x=x)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    wide = x.assign(pause=np.linspace(0, 1e200, len(x)))
    with pytest.raises(ValueError, match="x: column 'pause' spreads"):
        _fit(x=wide)
    with pytest.raises(ValueError, match="no scale for column 'pause'"):
        _fit(jg.Mixture(jg.Gaussian("full"), 2, prior="fraley-raftery"), x)


# -- float64 data where JAX's switch is off ------------------------------------------------


def test_narrowed_data_are_said_once_in_a_process():
    warn_of_narrowing.cache_clear()
    with jax.enable_x64(False):
        with pytest.warns(UserWarning, match="x: float64 data.*JAX_ENABLE_X64=1"):
            check_rows(SMALL)
        check_rows(SMALL)
        warn_of_narrowing.cache_clear()
        check_rows(SMALL.astype(np.float32))
        check_rows([[1, 2], [3, 4]])
    check_rows(SMALL)


def test_a_fit_in_float64_is_refused_where_the_switch_is_off():
    fit = jg.fit(FULL, SMALL, start=LABELS, max_iter=1)
    with jax.enable_x64(False), pytest.raises(ValueError, match=r"fit: .*JAX_ENABLE_X64=1"):
        jg.standard_errors(fit, SMALL)
