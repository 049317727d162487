"""Figures of labels: which rows belong together, how sure that is, and the rows by label."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import entr

from jaxgmm.bayes import Posterior, responsibilities_at
from jaxgmm.em import Fit
from jaxgmm.model import about, wide_rows
from jaxgmm.report._draws import Seen, look_at_data, some_rows, together
from jaxgmm.report.plots._canvas import (
    COLOURS,
    LEGEND,
    MARKERS,
    MOST_FEATURES,
    MOST_ROWS,
    PROBABILITY,
    TITLE,
    UNCERTAINTY,
    canvas,
    colour,
    panels,
    plain,
    spread,
)
from jaxgmm.report.plots._columns import label_name, named

_MOST_CELLS = 400  # rows of the heat map
_MOST_IN_GRID = 600  # rows of each panel of uncertainty


def plot_co_clustering(fit: Fit, post: Posterior, ax: Any = None) -> Any:
    """Probability that two rows carry one label: EM's above the diagonal, the posterior's below.

    Rows stand in the order of EM's labels, and the surest of each label first; at most 400
    rows, evenly spaced, and 400 draws. No renaming of labels changes the picture.

    Parameters
    ----------
    fit, post : Fit, Posterior
        Of the same model and data; weighted draws are resampled.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Figure or Axes
        A new figure, which notebooks show; or ``ax``, where it was given.
    """
    seen = _seen(fit, post)
    rows = spread(np.arange(len(seen.fit_probability)), _MOST_CELLS)
    ours, theirs = seen.fit_probability[rows], seen.probability[:, rows]
    labels = np.argmax(ours, axis=-1)
    order = np.lexsort((-np.max(ours, axis=-1), labels))
    above = together(ours[None, order])
    both = np.where(np.tri(len(order), dtype=bool), together(theirs[:, order]), above)
    figure, axes = canvas(ax, (6.4, 5.4))
    image = axes.imshow(both, cmap=PROBABILITY, vmin=0, vmax=1, interpolation="nearest")
    axes.axline((0, 0), slope=1, color="black", lw=0.8)
    edges = np.cumsum(np.bincount(labels, minlength=ours.shape[-1]))
    for edge in edges[:-1]:
        axes.axhline(edge - 0.5, color="black", lw=0.6, ls=":")
        axes.axvline(edge - 0.5, color="black", lw=0.6, ls=":")
    starts = np.concatenate([[0], edges[:-1]])
    there = np.flatnonzero(edges > starts)
    centres = (starts + edges - 1)[there] / 2
    axes.set_xticks(centres, [str(k) for k in there])
    axes.set_yticks(centres, [str(k) for k in there])
    axes.set(xlabel="rows by EM's label", ylabel="rows by EM's label")
    axes.set_title("Rows with one label: EM above, posterior below", **TITLE)
    bar = figure.colorbar(image, ax=axes, shrink=0.85)
    bar.set_label("probability of one label", fontsize=9)
    return figure if ax is None else ax


def plot_uncertainty(fit: Fit, post: Posterior, ax: Any = None) -> Any:
    """How unsure the label of each row is: entropy of its probabilities, over log K.

    EM's probabilities take its point for the truth; the posterior's are averaged over the
    draws. One feature: entropy against the feature. Two: the rows in a panel each, EM's and the
    posterior's. More: a grid of pairs of (at most six) features, EM's above its diagonal and
    the posterior's below.

    Parameters
    ----------
    fit, post : Fit, Posterior
        Of the same model and data, in labels that agree, as those of a verdict do; weighted
        draws are resampled. At most 2,000 rows, 600 for a grid, evenly spaced, and 400 draws.
    ax : matplotlib Axes, or an array of them, optional
        Where to draw: two for two features, a square of D by D for more.

    Returns
    -------
    matplotlib Figure or Axes
        A new figure, which notebooks show; or ``ax``, where it was given.

    Raises
    ------
    ValueError
        Where ``ax`` has another number of panels than the picture.
    """
    return _by_row(fit, post, ax, _UNCERTAIN)


def plot_background(fit: Fit, post: Posterior, ax: Any = None) -> Any:
    """How probably each row is of the background, which no component brought forth.

    EM's probabilities take its point for the truth; the posterior's are averaged over the
    draws. Panels are those of `plot_uncertainty`.

    Parameters
    ----------
    fit, post : Fit, Posterior
        Of the same model, with a background, and data.
    ax : matplotlib Axes, or an array of them, optional
        Where to draw: two for two features, a square of D by D for more.

    Returns
    -------
    matplotlib Figure or Axes
        A new figure, which notebooks show; or ``ax``, where it was given.

    Raises
    ------
    ValueError
        For a model without a background, and where ``ax`` has another number of panels than the
        picture.
    """
    if not fit.model.labels_apart:
        raise ValueError(f"plot_background: {fit.model!r} has no background")
    return _by_row(fit, post, ax, _OUTLYING)


class _Measure(NamedTuple):
    """What is shown of each row: made of its labels' probabilities (n, K)."""

    of: Callable[[np.ndarray], np.ndarray]
    title: str
    unit: str


