"""Milliseconds per pass of EM on a mixture of Poisson counts: closed M-steps beside numerical ones.

The same density four times: the closed family; the closed family under a prior that is not
conjugate, whose M-step iterates on sums; `Custom`, whose M-step is one Newton step per pass; and a
NumPyro program. A time is the difference between the fastest long and the fastest short run from
one start, divided by the difference in E-steps, so that compilation cancels; contenders take turns.

    python examples/benchmarks/numerical.py [--rows N]
"""

from __future__ import annotations

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import jaxgmm as jg

K, ROUNDS, SHORT, LONG = 3, 6, 2, 22
RATES = np.array([2.0, 5.0, 9.0])


def counts(n: int) -> np.ndarray:
    noise = np.random.default_rng(0)
    return noise.poisson(RATES[noise.integers(K, size=n)])


def program(x):
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(K)))
    rates = numpyro.sample("rates", dist.Gamma(2.0, 0.3).expand([K]).to_event(1))
    with numpyro.plate("rows", len(x)):
        label = numpyro.sample("label", dist.Categorical(weights))
        numpyro.sample("x", dist.Poisson(rates[label]), obs=x)


def contenders(y: np.ndarray) -> dict:
    """Models and where they start."""
    gamma, other = dist.Gamma(2.0, 0.3), dist.LogNormal(1.5, 0.6)
    custom = jg.families.Custom(dist.Poisson, rate=dist.constraints.positive)
    x = np.asarray(y, float)[:, None]
    weights, rates = jnp.full(K, 1 / K), jnp.asarray(RATES + 1.0)

    def mixture(family, site, prior):
        priors = {"weights": dist.Dirichlet(jnp.ones(K)), site: prior}
        model = jg.Mixture(family, K, prior=priors).resolve(x)
        return model, model.params(weights=weights, **{site: rates})

    return {
        "closed form": mixture(jg.families.Poisson(), "rates", gamma),
        "LogNormal prior": mixture(jg.families.Poisson(), "rates", other),
        "Custom": mixture(custom, "rate", gamma),
        "NumPyro program": (jg.from_numpyro(program, y), {"weights": weights, "rates": rates}),
    }


def timed(model, start, x):
    """A measurement: seconds and E-steps of a short and of a long run."""

    def em(start, x, count):
        return jg.em.run(model, x, start, tol=0.0, max_iter=count)

    run = jax.jit(em, static_argnums=2)

    def seconds(count):
        begin = time.perf_counter()
        passes = int(jax.block_until_ready(run(start, x, count)).n_evaluations)
        return time.perf_counter() - begin, passes

    def measure():
        return seconds(SHORT), seconds(LONG)

    measure()  # compile
    return measure


def main(rows: int) -> None:
    y = counts(rows)
    x = jnp.asarray(y, float)[:, None]
    timers = {name: timed(*of, x) for name, of in contenders(y).items()}
    rounds = [{name: measure() for name, measure in timers.items()} for _ in range(ROUNDS)]
    best = {}
    for name in timers:
        (short, few), (long, many) = np.min([times[name] for times in rounds], axis=0)
        best[name] = 1e3 * (long - short) / (many - few)
    print(f"Poisson, n = {rows}, K = {K}, float64, {jax.devices()[0].device_kind}")
    for name, ms in best.items():
        print(f"| {name} | {ms:.3g} | {ms / best['closed form']:.2g}x |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    jax.config.update("jax_enable_x64", True)
    main(**vars(parser.parse_args()))
