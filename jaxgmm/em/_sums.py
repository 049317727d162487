"""Sums over all rows of a stream, block by block: read here, or where a cluster has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jaxtyping import Array

from jaxgmm._contract import Assignment, LatentModel, Params
from jaxgmm._programs import program, size_for
from jaxgmm.em._loop import RUNNING
from jaxgmm.em._sources import partition
from jaxgmm.em._stream import Stream
from jaxgmm.em._survey import Seen, Survey, again, refuse_others


class Sums:
    """Statistics and log-likelihoods of all rows at each of some parameters.

    Where Dask is set to a cluster, its workers sum their partitions of a collection, and what
    comes back has the size of the parameters. By cloudpickle they get what they need, the model
    with its functions too, and run it: it is the user's cluster.

    Parameters
    ----------
    model : LatentModel
        In working units.
    stream : Stream
    seen : Survey
        What its first reading said; a `ValueError` where another one differs.
    shown : progress bar
        Counts rows.
    """

    def __init__(self, model: LatentModel, stream: Stream, seen: Survey, shown: Any) -> None:
        self._model, self._stream, self._seen, self._shown = model, stream, seen, shown
        self._client = _cluster(stream)
        if self._client is not None:
            # Once for all readings, so that a function is the same one to the compiler.
            wide = jax.config.jax_enable_x64  # type: ignore
            # As NumPy's, since JAX's arrays may arrive narrowed.
            told = jax.tree.map(np.asarray, model), stream.over(partition(0, ())), wide
            self._told = self._send(_Told(*told))

    def at(self, params: Params, status: Array, nothing: Any, assign: Assignment) -> Any:
        """One reading. Nothing is computed for parameters whose status is not running.

        ``nothing`` are sums of no rows, stacked like ``params``.
        """
        sums = nothing
        if self._client is not None:
            for more in self._by_partition(params, status, nothing, assign):
                sums = _together(self._model, sums, more)
            return sums
        for block in again(self._stream, self._seen, self._shown):
            rows = block.rows, block.weight
            sums = _with_block(self._model, params, status, sums, *rows, assign=assign)
        return sums

    def _send(self, thing: Any) -> Any:
        """Something to all workers, as one."""
        return self._client.scatter([thing], broadcast=True, hash=False)[0]

    def _by_partition(self, *numbers: Any) -> Iterator[Any]:
        from dask import delayed

        *arrays, assign = numbers
        sent = self._send(jax.tree.map(np.asarray, arrays))
        assert self._stream.partitions is not None
        task, parts = delayed(_of_partition, pure=False), self._stream.partitions()
        tasks = [task(self._told, i, part, sent, assign) for i, part in enumerate(parts)]
        n_rows, checksum = 0, 0
        # In their order, so that two readings add up to the same digits.
        for future in self._client.compute(tasks):
            sums, n_rows_there, checksum_there = future.result()
            n_rows, checksum = n_rows + n_rows_there, (checksum + checksum_there) % 2**64
            self._shown.update(n_rows_there)
            yield sums
        refuse_others(n_rows, checksum, self._seen)


class _Told(NamedTuple):
    """What workers are told once."""

    model: LatentModel
    stream: Stream  # its source stays here
    wide: bool  # whether JAX's x64 switch is on


def _cluster(stream: Stream) -> Any:
    """The client of the cluster that Dask is set to, where it has the stream's partitions."""
    if stream.partitions is None:
        return None
    from dask.base import get_scheduler

    client = getattr(get_scheduler(), "__self__", None)
    return client if hasattr(client, "scatter") else None


def _of_partition(
    told: _Told, number: int, part: Any, sent: Any, assign: Assignment
) -> tuple[Any, int, int]:
    """Sums, number of rows and checksum of a partition, on the worker that has it."""
    stream, (params, status, sums) = told.stream.over(partition(number, part)), sent
    stream.block_rows = min(stream.block_rows, size_for(max(1, len(part))))
    seen = Seen(stream)
    with jax.enable_x64(told.wide):
        for block in stream.blocks():
            seen.count(block)
            rows = block.rows, block.weight
            sums = _with_block(told.model, params, status, sums, *rows, assign=assign)
        return jax.tree.map(np.asarray, sums), seen.n_rows, seen.checksum


@program(newer=True, static_argnames="assign")
def _with_block(
    model: LatentModel,
    params: Params,
    status: Array,
    sums: Any,
    rows: Array,
    weight: Array,
    assign: Assignment,
) -> Any:
    """Statistics and log-likelihoods at each of the parameters, a block of rows added."""

    def one(each: Any) -> Any:
        params, status, (statistics, total) = each

        def added() -> Any:
            more, log_likelihood = model.e_step(params, rows, weight, assign)
            return model.add(statistics, more), total + log_likelihood

        return lax.cond(status == RUNNING, added, lambda: (statistics, total))

    return lax.map(one, (params, status, sums))


@program()
def _together(model: LatentModel, one: Any, other: Any) -> Any:
    """Sums of two sets of rows."""

    def both(pair: Any) -> Any:
        (statistics, total), (more, log_likelihood) = pair
        return model.add(statistics, more), total + log_likelihood

    return lax.map(both, (one, other))
