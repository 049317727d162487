"""What comes in and what is kept: tables of any library, results as files."""

from jaxgmm.files._archive import Kept, carried, load, packed, save, store, stored
from jaxgmm.files._tables import (
    Coded,
    ColumnRefused,
    Measured,
    column_called,
    feature_names,
    naming_columns,
    numeric,
    own_names,
    place,
    refuse_masked,
    refuse_times,
    row_names,
)
from jaxgmm.files._whole import Content, check_folder, write

__all__ = [
    "Coded",
    "ColumnRefused",
    "Content",
    "Kept",
    "Measured",
    "carried",
    "check_folder",
    "column_called",
    "feature_names",
    "load",
    "naming_columns",
    "numeric",
    "own_names",
    "packed",
    "place",
    "refuse_masked",
    "refuse_times",
    "row_names",
    "save",
    "store",
    "stored",
    "write",
]
