"""Regressions: published numbers, the density written again, and rows beside covariates."""

import doctest
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
from helpers import tree_allclose
from numpyro.infer.util import log_density
from scipy import optimize, stats
from scipy.special import logsumexp

import jaxgmm as jg

KEY = jax.random.key(0)
F = jg.families
FOLDER = pathlib.Path(__file__).parent / "data"
LINES = pd.read_csv(FOLDER / "regression_mix.csv")[["x", "y"]]
REFERENCE = json.loads((FOLDER / "em_extra.json").read_text())["regmixEM"]
_rng = np.random.default_rng(3)
_GROUP = _rng.random(90) < 0.4
_Z = _rng.normal([2.0, -5.0], [1.0, 3.0], (90, 2))
_Y = np.where(_GROUP, 1 + _Z @ [2.0, -0.3], 6 - _Z @ [0.5, 0.4]) + 0.4 * _rng.normal(size=90)
# The response stands between its covariates.
X = np.column_stack([_Z[:, 0], _Y, _Z[:, 1]])
PLANES = F.LinearRegression(on=[0, 2])
PRIOR = jg.ConjugatePrior(
    concentration=1.5,
    mean=[1.0, 0.2, 0.1],
    mean_precision=[[0.5, 0.1, 0.0], [0.1, 0.4, 0.0], [0.0, 0.0, 0.3]],
    dof=4.0,
    scale=0.7,
)
WRITTEN = {
    "weights": dist.Dirichlet(jnp.array([1.5, 2.0])),
    "coefficients": dist.MultivariateNormal(jnp.zeros(3), 9 * jnp.eye(3) + 1),
    "variances": dist.InverseGamma(2.0, 1.0),
}
PRIORS = {"none": None, "weak": "weak", "conjugate": PRIOR, "sites": WRITTEN}


@functools.cache
def fitted(prior="none", tol=1e-14, k=2):
    model = jg.Mixture(PLANES, k, prior=PRIORS[prior])
    return jg.fit(model, X, key=KEY, n_init=8, tol=tol)


def test_published_mixture_of_lines():
    model = jg.Mixture(F.LinearRegression(on=["x"]), 2)
    fit = jg.fit(model, LINES, key=KEY, n_init=32, tol=1e-14)
    assert fit.log_likelihood == pytest.approx(REFERENCE["loglik"], rel=1e-9)
    np.testing.assert_array_less(-1e-6, fit.restarts.log_joint - fit.log_joint)
    order = jnp.argsort(-fit.params.weights)
    own = fit.model.permute(fit.params, order)
    np.testing.assert_allclose(own.coefficients, np.transpose(REFERENCE["beta"]), rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(own.variances), REFERENCE["sigma"], rtol=1e-6)
    assert fit.n_parameters == 7
    errors = jg.standard_errors(fit, LINES)
    assert errors.definite
    assert "coefficients[0, intercept]" in errors.table.index
    assert "coefficients[1, x]" in errors.table.index


def test_height_of_a_direct_maximisation():
    fit = fitted()
    assert fit.converged

    def height(v):
        shares = np.exp([v[0], 0.0])
        terms = [
            np.log(share / shares.sum())
            + stats.norm(b0 + X[:, 0] * b1 + X[:, 2] * b2, np.exp(log_sd)).logpdf(X[:, 1])
            for share, (b0, b1, b2, log_sd) in zip(shares, np.split(v[1:], 2), strict=True)
        ]
        return -logsumexp(terms, axis=0).sum()

    params = fit.params
    rows = np.column_stack([params.coefficients, 0.5 * np.log(params.variances)])
    here = np.append(np.log(params.weights[0] / params.weights[1]), rows)
    assert height(here) == pytest.approx(-fit.log_likelihood, rel=1e-10)
    found = optimize.minimize(height, here + 0.02, method="BFGS", options={"gtol": 1e-7})
    np.testing.assert_allclose(found.x, here, atol=1e-5)


@pytest.mark.parametrize("prior", ["conjugate", pytest.param("weak", marks=pytest.mark.turn)])
def test_a_conjugate_prior_is_normal_and_inverse_gamma(prior):
    fit = fitted(prior)
    model, params = fit.model, fit.params
    b, var = params.coefficients, params.variances
    assert isinstance(model, jg.Mixture)
    p = model.prior
    spread = jnp.linalg.inv(p.mean_precision) * var[:, None, None]
    own = dist.Dirichlet(p.concentration).log_prob(params.weights)
    own += jnp.sum(dist.MultivariateNormal(p.mean, spread).log_prob(b))
    own += jnp.sum(dist.InverseGamma(p.dof / 2, p.scale / 2).log_prob(var))
    np.testing.assert_allclose(fit.log_prior, own, rtol=1e-10, atol=1e-10)


