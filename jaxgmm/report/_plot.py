"""Figures: components, marginals, restarts and chains. Matplotlib is imported when one is made."""

from __future__ import annotations

import itertools
import textwrap
from typing import Any

import jax
import numpy as np
from arviz_stats.base import array_stats

from jaxgmm._posterior import Posterior
from jaxgmm._results import SAME_OPTIMUM, Fit, Status
from jaxgmm.report._tables import coordinates

# Okabe and Ito's palette, which colour-blind readers can tell apart; its yellow is too
# pale for lines on white and its black is EM's.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_GREY = "#8c8c8c"

MOST_ROWS = 5000  # points drawn of the data
_MOST_LINES = 200  # traces drawn of the restarts
_MOST_INSIDE = 5  # components up to which the legend fits beside the data
_POSTERIOR_SHAPES = 40  # ellipses or densities drawn of the posterior
MOST_FEATURES = 6  # of the pair grid
MOST_PANELS = 24  # of the marginals

ELLIPSE_MASS = 0.9
_PAIR_TITLE = f"{ELLIPSE_MASS:.0%} ellipses"
_RADIUS = np.sqrt(-2 * np.log1p(-ELLIPSE_MASS))


def plot_components(fit: Fit, post: Posterior, ax: Any = None) -> Any:
    """The data, EM's components, and the same components in draws of the posterior.

    One feature: histogram and densities. Two: points and ellipses that hold 90% of each
    component. More: a panel for every pair of (at most six) features.

    Parameters
    ----------
    fit : Fit
        Of a model with component means and covariances.
    post : Posterior
        On the same data.
    ax : matplotlib Axes, optional
        Where to draw; for one or two features.

    Returns
    -------
    matplotlib Figure or Axes
        A new figure, which notebooks show; or ``ax``, where it was given.

    Raises
    ------
    TypeError
        Where the model has no component means and covariances.
    ValueError
        Where ``ax`` is given and there are more than two features.
    """
    if not has_components(fit):
        raise TypeError(f"plot_components: {fit.model!r} has no component means and covariances")
    n_features = fit.params.means.shape[-1]
    if n_features > 2:
        if ax is not None:
            raise ValueError(
                f"ax: {n_features} features need a panel per pair; leave ax out, or fit two of them"
            )
        return _pair_grid(fit, post, min(n_features, MOST_FEATURES))
    figure, axes = _canvas(ax, (7.2, 4.8))
    if n_features == 1:
        _draw_densities(axes, fit, post)
    else:
        _draw_pair(axes, fit, post, (0, 1))
        axes.set(xlabel=_plain(fit.feature_names[0]), ylabel=_plain(fit.feature_names[1]))
    shape = "Densities" if n_features == 1 else _PAIR_TITLE
    axes.set_title(f"{shape}: EM (thick) over the posterior (thin)", **_TITLE)
    if ax is None and fit.model.n_components > _MOST_INSIDE:
        figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    else:
        axes.legend(**_LEGEND)
    return figure if ax is None else ax


