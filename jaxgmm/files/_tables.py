"""What users hand over: arrays and tables of any library, as NumPy arrays and column names.

They are read on the host before anything is traced.
"""

from __future__ import annotations

import contextlib
import dataclasses
import decimal
import numbers
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Coded:
    """A table that was read: numbers, the names of their columns, and the index of the rows."""

    values: Any
    columns: tuple[str, ...]
    index: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(self.values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.values, dtype)


@dataclasses.dataclass(frozen=True)
class Measured(Coded):
    """Rows with noise of their own: values, and beside them what the noise of each row is.

    ``columns`` are those of the values; noise is variances or, where it is ``joint``, lower
    triangles of factors of covariances.
    """

    joint: bool = False


def numeric(argument: str, value: Any) -> np.ndarray:
    """Any array or table as a real floating NumPy array; missing cells of objects are NaN."""
    refuse_masked(argument, value)
    _refuse_what_is_no_array(argument, value)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{argument}: cannot be read as an array ({error})") from None
    kind = array.dtype.kind
    if kind == "O":
        array = _of_objects(argument, array, own_names(value))
    refuse_times(argument, value, array)
    if kind in "SUT":
        raise TypeError(
            f"{argument}: needs numbers, found text (dtype {array.dtype}){_in_columns(value)}; "
            "convert it to numbers, or leave it out"
        )
    elif array.dtype.names is not None:
        raise TypeError(
            f"{argument}: needs rows and columns, found a structured array with fields "
            f"{', '.join(map(repr, array.dtype.names))}; make a table of it: "
            f"pandas.DataFrame({argument})"
        )
    elif kind not in "bui" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{argument}: needs real numbers, found dtype {array.dtype}")
    if array.dtype in (np.float32, np.float64):
        return array
    return array.astype(jnp.result_type(float))


def own_names(x: Any) -> tuple[str, ...] | None:
    """Column names, where the data carry them."""
    if hasattr(type(x), "column_names"):  # an Arrow table, whose `columns` are the data
        names = x.column_names
    elif hasattr(x, "columns"):
        names = x.columns
    elif hasattr(x, "coords") and np.ndim(x) == 2:  # xarray
        names = x.coords[x.dims[1]].values if x.dims[1] in x.coords else None
    else:
        name = getattr(x, "name", None) if getattr(x, "ndim", 0) == 1 else None  # a series
        names = None if name is None else [name]
    return None if names is None else tuple(map(str, names))


def feature_names(x: Any) -> tuple[str, ...]:
    """Column names where the data carry them, else ``x0, x1, ...``."""
    return own_names(x) or tuple(f"x{j}" for j in range(np.shape(x)[1] if np.ndim(x) == 2 else 1))


def row_names(x: Any) -> np.ndarray | None:
    """The index of a pandas object, in a form that files can hold; None for other data."""
    if isinstance(x, Coded):
        return x.index
    if not hasattr(x, "iloc"):
        return None
    names = x.index.to_numpy()
    # Several levels, times with a zone and intervals come as objects.
    return names if names.dtype.kind in "biufMmU" else np.array(list(map(str, names)))


def place(names: tuple[str, ...] | None, row: int, column: int | None = None) -> str:
    """Where a number stands, in words; rows and nameless columns are counted from 0."""
    if column is None and names is None:
        return f"row {row}"
    return f"row {row}, {column_called(names, column or 0)}"


def column_called(names: tuple[str, ...] | None, column: int) -> str:
    return f"column {column if names is None else repr(names[column])}"


class ColumnRefused(ValueError):
    """A refusal of one column, which whoever knows the columns' names can word again."""

    def __init__(self, sentence: str, column: int, names: tuple[str, ...] | None = None) -> None:
        super().__init__(sentence, column, names)

    def __str__(self) -> str:
        sentence, column, names = self.args
        return sentence.format(column=column_called(names, column))


@contextlib.contextmanager
def naming_columns(x: Any) -> Iterator[None]:
    """What is refused in here names the columns as ``x`` does."""
    try:
        yield
    except ColumnRefused as refusal:
        sentence, column, _ = refusal.args
        raise ColumnRefused(sentence, column, own_names(x)) from None


def refuse_masked(argument: str, value: Any) -> None:
    """Masks, which NumPy forgets, those of arrays in a list among them."""
    in_list = isinstance(value, (list, tuple))
    if not any(isinstance(v, np.ma.MaskedArray) for v in (value if in_list else [value])):
        return
    masked = np.argwhere(np.ma.getmaskarray(np.ma.asarray(value)))
    if len(masked):
        raise ValueError(
            f"{argument}: {len(masked)} masked value(s), the first at "
            f"{place(None, *masked[0][:2])}; drop or impute such rows"
        )


def refuse_times(argument: str, value: Any, array: np.ndarray) -> None:
    """Dates and times, of which NumPy makes numbers in whatever unit they are kept."""
    if array.dtype.kind in "mM":
        raise TypeError(
            f"{argument}: needs numbers, found dates or times (dtype {array.dtype})"
            f"{_in_columns(value)}; make them numbers first, such as days since the first"
        )


def _refuse_what_is_no_array(argument: str, value: Any) -> None:
    """Say what to do with things of which NumPy would make an array of one object."""
    found = type(value).__name__
    if isinstance(value, (str, bytes, os.PathLike)):
        found = "a string" if isinstance(value, (str, bytes)) else f"a {found}"
        raise TypeError(f"{argument}: needs numbers, found {found}; load the file first")
    if isinstance(value, Mapping):
        raise TypeError(
            f"{argument}: needs rows and columns, found a {found}; make a table of it: "
            f"pandas.DataFrame({argument})"
        )
    if hasattr(value, "toarray"):
        raise TypeError(
            f"{argument}: needs a dense array, found a {found}; pass {argument}.toarray()"
        )
    if hasattr(value, "collect") and not hasattr(value, "__array__"):
        raise TypeError(
            f"{argument}: needs rows, found a {found} that has none yet; pass {argument}.collect()"
        )
    if value is None or isinstance(value, Iterator):
        raise TypeError(f"{argument}: needs an array or a table of numbers, found a {found}")


# A numpy.timedelta64 calls itself an integer.
_NUMBERS = (numbers.Real, decimal.Decimal, np.bool_)


def _is_number(one: Any) -> bool:
    return isinstance(one, _NUMBERS) and not isinstance(one, np.timedelta64)


def _is_missing(one: Any) -> bool:
    """Nothing, or one of pandas' two words for it, which are known by their names."""
    return one is None or type(one).__name__ in ("NAType", "NaTType")


def _of_objects(argument: str, array: np.ndarray, names: tuple[str, ...] | None) -> np.ndarray:
    """Numbers of an array of Python objects, such as a table of several dtypes becomes."""
    missing = np.asarray(np.frompyfunc(_is_missing, 1, 1)(array), bool)
    wrong = ~(missing | np.asarray(np.frompyfunc(_is_number, 1, 1)(array), bool))
    if np.any(wrong):
        first = tuple(np.argwhere(wrong)[0])
        where = f" at {place(names, *first)}" if 0 < len(first) < 3 else ""
        raise TypeError(
            f"{argument}: needs numbers, found {array[first]!r}{where}; "
            "convert what is no number, or leave its column out"
        )
    return np.where(missing, np.nan, array).astype(float)


def _in_columns(value: Any) -> str:
    names = own_names(value)
    return "" if names is None else f" in column(s) {', '.join(map(repr, names))}"
