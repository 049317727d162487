"""The verdict on disk: the report three times, its figures as files, and the draws."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jaxgmm._export import to_datatree
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
    folder.mkdir(parents=True, exist_ok=True)
    to_datatree(verdict.posterior).to_netcdf(folder / "posterior.nc", engine="h5netcdf")
    figures = illustrations(verdict)
    for figure in figures:
        (folder / figure.file).write_bytes(figure.png)
    document = report(verdict, figures)
    record = verdict_record(verdict, figures, code(verdict))
    (folder / "report.json").write_text(dumps(record), encoding="utf-8")
    (folder / "report.md").write_text(markdown(document), encoding="utf-8")
    written = folder / "report.html"
    written.write_text(page(document), encoding="utf-8")
    return written
