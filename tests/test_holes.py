"""Missing values of independent columns: what a row lacks drops out of every sum."""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
from families import FAMILIES, PRIORS, mixture
from helpers import soft_labels, tree_allclose
from numpyro.infer.util import log_density
from scipy.special import logsumexp
from test_families import CARCINOMA
from test_numerical_families import NAMED

import jaxgmm as jg

KEY = jax.random.key(0)
QUICK = ("product",)
NAMES = [name for name in FAMILIES if name != "multinomial"]
each_family = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in NAMES]
)
# Of every column of a product: of which family, and its site and place there.
PRODUCT = [
    ("bernoulli", "probs", "a:b.probs", 0),
    ("bernoulli", "probs", "a:b.probs", 1),
    ("categorical", "probs", "colour.probs", 0),
    ("poisson", "rates", "visits.rates", 0),
    ("exponential", "rates", "wait.rates", 0),
]


def with_holes(x, share=0.2, seed=0):
    x = np.where(np.random.default_rng(seed).random(x.shape) < share, np.nan, x)
    x[5] = np.nan  # a row without any value
    return x


def rows_of(name):
    return with_holes(FAMILIES[name].x)


def labels(k=2, seed=0):
    return soft_labels(40, k, seed)


def reference(name, model, params, x):
    """Log density of each row: NumPyro's of the columns that it has, one by one."""
    columns = PRODUCT
    if name != "product":
        (site,) = model.family.conjugate
        columns = [(name, site, site, j) for j in range(x.shape[1])]
    total = np.log(params.weights) + np.zeros((len(x), len(params.weights)))
    for j, (family, own, site, place) in enumerate(columns):
        there = ~np.isnan(x[:, j])
        sites = {own: params.own[site][:, place : place + 1]}
        total[there] += FAMILIES[family].rows(sites, jnp.asarray(x[there][:, None, j : j + 1]))
    return logsumexp(total, axis=1)


# Compiled, as in every engine: one program and not one for each operation.
_e_step = jax.jit(lambda model, params, x: model.e_step(params, x))


@jax.jit
def _from_labels(model, labels, x):
    return model.m_step(model.statistics(labels, x))


# -- law 11: a NaN is a row without that column ----------------------------------------------


@each_family
def test_one_density(name):
    x = rows_of(name)
    model = mixture(name, "sites").resolve(x)
    assert model.incomplete
    params = _from_labels(model, labels(), x)
    expected = reference(name, model, params, x)
    assert expected[5] == pytest.approx(0)
    np.testing.assert_allclose(model.log_prob(params, x), expected, rtol=1e-10, atol=1e-12)
    joint, sites = np.sum(expected) + model.log_prior(params), model.sites(params)
    program = jax.jit(lambda sites: log_density(model.numpyro_model, (x,), {}, sites)[0])(sites)
    _, by_em = _e_step(model, params, x)
    np.testing.assert_allclose([by_em + model.log_prior(params), program], joint, rtol=1e-10)
    # The model need not have seen holes, nor need there be any.
    fresh = mixture(name, "sites")
    np.testing.assert_allclose(fresh.log_prob(params, x), expected, rtol=1e-10, atol=1e-12)
    whole = FAMILIES[name].x
    tree_allclose(model.log_prob(params, whole), fresh.log_prob(params, whole), 1e-12)


@each_family
def test_without_holes_it_is_the_complete_form(name):
    x = FAMILIES[name].x
    plain = mixture(name, "sites").resolve(x)
    assert not plain.incomplete
    aware = plain.resolve(rows_of(name))
    params = _from_labels(plain, labels(), x)
    (ours, value), (theirs, other) = (_e_step(model, params, x) for model in (aware, plain))
    tree_allclose((ours.counts, value), (theirs.counts, other), 1e-12)
    step = jax.jit(lambda model, statistics: model.m_step(statistics))
    tree_allclose(step(aware, ours), step(plain, theirs), 1e-12)


# -- laws 2, 3 and 4 ----------------------------------------------------------------------------


@functools.cache
def fitted(name, prior):
    x = rows_of(name)
    return jg.fit(mixture(name, prior), x, start=labels(), tol=1e-14, max_iter=5000)


