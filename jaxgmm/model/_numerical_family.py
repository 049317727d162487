"""Components of any NumPyro distribution: M-steps by Newton's method, column by column.

Columns are independent given the component, so that gradient and curvature of Q are small: a
vector and a matrix of the parameters of one column. Both add over rows (Lange, 1995, JRSS B
57:425-437).
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import biject_to, constraints

from jaxgmm._contract import Assignment, Sites, described
from jaxgmm._numerics import block_rows, sum_over_blocks
from jaxgmm.files import ColumnRefused, stored
from jaxgmm.local import derivatives, minimise, uphill
from jaxgmm.model._door import check_poles
from jaxgmm.model._family import Site
from jaxgmm.model._site_family import MixtureParams, SiteFamily
from jaxgmm.model._site_prior import SitePrior
from jaxgmm.model._unconjugate import Unconjugate

# Positive parameters outside of these are those of a column without a spread.
_LEAST, _MOST = 1e-12, 1e12


@stored
class Bends(NamedTuple):
    """Sums over rows, of each component and column.

    Attributes
    ----------
    counts : (K,) array
        Effective rows.
    values : (K, D) array
        How many of these have a value.
    summaries : (m, K, D) array
        Of `NumericalFamily.summaries`.
    gradient, curvature : (K, D, s) and (K, D, s, s) arrays
        Of the expected log likelihood in unconstrained coordinates of the s parameters; zero at
        a start from labels.
    """

    counts: Array
    values: Array
    summaries: Array
    gradient: Array
    curvature: Array


class NumericalFamily(Unconjugate, SiteFamily):
    """A family that is a NumPyro distribution of one column, and the supports of its parameters.

    A subclass, a frozen dataclass registered as a pytree, has ``supports`` and `make`. M-steps
    are Newton steps on the expected log joint, shortened by EM where the log joint falls, and
    starts match mean and variance. There is no Gibbs sampler and no variational Bayes.
    """

    closed: ClassVar[bool] = False
    holes = True
    without = "whose M-steps are numerical"
    supports: Any  # by name, in order

    @abc.abstractmethod
    def make(self, **sites: Array) -> dist.Distribution:
        """The distribution of columns, from parameters of that shape."""

    # -- starts ------------------------------------------------------------------------

    def summaries(self, x: Array) -> Float[Array, "m n d"]:
        """Of rows, what `begin` sees the averages of."""
        return jnp.stack([x, x**2])

    def begin(self, averages: Float[Array, " m"]) -> dict[str, Array]:
        """Parameters of a column from its averages: those whose mean and variance are closest."""
        mean, square = averages
        # At least the variance of a rounding.
        variance = jnp.maximum(square - mean**2, jnp.finfo(mean.dtype).eps * square + 1e-30)

        def loss(vector: Array, data: tuple[Array, Array]) -> Array:
            mean, variance = data
            made = self.make(**self._to_sites(vector))
            apart = (made.mean - mean) ** 2 / variance
            return apart + (jnp.log(made.variance) - jnp.log(variance)) ** 2

        here = jnp.zeros(len(self.supports), mean.dtype)
        found = minimise(loss, jnp.add, here, here.size, (mean, variance))
        return self._to_sites(jnp.where(jnp.isfinite(found), found, 0))

    # -- sites -------------------------------------------------------------------------

    def component_sites(self, k: int, d: int) -> dict[str, Site]:
        return {name: Site((k, d), support) for name, support in self.supports.items()}

    def _to_sites(self, vector: Float[Array, "*b s"]) -> Sites:
        """One number of each parameter, from unconstrained coordinates in the last axis."""
        named = enumerate(self.supports.items())
        return {name: biject_to(support)(vector[..., i]) for i, (name, support) in named}

    def _to_vectors(self, sites: Sites) -> Float[Array, "*b s"]:
        each = [biject_to(support).inv(sites[name]) for name, support in self.supports.items()]
        return jnp.stack(each, axis=-1)

    # -- rows --------------------------------------------------------------------------

    def features(self, x: Array) -> Float[Array, "d n"]:
        return x.T

    def log_density(
        self, params: MixtureParams, features: Float[Array, "d n"]
    ) -> Float[Array, "k n"]:
        one = lambda own: jnp.sum(self._log_prob(own, features.T), axis=-1)
        return jax.vmap(one)(self.sites(params)).astype(features.dtype)

    def _log_prob(self, own: Sites, values: Array) -> Array:
        """Log density of each value, zero where there is none."""
        made = self.make(**own)
        if not self.incomplete:
            return made.log_prob(values)
        there = ~jnp.isnan(values)
        # Some value that can be, so that what is left out has derivatives.
        values = jnp.where(there, values, made.support.feasible_like(values))
        return jnp.where(there, made.log_prob(values), 0)

    def sums(self, features: Float[Array, "d n"], weights: Float[Array, "k n"]) -> Bends:
        """Without parameters there is nothing to bend."""
        k, d, s = len(weights), len(features), len(self.supports)
        flat = jnp.zeros((k, d, s), features.dtype)
        bend = jnp.zeros((k, d, s, s), features.dtype)
        return Bends(*self._summed(features.T, weights), flat, bend)

    def _summed(self, x: Array, weights: Float[Array, "k n"]) -> tuple[Array, Array, Array]:
        """The first three of `Bends`."""
        summaries, counts = self.summaries(x), jnp.sum(weights, axis=1)
        values = jnp.broadcast_to(counts[:, None], (len(counts), x.shape[1]))
        if self.incomplete:
            there = ~jnp.isnan(x)
            summaries, values = jnp.where(there, summaries, 0), weights @ there.astype(x.dtype)
        return counts, values, jnp.einsum("kn,mnd->mkd", weights, summaries)

    def statistics(self, sums: Bends) -> Bends:
        return sums

    def block_rows(self, x: Array, n_components: int) -> int:
        return block_rows(x.shape[1] * n_components * (1 + len(self.supports)), x.dtype)

    def expected(self, own: Sites, labels: Float[Array, "n k"]) -> Float[Array, "n d"]:
        return labels @ self.make(**own).mean

    def sample(self, params: MixtureParams, key: PRNGKeyArray, labels: Array) -> Array:
        own = {name: site[labels] for name, site in self.sites(params).items()}
        return self.make(**own).sample(key).astype(params.weights.dtype)

    # -- EM ----------------------------------------------------------------------------

    def e_step(
        self,
        log_weights: Float[Array, " k"],
        params: MixtureParams,
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Bends, Array]:
        at = self._to_vectors(self.sites(params))

        def column(vector: Array, values: Array, weights: Array) -> tuple[Array, Array]:
            def expected(vector: Array) -> Array:
                log_prob = self._log_prob(self._to_sites(vector), values)
                return jnp.sum(weights * jnp.where(weights > 0, log_prob, 0))

            return derivatives(expected, vector)

        def block(rows: Array, weights: Array, first: Array | int) -> tuple[Bends, Array]:
            features = self.features(rows)
            logits = log_weights[:, None] + self.log_density(params, features)
            labels, value = assign(logits, first)
            counted = weights * labels
            each = jax.vmap(jax.vmap(column, (0, 0, None)), (0, None, 0))
            gradient, curvature = each(at, features, counted)
            return Bends(*self._summed(rows, counted), gradient, curvature), weights @ value

        size = self.block_rows(x, log_weights.shape[0])
        return sum_over_blocks(block, x, sample_weight, size)

    def shrunk(self, statistics: Bends) -> Bends:
        """Each cluster with one row more, the average one: no parameter starts on an edge."""
        values = jnp.sum(statistics.values, axis=0)
        average = jnp.sum(statistics.summaries, axis=1, keepdims=True) / values
        return statistics._replace(
            counts=statistics.counts + 1,
            values=statistics.values + 1,
            summaries=statistics.summaries + average,
        )

    def update(
        self,
        statistics: Bends,
        prior: SitePrior | None,
        params: MixtureParams | None = None,
        share: Array | float = 1.0,
    ) -> Sites:
        if params is None:
            values = jnp.maximum(statistics.values, jnp.finfo(statistics.values.dtype).tiny)
            averages = statistics.summaries / values
            return jax.vmap(jax.vmap(self.begin, 1), 1)(averages)
        step, _ = self._newton_step(statistics, prior, params)
        sites = self.sites(params)
        moved = self._to_sites(self._to_vectors(sites) + share * step)
        return {name: moved[name].astype(site.dtype) for name, site in sites.items()}

    def _newton_step(
        self, statistics: Bends, prior: SitePrior | None, params: MixtureParams
    ) -> tuple[Array, Array]:
        """The step of every column, and what it promises to gain."""
        gradient, curvature = statistics.gradient, statistics.curvature
        if prior is not None:
            slope, bend = self._of_prior(prior, self._to_vectors(self.sites(params)))
            gradient, curvature = gradient + slope, curvature + bend
        step = jax.vmap(jax.vmap(uphill))(gradient, curvature)
        return step, jnp.sum(gradient * step, axis=(1, 2)) / 2

    def _of_prior(self, prior: SitePrior, at: Float[Array, "k d s"]) -> tuple[Array, Array]:
        """Gradient and curvature of the log prior, as if entries were independent.

        They are but for a prior that joins them, and a shorter step rises under any.
        """
        k, d, s = at.shape

        def log_prior(vectors: Array) -> Array:
            sites, priors = self._to_sites(vectors), self.prior_sites(prior, k, d)
            terms = [jnp.sum(priors[name](sites).log_prob(sites[name])) for name in priors]
            return sum(terms[1:], terms[0])

        slope = jax.grad(log_prior)
        along = lambda way: jax.jvp(slope, (at,), (jnp.broadcast_to(way, at.shape),))[1]
        bend = jax.vmap(along, out_axes=-1)(jnp.eye(s, dtype=at.dtype))
        return slope(at), bend

    # -- priors --------------------------------------------------------------------------

    def default_prior(
        self, rule: str, x: Array, sample_weight: Array | None, k: int, free: bool
    ) -> SitePrior:
        """Normal in unconstrained coordinates, about the moments of all rows: unit information.

        References
        ----------
        Kass and Wasserman (1995), JASA 90:928-934.
        """
        all_rows = lambda rows, _: jnp.ones((rows.shape[0], 1), x.dtype)
        one = jnp.ones(1, x.dtype)
        sites = self.update(self.at_labels(all_rows, x, sample_weight, 1), None)
        params = self.from_sites(one, sites)
        whole = lambda logits, _: (jnp.ones_like(logits), logits[0])
        bends, _ = self.e_step(jnp.log(one), params, x, sample_weight, whole)
        centre, spread = (
            self._to_vectors(sites)[0],
            bends.values[0, :, None]
            / jnp.abs(jnp.diagonal(bends.curvature[0], axis1=-2, axis2=-1)),
        )
        spread = jnp.clip(jnp.sqrt(spread), 0.1, 10.0)
        found = {
            name: dist.TransformedDistribution(
                dist.Normal(centre[:, i], spread[:, i]), biject_to(support)
            )
            for i, (name, support) in enumerate(self.supports.items())
        }
        weights = {"weights": dist.Dirichlet(jnp.ones(k, x.dtype))} if free else {}
        return SitePrior(weights | found)

    def bounded(self, prior: Any, free: bool) -> bool:
        """Nothing is known of a density without a prior; masses are at most one."""
        return prior is not None or self.discrete

    # -- doors and health ------------------------------------------------------------------

    def _somewhere(self) -> dist.Distribution:
        """The distribution at any parameters."""
        return self.make(**self._to_sites(jnp.zeros(len(self.supports))))

    @property
    def row_support(self) -> constraints.Constraint:  # type: ignore[override]
        return constraints.independent(self._somewhere().support, 1)

    @property
    def discrete(self) -> bool:
        return self._somewhere().support.is_discrete

    @property
    def columns(self) -> str:  # type: ignore[override]
        """What kind of numbers they are, for pictures."""
        if self.discrete:
            return "counts"
        return "positives" if self._somewhere().support == constraints.positive else "numbers"

    def check_rows(self, x: np.ndarray) -> None:
        support = self._somewhere().support
        outside = ~(np.asarray(support(jnp.asarray(x))) | np.isnan(x))
        if np.any(outside):
            row, column = np.argwhere(outside)[0]
            raise ColumnRefused(
                f"x: {self.label} is of {described(support)[0]}, found {x[row, column]} at row "
                f"{row}, {{column}}",
                int(column),
            )

    def check_mode(self, prior: Any) -> None:
        if isinstance(prior, SitePrior):
            for name in self.supports:
                written = prior.distributions[name]
                if isinstance(written, (dist.Beta, dist.Gamma)):
                    powers = [
                        getattr(written, power)
                        for power in ("concentration", "concentration1", "concentration0")
                        if hasattr(written, power)
                    ]
                    check_poles(name, type(written).__name__, powers)

    def collapsed(self, params: MixtureParams, bounded: bool) -> Array:
        lost = super().collapsed(params, bounded)
        for name, support in self.supports.items():
            if support == constraints.positive and not bounded:
                lost |= jnp.any((params.own[name] < _LEAST) | (params.own[name] > _MOST))
        return lost

    def spurious(self, params: MixtureParams, statistics: Bends) -> Array:
        """Whether a component rests on no more rows than a column has parameters, and a half."""
        few = statistics.values < len(self.supports) + 0.5
        return jnp.any(few & jnp.isfinite(statistics.counts)[:, None])
