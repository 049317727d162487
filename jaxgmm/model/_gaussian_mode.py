"""The M-step under distributions by site, which have no closed form: a mode by Newton's method.

The expected log joint depends on the data through their moments only, so that the problem is
as small as the parameters, and falls apart into weights and components, and into single
components where the prior does (Dempster, Laird and Rubin, 1977, section 3, for steps that
raise it without a closed form).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro.distributions import constraints

from jaxgmm._contract import Sites
from jaxgmm._numerics import symmetrise
from jaxgmm.local import minimise
from jaxgmm.model._gaussian_sites import GaussianSites
from jaxgmm.model._moments import Moments
from jaxgmm.model._site_mode import lower
from jaxgmm.model._structure import Structure


def components_mode(
    prior: GaussianSites,
    structure: Structure,
    statistics: Moments,
    previous: Sites | None,
    rows: Array | None = None,
) -> Sites:
    """Sites ``means`` and ``covariances`` at the mode given labelled rows.

    ``previous`` are those before the step, if any: the end is no lower than there. ``rows`` are
    how many each has, where rows count other than once in their moments.
    """
    k, d = statistics.means.shape
    supports = {n: site.support for n, site in prior.component_sites(structure, k, d).items()}

    def move(sites: Sites, step: Array) -> Sites:
        moved, start = {}, 0
        for name, support in supports.items():
            size = _freedom(support, sites[name])
            moved[name] = _moved(support, sites[name], step[start : start + size])
            start += size
        return moved

    def loss(sites: Sites, data: tuple[Any, GaussianSites, Array | None]) -> Array:
        (moments, rows), prior, chosen = data
        both = prior.joined(structure, sites)
        # Seen from the means of the rows nothing cancels.
        natural = structure.natural(both["means"] - moments.means, both["covariances"])
        counts, squares = moments.counts[:, None], structure.squares_of(moments.scatter)
        sums = jnp.concatenate([counts, jnp.zeros_like(moments.means), squares], axis=1)
        total = jnp.sum(natural * sums)
        if rows is not None:
            # A row's weight divides its covariance, the determinant of which it has once.
            once = structure.natural(jnp.zeros_like(moments.means), both["covariances"])[:, 0]
            total = total + jnp.sum((rows - moments.counts) * once)
        if chosen is not None:
            sites = {name: value[0] for name, value in sites.items()}
        log_prior = prior.log_density(sites, structure, k, d, chosen)
        return -(total + log_prior) / (1 + jnp.sum(counts))

    def lowest(start: Sites, previous: Sites | None, *data: Any) -> Sites:
        size = sum(_freedom(support, start[name]) for name, support in supports.items())
        return minimise(loss, move, lower(loss, start, previous, data), size, data)

    # One more row of the data's own variance keeps the first covariances away from the edge.
    counts = statistics.counts if rows is None else rows
    scatter, counts = structure.gathered(statistics.scatter, counts)
    scatter = scatter + structure.entries(jnp.eye(d, dtype=scatter.dtype))
    covariances = structure.minimise(scatter, counts + 1, d, None)
    start = prior.split(structure, {"means": statistics.means, "covariances": covariances})
    before = None if previous is None else prior.split(structure, previous)
    if prior.factorises(structure, k, d):
        data = statistics, rows
        starts, data = jax.tree.map(lambda leaf: leaf[:, None], ((start, before), data))
        one = lambda starts, data, chosen: lowest(*starts, data, prior, chosen)
        sites = jax.vmap(one)(starts, data, jnp.eye(k, dtype=statistics.means.dtype))
        sites = jax.tree.map(lambda leaf: leaf[:, 0], sites)
    else:
        sites = lowest(start, before, (statistics, rows), prior, None)
    return prior.joined(structure, sites)


def _first_diagonal(support: Any) -> int | None:
    """Of symmetric matrices, the first diagonal that is free; None for other supports."""
    if support == constraints.positive_definite:
        return 0
    return 1 if support == constraints.corr_matrix else None


def _freedom(support: Any, site: Array) -> int:
    """How many numbers `_moved` takes."""
    first = _first_diagonal(support)
    if first is None:
        return site.size
    d = site.shape[-1]
    return site.size // d**2 * len(np.triu_indices(d, first)[0])


def _moved(support: Any, site: Array, step: Array) -> Array:
    """The site a step away: a matrix that leaves the cone has no density."""
    first = _first_diagonal(support)
    if first is not None:
        rows, columns = np.triu_indices(site.shape[-1], first)
        upper = jnp.zeros_like(site)
        upper = upper.at[..., rows, columns].set(step.reshape(*site.shape[:-2], len(rows)))
        return site + symmetrise(upper)
    step = step.reshape(site.shape)
    return site * jnp.exp(step) if support == constraints.positive else site + step
