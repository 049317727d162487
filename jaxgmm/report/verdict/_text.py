"""The verdict as plain text for terminals."""

from __future__ import annotations

import textwrap
from collections.abc import Hashable

import pandas as pd

from jaxgmm.report.plots._basins import optimum_names
from jaxgmm.report.verdict._check import NOT_APPLICABLE, OK, TIERS
from jaxgmm.report.verdict._findings import Findings

_WIDTH = 100
# Optima that a screen shows.
_ROWS = 8


def cell(value: object) -> str:
    """A number to four figures, a truth as yes or no, a gap as nothing."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shown_table(table: pd.DataFrame) -> pd.DataFrame:
    """The parameter table with readable headings and cells; ambiguous labels have a star."""
    stars = table["ambiguous"].map({True: " *", False: ""})
    shown = pd.DataFrame(index=table.index + stars)
    table = table.set_axis(shown.index)
    shown["MAP"] = table["map"].map(lambda v: f"{v:.5g}")
    shown["mean"] = table["mean"].map(lambda v: f"{v:.5g}")
    shown["sd"] = table["sd"].map(lambda v: f"{v:.3g}")
    for level in (89, 95):
        ends = zip(table[f"eti{level}_low"], table[f"eti{level}_high"], strict=True)
        shown[f"{level}% interval"] = [
            "" if pd.isna(low) else f"{low:.4g} .. {high:.4g}" for low, high in ends
        ]
    shown["z"] = table["z"].map(lambda v: "" if pd.isna(v) else f"{v:+.2f}")
    shown["inside 95%"] = table["inside_95"].map(cell)
    shown["EM's error"] = table["standard_error"].map(lambda v: "" if pd.isna(v) else f"{v:.3g}")
    shown["R-hat"] = table["r_hat"].map(lambda v: "" if pd.isna(v) else f"{v:.3f}")
    for kind in ("bulk", "tail"):
        shown[f"ESS {kind}"] = table[f"ess_{kind}"].map(lambda v: "" if pd.isna(v) else f"{v:.0f}")
    shown.index.name = None
    return shown


def shown_checks(checks: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The lines of each tier, under what the tier is for."""
    shown = checks[["verdict", "value", "threshold", "meaning"]].map(cell)
    shown.index.name = None
    return {f"{t}. {words}": shown[checks["tier"] == t] for t, words in TIERS.items()}


def shown_basins(basins: pd.DataFrame) -> pd.DataFrame:
    ends = zip(basins["share_low"], basins["share_high"], strict=True)
    shown = pd.DataFrame(
        {
            "optimum": optimum_names(basins),
            "share of posterior": basins["share"].map("{:.1%}".format),
            "95% interval": [f"{low:.1%} .. {high:.1%}" for low, high in ends],
            "log joint": basins["log_joint"].map(lambda v: "" if pd.isna(v) else f"{v:.4f}"),
            "weights": basins["weights"].map(lambda w: " ".join(f"{v:.2f}" for v in w)),
            "by Laplace": basins["laplace_share"].map(lambda v: "" if pd.isna(v) else f"{v:.1%}"),
            "restarts": basins["found_by_restarts"],
            "draws": basins["visited"],
        }
    )
    if not shown["weights"].any():
        shown = shown.drop(columns="weights")
    return shown.set_index("optimum").rename_axis(None)


def labels_note(table: pd.DataFrame) -> str:
    """What the stars mean, where there are any."""
    return "; * depends on the rule that matched labels" if table["ambiguous"].any() else ""


def verdict_text(verdict: Findings) -> str:
    """One screen: the conclusion, what is not as it should be, the basins."""
    checks = verdict.checks[verdict.checks["verdict"] != NOT_APPLICABLE]
    amiss = checks[checks["verdict"] != OK]
    heading = (
        f"Of {len(checks)} checks {len(amiss)} are not ok" if len(amiss) else "All checks are ok"
    )
    parts = [
        textwrap.fill(verdict.summary, _WIDTH),
        "\n".join([heading, *(_in_words(name, line) for name, line in amiss.iterrows())]),
        "Where EM leads from draws of the posterior\n" + _few(shown_basins(verdict.basins)),
        "The rest: verdict.details(), and with figures verdict.save(folder)",
    ]
    return "\n\n".join(parts)


def details_text(verdict: Findings) -> str:
    """Every check, the basins and the table of parameters."""
    parts = [
        textwrap.fill(verdict.summary, _WIDTH),
        *(f"{words}\n{_left_aligned(t)}" for words, t in shown_checks(verdict.checks).items()),
        "Where EM leads from draws of the posterior\n" + shown_basins(verdict.basins).to_string(),
        f"MAP against posterior, label-invariant quantities first{labels_note(verdict.table)}\n"
        + shown_table(verdict.table).to_string(),
    ]
    return "\n\n".join(parts)


def _in_words(name: Hashable, line: pd.Series) -> str:
    """A check as a sentence."""
    against = f" (needs {line['threshold']})" if line["threshold"] else ""
    sentence = f"{line['verdict']}: {name} {cell(line['value'])}{against}: {line['meaning']}"
    return textwrap.fill(sentence, _WIDTH, initial_indent="  ", subsequent_indent="    ")


def _few(table: pd.DataFrame) -> str:
    """The first rows; the heaviest optima stand there."""
    more = len(table) - _ROWS
    return table.head(_ROWS).to_string() + (f"\n... {more} more optima" if more > 0 else "")


def _left_aligned(table: pd.DataFrame) -> str:
    """pandas sets words flush right; a sentence reads from the left."""
    padded = table.apply(lambda column: column.str.ljust(column.str.len().max()))
    return padded.to_string(justify="left")
