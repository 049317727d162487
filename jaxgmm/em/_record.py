"""The best of many runs, and everything that a fit says beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxgmm._checks import wider
from jaxgmm._contract import LatentModel, Params, expected_labels
from jaxgmm._programs import in_slices, program, rows_at
from jaxgmm.em._results import SAME_OPTIMUM, Fit, RowSums, Run, Status
from jaxgmm.em._saddle import Twins

WELL = (Status.CONVERGED, Status.OUT_OF_ITERATIONS, Status.SADDLE, Status.UNJUDGED)


class Rows(NamedTuple):
    """What a fit says of its rows, and some of them, at which ends are compared."""

    n_rows: int
    total_weight: float
    n_informative: float  # the weight of those with any value
    landmarks: Array
    fingerprint: str


def best_fit(
    model: LatentModel,
    record: Run,
    rows: Rows,
    labels_at: Callable[[Params], tuple[Any, Any, Twins, RowSums]],
    settings: dict[str, Any],
) -> tuple[Fit, Twins]:
    """The best restart that is neither collapsed nor spurious, with everything beside it.

    And the two of its labels that are most alike. ``labels_at`` says of parameters what the labels
    of all rows say: the sum over rows of the log probability of the most probable one
    (`certainty`), which labels no row has, the two most alike, and the sums over the rows.
    """
    record = jax.tree.map(np.asarray, record)
    score = np.where(np.isnan(record.log_joint), -np.inf, record.log_joint)
    well = ended_well(record)
    usable = well & ~record.spurious
    if not usable.any():
        usable = well
    if not usable.any():
        _refuse_if_nothing_is_left(record, model.collapse)
        usable = record.status != Status.COLLAPSED
    best = int(np.argmax(np.where(usable, score, -np.inf)))
    better = well & record.spurious & (score > score[best])

    params = jax.tree.map(lambda leaf: jax.device_put(leaf[best]), record.params)
    # The record was written in working units, where nothing overflows.
    log_likelihood, log_prior = float(record.log_likelihood[best]), float(record.log_prior[best])
    total = rows.total_weight
    n_iter, n_parameters = int(record.n_iter[best]), model.n_parameters(rows.landmarks.shape[1])
    bic = n_parameters * math.log(rows.n_informative) - 2 * log_likelihood
    log_certainty, empty, twin, sums = labels_at(params)
    found = Fit(
        model=model,
        params=params,
        log_likelihood=log_likelihood,
        log_prior=log_prior,
        log_joint=log_prior + log_likelihood,
        status=Status(int(record.status[best])),
        n_iter=n_iter,
        n_evaluations=int(record.n_evaluations[best]),
        rate=float(record.rate[best]),
        trace=np.asarray(record.trace[best, : n_iter + 1]),
        restarts=record,
        best=best,
        optimum_of=distinct(model, rows.landmarks, record, total),
        n_spurious_better=int(better.sum()),
        n_empty=int(np.sum(np.asarray(empty))),
        n_rows=rows.n_rows,
        total_weight=total,
        n_parameters=n_parameters,
        bic=bic,
        aic=2 * n_parameters - 2 * log_likelihood,
        icl=bic - 2 * float(log_certainty),
        fingerprint=rows.fingerprint,
        # Numerical steps need more than sums.
        row_sums=jax.tree.map(np.asarray, sums) if model.closed else None,
        **settings,
    )
    return found, twin


def ended_well(record: Run) -> np.ndarray:
    """Which runs ended where the objective may be compared with others."""
    return np.isin(record.status, WELL)


# Rows at which the densities of two ends are compared.
_LANDMARKS = 64


def landmarks(x: Array, n_rows: int) -> Array:
    """Some of the first ``n_rows``, the same more than once where these are few."""
    return rows_at(x, np.linspace(0, n_rows - 1, _LANDMARKS).astype(int))


def distinct(model: LatentModel, landmarks: Array, record: Run, total_weight: float) -> np.ndarray:
    """Which optimum each restart reached, the highest numbered 0; see `Fit.optima`.

    Ends are compared by the log density of some rows, which no renaming of the labels
    changes. If two ends lie ``SAME_OPTIMUM`` below one summit, half the squared distance
    of their parameters in the metric of the information is at most four times that, and
    half the sum over rows of squared differences of log densities estimates it.
    """
    model = model.settled(record.params)
    densities = in_slices(lambda points: _log_densities(model, points, landmarks), record.params)
    density = densities.astype(np.float64)
    height = np.where(np.isfinite(record.log_joint), record.log_joint, -np.inf)
    density = np.where(np.isfinite(height)[:, None], density, 0)

    order = np.argsort(-height, kind="stable")
    height, density = height[order], density[order]
    optimum, found = np.full(len(order), -1), 0
    for top in range(len(order)):
        if optimum[top] >= 0:
            continue
        # Heights fall along the order: the members lie in one stretch of it.
        last = np.searchsorted(-height, -height[top] + SAME_OPTIMUM, side="right")
        apart = np.mean((density[top:last] - density[top]) ** 2, axis=1) * total_weight / 2
        member = (optimum[top:last] < 0) & (apart <= 4 * SAME_OPTIMUM)
        optimum[top:last][member] = found
        found += 1
    return optimum[np.argsort(order)]


@program()
def _log_densities(model: LatentModel, params: Params, x: Array) -> Array:
    return lax.map(lambda one: model.log_prob(one, x), params)


def certainty(logits: Float[Array, "k n"], first_row: Array | int) -> tuple[Array, Array]:
    """Rows as EM labels them, and the log probability of the most probable label."""
    labels, _ = expected_labels(logits, first_row)
    return labels, jnp.log(jnp.max(labels, axis=0))


def _refuse_if_nothing_is_left(record: Run, collapse: str) -> None:
    """No fit where every restart collapsed or none ever had a finite density."""
    n_starts, collapsed = len(record.status), record.status == Status.COLLAPSED
    if collapsed.all():
        raise ValueError(
            f"all {n_starts} restart(s) collapsed: {collapse}{wider(record.trace.dtype)}"
        )
    if not np.any(np.isfinite(record.log_joint) & ~collapsed):
        raise ValueError(
            f"none of {n_starts} restart(s) found a finite objective: check that the start and the "
            "prior are in the units of the data"
        )
