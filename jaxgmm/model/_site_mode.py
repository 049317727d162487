"""Modes under distributions that have no closed one: Newton's method on a problem without rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from jaxgmm._contract import Prior, Sites, freedom, stepped
from jaxgmm.local import minimise
from jaxgmm.model._weights import Weighting


def weights_mode(
    weighting: Weighting,
    written: dist.Distribution,
    counts: Float[Array, " k"],
    previous: Float[Array, " k"] | None,
) -> Float[Array, " k"]:
    """The weights at the mode given labelled rows, under a distribution of their site."""
    if isinstance(written, dist.Dirichlet):
        return weighting.mode(weighting.updated(written.concentration, counts))

    def move(weights: Array, step: Array) -> Array:
        # Logits of the other labels against the last one.
        return jax.nn.softmax(jnp.log(weights) + jnp.append(step, 0))

    def loss(weights: Array, data: tuple[Array, Any]) -> Array:
        counts, written = data
        log_prior = jnp.sum(written.log_prob(weighting.to_site(weights))).astype(counts.dtype)
        return -(counts @ jnp.log(weights) + log_prior) / (1 + jnp.sum(counts))

    start = (counts + 1) / jnp.sum(counts + 1)
    data = counts, written
    return minimise(loss, move, lower(loss, start, previous, data), len(counts) - 1, data)


def sites_mode(
    expected: Callable[[Sites, Any], Array],
    priors: Callable[[Any], Prior],
    statistics: Any,
    prior: Any,
    supports: Mapping[str, Any],
    start: Sites,
    before: Sites | None,
) -> Sites:
    """The sites at the mode given labelled rows, from the higher of two points.

    ``expected`` is the log likelihood of sites and statistics with ``counts``, ``priors`` makes
    distributions by site of a prior.
    """
    sizes = {name: freedom(support, start[name]) for name, support in supports.items()}

    def move(sites: Sites, step: Array) -> Sites:
        pieces = jnp.split(step, np.cumsum(list(sizes.values()))[:-1])
        return {
            name: stepped(support, sites[name], piece)
            for (name, support), piece in zip(supports.items(), pieces, strict=True)
        }

    def loss(sites: Sites, data: tuple[Any, Any]) -> Array:
        statistics, prior = data
        of_sites = priors(prior).items()
        log_prior = [jnp.sum(of(sites).log_prob(sites[name])) for name, of in of_sites]
        total = expected(sites, statistics) + sum(log_prior[1:], log_prior[0])
        return -total / (1 + jnp.sum(statistics.counts))

    data = statistics, prior
    first = lower(loss, start, before, data)
    return minimise(loss, move, first, sum(sizes.values()), data)


def lower(loss: Callable[[Any, Any], Array], start: Any, previous: Any, data: Any) -> Any:
    """The lower of two points, the first where there is no second."""
    if previous is None:
        return start
    both = jax.tree.map(lambda *points: jnp.stack(points), start, previous)
    costs = jax.vmap(lambda point: loss(point, data))(both)
    lower = jnp.where(costs[0] < costs[1], 0, 1)
    return jax.tree.map(lambda points: points[lower], both)
