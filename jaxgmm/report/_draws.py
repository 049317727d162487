"""The posterior as the verdict needs it: with the labels of the fit, its weights counted."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float
from scipy.optimize import linear_sum_assignment

from jaxgmm._contract import LatentModel, Params
from jaxgmm._labelling import all_sites, relabelled
from jaxgmm._posterior import Posterior
from jaxgmm._programs import program
from jaxgmm._results import Fit

# Rows and draws that clusterings and predictions are judged on.
_MOST_ROWS = 2000
_MOST_DRAWS = 400


class Seen(NamedTuple):
    """What some draws and the fit say of some rows.

    Attributes
    ----------
    log_density : (S, n) array
        Of each row at each draw, the label summed out.
    probability : (S, n, K) array
        Of each label.
    fit_log_density, fit_probability : (n,) and (n, K) arrays
        The same at the fit.
    """

    log_density: Float[np.ndarray, "s n"]
    probability: Float[np.ndarray, "s n k"]
    fit_log_density: Float[np.ndarray, " n"]
    fit_probability: Float[np.ndarray, "n k"]

    @property
    def size(self) -> str:
        """How much that is, in words."""
        draws, rows = self.log_density.shape
        return f"{rows} rows, {draws} draws"


def some_rows(post: Posterior) -> np.ndarray:
    """Indices of evenly spaced rows of the data."""
    n = post.x.shape[0]
    return np.linspace(0, n - 1, min(n, _MOST_ROWS)).astype(int)


def look(fit: Fit, post: Posterior, x: Array) -> Seen:
    """`Seen` of rows by thinned draws, which count alike."""
    stack = lambda at, draws: jnp.concatenate(
        [jnp.asarray(at)[None], jnp.asarray(draws.reshape(-1, *draws.shape[2:]))]
    )
    points = jax.tree.map(stack, fit.params, post.thin(_MOST_DRAWS).params)
    density, probability = _at_all(fit.model, points, x)
    density, probability = (np.asarray(v, np.float64) for v in (density, probability))
    return Seen(density[1:], probability[1:], density[0], probability[0])


@program()
def _at_all(model: LatentModel, params: Params, x: Array) -> tuple[Array, Array]:
    return lax.map(lambda p: (model.log_prob(p, x), model.responsibilities(p, x)), params)


def aligned(post: Posterior, seen: Seen) -> Posterior:
    """The posterior with one renaming of all its labels, that which agrees best with the fit.

    Each label of the draws takes the name of the label of the fit that holds the same rows:
    the sum of the cosines between their probabilities of the rows is largest.
    """
    unit = lambda columns: columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
    agreement = unit(np.mean(seen.probability, axis=0)).T @ unit(seen.fit_probability)
    theirs, ours = linear_sum_assignment(-agreement)
    order = theirs[np.argsort(ours)]
    if np.array_equal(order, np.arange(len(order))):
        return post
    params = relabelled(post.model, post.params, np.broadcast_to(order, post.labels.shape))
    sites = all_sites(post.model, params)
    return dataclasses.replace(
        post,
        draws={name: np.asarray(sites[name], old.dtype) for name, old in post.draws.items()},
        params=jax.tree.map(np.asarray, params),
        labels=post.labels[..., order],
    )