def _by_row(fit: Fit, post: Posterior, ax: Any, shown: _Measure) -> Any:
    """A number of each row as colour, or as height where there is one feature."""
    seen = _seen(fit, post)
    x = named(fit.feature_names, post.x)[some_rows(post).index]
    names = [plain(name) for name in fit.feature_names]
    ours = shown.of(seen.fit_probability)
    theirs = shown.of(np.mean(seen.probability, axis=0))
    title = shown.title
    if x.shape[1] == 1:
        figure, axes = canvas(ax, (7.2, 3.6))
        order = np.argsort(x[:, 0])
        axes.plot(x[order], ours[order], color="black", lw=1.2, ls="--", label="EM")
        style = {"color": COLOURS[0], "lw": 1.2, "marker": "o", "ms": 3}
        axes.plot(x[order], theirs[order], label="posterior", **style)
        axes.set(xlabel=names[0], ylabel=shown.unit)
        top = min(max(1.1 * max(ours.max(), theirs.max()), 0.1), 1.02)
        axes.set_ylim(-0.02 * top, top)
        axes.set_title(title, **TITLE)
        axes.legend(**LEGEND)
        return figure if ax is None else ax
    if x.shape[1] == 2:
        figure, grid = panels(ax, (1, 2), (9.6, 4.2), sharex=True, sharey=True)
        for axes, values, whose in zip(grid[0], (ours, theirs), ("EM", "posterior"), strict=True):
            painted = _scatter(axes, x, values)
            axes.set(xlabel=names[0])
            axes.set_title(f"{title}: {whose}", **TITLE)
        grid[0, 0].set(ylabel=names[1])
        _bar(figure, painted, grid, shown.unit)
        return figure if ax is None else ax
    size = min(x.shape[1], MOST_FEATURES)
    figure, grid = panels(ax, (size, size), (2.1 * size + 1, 2 * size), sharex="col")
    some = spread(np.arange(len(x)), _MOST_IN_GRID)
    for row, column in itertools.product(range(size), repeat=2):
        axes = grid[row, column]
        if row == column:
            axes.text(0.5, 0.5, names[row], ha="center", va="center", transform=axes.transAxes)
            axes.set(yticks=[])
            axes.tick_params(labelsize=7)
            continue
        values = ours if column > row else theirs
        painted = _scatter(axes, x[some][:, [column, row]], values[some])
        axes.tick_params(labelsize=7, labelleft=column == 0)
    if ax is None:
        figure.suptitle(f"{title}: EM above the diagonal, posterior below", fontsize=11)
    _bar(figure, painted, grid, shown.unit)
    return figure if ax is None else ax


