"""Figure: EM's components over those of the posterior."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from jaxgmm.bayes import Posterior
from jaxgmm.em import Fit
from jaxgmm.report.plots._canvas import (
    GREY,
    LEGEND,
    MOST_FEATURES,
    MOST_ROWS,
    TITLE,
    canvas,
    colour,
    dash,
    panels,
    plain,
    span,
    spread,
)
from jaxgmm.report.plots._columns import LINES, ONE_BY_ONE, PROFILES, kind_of, label_name, named
from jaxgmm.report.plots._gaussians import Gaussians, normals_of
from jaxgmm.report.plots._lines import plot_lines
from jaxgmm.report.plots._one_by_one import plot_columns
from jaxgmm.report.plots._profile import plot_profile

_MOST_INSIDE = 5  # components up to which the legend fits beside the data
_DRAWS = 40  # whose ellipses or densities are drawn

ELLIPSE_MASS = 0.9
_PAIR_TITLE = f"{ELLIPSE_MASS:.0%} ellipses"
_RADIUS = np.sqrt(-2 * np.log1p(-ELLIPSE_MASS))


def plot_components(fit: Fit, post: Posterior, ax: Any = None) -> Any:
    """The data, EM's components, and the same components in draws of the posterior.

    Of Gaussians, one feature: histogram and densities. Two: points and ellipses that hold 90%
    of each component. More: a panel for every pair of (at most six) features. Of counts and
    positive numbers, and of columns of several kinds, a panel for each of (at most six) columns,
    with masses or densities. Of regressions, the response over each of (at most six) covariates,
    with lines and the posterior's 95% bands. Of codes, and counts that share a total, the
    probabilities by column with the posterior's 95% intervals.

    Parameters
    ----------
    fit : Fit
        Of a mixture.
    post : Posterior
        On the same data; weighted draws are resampled.
    ax : matplotlib Axes, or an array of them, optional
        Where to draw: for more than two features of Gaussians a square of D - 1 by D - 1, for
        other families one a column, or one a level.

    Returns
    -------
    matplotlib Figure or Axes
        A new figure, which notebooks show; or ``ax``, where it was given.

    Raises
    ------
    TypeError
        Where the model has no components that there is a picture of.
    ValueError
        Where ``ax`` has another number of panels than the picture.
    """
    if kind_of(fit.model) in PROFILES:
        return plot_profile(fit, post, ax)
    if kind_of(fit.model) in ONE_BY_ONE:
        return plot_columns(fit, post, ax)
    if kind_of(fit.model) == LINES:
        return plot_lines(fit, post, ax)
    need_components("plot_components", fit)
    drawn = Gaussians.drawn(post, _DRAWS)
    n_features = drawn.means.shape[-1]
    if n_features > 2:
        return _pair_grid(fit, post, drawn, min(n_features, MOST_FEATURES), ax)
    figure, axes = canvas(ax, (7.2, 4.8))
    if n_features == 1:
        _draw_densities(axes, fit, post, drawn)
    else:
        _draw_pair(axes, fit, post, drawn, (0, 1))
        axes.set(xlabel=plain(fit.feature_names[0]), ylabel=plain(fit.feature_names[1]))
    shape = "Densities" if n_features == 1 else _PAIR_TITLE
    axes.set_title(f"{shape}: EM (thick) over the posterior (thin)", **TITLE)
    if ax is None and fit.model.n_components > _MOST_INSIDE:
        figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    else:
        axes.legend(**LEGEND)
    return figure if ax is None else ax


def has_components(fit: Fit) -> bool:
    """Whether there is a picture of the components."""
    if kind_of(fit.model) in (*PROFILES, *ONE_BY_ONE, LINES):
        return True
    return normals_of(fit.model, fit.params) is not None


def of_fit(fit: Fit) -> Gaussians:
    return Gaussians.of(fit.model, fit.params)


def need_components(caller: str, fit: Fit) -> None:
    if not has_components(fit):
        raise TypeError(f"{caller}: {fit.model!r} has no component means and covariances")


def histogram(axes: Any, post: Posterior, feature: int) -> None:
    """The data of one feature with their weights, as a density behind what is drawn."""
    x = np.asarray(post.x, np.float64)[:, feature]
    there = ~np.isnan(x)
    weights = None if post.sample_weight is None else np.asarray(post.sample_weight)[there]
    x = x[there]
    bins = int(np.clip(3 * np.sqrt(len(x)), 10, 60))
    axes.hist(x, bins=bins, density=True, weights=weights, color="#dddddd", zorder=0, label="data")


def _draw_densities(axes: Any, fit: Fit, post: Posterior, drawn: Gaussians) -> None:
    grid = np.linspace(*span(named(fit.feature_names, post.x)), 400)
    for s in range(len(drawn.weights)):
        for k, part in enumerate(drawn.at(s).densities(grid[:, None])):
            axes.plot(grid, part, color=colour(k), lw=0.6, alpha=0.25)
    histogram(axes, post, 0)
    parts = of_fit(fit).densities(grid[:, None])
    for k, part in enumerate(parts):
        axes.plot(grid, part, color=colour(k), lw=2, ls=dash(k), label=_component_label(fit, k))
    if len(parts) > 1:
        axes.plot(grid, parts.sum(0), color="black", lw=1.3, ls=":", label="EM, sum of components")
    axes.plot([], [], color=GREY, lw=0.8, label=_draws_label(drawn))
    axes.set(xlabel=plain(fit.feature_names[0]), ylabel="density", xlim=(grid[0], grid[-1]))


def _draw_pair(
    axes: Any, fit: Fit, post: Posterior, drawn: Gaussians, pair: tuple[int, int]
) -> None:
    """Points and ellipses of two features, (horizontal, vertical)."""
    x = np.asarray(post.x, np.float64)[:, list(pair)]
    weights = np.ones(len(x)) if post.sample_weight is None else np.asarray(post.sample_weight)
    rows = spread(np.flatnonzero(weights > 0), MOST_ROWS)
    # Many points are smaller and paler, so that they show where they crowd.
    crowd = min(1.0, np.sqrt(500 / len(rows)))
    sizes = np.clip(9 * crowd * weights[rows] / weights[rows].mean(), 1, 60)
    axes.scatter(
        *x[rows].T, s=sizes, color=GREY, alpha=0.1 + 0.5 * crowd, lw=0, label="data", zorder=1
    )
    theirs, ours = (one.of_features(list(pair)) for one in (drawn, of_fit(fit)))
    for k in range(len(ours.means)):
        outlines = _ellipses(theirs.means[:, k], theirs.covariances[:, k])
        axes.plot(*outlines, color=colour(k), lw=0.6, alpha=0.2, zorder=2)
    for k in range(len(ours.means)):
        outline = _ellipses(ours.means[None, k], ours.covariances[None, k])
        axes.plot(*outline, color="white", lw=4, zorder=3)
        style = {"color": colour(k), "label": _component_label(fit, k)}
        axes.plot(*outline, lw=2.2, ls=dash(k), zorder=4, **style)
        axes.plot(*ours.means[k], "o", color=colour(k), mec="white", ms=7, zorder=5)
    # Draws of an empty component are draws of the prior, which may be far wider than the data.
    outlines = _ellipses(ours.means, ours.covariances)
    sides = [np.append(*ends) for ends in zip(x[rows].T, outlines.reshape(2, -1), strict=True)]
    axes.set(xlim=span(sides[0], 0.2), ylim=span(sides[1], 0.2))
    axes.plot([], [], color=GREY, lw=0.8, label=_draws_label(drawn))


def _ellipses(means: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """(2, points, S) outlines that hold `ELLIPSE_MASS` of each of S normals."""
    angle = np.linspace(0, 2 * np.pi, 100)
    circle = _RADIUS * np.stack([np.cos(angle), np.sin(angle)])
    return np.einsum("sij,jp->ips", np.linalg.cholesky(covariances), circle) + means.T[:, None]


def _pair_grid(fit: Fit, post: Posterior, drawn: Gaussians, n_features: int, ax: Any) -> Any:
    size = n_features - 1
    side = 3.0 if size == 2 else 2.3  # the legend must fit beside the first panel
    wide, high = side * size + 0.8, 0.92 * side * size + 0.8
    figure, grid = panels(ax, (size, size), (wide, high), sharex="col", sharey="row")
    for row, column in itertools.product(range(size), repeat=2):
        panel = grid[row, column]
        if column > row:
            panel.remove()
            continue
        _draw_pair(panel, fit, post, drawn, (column, row + 1))
        if row == size - 1:
            panel.set_xlabel(plain(fit.feature_names[column]))
        if column == 0:
            panel.set_ylabel(plain(fit.feature_names[row + 1]))
    # The upper triangle is empty: the legend goes there.
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(),
        loc="upper right",
        frameon=False,
        fontsize=9,
        title=f"{_PAIR_TITLE}: EM (thick)\nover the posterior (thin)",
        alignment="left",
    )
    return figure if ax is None else ax


def _draws_label(drawn: Gaussians) -> str:
    return f"{len(drawn.weights)} draws of the posterior"


def _component_label(fit: Fit, k: int) -> str:
    weight = float(np.asarray(fit.params.weights)[k])
    return f"EM, {label_name(fit.model, k)} (weight {weight:.2f})"
