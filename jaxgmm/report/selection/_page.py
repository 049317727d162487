"""A selection as text, as HTML for notebooks, and as files."""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd

from jaxgmm._contract import number_text
from jaxgmm.files import Content
from jaxgmm.model import coordinates
from jaxgmm.report._code import key_code, quoted
from jaxgmm.report._settings import data_record, fit_settings
from jaxgmm.report.page._document import (
    Block,
    Code,
    Document,
    Formulas,
    Illustration,
    Pairs,
    Section,
    Table,
    Words,
    versions,
)
from jaxgmm.report.page._html import fragment, image
from jaxgmm.report.page._json import rows
from jaxgmm.report.page._written import written
from jaxgmm.report.plots._figure import png
from jaxgmm.report.plots._selection import plot_criterion
from jaxgmm.report.selection._choice import Choice
from jaxgmm.report.selection._criteria import CRITERIA, LABELS

_MOST_SHOWN = 20
_MOST_ESTIMATES = 60

_TABLE_NOTE = (
    "The best first; delta is the distance to it. Criteria are on the scale of BIC, twice a log "
    "density with its sign turned, so lower is better (mclust_bic alone is not). Rows without "
    "a delta cannot win."
)


_KEYS_NOTE = (
    "What goes to the engines behind the criteria, and weights of the rows, are not recorded here."
)


def conclusion(choice: Choice) -> str:
    """Which model wins, by how much, over how many."""
    ranking, values = choice.ranking, choice.table[choice.criterion].to_numpy(float)
    count, out = len(choice.table), len(choice.table) - len(ranking)
    if not len(ranking):
        return f"None of {count} model(s) could be fitted: see the reasons."
    best, name = ranking[0], LABELS[choice.criterion]
    said = f"{choice.table.index[best]} has the lowest {name} of {len(ranking)} model(s): "
    said += f"{values[best]:.2f}"
    if len(ranking) > 1:
        second = ranking[1]
        said += f", {values[second] - values[best]:.2f} below {_labels(choice)[second]}"
    said += "."
    counts = choice.table["n_components"]
    if counts.iloc[best] == counts.max() > counts.min():
        said += " No model with more components was tried."
    return said + (f" {out} model(s) cannot win." if out else "")


def _labels(choice: Choice) -> list[str]:
    """Short names of the rows."""
    counts = choice.table["n_components"]
    return [f"{kind}, K = {k}" for kind, k in zip(choice.kinds, counts, strict=True)]


def shown_selection(choice: Choice, most: int | None = None) -> pd.DataFrame:
    """The table with the best row first and readable cells."""
    ranking = choice.ranking
    beaten = set(ranking.tolist())
    order = [*ranking, *(i for i in range(len(choice.table)) if i not in beaten)]
    table, labels = choice.table.iloc[order[:most]].reset_index(), _labels(choice)
    shown = pd.DataFrame(index=[labels[i] for i in order[:most]])
    for name in table.columns:
        if name in ("model", "structure", "n_components", "reason", "note"):
            continue
        column = table[name].to_numpy()
        if name == "n_parameters" or name == "loo_bad_k":
            shown[name] = ["" if pd.isna(v) else f"{v:.0f}" for v in column]
        elif table[name].dtype.kind in "fi":
            digits = 4 if name == "lrt_p" else 2
            shown[name] = ["" if pd.isna(v) else f"{v:.{digits}f}" for v in column]
        else:
            shown[name] = column
        if name == choice.criterion:
            least = choice.table[name].iloc[order[0]]
            gaps = column.astype(float) - least
            able = [i in beaten for i in order[:most]]
            shown["delta"] = [f"{g:.2f}" if a else "" for g, a in zip(gaps, able, strict=True)]
    return shown


def remarks(choice: Choice) -> pd.DataFrame:
    """Why rows cannot win, and what else is said of them."""
    table = choice.table[["reason", "note"]].set_axis(_labels(choice))
    table = table[(table != "").any(axis=1)].rename(columns={"reason": "cannot win"})
    return table.loc[:, (table != "").any()]


def selection_text(choice: Choice) -> str:
    words = textwrap.fill(conclusion(choice), 100)
    parts = [f"{words}\n\n{shown_selection(choice, _MOST_SHOWN).to_string()}{_rest(choice)}"]
    said = remarks(choice).apply(lambda row: "; ".join(filter(None, row)), axis=1)
    if len(said):
        lines = [f"{model}: {text}" for model, text in said.iloc[:_MOST_SHOWN].items()]
        parts.append("\n".join(textwrap.fill(line, 100, subsequent_indent="  ") for line in lines))
    return "\n\n".join(parts)


def selection_html(choice: Choice) -> str:
    """The selection for notebooks: the conclusion, the first rows and the picture."""
    blocks = [
        _summary(choice),
        Table(shown_selection(choice, _MOST_SHOWN)),
        Words(_rest(choice).strip()),
        *_remarks(choice),
    ]
    return fragment(blocks, image(png(plot_criterion(choice), dpi=100), _title(choice)))


def save(choice: Choice, folder: Path) -> Path:
    """See `Selection.save`."""
    table: dict[str, Content] = {"select.csv": choice.table.to_csv()}
    return written(folder, "select", _report(choice), selection_record(choice), table)


