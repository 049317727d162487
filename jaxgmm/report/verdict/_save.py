"""The verdict on disk: the report and the draws."""

from __future__ import annotations

from pathlib import Path

from jaxgmm.bayes import to_netcdf
from jaxgmm.files import Content, packed
from jaxgmm.report.page._written import written
from jaxgmm.report.verdict._findings import Findings
from jaxgmm.report.verdict._illustrations import illustrations
from jaxgmm.report.verdict._record import verdict_record
from jaxgmm.report.verdict._report import code, report


def save(verdict: Findings, folder: Path) -> Path:
    """See `Verdict.save`.

    ``posterior.nc`` is NetCDF-4 with a group each for the relabelled draws, the sampler's
    statistics, the log likelihood of every row and the data, as ArviZ reads it, and one for
    `jaxgmm.load`.
    """
    figures = illustrations(verdict)
    record = verdict_record(verdict, figures, code(verdict))
    try:
        whole = packed(verdict.posterior)
    except TypeError:  # of code of the user's that has no name there is a report all the same
        whole = None
    draws: dict[str, Content] = {"posterior.nc": to_netcdf(verdict.posterior, whole)}
    return written(folder, "report", report(verdict, figures), record, draws)
