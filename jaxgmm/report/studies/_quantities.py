"""What a study looks at: the numbers in the sites, and some that no renaming of labels changes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgmm._contract import LatentModel, Params, Sites
from jaxgmm.model import coordinates

# What no renaming of labels changes, by the name of the array.
MEAN, COVARIANCE, SHARED = "overall mean", "overall covariance", "shared component"
# Of a site over the components, where the density has no such moments; its name follows.
AVERAGE = "average "


class Quantity(NamedTuple):
    """A number: where it stands, what it is called, and whether it belongs to a label."""

    site: str
    index: tuple[int, ...]
    label: str

    @property
    def invariant(self) -> bool:
        return self.site in (MEAN, COVARIANCE, SHARED) or self.site.startswith(AVERAGE)


Quantities = tuple[Quantity, ...]


def quantities(model: LatentModel, params: Params, names: tuple[str, ...]) -> Quantities:
    """All that may vary around ``params``, what belongs to no label first.

    A weight that must be one, or that is fixed, is left out.
    """
    found = []
    for site, value in invariants(model, params).items():
        found += [Quantity(site, *one) for one in entries(model, params, site, value, names)]
    sites = jax.tree.map(np.asarray, model.sites(params))
    found += [Quantity(*one) for one in coordinates(model, sites, names)]
    moves = jax.jacfwd(lambda t: values(tuple(found), model, model.retract(params, t)))
    slope = np.asarray(moves(jnp.zeros(model.tangent_size(params))))
    return tuple(q for q, free in zip(found, np.any(slope != 0, axis=1), strict=True) if free)


def values(wanted: Quantities, model: LatentModel, params: Params) -> Float[Array, " q"]:
    """The quantities at one point."""
    sites = {**model.sites(params), **invariants(model, params)}
    return jnp.stack([sites[q.site][q.index] for q in wanted])


def entries(
    model: LatentModel, params: Params, name: str, value: Array, names: tuple[str, ...]
) -> Iterator[tuple[tuple[int, ...], str]]:
    """Where the numbers of an invariant stand, symmetric ones once, and their names."""
    if name.startswith(AVERAGE):
        # As those of the first component, without its number.
        for site, index, label in coordinates(model, model.sites(params), names):
            if f"{AVERAGE}{site}" == name and index[0] == 0:
                rest = label.removeprefix(site)[2:].removeprefix(", ").removesuffix("]")
                yield index[1:], f"{name}[{rest}]" if rest else name
        return
    for index in itertools.product(*map(range, value.shape)):
        if list(index) == sorted(index):
            at = ", ".join(names[i] for i in index)
            yield index, f"{name}[{at}]" if at else name


def invariants(model: LatentModel, params: Params) -> Sites:
    """What no renaming changes, and the probability that two rows share a component.

    Moments of the density as a whole; where components have other parameters than means and
    covariances, the averages of these over the components.
    """
    own, dims = model.sites(params), model.site_dims()
    sites = {**model.derived_sites(params), **own}
    weights = sites.get("weights")
    if weights is None or dims.get("weights") != ["component"]:
        return {}
    shared = {SHARED: jnp.sum(weights**2)}
    if not {"means", "covariances_full"} <= set(sites):
        each = [n for n in own if n != "weights" and dims.get(n, [])[:1] == ["component"]]
        return {f"{AVERAGE}{n}": jnp.tensordot(weights, own[n], axes=1) for n in each} | shared
    means = sites["means"]
    centre = weights @ means
    apart = means - centre
    between = jnp.einsum("k,ki,kj->ij", weights, apart, apart)
    within = jnp.tensordot(weights, sites["covariances_full"], axes=1)
    return {MEAN: centre, COVARIANCE: within + between} | shared
