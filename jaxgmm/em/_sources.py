"""Where the rows of a stream come from: each kind of source as pieces, in order, with places.

pyarrow is asked for only by Parquet files; Dask, HDF5 and Zarr are known by what they can do.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_PARQUET = (".parquet", ".pq")


class Piece(NamedTuple):
    """Some rows, and where they stand.

    Attributes
    ----------
    rows : array or table of m rows
    place : str
        What holds them, such as ``"a.parquet, row group 3"``; empty where all are one array.
    first : int
        Index of the first of them in that place.
    """

    rows: Any
    place: str
    first: int


class Source(NamedTuple):
    """Rows that can be read from the first to the last.

    Attributes
    ----------
    pieces : () -> iterator of Piece
        Every call begins anew.
    title : str
        What it is, in words.
    again : bool
        Whether there can be a second call.
    partitions : () -> list of Delayed, or None
        Of a Dask collection, each of them a piece.
    """

    pieces: Callable[[], Iterator[Piece]]
    title: str
    again: bool = True
    partitions: Callable[[], list[Any]] | None = None


def source_of(source: Any, columns: Sequence[Any] | None, rows: int) -> Source:
    """A source of any known kind, cut into ``rows`` at a time where it is one array.

    Of Parquet files only ``columns`` are read; other pieces hold all columns.
    """
    if isinstance(source, (str, os.PathLike)):
        return _file(Path(source), columns, rows)
    if hasattr(source, "to_delayed"):
        return _dask(source)
    if isinstance(source, (list, tuple)):
        return Source(lambda: _blocks(source), f"list of {len(source)} blocks")
    if hasattr(source, "shape") and hasattr(source, "__getitem__"):
        return _array(source, rows, type(source).__name__)
    if isinstance(source, Iterator):
        return read_once(_blocks(source))
    if callable(source):
        return Source(lambda: _blocks(source()), "function that returns blocks")
    raise TypeError(
        "source: needs a Parquet file or folder, a .npy file, an array that can be sliced, a Dask "
        "collection, a list of blocks, or a function that returns an iterator of them; found "
        f"{type(source).__name__}"
    )


def read_once(pieces: Iterator[Piece]) -> Source:
    """Pieces that are gone once they are read."""
    left = [pieces]

    def begin() -> Iterator[Piece]:
        if not left:
            raise ValueError(
                "source: an iterator is read once, and its rows are gone; pass a function that "
                "returns a new iterator each time"
            )
        return left.pop()

    return Source(begin, "iterator of blocks, read once", again=False)


def _blocks(blocks: Any) -> Iterator[Piece]:
    for number, rows in enumerate(blocks):
        if not hasattr(rows, "shape"):
            raise TypeError(
                f"source: block {number} needs to be an array or a table, found a "
                f"{type(rows).__name__}"
            )
        yield Piece(rows, f"block {number}", 0)


def _array(array: Any, rows: int, title: str) -> Source:
    def pieces() -> Iterator[Piece]:
        for first in range(0, array.shape[0], rows):
            yield Piece(array[first : first + rows], "", first)

    return Source(pieces, title)


def _dask(collection: Any) -> Source:
    """Partition by partition, each computed by the scheduler that Dask is set to."""
    if getattr(collection, "ndim", 1) == 2 and hasattr(collection, "rechunk"):
        collection = collection.rechunk({1: -1})  # no row in two chunks

    def partitions() -> list[Any]:
        return list(np.ravel(np.asarray(collection.to_delayed(), object)))

    def pieces() -> Iterator[Piece]:
        for number, part in enumerate(partitions()):
            yield from partition(number, part.compute()).pieces()

    return Source(pieces, f"Dask {type(collection).__name__}", partitions=partitions)


def partition(number: int, rows: Any) -> Source:
    """One of the partitions of a Dask collection."""
    return Source(lambda: iter([Piece(rows, f"partition {number}", 0)]), "Dask partition")


def _file(path: Path, columns: Sequence[Any] | None, rows: int) -> Source:
    if not path.exists():
        raise FileNotFoundError(f"source: there is no {path}")
    if path.suffix == ".npy":
        return _array(np.load(path, mmap_mode="r"), rows, path.name)
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.suffix in _PARQUET]
        if not files:
            raise ValueError(f"source: the folder {path} holds no Parquet file")
    elif path.suffix in _PARQUET:
        files = [path]
    else:
        raise ValueError(
            f"source: {path.name} is neither Parquet nor .npy; open it, and pass an array that can "
            "be sliced or a function that returns an iterator of blocks"
        )
    return Source(lambda: _parquet(files, columns, rows), path.name)


def _parquet(files: list[Path], columns: Sequence[Any] | None, rows: int) -> Iterator[Piece]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise ImportError(
            "source: Parquet files are read by pyarrow: pip install 'jaxgmm[large]'"
        ) from None
    for path in files:
        with _whole(path):
            file = parquet.ParquetFile(path)
        with file:
            known = file.schema_arrow.names
            for name in known if columns is None else columns:
                if name not in known:
                    raise ValueError(
                        f"columns: {path.name} has no column {name!r}; it has "
                        f"{', '.join(map(repr, known))}"
                    )
            for group in range(file.num_row_groups):
                first, batches = 0, file.iter_batches(rows, [group], columns)
                while True:
                    with _whole(path):
                        batch = next(batches, None)
                    if batch is None:
                        break
                    yield Piece(batch, f"{path.name}, row group {group}", first)
                    first += batch.num_rows


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    """What pyarrow says of a file that was not written to its end, or has changed since."""
    try:
        yield
    except (OSError, ValueError) as error:  # its own errors are among these
        raise ValueError(
            f"source: {path} cannot be read as Parquet, so it may be truncated ({error}); write it "
            "again, or leave it out"
        ) from None
