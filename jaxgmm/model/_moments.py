"""First and second moments of the rows of each component: what the M-step needs.

Moments are kept about their own means, so that nothing cancels when they are added,
however far a component lies from the origin in units of its own spread.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgmm.files import stored
from jaxgmm.model._structure import Structure


@stored
class Moments(NamedTuple):
    """Effective rows of each component, their mean, and their scatter about it.

    Attributes
    ----------
    counts : (K,) array
        Sum of the responsibilities.
    means : (K, D) array
        Mean of the rows, zero for a component without rows.
    scatter : (K, D, D), (K, D) or (K,) array
        Sum of squares and products about ``means``, as the structure keeps them.
    """

    counts: Array
    means: Array
    scatter: Array


def about_their_means(
    structure: Structure,
    counts: Float[Array, " k"],
    sums: Float[Array, "k d"],
    scatter: Array,
    origin: Float[Array, "k d"] | float = 0.0,
) -> Moments:
    """Moments from sums and scatter about ``origin``."""
    rows = jnp.where(counts > 0, counts, 1)[:, None]
    offset = sums / rows
    return Moments(counts, origin + offset, scatter - structure.outer(offset * jnp.sqrt(rows)))


def pool(structure: Structure, one: Moments, other: Moments) -> Moments:
    """Moments of two sets of rows together (Chan, Golub and LeVeque, 1983, eq. 2.1)."""
    counts = one.counts + other.counts
    share = other.counts / jnp.where(counts > 0, counts, 1)
    apart = other.means - one.means
    between = structure.outer(apart * jnp.sqrt(one.counts * share)[:, None])
    means = one.means + share[:, None] * apart
    return Moments(counts, means, one.scatter + other.scatter + between)


def times(moments: Moments, share: Array | float) -> Moments:
    """Moments of rows each of which counts ``share`` times as much."""
    return moments._replace(counts=share * moments.counts, scatter=share * moments.scatter)
