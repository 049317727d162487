"""The result of a study."""

from __future__ import annotations

import dataclasses
from typing import Any

import pandas as pd

from jaxgmm.report.study._batches import Record
from jaxgmm.report.study._text import conclusions, screen


@dataclasses.dataclass(frozen=True, repr=False)
class Study:
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
    settings: dict[str, Any]
    record: Record

    @property
    def conclusions(self) -> list[str]:
        """What may be concluded, in sentences."""
        return conclusions(self.groups, self.findings, self.failures, self.settings)

    def __repr__(self) -> str:
        return screen(self.conclusions, self.groups, self.failures, self.scores, self.findings)
