"""t components: the height that SciPy finds, light tails at the boundary, weights of outliers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from helpers import STRUCTURE_OF, tree_allclose
from numpyro.infer.util import log_density
from scipy import optimize, stats
from scipy.special import logsumexp

import jaxgmm as jg

KEY = jax.random.key(0)
_rng = np.random.default_rng(0)
_GROUP = _rng.random(200) < 0.4
X = np.where(
    _GROUP[:, None],
    _rng.standard_t(3, (200, 2)),
    [6, 3] + _rng.standard_t(5, (200, 2)) * [1, 2],
)
START = np.where(_GROUP[:, None], [0.9, 0.1], [0.1, 0.9])


@functools.cache
def fitted(structure="full", prior=None):
    model = jg.Mixture(jg.families.StudentT(structure), 2, prior=prior)
    return jg.fit(model, X, start=START, tol=1e-13, max_iter=3000)


def _parts(params, k):
    own = params.own
    return np.asarray(own["locations"][k]), np.asarray(own["scale_matrices"][k]), own["dof"][k]


def test_the_height_is_that_of_a_direct_maximisation():
    fit = fitted()
    assert fit.converged
    assert fit.n_parameters == 13

    def height(v):
        shares, terms = np.exp([v[0], 0.0]), []
        for k, share in enumerate(shares / shares.sum()):
            location, (a, b, c, log_dof) = v[1 + 6 * k : 3 + 6 * k], v[3 + 6 * k : 7 + 6 * k]
            factor = np.array([[np.exp(a), 0], [b, np.exp(c)]])
            of_rows = stats.multivariate_t(location, factor @ factor.T, np.exp(log_dof))
            terms.append(np.log(share) + of_rows.logpdf(X))
        return -logsumexp(terms, axis=0).sum()

    weights = np.asarray(fit.params.weights)
    here = [np.log(weights[0] / weights[1])]
    for k in range(2):
        location, matrix, dof = _parts(fit.params, k)
        factor = np.linalg.cholesky(matrix)
        here += [*location, np.log(factor[0, 0]), factor[1, 0], np.log(factor[1, 1]), np.log(dof)]
    np.testing.assert_allclose(height(np.array(here)), -fit.log_likelihood, rtol=1e-10)
    found = optimize.minimize(height, np.array(here) + 0.05, method="BFGS", options={"gtol": 1e-7})
    np.testing.assert_allclose(found.fun, -fit.log_likelihood, rtol=1e-9)
    np.testing.assert_allclose(found.x, here, atol=1e-5)


def test_outliers_count_less():
    fit = fitted()
    params = fit.params
    labels = np.asarray(fit.model.responsibilities(params, X))
    wanted = np.zeros(len(X))
    for k in range(2):
        location, matrix, dof = _parts(params, k)
        apart = X - location
        distance = np.einsum("ni,ij,nj->n", apart, np.linalg.inv(matrix), apart)
        wanted += labels[:, k] * (dof + 2) / (dof + distance)
    found = fit.model.row_weights(params, X)
    np.testing.assert_allclose(found, wanted, rtol=1e-8)
    far = X.copy()
    far[0] = 100.0
    assert fit.model.row_weights(params, far)[0] < 0.01
    normal = jg.Mixture(jg.Gaussian(), 1)
    one = normal.params(means=[[0.0]], covariances=[[[1.0]]])
    np.testing.assert_array_equal(normal.row_weights(one, jnp.ones((3, 1))), 1.0)


@pytest.mark.turn
def test_light_tails_are_a_boundary():
    x = np.random.default_rng(1).uniform(size=(150, 1))
    fit = jg.fit(jg.Mixture(jg.families.StudentT(), 1), x, key=KEY, n_init=1)
    assert fit.converged
    assert fit.params.dof[0] == pytest.approx(200.0)
    errors = jg.standard_errors(fit, x)
    assert errors.n_boundary == 1
    assert errors.definite


@pytest.mark.slow
@pytest.mark.parametrize("structure", STRUCTURE_OF)
def test_every_structure_climbs_to_a_mode(structure):
    fit = fitted(structure)
    assert fit.converged
    assert np.all(np.diff(fit.trace[np.isfinite(fit.trace)]) >= -1e-8)
    assert fit.log_likelihood <= fitted().log_likelihood + 1e-6
    along = lambda step: fit.model.log_joint(fit.model.retract(fit.params, step), jnp.asarray(X))
    assert jnp.max(jnp.abs(jax.grad(along)(jnp.zeros(fit.n_parameters)))) < 1e-3


@pytest.mark.slow
def test_samplers_and_their_verdict(tmp_path):
    fit = fitted(prior="weak")
    options = {"start": fit, "progress": False, "n_draws": 400}
    means = {}
    for method in ("nuts", "laplace"):
        post = jg.sample(fit.model, X, key=KEY, method=method, **options)
        means[method] = post.summary()["mean"]["locations[0, x0]"]
        assert np.isfinite(means[method])
        if method == "nuts":
            verdict = jg.compare(fit, post)
            assert verdict.checks.loc["Newton decrement (sd)", "verdict"] == "ok"
            assert verdict.save(tmp_path / "report").exists()
            drawn = jg.report.plot_row_weights(fit, post).axes[0].lines[0].get_ydata()
            np.testing.assert_allclose(drawn, np.sort(fit.model.row_weights(fit.params, X)))
            assert (tmp_path / "report" / "row_weights.png").exists()
    np.testing.assert_allclose(means["nuts"], means["laplace"], atol=0.1)
    kept = jg.load(fit.save(tmp_path / "fit.npz"))
    tree_allclose((kept.model, kept.params), (fit.model, fit.params), 0.0)


def test_doors():
    with pytest.raises(ValueError, match="structure: unknown name 'fulll'"):
        jg.families.StudentT("fulll")
    model = jg.Mixture(jg.families.StudentT(), 1)
    own = {"locations": [[0.0]], "scale_matrices": [[[1.0]]], "dof": [3.0]}
    with pytest.raises(ValueError, match="scale_matrices: must be symmetric and positive definite"):
        model.params(**{**own, "scale_matrices": [[[-1.0]]]})
    with pytest.raises(ValueError, match="dof: needs 1 positive"):
        model.params(**{**own, "dof": [0.0]})
    with pytest.raises(TypeError, match="prior: 'components' needs a ConjugatePrior"):
        jg.Mixture(jg.families.StudentT(), 1, prior={"dof": 1.0})
    weak = jg.Mixture(jg.families.StudentT(), 2, prior="weak")
    with pytest.raises(ValueError, match="prior: labelled rows update no prior of StudentT"):
        jg.sample(weak, X, key=KEY, method="gibbs", progress=False)
    drawn = np.asarray(model.sample(model.params(**own), KEY, 4000))
    assert stats.kstest(drawn[:, 0], stats.t(3).cdf).pvalue > 1e-3


# -- missing values ------------------------------------------------------------------------------

HOLES = np.where(np.random.default_rng(3).random(X.shape) < 0.2, np.nan, X)
HOLES[7] = np.nan  # a row without any value


def _reference(params, x):
    """Log density of each row: the t densities of the columns it has, by SciPy."""
    found = np.zeros((len(x), len(params.weights))) + np.log(params.weights)
    matrices = _matrices(params)
    for k, matrix in enumerate(matrices):
        for i, row in enumerate(x):
            o = np.flatnonzero(~np.isnan(row))
            if o.size:
                location = np.asarray(params.locations)[k, o]
                of_row = stats.multivariate_t(location, matrix[np.ix_(o, o)], params.dof[k])
                found[i, k] += of_row.logpdf(row[o])
    return logsumexp(found, axis=1)


def _matrices(params):
    matrices = np.asarray(params.scale_matrices)
    return matrices if matrices.ndim == 3 else np.stack([np.diag(row) for row in matrices])


@functools.cache
def with_holes(structure="full", prior=None):
    model = jg.Mixture(jg.families.StudentT(structure), 2, prior=prior)
    return jg.fit(model, HOLES, start=START, tol=1e-13, max_iter=3000)


def test_without_holes_the_form_is_the_complete_one():
    x, step = jnp.asarray(X), jax.jit(lambda model, params, x: model.e_step(params, x))
    plain = fitted(prior="weak").model.standardise(x)
    assert not plain.incomplete
    seen = plain.family.normal.patterns
    assert seen is None
    aware = plain.family.looked(HOLES, None)
    aware = dataclasses.replace(plain, family=aware)
    params = plain.to_working(fitted(prior="weak").params)
    tree_allclose(step(aware, params, x), step(plain, params, x), 1e-9, 1e-9)


def test_draws_of_what_is_missing_are_t():
    """Of two columns the second is, given the first, t of one more degree of freedom."""
    model = jg.Mixture(jg.families.StudentT(), 1)
    matrix = np.array([[2.0, 1.2], [1.2, 1.5]])
    params = model.params(locations=[[0.5, -1.0]], scale_matrices=[matrix], dof=[3.0])
    x = np.tile([3.5, np.nan], (4000, 1))
    drawn = np.asarray(model.impute(params, x, KEY))[:, 1]
    centre = -1.0 + 1.2 / 2.0 * 3.0
    left = (1.5 - 1.2**2 / 2.0) * (3.0 + 3.0**2 / 2.0) / 4.0
    assert stats.kstest(drawn, stats.t(4, centre, np.sqrt(left)).cdf).pvalue > 1e-3
    np.testing.assert_allclose(model.impute(params, x[:1])[0], [3.5, centre])
    empty = np.full((4000, 2), np.nan)
    drawn = np.asarray(model.impute(params, empty, KEY))[:, 0]
    assert stats.kstest(drawn, stats.t(3, 0.5, np.sqrt(2)).cdf).pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("structure", STRUCTURE_OF)
def test_every_structure_with_holes(structure):
    fit, x = with_holes(structure), jnp.asarray(HOLES)
    assert fit.converged
    along = lambda step: fit.model.log_joint(fit.model.retract(fit.params, step), x)
    assert jnp.max(jnp.abs(jax.grad(along)(jnp.zeros(fit.n_parameters)))) < 1e-3
    if _matrices(fit.params).shape == (2, 2, 2):
        expected = _reference(fit.params, HOLES)
        np.testing.assert_allclose(fit.log_likelihood, expected.sum(), rtol=1e-9)


# -- distributions by site -------------------------------------------------------------------------

SITES = {
    "weights": dist.Dirichlet(jnp.array([1.5, 2.0])),
    "locations": dist.Normal(jnp.array([2.0, 1.0]), 5.0),
    "scales": dist.LogNormal(0.5, 1.0),
    "correlations": dist.LKJ(2, 1.5),
    "dof": dist.Gamma(2.0, 0.1),
}


def _by_site(x, sample):
    """The mixture written a second time, with NumPyro's own distributions only."""
    weights = sample("weights", SITES["weights"])
    locations = sample("locations", SITES["locations"].expand((2, 2)).to_event(2))
    scales = sample("scales", SITES["scales"].expand((2, 2)).to_event(2))
    correlations = sample("correlations", SITES["correlations"].expand((2,)).to_event(1))
    dof = sample("dof", SITES["dof"].expand((2,)).to_event(1))
    factor = scales[..., None] * jnp.linalg.cholesky(correlations)
    rows = dist.MultivariateStudentT(dof, locations, factor).log_prob(x[:, None])
    numpyro.factor("x", jnp.sum(jax.nn.logsumexp(jnp.log(weights) + rows, axis=1)))


