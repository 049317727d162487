"""Components with heavy tails: multivariate t, their degrees of freedom estimated."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from numpyro.distributions import constraints

from jaxgmm._archive import stored
from jaxgmm._checks import check_names, reworded
from jaxgmm._contract import Assignment, Prior, Sites
from jaxgmm._numerics import block_rows, sum_over_blocks
from jaxgmm._origin import wide_origin
from jaxgmm._tables import numeric
from jaxgmm._within import at_edge, stepped
from jaxgmm.model._family import Site
from jaxgmm.model._gaussian import Gaussian, GaussianParams
from jaxgmm.model._moments import Moments
from jaxgmm.model._newton import uphill
from jaxgmm.model._prior import ConjugatePrior, improper
from jaxgmm.model._site_family import MixtureParams
from jaxgmm.model._site_prior import SitePrior, inside
from jaxgmm.model._unconjugate import Unconjugate

# Of normal rows the likelihood rises towards infinitely many degrees of freedom, and close to
# none it has poles on single rows: beyond these nothing is told apart.
LEAST_DOF, MOST_DOF = 0.1, 200.0
# Where a start from labels begins: tails that rows can still change either way.
_FIRST_DOF = 10.0
# The longest step of log degrees of freedom.
_LONGEST = 2.0
# The Gaussian's names of sites, and those here.
_NAMES = {
    "means": "locations",
    "covariances": "scale_matrices",
    "covariances_full": "scale_matrices_full",
}
_OWN = {"locations": "means", "scale_matrices": "covariances"}


@stored
class Weighed(NamedTuple):
    """Sums over rows, of each component.

    Attributes
    ----------
    counts : (K,) array
        Effective rows.
    moments : Moments
        Of rows that count less the further out they are; one each at a start from labels.
    slope, bend : (K,) arrays
        First and second derivatives of the log likelihood of labelled rows in log degrees of
        freedom; zero at a start from labels.
    """

    counts: Array
    moments: Moments
    slope: Array
    bend: Array


@stored
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StudentPrior(SitePrior):
    """`SitePrior` of weights and degrees of freedom, beside the Gaussian's of the rest.

    Attributes
    ----------
    components : ConjugatePrior
        Of locations and scale matrices.
    """

    components: Any = None

    @property
    def by_site(self) -> Mapping[str, Any]:
        return {**self.distributions, "components": self.components}


@stored
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StudentT(Unconjugate):
    """Multivariate t components with estimated degrees of freedom, for rows with outliers.

    Parameters
    ----------
    structure : str
        That of the scale matrices; the names are those of `jaxgmm.Gaussian`.

    Raises
    ------
    ValueError
        For an unknown structure.

    Notes
    -----
    The sites are ``locations`` (K, D), ``scale_matrices`` in the structure's own shape, and
    ``dof`` (K,), one a component. Covariances are ``dof / (dof - 2)`` times scale matrices, where
    ``dof`` is above two.

    Estimates of ``dof`` lie between 0.1 and 200. Rows that are normal send it there: it is then on
    the boundary, and `jaxgmm.standard_errors` takes it as known. Without a prior there is no
    posterior, since the likelihood does not vanish as ``dof`` grows. ``prior="weak"`` is the
    Gaussian's of locations and scale matrices with ``dof ~ Gamma(2, 0.1)``; a dictionary has
    ``"components"``, a `ConjugatePrior` of which the concentration is not read, distributions of
    ``"dof"`` and ``"weights"``.

    Each row counts ``(dof + D) / (dof + distance)`` times in the M-step, in the squared distance
    of Mahalanobis: `jaxgmm.Mixture.row_weights` has these numbers, low for outliers.

    References
    ----------
    Peel and McLachlan (2000), Statistics and Computing 10:339-348; Liu and Rubin (1995),
    Statistica Sinica 5:19-39, for ``dof`` by the likelihood itself; Juárez and Steel (2010),
    J. Bus. Econ. Stat. 28:52-66, for its prior.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("faithful").x
    >>> model = jg.Mixture(jg.families.StudentT("tied"), 2)
    >>> fit = jg.fit(model, x, key=jax.random.key(0), n_init=4)
    >>> fit.converged, fit.params.dof.shape
    (True, (2,))
    """

    closed: ClassVar[bool] = False
    moves = True
    without = "whose degrees of freedom have none"
    columns = "each"
    rules = ("fraley-raftery", "weak")
    proper_prior = 'prior="weak"'
    conjugate_prior = 'method="nuts", "smc", "laplace" or "svi"'
    collapse = Gaussian.collapse
    formula = "t(<i>&mu;<sub>k</sub></i>, <i>&Sigma;<sub>k</sub></i>, <i>&nu;<sub>k</sub></i>)"

    structure: str = dataclasses.field(default="full", metadata={"static": True})
    # What is the same for normal components: units, structures, doors; made here.
    normal: Any = dataclasses.field(default=None, repr=False)

    def __post_init__(self):
        if self.normal is None:
            object.__setattr__(self, "normal", Gaussian(self.structure))

    @property
    def name(self) -> str:
        return f"t {self.normal.name}"

    @property
    def label(self) -> str:
        return f"StudentT({self.normal.name!r})"

    def kinds(self, d: int) -> tuple[str | None, ...]:
        return self.normal.kinds(d)

    # -- parameters and their sites --------------------------------------------------------

    def _normal(self, params: MixtureParams) -> GaussianParams:
        """Normal components with these locations and scale matrices."""
        return self.normal.from_sites(params.weights, _as_normal(params.own))

    def _with(self, params: MixtureParams, normal: GaussianParams, **own: Array) -> MixtureParams:
        sites = _as_student(self.normal.sites(normal))
        return dataclasses.replace(params, own={**params.own, **sites, **own})

    def from_sites(self, weights: Array, sites: Sites, prior: Any = None) -> MixtureParams:
        return MixtureParams(weights, {name: sites[name] for name in (*_OWN, "dof")})

    def sites(self, params: MixtureParams, prior: Any = None) -> Sites:
        return {name: params.own[name] for name in ("scale_matrices", "locations", "dof")}

    def checked(self, own: dict[str, Any], k: int) -> Sites:
        check_names(self.label, own, (*_OWN, "dof"))
        try:
            sites = _as_student(self.normal.checked(_as_normal(own), k))
        except ValueError as error:
            raise ValueError(reworded(str(error), _NAMES)) from None
        dof = numeric("dof", own["dof"])
        if dof.shape != (k,) or not np.all(dof > 0):
            raise ValueError(f"dof: needs {k} positive number(s), found {dof.tolist()}")
        return {**sites, "dof": jnp.asarray(dof, sites["locations"].dtype)}

    def n_columns(self, params: MixtureParams) -> int:
        return params.locations.shape[-1]

    def n_parameters(self, k: int, d: int) -> int:
        return self.normal.n_parameters(k, d) + k

    def site_dims(self) -> dict[str, list[str]]:
        dims = self.normal.site_dims()
        return {**{name: dims[of] for of, name in _NAMES.items()}, "dof": ["component"]}

    def derived_sites(self, params: MixtureParams) -> Sites:
        return _as_student(self.normal.derived_sites(self._normal(params)))

    def permute(self, params: MixtureParams, order: Array) -> MixtureParams:
        normal = self.normal.permute(self._normal(params), order)
        return self._with(params, normal, dof=params.dof[order])

    def retract(self, params: MixtureParams, tangent: Float[Array, " p"]) -> MixtureParams:
        k = params.dof.shape[0]
        normal = self.normal.retract(self._normal(params), tangent[:-k])
        height = stepped(constraints.unit_interval, _height(params.dof), tangent[-k:])
        dof = LEAST_DOF * (MOST_DOF / LEAST_DOF) ** height
        return self._with(params, normal, dof=dof)

    def edges(self, params: MixtureParams) -> Bool[Array, " p"]:
        own = at_edge(constraints.unit_interval, _height(params.dof))
        return jnp.concatenate([self.normal.edges(self._normal(params)), own])

    # -- rows --------------------------------------------------------------------------------

    def features(self, x: Array) -> Array:
        return x

    def log_density(self, params: MixtureParams, features: Array) -> Float[Array, "k n"]:
        distance, constant = self._distances(params, features)
        return _log_t(params.dof, distance, features.shape[1]) + constant

    def _distances(
        self, params: MixtureParams, x: Array
    ) -> tuple[Float[Array, "k n"], Float[Array, "k 1"]]:
        """Squared distances of Mahalanobis, and the log density's terms of volume."""
        shown, working = self.normal.centred_on(self._normal(params))
        form = shown.centred(working.means)
        white, log_det = form.structure.whiten(working.covariance_site, form.features(x))
        constant = -0.5 * log_det - form.chart.log_scale
        return jnp.sum(white**2, axis=1), constant[:, None]

    def sums(self, features: Array, weights: Float[Array, "k n"]) -> Weighed:
        return self.at_labels(lambda _, __: weights.T, features, None, len(weights))

    def statistics(self, sums: Weighed) -> Weighed:
        return sums

    def block_rows(self, x: Array, n_components: int) -> int:
        return block_rows(2 * n_components * x.shape[1], x.dtype)

    def sample(self, params: MixtureParams, key: PRNGKeyArray, labels: Array) -> Array:
        key_rows, key_tails = jax.random.split(key)
        rows = self.normal.sample(self._normal(params), key_rows, labels)
        centres, half = params.locations[labels], params.dof[labels] / 2
        tails = jnp.sqrt(half / jax.random.gamma(key_tails, half, dtype=rows.dtype))
        return centres + (rows - centres) * tails[..., None]

    def embed(self, x: Array) -> Array:
        return self.normal.embed(x)

    def marginal(
        self, params: MixtureParams, column: Array | int, grid: Float[Array, " m"]
    ) -> Float[Array, "k m"]:
        """Weight times density of values of one column."""
        matrices = self._normal(params).covariances
        own = jnp.diagonal(matrices, axis1=-2, axis2=-1)[:, column]
        columns = (params.dof, params.locations[:, column], jnp.sqrt(own))
        of_column = dist.StudentT(*(numbers[:, None] for numbers in columns))
        return params.weights[:, None] * jnp.exp(of_column.log_prob(grid))

    def row_weights(self, params: MixtureParams, x: Array) -> Float[Array, "k n"]:
        dof = params.dof[:, None]
        return (dof + x.shape[1]) / (dof + self._distances(params, x)[0])

    # -- EM ------------------------------------------------------------------------------------

    def e_step(
        self,
        log_weights: Float[Array, " k"],
        params: MixtureParams,
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Weighed, Array]:
        form, d = self.normal.centred(params.locations), x.shape[1]

        def block(rows: Array, weights: Array, first: Array | int) -> tuple[Any, Array]:
            distance, constant = self._distances(params, rows)
            along = lambda log_dof: _log_t(jnp.exp(log_dof), distance, d)
            log_t, slope, bend = _twice(along, jnp.log(params.dof))
            labels, value = assign(log_weights[:, None] + log_t + constant, first)
            counted = weights * labels
            dof = params.dof[:, None]
            sums = form.sums(form.features(rows), counted * (dof + d) / (dof + distance))
            each = (jnp.sum(counted * term, axis=1) for term in (1, slope, bend))
            return (sums, *each), weights @ value

        size = self.block_rows(x, log_weights.shape[0])
        (sums, counts, slope, bend), value = sum_over_blocks(block, x, sample_weight, size)
        moments = form.statistics(sums)
        return Weighed(counts, moments, slope, bend), value

    def at_labels(
        self,
        labels: Callable[[Array, Array | int], Array],
        x: Array,
        sample_weight: Array | None,
        k: int,
    ) -> Weighed:
        moments = self.normal.at_labels(labels, x, sample_weight, k)
        nothing = jnp.zeros_like(moments.counts)
        return Weighed(moments.counts, moments, nothing, nothing)

    def shrunk(self, statistics: Weighed) -> Weighed:
        moments = self.normal.shrunk(statistics.moments)
        return statistics._replace(counts=moments.counts, moments=moments)

    def filled(self, statistics: Weighed, present: Array) -> Weighed:
        moments = self.normal.filled(statistics.moments, present)
        counts = jnp.where(present, statistics.counts, moments.counts)
        return statistics._replace(counts=counts, moments=moments)

    def add(self, one: Weighed, other: Weighed) -> Weighed:
        return Weighed(
            one.counts + other.counts,
            self.normal.add(one.moments, other.moments),
            one.slope + other.slope,
            one.bend + other.bend,
        )

    def update(
        self,
        statistics: Weighed,
        prior: StudentPrior | None,
        params: MixtureParams | None = None,
        share: Array | float = 1.0,
    ) -> Sites:
        """Locations and scale matrices at the mode given weights of rows; a step of ``dof``.

        The step is a share of Newton's on the log likelihood of labelled rows, and not on its
        expectation given their weights, which creeps (Liu and Rubin, 1995, ECME).
        """
        before = None if params is None else self._normal(params)
        components = None if prior is None else prior.components
        rows = statistics.counts
        found = self.normal.update(statistics.moments, components, before, rows)
        dof = jnp.full_like(rows, _FIRST_DOF)
        if params is not None:
            slope, bend = statistics.slope, statistics.bend
            if prior is not None:
                written = prior.distributions["dof"].expand(rows.shape)
                log_prior = lambda log_dof: written.log_prob(jnp.exp(log_dof))
                _, prior_slope, prior_bend = _twice(log_prior, jnp.log(params.dof))
                slope, bend = slope + prior_slope, bend + prior_bend
            step = jax.vmap(uphill)(slope[:, None], bend[:, None, None])[:, 0]
            step = share * jnp.clip(step, -_LONGEST, _LONGEST)
            dof = jnp.clip(params.dof * jnp.exp(step), LEAST_DOF, MOST_DOF)
        return {**_as_student(found), "dof": dof}

    # -- priors ----------------------------------------------------------------------------------

    def _dof_site(self, k: int) -> Site:
        return Site((k,), constraints.positive)

    def prior_of(self, distributions: dict[str, Any]) -> StudentPrior:
        components = distributions.get("components")
        if not isinstance(components, ConjugatePrior):
            raise TypeError(
                "prior: 'components' needs a ConjugatePrior of locations and scale matrices, "
                f"found {components!r}"
            )
        others = {name: one for name, one in distributions.items() if name != "components"}
        return StudentPrior(others, components)

    def prior_sites(self, prior: StudentPrior | None, k: int, d: int) -> Prior:
        own = self.normal.prior_sites(None if prior is None else prior.components, k, d)
        site = self._dof_site(k)
        of_dof = improper(site.support, site.shape)
        if prior is not None:
            of_dof = inside(prior.distributions["dof"], site)
        return {
            **{
                _NAMES[name]: lambda sites, given=given: given(_as_normal(sites))
                for name, given in own.items()
            },
            "dof": lambda _: of_dof,
        }

    def default_prior(
        self, rule: str, x: Array, sample_weight: Array | None, k: int, free: bool
    ) -> StudentPrior:
        components = self.normal.default_prior(rule, x, sample_weight, k, free)
        number = lambda value: jnp.asarray(value, x.dtype)
        distributions = {"dof": dist.Gamma(number(2.0), number(0.1))}
        if free:
            distributions["weights"] = dist.Dirichlet(jnp.ones(k, x.dtype))
        return StudentPrior(distributions, components)

    def sized(self, prior: StudentPrior | None, k: int, d: int, dtype: Any) -> StudentPrior | None:
        if prior is None:
            return None
        components = self.normal.sized(prior.components, k, d, dtype)
        return dataclasses.replace(prior, components=components).resolved(dtype)

    def bounded(self, prior: Any, free: bool) -> bool:
        return prior is not None

    # -- rows far from zero ------------------------------------------------------------------------

    def moved_prior(self, prior: Any, offset: Any) -> Any:
        if not isinstance(prior, StudentPrior):
            return prior
        components = self.normal.moved_prior(prior.components, offset)
        return dataclasses.replace(prior, components=components)

    def moved(self, params: Any, offset: Any) -> Any:
        # By NumPy, as in `Gaussian.moved`.
        moved = lambda own: {**own, "locations": np.asarray(own["locations"], np.float64) + offset}
        if isinstance(params, MixtureParams):
            return dataclasses.replace(params, own=moved(params.own))
        return moved(params) if isinstance(params, Mapping) else params

    def origin(self, params: MixtureParams) -> np.ndarray | None:
        return wide_origin(params.own["locations"])

    # -- units -------------------------------------------------------------------------------------

    def standardise(
        self, x: Array, sample_weight: Array | None, prior: StudentPrior | None
    ) -> tuple[StudentT, StudentPrior | None]:
        components = None if prior is None else prior.components
        normal, components = self.normal.standardise(x, sample_weight, components)
        working = dataclasses.replace(self, normal=normal)
        return working, prior and dataclasses.replace(prior, components=components)

    def log_units(self, prior: StudentPrior | None, k: int, d: int | None) -> Array | None:
        return self.normal.log_units(None if prior is None else prior.components, k, d)

    def to_working(self, params: MixtureParams) -> MixtureParams:
        return self._with(params, self.normal.to_working(self._normal(params)))

    def to_user(self, params: MixtureParams) -> MixtureParams:
        return self._with(params, self.normal.to_user(self._normal(params)))

    # -- doors and health ------------------------------------------------------------------------

    def check_rows(self, x: np.ndarray) -> None:
        self.normal.check_rows(x)

    def check_rule(self, rule: str, x: np.ndarray, total_weight: float) -> None:
        self.normal.check_rule(rule, x, total_weight)

    def check_prior(self, prior: Any, k: int, d: int, free: bool) -> None:
        if not isinstance(prior, StudentPrior):
            raise TypeError(
                f"prior: {type(prior).__name__} is of Gaussian components; {self.label} takes "
                "None, \"weak\", or a dictionary of 'components', 'dof' and 'weights'"
            )
        prior.check({"dof": self._dof_site(k)}, k, free)
        if prior.distributions["dof"].event_dim:
            raise ValueError("prior: 'dof' needs a distribution of one number for each component")
        self.normal.check_prior(prior.components, k, d, free)

    def check_bounded(self, x: np.ndarray, k: int) -> None:
        self.normal.check_bounded(x, k)

    def collapsed(self, params: MixtureParams, bounded: bool) -> Array:
        lost = ~jnp.all(jnp.isfinite(params.dof))
        return lost | self.normal.collapsed(self._normal(params), bounded)

    def spurious(self, params: MixtureParams, statistics: Weighed) -> Array:
        moments = statistics.moments._replace(counts=statistics.counts)
        return self.normal.spurious(self._normal(params), moments)


