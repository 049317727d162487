"""What is refused before anything runs, and what the refusal says."""

import re

import jax
import numpy as np
import pytest
from helpers import SMALL, STRUCTURES, soft_labels

import jaxgmm as jg

KEY = jax.random.key(0)
FULL = jg.Mixture(jg.Gaussian("full"), 2)
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
    "nan": (lambda: _fit(x=ROW_3_COLUMN_1), ValueError, "x: .*row 3, column 1"),
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
