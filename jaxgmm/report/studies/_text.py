"""A study in words: what may be concluded, and one screen of tables."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd

from jaxgmm.report.studies._scores import RATIO, Scores

_WIDTH = 100

NAMES = {
    "bic": "BIC",
    "icl": "ICL",
    "icl_entropy": "ICL (entropy)",
    "aic": "AIC",
    "elbo": "the variational bound",
    "loo": "leave-one-out",
    "evidence": "the evidence",
    "lrt": "the bootstrap test",
}
# Lines of what is not as promised.
_ON_SCREEN = 8


def conclusions(found: Scores, selection: pd.DataFrame, settings: dict[str, Any]) -> list[str]:
    """Sentences, the most important first."""
    level, findings, failures = max(settings["levels"]), found.findings, found.failures
    said = []
    for method, rows in found.groups.groupby(level="method", sort=False):
        parts = [
            f"{group} {share(row[f'coverage_{level:g}'], row[f'error_{level:g}'])}"
            for (_, group), row in rows.iterrows()
        ]
        said.append(f"{method}: {100 * level:g}% intervals cover " + ", ".join(parts))
    first = f"At n = {settings['n']}, over {settings['n_datasets']} data sets"
    said[0] = f"{first}, {said[0]}"
    said += [f"{method}: {_worst(rows)}" for method, rows in findings.groupby("method", sort=False)]
    if not len(findings):
        said.append("Nothing is off by more than Monte-Carlo error.")
    lost: dict[str, list[str]] = {}
    for method, row in failures.drop(columns=["used", "missed", "elsewhere"]).iterrows():
        reasons = ", ".join(f"{count} {why}" for why, count in row.items() if count)
        lost.setdefault(reasons, []).append(str(method))
    said += [
        f"{', '.join(methods)}: data sets left out, {reasons}"
        for reasons, methods in lost.items()
        if reasons
    ]
    missed, elsewhere = failures[["missed", "elsewhere"]].iloc[0]
    if missed:
        said.append(f"On {missed} data set(s) no restart reached the optimum near the truth")
    if elsewhere:
        said.append(f"On {elsewhere} data set(s) the highest optimum is not the one near the truth")
    right = selection[selection["truth"]]
    if len(right):
        picks = [
            f"{NAMES[name]} on {share(row['picked'], row['error'])}"
            for (name, _), row in right.iterrows()
        ]
        said.append(f"The truth's model is picked by {', '.join(picks)} of the data sets")
    return [sentence.removesuffix(".") + "." for sentence in said]


def _worst(rows: pd.DataFrame) -> str:
    # Errors of the wrong size are why intervals do not cover: they come first.
    sizes = rows[rows["what"] == RATIO]
    row, others = (sizes if len(sizes) else rows).iloc[0], len(rows) - 1
    found = f"{row['what']} of {row['quantity']} is {row['found']:.3f}"
    off = f"promised {row['promised']:g} ({row['z']:+.1f} Monte-Carlo errors)"
    return f"{found}, {off}" + (f", and {others} more" if others else "")


def share(value: float, error: float) -> str:
    return f"{100 * value:.1f} ± {100 * error:.1f}%"


def shown_groups(groups: pd.DataFrame) -> pd.DataFrame:
    """Methods in rows, groups in columns, the widest level."""
    level = max(float(name.split("_")[1]) for name in groups if name.startswith("coverage_"))
    cells = [
        share(row[f"coverage_{level:g}"], row[f"error_{level:g}"]) for _, row in groups.iterrows()
    ]
    shown = pd.Series(cells, index=groups.index).unstack("group", sort=False)
    return shown.rename_axis(index=None, columns=None)


def shown_scores(scores: pd.DataFrame) -> pd.DataFrame:
    shown = pd.DataFrame(index=scores.index.rename(None))
    shown["log density held out"] = scores["log_density"].map("{:.4f}".format)
    shown["below the truth's"] = [
        f"{short:.4f} ± {error:.4f}"
        for short, error in zip(scores["below_truth"], scores["below_truth_error"], strict=True)
    ]
    shown["adjusted Rand"] = scores["adjusted_rand"].map("{:.3f}".format)
    shown["s per data set"] = scores["seconds"].map(lambda v: "" if pd.isna(v) else f"{v:.3g}")
    return shown


def shown_failures(failures: pd.DataFrame) -> pd.DataFrame:
    """Without reasons that never applied."""
    shown = failures.loc[:, (failures != 0).any() | (failures.columns == "used")]
    return shown.rename_axis(None)


def shown_table(table: pd.DataFrame) -> pd.DataFrame:
    """That of one method."""
    shown = pd.DataFrame(index=table.index.rename(None))
    shown["truth"] = table["truth"].map("{:.4g}".format)
    shown["used"] = table["n_used"]
    for name in ("bias", "rmse"):
        shown[name] = _with_error(table[name], table[f"{name}_error"])
    shown["spread"] = table["spread"].map("{:.4g}".format)
    shown["standard error"] = table["standard_error"].map("{:.4g}".format)
    shown["ratio"] = _with_error(table["ratio"], table["ratio_error"])
    return shown


def shown_coverage(coverage: pd.DataFrame) -> pd.DataFrame:
    """Quantities in rows; methods and levels in columns."""
    cells = pd.Series(
        [share(row["coverage"], row["error"]) for _, row in coverage.iterrows()], coverage.index
    )
    shown = cells.unstack(["method", "level"], sort=False)
    shown.columns = [f"{method}, {100 * level:g}%" for method, level in shown.columns]
    return shown.rename_axis(None)


def _with_error(values: pd.Series, errors: pd.Series) -> list[str]:
    return [f"{v:.4g} ± {e:.1g}" for v, e in zip(values, errors, strict=True)]


def shown_findings(findings: pd.DataFrame, most: int) -> pd.DataFrame:
    findings = findings.head(most)
    shown = findings[["method", "quantity", "what"]].copy()
    shown["found"] = findings["found"].map("{:.3f}".format)
    shown["promised"] = findings["promised"].map("{:g}".format)
    shown["z"] = findings["z"].map("{:+.1f}".format)
    return shown.set_index("method").rename_axis(None)


def shown_selection(selection: pd.DataFrame) -> pd.DataFrame:
    """Models in rows, criteria in columns; the truth has a star."""
    cells = [share(row["picked"], row["error"]) for _, row in selection.iterrows()]
    shown = pd.Series(cells, selection.index).unstack("criterion", sort=False).rename(columns=NAMES)
    right = selection.groupby(level="model", sort=False)["truth"].first().loc[shown.index]
    return shown.set_axis(shown.index + np.where(right, " *", "")).rename_axis(columns=None)


def more(findings: pd.DataFrame, most: int) -> str:
    """What is said of rows that are not shown."""
    left = len(findings) - most
    return f"{left} more in findings" if left > 0 else ""


def screen(said: list[str], found: Scores, selection: pd.DataFrame) -> str:
    """One screen."""
    parts = [
        "\n".join(textwrap.fill(line, _WIDTH, subsequent_indent="  ") for line in said),
        "What became of the data sets\n" + shown_failures(found.failures).to_string(),
        "Scores\n" + shown_scores(found.scores).to_string(),
    ]
    if len(selection):
        title = "How often each model is picked (* the truth)"
        parts.append(f"{title}\n{shown_selection(selection).to_string()}")
    findings = found.findings
    if len(findings):
        first, tail = shown_findings(findings, _ON_SCREEN).to_string(), more(findings, _ON_SCREEN)
        parts.append(f"Not as promised, beyond Monte-Carlo error\n{first}\n{tail}".rstrip())
    return "\n\n".join(parts)
