"""Rows far from zero where JAX has no float64: measured from an origin, on the host."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgmm._sharded import shared
from jaxgmm.files import numeric

# Columns further from zero than so many times their range lose digits in float32; further than
# the second number, digits that matter.
_FAR = 1e3
_TOO_FAR = 1e5


def centred_rows(
    x: Any, rows: Any, places: bool | np.ndarray = True
) -> tuple[np.ndarray, np.ndarray] | None:
    """float64 data as float32 rows about an origin, which keeps the digits that differ.

    None where JAX keeps them anyway: it did not narrow the data when it made ``rows``, devices
    share them, or no column lies far from zero, of those that are ``places``. The origin is a
    number of float32.
    Warns where the digits were lost before.
    """
    if shared(rows):
        return None
    wide = wide_rows(x)
    if rows.dtype != np.float32:
        return None
    wide = wide.reshape(rows.shape)
    low, high = (f(wide, axis=0).astype(np.float64) for f in (np.nanmin, np.nanmax))
    middle = np.float32(low / 2 + high / 2).astype(np.float64)
    if wide.dtype != np.float64:
        _warn_of_steps(np.abs(middle), high - low)
        return None
    far = places & (high > low) & (np.abs(middle) > _FAR * (high - low))
    if not far.any():
        return None
    origin = np.where(far, middle, 0)
    return about(wide, origin), origin


def wide_rows(x: Any) -> np.ndarray:
    """Numbers as they were given: integers have digits that float32 has not."""
    array = np.asarray(x)
    return array.astype(np.float64) if array.dtype.kind in "bui" else numeric("x", x)


def about(x: Any, origin: np.ndarray | None) -> np.ndarray:
    """Rows measured from an origin, as JAX takes them."""
    wide = wide_rows(x)
    if origin is None:
        return wide
    centred = np.empty((len(wide), len(origin)), jnp.result_type(float))
    return np.subtract(wide.reshape(centred.shape), origin, out=centred, casting="same_kind")


def wide_origin(places: Any) -> np.ndarray | None:
    """An origin near places (K, D) that JAX would round; None for all others."""
    wide = isinstance(places, np.ndarray) and places.dtype == np.float64
    if not wide or jnp.result_type(float) == np.float64:
        return None
    return np.mean(places, axis=0)


def narrowed(tree: Any) -> Any:
    """Numbers near the origin, in the precision of JAX."""
    return jax.tree.map(lambda leaf: np.asarray(jnp.asarray(leaf)), tree)


def _warn_of_steps(distance: np.ndarray, spread: np.ndarray) -> None:
    lost = (spread > 0) & (distance > _TOO_FAR * spread)
    if lost.any():
        column = int(np.argmax(lost))
        step = np.spacing(np.float32(distance[column]))
        warnings.warn(
            f"x: where column {column} lies, float32 has steps of {step:g}, and the column spreads "
            f"over {spread[column]:g}; give float64 numbers (NumPy's), which are centred before "
            "JAX narrows them, or turn on JAX's x64 switch, "
            'jax.config.update("jax_enable_x64", True)',
            stacklevel=5,
        )
