# %% [markdown]
# # Three coins without an M-step
#
# The model of `three_coins.py` again, from its prior and log p(coin, throw) alone. A numerical
# M-step, one Newton step on the expected log joint, takes the place of the closed one.

# %%
from __future__ import annotations

import argparse
import dataclasses

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

import jaxgmm as jg

THROWS = [1, 1, 0, 1, 0, 0, 1, 0, 1, 1]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ThreeCoins(jg.NumericalModel):
    """The three-coin problem with independent Beta priors (uniform by default)."""

    a: float = 1.0
    b: float = 1.0
    newton: int = dataclasses.field(default=1, metadata={"static": True})
    n_components = 2

    def prior_sites(self):
        return {name: lambda _: dist.Beta(self.a, self.b) for name in ("pi", "p", "q")}

    def logits(self, params, x):
        """log p(coin, throw), a row per coin."""
        chosen = jnp.log(jnp.stack([params["pi"], 1 - params["pi"]]))
        heads = jnp.stack([params["p"], params["q"]])
        return chosen[:, None] + dist.Bernoulli(heads[:, None]).log_prob(x[:, 0])

    def sample(self, params, key, n):
        heads = params["pi"] * params["p"] + (1 - params["pi"]) * params["q"]
        return jax.random.bernoulli(key, heads, (n, 1)).astype(jnp.result_type(float))

    def permute(self, params, order):
        """Swapping B and C turns `pi` round."""
        swapped = {"pi": 1 - params["pi"], "p": params["q"], "q": params["p"]}
        return jax.tree.map(lambda new, old: jnp.where(order[0] == 1, new, old), swapped, params)

    def n_parameters(self, n_features):
        return 1  # only the overall chance of heads is identified


# %% [markdown]
# ## The end on a ridge belongs to the M-step
#
# Only `pi p + (1 - pi) q` is identified: the likelihood is the same all along a ridge. EM moves
# onto it and stops; where depends on how far each M-step goes. One Newton step ends beside
# (0.4064, 0.5368, 0.6432), where closed M-steps end; with eight steps, labels held, the M-step is
# as good as closed and so is the end. The likelihood is the same in all of them.


# %%
def main(small: bool = False) -> jg.Verdict:
    x = jnp.array(THROWS, jnp.result_type(float))
    start = {"pi": 0.4, "p": 0.6, "q": 0.7}
    for newton in (1, 8):
        fit = jg.fit(ThreeCoins(newton=newton), x, start=start)
        ends = [round(float(fit.params[name]), 4) for name in start]
        print(newton, "Newton step(s):", ends, f"log likelihood {fit.log_likelihood:.4f}")

    # Draws of the prior as starts: every one ends somewhere else, at one height.
    fit = jg.fit(ThreeCoins(), x, key=jax.random.key(0))
    print(sorted({round(float(q), 2) for q in fit.restarts.params["q"]}))
    draws = 200 if small else 1000
    post = jg.sample(fit.model, x, key=jax.random.key(1), start=fit, n_draws=draws, progress=False)
    verdict = jg.compare(fit, post)
    print(verdict)
    return verdict


# %%
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="fewer draws")
    jax.config.update("jax_enable_x64", True)
    main(**vars(parser.parse_args()))
