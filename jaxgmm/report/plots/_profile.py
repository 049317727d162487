"""Figure: probabilities by column and component, as latent classes are read."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxgmm.bayes import Posterior
from jaxgmm.em import Fit
from jaxgmm.report.plots._canvas import LEGEND, TITLE, colour, dash, panels, plain
from jaxgmm.report.plots._columns import drawn, kind_of

_DRAWS = 400
# More would be illegible; and panels, one a level.
MOST_ITEMS = 30
_MOST_LEVELS = 6
# How far apart the components stand at a column, all together.
_SPREAD = 0.4


def plot_profile(fit: Fit, post: Posterior, ax: Any = None) -> Any:
    """EM's probabilities (lines) and the posterior's 95% intervals (bars), a panel a level."""
    (site,) = fit.model.sites(fit.params).keys() - {"weights", "sticks"}
    point = np.asarray(fit.params.own[site], np.float64)
    draws = np.asarray(drawn(post, _DRAWS).own[site], np.float64)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    shown = [level[..., None] if level.ndim == 2 else level for level in (point, low, high)]
    levels = min(shown[0].shape[-1], _MOST_LEVELS)
    items = min(point.shape[1], MOST_ITEMS)
    names = [plain(name) for name in fit.feature_names[:items]]
    columns = min(levels, 3)
    rows = -(-levels // columns)
    size = (max(7.2, 3.4 * columns), 4.2 if rows == 1 else 2.8 * rows + 0.6)
    shape = (rows, columns) if ax is None else (1, levels)
    figure, grid = panels(ax, shape, size, **({"sharey": True} if ax is None else {}))
    for level, axes in zip(range(levels), grid.ravel(), strict=False):
        _draw(axes, fit, *(part[:, :items, level] for part in shown))
        axes.set_xticks(np.arange(items), names, rotation=45 if items > 8 else 0)
        axes.set(ylim=(-0.03, 1.03))
        if levels > 1:
            axes.set_title(f"level {level}", fontsize=9, loc="left")
    for axes in grid.ravel()[levels:]:
        axes.remove()
    one = "share of the column" if kind_of(fit.model) == "shares" else "probability of a one"
    grid[0, 0].set(ylabel=one if levels == 1 else "probability of the level")
    title = "Profiles: EM (lines) and the posterior's 95% intervals (bars)"
    if levels == 1:
        grid[0, 0].set_title(title, **TITLE)
    elif ax is None:
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    if ax is None:
        handles, labels = grid[0, 0].get_legend_handles_labels()
        where = {"loc": "outside lower center", "ncols": 3, "frameon": False}
        figure.legend(handles, labels, fontsize=9, **where)
        return figure
    grid[0, 0].legend(**LEGEND)
    return ax


def _draw(axes: Any, fit: Fit, point: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    (k, items), weights = point.shape, np.asarray(fit.params.weights)
    for j in range(k):
        place = np.arange(items) + _SPREAD * ((j + 0.5) / k - 0.5)
        label = f"component {j} (weight {weights[j]:.2f})"
        axes.vlines(place, low[j], high[j], color=colour(j), lw=4, alpha=0.3)
        axes.plot(place, point[j], "o", color=colour(j), ls=dash(j), lw=1.2, ms=5, label=label)
