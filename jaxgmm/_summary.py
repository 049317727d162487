"""Fits and posteriors as tables: a row per number, for terminals and notebooks."""

from __future__ import annotations

import itertools
from html import escape
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxgmm._coordinates import coordinates

if TYPE_CHECKING:
    import pandas as pd

    from jaxgmm._posterior import Posterior
    from jaxgmm._results import Fit

# Rows of the tables in a notebook: numbers, and optima.
_MOST_SHOWN = 40
_MOST_OPTIMA = 10


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


def moments(draws: np.ndarray, post: Posterior) -> tuple[float, float]:
    """Mean and standard deviation over the draws with their weights; 0 for one number."""
    fixed, draws = constant(draws), np.asarray(draws, np.float64)
    if fixed:
        return float(np.mean(draws)), 0.0
    if post.log_weights is None:
        return float(np.mean(draws)), float(np.std(draws, ddof=1))
    weights = np.exp(post.log_weights)
    mean = float(np.average(draws, weights=weights))
    return mean, float(np.sqrt(np.average((draws - mean) ** 2, weights=weights)))


def spread_k(draws: np.ndarray, post: Posterior) -> float:
    """Pareto k of the weighted squares that make the variance; NaN without weights.

    It belongs to the quantity: good weights alone do not make an sd right (Vehtari et al., 2024,
    section 3.2.6).
    """
    from arviz_stats.base import array_stats

    if post.log_weights is None or constant(draws):
        return np.nan
    draws = np.asarray(draws, np.float64)
    squares = np.exp(post.log_weights) * (draws - moments(draws, post)[0]) ** 2
    try:
        k = array_stats.pareto_khat(squares.reshape(1, -1), r_eff=1.0, tail="right")
    except ValueError:  # too few draws for a tail, or one of equal values
        return np.nan
    return float(np.asarray(k))


def quantiles(draws: np.ndarray, levels: list[float], post: Posterior) -> np.ndarray:
    """Of the draws with their weights; NaN where they are one number."""
    if constant(draws):
        return np.full(len(levels), np.nan)
    if post.log_weights is None:
        return np.quantile(draws, levels)
    weights = np.exp(post.log_weights).ravel()
    return np.quantile(draws.ravel(), levels, weights=weights, method="inverted_cdf")


def summary(post: Posterior, most: int | None = None) -> pd.DataFrame:
    """The first ``most`` rows of `Posterior.summary`."""
    import pandas as pd

    sites = {name: post.draws[name][0, 0] for name in post.model.sites(post.params)}
    names = coordinates(post.model, sites, post.feature_names)
    rows = []
    for site, index, label in itertools.islice(names, most):
        draws = post.draws[site][(..., *index)]
        mean, sd = moments(draws, post)
        low, high = quantiles(draws, [0.055, 0.945], post)
        # Weighted draws are no chains: their effective number is that of the weights.
        judged = health(draws) if post.log_weights is None else {"r_hat": np.nan}
        rows.append(
            {
                "quantity": label,
                "mean": mean,
                "sd": sd,
                "eti89_low": low,
                "eti89_high": high,
                "ess_bulk": judged.get("ess_bulk", post.effective_draws),
                "ess_tail": judged.get("ess_tail", post.effective_draws),
                "r_hat": judged["r_hat"],
                "pareto_k": spread_k(draws, post),
            }
        )
    return pd.DataFrame(rows).set_index("quantity")


def posterior_html(post: Posterior) -> str:
    """The posterior for notebooks: what it is, and its numbers."""
    import pandas as pd

    table = summary(post, _MOST_SHOWN)
    formats = dict.fromkeys(table, "{:.4g}") | dict.fromkeys(("r_hat", "pareto_k"), "{:.3f}")
    formats |= {"ess_bulk": "{:.0f}", "ess_tail": "{:.0f}"}
    cell = lambda how: lambda value: "" if np.isnan(value) else how.format(value)
    shown = pd.DataFrame({name: table[name].map(cell(how)) for name, how in formats.items()})
    shown.index.name = None
    cut = f"<p>The first {_MOST_SHOWN} rows; <code>summary()</code> has all.</p>"
    return (
        f'<div class="jaxgmm-posterior">\n<pre>{escape(repr(post))}</pre>\n'
        f"{shown.to_html(border=0)}\n{cut if len(table) == _MOST_SHOWN else ''}</div>"
    )


def fit_html(fit: Fit) -> str:
    """The fit for notebooks: what it is, its numbers, and where the restarts ended."""
    import pandas as pd

    sites = jax.tree.map(np.asarray, fit.model.sites(fit.params))
    names = itertools.islice(coordinates(fit.model, sites, fit.feature_names), _MOST_SHOWN)
    values = {label: f"{sites[site][index]:.5g}" for site, index, label in names}
    table = pd.DataFrame({"estimate": values}).to_html(border=0)
    parts = [f"<pre>{escape(repr(fit))}</pre>", table]
    if len(values) == _MOST_SHOWN:
        parts.append(f"<p>The first {_MOST_SHOWN}; <code>params</code> has all.</p>")
    optima = fit.optima_table
    if len(optima) > 1:
        shown = optima.head(_MOST_OPTIMA)
        parts.append("<p>Where the restarts ended; <code>optima_table</code> has all.</p>")
        parts.append(shown.to_html(border=0, index=False, float_format="{:.4f}".format))
    return '<div class="jaxgmm-fit">\n' + "\n".join(parts) + "\n</div>"
