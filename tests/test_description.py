"""What models say of their M-steps, without data."""

import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from programs import TUTORIAL, three_coins, tutorial, zero_inflated

import jaxgmm as jg

FLAT = {"weights": dist.Dirichlet(jnp.ones(2))}
GAUSSIAN = {"means": dist.Normal(0.0, 5.0), "covariances": dist.InverseGamma(2.0, 1.0)}
RATES = FLAT | {"rates": dist.Gamma(2.0, 1.0)}


def poisson(prior):
    return jg.Mixture(jg.families.Poisson(), 2, prior=prior)


@pytest.mark.parametrize(
    ("model", "m_step", "how"),
    [
        (jg.Mixture(jg.Gaussian("full"), 2), "closed form", "the maximum"),
        (jg.Mixture(jg.Gaussian("VEI"), 2), "numerical", "Newton's method to the maximum"),
        (jg.Mixture(jg.Gaussian("diag"), 2, prior=FLAT | GAUSSIAN), "numerical", "sums over rows"),
        (poisson(None), "closed form", "the maximum"),
        (poisson("weak"), "closed form", "the maximum"),
        (poisson(RATES), "closed form", "the maximum"),
        (poisson(FLAT | {"rates": dist.LogNormal(0.0, 1.0)}), "numerical", "sums over rows"),
        (poisson(RATES | {"weights": dist.Uniform(0, 1)}), "numerical", "sums over rows"),
        (jg.Mixture(jg.families.Gamma(), 2), "numerical", "one Newton step"),
    ],
    ids=repr,
)
def test_mixtures(model, m_step, how):
    described = model.describe()
    assert described.m_step == m_step
    assert how in described.how
    assert str(described).startswith(f"{model!r}\n  labels: 2, which may be renamed\n  M-step: ")


def test_programs():
    described = jg.from_numpyro(tutorial, TUTORIAL).describe()
    assert (described.m_step, described.label_groups) == ("numerical", (0, 0))
    assert described.how.startswith("one Newton step on the expected log joint")
    assert "each with a meaning of its own" in repr(
        jg.from_numpyro(zero_inflated, jnp.array([0, 3, 1])).describe()
    )
    exact = jg.from_numpyro(three_coins, jnp.array([0, 1, 1]), newton=8).describe()
    assert exact.how.startswith("8 Newton steps on the expected log joint, the labels held;")
