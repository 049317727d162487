"""A background beside the components: one density, one label of its own, in every engine."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from enumeration import PRIOR, X, one_component
from helpers import soft_labels
from numpyro.infer.util import log_density
from scipy import stats
from scipy.special import gammaln, logsumexp

import jaxgmm as jg
from jaxgmm.report.plots._gaussians import Gaussians

KEY = jax.random.key(0)
F = jg.families
# An estimate misses by so many of its errors once in 15,000 keys.
SIGMAS = 4.0


def _cloud(n=60, outliers=12, d=2, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [
            rng.normal(0, 1, (n, d)),
            rng.normal(6, 0.7, (n, d)),
            rng.uniform(-12, 18, (outliers, d)),
        ]
    )


CLOUD = _cloud()
LOW, HIGH = CLOUD.min(axis=0), CLOUD.max(axis=0)


@functools.cache
def the_fit(prior="weak"):
    model = jg.Mixture(jg.Gaussian(), 3, prior=prior, background=jg.Uniform())
    return jg.fit(model, CLOUD, key=KEY, n_init=4)


# -- the definition ------------------------------------------------------------------------------


def test_its_density_is_one_over_the_volume_of_the_data():
    fit = the_fit()
    w, means, covariances = (
        np.asarray(getattr(fit.params, name)) for name in ("weights", "means", "covariances")
    )
    parts = [
        stats.multivariate_normal(m, c).pdf(CLOUD) for m, c in zip(means, covariances, strict=True)
    ]
    whole = w[:2] @ np.array(parts) + w[2] / np.prod(HIGH - LOW)
    np.testing.assert_allclose(fit.model.log_prob(fit.params, CLOUD), np.log(whole), rtol=1e-10)
    assert fit.converged
    assert 0.05 < w[2] < 0.2
    outlying = fit.model.responsibilities(fit.params, CLOUD)[:, 2]
    np.testing.assert_allclose(outlying, w[2] / np.prod(HIGH - LOW) / whole, rtol=1e-8)
    # Beyond the box only components are left.
    beyond = np.array([19.0, 0.0])
    normal = [stats.multivariate_normal(means[k], covariances[k]).logpdf(beyond) for k in (0, 1)]
    there = fit.model.log_prob(fit.params, beyond[None])
    np.testing.assert_allclose(there, logsumexp(np.log(w[:2]) + normal), rtol=1e-10)


def test_numpyro_has_the_same_number_under_distributions_by_site():
    sites = {
        "weights": dist.Dirichlet(jnp.array([2.0, 3.0, 1.5])),
        "means": dist.Normal(0, 5),
        "scales": dist.HalfNormal(jnp.array([[1.0], [2.0]])),
        "correlations": dist.LKJ(2, 2.0),
    }
    model = jg.Mixture(jg.Gaussian(), 3, prior=sites, background=jg.Uniform()).resolve(CLOUD)
    params = model.params(
        weights=[0.3, 0.5, 0.2],
        means=[[0.0, 1.0], [5.0, 5.0]],
        covariances=[[[1.0, 0.2], [0.2, 2.0]], [[2.0, 0.3], [0.3, 1.0]]],
    )
    x = jnp.asarray(CLOUD)
    value, _ = log_density(model.numpyro_model, (x,), {}, model.sites(params))
    np.testing.assert_allclose(model.log_joint(params, x), value, rtol=1e-10)


def _reference_em(x, responsibilities, weight, steps):
    """Two normals and a constant by EM in NumPy, written apart."""
    volume = np.prod(x.max(axis=0) - x.min(axis=0))
    for _ in range(steps):
        r = responsibilities * weight[:, None]
        counts = r.sum(axis=0)
        means = r[:, :-1].T @ x / counts[:-1, None]
        apart = x[:, None] - means
        covariances = np.einsum("nk,nki,nkj->kij", r[:, :-1], apart, apart)
        covariances /= counts[:-1, None, None]
        shares = counts / counts.sum()
        normal = [
            stats.multivariate_normal.logpdf(x, *p) for p in zip(means, covariances, strict=True)
        ]
        logits = np.log(shares)[:, None] + np.array([*normal, np.full(len(x), -np.log(volume))])
        total = logsumexp(logits, axis=0)
        responsibilities = np.exp(logits - total).T
    return shares, means, covariances, weight @ total


def test_em_is_that_of_a_reference_in_numpy():
    start, weight, steps = soft_labels(len(CLOUD), 3, 5), np.arange(len(CLOUD)) % 3 + 0.5, 15
    model = jg.Mixture(jg.Gaussian(), 3, background=jg.Uniform())
    fit = jg.fit(model, CLOUD, start=start, sample_weight=weight, max_iter=steps - 1, tol=0.0)
    shares, means, covariances, height = _reference_em(CLOUD, start, weight, steps)
    np.testing.assert_allclose(fit.log_likelihood, height, rtol=1e-10)
    np.testing.assert_allclose(fit.params.weights, shares, rtol=1e-8)
    np.testing.assert_allclose(fit.params.means, means, rtol=1e-8)
    np.testing.assert_allclose(fit.params.covariances, covariances, rtol=1e-8)


NUMBERS = F.Product({"a": jg.Gaussian("V"), "b": F.StudentT("E")})
BESIDE = {
    "EII": (jg.Gaussian("EII"), CLOUD),
    "VEV": (jg.Gaussian("VEV"), CLOUD),
    "t": (F.StudentT(), CLOUD),
    "product": (NUMBERS, CLOUD),
    "gamma": (F.Gamma(), np.exp(CLOUD / 6)),
    "poisson": (F.Poisson(), np.round(np.abs(CLOUD))),
    "categorical": (F.Categorical(3), np.round(np.abs(CLOUD)) % 3),
}
BESIDE |= {
    code: (jg.Gaussian(code), CLOUD) for code in jg.model.STRUCTURES if code not in ("EII", "VEV")
}
FAST = ("EII", "poisson")


@pytest.mark.turn
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in BESIDE]
)
def test_beside_any_family(name):
    """Against the components alone: their densities, and a step of EM under known labels."""
    family, x = BESIDE[name]
    prior = "weak" if family.rules else None
    model = jg.Mixture(family, 3, prior=prior, background=jg.Uniform())
    fit = jg.fit(model, x, key=KEY, n_init=2, max_iter=200)
    fit_of_components = dataclasses.replace(
        jg.Mixture(family, 2, prior=prior).resolve(x), weights=None
    )
    assert np.min(np.diff(fit.trace)) > -1e-8 * abs(fit.log_joint)
    w = np.asarray(fit.params.weights)
    components = fit.model.family.components(fit.params)
    own = fit_of_components.log_prob(components, x) + np.log(w[:2].sum())
    whole = name in ("poisson", "categorical")
    sides = np.ptp(x, axis=0) + whole
    flat = np.log(w[2]) - np.log(sides).sum()
    rows = np.logaddexp(own, flat)
    np.testing.assert_allclose(fit.model.log_prob(fit.params, x), rows, rtol=1e-9)
    drawn = np.asarray(fit.model.sample(fit.params, KEY, 50))
    assert drawn.shape == (50, 2)
    assert np.all(drawn == np.round(drawn)) or not whole


def test_counts_have_masses_that_sum_to_one():
    model = jg.Mixture(F.Poisson(), 2, background=jg.Uniform(low=2, high=[6, 4]))
    model = model.resolve(np.array([[2.0, 3.0], [6.0, 4.0]]))
    params = model.params(weights=[0.4, 0.6], rates=[[3.0, 2.0]])
    grid = np.array(list(itertools.product(range(60), range(60))), float)
    assert float(np.exp(model.log_prob(params, grid)).sum()) == pytest.approx(1.0, abs=1e-9)
    drawn = np.asarray(model.sample(params, KEY, 2000))
    labels = model.responsibilities(params, drawn)[:, 1]
    assert float(labels.mean()) == pytest.approx(0.6, abs=0.05)


@pytest.mark.turn
def test_a_missing_value_is_integrated_out():
    x = CLOUD.copy()
    x[::5, 0] = np.nan
    x[3] = np.nan
    model = jg.Mixture(jg.Gaussian(), 3, prior="weak", background=jg.Uniform())
    fit = jg.fit(model, x, key=KEY, n_init=4)
    low, high = np.nanmin(x, axis=0), np.nanmax(x, axis=0)
    w, p = np.asarray(fit.params.weights), fit.params
    rows = fit.model.log_prob(p, x)
    assert rows[3] == pytest.approx(0.0, abs=1e-12)
    normal = [
        stats.norm(p.means[k, 1], np.sqrt(p.covariances[k, 1, 1])).pdf(x[5, 1]) for k in (0, 1)
    ]
    assert rows[5] == pytest.approx(np.log(w[:2] @ normal + w[2] / (high - low)[1]))
    filled = np.asarray(fit.impute(x))
    np.testing.assert_array_equal(filled[~np.isnan(x)], x[~np.isnan(x)])
    assert np.all(np.isfinite(filled))
    empty = np.full((4000, 2), np.nan)
    empty[0] = x[0]
    draws = np.asarray(fit.model.impute(p, empty, KEY))[1:]
    outlying = np.asarray(fit.model.responsibilities(p, draws)[:, 2])
    assert outlying.mean() == pytest.approx(w[2], abs=0.02)
    expected = w[:2] @ np.asarray(p.means) + w[2] * (low + high) / 2
    np.testing.assert_allclose(filled[3], expected, rtol=1e-8)


# -- its label -----------------------------------------------------------------------------------


def test_its_label_keeps_its_name():
    model = the_fit().model
    assert model.label_groups == (0, 0, 1)
    assert model.describe().label_groups == (0, 0, 1)
    assert "3, 2 of which may be renamed" in repr(model.describe())
    renamed = model.permute(the_fit().params, np.array([1, 0, 2]))
    np.testing.assert_array_equal(renamed.means, the_fit().params.means[::-1])
    before = model.log_prob(the_fit().params, CLOUD)
    np.testing.assert_allclose(model.log_prob(renamed, CLOUD), before, rtol=1e-12)
    with pytest.raises(ValueError, match=r"order: labels may be renamed within .* \(0, 0, 1\)"):
        model.permute(the_fit().params, np.array([2, 0, 1]))


@functools.cache
def _exact():
    """Log evidence and the mean count of the background, over all assignments of `X`."""
    prior, volume, k = PRIOR, 12.0**2, 3
    logs, counts = [], []
    for labels in itertools.product(range(k), repeat=len(X)):
        z = np.array(labels)
        count = np.bincount(z, minlength=k)
        after = prior.concentration + count
        log_p = sum(one_component(X[z == j], prior) for j in range(k - 1))
        log_p += np.sum(gammaln(after) - gammaln(prior.concentration)) - count[-1] * np.log(volume)
        log_p += gammaln(k * prior.concentration) - gammaln(np.sum(after))
        logs.append(log_p)
        counts.append(count[-1])
    total = logsumexp(logs)
    return total, float(np.exp(np.array(logs) - total) @ counts)


@functools.cache
def _few(method, **options):
    model = jg.Mixture(jg.Gaussian(), 3, prior=PRIOR, background=jg.Uniform(-4.0, 8.0))
    fit = jg.fit(model, X, key=KEY, n_init=4)
    return jg.sample(
        fit.model, X, key=jax.random.key(1), start=fit, method=method, progress=False, **options
    )


@pytest.mark.turn
def test_gibbs_and_its_bridge_are_the_sum_over_all_assignments():
    log_evidence, count = _exact()
    post = _few("gibbs", n_draws=1000)
    assert np.all(post.labels[..., 2] == 2)
    drawn = post.draws["weights"][..., 2]
    mean = (PRIOR.concentration + count) / (3 * PRIOR.concentration + len(X))
    assert drawn.mean() == pytest.approx(mean, abs=0.01)
    found = jg.evidence(post, key=jax.random.key(2))
    assert abs(found.log_evidence - log_evidence) < SIGMAS * found.error < 0.03


@pytest.mark.slow
def test_the_variational_bound_is_one():
    """Of two labellings, not six: the background has a name."""
    vb = _few("vb", n_draws=100)
    assert -2 < vb.diagnostics["elbo"] + np.log(2) - _exact()[0] < 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["laplace", "smc", "nuts"])
def test_other_engines_are_the_same_sum(method):
    log_evidence, count = _exact()
    post = _few(method)
    found = post.evidence or jg.evidence(post, key=jax.random.key(2))
    assert abs(found.log_evidence - log_evidence) < SIGMAS * found.error < 0.5
    mean = (PRIOR.concentration + count) / (3 * PRIOR.concentration + len(X))
    if method != "laplace":
        assert post.draws["weights"][..., 2].mean() == pytest.approx(mean, abs=0.015)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["ecr", "pivot", "ordering", "data-based"])
def test_every_rule_leaves_it_alone(rule):
    post = _few("gibbs", n_draws=1000)
    again = post.relabel(rule, **({"by": "means"} if rule == "ordering" else {}))
    assert np.all(again.labels[..., 2] == 2)


# -- health --------------------------------------------------------------------------------------


@pytest.mark.turn
def test_without_outliers_it_is_on_an_edge_and_no_collapse():
    x = np.asarray(jg.datasets.load("faithful").x)
    plain = jg.fit(jg.Mixture(jg.Gaussian(), 2), x, key=KEY, n_init=4)
    wide = jg.Uniform(low=[-1e8, -1e8], high=1e8)
    fit = jg.fit(jg.Mixture(jg.Gaussian(), 3, background=wide), x, key=KEY, n_init=4)
    assert fit.converged
    assert fit.n_empty == 0
    assert 0 < fit.params.weights[2] < 1e-12
    assert fit.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-9)
    found, known = (jg.standard_errors(one, x) for one in (fit, plain))
    assert "1 parameter lies on the boundary" in found.status
    order = np.argsort(np.asarray(fit.params.weights[:2])), np.argsort(plain.params.weights)
    np.testing.assert_allclose(
        found.standard_errors["means"][order[0]],
        known.standard_errors["means"][order[1]],
        rtol=1e-5,
    )


def test_what_it_cannot_be_it_refuses():
    with pytest.raises(TypeError, match=r"background: needs a jaxgmm\.Uniform, found 3"):
        jg.Mixture(jg.Gaussian(), 2, background=3)
    with pytest.raises(ValueError, match="n_components: counts the background too"):
        jg.Mixture(jg.Gaussian(), 1, background=jg.Uniform())
    with pytest.raises(ValueError, match="needs both low and high"):
        jg.Uniform(low=0.0)
    with pytest.raises(ValueError, match="low below high"):
        jg.Uniform(low=1.0, high=[2.0, 0.0])
    fit = functools.partial(jg.fit, key=KEY, n_init=2)
    model = functools.partial(jg.Mixture, jg.Gaussian(), 3, prior="weak")
    with pytest.raises(ValueError, match=r"background: .* at row \d+, column 1, is outside"):
        fit(model(background=jg.Uniform([-50.0, -1.0], 50.0)), CLOUD)
    with pytest.raises(ValueError, match="background: low needs a number for each of 2"):
        fit(model(background=jg.Uniform([0.0] * 3, [1.0] * 3)), CLOUD)
    with pytest.raises(ValueError, match="background: column 1 is 2 everywhere"):
        fit(model(background=jg.Uniform()), np.stack([CLOUD[:, 0], np.full(len(CLOUD), 2.0)], 1))
    with pytest.raises(ValueError, match=r"background: column 0 is of Multinomial"):
        fit(jg.Mixture(F.Multinomial(), 3, background=jg.Uniform()), np.ones((9, 2)))
    unknown = jg.Mixture(jg.Gaussian(), 3, background=jg.Uniform())
    with pytest.raises(ValueError, match="its box is that of the data: call"):
        unknown.log_prob(the_fit().params, CLOUD)
    wrong = {
        "weights": dist.Dirichlet(np.ones(2)),
        "means": dist.Normal(),
        "scales": dist.Gamma(2.0),
    }
    with pytest.raises(ValueError, match=r"prior: .*weights.* has shape"):
        fit(jg.Mixture(jg.Gaussian("VII"), 3, prior=wrong, background=jg.Uniform()), CLOUD)


# -- units, files and streams ----------------------------------------------------------------------


@pytest.mark.turn
def test_it_moves_with_the_data_and_keeps_float32():
    start = soft_labels(len(CLOUD), 3, 5)
    model = jg.Mixture(jg.Gaussian(), 3, prior="weak", background=jg.Uniform())
    run = functools.partial(jg.fit, model, start=start, max_iter=30, tol=0.0)
    here, there = run(CLOUD), run(CLOUD * [3.0, 0.1] + 1e6)
    np.testing.assert_allclose(here.params.weights, there.params.weights, rtol=1e-7)
    moved = here.log_likelihood - len(CLOUD) * np.log(0.3)
    assert there.log_likelihood == pytest.approx(moved, abs=1e-5)
    single = run(CLOUD.astype(np.float32))
    assert single.params.means.dtype == np.float32
    assert single.log_likelihood == pytest.approx(here.log_likelihood, rel=1e-5)
    far = run((CLOUD + 1e4).astype(np.float32))
    np.testing.assert_allclose(far.params.weights, here.params.weights, atol=1e-2)


def test_files_keep_it(tmp_path):
    the_fit().save(tmp_path / "fit.npz")
    found = jg.load(tmp_path / "fit.npz")
    assert repr(found.model) == repr(the_fit().model)
    rows = (one.model.log_prob(one.params, CLOUD) for one in (found, the_fit()))
    np.testing.assert_array_equal(*rows)


@pytest.mark.slow
def test_a_stream_needs_a_box():
    rows = jg.stream(lambda: iter([CLOUD[:70], CLOUD[70:]]))
    model = jg.Mixture(jg.Gaussian(), 3, prior=PRIOR, background=jg.Uniform(LOW, HIGH))
    streamed = jg.fit(model, rows, key=KEY, n_init=4)
    assert streamed.log_joint == pytest.approx(
        jg.fit(model, CLOUD, key=KEY, n_init=4).log_joint, abs=1e-6
    )
    with pytest.raises(ValueError, match="background: the box of a stream is not known"):
        jg.fit(dataclasses.replace(model, background=jg.Uniform()), rows, key=KEY, n_init=4)


def test_a_larger_model_has_one_component_more():
    larger = dataclasses.replace(the_fit().model, n_components=4)
    assert larger.label_groups == (0, 0, 0, 1)
    assert larger.family.uniform.known


@pytest.mark.slow
def test_criteria_tests_and_resampling_know_it():
    models = [jg.Mixture(jg.Gaussian(), k, background=jg.Uniform()) for k in (2, 3, 4)]
    models.append(jg.Mixture(jg.Gaussian(), 2))
    choice = jg.select(models, CLOUD, key=KEY, n_init=4, criteria=("bic", "elbo"))
    assert choice.best.model.n_components == 3
    boot = jg.bootstrap(the_fit(None), CLOUD, key=KEY, n_replicates=30)
    assert boot.unmatched < 0.2
    assert np.std(boot.draws["weights"][:, 2]) < 0.1
    test = jg.bootstrap_lrt(models[0], CLOUD, key=KEY, n_replicates=19, n_init=4)
    assert test.p_value == pytest.approx(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 3])
def test_reports_show_it(tmp_path, d):
    x = _cloud(d=d)
    model = jg.Mixture(jg.Gaussian(), 3, prior="weak", background=jg.Uniform())
    fit = jg.fit(model, x, key=KEY, n_init=4)
    post = jg.sample(fit.model, x, key=KEY, start=fit, method="gibbs", n_draws=200, progress=False)
    verdict = jg.compare(fit, post)
    assert "weights[background]" in verdict.table.index
    verdict.save(tmp_path / "report")
    assert (tmp_path / "report" / "background.png").exists()
    page = (tmp_path / "report" / "report.html").read_text()
    assert "background=jg.Uniform(low=" in page
    assert "uniform(box)" in page


def test_its_picture_needs_a_background():
    plain = jg.fit(jg.Mixture(jg.Gaussian("EII"), 1), CLOUD, n_init=1, start="hierarchical")
    with pytest.raises(ValueError, match=r"plot_background: .* has no background"):
        jg.report.plot_background(plain, None)


def test_pictures_have_its_density_too():
    fit = the_fit()
    drawn = Gaussians.of(fit.model, fit.params)
    heights = drawn.densities(CLOUD).sum(axis=0)
    np.testing.assert_allclose(np.log(heights), fit.model.log_prob(fit.params, CLOUD), rtol=1e-9)
    rows = drawn.rows(np.random.default_rng(0), 20_000)
    labels = np.asarray(fit.model.responsibilities(fit.params, rows)).mean(axis=0)
    np.testing.assert_allclose(labels, fit.params.weights, atol=0.01)
    of_one = drawn.of_features([1]).densities(np.linspace(-30, 40, 20_000)[:, None]).sum(axis=0)
    assert of_one.sum() * 70 / 20_000 == pytest.approx(1.0, abs=1e-3)
