"""Repeats that share a label: sums over the repeats of a group, and nothing else changes."""

import functools

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
N, M = 40, 3
_rng = np.random.default_rng(8)
_GROUP = np.arange(N) % 2
COUNTS = _rng.poisson(np.where(_GROUP, 2.0, 5.0)[:, None], (N, M)).astype(float)
RAGGED = COUNTS.copy()
RAGGED[::3, 2] = np.nan
RAGGED[::6, 1] = np.nan
_Z = _rng.normal(0, 2, (N, M))
_Y = np.where(_GROUP[:, None], 1 + 2 * _Z, 1 - _Z) + 0.5 * _rng.normal(size=(N, M))
LONG = pd.DataFrame({"who": np.repeat(np.arange(N), M), "z": _Z.ravel(), "y": _Y.ravel()}).drop(
    index=[2, 3, 4, 30]
)
LONG["old"] = (LONG["who"] % 5 < 2).astype(float)
WIDE, WIDTH = jg.repeated(LONG, by="who", once=["old"])
LINE = F.LinearRegression(on=["z"], response="y")


def _by_hand(x, steps=12):
    """Poisson groups by EM in NumPy, written apart, from given labels."""
    labels, there = soft_labels(len(x), 2, 3), ~np.isnan(x)
    values = np.where(there, x, 0)
    for _ in range(steps):
        weights = labels.mean(axis=0)
        rates = labels.T @ values.sum(axis=1) / (labels.T @ there.sum(axis=1))
        each = stats.poisson.logpmf(values[:, :, None], rates)
        logits = np.log(weights) + np.where(there[:, :, None], each, 0).sum(axis=1)
        total = logsumexp(logits, axis=1)
        labels = np.exp(logits - total[:, None])
    return weights, rates, total.sum()


@pytest.mark.parametrize("x", [COUNTS, RAGGED], ids=["whole", "ragged"])
def test_em_is_that_of_a_reference_in_numpy(x):
    model = jg.Mixture(F.Repeated(F.Poisson(), M), 2)
    start = soft_labels(N, 2, 3)
    fit = jg.fit(model, x, start=start, max_iter=11, tol=0.0)
    weights, rates, height = _by_hand(x)
    np.testing.assert_allclose(fit.params.weights, weights, rtol=1e-8)
    np.testing.assert_allclose(fit.params.rates[:, 0], rates, rtol=1e-8)
    assert fit.log_likelihood == pytest.approx(height, rel=1e-10)
    assert model.n_parameters(M) == 3
    moved = fit.model.responsibilities(fit.params, x[:, [2, 0, 1]])
    np.testing.assert_allclose(moved, fit.model.responsibilities(fit.params, x), atol=1e-12)


def test_one_repeat_is_the_family():
    x, start = COUNTS[:, :1], soft_labels(N, 2, 3)
    fits = [
        jg.fit(jg.Mixture(family, 2, prior="weak"), x, start=start, max_iter=20, tol=0.0)
        for family in (F.Repeated(F.Poisson(), 1), F.Poisson())
    ]
    assert fits[0].log_joint == pytest.approx(fits[1].log_joint, rel=1e-12)
    tree_allclose(fits[0].params.own, fits[1].params.own, 1e-10)


@functools.cache
def _lines(prior="weak", gates=False):
    table = WIDE if gates else WIDE.drop(columns="old")
    on = {"gates": ["old"]} if gates else {}
    model = jg.Mixture(F.Repeated(LINE, WIDTH), 2, prior=prior, **on)
    return jg.fit(model, table, key=KEY, n_init=4), table