@pytest.mark.parametrize(
    ("name", "prior"),
    [
        pytest.param(n, p, marks=[pytest.mark.slow] * ((n, p) != ("product", "sites")))
        for n in NAMES
        for p in PRIORS
    ],
)
def test_the_gradient_vanishes_at_the_fit(name, prior):
    fit, x = fitted(name, prior), jnp.asarray(rows_of(name))
    assert fit.converged
    np.testing.assert_allclose(fit.log_joint, fit.model.log_joint(fit.params, x), rtol=1e-12)
    along = lambda step: fit.model.log_joint(fit.model.retract(fit.params, step), x)
    slope = jax.jit(jax.grad(along))(jnp.zeros(fit.model.tangent_size(fit.params)))
    assert jnp.max(jnp.abs(slope)) < 1e-6 * len(x)
    # A row that has no value is none for the criteria.
    n = np.sum(~np.all(np.isnan(x), axis=1))
    assert n < len(x)
    np.testing.assert_allclose(
        fit.bic, np.log(n) * fit.n_parameters - 2 * fit.log_likelihood, rtol=1e-12
    )


@functools.partial(jax.jit, static_argnames="steps")
def _chain(model, x, labels, sample_weight=None, steps=40):
    def step(params, _):
        statistics, log_likelihood = model.e_step(params, x, sample_weight)
        return model.m_step(statistics, params), log_likelihood + model.log_prior(params)

    first = model.m_step(model.statistics(labels, x, sample_weight))
    params, objectives = jax.lax.scan(step, first, length=steps)
    return objectives, params


@each_family
def test_em_never_descends_in_float32(name):
    x = jnp.asarray(rows_of(name), "float32")
    model = mixture(name, "sites").resolve(x)
    objectives, params = _chain(model, x, jnp.asarray(labels(), "float32"))
    assert objectives.dtype == params.weights.dtype == "float32"
    bound = jnp.finfo("float32").eps * 64 * (jnp.max(jnp.abs(objectives)) + len(x))
    assert jnp.min(jnp.diff(objectives)) >= -bound
    assert objectives[-1] - objectives[0] > 20 * bound


@each_family
def test_a_weight_counts_rows(name):
    x, counts = rows_of(name), np.arange(40) % 3
    model, start = mixture(name, "weak"), labels()
    repeated, each = np.repeat(x, counts, axis=0), np.repeat(start, counts, axis=0)
    weighted = _chain(model.resolve(x, counts), x, start, jnp.asarray(counts, float), steps=9)
    rows = _chain(model.resolve(repeated), jnp.asarray(repeated), each, steps=9)
    tree_allclose(weighted, rows, 1e-11)


def test_the_weak_prior_is_worth_one_value_of_each_column():
    x = np.array([[0.0, 4.0], [2.0, np.nan], [1.0, np.nan], [5.0, 6.0]])
    prior = jg.Mixture(jg.families.Poisson(), 1, prior="weak").resolve(x).prior
    rates = prior.distributions["rates"]
    np.testing.assert_allclose(rates.concentration, [3.0, 6.0])
    np.testing.assert_allclose(rates.rate, [1.0, 1.0])


# -- references -----------------------------------------------------------------------------------

GONE = np.random.default_rng(0).random(CARCINOMA.shape) < 0.15
ANSWERS = np.where(GONE, np.nan, CARCINOMA)


def _numpy_em(x, responsibilities, steps):
    """Latent classes by EM, an answer that is missing left out of every product."""
    trace = []
    for _ in range(steps + 1):
        weights = responsibilities.mean(axis=0)
        ones = np.array([[np.nansum(r * column) for column in x.T] for r in responsibilities.T])
        asked = np.array(
            [[np.sum(r[~np.isnan(column)]) for column in x.T] for r in responsibilities.T]
        )
        probs = ones / asked
        chance = np.ones((len(x), len(weights))) * weights
        for i, row in enumerate(x):
            for j, answer in enumerate(row):
                if not np.isnan(answer):
                    chance[i] *= probs[:, j] if answer else 1 - probs[:, j]
        trace.append(np.log(chance.sum(axis=1)).sum())
        responsibilities = chance / chance.sum(axis=1, keepdims=True)
    return np.array(trace), weights, probs


@pytest.mark.parametrize(
    "family",
    [
        jg.families.Bernoulli(),
        pytest.param(jg.families.Categorical(levels=2), marks=pytest.mark.slow),
    ],
    ids=["bernoulli", "categorical"],
)
def test_em_is_that_of_another_program(family):
    start, steps = soft_labels(len(ANSWERS), 3), 30
    fit = jg.fit(jg.Mixture(family, 3), ANSWERS, start=start, tol=0, max_iter=steps)
    trace, weights, probs = _numpy_em(ANSWERS, start, steps)
    np.testing.assert_allclose(fit.trace, trace, rtol=1e-8)
    found = np.asarray(fit.params.probs)
    tree_allclose(np.asarray(fit.params.weights), weights, 1e-8)
    tree_allclose(found if found.ndim == 2 else found[..., 1], probs, 1e-7)


