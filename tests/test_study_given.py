"""Studies and calibrations of models that draw rows beside what is given of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
from scipy import stats

import jaxgmm as jg
from jaxgmm.report.studies import _batches, _study

F = jg.families
KEY = jax.random.key(5)
N, SETS, SIGMAS = 20, 200, 5.0
AGES = np.linspace(0.0, 3.0, N)
PEOPLE = pd.DataFrame({"age": AGES})
LINE = jg.Mixture(F.LinearRegression(on=["age"], response="pay"), 1)
PARAMS = LINE.params(coefficients=[[1.0, 2.0]], variances=[0.25])
LINES = jg.ConjugatePrior(mean=[0.0, 0.0], mean_precision=0.5, dof=6.0, scale=4.0)


def made(truth=LINE, params=PARAMS, **options):
    settings = {"n": N, "n_datasets": SETS, "key": KEY, "n_init": 1, "n_held_out": 10}
    return jg.study(truth, params, **{**settings, "progress": False, "given": PEOPLE, **options})


class Stopped(Exception):
    """A study that has been prepared, and is not run."""


def prepared(monkeypatch, n, **options):
    """Rows (set, n, D) of four data sets, and those held out."""

    def stop(problem, setting, wanted, key, n, *_):
        raise Stopped(problem, setting, key)

    monkeypatch.setattr(_batches, "run", stop)
    with pytest.raises(Stopped) as stopped:
        made(n=n, **options)
    problem, setting, key = stopped.value.args
    keys = _batches._keys(key, np.arange(4))
    rows = _batches._simulate(problem.truth, problem.params, problem.given, keys, n, setting)
    assert np.array_equal(np.sum(rows.weight, axis=1), np.full(4, n))
    return np.asarray(rows.x)[:, :n], np.asarray(rows.held_out)


def test_covariates_are_the_same_in_all_data_sets(monkeypatch):
    as_they_are, held_out = prepared(monkeypatch, N)
    np.testing.assert_array_equal(as_they_are[:, :, 0], np.tile(AGES, (4, 1)))
    assert len(np.unique(as_they_are[:, 0, 1])) == 4
    # Other numbers of rows are drawn with replacement, as rows held out are.
    chosen, _ = prepared(monkeypatch, N - 1)
    assert not np.array_equal(chosen[0, :, 0], AGES[:-1])
    for beside in (chosen[:, :, 0], held_out[:, :, 0]):
        assert np.all(beside == beside[0])
        assert set(beside[0]) <= set(AGES)


def test_data_sets_have_the_dtype_of_the_parameters(monkeypatch):
    params = jax.tree.map(lambda leaf: leaf.astype("float32"), PARAMS)
    rows, held_out = prepared(monkeypatch, N, params=params)
    assert (rows.dtype, held_out.dtype) == ("float32", "float32")
    np.testing.assert_allclose(rows[:, :, 0], np.tile(AGES, (4, 1)), rtol=1e-6)


def test_what_a_model_has_read_does_not_make_it_another():
    known, _ = LINE.read(pd.DataFrame({"pay": [1.0, 2.0], "age": [0.0, 3.0]}))
    assert _study._kind(known) == _study._kind(dataclasses.replace(LINE, prior="weak"))
    other = jg.Mixture(F.LinearRegression(on=["age"], intercept=False), 1)
    gated = jg.Mixture(LINE.family, 1, gates=["age"])
    assert len({_study._kind(one) for one in (LINE, other, gated)}) == 3


REFUSED = [
    (None, r"^given: Mixture\(.* draws rows beside columns that are given.*pass a table"),
    (pd.DataFrame({"sex": [1.0]}), "^given: has no column 'age', found 'sex'"),
    (PEOPLE.iloc[:0], "^given: needs at least one row, found none"),
    (np.zeros((4, 3)), r"^given: .* columns? 'age', 'pay' in this order, found 3|\(4, 3\)"),
    (
        PEOPLE.where(PEOPLE > 0),
        "^given: .*of which none may be missing, found nan at row 0, column 'age'; drop or impute",
    ),
    (PEOPLE.astype(str), "^given: column 'age' needs numbers, found '0.0' at row 0"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_what_is_given_is_refused_in_a_sentence(given, message):
    with pytest.raises((ValueError, TypeError), match=message):
        made(given=given)
    model = dataclasses.replace(LINE, prior=LINES)
    with pytest.raises((ValueError, TypeError), match=message):
        jg.calibrate(model, n=N, key=KEY, given=given, progress=False)


def test_what_nothing_is_given_of_refuses_it():
    truth, params = jg.report.truth("one")
    with pytest.raises(ValueError, match=r"given: Mixture\(.* draws all columns; leave it out"):
        made(truth, params)
    prior = jg.ConjugatePrior(mean=[0.0], mean_precision=1.0, dof=3.0, scale=[[1.0]])
    with pytest.raises(ValueError, match=r"given: .*leave it out"):
        jg.calibrate(jg.Mixture(jg.Gaussian(), 1, prior=prior), n=N, key=KEY, given=PEOPLE)
    with pytest.raises(ValueError, match="has no prior as numbers to draw from"):
        jg.calibrate(dataclasses.replace(LINE, prior="weak"), n=N, key=KEY, given=PEOPLE)


def test_a_repeat_is_absent_as_a_whole():
    model = jg.Mixture(F.Repeated(F.LinearRegression(on=["a", "b"], response="y"), 2), 1)
    params = model.params(coefficients=[[0.0, 1.0, 2.0]], variances=[1.0])
    table = pd.DataFrame({"a[0]": [1.0, 2], "b[0]": [0.0, 1], "a[1]": [3.0, 1], "b[1]": [1.0, 1]})
    table.loc[0, ["a[1]", "b[1]"]] = np.nan
    drawn = np.asarray(model.sample(params, KEY, 2, given=table))
    np.testing.assert_array_equal(np.isnan(drawn), [[False] * 3 + [True] * 3, [False] * 6])
    table.loc[1, "b[1]"] = np.nan
    with pytest.raises(ValueError, match=r"^given: .*found nan at row 1, column 'b\[1\]'"):
        model.sample(params, KEY, 2, given=table)


@pytest.mark.turn
def test_one_line_has_the_coverage_of_normal_theory():
    found = made()
    coverage = found.coverage.loc["em"]
    left = N - 2
    for level in (0.5, 0.89, 0.95):
        z = stats.norm.ppf((1 + level) / 2)
        exact = 2 * stats.t(left).cdf(z * np.sqrt(left / N)) - 1
        for name in ("coefficients[0, intercept]", "coefficients[0, age]"):
            share = coverage.loc[(name, level), "coverage"]
            assert abs(share - exact) < SIGMAS * np.sqrt(exact * (1 - exact) / SETS)
    # The errors of least squares at these ages and no others.
    design = np.column_stack([np.ones(N), AGES])
    spread = np.sqrt(0.25 * np.linalg.inv(design.T @ design)[1, 1])
    row = found.table.loc[("em", "coefficients[0, age]")]
    assert row["spread"] == pytest.approx(spread, rel=SIGMAS / np.sqrt(2 * SETS))
    assert found.settings["n_given"] == N
    assert "given = ..." in found.settings["code"]
    assert "    given=given,\n" in found.settings["code"]


@pytest.mark.turn
def test_a_grid_of_numbers_of_rows_shares_its_programs(compilations):
    made(n=38, n_datasets=4)
    with compilations:
        found = [made(n=n, n_datasets=4) for n in (37, 39, 40)]
    assert compilations.count == 0
    assert len({study.table.loc["em"].iloc[0]["spread"] for study in found}) == 3


def _wide(n=60):
    """Covariates of groups of up to three repeats, beside a word that nothing looks at."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({f"z[{r}]": rng.normal(size=n) for r in range(3)})
    table.loc[::4, "z[2]"] = np.nan
    return table.assign(age=np.where(rng.random(n) < 0.5, "old", "young"))


