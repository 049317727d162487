"""Families whose parameters are named arrays: everything that follows from their supports."""

from __future__ import annotations

import abc
import copy
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxgmm._checks import any_nan, check_names
from jaxgmm._contract import Prior, Sites, at_edge, described, freedom, improper, inwards, stepped
from jaxgmm.files import numeric, stored
from jaxgmm.model._family import Family, Site
from jaxgmm.model._site_prior import SitePrior, inside
from jaxgmm.model._tree import pytree


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class MixtureParams:
    """Parameters of a mixture; leading batch axes are allowed throughout.

    The components' own are attributes as well: ``params.rates`` is ``params.own["rates"]``.

    Attributes
    ----------
    weights : (..., K) array
        Mixing weights.
    own : dict of arrays
        By name what the components have, each (..., K, ...).

    Examples
    --------
    >>> import jaxgmm as jg
    >>> model = jg.Mixture(jg.families.Poisson(), 2)
    >>> model.params(rates=[[1.0], [5.0]]).rates.shape
    (2, 1)
    """

    # Leaves may be anything that a transformation puts there, hence no array types.
    weights: Any
    own: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__.get("own")
        if isinstance(own, Mapping) and name in own:
            return own[name]
        raise AttributeError(f"{type(self).__name__} has no {name!r}")


