"""Figure: the posterior of the density itself, with EM's on top."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxgmm.bayes import Posterior
from jaxgmm.em import Fit
from jaxgmm.report.plots._canvas import (
    COLOURS,
    LEGEND,
    MOST_FEATURES,
    TITLE,
    UNCERTAINTY,
    canvas,
    panels,
    plain,
    span,
)
from jaxgmm.report.plots._columns import LINES, ONE_BY_ONE, PROFILES, kind_of, named
from jaxgmm.report.plots._components import histogram, need_components, of_fit
from jaxgmm.report.plots._gaussians import Gaussians
from jaxgmm.report.plots._one_by_one import plot_bands

_DRAWS = 200
_BANDS = {0.9: 0.2, 0.5: 0.35}  # opacity by the share of the draws that a band holds
_MASSES = (0.99, 0.9, 0.5)  # of the regions that contours enclose
_CELLS = 100  # along each side of the plane


def plot_density(fit: Fit, post: Posterior, ax: Any = None) -> Any:
    """The density of the data by the posterior, how sure of it the posterior is, and EM's.

    One feature: bands that hold half and 90% of the densities of the draws, point by point, and
    their mean, the posterior predictive density. Two: contours of regions that hold 50, 90
    and 99% of the posterior predictive, over the density's relative standard deviation. More: a
    panel for the marginal density of each of (at most six) features. EM's plug-in density is
    dashed. Of counts, positive numbers and columns of several kinds a panel for each column.

    Parameters
    ----------
    fit : Fit
        Of a mixture whose columns have densities: not of codes, nor of counts that share a total.
    post : Posterior
        On the same data; weighted draws are resampled. 200 draws are used.
    ax : matplotlib Axes, or an array of them, optional
        Where to draw: for more than two features, one a feature.

    Returns
    -------
    matplotlib Figure or Axes
        A new figure, which notebooks show; or ``ax``, where it was given.

    Raises
    ------
    TypeError
        Where the model has no such densities.
    ValueError
        Where ``ax`` has another number of panels than the picture.
    """
    if kind_of(fit.model) in ONE_BY_ONE:
        return plot_bands(fit, post, ax)
    if kind_of(fit.model) in (*PROFILES, LINES):
        raise TypeError(f"plot_density: the columns of {fit.model!r} have no densities")
    need_components("plot_density", fit)
    drawn, ours, names = Gaussians.drawn(post, _DRAWS), of_fit(fit), fit.feature_names
    title = "Density: EM (dashed) over the posterior"
    if len(names) == 2:
        figure, axes = canvas(ax, (7.2, 4.8))
        _draw_plane(figure, axes, ours, drawn, named(names, post.x))
        axes.set(xlabel=plain(names[0]), ylabel=plain(names[1]))
        axes.set_title(title, **TITLE)
        if ax is None:
            figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
        else:
            axes.legend(**LEGEND)
        return figure if ax is None else ax
    count = min(len(names), MOST_FEATURES)
    columns = min(count, 3)
    rows = -(-count // columns)
    size = (7.2, 4.2) if count == 1 else (3.4 * columns, 2.6 * rows + 0.4)
    figure, grid = panels(ax, (rows, columns) if ax is None else (1, count), size)
    for feature, axes in zip(range(count), grid.ravel(), strict=False):
        histogram(axes, post, feature)
        x = np.asarray(post.x, np.float64)[:, feature]
        _draw_band(axes, ours.of_features([feature]), drawn.of_features([feature]), x)
        axes.set(xlabel=plain(names[feature]))
    for axes in grid.ravel()[count:]:
        axes.remove()
    first = grid[0, 0]
    first.set(ylabel="density")
    if count == 1:
        first.set_title(title, **TITLE)
        first.legend(**LEGEND)
    elif ax is None:
        handles, labels = first.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper center", ncols=5, frameon=False, fontsize=9
        )
    return figure if ax is None else ax


def _draw_band(axes: Any, ours: Gaussians, drawn: Gaussians, x: np.ndarray) -> None:
    grid = np.linspace(*span(x), 300)
    rows = grid[:, None]
    heights = np.array([drawn.at(s).densities(rows).sum(0) for s in range(len(drawn.weights))])
    for share, opacity in _BANDS.items():
        low, high = np.quantile(heights, [(1 - share) / 2, (1 + share) / 2], axis=0)
        label = f"{share:.0%} of the draws"
        axes.fill_between(grid, low, high, color=COLOURS[0], alpha=opacity, lw=0, label=label)
    axes.plot(grid, heights.mean(0), color=COLOURS[0], lw=1.5, label="posterior predictive")
    axes.plot(grid, ours.densities(rows).sum(0), color="black", lw=1.5, ls="--", label="EM")
    axes.set(xlim=(grid[0], grid[-1]), ylim=(0, None))


def _draw_plane(figure: Any, axes: Any, ours: Gaussians, drawn: Gaussians, x: np.ndarray) -> None:
    sides = [np.linspace(*span(column, 0.25), _CELLS) for column in x.T]
    rows = np.stack(np.meshgrid(*sides), -1).reshape(-1, 2)
    total = squares = np.zeros(len(rows))
    for s in range(len(drawn.weights)):
        height = drawn.at(s).densities(rows).sum(0)
        total, squares = total + height, squares + height**2
    mean = total / len(drawn.weights)
    variance = np.maximum(squares / len(drawn.weights) - mean**2, 0)
    plane = lambda values: values.reshape(_CELLS, _CELLS)
    relative = np.sqrt(variance) / np.maximum(mean, np.finfo(float).tiny)
    # Where there is no density to be unsure of, nothing is painted.
    shown = np.where(mean >= _level(mean, 0.999), np.minimum(relative, 1), np.nan)
    painted = axes.pcolormesh(*sides, plane(shown), cmap=UNCERTAINTY, vmin=0, vmax=1, alpha=0.7)
    painted.set(edgecolor="none", rasterized=True)
    bar = figure.colorbar(painted, ax=axes, shrink=0.85)
    bar.set_label("relative sd of the density (1: or more)", fontsize=9)
    axes.plot(*x.T, "o", color="black", ms=1.5, alpha=0.35, mew=0)
    em = ours.densities(rows).sum(0)
    for density, style in ((mean, {"colors": COLOURS[0]}), (em, {"colors": "black"})):
        levels = np.unique([_level(density, mass) for mass in _MASSES])
        dashes = "dashed" if density is em else "solid"
        axes.contour(*sides, plane(density), levels, linewidths=1.4, linestyles=dashes, **style)
    masses = ", ".join(f"{100 * mass:g}" for mass in _MASSES[::-1])
    axes.plot([], [], color=COLOURS[0], lw=1.4, label=f"posterior predictive, {masses}%")
    axes.plot([], [], color="black", lw=1.4, ls="--", label="EM, the same")


def _level(density: np.ndarray, mass: float) -> float:
    """The height above which the density holds a share of its sum: the edge of a region."""
    ranked = np.sort(density)[::-1]
    held = np.cumsum(ranked)
    return float(ranked[np.searchsorted(held, mass * held[-1])])