@pytest.mark.double
@pytest.mark.parametrize("prior", ["none", "weak"])
def test_lines_far_from_the_origin_in_float32(prior):
    offset, fit = 1e3, fitted(prior)
    factor, shift = np.array([2.0, 3.0, 0.5]), np.array([offset, -offset, offset])
    moved = (X * factor + shift).astype(np.float32)
    start = np.asarray(fit.model.responsibilities(fit.params, jnp.asarray(X))).astype(np.float32)
    there = jg.fit(jg.Mixture(PLANES, 2, prior=PRIORS[prior]), moved, start=start)
    assert there.params.coefficients.dtype == np.float32
    b = np.asarray(fit.params.coefficients)
    slopes = b[:, 1:] * 3 / factor[[0, 2]]
    first = 3 * b[:, 0] - offset - slopes @ shift[[0, 2]]
    np.testing.assert_allclose(there.params.coefficients[:, 1:], slopes, rtol=2e-2)
    np.testing.assert_allclose(there.params.coefficients[:, 0], first, rtol=2e-2)
    np.testing.assert_allclose(there.params.variances, 9 * fit.params.variances, rtol=2e-2)
    height = fit.log_likelihood - len(X) * np.log(3)
    assert there.log_likelihood == pytest.approx(height, rel=1e-2)


def test_whatever_lines_residuals_are_from_the_same_lines_follow():
    model = fitted("conjugate").model.standardise(jnp.asarray(X))
    x, near = jnp.asarray(X), model.to_working(fitted("conjugate").params)
    labels = model.responsibilities(near, x)
    moved = model.m_step(model.e_step(near, x)[0])
    tree_allclose(moved, model.m_step(model.statistics(labels, x)), 1e-9)


def test_lines_alone_are_normal():
    """Without covariates a regression is a Gaussian in one dimension."""
    x = jg.datasets.load("galaxies").x
    start = np.eye(3)[np.digitize(x[:, 0], [15, 24])]
    ours = jg.fit(jg.Mixture(F.LinearRegression(on=[]), 3), x, start=start, tol=1e-13)
    theirs = jg.fit(jg.Mixture(jg.Gaussian(), 3), x, start=start, tol=1e-13)
    assert ours.log_likelihood == pytest.approx(theirs.log_likelihood, rel=1e-10)
    assert ours.n_parameters == theirs.n_parameters


def test_one_plane_is_least_squares():
    for intercept in (True, False):
        model = jg.Mixture(F.LinearRegression(on=[0, 2], intercept=intercept), 1)
        fit = jg.fit(model, X, key=KEY, n_init=1)
        design = np.column_stack([np.ones(90)] * intercept + [X[:, [0, 2]]])
        wanted, (left,), *_ = np.linalg.lstsq(design, X[:, 1])
        np.testing.assert_allclose(fit.params.coefficients[0], wanted, rtol=1e-9)
        np.testing.assert_allclose(fit.params.variances[0], left / 90, rtol=1e-9)


@pytest.mark.slow
def test_samplers_agree():
    fit = fitted("conjugate")
    draw = functools.partial(
        jg.sample, fit.model, X, key=KEY, start=fit, n_chains=2, progress=False
    )
    drawn = {
        "gibbs": draw(method="gibbs", n_draws=1500),
        "nuts": draw(method="nuts", n_draws=400, n_warmup=200),
        "vb": draw(method="vb", n_draws=1000),
    }
    summary = {
        name: {site: (d.mean((0, 1)), d.std((0, 1))) for site, d in post.draws.items()}
        for name, post in drawn.items()
    }
    for site, (mean, sd) in summary["gibbs"].items():
        apart = lambda name, site=site, mean=mean, sd=sd: np.abs(summary[name][site][0] - mean) / sd
        assert np.max(apart("nuts")) < 0.3
        assert np.max(apart("vb")) < 0.5
        np.testing.assert_allclose(summary["nuts"][site][1], sd, rtol=0.25)
    free = jg.Mixture(PLANES, 2, prior=WRITTEN)
    with pytest.raises(ValueError, match="labelled rows do not update independent distributions"):
        jg.sample(free, X, key=KEY, method="gibbs")


