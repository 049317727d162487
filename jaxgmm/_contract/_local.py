"""What standard errors, curvature and samplers ask: steps about a point."""

from __future__ import annotations

from typing import Any, Self

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxgmm._contract._definition import Definition, Params, Sites
from jaxgmm._contract._within import at_edge, freedom, inwards, stepped


class Local(Definition):
    """Smooth maps from plain numbers to parameters, and distances from their edges."""

    def retract(self, params: Params, tangent: Float[Array, " p"]) -> Params:
        """Parameters a step away: a smooth map of `tangent_size` numbers, zero to ``params``.

        Here each site is moved within its support, and stays on an edge where it is there.
        """
        moved: Sites = {}
        sites, start = self.sites(params), 0
        for name, conditional in self.prior_sites().items():
            support = conditional(moved or sites).support
            size = freedom(support, sites[name])
            moved[name] = stepped(support, sites[name], tangent[start : start + size])
            start += size
        return self.from_sites(moved)

    def tangent_size(self, params: Params) -> int:
        """How many numbers `retract` takes."""
        sites = self.sites(params)
        prior = self.prior_sites().items()
        return sum(freedom(d(sites).support, sites[name]) for name, d in prior)

    def edges(self, params: Params) -> Bool[Array, " p"]:
        """Which of the numbers that `retract` takes move a value close to an edge of its support.

        There the likelihood may have drawn it, and a standard error means little.
        """
        sites = self.sites(params)
        return jnp.concatenate(
            [at_edge(d(sites).support, sites[name]) for name, d in self.prior_sites().items()]
        )

    def inwards(self, params: Params, margin: Array | float) -> Params:
        """Parameters that keep a distance from the edges of their supports, for starts of chains.

        What is on an edge has no finite unconstrained coordinates.
        """
        sites = self.sites(params)
        held = {
            name: inwards(d(sites).support, sites[name], margin)
            for name, d in self.prior_sites().items()
        }
        return self.from_sites(held)

    def settled(self, params: Params) -> Self:
        """The same model with its numerics fixed to what suits ``params`` (any leading axes).

        For programs that differentiate: what a model otherwise measures at every call is
        measured once, on the host.
        """
        return self

    def log_units(self) -> Array | None:
        """What the log prior gains when its sites are measured in the user's units.

        None for a model that is in the user's units already.
        """
        return None

    def check_coordinates(self, dtype: Any) -> None:
        """Refuse, with a `ValueError`, a prior too close to edges for unconstrained coordinates."""
