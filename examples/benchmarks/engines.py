"""Old Faithful, K = 1, 2, 3: every engine on one posterior, side by side.

The rows are standardised and the prior is Dirichlet(2, ..., 2) with a normal-inverse-Wishart of
mean 0, mean precision 0.1, 4 degrees of freedom and scale I / 2. Moments are of quantities that
no renaming of labels changes, with their Monte-Carlo error; those of approximations are also
given under their importance weights.

    python examples/benchmarks/engines.py [-k 1 2 3] [--draws 1000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from arviz_stats.base import array_stats

import jaxgmm as jg

CHAINS = 4
# Seconds are of two calls with one key each; an engine that has no error of its own has none.
METHODS = ("gibbs", "nuts", "smc", "laplace", "vb", "svi")


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


def timed(call):
    begin = time.perf_counter()
    result = call()
    return result, time.perf_counter() - begin


def row(method: str, start: jg.Fit, n_draws: int) -> dict:
    def draw(seed):
        return jg.sample(
            start.model, x, key=jax.random.key(seed), start=start, method=method,
            n_chains=CHAINS, n_draws=n_draws, progress=False,
        )  # fmt: skip

    x = standardised(jg.datasets.load("faithful").x)
    post, first = timed(lambda: draw(0))
    post, second = timed(lambda: draw(1))
    result = {"K": post.model.n_components, "method": method, "first s": first, "second s": second}
    quantities = {"log_likelihood": post.log_likelihood}
    if post.model.n_components > 1:
        quantities["smallest weight"] = np.min(post.draws["weights"], axis=-1)
    for name, values in quantities.items():
        result[name], result[f"{name} sd"], result[f"{name} error"] = summary(values)
        if post.log_weights is not None:
            weighted = summary(values, post.log_weights)
            result[f"{name}, weighted"], _, result[f"{name}, weighted, error"] = weighted
    independent = post.log_weights is not None
    least = CHAINS * n_draws
    if not independent:
        least = min(float(array_stats.ess(values)) for values in quantities.values())
    result["effective draws per s"] = least / second
    if post.pareto_k is not None:
        result["k-hat"] = post.pareto_k
    if post.evidence is not None:
        result["log evidence"], result["error"] = post.evidence[:2]
    if "elbo" in post.diagnostics:
        result["ELBO"] = float(post.diagnostics["elbo"])
    if method == "gibbs" and hasattr(jg, "evidence"):
        bridge, seconds = timed(lambda: jg.evidence(post, key=jax.random.key(2)))
        result["log evidence"], result["error"] = bridge[:2]
        result["bridge s"] = seconds
    return result


def main(components, n_draws: int) -> pd.DataFrame:
    rows = []
    for k in components:
        x = standardised(jg.datasets.load("faithful").x)
        start = jg.fit(model(k), x, key=jax.random.key(0), n_init=64)
        rows += [row(method, start, n_draws) for method in METHODS]
    return pd.DataFrame(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--json", help="also write the figures to this file")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    table = main(arguments.k, arguments.draws)
    with pd.option_context("display.width", 250, "display.max_columns", None):
        print(table.T.to_string(float_format="{:.4g}".format))
    if arguments.json:
        records = json.loads(table.to_json(orient="records"))
        Path(arguments.json).write_text(json.dumps(records, indent=1))
