"""Columns of several kinds: a product is its parts, in every engine and under every name."""

import dataclasses
import doctest
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
from helpers import soft_labels, tree_allclose
from numpyro.infer.util import log_density
from scipy import stats
from scipy.special import logsumexp

import jaxgmm as jg

KEY = jax.random.key(0)
F = jg.families
N = 150


def _table():
    """Two groups of people: two numbers, two answers, a word and a count, other columns between."""
    rng = np.random.default_rng(4)
    old = rng.random(N) < 0.4
    colours = np.array(["red", "green", "blue"])
    which = np.where(old, rng.choice(3, N, p=[0.7, 0.2, 0.1]), rng.choice(3, N, p=[0.2, 0.2, 0.6]))
    return pd.DataFrame(
        {
            "visits": rng.poisson(np.where(old, 2, 5)),
            "name": [f"person {i}" for i in range(N)],
            "colour": colours[which],
            "income": np.where(old, rng.normal(50, 8, N), rng.normal(35, 6, N)),
            "height": np.where(old, rng.normal(170, 9, N), rng.normal(174, 7, N)),
            "q2": np.where(rng.random(N) < np.where(old, 0.8, 0.3), "yes", "no"),
            "q1": rng.random(N) < np.where(old, 0.7, 0.2),
        },
        index=[f"row {i}" for i in range(N)],
    )


TABLE = _table()
FAMILY = F.Product(
    {
        ("income", "height"): jg.Gaussian("full"),
        ("q1", "q2"): F.Bernoulli(),
        "colour": F.Categorical(levels=3),
        "visits": F.Poisson(),
    }
)
NAMES = ("income", "height", "q1", "q2", "colour", "visits")
CODES = np.column_stack(
    [
        TABLE["income"],
        TABLE["height"],
        TABLE["q1"],
        TABLE["q2"] == "yes",
        TABLE["colour"].map({"blue": 0, "green": 1, "red": 2}),
        TABLE["visits"],
    ]
).astype(float)
HOLES = TABLE.copy()
HOLES.loc[HOLES.index[::7], "income"] = np.nan
HOLES.loc[HOLES.index[::11], "height"] = np.nan


def _reference_em(x, responsibilities, weight, steps):
    """Mixed columns by EM in NumPy, written apart; NaN in the two numbers is missing at random."""
    numbers, answers = x[:, :2], x[:, 2:4]
    words, visits = np.eye(3)[x[:, 4].astype(int)], x[:, 5]
    k = responsibilities.shape[1]
    filled = np.where(np.isnan(numbers), np.nanmean(numbers, axis=0), numbers)
    # At the start what is missing is as in all the data.
    scale = np.nanvar(numbers, axis=0)
    spread = np.array([np.diag(np.where(np.isnan(row), scale, 0)) for row in numbers])
    expected, extra = np.stack([filled] * k, 1), np.stack([spread] * k, 1)
    for _ in range(steps):
        r = responsibilities * weight[:, None]
        counts = r.sum(0)
        means = np.einsum("nk,nkd->kd", r, expected) / counts[:, None]
        apart = expected - means
        covariances = np.einsum("nk,nki,nkj->kij", r, apart, apart)
        covariances = (covariances + np.einsum("nk,nkij->kij", r, extra)) / counts[:, None, None]
        own = {
            "weights": counts / counts.sum(),
            "income:height.means": means,
            "income:height.covariances": covariances,
            "q1:q2.probs": r.T @ answers / counts[:, None],
            "colour.probs": (r.T @ words / counts[:, None])[:, None],
            "visits.rates": (r.T @ visits / counts)[:, None],
        }
        logits = np.zeros((len(x), k))
        for j in range(k):
            logits[:, j] = np.log(own["weights"][j])
            logits[:, j] += stats.bernoulli.logpmf(answers, own["q1:q2.probs"][j]).sum(1)
            logits[:, j] += np.log(words @ own["colour.probs"][j, 0])
            logits[:, j] += stats.poisson.logpmf(visits, own["visits.rates"][j, 0])
            for i, row in enumerate(numbers):
                there = ~np.isnan(row)
                expected[i, j], extra[i, j] = np.where(there, row, means[j]), 0
                if there.all():
                    logits[i, j] += stats.multivariate_normal.logpdf(row, means[j], covariances[j])
                elif there.any():
                    (o,), (m,) = np.flatnonzero(there), np.flatnonzero(~there)
                    variance, shared = covariances[j][o, o], covariances[j][m, o]
                    logits[i, j] += stats.norm.logpdf(row[o], means[j, o], np.sqrt(variance))
                    expected[i, j, m] += shared / variance * (row[o] - means[j, o])
                    extra[i, j, m, m] = covariances[j][m, m] - shared**2 / variance
                else:
                    extra[i, j] = covariances[j]
        total = logsumexp(logits, axis=1)
        responsibilities = np.exp(logits - total[:, None])
    return own, weight @ total


