"""Tables in files: columns and index as they are, with their dtypes."""

from __future__ import annotations

from typing import Any

import pandas as pd

from jaxgmm.files import store


def _index_parts(index: pd.Index) -> dict[str, Any]:
    several = isinstance(index, pd.MultiIndex)
    values = [tuple(row) for row in index] if several else index.to_numpy()
    return {"values": values, "names": list(index.names), "dtype": _dtype(index, several)}


def _dtype(index: pd.Index, several: bool) -> str | None:
    return None if several else str(index.dtype)


def _index(parts: dict[str, Any]) -> pd.Index:
    if parts["dtype"] is None:
        return pd.MultiIndex.from_tuples(parts["values"], names=parts["names"])
    return pd.Index(parts["values"], name=parts["names"][0], dtype=parts["dtype"])


def _apart(frame: pd.DataFrame) -> dict[str, Any]:
    return {
        "columns": _index_parts(frame.columns),
        "index": _index_parts(frame.index),
        "values": [frame.iloc[:, i].to_numpy() for i in range(frame.shape[1])],
        "dtypes": [str(dtype) for dtype in frame.dtypes],
        "attrs": dict(frame.attrs),
    }


def _together(parts: dict[str, Any]) -> pd.DataFrame:
    index = _index(parts["index"])
    columns = [
        pd.Series(values, index=index, dtype=dtype)
        for values, dtype in zip(parts["values"], parts["dtypes"], strict=True)
    ]
    frame = pd.DataFrame(dict(enumerate(columns)), index=index)
    frame.columns = _index(parts["columns"])
    frame.attrs.update(parts["attrs"])
    return frame


store(pd.DataFrame, _apart, _together)
