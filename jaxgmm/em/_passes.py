"""EM on rows that are read anew for every iteration: one pass each, one block in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from jaxgmm._checks import check_count, check_key, key_numbers
from jaxgmm._contract import LatentModel, Params, expected_labels
from jaxgmm._programs import program
from jaxgmm.em._loop import RUNNING, Ends, Slot, as_run, entered, verdict_on
from jaxgmm.em._online import refuse_numerical
from jaxgmm.em._progress import bar
from jaxgmm.em._record import WELL, Rows, best_fit, certainty, landmarks
from jaxgmm.em._results import Fit, RowSums, Run, Status
from jaxgmm.em._saddle import Twins, twins
from jaxgmm.em._step import Move, choose, evaluated, next_params, unevaluated
from jaxgmm.em._stream import Stream
from jaxgmm.em._sums import Sums
from jaxgmm.em._survey import check_again, surveyed

# Of the ends that restarts have on the sample, so many go on with all rows.
_FINALISTS = 3


def fit_stream(
    model: LatentModel,
    stream: Stream,
    in_memory: Callable[..., Fit],
    *,
    key: Any,
    n_init: int,
    start: Any,
    tol: float | None,
    max_iter: int,
    subsample: int,
    passes: int,
) -> Fit:
    """`jaxgmm.fit` of a stream: restarts on a sample, by ``in_memory``; the best on all rows."""
    check_count("subsample", subsample, 1)
    check_count("passes", passes, 0)
    check_again(stream)
    refuse_numerical(model)
    if isinstance(start, (list, np.ndarray, jax.Array)):
        raise ValueError(
            "start: responsibilities belong to rows in memory; for a stream give a name, "
            "parameters, or a function of a key that returns them"
        )
    seed = None if key is None else key_numbers(check_key(key, "starts are random"))
    drawing = jax.random.key(0)  # where no start is random, the sample decides nothing
    if key is not None:
        key, drawing = jax.random.split(key)
    generator = np.random.default_rng(key_numbers(drawing))
    given = not (start is None or isinstance(start, str) or callable(start))

    with bar("EM on a stream", True, unit="rows") as shown:
        model, stream, seen, stand_in = surveyed(model, stream, subsample, generator, shown)
        sample, weights = jax.tree.map(jax.device_put, (seen.sample, seen.sample_weight))
        steps = 0 if given else max_iter
        options = {"n_init": n_init, "start": start, "tol": tol, "max_iter": steps}
        found = in_memory(model, sample, key=key, sample_weight=weights, **options)
        ends = found.restarts.params if given else _finalists(found)
        working, starts = _in_working_units(model, stand_in, ends)

        read = Sums(working, stream, seen, shown).at
        slots, nothing = _entered(working, starts, sample)
        weight, tolerance = (
            jnp.asarray(seen.total_weight, sample.dtype),
            jnp.asarray(found.tol, sample.dtype),
        )
        trace = np.full((len(slots.status), passes + 1), np.nan, sample.dtype)
        while np.any(running := np.asarray(slots.status) == RUNNING):
            params = _next(working, slots)
            sums = read(params, slots.status, nothing, expected_labels)
            slots = _judged(working, slots, params, sums, weight, tolerance, passes)
            here = np.flatnonzero(running)
            trace[here, np.asarray(slots.n_iter)[here]] = np.asarray(slots.point.objective)[here]
        record = _as_run(working, slots, trace)

        def labels_at(params: Params) -> tuple[Array, Array, Twins, RowSums]:
            one = jax.tree.map(lambda leaf: leaf[None], params)
            _, one = _in_working_units(model, stand_in, one)
            slots, nothing = _entered(working, one, sample)
            sums = read(one, slots.status, nothing, certainty)
            return _labels_at(working, one, sums, sample, weights)

        n, total = seen.n_rows, seen.total_weight
        rows = Rows(n, total, seen.n_informative, landmarks(sample, len(sample)), seen.fingerprint)
        settings = {
            "tol": found.tol,
            "max_iter": passes,
            "algorithm": "em",
            "acceleration": None,
            "feature_names": stream.feature_names,
            "start": found.start,
            "seed": seed,
        }
        best, twin = best_fit(model, record, rows, labels_at, settings)
    # On the sample the fit was pushed off saddles already.
    saddle = best.converged and twin.coincide and not model.bounded()
    return dataclasses.replace(best, status=Status.SADDLE) if saddle else best


def _finalists(found: Fit) -> Params:
    """The best distinct ends on the sample, as a stack."""
    heads = [optimum.starts[0] for optimum in found.optima if optimum.status in WELL]
    usable = [i for i in heads if not found.restarts.spurious[i]][:_FINALISTS]
    chosen = np.array(usable or [found.best])
    return jax.tree.map(lambda leaf: jax.device_put(leaf[chosen]), found.restarts.params)


@program()
def _in_working_units(
    model: LatentModel, stand_in: tuple[Array, Array | None], params: Params
) -> tuple[LatentModel, Params]:
    working = model.standardise(*stand_in)
    return working, jax.vmap(working.to_working)(params)


@program()
def _entered(model: LatentModel, starts: Params, sample: Array) -> tuple[Slot, Any]:
    """The slots of starts, and sums of no rows."""

    def enter(params: Params, number: Array) -> Slot:
        return entered(unevaluated(model, params, sample), None, number)

    slots = jax.vmap(enter)(starts, jnp.arange(len(jax.tree.leaves(starts)[0])))
    point = slots.point
    return slots, jax.tree.map(jnp.zeros_like, (point.statistics, point.log_likelihood))


@program()
def _next(model: LatentModel, slots: Slot) -> Params:
    return lax.map(lambda point: next_params(model, point), slots.point)


@program()
def _judged(
    model: LatentModel,
    slots: Slot,
    params: Params,
    sums: Any,
    total: Array,
    tol: Array,
    passes: int,
) -> Slot:
    """What the loop in memory makes of an iteration (see `jaxgmm.em._loop`)."""
    verdict = verdict_on(model, total, tol, passes, finite=True, leaps=False)

    def one(each: Any) -> Slot:
        slot, params, (statistics, log_likelihood) = each
        point = evaluated(model, params, statistics, log_likelihood)
        judged = verdict(slot, point, None, jnp.int32(Move.EM))
        return choose(slot.status == RUNNING, judged, slot)

    return lax.map(one, (slots, params, sums))


@program()
def _as_run(model: LatentModel, slots: Slot, trace: Array) -> Run:
    ends = slots.point, slots.rate, slots.status, slots.n_iter, slots.n_evaluations
    return as_run(model, Ends(*ends, trace))


@program()
def _labels_at(
    model: LatentModel, params: Params, sums: Any, sample: Array, weights: Array | None
) -> tuple[Array, Array, Twins, RowSums]:
    here, (statistics, total) = jax.tree.map(lambda leaf: leaf[0], (params, sums))
    alike = twins(model, here, sample, weights)
    return total, model.empty(here, statistics), alike, RowSums(model, statistics)