@pytest.mark.parametrize(
    "table", [TABLE, pytest.param(HOLES, marks=pytest.mark.slow)], ids=["whole", "holes"]
)
def test_em_is_that_of_a_reference_in_numpy(table):
    x = CODES.copy()
    x[:, :2] = table[["income", "height"]]
    start, weight, steps = soft_labels(N, 2, 3), np.arange(N) % 3 + 0.5, 12
    model = jg.Mixture(FAMILY, 2)
    fit = jg.fit(model, table, start=start, sample_weight=weight, max_iter=steps - 1, tol=0.0)
    own, log_likelihood = _reference_em(x, start, weight, steps)
    assert fit.feature_names == NAMES
    assert fit.n_iter == steps - 1
    if table is TABLE:
        np.testing.assert_allclose(fit.log_likelihood, log_likelihood, rtol=1e-8)
        found = fit.model.sites(fit.params)
        for name, wanted in own.items():
            np.testing.assert_allclose(found[name], wanted, rtol=1e-8, err_msg=name)
        return
    # From another start in the holes, to the same end.
    fit = jg.fit(model, table, start=start, sample_weight=weight, max_iter=5000, tol=1e-14)
    own, log_likelihood = _reference_em(x, start, weight, 150)
    np.testing.assert_allclose(fit.log_likelihood, log_likelihood, rtol=1e-8)
    found = fit.model.sites(fit.params)
    for name, wanted in own.items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-6, err_msg=name)


ALONE = {
    "gaussian": (jg.Gaussian("VEV"), CODES[:, :2]),
    "bernoulli": (F.Bernoulli(), CODES[:, 2:4]),
    "poisson": (F.Poisson(), CODES[:, 5:]),
    "gamma": (F.Gamma(), CODES[:, :1]),
}


@pytest.mark.turn
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "gamma")) for name in ALONE]
)
def test_a_product_of_one_part_is_that_part(name):
    family, x = ALONE[name]
    columns = tuple(f"c{j}" for j in range(x.shape[1]))
    start = soft_labels(N, 2, 1)
    ours, theirs = (
        jg.fit(jg.Mixture(f, 2, prior="weak"), x, start=start, max_iter=30)
        for f in (F.Product({columns: family}), family)
    )
    assert ours.n_iter == theirs.n_iter
    assert ours.status == theirs.status
    np.testing.assert_allclose(
        (ours.log_joint, ours.log_prior, ours.bic),
        (theirs.log_joint, theirs.log_prior, theirs.bic),
        rtol=1e-10,
    )
    own = ours.model.family.each[0].own(ours.model.sites(ours.params))
    tree_allclose(own, theirs.model.family.sites(theirs.params), 1e-10)
    rows = ours.model.log_prob(ours.params, x), theirs.model.log_prob(theirs.params, x)
    np.testing.assert_allclose(*rows, rtol=1e-10)
    # Several blocks, of which statistics are pooled.
    many = jnp.tile(jnp.asarray(x), (200, 1))
    e_step = jax.jit(lambda model, params: model.e_step(params, many))
    working = (fit.model.standardise(jnp.asarray(x)) for fit in (ours, theirs))
    one, other = (
        e_step(model, model.to_working(fit.params))
        for model, fit in zip(working, (ours, theirs), strict=True)
    )
    tree_allclose((one[0].parts[0], one[1]), other, 1e-10)


# -- one density ---------------------------------------------------------------------------------

PRIOR = {
    "weights": dist.Dirichlet(jnp.array([1.5, 2.0])),
    "income:height": jg.ConjugatePrior(
        mean=[40.0, 170.0], mean_precision=0.1, dof=5.0, scale=100 * np.eye(2)
    ),
    "q1:q2.probs": dist.Beta(2.0, 1.5),
    "colour.probs": dist.Dirichlet(jnp.full(3, 1.5)),
    "visits.rates": dist.Gamma(2.0, 0.5),
}


