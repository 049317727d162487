"""Rows that engines read in blocks, as often as they need, and what is known of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from jaxgmm._contract import LatentModel


class Block(NamedTuple):
    """Rows, as many in every block of a stream.

    Attributes
    ----------
    rows : (B, D) array
        The last block ends with copies of its last row.
    weight : (B,) array
        Of each row, one where the stream has no weights, and zero for those copies.
    n_rows : int
        How many there are without them.
    """

    rows: Float[np.ndarray, "b d"]
    weight: Float[np.ndarray, " b"]
    n_rows: int


class Readings(NamedTuple):
    """What a first reading said of all rows, and how to read them again.

    Attributes
    ----------
    model : LatentModel
        Resolved.
    n_rows : int
    total_weight : float
    weighted : bool
        Whether rows have weights of their own.
    fingerprint : str
        That of the same rows in memory.
    feature_names : tuple of str
    sample : (m, D) array
        Some rows, all of them where there are no more.
    sample_weight : (m,) array or None
        Their weights, which sum to that of all; None where they are all, without weights.
    whole : bool
        Whether the sample is all rows.
    stand_in : (rows, weights or None)
        For what a model asks of all rows beforehand: a prior by a rule, working units.
    blocks : () -> iterator of Block
        All rows; a `ValueError` at the end where they are not those of the first reading.
    """

    model: LatentModel
    n_rows: int
    total_weight: float
    weighted: bool
    fingerprint: str
    feature_names: tuple[str, ...]
    sample: Array
    sample_weight: Array | None
    whole: bool
    stand_in: tuple[Array, Array | None]
    blocks: Callable[[], Iterator[Block]]


def check_no_weights(sample_weight: object) -> None:
    """Refuse weights beside a stream, which has its own."""
    if sample_weight is not None:
        raise ValueError(
            "sample_weight: weights of a stream are read with its rows; give them to "
            "jaxgmm.stream(source, weight=...)"
        )
