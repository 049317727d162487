"""Old Faithful, K = 2: jaxgmm's NUTS and Gibbs beside NumPyro's own on the textbook model.

Both sample the same posterior in one process; ratios are what to read. NumPyro compiles
anew at every ``run``, so its rate is given twice: for a user's second call, and for the
marginal draw, that is the difference between a long and a short second call.

    python examples/benchmarks/posterior.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from arviz_stats.base import array_stats
from numpyro.infer import MCMC, NUTS

import jaxgmm as jg

CHAINS, WARMUP, DRAWS = 4, 500, 1000

_compilations = 0


def _count(event: str, _seconds: float, **_: object) -> None:
    global _compilations
    _compilations += event == "/jax/core/compile/backend_compile_duration"


def timed(call):
    """Result, seconds and number of compilations of a call."""
    before, start = _compilations, time.perf_counter()
    result = jax.block_until_ready(call())
    return result, time.perf_counter() - start, _compilations - before


def textbook(x, prior):
    """The same mixture as a NumPyro user writes it."""
    weights = numpyro.sample("weights", dist.Dirichlet(prior.concentration))
    covariances = numpyro.sample(
        "covariances", dist.InverseWishart(prior.dof, prior.scale).expand([2]).to_event(1)
    )
    spread = covariances / prior.mean_precision
    means = numpyro.sample("means", dist.MultivariateNormal(prior.mean, spread).to_event(1))
    components = dist.MultivariateNormal(means, covariances)
    with numpyro.plate("obs", x.shape[0]):
        mixture = dist.MixtureSameFamily(dist.Categorical(weights), components)
        numpyro.sample("x", mixture, obs=x)


def effective_draws(means) -> float:
    """Smallest bulk effective sample size over the means."""
    flat = np.asarray(means, float).reshape(CHAINS, means.shape[1], -1)
    return min(float(array_stats.ess(flat[..., j])) for j in range(flat.shape[-1]))


def main() -> dict[str, float]:
    x = jg.datasets.load("faithful").x
    model = jg.Mixture(jg.Gaussian("full"), 2, prior="fraley-raftery")

    def fit(seed):
        return jg.fit(model, x, key=jax.random.key(seed), n_init=64)

    _, fit_first, _ = timed(lambda: fit(0).params)
    point, fit_second, fit_compiled = timed(lambda: fit(1).params)
    point = fit(1)

    def ours(seed, draws=DRAWS, method="nuts"):
        return jg.sample(
            point.model, x, key=jax.random.key(seed), start=point, method=method, n_chains=CHAINS,
            n_draws=draws, n_warmup=WARMUP, progress=False,
        ).draws["means"]  # fmt: skip

    _, ours_first, _ = timed(lambda: ours(0))
    means, ours_second, ours_compiled = timed(lambda: ours(1))
    ours(0, 5 * DRAWS)
    _, ours_long, _ = timed(lambda: ours(1, 5 * DRAWS))

    _, gibbs_first, _ = timed(lambda: ours(0, method="gibbs"))
    gibbs_means, gibbs_second, gibbs_compiled = timed(lambda: ours(1, method="gibbs"))

    # Chains start at EM's answer too: from random points plain NumPyro can miss the mode.
    start = point.model.sites(point.params)

    def theirs(seed, draws=DRAWS):
        kernel = NUTS(
            lambda: textbook(jnp.asarray(x), point.model.prior),
            init_strategy=numpyro.infer.init_to_value(values=start),
        )
        mcmc = MCMC(
            kernel, num_warmup=WARMUP, num_samples=draws, num_chains=CHAINS,
            chain_method="vectorized", progress_bar=False,
        )  # fmt: skip
        mcmc.run(jax.random.key(seed))
        return mcmc.get_samples(group_by_chain=True)["means"]

    _, theirs_first, _ = timed(lambda: theirs(0))
    plain, theirs_second, theirs_compiled = timed(lambda: theirs(1))
    _, theirs_long, _ = timed(lambda: theirs(1, 5 * DRAWS))

    ess, plain_ess = effective_draws(means), effective_draws(plain)
    per_draw = (ours_long - ours_second) / (4 * DRAWS)
    plain_per_draw = (theirs_long - theirs_second) / (4 * DRAWS)
    return {
        "EM, 64 restarts: first call, s": fit_first,
        "EM, 64 restarts: second call, s": fit_second,
        "EM, 64 restarts: compilations in the second call": fit_compiled,
        "NUTS 4 x 1000: first call, s": ours_first,
        "NUTS 4 x 1000: second call, s": ours_second,
        "NUTS 4 x 1000: compilations in the second call": ours_compiled,
        "NUTS 4 x 1000: effective draws (least of the means)": ess,
        "Gibbs 4 x 1000: first call, s": gibbs_first,
        "Gibbs 4 x 1000: second call, s": gibbs_second,
        "Gibbs 4 x 1000: compilations in the second call": gibbs_compiled,
        "Gibbs 4 x 1000: effective draws (least of the means)": effective_draws(gibbs_means),
        "plain NumPyro 4 x 1000: first call, s": theirs_first,
        "plain NumPyro 4 x 1000: second call, s": theirs_second,
        "plain NumPyro 4 x 1000: compilations in the second call": theirs_compiled,
        "plain NumPyro 4 x 1000: effective draws (least of the means)": plain_ess,
        "ratio, effective draws per second, second call": (ess / ours_second)
        / (plain_ess / theirs_second),
        "marginal ms per draw of all chains: jaxgmm": 1e3 * per_draw,
        "marginal ms per draw of all chains: plain NumPyro": 1e3 * plain_per_draw,
        "ratio, marginal effective draws per second": (ess / per_draw)
        / (plain_ess / plain_per_draw),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="also write the figures to this file")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    jax.monitoring.register_event_duration_secs_listener(_count)
    figures = main()
    for name, value in figures.items():
        print(f"{name:62s} {value:12.3f}")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=1)