def _report(choice: Choice) -> Document:
    """The document with its figure."""
    figure = Illustration(
        "criteria",
        _title(choice),
        "One line a structure. Models that cannot win are not drawn; the best is ringed; "
        "where hopeless models would flatten the others, the axis ends below them.",
        png(plot_criterion(choice)),
    )
    sections = [
        Section("conclusion", "Conclusion", [_summary(choice)]),
        Section("figure", "Criterion", [figure]),
        Section("models", "Models", [Words(_TABLE_NOTE), Table(shown_selection(choice))]),
        Section("remarks", "Remarks", _remarks(choice) or [Words("None.")]),
        *_best(choice),
        Section("settings", "Settings", [Pairs(_settings(choice))]),
        Section("versions", "Versions", [Pairs(versions())]),
        Section("reproduce", "How to reproduce", [Code(_code(choice)), Words(_KEYS_NOTE)]),
    ]
    title = f"Choosing among {len(choice.table)} models"
    return Document(title, _subject(choice), sections)


def _title(choice: Choice) -> str:
    return f"{LABELS[choice.criterion]} by number of components"


def _summary(choice: Choice) -> Words:
    return Words(conclusion(choice), "decided" if len(choice.ranking) else "undecided")


def _subject(choice: Choice) -> list[str]:
    fit = next((fit for fit in choice.fits if fit is not None), None)
    if fit is None:
        return [f"by {choice.criterion}"]
    names = ", ".join(map(str, fit.feature_names))
    return [f"by {choice.criterion}", f"{fit.n_rows} rows: {names}"]


def _remarks(choice: Choice) -> list[Block]:
    said = remarks(choice)
    return [Table(said, "words")] if len(said) else []


def _best(choice: Choice) -> list[Section]:
    """The model that wins, in mathematical notation and in numbers."""
    if not len(choice.ranking):
        return []
    fit = choice.best
    model = fit.model.describe()
    blocks: list[Block] = [Formulas(model.formulas)]
    if model.hyper:
        numbers = [(symbol, number_text(value)) for _, symbol, value in model.hyper]
        blocks.append(Pairs(numbers, symbols=True))
    values = fit.model.sites(fit.params)
    found = coordinates(fit.model, values, fit.feature_names)
    estimates = {label: f"{float(values[site][index]):.6g}" for site, index, label in found}
    shown = dict(list(estimates.items())[:_MOST_ESTIMATES])
    blocks.append(Table(pd.DataFrame({"estimate": shown})))
    if len(estimates) > len(shown):
        blocks.append(Words(f"{len(estimates) - len(shown)} more numbers are not shown."))
    return [Section("best", "The best model", blocks)]


def _settings(choice: Choice) -> list[tuple[str, str]]:
    settings = [
        ("models", str(len(choice.table))),
        ("criterion", choice.criterion),
        ("restarts of each", str(choice.n_init)),
        ("seed", "not recorded" if choice.seed is None else " ".join(map(str, choice.seed))),
    ]
    if len(choice.ranking):
        best = choice.best
        settings += [
            ("tol", f"{best.tol:g}"),
            ("max_iter", str(best.max_iter)),
            ("data fingerprint", best.fingerprint),
        ]
    return settings


def _code(choice: Choice) -> str:
    """Python that makes the choice again, the data left to the reader."""
    # The order decides the keys.
    runs = itertools.groupby(choice.models, key=lambda model: model.describe().code("k"))
    models = "".join(_run(kind, [model.n_components for model in run]) for kind, run in runs)
    criteria = [name for name in choice.table.columns if name in CRITERIA]
    return (
        "import jax\nimport jaxgmm as jg\n\n"
        'jax.config.update("jax_enable_x64", True)  # for data in double precision\n'
        f"x = ...  # the data\nmodels = [\n{models}]\n"
        f"choice = jg.select(\n    models, x, key={key_code(choice.seed)}, "
        f"n_init={choice.n_init},\n"
        f"    criterion={quoted(choice.criterion)}, criteria={criteria},\n)\n"
        'choice.save("choice")\n'
    )


def _run(kind: str, counts: list[int]) -> str:
    """A line of code for models that differ in their number ``k`` of components alone."""
    unknown, _, note = kind.partition("...  ")
    if not unknown:
        return f"    ...,  {note}\n" * len(counts)
    return f"    *({kind} for k in {counts}),\n"


def _rest(choice: Choice) -> str:
    more = len(choice.table) - _MOST_SHOWN
    return f"\n{more} more row(s) in the table" if more > 0 else ""


def selection_record(choice: Choice) -> dict[str, Any]:
    """All that the page of a selection says."""
    models, ranking = rows(choice.table), choice.ranking.tolist()
    fits = [None if fit is None else fit_settings(fit) for fit in choice.fits]
    any_fit = next((fit for fit in choice.fits if fit is not None), None)
    return {
        "kind": "selection",
        "criterion": choice.criterion,
        "best": models[ranking[0]]["model"] if ranking else None,
        "ranking": ranking,
        "n_init": choice.n_init,
        "conclusion": conclusion(choice),
        "models": models,
        "fits": fits,
        "data": None if any_fit is None else data_record(any_fit),
        "versions": dict(versions()),
    }
