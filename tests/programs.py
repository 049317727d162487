"""NumPyro programs that tests share."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

TUTORIAL = np.array([0.0, 1.0, 10.0, 11.0, 12.0])


def tutorial(data):
    """The Gaussian mixture of NumPyro's tutorial."""
    weights = numpyro.sample("weights", dist.Dirichlet(0.5 * jnp.ones(2)))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 2.0))
    with numpyro.plate("components", 2):
        locs = numpyro.sample("locs", dist.Normal(0.0, 10.0))
    with numpyro.plate("data", len(data)):
        assignment = numpyro.sample("assignment", dist.Categorical(weights))
        numpyro.sample("obs", dist.Normal(locs[assignment], scale), obs=data)


def at_rows(key):
    """The tutorial's own start: rows as locations."""
    data = jnp.asarray(TUTORIAL)
    return {
        "weights": jnp.full(2, 0.5),
        "scale": jnp.sqrt(jnp.var(data) / 2),
        "locs": jax.random.choice(key, data, (2,), replace=False),
    }


def zero_inflated(counts):
    extra = numpyro.sample("extra", dist.Beta(1.0, 1.0))
    rate = numpyro.sample("rate", dist.Gamma(2.0, 0.5))
    with numpyro.plate("rows", len(counts)):
        structural = numpyro.sample("structural", dist.Bernoulli(extra))
        numpyro.sample("counts", dist.Poisson(jnp.where(structural == 1, 0.0, rate)), obs=counts)


def latent_class(x):
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    with numpyro.plate("items", x.shape[1], dim=-1), numpyro.plate("classes", 2, dim=-2):
        probs = numpyro.sample("probs", dist.Beta(2.0, 2.0))
    with numpyro.plate("rows", len(x), dim=-2):
        label = numpyro.sample("label", dist.Categorical(weights))
        with numpyro.plate("items", x.shape[1], dim=-1):
            numpyro.sample("x", dist.Bernoulli(probs[label[:, 0]]), obs=x)


def three_coins(throws):
    pi, p, q = (numpyro.sample(name, dist.Beta(1.0, 1.0)) for name in ("pi", "p", "q"))
    with numpyro.plate("throws", len(throws)):
        coin = numpyro.sample("coin", dist.Bernoulli(pi))
        numpyro.sample("heads", dist.Bernoulli(jnp.where(coin == 1, p, q)), obs=throws)