@pytest.mark.turn
def test_what_is_given_stays():
    fit = fitted("weak")
    drawn = fit.model.sample(fit.params, KEY, 90, given=X)
    np.testing.assert_array_equal(drawn[:, [0, 2]], X[:, [0, 2]])
    assert not np.allclose(drawn[:, 1], X[:, 1])
    many = np.tile(X[:1], (4000, 1))
    drawn = np.asarray(fit.model.sample(fit.params, KEY, 4000, given=many))[:, 1]
    b, w = np.asarray(fit.params.coefficients), np.asarray(fit.params.weights)
    means = b @ [1, *X[0, [0, 2]]]
    mean = w @ means
    sd = np.sqrt(w @ (fit.params.variances + (means - mean) ** 2))
    assert drawn.mean() == pytest.approx(mean, abs=5 * sd / np.sqrt(4000))
    assert drawn.std() == pytest.approx(sd, rel=0.05)
    with pytest.raises(ValueError, match=r"^given: LinearRegression.* pass rows"):
        fit.model.sample(fit.params, KEY, 5)
    with pytest.raises(ValueError, match=r"^given: needs 5 rows, found 90"):
        fit.model.sample(fit.params, KEY, 5, given=X)
    with pytest.raises(ValueError, match=r"^given: .*leave it out"):
        jg.Mixture(jg.Gaussian(), 1).sample(None, KEY, 90, given=X)
    post = jg.sample(
        fit.model, X, key=KEY, method="gibbs", start=fit, n_chains=1, n_draws=4, progress=False
    )
    made = post.replicate(KEY)
    np.testing.assert_array_equal(made[0, 1][:, [0, 2]], X[:, [0, 2]])
    assert made[0, 0, 0, 1] != made[0, 1, 0, 1]


@pytest.mark.slow
def test_bootstrap_draws_responses():
    fit = fitted()
    errors = jg.standard_errors(fit, X).standard_errors
    boot = jg.bootstrap(fit, X, key=KEY, n_replicates=60, kind="parametric")
    assert boot.unmatched == 0
    np.testing.assert_allclose(
        boot.standard_errors["coefficients"], errors["coefficients"], rtol=0.4
    )
    copies = np.where(np.arange(90) < 45, 2.0, 0.0)
    half = jg.fit(fit.model, X, start=fit.params, sample_weight=copies)
    boot = jg.bootstrap(half, X, key=KEY, n_replicates=4, kind="parametric", sample_weight=copies)
    assert np.all(boot.status == jg.Status.CONVERGED)


@pytest.mark.turn
def test_lines_are_counted_by_one_program():
    """Absent components change nothing."""
    models = [jg.Mixture(PLANES, k) for k in (1, 2)]
    choice = jg.select(models, X, key=KEY, n_init=4, progress=False)
    for k, one in enumerate((1, 2)):
        wanted = fitted(k=one).log_likelihood
        assert choice.table["log_likelihood"].iloc[k] == pytest.approx(wanted, rel=1e-7)
    assert choice.best.model.n_components == 2


@pytest.mark.slow
def test_how_many_lines():
    test = jg.bootstrap_lrt(jg.Mixture(PLANES, 1), X, key=KEY, n_replicates=19, n_init=2)
    assert test.p_value == 0.05


