"""Rows are looked at in the form of the density that keeps their digits, wherever it is."""

import jax
import numpy as np
import pytest
from numpyro.infer.util import log_density
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import jaxgmm as jg


def _logits(params, x):
    """log p(label, row) by SciPy, in float64."""
    weights, means, covariances = (
        np.asarray(a, np.float64) for a in (params.weights, params.means, params.covariances)
    )
    parts = [
        np.log(w) + multivariate_normal(m, c).logpdf(np.asarray(x, np.float64))
        for w, m, c in zip(weights, means, covariances, strict=True)
    ]
    return np.stack(parts, axis=1)


def _groups(centres, root, n=200, seed=0):
    rng = np.random.default_rng(seed)
    d = np.shape(root)[0]
    x = np.concatenate([c + rng.standard_normal((n, d)) @ np.transpose(root) for c in centres])
    return x, np.eye(len(centres))[np.repeat(np.arange(len(centres)), n)]


def _fit(x, labels, **options):
    return jg.fit(jg.Mixture(jg.Gaussian(), labels.shape[1], **options), x, start=labels)


def _assert_seen(fit, x, atol):
    logits = _logits(fit.params, x)
    density = logsumexp(logits, axis=1)
    np.testing.assert_allclose(fit.model.log_prob(fit.params, x), density, atol=atol)
    probability = np.exp(logits - density[:, None])
    np.testing.assert_allclose(fit.model.responsibilities(fit.params, x), probability, atol=atol)
    total = float(fit.model.log_likelihood(fit.params, x))
    # A fit knows its own density to the rounding of its parameters.
    np.testing.assert_allclose(total, density.sum(), atol=len(x) * atol)
    np.testing.assert_allclose(total, fit.log_likelihood, atol=len(x) * atol)


LINE = _groups([np.zeros(1), np.full(1, 4.0), np.full(1, 1e4)], np.eye(1))


def test_float32_groups_far_apart_on_a_line():
    x = LINE[0].astype(np.float32)
    fit = _fit(x, LINE[1])
    assert fit.converged
    assert not fit.spurious
    _assert_seen(fit, x, 2e-3)


def test_the_doors_criterion_is_that_of_its_fit():
    from jaxgmm.sklearn import GaussianMixture

    x = LINE[0].astype(np.float32)
    means = [[0.0], [4.0], [1e4]]
    door = GaussianMixture(
        3, means_init=means, weights_init=[1 / 3] * 3, precisions_init=np.ones((3, 1, 1))
    ).fit(x)
    np.testing.assert_allclose(door.bic(x), door.result_.bic, rtol=1e-5)


@pytest.mark.parametrize("apart", [1e3, 1e4])
def test_float32_groups_far_apart_along_the_diagonal(apart):
    """Their columns are all but parallel, and the likelihood has a maximum."""
    x, labels = _groups([np.zeros(2), np.full(2, apart)], np.eye(2))
    x = x.astype(np.float32)
    fit = _fit(x, labels)
    assert fit.converged
    assert not fit.spurious
    _assert_seen(fit, x, 2e-3)


@pytest.mark.parametrize("way", [(1.0, 1.0), (1.0, 0.0), (1.0, -1.0)])
def test_float64_needles_a_million_deviations_apart(way):
    root = np.linalg.cholesky([[1, 0.99999], [0.99999, 1]])
    x, labels = _groups([np.zeros(2), 1e6 * np.array(way)], root)
    fit = _fit(x, labels)
    assert fit.converged
    _assert_seen(fit, x, 2e-7)


@pytest.mark.slow
def test_samplers_settle_the_form_once():
    x, labels = _groups([np.zeros(2), np.array([1e6, 0.0])], np.eye(2))
    prior = jg.ConjugatePrior(mean=[5e5, 0.0], mean_precision=1e-12, dof=6.0, scale=np.eye(2))
    fit = _fit(x, labels, prior=prior)
    near, _ = _groups([np.zeros(2), np.array([3.0, 0.0])], np.eye(2))
    easy = _fit(near, labels)
    assert easy.model.settled(easy.params).family.form == "fast"
    settled = fit.model.settled(fit.params)
    assert settled.family.form == "centred"
    # Without a choice NumPyro's density is in the fast form; with one, in that which was chosen.
    sites = fit.model.sites(fit.params)
    theirs, _ = log_density(settled.numpyro_model, (x,), {}, sites)
    np.testing.assert_allclose(theirs, fit.log_joint, rtol=1e-9)
    post = jg.sample(
        fit.model, x, key=jax.random.key(0), start=fit, method="laplace", n_chains=1, n_draws=200
    )
    one = jax.tree.map(lambda leaf: leaf[0, 3], post.params)
    expected = logsumexp(_logits(one, x), axis=1).sum()
    np.testing.assert_allclose(post.log_likelihood[0, 3], expected, rtol=1e-8)


@pytest.mark.turn
def test_a_vector_of_rows_is_one_column():
    x, labels = LINE
    fit = _fit(x, labels, prior="fraley-raftery")
    model, params, line = fit.model, fit.params, x[:, 0]
    for look in (model.log_prob, model.responsibilities, model.predict, model.log_likelihood):
        np.testing.assert_array_equal(look(params, line), look(params, x))
    assert model.log_joint(params, line) == model.log_joint(params, x)
    working = model.standardise(line)
    inside = working.to_working(params)
    for one, other in zip(
        jax.tree.leaves(working.e_step(inside, line)),
        jax.tree.leaves(working.e_step(inside, x)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    one, other = (working.statistics(labels, rows) for rows in (line, x))
    np.testing.assert_array_equal(one.means, other.means)