def plot_pairs(fit: Fit, x: Any, ax: Any = None) -> Any:
    """The rows by EM's label: a grid of pairs of features, each label a colour and a marker.

    Rows are the paler the less sure their label is. On the diagonal the counts of each
    feature, by label. One feature has only these.

    Parameters
    ----------
    fit : Fit
    x : (n, D) array
        Rows, such as those of the fit; at most 5,000 of them, evenly spaced, are drawn.
    ax : matplotlib Axes, or an array of them, optional
        Where to draw: a square of D by D, at most 6 by 6.

    Returns
    -------
    matplotlib Figure or Axes
        A new figure, which notebooks show; or ``ax``, where it was given.

    Raises
    ------
    ValueError
        Where ``ax`` has another number of panels than the picture.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("iris").x[:, :2]
    >>> fit = jg.fit(jg.Mixture(jg.Gaussian("EEE"), 3), x, key=jax.random.key(0), n_init=4)
    >>> len(jg.report.plot_pairs(fit, x).axes)
    3
    """
    near, (rows, _) = fit.near, fit.model.check_data(x)
    chosen = spread(np.arange(len(rows)), MOST_ROWS)
    rows = rows[chosen] if fit.origin is None else wide_rows(x).reshape(rows.shape)[chosen]
    probability = responsibilities_at(near.model, near.params, about(rows, fit.origin))
    probability = np.asarray(probability, np.float64)
    labels, sure = np.argmax(probability, axis=-1), np.max(probability, axis=-1)
    rows = named(fit.feature_names, rows)
    size = min(rows.shape[1], MOST_FEATURES)
    side = 2.2 * size + 0.6 if size > 1 else 4.6
    figure, grid = panels(ax, (size, size), (max(side, 5.2), side * 0.92), sharex="col")
    there = np.unique(labels)
    for row, column in itertools.product(range(size), repeat=2):
        axes = grid[row, column]
        if column > row:
            axes.remove()
            continue
        if row == column:
            seen = ~np.isnan(rows[:, row])
            parts = [rows[seen & (labels == k), row] for k in there]
            bins = int(np.clip(2 * np.sqrt(len(rows)), 8, 40))
            axes.hist(parts, bins=bins, stacked=True, color=[colour(k) for k in there])
            axes.set(yticks=[]) if size > 1 else axes.set(ylabel="rows")
        else:
            for k in there:
                _draw_label(axes, k, rows[labels == k][:, [column, row]], sure[labels == k])
            axes.tick_params(labelsize=8, labelleft=column == 0)
        if row == size - 1:
            axes.set_xlabel(plain(fit.feature_names[column]))
        if column == 0 and row > 0:
            axes.set_ylabel(plain(fit.feature_names[row]))
    for k in there:
        grid[0, 0].plot([], [], ms=5, label=_label_name(fit, k), **_style(k), ls="")
    if size == 1:
        grid[0, 0].legend(**LEGEND)
    else:  # the upper triangle is empty
        parts = grid[0, 0].get_legend_handles_labels()
        figure.legend(*parts, loc="upper right", frameon=False, fontsize=9, title="EM's labels")
    return figure if ax is None else ax


def _seen(fit: Fit, post: Posterior) -> Seen:
    """As the verdict has it, so that what was compiled for it serves again."""
    return look_at_data(fit, post)


def _entropy(probability: np.ndarray) -> np.ndarray:
    """(n,) of labels (n, K), from 0 for a label that is sure to 1 for labels all alike."""
    return np.sum(entr(probability), axis=-1) / np.log(max(probability.shape[-1], 2))


_UNCERTAIN = _Measure(_entropy, "Uncertainty of the labels", "entropy of the label / log K")
_OUTLYING = _Measure(
    lambda probability: probability[..., -1],
    "Rows of the background",
    "probability of the background",
)


def _scatter(axes: Any, x: np.ndarray, values: np.ndarray) -> Any:
    """The unsure rows lie on top."""
    order = np.argsort(values)
    size = float(np.clip(3000 / len(x), 4, 20))
    return axes.scatter(
        *x[order].T, c=values[order], s=size, cmap=UNCERTAINTY, vmin=0, vmax=1, lw=0.3, ec="#666666"
    )


def _bar(figure: Any, painted: Any, grid: np.ndarray, unit: str) -> None:
    bar = figure.colorbar(painted, ax=grid, shrink=0.7)
    bar.set_label(unit, fontsize=9)


def _draw_label(axes: Any, k: int, rows: np.ndarray, sure: np.ndarray) -> None:
    size = float(np.clip(4000 / len(rows), 5, 16))
    axes.scatter(*rows.T, s=size, lw=0, alpha=np.clip(sure, 0.25, 0.85), **_style(k))


def _style(k: int) -> dict[str, Any]:
    return {"color": colour(k), "marker": MARKERS[k % len(MARKERS)]}


def _label_name(fit: Fit, k: int) -> str:
    weights = fit.model.sites(fit.params).get("weights")
    return label_name(fit.model, k) + ("" if weights is None else f" ({float(weights[k]):.2f})")
