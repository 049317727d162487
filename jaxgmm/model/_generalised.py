"""Regressions of counts and of answers: a linear predictor behind a link."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.nn import sigmoid, softplus
from jax.scipy.special import gammaln
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgmm._contract import Prior, Sites, improper
from jaxgmm.files import ColumnRefused, stored
from jaxgmm.local import uphill
from jaxgmm.model._door import check_counts, check_values
from jaxgmm.model._family import Site
from jaxgmm.model._regression import OfUserCoefficients, Regression, Units
from jaxgmm.model._site_family import MixtureParams
from jaxgmm.model._site_prior import SitePrior, in_units
from jaxgmm.model._tree import pytree
from jaxgmm.model._unconjugate import Unconjugate

# A coefficient of a standardised covariate beyond this leaves no doubt about any response.
_SEPARATED = 10.0
# Standard deviation of the weak prior of coefficients of standardised covariates.
_WEAK = 2.5
_SPARE_ROWS = 0.5


@stored
class Bend(NamedTuple):
    """Sums over rows of each component.

    Attributes
    ----------
    counts : (K,) array
        Effective rows.
    gradient, curvature : (K, p) and (K, p, p) arrays
        Of the expected log likelihood in the coefficients ``at``; at a start from labels those of
        least squares on the link of the responses.
    at : (K, p) array
    """

    counts: Array
    gradient: Array
    curvature: Array
    at: Array


@dataclasses.dataclass(frozen=True, repr=False)
class Generalised(Unconjugate, Regression):
    """A response of one parameter, which a link makes a linear predictor."""

    closed: ClassVar[bool] = False
    without: ClassVar[str] = "whose M-steps are numerical"
    rules = ("weak",)
    proper_prior = 'prior="weak"'
    conjugate_prior = 'method="nuts", "smc", "laplace" or "svi"'
    collapse: ClassVar[str] = (
        "covariates tell the responses of a component apart exactly (separation), where the "
        'likelihood has no highest point; use a proper prior (prior="weak"), or fewer components'
    )

    # -- what a family says ------------------------------------------------------------

    @abc.abstractmethod
    def log_mass(self, line: Array, y: Array) -> Array:
        """Log mass of responses where the linear predictor is ``line``."""

    @abc.abstractmethod
    def mean(self, line: Array) -> tuple[Array, Array]:
        """Mean and variance of responses there."""

    def mean_at(self, line: Array) -> Array:
        return self.mean(line)[0]

    @abc.abstractmethod
    def first(self, y: Array) -> Array:
        """Linear predictors near single responses, where a start from labels begins."""

    @abc.abstractmethod
    def link(self, y: Array) -> Array:
        """The linear predictor of an average of responses."""

    # -- sites and rows ------------------------------------------------------------------

    def component_sites(self, k: int, d: int) -> dict[str, Site]:
        return {"coefficients": self.coefficient_site(k)}

    def log_density(self, params: MixtureParams, features: Array) -> Float[Array, "k n"]:
        return self.log_mass(params.own["coefficients"] @ features[:-1], features[-1])

    # -- EM ------------------------------------------------------------------------------

    def sums(self, features: Array, weights: Float[Array, "k n"]) -> tuple[Array, ...]:
        """At the first step of Fisher's scoring from the responses (McCullagh and Nelder, 1989)."""
        z, y = features[:-1], features[-1]
        line = self.first(y)
        mean, variance = self.mean(line)
        weighted = weights[:, None] * z
        right = jnp.sum(weighted * (variance * line + y - mean), axis=2)
        return jnp.sum(weights, axis=1), right, -(variance * weighted) @ z.T

    def summed(
        self, features: Array, weights: Float[Array, "k n"], at: Float[Array, "k p"]
    ) -> tuple[Array, ...]:
        z, y = features[:-1], features[-1]
        mean, variance = self.mean(at @ z)
        gradient = (weights * (y - mean)) @ z.T
        curvature = -((weights * variance)[:, None] * z) @ z.T
        return jnp.sum(weights, axis=1), gradient, curvature

    def statistics(self, sums: tuple[Array, ...]) -> Bend:
        counts, gradient, curvature = sums
        return Bend(counts, gradient, curvature, jnp.zeros_like(gradient))

    def update(
        self,
        statistics: Bend,
        prior: SitePrior | None,
        params: MixtureParams | None = None,
        share: Array | float = 1.0,
    ) -> Sites:
        """A share of Newton's step, from the responses' own predictors where nothing is before."""
        gradient, curvature, at = statistics.gradient, statistics.curvature, statistics.at
        if prior is not None and params is not None:
            slope, bend = self._of_prior(prior, at)
            gradient, curvature = gradient + slope, curvature + bend
        step = jax.vmap(uphill)(gradient, curvature)
        return {"coefficients": at + (1.0 if params is None else share) * step}

    def _of_prior(self, prior: SitePrior, at: Float[Array, "k p"]) -> tuple[Array, Array]:
        """Gradient and curvature of the log prior, as if components were independent."""
        given = self.prior_sites(prior, len(at), 1)["coefficients"]({})
        slope = jax.grad(lambda own: jnp.sum(given.log_prob(own)))
        along = lambda way: jax.jvp(slope, (at,), (jnp.broadcast_to(way, at.shape),))[1]
        bend = jax.vmap(along, out_axes=-1)(jnp.eye(at.shape[1], dtype=at.dtype))
        return slope(at), bend

    # -- priors --------------------------------------------------------------------------

    def prior_sites(self, prior: SitePrior | None, k: int, d: int) -> Prior:
        site = self.coefficient_site(k)
        if prior is None:
            given: dist.Distribution = improper(site.support, site.shape)
        else:
            one = jnp.ones((), jnp.result_type(*jax.tree.leaves(prior)))
            given = in_units(prior.distributions["coefficients"], site, 0 * one, one, 0 * one)
            if self.units is not None:
                given = OfUserCoefficients(given, self.units, self.intercept)
        return {"coefficients": lambda _: given}

    def default_prior(
        self, rule: str, x: Array, sample_weight: Array | None, k: int, free: bool
    ) -> SitePrior:
        """Of standardised covariates Normal(0, 2.5), about the average response."""
        units = self.measured(x, sample_weight, False)
        weight = jnp.ones(len(x), x.dtype) if sample_weight is None else sample_weight
        average = weight @ x[:, self.positions[1]] / jnp.sum(weight)
        mean = jnp.zeros(self.width, x.dtype)
        if self.intercept:
            mean = mean.at[0].set(self.link(average))
        factor = _WEAK * units.matrix(self.intercept)
        found: dict[str, Any] = {
            "coefficients": dist.MultivariateNormal(
                units.to_user(mean, self.intercept), covariance_matrix=factor @ factor.T
            )
        }
        if free:
            found["weights"] = dist.Dirichlet(jnp.ones(k, x.dtype))
        return SitePrior(found)

    def bounded(self, prior: Any, free: bool) -> bool:
        return prior is not None

    # -- units -----------------------------------------------------------------------------

    def standardise(self, x: Array, sample_weight: Array | None, prior: Any) -> tuple[Self, Any]:
        return dataclasses.replace(self, units=self.measured(x, sample_weight, False)), prior

    def log_units(self, prior: Any, k: int, d: int | None) -> Array | None:
        if self.units is None or prior is None:
            return None
        return k * jnp.sum(jnp.log(self.units.scale))

    def to_working(self, params: MixtureParams) -> MixtureParams:
        units: Units = self.units
        own = units.to_working(params.own["coefficients"], self.intercept)
        return dataclasses.replace(params, own={"coefficients": own})

    def to_user(self, params: MixtureParams) -> MixtureParams:
        units: Units = self.units
        own = units.to_user(params.own["coefficients"], self.intercept)
        return dataclasses.replace(params, own={"coefficients": own})

    # -- doors and health --------------------------------------------------------------------

    def check_rows(self, x: np.ndarray) -> None:
        response = self.positions[1]
        try:
            self.check_responses(x[:, response : response + 1])
        except ColumnRefused as refusal:
            sentence, _, names = refusal.args
            raise ColumnRefused(sentence, response, names) from None

    @abc.abstractmethod
    def check_responses(self, y: np.ndarray) -> None:
        """Refuse values that no response can have."""

    def check_bounded(self, x: np.ndarray, k: int) -> None:
        self.check_covariates(x, "x: the likelihood has no one maximum", 'use prior="weak"')

    def collapsed(self, params: MixtureParams, bounded: bool) -> Array:
        lost = super().collapsed(params, bounded)
        if bounded:
            return lost
        return lost | jnp.any(
            jnp.abs(params.own["coefficients"][:, int(self.intercept) :]) > _SEPARATED
        )

    def spurious(self, params: MixtureParams, statistics: Bend) -> Array:
        """Whether a line hangs on about as many rows as it has coefficients."""
        return jnp.any(statistics.counts < self.width + _SPARE_ROWS)


