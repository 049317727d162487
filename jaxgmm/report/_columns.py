"""What kind of numbers the columns are, and the densities of single ones, for figures."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from jaxgmm._contract import LatentModel, Params
from jaxgmm._posterior import Posterior
from jaxgmm._programs import program

# Kinds whose single columns have a density of their own.
ONE_BY_ONE = ("counts", "positives")
# Kinds of which the parameters themselves are the picture: probabilities by column.
PROFILES = ("levels", "shares")
# Kinds of which every value is one of few, or of whole numbers.
DISCRETE = ("counts", "levels", "shares")


def kind_of(model: LatentModel) -> str | None:
    """A `jaxgmm.Family.columns`; None for a model that is no mixture of a family."""
    return getattr(getattr(model, "family", None), "columns", None)


def drawn(post: Posterior, most: int) -> Params:
    """Parameters (S, ...) of equally weighted draws, in one row."""
    flat = lambda leaf: jnp.asarray(leaf.reshape(-1, *leaf.shape[2:]))
    return jax.tree.map(flat, post.thin(most).params)


def one(params: Params) -> Params:
    """A point as the only one of a row."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], params)


def densities(model: Any, params: Params, column: int, grid: np.ndarray) -> np.ndarray:
    """(S, K, m): what the family says of values of one column."""
    dtype = params.weights.dtype
    return np.asarray(_densities(model.family, params, column, jnp.asarray(grid, dtype)))


@program()
def _densities(family: Any, params: Params, column: int, grid: Array) -> Array:
    return lax.map(lambda p: family.marginal(p, column, grid), params)


def values_of(x: np.ndarray, counts: bool, points: int = 300) -> np.ndarray:
    """Where a column is looked at: whole numbers, or evenly spaced ones above zero."""
    high = float(np.max(x))
    if counts:
        low, high = np.floor(np.min(x)), np.ceil(high + 0.1 * (high - np.min(x)) + 1)
        return np.unique(np.linspace(max(low - 1, 0), high, points).round())
    return np.linspace(0, 1.05 * high, points + 1)[1:]
