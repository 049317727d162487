"""Tables of the verdict: parameters against their posterior, invariants, basins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxgmm import _coordinates, em
from jaxgmm._posterior import Posterior, invariants
from jaxgmm._results import SAME_OPTIMUM, Fit, Status
from jaxgmm._summary import health

# Draws that are pushed uphill: their shares are then good to a few per cent.
_BASIN_DRAWS = 200

_HEIGHTS = ("log_joint", "log_likelihood")


def parameter_table(fit: Fit, post: Posterior) -> pd.DataFrame:
    """A row per quantity, those that no renaming of labels changes first."""
    point = {name: np.asarray(value) for name, value in fit.model.sites(fit.params).items()}
    at_map = invariants(np.asarray(fit.log_joint), np.asarray(fit.log_likelihood), point)
    rows = [_row(name, float(at_map[name]), draws) for name, draws in post.invariants().items()]
    for site, index, label in coordinates(fit, post):
        rows.append(_row(label, point[site][index], post.draws[site][(..., *index)]))
    return pd.DataFrame(rows).set_index("quantity")


def _row(name: str, at_map: float, draws: np.ndarray) -> dict[str, Any]:
    low95, low89, high89, high95 = np.quantile(draws, [0.025, 0.055, 0.945, 0.975])
    mean, sd = float(np.mean(draws)), float(np.std(draws, ddof=1))
    # EM stands at the top of the density: its height is not one that draws reach.
    comparable = name not in _HEIGHTS and sd > 0
    return {
        "quantity": name,
        "map": float(at_map),
        "mean": mean,
        "sd": sd,
        "eti89_low": low89,
        "eti89_high": high89,
        "eti95_low": low95,
        "eti95_high": high95,
        "z": (float(at_map) - mean) / sd if comparable else np.nan,
        "inside_89": bool(low89 <= at_map <= high89) if comparable else None,
        "inside_95": bool(low95 <= at_map <= high95) if comparable else None,
        **health(draws),
    }


def coordinates(fit: Fit, post: Posterior) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """(site, index, label) of every number in the sites of a fit."""
    return _coordinates.coordinates(fit.model, fit.model.sites(fit.params), post.feature_names)


def basin_table(fit: Fit, post: Posterior) -> pd.DataFrame:
    """Which optimum EM reaches from draws of the posterior, with each one's share.

    Optima are told apart by their log joint, which no renaming of labels changes.
    """
    thinned = _thin(post)
    uphill = em.fit(
        fit.model,
        post.x,
        start=thinned,
        sample_weight=post.sample_weight,
        tol=fit.tol,
        max_iter=fit.max_iter,
    ).restarts
    reached = np.asarray(uphill.log_joint, np.float64)
    reached = reached[np.isin(uphill.status, [Status.CONVERGED, Status.OUT_OF_ITERATIONS])]
    known = np.asarray(fit.restarts.log_joint, np.float64)[
        np.isin(fit.restarts.status, [Status.CONVERGED]) & ~fit.restarts.spurious
    ]
    levels: list[float] = [fit.log_joint]
    for value in sorted([*known, *reached], reverse=True):
        if all(abs(value - level) > SAME_OPTIMUM for level in levels):
            levels.append(float(value))
    count = lambda values, level: int(np.sum(np.abs(values - level) <= SAME_OPTIMUM))
    table = pd.DataFrame(
        [
            {
                "share": count(reached, level) / max(len(reached), 1),
                "log_joint": level,
                "found_by_restarts": count(known, level),
                "visited": count(reached, level),
            }
            for level in levels
        ]
    )
    rest = table.iloc[1:].sort_values("share", ascending=False, kind="stable")
    return pd.concat([table.iloc[:1], rest], ignore_index=True)


def _thin(post: Posterior) -> Any:
    """Evenly spaced draws of all chains, as a stack of parameters."""
    total = post.n_chains * post.n_draws
    chosen = np.linspace(0, total - 1, min(_BASIN_DRAWS, total)).astype(int)
    flat = jax.tree.map(lambda leaf: leaf.reshape(total, *leaf.shape[2:])[chosen], post.params)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, post.x.dtype), flat)
