"""Rows that do not fit in memory, in blocks of one size, so that one program serves all."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np

from jaxgmm._checks import check_count, reworded, warn_of_narrowing
from jaxgmm.em._readings import Block
from jaxgmm.em._sources import Piece, Source, read_once, source_of
from jaxgmm.files import numeric, own_names, place


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
    weighted : bool
        Whether rows have weights of their own.
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
        weight: _Column | Stream | None = None,
        argument: str = "source",
    ) -> None:
        self._source, self._positions, self._names = source, positions, names
        self._weight, self._argument = weight, argument
        self.n_columns, self.dtype = first.shape[1], first.dtype
        self.feature_names = names or tuple(f"x{j}" for j in range(self.n_columns))
        self.block_rows, self.weighted = block_rows, weight is not None
        self.again = source.again and (not isinstance(weight, Stream) or weight.again)
        self._holes = False

    def with_holes(self, holes: bool = True) -> Stream:
        """The same rows, of which a NaN is a missing value or is refused."""
        known = copy.copy(self)
        known._holes = holes
        return known

    def __repr__(self) -> str:
        return (
            f"Stream of {self._source.title}: {self.n_columns} column(s) of {self.dtype}, "
            f"blocks of {self.block_rows:,} {'weighted ' if self.weighted else ''}rows"
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
            Where a number is not finite, or is NaN and the reader knows of no missing values, a
            weight is negative, a piece has another width or a file
            is not whole; names the place.
        """
        cut = self._cut()
        beside = self._weight
        return _read_ahead(_weighted(cut, beside) if isinstance(beside, Stream) else cut)

    def map(self, function: Callable[[Any], Any]) -> Iterator[np.ndarray]:
        """What a function of rows makes of each row, block by block.

        Parameters
        ----------
        function : callable
            From (B, D) rows to an array of B rows, such as a method of a fitted model. It gets
            blocks of one size; what it makes of the copies in the last is left out. A NaN is handed
            on to it.

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
        blocks = self.with_holes().blocks()
        return (np.asarray(function(block.rows))[: block.n_rows] for block in blocks)

    def sum(self, function: Callable[[Any], Any]) -> np.ndarray:
        """What a function of rows makes of each row, summed over all rows by their weights.

        Parameters
        ----------
        function : callable
            As for `map`: ``log_prob`` gives a log likelihood, ``responsibilities`` how many rows
            each component has.

        Returns
        -------
        array
            Of the shape that there is for one row, summed in float64.

        Examples
        --------
        >>> import numpy as np
        >>> import jaxgmm as jg
        >>> rows = jg.stream(np.array([[1.0, 2.0], [3.0, 1.0]]), weight=1)
        >>> float(rows.sum(lambda x: x[:, 0]))
        5.0
        """
        total: Any = 0.0
        for block in self.with_holes().blocks():
            there = block.weight > 0
            values = np.asarray(function(block.rows), np.float64)[there]
            total = total + np.tensordot(block.weight[there].astype(np.float64), values, 1)
        return np.asarray(total)

    @property
    def partitions(self) -> Callable[[], list[Any]] | None:
        """Those of a Dask collection that has its weights inside, if it is one."""
        return None if isinstance(self._weight, Stream) else self._source.partitions

    def over(self, source: Source) -> Stream:
        """The same columns of another source."""
        other = copy.copy(self)
        other._source = source
        return other

    def _cut(self) -> Iterator[Block]:
        """Blocks of one size, wherever the pieces of the source begin and end."""
        rows, weight, held = *self._empty(), 0
        for piece in self._source.pieces():
            array, weights = self._numbers(piece)
            while len(array):
                taken = min(len(array), self.block_rows - held)
                rows[held : held + taken] = array[:taken]
                weight[held : held + taken] = weights[:taken]
                array, weights, held = array[taken:], weights[taken:], held + taken
                if held == self.block_rows:
                    yield Block(rows, weight, held)
                    rows, weight, held = *self._empty(), 0
        if held:
            rows[held:], weight[held:] = rows[held - 1], 0
            yield Block(rows, weight, held)

    def _empty(self) -> tuple[np.ndarray, np.ndarray]:
        shape = self.block_rows, self.n_columns
        return np.empty(shape, self.dtype), np.empty(self.block_rows, self.dtype)

    def _numbers(self, piece: Piece) -> tuple[np.ndarray, np.ndarray]:
        """The columns of a piece, finite and as many as in the first, and the weights."""
        names, positions, argument = own_names(piece.rows), self._positions, self._argument
        at = self._weight if isinstance(self._weight, _Column) else None
        array, whole = piece.rows, names
        if positions is not None and _width(array) > max([*positions, at.position if at else 0]):
            array, names = _columns(array, positions), names and tuple(names[j] for j in positions)
        array = _as_rows(piece._replace(rows=array), argument)
        if array.shape[1] != self.n_columns or names != self._names or not _there(at, whole):
            where = f"{piece.place} of the {argument}" if piece.place else f"the {argument}"
            found = f"columns {', '.join(whole)}" if whole else f"{_width(piece.rows)} column(s)"
            also = f", and {at.name!r} of weights" if at and at.name else ""
            raise ValueError(
                f"{argument}: {where} has {found}, and its first rows have {self.n_columns}: "
                f"{', '.join(self.feature_names)}{also}; all need the same, in the same order"
            )
        finite = ~np.isinf(array) if self._holes else np.isfinite(array)
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            at_number = place(self._names, piece.first + row, column)
            raise ValueError(
                f"{argument}: non-finite value {array[row, column]} at {_inside(piece)}{at_number}"
                "; drop or impute such rows"
            )
        if at is None:
            return array, np.ones(len(array), self.dtype)
        column = _columns(piece.rows, [at.position])
        weights = _as_rows(piece._replace(rows=column), "weight")[:, 0]
        _refuse_weights(weights, _inside(piece), piece.first)
        return array, weights.astype(self.dtype)


class _Column(NamedTuple):
    """A column that is no feature."""

    position: int
    name: str | None


def _there(column: _Column | None, names: tuple[str, ...] | None) -> bool:
    """Whether a table with such names has the column where it should be."""
    if column is None or names is None:
        return True
    return names[column.position : column.position + 1] == (column.name,)


def _inside(piece: Piece) -> str:
    return f"{piece.place}, " if piece.place else ""


def _refuse_weights(weights: np.ndarray, inside: str, first: int) -> None:
    right = np.isfinite(weights) & (weights >= 0)
    if not right.all():
        row = int(np.argmin(right))
        kind = "negative" if np.isfinite(weights[row]) else "non-finite"
        raise ValueError(f"weight: {kind} value {weights[row]} at {inside}row {first + row}")


def stream(
    source: Any,
    *,
    columns: Sequence[Any] | None = None,
    weight: Any = None,
    block_rows: int = 65_536,
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
    weight : str, int or source, optional
        Weights of the rows, where two is the row twice and zero no row: a column of the source, by
        name or index, which is then no feature; or a source of its own of any kind but the name of
        a file (a ``Path`` is one), with a number for each row.
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
    beside = weight is not None and not isinstance(weight, (str, int, np.integer))
    inside = [] if weight is None or beside else [weight]
    wanted = None if columns is None else [*columns, *inside]
    found, piece = _opened(source_of(source, wanted, block_rows), "source")
    names, wide = own_names(piece.rows), _width(piece.rows)
    at = [_position("weight", column, names, wide) for column in inside]
    column = _Column(at[0], names[at[0]] if names else None) if at else None
    positions = None
    if columns is not None:
        positions = [_position("columns", column, names, wide) for column in columns]
        if set(at) & set(positions):
            raise ValueError(f"weight: column {weight!r} is among the columns to be fitted")
    elif at:
        positions = [j for j in range(wide) if j not in at]
    if positions is not None:
        piece = piece._replace(rows=_columns(piece.rows, positions))
        names = names and tuple(names[j] for j in positions)
    first = _as_rows(piece, "source")
    if first.shape[1] == 0:
        raise ValueError("source: has no columns")
    narrow = jax.dtypes.canonicalize_dtype(first.dtype)
    if first.dtype != narrow:
        warn_of_narrowing(stacklevel=3)
    first = first.astype(narrow)
    weights = _weights(weight, first.dtype, block_rows) if beside else column
    return Stream(found, positions, names, first, block_rows, weights)


def _opened(source: Source, argument: str) -> tuple[Source, Piece]:
    """A source of which the first rows were read, and these."""
    pieces = source.pieces()
    piece = next((piece for piece in pieces if len(piece.rows)), None)
    if piece is None:
        raise ValueError(f"{argument}: has no rows")
    return source if source.again else read_once(itertools.chain([piece], pieces)), piece


def _weights(source: Any, dtype: np.dtype, block_rows: int) -> Stream:
    """Weights that have a source of their own."""
    try:
        found, piece = _opened(source_of(source, None, block_rows), "weight")
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise type(error)(reworded(str(error), {"source": "weight"})) from None
    first = _as_rows(piece, "weight")
    if first.shape[1] != 1:
        raise ValueError(f"weight: needs a number for each row, found {first.shape[1]} columns")
    return Stream(
        found, None, own_names(piece.rows), first.astype(dtype), block_rows, argument="weight"
    )


def _weighted(blocks: Iterator[Block], weights: Stream) -> Iterator[Block]:
    """Blocks beside weights from another source, cut in the same places."""
    first = 0
    for block, beside in itertools.zip_longest(blocks, weights._cut()):
        counts = [0 if each is None else each.n_rows for each in (block, beside)]
        if counts[0] != counts[1]:
            many = "more" if counts[1] > counts[0] else "fewer"
            raise ValueError(
                f"weight: has {many} rows than the source, which has {first + counts[0]} or more; "
                "it needs a number for each"
            )
        weight = beside.rows[:, 0] * (beside.weight > 0)
        _refuse_weights(weight, "", first)
        yield block._replace(weight=weight)
        first += block.n_rows


def _width(rows: Any) -> int:
    """How many columns an array or a table has."""
    names = own_names(rows)
    return len(names) if names else int(np.prod(np.shape(rows)[1:]))


def _columns(rows: Any, positions: list[int]) -> Any:
    """Some columns of an array or a table, as they are."""
    if hasattr(rows, "iloc") and np.ndim(rows) == 2:
        return rows.iloc[:, positions]
    if hasattr(type(rows), "column_names"):  # an Arrow table
        return rows.select(positions)
    if not hasattr(rows, "columns"):
        rows = np.asanyarray(rows)
        rows = rows[:, None] if rows.ndim == 1 else rows
    return rows[:, positions]


def _as_rows(piece: Piece, argument: str) -> np.ndarray:
    array = numeric(argument, piece.rows)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        where = piece.place or "the array"
        raise ValueError(f"{argument}: {where} needs rows and columns, found shape {array.shape}")
    return array


def _position(argument: str, column: Any, names: tuple[str, ...] | None, width: int) -> int:
    """Where a column stands that is asked for by name or index."""
    if names is not None and str(column) in names:
        return names.index(str(column))
    if names is None and isinstance(column, (int, np.integer)) and 0 <= column < width:
        return int(column)
    known = f"0 to {width - 1}" if names is None else ", ".join(map(repr, names))
    raise ValueError(f"{argument}: the source has no column {column!r}; it has {known}")


def _read_ahead(blocks: Iterator[Block]) -> Iterator[Block]:
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = thread.submit(next, blocks, None)
            yield block
