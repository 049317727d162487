"""Mixtures whose M-steps are numerical: any distribution, any prior."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxgmm as jg

POSITIVE = dist.constraints.positive
_noise = np.random.default_rng(0)
COUNTS = np.concatenate([_noise.poisson(2.0, 40), _noise.poisson(9.0, 60)]).astype(float)
WAITS = _noise.exponential(np.repeat([0.3, 12.0], 50))


def _two(draw):
    return np.concatenate([draw(0), draw(1)])


# A family, rows of two components, and NumPyro's distribution from its sites.
NAMED = {
    "gamma": (
        jg.families.Gamma(),
        _two(lambda k: _noise.gamma((3, 20)[k], 1.0, 60)),
        lambda own: dist.Gamma(own["concentration"], own["rate"]),
    ),
    "log-normal": (
        jg.families.LogNormal(),
        _two(lambda k: np.exp(_noise.normal((0, 2)[k], 0.5, 60))),
        lambda own: dist.LogNormal(own["loc"], own["scale"]),
    ),
    "von mises": (
        jg.families.VonMises(),
        _two(lambda k: _noise.vonmises((0, 3)[k], 4.0, 60)),
        lambda own: dist.VonMises(
            jnp.arctan2(own["sine"], own["cosine"]), jnp.hypot(own["sine"], own["cosine"])
        ),
    ),
    "negative binomial": (
        jg.families.NegativeBinomial(),
        _two(lambda k: _noise.negative_binomial(5, (0.5, 0.1)[k], 60)).astype(float),
        lambda own: dist.NegativeBinomial2(own["mean"], own["concentration"]),
    ),
    "binomial": (
        jg.families.Binomial(10),
        _two(lambda k: _noise.binomial(10, (0.2, 0.7)[k], 60)).astype(float),
        lambda own: dist.BinomialProbs(own["probs"], 10),
    ),
    "beta": (
        jg.families.Beta(),
        _two(lambda k: _noise.beta((2, 9)[k], (8, 2)[k], 60)),
        lambda own: dist.Beta(own["concentration1"], own["concentration0"]),
    ),
    "weibull": (
        jg.families.Weibull(),
        _two(lambda k: (2, 9)[k] * _noise.weibull(3, 60)),
        lambda own: dist.Weibull(own["scale"], own["concentration"]),
    ),
}


class Pair(NamedTuple):
    """A mixture of a closed family and the same of a `Custom` one, two components each.

    Attributes
    ----------
    closed, custom : Mixture
    names : dict
        From sites of the one to sites of the other.
    x : (n,) array
        Rows, parted at ``between``.
    """

    closed: Any
    custom: Any
    names: dict[str, str]
    x: np.ndarray
    between: float

    def fits(self):
        """From one start, so that labels and draws are the same."""
        start = np.eye(2)[(self.x > self.between).astype(int)]
        return [
            jg.fit(model, self.x, start=start, tol=1e-14, max_iter=5000)
            for model in (self.closed, self.custom)
        ]

    def same(self, one, other, **tolerance):
        """Whether two dictionaries by site are."""
        for name, another in self.names.items():
            np.testing.assert_allclose(
                np.ravel(other[another]), np.ravel(one[name]), err_msg=name, **tolerance
            )


def _pair(closed, make, x, between, priors, names, **supports):
    """With priors by the closed family's names, or flat."""
    names = {"weights": "weights", **names}
    own = priors and {names[name]: prior for name, prior in priors.items()}
    custom = jg.families.Custom(make, **supports)
    return Pair(
        jg.Mixture(closed, 2, prior=priors), jg.Mixture(custom, 2, prior=own), names, x, between
    )


def _normal(mean, variance):
    return dist.Normal(mean, jnp.sqrt(variance))


WEIGHTS = {"weights": dist.Dirichlet(2.0 * jnp.ones(2))}
RATES = WEIGHTS | {"rates": dist.Gamma(2.0, 0.3)}
MOMENTS = WEIGHTS | {"means": dist.Normal(5.0, 5.0), "covariances": dist.InverseGamma(2.0, 2.0)}
HEIGHTS = np.concatenate([_noise.normal(0.0, 1.0, 50), _noise.normal(6.0, 2.0, 70)])
_rates = {"names": {"rates": "rate"}, "rate": POSITIVE}
_moments = {
    "names": {"means": "mean", "covariances": "variance"},
    "mean": dist.constraints.real,
    "variance": POSITIVE,
}
PAIRS = {
    "poisson": lambda: _pair(jg.families.Poisson(), dist.Poisson, COUNTS, 5, RATES, **_rates),
    "exponential": lambda: _pair(
        jg.families.Exponential(), dist.Exponential, WAITS, 5, RATES, **_rates
    ),
    "gaussian": lambda: _pair(jg.Gaussian("diag"), _normal, HEIGHTS, 3, MOMENTS, **_moments),
    "gaussian, flat": lambda: _pair(jg.Gaussian("diag"), _normal, HEIGHTS, 3, None, **_moments),
}


