"""Strict JSON of numbers, arrays and frames."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd


def strict(value: Any) -> Any:
    """What JSON can hold: a number that is none, or infinite, is null; the rest is text."""
    if isinstance(value, dict):
        return {str(name): strict(inner) for name, inner in value.items()}
    if isinstance(value, (np.generic, np.ndarray)) and np.ndim(value) == 0:
        value = value.item()
    if isinstance(value, (list, tuple, np.ndarray)):
        return [strict(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or value is pd.NaT or isinstance(value, (bool, int, str)):
        return None if value is pd.NaT else value
    return np.asarray(value).tolist() if hasattr(value, "__array__") else str(value)


def dumps(record: dict[str, Any]) -> str:
    return json.dumps(strict(record), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A frame by rows, its index among the columns."""
    return frame.reset_index().to_dict(orient="records")
