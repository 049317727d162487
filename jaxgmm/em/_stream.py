"""Rows that do not fit in memory, in blocks of one size, so that one program serves all."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
from jaxtyping import Float

from jaxgmm._checks import check_count, warn_of_narrowing
from jaxgmm._tables import numeric, own_names, place
from jaxgmm.em._sources import Piece, Source, read_once, source_of


class Block(NamedTuple):
    """Rows, as many in every block of a stream.

    Attributes
    ----------
    rows : (B, D) array
        The last block ends with copies of its last row.
    weight : (B,) array
        One, and zero for those copies.
    n_rows : int
        How many there are without them.
    """

    rows: Float[np.ndarray, "b d"]
    weight: Float[np.ndarray, " b"]
    n_rows: int


class Stream:
    """Rows that are read in blocks, as often as they are needed; made by `stream`.

    Attributes
    ----------
    n_columns : int
        Number of features D.
    feature_names : tuple of str
        Their names, ``x0, x1, ...`` where the source has none.
    dtype : numpy.dtype
        float32 or float64, of every block.
    block_rows : int
        Rows of a block.
    again : bool
        Whether the rows can be read more than once.
    """

    def __init__(
        self,
        source: Source,
        positions: list[int] | None,
        names: tuple[str, ...] | None,
        first: np.ndarray,
        block_rows: int,
    ) -> None:
        self._source, self._positions, self._names = source, positions, names
        self.n_columns, self.dtype = first.shape[1], first.dtype
        self.feature_names = names or tuple(f"x{j}" for j in range(self.n_columns))
        self.block_rows, self.again = block_rows, source.again

    def __repr__(self) -> str:
        return (
            f"Stream of {self._source.title}: {self.n_columns} column(s) of {self.dtype}, "
            f"blocks of {self.block_rows:,} rows"
        )

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "a stream is not held in memory: jaxgmm.fit reads it, stream.map hands on its blocks"
        )

    def blocks(self) -> Iterator[Block]:
        """Read all rows from the first to the last.

        Returns
        -------
        iterator of Block
            The next block is read, in a thread, while this one is used.

        Raises
        ------
        ValueError
            Where a number is not finite, a piece has another width or a file is not whole;
            names the place.
        """
        return _read_ahead(self._cut())

    def map(self, function: Callable[[Any], Any]) -> Iterator[np.ndarray]:
        """What a function of rows makes of each row, block by block.

        Parameters
        ----------
        function : callable
            From (B, D) rows to an array of B rows, such as a method of a fitted model. It gets
            blocks of one size; what it makes of the copies in the last is left out.

        Returns
        -------
        iterator of arrays
            The leading axes together are the rows of the stream.

        Examples
        --------
        >>> import jax
        >>> import numpy as np
        >>> import jaxgmm as jg
        >>> rows = jg.stream(jg.datasets.load("faithful").x, block_rows=100)
        >>> model = jg.Mixture(jg.Gaussian(), 2)
        >>> fit = jg.fit(model, rows, key=jax.random.key(0), n_init=4)
        >>> labels = rows.map(lambda x: fit.model.predict(fit.params, x))
        >>> [len(block) for block in labels]
        [100, 100, 72]
        """
        return (np.asarray(function(block.rows))[: block.n_rows] for block in self.blocks())

    def _cut(self) -> Iterator[Block]:
        """Blocks of one size, wherever the pieces of the source begin and end."""
        rows, held = self._empty(), 0
        for piece in self._source.pieces():
            array = self._numbers(piece)
            while len(array):
                taken = min(len(array), self.block_rows - held)
                rows[held : held + taken] = array[:taken]
                array, held = array[taken:], held + taken
                if held == self.block_rows:
                    yield Block(rows, np.ones(held, self.dtype), held)
                    rows, held = self._empty(), 0
        if held:
            rows[held:] = rows[held - 1]
            weight = (np.arange(self.block_rows) < held).astype(self.dtype)
            yield Block(rows, weight, held)

    def _empty(self) -> np.ndarray:
        return np.empty((self.block_rows, self.n_columns), self.dtype)

    def _numbers(self, piece: Piece) -> np.ndarray:
        """The columns of a piece, finite and as many as in the first."""
        array = _as_rows(piece)
        where = f"{piece.place} of the source" if piece.place else "the source"
        names = own_names(piece.rows)
        if self._positions is not None and array.shape[1] > max(self._positions):
            array = array[:, self._positions]
            names = names and tuple(names[j] for j in self._positions)
        if array.shape[1] != self.n_columns or names != self._names:
            found = f"columns {', '.join(names)}" if names else f"{array.shape[1]} column(s)"
            raise ValueError(
                f"source: {where} has {found}, and its first rows have {self.n_columns}: "
                f"{', '.join(self.feature_names)}; all need the same, in the same order"
            )
        finite = np.isfinite(array)
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            inside = f"{piece.place}, " if piece.place else ""
            raise ValueError(
                f"source: non-finite value {array[row, column]} at {inside}"
                f"{place(self._names, piece.first + row, column)}; drop or impute such rows"
            )
        return array


def stream(
    source: Any, *, columns: Sequence[Any] | None = None, block_rows: int = 65_536
) -> Stream:
    """Rows that do not fit in memory, for `jaxgmm.fit`.

    Parameters
    ----------
    source : path, array, Dask collection, list or callable
        A Parquet file or a folder of them (read in the order of their names; needs pyarrow); a
        ``.npy`` file; anything with a shape that can be sliced, such as a memory map or an
        array of HDF5 or Zarr; a Dask array or data frame, read partition by partition; a list
        of blocks, arrays or tables; or a function without arguments that returns an iterator
        of blocks. An iterator itself can be read once only.
    columns : sequence of str or int, optional
        Columns to read, by name where the source has names, else by index; all by default.
    block_rows : int
        Rows that are in memory at once.

    Returns
    -------
    Stream

    Raises
    ------
    ValueError, TypeError
        For a source of another kind, one without rows, columns that it does not have, and a
        file that is not whole.
    ImportError
        For Parquet files without pyarrow, which is in the extra ``large``.

    Notes
    -----
    The first rows are read here, for their number of columns and dtype. float64 needs JAX's x64
    switch, as in `jaxgmm.fit`; rows far from zero are not centred without it.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxgmm as jg
    >>> jg.stream([np.zeros((3, 2)), np.ones((4, 2))], block_rows=5)
    Stream of list of 2 blocks: 2 column(s) of float64, blocks of 5 rows
    """
    check_count("block_rows", block_rows, 1)
    found = source_of(source, columns, block_rows)
    pieces = found.pieces()
    piece = next((piece for piece in pieces if len(piece.rows)), None)
    if piece is None:
        raise ValueError("source: has no rows")
    if not found.again:
        found = read_once(itertools.chain([piece], pieces))
    first, names = _as_rows(piece), own_names(piece.rows)
    positions = None
    if columns is not None:
        positions = [_position(column, names, first.shape[1]) for column in columns]
        first = first[:, positions]
        names = names and tuple(names[j] for j in positions)
    if first.shape[1] == 0:
        raise ValueError("source: has no columns")
    narrow = jax.dtypes.canonicalize_dtype(first.dtype)
    if first.dtype != narrow:
        warn_of_narrowing(stacklevel=3)
    return Stream(found, positions, names, first.astype(narrow), block_rows)


def _as_rows(piece: Piece) -> np.ndarray:
    array = numeric("source", piece.rows)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        where = piece.place or "the array"
        raise ValueError(f"source: {where} needs rows and columns, found shape {array.shape}")
    return array


def _position(column: Any, names: tuple[str, ...] | None, width: int) -> int:
    """Where a column stands that is asked for by name or index."""
    if names is not None and str(column) in names:
        return names.index(str(column))
    if names is None and isinstance(column, (int, np.integer)) and 0 <= column < width:
        return int(column)
    known = f"0 to {width - 1}" if names is None else ", ".join(map(repr, names))
    raise ValueError(f"columns: the source has no column {column!r}; it has {known}")


def _read_ahead(blocks: Iterator[Block]) -> Iterator[Block]:
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = thread.submit(next, blocks, None)
            yield block
