"""Few shapes of arrays, so that few programs are compiled whatever the sizes of the user's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np
from jax.core import Tracer

from jaxgmm._programs._store import program
from jaxgmm._sharded import by_itself, shared
from jaxgmm._sharded import rows_at as rows_where_they_are

# More rows are worth a program of their own.
_MOST_FILLED = 2**16

# Draws at once, and the share of them that may be computed in vain.
_SLICES, _IN_VAIN = (1024, 128, 16), 0.1


class _Fills(Protocol):
    """A model that says whether rows of weight zero change nothing."""

    @property
    def fills_up(self) -> bool: ...


def rung(count: int, octave: int = 4) -> int:
    """The next of 4, 5, 6, 7, 8, 10, 12, 14, 16, ...: few numbers of things are compiled for.

    ``octave`` is how many there are until the number has doubled, a power of two.
    """
    step = max(1, 2 ** (count.bit_length() - 1) // octave)
    return -(-count // step) * step


def size_for(n: int) -> int:
    """The number of rows that ``n`` are filled up to."""
    return n if n > _MOST_FILLED else rung(n, 8)


def on_rung(
    model: _Fills, x: jax.Array, sample_weight: jax.Array | None
) -> tuple[jax.Array, jax.Array | None]:
    """Rows `filled_up` where the model says that it takes such."""
    return filled_up(x, sample_weight) if model.fills_up else (x, sample_weight)


def filled_up(x: jax.Array, sample_weight: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """Rows filled up to the next number that is compiled for, by copies of weight zero.

    At most an eighth of them is added, to no more than `_MOST_FILLED` rows on one device. Where
    there were no weights, what comes back says which rows are there: sums that read truth values
    know that none counts twice.
    """
    n = x.shape[0]
    traced = isinstance(x, Tracer) or isinstance(sample_weight, Tracer)
    if traced or n > _MOST_FILLED or shared(x):
        return x, sample_weight
    weight = np.ones(n, bool) if sample_weight is None else np.asarray(sample_weight)
    weight = np.concatenate([weight, np.zeros(size_for(n) - n, weight.dtype)])
    return jax.device_put((filled(x, len(weight)), weight), place_of(x))


def place_of(x: Any) -> Any:
    """Where an array of JAX's is tied to; None where it may be anywhere."""
    return x.sharding if getattr(x, "committed", False) else None


def filled(values: Any, size: int) -> np.ndarray:
    """Rows up to ``size``, the last one copied."""
    values = np.asarray(values)
    if size == len(values):
        return values
    return np.concatenate([values, np.repeat(values[-1:], size - len(values), axis=0)])


def of_each_row(call: Callable[[Any], Any], model: _Fills, x: jax.Array) -> jax.Array:
    """What ``call`` makes of each row, (n, ...): of rows on the next rung, cut to those there."""
    rows, there = on_rung(model, x, None)
    found = call(rows)
    if there is None:
        return found
    n = x.shape[0]
    return found[:n] if isinstance(found, Tracer) else jax.device_put(np.asarray(found)[:n])


def in_slices(
    call: Callable[[Any], Any], draws: Any, axes: int = 1, size: int | None = None
) -> Any:
    """What ``call`` makes of a pytree of draws, a slice of them at a time, on the host.

    Slices are of few sizes, so that few programs are compiled whatever the number of draws;
    the last draw fills up the last one.

    Parameters
    ----------
    call : callable
        From draws (size, ...) to a pytree of (size, ...).
    draws : pytree
        Whose leaves have ``axes`` leading axes.
    size : int, optional
        Of a slice. The largest that computes at most a tenth too much.
    """
    leaves, structure = jax.tree.flatten(draws)
    lead = np.shape(leaves[0])[:axes]
    count = math.prod(lead)
    flat = [np.asarray(leaf).reshape(count, *np.shape(leaf)[axes:]) for leaf in leaves]
    if size is None:
        size = next((s for s in _SLICES if -count % s <= _IN_VAIN * count), _SLICES[-1])
    parts = []
    for first in range(0, count, size):
        index = np.minimum(np.arange(first, first + size), count - 1)
        part = call(jax.tree.unflatten(structure, [leaf[index] for leaf in flat]))
        parts.append(jax.tree.map(np.asarray, part))
    whole = lambda *found: np.concatenate(found)[:count].reshape((*lead, *found[0].shape[1:]))
    return jax.tree.map(whole, *parts)


def rows_at(x: jax.Array, index: np.ndarray) -> jax.Array:
    """Some rows; of many, taken where they are."""
    if shared(x):
        return by_itself(_rows_at(x, index))
    if x.shape[0] > _MOST_FILLED:
        return _rows_at(x, index)
    return jax.device_put(np.asarray(x)[index], place_of(x))


@program()
def _rows_at(x: jax.Array, index: np.ndarray) -> jax.Array:
    return rows_where_they_are(x, index)
