"""A study in words: what may be concluded, and one screen of tables."""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd

_WIDTH = 100
# Lines of what is not as promised.
_MOST_SHOWN = 8


def conclusions(
    groups: pd.DataFrame, findings: pd.DataFrame, failures: pd.DataFrame, settings: dict[str, Any]
) -> list[str]:
    """Sentences, the most important first."""
    level = max(settings["levels"])
    said = []
    for method, rows in groups.groupby(level="method", sort=False):
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
    lost = failures.drop(columns=["used", "missed", "elsewhere"])
    for method, row in lost.iterrows():
        if row.any():
            reasons = ", ".join(f"{count} {why}" for why, count in row.items() if count)
            said.append(f"{method}: of the data sets {reasons}; they are left out")
    missed, elsewhere = failures[["missed", "elsewhere"]].iloc[0]
    if missed:
        said.append(f"On {missed} data set(s) no restart reached the optimum near the truth")
    if elsewhere:
        said.append(f"On {elsewhere} data set(s) the highest optimum is not the one near the truth")
    return [sentence.removesuffix(".") + "." for sentence in said]


def _worst(rows: pd.DataFrame) -> str:
    row, more = rows.iloc[0], len(rows) - 1
    found = f"{row['what']} of {row['quantity']} is {row['found']:.3f}"
    off = f"promised {row['promised']:g} ({row['z']:+.1f} Monte-Carlo errors)"
    return f"{found}, {off}" + (f", and {more} more" if more else "")


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


def shown_findings(findings: pd.DataFrame) -> pd.DataFrame:
    shown = findings[["method", "quantity", "what"]].copy()
    shown["found"] = findings["found"].map("{:.3f}".format)
    shown["promised"] = findings["promised"].map("{:g}".format)
    shown["z"] = findings["z"].map("{:+.1f}".format)
    return shown.set_index("method").rename_axis(None)


def screen(
    said: list[str],
    groups: pd.DataFrame,
    failures: pd.DataFrame,
    scores: pd.DataFrame,
    findings: pd.DataFrame,
) -> str:
    """One screen."""
    parts = [
        "\n".join(textwrap.fill(line, _WIDTH, subsequent_indent="  ") for line in said),
        "What became of the data sets\n" + shown_failures(failures).to_string(),
        "Scores\n" + shown_scores(scores).to_string(),
    ]
    if len(findings):
        first = shown_findings(findings).head(_MOST_SHOWN).to_string()
        more = len(findings) - _MOST_SHOWN
        tail = f"\n... {more} more in findings" if more > 0 else ""
        parts.append(f"Not as promised, beyond Monte-Carlo error\n{first}{tail}")
    return "\n\n".join(parts)
