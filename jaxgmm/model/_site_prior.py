"""Priors written by the user: a NumPyro distribution for each site."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import constraints

from jaxgmm._contract import (
    described,
    distribution_code,
    distribution_text,
    innermost,
    instead,
    support_of,
)
from jaxgmm.files import stored
from jaxgmm.model._family import Site
from jaxgmm.model._prior import ConjugatePrior
from jaxgmm.model._site_mode import weights_mode
from jaxgmm.model._tree import pytree
from jaxgmm.model._weights import SIMPLEX, STICKS, Weighting


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class SitePrior:
    """Independent distributions by site, in the units of the user.

    Attributes
    ----------
    distributions : dict
        As the user wrote them, before they are expanded to the shapes of their sites.
    """

    distributions: Mapping[str, Any]

    # What tables call it.
    name: ClassVar[str] = "sites"

    @property
    def nested(self) -> tuple[Any, ...]:
        """Priors of parts of the model, each a `SitePrior` or of another kind."""
        return ()

    @property
    def by_site(self) -> Mapping[str, Any]:
        """All distributions that were written."""
        return self.distributions

    @property
    def formulas(self) -> tuple[str, ...]:
        """A line for every distribution, as it was written, for a whole site."""
        text = lambda one: one.text if isinstance(one, ConjugatePrior) else distribution_text(one)
        return tuple(f"{name} ~ {text(one)}" for name, one in self.by_site.items())

    @property
    def code(self) -> str:
        """Python that makes the dictionary; dots in it where that is not known."""
        known = lambda one: one.code if isinstance(one, ConjugatePrior) else distribution_code(one)
        parts = {name: known(one) for name, one in self.by_site.items()}
        if None in parts.values():
            return "{" + ", ".join(f'"{name}": ...' for name in parts) + "}"
        lines = "".join(f'    "{name}": {part},\n' for name, part in parts.items())
        return "{\n" + lines + "}"

    # -- weights -------------------------------------------------------------------

    @property
    def weighting(self) -> Weighting:
        return STICKS if STICKS.site in self.distributions else SIMPLEX

    def weight_site(self, k: int) -> Site:
        if self.weighting is STICKS:
            return Site((k - 1,), constraints.unit_interval)
        return Site((k,), constraints.simplex)

    def of_weights(self, k: int) -> dist.Distribution:
        """The distribution of the site of the weights."""
        one = jnp.ones((), jnp.result_type(*jax.tree.leaves(self.distributions)))
        written = self.distributions[self.weighting.site]
        return in_units(written, self.weight_site(k), 0 * one, one, 0 * one)

    def weights_mode(self, counts: Array, before: Array | None) -> Array:
        """The weights at the mode given labelled rows, by way of those ``before``."""
        written = self.distributions[self.weighting.site]
        return weights_mode(self.weighting, written, counts, before)

    @property
    def concentration(self) -> Any:
        """Of Dirichlet weights; None of others, of which nothing is known."""
        written = innermost(self.distributions.get(self.weighting.site))
        return written.concentration if isinstance(written, dist.Dirichlet) else None

    def reweighted(self, concentration: Array) -> Self:
        """The same prior with another Dirichlet distribution of the weights."""
        weights = {self.weighting.site: dist.Dirichlet(concentration)}
        return dataclasses.replace(self, distributions={**self.distributions, **weights})

    # -- doors ---------------------------------------------------------------------

    def sized(self, k: int, d: int, dtype: Any) -> Self:
        """With arrays for numbers, so that new values compile nothing."""
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), self)

    def check_samplable(self) -> None:
        """Refuse, with a `ValueError`, an improper distribution."""
        for name, written in self.distributions.items():
            if isinstance(innermost(written), dist.ImproperUniform):
                raise ValueError(
                    f"prior: {name!r} has an improper distribution, under which a mixture has no "
                    f"posterior; {instead(written)}"
                )
        for inner in self.nested:
            inner.check_samplable()

    def check(self, own: Mapping[str, Site], k: int, free: bool, hint: str = "") -> None:
        """Refuse, with a `ValueError`, names or distributions that do not fit the sites.

        ``own`` are those of the components, ``hint`` what may stand for some of them.
        """
        sites = {**({self.weighting.site: self.weight_site(k)} if free else {}), **own}
        needed, given = set(sites), set(self.distributions)
        if needed != given:
            text = f"prior: needs a distribution for {_listed(needed)}"
            if free and self.weighting is SIMPLEX:
                text += " ('sticks' may stand for 'weights')"
            text += hint
            if not free:
                text += ", the weights being fixed"
            raise ValueError(f"{text}; found {_listed(given)}")
        for name, site in sites.items():
            _check_distribution(name, self.distributions[name], site)


class InUnits(dist.Distribution):
    """A distribution of ``value * factor + shift``, as one of the value."""

    pytree_data_fields = ("base_dist", "shift", "factor", "log_volume")
    pytree_aux_fields = ("_support",)

    def __init__(
        self,
        base_dist: dist.Distribution,
        shift: Array,
        factor: Array,
        log_volume: Array,
        support: constraints.Constraint,
    ):
        self.base_dist, self._support = base_dist, support
        self.shift, self.factor, self.log_volume = shift, factor, log_volume
        super().__init__(base_dist.batch_shape, base_dist.event_shape)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        return self._support

    def log_prob(self, value: Array) -> Array:
        value = jnp.asarray(value)
        inner = self.base_dist.log_prob(value * self.factor + self.shift)
        # Some distributions of NumPyro compute in 64 bits whatever they are given.
        return inner.astype(value.dtype) + self.log_volume

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        value = self.base_dist.sample(key, sample_shape)
        return ((value - self.shift) / self.factor).astype(self.shift.dtype)


class Inside(InUnits):
    """One whose density at an edge of the support is that at the least distance from there."""

    def log_prob(self, value: Array) -> Array:
        info, support = jnp.finfo(value.dtype), support_of(self)
        if support is constraints.real:
            return super().log_prob(value)
        most = None if support is constraints.positive else 1 - info.epsneg
        return super().log_prob(jnp.clip(value, 4 * info.tiny**0.5, most))


_InUnits = TypeVar("_InUnits", bound=InUnits)


def inside(written: dist.Distribution, site: Site) -> Inside:
    """A distribution as the user wrote it, in full, with finite derivatives up to the edges."""
    one = jnp.ones((), jnp.result_type(*jax.tree.leaves(written)))
    return in_units(written, site, 0 * one, one, 0 * one, Inside)


def in_units(
    written: dist.Distribution,
    site: Site,
    shift: Array,
    factor: Array,
    log_volume: Array,
    kind: type[_InUnits] = InUnits,
) -> _InUnits:
    """A distribution as the user wrote it, in full, as one in the units of the model."""
    batch = site.shape[: len(site.shape) - written.event_dim]
    full = written.expand(batch).to_event(len(batch))
    inner = len(site.shape) - site.support.event_dim
    support = constraints.independent(site.support, inner)
    return kind(full, shift, factor, log_volume, support)


def _listed(names: set[str]) -> str:
    order = ["weights", "sticks", "means", "scales", "correlations", "covariances"]
    known = [name for name in order if name in names] + sorted(names - set(order))
    return ", ".join(map(repr, known)) if known else "none"


def _check_distribution(name: str, written: Any, site: Site) -> None:
    """Refuse a distribution that does not fill the site, or is none.

    NumPyro itself has checked the range of parameters.
    """
    if not isinstance(written, dist.Distribution):
        raise TypeError(f"prior: {name!r} needs a NumPyro distribution, found {written!r}")
    kind = type(innermost(written)).__name__
    found = support_of(written)
    if not _same_support(found, site.support):
        raise ValueError(
            f"prior: {name!r} needs a distribution on {described(site.support)[0]}, found {kind} "
            f"on {described(found)[0]}; {instead(written, site.support)}"
        )
    split = len(site.shape) - written.event_dim
    fits = split >= 0 and written.event_shape == site.shape[split:]
    try:
        fits = (
            fits
            and np.broadcast_shapes(written.batch_shape, site.shape[:split]) == (site.shape[:split])
        )
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"prior: {name!r} has shape {site.shape}, which {kind} of batch shape "
            f"{written.batch_shape} and event shape {written.event_shape} does not expand to"
        )
    inner = innermost(written)
    if isinstance(inner, (dist.InverseWishart, dist.Wishart)):
        least = site.shape[-1] - 1
        if not np.all(np.asarray(inner.base_dist.concentration) > least):
            raise ValueError(f"prior: concentration of {kind} at {name!r} must be above {least}")


def _same_support(found: Any, needed: Any) -> bool:
    if found == needed:
        return True
    half_line = (type(constraints.greater_than(0.0)), type(constraints.greater_than_eq(0.0)))
    return needed is constraints.positive and (
        isinstance(found, half_line) and bool(np.all(np.asarray(found.lower_bound) == 0))
    )
