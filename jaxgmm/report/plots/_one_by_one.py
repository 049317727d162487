"""Figures of columns one by one, whatever their kinds: EM over the posterior."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxgmm.bayes import Posterior
from jaxgmm.em import Fit
from jaxgmm.report.plots._canvas import (
    COLOURS,
    GREY,
    LEGEND,
    MOST_FEATURES,
    TITLE,
    colour,
    dash,
    panels,
    plain,
)
from jaxgmm.report.plots._columns import (
    DISCRETE,
    densities,
    drawn,
    kinds_of,
    label_name,
    one,
    values_of,
    words_of,
)

_LINES = 40  # draws that are drawn
_BANDS = {0.9: 0.2, 0.5: 0.35}  # opacity by the share of the draws that a band holds
_BAND_DRAWS = 200
# By whether a column is discrete.
_HEIGHTS, _TITLES = ("density", "share of the rows"), ("densities", "masses")
# Kinds of columns that have no density of their own.
_WITHOUT = ("shares", "given", "responses")
# Beyond so many values bars of counts would be slivers.
_MOST_BARS = 80


def plot_columns(fit: Fit, post: Posterior, ax: Any = None) -> Any:
    """Each column with the components' densities, or masses of counts, times their weights."""
    params = drawn(post, _LINES)

    def draw(axes: Any, column: int, x: np.ndarray, kind: str) -> None:
        grid = values_of(x, kind)
        for draw in densities(fit.model, params, column, grid):
            for k, part in enumerate(draw):
                axes.plot(grid, part, color=colour(k), lw=0.6, alpha=0.25)
        parts = densities(fit.model, one(fit.params), column, grid)[0]
        masses = kind in DISCRETE and len(grid) <= _MOST_BARS
        marks = {"marker": "o", "ms": 3} if masses else {}
        weights = np.asarray(fit.params.weights)
        for k, part in enumerate(parts):
            label = f"EM, {label_name(fit.model, k)} (weight {weights[k]:.2f})"
            axes.plot(grid, part, color=colour(k), lw=2, ls=dash(k), label=label, **marks)
        if len(parts) > 1:
            axes.plot(grid, parts.sum(0), color="black", lw=1.3, ls=":", label="EM, sum")
        axes.plot([], [], color=GREY, lw=0.8, label=f"{len(params.weights)} draws of the posterior")

    return _grid(fit, post, ax, "{}: EM (thick) over the posterior (thin)", draw)


def plot_bands(fit: Fit, post: Posterior, ax: Any = None) -> Any:
    """What the draws say of each column's density, or of the masses of counts, and EM's."""
    params = drawn(post, _BAND_DRAWS)

    def draw(axes: Any, column: int, x: np.ndarray, kind: str) -> None:
        grid = values_of(x, kind)
        heights = densities(fit.model, params, column, grid).sum(1)
        for share, opacity in _BANDS.items():
            low, high = np.quantile(heights, [(1 - share) / 2, (1 + share) / 2], axis=0)
            label = f"{share:.0%} of the draws"
            axes.fill_between(grid, low, high, color=COLOURS[0], alpha=opacity, lw=0, label=label)
        axes.plot(grid, heights.mean(0), color=COLOURS[0], lw=1.5, label="posterior predictive")
        em = densities(fit.model, one(fit.params), column, grid)[0].sum(0)
        axes.plot(grid, em, color="black", lw=1.5, ls="--", label="EM")

    return _grid(fit, post, ax, "{}: EM (dashed) over the posterior", draw)


def _grid(fit: Fit, post: Posterior, ax: Any, title: str, draw: Any) -> Any:
    """A panel a column that has a density of its own, the data behind what ``draw`` draws."""
    names, x = fit.feature_names, np.asarray(post.x, np.float64)
    weights = np.ones(len(x)) if post.sample_weight is None else np.asarray(post.sample_weight)
    kinds = kinds_of(fit.model, len(names))
    shown = [column for column, kind in enumerate(kinds) if kind not in _WITHOUT][:MOST_FEATURES]
    count, heights = len(shown), {kinds[column] in DISCRETE for column in shown}
    columns = min(count, 3)
    rows = -(-count // columns)
    size = (7.2, 4.2) if count == 1 else (max(3.4 * columns, 7.2), 2.8 * rows + 0.6)
    figure, grid = panels(ax, (rows, columns) if ax is None else (1, count), size)
    for column, axes in zip(shown, grid.ravel(), strict=False):
        kind, there = kinds[column], ~np.isnan(x[:, column])
        _data(axes, x[there, column], weights[there], kind in DISCRETE)
        draw(axes, column, x[there, column], kind)
        axes.set(xlabel=plain(names[column]), ylim=(0, None))
        if column == shown[0] or len(heights) > 1:
            axes.set(ylabel=_HEIGHTS[kind in DISCRETE])
        if kind == "levels":
            codes = values_of(x[there, column], kind)
            axes.set_xticks(codes, map(plain, words_of(fit.model, names, column, codes)))
    for axes in grid.ravel()[count:]:
        axes.remove()
    title = title.format(" and ".join(_TITLES[height] for height in sorted(heights)).capitalize())
    if count == 1 or ax is not None:
        grid[0, 0].set_title(title, **TITLE)
        grid[0, 0].legend(**LEGEND)
    else:
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9
        )
    return figure if ax is None else ax


def _data(axes: Any, x: np.ndarray, weights: np.ndarray, counts: bool) -> None:
    style = {"color": "#dddddd", "zorder": 0, "label": "data"}
    if counts and np.ptp(x) < _MOST_BARS:
        height = np.bincount((x - x.min()).astype(int), weights)
        values = x.min() + np.arange(len(height))
        axes.bar(values, height / height.sum(), width=0.85, **style)
    else:
        bins = int(np.clip(3 * np.sqrt(len(x)), 10, 60))
        axes.hist(x, bins=bins, density=True, weights=weights, **style)
