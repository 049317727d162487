"""What draws of a posterior say of rows: averages over draws, one draw at a time.

``params`` are draws (S, ...) and ``log_weights`` (S,) their normalised log weights. Memory
beyond the result is that of one draw.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from jaxgmm._contract import LatentModel, Params
from jaxgmm._programs import on_rung, program
from jaxgmm.labels import drawn_labels


@program()
def responsibilities(
    model: LatentModel, params: Params, log_weights: Float[Array, " s"], x: Array
) -> Float[Array, "n k"]:
    """Posterior mean probability of each label of each row."""
    return _mean(lambda p: model.responsibilities(p, x), params, log_weights)


@program()
def responsibilities_at(model: LatentModel, params: Params, x: Array) -> Float[Array, "n k"]:
    """Those of one point."""
    return model.responsibilities(params, x)


@program()
def co_clustering(
    model: LatentModel, params: Params, log_weights: Float[Array, " s"], x: Array
) -> Float[Array, "n n"]:
    """Posterior probability that two rows carry one label."""

    def of_draw(p: Params) -> Float[Array, "n n"]:
        probability = model.responsibilities(p, x)
        return probability @ probability.T

    together = _mean(of_draw, params, log_weights)
    return jnp.fill_diagonal(together, 1, inplace=False)


@program()
def log_prob(
    model: LatentModel, params: Params, log_weights: Float[Array, " s"], x: Array
) -> Float[Array, " n"]:
    """Log posterior predictive density of each row."""

    weighted = lambda p, log_weight: log_weight + model.log_prob(p, x)
    return _fold(jnp.logaddexp, -jnp.inf, weighted, params, log_weights)


@program()
def pointwise(model: LatentModel, params: Params, x: Array) -> Float[Array, "s n"]:
    """Log density of each row at each draw, the label summed out."""
    return lax.map(lambda p: model.log_prob(p, x), params)


@program()
def assignments(
    model: LatentModel, params: Params, key: PRNGKeyArray, x: Array
) -> Int[Array, "s n"]:
    """Labels of all rows drawn given each draw."""

    def of_draw(draw: tuple[Params, PRNGKeyArray]) -> Array:
        p, own_key = draw
        return drawn_labels(own_key, model.responsibilities(p, x).T, 0)

    return lax.map(of_draw, (params, _keys(key, params))).astype(jnp.int32)


@program()
def replicated(model: LatentModel, params: Params, key: PRNGKeyArray, x: Array) -> Array:
    """As many rows as in ``x``, with what is given there, drawn at each draw, (S, n, ...)."""
    of_draw = lambda draw: model.sample_like(draw[0], draw[1], x)
    return lax.map(of_draw, (params, _keys(key, params)))


def replicates(model: LatentModel, params: Params, key: PRNGKeyArray, x: Array) -> np.ndarray:
    """`replicated` on the host."""
    return np.asarray(replicated(model, params, key, on_rung(model, x, None)[0]))[:, : len(x)]


@program()
def imputed(model: LatentModel, params: Params, key: PRNGKeyArray, x: Array) -> Array:
    """The rows at each draw with their missing values drawn, (S, n, D)."""
    of_draw = lambda draw: model.impute(draw[0], x, draw[1])
    return lax.map(of_draw, (params, _keys(key, params)))


@program()
def row_weights(model: Any, params: Params, x: Array) -> Float[Array, "s n"]:
    """How often each row counts in the M-step at each draw."""
    return lax.map(lambda p: model.row_weights(p, x), params)


def _mean(
    of_draw: Callable[[Params], Array], params: Params, log_weights: Float[Array, " s"]
) -> Array:
    weighted = lambda p, log_weight: jnp.exp(log_weight) * of_draw(p)
    return _fold(jnp.add, 0.0, weighted, params, log_weights)


def _fold(
    combine: Callable[[Array, Array], Array],
    start: float,
    of_draw: Callable[[Params, Array], Array],
    params: Params,
    log_weights: Float[Array, " s"],
) -> Array:
    """What all draws give together, one at a time."""

    def add(total: Array, draw: tuple[Params, Array]) -> tuple[Array, None]:
        return combine(total, of_draw(*draw)), None

    draws = (params, log_weights)
    like = jax.eval_shape(of_draw, *jax.tree.map(lambda leaf: leaf[0], draws))
    return lax.scan(add, jnp.full(like.shape, start, like.dtype), draws)[0]


def _keys(key: PRNGKeyArray, params: Params) -> Key[Array, " s"]:
    """A key for each draw."""
    return jax.random.split(key, jax.tree.leaves(params)[0].shape[0])