@pytest.mark.turn
def test_distributions_by_site_are_one_density_and_its_mode():
    model = jg.Mixture(jg.families.StudentT(), 2, prior=SITES)
    fit, x = jg.fit(model, X, start=START, tol=1e-13, max_iter=3000), jnp.asarray(X)
    assert fit.converged
    sites = fit.model.sites(fit.params)
    assert set(sites) == set(SITES)
    values = [
        jax.jit(lambda sites, p=program, more=more: log_density(p, (x, *more), {}, sites)[0])(sites)
        for program, more in [(fit.model.numpyro_model, ()), (_by_site, (numpyro.sample,))]
    ]
    np.testing.assert_allclose([fit.log_joint, values[0]], values[1], rtol=1e-10)
    tree_allclose(fit.model.from_sites(sites), fit.params, 1e-12)
    working = fit.model.standardise(x)
    near = working.to_working(fit.params)
    along = lambda step: working.log_joint(working.retract(near, step), x)
    value, slope = jax.jit(jax.value_and_grad(along))(jnp.zeros(fit.n_parameters))
    np.testing.assert_allclose(value, values[1], rtol=1e-10)
    assert jnp.max(jnp.abs(slope)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("holes", [False, True])
def test_nuts_on_distributions_by_site(holes):
    x = HOLES if holes else X
    model = jg.Mixture(jg.families.StudentT(), 2, prior=SITES)
    fit = jg.fit(model, x, start=START)
    options = {"start": fit, "progress": False, "n_draws": 400}
    post, near = (
        jg.sample(fit.model, x, key=KEY, method=method, **options) for method in ("nuts", "laplace")
    )
    assert set(post.draws) >= set(SITES)
    for site in ("locations", "scales"):
        spread = post.draws[site].std(axis=(0, 1))
        apart = np.abs(post.draws[site].mean(axis=(0, 1)) - near.draws[site].mean(axis=(0, 1)))
        assert np.all(apart < 0.6 * spread)
    assert jg.compare(fit, post).checks.loc["Newton decrement (sd)", "verdict"] == "ok"
    if holes:
        filled = post.thin(20).impute(KEY)
        assert np.all(np.isfinite(filled))
