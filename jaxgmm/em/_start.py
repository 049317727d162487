"""Where EM starts: responsibilities from centres among the rows.

Each start is a pure function of a key, so that all of them run under one `vmap`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

# A start's hard labels count this much; the rest is spread evenly, so that a cluster
# of a few rows still starts with a covariance of full rank.
_HARDNESS = 0.9

# Lloyd's algorithm settles the labels of ordinary data well within this many rounds.
_LLOYD_ROUNDS = 50


def _squared_distances(rows: Float[Array, "n d"], centres: Float[Array, "k d"]) -> Array:
    """(n, K), by differences: exact for coinciding rows, whatever their offset."""
    return jnp.sum((rows[:, None, :] - centres[None, :, :]) ** 2, axis=-1)


def _draw_rows(
    key: PRNGKeyArray, rows: Float[Array, "n d"], weight: Float[Array, " n"], k: int
) -> Float[Array, "k d"]:
    """``k`` different rows, with probability proportional to their weight."""
    share = weight / jnp.sum(weight)
    return jax.random.choice(key, rows, (k,), replace=False, p=share)


def _spread_rows(
    key: PRNGKeyArray, rows: Float[Array, "n d"], weight: Float[Array, " n"], k: int
) -> Float[Array, "k d"]:
    """k-means++ (Arthur and Vassilvitskii, 2007): each next row with probability D^2."""
    keys = jax.random.split(key, k)
    first = jax.random.categorical(keys[0], jnp.log(weight))
    nearest = jnp.sum((rows - rows[first]) ** 2, axis=-1)

    def add(nearest: Array, key: PRNGKeyArray) -> tuple[Array, Array]:
        # With fewer distinct rows than centres every distance is zero: take any row.
        mass = jnp.where(jnp.any(weight * nearest > 0), weight * nearest, weight)
        index = jax.random.categorical(key, jnp.log(mass))
        return jnp.minimum(nearest, jnp.sum((rows - rows[index]) ** 2, axis=-1)), index

    _, others = lax.scan(add, nearest, keys[1:])
    return rows[jnp.concatenate([first[None], others])]


def _lloyd(
    key: PRNGKeyArray, rows: Float[Array, "n d"], weight: Float[Array, " n"], k: int
) -> Float[Array, "k d"]:
    """Centres of k-means (Lloyd, 1982) from a k-means++ draw; an empty cluster stays."""

    def move(_, centres: Array) -> Array:
        labels = jnp.argmin(_squared_distances(rows, centres), axis=1)
        member = weight[:, None] * (labels[:, None] == jnp.arange(k))
        count = jnp.sum(member, axis=0)[:, None]
        return jnp.where(count > 0, member.T @ rows / jnp.where(count > 0, count, 1), centres)

    return lax.fori_loop(0, _LLOYD_ROUNDS, move, _spread_rows(key, rows, weight, k))


# A new start is a function (key, rows, weight, k) -> centres and one line here.
STARTS: dict[str, Callable[[PRNGKeyArray, Array, Array, int], Array]] = {
    "k-means++": _spread_rows,
    "k-means": _lloyd,
    "random": _draw_rows,
}


def responsibilities_from_centres(
    rows: Float[Array, "n d"], centres: Float[Array, "k d"]
) -> Float[Array, "n k"]:
    """Nearly hard responsibilities for the nearest centre."""
    k = centres.shape[0]
    labels = jnp.argmin(_squared_distances(rows, centres), axis=1)
    hard = (labels[:, None] == jnp.arange(k)).astype(rows.dtype)
    return _HARDNESS * hard + (1 - _HARDNESS) / k


def draw_start(
    method: str,
    key: PRNGKeyArray,
    rows: Float[Array, "n d"],
    sample_weight: Float[Array, " n"] | None,
    n_components: int,
) -> Float[Array, "n k"]:
    """Responsibilities of one start."""
    weight = jnp.ones(rows.shape[0], rows.dtype) if sample_weight is None else sample_weight
    return responsibilities_from_centres(rows, STARTS[method](key, rows, weight, n_components))
