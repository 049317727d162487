"""Which optimum EM reaches from draws of the posterior: the share of each, with its error."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from arviz_stats.base import array_stats
from jax import lax
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

from jaxgmm import bayes, em
from jaxgmm._contract import LatentModel, Params
from jaxgmm._programs import on_rung, program
from jaxgmm.bayes import Posterior
from jaxgmm.em import Fit, Run, Status

# Draws that are pushed uphill: without autocorrelation a share of one half is then good to
# five per cent.
BASIN_DRAWS = 400
# Optima of the restarts that are told apart, the highest ones; a fixed number, so that
# another number of optima compiles nothing.
_MOST_OPTIMA = 24

# Optima whose mass is computed: as many of the highest, no farther below the top than volumes
# make up for.
_MOST_WEIGHED = 25
_MASS_RANGE = 25.0
# The heaviest of them, where the mass of one matters: draws around each, two climbing at once.
_MOST_CORRECTED = 10
_AROUND = BASIN_DRAWS // 2
_LEAST_EFFECTIVE = 10
_SEED = 0
# Less of the posterior than this is nothing to speak of.
NEGLIGIBLE = 0.01

_NORMAL_975 = 1.959964


class Basins(NamedTuple):
    """The optima, and where each of some draws leads.

    Attributes
    ----------
    table : DataFrame
        A row per optimum, the fit's first, then by share of the posterior.
    row_of : (chain, draw) array
        The row of the optimum that EM reaches from a thinned draw.
    """

    table: pd.DataFrame
    row_of: Int[np.ndarray, "chain draw"]


def basins(fit: Fit, post: Posterior) -> Basins:
    """`Basins` of a posterior.

    EM climbs from the fit, from the distinct ends of the restarts and from the draws; ends are
    one optimum by the rule of `Fit.optima`, which no renaming of labels changes. Draws that do
    not converge make up a last row, without a log joint.
    """
    drawn = post.thin(BASIN_DRAWS)
    ends = [o for o in fit.optima if o.status in _STANDING and not o.spurious][:_MOST_OPTIMA]
    starts = [int(end.starts[0]) for end in ends] or [fit.best]
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), drawn.params)
    uphill, optimum = _climb(fit, drawn, _at(fit.restarts.params, np.array(starts)), flat)
    at_draw, at_end = optimum[1 + len(starts) :], optimum[1 : 1 + len(starts)]
    arrived = np.unique(optimum[uphill.status == Status.CONVERGED])
    known = np.union1d(arrived, optimum[:1])

    rows = []
    for which in known:
        heights = np.where(optimum == which, uphill.log_joint, -np.inf)
        top = int(np.argmax(heights))
        found = [len(e.starts) for e, at in zip(ends, at_end, strict=False) if at == which]
        rows.append(
            {
                "share": float(np.mean(at_draw == which)),
                "log_joint": float(np.max(heights)),
                "found_by_restarts": int(np.sum(found, dtype=int)),
                "visited": int(np.sum(at_draw == which)),
                "weights": _sorted_weights(fit.model, uphill, top),
                "optimum": which,
                "top": top,
            }
        )
    table = pd.DataFrame(rows)
    first = table["optimum"] == optimum[0]
    rest = table[~first].sort_values(["share", "log_joint"], ascending=False, kind="stable")
    rest = rest[(rest["visited"] > 0) | (rest["found_by_restarts"] > 0)]
    table = pd.concat([table[first], rest], ignore_index=True)
    table["laplace_share"] = _masses(fit, uphill, drawn, table)

    row_of = np.full(at_draw.shape, len(table))
    for row, which in enumerate(table["optimum"]):
        row_of[at_draw == which] = row
    if np.any(lost := row_of == len(table)):
        nowhere = {"share": np.mean(lost), "log_joint": np.nan, "found_by_restarts": 0}
        nowhere |= {"visited": int(np.sum(lost)), "weights": (), "laplace_share": np.nan}
        table = pd.concat([table, pd.DataFrame([nowhere])], ignore_index=True)
    row_of = row_of.reshape(drawn.log_prior.shape)
    counts = _observations(row_of, table, post)
    table["share_low"], table["share_high"] = _interval(table["share"].to_numpy(), counts)
    return Basins(table[_COLUMNS], row_of)


_COLUMNS = [
    *("share", "log_joint", "found_by_restarts", "visited"),
    *("share_low", "share_high", "weights", "laplace_share"),
]


def unseen(table: pd.DataFrame) -> pd.DataFrame:
    """Optima that EM knows, from the fit or its restarts, and no draw leads to."""
    known = (table["found_by_restarts"] > 0) | (table.index == 0)
    return table[known & (table["visited"] == 0) & table["log_joint"].notna()]


def weighty(table: pd.DataFrame) -> pd.DataFrame:
    """Those that are not known to hold next to nothing."""
    return table[~(table["laplace_share"] < NEGLIGIBLE)]


def _masses(fit: Fit, uphill: Run, drawn: Posterior, table: pd.DataFrame) -> np.ndarray:
    """Share of each optimum in the mass of all, by its Laplace evidence; NaN where unknown."""
    height = table["log_joint"].to_numpy()
    near = height >= np.max(height) - _MASS_RANGE
    chosen = np.argsort(np.where(near, -height, np.inf), kind="stable")
    chosen = chosen[: min(np.sum(near), _MOST_WEIGHED)]
    log_mass = np.where(near, np.nan, -np.inf)
    if len(chosen) == 1:
        log_mass[chosen] = 0.0
    else:
        modes = _at(uphill.params, table["top"].to_numpy()[chosen])
        log_mass[chosen] = bayes.mode_evidence(fit.model, drawn.x, modes, drawn.sample_weight)
    share = _shares(log_mass, table, near)
    heavy = np.flatnonzero(share >= NEGLIGIBLE)
    if len(heavy) > 1 and np.any(table["visited"].to_numpy()[heavy] == 0):
        heavy = heavy[np.argsort(-share[heavy], kind="stable")][:_MOST_CORRECTED]
        tops = _at(uphill.params, table["top"].to_numpy()[heavy])
        log_mass[heavy] = _within_basins(fit, drawn, tops, log_mass[heavy])
        share = _shares(log_mass, table, near)
    return share


def _shares(log_mass: np.ndarray, table: pd.DataFrame, near: np.ndarray) -> np.ndarray:
    """Masses as shares; where that of an optimum is not known, its draws tell what it is."""
    known, share = ~np.isnan(log_mass), table["share"].to_numpy()
    seen, rest = known & (share > 0), known & (share == 0)
    if not seen.any():
        return np.where(near, np.nan, 0.0)
    total = logsumexp(log_mass[seen]) - np.log(np.sum(share[seen]))
    total = np.logaddexp(total, logsumexp([*log_mass[rest], -np.inf]))
    return np.exp(log_mass - total) if np.isfinite(total) else np.where(near, np.nan, 0.0)


def _within_basins(fit: Fit, drawn: Posterior, tops: Params, formula: np.ndarray) -> np.ndarray:
    """Log masses with what Laplace's formula misses: draws around the tops, by where EM leads.

    A shoulder of another mode then counts there, as it does for draws of the posterior. The
    formula stands where too few of the draws count.
    """
    count = len(formula)
    around = bayes.around_modes(
        fit.model,
        drawn.x,
        _one_labelling(fit, drawn, tops),
        drawn.sample_weight,
        key=jax.random.key(_SEED),
        n_draws=_AROUND,
    )
    weights = around.weighing.log_weights
    if np.exp(-logsumexp(2 * weights)) < _LEAST_EFFECTIVE * count:
        return formula
    _, optimum = _climb(fit, drawn, tops, around.params)
    ends, at = optimum[1 : 1 + count], optimum[1 + count :]
    own = at[:, None] == ends
    # Each draw counts for the first of the modes to which it leads.
    leads = np.where(own.any(axis=1), np.argmax(own, axis=1), -1)
    inside = np.where(leads == np.arange(count)[:, None], weights, -np.inf)
    return around.weighing.log_mean + logsumexp(inside, axis=1)


def _one_labelling(fit: Fit, drawn: Posterior, tops: Params) -> Params:
    """The tops with the labels of the first, as far as they put the same rows together."""
    rows, _ = on_rung(fit.model, drawn.x, None)
    probability = np.asarray(_responsibilities(fit.model, tops, rows))[:, : len(drawn.x)]
    agreement = np.einsum("nj,snk->sjk", probability[0], probability)
    order = jnp.array([linear_sum_assignment(-one)[1] for one in agreement])
    return jax.vmap(fit.model.permute)(tops, order)


@program()
def _responsibilities(model: LatentModel, params: Params, x: Any) -> Any:
    return lax.map(lambda one: model.responsibilities(one, x), params)


def _at(params: Params, index: Any) -> Params:
    return jax.tree.map(lambda leaf: leaf[index], params)


_STANDING = (Status.CONVERGED, Status.OUT_OF_ITERATIONS)


def _climb(fit: Fit, drawn: Posterior, *points: Params) -> tuple[Run, np.ndarray]:
    """EM from the fit and from all the points: where it ends, and which ends are one optimum."""
    join = lambda at, *more: np.concatenate([np.asarray(at)[None], *more]).astype(drawn.x.dtype)
    stacked = jax.tree.map(join, fit.params, *points)
    most = max(fit.max_iter, _LEAST_STEPS)
    return em.ends_from(fit, stacked, drawn.x, drawn.sample_weight, most)


# A fit that was stopped early does not stop the draws.
_LEAST_STEPS = 1000


def _sorted_weights(model: LatentModel, uphill: Run, end: int) -> tuple[float, ...]:
    """What tells optima apart at a glance, where the model has it."""
    params = jax.tree.map(lambda leaf: leaf[end], uphill.params)
    sites = model.derived_sites(params) | model.sites(params)
    weights = sites.get("weights", ())
    return tuple(float(w) for w in np.sort(np.asarray(weights)))


def _observations(row_of: np.ndarray, table: pd.DataFrame, post: Posterior) -> np.ndarray:
    """On how many independent observations the share of each row rests.

    Draws of an approximation are independent. A chain that never leaves a basin, though there
    are others, is one observation of where the posterior lies, however many its draws.
    """
    size = float(row_of.size)
    if post.log_weights is not None:
        return np.full(len(table), min(size, post.effective_draws))
    elsewhere = (table["visited"] > 0) | table.index.isin(weighty(table).index)
    if np.sum(elsewhere) < 2:
        return np.full(len(table), size)
    if np.all(row_of == row_of[:, :1]) or row_of.shape[1] < _LEAST_DRAWS:
        return np.full(len(table), float(len(row_of)))
    reached = [(row_of == row).astype(float) for row in range(len(table))]
    moving = np.array([0 < np.mean(r) < 1 for r in reached])
    counts = np.full(len(table), size)
    counts[moving] = [
        float(np.asarray(array_stats.ess(r, method="mean")))
        for r, moves in zip(reached, moving, strict=True)
        if moves
    ]
    # What no draw leads to is as well known as the least known of the others.
    counts[moving] = np.nan_to_num(counts[moving], nan=len(row_of))
    counts[~moving] = np.min(counts[moving])
    return np.clip(counts, 1, size)


# Fewer have no autocorrelation.
_LEAST_DRAWS = 4


def _interval(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95% interval of shares (Wilson, 1927) known from so many independent observations."""
    squared = _NORMAL_975**2 / count
    centre = (share + squared / 2) / (1 + squared)
    half = np.sqrt(squared * (share * (1 - share) + squared / 4)) / (1 + squared)
    return np.maximum(0.0, centre - half), np.minimum(1.0, centre + half)
