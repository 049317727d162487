"""Rows that the model does not make, and rows on which the fit hangs alone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from jaxgmm.report._draws import Rows, Seen
from jaxgmm.report.verdict._approximations import Approximations
from jaxgmm.report.verdict._check import OK, WARNING, Check, not_applicable
from jaxgmm.report.verdict._decide import MOST_PARETO_K
from jaxgmm.report.verdict._loo import LeftOut

TAILS = "least likely row, posterior predictive p"
ALONE = "rows that decide alone"

# Of a hundred data sets that the model makes, one has a row as unlikely.
_LEAST_P = 0.01
# Sandwich errors of a right model scatter by a third at 100 rows; tails make them larger only.
_HEAVY_SANDWICH = 1.5
# A row with more than half of a component is that component.
_OWN_COMPONENT = 0.5
_MOST_NAMED = 5


def misfit(
    near: Approximations,
    seen: Seen,
    rows: Rows,
    left_out: LeftOut,
    replicated: Float[np.ndarray, "s m"],
) -> list[Check]:
    """Whether the least likely rows are some that the model makes, and whether rows decide alone.

    ``replicated`` has the log densities, at each draw, of as many rows drawn from it. A row is
    held against the least likely one of each of these data sets by its density with one copy of
    it left out, since a row far out makes itself likely.
    """
    if np.all(np.isnan(left_out.log_density)):
        why = f"only {left_out.n_draws} distinct draws"
        return [not_applicable(TAILS, why), not_applicable(ALONE, why)]
    least = np.min(replicated, axis=1)
    p = np.mean(least[:, None] <= left_out.log_density, axis=0)
    unlikely = p < _LEAST_P
    # A component may have come to a row far out, which then is likely.
    counts = seen.copies @ seen.fit_probability
    own = np.max(seen.fit_probability / np.maximum(counts, 1e-300), axis=1) > _OWN_COMPONENT
    alone = (left_out.pareto_k > MOST_PARETO_K) & (unlikely | own)
    worst_first = lambda chosen, rank: rows.index[chosen][np.argsort(rank[chosen])]
    tails, deciding = "the model makes rows as unlikely as these", "the fit hangs on no single row"
    if np.any(unlikely):
        tails = _tails(worst_first(unlikely, left_out.log_density), _sandwich(near))
    if np.any(alone):
        k = float(np.max(left_out.pareto_k[alone]))
        deciding = _deciding(worst_first(alone, -left_out.pareto_k), k)
    return [
        Check(
            TAILS,
            float(np.min(p)),
            f">= {_LEAST_P}",
            WARNING if np.any(unlikely) else OK,
            tails,
        ),
        Check(
            ALONE,
            float(np.sum(seen.copies[alone])),
            "0",
            WARNING if np.any(alone) else OK,
            deciding,
        ),
    ]


def _tails(rows: np.ndarray, sandwich: float) -> str:
    """What follows from rows that the model does not make."""
    single = len(rows) == 1
    amiss = (
        f"{named_rows(rows)} {'is' if single else 'are'} less likely than any row of "
        f"{1 - _LEAST_P:.0%} of the data sets that it makes"
    )
    if not sandwich > _HEAVY_SANDWICH:
        return f"not all rows suit the model: {amiss}"
    reading = "heavier tails than the model" + (", or an outlier" if single else "")
    return f"{reading}: {amiss}, and sandwich errors are up to {sandwich:.1f} times the others"


def _deciding(rows: np.ndarray, k: float) -> str:
    without, who = ("it", "it decides") if len(rows) == 1 else ("any one of them", "each decides")
    return (
        f"{named_rows(rows)}: the fit would be another one without {without} (Pareto k of LOO "
        f"{k:.2f}), so {who} alone"
    )


def _sandwich(near: Approximations) -> float:
    """The largest sandwich error in units of the error by the information."""
    if near.information is None or near.sandwich is None:
        return np.nan
    ours, theirs = near.information.standard_errors, near.sandwich.standard_errors
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.concatenate(
            [np.ravel(np.asarray(theirs[name]) / np.asarray(ours[name])) for name in ours]
        )
    return float(np.max(ratios, where=np.isfinite(ratios), initial=0))


def named_rows(rows: np.ndarray) -> str:
    """Rows by their numbers, from 0."""
    shown = [str(row) for row in rows[:_MOST_NAMED]]
    if len(rows) > _MOST_NAMED:
        shown.append(f"{len(rows) - _MOST_NAMED} more")
    if len(shown) == 1:
        return f"row {shown[0]}"
    return f"rows {', '.join(shown[:-1])} and {shown[-1]}"