def plot_marginals(fit: Fit, post: Posterior) -> Any:
    """Posterior density of each parameter with its 95% interval and the MAP.

    Parameters
    ----------
    fit, post : Fit, Posterior
        Of the same model and data.

    Returns
    -------
    matplotlib Figure
        At most 24 panels, in the order of the verdict's table; what does not vary is left out.
    """
    shown = marginals(fit, post)[:MOST_PANELS]
    point = {name: np.asarray(value) for name, value in fit.model.sites(fit.params).items()}
    dims = fit.model.site_dims()
    width = max(len(label) for *_, label in shown)
    # Long names of features need wide panels.
    columns = min(4 if width <= 34 else 3, len(shown))
    rows = -(-len(shown) // columns)
    figure = _new_figure((max(9.6 if len(shown) > 3 else 3.2 * columns, 4.5), 1.75 * rows + 0.5))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (site, index, label) in zip(panels, shown, strict=False):
        component = index[0] if dims.get(site, [""])[0] == "component" else None
        colour = _GREY if component is None else _colour(component)
        _draw_marginal(panel, post.draws[site][(..., *index)], point[site][index], colour)
        panel.set_title(textwrap.fill(_plain(label), 34 if columns == 4 else 45), fontsize=9)
    for panel in panels[len(shown) :]:
        panel.remove()
    # Colours are those of the components, so the legend has none.
    panels[0].plot([], [], color=_GREY, lw=1.3, label="posterior")
    panels[0].fill_between([], [], color=_GREY, alpha=0.3, lw=0, label="95% interval")
    panels[0].plot([], [], color="black", lw=1.3, ls="--", label="MAP")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return figure


def plot_traces(fit: Fit, ax: Any = None) -> Any:
    """How far every restart is below the best value, iteration by iteration.

    Parameters
    ----------
    fit : Fit
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Figure or Axes
        A new figure, which notebooks show; or ``ax``, where it was given.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("faithful").x
    >>> fit = jg.fit(jg.Mixture(jg.Gaussian(), 2), x, key=jax.random.key(0), n_init=4)
    >>> jg.report.plot_traces(fit).axes[0].get_xlabel()
    'EM iteration'
    """
    groups = _groups(fit)
    lengths = np.asarray(fit.restarts.n_iter) + 1
    gaps, floor = _gaps(fit, groups["failed"])
    figure, axes = _canvas(ax, (7.2, 4.2))
    for name, members in groups.items():
        label = f"{_GROUP_LABELS[name]} ({members.sum()})"
        for i in _spread(np.flatnonzero(members), _MOST_LINES):
            axes.plot(gaps[i, : lengths[i]], label=label, **_GROUP_STYLES[name])
            label = None
    last = lengths[fit.best] - 1
    axes.plot(gaps[fit.best, : last + 1], color="black", lw=2.2, label="the fit", zorder=5)
    axes.plot(last, gaps[fit.best, last], "o", color="black", ms=5, zorder=5, clip_on=False)
    axes.set(xlabel="EM iteration", ylabel="log joint below the best", yscale="log")
    axes.set_ylim(floor, max(axes.get_ylim()[1], 1.0))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title(f"Objective of {_restarts(len(gaps))}", **_TITLE)
    axes.legend(**_LEGEND)
    return figure if ax is None else ax


def plot_optima(fit: Fit, ax: Any = None) -> Any:
    """Where the restarts ended: number of restarts by log joint.

    Parameters
    ----------
    fit : Fit
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Figure or Axes
        A new figure, which notebooks show; or ``ax``, where it was given.
    """
    groups = _groups(fit)
    values = np.asarray(fit.restarts.log_joint, np.float64)
    failed = groups.pop("failed")
    ended = values[~failed & np.isfinite(values)]
    low, high = min([*ended, fit.log_joint]), max([*ended, fit.log_joint])
    # Restarts that agree to rounding are one bar, not a picture of the rounding.
    margin = max(0.04 * (high - low), 0.5)
    edges = np.linspace(low - margin, high + margin, 50)
    figure, axes = _canvas(ax, (7.2, 3.6))
    names = list(groups)
    axes.hist(
        [values[groups[name]] for name in names],
        bins=edges,
        stacked=True,
        color=[_GROUP_STYLES[name]["color"] for name in names],
        label=[f"{_GROUP_LABELS[name]} ({groups[name].sum()})" for name in names],
    )
    axes.axvline(fit.log_joint, color="black", lw=1, ls="--", label="the fit")
    if failed.any():
        axes.plot([], [], " ", label=f"{_GROUP_LABELS['failed']} ({failed.sum()}, not drawn)")
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_title(f"Where {_restarts(len(values))} ended", **_TITLE)
    axes.set(xlabel="log joint where the restart ended", ylabel="number of restarts")
    axes.legend(**_LEGEND)
    return figure if ax is None else ax


def plot_chains(post: Posterior, ax: Any = None) -> Any:
    """The log joint along each chain, which no renaming of labels changes.

    Parameters
    ----------
    post : Posterior
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Figure or Axes
        A new figure, which notebooks show; or ``ax``, where it was given.
    """
    figure, axes = _canvas(ax, (7.2, 3.6))
    for chain, values in enumerate(post.log_joint):
        axes.plot(values, lw=0.7, alpha=0.75, color=_colour(chain), label=f"chain {chain}")
    axes.set(xlabel="draw", ylabel="log joint", xlim=(0, post.n_draws - 1))
    axes.set_title("Log joint along the chains", **_TITLE)
    legend = axes.legend(**{**_LEGEND, "ncols": min(post.n_chains, 4)})
    for line in legend.get_lines():
        line.set(linewidth=2.5, alpha=1)
    return figure if ax is None else ax


def has_components(fit: Fit) -> bool:
    """Whether the parameters are those of components with a place and a shape."""
    return hasattr(fit.params, "means") and hasattr(fit.params, "covariances")


# -- components --------------------------------------------------------------------


def _draw_densities(axes: Any, fit: Fit, post: Posterior) -> None:
    x = np.asarray(post.x, np.float64)[:, 0]
    grid = np.linspace(x.min() - 0.1 * np.ptp(x), x.max() + 0.1 * np.ptp(x), 400)
    drawn = _some_draws(post)
    for s in range(len(drawn.weights)):
        parts = _weighted_densities(grid, drawn.weights[s], drawn.means[s], drawn.covariances[s])
        for k, part in enumerate(parts):
            axes.plot(grid, part, color=_colour(k), lw=0.6, alpha=0.25)
    weights = None if post.sample_weight is None else np.asarray(post.sample_weight)
    bins = int(np.clip(3 * np.sqrt(len(x)), 10, 60))
    axes.hist(x, bins=bins, density=True, weights=weights, color="#dddddd", zorder=0, label="data")
    parts = _weighted_densities(grid, fit.params.weights, fit.params.means, fit.params.covariances)
    for k, part in enumerate(parts):
        axes.plot(grid, part, color=_colour(k), lw=2, ls=_dash(k), label=_component_label(fit, k))
    if len(parts) > 1:
        axes.plot(grid, parts.sum(0), color="black", lw=1.3, ls=":", label="EM, sum of components")
    axes.plot([], [], color=_GREY, lw=0.8, label=_draws_label(drawn))
    axes.set(xlabel=_plain(fit.feature_names[0]), ylabel="density", xlim=(grid[0], grid[-1]))


def _weighted_densities(grid: Any, weights: Any, means: Any, covariances: Any) -> np.ndarray:
    """(K, grid) weight times normal density of each component of one feature."""
    weights, means, variances = (
        np.asarray(value, np.float64).reshape(-1, 1) for value in (weights, means, covariances)
    )
    scaled = np.exp(-0.5 * (grid - means) ** 2 / variances)
    return weights * scaled / np.sqrt(2 * np.pi * variances)


def _draw_pair(axes: Any, fit: Fit, post: Posterior, pair: tuple[int, int]) -> None:
    """Points and ellipses of two features, (horizontal, vertical)."""
    chosen = np.asarray(pair)
    x = np.asarray(post.x, np.float64)[:, chosen]
    weights = np.ones(len(x)) if post.sample_weight is None else np.asarray(post.sample_weight)
    rows = _spread(np.flatnonzero(weights > 0), MOST_ROWS)
    # Many points are smaller and paler, so that they show where they crowd.
    crowd = min(1.0, np.sqrt(500 / len(rows)))
    sizes = np.clip(9 * crowd * weights[rows] / weights[rows].mean(), 1, 60)
    axes.scatter(
        *x[rows].T, s=sizes, color=_GREY, alpha=0.1 + 0.5 * crowd, lw=0, label="data", zorder=1
    )
    drawn = _some_draws(post)
    matrix = np.ix_(chosen, chosen)
    means, covariances = np.asarray(drawn.means), np.asarray(drawn.covariances)
    for k in range(means.shape[1]):
        outlines = _ellipses(means[:, k, chosen], covariances[:, k][(..., *matrix)])
        axes.plot(*outlines, color=_colour(k), lw=0.6, alpha=0.2, zorder=2)
    means, covariances = np.asarray(fit.params.means), np.asarray(fit.params.covariances)
    for k in range(len(means)):
        outline = _ellipses(means[None, k, chosen], covariances[None, k][(..., *matrix)])
        axes.plot(*outline, color="white", lw=4, zorder=3)
        axes.plot(
            *outline,
            color=_colour(k),
            lw=2.2,
            ls=_dash(k),
            label=_component_label(fit, k),
            zorder=4,
        )
        axes.plot(*means[k, chosen], "o", color=_colour(k), mec="white", ms=7, zorder=5)
    axes.plot([], [], color=_GREY, lw=0.8, label=_draws_label(drawn))


def _ellipses(means: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """(2, points, S) outlines that hold `ELLIPSE_MASS` of each of S normals."""
    angle = np.linspace(0, 2 * np.pi, 100)
    circle = _RADIUS * np.stack([np.cos(angle), np.sin(angle)])
    factor = np.linalg.cholesky(np.asarray(covariances, np.float64))
    return np.einsum("sij,jp->ips", factor, circle) + np.asarray(means, np.float64).T[:, None]


def _pair_grid(fit: Fit, post: Posterior, n_features: int) -> Any:
    size = n_features - 1
    side = 3.0 if size == 2 else 2.3  # the legend must fit beside the first panel
    figure = _new_figure((side * size + 0.8, 0.92 * side * size + 0.8))
    panels = figure.subplots(size, size, sharex="col", sharey="row")
    for row, column in itertools.product(range(size), repeat=2):
        panel = panels[row, column]
        if column > row:
            panel.remove()
            continue
        _draw_pair(panel, fit, post, (column, row + 1))
        if row == size - 1:
            panel.set_xlabel(_plain(fit.feature_names[column]))
        if column == 0:
            panel.set_ylabel(_plain(fit.feature_names[row + 1]))
    # The upper triangle is empty: the legend goes there.
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(),
        loc="upper right",
        frameon=False,
        fontsize=9,
        title=f"{_PAIR_TITLE}: EM (thick)\nover the posterior (thin)",
        alignment="left",
    )
    return figure


def _some_draws(post: Posterior) -> Any:
    """Evenly spaced draws of all chains, as a stack of parameters."""
    total = post.n_chains * post.n_draws
    chosen = _spread(np.arange(total), _POSTERIOR_SHAPES)
    return jax.tree.map(lambda leaf: leaf.reshape(total, *leaf.shape[2:])[chosen], post.params)


def _draws_label(drawn: Any) -> str:
    return f"{len(drawn.weights)} draws of the posterior"


def _component_label(fit: Fit, k: int) -> str:
    return f"EM, component {k} (weight {float(fit.params.weights[k]):.2f})"


# -- marginals -----------------------------------------------------------------------


def marginals(fit: Fit, post: Posterior) -> list[tuple[str, tuple[int, ...], str]]:
    """(site, index, label) of every number that varies over the draws."""
    every = list(coordinates(fit, post))
    varying = [c for c in every if np.ptp(post.draws[c[0]][(..., *c[1])]) > 0]
    return varying or every


def _draw_marginal(axes: Any, draws: np.ndarray, at_map: float, colour: str) -> None:
    draws = np.asarray(draws, np.float64).ravel()
    # A few draws far out in a tail would squeeze the rest into a spike.
    first, low, high, last = np.quantile(draws, [0.005, 0.025, 0.975, 0.99])
    if last > first:
        grid, density, _ = array_stats.kde(draws[(draws >= first) & (draws <= last)])
        inside = (grid >= low) & (grid <= high)
        axes.plot(grid, density, color=colour, lw=1.3)
        axes.fill_between(grid[inside], density[inside], color=colour, alpha=0.3, lw=0)
    axes.axvline(at_map, color="black", lw=1.3, ls="--")
    axes.set(yticks=[], ylim=(0, None))
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(labelsize=8)


# -- restarts ------------------------------------------------------------------------

_GROUP_LABELS = {
    "failed": "collapsed or failed",
    "spurious": "spurious optimum",
    "other": "another optimum",
    "same": "the fit's optimum",
}
_GROUP_STYLES: dict[str, dict[str, Any]] = {
    "failed": {"color": _GREY, "lw": 0.9, "ls": ":"},
    "spurious": {"color": "#CC79A7", "lw": 0.9, "ls": "-."},
    "other": {"color": "#E69F00", "lw": 0.9, "alpha": 0.8},
    "same": {"color": "#0072B2", "lw": 0.9, "alpha": 0.6},
}


def _groups(fit: Fit) -> dict[str, np.ndarray]:
    """Masks over the restarts by how each ended, empty groups left out."""
    status, spurious = np.asarray(fit.restarts.status), np.asarray(fit.restarts.spurious)
    values = np.asarray(fit.restarts.log_joint, np.float64)
    failed = np.isin(status, [Status.COLLAPSED, Status.NONFINITE_OBJECTIVE, Status.NONFINITE_INPUT])
    near = np.abs(values - fit.log_joint) <= SAME_OPTIMUM
    groups = {
        "failed": failed,
        "spurious": ~failed & spurious,
        "other": ~failed & ~spurious & ~near,
        "same": ~failed & ~spurious & near,
    }
    return {name: members for name, members in groups.items() if name == "failed" or members.any()}


def _restarts(count: int) -> str:
    return "1 restart" if count == 1 else f"{count} restarts"


def _gaps(fit: Fit, failed: np.ndarray) -> tuple[np.ndarray, float]:
    """(S, iterations) objective below the best, and the smallest value worth drawing.

    A logarithmic axis has no zero: gaps of nothing but rounding stand at its lower end.
    """
    traces = np.asarray(fit.restarts.trace, np.float64)
    best = fit.log_joint if failed.all() else np.nanmax(traces[~failed])
    gaps = best - traces
    rounding = 64 * float(np.finfo(fit.restarts.trace.dtype).eps) * max(abs(best), 1)
    smallest = np.min(gaps[gaps > rounding], initial=max(rounding, 1e-6))
    floor = float(10.0 ** np.floor(np.log10(smallest)))
    return np.maximum(gaps, floor), floor


# -- figures -------------------------------------------------------------------------

_LEGEND: dict[str, Any] = {"loc": "best", "fontsize": 9, "framealpha": 0.9}
_TITLE: dict[str, Any] = {"fontsize": 11, "loc": "left"}


def _new_figure(size: tuple[float, float]) -> Any:
    from jaxgmm.report._figure import Canvas

    return Canvas(figsize=size, layout="constrained")


def _canvas(ax: Any, size: tuple[float, float]) -> tuple[Any, Any]:
    """The axes given, or those of a new figure."""
    if ax is not None:
        return ax.figure, ax
    figure = _new_figure(size)
    axes = figure.subplots()
    axes.spines[["right", "top"]].set_visible(False)
    return figure, axes


def _colour(k: int) -> str:
    return _COLOURS[k % len(_COLOURS)]


def _dash(k: int) -> str:
    """Colours come round again after six; dashes then tell components apart."""
    return ("-", "--", ":", "-.")[k // len(_COLOURS) % 4]


def _plain(text: str) -> str:
    """A name as it is, where matplotlib would read dollar signs as mathematics."""
    return text.replace("$", r"\$")


def _spread(indices: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the indices, evenly spaced."""
    return indices[np.linspace(0, len(indices) - 1, min(most, len(indices))).astype(int)]
