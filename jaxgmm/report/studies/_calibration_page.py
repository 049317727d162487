"""A calibration as text, as a page, and for notebooks."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd

from jaxgmm.report.page._document import (
    Block,
    Document,
    Illustration,
    Pairs,
    Section,
    Table,
    Words,
    versions,
)
from jaxgmm.report.page._html import fragment, image
from jaxgmm.report.page._json import rows
from jaxgmm.report.studies._plot_ranks import plot_ranks
from jaxgmm.report.studies._reported import Report

_TITLE = "Ranks of prior draws among posterior draws"
_NOTE = (
    "Parameters are drawn from the prior, rows from them, and draws of the posterior given the "
    "rows: the rank of the former among the latter is uniform where the sampler is right (Talts "
    "and others, 2018). p-values are those of each quantity alone; a quantity is called uniform "
    "inside bands that hold all of them at once."
)
_ENDS_NOTE = (
    "Each data set is counted once. Draws that did not converge are ranked all the same: they are "
    "what a user would see."
)
_CAPTION = (
    "Distribution functions of the ranks less that of uniform ones. Below and then above the line: "
    "draws too wide; the other way round: too narrow; to one side only: shifted."
)


def report(
    said: list[str],
    table: pd.DataFrame,
    ranks: np.ndarray,
    ends: pd.DataFrame,
    settings: dict[str, Any],
) -> Report:
    """What `Calibration.save` writes."""
    figure = Illustration("ranks", _TITLE, _CAPTION, _picture(table, ranks, settings, 150))
    became = ends[ends["data_sets"] > 0].rename(columns={"data_sets": "data sets"})
    became = became.rename_axis(None)
    sections = [
        Section("conclusion", "Conclusion", _conclusion(said, table)),
        Section("figure", "Ranks", [figure]),
        Section("quantities", "Quantities", [Words(_NOTE), Table(shown(table))]),
        Section("ends", "What became of the data sets", [Words(_ENDS_NOTE), Table(became)]),
        Section("settings", "Settings", [Pairs([(n, str(v)) for n, v in settings.items()])]),
        Section("versions", "Versions", [Pairs(versions())]),
    ]
    subject = [settings["model"], f"by {settings['method']}"]
    document = Document("Is the posterior right?", subject, sections)
    record = {
        "kind": "calibration",
        "conclusions": said,
        "table": rows(table),
        "ranks": ranks,
        "ends": rows(ends),
        "settings": settings,
        "versions": dict(versions()),
    }
    return Report("calibration", document, record, {"calibration.csv": table.to_csv()})


def notebook(
    said: list[str], table: pd.DataFrame, ranks: np.ndarray, settings: dict[str, Any]
) -> str:
    picture = image(_picture(table, ranks, settings, 100), _TITLE)
    return fragment([*_conclusion(said, table), Table(shown(table))], picture)


def screen(said: list[str], table: pd.DataFrame) -> str:
    words = [textwrap.fill(line, 100, subsequent_indent="  ") for line in said]
    return "\n".join([*words, "", shown(table).to_string()])


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table with readable cells."""
    found = pd.DataFrame({"ranked": table["n_ranked"]}, index=table.index.rename(None))
    found["p-value"] = table["p_value"].map("{:.4f}".format)
    found["chi-squared p"] = table["chi2_p_value"].map("{:.2g}".format)
    found["mean rank"] = table["mean_rank"].map("{:.3f}".format)
    found["spread"] = table["spread"].map("{:.3f}".format)
    found["ranks"] = table["meaning"].where(~table["uniform"], "uniform")
    return found


def _conclusion(said: list[str], table: pd.DataFrame) -> list[Block]:
    first, *rest = said
    return [Words(first, "decided" if table["uniform"].all() else "undecided"), *map(Words, rest)]


def _picture(table: pd.DataFrame, ranks: np.ndarray, settings: dict[str, Any], dpi: int) -> bytes:
    from jaxgmm.report.plots._figure import png

    return png(plot_ranks(table, ranks, settings, None), dpi)
