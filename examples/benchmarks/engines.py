"""Old Faithful, K = 1, 2, 3: every engine on one posterior, side by side, and plain NumPyro.

The rows are standardised and the prior is Dirichlet(2, ..., 2) with a normal-inverse-Wishart of
mean 0, mean precision 0.1, 4 degrees of freedom and scale I / 2. Moments are of quantities that
no renaming of labels changes, with their Monte-Carlo error; those of approximations are also
given under their importance weights. Seconds are of two calls with one key each; compilations
are those of the second.

    python examples/benchmarks/engines.py [-k 1 2 3] [--draws 1000] [--methods nuts] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from arviz_stats.base import array_stats
from posterior import count_compilations, plain_numpyro, timed

import jaxgmm as jg

CHAINS, WARMUP = 4, 500
PLAIN = "plain NumPyro"
METHODS = ("gibbs", "nuts", PLAIN, "smc", "laplace", "vb", "svi")


def standardised(x):
    return (x - x.mean(axis=0)) / x.std(axis=0)


def model(k: int) -> jg.Mixture:
    prior = jg.ConjugatePrior(
        concentration=2.0, mean=np.zeros(2), mean_precision=0.1, dof=4.0, scale=0.5 * np.eye(2)
    )
    return jg.Mixture(jg.Gaussian("full"), k, prior=prior)


def summary(values, log_weights=None) -> tuple[float, float, float]:
    """Mean, standard deviation and the Monte-Carlo error of the mean of (chain, draw) values."""
    weights = None if log_weights is None else np.exp(log_weights)
    mean = np.average(values, weights=weights)
    sd = np.sqrt(np.average((values - mean) ** 2, weights=weights))
    if weights is None:
        return mean, sd, sd / np.sqrt(float(array_stats.ess(values)))
    return mean, sd, np.sqrt(np.sum(weights**2 * (values - mean) ** 2))


def row(method: str, start: jg.Fit, x, n_draws: int) -> dict:
    def draw(seed):
        return jg.sample(
            start.model, x, key=jax.random.key(seed), start=start, method=method,
            n_chains=CHAINS, n_draws=n_draws, n_warmup=WARMUP, progress=False,
        )  # fmt: skip

    if method == PLAIN:
        return plain(start, x, n_draws)
    _, first, _ = timed(lambda: draw(0))
    post, second, compiled = timed(lambda: draw(1))
    result = times(post.model, method, first, second, compiled)
    values = quantities(post.log_likelihood, post.draws["weights"])
    result |= moments(values, post.log_weights)
    least = CHAINS * n_draws  # independent draws
    if post.log_weights is None:
        least = effective(values)
    result["effective draws per s"] = least / second
    if post.pareto_k is not None:
        result["k-hat"] = post.pareto_k
    if post.evidence is not None:
        result["log evidence"], result["error"] = post.evidence[:2]
    if "elbo" in post.diagnostics:
        result["ELBO"] = float(post.diagnostics["elbo"])
    if method == "gibbs":
        bridge, seconds, _ = timed(lambda: jg.evidence(post, key=jax.random.key(2)))
        result["log evidence"], result["error"] = bridge[:2]
        result["bridge s"] = seconds
    return result


def plain(start: jg.Fit, x, n_draws: int) -> dict:
    """NumPyro's own sampler on the mixture as its users write it, from the same start."""

    def draw(seed):
        mcmc = plain_numpyro(start, x, n_draws, WARMUP, CHAINS)
        mcmc.run(jax.random.key(seed))
        return mcmc.get_samples(group_by_chain=True)

    _, first, _ = timed(lambda: draw(0))
    draws, second, compiled = timed(lambda: draw(1))
    height = jax.jit(lambda p: start.model.log_likelihood(p, x))
    at = jax.vmap(jax.vmap(lambda sites: height(start.model.from_sites(sites))))
    values = quantities(np.asarray(at(draws)), np.asarray(draws["weights"]))
    result = times(start.model, PLAIN, first, second, compiled) | moments(values)
    result["effective draws per s"] = effective(values) / second
    return result


def times(model: jg.Mixture, method: str, first: float, second: float, compiled: int) -> dict:
    names = {"K": model.n_components, "method": method}
    return names | {"first s": first, "second s": second, "compilations": compiled}


def quantities(log_likelihood, weights) -> dict:
    values = {"log_likelihood": log_likelihood}
    if weights.shape[-1] > 1:
        values["smallest weight"] = np.min(weights, axis=-1)
    return values


def moments(values: dict, log_weights=None) -> dict:
    result = {}
    for name, drawn in values.items():
        result[name], result[f"{name} sd"], result[f"{name} error"] = summary(drawn)
        if log_weights is not None:
            weighted = summary(drawn, log_weights)
            result[f"{name}, weighted"], _, result[f"{name}, weighted, error"] = weighted
    return result


def effective(values: dict) -> float:
    """The least effective sample size."""
    return min(float(array_stats.ess(drawn)) for drawn in values.values())


def main(components, methods, n_draws: int) -> pd.DataFrame:
    x = standardised(jg.datasets.load("faithful").x)
    rows = []
    for k in components:
        start = jg.fit(model(k), x, key=jax.random.key(0), n_init=64)
        for method in methods:
            rows.append(row(method, start, x, n_draws))
            print(f"K = {k}, {method}: done", flush=True)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--json", help="also write the figures to this file")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    count_compilations()
    table = main(arguments.k, arguments.methods, arguments.draws)
    with pd.option_context("display.width", 250, "display.max_columns", None):
        print(table.T.to_string(float_format="{:.4g}".format))
    if arguments.json:
        records = json.loads(table.to_json(orient="records"))
        Path(arguments.json).write_text(json.dumps(records, indent=1))
