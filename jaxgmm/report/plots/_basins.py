"""Figure: the share of the posterior in the basin of each optimum."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pandas as pd

from jaxgmm.report.plots._canvas import COLOURS, GREY, TITLE, canvas

_MOST_BARS = 10


class _HasBasins(Protocol):
    """Such as a `jaxgmm.Verdict`."""

    @property
    def basins(self) -> pd.DataFrame: ...


def plot_basins(verdict: _HasBasins, ax: Any = None) -> Any:
    """Shares of the posterior by the optimum that EM reaches, with their Monte-Carlo intervals.

    Parameters
    ----------
    verdict : Verdict
        Whose ``basins`` are drawn: the fit's first, then the ten largest others.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Figure or Axes
        A new figure, which notebooks show; or ``ax``, where it was given.
    """
    basins = verdict.basins.iloc[: 1 + _MOST_BARS]
    shares = basins["share"].to_numpy(float)
    ends = basins[["share_low", "share_high"]].to_numpy(float).T
    places = np.arange(len(basins))
    colours = [COLOURS[0], *[COLOURS[5]] * (len(basins) - 1)]
    colours = [
        own if np.isfinite(height) else GREY
        for own, height in zip(colours, basins["log_joint"], strict=True)
    ]
    figure, axes = canvas(ax, (7.2, 1.2 + 0.48 * len(basins)))
    axes.barh(places, shares, 0.62, color=colours)
    errors = np.abs(ends - shares)
    axes.errorbar(shares, places, xerr=errors, fmt="none", color="black", lw=1.2, capsize=3)
    for place, share, end in zip(places, shares, ends[1], strict=True):
        text = f"{share:.1%}"
        axes.annotate(text, (end, place), (5, 0), textcoords="offset points", va="center")
    axes.set_yticks(places, _labels(verdict.basins)[: len(basins)], fontsize=9)
    axes.set(xlim=(0, 1.12), xlabel="share of the posterior, with its 95% interval")
    axes.set_xticks(np.linspace(0, 1, 6), [f"{share:.0%}" for share in np.linspace(0, 1, 6)])
    axes.invert_yaxis()
    left = len(verdict.basins) - len(basins)
    axes.set_title(
        "Where EM leads from draws of the posterior" + (f" ({left} more optima)" if left else ""),
        **TITLE,
    )
    return figure if ax is None else ax


def _labels(basins: pd.DataFrame) -> list[str]:
    """Names of the optima with their heights and weights; the highest one is the MAP."""
    names = optimum_names(basins)
    highest = basins["log_joint"].to_numpy(float)
    labels = []
    for name, (_, basin) in zip(names, basins.iterrows(), strict=True):
        if not np.isfinite(basin["log_joint"]):
            labels.append(name)
            continue
        mark = " = MAP" if basin["log_joint"] >= np.nanmax(highest) else ""
        weights = " ".join(f"{w:.2f}" for w in basin["weights"])
        if len(basin["weights"]) > 5:
            weights = ""
        height = f"log joint {basin['log_joint']:.2f}"
        name = f"optimum {name}" if name.isdigit() else name
        labels.append(f"{name}{mark}: {height}" + (f"\nweights {weights}" if weights else ""))
    return labels


def optimum_names(basins: pd.DataFrame) -> list[str]:
    """What tables and figures call each optimum."""
    names = ["the fit", *(str(i) for i in range(1, len(basins)))]
    arrived = basins["log_joint"].notna()
    return [n if a else "not converged" for n, a in zip(names, arrived, strict=True)]