@dataclasses.dataclass(frozen=True)
class SiteFamily(Family):
    """A family of which each component has arrays of its own, by name, on known supports."""

    # ArviZ dimensions of every site.
    dims: ClassVar[tuple[str, ...]] = ("component", "feature")

    # Whether values are missing in the data; set by `looked`.
    incomplete: bool = dataclasses.field(  # type: ignore[override]
        default=False, kw_only=True, repr=False, metadata={"static": True}
    )

    @abc.abstractmethod
    def component_sites(self, k: int, d: int) -> dict[str, Site]:
        """Shapes, whose first axes are components and columns, and supports."""

    @property
    def site_names(self) -> tuple[str, ...]:
        return tuple(self.component_sites(1, 1))

    # -- sites -----------------------------------------------------------------------

    def site_dims(self) -> dict[str, list[str]]:
        return {name: list(self.dims) for name in self.site_names}

    def from_sites(self, weights: Array, sites: Sites, prior: Any = None) -> MixtureParams:
        return MixtureParams(weights, {name: sites[name] for name in self.site_names})

    def sites(self, params: MixtureParams, prior: Any = None) -> Sites:
        return {name: params.own[name] for name in self.site_names}

    def permute(self, params: MixtureParams, order: Array) -> MixtureParams:
        own = {name: site[order] for name, site in params.own.items()}
        return dataclasses.replace(params, own=own)

    def n_columns(self, params: MixtureParams) -> int:
        return next(iter(params.own.values())).shape[1]

    def n_parameters(self, k: int, d: int) -> int:
        """Free parameters of the components."""
        sites = self.component_sites(k, d).values()
        free = [(*site.shape[:-1], site.shape[-1] - site.support.event_dim) for site in sites]
        return sum(map(math.prod, free))

    def checked(self, own: dict[str, Any], k: int) -> Sites:
        check_names(self.label, own, self.site_names)
        sites = {}
        for name in self.site_names:
            array, support = numeric(name, own[name]), self.component_sites(k, 1)[name].support
            if array.ndim == 1 and len(self.dims) == 2 and not support.event_dim:
                array = array[:, None]
            needed = self.component_sites(k, array.shape[1] if array.ndim > 1 else 1)[name].shape
            if array.shape != needed:
                text = ", ".join(map(str, (k, "D", *needed[2:])))
                raise ValueError(f"{name}: needs shape ({text}), found {array.shape}")
            holds = np.asarray(support(array))
            if not support.event_dim:  # an edge is a value that a fit may have
                holds = holds | (array == 0)
            if not np.all(holds):
                raise ValueError(f"{name}: needs values on {described(support)[0]}")
            sites[name] = jax.device_put(array)
        return sites

    # -- rows --------------------------------------------------------------------------

    def looked(self, x: Array, sample_weight: Array | None) -> SiteFamily:
        if isinstance(x, Tracer) or not self.holes:
            return self
        # Not by `dataclasses.replace`: families may be made of other things than their fields.
        known = copy.copy(self)
        object.__setattr__(known, "incomplete", any_nan(x))
        return known

    def impute(
        self,
        params: MixtureParams,
        x: Array,
        labels: Float[Array, "n k"],
        key: PRNGKeyArray | None,
    ) -> Float[Array, "n d"]:
        if not self.holes:
            return super().impute(params, x, labels, key)
        if key is None:
            filled = self.expected(self.sites(params), labels)
        else:
            filled = self.sample(params, key, jnp.argmax(labels, axis=1))
        return jnp.where(jnp.isnan(x), filled, x)

    def expected(self, own: Sites, labels: Float[Array, "n k"]) -> Float[Array, "n d"]:
        """What rows with these probabilities of labels are expected to be; of codes the likeliest.

        Columns are independent given the label.
        """
        raise ValueError(
            f"impute: {self.label} has no method expected(own, labels), which fills in "
            "expectations; pass key= to draw what is missing"
        )

    def marginal(self, params: MixtureParams, column: int, grid: Float[Array, " m"]) -> Array:
        """(K, m): weight times density of values of one column, where columns are independent."""
        own = {
            name: lax.dynamic_index_in_dim(site, column, axis=1)
            for name, site in self.sites(params).items()
        }
        density = self.log_density(MixtureParams(params.weights, own), self.features(grid[:, None]))
        return params.weights[:, None] * jnp.exp(density)

    # -- priors --------------------------------------------------------------------------

    def prior_of(self, distributions: dict[str, Any]) -> SitePrior:
        return SitePrior(distributions)

    def prior_sites(self, prior: SitePrior | None, k: int, d: int) -> Prior:
        def of(name: str, site: Site) -> dist.Distribution:
            if prior is None:
                return improper(site.support, site.shape)
            return inside(prior.distributions[name], site)

        sites = self.component_sites(k, d)
        return {
            name: lambda _, name=name, site=site: of(name, site) for name, site in sites.items()
        }

    # -- doors and health ------------------------------------------------------------------

    def check_prior(self, prior: Any, k: int, d: int, free: bool) -> None:
        if not isinstance(prior, SitePrior):
            raise TypeError(
                f"prior: {type(prior).__name__} is of Gaussian components; {self.label} takes "
                f'None, "weak", or a dictionary of distributions of '
                f"{', '.join(map(repr, self.site_names))} and 'weights'"
            )
        prior.check(self.component_sites(k, d), k, free)

    def collapsed(self, params: MixtureParams, bounded: bool) -> Array:
        finite = [jnp.all(jnp.isfinite(site)) for site in params.own.values()]
        return ~jnp.all(jnp.stack(finite))

    # -- steps -----------------------------------------------------------------------------

    def _supports(self, params: MixtureParams) -> dict[str, tuple[Any, Array]]:
        sites = self.component_sites(1, self.n_columns(params))
        return {name: (site.support, params.own[name]) for name, site in sites.items()}

    def retract(self, params: MixtureParams, tangent: Float[Array, " p"]) -> MixtureParams:
        """Along the logarithms of the sites, and of what they leave of one."""
        own, start = {}, 0
        for name, (support, site) in self._supports(params).items():
            size = freedom(support, site)
            own[name] = stepped(support, site, tangent[start : start + size])
            start += size
        return dataclasses.replace(params, own=own)

    def edges(self, params: MixtureParams) -> Bool[Array, " p"]:
        return jnp.concatenate([at_edge(*site) for site in self._supports(params).values()])

    def inwards(self, params: MixtureParams, margin: Array | float) -> MixtureParams:
        own = {name: inwards(*site, margin) for name, site in self._supports(params).items()}
        return dataclasses.replace(params, own=own)


def moved_site(params: Any, site: str, offset: Any) -> Any:
    """Parameters, or sites by name, one of the sites moved by NumPy, as in `Gaussian.moved`."""
    moved = lambda own: {**own, site: np.asarray(own[site], np.float64) + offset}
    if isinstance(params, MixtureParams):
        return dataclasses.replace(params, own=moved(params.own))
    return moved(params) if isinstance(params, Mapping) else params
