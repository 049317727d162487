"""What the library compiles: one store of programs, and few shapes of arrays for them."""

from jaxgmm._programs._shapes import (
    filled,
    filled_up,
    in_slices,
    of_each_row,
    on_rung,
    place_of,
    rows_at,
    rung,
    size_for,
)
from jaxgmm._programs._store import free_programs, program

__all__ = [
    "filled",
    "filled_up",
    "free_programs",
    "in_slices",
    "of_each_row",
    "on_rung",
    "place_of",
    "program",
    "rows_at",
    "rung",
    "size_for",
]
