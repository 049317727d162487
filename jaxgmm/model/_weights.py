"""Mixing weights as a site: Dirichlet on the simplex, or sticks broken one after the other."""

from __future__ import annotations

import abc

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import digamma
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from jaxgmm._contract import improper


class Weighting(abc.ABC):
    """What the site of the weights is, and its conjugate prior; has no state."""

    site: str

    @abc.abstractmethod
    def resolved(self, concentration: Array, k: int) -> Array:
        """The concentration in full, from what a user wrote."""

    @abc.abstractmethod
    def to_site(self, weights: Float[Array, " k"]) -> Array:
        """The weights as their site."""

    @abc.abstractmethod
    def from_site(self, site: Array) -> Float[Array, " k"]:
        """The inverse of `to_site`."""

    @abc.abstractmethod
    def prior(self, concentration: Array | None, k: int) -> dist.Distribution:
        """Of the site; flat where no concentration is given."""

    @abc.abstractmethod
    def means(self, concentration: Array) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """Prior means of the weights and of their logarithms."""

    @abc.abstractmethod
    def updated(self, concentration: Array, counts: Float[Array, " k"]) -> Array:
        """The concentration after labelled rows."""

    @abc.abstractmethod
    def mode(self, concentration: Array) -> Float[Array, " k"]:
        """The weights at the mode of the site's density."""


class Simplex(Weighting):
    """``weights ~ Dirichlet(concentration)``."""

    site = "weights"

    def resolved(self, concentration, k):
        return jnp.broadcast_to(concentration, (k,))

    def to_site(self, weights):
        return weights

    def from_site(self, site):
        return site

    def prior(self, concentration, k):
        if concentration is None:
            return improper(constraints.simplex, (k,))
        return dist.Dirichlet(concentration, validate_args=False)

    def means(self, concentration):
        total = jnp.sum(concentration)
        return concentration / total, digamma(concentration) - digamma(total)

    def updated(self, concentration, counts):
        return concentration + counts

    def mode(self, concentration):
        return (concentration - 1) / jnp.sum(concentration - 1)


class Sticks(Weighting):
    """``sticks ~ Beta(*concentration)``: each weight is a share of what those before leave.

    The last weight is all that is left: the Dirichlet process truncated at K components
    (Ishwaran and James, 2001, JASA 96:161-173).
    """

    site = "sticks"

    def resolved(self, concentration, k):
        if concentration.ndim == 2:
            return concentration
        return jnp.stack(jnp.broadcast_arrays(jnp.ones(k - 1, concentration.dtype), concentration))

    def to_site(self, weights):
        return weights[:-1] / (weights[:-1] + _later(weights))

    def from_site(self, site):
        left = jnp.cumprod(1 - site)
        one = jnp.ones(1, site.dtype)
        return jnp.concatenate([site, one]) * jnp.concatenate([one, left])

    def prior(self, concentration, k):
        assert concentration is not None
        return dist.Beta(*concentration, validate_args=False).to_event(1)

    def means(self, concentration):
        first, second = concentration
        total = digamma(first + second)
        taken, left = digamma(first) - total, digamma(second) - total
        zero = jnp.zeros(1, left.dtype)
        logs = jnp.concatenate([taken, zero]) + jnp.concatenate([zero, jnp.cumsum(left)])
        return self.from_site(first / (first + second)), logs

    def updated(self, concentration, counts):
        return concentration + jnp.stack([counts[:-1], _later(counts)])

    def mode(self, concentration):
        first, second = concentration
        rows = first + second - 2
        # Without a row and under a flat prior all values are modes.
        return self.from_site(jnp.where(rows > 0, (first - 1) / jnp.where(rows > 0, rows, 1), 0.5))


def _later(values: Float[Array, " k"]) -> Float[Array, " k-1"]:
    """What comes after each but the last, summed."""
    return jnp.cumsum(values[::-1])[::-1][1:]


SIMPLEX, STICKS = Simplex(), Sticks()