def test_tables_and_doors():
    table = pd.DataFrame({"y": X[:, 1], "name": ["a"] * 90, "u": X[:, 0], "v": X[:, 2]})
    family = F.LinearRegression(on=["u", "v"], response="y")
    fit = jg.fit(jg.Mixture(family, 2), table, key=KEY, n_init=8, tol=1e-14)
    assert fit.log_likelihood == pytest.approx(fitted().log_likelihood, rel=1e-9)
    assert fit.feature_names == ("u", "v", "y")
    assert not fit.model.places  # rows of covariates are measured from no origin
    ages = pd.DataFrame({"v": [1.0, 2.0], "u": [3.0, 4.0]})
    drawn = fit.model.sample(fit.params, KEY, 2, given=ages)
    np.testing.assert_array_equal(drawn[:, :2], [[3, 1], [4, 2]])
    wrong = {
        "y' and 'name' beside|found 'y', 'name'": (F.LinearRegression(on=["u", "v"]), table),
        "x: has no column 'w'": (F.LinearRegression(on=["w"], response="y"), table),
        "x: has no column 'ages'": (F.LinearRegression(on=["ages"]), table),
        "choose them, or say response": (F.LinearRegression(on=[5]), X[:, :2]),
        r"found an array of shape \(90, 3\)": (F.LinearRegression(on=[0]), X),
        "linear in each other": (PLANES, X[:, [0, 1, 0]]),
        "one line goes through all rows": (F.LinearRegression(on=[0]), X[:, [0, 0]]),
    }
    for words, (one, x) in wrong.items():
        with pytest.raises(ValueError, match=words):
            jg.fit(jg.Mixture(one, 2), x, key=KEY)
    with pytest.raises(TypeError, match="on: needs a list"):
        F.LinearRegression(on="age")
    with pytest.raises(ValueError, match="occurs twice"):
        F.LinearRegression(on=["age", "age"])
    holes = np.where(np.arange(3) == 2, np.nan, X)
    with pytest.raises(ValueError, match="nan"):
        jg.fit(jg.Mixture(PLANES, 2), holes, key=KEY)
    bad = jg.ConjugatePrior(mean=[0.0], mean_precision=1.0, dof=3.0, scale=1.0)
    with pytest.raises(ValueError, match=r"mean needs shape \(3,\)"):
        jg.fit(jg.Mixture(PLANES, 2, prior=bad), X, key=KEY)


def test_lines_through_few_rows_are_spurious():
    x = X.copy()
    x[:3, 1] = 1 + x[:3, [0, 2]] @ [5.0, 5.0]
    start = np.eye(3)[np.where(np.arange(90) < 3, 0, 1 + _GROUP)]
    with pytest.raises(ValueError, match="a line went through its rows exactly"):
        jg.fit(jg.Mixture(PLANES, 3), x, start=start)
    assert jg.fit(jg.Mixture(PLANES, 3, prior="weak"), x, start=start).converged


@pytest.mark.turn
def test_lines_beside_other_columns():
    """A part of a product has its own covariates, in the order of the part."""
    table = pd.DataFrame({"y": X[:, 1], "u": X[:, 0], "v": X[:, 2], "n": _rng.poisson(3, 90)})
    parts = {("y", "u", "v"): F.LinearRegression(on=["u", "v"]), "n": F.Poisson()}
    fit = jg.fit(jg.Mixture(F.Product(parts), 2), table, key=KEY, n_init=4)
    assert fit.converged
    drawn = fit.model.sample(fit.params, KEY, 90, given=table)
    np.testing.assert_array_equal(drawn[:, 1:3], X[:, [0, 2]])
    assert not np.allclose(drawn[:, 0], X[:, 1])
    assert not np.allclose(drawn[:, 3], table["n"])
    own = fit.params.own
    lines = jg.Mixture(F.LinearRegression(on=[1, 2]), 2).params(
        weights=fit.params.weights,
        coefficients=own["y:v.coefficients"],
        variances=own["y:v.variances"],
    )
    counts = jg.Mixture(F.Poisson(), 2).params(rates=own["n.rates"])
    apart = jg.Mixture(F.LinearRegression(on=[1, 2]), 2).family
    x = table.to_numpy(float)
    total = apart.log_density(lines, apart.features(jnp.asarray(x[:, :3])))
    total += F.Poisson().log_density(counts, F.Poisson().features(jnp.asarray(x[:, 3:])))
    wanted = logsumexp(total + np.log(fit.params.weights)[:, None], axis=0)
    np.testing.assert_allclose(fit.model.log_prob(fit.params, x), wanted, rtol=1e-10)
    assert "y:v.coefficients[0, u]" in jg.standard_errors(fit, table).table.index


@pytest.mark.turn
def test_lines_beside_other_columns_in_blocks(monkeypatch):
    """Sums of a block are seen from lines of their own."""
    table = pd.DataFrame(X, columns=["u", "y", "v"])
    parts = {("y", "u"): F.LinearRegression(on=["u"]), "v": jg.Gaussian("diag")}
    fit = jg.fit(jg.Mixture(F.Product(parts), 2), table, key=KEY, n_init=1, max_iter=2)
    rows = jnp.asarray(X[:, [1, 0, 2]])
    working = fit.model.standardise(rows)
    params = working.to_working(fit.params)
    step = lambda: working.m_step(working.e_step(params, rows)[0], params)
    whole = step()
    monkeypatch.setattr(F.Product, "block_rows", lambda *_: 40)
    tree_allclose(step(), whole, rtol=1e-9)


