"""A line of the verdict: a value, what it is held against, and what follows."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

OK, WARNING, FAIL, NOT_APPLICABLE = "ok", "warning", "fail", "not applicable"

# What the lines of a tier are for.
TIERS = {
    "A": "Decides: is it a mode, can the draws be believed, where is the mass",
    "B": "Explains: how far the mode and its curvature describe the posterior",
    "C": "Context: what predictions from the point lose, whether model and prior suit the data",
}


class Check(NamedTuple):
    """One line."""

    check: str
    value: object
    threshold: str
    verdict: str
    meaning: str


def not_applicable(check: str, why: str) -> Check:
    return Check(check, None, "", NOT_APPLICABLE, why)


def check_table(tiers: dict[str, list[Check]]) -> pd.DataFrame:
    """All lines by name, with their tier."""
    rows = [{"tier": tier, **line._asdict()} for tier, lines in tiers.items() for line in lines]
    return pd.DataFrame(rows).astype({"value": object}).set_index("check")
