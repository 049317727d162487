"""The verdict on disk: the report three times, its figures as files, and the draws."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jaxgmm._export import to_datatree
from jaxgmm._files import Content, write
from jaxgmm.report._html import page
from jaxgmm.report._illustrations import illustrations
from jaxgmm.report._markdown import markdown
from jaxgmm.report._record import dumps, verdict_record
from jaxgmm.report._report import code, report

if TYPE_CHECKING:
    from jaxgmm.report._compare import Verdict


def save(verdict: Verdict, folder: Path) -> Path:
    """See `Verdict.save`.

    ``posterior.nc`` is NetCDF-4 with a group each for the relabelled draws, the sampler's
    statistics, the log likelihood of every row and the data, as ArviZ reads it.
    """
    figures = illustrations(verdict)
    document = report(verdict, figures)
    files: dict[str, Content] = {figure.file: figure.png for figure in figures}
    # Made in memory: HDF5 takes the process with it where a disk is full.
    with to_datatree(verdict.posterior).to_netcdf(engine="h5netcdf") as buffer:
        files["posterior.nc"] = bytes(buffer)
    files["report.json"] = dumps(verdict_record(verdict, figures, code(verdict)))
    files["report.md"] = markdown(document)
    files["report.html"] = page(document)
    write(folder, files)
    return folder / "report.html"
