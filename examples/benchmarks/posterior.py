"""Old Faithful, K = 2: jaxgmm's NUTS and Gibbs beside NumPyro's own on the textbook model.

Both sample the same posterior in one process; ratios are what to read. NumPyro compiles
anew at every ``run``, so rates are given twice: for a user's second call, and for the marginal
draw of all chains, a long run less a short one. That of NumPyro is its own step, compiled once: of
four chains side by side, and of one chain four times, as `MCMC` runs them on one device unless
told otherwise. That of jaxgmm is the sampler alone, and all of `sample` with labels and log
likelihoods. Marginal seconds are of the processor, the least of three rounds in turn. Each
sampler aims at its own default acceptance, jaxgmm's at NumPyro's too.

``--large`` times a gradient and a draw of 10,000 rows of eight features and five components.

    python examples/benchmarks/posterior.py [--large] [--json FILE]
"""

from __future__ import annotations

import argparse
import functools
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from arviz_stats.base import array_stats
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import potential_energy, unconstrain_fn

import jaxgmm as jg
from jaxgmm.bayes._chains import Schedule

CHAINS, WARMUP, DRAWS = 4, 500, 1000

_compilations = 0


def _count(event: str, _seconds: float, **_: object) -> None:
    global _compilations
    _compilations += event == "/jax/core/compile/backend_compile_duration"


def count_compilations() -> None:
    jax.monitoring.register_event_duration_secs_listener(_count)


def timed(call):
    """Result, seconds and number of compilations of a call."""
    before, start = _compilations, time.perf_counter()
    result = jax.block_until_ready(call())
    return result, time.perf_counter() - start, _compilations - before


def textbook(x, prior):
    """The same mixture as a NumPyro user writes it."""
    weights = numpyro.sample("weights", dist.Dirichlet(prior.concentration))
    covariances = numpyro.sample(
        "covariances",
        dist.InverseWishart(prior.dof, prior.scale).expand([len(prior.concentration)]).to_event(1),
    )
    spread = covariances / prior.mean_precision
    means = numpyro.sample("means", dist.MultivariateNormal(prior.mean, spread).to_event(1))
    components = dist.MultivariateNormal(means, covariances)
    with numpyro.plate("obs", x.shape[0]):
        mixture = dist.MixtureSameFamily(dist.Categorical(weights), components)
        numpyro.sample("x", mixture, obs=x)


