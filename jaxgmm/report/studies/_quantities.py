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
from jaxgmm._coordinates import coordinates

# What no renaming of labels changes, by the name of the array.
MEAN, COVARIANCE, SHARED = "overall mean", "overall covariance", "shared component"


class Quantity(NamedTuple):
    """A number: where it stands, what it is called, and whether it belongs to a label."""

    site: str
    index: tuple[int, ...]
    label: str

    @property
    def invariant(self) -> bool:
        return self.site in (MEAN, COVARIANCE, SHARED)


Quantities = tuple[Quantity, ...]


def quantities(model: LatentModel, params: Params, names: tuple[str, ...]) -> Quantities:
    """All that may vary around ``params``, what belongs to no label first.

    A weight that must be one, or that is fixed, is left out.
    """
    found = []
    for site, value in moments(model, params).items():
        found += [Quantity(site, index, label) for index, label in entries(site, value, names)]
    sites = jax.tree.map(np.asarray, model.sites(params))
    found += [Quantity(*one) for one in coordinates(model, sites, names)]
    moves = jax.jacfwd(lambda t: values(tuple(found), model, model.retract(params, t)))
    slope = np.asarray(moves(jnp.zeros(model.tangent_size(params))))
    return tuple(q for q, free in zip(found, np.any(slope != 0, axis=1), strict=True) if free)


def values(wanted: Quantities, model: LatentModel, params: Params) -> Float[Array, " q"]:
    """The quantities at one point."""
    sites = {**model.sites(params), **moments(model, params)}
    return jnp.stack([sites[q.site][q.index] for q in wanted])


def entries(
    name: str, value: Array, names: tuple[str, ...]
) -> Iterator[tuple[tuple[int, ...], str]]:
    """Where the numbers of a moment stand, those of a symmetric matrix once, and their names."""
    for index in itertools.product(*map(range, value.shape)):
        if list(index) == sorted(index):
            at = ", ".join(names[i] for i in index)
            yield index, f"{name}[{at}]" if at else name


def moments(model: LatentModel, params: Params) -> Sites:
    """Moments of the density as a whole, and the probability that two rows share a component."""
    sites = {**model.derived_sites(params), **model.sites(params)}
    if not {"weights", "means", "covariances_full"} <= set(sites):
        return {}
    weights, means = sites["weights"], sites["means"]
    centre = weights @ means
    apart = means - centre
    between = jnp.einsum("k,ki,kj->ij", weights, apart, apart)
    within = jnp.tensordot(weights, sites["covariances_full"], axes=1)
    return {MEAN: centre, COVARIANCE: within + between, SHARED: jnp.sum(weights**2)}
