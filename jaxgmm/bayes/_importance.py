"""Pareto-smoothed importance weights of draws from an approximation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from arviz_stats.base import array_stats
from jaxtyping import Float

# Smoothed weights can be trusted below this shape (Vehtari et al., 2024, section 3.2.4).
TRUSTED_PARETO_K = 0.7

# A fifth of the weights is the tail that is smoothed, and takes five.
_LEAST_DRAWS = 25

# Log densities that differ by no more than so many units of rounding are equal.
_ROUNDING_FACTOR = 64.0


class Importance(NamedTuple):
    """Importance weights of draws from an approximation.

    Attributes
    ----------
    log_weights : (...) array
        Pareto-smoothed, normalised to sum to one.
    pareto_k : float
        Shape of the tail of the raw weights; minus infinity where all are equal.
    log_mean : float
        Log of the mean smoothed weight: the log integral of the target.
    error : float
        Standard error of ``log_mean``; a heavy tail of the weights makes it larger.
    """

    log_weights: np.ndarray
    pareto_k: float
    log_mean: float
    error: float


def importance(
    log_target: Float[np.ndarray, "*draws"], log_proposal: Float[np.ndarray, "*draws"]
) -> Importance:
    """Pareto-smoothed importance sampling (Vehtari, Simpson, Gelman, Yao and Gabry, 2024).

    Both densities are at the draws of the proposal and in the same measure.
    """
    log_ratios = np.asarray(log_target, np.float64) - np.asarray(log_proposal, np.float64)
    # Far out a draw may have left the numbers that have a density.
    log_ratios = np.where(np.isnan(log_ratios), -np.inf, log_ratios)
    size = np.max(np.abs(log_target), where=np.isfinite(log_target), initial=0)
    rounding = _ROUNDING_FACTOR * np.finfo(log_target.dtype).eps * size
    if np.ptp(log_ratios) <= rounding:  # draws of the target itself: there is no tail
        equal = np.full(log_ratios.shape, -np.log(log_ratios.size))
        return Importance(equal, -np.inf, float(np.mean(log_ratios)), 0.0)
    if log_ratios.size < _LEAST_DRAWS:
        raise ValueError(
            f"n_draws: importance weights need at least {_LEAST_DRAWS} draws, all chains together, "
            f"found {log_ratios.size}"
        )
    # ArviZ smooths the weights that leave a row out: it takes the negative.
    smoothed, pareto_k = array_stats.psislw(-log_ratios.ravel())
    # Smoothing keeps the weights up to a common factor but for the tail, which it trims to the
    # largest raw weight: the body's factor is that of normalising. A draw may weigh nothing.
    body = np.argmin(np.where(np.isneginf(log_ratios), np.inf, log_ratios))
    log_factor = log_ratios.ravel()[body] - smoothed[body]
    count = smoothed.size
    spread = np.sqrt(np.sum((count * np.exp(smoothed) - 1) ** 2) / (count - 1))
    return Importance(
        smoothed.reshape(log_ratios.shape),
        float(pareto_k),
        float(log_factor - np.log(count)),
        float(spread * count ** (-_convergence_rate(float(pareto_k), count) / 2)),
    )


def _convergence_rate(k: float, count: int) -> float:
    """The r of an error that falls as ``count ** (-r / 2)``: 1 without a tail, 0 at k = 1.

    Vehtari et al. (2024), section 3.2.4; as in R's `posterior::ps_convergence_rate`.
    """
    if k <= 0 or k >= 1:
        return float(k <= 0)
    if k == 0.5:
        return 1 - 1 / np.log(count)
    tail = count ** (2 * k - 1)
    above = 1 + 2 * (k - 1) * tail + (1 - 2 * k) * tail / count
    return max(0.0, above / ((1 - 1 / count) * (1 - tail)))