STARS = jg.rows(np.zeros((60, 2)), noise=np.linspace([0.1, 0.5], [1.0, 0.2], 60))
STUDIED = {
    "answers": (
        lambda: jg.Mixture(F.LogisticRegression(on=["z[0]"], response="y"), 1, prior="weak"),
        {"coefficients": [[0.5, 1.0]]},
        _wide(),
        ["em", "em-sandwich", "bootstrap", "bootstrap-parametric", "laplace"],
    ),
    "gates": (
        lambda: jg.Mixture(F.Poisson(), 2, prior="weak", gates=["z[0]"]),
        {"gates": [[0.5, 1.5]], "rates": [[1.0], [9.0]]},
        _wide(),
        ["em", "bootstrap-parametric", "laplace"],
    ),
    "repeats": (
        lambda: jg.Mixture(
            F.Repeated(F.LinearRegression(on=["z"], response="y"), 3), 2, prior="weak"
        ),
        {"coefficients": [[0.0, 2.0], [3.0, -1.0]], "variances": [0.25, 0.25]},
        _wide().drop(columns="age"),
        ["em", "bootstrap-parametric", "laplace", "gibbs"],
    ),
    "noise": (
        lambda: jg.Mixture(jg.Gaussian(), 1).read(STARS)[0],
        {"means": [[1.0, 2.0]], "covariances": [[[2.0, 0.5], [0.5, 1.0]]]},
        STARS,
        ["em", "bootstrap-parametric"],
    ),
}


