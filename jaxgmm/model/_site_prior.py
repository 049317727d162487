"""Priors written by the user: a NumPyro distribution for each site."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from jaxgmm._contract import Prior, Sites
from jaxgmm._numerics import Affine
from jaxgmm._proper import described, innermost, instead, support_of
from jaxgmm.model._structure import Curved, Structure
from jaxgmm.model._weights import SIMPLEX, STICKS, Weighting

# Densities of means with a bound, and of spreads that vanish at zero faster than any
# power: with these no component can shrink onto a row and gain.
_BOUNDED = (
    dist.Normal,
    dist.StudentT,
    dist.Cauchy,
    dist.Laplace,
    dist.Logistic,
    dist.MultivariateNormal,
    dist.MultivariateStudentT,
)
_HOLDS_SPREAD = (dist.InverseWishart, dist.InverseGamma, dist.LogNormal)


class Site(NamedTuple):
    """What a site holds, and how many of its last axes make one value of its support."""

    shape: tuple[int, ...]
    support: constraints.Constraint


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SitePrior:
    """Independent distributions by site, in the units of the user.

    Attributes
    ----------
    distributions : dict
        As the user wrote them, before they are expanded to the shapes of their sites.
    chart : Affine, optional
        From the units of the model to those of the distributions.
    """

    distributions: Mapping[str, Any]
    chart: Affine | None = None

    # -- what is declared ----------------------------------------------------------

    @property
    def weighting(self) -> Weighting:
        return STICKS if STICKS.site in self.distributions else SIMPLEX

    @property
    def scaled(self) -> bool:
        """Whether standard deviations and correlations stand for the covariances."""
        return bool({"scales", "correlations"} & set(self.distributions))

    def weight_site(self, k: int) -> Site:
        if self.weighting is STICKS:
            return Site((k - 1,), constraints.unit_interval)
        return Site((k,), constraints.simplex)

    def component_sites(self, structure: Structure, k: int, d: int) -> dict[str, Site]:
        """The sites of means and covariances."""
        sites = {"means": Site((k, d), constraints.real)}
        whole = structure.site_shape(k, d)
        if not self.scaled:
            return {**sites, "covariances": Site(whole, structure.entry_support())}
        if not structure.uses_products:
            return {**sites, "scales": Site(whole, constraints.positive)}
        sites["scales"] = Site(whole[:-1], constraints.positive)
        if d > 1:
            sites["correlations"] = Site(whole, constraints.corr_matrix)
        return sites

    def _sites(self, structure: Structure, k: int, d: int, free: bool) -> dict[str, Site]:
        weights = {self.weighting.site: self.weight_site(k)} if free else {}
        return {**weights, **self.component_sites(structure, k, d)}

    def split(self, structure: Structure, sites: Sites) -> Sites:
        """The declared sites in place of ``covariances``."""
        covariances = sites["covariances"]
        if not self.scaled:
            return sites
        declared = {"means": sites["means"]}
        if not structure.uses_products:
            return {**declared, "scales": jnp.sqrt(covariances)}
        scales = jnp.sqrt(structure.variances(covariances))
        declared["scales"] = scales
        d = scales.shape[-1]
        if d > 1:
            ratios = covariances / (scales[..., :, None] * scales[..., None, :])
            declared["correlations"] = jnp.where(jnp.eye(d, dtype=bool), 1, ratios)
        return declared

    def joined(self, structure: Structure, sites: Sites) -> Sites:
        """The inverse of `split`."""
        if not self.scaled:
            return sites
        scales = sites["scales"]
        if not structure.uses_products:
            covariances = scales**2
        else:
            covariances = scales[..., :, None] * scales[..., None, :]
            covariances = covariances * sites.get("correlations", 1)
        return {"means": sites["means"], "covariances": covariances}

    # -- the density ---------------------------------------------------------------

    def prior_sites(self, structure: Structure, k: int, d: int, free: bool) -> Prior:
        """The distributions in full, in the units of the model."""

        def distribution(name: str, site: Site) -> dist.Distribution:
            written = self.distributions[name]
            batch = site.shape[: len(site.shape) - written.event_dim]
            full = written.expand(batch).to_event(len(batch))
            inner = len(site.shape) - site.support.event_dim
            support = constraints.independent(site.support, inner)
            return InUnits(full, *self._units(name, structure, k, d), support)

        sites = self._sites(structure, k, d, free)
        return {
            name: lambda _, name=name, site=site: distribution(name, site)
            for name, site in sites.items()
        }

    def log_units(self, chart: Affine, structure: Structure, k: int, d: int) -> Array:
        """log |working / user volume element| of the sites."""
        moved = dataclasses.replace(self, chart=chart)
        volumes = [
            moved._units(name, structure, k, d)[2] for name in self.component_sites(structure, k, d)
        ]
        return -sum(volumes[1:], volumes[0])

    def _map(self, name: str, structure: Structure, d: int) -> tuple[Array, Array]:
        """Shift and factor from the model's units of an entry to the distribution's."""
        assert self.chart is not None
        shift, scale = self.chart
        one = jnp.ones((), scale.dtype)
        if name == "means":
            return shift, scale
        if name == "scales":
            return 0 * one, scale[0] if structure.isotropic else scale
        if name == "covariances":
            return 0 * one, structure.rescale(jnp.ones(structure.entry_shape(d), one.dtype), scale)
        return 0 * one, one

    def _units(self, name: str, structure: Structure, k: int, d: int) -> tuple[Array, Array, Array]:
        """`_map`, and the log volume of a unit of the site."""
        assert self.chart is not None
        shift, factor = self._map(name, structure, d)
        if name == "covariances":  # matrices are symmetric
            return shift, factor, structure.log_volume_power(k, d) * self.chart.log_scale
        sites = self.component_sites(structure, k, d)
        if name not in sites or name == "correlations":
            return shift, factor, jnp.zeros_like(shift)
        return shift, factor, jnp.sum(jnp.log(jnp.broadcast_to(factor, sites[name].shape)))

    # -- one component by itself, for the M-step -----------------------------------

    def factorises(self, structure: Structure, k: int, d: int) -> bool:
        """Whether components are independent under the prior."""
        return not structure.shared and all(
            self.distributions[name].event_dim < len(site.shape)
            for name, site in self.component_sites(structure, k, d).items()
        )

    def log_density(
        self, sites: Sites, structure: Structure, k: int, d: int, chosen: Float[Array, " k"] | None
    ) -> Array:
        """Log density of the components' sites but for a constant.

        With ``chosen``, a row of the identity, the sites hold that component only.
        """
        total = jnp.zeros((), sites["means"].dtype)
        for name, site in self.component_sites(structure, k, d).items():
            written = self.distributions[name]
            shift, factor = self._map(name, structure, d)
            value = sites[name] * factor + shift
            own = len(written.batch_shape) + written.event_dim == len(site.shape)
            if chosen is not None and own and written.batch_shape[0] > 1:
                # Hyper-parameters by component: only all of them together are in reach.
                logs = written.log_prob(jnp.broadcast_to(value, site.shape))
                logs = chosen @ logs.reshape(k, -1)
            else:
                logs = written.log_prob(value)
            total += jnp.sum(logs).astype(total.dtype)
        return total

    # -- doors ---------------------------------------------------------------------

    def resolved(self, dtype: Any, d: int) -> SitePrior:
        """With arrays for numbers, so that new values compile nothing."""
        chart = self.chart or Affine(jnp.zeros(d, dtype), jnp.ones(d, dtype))
        return jax.tree.map(
            lambda leaf: jnp.asarray(leaf, dtype), dataclasses.replace(self, chart=chart)
        )

    def standardised(self, chart: Affine) -> SitePrior:
        """The same prior for a model in the units of ``chart``."""
        assert self.chart is not None
        inner = Affine(self.chart.invert(chart.shift), self.chart.scale * chart.scale)
        return dataclasses.replace(self, chart=inner)

    def translated(self, offset: Any) -> SitePrior:
        """The same prior for rows moved by ``offset``."""
        shift, scale = self.chart or Affine(np.zeros_like(offset), np.ones_like(offset))
        chart = Affine(np.asarray(shift) - np.asarray(scale) * offset, scale)
        return dataclasses.replace(self, chart=chart)

    def bounded(self, free: bool) -> bool:
        """Whether no component gains without end by shrinking onto a row."""
        kinds = {name: innermost(d) for name, d in self.distributions.items()}
        weights = kinds.get(self.weighting.site)
        spread = kinds.get("scales" if self.scaled else "covariances")
        return (
            (not free or isinstance(weights, dist.Dirichlet))
            and isinstance(kinds.get("means"), _BOUNDED)
            and isinstance(spread, _HOLDS_SPREAD)
            and "correlations" not in kinds
        )

    @property
    def concentration(self) -> Any:
        """Of Dirichlet weights; None of others, of which nothing is known."""
        written = innermost(self.distributions.get(self.weighting.site))
        return written.concentration if isinstance(written, dist.Dirichlet) else None

    def check_samplable(self) -> None:
        """Refuse, with a `ValueError`, an improper distribution."""
        for name, written in self.distributions.items():
            if isinstance(innermost(written), dist.ImproperUniform):
                raise ValueError(
                    f"prior: {name!r} has an improper distribution, under which a mixture has no "
                    f"posterior; {instead(written)}"
                )

    def check(self, structure: Structure, k: int, d: int, free: bool) -> None:
        """Refuse, with a `ValueError`, sites or distributions that do not fit the model."""
        if isinstance(structure, Curved):
            raise ValueError(
                f"prior: distributions by site need covariances that are free or all one, which "
                f"{structure.name!r} ties together; use a ConjugatePrior"
            )
        self._check_names(structure, k, d, free)
        for name, site in self._sites(structure, k, d, free).items():
            _check_distribution(name, self.distributions[name], site)

    def _check_names(self, structure: Structure, k: int, d: int, free: bool) -> None:
        needed, given = set(self._sites(structure, k, d, free)), set(self.distributions)
        if needed == given:
            return
        text = f"prior: needs a distribution for {_listed(needed)}"
        if free and self.weighting is SIMPLEX:
            text += " ('sticks' may stand for 'weights')"
        if not self.scaled:
            parts = "'scales'"
            if structure.uses_products and d > 1:
                parts = "'scales' and 'correlations'"
            text += f" ({parts} may stand for 'covariances')"
        if not free:
            text += ", the weights being fixed"
        raise ValueError(f"{text}; found {_listed(given)}")


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