@functools.cache
def _fit(prior="weak"):
    prior = PRIOR if prior == "written" else prior
    return jg.fit(jg.Mixture(FAMILY, 2, prior=prior), TABLE, key=KEY, n_init=4)


@pytest.mark.turn
@pytest.mark.parametrize("prior", ["weak", pytest.param("written", marks=pytest.mark.slow)])
def test_the_program_has_the_density_of_em(prior):
    fit = _fit(prior)
    x, sites = jnp.asarray(CODES), fit.model.sites(fit.params)
    program = log_density(fit.model.numpyro_model, (x,), {}, sites)[0]
    np.testing.assert_allclose(fit.log_joint, program, rtol=1e-10)
    working = fit.model.standardise(x)
    near = working.to_working(fit.params)
    np.testing.assert_allclose(working.log_joint(near, x), program, rtol=1e-10)
    tree_allclose(working.to_user(near), fit.params, 1e-12)
    slope = jax.grad(lambda step: working.log_joint(working.retract(near, step), x))
    step = jnp.zeros(fit.n_parameters)
    assert jnp.max(jnp.abs(slope(step))) < 1e-3
    assert fit.n_parameters == 1 + 2 * (5 + 2 + 2 + 1)


@pytest.mark.slow
def test_holes_are_filled_given_all_columns():
    model = jg.Mixture(FAMILY, 2, prior="weak").resolve(HOLES)
    params, rows = _fit().params, np.asarray(model.read(HOLES)[1])
    filled = np.asarray(model.impute(params, HOLES))
    gone = np.isnan(rows)
    assert gone.any(axis=0).tolist() == [True, True, False, False, False, False]
    np.testing.assert_array_equal(filled[~gone], rows[~gone])
    i = int(np.flatnonzero(gone[:, 0] & ~gone[:, 1])[0])
    labels = np.asarray(model.responsibilities(params, HOLES))[i]
    own = params.own
    means, covariances = own["income:height.means"], own["income:height.covariances"]
    slope = covariances[:, 0, 1] / covariances[:, 1, 1]
    expected = labels @ (means[:, 0] + slope * (rows[i, 1] - means[:, 1]))
    np.testing.assert_allclose(filled[i, 0], expected, rtol=1e-10)
    drawn = np.asarray(model.impute(params, HOLES, KEY))
    assert np.all(np.isfinite(drawn))
    assert not np.allclose(drawn[gone], filled[gone])


# -- tables ----------------------------------------------------------------------------------------


def _polars():
    polars = pytest.importorskip("polars")
    words = TABLE.astype({"q1": float}).reset_index(drop=True)
    return polars.DataFrame({name: words[name].to_list() for name in words})


def _arrow():
    words = TABLE.reset_index(drop=True)
    return pytest.importorskip("pyarrow").table({name: words[name].tolist() for name in words})


def _structured():
    return TABLE.drop(columns="name").to_records(index=False, column_dtypes={"q2": "U3"})


TABLES = {
    "pandas": lambda: TABLE,
    "polars": _polars,
    "arrow": _arrow,
    "structured": _structured,
    "numbers": lambda: CODES,
}


@pytest.mark.parametrize("library", TABLES)
def test_tables_of_every_library_are_the_same_rows(library):
    model, read = jg.Mixture(FAMILY, 2).read(TABLES[library]())
    np.testing.assert_array_equal(np.asarray(read), CODES)
    assert read.columns == NAMES
    # What is read already is not read again.
    assert model.read(read) == (model, read)
    if library != "numbers":
        words = model.table(CODES)
        assert list(words.columns) == list(NAMES)
        for name in ("q2", "colour"):
            assert words[name].tolist() == TABLE[name].tolist()


def test_a_categorical_column_has_its_own_order():
    order = ["red", "green", "blue"]
    table = TABLE.assign(colour=pd.Categorical(TABLE["colour"], order))
    model, read = jg.Mixture(FAMILY, 2).read(table)
    assert model.coords(NAMES)["colour.level"] == order
    np.testing.assert_array_equal(np.asarray(read)[:, 4], 2 - CODES[:, 4])


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (TABLE.drop(columns="q1"), "x: has no column 'q1', found 'visits', 'name'"),
        (TABLE.assign(q2="yes"), r"x: column 'q2' has 1 categories \('yes'\), and its family 2"),
        (TABLE.assign(income="much"), "x: column 'income' needs numbers, found"),
        (
            TABLE.assign(visits=-1),
            "x: Poisson.* needs counts 0, 1, 2, ..., found -1 at row 0, column 'visits'",
        ),
        (TABLE.assign(height=1.0), "x: column 'height' is constant"),
        (CODES[:, :3], r"x: needs a table, or 6 column\(s\) in the order 'income', 'height'"),
    ],
    ids=range(6),
)
def test_what_is_refused_is_called_by_its_name(table, words):
    with pytest.raises((ValueError, TypeError), match=words):
        jg.fit(jg.Mixture(FAMILY, 2), table, key=KEY)


