"""Variances by component and feature under a common or free volume and shape.

Each rule takes scatter (K, D) and counts (K,) to the variances (K, D) that minimise
``sum_k N_k sum_j log v_kj + S_kj / v_kj``: the whole M-step of a structure of diagonal
covariances, and that of any other once its orientations are known.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgmm.local import minimise

Rule = Callable[[Float[Array, "k d"], Float[Array, " k"]], Float[Array, "k d"]]


def free(scatter: Array, counts: Array) -> Array:
    """Volumes and shapes vary."""
    return scatter / counts[:, None]


def common(scatter: Array, counts: Array) -> Array:
    """One volume, one shape."""
    return jnp.broadcast_to(jnp.sum(scatter, axis=0) / jnp.sum(counts), scatter.shape)


def common_volume(scatter: Array, counts: Array) -> Array:
    """One volume, the geometric mean of the variances; shapes vary."""
    volumes = jnp.exp(jnp.mean(jnp.log(scatter), axis=1, keepdims=True))
    return scatter * (jnp.sum(volumes) / jnp.sum(counts) / volumes)


def common_shape(scatter: Array, counts: Array) -> Array:
    """One shape; volumes vary."""
    return proportional(
        scatter, counts, jnp.sum(scatter, axis=1), lambda shape: jnp.sum(jnp.log(shape))
    )


def proportional(
    scatter: Float[Array, "k ..."],
    counts: Float[Array, " k"],
    traces: Float[Array, " k"],
    log_det: Callable[[Array], Array],
) -> Float[Array, "k ..."]:
    """Covariances that are multiples of one, as variances or as matrices.

    Given the volumes ``exp(l_k)`` the common factor is ``sum_k exp(-l_k) S_k / N``, and what
    is left to minimise, ``sum_k N_k D l_k + N log|sum_k exp(-l_k) S_k|``, is convex in l: the
    determinant is a sum of exponentials. It has one minimum, the limit of the alternation of
    Celeux and Govaert (1995), and Newton's method finds it.
    """
    d = scatter.shape[-1]
    shares = counts / jnp.sum(counts)

    def factor(logs: Array, scatter: Array) -> Array:
        return jnp.tensordot(jnp.exp(-logs), scatter, axes=1)

    def objective(logs: Array, data: tuple[Array, Array]) -> Array:
        scatter, shares = data
        return d * shares @ logs + log_det(factor(logs, scatter))

    occupied = (counts > 0) & (traces > 0)
    start = jnp.log(jnp.where(occupied, traces, 1) / jnp.where(occupied, counts, 1))
    logs = minimise(objective, jnp.add, start, start.size, (scatter, shares))
    shape = factor(logs, scatter) / jnp.sum(counts)
    # Rows without spread leave a volume of zero, whatever the logarithm.
    return jnp.multiply.outer(jnp.where(occupied, jnp.exp(logs), 0), shape)