def test_rows_off_all_lines():
    """A background is of responses, beside whatever covariates."""
    x = X.copy()
    x[:6, 1] = [-40, -20, -10, 30, 40, 50]
    model = jg.Mixture(PLANES, 3, prior="weak", background=jg.Uniform())
    fit = jg.fit(model, x, key=KEY, n_init=8)
    assert fit.converged
    labels = np.asarray(fit.model.predict(fit.params, jnp.asarray(x)))
    np.testing.assert_array_equal(np.flatnonzero(labels == 2), np.arange(6))
    b, var, w = fit.params.coefficients, fit.params.variances, np.asarray(fit.params.weights)
    lines = stats.norm(b[:, 0] + x[:, [0, 2]] @ b[:, 1:].T, np.sqrt(var)).pdf(x[:, 1:2])
    wanted = np.log(lines @ w[:2] + w[2] / np.ptp(x[:, 1]))
    np.testing.assert_allclose(fit.model.log_prob(fit.params, jnp.asarray(x)), wanted, rtol=1e-9)
    drawn = fit.model.sample(fit.params, KEY, 90, given=x)
    np.testing.assert_array_equal(drawn[:, [0, 2]], x[:, [0, 2]])


@pytest.mark.turn
def test_the_page():
    page = pathlib.Path(__file__).parents[1] / "docs" / "regressions.md"
    assert doctest.testfile(str(page), module_relative=False).failed == 0


# -- answers and counts ------------------------------------------------------------------

ANSWERS = np.column_stack([_Z, _rng.random(90) < 1 / (1 + np.exp(-_Z @ [0.8, 0.3]))]).astype(float)
_rate = np.exp(np.where(_GROUP, 0.3 + 0.7 * _Z[:, 0], 2.5 - 0.2 * _Z[:, 0]))
COUNTS = np.column_stack([_Z[:, 0], _rng.poisson(_rate)]).astype(float)
LOGISTIC, POISSON = F.LogisticRegression(on=[0, 1]), F.PoissonRegression(on=[0])


@pytest.mark.parametrize("kind", ["logistic", "poisson"])
def test_one_line_is_iteratively_reweighted_least_squares(kind):
    family, x = {"logistic": (LOGISTIC, ANSWERS), "poisson": (POISSON, COUNTS)}[kind]
    fit = jg.fit(jg.Mixture(family, 1), x, key=KEY, n_init=1, tol=1e-14)
    z, y = np.column_stack([np.ones(90), x[:, :-1]]), x[:, -1]
    b = np.zeros(z.shape[1])
    for _ in range(50):
        mean = 1 / (1 + np.exp(-z @ b)) if kind == "logistic" else np.exp(np.minimum(z @ b, 20))
        variance = mean * (1 - mean) if kind == "logistic" else mean
        b = b + np.linalg.solve(z.T * variance @ z, z.T @ (y - mean))
    of_rows = stats.bernoulli(mean) if kind == "logistic" else stats.poisson(mean)
    np.testing.assert_allclose(fit.params.coefficients[0], b, rtol=1e-7)
    assert fit.log_likelihood == pytest.approx(of_rows.logpmf(y).sum(), rel=1e-10)
    errors = jg.standard_errors(fit, x).standard_errors["coefficients"][0]
    wanted = np.sqrt(np.diag(np.linalg.inv(z.T * variance @ z)))
    np.testing.assert_allclose(errors, wanted, rtol=1e-6)


