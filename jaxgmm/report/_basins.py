"""Which optimum EM reaches from draws of the posterior: the share of each, with its error."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from arviz_stats.base import array_stats

from jaxgmm import em
from jaxgmm._posterior import Posterior
from jaxgmm._results import Fit, Status

# Draws that are pushed uphill: without autocorrelation a share of one half is then good to
# five per cent.
BASIN_DRAWS = 400
# Optima of the restarts that are told apart, the highest ones; a fixed number, so that
# another number of optima compiles nothing.
_MOST_OPTIMA = 24

_NORMAL_975 = 1.959964


def basin_table(fit: Fit, post: Posterior) -> pd.DataFrame:
    """A row per optimum, the fit's first, then by share of the posterior.

    One compiled call of EM climbs from the fit, from the distinct ends of the restarts and from
    the draws; ends are one optimum by the rule of `Fit.optima`, which no renaming of labels
    changes. Draws that do not converge make up a last row, without a log joint.
    """
    drawn = post.thin(BASIN_DRAWS)
    ends = [o for o in fit.optima if o.status in _STANDING and not o.spurious][:_MOST_OPTIMA]
    uphill = _climb(fit, drawn, [int(end.starts[0]) for end in ends])
    converged = uphill.restarts.status == Status.CONVERGED
    optimum, n_ends = uphill.optimum_of, 1 + _MOST_OPTIMA
    at_draw, at_end = optimum[n_ends:], optimum[1 : 1 + len(ends)]
    arrived = np.unique(optimum[converged])
    known = np.union1d(arrived, optimum[:1])

    rows = []
    for which in known:
        heights = np.where(optimum == which, uphill.restarts.log_joint, -np.inf)
        reached = (at_draw == which).reshape(drawn.log_prior.shape)
        low, high = _interval(reached, post)
        top = int(np.argmax(heights))
        found = [len(e.starts) for e, at in zip(ends, at_end, strict=True) if at == which]
        rows.append(
            {
                "share": float(np.mean(reached)),
                "log_joint": float(np.max(heights)),
                "found_by_restarts": int(np.sum(found, dtype=int)),
                "visited": int(np.sum(reached)),
                "share_low": low,
                "share_high": high,
                "weights": _sorted_weights(uphill, top),
            }
        )
    table = pd.DataFrame(rows)
    first = table.index == int(np.flatnonzero(known == optimum[0])[0])
    rest = table[~first].sort_values(["share", "log_joint"], ascending=False, kind="stable")
    rest = rest[(rest["visited"] > 0) | (rest["found_by_restarts"] > 0)]
    parts = [table[first], rest]
    lost = ~np.isin(at_draw, known).reshape(drawn.log_prior.shape)
    if lost.any():
        low, high = _interval(lost, post)
        row = {"share": np.mean(lost), "log_joint": np.nan, "found_by_restarts": 0}
        row |= {"visited": int(np.sum(lost)), "share_low": low, "share_high": high, "weights": ()}
        parts.append(pd.DataFrame([row]))
    return pd.concat(parts, ignore_index=True)


_STANDING = (Status.CONVERGED, Status.OUT_OF_ITERATIONS)


def _climb(fit: Fit, drawn: Posterior, ends: list[int]) -> Fit:
    """EM from the fit, ``_MOST_OPTIMA`` restarts (the fit in place of missing ones), draws."""
    padded = np.array([*ends, *[fit.best] * (_MOST_OPTIMA - len(ends))])

    def stack(at: Any, restarts: Any, draws: Any) -> Any:
        flat = draws.reshape(-1, *draws.shape[2:])
        parts = [np.asarray(at)[None], np.asarray(restarts)[padded], flat]
        return jnp.asarray(np.concatenate(parts), drawn.x.dtype)

    return em.fit(
        fit.model,
        drawn.x,
        start=jax.tree.map(stack, fit.params, fit.restarts.params, drawn.params),
        sample_weight=drawn.sample_weight,
        tol=fit.tol,
        max_iter=max(fit.max_iter, _LEAST_STEPS),
    )


# A fit that was stopped early does not stop the draws.
_LEAST_STEPS = 1000


def _sorted_weights(uphill: Fit, end: int) -> tuple[float, ...]:
    """What tells optima apart at a glance, where the model has it."""
    params = jax.tree.map(lambda leaf: leaf[end], uphill.restarts.params)
    sites = uphill.model.derived_sites(params) | uphill.model.sites(params)
    weights = sites.get("weights", ())
    return tuple(float(w) for w in np.sort(np.asarray(weights)))


def _interval(reached: np.ndarray, post: Posterior) -> tuple[float, float]:
    """95% interval of a share (Wilson, 1927), at the effective number of draws."""
    share, count = float(np.mean(reached)), float(reached.size)
    if post.log_weights is not None:
        count = min(count, post.effective_draws)
    elif 0 < share < 1 and reached.shape[1] >= 4:
        effective = float(np.asarray(array_stats.ess(reached.astype(float), method="mean")))
        count = min(count, effective) if np.isfinite(effective) else count
    squared = _NORMAL_975**2 / count
    centre = (share + squared / 2) / (1 + squared)
    half = np.sqrt(squared * (share * (1 - share) + squared / 4)) / (1 + squared)
    return max(0.0, centre - half), min(1.0, centre + half)
