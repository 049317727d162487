"""Gaussian components: one family, whatever the covariance structure."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints

from jaxgmm._checks import check_names, unknown_name
from jaxgmm._contract import Assignment, Prior, Sites, improper
from jaxgmm._numerics import Affine, anywhere, block_rows, normal, stack, weighted_moments
from jaxgmm._programs import in_slices, program
from jaxgmm.files import numeric, stored
from jaxgmm.model._centred import Centred
from jaxgmm.model._door import (
    check_bounded,
    check_prior,
    check_rule_defined,
    check_squares,
    check_univariate,
)
from jaxgmm.model._family import Density, Family, View, counted, labelled
from jaxgmm.model._gaussian_mode import components_mode
from jaxgmm.model._gaussian_notation import (
    conjugate_density,
    conjugate_formulas,
    joining_formulas,
    symbols,
)
from jaxgmm.model._gaussian_sites import GaussianSites
from jaxgmm.model._incomplete import (
    Imputing,
    Incomplete,
    available_moments,
    imputed,
    incomplete,
    patterns_of,
    rows_at_once,
    without_holes,
)
from jaxgmm.model._look import log_density
from jaxgmm.model._moments import Moments, about_their_means, pool, times
from jaxgmm.model._origin import wide_origin
from jaxgmm.model._prior import ConjugatePrior
from jaxgmm.model._registry import STRUCTURES, UNIVARIATE, structure_named
from jaxgmm.model._structure import Curved, Structure
from jaxgmm.model._support import contains
from jaxgmm.model._tree import pytree

# A component has collapsed once its standard deviation is this many units of rounding of the
# data's own, or a conditional variance so many of the variance it is a part of: what is
# left is then noise. No data have the digits for less than this share of their variance.
_COLLAPSE_EPS = 100.0
_COLLAPSE_VARIANCE = 2e-14

# The share of a log density, and of a variance, that the fast form may lose to cancellation.
# The trajectory of EM then keeps nine digits in float64, three in float32.
_LOST = {"float64": 1e-11, "float32": 1e-4}

# An optimum is spurious where a component with its own covariance rests on fewer
# effective rows than D + 1, plus the half row by which a neighbour's tail can lift an
# exact fit, or is this flat compared with the components together.
_SPURIOUS_SPARE_ROWS = 0.5
_SPURIOUS_EIGENVALUE = 1e-6

# How far covariances written by a user may miss their structure: six figures.
_WRITTEN_RTOL = 1e-5


def _digits_lost(dtype: Any) -> float:
    return _LOST[jnp.dtype(dtype).name]


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class GaussianParams:
    """Parameters of a Gaussian mixture; leading batch axes are allowed throughout.

    Attributes
    ----------
    weights : (..., K) array
        Mixing weights.
    means : (..., K, D) array
        Component means, in the units of the data.
    covariance_site : array
        The covariances in the shape of their NumPyro site (see `Gaussian`), such as
        (..., K, D, D) for ``full``, (..., D, D) ``tied``, (..., K, D) ``diag``, (..., K)
        ``spherical``.
    structure : str
        Name of the covariance structure (static).
    """

    # Leaves may be anything that a transformation puts there, hence no array types.
    weights: Any
    means: Any
    covariance_site: Any
    structure: str = dataclasses.field(metadata={"static": True})

    @property
    def covariances(self) -> Float[Array, "*b k d d"]:
        """One covariance matrix per component, whatever the structure."""
        return structure_named(self.structure).expand(self.covariance_site, *self.means.shape[-2:])


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class Gaussian(Family):
    """Gaussian components with a covariance structure.

    Parameters
    ----------
    structure : str
        ``"full"``, ``"tied"``, ``"diag"``, ``"spherical"``, or one of mclust's codes below:
        volume, shape and orientation are each equal (E) or varying (V) over components, or
        absent (I). In one dimension also ``"E"`` and ``"V"``; there the first letter decides.
    reg_covar : float
        Ridge added to the diagonal after each M-step, in squared units of the data,
        as in scikit-learn. It is not a prior: with a ridge a step may lower the
        objective, and the fit is not a posterior mode.

    Raises
    ------
    ValueError
        For an unknown structure, a negative ridge, or a ridge on VEI, EVI, VEE, EVE, VEV or
        EVV, which it would take out of their structure.

    Notes
    -----
    ======== =================================== ============== ===========
    code     covariances                         site           sampled by
    ======== =================================== ============== ===========
    EII      one multiple of the identity        ()             NUTS, Gibbs
    VII      multiples of it (``spherical``)     (K,)           NUTS, Gibbs
    EEI      one diagonal                        (D,)           NUTS, Gibbs
    VEI      multiples of one diagonal           (K, D)         NUTS
    EVI      diagonals of one determinant        (K, D)         NUTS
    VVI      diagonals (``diag``)                (K, D)         NUTS, Gibbs
    EEE      one matrix (``tied``)               (D, D)         NUTS, Gibbs
    VEE      multiples of one matrix             (K, D, D)      NUTS
    EVE      same axes, one determinant          (K, D, D)      NUTS
    VVE      same axes                           (K, D, D)      NUTS
    EEV      same eigenvalues                    (K, D, D)      NUTS
    VEV      proportional eigenvalues            (K, D, D)      NUTS
    EVV      matrices of one determinant         (K, D, D)      NUTS
    VVV      matrices (``full``)                 (K, D, D)      NUTS, Gibbs
    ======== =================================== ============== ===========

    A NaN in the data is a value missing at random: densities integrate it out, and EM takes its
    expectation given the values that are there (Ghahramani and Jordan, 1994). A row without any
    value has density one.

    Where covariances are tied together without being one, their prior density is with
    respect to the volume of the Fisher metric (the page on the mathematics has it written
    out) and does not integrate to one, so that evidences compare within a structure only.

    References
    ----------
    Celeux and Govaert (1995), Pattern Recognition 28:781-793, for the structures; Ghahramani and
    Jordan (1994), NIPS 6:120-127, for missing values.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> jg.Gaussian("VVV").name
    'full'
    """

    moves = True
    holes = True
    has_coordinates = True
    columns = "numbers"
    rules = ("fraley-raftery", "weak")
    conjugate_prior = "a ConjugatePrior"
    proper_prior = 'prior="fraley-raftery" or a ConjugatePrior'
    collapse = (
        "a component lost its rows, or shrank onto a few rows or a subspace, where its density has "
        'no digits left; use a proper prior (prior="fraley-raftery" or a ConjugatePrior of wider '
        "scale), fewer components, or a simpler covariance structure"
    )

    structure: str = dataclasses.field(default="full", metadata={"static": True})
    reg_covar: Any = 0.0
    # Working units and the data's conditional variances in them, set by `standardise`.
    chart: Affine | None = None
    data_pivots: Array | None = None
    # "fast" or "centred", where `settled`; None: measured wherever rows are looked at.
    form: str | None = dataclasses.field(default=None, metadata={"static": True})
    # Which values are there, pattern by pattern, where some are missing; set by `looked`.
    patterns: Array | None = None
    # A key, where what is missing is to be drawn; set by `imputing`.
    noise: PRNGKeyArray | None = None

    def __post_init__(self):
        known = {**STRUCTURES, **UNIVARIATE}
        if self.structure not in known:
            raise ValueError(unknown_name("structure", self.structure, known))
        ridge = self.reg_covar if isinstance(self.reg_covar, (int, float)) else 0
        if ridge < 0:
            raise ValueError(f"reg_covar: a ridge is at least 0, found {ridge}")
        if ridge > 0 and not self._structure.keeps_ridge:
            raise ValueError(
                f"reg_covar: a ridge takes {self.name!r} covariances out of their structure; "
                "use reg_covar=0, or a prior instead"
            )

    @property
    def name(self) -> str:
        """The structure's own name, whichever alias was written."""
        return self._structure.name

    @property
    def label(self) -> str:
        return f"Gaussian({self.name!r})"

    @property
    def code(self) -> str:
        ridge = float(np.asarray(self.reg_covar))
        return f'jg.Gaussian("{self.name}"' + (f", reg_covar={ridge!r})" if ridge else ")")

    @property
    def formula(self) -> str:  # type: ignore[override]
        return f"N(μ_k, {symbols(self.name).covariance})"

    @property
    def constraint(self) -> str:  # type: ignore[override]
        return symbols(self.name).form

    def prior_formulas(self, prior: Any) -> tuple[str, ...]:
        if isinstance(prior, ConjugatePrior):
            return conjugate_formulas(self.name, prior)
        return joining_formulas(self.name, prior.distributions)

    def prior_density(self, prior: Any, site: str, index: tuple[int, ...]) -> Density | None:
        return conjugate_density(self.name, prior, site, index)

    @property
    def _structure(self) -> Structure:
        return structure_named(self.structure)

    @property
    def covariance_structure(self) -> Structure:
        """What the covariances have in common."""
        return self._structure

    # -- density and statistics -------------------------------------------------

    def features(self, x):
        assert self.chart is not None
        z = self.chart.apply(x).T
        first = lax.optimization_barrier(jnp.concatenate([jnp.ones((1, len(x)), z.dtype), z]))
        return stack([first, *self._structure.squares(first[1:])])

    def natural(self, params: GaussianParams) -> Float[Array, "k f"]:
        """Natural parameters of each component, the log normaliser first."""
        assert self.chart is not None
        natural = self._structure.natural(params.means, params.covariance_site)
        return natural.at[:, 0].add(-self.chart.log_scale)

    def log_density(self, params: GaussianParams, features: Float[Array, "f n"]) -> Array:
        return self.natural(params) @ features

    def sums(self, features: Float[Array, "f n"], weights: Float[Array, "k n"]) -> Array:
        return weights @ features.T

    def statistics(self, sums: Float[Array, "k f"]) -> Moments:
        structure, d = self._structure, self._n_features()
        scatter = structure.scatter(sums[:, 1 + d :], d)
        return about_their_means(structure, sums[:, 0], sums[:, 1 : 1 + d], scatter)

    def block_rows(self, x: Array, n_components: int) -> int:
        d = x.shape[1]
        if self.incomplete:
            return rows_at_once(n_components, d, x.dtype)
        width = self._structure.n_products(d)
        return block_rows(1 + d + width + n_components, x.dtype)

    def centred(self, means: Float[Array, "k d"]) -> Centred:
        """The same components, each seen from its own mean."""
        assert self.chart is not None
        return Centred(self._structure, self.chart, means)

    # -- rows with holes ----------------------------------------------------------

    @property
    def incomplete(self) -> bool:
        return self.patterns is not None

    @property
    def imputes(self) -> bool:
        return self.incomplete

    def looked(self, x: Array, sample_weight: Array | None = None) -> Gaussian:
        """The family that knows which values of the rows are missing."""
        if isinstance(x, Tracer):
            return self
        return dataclasses.replace(self, patterns=patterns_of(x))

    def imputing(self, key: PRNGKeyArray) -> Gaussian:
        return dataclasses.replace(self, noise=key)

    def with_holes(self, params: GaussianParams) -> Incomplete:
        """The components as rows with holes see them, in the units of the chart."""
        assert self.chart is not None
        assert self.patterns is not None
        form = Incomplete if self.noise is None else Imputing
        known = self._structure, self.chart, self.patterns
        return incomplete(*known, params.means, params.covariances, form)

    def beside_noise(self, x: Array) -> Array:
        """Rows, with the noise beside them of which imputations are made."""
        if self.noise is None:
            return x
        return jnp.concatenate([x, normal(self.noise, x.shape, x.dtype)], axis=1)

    def unlabelled(self, k: int) -> GaussianParams:
        """What a row is expected to be where nothing is known of it: all the data have."""
        assert self.chart is not None
        d, dtype = self._n_features(), self.chart.scale.dtype
        site = self._structure.contract(jnp.broadcast_to(jnp.eye(d, dtype=dtype), (k, d, d)))
        return self.from_sites(
            jnp.full(k, 1 / k, dtype), {"means": jnp.zeros((k, d), dtype), "covariances": site}
        )

    def impute(
        self,
        params: GaussianParams,
        x: Array,
        labels: Float[Array, "n k"],
        key: PRNGKeyArray | None,
    ) -> Float[Array, "n d"]:
        if not self.incomplete:
            return x
        shown, working = self.centred_on(params)
        if key is not None:
            shown = shown.imputing(key)
        return imputed(shown.with_holes(working), shown.beside_noise(x), labels)

    # -- EM -----------------------------------------------------------------------

    def e_step(
        self,
        log_weights: Float[Array, " k"],
        params: GaussianParams,
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Moments, Array]:
        if self.incomplete:
            form = self.with_holes(params)
            log_density = lambda seen: form.log_density(params, seen)
            x = self.beside_noise(x)
            return labelled(form, log_density, log_weights, x, sample_weight, assign)
        natural = self.natural(params)
        rows = log_weights, x, sample_weight, assign
        once = labelled(self, lambda features: natural @ features, *rows)
        # Digits are lost in the densities of a component far out, and in the moments of one
        # that has just shrunk.
        before = self.cancels(self.lost(params, natural))
        after = self.cancelled(once[0])
        origin = jnp.where(before, params.means, once[0].means)

        def centred() -> tuple[Moments, Array]:
            density = self.centred(params.means)
            log_density = lambda features: density.log_density(params, features)
            return labelled(density, log_density, *rows, self.centred(origin))

        return lax.cond(before | after, centred, lambda: once)

    def at_labels(
        self,
        labels: Callable[[Array, Array | int], Array],
        x: Array,
        sample_weight: Array | None,
        k: int,
    ) -> Moments:
        if self.incomplete:
            # What is missing is taken to be as in all the data.
            return counted(self.with_holes(self.unlabelled(k)), labels, x, sample_weight, k)
        # Before there are parameters, the first pass itself tells what cancelled in it.
        once = counted(self, labels, x, sample_weight, k)
        return lax.cond(
            self.cancelled(once),
            lambda: counted(self.centred(once.means), labels, x, sample_weight, k),
            lambda: once,
        )

    def look(self, params: GaussianParams, x: Array, see: Callable[[View], Array]) -> Array:
        """What ``see`` makes of the form that keeps its digits at ``params``."""
        if self.incomplete:
            return see(self._view_with_holes(params, x))

        def view(form: str) -> View:
            shown, _ = self.centred_on(params)
            k = params.means.shape[0]
            block = shown.block_rows(x, k)
            if form == "centred":
                block = shown.centred(params.means).block_rows(x, k)
            seen = functools.partial(log_density, self, params, form=form)
            return View(seen, block, whole=self.form is not None)

        if self.form is not None:
            return see(view(self.form))
        lost = self.loses_digits(params)
        return lax.cond(lost, lambda: see(view("centred")), lambda: see(view("fast")))

    def _view_with_holes(self, params: GaussianParams, x: Array) -> View:
        shown, working = self.centred_on(params)
        form = shown.with_holes(working)
        seen = lambda rows: form.log_density(working, form.features(rows))
        return View(seen, form.block_rows(x, params.weights.shape[0]))

    def seen(self, params: GaussianParams, x: Array, form: str) -> Float[Array, "k n"]:
        """Log densities in a form, in the units that keep the squares of the rows small."""
        shown, working = self.centred_on(params)
        density = shown.centred(working.means) if form == "centred" else shown
        return density.log_density(working, density.features(x))

    def marginal(
        self, params: GaussianParams, column: Array | int, grid: Float[Array, " m"]
    ) -> Float[Array, "k m"]:
        """Weight times density of values of one column."""
        own = jnp.diagonal(params.covariances, axis1=-2, axis2=-1)[:, column]
        of_column = dist.Normal(params.means[:, column, None], jnp.sqrt(own)[:, None])
        return params.weights[:, None] * jnp.exp(of_column.log_prob(grid))

    def add(self, one: Moments, other: Moments) -> Moments:
        """Moments of two sets of rows together."""
        return pool(self._structure, one, other)

    def scaled(self, statistics: Moments, share: Array | float) -> Moments:
        return times(statistics, share)

    def shrunk(self, statistics: Moments) -> Moments:
        """Moments of clusters, their covariances moved towards the one within all of them.

        Half-way at D + 1 rows, and the less the more rows there are: clusters may have scales
        of their own. A cluster without rows becomes one row with the moments of all.
        """
        structure, few = self._structure, self._n_features() + 1
        counts, means, scatter = statistics
        share = counts / jnp.sum(counts)
        per_entry = lambda numbers: jnp.reshape(numbers, (-1, *(1,) * (scatter.ndim - 1)))
        within = jnp.sum(scatter, axis=0) / jnp.sum(counts)
        trust = per_entry(1 / (1 + (few / counts) ** 2))
        own = trust * scatter + (1 - trust) * per_entry(counts) * within
        mean = share @ means
        whole = within + jnp.sum(structure.outer((means - mean) * jnp.sqrt(share)[:, None]), axis=0)
        there = counts > 0
        return Moments(
            jnp.where(there, counts, 1),
            jnp.where(there[:, None], means, mean),
            jnp.where(per_entry(there), own, whole),
        )

    def filled(self, statistics: Moments, present: Array) -> Moments:
        """Moments in which absent components hold so few rows that no sum shows them."""
        counts, means, scatter = statistics
        few = jnp.finfo(counts.dtype).eps
        one = self._structure.entries(jnp.eye(means.shape[-1], dtype=counts.dtype))
        there = jnp.reshape(present, (-1, *(1,) * one.ndim))
        counts = jnp.where(present, counts, few)
        return Moments(counts, means, jnp.where(there, scatter, few * one))

    def coordinates(self, statistics: Moments) -> Float[Array, " c"]:
        """Log counts, means and the unconstrained scatter, as one vector."""
        counts, means, scatter = statistics
        return ravel_pytree((jnp.log(counts), means, self._structure.unconstrain(scatter)))[0]

    def from_coordinates(self, vector: Float[Array, " c"], like: Moments) -> Moments:
        """The inverse of `coordinates`; the counts sum to those of ``like``."""
        example = (like.counts, like.means, self._structure.unconstrain(like.scatter))
        log_counts, means, scatter = ravel_pytree(example)[1](vector)
        counts = jax.nn.softmax(log_counts) * jnp.sum(like.counts)
        return Moments(counts, means, self._structure.constrain(scatter))

    def centred_on(self, params: GaussianParams) -> tuple[Gaussian, GaussianParams]:
        """This family in units in which ``params`` have mean 0 and variance 1.

        The density does not depend on the units, so no gradient flows through them.
        """
        if self.chart is not None:
            return self, params
        weights, means = params.weights, params.means
        shift = weights @ means
        own = jnp.diagonal(params.covariances, axis1=-2, axis2=-1)
        variances = weights @ (own + (means - shift) ** 2)
        chart = lax.stop_gradient(Affine(shift, self._spread(variances)))
        return self._charted(chart), self.to_working(params, chart)

    def _charted(self, chart: Affine, data_pivots: Array | None = None) -> Gaussian:
        return dataclasses.replace(
            self,
            chart=chart,
            data_pivots=data_pivots,
            reg_covar=jnp.asarray(self.reg_covar, chart.scale.dtype) / chart.scale**2,
        )

    def _spread(self, variances: Float[Array, " d"]) -> Float[Array, " d"]:
        """Scale of each column under the maps that the structure is closed under."""
        if not self._structure.scales_columns:
            variances = jnp.full_like(variances, jnp.mean(variances))
        return jnp.where(variances > 0, jnp.sqrt(jnp.where(variances > 0, variances, 1)), 1)

    # -- the update -------------------------------------------------------------

    def updated(
        self, statistics: Moments, prior: ConjugatePrior, rows: Float[Array, " k"] | None = None
    ) -> ConjugatePrior:
        """The prior of the components after labelled rows, each mean with its own.

        ``rows`` are how many each has, where rows count other than once in their moments.

        References
        ----------
        Fraley and Raftery (2007), J. Classification 24:155-181, table 1; Gelman et al.
        (2013), Bayesian Data Analysis, 3rd ed., section 3.6.
        """
        structure, kappa = self._structure, prior.mean_precision
        counts, averages, scatter = statistics
        total = kappa + counts
        means = (kappa * prior.mean + counts[:, None] * averages) / total[:, None]
        pull = jnp.sqrt(kappa * counts / total)[:, None]
        scatter = scatter + structure.outer(pull * (averages - prior.mean))
        scatter, rows = structure.gathered(scatter, counts if rows is None else rows)
        return dataclasses.replace(
            prior,
            mean=means,
            mean_precision=total,
            dof=prior.dof + rows * structure.dof_of_row(self._n_features()),
            scale=prior.scale + scatter,
        )

    def centre(self, prior: ConjugatePrior, k: int, d: int) -> tuple[Sites, Float[Array, " k"]]:
        """Sites whose log density of a row is, but for constants, its mean over the prior.

        ``E log N(x | mu, Sigma) = log N(x | m, E[Sigma^-1]^-1) + c``, with c by component.

        References
        ----------
        Bishop (2006), Pattern Recognition and Machine Learning, eqs 10.64 and 10.65.
        """
        structure = self._structure
        covariances = structure.harmonic_mean(prior, k, d)
        constants = 0.5 * (structure.log_det_excess(prior.dof, d) - d / prior.mean_precision)
        sites = {"means": jnp.broadcast_to(prior.mean, (k, d)), "covariances": covariances}
        return sites, jnp.broadcast_to(constants, (k,))

    def mean_log_density(self, prior: ConjugatePrior, x: Array, k: int) -> Float[Array, "k n"]:
        sites, constants = self.centre(prior, k, x.shape[1])
        params = self.from_sites(jnp.full(k, 1 / k, x.dtype), sites)
        return self.look(params, x, lambda view: view.log_density(x)) + constants[:, None]

    def expected_step(
        self,
        prior: ConjugatePrior,
        log_weights: Float[Array, " k"],
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Moments, Array]:
        sites, constants = self.centre(prior, log_weights.shape[0], x.shape[1])
        params = self.from_sites(jnp.exp(log_weights), sites)
        return self.e_step(log_weights + constants, params, x, sample_weight, assign)

    def divergence(self, prior: ConjugatePrior, other: ConjugatePrior, k: int, d: int) -> Array:
        sites, constants = self.centre(prior, k, d)
        ratio = jnp.zeros((), constants.dtype)
        mine, theirs = (self.prior_sites(one, k, d) for one in (prior, other))
        for name, value in sites.items():
            densities = (one[name](sites).log_prob(value) for one in (mine, theirs))
            ratio += jnp.sum(next(densities)) - jnp.sum(next(densities))
        # Labelled rows are all that the two priors differ by, so the log of their ratio is linear
        # in log p(row | label): its mean is its value at the centre, plus the constants that
        # means of log p(row | label) have there, once for each row.
        return ratio + (prior.mean_precision - other.mean_precision) @ constants

    def iterates(self, prior: Any) -> bool:
        return isinstance(prior, GaussianSites) or self._structure.iterates

    def update(
        self,
        statistics: Moments,
        prior: ConjugatePrior | GaussianSites | None,
        params: GaussianParams | None = None,
        rows: Float[Array, " k"] | None = None,
    ) -> Sites:
        """Means and covariances at the mode given labelled rows, with or without a prior.

        ``params`` are those before the step, if any: no structure ends lower than there. ``rows``
        are as in `updated`.
        """
        structure, d = self._structure, self._n_features()
        if isinstance(prior, GaussianSites):
            before = None if params is None else self.sites(params)
            found = components_mode(prior, structure, statistics, before, rows)
            return {**found, "covariances": self.ridged(found["covariances"])}
        counts, means, scatter = statistics
        previous = None if params is None else params.covariance_site
        if prior is None:
            gathered = structure.gathered(scatter, counts if rows is None else rows)
            covariances = structure.minimise(*gathered, d, previous)
        else:
            posterior = self.updated(statistics, prior, rows)
            means = posterior.mean
            covariances = structure.mode(posterior, len(counts), d, previous)
        return {"means": means, "covariances": self.ridged(covariances)}

    def ridged(self, covariances: Array) -> Array:
        """Covariances with the ridge on their diagonal."""
        amount = jnp.broadcast_to(self.reg_covar, (self._n_features(),))
        return self._structure.ridge(covariances, amount)

    def _n_features(self) -> int:
        assert self.chart is not None
        return self.chart.shift.shape[0]

    # -- priors -----------------------------------------------------------------

    def prior_of(self, distributions: dict[str, Any]) -> GaussianSites:
        return GaussianSites(distributions)

    def prior_sites(self, prior: ConjugatePrior | GaussianSites | None, k: int, d: int) -> Prior:
        """Distributions of the sites ``covariances`` and ``means``, or of those in their place."""
        structure = self._structure
        if isinstance(prior, GaussianSites):
            return prior.prior_sites(structure, k, d)
        if prior is None:
            return {
                "covariances": lambda sites: structure.flat_prior(k, d),
                "means": lambda sites: improper(constraints.real, (k, d)),
            }
        return {
            "covariances": lambda sites: structure.covariance_prior(prior, k, d),
            "means": lambda sites: structure.mean_prior(prior, sites["covariances"], k, d),
        }

    def default_prior(
        self, rule: str, x: Array, sample_weight: Array | None, k: int, free: bool
    ) -> ConjugatePrior:
        """The data-dependent prior of Fraley and Raftery (2007), section 3.2, by either name."""
        n, d = x.shape
        mean, covariance = self._data_moments(x, sample_weight, spent=1)
        n_rows = n if sample_weight is None else jnp.sum(sample_weight > 0)
        covariance = jnp.where(n_rows > d, covariance, jnp.diag(jnp.diag(covariance)))
        scale = self._structure.prior_scale(covariance, k)
        number = lambda value: jnp.asarray(value, x.dtype)
        return ConjugatePrior(
            concentration=jnp.ones(k, x.dtype),
            mean=mean,
            mean_precision=number(0.01),
            dof=number(d + 2),
            scale=scale,
        )

    def _data_moments(
        self, x: Array, sample_weight: Array | None, spent: int
    ) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
        """Mean and covariance of the rows; ``spent`` degrees of freedom do not count.

        Variances of columns with holes are those of the values that are there. Covariances are
        shares of these, no larger than the values that two columns have together allow.
        """
        if not self.incomplete:
            total, mean, scatter = weighted_moments(x, sample_weight)
            return mean, scatter / (total - spent)
        totals, mean, scatter = available_moments(x, sample_weight)
        size = jnp.sqrt(jnp.where(totals > spent, totals - spent, 1))
        return mean, scatter / size / size[:, None]

    def bounded(self, prior: Any, free: bool) -> bool:
        if isinstance(prior, GaussianSites):
            return prior.bounded(free)
        return prior is not None

    def ascends(self) -> Array:
        """A ridge does not."""
        return jnp.all(jnp.asarray(self.reg_covar) == 0)

    # -- doors ------------------------------------------------------------------

    def check_rows(self, x: np.ndarray) -> None:
        check_squares(without_holes(x), self.structure)

    def check_rule(self, rule: str, x: np.ndarray, total_weight: float) -> None:
        check_rule_defined(rule, without_holes(x), total_weight, self.structure)

    def check_prior(self, prior: Any, k: int, d: int, free: bool) -> None:
        if isinstance(prior, GaussianSites):
            check_univariate(self.structure, d)
            prior.check_structure(self._structure, k, d, free)
        else:
            check_prior(prior, self.structure, k, d)

    def check_bounded(self, x: np.ndarray, k: int) -> None:
        if not np.all(np.asarray(self.reg_covar) > 0):
            check_bounded(without_holes(x), self.structure, k)

    # -- units ------------------------------------------------------------------

    def standardise(
        self, x: Array, sample_weight: Array | None, prior: Any
    ) -> tuple[Gaussian, Any]:
        """The family and its prior in units in which the data have mean 0, variance 1."""
        mean, covariance = self._data_moments(x, sample_weight, spent=0)
        scale = self._spread(jnp.diag(covariance))
        chart = Affine(mean, scale)
        working = covariance / scale / scale[:, None]
        # Groups far apart leave less between them than rounding, which no factor survives.
        rounding = 4 * working.shape[0] * jnp.finfo(working.dtype).eps
        working = working + jnp.diag(rounding * jnp.diag(working))
        family = self._charted(chart, self._structure.data_pivots(working))
        if prior is None:
            return family, None
        if isinstance(prior, GaussianSites):
            return family, prior.standardised(chart)
        return family, dataclasses.replace(
            prior,
            mean=chart.apply(prior.mean),
            scale=self._structure.rescale(prior.scale, 1 / scale),
        )

    def in_user_units(self, prior: ConjugatePrior) -> tuple[Gaussian, ConjugatePrior]:
        """The inverse of `standardise`."""
        chart = self.chart
        assert chart is not None
        ridge = jnp.max(self.reg_covar * chart.scale**2)
        family = dataclasses.replace(self, chart=None, data_pivots=None, reg_covar=ridge)
        return family, dataclasses.replace(
            prior,
            mean=chart.invert(prior.mean),
            scale=self._structure.rescale(prior.scale, chart.scale),
        )

    def log_units(self, prior: Any, k: int, d: int | None) -> Array | None:
        """log |working / user volume element| of the sites ``means`` and ``covariances``."""
        if self.chart is None or prior is None:
            return None
        d = self.chart.shift.shape[0]
        if isinstance(prior, GaussianSites):
            return prior.log_units(self.chart, self._structure, k, d)
        return -(k + self._structure.log_volume_power(k, d)) * self.chart.log_scale

    def to_working(self, params: GaussianParams, chart: Affine | None = None) -> GaussianParams:
        """The user's parameters in the units of a chart, by default the family's own."""
        chart = self.chart if chart is None else chart
        assert chart is not None
        return dataclasses.replace(
            params,
            means=chart.apply(params.means),
            covariance_site=self._structure.rescale(params.covariance_site, 1 / chart.scale),
        )

    def to_user(self, params: GaussianParams) -> GaussianParams:
        """Parameters in the family's units, back in the user's."""
        assert self.chart is not None
        return dataclasses.replace(
            params,
            means=self.chart.invert(params.means),
            covariance_site=self._structure.rescale(params.covariance_site, self.chart.scale),
        )

    def moved_prior(self, prior: Any, offset: Any) -> Any:
        if isinstance(prior, GaussianSites):
            return prior.translated(offset)
        if not isinstance(prior, ConjugatePrior):
            return prior
        mean = numeric("prior.mean", prior.mean)
        # A mean of the wrong shape is for the door to name.
        mean = mean + offset if mean.shape == offset.shape else mean
        return dataclasses.replace(prior, mean=mean)

    def moved(self, params: Any, offset: Any) -> Any:
        # Where rows are far JAX may have no such numbers, but NumPy has.
        moved = lambda means: np.asarray(means, np.float64) + offset
        if isinstance(params, GaussianParams):
            return dataclasses.replace(params, means=moved(params.means))
        if isinstance(params, Mapping):
            return {**params, "means": moved(params["means"])}
        return params

    def origin(self, params: GaussianParams) -> np.ndarray | None:
        return wide_origin(params.means)

    # -- health -----------------------------------------------------------------

    def collapsed(self, params: GaussianParams, bounded: bool) -> Array:
        """Whether a covariance is no longer positive definite to working precision.

        Where a prior or a ridge bounds the density a component may be as small as it likes,
        but not so flat that its density has no digits.
        """
        assert self.data_pivots is not None
        pivots = self._structure.pivots(params.covariance_site)
        noise = _COLLAPSE_EPS * jnp.finfo(pivots.dtype).eps
        flat = noise * self._structure.variances(params.covariance_site)
        small = jnp.maximum(noise**2, _COLLAPSE_VARIANCE) * self.data_pivots
        held = jnp.all(jnp.asarray(self.reg_covar) > 0) | bounded
        return ~jnp.all(pivots > jnp.where(held, flat, jnp.maximum(flat, small)))

    def cancellation(self, params: GaussianParams) -> Array:
        if self.incomplete:
            return jnp.zeros((), params.means.dtype)
        lost = self.lost(params, self.natural(params))
        return jnp.where(self.cancels(lost), 0.0, params.weights @ lost)

    def lost(self, params: GaussianParams, natural: Float[Array, "k f"]) -> Float[Array, " k"]:
        """Size of the parts of the quadratic form for a row one standard deviation away.

        The fast form expands it about the working origin: where the parts are large
        beside the number of features, which is what they add up to, digits are lost.
        """
        params, natural = lax.stop_gradient((params, natural))
        d = params.means.shape[-1]
        own = jnp.diagonal(params.covariances, axis1=-2, axis2=-1)
        reach = jnp.abs(params.means) + jnp.sqrt(own)
        parts = jnp.abs(natural[:, 1 + d :]) * stack(self._structure.squares(reach.T)).T
        return 2 * jnp.sum(parts, axis=-1)

    def cancels(self, cancellation: Float[Array, " k"]) -> Array:
        """Whether the fast form loses more than it may, in any lane of a ``vmap``."""
        eps, d = jnp.finfo(cancellation.dtype).eps, self._n_features()
        return anywhere(jnp.max(cancellation) * eps > _digits_lost(cancellation.dtype) * d)

    def loses_digits(self, params: GaussianParams) -> Array:
        """Whether the fast form does, at parameters in the user's or the family's units."""
        family, params = self.centred_on(params)
        return family.cancels(family.lost(params, family.natural(params)))

    def settled(self, params: GaussianParams) -> Gaussian:
        """The family with the form that keeps its digits at all of these parameters."""
        loses = in_slices(functools.partial(_loses, self), params, params.means.ndim - 2)
        return dataclasses.replace(self, form="centred" if np.any(loses) else "fast")

    def decided(self) -> Gaussian:
        return dataclasses.replace(self, form=self.form or "fast")

    def cancelled(self, statistics: Moments) -> Array:
        """The same of moments whose sums were taken about the working origin."""
        counts, means, scatter = lax.stop_gradient(statistics)
        eps = jnp.finfo(means.dtype).eps
        whole = self._structure.variances(scatter)
        square = counts[:, None] * means**2
        return anywhere(jnp.any(square * eps > _digits_lost(means.dtype) * whole))

    def spurious(self, params: GaussianParams, statistics: Moments) -> Array:
        """Whether a component hangs on about D + 1 rows or is flat beside the others.

        McLachlan and Peel (2000), section 3.10: a spurious maximiser fits a few rows
        that lie close together, or almost in a subspace.
        """
        structure, d = self._structure, params.means.shape[-1]
        pooled = structure.data_pivots(jnp.tensordot(params.weights, params.covariances, axes=1))
        flat = jnp.any(structure.pivots(params.covariance_site) < _SPURIOUS_EIGENVALUE * pooled)
        if not structure.resizes:
            return flat
        return flat | jnp.any(statistics.counts < d + 1 + _SPURIOUS_SPARE_ROWS)

    # -- parameters -------------------------------------------------------------

    def n_parameters(self, k: int, d: int) -> int:
        """Free parameters of means and covariances."""
        return k * d + self._structure.n_parameters(k, d)

    def normals(self, params: GaussianParams) -> GaussianParams:
        return params

    def n_columns(self, params: GaussianParams) -> int:
        return params.means.shape[-1]

    def checked(self, own: dict[str, Any], k: int) -> Sites:
        check_names("Gaussian", own, ("means", "covariances"))
        centres = numeric("means", own["means"])
        centres = centres[:, None] if centres.ndim == 1 else centres
        if centres.ndim != 2 or centres.shape[0] != k:
            raise ValueError(f"means: needs shape ({k}, D), found {centres.shape}")
        if not np.all(np.isfinite(centres)):
            raise ValueError("means: contains a non-finite value")
        site = self.check_covariances(own["covariances"], k, centres.shape[1])
        means = jax.device_put(centres)
        return {"means": means, "covariances": jax.device_put(np.asarray(site, means.dtype))}

    def check_covariances(self, covariances: Any, k: int, d: int) -> np.ndarray:
        """The covariances in the site's shape; raises where they do not fit."""
        array, structure = numeric("covariances", covariances), self._structure
        site_shape = structure.site_shape(k, d)
        if array.shape not in {site_shape, (k, d, d)}:
            raise ValueError(
                f"covariances: needs shape ({k}, {d}, {d}) or {site_shape}, found {array.shape}"
            )
        foreign = ValueError(f"covariances: not of the {self.name!r} structure")
        if array.shape == (k, d, d) and site_shape != (k, d, d):
            site = np.asarray(_contracted(structure, array))
            if not np.allclose(np.asarray(_expanded(structure, site, k, d)), array):
                raise foreign
            array = site
        matrices = np.asarray(_expanded(structure, array, k, d))
        symmetric = np.allclose(matrices, np.swapaxes(matrices, -1, -2))
        if not symmetric or not np.all(np.linalg.eigvalsh(matrices) > 0):
            raise ValueError("covariances: must be symmetric and positive definite")
        if not contains(structure, array, _WRITTEN_RTOL):
            raise foreign
        return array

    # -- sampling ---------------------------------------------------------------

    def check_conjugate(self, prior: Any) -> None:
        """Refuse a prior, or a structure, without draws given labelled rows."""
        if isinstance(prior, GaussianSites):
            raise ValueError(
                "prior: distributions by site are not conjugate, as Gibbs and variational Bayes "
                'need; use method="nuts", or a ConjugatePrior'
            )
        if isinstance(self._structure, Curved):
            raise ValueError(
                f"structure: {self.name!r} covariances have no closed distribution given labelled "
                'rows, as Gibbs and variational Bayes need; use method="nuts"'
            )

    def site_dims(self) -> dict[str, list[str]]:
        covariances = self._structure.site_dims()
        scales = [dim for dim in covariances if dim != "feature_bis"]
        return {
            "means": ["component", "feature"],
            "covariances": covariances,
            "scales": scales,
            "correlations": covariances,
            "covariances_full": ["component", "feature", "feature_bis"],
        }

    def derived_sites(self, params: GaussianParams) -> Sites:
        return {"covariances_full": params.covariances}

    def embed(self, x: Array) -> Float[Array, "n d"]:
        if self.chart is None:
            return x
        # A hole tells nothing of where a row lies: it is put in the middle.
        return jnp.nan_to_num(self.chart.apply(x)) if self.incomplete else self.chart.apply(x)

    def sample(
        self, params: GaussianParams, key: PRNGKeyArray, labels: Array
    ) -> Float[Array, "*n d"]:
        """One row of the component named by each label."""
        factor = jnp.linalg.cholesky(params.covariances)
        noise = normal(key, (*labels.shape, params.means.shape[1]), params.means.dtype)
        return params.means[labels] + jnp.einsum("...ij,...j->...i", factor[labels], noise)

    def from_sites(self, weights: Array, sites: Sites, prior: Any = None) -> GaussianParams:
        if isinstance(prior, GaussianSites):
            sites = prior.joined(self._structure, sites)
        return GaussianParams(weights, sites["means"], sites["covariances"], self.name)

    def sites(self, params: GaussianParams, prior: Any = None) -> Sites:
        own = {"means": params.means, "covariances": params.covariance_site}
        return prior.split(self._structure, own) if isinstance(prior, GaussianSites) else own

    def retract(self, params: GaussianParams, tangent: Float[Array, " p"]) -> GaussianParams:
        """Means moved by the first K D numbers, covariances by the rest."""
        k, d = params.means.shape
        site = self._structure.retract(params.covariance_site, tangent[k * d :], k, d)
        means = params.means + tangent[: k * d].reshape(k, d)
        return dataclasses.replace(params, means=means, covariance_site=site)

    def permute(self, params: GaussianParams, order: Array) -> GaussianParams:
        """Rename the components: new component k was ``order[k]``."""
        site = params.covariance_site
        return dataclasses.replace(
            params,
            means=params.means[order],
            covariance_site=site if self._structure.shared else site[order],
        )


@program()
def _loses(family: Gaussian, params: GaussianParams) -> Array:
    return jax.vmap(family.loses_digits)(params)


@program(static_argnames=("structure", "k", "d"))
def _expanded(structure: Structure, site: Array, k: int, d: int) -> Float[Array, "k d d"]:
    return structure.expand(site, k, d)


@program(static_argnames="structure")
def _contracted(structure: Structure, covariances: Float[Array, "k d d"]) -> Array:
    return structure.contract(covariances)