def test_priors_are_the_distributions_as_they_are_written():
    """On all of their supports, negative numbers and those above one among them."""
    own = {"loc": dist.Normal(1.0, 4.0), "scale": dist.Gamma(2.0, 0.5)}
    model = jg.Mixture(jg.families.LogNormal(), 2, prior=WEIGHTS | own).resolve(WAITS[:, None])
    sites = {"weights": [0.3, 0.7], "loc": [[-6.0], [8.0]], "scale": [[0.2], [3.0]]}
    params = model.params(**sites)
    written = {**own, **WEIGHTS}
    expected = sum(jnp.sum(written[name].log_prob(jnp.array(sites[name]))) for name in sites)
    assert float(model.log_prior(params)) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "poisson")) for name in PAIRS]
)
def test_custom_is_the_closed_family(name):
    """Optimum and standard errors."""
    pair = PAIRS[name]()
    one, other = pair.fits()
    assert one.converged
    assert other.converged
    assert other.log_joint == pytest.approx(one.log_joint, abs=1e-9)
    pair.same(one.model.sites(one.params), other.model.sites(other.params), rtol=1e-6)
    errors = [jg.standard_errors(fit, pair.x).standard_errors for fit in (one, other)]
    pair.same(*errors, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    # Gaussians are drawn in units of their own.
    ("name", "apart"),
    [("poisson", 1e-6), ("exponential", 1e-6), ("gaussian", 1e-3)],
)
def test_custom_has_the_evidence_of_the_closed_family(name, apart):
    """By the same draws, each of which says it to a hundredth."""
    pair, found = PAIRS[name](), []
    for fit in pair.fits():
        post = jg.sample(
            fit.model, pair.x, key=jax.random.key(1), start=fit, method="laplace", progress=False
        )
        found.append(post.evidence)
    assert found[0].log_evidence == pytest.approx(found[1].log_evidence, abs=apart)
    assert found[0].error < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("prior", [None, "weak"])
@pytest.mark.parametrize("name", NAMED)
def test_named_families_are_numpyros_distributions_at_a_mode(name, prior):
    family, x, made = NAMED[name]
    model = jg.Mixture(family, 2, prior=prior)
    fit = jg.fit(model, x, key=jax.random.key(0), n_init=4, tol=1e-13)
    assert fit.converged
    assert np.min(np.diff(fit.trace)) >= -1e-9
    logits = jnp.log(fit.params.weights) + made(
        {k: v[:, 0] for k, v in fit.params.own.items()}
    ).log_prob(jnp.asarray(x)[:, None])
    reference = jax.nn.logsumexp(logits, axis=1)
    np.testing.assert_allclose(fit.model.log_prob(fit.params, x), reference, rtol=1e-10)
    errors = jg.standard_errors(fit, x)
    assert errors.definite
    assert errors.newton_decrement < 1e-3
    rows = fit.model.sample(fit.params, jax.random.key(1), 500)
    assert np.all(np.isfinite(fit.model.log_prob(fit.params, rows)))


@pytest.mark.slow
def test_a_prior_that_is_not_conjugate():
    """The M-step under it is the mode: the gradient of the log joint vanishes."""
    prior = {"weights": dist.Dirichlet(2.0 * jnp.ones(2)), "rates": dist.LogNormal(1.0, 0.5)}
    model = jg.Mixture(jg.families.Poisson(), 2, prior=prior)
    fit = jg.fit(model, COUNTS, key=jax.random.key(0), n_init=4, tol=1e-14)
    assert fit.converged

    def log_joint(step):
        return fit.model.log_joint(fit.model.retract(fit.params, step), COUNTS)

    slope = jax.grad(log_joint)(jnp.zeros(3))
    assert jnp.max(jnp.abs(slope)) < 1e-5
    with pytest.raises(ValueError, match=r"'rates' has a LogNormal.*method=\"nuts\""):
        jg.sample(model, COUNTS, key=jax.random.key(1), start=fit, method="gibbs")


def test_refusals():
    with pytest.raises(ValueError, match="rate: needs a support among all real numbers"):
        jg.families.Custom(dist.Poisson, rate=dist.constraints.simplex)
    with pytest.raises(TypeError, match="make: needs to return a NumPyro distribution"):
        jg.families.Custom(lambda rate: rate, rate=POSITIVE)
    gamma = jg.Mixture(jg.families.Gamma(), 2)
    with pytest.raises(ValueError, match=r"found -1.0 at row 1, column 0"):
        jg.fit(gamma, [1.0, -1.0, 2.0], key=jax.random.key(0))
    weak = jg.Mixture(jg.families.Custom(dist.Poisson, rate=POSITIVE), 2, prior="weak")
    with pytest.raises(ValueError, match=r"whose M-steps are numerical.*method=\"nuts\""):
        weak.resolve(COUNTS).updated(None)
    cauchy = jg.families.Custom(dist.Cauchy, loc=dist.constraints.real, scale=POSITIVE)
    with pytest.raises(ValueError, match=r'Cauchy has no mean.*start="prior"'):
        jg.fit(jg.Mixture(cauchy, 2), COUNTS, key=jax.random.key(0))
