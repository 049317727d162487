"""The verdict on disk: the report and the draws."""

from __future__ import annotations

from pathlib import Path

from jaxgmm.bayes import to_datatree
from jaxgmm.report.page._written import written
from jaxgmm.report.verdict._findings import Findings
from jaxgmm.report.verdict._illustrations import illustrations
from jaxgmm.report.verdict._record import verdict_record
from jaxgmm.report.verdict._report import code, report


def save(verdict: Findings, folder: Path) -> Path:
    """See `Verdict.save`.

    ``posterior.nc`` is NetCDF-4 with a group each for the relabelled draws, the sampler's
    statistics, the log likelihood of every row and the data, as ArviZ reads it.
    """
    figures = illustrations(verdict)
    record = verdict_record(verdict, figures, code(verdict))
    # Made in memory: HDF5 takes the process with it where a disk is full.
    with to_datatree(verdict.posterior).to_netcdf(engine="h5netcdf") as buffer:
        draws = bytes(buffer)
    return written(folder, "report", report(verdict, figures), record, {"posterior.nc": draws})