def test_latent_classes_with_missing_answers():
    """From the default starts, errors and edges as for whole rows."""
    fit = jg.fit(jg.Mixture(jg.families.Bernoulli(), 3), ANSWERS, key=KEY, n_init=4)
    assert fit.converged
    errors = jg.standard_errors(fit, ANSWERS)
    assert errors.definite
    assert errors.n_boundary > 0
    labels = fit.model.predict(fit.params, ANSWERS)
    whole = jg.fit(jg.Mixture(jg.families.Bernoulli(), 3), CARCINOMA, start=fit.params)
    same = labels == whole.model.predict(whole.params, CARCINOMA)
    assert np.mean(same) > 0.85
    filled = np.asarray(fit.impute(ANSWERS))
    np.testing.assert_array_equal(filled[~GONE], CARCINOMA[~GONE])
    assert np.mean(filled[GONE] == CARCINOMA[GONE]) > 0.75


# -- imputation ---------------------------------------------------------------------------


def test_imputations():
    x = rows_of("product")
    model = mixture("product").resolve(x)
    params = _from_labels(model, labels(), x)
    chance, gone = np.asarray(model.responsibilities(params, x)), np.isnan(x)
    filled = np.asarray(model.impute(params, x))
    np.testing.assert_array_equal(filled[~gone], x[~gone])
    own = {name: np.asarray(site) for name, site in params.own.items()}
    expected = np.column_stack(
        [
            chance @ own["a:b.probs"] > 0.5,
            np.argmax(np.einsum("nk,kl->nl", chance, own["colour.probs"][:, 0]), axis=1),
            chance @ own["visits.rates"][:, 0],
            chance @ (1 / own["wait.rates"][:, 0]),
        ]
    )
    np.testing.assert_allclose(filled[gone], expected[gone], rtol=1e-10)
    # Row 5 has no value: what is drawn for it is a row of the mixture.
    many = np.tile(x[5], (4000, 1))
    drawn = np.asarray(model.impute(params, many, KEY))
    model.family.check_rows(drawn)
    weights = np.asarray(params.weights)
    means = [weights @ own["a:b.probs"][:, 0], weights @ own["visits.rates"][:, 0]]
    error = drawn[:, [0, 3]].std(axis=0) / np.sqrt(len(drawn))
    assert np.all(np.abs(drawn[:, [0, 3]].mean(axis=0) - means) < 5 * error)


def test_what_a_family_does_not_say_of_expectations():
    x = rows_of("geometric")
    model = mixture("geometric")
    params = model.params(probs=[[0.5, 0.1], [0.2, 0.6]])
    with pytest.raises(ValueError, match=r"impute: Geometric\(\) has no method expected"):
        model.impute(params, x)
    assert np.all(np.isfinite(model.impute(params, x, KEY)))


def test_tables_and_padded_models():
    model = jg.Mixture(jg.families.Bernoulli(), 2)
    params = model.params(probs=[[0.2] * 7, [0.9] * 7])
    table = pd.DataFrame(ANSWERS, columns=list("ABCDEFG"))
    np.testing.assert_array_equal(model.predict(params, table), model.predict(params, ANSWERS))
    wider = model.padded(3)
    three = wider.params(weights=[0.3, 0.6, 0.1], probs=[[0.2] * 7, [0.9] * 7, [0.5] * 7])
    tree_allclose(wider.trimmed(three).own, params.own, 0.0)


# -- numerical families ---------------------------------------------------------------------

GUMBEL = jg.families.Custom(dist.Gumbel, loc=dist.constraints.real, scale=dist.constraints.positive)
NUMERICAL = {
    **NAMED,
    "gumbel": (
        GUMBEL,
        np.concatenate(
            [np.random.default_rng(s).gumbel(m, 1.0, 60) for s, m in enumerate((0.0, 7.0))]
        ),
        lambda own: dist.Gumbel(own["loc"], own["scale"]),
    ),
}