def _as_normal(sites: Mapping[str, Any]) -> dict[str, Any]:
    return {_OWN[name]: value for name, value in sites.items() if name in _OWN}


def _as_student(sites: Mapping[str, Any]) -> dict[str, Any]:
    return {_NAMES[name]: value for name, value in sites.items()}


def _height(dof: Float[Array, " k"]) -> Float[Array, " k"]:
    """Where between their bounds degrees of freedom are on a scale of logarithms: from 0 to 1."""
    return jnp.log(dof / LEAST_DOF) / math.log(MOST_DOF / LEAST_DOF)


def _log_t(dof: Float[Array, " k"], distance: Float[Array, "k n"], d: int) -> Float[Array, "k n"]:
    """Log density of t but for its terms of volume."""
    constant = gammaln((dof + d) / 2) - gammaln(dof / 2) - d / 2 * jnp.log(dof * math.pi)
    return constant[:, None] - ((dof + d) / 2)[:, None] * jnp.log1p(distance / dof[:, None])


def _twice(
    function: Callable[[Float[Array, " k"]], Array], at: Float[Array, " k"]
) -> tuple[Array, Array, Array]:
    """A function of each number apart, and its first two derivatives."""
    one = jnp.ones_like(at)
    first = lambda at: jax.jvp(function, (at,), (one,))
    (value, slope), (_, bend) = jax.jvp(first, (at,), (one,))
    return value, slope, bend
