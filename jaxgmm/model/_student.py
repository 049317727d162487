"""Components with heavy tails: multivariate t, their degrees of freedom estimated."""

from __future__ import annotations

import dataclasses
import functools
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

from jaxgmm._checks import check_names, reworded
from jaxgmm._contract import Assignment, Prior, Sites, at_edge, improper, stepped
from jaxgmm._numerics import block_rows, map_over_blocks, sum_over_blocks
from jaxgmm.files import numeric, stored
from jaxgmm.local import uphill
from jaxgmm.model._centred import Centred
from jaxgmm.model._family import Site, View
from jaxgmm.model._gaussian import Gaussian, GaussianParams
from jaxgmm.model._gaussian_sites import GaussianSites
from jaxgmm.model._incomplete import Incomplete, imputed
from jaxgmm.model._moments import Moments
from jaxgmm.model._origin import wide_origin
from jaxgmm.model._prior import ConjugatePrior
from jaxgmm.model._site_family import MixtureParams, moved_site
from jaxgmm.model._site_prior import SitePrior, inside
from jaxgmm.model._tree import pytree
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
    # What may stand for covariances in a dictionary of distributions has the same name.
    "scales": "scales",
    "correlations": "correlations",
}
_OWN = {name: of for of, name in _NAMES.items() if of != "covariances_full"}


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


class _Reach(NamedTuple):
    """How far from a component rows are.

    Attributes
    ----------
    distance : (K, n) array
        Squared, in units of Mahalanobis.
    volume : (K, n) or (K, 1) array
        The log density's terms of volume.
    values : (n,) or (1,) int array
        How many values a row has.
    width : int
        The most it can have.
    """

    distance: Array
    volume: Array
    values: Array
    width: int

    def log_t(self, dof: Float[Array, " k"]) -> Float[Array, "k n"]:
        """Log density of t but for its terms of volume."""
        numbers, own = jnp.arange(self.width + 1, dtype=dof.dtype), dof[:, None]
        constant = gammaln((own + numbers) / 2) - gammaln(own / 2)
        constant = constant - numbers / 2 * jnp.log(own * math.pi)
        tails = (own + self.values) / 2 * jnp.log1p(self.distance / own)
        return constant[:, self.values] - tails

    def weights(self, dof: Float[Array, " k"]) -> Float[Array, "k n"]:
        """How often a row of a component counts in its M-step."""
        return (dof[:, None] + self.values) / (dof[:, None] + self.distance)


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class StudentPrior(SitePrior):
    """`SitePrior` of weights and degrees of freedom, beside the Gaussian's of the rest.

    Attributes
    ----------
    components : ConjugatePrior or GaussianSites
        Of locations and scale matrices.
    """

    components: Any = None

    @property
    def nested(self) -> tuple[Any, ...]:
        return (self.components,)

    @property
    def by_site(self) -> Mapping[str, Any]:
        if isinstance(self.components, GaussianSites):
            return {**self.distributions, **_as_student(self.components.distributions)}
        return {**self.distributions, "components": self.components}