@pytest.mark.turn
@pytest.mark.parametrize("name", STUDIED)
def test_families_that_are_given_something_are_studied(name):
    make, own, given, methods = STUDIED[name]
    truth = make()
    settings = {"methods": methods, "n_draws": 100, "n_replicates": 60, "n_warmup": 50}
    found = made(truth, truth.params(**own), n=60, n_datasets=60, n_init=2, given=given, **settings)
    ends = found.failures.drop(columns=["missed", "elsewhere"])
    assert (ends.sum(axis=1) == 60).all()
    assert (found.failures["used"] >= 55).all()
    site = next(iter(own))
    groups = found.groups.xs(site, level="group")
    off = np.abs(groups["coverage_0.95"] - 0.95) / np.maximum(groups["error_0.95"], 0.012)
    assert np.all(off < SIGMAS), groups
    assert found.settings["contains_truth"]


@pytest.mark.turn
def test_a_model_without_the_truth_is_compared_at_the_same_covariates():
    """One line where there are two is their average; by place, and chosen by BIC."""
    lines = lambda k: jg.Mixture(F.LinearRegression(on=[0], response=1), k, prior="weak")
    truth = lines(2)
    own = {"coefficients": [[0.0, 2.0], [3.0, -1.0]], "variances": [0.04, 0.04]}
    params = truth.params(weights=[0.4, 0.6], **own)
    given = np.column_stack([AGES, np.full(N, np.nan)])
    models = [lines(1), lines(2)]
    options = {"given": given, "n_datasets": 30, "n_init": 4, "select": models}
    found = made(truth, params, n=40, model=lines(1), **options)
    assert not found.settings["contains_truth"]
    average = found.table.loc["em"].loc[["coefficients[0, intercept]", "coefficients[0, 0]"]]
    np.testing.assert_allclose(average["truth"], [1.8, 0.2], atol=0.06)
    assert found.selection["picked"].unstack("model").loc["bic", repr(models[1])] > 0.8


@pytest.mark.turn
def test_gates_have_quantities_that_no_renaming_changes():
    prior = {"gates": dist.Normal(0, 1.5), "rates": dist.Gamma(3.0, 0.5)}
    rows = pd.DataFrame({"visits": np.arange(8.0), "z": np.linspace(-1, 2, 8)})
    model = jg.Mixture(F.Poisson(), 2, prior=prior, gates=["z"]).resolve(rows)
    params = model.params(gates=[[0.5, 1.5]], rates=[[1.0], [9.0]])
    params = model.from_sites(model.sites(params))
    wanted = [q for q in _study.quantities(model, params, ("x0", "z")) if q.invariant]
    assert {q.label for q in wanted} == {"average rates[x0]", "shared component"}
    renamed = model.permute(params, jnp.array([1, 0]))
    here, there = (_study.values(tuple(wanted), model, point) for point in (params, renamed))
    np.testing.assert_allclose(here, there, rtol=1e-10)
    share = 1 / (1 + np.exp(-0.5 - 1.5 * 0.5))
    assert here[0] == pytest.approx(share * 1 + (1 - share) * 9)
