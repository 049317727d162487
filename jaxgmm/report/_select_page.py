"""A selection as text, as HTML for notebooks, and as files."""

from __future__ import annotations

import json
import math
import textwrap
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from jaxgmm.report._criteria import LABELS
from jaxgmm.report._html import Illustration, _figure, _note, _pairs, _style, _table, _versions

if TYPE_CHECKING:
    from jaxgmm.report._select import Selection

_MOST_SHOWN = 20

_TABLE_NOTE = (
    "The best first; delta is the distance to it. Criteria are on the scale of BIC, twice a log "
    "density with its sign turned, so lower is better (mclust_bic alone is not). Rows without "
    "a delta cannot win."
)


def conclusion(choice: Selection) -> str:
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


def _labels(choice: Selection) -> list[str]:
    """Short names of the rows."""
    counts = choice.table["n_components"]
    return [f"{kind}, K = {k}" for kind, k in zip(choice.kinds, counts, strict=True)]


def shown_selection(choice: Selection, most: int | None = None) -> pd.DataFrame:
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


def remarks(choice: Selection) -> pd.DataFrame:
    """Why rows cannot win, and what else is said of them."""
    table = choice.table[["reason", "note"]].set_axis(_labels(choice))
    table = table[(table != "").any(axis=1)].rename(columns={"reason": "cannot win"})
    return table.loc[:, (table != "").any()]


def selection_text(choice: Selection) -> str:
    words = textwrap.fill(conclusion(choice), 100)
    parts = [f"{words}\n\n{shown_selection(choice, _MOST_SHOWN).to_string()}{_rest(choice)}"]
    said = remarks(choice).apply(lambda row: "; ".join(filter(None, row)), axis=1)
    if len(said):
        lines = [f"{model}: {text}" for model, text in said.iloc[:_MOST_SHOWN].items()]
        parts.append("\n".join(textwrap.fill(line, 100, subsequent_indent="  ") for line in lines))
    return "\n\n".join(parts)


def selection_html(choice: Selection) -> str:
    """The selection for notebooks: the conclusion, the first rows and the picture."""
    from jaxgmm.report._figure import png
    from jaxgmm.report._html import _image

    picture = _image(
        png(choice.plot(), dpi=100), f"{LABELS[choice.criterion]} by number of components"
    )
    return (
        f'<div class="jaxgmm-verdict">\n<style>{_style("notebook.css")}</style>\n'
        f"{_summary(choice)}\n{_table(shown_selection(choice, _MOST_SHOWN))}\n"
        f"<p>{escape(_rest(choice).strip())}</p>\n{_remarks(choice)}\n{picture}\n</div>"
    )


def save(choice: Selection, folder: Path) -> Path:
    """See `Selection.save`."""
    from jaxgmm.report._figure import png

    folder.mkdir(parents=True, exist_ok=True)
    picture = png(choice.plot())
    (folder / "criteria.png").write_bytes(picture)
    choice.table.to_csv(folder / "select.csv")
    (folder / "select.json").write_text(json.dumps(record(choice), indent=2) + "\n")
    page = folder / "select.html"
    page.write_text(_page(choice, picture), encoding="utf-8")
    return page


def record(choice: Selection) -> dict[str, Any]:
    """The selection as JSON can hold it: a number that is none is null."""
    rows = choice.table.reset_index().to_dict(orient="records")
    plain = lambda v: None if isinstance(v, float) and not math.isfinite(v) else v
    ranking = choice.ranking.tolist()
    return {
        "criterion": choice.criterion,
        "best": rows[ranking[0]]["model"] if ranking else None,
        "ranking": ranking,
        "n_init": choice.n_init,
        "conclusion": conclusion(choice),
        "models": [{name: plain(v) for name, v in row.items()} for row in rows],
    }


def _page(choice: Selection, picture: bytes) -> str:
    figure = Illustration(
        "criteria",
        f"{LABELS[choice.criterion]} by number of components",
        "One line a structure. Models that cannot win are not drawn; the best is ringed; where "
        "hopeless models would flatten the others, the axis ends below them.",
        picture,
    )
    settings = [
        ("models", str(len(choice.table))),
        ("criterion", choice.criterion),
        ("restarts of each", str(choice.n_init)),
    ]
    if len(choice.ranking):
        best = choice.best
        settings += [
            ("rows", str(best.n_rows)),
            ("features", ", ".join(best.feature_names)),
            ("data fingerprint", best.fingerprint),
        ]
    sections = [
        ("conclusion", "Conclusion", _summary(choice)),
        ("figure", "Criterion", _figure(figure)),
        ("models", "Models", _note(_TABLE_NOTE) + _table(shown_selection(choice))),
        ("remarks", "Remarks", _remarks(choice) or _note("None.")),
        ("settings", "Settings", _pairs(settings)),
        ("versions", "Versions", _pairs(_versions())),
    ]
    body = "\n".join(
        f'<section id="{key}">\n<h2>{name}</h2>\n{content}\n</section>'
        for key, name, content in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Choosing among {len(choice.table)} models</title>\n"
        f"<style>{_style('page.css')}</style>\n</head>\n<body>\n"
        f"<main>\n<h1>Choosing among {len(choice.table)} models</h1>\n{body}\n</main>\n"
        "</body>\n</html>\n"
    )


def _summary(choice: Selection) -> str:
    state = "decided" if len(choice.ranking) else "undecided"
    return f'<p class="summary {state}">{escape(conclusion(choice))}</p>'


def _remarks(choice: Selection) -> str:
    said = remarks(choice)
    return _table(said, "words") if len(said) else ""


def _rest(choice: Selection) -> str:
    more = len(choice.table) - _MOST_SHOWN
    return f"\n{more} more row(s) in the table" if more > 0 else ""
