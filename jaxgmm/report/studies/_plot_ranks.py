"""Ranks of a calibration in their bands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from jaxgmm.report.plots._canvas import COLOURS, GREY, TITLE, panels, plain
from jaxgmm.report.studies._ranks import bands, cumulative

_COLUMNS = 3


def plot_ranks(table: pd.DataFrame, ranks: np.ndarray, settings: dict[str, Any], ax: Any) -> Any:
    """A panel for each quantity: the distribution function less that of uniform ranks.

    Säilynoja, Bürkner and Vehtari (2022), Statistics and Computing 32:32.
    """
    n_draws, level, count = settings["n_kept"], settings["level"], len(table)
    shape = (-(-count // _COLUMNS), min(_COLUMNS, count)) if ax is None else (1, np.size(ax))
    figure, axes = panels(ax, shape, (3.4 * shape[1], 2.8 * shape[0]))
    share = np.arange(1, n_draws + 1) / (n_draws + 1)
    for one, (j, (name, row)) in zip(axes.ravel(), enumerate(table.iterrows()), strict=False):
        own = ranks[ranks[:, j] >= 0, j]
        band = bands(len(own), n_draws, 1 - (1 - level) / count)
        above = lambda counts, band=band, own=own: (counts - band.expected) / len(own)
        one.fill_between(share, above(band.low), above(band.high), color=GREY, alpha=0.25, lw=0)
        paint = COLOURS[0] if row["uniform"] else COLOURS[1]
        one.step(share, above(cumulative(own, n_draws)), where="mid", color=paint, lw=1.4)
        one.axhline(0, color=GREY, lw=0.8)
        said = "" if row["uniform"] else f": {row['meaning']}"
        one.set(xlabel="rank / (L + 1)")
        one.set_title(plain(f"{name}{said}"), **{**TITLE, "fontsize": 9})
    for one in axes.ravel()[count:]:
        one.set_visible(False)
    for one in axes[:, 0]:
        one.set(ylabel="ECDF - uniform")
    return figure if ax is None else ax
