# %% [markdown]
# # Three coins: a latent-variable model of your own
#
# Coin A decides, with probability `pi`, whether coin B or else coin C is thrown; their
# chances of heads are `p` and `q`. Only the last throw is seen. Writing the model once
# gives EM, the NumPyro posterior and the verdict; nothing in them knows about mixtures.
#
# The likelihood depends on `pi p + (1 - pi) q` only, so every start ends somewhere else on
# a ridge of equally good answers. A comparison has to say so.

# %%
from __future__ import annotations

import argparse
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

import jaxgmm as jg

THROWS = [1, 1, 0, 1, 0, 0, 1, 0, 1, 1]


class Coins(NamedTuple):
    """Chance that A chooses B, and the chances of heads of B and C."""

    pi: jax.Array
    p: jax.Array
    q: jax.Array


class Counts(NamedTuple):
    """Expected throws and heads of B and of C; they add over rows."""

    throws: jax.Array
    heads: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ThreeCoins(jg.LatentModel):
    """The three-coin problem with independent Beta priors (uniform by default)."""

    a: float = 1.0
    b: float = 1.0
    n_components = 2
    fills_up = True  # a row counts by its weight below, and one of weight zero not at all

    # -- the definition -------------------------------------------------------

    def prior_sites(self):
        return {name: lambda _: dist.Beta(self.a, self.b) for name in Coins._fields}

    def likelihood(self, params):
        heads = params.pi * params.p + (1 - params.pi) * params.q
        return dist.Independent(dist.Bernoulli(heads[None]), 1)

    def sites(self, params):
        return params._asdict()

    def from_sites(self, sites):
        return Coins(**{name: sites[name] for name in Coins._fields})

    # -- EM -------------------------------------------------------------------

    def logits(self, params, x):
        """log p(coin, throw), a row per coin."""
        heads = x[:, 0] == 1
        from_b = params.pi * jnp.where(heads, params.p, 1 - params.p)
        from_c = (1 - params.pi) * jnp.where(heads, params.q, 1 - params.q)
        return jnp.log(jnp.stack([from_b, from_c]))

    def responsibilities(self, params, x):
        return jax.nn.softmax(self.logits(params, x), axis=0).T

    def statistics(self, responsibilities, x, sample_weight=None):
        weight = 1 if sample_weight is None else sample_weight[:, None]
        counted = weight * responsibilities
        return Counts(throws=counted.sum(axis=0), heads=x[:, 0] @ counted)

    def e_step(self, params, x, sample_weight=None, assign=jg.expected_labels):
        responsibilities, value = assign(self.logits(params, x), 0)
        weight = jnp.ones(len(x)) if sample_weight is None else sample_weight
        return self.statistics(responsibilities.T, x, sample_weight), weight @ value

    def m_step(self, statistics, params=None):
        """The mode of three Beta posteriors."""
        pulled = lambda successes, trials: (successes + self.a - 1) / (trials + self.a + self.b - 2)
        heads = pulled(statistics.heads, statistics.throws)
        return Coins(pulled(statistics.throws[0], statistics.throws.sum()), *heads)

    # -- labels and counts ----------------------------------------------------

    def permute(self, params, order):
        """Swapping B and C turns `pi` round."""
        swapped = order[0] == 1
        return Coins(
            jnp.where(swapped, 1 - params.pi, params.pi),
            jnp.where(swapped, params.q, params.p),
            jnp.where(swapped, params.p, params.q),
        )

    def n_parameters(self, n_features):
        return 1  # only the overall chance of heads is identified


# %% [markdown]
# ## EM from two starts


# %%
def main(small: bool = False) -> jg.Verdict:
    x = jnp.array(THROWS, jnp.result_type(float))
    model = ThreeCoins()
    for start in [(0.4, 0.6, 0.7), (0.5, 0.5, 0.5)]:
        fit = jg.fit(model, x, start=Coins(*map(jnp.asarray, start)))
        print(start, "->", [round(float(value), 4) for value in fit.params])

    # The posterior of the very same model, and the verdict.
    fit = jg.fit(model, x, start=Coins(*map(jnp.asarray, (0.4, 0.6, 0.7))))
    draws = 200 if small else 1000
    post = jg.sample(model, x, key=jax.random.key(0), start=fit, n_draws=draws, progress=False)
    verdict = jg.compare(fit, post)
    print(verdict)
    return verdict


# %%
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="fewer draws")
    jax.config.update("jax_enable_x64", True)
    main(**vars(parser.parse_args()))
