# %% [markdown]
# # EM, NUTS and the verdict for NumPyro programs
#
# Two programs with a discrete latent site in the plate of their rows: the Gaussian mixture of
# NumPyro's tutorial, and counts with more zeros than a Poisson distribution has. NumPyro sums
# such sites out before it samples; EM needs them summed out too, and then finds the mode.

# %%
from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import jaxgmm as jg

DATA = np.array([0.0, 1.0, 10.0, 11.0, 12.0])


def mixture(data):
    """The program of the tutorial, as it is."""
    weights = numpyro.sample("weights", dist.Dirichlet(0.5 * jnp.ones(2)))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 2.0))
    with numpyro.plate("components", 2):
        locs = numpyro.sample("locs", dist.Normal(0.0, 10.0))
    with numpyro.plate("data", len(data)):
        assignment = numpyro.sample("assignment", dist.Categorical(weights))
        numpyro.sample("obs", dist.Normal(locs[assignment], scale), obs=data)


def zero_inflated(counts):
    """Structural zeros beside Poisson counts."""
    extra = numpyro.sample("extra", dist.Beta(1.0, 1.0))
    rate = numpyro.sample("rate", dist.Gamma(2.0, 0.5))
    with numpyro.plate("rows", len(counts)):
        structural = numpyro.sample("structural", dist.Bernoulli(extra))
        numpyro.sample("counts", dist.Poisson(jnp.where(structural == 1, 0.0, rate)), obs=counts)


# %% [markdown]
# ## The tutorial's mixture
#
# Its Dirichlet of one half has poles: the density has no bound where a weight vanishes. Restarts
# that run up a pole end as collapsed, and the interior mode wins.


# %%
def tutorial() -> None:
    model = jg.from_numpyro(mixture, DATA)
    print(model)

    def rows_as_locations(key):
        locs = jax.random.choice(key, jnp.asarray(DATA), (2,), replace=False)
        return {"weights": jnp.full(2, 0.5), "scale": jnp.std(DATA) / np.sqrt(2), "locs": locs}

    for start in (rows_as_locations, "prior"):
        fit = jg.fit(model, DATA, key=jax.random.key(0), start=start, n_init=64)
        print(fit)
    print(jg.standard_errors(fit, DATA))


# %% [markdown]
# ## More zeros than Poisson
#
# Labels differ in kind here: nothing is symmetric, and no label may be renamed.


# %%
def counts(small: bool) -> jg.Verdict:
    noise = np.random.default_rng(3)
    y = np.where(noise.random(200) < 0.3, 0, noise.poisson(3.0, 200))
    model = jg.from_numpyro(zero_inflated, y)
    fit = jg.fit(model, y, key=jax.random.key(0))
    print(fit)
    print(jg.standard_errors(fit, y))
    draws = 200 if small else 1000
    post = jg.sample(model, y, key=jax.random.key(1), start=fit, n_draws=draws, progress=False)
    print(post.summary())
    return jg.compare(fit, post)


# %%
def main(small: bool = False) -> jg.Verdict:
    tutorial()
    verdict = counts(small)
    print(verdict)
    return verdict


# %%
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="fewer draws")
    jax.config.update("jax_enable_x64", True)
    main(**vars(parser.parse_args()))