def test_lines_of_groups_by_name():
    fit, table = _lines()
    w, p = np.asarray(fit.params.weights), fit.params
    height = 0.0
    for _, own in LONG.groupby("who"):
        line = np.asarray(p.coefficients)[:, :1] + np.asarray(p.coefficients)[:, 1:] * [*own["z"]]
        sd = np.sqrt(np.asarray(p.variances))[:, None]
        height += logsumexp(np.log(w) + stats.norm.logpdf([*own["y"]], line, sd).sum(axis=1))
    assert fit.log_likelihood == pytest.approx(height, rel=1e-10)
    x = jnp.asarray(np.asarray(fit.model.read(table)[1]))
    value, _ = log_density(fit.model.numpyro_model, (x,), {}, fit.model.sites(p))
    assert fit.log_joint == pytest.approx(float(value), rel=1e-10)
    assert sorted(np.round(p.coefficients[:, 1])) == [-1, 2]
    right = fit.model.predict(p, table) == _GROUP[WIDE.index]
    assert np.mean(right) in (0.0, 1.0) or abs(np.mean(right) - 0.5) > 0.4
    given = table.drop(columns=[f"y[{r}]" for r in range(WIDTH)])
    drawn = np.asarray(fit.model.sample(p, KEY, len(table), given=given))
    np.testing.assert_array_equal(np.isnan(drawn), np.isnan(table.to_numpy()))
    np.testing.assert_array_equal(drawn[:, ::2], table.to_numpy()[:, ::2])


def test_a_long_table_becomes_a_wide_one():
    assert WIDTH == M
    assert list(WIDE.columns) == ["z[0]", "y[0]", "z[1]", "y[1]", "z[2]", "y[2]", "old"]
    # A group of which all rows were left out is not there, one of fewer rows has holes.
    one = WIDE.loc[1]
    assert np.isnan(one["z[1]"])
    assert one["z[0]"] == _Z[1, 2]
    np.testing.assert_allclose(WIDE.loc[7].to_numpy()[:6:2], _Z[7])
    with pytest.raises(ValueError, match="by: no column 'nobody'"):
        jg.repeated(LONG, by="nobody")
    with pytest.raises(ValueError, match="once: 'z' is not alike within the group"):
        jg.repeated(LONG, by="who", once=["z"])
    with pytest.raises(ValueError, match="by: 'who' is missing at row 1"):
        jg.repeated(pd.DataFrame({"who": [1.0, np.nan], "z": 1.0}), by="who")


def test_what_repeats_cannot_be_is_refused():
    fit = functools.partial(jg.fit, key=KEY, n_init=2)
    with pytest.raises(TypeError, match="family: needs a family of single rows"):
        F.Repeated(F.Repeated(F.Poisson(), 2), 2)
    with pytest.raises(ValueError, match="m: must be at least 1"):
        F.Repeated(F.Poisson(), 0)
    model = lambda m, family=LINE: jg.Mixture(F.Repeated(family, m), 2)
    with pytest.raises(ValueError, match=r"found 'z\[2\]', a repeat more"):
        fit(model(2), WIDE.drop(columns="old"))
    with pytest.raises(ValueError, match=r"name\[0\], ..., name\[2\], found none"):
        fit(model(3), LONG)
    with pytest.raises(ValueError, match="needs 2 repeats of as many columns, found 3"):
        fit(model(2, F.Poisson()), COUNTS)
    holes = WIDE.drop(columns="old").assign(**{"z[1]": np.nan})
    holes.iloc[0, 2] = 1.0
    with pytest.raises(ValueError, match=r"found nan at row 2, column 'z\[1\]'; a repeat that is"):
        fit(model(3), holes)
    wrong = COUNTS.copy()
    wrong[4, 1] = 0.5
    with pytest.raises(ValueError, match=r"found 0.5 at row 4, column 1"):
        fit(model(3, F.Poisson()), wrong)


@pytest.mark.turn
def test_gibbs_draws_labels_of_groups():
    prior = {"weights": dist.Dirichlet(jnp.ones(2)), "rates": dist.Gamma(2.0, 0.5)}
    model = jg.Mixture(F.Repeated(F.Poisson(), M), 2, prior=prior)
    fit = jg.fit(model, RAGGED, key=KEY, n_init=4)
    post = jg.sample(
        fit.model, RAGGED, key=KEY, start=fit, method="gibbs", n_draws=300, progress=False
    )
    found = jg.evidence(post, key=KEY)
    smaller = post.draws["rates"].mean(axis=(0, 1))[:, 0]
    np.testing.assert_allclose(np.sort(smaller), np.sort(fit.params.rates[:, 0]), atol=0.3)
    assert np.isfinite(found.log_evidence)
    again = np.asarray(post.replicate(KEY))
    np.testing.assert_array_equal(np.isnan(again), np.broadcast_to(np.isnan(RAGGED), again.shape))


