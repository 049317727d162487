"""Figures of a choice among models: criteria against K, entropies of merged clusters."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxgmm._checks import check_name
from jaxgmm.report.plots._canvas import COLOURS, GREY, LEGEND, MARKERS, TITLE, canvas
from jaxgmm.report.selection._choice import Choice
from jaxgmm.report.selection._criteria import DECIDING, LABELS

_DASHES = ("-", "--", "-.")
_MOST_INSIDE = 4  # lines up to which the legend fits inside the axes
_ERRORS = {"loo": "loo_error", "evidence": "evidence_error"}
_HIGHER = ("mclust_bic", "log_likelihood")


def plot_criterion(choice: Choice, ax: Any = None, criterion: str | None = None) -> Any:
    """See `Selection.plot`."""
    table = choice.table.reset_index(drop=True)
    name = choice.criterion if criterion is None else criterion
    numbers = [c for c in table.columns if c not in ("structure", "status", "reason", "note")]
    check_name("criterion", name, numbers)
    able = table[(table["reason"] == "") & np.isfinite(table[name].astype(float))]
    figure, axes = canvas(ax, (7.6, 4.8))
    kinds = choice.kinds
    names = list(dict.fromkeys(kinds))
    for i, kind in enumerate(names):
        rows = able[np.array([kinds[j] == kind for j in able.index], bool)]
        rows = rows.sort_values("n_components", kind="stable")
        if rows.empty:
            continue
        style = {
            "color": COLOURS[i % len(COLOURS)],
            "marker": MARKERS[i % len(MARKERS)],
            "ls": _DASHES[i // len(COLOURS) % len(_DASHES)],
        }
        k, values = rows["n_components"], rows[name].astype(float)
        axes.plot(k, values, lw=1.4, ms=5, label=kind, **style)
        if name in _ERRORS:
            axes.errorbar(k, values, rows[_ERRORS[name]], fmt="none", color=style["color"], lw=1)
    ranked = [j for j in choice.ranking if j in able.index]
    if ranked:
        best = able.loc[ranked[0]]
        axes.plot(
            best["n_components"],
            best[name],
            "o",
            ms=14,
            mfc="none",
            mec="black",
            mew=1.5,
            label=f"best by {LABELS.get(choice.criterion, choice.criterion)}",
        )
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="number of components", ylabel=LABELS.get(name, name))
    axes.ticklabel_format(axis="y", useOffset=False)
    better = "" if name not in DECIDING else "lower is better"
    if name in _HIGHER:
        better = "higher is better"
    left_out = len(table) - len(able)
    top = _top(able[name].to_numpy(float)) if name in DECIDING else None
    if top is not None:
        axes.set_ylim(able[name].min() - 0.06 * (top - able[name].min()), top)
        left_out += int((able[name] > top).sum())
    parts = [p for p in (better, f"{left_out} not shown" if left_out else "") if p]
    title = f"{len(table)} model(s)"
    axes.set_title(f"{title}: {', '.join(parts)}" if parts else title, **TITLE)
    if ax is None and len(names) > _MOST_INSIDE:
        figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    elif ranked:
        axes.legend(**LEGEND)
    return figure if ax is None else ax


def _top(values: np.ndarray) -> float | None:
    """Where the axis ends if hopeless models would flatten all others; else None."""
    if len(values) < 8:
        return None
    best, quarter = values.min(), np.quantile(values, 0.75)
    top = best + 1.3 * (quarter - best)
    return float(top) if values.max() - best > 3 * (quarter - best) > 0 else None


def plot_entropies(entropies: np.ndarray, ax: Any) -> Any:
    """See `MergeTree.plot`."""
    figure, axes = canvas(ax, (6.4, 4.0))
    counts = np.arange(1, len(entropies) + 1)
    axes.plot(counts, entropies, "o-", color=COLOURS[0], lw=1.4, ms=6)
    axes.axhline(0, color=GREY, lw=0.8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="number of clusters", ylabel="entropy of the labels")
    axes.set_title("Entropy of merged components", **TITLE)
    return figure if ax is None else ax
