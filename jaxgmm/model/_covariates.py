"""Rows beside which others are drawn: what is given of them, read and checked at the door."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from jaxgmm._checks import everywhere, reworded
from jaxgmm._numerics import as_rows
from jaxgmm._sharded import rows_here
from jaxgmm.files import own_names, place
from jaxgmm.model._family import Family


def given_rows(family: Family, given: Any) -> Float[Array, "n d"]:
    """The user's rows as numbers, of which only columns that are not drawn need be there.

    A `ValueError` or `TypeError` that names ``given`` for a column that is not there, and for what
    a row that is drawn beside it cannot miss.
    """
    with _called_given():
        rows = as_rows(family.given_rows(given))
    names, width = family.column_names, rows.shape[1]
    if names is not None and width != len(names):
        raise ValueError(
            f"given: {family.label} needs a table, or the {len(names)} column(s) "
            f"{', '.join(map(repr, names))} in this order, found {width}"
        )
    if not isinstance(rows, Tracer):
        everywhere(rows, lambda: _check_whole(family, rows))
    return rows


def n_columns(model: Any, given: Any = None) -> int | None:
    """How many columns a row has, as far as a prior of numbers says, or what is given beside it.

    ``model`` is one that has seen no data.
    """
    if given is None:
        mean = getattr(getattr(model, "prior", None), "mean", None)
        return None if mean is None else np.size(mean)
    if model.prior_name not in ("conjugate", "sites") or model.family.column_names is None:
        return None
    return given_rows(model.family, given).shape[1]


def _check_whole(family: Family, rows: Array) -> None:
    here = rows_here(rows)
    lacking = np.argwhere(family.lacks(here))
    if len(lacking):
        row, column = lacking[0]
        names = own_names(family.read(rows)[1])
        raise ValueError(
            f"given: {family.label} draws rows beside columns of which none may be missing, found "
            f"{here[row, column]} at {place(names, row, column)}; drop or impute such rows"
        )


@contextlib.contextmanager
def _called_given() -> Iterator[None]:
    """What is refused in here as ``x`` is the user's ``given``."""
    try:
        yield
    except (ValueError, TypeError) as refusal:
        kind = TypeError if isinstance(refusal, TypeError) else ValueError
        raise kind(reworded(str(refusal), {"x": "given"})) from None