@stored
@pytree
@dataclasses.dataclass(frozen=True, repr=False)
class LogisticRegression(Generalised):
    """An answer, 0 or 1, of which the log odds are a line of its own in each component.

    Parameters
    ----------
    on : list of str, or list of int
        The covariates: columns of a table by name, or of an array by place.
    response : str or int, optional
        The response; by default the one column that is no covariate.
    intercept : bool
        Whether lines may miss the origin.

    Raises
    ------
    ValueError, TypeError
        For columns that occur twice, are called neither by text nor by place, or are not there.

    Notes
    -----
    The site is ``coefficients`` (K, p), the intercept first. M-steps are Newton steps on the
    expected log joint, refused and shortened where the log joint falls. Where covariates tell
    answers apart exactly the likelihood has no maximum: a coefficient of a standardised covariate
    beyond 10 ends a restart without a prior as `Status.COLLAPSED`. ``prior="weak"`` is
    Normal(0, 2.5) of coefficients of standardised covariates, the intercept about the log odds
    of all answers; a dictionary may have any distributions of ``coefficients``. There is no Gibbs
    sampler and no variational Bayes.

    One answer a row tells two lines apart only where covariates take many values, and then
    weakly (Follmann and Lambert, 1991): look at the standard errors.

    References
    ----------
    McCullagh and Nelder (1989), Generalized Linear Models, 2nd ed.; Lange (1995), JRSS B
    57:425-437; Follmann and Lambert (1991), J. Stat. Plan. Inference 27:375-381; Gelman, Jakulin,
    Pittau and Su (2008), Ann. Appl. Stat. 2:1360-1383, for such priors.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jaxgmm as jg
    >>> x = jnp.array([[0, 0], [1, 0], [2, 1], [3, 0], [4, 1], [5, 1.0]])
    >>> model = jg.Mixture(jg.families.LogisticRegression(on=["dose"]), 1)
    >>> fit = jg.fit(model, x, key=jax.random.key(0), n_init=1)
    >>> fit.converged, fit.params.coefficients.shape
    (True, (1, 2))
    """

    formula = "Bernoulli(logit⁻¹(zᵀβ_k))"

    def log_mass(self, line: Array, y: Array) -> Array:
        return y * line - softplus(line)

    def mean(self, line: Array) -> tuple[Array, Array]:
        mean = sigmoid(line)
        return mean, mean * sigmoid(-line)

    def first(self, y: Array) -> Array:
        return jnp.where(y > 0.5, 1.0, -1.0) * jnp.log(jnp.asarray(3.0, y.dtype))

    def link(self, y: Array) -> Array:
        # At least what half an answer of a hundred says.
        y = jnp.clip(y, 0.005, 0.995)
        return jnp.log(y) - jnp.log1p(-y)

    def respond(
        self, params: MixtureParams, key: PRNGKeyArray, labels: Array, line: Float[Array, " n"]
    ) -> Float[Array, " n"]:
        return jax.random.bernoulli(key, sigmoid(line)).astype(line.dtype)

    def check_responses(self, y: np.ndarray) -> None:
        codes = lambda rows: (rows == 0) | (rows == 1)
        check_values(self.label, y, codes, "codes 0 and 1", "code the answers so")


