"""The M-step under distributions by site, which have no closed form: a mode by Newton's method.

The expected log joint depends on the data through their moments only, so that the problem is
as small as the parameters, and falls apart into weights and components, and into single
components where the prior does (Dempster, Laird and Rubin, 1977, section 3, for steps that
raise it without a closed form).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro.distributions import biject_to

from jaxgmm._contract import Sites
from jaxgmm.model._moments import Moments
from jaxgmm.model._newton import minimise
from jaxgmm.model._site_prior import SitePrior
from jaxgmm.model._structure import Structure


def weights_mode(
    prior: SitePrior, counts: Float[Array, " k"], previous: Float[Array, " k"] | None
) -> Float[Array, " k"]:
    """The weights at the mode given labelled rows."""
    weighting, k = prior.weighting, len(counts)
    written = prior.distributions[weighting.site]
    if isinstance(written, dist.Dirichlet):
        return weighting.mode(weighting.updated(written.concentration, counts))
    to_site = biject_to(prior.weight_site(k).support)

    def loss(free: Array, data: tuple[Array, Any]) -> Array:
        counts, written = data
        site = to_site(free)
        log_prior = jnp.sum(written.log_prob(site)).astype(site.dtype)
        gain = counts @ jnp.log(weighting.from_site(site)) + log_prior
        return -gain / (1 + jnp.sum(counts))

    starts = [(counts + 1) / jnp.sum(counts + 1)] + ([] if previous is None else [previous])
    starts = [to_site.inv(weighting.to_site(weights)) for weights in starts]
    return weighting.from_site(to_site(_lowest(loss, starts, (counts, written))))


def components_mode(
    prior: SitePrior, structure: Structure, statistics: Moments, previous: Sites | None
) -> Sites:
    """Sites ``means`` and ``covariances`` at the mode given labelled rows.

    ``previous`` are those before the step, if any: the end is no lower than there.
    """
    k, d = statistics.means.shape
    supports = {n: biject_to(s.support) for n, s in prior.component_sites(structure, k, d).items()}

    def loss(free: Sites, data: tuple[Moments, SitePrior, Array | None]) -> Array:
        moments, prior, chosen = data
        sites = {name: to_site(free[name]) for name, to_site in supports.items()}
        both = prior.joined(structure, sites)
        # Seen from the means of the rows nothing cancels.
        natural = structure.natural(both["means"] - moments.means, both["covariances"])
        counts, squares = moments.counts[:, None], structure.squares_of(moments.scatter)
        sums = jnp.concatenate([counts, jnp.zeros_like(moments.means), squares], axis=1)
        if chosen is not None:
            sites = {name: value[0] for name, value in sites.items()}
        log_prior = prior.log_density(sites, structure, k, d, chosen)
        return -(jnp.sum(natural * sums) + log_prior) / (1 + jnp.sum(counts))

    # One more row of the data's own variance keeps the first covariances away from the edge.
    scatter, rows = structure.gathered(statistics.scatter, statistics.counts)
    scatter = scatter + structure.entries(jnp.eye(d, dtype=scatter.dtype))
    covariances = structure.minimise(scatter, rows + 1, d, None)
    starts = [{"means": statistics.means, "covariances": covariances}]
    starts += [] if previous is None else [previous]
    starts = [prior.split(structure, sites) for sites in starts]
    starts = [{name: to.inv(sites[name]) for name, to in supports.items()} for sites in starts]

    if prior.factorises(structure, k, d):
        one = lambda starts, moments, chosen: _lowest(loss, starts, (moments, prior, chosen))
        alone = lambda tree: jax.tree.map(lambda leaf: leaf[:, None], tree)
        chosen = jnp.eye(k, dtype=statistics.means.dtype)
        free = jax.vmap(one)(alone(starts), alone(statistics), chosen)
        free = jax.tree.map(lambda leaf: leaf[:, 0], free)
    else:
        free = _lowest(loss, starts, (statistics, prior, None))
    sites = {name: to_site(free[name]) for name, to_site in supports.items()}
    return prior.joined(structure, sites)


def _lowest(loss: Callable[[Any, Any], Array], starts: list[Any], data: Any) -> Any:
    """A minimum of ``loss(free, data)`` over real numbers, from the lowest of the starts."""
    _, unravel = ravel_pytree(starts[0])
    vectors = jnp.stack([ravel_pytree(start)[0] for start in starts])
    value = lambda vector, data: loss(unravel(vector), data)
    costs = jax.vmap(lambda vector: value(vector, data))(vectors)
    start = vectors[jnp.argmin(jnp.where(jnp.isnan(costs), jnp.inf, costs))]
    return unravel(minimise(value, jnp.add, start, start.size, data))
