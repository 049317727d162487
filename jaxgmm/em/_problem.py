"""What every engine starts from: a model and data that were looked at once, at the door."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from jaxgmm._contract import LatentModel
from jaxgmm.em._results import Fit, fingerprint
from jaxgmm.files import feature_names, naming_columns, row_names
from jaxgmm.model import centred_rows, wide_rows


@dataclasses.dataclass(frozen=True)
class Problem:
    """A model with numbers for its prior, and data that fit it.

    Both are measured from an origin where JAX would round the data.

    Attributes
    ----------
    model : LatentModel
        Resolved.
    x : (n, D) array
        Rows, where ``origin`` is zero.
    sample_weight : (n,) array or None
        Their weights.
    given : (n, D) array
        The rows where the user has them, as JAX sees them.
    table
        What the user gave, columns in the order of the model.
    origin : (D,) array or None
        Where ``x`` is measured from.
    """

    model: LatentModel
    x: Array
    sample_weight: Array | None
    given: Array
    table: Any
    origin: np.ndarray | None

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the user's rows and weights."""
        return fingerprint(self.given, self.sample_weight)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """What the columns are called."""
        return feature_names(self.table)

    @property
    def row_names(self) -> Any:
        """What the rows are called, where they have names."""
        return row_names(self.table)

    @property
    def wide(self) -> np.ndarray:
        """The user's rows with all their digits."""
        return wide_rows(self.table).reshape(self.given.shape)

    def seen(self, model: LatentModel) -> LatentModel:
        """Another model, from the origin."""
        return model if self.origin is None else model.translate(-self.origin)[0]

    def back(self, found: Fit) -> Fit:
        """A fit of ``x`` as the user sees it."""
        found = dataclasses.replace(found, feature_names=self.feature_names)
        return found if self.origin is None else found.moved(self.origin, self.fingerprint)

    def begin(self, start: Any) -> Any:
        """A start of the user's, seen from the origin."""
        if self.origin is None or isinstance(start, str) or is_array(start):
            return start
        if isinstance(start, Fit):
            return start.moved(-self.origin, fingerprint(self.x, self.sample_weight))
        return self.model.translate(-self.origin, start)[1]


def prepare(
    model: LatentModel,
    x: Any,
    sample_weight: Any,
    mode: bool = False,
    beside: LatentModel | None = None,
) -> Problem:
    """Check a model and data, and resolve the one for the other.

    ``mode`` asks for a prior under which the joint has one. The origin is one for ``beside``, too.
    """
    model, table = model.read(x)
    given, weight = model.check_data(table, sample_weight)
    places = model.places if beside is None else np.logical_and(model.places, beside.places)
    narrowed = centred_rows(table, given, places)
    rows, origin, here = given, None, model
    if narrowed is not None:
        near, origin = narrowed
        rows, here = jax.device_put(near), model.translate(-origin)[0]
    with naming_columns(table):
        here.check_model(rows, weight)
    if mode:
        here.check_mode()
    if origin is None:
        here = model.resolve(rows, weight)
    else:
        # Where the user sees it, so that what goes on from a result finds its own model.
        here = model.resolve(table, weight).translate(-origin)[0]
    return Problem(here, rows, weight, given, table, origin)


def is_array(start: Any) -> bool:
    """Whether a start is responsibilities, and no parameters."""
    return isinstance(start, (np.ndarray, jax.Array, list))