@pytest.mark.turn
def test_new_rows_have_the_categories_of_the_fit():
    fit = _fit()
    labels = fit.model.predict(fit.params, TABLE)
    np.testing.assert_array_equal(labels, fit.model.predict(fit.params, CODES))
    # One row has one word of three, and is read all the same.
    assert fit.model.predict(fit.params, TABLE.iloc[[3]]).tolist() == [labels[3]]
    with pytest.raises(ValueError, match="x: column 'colour' has 'pink' at row 0, which is none"):
        fit.model.predict(fit.params, TABLE.iloc[[3]].assign(colour="pink"))
    drawn = fit.model.table(fit.model.sample(fit.params, KEY, 200))
    assert set(drawn["colour"]) == {"red", "green", "blue"}


@pytest.mark.parametrize(
    ("parts", "kind", "words"),
    [
        ({}, ValueError, "parts: needs a family for each of some columns"),
        ({("a", "b"): F.Poisson(), "b": F.Poisson()}, ValueError, "'b' occurs twice"),
        ({"a": "poisson"}, TypeError, "parts: needs families such as jaxgmm.Gaussian"),
        ({1: F.Poisson()}, TypeError, "parts: columns are called by text, found 1"),
    ],
)
def test_doors_of_a_product(parts, kind, words):
    with pytest.raises(kind, match=words):
        F.Product(parts)


def test_doors_of_its_prior_and_parameters():
    prior = lambda **change: jg.Mixture(FAMILY, 2, prior={**PRIOR, **change})
    with pytest.raises(ValueError, match=r"prior: 'visit.rates' is of none of the parts"):
        prior(**{"visit.rates": dist.Gamma(1.0, 1.0)})
    with pytest.raises(
        TypeError, match=r"prior: 'visits' needs a ConjugatePrior, or dist.*'visits"
    ):
        prior(visits=dist.Gamma(1.0, 1.0))
    one = {name: given for name, given in PRIOR.items() if name != "visits.rates"}
    with pytest.raises(ValueError, match=r"prior of 'visits': needs a distribution for .*'rates'"):
        jg.fit(jg.Mixture(FAMILY, 2, prior=one), TABLE, key=KEY)
    model = jg.Mixture(F.Product({"a": jg.Gaussian(), "b": F.Poisson()}), 1)
    own = {"a.means": [[0.0]], "a.covariances": [[[1.0]]], "b.rates": [[1.0]]}
    assert model.params(**own).own["b.rates"].shape == (1, 1)
    with pytest.raises(ValueError, match=r"b\.rates: needs values on"):
        model.params(**{**own, "b.rates": [[-1.0]]})
    with pytest.raises(ValueError, match=r"b\.rates: needs 1 column\(s\), found 2"):
        model.params(**{**own, "b.rates": [[1.0, 2.0]]})
    with pytest.raises(TypeError, match=r"c\.rates: belongs to no part"):
        model.params(**own, **{"c.rates": [[1.0]]})
    with pytest.raises(ValueError, match=r"x: needs the columns 'a', 'b' in this order, found 'b'"):
        jg.fit(model, jg.stream(pd.DataFrame({"b": [1.0, 2.0], "a": [0.0, 1.0]})), key=KEY)


@pytest.mark.turn
def test_code_and_files_make_it_again(tmp_path):
    fit = _fit()
    model = jg.Mixture(FAMILY, 2, prior=PRIOR).resolve(TABLE)
    again = eval(model.describe().code(2), {"jg": jg, "dist": dist, "np": np})
    tree_allclose(again.resolve(TABLE).prior, model.prior, 1e-12)
    lines = model.describe().formulas
    assert any("income:height" in line and "ConjugatePrior" in line for line in lines)
    kept = jg.load(fit.save(tmp_path / "fit.npz"))
    tree_allclose((kept.model, kept.params), (fit.model, fit.params), 0.0)
    assert kept.model.table(CODES[:1]).to_dict() == fit.model.table(CODES[:1]).to_dict()


