"""Figure: which values are missing, and what the posterior says they were."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxgmm import bayes
from jaxgmm._checks import check_key
from jaxgmm.bayes import Posterior
from jaxgmm.report.plots._canvas import (
    COLOURS,
    GREY,
    MOST_FEATURES,
    PROBABILITY,
    panels,
    plain,
    spread,
)
from jaxgmm.report.plots._columns import DISCRETE, drawn, kinds_of, values_of, words_of

_DRAWS = 100
_MOST_IMPUTED = 1000  # rows
_MOST_INTERVALS = 60  # of a column
_MOST_STRIPES = 300  # of the map
# Beyond so many values a column of counts is drawn as one of numbers.
_MOST_BARS = 30


def plot_missing(post: Posterior, key: jax.Array, ax: Any = None) -> Any:
    """Which values are missing, and imputations of (at most six) columns with their spread.

    The first panel has a column for each of the data and a stripe for each row, rows with the same
    holes together, dark where a value is missing. Of a column of numbers there are medians and 95%
    intervals of the imputations, row by row, over the range that holds 95% of the values that are
    there (grey); of codes and counts shares of the values among the imputations, with 95%
    intervals, over those among the values that are there.

    Parameters
    ----------
    post : Posterior
        On data with missing values; weighted draws are resampled.
    key : typed random key
        For the imputations.
    ax : array of matplotlib Axes, optional
        Where to draw: one for the map, and one for each column that has holes.

    Returns
    -------
    matplotlib Figure or array of Axes
        A new figure, which notebooks show; or ``ax``, where it was given.

    Raises
    ------
    ValueError
        Where no value is missing, and where ``ax`` has another number of panels.
    """
    check_key(key, "missing values are drawn")
    x = np.asarray(post.x, np.float64)
    gone = np.isnan(x)
    if not gone.any():
        raise ValueError("post: no value is missing in its data, so that there is nothing to show")
    names, kinds = post.feature_names, kinds_of(post.model, x.shape[1])
    shown = np.flatnonzero(gone.any(axis=0))[:MOST_FEATURES]
    count = 1 + len(shown)
    columns = min(count, 3)
    rows = -(-count // columns)
    shape = (rows, columns) if ax is None else (1, count)
    figure, grid = panels(ax, shape, (max(3.0 * columns, 6.0), 2.9 * rows + 0.3))
    _draw_map(grid.flat[0], gone, names)
    index = spread(np.flatnonzero(gone[:, shown].any(axis=1)), _MOST_IMPUTED)
    imputed = _imputations(post, index, key)
    for column, axes in zip(shown, grid.flat[1:], strict=False):
        there, kind = x[~gone[:, column], column], kinds[column]
        own = imputed[:, gone[index, column], column]
        if kind in DISCRETE and np.ptp(there) < _MOST_BARS:
            values = values_of(there, kind)
            _draw_shares(axes, there, own, values)
            if kind == "levels":
                words = words_of(post.model, names, int(column), values)
                axes.set_xticks(values, map(plain, words))
        else:
            _draw_intervals(axes, there, own)
        share = np.mean(gone[:, column])
        axes.set_title(f"{plain(names[column])}, {share:.0%} missing", fontsize=9, loc="left")
    for axes in grid.flat[count:]:
        axes.remove()
    return figure if ax is None else ax


def _imputations(post: Posterior, index: np.ndarray, key: jax.Array) -> np.ndarray:
    """(S, rows, D) in the units of the data."""
    near = post.near
    found = bayes.imputed(near.model, drawn(near, _DRAWS), key, np.asarray(near.x)[index])
    found = np.asarray(found, np.float64)
    return found if post.origin is None else found + post.origin


def _draw_map(axes: Any, gone: np.ndarray, names: tuple[str, ...]) -> None:
    order = np.lexsort(gone.T[::-1])
    stripes = [
        part.mean(axis=0) for part in np.array_split(gone[order], _MOST_STRIPES) if len(part)
    ]
    picture = {"cmap": PROBABILITY, "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    # In rows from the top.
    extent = (-0.5, gone.shape[1] - 0.5, len(gone), 0)
    axes.imshow(stripes, aspect="auto", extent=extent, **picture)
    few = spread(np.arange(len(names)), 12)
    axes.set_xticks(few, [plain(names[j]) for j in few], rotation=90, fontsize=8)
    axes.set(ylabel="rows, by what they lack")
    axes.set_title(f"{gone.mean():.0%} of all values missing", fontsize=9, loc="left")


def _draw_intervals(axes: Any, there: np.ndarray, imputed: np.ndarray) -> None:
    low, high = np.quantile(there, [0.025, 0.975])
    axes.axhspan(low, high, color="#e8e8e8", lw=0, label="95% of the values that are there")
    axes.axhline(np.median(there), color=GREY, lw=1)
    low, middle, high = np.quantile(imputed, [0.025, 0.5, 0.975], axis=0)
    order = spread(np.argsort(middle), _MOST_INTERVALS)
    place = np.arange(len(order))
    axes.vlines(place, low[order], high[order], color=COLOURS[0], lw=2, alpha=0.4)
    axes.plot(place, middle[order], "o", color=COLOURS[0], ms=2.5)
    axes.set(xlabel="rows without it, sorted", xticks=[])


def _draw_shares(axes: Any, there: np.ndarray, imputed: np.ndarray, values: np.ndarray) -> None:
    share = lambda rows: np.mean(rows[..., None] == values, axis=-2)
    axes.bar(values, share(there), width=0.85, color="#dddddd", label="values that are there")
    low, middle, high = np.quantile(share(imputed), [0.025, 0.5, 0.975], axis=0)
    axes.vlines(values, low, high, color=COLOURS[0], lw=4, alpha=0.4)
    axes.plot(values, middle, "o", color=COLOURS[0], ms=4, label="imputations")
    axes.set(ylim=(0, None), ylabel="share")
