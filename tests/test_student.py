"""t components: the height that SciPy finds, light tails at the boundary, weights of outliers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
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


def test_light_tails_are_a_boundary():
    x = np.random.default_rng(1).uniform(size=(150, 1))
    fit = jg.fit(jg.Mixture(jg.families.StudentT(), 1), x, key=KEY, n_init=1)
    assert fit.converged
    assert fit.params.dof[0] == pytest.approx(200.0)
    errors = jg.standard_errors(fit, x)
    assert errors.n_boundary == 1
    assert errors.definite


def test_one_density_in_all_units():
    fit = fitted(prior="weak")
    x, sites = jnp.asarray(X), fit.model.sites(fit.params)
    program = log_density(fit.model.numpyro_model, (x,), {}, sites)[0]
    np.testing.assert_allclose(fit.log_joint, program, rtol=1e-10)
    working = fit.model.standardise(x)
    near = working.to_working(fit.params)
    np.testing.assert_allclose(working.log_joint(near, x), program, rtol=1e-10)
    tree_allclose(working.to_user(near), fit.params, 1e-12)
    along = lambda step: working.log_joint(working.retract(near, step), x)
    assert jnp.max(jnp.abs(jax.grad(along)(jnp.zeros(fit.n_parameters)))) < 1e-4


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
    np.testing.assert_allclose(means["nuts"], means["laplace"], atol=0.1)
    kept = jg.load(fit.save(tmp_path / "fit.npz"))
    tree_allclose((kept.model, kept.params), (fit.model, fit.params), 0.0)


@pytest.mark.slow
def test_float32():
    fit = jg.fit(fitted(prior="weak").model, X.astype(np.float32), start=START)
    assert fit.params.dof.dtype == np.float32
    np.testing.assert_allclose(fit.log_joint, fitted(prior="weak").log_joint, rtol=1e-4)


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
