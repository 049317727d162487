"""A study as a page, and for notebooks."""

from __future__ import annotations

from typing import Any

import pandas as pd

from jaxgmm.report.page._document import (
    Block,
    Code,
    Document,
    Illustration,
    Pairs,
    Section,
    Table,
    Words,
    versions,
)
from jaxgmm.report.page._html import fragment
from jaxgmm.report.page._json import rows
from jaxgmm.report.studies._plots import plot_coverage, plot_errors, plot_failures
from jaxgmm.report.studies._reported import Report
from jaxgmm.report.studies._scores import Scores
from jaxgmm.report.studies._text import (
    more,
    shown_coverage,
    shown_failures,
    shown_findings,
    shown_groups,
    shown_scores,
    shown_selection,
    shown_table,
)

_MOST_FINDINGS = 25

_GROUPS_NOTE = (
    "Coverage of the widest intervals, on average over the quantities of each kind. Everywhere "
    "± is the Monte-Carlo standard error, from the spread over data sets."
)
_FAILURES_NOTE = (
    "Each data set is counted once, by the first reason that applies; those that are not used are "
    "left out of the tables, but for ambiguous labels, which leave what no renaming changes. "
    "Missed: no restart came as high as the optimum near the truth. Elsewhere: another optimum is "
    "higher than that one."
)
_TABLE_NOTE = (
    "Spread is the standard deviation of the estimates over data sets, standard error the root of "
    "the mean square of those that the method claims. What no renaming of labels changes is first."
)
_SCORES_NOTE = (
    "Log density of rows that no method saw, a row on average: at EM's point and the bootstraps', "
    "of the posterior's mean density for the others. Seconds are those of a median batch, so that "
    "compilation is not among them where there are several."
)
_FINDINGS_NOTE = (
    "Beyond Monte-Carlo error by Bonferroni's bound over all comparisons: a study in which every "
    "method keeps its promises has a row here once in a hundred."
)
_SELECTION_NOTE = (
    "On which share of the data sets each criterion is lowest for each model; a star marks the "
    "truth, but for its prior."
)


def report(
    found: Scores, selection: pd.DataFrame, said: list[str], settings: dict[str, Any]
) -> Report:
    """What `Study.save` writes."""
    frames = {**found._asdict(), "selection": selection}
    return Report(
        "study",
        _document(found, selection, said, settings),
        _record(frames, said, settings),
        {f"{name}.csv": frame.to_csv() for name, frame in frames.items()},
    )


def notebook(found: Scores, selection: pd.DataFrame, said: list[str]) -> str:
    """What a notebook shows."""
    return fragment(
        [
            *_conclusion(found, said),
            Table(shown_groups(found.groups)),
            Table(shown_failures(found.failures)),
            Table(shown_scores(found.scores)),
            *_selection(selection),
            *_findings(found),
        ]
    )


def _document(
    found: Scores, selection: pd.DataFrame, said: list[str], settings: dict[str, Any]
) -> Document:
    sections = [
        Section("conclusion", "Conclusion", _conclusion(found, said)),
        Section(
            "groups", "Coverage by kind", [Words(_GROUPS_NOTE), Table(shown_groups(found.groups))]
        ),
        Section("findings", "Not as promised", _findings(found) or [Words("Nothing.")]),
        *(
            [Section("selection", "Choice of models", _selection(selection))]
            if len(selection)
            else []
        ),
        Section("figures", "Figures", _figures(found)),
        Section("failures", "What became of the data sets", _failures(found)),
        Section("scores", "Scores", [Words(_SCORES_NOTE), Table(shown_scores(found.scores))]),
        Section("estimates", "Estimates and their errors", _table(found)),
        Section("coverage", "Coverage", [Table(shown_coverage(found.coverage))]),
        Section("settings", "Settings", [Pairs(_pairs(settings))]),
        Section("versions", "Versions", [Pairs(versions())]),
        Section("reproduce", "How to reproduce", [Code(settings["code"])]),
    ]
    subject = [settings["truth"], f"{settings['n_datasets']} data sets of {settings['n']} rows"]
    if settings["model"] != settings["truth"]:
        subject.append(f"fitted: {settings['model']}")
    return Document("What methods say of a known truth", subject, sections)


def _conclusion(found: Scores, said: list[str]) -> list[Block]:
    first, *rest = said
    state = "undecided" if len(found.findings) else "decided"
    return [Words(first, state), *map(Words, rest)]


def _findings(found: Scores) -> list[Block]:
    if not len(found.findings):
        return []
    left = more(found.findings, _MOST_FINDINGS)
    table = Table(shown_findings(found.findings, _MOST_FINDINGS))
    return [Words(_FINDINGS_NOTE), table, *([Words(left)] if left else [])]


def _selection(selection: pd.DataFrame) -> list[Block]:
    if not len(selection):
        return []
    return [Words(_SELECTION_NOTE), Table(shown_selection(selection))]


def _failures(found: Scores) -> list[Block]:
    return [Words(_FAILURES_NOTE), Table(shown_failures(found.failures))]


def _table(found: Scores) -> list[Block]:
    tables = found.table.groupby(level="method", sort=False)
    blocks: list[Block] = [Words(_TABLE_NOTE)]
    for method, frame in tables:
        blocks += [Words(str(method), "tier"), Table(shown_table(frame.droplevel("method")))]
    return blocks


def _figures(found: Scores) -> list[Block]:
    from jaxgmm.report.plots._figure import png

    return [
        Illustration(
            "coverage",
            "Coverage of intervals",
            "Bars are 95% Monte-Carlo intervals; the band is what right intervals stay in, each "
            "for itself, with probability 95%.",
            png(plot_coverage(found.coverage)),
        ),
        Illustration(
            "errors",
            "Calibration of standard errors",
            "Standard errors as shares of the spread of the estimates: below one a method is too "
            "sure of itself. Bars are 95% Monte-Carlo intervals.",
            png(plot_errors(found.table)),
        ),
        Illustration(
            "failures",
            "What became of the data sets",
            "Data sets by the first reason not to use them.",
            png(plot_failures(found.failures)),
        ),
    ]


def _pairs(settings: dict[str, Any]) -> list[tuple[str, str]]:
    text = lambda value: ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return [
        (name, text(value)) for name, value in settings.items() if name != "code" and value != ()
    ]


def _record(
    frames: dict[str, pd.DataFrame], said: list[str], settings: dict[str, Any]
) -> dict[str, Any]:
    tables = {name: rows(frame) for name, frame in frames.items()}
    head = {"kind": "study", "conclusions": said, "settings": settings}
    return {**head, **tables, "versions": dict(versions())}
