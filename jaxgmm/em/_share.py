"""Rows dealt out to devices, those of other processes among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from jaxgmm._checks import warn_of_narrowing
from jaxgmm._programs import filled
from jaxgmm._sharded import ROWS, of_all
from jaxgmm.files import numeric


def share(
    x: Any, sample_weight: Any = None, *, devices: Sequence[Any] | None = None
) -> tuple[Array, Array | None]:
    """Rows where several devices share them, for `jaxgmm.fit` and everything after it.

    Each device has as many: where they do not divide evenly, copies of weight zero fill up.
    Under `jax.distributed` every process calls this with rows of its own, and what comes back
    has those of all, in the order of the processes.

    Parameters
    ----------
    x : (n, D) or (n,) array
        Rows, of any number in each process.
    sample_weight : (n,) array, optional
        Their weights; given by every process or by none.
    devices : sequence of devices, optional
        Those that share the rows; all by default.

    Returns
    -------
    (m, D) or (m,) array
        The rows of all processes, along an axis ``"rows"`` of a mesh.
    (m,) array or None
        Their weights, None where all count once: to be handed over as ``sample_weight``.

    Raises
    ------
    ValueError
        For a process without rows or without one of the devices, and weights of another number.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> rows, weights = jg.share(jg.datasets.load("faithful").x)
    >>> fit = jg.fit(jg.Mixture(jg.Gaussian(), 2), rows, sample_weight=weights,
    ...              key=jax.random.key(0), n_init=4)
    >>> round(fit.log_likelihood)
    -1130
    """
    own = numeric("x", x)
    if own.dtype == np.float64 and jnp.result_type(float) != np.float64:
        warn_of_narrowing(3)
        own = own.astype(np.float32)
    weight = None if sample_weight is None else numeric("sample_weight", sample_weight)
    if own.ndim == 0 or len(own) == 0:
        raise ValueError(f"x: needs rows, found shape {own.shape}")
    if weight is not None and weight.shape != own.shape[:1]:
        raise ValueError(
            f"sample_weight: needs one number per row, shape ({len(own)},), found shape "
            f"{weight.shape}"
        )
    sharing = np.array(jax.devices() if devices is None else devices, object)
    here = sum(device.process_index == jax.process_index() for device in sharing)
    if not here:
        raise ValueError("devices: needs one of this process")
    counts = np.array([[len(own), here, weight is not None]])
    counts = counts if here == len(sharing) else of_all(counts)
    size = int(np.max(-(-counts[:, 0] // counts[:, 1])))
    weighted = np.any(counts[:, 2]) or np.any(counts[:, 0] != size * counts[:, 1])
    place = NamedSharding(Mesh(sharing, (ROWS,)), P(ROWS))

    def placed(values: np.ndarray) -> Array:
        shape = size * len(sharing), *values.shape[1:]
        return jax.make_array_from_process_local_data(place, values, shape)

    rows = placed(filled(own, size * here))
    if not weighted:
        return rows, None
    weights = np.zeros(size * here, own.dtype)
    weights[: len(own)] = 1 if weight is None else weight
    return rows, placed(weights)
