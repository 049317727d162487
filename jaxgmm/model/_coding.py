"""Tables of numbers and words as rows of numbers: columns by name, categories as codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxgmm.files import Coded, numeric, own_names, row_names

# Of one column: what its codes stand for, or None where they are the user's own.
Categories = tuple[Any, ...] | None


def taken(x: Any, names: Sequence[str]) -> dict[str, Any]:
    """Columns of a table by name, as its library has them; a `ValueError` for one that is not."""
    fields = getattr(getattr(x, "dtype", None), "names", None)
    known = tuple(fields) if fields else own_names(x)
    assert known is not None
    for name in names:
        if known.count(name) != 1:
            often = "no column" if name not in known else "several columns"
            raise ValueError(f"x: has {often} {name!r}, found {', '.join(map(repr, known))}")
    if not fields and hasattr(x, "coords"):  # xarray
        return {name: np.asarray(x)[:, known.index(name)] for name in names}
    if not fields and getattr(x, "ndim", 0) == 1:  # a series
        return {known[0]: x}
    # A table of pandas may call its columns otherwise than by text.
    keys = dict(zip(known, getattr(x, "columns", known), strict=True)) if _plain(x) else {}
    return {name: x[keys.get(name, name)] for name in names}


def _plain(x: Any) -> bool:
    return hasattr(x, "iloc")


def is_table(x: Any) -> bool:
    """Whether the columns have names."""
    return bool(getattr(getattr(x, "dtype", None), "names", None)) or own_names(x) is not None


def coded(
    columns: dict[str, Any], levels: dict[str, int], known: dict[str, Categories]
) -> tuple[list[np.ndarray], dict[str, Categories]]:
    """Columns as numbers, and what the codes stand for.

    Parameters
    ----------
    columns : dict
        As `taken` has them.
    levels : dict
        How many categories a column must have, where it may have any.
    known : dict
        Categories that are known already; others are found, those of text in order.
    """
    numbers, found = [], {}
    for name, column in columns.items():
        values, categories = _values(column)
        if name not in levels or (categories is None and not _is_text(values)):
            numbers.append(_as_numbers(values, name))
            found[name] = known[name]
            continue
        categories = known[name] or categories
        if categories is None:
            categories = tuple(sorted({value for value in values if not _is_missing(value)}))
        found[name] = categories
        if len(categories) != levels[name]:
            listed = ", ".join(map(repr, categories[:10]))
            raise ValueError(
                f"x: column {name!r} has {len(categories)} categories ({listed}), and its family "
                f"{levels[name]} levels; say how many there are, or give a categorical column that "
                "names them all"
            )
        numbers.append(_codes(values, categories, name))
    return numbers, found


def _values(column: Any) -> tuple[np.ndarray, Categories]:
    """Entries of a column, and its categories in their own order, where it declares any."""
    dtype = getattr(column, "dtype", None)
    declared = getattr(dtype, "categories", None)  # pandas, and an enumeration of polars
    if declared is not None and hasattr(declared, "__iter__"):
        return _objects(column.to_list()), tuple(np.asarray(declared, object).tolist())
    if hasattr(column, "to_pylist"):  # Arrow
        return _objects(column.to_pylist()), None
    return np.asarray(column), None


def _objects(entries: list[Any]) -> np.ndarray:
    made = np.empty(len(entries), object)
    made[:] = entries
    return made


def _is_text(values: np.ndarray) -> bool:
    if values.dtype.kind in "SUT":
        return True
    return values.dtype.kind == "O" and any(isinstance(value, str) for value in values)


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType") or value != value


def _as_numbers(values: np.ndarray, name: str) -> np.ndarray:
    try:
        return numeric("x", values)
    except TypeError as error:
        named = str(error).removeprefix("x: ")
        raise TypeError(f"x: column {name!r} {named}") from None


def _codes(values: np.ndarray, categories: tuple[Any, ...], name: str) -> np.ndarray:
    code = {category: float(i) for i, category in enumerate(categories)}
    codes = np.empty(len(values))
    for row, value in enumerate(values.tolist()):
        if _is_missing(value):
            codes[row] = np.nan
        elif value in code:
            codes[row] = code[value]
        else:
            raise ValueError(
                f"x: column {name!r} has {value!r} at row {row}, which is none of its categories "
                f"{', '.join(map(repr, categories))}"
            )
    return codes


def joined(x: Any, columns: dict[str, Any], numbers: list[np.ndarray]) -> Coded:
    """Columns of numbers as rows, with the index of the table they come from."""
    return Coded(np.stack(numbers, axis=1), tuple(columns), row_names(x))


def decoded(codes: np.ndarray, categories: Categories) -> np.ndarray:
    """Categories in place of codes; None where nothing is known."""
    if categories is None:
        return codes
    words = np.array([*categories, None], object)
    there = ~np.isnan(codes)
    return words[np.where(there, np.where(there, codes, 0), len(categories)).astype(int)]