def plain_numpyro(start: jg.Fit, x, n_draws: int, n_warmup: int, n_chains: int) -> MCMC:
    """NumPyro's sampler of `textbook`. From random points it can miss the mode, so that it
    starts at EM's answer too."""
    values = start.model.sites(start.params)
    kernel = NUTS(
        lambda: textbook(jnp.asarray(x), start.model.prior),
        init_strategy=numpyro.infer.init_to_value(values=values),
    )
    return MCMC(
        kernel, num_warmup=n_warmup, num_samples=n_draws, num_chains=n_chains,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip


def steps(mcmc: MCMC, count: int):
    """So many draws of NumPyro's sampler, compiled once."""
    draw = lambda _, state: mcmc.sampler.sample(state, (), {})
    return jax.jit(lambda state: jax.lax.fori_loop(0, count, draw, state))


def processor_seconds(call) -> float:
    start = time.process_time()
    jax.block_until_ready(call())
    return time.process_time() - start


def effective_draws(*runs) -> float:
    """Smallest bulk effective sample size over the means, averaged over runs."""

    def least(means):
        flat = np.asarray(means, float).reshape(CHAINS, means.shape[1], -1)
        return min(float(array_stats.ess(flat[..., j])) for j in range(flat.shape[-1]))

    return float(np.mean([least(means) for means in runs]))


def main() -> dict[str, float]:
    x = jg.datasets.load("faithful").x
    model = jg.Mixture(jg.Gaussian("full"), 2, prior="fraley-raftery")

    def fit(seed):
        return jg.fit(model, x, key=jax.random.key(seed), n_init=64)

    _, fit_first, _ = timed(lambda: fit(0).params)
    point, fit_second, fit_compiled = timed(lambda: fit(1).params)
    point = fit(1)

    def ours(seed, draws=DRAWS, method="nuts", **options):
        return jg.sample(
            point.model, x, key=jax.random.key(seed), start=point, method=method, n_chains=CHAINS,
            n_draws=draws, n_warmup=WARMUP, progress=False, **options,
        ).draws["means"]  # fmt: skip

    means, ours_first, _ = timed(lambda: ours(0))
    second_means, ours_second, ours_compiled = timed(lambda: ours(1))
    _, gibbs_first, _ = timed(lambda: ours(0, method="gibbs"))
    gibbs_means, gibbs_second, gibbs_compiled = timed(lambda: ours(1, method="gibbs"))

    def theirs(seed):
        mcmc = plain_numpyro(point, x, DRAWS, WARMUP, CHAINS)
        mcmc.run(jax.random.key(seed))
        return mcmc, mcmc.get_samples(group_by_chain=True)["means"]

    (_, plain), theirs_first, _ = timed(lambda: theirs(0))
    (mcmc, second_plain), theirs_second, theirs_compiled = timed(lambda: theirs(1))

    single = plain_numpyro(point, x, 1, WARMUP, 1)
    single.run(jax.random.key(1))
    alone = functools.partial(sampler, point, x)
    contenders = {
        "NumPyro, chains side by side": one_length(steps(mcmc, DRAWS), mcmc.last_state),
        "NumPyro, one chain after another": one_length(
            steps(single, CHAINS * DRAWS), single.last_state
        ),
        "jaxgmm, sampler alone": two_lengths(alone),
        "jaxgmm, sampler alone, acceptance 0.8": two_lengths(
            functools.partial(alone, target_acceptance=0.8)
        ),
        "jaxgmm, all of sample": two_lengths(ours),
    }
    rounds = {name: [] for name in contenders}
    for seed in range(4):  # the first compiles
        for name, measure in contenders.items():
            rounds[name].append(measure(seed))
    # The shortest long and the shortest short run: the least of the differences would be that
    # of the unluckiest short run.
    per_draw = {}
    for name, measured in rounds.items():
        short, long, between = np.min(measured[1:], axis=0)
        per_draw[name] = (long - short) / between

    ess = effective_draws(means, second_means)
    ess_alike = effective_draws(*(ours(seed, target_acceptance=0.8) for seed in range(2)))
    plain_ess = effective_draws(plain, second_plain)
    side_by_side = plain_ess / per_draw["NumPyro, chains side by side"]
    rate = ess / per_draw["jaxgmm, sampler alone"]
    rate_alike = ess_alike / per_draw["jaxgmm, sampler alone, acceptance 0.8"]
    return {
        "EM, 64 restarts: first call, s": fit_first,
        "EM, 64 restarts: second call, s": fit_second,
        "EM, 64 restarts: compilations in the second call": fit_compiled,
        "NUTS 4 x 1000: first call, s": ours_first,
        "NUTS 4 x 1000: second call, s": ours_second,
        "NUTS 4 x 1000: compilations in the second call": ours_compiled,
        "NUTS 4 x 1000: effective draws (least of the means, two runs)": ess,
        "the same at acceptance 0.8": ess_alike,
        "Gibbs 4 x 1000: first call, s": gibbs_first,
        "Gibbs 4 x 1000: second call, s": gibbs_second,
        "Gibbs 4 x 1000: compilations in the second call": gibbs_compiled,
        "Gibbs 4 x 1000: effective draws (least of the means, two runs)": effective_draws(
            gibbs_means
        ),
        "plain NumPyro 4 x 1000: first call, s": theirs_first,
        "plain NumPyro 4 x 1000: second call, s": theirs_second,
        "plain NumPyro 4 x 1000: compilations in the second call": theirs_compiled,
        "plain NumPyro 4 x 1000: effective draws (least of the means, two runs)": plain_ess,
        "ratio, effective draws per second, second call": (ess / ours_second)
        / (plain_ess / theirs_second),
        **{f"marginal ms per draw: {name}": 1e3 * took for name, took in per_draw.items()},
        "ratio, marginal effective draws per second": rate / side_by_side,
        "the same, both at acceptance 0.8": rate_alike / side_by_side,
    }


def sampler(start: jg.Fit, x, seed: int, draws: int, **options):
    """The draws of NUTS as the sampler leaves them, in working units and without labels."""
    model = start.model.standardise(jnp.asarray(x))
    mode = model.to_working(start.params)
    modes = jax.tree.map(lambda leaf: jnp.stack([leaf] * CHAINS), mode)
    schedule = Schedule(draws, WARMUP, 1)
    key = jax.random.key(seed)
    draws = jg.bayes.NUTS(**options).draw(model, jnp.asarray(x), None, modes, key, schedule, False)
    return draws.params.means


def one_length(step, state):
    """A measurement of a step that makes `DRAWS` draws and nothing else."""
    return lambda seed: (0.0, processor_seconds(lambda: step(state)), DRAWS)


def two_lengths(draw):
    """A measurement that leaves out what a call does once: seconds of few draws and of many."""
    seconds = lambda seed, count: processor_seconds(lambda: draw(seed, count))
    return lambda seed: (seconds(seed, DRAWS), seconds(seed, 4 * DRAWS), 3 * DRAWS)


def large() -> dict[str, float]:
    """Processor seconds of one gradient and of one draw, all chains, around one mode."""
    n, d, k = 10_000, 8, 5
    rng = np.random.default_rng(0)
    x = 3 * rng.normal(size=(k, d))[rng.integers(k, size=n)] + rng.normal(size=(n, d))
    fit = jg.fit(
        jg.Mixture(jg.Gaussian("full"), k, prior="fraley-raftery"), x, key=jax.random.key(0),
        n_init=8,
    )  # fmt: skip

    def seconds(program, args, sites, rounds):
        start = unconstrain_fn(program, args, {}, sites)
        chains = jax.tree.map(lambda leaf: jnp.stack([leaf] * CHAINS), start)
        potential = jax.vmap(jax.value_and_grad(lambda z: potential_energy(program, args, {}, z)))

        def descend(_, z):
            value, gradient = potential(z)
            nothing = lambda a, g: a - 1e-12 * (g + value.reshape(-1, *[1] * (g.ndim - 1)))
            return jax.tree.map(nothing, z, gradient)

        loop = jax.jit(lambda z: jax.lax.fori_loop(0, rounds, descend, z))
        loop(chains)
        return min(processor_seconds(lambda: loop(chains)) for _ in range(3)) / rounds

    rows = jnp.asarray(x)
    model = fit.model.standardise(rows)
    ours = seconds(model.numpyro_model, (rows,), model.sites(model.to_working(fit.params)), 20)
    sites = fit.model.sites(fit.params)
    plain = seconds(lambda rows: textbook(rows, fit.model.prior), (rows,), sites, 5)

    def draws(count):
        return jg.sample(
            fit.model, x, key=jax.random.key(0), start=fit, n_chains=CHAINS, n_draws=count,
            n_warmup=100, progress=False,
        ).draws["means"]  # fmt: skip

    few, many = 10, 60
    draws(few), draws(many)  # compile
    short, long = (processor_seconds(lambda count=count: draws(count)) for count in (few, many))
    per_draw = (long - short) / (many - few)

    mcmc = plain_numpyro(fit, x, 1, 100, CHAINS)
    mcmc.run(jax.random.key(0))
    step = steps(mcmc, few)
    state = step(mcmc.last_state)
    plain_per_draw = processor_seconds(lambda: step(state)) / few
    return {
        "n = 10,000, D = 8, K = 5: gradient of 4 chains, jaxgmm, ms": 1e3 * ours,
        "n = 10,000, D = 8, K = 5: gradient of 4 chains, plain, ms": 1e3 * plain,
        "ratio, gradients": plain / ours,
        "marginal ms per draw of all chains: jaxgmm": 1e3 * per_draw,
        "marginal ms per draw of all chains: plain NumPyro": 1e3 * plain_per_draw,
        "ratio, marginal draws": plain_per_draw / per_draw,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="10,000 rows: a gradient, a draw")
    parser.add_argument("--json", help="also write the figures to this file")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    count_compilations()
    figures = large() if arguments.large else main()
    for name, value in figures.items():
        print(f"{name:62s} {value:12.3f}")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=1)
