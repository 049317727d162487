"""Leave-one-out of the rows that the verdict sees, by Pareto-smoothed importance sampling."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from arviz_stats.base import array_stats
from jaxtyping import Float
from scipy.special import logsumexp

from jaxgmm.bayes import constant
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
        How much hangs on that copy: above 0.7 the density is rough; -inf of a row, such as one
        without any value, that has one density under all draws.
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
    varying = ~constant(distinct, axis=0, least=1)  # a log of a number near one
    elpd, k = np.array(distinct[0]), np.full(distinct.shape[1], -np.inf, distinct.dtype)
    density = distinct[:, varying]
    log_weights, k[varying] = array_stats.psislw(density - np.log(copies)[:, None], axis=0)
    elpd[varying] = logsumexp(density + np.moveaxis(log_weights, -1, 0), axis=0)
    return LeftOut(elpd, k, len(distinct))
