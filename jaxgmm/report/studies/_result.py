"""The result of a study."""

from __future__ import annotations

import dataclasses
from typing import Any

import pandas as pd

from jaxgmm.report.studies._batches import Record
from jaxgmm.report.studies._reported import Report, Reported
from jaxgmm.report.studies._scores import Scores
from jaxgmm.report.studies._text import conclusions, screen


@dataclasses.dataclass(frozen=True, repr=False)
class Study(Reported):
    """What `study` found. Errors are Monte-Carlo standard errors, from the spread of data sets.

    Attributes
    ----------
    table : DataFrame
        A row per method and quantity, what no renaming of labels changes first: ``truth``,
        ``n_used``, ``bias``, ``rmse``, ``spread`` (standard deviation of the estimates),
        ``standard_error`` (root of the mean square of those claimed), ``ratio`` of the two, and
        ``bias_error``, ``rmse_error``, ``ratio_error``.
    coverage : DataFrame
        A row per method, quantity and level: ``coverage``, ``error``, mean ``width``.
    groups : DataFrame
        Coverage on average over the quantities of one site, by method.
    failures : DataFrame
        A row per method: how many data sets were used, or not and why, by the first reason that
        applies; and on how many the optimum near the truth was ``missed`` by every restart, or
        was not the highest (``elsewhere``).
    scores : DataFrame
        A row per method: mean log density of rows held out, how far below the truth's it is,
        adjusted Rand index of the partition, seconds per data set (median over batches).
    findings : DataFrame
        What is not as promised beyond Monte-Carlo error, the worst first: a study in which every
        method keeps its promises has a row here once in a hundred.
    selection : DataFrame
        A row per criterion and model of ``select``: on which share of the data sets it was
        ``picked``, whether it is the ``truth`` but for its prior, and on how many it had
        ``no_fit``. Empty without ``select``.
    settings : dict
        What was asked for.
    record : Record
        Every number of every data set.
    """

    table: pd.DataFrame
    coverage: pd.DataFrame
    groups: pd.DataFrame
    failures: pd.DataFrame
    scores: pd.DataFrame
    findings: pd.DataFrame
    selection: pd.DataFrame
    settings: dict[str, Any]
    record: Record

    @property
    def conclusions(self) -> list[str]:
        """What may be concluded, in sentences."""
        return conclusions(self._frames, self.selection, self.settings)

    def plot_coverage(self, ax: Any = None) -> Any:
        """Coverage of every quantity, a panel for each level, with bands of Monte-Carlo error.

        Parameters
        ----------
        ax : array of matplotlib Axes, optional
            One for each level.

        Returns
        -------
        matplotlib Figure, or ``ax`` where it was given
        """
        from jaxgmm.report.studies._plots import plot_coverage

        return plot_coverage(self.coverage, ax)

    def plot_errors(self, ax: Any = None) -> Any:
        """Standard errors as shares of the spread of the estimates.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        matplotlib Figure, or ``ax`` where it was given
        """
        from jaxgmm.report.studies._plots import plot_errors

        return plot_errors(self.table, ax)

    def plot_failures(self, ax: Any = None) -> Any:
        """What became of the data sets, by method and reason.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        matplotlib Figure, or ``ax`` where it was given
        """
        from jaxgmm.report.studies._plots import plot_failures

        return plot_failures(self.failures, ax)

    def _report(self) -> Report:
        from jaxgmm.report.studies._page import report

        return report(self._frames, self.selection, self.conclusions, self.settings)

    @property
    def _frames(self) -> Scores:
        return Scores(**{name: getattr(self, name) for name in Scores._fields})

    def __repr__(self) -> str:
        return screen(self.conclusions, self._frames, self.selection)

    def _repr_html_(self) -> str:
        from jaxgmm.report.studies._page import notebook

        return notebook(self._frames, self.selection, self.conclusions)
