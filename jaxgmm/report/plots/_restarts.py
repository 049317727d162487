"""Figures: how the restarts went, and where they ended."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxgmm.em import SAME_OPTIMUM, Fit, Status
from jaxgmm.report.plots._canvas import GREY, LEGEND, TITLE, canvas, spread

_MOST_LINES = 200  # traces drawn of the restarts


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
    figure, axes = canvas(ax, (7.2, 4.2))
    for name, members in groups.items():
        label = f"{_GROUP_LABELS[name]} ({members.sum()})"
        for i in spread(np.flatnonzero(members), _MOST_LINES):
            axes.plot(gaps[i, : lengths[i]], label=label, **_GROUP_STYLES[name])
            label = None
    last = lengths[fit.best] - 1
    axes.plot(gaps[fit.best, : last + 1], color="black", lw=2.2, label="the fit", zorder=5)
    axes.plot(last, gaps[fit.best, last], "o", color="black", ms=5, zorder=5, clip_on=False)
    axes.set(xlabel="EM iteration", ylabel="log joint below the best", yscale="log")
    axes.set_ylim(floor, max(axes.get_ylim()[1], 1.0))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title(f"Objective of {_restarts(len(gaps))}", **TITLE)
    axes.legend(**LEGEND)
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
    figure, axes = canvas(ax, (7.2, 3.6))
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
    axes.set_title(f"Where {_restarts(len(values))} ended", **TITLE)
    axes.set(xlabel="log joint where the restart ended", ylabel="number of restarts")
    axes.legend(**LEGEND)
    return figure if ax is None else ax


_GROUP_LABELS = {
    "failed": "collapsed or failed",
    "spurious": "spurious optimum",
    "other": "another optimum",
    "same": "the fit's optimum",
}
_GROUP_STYLES: dict[str, dict[str, Any]] = {
    "failed": {"color": GREY, "lw": 0.9, "ls": ":"},
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
