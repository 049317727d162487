"""The first reading of a stream: how many rows, which ones, their moments, and a sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxgmm._results import Digest
from jaxgmm.em._stream import Block, Stream


class Survey(NamedTuple):
    """What one reading of all rows says of them.

    Attributes
    ----------
    n_rows : int
    fingerprint : str
        That of the same rows in memory.
    checksum : int
        The sum of the bits of all numbers, the same in any order of the rows.
    mean, covariance : (D,) and (D, D) float64 arrays
        Of all rows; the divisor is their number.
    sample : (m, D) array
        Rows drawn without replacement, in their order; all rows where there are no more.
    """

    n_rows: int
    fingerprint: str
    checksum: int
    mean: Float[np.ndarray, " d"]
    covariance: Float[np.ndarray, "d d"]
    sample: Float[np.ndarray, "m d"]

    def stand_in(self, of_moments: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """A few rows and their weights for what a model asks of all rows before EM.

        ``of_moments``: it asks for their number, mean and covariance, which these rows have
        exactly. Otherwise they are the sample, weighted to the number of all.
        """
        if self.n_rows == len(self.sample):
            return self.sample, None
        rows = self.sample
        if of_moments:
            # Pairs on either side of the mean along the principal axes.
            values, vectors = np.linalg.eigh(self.covariance)
            arms = (vectors * np.sqrt(np.maximum(values, 0) * len(values))).T
            rows = (self.mean + np.concatenate([arms, -arms])).astype(rows.dtype)
        return rows, np.full(len(rows), self.n_rows / len(rows), rows.dtype)


def survey(stream: Stream, size: int, generator: np.random.Generator, shown: Any) -> Survey:
    """Read all rows once, and draw ``size`` of them, whatever blocks they come in."""
    digest, n_rows, checksum = Digest(), 0, 0
    mean, scatter = np.zeros(stream.n_columns), np.zeros((stream.n_columns,) * 2)
    sample = _Sample(stream, size)
    for block in stream.blocks():
        rows = block.rows[: block.n_rows]
        digest.add(rows)
        checksum = _checksum(rows, checksum)
        # Moments of two sets together (Chan, Golub and LeVeque, 1983).
        wide = rows.astype(np.float64)
        own = wide.mean(axis=0)
        centred, apart, both = wide - own, own - mean, n_rows + len(rows)
        scatter += centred.T @ centred + np.outer(apart, apart) * (n_rows * len(rows) / both)
        mean += apart * (len(rows) / both)
        n_rows = both
        sample.offer(rows, generator.random(len(rows)))
        shown.update(len(rows))
    digest.end(stream.dtype, (n_rows, stream.n_columns))
    return Survey(n_rows, str(digest), checksum, mean, scatter / n_rows, sample.rows())


class _Sample:
    """A random sample: the rows with the smallest of as many random numbers, in their order."""

    def __init__(self, stream: Stream, size: int) -> None:
        self._rows, self._lots = np.empty((0, stream.n_columns), stream.dtype), np.empty(0)
        self._size, self._most = size, np.inf

    def offer(self, rows: np.ndarray, lots: np.ndarray) -> None:
        hopeful = lots < self._most
        self._rows = np.concatenate([self._rows, rows[hopeful]])
        self._lots = np.concatenate([self._lots, lots[hopeful]])
        if len(self._lots) > 2 * self._size:
            self._settle()

    def rows(self) -> np.ndarray:
        self._settle()
        return self._rows

    def _settle(self) -> None:
        if len(self._lots) > self._size:
            kept = np.sort(np.argpartition(self._lots, self._size)[: self._size])
            self._rows, self._lots = self._rows[kept], self._lots[kept]
            self._most = self._lots.max()


def again(stream: Stream, seen: Survey, shown: Any) -> Iterator[Block]:
    """Read all rows once more; a `ValueError` where they are not those that were seen."""
    n_rows, checksum = 0, 0
    for block in stream.blocks():
        rows = block.rows[: block.n_rows]
        n_rows, checksum = n_rows + len(rows), _checksum(rows, checksum)
        yield block
        shown.update(len(rows))
    if (n_rows, checksum) != (seen.n_rows, seen.checksum):
        number = f"{n_rows} rows where there were {seen.n_rows}"
        found = number if n_rows != seen.n_rows else f"other numbers in its {n_rows} rows"
        raise ValueError(
            f"x: the stream, read again, has {found}; what it reads must stay as it is, and a "
            "function that makes its blocks must make the same ones each time"
        )


def _checksum(rows: np.ndarray, before: int) -> int:
    """Sums do not depend on the order of rows, nor does EM."""
    bits = np.ascontiguousarray(rows).view(f"u{rows.itemsize}")
    return (before + int(np.sum(bits, dtype=np.uint64))) % 2**64
