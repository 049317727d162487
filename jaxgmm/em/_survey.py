"""The first reading of a stream: how many rows, which ones, their moments, and a sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxgmm._contract import LatentModel
from jaxgmm.em._moments import Moments
from jaxgmm.em._readings import Block, Readings
from jaxgmm.em._results import Digest, joined
from jaxgmm.em._stream import Stream


class Survey(NamedTuple):
    """What one reading of all rows says of them.

    Attributes
    ----------
    n_rows : int
    total_weight, n_informative : float
        Of all rows, and of those that have any value.
    fingerprint : str
        That of the same rows in memory.
    checksum : int
        The sum of the bits of all numbers, the same in any order of the rows.
    moments : Moments
        Of all rows by their weights.
    patterns : (p, D) array
        The first row of each pattern of missing values; none where nothing is missing.
    sample : (m, D) array
        Rows of a weight above zero, drawn without replacement, in their order; all of them where
        there are no more.
    sample_weight : (m,) array or None
        Their weights, where the stream has such.
    whole : bool
        Whether the sample is all of them.
    """

    n_rows: int
    total_weight: float
    n_informative: float
    fingerprint: str
    checksum: int
    moments: Moments
    patterns: Float[np.ndarray, "p d"]
    sample: Float[np.ndarray, "m d"]
    sample_weight: Float[np.ndarray, " m"] | None
    whole: bool

    def stand_in(self, of_moments: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """A few rows and their weights for what a model asks of all rows before EM.

        ``of_moments``: it asks for their number, mean and covariance, which these rows have
        exactly. Otherwise they are the sample, weighted to the number of all. Rows of weight zero
        show which values are missing together.
        """
        rows, weight = self.sample, self.sample_weight
        if self.whole and (weight is None or not len(self.patterns)):
            return rows, weight
        if not self.whole and of_moments:
            rows, weight = self.moments.in_rows(self.total_weight)
        elif weight is None:
            weight = np.full(len(rows), self.total_weight / len(rows))
        else:
            weight = weight * (self.total_weight / weight.sum(dtype=float))
        dtype, shown = self.sample.dtype, np.zeros(len(self.patterns))
        rows = np.concatenate([rows.astype(dtype), self.patterns])
        return rows, np.concatenate([weight, shown]).astype(dtype)


def survey(stream: Stream, size: int, generator: np.random.Generator, shown: Any) -> Survey:
    """Read all rows once, and draw ``size`` of them, whatever blocks they come in."""
    seen, total, n_present = Seen(stream), 0.0, 0
    nothing = np.zeros((stream.n_columns, stream.n_columns))
    moments, patterns = Moments(nothing, nothing, nothing), Patterns(stream)
    sample = _Sample(stream, size)
    for block in stream.blocks():
        rows, weight = seen.add(block)
        patterns.offer(rows)
        lots = generator.random(len(rows))
        if stream.weighted:
            present = weight > 0
            rows, weight, lots = rows[present], weight[present], lots[present]
        if len(rows):
            moments = moments.add(Moments.of(rows, weight))
            total += float(weight.sum(dtype=np.float64))
            n_present += len(rows)
        sample.offer(rows, weight, lots)
        shown.update(block.n_rows)
    if not seen.total_weight:
        raise ValueError("weight: all weights are zero, so there is no data to fit")
    empty = np.diagonal(moments.totals) == 0
    if empty.any():
        name = stream.feature_names[int(np.argmax(empty))]
        raise ValueError(f"x: column {name!r} of the stream has no value at all; leave it out")
    drawn, weights = sample.rows()
    return Survey(
        seen.n_rows,
        total,
        seen.n_informative,
        seen.fingerprint(),
        seen.checksum,
        moments,
        patterns.rows,
        drawn,
        weights if stream.weighted else None,
        whole=len(drawn) == n_present,
    )


class Patterns:
    """Rows that show which values are missing together, no more than a block has rows."""

    def __init__(self, stream: Stream) -> None:
        self.rows = np.empty((0, stream.n_columns), stream.dtype)
        self._stream = stream

    def offer(self, rows: np.ndarray) -> bool:
        """Whether there are new ones among these rows."""
        if not np.isnan(rows).any():
            return False
        known = np.concatenate([self.rows, rows])
        packed = np.packbits(np.isnan(known), axis=1)
        _, first = np.unique(packed, axis=0, return_index=True)
        count, self.rows = len(self.rows), known[np.sort(first)]
        if len(self.rows) > self._stream.block_rows:
            raise ValueError(
                f"x: the rows of the stream are missing other values in more than "
                f"{self._stream.block_rows:,} ways, the rows of a block; use a larger block_rows, "
                "or drop the columns with most holes"
            )
        return len(self.rows) > count


class Seen:
    """What tells one reading of a stream from another."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self.n_rows, self.checksum = stream, 0, 0
        # Of all rows, and of those that have any value.
        self.total_weight, self.n_informative = 0.0, 0.0
        self._rows, self._weights = Digest(), Digest()

    def add(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Rows and weights of a block, without the copies, for the fingerprint too."""
        rows, weight = self.count(block)
        any_value = ~np.all(np.isnan(rows), axis=1)
        self.n_informative += float(weight[any_value].sum(dtype=np.float64))
        self._rows.add(rows)
        if self._stream.weighted:
            self._weights.add(weight)
        return rows, weight

    def count(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """The same for number and checksum alone, whose order does not matter, nor does EM's."""
        rows, weight = block.rows[: block.n_rows], block.weight[: block.n_rows]
        for numbers in (rows, weight) if self._stream.weighted else (rows,):
            bits = np.ascontiguousarray(numbers).view(f"u{numbers.itemsize}")
            self.checksum = (self.checksum + int(np.sum(bits, dtype=np.uint64))) % 2**64
        self.n_rows += block.n_rows
        self.total_weight += float(weight.sum(dtype=np.float64))
        return rows, weight

    def fingerprint(self) -> str:
        """That of the rows so far; nothing can be added then."""
        self._rows.end(self._stream.dtype, (self.n_rows, self._stream.n_columns))
        if not self._stream.weighted:
            return str(self._rows)
        self._weights.end(self._stream.dtype, (self.n_rows,))
        return joined(str(self._rows), str(self._weights))


class _Sample:
    """A random sample: the rows with the smallest of as many random numbers, in their order."""

    def __init__(self, stream: Stream, size: int) -> None:
        self._rows = np.empty((0, stream.n_columns), stream.dtype)
        self._weights, self._lots = np.empty(0, stream.dtype), np.empty(0)
        self._size, self._most = size, np.inf

    def offer(self, rows: np.ndarray, weights: np.ndarray, lots: np.ndarray) -> None:
        hopeful = lots < self._most
        self._rows = np.concatenate([self._rows, rows[hopeful]])
        self._weights = np.concatenate([self._weights, weights[hopeful]])
        self._lots = np.concatenate([self._lots, lots[hopeful]])
        if len(self._lots) > 2 * self._size:
            self._settle()

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        self._settle()
        return self._rows, self._weights

    def _settle(self) -> None:
        if len(self._lots) > self._size:
            kept = np.sort(np.argpartition(self._lots, self._size)[: self._size])
            self._rows, self._weights = self._rows[kept], self._weights[kept]
            self._lots = self._lots[kept]
            self._most = self._lots.max()


def again(stream: Stream, seen: Survey | Seen, shown: Any) -> Iterator[Block]:
    """Read all rows once more; a `ValueError` where they are not those that were seen."""
    now = Seen(stream)
    for block in stream.blocks():
        now.count(block)
        yield block
        shown.update(block.n_rows)
    refuse_others(now.n_rows, now.checksum, seen)


def refuse_others(n_rows: int, checksum: int, seen: Survey | Seen) -> None:
    """A `ValueError` where a reading was of other rows than those that were seen."""
    if (n_rows, checksum) != (seen.n_rows, seen.checksum):
        number = f"{n_rows} rows where there were {seen.n_rows}"
        found = number if n_rows != seen.n_rows else f"other numbers in its {n_rows} rows"
        raise ValueError(
            f"x: the stream, read again, has {found}; what it reads must stay as it is, and a "
            "function that makes its blocks must make the same ones each time"
        )


def rows_of(stream: Stream, digest: str, shown: Any) -> Iterator[Block]:
    """Read all rows; a `ValueError` at the end where their fingerprint is not ``digest``.

    Who has seen them before has refused what is missing, or knows of it.
    """
    stream = stream.with_holes()
    now = Seen(stream)
    for block in stream.blocks():
        now.add(block)
        yield block
        shown.update(block.n_rows)
    if now.fingerprint() != digest:
        raise ValueError(
            "x: this stream does not have the rows of the fit, in their order and with their "
            "weights; pass the one that jaxgmm.fit was given"
        )


def surveyed(
    model: LatentModel, stream: Stream, size: int, generator: np.random.Generator, shown: Any
) -> tuple[LatentModel, Stream, Survey, tuple[Array, Array | None]]:
    """What `prepare` is of an array: a stream read once, and a model checked and resolved for it.

    Last come the rows and weights that stand in for all.
    """
    model.check_names(stream.feature_names)
    stream = stream.with_holes(model.holes)
    seen = survey(stream, size, generator, shown)
    model.check_model(*jax.tree.map(jax.device_put, (seen.sample, seen.sample_weight)))
    stand_in = jax.tree.map(jax.device_put, seen.stand_in(model.moves))
    return model.resolve(*stand_in), stream, seen, stand_in


def readings(
    model: LatentModel, stream: Stream, generator: np.random.Generator, shown: Any, size: int
) -> Readings:
    """A stream as engines take it, of which ``size`` rows stand for all where some will do.

    Parameters
    ----------
    model : LatentModel
        Checked and resolved for the rows.
    stream : Stream
        Read once here.
    generator : numpy.random.Generator
        Draws the sample.
    shown : progress bar
        Counts rows.
    size : int
        Rows of the sample.

    Returns
    -------
    Readings
    """
    check_again(stream)
    model, stream, seen, stand_in = surveyed(model, stream, size, generator, shown)
    sample, weight = jax.tree.map(jax.device_put, seen.stand_in(of_moments=False))
    return Readings(
        model,
        seen.n_rows,
        seen.total_weight,
        stream.weighted,
        seen.fingerprint,
        stream.feature_names,
        sample,
        weight,
        seen.whole,
        stand_in,
        lambda: again(stream, seen, shown),
    )


def check_again(stream: Stream) -> None:
    """Refuse a stream that can be read once."""
    if not stream.again:
        raise ValueError(
            "x: all rows are read once per iteration, and this stream can be read once; give "
            "jaxgmm.stream a function that returns a new iterator each time"
        )