@stored
@pytree
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
    Gaussian's of locations and scale matrices with ``dof ~ Gamma(2, 0.1)``. A dictionary has
    distributions of ``"weights"``, ``"dof"``, ``"locations"`` and ``"scale_matrices"``, in place of
    which there may be ``"scales"`` and ``"correlations"`` as of Gaussians; or of ``"weights"``,
    ``"dof"`` and ``"components"``, a `ConjugatePrior` of which the concentration is not read.

    Each row counts ``(dof + D) / (dof + distance)`` times in the M-step, in the squared distance
    of Mahalanobis: `jaxgmm.Mixture.row_weights` has these numbers, low for outliers.

    A NaN is a value missing at random: the others of its row have a t distribution of as many
    degrees of freedom, and what is missing is expected as of a Gaussian (Liu, 1995).

    References
    ----------
    Liu (1995), J. Multivariate Analysis 53:139-158, for missing values;
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
    holes = True
    moves = True
    weighs = True
    without = "whose degrees of freedom have none"
    columns = "each"
    rules = ("fraley-raftery", "weak")
    proper_prior = 'prior="weak"'
    conjugate_prior = 'method="nuts", "smc", "laplace" or "svi"'
    collapse = Gaussian.collapse
    formula = "t(μ_k, Σ_k, ν_k)"

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
        components = getattr(prior, "components", None)
        normal = self.normal.from_sites(weights, _as_normal(sites), components)
        own = _as_student(self.normal.sites(normal))
        return MixtureParams(weights, {**own, "dof": sites["dof"]})

    def sites(self, params: MixtureParams, prior: Any = None) -> Sites:
        if isinstance(prior, StudentPrior) and isinstance(prior.components, GaussianSites):
            own = self.normal.sites(self._normal(params), prior.components)
            return {**_as_student(own), "dof": params.dof}
        return {name: params.own[name] for name in ("scale_matrices", "locations", "dof")}

    def checked(self, own: dict[str, Any], k: int) -> Sites:
        check_names(self.label, own, ("locations", "scale_matrices", "dof"))
        try:
            sites = _as_student(self.normal.checked(_as_normal(own), k))
        except ValueError as error:
            raise ValueError(reworded(str(error), _NAMES)) from None
        dof = numeric("dof", own["dof"])
        if dof.shape != (k,) or not np.all(dof > 0):
            raise ValueError(f"dof: needs {k} positive number(s), found {dof.tolist()}")
        return {**sites, "dof": jax.device_put(np.asarray(dof, sites["locations"].dtype))}

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

    @property
    def incomplete(self) -> bool:
        return self.normal.incomplete

    @property
    def imputes(self) -> bool:
        return self.incomplete

    def looked(self, x: Array, sample_weight: Array | None) -> StudentT:
        return dataclasses.replace(self, normal=self.normal.looked(x, sample_weight))

    def features(self, x: Array) -> Array:
        return x

    def log_density(self, params: MixtureParams, features: Array) -> Float[Array, "k n"]:
        return self._density(params)(features)

    def _density(self, params: MixtureParams) -> Callable[[Array], Float[Array, "k n"]]:
        """Of blocks of rows: what depends on the parameters alone is computed here."""
        form, whiten = self._form(params)

        def density(rows: Array) -> Array:
            reach = _reach(form, whiten, form.features(rows))
            return reach.log_t(params.dof) + reach.volume

        return density

    def look(self, params: MixtureParams, x: Array, see: Callable[[View], Array]) -> Array:
        return see(View(self._density(params), self.block_rows(x, params.weights.shape[0])))

    def _form(self, params: MixtureParams) -> tuple[Any, Any]:
        """Normal components as rows see them, and what whitens whole rows seen from their means."""
        shown, working = self.normal.centred_on(self._normal(params))
        if self.incomplete:
            return shown.with_holes(working), None
        form = shown.centred(working.means)
        whiten = functools.partial(form.structure.whiten, working.covariance_site)
        if not form.structure.uses_products:
            return form, whiten
        # One product for a block of rows, where solving for each of them takes eight times as long.
        (k, d), dtype = form.means.shape, form.means.dtype
        inverse, log_det = whiten(jnp.broadcast_to(jnp.eye(d, dtype=dtype), (k, d, d)))
        return form, lambda apart: (jnp.einsum("kij,kjn->kin", inverse, apart), log_det)

    def sums(self, features: Array, weights: Float[Array, "k n"]) -> Weighed:
        return self.at_labels(lambda _, __: weights.T, features, None, len(weights))

    def statistics(self, sums: Weighed) -> Weighed:
        return sums

    def block_rows(self, x: Array, n_components: int) -> int:
        if self.incomplete:
            return self.normal.block_rows(x, n_components)
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
        form, whiten = self._form(params)
        return _reach(form, whiten, form.features(x)).weights(params.dof)

    def impute(
        self,
        params: MixtureParams,
        x: Array,
        labels: Float[Array, "n k"],
        key: PRNGKeyArray | None,
    ) -> Float[Array, "n d"]:
        if key is None or not self.incomplete:
            return self.normal.impute(self._normal(params), x, labels, None)
        key_rows, key_tails = jax.random.split(key)
        shown, working = self.normal.centred_on(self._normal(params))
        shown = shown.imputing(key_rows)
        rows, noise = jnp.split(shown.beside_noise(x), 2, axis=1)
        # Given the values there, a row's weight is Gamma about the one that it counts.
        block = self.block_rows(x, labels.shape[1])
        counts = map_over_blocks(lambda rows: self.row_weights(params, rows).T, x, block)
        shape = (labels @ params.dof + jnp.sum(~jnp.isnan(x), axis=1)) / 2
        tails = jax.random.gamma(key_tails, shape, dtype=shape.dtype) / shape
        weight = tails * jnp.sum(labels * counts, axis=1)
        rows = jnp.concatenate([rows, noise / jnp.sqrt(weight)[:, None]], axis=1)
        return imputed(shown.with_holes(working), rows, labels)

    # -- EM ------------------------------------------------------------------------------------

    def e_step(
        self,
        log_weights: Float[Array, " k"],
        params: MixtureParams,
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Weighed, Array]:
        form, whiten = self._form(params)

        def block(rows: Array, weights: Array, first: Array | int) -> tuple[Any, Array]:
            seen = form.features(rows)
            reach = _reach(form, whiten, seen)
            log_t, slope, bend = _twice(lambda log: reach.log_t(jnp.exp(log)), jnp.log(params.dof))
            labels, value = assign(log_weights[:, None] + log_t + reach.volume, first)
            counted = weights * labels
            sums = form.sums(seen, counted * reach.weights(params.dof))
            # What is missing varies as in a row that counts once.
            known = form.rows(seen, counted) if isinstance(form, Incomplete) else ()
            each = (jnp.sum(counted * term, axis=1) for term in (1, slope, bend))
            return (sums, known, *each), weights @ value

        size = self.block_rows(x, log_weights.shape[0])
        (sums, known, counts, *slopes), value = sum_over_blocks(block, x, sample_weight, size)
        if isinstance(form, Incomplete):
            return Weighed(counts, form.statistics(sums, known), *slopes), value
        return Weighed(counts, form.statistics(sums), *slopes), value

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

    def scaled(self, statistics: Weighed, share: Array | float) -> Weighed:
        moments = self.normal.scaled(statistics.moments, share)
        return super().scaled(statistics, share)._replace(moments=moments)

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

    def iterates(self, prior: Any) -> bool:
        return self.normal.iterates(getattr(prior, "components", None))

    def prior_of(self, distributions: dict[str, Any]) -> StudentPrior:
        own = {"components", *_OWN}
        others = {name: one for name, one in distributions.items() if name not in own}
        if "locations" in distributions:
            return StudentPrior(others, GaussianSites(_as_normal(distributions)))
        components = distributions.get("components")
        if not isinstance(components, ConjugatePrior):
            raise TypeError(
                "prior: 'components' needs a ConjugatePrior of locations and scale matrices, "
                f"found {components!r}; or write distributions of 'locations' and 'scale_matrices'"
            )
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
        return dataclasses.replace(prior, components=components).sized(k, d, dtype)

    def bounded(self, prior: Any, free: bool) -> bool:
        return self.normal.bounded(getattr(prior, "components", prior), free=False)

    # -- rows far from zero ------------------------------------------------------------------------

    def moved_prior(self, prior: Any, offset: Any) -> Any:
        if not isinstance(prior, StudentPrior):
            return prior
        components = self.normal.moved_prior(prior.components, offset)
        return dataclasses.replace(prior, components=components)

    def moved(self, params: Any, offset: Any) -> Any:
        return moved_site(params, "locations", offset)

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
        try:
            self.normal.check_prior(prior.components, k, d, free=False)
        except ValueError as error:
            raise ValueError(reworded(str(error), _NAMES)) from None

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


def _reach(form: Centred | Incomplete, whiten: Any, seen: Any) -> _Reach:
    """How far from the components the features of a form are."""
    width = form.means.shape[1]
    if isinstance(form, Incomplete):
        values = jnp.sum(seen.there, axis=1)
        normal = values.astype(form.normaliser.dtype) * (0.5 * math.log(2 * math.pi))
        volume = form.normaliser[seen.pattern].T + normal
        return _Reach(jnp.sum(seen.white**2, axis=-1).T, volume, values, width)
    white, log_det = whiten(seen)
    volume = (-0.5 * log_det - form.chart.log_scale)[:, None]
    return _Reach(jnp.sum(white**2, axis=1), volume, jnp.array([width]), width)


def _twice(
    function: Callable[[Float[Array, " k"]], Array], at: Float[Array, " k"]
) -> tuple[Array, Array, Array]:
    """A function of each number apart, and its first two derivatives."""
    one = jnp.ones_like(at)
    first = lambda at: jax.jvp(function, (at,), (one,))
    (value, slope), (_, bend) = jax.jvp(first, (at,), (one,))
    return value, slope, bend
