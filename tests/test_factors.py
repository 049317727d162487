"""Factor analysers and PPCA: scikit-learn's heights, one density, Heywood cases, many columns."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
from helpers import soft_labels, tree_allclose
from numpyro.distributions import biject_to
from numpyro.infer.util import log_density
from sklearn import decomposition

import jaxgmm as jg
from jaxgmm.model._loadings import LowerTriangular, NormalLoadings, rotated

KEY = jax.random.key(0)
FAMILIES = {"factors": jg.families.FactorAnalyser, "ppca": jg.families.PPCA}


def simulated(n, d, q, seed=0, noise=(0.3, 1.5)):
    """Rows of one component."""
    rng = np.random.default_rng(seed)
    loadings, own = rng.standard_normal((d, q)), rng.uniform(*noise, d)
    factors, rest = rng.standard_normal((n, q)), rng.standard_normal((n, d))
    return factors @ loadings.T + np.sqrt(own) * rest + rng.standard_normal(d)


X = np.concatenate([simulated(60, 6, 2, seed=1), simulated(60, 6, 2, seed=2)])
START = np.repeat(np.eye(2), 60, axis=0) * 0.8 + 0.1


@functools.cache
def fitted(name, prior):
    model = jg.Mixture(FAMILIES[name](2), 2, prior=prior)
    return jg.fit(model, X, start=START, tol=1e-14, max_iter=3000)


# -- the numbers of others -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "d", "q"), [(200, 10, 2), pytest.param(400, 200, 3, marks=pytest.mark.slow)]
)
def test_one_factor_analyser_is_as_high_as_that_of_scikit_learn(n, d, q):
    x = simulated(n, d, q)
    other = decomposition.FactorAnalysis(q, tol=1e-14, max_iter=20000, svd_method="lapack").fit(x)
    fit = jg.fit(jg.Mixture(jg.families.FactorAnalyser(q), 1), x, start=np.ones((n, 1)), tol=1e-13)
    assert fit.converged
    assert fit.n_parameters == 2 * d + d * q - q * (q - 1) // 2
    np.testing.assert_allclose(fit.log_likelihood / n, other.score(x), rtol=0, atol=1e-8)
    np.testing.assert_allclose(fit.params.noise_variances[0], other.noise_variance_, rtol=1e-4)
    covariance = fit.model.family.normals(fit.params).covariances[0]
    np.testing.assert_allclose(covariance, other.get_covariance(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("q", [3, *(pytest.param(q, marks=pytest.mark.slow) for q in (1, 5))])
def test_ppca_is_the_closed_form(q):
    n, d = X.shape
    model = jg.Mixture(jg.families.PPCA(q), 1)
    fit = jg.fit(model, X, start=np.ones((n, 1)))
    assert fit.converged
    assert fit.n_iter <= 2
    values = np.linalg.eigvalsh(np.cov(X.T, bias=True))[::-1]
    noise = values[q:].mean()
    height = np.sum(np.log(values[:q])) + (d - q) * np.log(noise) + d * np.log(2 * np.pi) + d
    np.testing.assert_allclose(fit.log_likelihood, -n / 2 * height, rtol=1e-10)
    np.testing.assert_allclose(fit.params.noise_variances, [noise], rtol=1e-10)
    # scikit-learn's divides by n - 1; its density is ours at its parameters.
    other = decomposition.PCA(q).fit(X)
    gains = np.sqrt(other.explained_variance_ - other.noise_variance_)
    there = model.params(
        means=[other.mean_],
        loadings=[other.components_.T * gains],
        noise_variances=[other.noise_variance_],
    )
    np.testing.assert_allclose(model.log_prob(there, X), other.score_samples(X), rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "k"), [(jg.families.PPCA(2), 2), (jg.families.FactorAnalyser(1), 1)]
)
def test_as_many_factors_as_three_columns_have_are_all_covariances(family, k):
    start = START if k == 2 else np.ones((120, 1))
    fits = [
        jg.fit(jg.Mixture(one, k), X[:, :3], start=start, tol=1e-13, max_iter=3000)
        for one in (family, jg.Gaussian())
    ]
    assert all(fit.converged for fit in fits)
    assert fits[0].n_parameters == fits[1].n_parameters
    np.testing.assert_allclose(*(fit.log_likelihood for fit in fits), rtol=1e-9)


# -- the prior, and rotations ----------------------------------------------------------------------


def _written(x, prior, q, noise_by_column):
    """The mixture written a second time, its covariances as whole matrices."""
    (k,), d = prior.concentration.shape, x.shape[1]
    weights = numpyro.sample("weights", dist.Dirichlet(prior.concentration))
    shape = (k, d) if noise_by_column else (k,)
    gamma = dist.InverseGamma(prior.dof / 2, prior.scale / 2)
    noise = numpyro.sample("noise_variances", gamma.expand(shape).to_event(len(shape)))
    full = noise if noise_by_column else noise[:, None] * jnp.ones(d)
    # All D q loadings are normal, whatever their rotation.
    loadings = numpyro.sample(
        "loadings", dist.ImproperUniform(dist.constraints.real, (), (k, d, q))
    )
    spread = jnp.sqrt(full / prior.mean_precision)[..., None]
    numpyro.factor("of_loadings", jnp.sum(dist.Normal(0, spread).log_prob(loadings)))
    covariances = loadings @ jnp.swapaxes(loadings, 1, 2) + full[..., None] * jnp.eye(d)
    normal = lambda mean, scale: dist.MultivariateNormal(mean, covariances / scale)
    means = numpyro.sample("means", normal(prior.mean, prior.mean_precision).to_event(1))
    logits = jnp.log(weights) + normal(means, 1).log_prob(x[:, None])
    numpyro.factor("x", jnp.sum(jax.nn.logsumexp(logits, axis=1)))


@pytest.mark.parametrize("name", ["factors", pytest.param("ppca", marks=pytest.mark.turn)])
def test_the_prior_is_that_of_all_loadings(name):
    fit = fitted(name, "weak")
    model, by_column = fit.model, name == "factors"

    @jax.jit
    def other(sites):
        return log_density(_written, (jnp.asarray(X), model.prior, 2, by_column), {}, sites)[0]

    np.testing.assert_allclose(other(model.sites(fit.params)), fit.log_joint, rtol=1e-10)
    tree_allclose(model.from_sites(model.sites(fit.params)), fit.params, 0.0)


def test_loadings_have_the_measure_of_all_matrices():
    """The density of normal loadings, up to rotation, integrates to one; so do draws."""
    support = LowerTriangular(2, 2)
    prior, chart = NormalLoadings(jnp.array([0.5, 2.0]), 2), biject_to(support)
    logs, slopes = np.linspace(-12, 5, 171), np.linspace(-9, 9, 61)
    points = np.stack(np.meshgrid(logs, slopes, logs, indexing="ij"), axis=-1)

    @jax.jit
    def mass(points):
        site = chart(points)
        return jnp.sum(jnp.exp(prior.log_prob(site) + chart.log_abs_det_jacobian(points, site)))

    total = mass(points) * (logs[1] - logs[0]) ** 2 * (slopes[1] - slopes[0])
    np.testing.assert_allclose(total, 1, rtol=1e-3)
    drawn = prior.sample(KEY, (4000,))
    assert np.all(support(drawn))
    # A length of two normal numbers of variance 0.5, and what is left of one.
    np.testing.assert_allclose(np.mean(drawn[:, 0, 0] ** 2), 2 * 0.5, rtol=0.1)
    np.testing.assert_allclose(np.mean(drawn[:, 1, 1] ** 2), 2.0, rtol=0.1)
    np.testing.assert_allclose(chart(chart.inv(drawn)), drawn, atol=1e-12)


def test_a_rotation_changes_nothing():
    rng = np.random.default_rng(3)
    loadings, (turn, _) = rng.standard_normal((2, 6, 3)), np.linalg.qr(rng.standard_normal((3, 3)))
    model = jg.Mixture(jg.families.FactorAnalyser(3), 2)
    own = {"means": rng.standard_normal((2, 6)), "noise_variances": rng.uniform(0.5, 1, (2, 6))}
    here, there = (model.params(loadings=one, **own) for one in (loadings, loadings @ turn))
    tree_allclose(here, there, 1e-10, 1e-12)
    assert np.all(LowerTriangular(6, 3)(here.loadings))
    covariances = loadings @ np.swapaxes(loadings, 1, 2) + own["noise_variances"][
        ..., None
    ] * np.eye(6)
    derived = model.derived_sites(here)
    np.testing.assert_allclose(derived["covariances_full"], covariances, rtol=1e-12, atol=1e-12)
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    np.testing.assert_allclose(derived["communalities"], 1 - own["noise_variances"] / variances)
    dense = jg.Mixture(jg.Gaussian(), 2)
    as_gaussian = dense.params(means=own["means"], covariances=covariances)
    x = jnp.asarray(X)
    np.testing.assert_allclose(model.log_prob(here, x), dense.log_prob(as_gaussian, x), rtol=1e-10)
    np.testing.assert_allclose(rotated(rotated(jnp.asarray(loadings))), here.loadings, atol=1e-12)
    drawn = np.asarray(model.sample(here, KEY, 4000))
    mean = own["means"].mean(axis=0)
    assert np.all(np.abs(drawn.mean(axis=0) - mean) < 5 * drawn.std(axis=0) / np.sqrt(4000))
    between = 0.25 * np.outer(*[own["means"][0] - own["means"][1]] * 2)
    np.testing.assert_allclose(np.cov(drawn.T), covariances.mean(axis=0) + between, atol=0.5)


# -- edges -----------------------------------------------------------------------------------------


def heywood():
    rng = np.random.default_rng(2)
    return rng.standard_normal((40, 2)) @ rng.standard_normal((2, 6)) + rng.standard_normal((40, 6))


@pytest.mark.turn
def test_a_noise_variance_of_zero_is_a_boundary():
    x, start = heywood(), np.ones((40, 1))
    fit = jg.fit(jg.Mixture(jg.families.FactorAnalyser(2), 1), x, start=start)
    assert fit.converged
    share = 1 - np.asarray(fit.model.derived_sites(fit.params)["communalities"])
    zero = share < 1e-5
    assert zero.sum() == 2
    errors = jg.standard_errors(fit, x)
    assert errors.n_boundary == 2
    assert errors.definite
    assert np.all((errors.standard_errors["noise_variances"] == 0) == zero)
    assert np.all(np.isfinite(errors.standard_errors["communalities"]))
    # scikit-learn gets there step by step.
    other = decomposition.FactorAnalysis(2, tol=1e-5, max_iter=5000, svd_method="lapack").fit(x)
    np.testing.assert_allclose(fit.log_likelihood, 40 * other.score(x), rtol=0, atol=0.02)
    assert fit.log_likelihood > 40 * other.score(x)
    # One more than there are factors, and the covariance is singular.
    noise = jnp.full((1, 6), 1.0).at[0, :3].set(1e-12)
    several = dataclasses.replace(fit.params, own={**fit.params.own, "noise_variances": noise})
    assert bool(fit.model.collapsed(several))
    assert not bool(fit.model.collapsed(fit.params))
    weak = jg.fit(jg.Mixture(jg.families.FactorAnalyser(2), 1, prior="weak"), x, start=start)
    assert np.all(1 - np.asarray(weak.model.derived_sites(weak.params)["communalities"]) > 0.01)
    assert jg.standard_errors(weak, x).n_boundary == 0


def test_rounding_beside_a_noise_variance_of_zero_is_no_fall():
    """The M-step cannot be better than second moments in units of the noise, here 1e8."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((60, 2)) @ rng.standard_normal((2, 5)) + 0.7 * rng.normal(size=(60, 5))
    model = jg.Mixture(jg.families.FactorAnalyser(2), 2)
    tight = jg.fit(model, x, start=soft_labels(len(x), 2), tol=1e-14, max_iter=5000)
    assert tight.converged
    fit = jg.fit(model, x, start=soft_labels(len(x), 2))
    assert fit.converged
    assert np.min(1 - np.asarray(fit.model.derived_sites(fit.params)["communalities"])) < 1e-5


