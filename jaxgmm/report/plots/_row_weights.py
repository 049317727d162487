"""Figure: how much each row counts under heavy tails."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxgmm import bayes
from jaxgmm._programs import on_rung
from jaxgmm.bayes import Posterior
from jaxgmm.em import Fit
from jaxgmm.report.plots._canvas import COLOURS, LEGEND, TITLE, canvas, plain, spread
from jaxgmm.report.plots._columns import drawn, one

_DRAWS = 100
_MOST_ROWS = 400
_NAMED = 5  # of the rows that count least


def plot_row_weights(fit: Fit, post: Posterior, ax: Any = None) -> Any:
    """How often each row counts in the M-step of heavy tails, by EM and over the posterior.

    Rows are sorted by EM's weights; outliers, on the left, count least. The title says which five
    do, by their place in the data, or by their index in a table.

    Parameters
    ----------
    fit : Fit
        Of a mixture with components of heavy tails, `jaxgmm.families.StudentT`.
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
        For a model of which every row counts once.
    """
    if not has_row_weights(fit):
        raise TypeError(f"plot_row_weights: every row of {fit.model!r} counts once")
    near, point = post.near, fit.near
    (x, _), n = on_rung(near.model, near.x, None), len(near.x)
    weights = lambda model, params: np.asarray(bayes.row_weights(model, params, x))[:, :n]
    em = weights(point.model, one(point.params))[0]
    order = np.argsort(em, kind="stable")
    # The lowest are all there.
    shown = np.concatenate([order[:_NAMED], spread(order[_NAMED:], _MOST_ROWS)])
    low, high = np.quantile(weights(near.model, drawn(near, _DRAWS)), [0.025, 0.975], axis=0)
    figure, axes = canvas(ax, (7.2, 4.2))
    place = np.argsort(order)[shown]
    label = "95% of the posterior"
    axes.vlines(place, low[shown], high[shown], color=COLOURS[0], lw=1.5, alpha=0.4, label=label)
    axes.plot(place, em[shown], ".", color="black", ms=4, label="EM")
    names = np.arange(len(em)) if post.row_names is None else post.row_names
    least = ", ".join(str(names[row]) for row in order[:_NAMED])
    axes.set(xlabel="rows, those that count least first", ylabel="weight", ylim=(0, None))
    axes.set_title(plain(f"How much each row counts; least: {least}"), **TITLE)
    axes.legend(**LEGEND)
    return figure if ax is None else ax


def has_row_weights(fit: Fit) -> bool:
    """Whether rows count other than once."""
    return getattr(getattr(fit.model, "family", None), "weighs", False)
