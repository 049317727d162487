"""The result of a calibration."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from jaxgmm.report.studies._reported import Report, Reported


@dataclasses.dataclass(frozen=True, repr=False)
class Calibration(Reported):
    """Ranks of what was drawn from the prior among draws of its posterior.

    Attributes
    ----------
    table : DataFrame
        A row per quantity: ``n_ranked``; ``p_value`` of uniform ranks by the bands and
        ``chi2_p_value`` by chi-squared, each of this quantity alone; ``uniform``: inside bands
        that hold all quantities at once with probability ``level``; ``mean_rank``, a half for
        right draws; ``spread``, one for right draws, more where they are too narrow; and
        ``meaning``, what that says of the draws.
    ranks : (N, Q) int array
        From 0 to L; -1 where a data set has no answer.
    ends : DataFrame
        How many of the ``data_sets`` ended how, each counted once, and how many of these are
        ``ranked``: all that converged, those that did not as far as they have draws, no others.
    settings : dict
        What was asked for.
    """

    table: pd.DataFrame
    ranks: np.ndarray
    ends: pd.DataFrame
    settings: dict[str, Any]

    @property
    def uniform(self) -> bool:
        """Whether the ranks of every quantity stay inside their band."""
        return bool(self.table["uniform"].all())

    @property
    def conclusions(self) -> list[str]:
        """What may be concluded, in sentences."""
        asked, off = self.settings, self.table[~self.table["uniform"]]
        who = f"{asked['method']} at n = {asked['n']}, over {asked['n_datasets']} data sets"
        if not len(off):
            said = [f"{who}: the ranks of all {len(self.table)} quantities are uniform."]
        else:
            names = ", ".join(f"{name} ({why})" for name, why in off["meaning"].items())
            said = [f"{who}: ranks are not uniform: {names}."]
        ranked, lost = self.ends["ranked"], self.ends["data_sets"] - self.ends["ranked"]
        if ranked["not converged"]:
            said.append(f"Data sets ranked though not converged: {ranked['not converged']}.")
        if lost.any():
            reasons = ", ".join(f"{count} {why}" for why, count in lost[lost > 0].items())
            said.append(f"Data sets without ranks: {reasons}.")
        return said

    def plot(self, ax: Any = None) -> Any:
        """Distribution functions of the ranks less that of uniform ones, in their bands.

        Parameters
        ----------
        ax : array of matplotlib Axes, optional
            One for each quantity.

        Returns
        -------
        matplotlib Figure, or ``ax`` where it was given
        """
        from jaxgmm.report.studies._plot_ranks import plot_ranks

        return plot_ranks(self.table, self.ranks, self.settings, ax)

    def _report(self) -> Report:
        from jaxgmm.report.studies._calibration_page import report

        return report(self.conclusions, self.table, self.ranks, self.ends, self.settings)

    def __repr__(self) -> str:
        from jaxgmm.report.studies._calibration_page import screen

        return screen(self.conclusions, self.table)

    def _repr_html_(self) -> str:
        from jaxgmm.report.studies._calibration_page import notebook

        return notebook(self.conclusions, self.table, self.ranks, self.settings)
