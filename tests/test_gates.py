"""Gates: one density, weights of each row, labels whose names mean nothing, in every engine."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
from numpyro.infer.util import log_density
from scipy import optimize, stats
from scipy.special import log_softmax, logsumexp

import jaxgmm as jg

KEY = jax.random.key(0)
F = jg.families
N = 120
_rng = np.random.default_rng(4)
_AGE, _SEX = _rng.normal(40, 9, N), _rng.integers(0, 2, N)
_GROUP = _rng.random(N) < 1 / (1 + np.exp(0.4 - 1.4 * _SEX + 0.09 * (_AGE - 40)))
_Y = np.where(_GROUP, _rng.normal(0, 1, N), _rng.normal(4, 1.3, N))
_VISITS = _rng.poisson(np.where(_GROUP, 1.5, 5.0))
PEOPLE = pd.DataFrame({"y": _Y, "visits": _VISITS, "sex": _SEX, "age": _AGE})
COUNTS = PEOPLE[["visits", "sex", "age"]]
ON = ["sex", "age"]
# Distributions in the units of the data.
GATES = dist.Normal(0, jnp.array([2.0, 1.0, 0.2]))
RATES = dist.Gamma(2.0, 0.5)


@functools.cache
def fitted(prior=None, k=2):
    model = jg.Mixture(F.Poisson(), k, prior=prior, gates=ON)
    return jg.fit(model, COUNTS, key=KEY, n_init=6, tol=1e-14)


def rows_of(model, table):
    return jnp.asarray(np.asarray(model.read(table)[1]))


def log_weights_of(table, gates, on=ON):
    u = np.column_stack([np.ones(len(table)), *[table[name] for name in on]])
    return log_softmax(u @ np.append(gates, np.zeros((1, u.shape[1])), axis=0).T, axis=1)


# -- against a density written apart -------------------------------------------------------------


def _of_counts(own):
    return stats.poisson.logpmf(_VISITS[:, None], np.exp(own))


def _of_heights(own):
    return stats.norm.logpdf(_Y[:, None], own[:2], np.exp(own[2:]))


@pytest.mark.parametrize("name", ["poisson", pytest.param("gaussian", marks=pytest.mark.turn)])
def test_em_is_the_maximum_that_bfgs_finds(name):
    if name == "poisson":
        fit, table, rows, start = fitted(), COUNTS, _of_counts, np.log([2.0, 6.0])
        order = np.argsort(np.asarray(fit.params.rates)[:, 0])
    else:
        model = jg.Mixture(jg.Gaussian("V"), 2, gates=ON)
        table = PEOPLE[["y", *ON]]
        fit = jg.fit(model, table, key=KEY, n_init=4, tol=1e-14)
        rows, start = _of_heights, np.array([0.5, 3.5, 0.0, 0.0])
        order = np.argsort(np.asarray(fit.params.means)[:, 0])
    centred = PEOPLE.assign(age=_AGE - 40)

    def fall(vector):
        weights = log_weights_of(centred, vector[None, :3])
        return -logsumexp(weights + rows(vector[3:]), axis=1).sum()

    found = optimize.minimize(fall, np.append(np.zeros(3), start), method="BFGS", tol=1e-8)
    assert fit.converged
    assert fit.log_likelihood == pytest.approx(-found.fun, abs=1e-6)
    (gates,) = np.asarray(fit.model.permute(fit.params, order).gates)
    centred_at = gates + np.array([40 * gates[2], 0, 0])
    np.testing.assert_allclose(centred_at, found.x[:3], rtol=1e-3, atol=1e-3)
    x = rows_of(fit.model, table)
    slope = jax.grad(lambda params: fit.model.log_joint(params, x))(fit.params).own
    assert np.max(np.abs(slope["gates"] / np.array([1.0, 1.0, 40.0]))) < 1e-5
    assert np.min(np.diff(fit.trace)) > -1e-9 * abs(fit.log_joint)


CONJUGATE = jg.ConjugatePrior(mean=[0.0, 0.0], mean_precision=0.1, dof=3.0, scale=2.0)
LINE = F.LinearRegression(on=["age"], response="y")
MIXED = F.Product({"y": jg.Gaussian(), "visits": F.Poisson()})
# A family, its columns, K and priors by name.
INSIDE = {
    "poisson": (F.Poisson(), ["visits"], 3, [{"gates": GATES, "rates": RATES}]),
    "bernoulli": (F.Bernoulli(), ["sex"], 2, [None, "weak"]),
    "gaussian": (jg.Gaussian("EEE"), ["visits", "y"], 2, [None, "weak"]),
    "line": (LINE, ["age", "y"], 2, ["weak"]),
    "conjugate": (LINE, ["age", "y"], 2, [{"gates": GATES, "components": CONJUGATE}]),
    "product": (MIXED, ["y", "visits"], 2, [None, "weak"]),
    "t": (F.StudentT(), ["y"], 2, [None]),
}


def _marked(name):
    return pytest.param(name, marks=[pytest.mark.turn] * (name != "poisson"))


@pytest.mark.parametrize("name", [_marked(name) for name in INSIDE])
def test_any_family_has_numpyros_number(name):
    family, columns, k, priors = INSIDE[name]
    on = [one for one in ON if one not in columns or one in family.given_names]
    table = PEOPLE[list(dict.fromkeys([*columns, *on]))]
    for prior in priors:
        model = jg.Mixture(family, k, prior=prior, gates=on)
        fit = jg.fit(model, table, key=KEY, n_init=2, max_iter=8)
        x, sites = rows_of(fit.model, table), fit.model.sites(fit.params)
        value, _ = log_density(fit.model.numpyro_model, (x,), {}, sites)
        assert fit.model.log_joint(fit.params, x) == pytest.approx(float(value), rel=1e-10)
        assert fit.log_joint == pytest.approx(float(value), rel=1e-9)
        assert np.min(np.diff(fit.trace)) > -1e-9 * abs(fit.log_joint)
        # The components alone are those of a mixture without gates.
        plain = jg.Mixture(family, k).resolve(table[columns])
        inner, own = fit.model.family.components(fit.params), rows_of(plain, table[columns])
        alone = [dataclasses.replace(inner, weights=jnp.eye(k)[j]) for j in range(k)]
        rows = np.array([plain.log_prob(params, own) for params in alone]).T
        rows = logsumexp(log_weights_of(table, sites["gates"], on) + rows, axis=1)
        np.testing.assert_allclose(fit.model.log_prob(fit.params, x), rows, rtol=1e-8)


# -- without gates --------------------------------------------------------------


def test_without_covariates_it_is_a_mixture():
    plain = jg.fit(jg.Mixture(F.Poisson(), 2), COUNTS[["visits"]], key=KEY, n_init=4, tol=1e-14)
    model = jg.Mixture(F.Poisson(), 2, gates=[])
    fit = jg.fit(model, COUNTS[["visits"]], key=KEY, n_init=4, tol=1e-14)
    assert fit.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-8)
    shares = (np.sort(one.params.weights) for one in (fit, plain))
    np.testing.assert_allclose(*shares, atol=1e-5)
    assert model.n_parameters(1) == 3
    assert fit.model.sample(fit.params, KEY, 5).shape == (5, 1)
    # A covariate of zeros says nothing; nor do slopes of zero.
    table = COUNTS.assign(sex=0.0)
    flat = {"gates": dist.Normal(0, 1e5), "rates": dist.Gamma(1.0, 1e-9)}
    wide = jg.Mixture(F.Poisson(), 2, gates=["sex"], prior=flat)
    same = jg.fit(wide, table[["visits", "sex"]], key=KEY, n_init=4, tol=1e-14)
    assert same.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-6)
    x = rows_of(same.model, table[["visits", "sex"]])
    np.testing.assert_allclose(
        same.model.log_prob(same.params, x), plain.model.log_prob(plain.params, x[:, :1]), atol=1e-5
    )


@pytest.mark.turn
def test_one_component_has_none():
    fit = jg.fit(jg.Mixture(F.Poisson(), 1, prior="weak", gates=ON), COUNTS, key=KEY, n_init=1)
    plain = jg.fit(jg.Mixture(F.Poisson(), 1, prior="weak"), COUNTS[["visits"]], key=KEY, n_init=1)
    assert fit.log_joint == pytest.approx(plain.log_joint, abs=1e-9)
    assert sorted(fit.model.sites(fit.params)) == ["rates"]


# -- columns -------------------------------------------------------------------------------------


def test_columns_by_name_by_place_and_of_words():
    table = COUNTS.assign(sex=np.where(_SEX == 1, "m", "f"))[["sex", "visits", "age"]]
    model = jg.Mixture(F.Poisson(), 2, gates=ON)
    words = jg.fit(model, table, key=KEY, n_init=6, tol=1e-14)
    assert words.log_likelihood == pytest.approx(fitted().log_likelihood, abs=1e-8)
    assert words.feature_names == ("visits", "sex", "age")
    given = pd.DataFrame({"sex": ["m", "f"], "age": [30.0, 50.0]})
    drawn = words.model.sample(words.params, KEY, 2, given=given)
    shown = words.model.table(drawn, words.feature_names)
    assert shown["sex"].tolist() == ["m", "f"]
    assert shown["age"].tolist() == [30.0, 50.0]
    found = jg.standard_errors(words, table).table
    assert [name for name in found.index if "gates" in name] == [
        "gates[0, intercept]", "gates[0, sex]", "gates[0, age]",
    ]  # fmt: skip
    array = np.column_stack([_AGE, _VISITS, _SEX])
    places = jg.fit(jg.Mixture(F.Poisson(), 2, gates=[2, 0]), array, key=KEY, n_init=6, tol=1e-14)
    assert places.log_likelihood == pytest.approx(words.log_likelihood, abs=1e-8)
    rows = np.asarray(places.model.sample(places.params, KEY, N, given=array))
    np.testing.assert_array_equal(rows[:, [0, 2]], array[:, [0, 2]])
    ordered = np.column_stack([_VISITS, _SEX, _AGE])
    last = jg.fit(model, ordered, key=KEY, n_init=6, tol=1e-14)
    assert last.log_likelihood == pytest.approx(words.log_likelihood, abs=1e-8)


@pytest.mark.turn
def test_regressions_share_covariates_by_place():
    array = np.column_stack([_AGE, _Y, _SEX])
    by_name = jg.Mixture(LINE, 2, prior="weak", gates=["sex", "age"])
    by_place = jg.Mixture(F.LinearRegression(on=[0]), 2, prior="weak", gates=[2, 0])
    fits = [
        jg.fit(by_name, PEOPLE[["age", "y", "sex"]], key=KEY, n_init=4),
        jg.fit(by_place, array, key=KEY, n_init=4),
    ]
    assert fits[0].log_joint == pytest.approx(fits[1].log_joint, abs=1e-6)
    boot = jg.bootstrap(fits[1], array, key=KEY, n_replicates=10, kind="parametric")
    assert boot.draws["gates"].shape == (10, 1, 3)


def test_what_gates_cannot_be_is_refused():
    fit = functools.partial(jg.fit, key=KEY, n_init=2)
    model = lambda on, **other: jg.Mixture(F.Poisson(), 2, gates=on, **other)
    with pytest.raises(TypeError, match=r"gates: needs a list of columns, .* found 'sex'"):
        model("sex")
    with pytest.raises(ValueError, match="gates: a column occurs twice"):
        model(["sex", "sex"])
    with pytest.raises(TypeError, match="gates: columns are called by text, or by their places"):
        model(["sex", 1])
    with pytest.raises(ValueError, match="weights: are made by the gates"):
        model(["sex"], weights="equal")
    with pytest.raises(ValueError, match="x: has no column 'height', found 'visits', 'sex', 'age'"):
        fit(model(["height"]), COUNTS)
    with pytest.raises(ValueError, match="gates: column 'y' is drawn by Linear"):
        jg.Mixture(LINE, 2, gates=["y"])
    with pytest.raises(ValueError, match="gates: column 'visits' is drawn by Product"):
        jg.Mixture(MIXED, 2, gates=["visits"])
    with pytest.raises(TypeError, match="calls columns by text, so call those of the gates alike"):
        jg.Mixture(MIXED, 2, gates=[3])
    holes = COUNTS.assign(age=np.where(np.arange(N) == 7, np.nan, _AGE))
    with pytest.raises(ValueError, match="gates: found nan at row 7, column 'age'"):
        fit(model(ON), holes)
    with pytest.raises(ValueError, match=r"gates: .* linear in each other or constant"):
        fit(model(["sex"]), COUNTS[["visits", "sex"]].assign(sex=1.0))
    with pytest.raises(ValueError, match="x: has no column beside those of the gates"):
        fit(model(ON), COUNTS[ON])
    with pytest.raises(ValueError, match=r"prior: needs a distribution for .*'gates'"):
        fit(model(ON, prior={"rates": RATES}), COUNTS)
    with pytest.raises(ValueError, match="prior: 'weights' are made by the gates"):
        model(ON, prior={"weights": dist.Dirichlet(np.ones(2)), "rates": RATES})
    with pytest.raises(TypeError, match="prior: with gates it is None, 'fraley-raftery' or 'weak'"):
        fit(jg.Mixture(jg.Gaussian(), 2, gates=ON, prior=CONJUGATE), COUNTS)
    known = fitted()
    with pytest.raises(ValueError, match=r"given: Poisson\(\) draws rows beside columns"):
        known.model.sample(known.params, KEY, 3)
    with pytest.raises(TypeError, match="weights: are made by the gates"):
        known.model.params(weights=[0.5, 0.5], gates=np.zeros((1, 3)), rates=[[1.0], [2.0]])
    with pytest.raises(ValueError, match=r"gates: needs finite numbers of shape \(1, 3\)"):
        known.model.params(gates=np.zeros((2, 3)), rates=[[1.0], [2.0]])
    for method in ("gibbs", "vb"):
        with pytest.raises(ValueError, match=r"gates have no conjugate prior; use method=.nuts"):
            jg.sample(fitted("weak").model, COUNTS, key=KEY, method=method)


# -- health --------------------------------------------------------------------------------------


def test_separation_is_a_status_and_a_prior_cures_it():
    apart = np.where(np.arange(60) < 20, 0.0, 30.0) + _rng.normal(size=60)
    table = pd.DataFrame({"y": apart, "z": np.where(np.arange(60) < 20, -1.0, 1.0)})
    table["z"] += 0.2 * _rng.normal(size=60)
    with pytest.raises(ValueError, match=r"all 2 restart\(s\) collapsed: .* \(separation\)"):
        jg.fit(jg.Mixture(jg.Gaussian(), 2, gates=["z"]), table, key=KEY, n_init=2)
    held = jg.fit(jg.Mixture(jg.Gaussian(), 2, gates=["z"], prior="weak"), table, key=KEY, n_init=2)
    assert held.converged
    assert 0.5 < abs(float(held.params.gates[0, 1])) < 10


# -- engines -------------------------------------------------------------------------------------


@functools.cache
def _post(method, **options):
    fit = fitted("weak")
    return jg.sample(
        fit.model,
        COUNTS,
        key=jax.random.key(1),
        start=fit,
        method=method,
        progress=False,
        **options,
    )


@pytest.mark.turn
def test_draws_are_renamed_as_a_whole():
    post = _post("nuts", n_draws=60, n_warmup=60, n_chains=2)
    x = rows_of(post.model, COUNTS)
    joint = jax.vmap(jax.vmap(lambda p: post.model.log_joint(p, x)))
    for params in (post.params, post.raw_params()):
        np.testing.assert_allclose(joint(params), post.log_joint, rtol=1e-9)
    # The group that the young and the men belong to has one name in all draws.
    rates = post.draws["rates"][..., 0]
    few = int(rates.mean(axis=(0, 1))[1] < rates.mean(axis=(0, 1))[0])
    slope = post.draws["gates"][..., 0, 2] * (1 if few == 0 else -1)
    assert np.mean(slope < 0) > 0.95
    assert post.draws["weights"].shape == (2, 60, 2)
    data = post.to_arviz()
    assert data.posterior["gates"].dims == ("chain", "draw", "gate", "concomitant")
    assert data.posterior["concomitant"].values.tolist() == ["intercept", "sex", "age"]
    assert post.replicate(KEY).shape[-2:] == (N, 3)


def test_files_keep_them(tmp_path):
    fit = fitted("weak")
    fit.save(tmp_path / "fit.npz")
    found = jg.load(tmp_path / "fit.npz")
    assert repr(found.model) == repr(fit.model)
    x = rows_of(fit.model, COUNTS)
    rows = (one.model.log_joint(one.params, x) for one in (found, fit))
    np.testing.assert_array_equal(*rows)


@pytest.mark.slow
def test_engines_agree_and_the_verdict_holds(tmp_path):
    nuts = _post("nuts", n_draws=1000)
    mean, sd = (f(nuts.draws["gates"], axis=(0, 1)) for f in (np.mean, np.std))
    for method in ("laplace", "smc", "svi"):
        post = _post(method)
        # Normal approximations miss the skewness.
        np.testing.assert_array_less(np.abs(post.draws["gates"].mean(axis=(0, 1)) - mean), 0.6 * sd)
    verdict = jg.compare(fitted("weak"), nuts)
    assert "gates[0, sex]" in verdict.table.index
    verdict.save(tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "gates=[" in page


@pytest.mark.slow
def test_criteria_tests_and_a_background_know_them():
    models = [jg.Mixture(F.Poisson(), k, gates=ON) for k in (1, 2)]
    models.append(jg.Mixture(F.Poisson(), 3, gates=ON, background=jg.Uniform()))
    choice = jg.select(models, COUNTS, key=KEY, n_init=4)
    assert choice.best.model.n_components == 2
    assert models[2].label_groups == (0, 0, 1)
    test = jg.bootstrap_lrt(models[0], COUNTS, key=KEY, n_replicates=19, n_init=4)
    # Flat gates are separated in some replicates, which then count neither way.
    assert test.statistic > test.statistics.max()
    assert len(test.statistics) > 10
