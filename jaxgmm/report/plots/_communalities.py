"""Figure: how much of each column the factors explain."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxgmm.bayes import Posterior
from jaxgmm.em import Fit
from jaxgmm.report.plots._canvas import LEGEND, MARKERS, TITLE, canvas, colour

_DRAWS = 400
_MOST_NAMES = 30  # below the axis


def plot_communalities(fit: Fit, post: Posterior, ax: Any = None) -> Any:
    """The share of each column's variance that factors explain, by EM and over the posterior.

    Parameters
    ----------
    fit : Fit
        Of a mixture of `jaxgmm.families.FactorAnalyser` or `jaxgmm.families.PPCA`.
    post : Posterior
        On the same data; weighted draws are resampled.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Figure or Axes
        A new figure, which notebooks show; or ``ax``, where it was given.

    Raises
    ------
    TypeError
        For a model without factors.
    """
    if not has_communalities(fit):
        raise TypeError(f"plot_communalities: {fit.model!r} has no factors")
    em = np.asarray(fit.model.derived_sites(fit.params)["communalities"])
    draws = post.thin(_DRAWS).draws["communalities"]
    low, high = np.quantile(draws.reshape(-1, *em.shape), [0.025, 0.975], axis=0)
    (k, d), names = em.shape, fit.feature_names
    figure, axes = canvas(ax, (7.2, 4.2))
    for i in range(k):
        # Components side by side.
        place = np.arange(d) + (i - (k - 1) / 2) * 0.6 / k
        axes.vlines(place, low[i], high[i], color=colour(i), lw=2.5, alpha=0.4)
        marker, label = MARKERS[i % len(MARKERS)], f"component {i}"
        axes.plot(place, em[i], marker, color=colour(i), ms=4, label=label)
    axes.set(ylabel="share of the variance", ylim=(0, 1))
    if d <= _MOST_NAMES:
        long = max(map(len, names)) * d > 80
        axes.set_xticks(
            np.arange(d), names, rotation=60 if long else 0, ha="right" if long else "center"
        )
    else:
        axes.set_xlabel("column")
    axes.set_title("What factors explain: EM, and 95% of the posterior", **TITLE)
    axes.legend(**LEGEND)
    return figure if ax is None else ax


def has_communalities(fit: Fit) -> bool:
    """Whether there are factors."""
    return "communalities" in fit.model.site_dims()
