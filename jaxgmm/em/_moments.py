"""Moments of rows that come in blocks, some of their values missing."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# A share of the weight that is more than rounding.
_SOME = 1e-12


class Moments(NamedTuple):
    """Moments of the values that are there, of each two columns where both are.

    Attributes
    ----------
    totals : (D, D) array
        Weights of the rows that have both.
    means : (D, D) array
        Of the first column, over these rows.
    scatter : (D, D) array
        Products of the distances from these means.
    """

    totals: Float[np.ndarray, "d d"]
    means: Float[np.ndarray, "d d"]
    scatter: Float[np.ndarray, "d d"]

    @classmethod
    def of(cls, rows: np.ndarray, weight: np.ndarray) -> Moments:
        """Of rows by their weights, in float64."""
        rows, weight = rows.astype(np.float64), weight.astype(np.float64)
        there = ~np.isnan(rows)
        if there.all():
            total = float(weight.sum())
            mean = weight @ rows / total
            centred = rows - mean
            each = np.broadcast_to(mean[:, None], (len(mean), len(mean)))
            return cls(np.full(each.shape, total), each, (weight * centred.T) @ centred)
        some = weight @ there
        origin = weight @ np.where(there, rows, 0) / np.where(some > 0, some, 1)
        centred, by = np.where(there, rows - origin, 0), weight * there.T
        totals = by @ there
        apart = (weight * centred.T) @ there / np.where(totals > 0, totals, 1)
        scatter = (weight * centred.T) @ centred - totals * apart * apart.T
        return cls(totals, origin[:, None] + apart, scatter)

    def add(self, more: Moments) -> Moments:
        """Of two sets of rows together (Chan, Golub and LeVeque, 1983)."""
        totals = self.totals + more.totals
        share = more.totals / np.where(totals > 0, totals, 1)
        apart = np.where(totals > 0, more.means - self.means, 0)
        scatter = self.scatter + more.scatter + apart * apart.T * self.totals * share
        return Moments(totals, self.means + apart * share, scatter)

    def in_rows(self, total_weight: float) -> tuple[np.ndarray, np.ndarray]:
        """Rows and weights with the same mean, scatter and weight of each column."""
        mean, weights = np.diagonal(self.means), np.diagonal(self.totals)
        apart = self.means - mean[:, None]
        values, vectors = np.linalg.eigh(self.scatter + self.totals * apart * apart.T)
        # Pairs on either side of the mean along the principal axes, which have all columns.
        least = weights.min()
        arms = (vectors * np.sqrt(np.maximum(values, 0) * len(values) / least)).T
        rows, weight = (
            [mean + arms, mean - arms],
            [np.full(2 * len(values), least / len(values) / 2)],
        )
        # And means, in those that have more.
        for level, following in itertools.pairwise([*np.unique(weights), total_weight]):
            if following - level > _SOME * total_weight:
                rows.append(np.where(weights > level, mean, np.nan)[None])
                weight.append(np.array([following - level]))
        return np.concatenate(rows), np.concatenate(weight)