@pytest.mark.turn
def test_gates_stand_around_groups():
    fit, table = _lines(gates=True)
    assert fit.params.gates.shape == (1, 2)
    x = jnp.asarray(np.asarray(fit.model.read(table)[1]))
    value, _ = log_density(fit.model.numpyro_model, (x,), {}, fit.model.sites(fit.params))
    assert fit.log_joint == pytest.approx(float(value), rel=1e-10)
    assert jg.standard_errors(fit, table).table.loc["gates[0, old]"].notna().all()


@pytest.mark.turn
@pytest.mark.parametrize("name", ["gaussian", "bernoulli", "t", "product"])
def test_other_families_have_their_sums(name):
    x = _rng.normal(size=(N, 2 * M)) + 3 * _GROUP[:, None]
    family = {
        "gaussian": jg.Gaussian("VEV"),
        "bernoulli": F.Bernoulli(),
        "t": F.StudentT(),
        "product": F.Product({"a": jg.Gaussian("V"), "b": F.Exponential()}),
    }[name]
    x = {"bernoulli": (x > 1).astype(float), "product": np.abs(x)}.get(name, x)
    x[::4, 4:] = np.nan
    fit = jg.fit(
        jg.Mixture(F.Repeated(family, M), 2, prior="weak"), x, key=KEY, n_init=2, max_iter=30
    )
    plain = jg.Mixture(family, 2, prior="weak").resolve(np.nan_to_num(x[:, :2], nan=1.0))
    inner, rows = fit.model.family.components(fit.params), 0.0
    for r in range(M):
        own = x[:, 2 * r : 2 * r + 2]
        there = ~np.isnan(own[:, 0])
        own = np.where(there[:, None], own, 1.0)
        each = plain.family.look(
            inner, jnp.asarray(own), lambda v, own=own: v.log_density(jnp.asarray(own))
        )
        rows = rows + np.where(there, each, 0)
    whole = logsumexp(np.log(np.asarray(fit.params.weights))[:, None] + rows, axis=0)
    np.testing.assert_allclose(fit.model.log_prob(fit.params, x), whole, rtol=1e-8)
    assert np.min(np.diff(fit.trace)) > -1e-8 * abs(fit.log_joint)


@pytest.mark.turn
@pytest.mark.parametrize("gates", [False, True])
def test_pictures_of_lines_have_a_point_for_each_repeat(gates):
    fit, table = _lines(gates=gates)
    post = jg.sample(
        fit.model, table, key=KEY, start=fit, method="laplace", n_draws=50, progress=False
    )
    (axes,) = jg.report.plot_components(fit, post).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z", "y")
    points = np.asarray(axes.collections[0].get_offsets())
    np.testing.assert_allclose(np.sort(points[:, 0]), np.sort(LONG["z"]))
    for line, (first, slope) in zip(axes.get_lines(), fit.params.coefficients, strict=True):
        np.testing.assert_allclose(line.get_ydata(), first + slope * line.get_xdata())


@pytest.mark.slow
def test_engines_and_reports_take_groups(tmp_path):
    fit, table = _lines()
    for method in ("vb", "laplace", "nuts"):
        post = jg.sample(fit.model, table, key=KEY, start=fit, method=method, progress=False)
        slopes = np.sort(post.draws["coefficients"].mean(axis=(0, 1))[:, 1])
        np.testing.assert_allclose(slopes, np.sort(fit.params.coefficients[:, 1]), atol=0.05)
    jg.compare(fit, post).save(tmp_path / "report")
    assert jg.bootstrap(fit, table, key=KEY, n_replicates=10).draws["weights"].shape == (10, 2)