@pytest.mark.turn
def test_the_page_on_columns_by_name():
    page = pathlib.Path(__file__).parents[1] / "docs" / "columns.md"
    found = doctest.testfile(str(page), module_relative=False)
    assert found.attempted
    assert not found.failed


@pytest.mark.slow
def test_a_stream_of_a_product():
    """Columns of numbers, in blocks: the end is that of the rows in memory."""
    table = pd.DataFrame(CODES, columns=list(NAMES)).assign(other="word")
    pieces = [table.iloc[:70], table.iloc[70:]]
    rows = jg.stream([piece.drop(columns="other") for piece in pieces], block_rows=40)
    model = jg.Mixture(FAMILY, 2, prior="weak")
    fit = jg.fit(model, rows, key=KEY, n_init=2)
    assert fit.converged
    again = jg.fit(model, table, start=fit.params)
    np.testing.assert_allclose(again.log_joint, fit.log_joint, atol=1e-3)
    labels = np.concatenate(list(rows.map(lambda x: fit.model.predict(fit.params, x))))
    np.testing.assert_array_equal(labels, fit.model.predict(fit.params, table))


# -- the whole way -----------------------------------------------------------------------------


@pytest.mark.slow
def test_every_engine_and_its_pictures(tmp_path):
    fit = _fit()
    assert fit.converged
    errors = jg.standard_errors(fit, TABLE)
    assert errors.definite
    boot = jg.bootstrap(fit, TABLE, key=jax.random.key(1), n_replicates=60)
    for site in ("income:height.means", "q1:q2.probs", "visits.rates"):
        ratio = boot.standard_errors[site] / errors.standard_errors[site]
        assert 0.4 < np.median(ratio) < 2.5
    heights = {}
    for method in ("gibbs", "nuts", "laplace", "vb", "svi", "smc"):
        post = jg.sample(
            fit.model, TABLE, key=jax.random.key(2), start=fit, method=method, n_draws=300,
            progress=False,
        )  # fmt: skip
        table = post.summary()
        assert np.all(np.isfinite(table["mean"].to_numpy(float)))
        assert "colour.probs[0, colour, blue]" in table.index
        heights[method] = float(np.average(post.log_joint, weights=None))
        if method == "gibbs":
            draws = post.to_arviz().posterior
            assert draws["colour.probs"].coords["colour.level"].values.tolist() == [
                "blue", "green", "red",
            ]  # fmt: skip
            assert draws["income:height.means"].coords["income:height.feature"].values.tolist() == [
                "income", "height",
            ]  # fmt: skip
            evidence = jg.evidence(post, key=jax.random.key(3))
            verdict = jg.compare(fit, post)
            assert verdict.checks.loc["Newton decrement (sd)", "verdict"] == "ok"
            assert verdict.save(tmp_path / method).exists()
        if method == "smc":
            assert abs(post.evidence.log_evidence - evidence.log_evidence) < 1.0
    for method in ("nuts", "smc"):
        assert abs(heights[method] - heights["gibbs"]) < 1.0
    choice = jg.select(
        [jg.Mixture(FAMILY, k) for k in (1, 2, 3)], TABLE, key=KEY, n_init=8, progress=False
    )
    assert choice.best.model.n_components == 2


@pytest.mark.slow
def test_gibbs_imputes_as_nuts_integrates():
    model = jg.Mixture(FAMILY, 2, prior="weak")
    fit = jg.fit(model, HOLES, key=KEY, n_init=4)
    means = {}
    for method in ("gibbs", "nuts"):
        post = jg.sample(
            fit.model, HOLES, key=KEY, start=fit, method=method, n_draws=1000, progress=False
        )
        means[method] = post.draws["income:height.means"].mean(axis=(0, 1))
        filled = post.thin(5).impute(KEY)
        assert np.all(np.isfinite(filled))
    np.testing.assert_allclose(means["gibbs"], means["nuts"], atol=0.4)


@pytest.mark.slow
def test_float32():
    x = CODES.astype(np.float32)
    fit = jg.fit(jg.Mixture(FAMILY, 2, prior="weak"), x, start=soft_labels(N, 2, 3))
    assert all(site.dtype == np.float32 for site in fit.params.own.values())
    np.testing.assert_allclose(fit.log_joint, _fit().log_joint, atol=0.5)
    assert dataclasses.replace(fit.model.family, categories=()).names == FAMILY.names
