"""Lines, planes and beyond: a normal response about a linear predictor of each component."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints

from jaxgmm._contract import Assignment, Prior, Sites, improper, innermost
from jaxgmm._numerics import symmetrise
from jaxgmm.files import numeric, stored
from jaxgmm.model._door import check_concentration_shape
from jaxgmm.model._family import Site
from jaxgmm.model._prior import ConjugatePrior
from jaxgmm.model._regression import OfUserCoefficients, Regression, Units
from jaxgmm.model._site_family import MixtureParams
from jaxgmm.model._site_mode import sites_mode
from jaxgmm.model._site_prior import SitePrior, in_units
from jaxgmm.model._tree import pytree

# Residuals of rows on a line are roundings: variances of no more than so many, squared, are none.
_COLLAPSE_EPS = 64.0
# As of Gaussians: effective rows beyond the parameters, and the share of the average variance,
# below which an optimum hangs on a few rows.
_SPARE_ROWS, _LEAST_VARIANCE = 0.5, 1e-6
# The weak prior counts like a hundredth of a row (Fraley and Raftery, 2007).
_WEAK_ROWS, _WEAK_DOF = 0.01, 3.0


@stored
class Lines(NamedTuple):
    """Sums over rows of each component, of the design and of residuals from some lines.

    Attributes
    ----------
    counts : (K,) array
        Effective rows.
    gram : (K, p, p) array
        Of the design.
    moment : (K, p) array
        Of the design and the residuals.
    square : (K,) array
        Of the residuals.
    at : (K, p) array
        The coefficients of these lines. Close to those that are sought no digits cancel.
    """

    counts: Array
    gram: Array
    moment: Array
    square: Array
    at: Array


class _Normal(NamedTuple):
    """Normal coefficients given variances, these inverse-gamma: means, precisions and so on."""

    mean: Float[Array, "k p"]
    precision: Float[Array, "k p p"]
    dof: Float[Array, " k"]
    scale: Float[Array, " k"]


@stored
@pytree
@dataclasses.dataclass(frozen=True, repr=False)
class LinearRegression(Regression):
    """A response that is normal about a line of its own in each component.

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
    The density is that of the response given the covariates, of which nothing is said. The sites
    are ``coefficients`` (K, p), the intercept first, and ``variances`` (K,) of the residuals. An
    array of which columns are called by name has the covariates in their order, then the
    response.

    Without a prior a component that passes through as few rows as it has coefficients has no
    bound; such fits are spurious, as those of Gaussians are. ``prior="weak"`` is conjugate:
    ``coefficients | variance ~ N(mean, variance precision^-1)`` and ``variance ~
    inverse-gamma(3 / 2, scale / 2)``, with the mean of the response and no slopes as mean, the
    precision of a hundredth of an average row, and as scale the residual variance of one line
    through all rows over K squared. A `jaxgmm.ConjugatePrior` has numbers in place of these: a
    ``mean`` (p,), as ``mean_precision`` one number, (p,) or (p, p), and one ``dof`` and ``scale``.
    Under a dictionary of distributions, which is not conjugate, M-steps go by Newton's method.

    Starts are random responsibilities: rows that are close together belong to one cluster, and
    not to one line.

    References
    ----------
    DeSarbo and Cron (1988), J. Classification 5:249-282; for the prior Gelman et al. (2013),
    Bayesian Data Analysis, 3rd ed., section 14.8.

    Examples
    --------
    >>> import jax
    >>> import pandas as pd
    >>> import jaxgmm as jg
    >>> effect = [0.1, 0.9, 2.1, 2.9, 4.0, 5.1, 4.9, 5.0, 5.1, 4.9]
    >>> x = pd.DataFrame({"dose": [0.0, 1, 2, 3, 4] * 2, "effect": effect})
    >>> model = jg.Mixture(jg.families.LinearRegression(on=["dose"]), 2, prior="weak")
    >>> fit = jg.fit(model, x, key=jax.random.key(0))
    >>> fit.params.coefficients.shape
    (2, 2)
    """

    rules = ("weak",)
    proper_prior = 'prior="weak"'
    conjugate_prior = 'prior="weak"'
    collapse: ClassVar[str] = (
        "a line went through its rows exactly, where the likelihood has no bound; use a proper "
        'prior (prior="weak"), or fewer components'
    )
    formula = "N(zᵀβ_k, σ²_k)"

    def prior_formulas(self, prior: Any) -> tuple[str, ...]:
        if isinstance(prior, SitePrior):
            return ()
        return "β_k | σ²_k ~ N(m, σ²_k κ⁻¹)", "σ²_k ~ inverse-gamma(ν/2, Λ/2)"

    # -- sites -------------------------------------------------------------------------

    def component_sites(self, k: int, d: int) -> dict[str, Site]:
        return {
            "variances": Site((k,), constraints.positive),
            "coefficients": self.coefficient_site(k),
        }

    # -- rows --------------------------------------------------------------------------

    def log_density(self, params: MixtureParams, features: Array) -> Float[Array, "k n"]:
        coefficients, variances = params.own["coefficients"], params.own["variances"][:, None]
        squares = _residuals(coefficients, features) ** 2
        return -0.5 * (squares / variances + jnp.log(variances)) + self._log_volume(features.dtype)

    def _log_volume(self, dtype: Any) -> Array:
        """What the density of a response has whatever the line: of its units, too."""
        constant = jnp.asarray(-0.5 * math.log(2 * math.pi), dtype)
        return constant if self.units is None else constant - jnp.log(self.units.response_scale)

    def respond(
        self, params: MixtureParams, key: PRNGKeyArray, labels: Array, line: Float[Array, " n"]
    ) -> Float[Array, " n"]:
        noise = jax.random.normal(key, line.shape, line.dtype)
        return line + jnp.sqrt(params.own["variances"][labels]) * noise

    # -- EM ----------------------------------------------------------------------------

    def sums(self, features: Array, weights: Float[Array, "k n"]) -> tuple[Array, ...]:
        """About lines along the axes, where nothing is known of others."""
        nowhere = jnp.zeros((len(weights), self.width), features.dtype)
        return self.summed(features, weights, nowhere)

    def statistics(self, sums: tuple[Array, ...]) -> Lines:
        counts, gram, moment, square = sums
        return Lines(counts, gram, moment, square, jnp.zeros_like(moment))

    def summed(
        self, features: Array, weights: Float[Array, "k n"], at: Float[Array, "k p"]
    ) -> tuple[Array, ...]:
        z, residuals = features[:-1], _residuals(at, features)
        weighted = weights[:, None] * z
        return (
            jnp.sum(weights, axis=1),
            weighted @ z.T,
            jnp.sum(weighted * residuals[:, None], axis=2),
            jnp.sum(weights * residuals**2, axis=1),
        )

    def update(
        self,
        statistics: Lines,
        prior: ConjugatePrior | SitePrior | None,
        params: MixtureParams | None = None,
    ) -> Sites:
        if isinstance(prior, SitePrior):
            return self._numerical_mode(statistics, prior, params)
        after = self._after(statistics, prior)
        # At the mode of both sites together; a flat density has no powers of variances.
        powers = 0 if prior is None else 2 + self.width
        variances = after.scale / (after.dof + powers)
        return {"coefficients": after.mean, "variances": variances}

    def iterates(self, prior: Any) -> bool:
        return isinstance(prior, SitePrior)

    def _after(self, statistics: Lines, prior: ConjugatePrior | None) -> _Normal:
        """Hyper-parameters after labelled rows; of a flat density where there is no prior."""
        k, p, at = len(statistics.counts), self.width, statistics.at
        nothing = jnp.zeros((k, p, p), at.dtype)
        before = _Normal(at, nothing, nothing[:, 0, 0], nothing[:, 0, 0])
        if prior is not None:
            before = self._hyper(prior, k)
        away = before.mean - at
        pull = jnp.einsum("kpq,kq->kp", before.precision, away)
        precision, right = before.precision + statistics.gram, pull + statistics.moment
        step = jnp.linalg.solve(precision, right[..., None])[..., 0]
        lost = jnp.sum(away * pull, axis=1) - jnp.sum(step * right, axis=1)
        return _Normal(
            at + step,
            precision,
            before.dof + statistics.counts,
            before.scale + statistics.square + lost,
        )

    def add(self, one: Lines, other: Lines) -> Lines:
        """Sums of two sets of rows together, seen from the lines of the second."""
        apart = other.at - one.at
        turned = jnp.einsum("kpq,kq->kp", one.gram, apart)
        square = one.square + jnp.sum(apart * (turned - 2 * one.moment), axis=1)
        return super().add(one._replace(moment=one.moment - turned, square=square), other)

    def _hyper(self, prior: ConjugatePrior, k: int) -> _Normal:
        full = lambda value, *shape: jnp.broadcast_to(value, (k, *shape))
        p = self.width
        return _Normal(
            full(prior.mean, p),
            full(prior.mean_precision, p, p),
            full(prior.dof),
            full(prior.scale),
        )

    def _numerical_mode(
        self, statistics: Lines, prior: SitePrior, params: MixtureParams | None
    ) -> Sites:
        k = len(statistics.counts)
        supports = {name: site.support for name, site in self.component_sites(k, 1).items()}
        start = self.update(self.shrunk(statistics), None)
        before = None if params is None else self.sites(params)

        def expected(sites: Sites, sums: Lines) -> Array:
            away, variances = sites["coefficients"] - sums.at, sites["variances"]
            squares = sums.square - 2 * jnp.sum(away * sums.moment, axis=1)
            squares += jnp.einsum("kp,kpq,kq->k", away, sums.gram, away)
            return -0.5 * jnp.sum(squares / variances + sums.counts * jnp.log(variances))

        priors = functools.partial(self.prior_sites, k=k, d=1)
        return sites_mode(expected, priors, statistics, prior, supports, start, before)

    # -- priors ------------------------------------------------------------------------

    def prior_sites(self, prior: Any, k: int, d: int) -> Prior:
        sites_of = self.component_sites(k, d)
        if prior is None:
            flat = {name: improper(site.support, site.shape) for name, site in sites_of.items()}
            return {name: lambda _, name=name: flat[name] for name in flat}
        if isinstance(prior, SitePrior):
            return self._written(prior, sites_of)
        hyper = self._hyper(prior, k)

        def variances(_: Sites) -> dist.Distribution:
            made = dist.InverseGamma(hyper.dof / 2, hyper.scale / 2, validate_args=False)
            return made.to_event(1)

        def coefficients(sites: Sites) -> dist.Distribution:
            precision = hyper.precision / sites["variances"][:, None, None]
            made = dist.MultivariateNormal(
                hyper.mean, precision_matrix=precision, validate_args=False
            )
            one = jnp.ones((), precision.dtype)
            return in_units(made, sites_of["coefficients"], 0 * one, one, 0 * one)

        return {"variances": variances, "coefficients": coefficients}

    def _written(self, prior: SitePrior, sites: dict[str, Site]) -> Prior:
        """The user's distributions in working units."""
        one = jnp.ones((), jnp.result_type(*jax.tree.leaves(prior)))
        written, site = prior.distributions, sites["variances"]
        factor = one if self.units is None else self.units.response_scale**2
        volume = site.shape[0] * jnp.log(factor)
        variances = in_units(written["variances"], site, 0 * one, factor, volume)
        site = sites["coefficients"]
        coefficients = in_units(written["coefficients"], site, 0 * one, one, 0 * one)
        if self.units is not None:
            coefficients = OfUserCoefficients(coefficients, self.units, self.intercept)
        return {"variances": lambda _: variances, "coefficients": lambda _: coefficients}

    def default_prior(
        self, rule: str, x: Array, sample_weight: Array | None, k: int, free: bool
    ) -> ConjugatePrior:
        working = dataclasses.replace(self, units=self.measured(x, sample_weight, True))
        all_rows = lambda rows, _: jnp.ones((rows.shape[0], 1), x.dtype)
        sums = working.at_labels(all_rows, x, sample_weight, 1)
        number = lambda value: jnp.asarray(value, x.dtype)
        prior = ConjugatePrior(
            concentration=jnp.ones(k, x.dtype),
            mean=jnp.zeros(self.width, x.dtype),
            mean_precision=_WEAK_ROWS * sums.gram[0] / sums.counts[0],
            dof=number(_WEAK_DOF),
            scale=working.update(sums, None)["variances"][0] / k**2,
        )
        return working.in_user_units(prior)[1]

    def sized(self, prior: Any, k: int, d: int, dtype: Any) -> Any:
        full = super().sized(prior, k, d, dtype)
        if not isinstance(full, ConjugatePrior):
            return full
        precision = full.mean_precision
        if precision.ndim < 2:
            precision = precision * jnp.eye(self.width, dtype=dtype)
        return dataclasses.replace(full, mean_precision=precision)

    def bounded(self, prior: Any, free: bool) -> bool:
        if isinstance(prior, SitePrior):
            # What vanishes at zero faster than any power.
            kind = type(innermost(prior.distributions["variances"]))
            return kind in (dist.InverseGamma, dist.LogNormal)
        return prior is not None

    def check_conjugate(self, prior: Any) -> None:
        if not isinstance(prior, ConjugatePrior):
            raise ValueError(
                "prior: labelled rows do not update independent distributions of 'coefficients' "
                'and \'variances\'; use prior="weak", a ConjugatePrior, or method="nuts", "smc", '
                '"laplace" or "svi"'
            )

    def updated(self, statistics: Lines, prior: ConjugatePrior) -> ConjugatePrior:
        after = self._after(statistics, prior)
        return dataclasses.replace(
            prior,
            mean=after.mean,
            mean_precision=symmetrise(after.precision),
            dof=after.dof,
            scale=after.scale,
        )

    def mean_log_density(self, prior: ConjugatePrior, x: Array, k: int) -> Float[Array, "k n"]:
        return self._mean_density(self._hyper(prior, k), self.features(x))

    def _mean_density(self, hyper: _Normal, features: Array) -> Float[Array, "k n"]:
        z = features[:-1]
        squares = (hyper.dof / hyper.scale)[:, None] * _residuals(hyper.mean, features) ** 2
        spread = jnp.sum(z * jnp.linalg.solve(hyper.precision, z), axis=1)
        mean_log = jnp.log(hyper.scale / 2) - digamma(hyper.dof / 2)
        return -0.5 * (squares + spread + mean_log[:, None]) + self._log_volume(features.dtype)

    def expected_step(
        self,
        prior: ConjugatePrior,
        log_weights: Float[Array, " k"],
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Lines, Array]:
        hyper = self._hyper(prior, log_weights.shape[0])
        density = functools.partial(self._mean_density, hyper)
        return self._labelled(log_weights, density, hyper.mean, x, sample_weight, assign)

    def divergence(self, prior: ConjugatePrior, other: ConjugatePrior, k: int, d: int) -> Array:
        one, two = self._hyper(prior, k), self._hyper(other, k)
        away = one.mean - two.mean
        ratio = jnp.linalg.solve(one.precision, two.precision)
        apart = jnp.einsum("kp,kpq,kq->k", away, two.precision, away)
        of_coefficients = 0.5 * (
            jnp.trace(ratio, axis1=-2, axis2=-1)
            - self.width
            - jnp.linalg.slogdet(ratio)[1]
            + one.dof / one.scale * apart
        )
        a, b, a0, b0 = one.dof / 2, one.scale / 2, two.dof / 2, two.scale / 2
        of_variances = (
            (a - a0) * digamma(a)
            - gammaln(a)
            + gammaln(a0)
            + a0 * (jnp.log(b) - jnp.log(b0))
            + a * (b0 - b) / b
        )
        return jnp.sum(of_coefficients + of_variances)

    # -- units -------------------------------------------------------------------------

    def standardise(
        self, x: Array, sample_weight: Array | None, prior: Any
    ) -> tuple[LinearRegression, Any]:
        units = self.measured(x, sample_weight, True)
        working = dataclasses.replace(self, units=units)
        if not isinstance(prior, ConjugatePrior):
            return working, prior
        matrix = units.matrix(self.intercept)
        return working, dataclasses.replace(
            prior,
            mean=units.to_working(prior.mean, self.intercept),
            mean_precision=symmetrise(matrix.T @ prior.mean_precision @ matrix),
            scale=prior.scale / units.response_scale**2,
        )

    def in_user_units(self, prior: ConjugatePrior) -> tuple[LinearRegression, ConjugatePrior]:
        units: Units = self.units
        back = jnp.linalg.inv(units.matrix(self.intercept))
        return dataclasses.replace(self, units=None), dataclasses.replace(
            prior,
            mean=units.to_user(prior.mean, self.intercept),
            mean_precision=symmetrise(back.T @ prior.mean_precision @ back),
            scale=prior.scale * units.response_scale**2,
        )

    def log_units(self, prior: Any, k: int, d: int | None) -> Array | None:
        if self.units is None or prior is None:
            return None
        power = (self.width + 2) * jnp.log(self.units.response_scale)
        return -k * (power - jnp.sum(jnp.log(self.units.scale)))

    def to_working(self, params: MixtureParams) -> MixtureParams:
        return self._mapped(params, self.units.to_working, self.units.response_scale**-2)

    def to_user(self, params: MixtureParams) -> MixtureParams:
        return self._mapped(params, self.units.to_user, self.units.response_scale**2)

    def _mapped(self, params: MixtureParams, to: Any, factor: Array) -> MixtureParams:
        own = params.own
        coefficients = to(own["coefficients"], self.intercept)
        return dataclasses.replace(
            params, own={"variances": own["variances"] * factor, "coefficients": coefficients}
        )

    # -- doors and health --------------------------------------------------------------

    def check_rule(self, rule: str, x: np.ndarray, total_weight: float) -> None:
        self._check_spread(x, f"prior: {rule!r} has no scale", "give a jaxgmm.ConjugatePrior")

    def check_bounded(self, x: np.ndarray, k: int) -> None:
        remedy = 'use a proper prior (prior="weak", or jaxgmm.ConjugatePrior)'
        self._check_spread(x, "x: the likelihood is unbounded", remedy)

    def _check_spread(self, x: np.ndarray, trouble: str, remedy: str) -> None:
        """Refuse covariates that are linear in each other, and a response that is so in them."""
        z, noise = self.check_covariates(x, trouble, remedy)
        response = self.positions[1]
        y = np.asarray(x[:, response], float)
        y = y - y.mean() if self.intercept else y
        left = y - z @ np.linalg.lstsq(z, y, rcond=None)[0] if self.on else y
        if np.sqrt(np.mean(left**2)) <= noise * np.max(np.abs(x[:, response])):
            raise ValueError(f"{trouble}: one line goes through all rows; {remedy}")

    def check_prior(self, prior: Any, k: int, d: int, free: bool) -> None:
        if not isinstance(prior, ConjugatePrior):
            return super().check_prior(prior, k, d, free)
        check_concentration_shape(prior, k)
        p = self.width
        mean = numeric("prior.mean", prior.mean)
        if mean.shape != (p,):
            raise ValueError(
                f"prior: mean needs shape ({p},), one for each coefficient, found {mean.shape}"
            )
        for field in ("dof", "scale"):
            value = numeric(f"prior.{field}", getattr(prior, field))
            if value.shape != () or not value > 0:
                raise ValueError(
                    f"prior: {field} must be one positive number, found {value.tolist()}"
                )
        precision = numeric("prior.mean_precision", prior.mean_precision)
        if precision.shape not in {(), (p,), (p, p)}:
            raise ValueError(
                f"prior: mean_precision needs one number, or shape ({p},) or ({p}, {p}), found "
                f"{precision.shape}"
            )
        square = precision if precision.ndim == 2 else precision * np.eye(p)
        if not np.allclose(square, square.T) or not np.all(np.linalg.eigvalsh(square) > 0):
            raise ValueError("prior: mean_precision must be positive, a matrix positive definite")

    def collapsed(self, params: MixtureParams, bounded: bool) -> Array:
        variances = params.own["variances"]
        least = (_COLLAPSE_EPS * jnp.finfo(variances.dtype).eps) ** 2
        return super().collapsed(params, bounded) | ~jnp.all(variances > least)

    def spurious(self, params: MixtureParams, statistics: Lines) -> Array:
        """Whether a line hangs on about as many rows as it has parameters, or fits too well."""
        variances = params.own["variances"]
        average = params.weights @ variances
        few = statistics.counts < self.width + 1 + _SPARE_ROWS
        return jnp.any(few) | jnp.any(variances < _LEAST_VARIANCE * average)


def _residuals(coefficients: Float[Array, "k p"], features: Array) -> Float[Array, "k n"]:
    return features[-1] - coefficients @ features[:-1]