@pytest.mark.turn
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "gumbel")) for n in NUMERICAL]
)
def test_numerical_families(name):
    family, rows, numpyro = NUMERICAL[name]
    rows = np.column_stack([rows, rows[::-1]])
    x = with_holes(rows)
    start = np.where(np.arange(120)[:, None] < 60, [0.9, 0.1], [0.1, 0.9])
    fit = jg.fit(jg.Mixture(family, 2, prior="weak"), x, start=start, tol=1e-13, max_iter=3000)
    assert fit.converged
    params = fit.params
    total = np.log(params.weights) + np.zeros((len(x), 2))
    for k in range(2):
        made = numpyro({name: site[k] for name, site in params.own.items()})
        there = ~np.isnan(x)
        total[:, k] += np.where(there, made.log_prob(np.where(there, x, rows)), 0).sum(axis=1)
    expected = logsumexp(total, axis=1)
    np.testing.assert_allclose(fit.model.log_prob(params, x), expected, rtol=1e-9, atol=1e-10)
    along = lambda step: fit.model.log_joint(fit.model.retract(params, step), jnp.asarray(x))
    slope = jax.jit(jax.grad(along))(jnp.zeros(fit.model.tangent_size(params)))
    assert jnp.max(jnp.abs(slope)) < 1e-4
    for filled in (fit.impute(x), fit.impute(x, KEY)):
        assert np.all(np.isfinite(filled))
    aware = copy.copy(family)
    assert fit.model.family != aware
    assert fit.model.resolve(rows).family == aware


# -- engines and doors ----------------------------------------------------------------------


@pytest.mark.slow
def test_samplers_agree_and_report(tmp_path):
    x = rows_of("product")
    fit = jg.fit(mixture("product", "weak"), x, key=KEY, n_init=4)
    means = {}
    whole = FAMILIES["product"].x
    near = jg.fit(mixture("product", "weak"), whole, start=labels())
    complete = jg.sample(near.model, whole, key=KEY, start=near, method="vb", progress=False)
    with pytest.raises(ValueError, match="post: no value is missing"):
        jg.report.plot_missing(complete, KEY)
    for method in ("gibbs", "nuts", "smc", "vb", "laplace", "svi"):
        post = jg.sample(
            fit.model, x, key=jax.random.key(2), start=fit, method=method, n_draws=600,
            progress=False,
        )  # fmt: skip
        means[method] = float(np.mean(post.log_joint))
        if method == "gibbs":
            filled = post.thin(10).impute(KEY)
            assert filled.shape[2:] == x.shape
            assert np.all(filled[..., ~np.isnan(x)] == x[~np.isnan(x)])
            figure = jg.report.plot_missing(post, KEY)
            assert len(figure.axes) == 6
            assert all(axes.has_data() for axes in figure.axes)
            with pytest.raises(ValueError, match="ax: this picture has"):
                jg.report.plot_missing(post, KEY, ax=figure.axes[:2])
            evidence = jg.evidence(post, key=jax.random.key(3))
            verdict = jg.compare(fit, post)
            assert verdict.checks.loc["Newton decrement (sd)", "verdict"] == "ok"
            assert verdict.save(tmp_path / "report").exists()
            assert (tmp_path / "report" / "missing.png").exists()
            with pytest.raises(TypeError, match=r"plot_row_weights: every row of .* counts once"):
                jg.report.plot_row_weights(fit, post)
        if method == "smc":
            error = np.hypot(post.evidence.error, evidence.error)
            assert abs(post.evidence.log_evidence - evidence.log_evidence) < 5 * error + 0.1
    assert abs(means["nuts"] - means["gibbs"]) < 1.0
    assert abs(means["smc"] - means["gibbs"]) < 1.0
    kept = jg.load(fit.save(tmp_path / "fit.npz"))
    tree_allclose((kept.model, kept.params), (fit.model, fit.params), 0.0)


def test_what_is_refused():
    x = FAMILIES["multinomial"].x.copy()
    x[3, 1] = np.nan
    model = jg.Mixture(jg.families.Multinomial(), 2)
    with pytest.raises(ValueError, match="x: non-finite value nan at row 3, column 1"):
        jg.fit(model, x, key=KEY)
    with pytest.raises(ValueError, match=r"impute: Multinomial\(\) has no missing values"):
        model.impute(model.params(probs=[[0.5, 0.5], [0.2, 0.8]]), np.ones((3, 2)))
    empty = ANSWERS.copy()
    empty[:, 2] = np.nan
    with pytest.raises(ValueError, match="x: column 2 has no value at all; leave it out"):
        jg.fit(jg.Mixture(jg.families.Bernoulli(), 2), empty, key=KEY)
    wrong = ANSWERS.copy()
    wrong[4, 0] = 2
    with pytest.raises(ValueError, match="codes 0 and 1, found 2 at row 4, column 0"):
        jg.fit(jg.Mixture(jg.families.Bernoulli(), 2), wrong, key=KEY)
