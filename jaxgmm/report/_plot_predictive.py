"""Figure: the data against data sets drawn from the posterior predictive."""

from __future__ import annotations

from typing import Any

import numpy as np
from arviz_stats.base import array_stats
from jaxtyping import PRNGKeyArray

from jaxgmm._checks import check_key, key_numbers
from jaxgmm._posterior import Posterior, systematic
from jaxgmm.report._canvas import COLOURS, MOST_FEATURES, panels, plain
from jaxgmm.report._gaussians import Gaussians

_REPLICATES = 200
_LINES = 50  # replicates whose density is drawn
_STATISTICS = {"mean": np.mean, "sd": np.std, "smallest": np.min, "largest": np.max}


def plot_predictive(post: Posterior, ax: Any = None, *, key: PRNGKeyArray) -> Any:
    """Each feature of the data against 50 data sets that the posterior predicts.

    Lines are kernel densities. Above each panel, the share of 200 replicates whose mean,
    standard deviation, smallest and largest value lie below those of the data: near 0 or 1 the
    model does not bring forth what was seen (Gelman, Meng and Stern, 1996).

    Parameters
    ----------
    post : Posterior
        Of a model with component means and covariances. Weighted draws are resampled, and
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
    rng = np.random.default_rng(key_numbers(check_key(key, "replicates are random")))
    drawn = Gaussians.drawn(post, _REPLICATES)
    x = np.asarray(post.x, np.float64)
    if post.sample_weight is not None:
        with np.errstate(divide="ignore"):
            log_weights = np.log(np.asarray(post.sample_weight, np.float64))
        x = x[systematic(log_weights, len(x))]
    replicates = np.array([drawn.at(s).rows(rng, len(x)) for s in range(len(drawn.weights))])
    count = min(x.shape[1], MOST_FEATURES)
    columns = min(count, 3)
    rows = -(-count // columns)
    size = (7.2, 4.2) if count == 1 else (max(3.4 * columns, 7.2), 2.8 * rows + 0.4)
    figure, grid = panels(ax, (rows, columns) if ax is None else (1, count), size)
    for feature, axes in zip(range(count), grid.ravel(), strict=False):
        _draw(axes, x[:, feature], replicates[..., feature])
        axes.set(xlabel=plain(post.feature_names[feature]))
    for axes in grid.ravel()[count:]:
        axes.remove()
    if ax is None:
        handles, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(
            handles, names, loc="outside upper center", ncols=2, frameon=False, fontsize=9
        )
    return figure if ax is None else ax


def _draw(axes: Any, x: np.ndarray, drawn: np.ndarray) -> None:
    for values in drawn[:: max(1, len(drawn) // _LINES)][:_LINES]:
        grid, density, _ = array_stats.kde(values)
        axes.plot(grid, density, color=COLOURS[0], lw=0.6, alpha=0.3)
    axes.plot([], [], color=COLOURS[0], lw=0.8, label="replicates")
    grid, density, _ = array_stats.kde(x)
    axes.plot(grid, density, color="black", lw=2, label="data")
    below = [f"{name} {np.mean(of(drawn, axis=1) < of(x)):.2f}" for name, of in _STATISTICS.items()]
    text = "replicates below the data:\n" + ", ".join(below)
    axes.set_title(text, fontsize=8, loc="left")
    axes.set(yticks=[], ylim=(0, None))
    axes.spines["left"].set_visible(False)
