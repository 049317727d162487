"""One target or two: models that differ in a number, and models that are only written apart."""

import dataclasses

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from posteriors import FAITHFUL, written

import jaxgmm as jg
from jaxgmm.report.verdict._targets import SAME_MODEL, SAME_TARGET, _points, alike, same_target

PRIOR = jg.ConjugatePrior(
    concentration=2.0, mean=[3.5, 70.0], mean_precision=0.1, dof=5.0, scale=np.diag([1.0, 100.0])
)
X1 = (np.random.default_rng(1).normal(size=60) + np.repeat([0.0, 6.0], 30))[:, None]


def a_fit_and_draws(model, x, size=0.02):
    """A short fit, and a few points around it that stand for draws."""
    first = x[:, 0]
    start = np.eye(2)[(first > first.mean()).astype(int)]
    fit = jg.fit(model, x, start=start.astype(x.dtype))
    rng = np.random.default_rng(0)
    blur = lambda leaf: np.asarray(leaf) * np.exp(size * rng.normal(size=(2, 20, *leaf.shape)))
    params = jax.tree.map(blur, fit.params)
    weights = params.weights / params.weights.sum(-1, keepdims=True)
    cov = np.asarray(fit.params.covariance_site) * np.exp(size * rng.normal(size=(2, 20, 1, 1, 1)))
    params = dataclasses.replace(params, weights=weights)
    if fit.params.covariance_site.ndim == 3:
        params = dataclasses.replace(params, covariance_site=cov)
    return fit, written(fit, params, x)


@pytest.mark.turn
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "change",
    [{"concentration": np.full(2, 20.0)}, {"dof": 6.0}, {"mean_precision": 0.2}],
    ids=lambda change: "-".join(change),
)
def test_another_prior_is_another_target_in_either_precision(dtype, change):
    """Many rows drown the difference of two priors, and rounding hides what is left of it."""
    x = FAITHFUL.astype(dtype)
    fit, post = a_fit_and_draws(jg.Mixture(jg.Gaussian("full"), 2, prior=PRIOR), x)
    assert [line.verdict for line in same_target(fit, post)] == ["ok", "ok"]
    other = dataclasses.replace(fit.model, prior=dataclasses.replace(fit.model.prior, **change))
    lines = {line.check: line for line in same_target(fit, dataclasses.replace(post, model=other))}
    assert lines[SAME_MODEL].verdict == "fail"
    priors = jax.vmap(lambda p: fit.model.log_prior(p) - other.log_prior(p))
    gap = np.max(np.abs(priors(_points(fit, post))))
    assert lines[SAME_MODEL].value == pytest.approx(gap, rel=1e-3)
    assert (lines[SAME_TARGET].verdict == "fail") == (dtype == "float64")


def spherical(**sites):
    given = {
        "weights": dist.Dirichlet(np.full(2, 2.0)),
        "means": dist.Normal(0.0, 5.0),
        "covariances": dist.InverseGamma(3.0, 3.0),
    }
    return jg.Mixture(jg.Gaussian("spherical"), 2, prior=given | sites)


@pytest.mark.turn
@pytest.mark.parametrize(
    ("means", "same"),
    [
        (dist.Normal(0.0, 5.0).expand([2, 1]), True),
        (dist.Normal(np.zeros((2, 1)), np.full((2, 1), 5.0)), True),
        (dist.Normal(0.0, 6.0).expand([2, 1]), False),
        (dist.StudentT(30.0, 0.0, 5.0), False),
    ],
    ids=["expanded", "arrays", "another scale", "another law"],
)
def test_equal_distributions_may_be_written_apart(means, same):
    fit, post = a_fit_and_draws(spherical(), X1)
    other = spherical(means=means).resolve(post.x)
    assert alike(fit.model, other)
    lines = same_target(fit, dataclasses.replace(post, model=other))
    assert {line.verdict for line in lines} == ({"ok"} if same else {"fail"})


def test_models_of_other_parameters_are_refused():
    """Not compared at all: K, the structure, or the sites differ."""
    one = jg.Mixture(jg.Gaussian("full"), 2, prior=PRIOR).resolve(FAITHFUL)
    for other in (
        jg.Mixture(jg.Gaussian("full"), 3, prior=PRIOR),
        jg.Mixture(jg.Gaussian("EVV"), 2, prior=PRIOR),
        jg.Mixture(jg.Gaussian("full"), 2),
        jg.Mixture(jg.Gaussian("full"), 2, prior=PRIOR, weights="equal"),
    ):
        assert not alike(one, other.resolve(FAITHFUL))
    assert alike(one, jg.Mixture(jg.Gaussian("full"), 2, prior=PRIOR).resolve(FAITHFUL))
