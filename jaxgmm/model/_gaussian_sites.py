"""Distributions by site as the prior of a Gaussian mixture."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from jaxgmm._contract import Prior, Sites, innermost
from jaxgmm._numerics import Affine
from jaxgmm.files import stored
from jaxgmm.model._family import Site
from jaxgmm.model._site_prior import SitePrior, in_units
from jaxgmm.model._structure import Curved, Structure
from jaxgmm.model._tree import pytree

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


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class GaussianSites(SitePrior):
    """`SitePrior` of means and covariances, or of scales and correlations in their place.

    Attributes
    ----------
    chart : Affine, optional
        From the units of the model to those of the distributions.
    """

    chart: Affine | None = None

    # -- what is declared ----------------------------------------------------------

    @property
    def scaled(self) -> bool:
        """Whether standard deviations and correlations stand for the covariances."""
        return bool({"scales", "correlations"} & set(self.distributions))

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

    def prior_sites(self, structure: Structure, k: int, d: int) -> Prior:
        """The distributions of the components in full, in the units of the model."""

        def distribution(name: str, site: Site) -> dist.Distribution:
            return in_units(self.distributions[name], site, *self._units(name, structure, k, d))

        return {
            name: lambda _, name=name, site=site: distribution(name, site)
            for name, site in self.component_sites(structure, k, d).items()
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
        if name == "correlations":
            return shift, factor, jnp.zeros_like(shift)
        shape = self.component_sites(structure, k, d)[name].shape
        return shift, factor, jnp.sum(jnp.log(jnp.broadcast_to(factor, shape)))

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

    def sized(self, k: int, d: int, dtype: Any) -> GaussianSites:
        """With a chart too."""
        chart = self.chart or Affine(jnp.zeros(d, dtype), jnp.ones(d, dtype))
        return super(GaussianSites, dataclasses.replace(self, chart=chart)).sized(k, d, dtype)

    def standardised(self, chart: Affine) -> GaussianSites:
        """The same prior for a model in the units of ``chart``."""
        assert self.chart is not None
        inner = Affine(self.chart.invert(chart.shift), self.chart.scale * chart.scale)
        return dataclasses.replace(self, chart=inner)

    def translated(self, offset: Any) -> GaussianSites:
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

    def check_structure(self, structure: Structure, k: int, d: int, free: bool) -> None:
        """Refuse, with a `ValueError`, sites or distributions that do not fit the model."""
        if isinstance(structure, Curved):
            raise ValueError(
                f"prior: distributions by site need covariances that are free or all one, which "
                f"{structure.name!r} ties together; use a ConjugatePrior"
            )
        hint = ""
        if not self.scaled:
            parts = "'scales'"
            if structure.uses_products and d > 1:
                parts = "'scales' and 'correlations'"
            hint = f" ({parts} may stand for 'covariances')"
        self.check(self.component_sites(structure, k, d), k, free, hint)
