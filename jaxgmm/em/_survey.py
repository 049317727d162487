"""The first reading of a stream: how many rows, which ones, their moments, and a sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from jaxgmm._contract import LatentModel
from jaxgmm.em._readings import Block, Readings
from jaxgmm.em._results import Digest, joined
from jaxgmm.em._stream import Stream


class Survey(NamedTuple):
    """What one reading of all rows says of them.

    Attributes
    ----------
    n_rows : int
    total_weight : float
    fingerprint : str
        That of the same rows in memory.
    checksum : int
        The sum of the bits of all numbers, the same in any order of the rows.
    mean, covariance : (D,) and (D, D) float64 arrays
        Of all rows by their weights, of which the sum is the divisor.
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
    fingerprint: str
    checksum: int
    mean: Float[np.ndarray, " d"]
    covariance: Float[np.ndarray, "d d"]
    sample: Float[np.ndarray, "m d"]
    sample_weight: Float[np.ndarray, " m"] | None
    whole: bool

    def stand_in(self, of_moments: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """A few rows and their weights for what a model asks of all rows before EM.

        ``of_moments``: it asks for their number, mean and covariance, which these rows have
        exactly. Otherwise they are the sample, weighted to the number of all.
        """
        rows, weight = self.sample, self.sample_weight
        if self.whole:
            return rows, weight
        if of_moments:
            # Pairs on either side of the mean along the principal axes.
            values, vectors = np.linalg.eigh(self.covariance)
            arms = (vectors * np.sqrt(np.maximum(values, 0) * len(values))).T
            rows = (self.mean + np.concatenate([arms, -arms])).astype(rows.dtype)
        elif weight is not None:
            return rows, (weight * (self.total_weight / weight.sum(dtype=float))).astype(rows.dtype)
        return rows, np.full(len(rows), self.total_weight / len(rows), rows.dtype)


def survey(stream: Stream, size: int, generator: np.random.Generator, shown: Any) -> Survey:
    """Read all rows once, and draw ``size`` of them, whatever blocks they come in."""
    seen, total, n_present = Seen(stream), 0.0, 0
    mean, scatter = np.zeros(stream.n_columns), np.zeros((stream.n_columns,) * 2)
    sample = _Sample(stream, size)
    for block in stream.blocks():
        rows, weight = seen.add(block)
        lots = generator.random(len(rows))
        if stream.weighted:
            present = weight > 0
            rows, weight, lots = rows[present], weight[present], lots[present]
        if len(rows):
            # Moments of two sets together (Chan, Golub and LeVeque, 1983).
            wide, by = rows.astype(np.float64), weight.astype(np.float64)
            more = float(by.sum())
            own = by @ wide / more
            centred, apart, both = wide - own, own - mean, total + more
            scatter += (by * centred.T) @ centred + np.outer(apart, apart) * (total * more / both)
            mean += apart * (more / both)
            total, n_present = both, n_present + len(rows)
        sample.offer(rows, weight, lots)
        shown.update(block.n_rows)
    if not seen.total_weight:
        raise ValueError("weight: all weights are zero, so there is no data to fit")
    drawn, weights = sample.rows()
    return Survey(
        seen.n_rows,
        total,
        seen.fingerprint(),
        seen.checksum,
        mean,
        scatter / total,
        drawn,
        weights if stream.weighted else None,
        whole=len(drawn) == n_present,
    )


class Seen:
    """What tells one reading of a stream from another."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self.n_rows, self.checksum, self.total_weight = stream, 0, 0, 0.0
        self._rows, self._weights = Digest(), Digest()

    def add(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Rows and weights of a block, without the copies, for the fingerprint too."""
        rows, weight = self.count(block)
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
    if (now.n_rows, now.checksum) != (seen.n_rows, seen.checksum):
        number = f"{now.n_rows} rows where there were {seen.n_rows}"
        found = number if now.n_rows != seen.n_rows else f"other numbers in its {now.n_rows} rows"
        raise ValueError(
            f"x: the stream, read again, has {found}; what it reads must stay as it is, and a "
            "function that makes its blocks must make the same ones each time"
        )


def rows_of(stream: Stream, digest: str, shown: Any) -> Iterator[Block]:
    """Read all rows; a `ValueError` at the end where their fingerprint is not ``digest``."""
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


def readings(
    model: LatentModel, stream: Stream, generator: np.random.Generator, shown: Any, size: int
) -> Readings:
    """A stream as engines take it, of which ``size`` rows stand for all where some will do.

    Parameters
    ----------
    model : LatentModel
        Which rows stand in for all depends on it.
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
    model.check_names(stream.feature_names)
    seen = survey(stream, size, generator, shown)
    sample, weight = jax.tree.map(jax.device_put, seen.stand_in(of_moments=False))
    return Readings(
        seen.n_rows,
        seen.total_weight,
        stream.weighted,
        seen.fingerprint,
        stream.feature_names,
        sample,
        weight,
        seen.whole,
        jax.tree.map(jax.device_put, seen.stand_in(model.moves)),
        lambda: again(stream, seen, shown),
    )


def check_again(stream: Stream) -> None:
    """Refuse a stream that can be read once."""
    if not stream.again:
        raise ValueError(
            "x: all rows are read once per iteration, and this stream can be read once; give "
            "jaxgmm.stream a function that returns a new iterator each time"
        )
