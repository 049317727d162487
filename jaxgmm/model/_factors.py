"""Components of few factors and much noise: factor analysers, and probabilistic PCA."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from numpyro.distributions import constraints

from jaxgmm._checks import check_count, check_names
from jaxgmm._contract import Assignment, Prior, Sites, improper
from jaxgmm._numerics import Affine, block_rows, normal, weighted_moments
from jaxgmm._programs import program
from jaxgmm.files import ColumnRefused, numeric, stored
from jaxgmm.model._centred import Centred
from jaxgmm.model._door import check_concentration_shape
from jaxgmm.model._family import Site, counted, labelled
from jaxgmm.model._gaussian import Gaussian, GaussianParams
from jaxgmm.model._loadings import LowerTriangular, NormalLoadings, n_loadings, rotated
from jaxgmm.model._low_rank import (
    Held,
    anywhere_near,
    first_noise,
    least_share,
    log_density,
    own_noise,
    shared_noise,
)
from jaxgmm.model._moments import Moments, times
from jaxgmm.model._origin import wide_origin
from jaxgmm.model._prior import ConjugatePrior
from jaxgmm.model._registry import structure_named
from jaxgmm.model._site_family import MixtureParams, moved_site
from jaxgmm.model._tree import pytree
from jaxgmm.model._unconjugate import Unconjugate

# The weak prior of means and loadings counts like a hundredth of a row, as the Gaussian's.
_WEAK_ROWS = 0.01
# As of Gaussians: effective rows beyond those that have no spread left, and the share of the
# average noise below which an optimum hangs on a few rows.
_SPARE_ROWS, _LEAST_NOISE = 0.5, 1e-6
# A column of a component that varies by no more than so many roundings of the data's own spread,
# squared, does not vary.
_COLLAPSE_EPS = 100.0
_COLLAPSE_VARIANCE = 2e-14
# Noise is close to its least share of the variance below so many of them; and a step that moves
# noise of less than this share may move it to zero.
_AT_LEAST, _NEAR_ZERO = 2.0, 0.01
# Columns up to which whole covariances are reported beside the sites.
_FEW_COLUMNS = 30


@dataclasses.dataclass(frozen=True)
class LowRank(Unconjugate):
    """What factor analysers and PPCA share: all but whose noise is whose."""

    n_factors: int = dataclasses.field(metadata={"static": True})
    # Working units, set by `standardise`.
    units: Affine | None = dataclasses.field(default=None, kw_only=True, repr=False)

    holes: ClassVar[bool] = False
    moves = True
    columns = "numbers"
    without = "whose factors are not seen"
    proper_prior = 'prior="weak" or a ConjugatePrior'
    conjugate_prior = 'method="nuts", "smc", "laplace" or "svi"'
    collapse: ClassVar[str] = (
        "a component lost its rows, or its noise vanished, where the likelihood has no bound; use "
        'a proper prior (prior="weak"), fewer factors, or fewer components'
    )
    formula = "N(μ_k, Σ_k = L_k L_kᵀ + Ψ_k)"
    # The structure of Gaussians that the noise has.
    noise_structure: ClassVar[str]

    def __post_init__(self):
        check_count("n_factors", self.n_factors, 1)

    def prior_formulas(self, prior: Any) -> tuple[str, ...]:
        return (
            "μ_k | Σ_k ~ N(m, Σ_k / κ)",
            "L_kj | ψ_kj ~ N(0, ψ_kj I / κ), up to rotation",
            "ψ ~ inverse-gamma(ν/2, Λ/2)",
        )

    @property
    def name(self) -> str:
        return f"{type(self).__name__} {self.n_factors}"

    @property
    def label(self) -> str:
        return f"{type(self).__name__}({self.n_factors})"

    def most_factors(self, d: int) -> int:
        """How many factors covariances of d columns tell apart."""
        raise NotImplementedError

    @property
    def _noise(self) -> Gaussian:
        """The noise as Gaussian components: its units, its prior, its doors."""
        return Gaussian(self.noise_structure, chart=self.units)

    def _whole(self, like: Array) -> Gaussian:
        """Gaussian components of free covariances: moments are theirs."""
        nothing = jnp.zeros(like.shape[-1], like.dtype)
        return Gaussian("full", chart=self.units or Affine(nothing, nothing + 1))

    def _form(self, means: Float[Array, "k d"]) -> Centred:
        """Rows as components see them, each from its own mean."""
        return self._whole(means).centred(means)

    # -- parameters and their sites --------------------------------------------------------

    def component_sites(self, k: int, d: int) -> dict[str, Site]:
        noise = (k, d) if self.noise_structure == "diag" else (k,)
        return {
            "noise_variances": Site(noise, constraints.positive),
            "loadings": Site((k, d, self.n_factors), LowerTriangular(d, self.n_factors)),
            "means": Site((k, d), constraints.real),
        }

    def by_column(self, noise: Array, like: Array) -> Float[Array, "*b k d"]:
        """Noise variances of every column."""
        return noise if self.noise_structure == "diag" else noise[..., None] * jnp.ones_like(like)

    def _own(self, params: MixtureParams) -> tuple[Array, Array, Array]:
        """Means, loadings and the noise of every column."""
        own = params.own
        return own["means"], own["loadings"], self.by_column(own["noise_variances"], own["means"])

    def variances(self, params: MixtureParams) -> Float[Array, "*b k d"]:
        """Of the columns, by component."""
        _, loadings, noise = self._own(params)
        return jnp.sum(loadings**2, axis=-1) + noise

    def from_sites(self, weights: Array, sites: Sites, prior: Any = None) -> MixtureParams:
        return MixtureParams(weights, {name: sites[name] for name in self.component_sites(1, 1)})

    def sites(self, params: MixtureParams, prior: Any = None) -> Sites:
        return {name: params.own[name] for name in self.component_sites(1, 1)}

    def checked(self, own: dict[str, Any], k: int) -> Sites:
        check_names(self.label, own, ("means", "loadings", "noise_variances"))
        means = numeric("means", own["means"])
        if means.ndim != 2 or len(means) != k:
            raise ValueError(f"means: needs shape ({k}, D), found {means.shape}")
        sites = {"means": means}
        for name in ("loadings", "noise_variances"):
            shape = self.component_sites(k, means.shape[1])[name].shape
            sites[name] = numeric(name, own[name])
            if sites[name].shape != shape:
                raise ValueError(f"{name}: needs shape {shape}, found {sites[name].shape}")
        for name, array in sites.items():
            if not np.all(np.isfinite(array)):
                raise ValueError(f"{name}: contains a non-finite value")
        if not np.all(sites["noise_variances"] > 0):
            raise ValueError("noise_variances: must be positive")
        return {
            **{n: jnp.asarray(a) for n, a in sites.items()},
            "loadings": rotated(jnp.asarray(sites["loadings"])),
        }

    def n_columns(self, params: MixtureParams) -> int:
        return params.means.shape[-1]

    def n_parameters(self, k: int, d: int) -> int:
        noise = d if self.noise_structure == "diag" else 1
        return k * (d + n_loadings(d, self.n_factors) + noise)

    def site_dims(self) -> dict[str, list[str]]:
        by_column = ["component", "feature"]
        return {
            "means": by_column,
            "loadings": [*by_column, "factor"],
            "noise_variances": by_column[: 2 if self.noise_structure == "diag" else 1],
            "communalities": by_column,
            "covariances_full": [*by_column, "feature_bis"],
        }

    def derived_sites(self, params: MixtureParams) -> Sites:
        """What no rotation of the factors changes."""
        _, loadings, _ = self._own(params)
        found = {"communalities": jnp.sum(loadings**2, axis=-1) / self.variances(params)}
        if self.n_columns(params) <= _FEW_COLUMNS:
            found["covariances_full"] = self._covariances(params)
        return found

    def _covariances(self, params: MixtureParams) -> Float[Array, "*b k d d"]:
        _, loadings, noise = self._own(params)
        own = noise[..., None] * jnp.eye(noise.shape[-1], dtype=noise.dtype)
        return loadings @ jnp.swapaxes(loadings, -1, -2) + own

    def normals(self, params: MixtureParams) -> GaussianParams:
        covariances = self._covariances(params)
        return GaussianParams(params.weights, params.means, covariances, "full")

    def permute(self, params: MixtureParams, order: Array) -> MixtureParams:
        own = {name: site[order] for name, site in params.own.items()}
        return dataclasses.replace(params, own=own)

    def retract(self, params: MixtureParams, tangent: Float[Array, " p"]) -> MixtureParams:
        """Means and loadings moved by numbers, noise along its logarithm."""
        means, loadings, noise = (
            params.own[name] for name in ("means", "loadings", "noise_variances")
        )
        (k, d), (rows, columns) = means.shape, np.nonzero(np.tri(*loadings.shape[1:], dtype=bool))
        of_means, of_loadings, of_noise = jnp.split(tangent, np.cumsum([means.size, k * len(rows)]))
        moved = {
            "means": means + of_means.reshape(k, d),
            "loadings": loadings.at[:, rows, columns].add(of_loadings.reshape(k, -1)),
            "noise_variances": noise * jnp.exp(of_noise.reshape(noise.shape)),
        }
        return dataclasses.replace(params, own=moved)

    def _share(self, params: MixtureParams) -> Array:
        """What noise is of the variances, in the shape of its site."""
        noise, variances = params.own["noise_variances"], self.variances(params)
        return noise / (variances if noise.ndim == variances.ndim else jnp.mean(variances, axis=-1))

    def edges(self, params: MixtureParams) -> Bool[Array, " p"]:
        near = jnp.ravel(self._share(params) < _NEAR_ZERO)
        size = self.n_parameters(params.weights.shape[0], self.n_columns(params))
        return jnp.concatenate([jnp.zeros(size - near.size, bool), near])

    def inwards(self, params: MixtureParams, margin: Array | float) -> MixtureParams:
        noise, loadings = params.own["noise_variances"], params.own["loadings"]
        share = self._share(params)
        raised = noise * jnp.maximum(1, margin / share)
        diagonal = np.eye(*loadings.shape[-2:], dtype=bool)
        least = margin * jnp.sqrt(self.variances(params))[..., None]
        held = jnp.where(diagonal, jnp.maximum(loadings, least), loadings)
        return dataclasses.replace(
            params, own={**params.own, "noise_variances": raised, "loadings": held}
        )

    # -- rows --------------------------------------------------------------------------------

    def features(self, x: Array) -> Float[Array, "d n"]:
        return (x if self.units is None else self.units.apply(x)).T

    def log_density(self, params: MixtureParams, features: Float[Array, "d n"]) -> Array:
        return self._density(params, features - params.means[:, :, None])

    def _density(self, params: MixtureParams, apart: Float[Array, "k d n"]) -> Array:
        """Of differences from the means, in the units of the parameters."""
        _, loadings, noise = self._own(params)
        found = log_density(loadings, noise, apart)
        return found if self.units is None else found - self.units.log_scale

    def sums(self, features: Float[Array, "d n"], weights: Float[Array, "k n"]) -> Moments:
        return self.at_labels(lambda _, __: weights.T, features.T, None, len(weights))

    def statistics(self, sums: Moments) -> Moments:
        return sums

    def block_rows(self, x: Array, n_components: int) -> int:
        return block_rows(2 * n_components * x.shape[1], x.dtype)

    def embed(self, x: Array) -> Array:
        return self._noise.embed(x)

    def sample(self, params: MixtureParams, key: PRNGKeyArray, labels: Array) -> Array:
        means, loadings, noise = self._own(params)
        key_factors, key_noise = jax.random.split(key)
        factors = normal(key_factors, (*labels.shape, self.n_factors), means.dtype)
        rest = normal(key_noise, (*labels.shape, means.shape[-1]), means.dtype)
        shown = jnp.einsum("...dq,...q->...d", loadings[labels], factors)
        return means[labels] + shown + jnp.sqrt(noise[labels]) * rest

    def marginal(
        self, params: MixtureParams, column: Array | int, grid: Float[Array, " m"]
    ) -> Float[Array, "k m"]:
        """Weight times density of values of one column."""
        own = jnp.sqrt(self.variances(params)[:, column, None])
        of_column = dist.Normal(params.means[:, column, None], own)
        return params.weights[:, None] * jnp.exp(of_column.log_prob(grid))

    # -- EM ------------------------------------------------------------------------------------

    def e_step(
        self,
        log_weights: Float[Array, " k"],
        params: MixtureParams,
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Moments, Array]:
        """Densities in O(n K D q), and second moments of each component, (K, D, D).

        From these the M-step finds the loadings at once, where statistics of factors, q numbers a
        column, would take hundreds of passes over the rows.
        """
        form = self._form(params.means)
        density = functools.partial(self._density, params)
        return labelled(form, density, log_weights, x, sample_weight, assign)

    def at_labels(
        self,
        labels: Callable[[Array, Array | int], Array],
        x: Array,
        sample_weight: Array | None,
        k: int,
    ) -> Moments:
        of = lambda means: counted(self._form(means), labels, x, sample_weight, k)
        # Twice, so that nothing cancels the second time.
        return of(of(jnp.zeros((k, x.shape[1]), x.dtype)).means)

    def shrunk(self, statistics: Moments) -> Moments:
        return self._whole(statistics.means).shrunk(statistics)

    def filled(self, statistics: Moments, present: Array) -> Moments:
        return self._whole(statistics.means).filled(statistics, present)

    def scaled(self, statistics: Moments, share: Array | float) -> Moments:
        return times(statistics, share)

    def add(self, one: Moments, other: Moments) -> Moments:
        return self._whole(one.means).add(one, other)

    def update(
        self, statistics: Moments, prior: ConjugatePrior | None, params: MixtureParams | None = None
    ) -> Sites:
        counts, means, scatter = statistics
        d = means.shape[1]
        held = None
        if prior is not None:
            after = self._whole(means).updated(statistics, _of_means(prior))
            # The mean of each component is one more row with its covariance.
            means, scatter, counts = after.mean, after.scale, counts + 1
            held = self._held(prior, d)
        rows = jnp.where(counts > 0, counts, 1)
        # A component without rows, which has no moments, is as wide as the data.
        nothing = (counts <= 0)[:, None, None]
        covariances = jnp.where(
            nothing, jnp.eye(d, dtype=means.dtype), scatter / rows[:, None, None]
        )
        shape = (len(counts), d, self.n_factors)
        near, before = jnp.broadcast_to(anywhere_near(*shape[1:], means.dtype), shape), None
        if params is not None:
            near, before = params.own["loadings"], params.own["noise_variances"]
        loadings, noise = self.factored(covariances, rows, near, held, before)
        return {"means": means, "loadings": rotated(loadings), "noise_variances": noise}

    def factored(
        self,
        covariances: Float[Array, "k d d"],
        rows: Float[Array, " k"],
        near: Float[Array, "k d q"],
        held: Held | None,
        before: Array | None,
    ) -> tuple[Float[Array, "k d q"], Array]:
        """Loadings and noise variances from second moments, and from those before."""
        raise NotImplementedError

    # -- priors ----------------------------------------------------------------------------------

    def _held(self, prior: ConjugatePrior, d: int) -> Held:
        """What the prior adds for each component and noise variance."""
        shared = 1 if self.noise_structure == "diag" else d
        powers = prior.dof + 2 + shared * self.n_factors
        return Held(prior.mean_precision, powers, prior.scale)

    def prior_of(self, distributions: dict[str, Any]) -> Any:
        raise TypeError(
            f'prior: {self.label} takes None, "weak" or a ConjugatePrior, found a dictionary; '
            "loadings have a distribution given the noise of their columns"
        )

    def prior_sites(self, prior: ConjugatePrior | None, k: int, d: int) -> Prior:
        sites = self.component_sites(k, d)
        if prior is None:
            flat = {name: improper(site.support, site.shape) for name, site in sites.items()}
            flat["loadings"] = improper(
                constraints.independent(sites["loadings"].support, 1), sites["loadings"].shape
            )
            return {name: lambda _, name=name: flat[name] for name in flat}
        rows = prior.mean_precision
        like = jnp.zeros((k, d), rows.dtype)

        def noise(_: Sites) -> dist.Distribution:
            made = dist.InverseGamma(prior.dof / 2, prior.scale / 2, validate_args=False)
            shape = sites["noise_variances"].shape
            return made.expand(shape).to_event(len(shape))

        def loadings(sites: Sites) -> dist.Distribution:
            spread = self.by_column(sites["noise_variances"], like) / rows
            return NormalLoadings(spread, self.n_factors).to_event(1)

        def means(sites: Sites) -> dist.Distribution:
            noise = self.by_column(sites["noise_variances"], like)
            made = dist.LowRankMultivariateNormal(
                prior.mean, sites["loadings"] / jnp.sqrt(rows), noise / rows, validate_args=False
            )
            return made.to_event(1)

        return {"noise_variances": noise, "loadings": loadings, "means": means}

    def default_prior(
        self, rule: str, x: Array, sample_weight: Array | None, k: int, free: bool
    ) -> ConjugatePrior:
        total, mean, scatter = weighted_moments(x, sample_weight)
        variances = jnp.diag(scatter) / total
        shared = self.noise_structure != "diag"
        number = lambda value: jnp.asarray(value, x.dtype)
        return ConjugatePrior(
            concentration=jnp.ones(k, x.dtype),
            mean=mean,
            mean_precision=number(_WEAK_ROWS),
            dof=number((x.shape[1] if shared else 1) + 2),
            scale=jnp.sum(variances) if shared else variances,
        )

    def sized(self, prior: Any, k: int, d: int, dtype: Any) -> ConjugatePrior | None:
        full = super().sized(prior, k, d, dtype)
        if full is None:
            return None
        scale = jnp.broadcast_to(full.scale, (d,) if self.noise_structure == "diag" else ())
        return dataclasses.replace(full, scale=scale)

    def bounded(self, prior: Any, free: bool) -> bool:
        return prior is not None

    # -- units -------------------------------------------------------------------------------------

    def standardise(self, x: Array, sample_weight: Array | None, prior: Any) -> tuple[Any, Any]:
        chart = self._noise.standardise(x, sample_weight, None)[0].chart
        assert chart is not None
        working = dataclasses.replace(self, units=chart)
        if prior is None:
            return working, None
        scale = self._rescaled(prior.scale, 1 / chart.scale)
        return working, dataclasses.replace(prior, mean=chart.apply(prior.mean), scale=scale)

    def _rescaled(self, noise: Array, scale: Float[Array, " d"]) -> Array:
        return structure_named(self.noise_structure).rescale(noise, scale)

    def log_units(self, prior: Any, k: int, d: int | None) -> Array | None:
        if self.units is None or prior is None:
            return None
        scale = self.units.scale
        noise = jnp.log(scale) if self.noise_structure == "diag" else jnp.log(scale[0])
        return -k * ((1 + self.n_factors) * jnp.sum(jnp.log(scale)) + 2 * jnp.sum(noise))

    def to_working(self, params: MixtureParams) -> MixtureParams:
        assert self.units is not None
        return self._mapped(params, self.units.apply, 1 / self.units.scale)

    def to_user(self, params: MixtureParams) -> MixtureParams:
        assert self.units is not None
        return self._mapped(params, self.units.invert, self.units.scale)

    def _mapped(self, params: MixtureParams, move: Any, scale: Array) -> MixtureParams:
        own = params.own
        return dataclasses.replace(
            params,
            own={
                "noise_variances": self._rescaled(own["noise_variances"], scale),
                "loadings": own["loadings"] * scale[:, None],
                "means": move(own["means"]),
            },
        )

    def moved_prior(self, prior: Any, offset: Any) -> Any:
        return self._noise.moved_prior(prior, offset)

    def moved(self, params: Any, offset: Any) -> Any:
        return moved_site(params, "means", offset)

    def origin(self, params: MixtureParams) -> np.ndarray | None:
        return wide_origin(params.own["means"])

    # -- doors and health ------------------------------------------------------------------------

    def check_rows(self, x: np.ndarray) -> None:
        self._noise.check_rows(x)
        most = self.most_factors(x.shape[1])
        if self.n_factors > most:
            raise ValueError(
                f"n_factors: {x.shape[1]} columns tell at most {most} factor(s) "
                f"apart, found {self.n_factors}; use fewer, or jaxgmm.Gaussian"
            )

    def check_rule(self, rule: str, x: np.ndarray, total_weight: float) -> None:
        constant = np.flatnonzero(np.ptp(x, axis=0) == 0)
        if constant.size:
            raise ColumnRefused(
                f"prior: {rule!r} has no scale for {{column}}, which is constant; drop the column, "
                "or give a jaxgmm.ConjugatePrior",
                constant[0],
            )

    def check_bounded(self, x: np.ndarray, k: int) -> None:
        self._noise.check_bounded(x, k)
        if len(x) < self.n_factors + 2:
            raise ValueError(
                f"x: {len(x)} rows lie on a plane of {self.n_factors} factors, so the likelihood "
                'is unbounded; use a proper prior (prior="weak"), or fewer factors'
            )

    def check_prior(self, prior: Any, k: int, d: int, free: bool) -> None:
        if not isinstance(prior, ConjugatePrior):
            raise TypeError(
                f'prior: {self.label} takes None, "weak" or a ConjugatePrior, found '
                f"{type(prior).__name__}"
            )
        check_concentration_shape(prior, k)
        mean = numeric("prior.mean", prior.mean)
        if mean.shape != (d,):
            raise ValueError(f"prior: mean needs shape ({d},) for these data, found {mean.shape}")
        for field in ("mean_precision", "dof", "scale"):
            value = numeric(f"prior.{field}", getattr(prior, field))
            by_column = field == "scale" and self.noise_structure == "diag"
            if not (value.shape == () or (by_column and value.shape == (d,))):
                wanted = f"one number or shape ({d},)" if by_column else "one number"
                raise ValueError(f"prior: {field} needs {wanted}, found shape {value.shape}")
            if not np.all(value > 0):
                raise ValueError(f"prior: {field} must be positive, found {value.tolist()}")

    def _vanished(self, params: MixtureParams) -> Array:
        """How many noise variances of a component are zero as far as can be told."""
        share = self._share(params)
        least = _AT_LEAST * least_share(share.dtype)
        return jnp.sum(share.reshape(len(share), -1) < least, axis=1)

    def collapsed(self, params: MixtureParams, bounded: bool) -> Array:
        """Whether a component has no rows left, or lies in a plane.

        As many noise variances as there are factors may be zero, if each column has its own: a
        Heywood case, of finite likelihood. One more, and the covariance is singular.
        """
        lost = [~jnp.all(jnp.isfinite(site)) for site in params.own.values()]
        lost = jnp.any(jnp.stack(lost))
        variances = self.variances(params)
        noise = (_COLLAPSE_EPS * jnp.finfo(variances.dtype).eps) ** 2
        lost |= ~jnp.all(variances > max(noise, _COLLAPSE_VARIANCE))
        allowed = self.n_factors if self.noise_structure == "diag" else 0
        return lost | (~jnp.array(bounded) & jnp.any(self._vanished(params) > allowed))

    def cancellation(self, params: MixtureParams) -> Array:
        """Second moments in units of the noise, of which the M-step is made, are as large."""
        return jnp.max(1 / self._share(params))

    def spurious(self, params: MixtureParams, statistics: Moments) -> Array:
        """Whether a component hangs on hardly more rows than a plane of its factors goes through.

        Or where more of its noise variances than it has factors are tiny beside the average ones.
        """
        noise = params.own["noise_variances"]
        noise = noise.reshape(len(noise), -1)
        flat = jnp.sum(noise < _LEAST_NOISE * (params.weights @ noise), axis=1)
        allowed = self.n_factors if self.noise_structure == "diag" else 0
        few = statistics.counts < self.n_factors + 2 + _SPARE_ROWS
        return jnp.any(few | (flat > allowed))


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class FactorAnalyser(LowRank):
    """Normal components whose columns hang together by a few factors, each with noise of its own.

    Parameters
    ----------
    n_factors : int
        How many factors q a component has.

    Raises
    ------
    ValueError, TypeError
        For other than a whole number of at least one; and from `jaxgmm.fit` for more factors than
        the columns tell apart, ``(D - q)^2 < D + q`` (Ledermann, 1937).

    Notes
    -----
    A row of component k is ``means[k] + loadings[k] f + e``, with q independent standard normal
    factors f and noise e of the variances ``noise_variances[k]``; its covariance is
    ``loadings loadings^T + diag(noise_variances)``. The sites are ``means`` (K, D), ``loadings``
    (K, D, q) and ``noise_variances`` (K, D). A rotation of the factors changes nothing, so that
    loadings are reported with zeros above the diagonal and positive numbers on it; K (2 D + D q -
    q (q - 1) / 2) of the numbers are free. ``communalities`` (K, D) are the shares of the columns'
    variances that factors explain, and no rotation changes them, nor their standard errors.

    A noise variance may be zero at the maximum of the likelihood (a Heywood case). It is then
    held at a share of 1.5e-8 of the column's variance (3e-4 in float32), and
    `jaxgmm.standard_errors` takes it as known; components of which more are zero than they have
    factors have collapsed. Under ``prior="weak"`` neither happens: noise is inverse-gamma(3 / 2,
    v / 2) with the variance v of the column, ``loadings | noise ~ N(0, noise / 0.01)``, and
    ``mean | covariance ~ N(m, covariance / 0.01)`` with the mean m of the data. A `ConjugatePrior`
    has other numbers: ``mean`` (D,), one ``mean_precision`` in place of 0.01, one ``dof``, and
    ``scale``, one number or (D,). No labelled rows update it.

    An M-step finds the best loadings for the noise before, from eigenvectors of the components'
    second moments, then better noise for these.

    References
    ----------
    Ghahramani and Hinton (1996), The EM algorithm for mixtures of factor analyzers, CRG-TR-96-1;
    McLachlan and Peel (2000), Finite Mixture Models, chapter 8; Zhao and Yu (2008), IEEE Trans.
    Neural Networks 19:1956-1961, for the M-step; Leung and Drton (2016), Statistics and Computing
    26:751-763, for a prior of loadings that knows no order of the columns.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("iris").x
    >>> fit = jg.fit(jg.Mixture(jg.families.FactorAnalyser(1), 2), x, key=jax.random.key(0))
    >>> fit.params.loadings.shape, fit.n_parameters
    ((2, 4, 1), 25)
    >>> fit.model.derived_sites(fit.params)["communalities"].shape
    (2, 4)
    """

    noise_structure = "diag"

    def most_factors(self, d: int) -> int:
        # (d - q)^2 >= d + q (Ledermann, 1937).
        return math.floor((2 * d + 1 - math.sqrt(8 * d + 1)) / 2)

    def iterates(self, prior: Any) -> bool:
        return True

    def factored(self, covariances, rows, near, held, before):
        if before is None:
            before = jax.vmap(first_noise)(covariances)
        return jax.vmap(own_noise, (0, 0, 0, None, 0))(covariances, rows, near, held, before)


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class PPCA(LowRank):
    """Probabilistic principal components: a few factors, and noise that is the same in all columns.

    Parameters
    ----------
    n_factors : int
        How many factors q a component has, fewer than columns.

    Raises
    ------
    ValueError, TypeError
        For other than a whole number of at least one; and from `jaxgmm.fit` for as many factors as
        columns.

    Notes
    -----
    As `FactorAnalyser`, with one noise variance for all columns of a component:
    ``noise_variances`` (K,). Columns should be of one unit, and K (D + D q - q (q - 1) / 2 + 1)
    numbers are free. The M-step is a closed form: loadings span the first q principal components
    of a component's rows, and its noise is the average variance along the others; with a prior
    the noise solves one equation. With q = D - 1 these are all covariances.

    Under ``prior="weak"`` noise is inverse-gamma((D + 2) / 2, t / 2) with the sum t of the
    columns' variances, what one row would say; the rest is as of `FactorAnalyser`.

    References
    ----------
    Tipping and Bishop (1999), J. R. Statist. Soc. B 61:611-622, and Neural Computation 11:443-482
    for mixtures.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("iris").x
    >>> fit = jg.fit(jg.Mixture(jg.families.PPCA(2), 3, prior="weak"), x, key=jax.random.key(0))
    >>> fit.params.noise_variances.shape, fit.n_parameters
    ((3,), 38)
    """

    noise_structure = "spherical"

    def most_factors(self, d: int) -> int:
        return d - 1

    def factored(self, covariances, rows, near, held, before):
        return jax.vmap(shared_noise, (0, 0, 0, None))(covariances, rows, near, held)


@program()
def _rotated(loadings: Float[Array, "k d q"]) -> Float[Array, "k d q"]:
    return rotated(loadings)


def _of_means(prior: ConjugatePrior) -> ConjugatePrior:
    """What it says of means, given covariances of which it says nothing."""
    return dataclasses.replace(
        prior, dof=jnp.zeros_like(prior.dof), scale=jnp.zeros_like(prior.mean_precision)
    )
