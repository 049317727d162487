"""Leave-one-out of the rows that the verdict sees, by Pareto-smoothed importance sampling."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from arviz_stats.base import array_stats
from jaxtyping import Float
from scipy.special import logsumexp

from jaxgmm.report._draws import Seen

# Fewer have no tail to smooth.
LEAST_DRAWS = 25


class LeftOut(NamedTuple):
    """Each row, given all others and its other copies.

    Attributes
    ----------
    log_density : (n,) array
        Of the row under the posterior without one copy of it.
    pareto_k : (n,) array
        How much hangs on that copy: above 0.7 the density is rough.
    n_draws : int
        Distinct draws; below `LEAST_DRAWS` both arrays are NaN.
    """

    log_density: Float[np.ndarray, " n"]
    pareto_k: Float[np.ndarray, " n"]
    n_draws: int


def leave_one_out(seen: Seen) -> LeftOut:
    """`LeftOut` of the rows seen (Vehtari, Gelman and Gabry, 2017)."""
    # Copies of a draw, which resampled weights make, are that draw with their number as weight.
    distinct, copies = np.unique(seen.log_density, axis=0, return_counts=True)
    if len(distinct) < LEAST_DRAWS:
        nothing = np.full(distinct.shape[1], np.nan)
        return LeftOut(nothing, nothing, len(distinct))
    log_weights, k = array_stats.psislw(distinct - np.log(copies)[:, None], axis=0)
    elpd = logsumexp(distinct + np.moveaxis(log_weights, -1, 0), axis=0)
    return LeftOut(elpd, np.asarray(k), len(distinct))
