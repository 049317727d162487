"""Exponential families whose priors are known distributions: one base, families of 20 lines."""

from __future__ import annotations

import abc
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgmm._contract import Assignment, Sites, innermost
from jaxgmm._numerics import block_rows
from jaxgmm.model._by_column import ByColumn
from jaxgmm.model._door import check_poles
from jaxgmm.model._family import Site, labelled
from jaxgmm.model._hyper import KINDS, Hyper, Kind, Moments, Sums, at, hyper
from jaxgmm.model._site_family import MixtureParams, SiteFamily
from jaxgmm.model._site_mode import sites_mode
from jaxgmm.model._site_prior import SitePrior


class ConjugateFamily(SiteFamily):
    """An exponential family: log p(x | k) = natural(k) . features(x), with a conjugate prior.

    A subclass, a frozen dataclass registered as a pytree, says which distribution is conjugate
    to each of its sites (``conjugate``; `numpyro.distributions.Beta`, ``Dirichlet`` and
    ``Gamma`` are known), what a row counts (`features`), how it is weighed (`natural`), and what
    labelled rows add to the hyper-parameters (`evidence`). Densities and sums are then one matrix
    product each, and M-steps with and without a prior, Gibbs sampling, variational Bayes, bridge
    sampling, boundaries and starts follow. Where columns are independent it says ``holes = True``:
    then so do missing values.
    """

    conjugate: ClassVar[dict[str, type]]

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

    # -- rows --------------------------------------------------------------------------

    @property
    def layout(self) -> ConjugateFamily | ByColumn:
        return ByColumn(self) if self.incomplete else self

    def log_density(self, params: MixtureParams, features: Array) -> Float[Array, "k n"]:
        return self.natural(self.moments(params)) @ features

    def moments(self, params: MixtureParams) -> dict[str, Moments]:
        """What `natural` takes of a point."""
        return {name: at(site) for name, site in self.sites(params).items()}

    def sums(self, features: Float[Array, "f n"], weights: Float[Array, "k n"]) -> Array:
        return weights @ features.T

    def statistics(self, sums: Float[Array, "k f"]) -> Sums:
        return Sums(sums[:, 0], sums)

    def average(self, sums: Float[Array, "k f"]) -> Float[Array, "k f"]:
        """The sums of the one average row."""
        return sums / sums[:, :1]

    def block_rows(self, x: Array, n_components: int) -> int:
        width = jax.eval_shape(self.layout.features, x[:1]).shape[0]
        return block_rows(width + n_components, x.dtype)

    def sample(self, params: MixtureParams, key: PRNGKeyArray, labels: Array) -> Array:
        return self.draw(self.sites(params), key, labels).astype(params.weights.dtype)

    # -- EM ----------------------------------------------------------------------------

    def e_step(
        self,
        log_weights: Float[Array, " k"],
        params: MixtureParams,
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Sums, Array]:
        rows = x, sample_weight, assign
        return self._labelled(log_weights, self.moments(params), *rows)

    def _labelled(
        self, log_weights: Float[Array, " k"], of: dict[str, Moments], *rows: Any
    ) -> tuple[Sums, Array]:
        """The rows labelled at these moments of the sites."""
        form = self.layout
        natural = form.natural(of)
        return labelled(form, lambda features: natural @ features, log_weights, *rows)

    def shrunk(self, statistics: Sums) -> Sums:
        """Each cluster with one row more, the average one: no parameter starts on an edge."""
        total = jnp.sum(statistics.features, axis=0)
        return self.statistics(statistics.features + total / total[0])

    def update(
        self, statistics: Sums, prior: SitePrior | None, params: MixtureParams | None = None
    ) -> Sites:
        if prior is not None and self.iterates(prior):
            return self._numerical_mode(statistics, prior, params)
        after = self._after(statistics, prior)
        return {name: kind.mode(*after[name]) for name, kind in self._kinds.items()}

    def iterates(self, prior: Any) -> bool:
        return isinstance(prior, SitePrior) and bool(self._without_conjugate(prior))

    def _numerical_mode(
        self, statistics: Sums, prior: SitePrior, params: MixtureParams | None
    ) -> Sites:
        """The mode under a prior that rows do not update: Newton's method, without a row."""
        k = statistics.counts.shape[0]
        before = None if params is None else self.sites(params)
        # From within the supports, whatever rows a component has.
        start = self.update(self.shrunk(statistics), None)
        d = next(iter(start.values())).shape[1]
        supports = {name: site.support for name, site in self.component_sites(k, d).items()}

        def expected(sites: Sites, sums: Sums) -> Array:
            natural = self.layout.natural({name: at(site) for name, site in sites.items()})
            return jnp.sum(natural * sums.features)

        priors = functools.partial(self.prior_sites, k=k, d=d)
        return sites_mode(expected, priors, statistics, prior, supports, start, before)

    def _after(self, statistics: Sums, prior: SitePrior | None) -> dict[str, Hyper]:
        """Hyper-parameters after labelled rows; of a flat density where there is no prior."""
        if prior is not None:
            self.check_conjugate(prior)
        found = {}
        for name, added in self.layout.evidence(statistics).items():
            kind = KINDS[self.conjugate[name]]
            # What is added may be one number for all columns.
            added, before = jnp.broadcast_arrays(*added), kind.flat
            if prior is not None:
                before = hyper(prior.distributions[name], kind, added[0].shape)
            found[name] = tuple(one + more for one, more in zip(before, added, strict=True))
        return found

    # -- priors --------------------------------------------------------------------------

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
        after = self._after(self.statistics(self.layout.average(sums.features)), None)
        found = {
            name: made(*(values[0] for values in after[name]))
            for name, made in self.conjugate.items()
        }
        weights = {"weights": dist.Dirichlet(jnp.ones(k, x.dtype))} if free else {}
        return SitePrior(weights | found)

    def _without_conjugate(self, prior: SitePrior) -> list[str]:
        """The sites whose distributions labelled rows do not update."""
        kind = lambda name: type(innermost(prior.distributions[name])).__name__
        return [name for name, made in self.conjugate.items() if kind(name) != made.__name__]

    def check_conjugate(self, prior: Any) -> None:
        for name in self._without_conjugate(prior):
            raise ValueError(
                f"prior: {name!r} has a {type(innermost(prior.distributions[name])).__name__} "
                f"distribution, to which {self.label} is not conjugate; use "
                f'{self.conjugate[name].__name__}, or method="nuts", "smc", "laplace" or "svi"'
            )

    def updated(self, statistics: Sums, prior: SitePrior) -> SitePrior:
        after = self._after(statistics, prior)
        made = {name: one(*after[name]) for name, one in self.conjugate.items()}
        return SitePrior({**prior.distributions, **made})

    def _means(self, prior: SitePrior, k: int, d: int) -> dict[str, Moments]:
        return {
            name: kind.means(*hyper(prior.distributions[name], kind, self.shape(k, d)))
            for name, kind in self._kinds.items()
        }

    def mean_log_density(self, prior: SitePrior, x: Array, k: int) -> Float[Array, "k n"]:
        form = self.layout
        return form.natural(self._means(prior, k, x.shape[1])) @ form.features(x)

    def expected_step(
        self,
        prior: SitePrior,
        log_weights: Float[Array, " k"],
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Sums, Array]:
        means = self._means(prior, log_weights.shape[0], x.shape[1])
        return self._labelled(log_weights, means, x, sample_weight, assign)

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

    def check_mode(self, prior: Any) -> None:
        if isinstance(prior, SitePrior):
            for name, kind in self._kinds.items():
                written = innermost(prior.distributions[name])
                if name in self._without_conjugate(prior):
                    continue
                powers = [getattr(written, power) for power in kind.names[: kind.powers]]
                check_poles(name, type(written).__name__, powers)
