"""What a selection holds, for those who write it down or draw it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from jaxgmm._contract import LatentModel
from jaxgmm.em import Fit


@dataclasses.dataclass(frozen=True)
class Choice:
    """The fields of a `jaxgmm.Selection`, which says what they are, and which model wins."""

    table: pd.DataFrame
    models: list[LatentModel]
    fits: list[Fit | None]
    criterion: str
    n_init: int
    seed: tuple[int, ...] | None = None

    @property
    def ranking(self) -> np.ndarray:
        """Positions of the rows that can win, the best first."""
        able = np.flatnonzero((self.table["reason"] == "").to_numpy())
        values = self.table[self.criterion].to_numpy(float)[able]
        return able[np.argsort(values, kind="stable")]

    @property
    def best(self) -> Fit:
        """The fit with the lowest criterion among the rows without a reason."""
        ranking = self.ranking
        if not len(ranking):
            raise ValueError("select: no model could be fitted; see the table's reasons")
        fit = self.fits[int(ranking[0])]
        assert fit is not None
        return fit

    @property
    def kinds(self) -> list[str]:
        """The structure of each row, and its prior where the rows have several."""
        priors = [getattr(model, "prior_name", "") for model in self.models]
        structures = self.table["structure"].tolist()
        if len(set(priors)) == 1:
            return structures
        return [f"{s}, prior {p}" for s, p in zip(structures, priors, strict=True)]
