"""Are ranks uniform? Simultaneous bands of their distribution, and what departs from it."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import stats

# Simulated sets of uniform ranks, from one seed: equal ranks, equal bands.
_SIMULATED, _SEED = 10_000, 0
_MOST_BINS = 20


class Bands(NamedTuple):
    """Where the numbers of ranks up to 0, 1, ..., L - 1 stay, all at once.

    Attributes
    ----------
    expected, low, high : (L,) arrays
        Of N uniform ranks.
    least : (S,) array
        Of simulated sets of ranks the least pointwise probability, ascending.
    """

    expected: Float[np.ndarray, " l"]
    low: Float[np.ndarray, " l"]
    high: Float[np.ndarray, " l"]
    least: Float[np.ndarray, " s"]


@functools.cache
def bands(n_ranks: int, n_draws: int, level: float) -> Bands:
    """Of ``n_ranks`` uniform ranks among ``n_draws``, with probability ``level``.

    Säilynoja, Bürkner and Vehtari (2022), Statistics and Computing 32:32, algorithm 1: the
    pointwise probability is such that simulated ranks stay inside everywhere.
    """
    rng = np.random.default_rng(_SEED)
    cells = np.full(n_draws + 1, 1 / (n_draws + 1))
    counts = rng.multinomial(n_ranks, cells, size=_SIMULATED).cumsum(axis=1)[:, :-1]
    least = np.sort(_least(counts, n_ranks))
    pointwise = np.quantile(least, 1 - level)
    share = np.arange(1, n_draws + 1) / (n_draws + 1)
    low, high = stats.binom.interval(1 - pointwise, n_ranks, share)
    return Bands(n_ranks * share, low, high, least)


def cumulative(ranks: Int[np.ndarray, " n"], n_draws: int) -> Int[np.ndarray, " l"]:
    """How many ranks are at most 0, 1, ..., L - 1."""
    return np.bincount(ranks, minlength=n_draws + 1).cumsum()[:-1]


def _least(counts: Int[np.ndarray, "s l"], n_ranks: int) -> Float[np.ndarray, " s"]:
    """The least pointwise probability, on either side, of cumulative numbers of ranks."""
    n_draws = counts.shape[1]
    share, numbers = np.arange(1, n_draws + 1) / (n_draws + 1), np.arange(n_ranks + 1)
    below = stats.binom.cdf(numbers[:, None], n_ranks, share)
    above = stats.binom.sf(numbers[:, None] - 1, n_ranks, share)
    twice = 2 * np.minimum(below, above)
    return np.min(twice[counts, np.arange(n_draws)], axis=1)


def rank_table(
    ranks: Int[np.ndarray, "n q"], names: list[str], n_draws: int, level: float
) -> pd.DataFrame:
    """A row for each quantity; negative ranks are those of data sets without an answer.

    ``level`` is the probability that the bands of all quantities together hold uniform ranks.
    """
    rows = []
    for j, name in enumerate(names):
        own = ranks[ranks[:, j] >= 0, j]
        found = bands(len(own), n_draws, 1 - (1 - level) / len(names))
        counts = cumulative(own, n_draws)
        observed = _least(counts[None], len(own))[0]
        place = (own + 0.5) / (n_draws + 1)
        rows.append(
            {
                "quantity": name,
                "n_ranked": len(own),
                "p_value": (1 + np.sum(found.least <= observed)) / (1 + len(found.least)),
                "chi2_p_value": _chi_squared(own, n_draws),
                "uniform": bool(np.all((found.low <= counts) & (counts <= found.high))),
                "mean_rank": place.mean(),
                "spread": np.sqrt(12 * place.var()),
                "meaning": _meaning(place),
            }
        )
    return pd.DataFrame(rows).set_index("quantity")


def _chi_squared(ranks: Int[np.ndarray, " n"], n_draws: int) -> float:
    n_bins = min(_MOST_BINS, n_draws + 1)
    counted = lambda numbers: np.bincount(numbers * n_bins // (n_draws + 1), minlength=n_bins)
    # Bins hold as many of the possible ranks as they can; some hold one more.
    share = counted(np.arange(n_draws + 1)) / (n_draws + 1)
    return float(stats.chisquare(counted(ranks), share * len(ranks)).pvalue)


def _meaning(place: Float[np.ndarray, " n"]) -> str:
    """The plainest departure from a uniform distribution."""
    apart, root = place - place.mean(), np.sqrt(len(place))
    shift = (place.mean() - 0.5) * root * np.sqrt(12)
    # Of (u - 1/2)^2, whose mean is 1/12, the variance is 1/180.
    width = (np.mean(apart**2) - 1 / 12) * root * np.sqrt(180)
    if abs(shift) >= abs(width):
        return "draws too low" if shift > 0 else "draws too high"
    return "draws too narrow" if width > 0 else "draws too wide"
