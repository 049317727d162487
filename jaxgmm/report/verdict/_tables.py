"""The table of the verdict: parameters against their posterior, invariants first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from jaxgmm import model
from jaxgmm.bayes import Posterior, health, invariants, moments, quantiles, spread_k
from jaxgmm.em import Fit
from jaxgmm.report.verdict._approximations import Approximations

_HEIGHTS = ("log_joint", "log_likelihood")


# First axes of the sites that belong to single components.
_LABELLED = ("component", "label", "stick", "gate")


def parameter_table(
    fit: Fit, post: Posterior, near: Approximations, ambiguous: bool
) -> pd.DataFrame:
    """A row per quantity, those that no renaming of labels changes first.

    ``ambiguous`` says whether the labels of the draws are.
    """
    dims = fit.model.site_dims()
    point = {name: np.asarray(value) for name, value in fit.model.sites(fit.params).items()}
    derived = fit.model.derived_sites(fit.params)
    at_map = invariants(
        np.asarray(fit.log_joint),
        np.asarray(fit.log_likelihood),
        {name: np.asarray(value) for name, value in (derived | point).items()},
    )
    rows = [_row(name, float(at_map[name]), v, post) for name, v in post.invariants().items()]
    for site, index, label in model.coordinates(fit.model, point, post.feature_names):
        draws = post.draws[site][(..., *index)]
        row = _row(label, float(point[site][index]), draws, post)
        row["ambiguous"] = ambiguous and (dims.get(site) or [""])[0] in _LABELLED
        rows.append(row | near.of(site, index, draws, row["sd"], post))
    return pd.DataFrame(rows).set_index("quantity")


def _row(name: str, at_map: float, draws: np.ndarray, post: Posterior) -> dict[str, Any]:
    low95, low89, high89, high95 = quantiles(draws, [0.025, 0.055, 0.945, 0.975], post.log_weights)
    mean, sd = moments(draws, post.log_weights)
    # EM stands at the top of the density: its height is not one that draws reach.
    comparable = name not in _HEIGHTS and sd > 0
    # Weighted draws are no chains: their effective number is that of the weights.
    effective = {"ess_bulk": post.effective_draws, "ess_tail": post.effective_draws}
    judged = health(draws) if post.log_weights is None else {"r_hat": np.nan, **effective}
    return {
        "quantity": name,
        "map": at_map,
        "mean": mean,
        "sd": sd,
        "eti89_low": low89,
        "eti89_high": high89,
        "eti95_low": low95,
        "eti95_high": high95,
        "z": (at_map - mean) / sd if comparable else np.nan,
        "inside_89": bool(low89 <= at_map <= high89) if comparable else None,
        "inside_95": bool(low95 <= at_map <= high95) if comparable else None,
        "ambiguous": False,
        **judged,
        "pareto_k": spread_k(draws, post.log_weights),
    }


# Columns that are places of a quantity.
_PLACES = ["map", "mean", "eti89_low", "eti89_high", "eti95_low", "eti95_high"]


def moved_table(
    table: pd.DataFrame, here: Fit, there: Fit, feature_names: tuple[str, ...]
) -> pd.DataFrame:
    """The table of a fit ``here``, of which ``there`` is the same for rows moved elsewhere."""
    table = table.copy()
    before, after = (fit.model.sites(fit.params) for fit in (here, there))
    for site, index, label in model.coordinates(here.model, before, feature_names):
        offset = float(after[site][index]) - float(before[site][index])
        table.loc[label, _PLACES] += offset
    return table
