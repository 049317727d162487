"""What kind of numbers the columns are, and the densities of single ones, for figures."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax import lax
from jaxtyping import Array

from jaxgmm._contract import LatentModel, Params
from jaxgmm._programs import program
from jaxgmm.bayes import Posterior
from jaxgmm.report.plots._canvas import span

# Kinds whose single columns have a density of their own; "each": by kinds of single columns.
ONE_BY_ONE = ("counts", "positives", "each")
# Kinds of which the parameters themselves are the picture: probabilities by column.
PROFILES = ("levels", "shares")
# The kind of a response given other columns.
LINES = "lines"
# Kinds of which every value is one of few, or of whole numbers.
DISCRETE = ("counts", "levels", "shares")


def kind_of(model: LatentModel) -> str | None:
    """A `jaxgmm.Family.columns`; None for a model that is no mixture of a family."""
    return getattr(getattr(model, "family", None), "columns", None)


def kinds_of(model: LatentModel, d: int) -> tuple[str | None, ...]:
    """The same column by column."""
    family = getattr(model, "family", None)
    return (None,) * d if family is None else family.kinds(d)


def named(names: tuple[str, ...], x: Any) -> np.ndarray:
    """The columns of rows that have names; noise beside them has none."""
    rows = np.asarray(x, np.float64)
    return rows.reshape(len(rows), -1)[:, : len(names)]


def label_name(model: LatentModel, k: int) -> str:
    """What a label is: a component by its number, or what is no component by its own name."""
    apart = model.labels_apart
    first = model.n_components - len(apart)
    return f"component {k}" if k < first else apart[k - first]


def words_of(model: Any, names: tuple[str, ...], column: int, values: np.ndarray) -> list[str]:
    """What whoever handed over the data calls values of a column."""
    rows = np.zeros((len(values), len(names)))
    rows[:, column] = values
    own = model.table(rows, names)[names[column]]
    return [word if isinstance(word, str) else f"{word:g}" for word in own]


def drawn(post: Posterior, most: int) -> Params:
    """Parameters (S, ...) of equally weighted draws, in one row."""
    flat = lambda leaf: jax.device_put(leaf.reshape(-1, *leaf.shape[2:]))
    return jax.tree.map(flat, post.thin(most).params)


def one(params: Params) -> Params:
    """A point as the only one of a row."""
    return jax.device_put(jax.tree.map(lambda leaf: np.asarray(leaf)[None], params))


def densities(model: Any, params: Params, column: int, grid: np.ndarray) -> np.ndarray:
    """(S, K, m): what the family says of values of one column."""
    dtype = params.weights.dtype
    return np.asarray(_densities(model.family, params, column, np.asarray(grid, dtype)))


@program()
def _densities(family: Any, params: Params, column: int, grid: Array) -> Array:
    return lax.map(lambda p: family.marginal(p, column, grid), params)


def values_of(x: np.ndarray, kind: str | None, points: int = 300) -> np.ndarray:
    """Where a column is looked at: codes, whole numbers, or evenly spaced ones."""
    high = float(np.max(x))
    if kind == "levels":
        return np.arange(high + 1)
    if kind == "numbers":
        return np.linspace(*span(x), points)
    if kind == "counts":
        low, high = np.floor(np.min(x)), np.ceil(high + 0.1 * (high - np.min(x)) + 1)
        return np.unique(np.linspace(max(low - 1, 0), high, points).round())
    return np.linspace(0, 1.05 * high, points + 1)[1:]
