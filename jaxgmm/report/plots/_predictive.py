"""Figure: the data against data sets drawn from the posterior predictive."""

from __future__ import annotations

from typing import Any

import numpy as np
from arviz_stats.base import array_stats
from jaxtyping import PRNGKeyArray

from jaxgmm._checks import check_key, key_numbers
from jaxgmm.bayes import Posterior, systematic
from jaxgmm.report.plots._canvas import COLOURS, MOST_FEATURES, panels, plain
from jaxgmm.report.plots._columns import (
    DISCRETE,
    ONE_BY_ONE,
    PROFILES,
    kind_of,
    kinds_of,
    named,
    words_of,
)
from jaxgmm.report.plots._gaussians import Gaussians

_REPLICATES = 200
_LINES = 50  # replicates whose density is drawn
_MOST_VALUES = 20  # different ones whose shares are drawn
_STATISTICS = {"mean": np.mean, "sd": np.std, "smallest": np.min, "largest": np.max}


def plot_predictive(post: Posterior, ax: Any = None, *, key: PRNGKeyArray) -> Any:
    """Each feature of the data against 50 data sets that the posterior predicts.

    Lines are kernel densities; of codes, and of few different counts, points are the shares of
    the values, and bars hold those of 95% of the replicates. Above each panel, the share of 200
    replicates whose mean, standard deviation, smallest and largest value lie below those of the
    data: near 0 or 1 the model does not bring forth what was seen (Gelman, Meng and Stern, 1996).

    Parameters
    ----------
    post : Posterior
        Of a mixture. Weighted draws are resampled, and
        so are weighted rows.
    ax : matplotlib Axes, or an array of them, optional
        Where to draw, one a feature, at most six.
    key : typed random key
        Replicates are random.

    Returns
    -------
    matplotlib Figure or Axes
        A new figure, which notebooks show; or ``ax``, where it was given.

    Raises
    ------
    ValueError
        Where ``ax`` has another number of panels than the picture.
    """
    check_key(key, "replicates are random")
    x = named(post.feature_names, post.x)
    if post.sample_weight is not None:
        with np.errstate(divide="ignore"):
            log_weights = np.log(np.asarray(post.sample_weight, np.float64))
        x = x[systematic(log_weights, len(x))]
    replicates, kinds = _replicates(post, key, len(x)), kinds_of(post.model, x.shape[1])
    shown = [feature for feature, kind in enumerate(kinds) if kind != "given"][:MOST_FEATURES]
    count = len(shown)
    columns = min(count, 3)
    rows = -(-count // columns)
    size = (7.2, 4.2) if count == 1 else (max(3.4 * columns, 7.2), 2.8 * rows + 0.4)
    figure, grid = panels(ax, (rows, columns) if ax is None else (1, count), size)
    for feature, axes in zip(shown, grid.ravel(), strict=False):
        there = ~np.isnan(x[:, feature])
        seen, drawn = x[there, feature], replicates[:, there, feature]
        few = kinds[feature] in DISCRETE and len(np.unique(seen)) <= _MOST_VALUES
        (_shares if few else _kernels)(axes, seen, drawn)
        _statistics(axes, seen, drawn)
        axes.set(xlabel=plain(post.feature_names[feature]))
        if kinds[feature] == "levels":
            codes = np.arange(seen.max() + 1)
            words = words_of(post.model, post.feature_names, feature, codes)
            axes.set_xticks(codes, map(plain, words))
    for axes in grid.ravel()[count:]:
        axes.remove()
    if ax is None:
        handles, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(
            handles, names, loc="outside upper center", ncols=2, frameon=False, fontsize=9
        )
    return figure if ax is None else ax


def _replicates(post: Posterior, key: PRNGKeyArray, n: int) -> np.ndarray:
    """Data sets (S, n, D), of Gaussians in NumPy: nothing is compiled for a picture."""
    if kind_of(post.model) not in (*ONE_BY_ONE, *PROFILES) and not post.model.needs_given:
        rng = np.random.default_rng(key_numbers(key))
        drawn = Gaussians.drawn(post, _REPLICATES)
        return np.array([drawn.at(s).rows(rng, n) for s in range(len(drawn.weights))])
    rows = np.asarray(post.thin(_REPLICATES).replicate(key), np.float64)
    return rows.reshape(-1, *rows.shape[2:])


def _shares(axes: Any, x: np.ndarray, drawn: np.ndarray) -> None:
    """How often each value is seen."""
    values = np.arange(min(x.min(), drawn.min()), max(x.max(), drawn.max()) + 1)
    shares = np.mean(drawn[..., None] == values, axis=1)
    low, high = np.quantile(shares, [0.025, 0.975], axis=0)
    axes.vlines(values, low, high, color=COLOURS[0], lw=5, alpha=0.4, label="95% of the replicates")
    axes.plot(values, np.mean(x[:, None] == values, axis=0), "ko", ms=4, label="data")
    axes.xaxis.get_major_locator().set_params(integer=True)


def _kernels(axes: Any, x: np.ndarray, drawn: np.ndarray) -> None:
    for values in drawn[:: max(1, len(drawn) // _LINES)][:_LINES]:
        grid, density, _ = array_stats.kde(values)
        axes.plot(grid, density, color=COLOURS[0], lw=0.6, alpha=0.3)
    axes.plot([], [], color=COLOURS[0], lw=0.8, label="replicates")
    grid, density, _ = array_stats.kde(x)
    axes.plot(grid, density, color="black", lw=2, label="data")


def _statistics(axes: Any, x: np.ndarray, drawn: np.ndarray) -> None:
    # Ties, of discrete columns, count half.
    below = [
        f"{name} {np.mean(np.heaviside(of(x) - of(drawn, axis=1), 0.5)):.2f}"
        for name, of in _STATISTICS.items()
    ]
    text = "replicates below the data:\n" + ", ".join(below)
    axes.set_title(text, fontsize=8, loc="left")
    axes.set(yticks=[], ylim=(0, None))
    axes.spines["left"].set_visible(False)
