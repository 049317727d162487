"""Exponential families whose priors are known distributions: one base, families of 20 lines."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxgmm._archive import stored
from jaxgmm._checks import check_names
from jaxgmm._contract import Assignment, Prior, Sites
from jaxgmm._numerics import block_rows
from jaxgmm._proper import described, innermost
from jaxgmm._tables import numeric
from jaxgmm._within import at_edge, freedom, inwards, stepped
from jaxgmm.model._door import check_poles
from jaxgmm.model._family import Family, Site, labelled
from jaxgmm.model._hyper import KINDS, Hyper, Kind, Moments, at, hyper
from jaxgmm.model._prior import improper
from jaxgmm.model._site_prior import SitePrior, inside


@stored
@jax.tree_util.register_dataclass
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


class Sums(NamedTuple):
    """Effective rows of each component, (K,), and sums of the features of its rows, (K, f)."""

    counts: Array
    features: Array


class ConjugateFamily(Family):
    """An exponential family: log p(x | k) = natural(k) . features(x), with a conjugate prior.

    A subclass, a frozen dataclass registered as a pytree, says which distribution is conjugate
    to each of its sites (``conjugate``; `numpyro.distributions.Beta`, ``Dirichlet`` and
    ``Gamma`` are known), what a row counts (`features`), how it is weighed (`natural`), and what
    labelled rows add to the hyper-parameters (`evidence`). Densities and sums are then one matrix
    product each, and M-steps with and without a prior, Gibbs sampling, variational Bayes, bridge
    sampling, boundaries and starts follow.
    """

    conjugate: ClassVar[dict[str, type]]
    # ArviZ dimensions of every site.
    dims: ClassVar[tuple[str, ...]] = ("component", "feature")

    # -- what a family says ----------------------------------------------------------

    @abc.abstractmethod
    def features(self, x: Array) -> Float[Array, "f n"]:
        """Sufficient statistics of each row, a one first."""

    @abc.abstractmethod
    def natural(self, of: dict[str, Moments]) -> Float[Array, "k f"]:
        """The factor of each feature, from each site's value and logarithm.

        These are a point's, or their means over a prior, of which the result is then the mean.
        """

    @abc.abstractmethod
    def evidence(self, sums: Sums) -> dict[str, Hyper]:
        """What labelled rows add to the hyper-parameters of each site, in NumPyro's order."""

    @abc.abstractmethod
    def draw(self, own: Sites, key: PRNGKeyArray, labels: Array) -> Float[Array, "*n d"]:
        """One row of the component named by each label."""

    def shape(self, k: int, d: int) -> tuple[int, ...]:
        """Of every site; its first axes are components and columns."""
        return k, d

    # -- sites -----------------------------------------------------------------------

    def component_sites(self, k: int, d: int) -> dict[str, Site]:
        """Shapes and supports."""
        return {name: Site(self.shape(k, d), kind.support) for name, kind in self._kinds.items()}

    @property
    def _kinds(self) -> dict[str, Kind]:
        return {name: KINDS[conjugate] for name, conjugate in self.conjugate.items()}

    def site_dims(self) -> dict[str, list[str]]:
        return {name: list(self.dims) for name in self.conjugate}

    def from_sites(self, weights: Array, sites: Sites, prior: Any = None) -> MixtureParams:
        return MixtureParams(weights, {name: sites[name] for name in self.conjugate})

    def sites(self, params: MixtureParams, prior: Any = None) -> Sites:
        return {name: params.own[name] for name in self.conjugate}

    def permute(self, params: MixtureParams, order: Array) -> MixtureParams:
        own = {name: site[order] for name, site in params.own.items()}
        return dataclasses.replace(params, own=own)

    def n_columns(self, params: MixtureParams) -> int:
        return next(iter(params.own.values())).shape[1]

    def n_parameters(self, k: int, d: int) -> int:
        """Free parameters of the components."""
        shape = self.shape(k, d)
        free = [(*shape[:-1], shape[-1] - kind.support.event_dim) for kind in self._kinds.values()]
        return sum(map(math.prod, free))

    def checked(self, own: dict[str, Any], k: int) -> Sites:
        check_names(self.label, own, self.conjugate)
        sites = {}
        for name, kind in self._kinds.items():
            array = numeric(name, own[name])
            if array.ndim == 1 and len(self.dims) == 2 and not kind.support.event_dim:
                array = array[:, None]
            needed = self.shape(k, array.shape[1] if array.ndim > 1 else 1)
            if array.shape != needed:
                text = ", ".join(map(str, (k, "D", *needed[2:])))
                raise ValueError(f"{name}: needs shape ({text}), found {array.shape}")
            holds = np.asarray(kind.support(array))
            if not kind.support.event_dim:  # an edge is a value that a fit may have
                holds = holds | (array == 0)
            if not np.all(holds):
                raise ValueError(f"{name}: needs values on {described(kind.support)[0]}")
            sites[name] = jnp.asarray(array)
        return sites

    # -- rows --------------------------------------------------------------------------

    def log_density(self, params: MixtureParams, features: Array) -> Float[Array, "k n"]:
        return self._natural(params) @ features

    def _natural(self, params: MixtureParams) -> Float[Array, "k f"]:
        return self.natural({name: at(site) for name, site in self.sites(params).items()})

    def sums(self, features: Float[Array, "f n"], weights: Float[Array, "k n"]) -> Array:
        return weights @ features.T

    def statistics(self, sums: Float[Array, "k f"]) -> Sums:
        return Sums(sums[:, 0], sums)

    def block_rows(self, x: Array, n_components: int) -> int:
        width = jax.eval_shape(self.features, x[:1]).shape[0]
        return block_rows(width + n_components, x.dtype)

    def sample(self, params: MixtureParams, key: PRNGKeyArray, labels: Array) -> Array:
        return self.draw(self.sites(params), key, labels).astype(params.weights.dtype)

    def marginal(self, params: MixtureParams, column: int, grid: Float[Array, " m"]) -> Array:
        """(K, m): weight times density of values of one column, where columns are independent."""
        own = {
            name: lax.dynamic_index_in_dim(site, column, axis=1)
            for name, site in self.sites(params).items()
        }
        density = self.log_density(MixtureParams(params.weights, own), self.features(grid[:, None]))
        return params.weights[:, None] * jnp.exp(density)

    # -- EM ----------------------------------------------------------------------------

    def e_step(
        self,
        log_weights: Float[Array, " k"],
        params: MixtureParams,
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Sums, Array]:
        natural = self._natural(params)
        density = lambda features: natural @ features
        return labelled(self, density, log_weights, x, sample_weight, assign)

    def shrunk(self, statistics: Sums) -> Sums:
        """Each cluster with one row more, the average one: no parameter starts on an edge."""
        total = jnp.sum(statistics.features, axis=0)
        return self.statistics(statistics.features + total / total[0])

    def update(
        self, statistics: Sums, prior: SitePrior | None, params: MixtureParams | None = None
    ) -> Sites:
        after = self._after(statistics, prior)
        return {name: kind.mode(*after[name]) for name, kind in self._kinds.items()}

    def _after(self, statistics: Sums, prior: SitePrior | None) -> dict[str, Hyper]:
        """Hyper-parameters after labelled rows; of a flat density where there is no prior."""
        if prior is not None:
            self.check_conjugate(prior)
        found = {}
        for name, added in self.evidence(statistics).items():
            kind = KINDS[self.conjugate[name]]
            # What is added may be one number for all columns.
            added, before = jnp.broadcast_arrays(*added), kind.flat
            if prior is not None:
                before = hyper(prior.distributions[name], kind, added[0].shape)
            found[name] = tuple(one + more for one, more in zip(before, added, strict=True))
        return found

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

    def default_prior(
        self, rule: str, x: Array, sample_weight: Array | None, k: int, free: bool
    ) -> SitePrior:
        """What one average row leaves of a flat density: unit information.

        References
        ----------
        Kass and Wasserman (1995), JASA 90:928-934.
        """
        all_rows = lambda rows, _: jnp.ones((rows.shape[0], 1), x.dtype)
        sums = self.at_labels(all_rows, x, sample_weight, 1)
        after = self._after(self.statistics(sums.features / sums.counts), None)
        found = {
            name: made(*(values[0] for values in after[name]))
            for name, made in self.conjugate.items()
        }
        weights = {"weights": dist.Dirichlet(jnp.ones(k, x.dtype))} if free else {}
        return SitePrior(weights | found)

    def sized(self, prior: SitePrior | None, k: int, d: int, dtype: Any) -> SitePrior | None:
        return None if prior is None else prior.resolved(dtype)

    def check_conjugate(self, prior: Any) -> None:
        for name, conjugate in self.conjugate.items():
            found = type(innermost(prior.distributions[name])).__name__
            if found != conjugate.__name__:
                raise ValueError(
                    f"prior: {name!r} has a {found} distribution, to which {self.label} is not "
                    "conjugate: EM would need a numerical M-step, which mixtures do not have yet; "
                    f"use {conjugate.__name__}, or sample without a fit: jaxgmm.sample(model, x, "
                    'key=key, method="nuts", start="prior")'
                )

    def updated(self, statistics: Sums, prior: SitePrior) -> SitePrior:
        after = self._after(statistics, prior)
        made = {name: one(*after[name]) for name, one in self.conjugate.items()}
        return SitePrior({**prior.distributions, **made})

    def expected_step(
        self,
        prior: SitePrior,
        log_weights: Float[Array, " k"],
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Sums, Array]:
        shape = self.shape(log_weights.shape[0], x.shape[1])
        means = {
            name: kind.means(*hyper(prior.distributions[name], kind, shape))
            for name, kind in self._kinds.items()
        }
        natural = self.natural(means)
        density = lambda features: natural @ features
        return labelled(self, density, log_weights, x, sample_weight, assign)

    def divergence(self, prior: SitePrior, other: SitePrior, k: int, d: int) -> Array:
        def full(of: SitePrior, name: str) -> dist.Distribution:
            kind = KINDS[self.conjugate[name]]
            return self.conjugate[name](*hyper(of.distributions[name], kind, self.shape(k, d)))

        apart = [
            jnp.sum(dist.kl_divergence(full(prior, name), full(other, name)))
            for name in self.conjugate
        ]
        return sum(apart[1:], apart[0])

    # -- doors and health ------------------------------------------------------------------

    def check_prior(self, prior: Any, k: int, d: int, free: bool) -> None:
        if not isinstance(prior, SitePrior):
            raise TypeError(
                f"prior: {type(prior).__name__} is of Gaussian components; {self.label} takes "
                f'None, "weak", or a dictionary of distributions of '
                f"{', '.join(map(repr, self.conjugate))} and 'weights'"
            )
        prior.check(self.component_sites(k, d), k, free)

    def check_mode(self, prior: Any) -> None:
        if isinstance(prior, SitePrior):
            self.check_conjugate(prior)
            for name, kind in self._kinds.items():
                written = innermost(prior.distributions[name])
                powers = [getattr(written, power) for power in kind.names[: kind.powers]]
                check_poles(name, type(written).__name__, powers)

    def collapsed(self, params: MixtureParams, bounded: bool) -> Array:
        finite = [jnp.all(jnp.isfinite(site)) for site in params.own.values()]
        return ~jnp.all(jnp.stack(finite))

    # -- steps -----------------------------------------------------------------------------

    def _supports(self, params: MixtureParams) -> dict[str, tuple[Any, Array]]:
        return {n: (kind.support, params.own[n]) for n, kind in self._kinds.items()}

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
