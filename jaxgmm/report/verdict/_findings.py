"""What a verdict holds, for those who write it down."""

from __future__ import annotations

import dataclasses

import pandas as pd

from jaxgmm.bayes import Posterior
from jaxgmm.em import Fit


@dataclasses.dataclass(frozen=True)
class Findings:
    """The fields of a `jaxgmm.Verdict`, which says what they are."""

    summary: str
    decided: bool
    checks: pd.DataFrame
    table: pd.DataFrame
    basins: pd.DataFrame
    fit: Fit
    posterior: Posterior
    point: str = ""
