"""Draws as tables: a row per number, for terminals and notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


# Rows of the table in a notebook.
MOST_SHOWN = 40

# Numbers that differ by no more than so many units of their own rounding are one number.
_ROUNDING = 16


def constant(draws: np.ndarray, axis: int | None = None, least: float = 0) -> Any:
    """Whether draws differ by no more than rounding, relative to their size or the ``least``."""
    size = np.maximum(np.max(np.abs(draws), axis=axis, initial=0), least)
    return np.ptp(draws, axis=axis) <= _ROUNDING * np.finfo(draws.dtype).eps * size


def health(draws: np.ndarray) -> dict[str, float]:
    """Rank-normalised split R-hat and bulk and tail effective draws (Vehtari et al., 2021)."""
    from arviz_stats.base import array_stats

    fixed, draws = constant(draws), np.asarray(draws, np.float64)
    if fixed:
        return {"r_hat": np.nan, "ess_bulk": np.nan, "ess_tail": np.nan}
    return {
        "r_hat": float(np.asarray(array_stats.rhat(draws))),
        "ess_bulk": float(np.asarray(array_stats.ess(draws, method="bulk"))),
        "ess_tail": float(np.asarray(array_stats.ess(draws, method="tail", prob=(0.05, 0.95)))),
    }


def moments(draws: np.ndarray, log_weights: np.ndarray | None) -> tuple[float, float]:
    """Mean and standard deviation over the draws with their weights; 0 for one number."""
    fixed, draws = constant(draws), np.asarray(draws, np.float64)
    if fixed:
        return float(np.mean(draws)), 0.0
    if log_weights is None:
        return float(np.mean(draws)), float(np.std(draws, ddof=1))
    weights = np.exp(log_weights)
    mean = float(np.average(draws, weights=weights))
    return mean, float(np.sqrt(np.average((draws - mean) ** 2, weights=weights)))


def spread_k(draws: np.ndarray, log_weights: np.ndarray | None) -> float:
    """Pareto k of the weighted squares that make the variance; NaN without weights.

    It belongs to the quantity: good weights alone do not make an sd right (Vehtari et al., 2024,
    section 3.2.6).
    """
    from arviz_stats.base import array_stats

    if log_weights is None or constant(draws):
        return np.nan
    draws = np.asarray(draws, np.float64)
    squares = np.exp(log_weights) * (draws - moments(draws, log_weights)[0]) ** 2
    try:
        k = array_stats.pareto_khat(squares.reshape(1, -1), r_eff=1.0, tail="right")
    except ValueError:  # too few draws for a tail, or one of equal values
        return np.nan
    return float(np.asarray(k))


def quantiles(draws: np.ndarray, levels: list[float], log_weights: np.ndarray | None) -> np.ndarray:
    """Of the draws with their weights; NaN where they are one number."""
    if constant(draws):
        return np.full(len(levels), np.nan)
    if log_weights is None:
        return np.quantile(draws, levels)
    weights = np.exp(log_weights).ravel()
    return np.quantile(draws.ravel(), levels, weights=weights, method="inverted_cdf")


def table(
    numbers: Iterable[tuple[str, np.ndarray]], log_weights: np.ndarray | None, effective: float
) -> pd.DataFrame:
    """A row per number, of its name and its draws (chain, draw); see `Posterior.summary`."""
    import pandas as pd

    rows = []
    for label, draws in numbers:
        mean, sd = moments(draws, log_weights)
        low, high = quantiles(draws, [0.055, 0.945], log_weights)
        # Weighted draws are no chains: their effective number is that of the weights.
        judged = health(draws) if log_weights is None else {"r_hat": np.nan}
        rows.append(
            {
                "quantity": label,
                "mean": mean,
                "sd": sd,
                "eti89_low": low,
                "eti89_high": high,
                "ess_bulk": judged.get("ess_bulk", effective),
                "ess_tail": judged.get("ess_tail", effective),
                "r_hat": judged["r_hat"],
                "pareto_k": spread_k(draws, log_weights),
            }
        )
    return pd.DataFrame(rows).set_index("quantity")


def posterior_html(text: str, numbers: pd.DataFrame) -> str:
    """The posterior for notebooks: what it is, and the first ``MOST_SHOWN`` of its numbers."""
    import pandas as pd

    formats = dict.fromkeys(numbers, "{:.4g}") | dict.fromkeys(("r_hat", "pareto_k"), "{:.3f}")
    formats |= {"ess_bulk": "{:.0f}", "ess_tail": "{:.0f}"}
    cell = lambda how: lambda value: "" if np.isnan(value) else how.format(value)
    shown = pd.DataFrame({name: numbers[name].map(cell(how)) for name, how in formats.items()})
    shown.index.name = None
    cut = f"<p>The first {MOST_SHOWN} rows; <code>summary()</code> has all.</p>"
    return (
        f'<div class="jaxgmm-posterior">\n<pre>{escape(text)}</pre>\n'
        f"{shown.to_html(border=0)}\n{cut if len(numbers) == MOST_SHOWN else ''}</div>"
    )
