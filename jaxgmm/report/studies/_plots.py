"""Pictures of a study: coverage, calibration of standard errors, what became of the data sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from jaxgmm.report.plots._canvas import GREY, LEGEND, MARKERS, TITLE, canvas, colour, panels, plain

# Bands and bars hold this share of what Monte-Carlo error alone does.
_BAND = 0.95
_REACH = float(norm.isf((1 - _BAND) / 2))

# Ratios that span no more than this factor have ticks at even distances.
_NARROW = 4

# Inches a quantity and a method take, and those of axes and titles.
_LINE, _METHOD, _FRAME = 0.18, 0.05, 1.5


def plot_coverage(coverage: pd.DataFrame, ax: Any = None) -> Any:
    """A panel for each level, a row for each quantity, a mark for each method."""
    levels = coverage.index.unique("level")
    names, methods = _rows(coverage)
    size = (3.0 + 2.6 * len(levels), _height(names, methods))
    figure, axes = panels(ax, (1, len(levels)), size, sharey=True)
    for one, level in zip(axes[0], levels, strict=True):
        rows = coverage.xs(level, level="level")
        count = rows["n_used"].median()
        band = _REACH * np.sqrt(level * (1 - level) / max(count, 1))
        one.axvspan(level - band, min(level + band, 1), color=GREY, alpha=0.25, lw=0)
        one.axvline(level, color=GREY, lw=1)
        share, reach = rows["coverage"], _REACH * rows["error"]
        _marks(one, share, share - reach, share + reach, names, methods)
        one.set(xlabel="coverage", xlim=(max(one.get_xlim()[0], -0.02), 1.02))
        one.set_title(f"{100 * level:g}% intervals", **TITLE)
    _labels(figure, axes[0], names, methods, ax)
    return figure if ax is None else ax


def plot_errors(table: pd.DataFrame, ax: Any = None) -> Any:
    """Standard errors as shares of the spread of the estimates."""
    names, methods = _rows(table)
    figure, axes = canvas(ax, (6.4, _height(names, methods)))
    axes.axvline(1, color=GREY, lw=1)
    # Half and twice are as far from one.
    reach = np.exp(_REACH * table["ratio_error"] / table["ratio"])
    _marks(axes, table["ratio"], table["ratio"] / reach, table["ratio"] * reach, names, methods)
    axes.set(xlabel="standard error / spread of the estimates", xscale="log")
    low, high = axes.get_xlim()
    ticks = _ticks(low, high)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(low, high)
    axes.set_title("Calibration of standard errors", **TITLE)
    _labels(figure, [axes], names, methods, ax)
    return figure if ax is None else ax


def _ticks(low: float, high: float) -> list[float]:
    """A few round numbers on an axis of ratios, whatever its width."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    even = MaxNLocator(6, steps=[1, 2, 5, 10])
    by_size = LogLocator(subs=(1.0, 2.0, 5.0) if high < 1000 * low else (1.0,), numticks=12)
    places = (even if high < _NARROW * low else by_size).tick_values(low, high)
    return [float(f"{tick:.6g}") for tick in places if low <= tick <= high]


def plot_failures(failures: pd.DataFrame, ax: Any = None) -> Any:
    """A bar for each method, a colour for each reason."""
    counts = failures.drop(columns=["missed", "elsewhere"])
    counts = counts.loc[:, (counts != 0).any()]
    figure, axes = canvas(ax, (7.6, 0.4 * len(counts) + _FRAME))
    left = np.zeros(len(counts))
    for k, reason in enumerate(counts):
        values = counts[reason].to_numpy(float)
        paint = GREY if reason == "used" else colour(k)
        axes.barh(np.arange(len(counts)), values, left=left, color=paint, label=reason, height=0.6)
        left += values
    axes.set_yticks(np.arange(len(counts)), [plain(str(name)) for name in counts.index])
    axes.invert_yaxis()
    axes.set(xlabel="data sets")
    axes.set_title("What became of the data sets", **TITLE)
    if ax is None:
        figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    else:
        axes.legend(**LEGEND)
    return figure if ax is None else ax


def _rows(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    return list(frame.index.unique("quantity")), list(frame.index.unique("method"))


def _height(names: list[str], methods: list[str]) -> float:
    return len(names) * (_LINE + _METHOD * len(methods)) + _FRAME


def _marks(
    axes: Any,
    values: pd.Series,
    low: pd.Series,
    high: pd.Series,
    names: list[str],
    methods: list[str],
) -> None:
    for k, method in enumerate(methods):
        of = lambda series, method=method: series.xs(method, level="method").loc[names].to_numpy()
        own = of(values)
        reach = np.abs([own - of(low), of(high) - own])
        aside = (k - (len(methods) - 1) / 2) * 0.7 / len(methods)
        style = {"fmt": MARKERS[k % len(MARKERS)], "ms": 4, "lw": 1, "color": colour(k)}
        axes.errorbar(own, np.arange(len(names)) + aside, xerr=reach, label=method, **style)


def _labels(figure: Any, axes: Any, names: list[str], methods: list[str], ax: Any) -> None:
    axes[0].set_yticks(np.arange(len(names)), [plain(name) for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    if len(methods) > 1:
        if ax is None:
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside right upper", fontsize=9, frameon=False)
        else:
            axes[0].legend(**LEGEND)