@pytest.mark.turn
@pytest.mark.parametrize("seed", [7, 9, 12])
def test_steps_that_rounding_makes_are_no_saddle(seed):
    """They shrink no more, and grow as often, though nothing lies higher."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((60, 2)) @ rng.standard_normal((2, 5)) + 0.7 * rng.normal(size=(60, 5))
    model = jg.Mixture(jg.families.FactorAnalyser(2), 2)
    plain = jg.fit(model, x, start=soft_labels(len(x), 2))
    tight = jg.fit(model, x, start=soft_labels(len(x), 2), tol=1e-14, max_iter=5000)
    for fit in (plain, tight):
        assert fit.converged
        assert fit.rate < 1
    assert tight.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-5)


def test_components_without_rows_collapse():
    given = np.zeros((120, 2))
    given[:, 0] = 1
    with pytest.raises(ValueError, match=r"lost its rows, or its noise vanished"):
        jg.fit(jg.Mixture(jg.families.FactorAnalyser(2), 2), X, start=given)


def test_doors():
    analyser = jg.families.FactorAnalyser
    with pytest.raises(ValueError, match="n_factors: must be at least 1, found 0"):
        analyser(0)
    fit = lambda family, x, **more: jg.fit(jg.Mixture(family, 1, **more), x, key=KEY)
    with pytest.raises(ValueError, match=r"n_factors: 4 columns tell at most 1 factor\(s\)"):
        fit(analyser(2), X[:, :4])
    with pytest.raises(ValueError, match=r"n_factors: 6 columns tell at most 5 factor\(s\)"):
        fit(jg.families.PPCA(6), X)
    with pytest.raises(ValueError, match="3 rows lie on a plane of 2 factors"):
        fit(analyser(2), X[:3])
    with pytest.raises(ValueError, match="column 0 is constant"):
        fit(analyser(2), X * (np.arange(6) > 0))
    with pytest.raises(ValueError, match="has no scale for column 0, which is constant"):
        fit(analyser(2), X * (np.arange(6) > 0), prior="weak")
    with pytest.raises(TypeError, match=r'takes None, "weak" or a ConjugatePrior, found a dict'):
        fit(analyser(2), X, prior={"means": dist.Normal(0, 1)})
    other = jg.ConjugatePrior(mean=np.zeros(6), mean_precision=0.1, dof=3.0, scale=np.ones(3))
    with pytest.raises(ValueError, match=r"prior: scale needs one number or shape \(6,\)"):
        fit(analyser(2), X, prior=other)
    with pytest.raises(ValueError, match="prior: dof must be positive"):
        fit(jg.families.PPCA(2), X, prior=dataclasses.replace(other, dof=-1.0, scale=1.0))
    with pytest.raises(ValueError, match="non-finite value nan"):
        fit(analyser(2), np.where(np.arange(6) == 1, np.nan, X))
    for method in ("gibbs", "vb"):
        with pytest.raises(ValueError, match="update no prior of FactorAnalyser"):
            jg.sample(fitted("factors", "weak").model, X, key=KEY, method=method, progress=False)
    model = jg.Mixture(analyser(2), 1)
    own = {
        "means": np.zeros((1, 6)),
        "loadings": np.ones((1, 6, 2)),
        "noise_variances": np.ones((1, 6)),
    }
    with pytest.raises(ValueError, match=r"loadings: needs shape \(1, 6, 2\), found \(1, 6, 3\)"):
        model.params(**{**own, "loadings": np.ones((1, 6, 3))})
    with pytest.raises(ValueError, match="noise_variances: must be positive"):
        model.params(**{**own, "noise_variances": np.zeros((1, 6))})


def test_names_files_and_formulas(tmp_path):
    fit = fitted("factors", "weak")
    table = jg.standard_errors(fit, X).table
    assert "loadings[1, x1, 1]" in table.index
    assert "loadings[1, x0, 1]" not in table.index  # zero by definition
    assert np.all(table["standard_error"] > 0)
    kept = jg.load(fit.save(tmp_path / "fit.npz"))
    tree_allclose((kept.model, kept.params), (fit.model, fit.params), 0.0)
    again = eval(fit.model.describe().code(2), {"jg": jg})
    tree_allclose(again.resolve(X).prior, fit.model.prior, 0.0)
    assert again.family == jg.families.FactorAnalyser(2)
    lines = fit.model.describe().formulas
    assert "up to rotation" in "".join(lines)
    assert "Wishart" not in "".join(lines)


# -- many columns, small numbers, samplers -------------------------------------------------------


@pytest.mark.turn
@pytest.mark.parametrize(("d", "n"), [(10, 150), pytest.param(200, 200, marks=pytest.mark.slow)])
def test_two_components_are_found(d, n):
    x = np.concatenate([simulated(n, d, 2, seed=s) for s in (3, 4)])
    truth = np.repeat([0, 1], n)
    fit = jg.fit(jg.Mixture(jg.families.FactorAnalyser(2), 2, prior="weak"), x, key=KEY, n_init=4)
    assert fit.converged
    found = np.asarray(fit.model.predict(fit.params, x))
    assert max(np.mean(found == truth), np.mean(found != truth)) > 0.97
    order = np.argsort([np.mean(truth[found == k]) for k in (0, 1)])
    for k, seed in zip(order, (3, 4), strict=True):
        rng = np.random.default_rng(seed)
        loadings, own = rng.standard_normal((d, 2)), rng.uniform(0.3, 1.5, d)
        noise = np.asarray(fit.params.noise_variances[k])
        assert np.corrcoef(noise, own)[0, 1] > 0.8
        covariance = loadings @ loadings.T
        near = np.asarray(fit.params.loadings[k]) @ np.asarray(fit.params.loadings[k]).T
        assert np.linalg.norm(near - covariance) < 0.35 * np.linalg.norm(covariance)


@pytest.mark.slow
@pytest.mark.parametrize("acceleration", ["anderson", "squarem"])
@pytest.mark.parametrize("name", FAMILIES)
def test_acceleration_ends_at_the_same_height(name, acceleration):
    model = jg.Mixture(FAMILIES[name](2), 2, prior="weak")
    fit = jg.fit(model, X, start=START, tol=1e-12, acceleration=acceleration)
    assert fit.converged
    np.testing.assert_allclose(fit.log_joint, fitted(name, "weak").log_joint, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["nuts", "laplace", "smc", "svi"])
@pytest.mark.parametrize("name", FAMILIES)
def test_samplers_and_their_verdict(name, method, tmp_path):
    fit = fitted(name, "weak")
    options = {"start": fit, "progress": False, "n_draws": 400}
    errors = jg.standard_errors(fit, X)
    post = jg.sample(fit.model, X, key=KEY, method=method, **options)
    assert np.all(np.isfinite(post.summary()["mean"].to_numpy(float)))
    if method == "nuts":
        spread = post.draws["communalities"].std(axis=(0, 1))
        ratio = spread / errors.standard_errors["communalities"]
        assert 0.7 < np.median(ratio) < 1.4
        drawn = jg.report.plot_communalities(fit, post).axes[0]
        points = np.concatenate([line.get_ydata() for line in drawn.lines])
        shares = fit.model.derived_sites(fit.params)["communalities"]
        np.testing.assert_allclose(points, np.ravel(shares))
        verdict = jg.compare(fit, post)
        assert verdict.checks.loc["Newton decrement (sd)", "verdict"] == "ok"
        assert verdict.checks["verdict"].loc["same target (relative gap)"] == "ok"
        assert verdict.save(tmp_path / "report").exists()
        assert (tmp_path / "report" / "communalities.png").exists()


@pytest.mark.slow
def test_parts_of_products_a_background_and_select():
    rng = np.random.default_rng(0)
    codes = (rng.random((120, 1)) < START[:, :1]).astype(float)
    names = tuple("abcdef")
    x = pd.DataFrame(np.concatenate([X, codes], axis=1), columns=[*names, "code"])
    family = jg.families.Product(
        {names: jg.families.FactorAnalyser(2), "code": jg.families.Bernoulli()}
    )
    fit = jg.fit(jg.Mixture(family, 2, prior="weak"), x, start=START)
    assert fit.converged
    model = jg.Mixture(jg.families.PPCA(2), 3, prior="weak", background=jg.Uniform())
    assert jg.fit(model, X, key=KEY, n_init=2).converged
    models = [jg.Mixture(jg.families.FactorAnalyser(q), k) for q in (1, 2) for k in (1, 2)]
    choice = jg.select(models, X, key=KEY, n_init=2, progress=False)
    assert choice.best.model.n_components == 2
    assert choice.table["structure"].tolist() == ["FactorAnalyser 1"] * 2 + ["FactorAnalyser 2"] * 2
