"""The posterior as the verdict needs it: with the labels of the fit, its weights counted."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxgmm._assignment import cheapest
from jaxgmm._contract import LatentModel, Params
from jaxgmm._labelling import all_sites, relabelled
from jaxgmm._posterior import Posterior
from jaxgmm._results import Fit

# Rows that labels, clusterings and predictions are judged on.
MOST_ROWS = 2000
# Draws that averages over rows are made of.
MOST_DRAWS = 400


def some_rows(post: Posterior) -> np.ndarray:
    """Evenly spaced rows of the data."""
    n = post.x.shape[0]
    return np.linspace(0, n - 1, min(n, MOST_ROWS)).astype(int)


def aligned(fit: Fit, post: Posterior) -> Posterior:
    """The posterior with one renaming of all its labels, that which agrees best with the fit.

    Each label of the draws takes the name of the label of the fit that holds the same rows:
    the sum of the cosines between their probabilities of the rows is largest.
    """
    if post.model.n_components == 1:
        return post
    rows = post.x[some_rows(post)]
    theirs = post.thin(MOST_DRAWS).responsibilities(rows)
    order = np.asarray(_agreeing(fit.model, fit.params, rows, jnp.asarray(theirs)))
    if np.array_equal(order, np.arange(len(order))):
        return post
    everywhere = np.broadcast_to(order, post.labels.shape)
    params = relabelled(post.model, post.params, everywhere)
    sites = all_sites(post.model, params)
    return dataclasses.replace(
        post,
        draws={name: np.asarray(site, post.draws[name].dtype) for name, site in sites.items()},
        params=jax.tree.map(np.asarray, params),
        labels=post.labels[..., order],
    )


def moments(draws: np.ndarray, post: Posterior) -> tuple[float, float]:
    """Mean and standard deviation over the draws with their weights."""
    draws = np.asarray(draws, np.float64)
    if post.log_weights is None:
        return float(np.mean(draws)), float(np.std(draws, ddof=1))
    weights = np.exp(post.log_weights)
    mean = float(np.average(draws, weights=weights))
    return mean, float(np.sqrt(np.average((draws - mean) ** 2, weights=weights)))


def quantiles(draws: np.ndarray, levels: list[float], post: Posterior) -> np.ndarray:
    """Of the draws with their weights."""
    if post.log_weights is None:
        return np.quantile(draws, levels)
    weights = np.exp(post.log_weights).ravel()
    return np.quantile(draws.ravel(), levels, weights=weights, method="inverted_cdf")


@jax.jit
def _agreeing(model: LatentModel, params: Params, x: Array, theirs: Array) -> Int[Array, " k"]:
    unit = lambda columns: columns / (jnp.linalg.norm(columns, axis=0) + 1e-300)
    ours = unit(model.responsibilities(params, x).astype(theirs.dtype))
    return cheapest(-(unit(theirs).T @ ours)[None])[0]