@stored
@pytree
@dataclasses.dataclass(frozen=True, repr=False)
class PoissonRegression(Generalised):
    """A count, of which the log rate is a line of its own in each component.

    Parameters
    ----------
    on : list of str, or list of int
        The covariates: columns of a table by name, or of an array by place.
    response : str or int, optional
        The response; by default the one column that is no covariate.
    intercept : bool
        Whether lines may miss the origin.

    Raises
    ------
    ValueError, TypeError
        For columns that occur twice, are called neither by text nor by place, or are not there.

    Notes
    -----
    The site is ``coefficients`` (K, p), the intercept first. M-steps, starts and priors are those
    of `LogisticRegression`, with the log of the average count in place of log odds.

    References
    ----------
    Wedel, DeSarbo, Bult and Ramaswamy (1993), J. Appl. Econometrics 8:397-411; McCullagh and Nelder
    (1989), Generalized Linear Models, 2nd ed.; Lange (1995), JRSS B 57:425-437.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jaxgmm as jg
    >>> x = jnp.array([[0, 1], [1, 0], [2, 3], [3, 2], [4, 7], [5, 6.0]])
    >>> model = jg.Mixture(jg.families.PoissonRegression(on=["dose"]), 1)
    >>> fit = jg.fit(model, x, key=jax.random.key(0), n_init=1)
    >>> fit.converged, fit.params.coefficients.shape
    (True, (1, 2))
    """

    formula = "Poisson(exp(zᵀβ_k))"

    def log_mass(self, line: Array, y: Array) -> Array:
        return y * line - jnp.exp(line) - gammaln(y + 1)

    def mean(self, line: Array) -> tuple[Array, Array]:
        mean = jnp.exp(line)
        return mean, mean

    def first(self, y: Array) -> Array:
        return jnp.log(y + 0.1)

    def link(self, y: Array) -> Array:
        return jnp.log(jnp.maximum(y, 0.01))

    def respond(
        self, params: MixtureParams, key: PRNGKeyArray, labels: Array, line: Float[Array, " n"]
    ) -> Float[Array, " n"]:
        return jax.random.poisson(key, jnp.exp(line)).astype(line.dtype)

    def check_responses(self, y: np.ndarray) -> None:
        check_counts(self.label, y)