@pytest.mark.turn
@pytest.mark.parametrize("prior", ["none", "weak"])
def test_counts_about_two_curves(prior):
    fit = jg.fit(jg.Mixture(POISSON, 2, prior=PRIORS[prior]), COUNTS, key=KEY, n_init=8, tol=1e-14)
    assert fit.converged
    assert np.all(np.diff(fit.trace) >= -1e-9)
    params, x = fit.params, jnp.asarray(COUNTS)
    order = np.argsort(params.coefficients[:, 0])
    truth = np.array([[0.3, 0.7], [2.5, -0.2]])
    np.testing.assert_allclose(params.coefficients[order], truth, atol=0.4)
    rates = np.exp(params.coefficients[:, 0] + COUNTS[:, :1] * params.coefficients[:, 1])
    terms = stats.poisson(rates).logpmf(COUNTS[:, 1:]) + np.log(params.weights)
    assert fit.log_likelihood == pytest.approx(logsumexp(terms, axis=1).sum(), rel=1e-10)
    own = 0.0
    if prior == "weak":
        sd, mean = COUNTS[:, 0].std(), COUNTS[:, 0].mean()
        middle = params.coefficients[:, 0] + params.coefficients[:, 1] * mean
        own = stats.norm(np.log(COUNTS[:, 1].mean()), 2.5).logpdf(middle).sum()
        own += stats.norm(0, 2.5).logpdf(params.coefficients[:, 1] * sd).sum() + 2 * np.log(sd)
    assert fit.log_prior == pytest.approx(own, rel=1e-9)
    working = fit.model.standardise(x)
    near = working.to_working(params)
    program = log_density(working.numpyro_model, (x,), {}, working.sites(near))[0]
    np.testing.assert_allclose(program, fit.log_joint, rtol=1e-10)
    along = lambda step: working.log_joint(working.retract(near, step), x)
    assert jnp.max(jnp.abs(jax.grad(along)(jnp.zeros(fit.n_parameters)))) < 1e-4
    assert fit.n_parameters == 5


@pytest.mark.turn
def test_separation_and_doors():
    x = np.column_stack([np.arange(20.0), np.arange(20) >= 10]).astype(float)
    family = F.LogisticRegression(on=[0])
    with pytest.raises(ValueError, match="separation"):
        jg.fit(jg.Mixture(family, 1), x, key=KEY, n_init=1)
    held = jg.fit(jg.Mixture(family, 1, prior="weak"), x, key=KEY, n_init=1)
    assert held.converged
    drawn = held.model.sample(held.params, KEY, 20, given=x)
    assert set(np.unique(drawn[:, 1])) <= {0.0, 1.0}
    with pytest.raises(ValueError, match=r"codes 0 and 1, found 2 at row 0, column 1"):
        jg.fit(jg.Mixture(family, 1), x + [0, 2], key=KEY)
    with pytest.raises(ValueError, match=r"counts 0, 1, 2, ..., found -1 at row 0, column 1"):
        jg.fit(jg.Mixture(POISSON, 1), x - [0, 1], key=KEY)
    with pytest.raises(ValueError, match="labelled rows update no prior of LogisticRegression"):
        jg.sample(held.model, x, key=KEY, method="gibbs", start=held)


@pytest.mark.turn
def test_pictures_of_lines(tmp_path):
    """Lines in the report, and a panel for each covariate; densities of columns there are none."""
    fit = fitted("conjugate")
    post = jg.sample(
        fit.model, X, key=KEY, method="gibbs", start=fit, n_chains=2, n_draws=50, progress=False
    )
    figure = jg.report.plot_components(fit, post)
    assert [axes.get_xlabel() for axes in figure.axes] == ["x0", "x2"]
    lines = figure.axes[0].get_lines()
    middle = X.mean(axis=0)
    for k, line in enumerate(lines):
        b0, b1, b2 = np.asarray(fit.params.coefficients[k])
        np.testing.assert_allclose(line.get_ydata(), b0 + b1 * line.get_xdata() + b2 * middle[2])
    checks = jg.report.plot_predictive(post, key=KEY)
    assert [axes.get_xlabel() for axes in checks.axes] == ["x1"]
    with pytest.raises(TypeError, match="have no densities"):
        jg.report.plot_density(fit, post)
    figure.savefig(tmp_path / "lines.png")


@pytest.mark.turn
@pytest.mark.parametrize("name", ["lines", "answers", "counts"])
def test_the_verdict_of_a_fit_and_its_posterior(name):
    family, x, k = {
        "lines": (PLANES, X, 2),
        "answers": (LOGISTIC, ANSWERS, 1),
        "counts": (POISSON, COUNTS, 2),
    }[name]
    fit = jg.fit(jg.Mixture(family, k, prior="weak"), x, key=KEY, n_init=4)
    post = jg.sample(
        fit.model, x, key=KEY, method="nuts", start=fit, n_chains=2, n_draws=300, n_warmup=200,
        progress=False,
    )  # fmt: skip
    verdict = jg.compare(fit, post)
    assert verdict.checks.loc["Newton decrement (sd)", "verdict"] == "ok"
    # The mode of a posterior that is nearly normal is its mean.
    draws = post.draws["coefficients"]
    apart = np.abs(draws.mean(axis=(0, 1)) - fit.params.own["coefficients"])
    assert np.all(apart < 0.6 * draws.std(axis=(0, 1)))
