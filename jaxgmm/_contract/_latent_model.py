"""The noun that every room agrees on: engines and the report see a model as a `LatentModel`."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from numpyro import handlers

from jaxgmm._contract._description import Description, how_it_climbs
from jaxgmm._contract._proper import innermost, instead
from jaxgmm._contract._within import at_edge, freedom, inwards, stepped
from jaxgmm._numerics import as_rows, normalise
from jaxgmm.files import Measured
from jaxgmm.labels import n_renamings

Params = Any
Statistics = Any
Sites = dict[str, Array]
# Site by site, in the order in which they are drawn: the distribution of a site
# given the sites before it.
Prior = Mapping[str, Callable[[Sites], dist.Distribution]]
# From log p(label, row), (K, n), and the index of the first of these rows: what the rows
# count in each label, (K, n), and what each adds to the objective, (n,).
Assignment = Callable[[Array, Array | int], tuple[Array, Array]]


# Share of a hard label that a start gives to all labels, so that none is without rows.
_SPREAD = 0.1


def expected_labels(logits: Float[Array, "k n"], first_row: Array | int) -> tuple[Array, Array]:
    """The assignment of EM: posterior probabilities, and the label summed out.

    Parameters
    ----------
    logits : (K, n) array
        log p(label, row).
    first_row : int
        Index of the first of these rows; not used here.

    Returns
    -------
    responsibilities : (K, n) array
        Columns sum to one.
    log_density : (n,) array
        log p(row).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jaxgmm as jg
    >>> responsibilities, _ = jg.expected_labels(jnp.zeros((2, 1)), 0)
    >>> responsibilities.tolist()
    [[0.5], [0.5]]
    """
    return normalise(logits)


class LatentModel(abc.ABC):
    """A model whose rows carry one unseen label each, written once.

    From `prior_sites` and `likelihood` come the log densities and the NumPyro program
    (one function computes both); from `e_step` and `m_step` comes EM. ``params``
    is a pytree that only the model looks into.

    Subclasses are frozen dataclasses registered as pytrees: hyper-parameters are
    leaves, counts and names are static.
    """

    n_components: int
    # Whether rows are places, so that `translate` applies.
    moves: bool | ClassVar[bool] = False
    # What happened where every restart collapsed, and what to do.
    collapse: str | ClassVar[str] = "a label lost its rows; use a proper prior, or fewer labels"
    # Which labels there are, (K,), where the model is `padded`; None: all of them.
    present: Any = None
    # Whether statistics have `coordinates`; else parameters are extrapolated.
    has_coordinates: bool | ClassVar[bool] = False
    # Whether `m_step` maximises the expected log joint; else it is a step that may overshoot,
    # of which ``share=`` takes a part, and EM refuses what falls.
    closed: bool | ClassVar[bool] = True
    # Whether that maximum has no formula, and iterations on the statistics find it.
    iterates: bool | ClassVar[bool] = False
    # How often such a step is taken with the labels held, towards the maximum.
    newton: int | ClassVar[int] = 1
    # Whether responsibilities are enough to start from, by `first_params`.
    starts_from_labels: ClassVar[bool] = True
    # Whether a NaN in the data is a value missing at random; and whether the model, once
    # resolved, knows of some.
    holes: bool | ClassVar[bool] = False
    incomplete: bool | ClassVar[bool] = False
    # Whether statistics hold what is missing, expected or drawn; else it drops out of them.
    imputes: bool | ClassVar[bool] = False
    # Whether some columns of a row are given and not drawn, such as covariates: `sample` then
    # takes the rows that they are of.
    needs_given: bool | ClassVar[bool] = False
    # Where EM starts if nobody says.
    default_start: str | ClassVar[str] = "short-run"
    # Whether rows of weight zero may be added, so that few numbers of rows are compiled for.
    fills_up: bool | ClassVar[bool] = False

    # Names of labels that are no components, the last ones; starts give them no rows of their own.
    labels_apart: tuple[str, ...] | ClassVar[tuple[str, ...]] = ()

    # -- the definition ------------------------------------------------------

    @property
    def places(self) -> Any:
        """Which columns are places, by column where not all are alike."""
        return self.moves

    @abc.abstractmethod
    def prior_sites(self) -> Prior:
        """The distribution of each site given the sites before it."""

    @abc.abstractmethod
    def likelihood(self, params: Params) -> dist.Distribution:
        """The distribution of one row, the label summed out."""

    @abc.abstractmethod
    def sites(self, params: Params) -> Sites:
        """The free parameters by NumPyro site name."""

    @abc.abstractmethod
    def from_sites(self, sites: Sites) -> Params:
        """The inverse of `sites`."""

    @property
    def label_groups(self) -> tuple[int, ...]:
        """A number for each label: those of equal numbers may be renamed, by `permute`."""
        return (0,) * self.n_components

    @property
    def n_placed(self) -> int:
        """How many labels, the first ones, starts give rows to."""
        return self.n_components - len(self.labels_apart)

    def placed(self, labels: Float[Array, "n p"]) -> Float[Array, "n k"]:
        """Labels of a start in full, from those of the `n_placed`."""
        return labels

    # -- what EM needs -------------------------------------------------------

    @abc.abstractmethod
    def e_step(
        self,
        params: Params,
        x: Array,
        sample_weight: Array | None = None,
        assign: Assignment = expected_labels,
    ) -> tuple[Statistics, Array]:
        """Sufficient statistics and the log-likelihood, both at ``params``.

        ``assign`` turns joint log densities into labels; with another than the default the
        second value is its own objective.
        """

    @abc.abstractmethod
    def m_step(self, statistics: Statistics, params: Params | None = None) -> Params:
        """The maximiser of the expected log joint.

        ``params`` are those of the E-step, or None at a start from responsibilities;
        only a model without a closed form looks at them. One that is not `closed` takes a third
        argument, the share of the step to go.
        """

    def updated(self, statistics: Statistics) -> LatentModel:
        """The same model with its prior updated by complete data (conjugacy).

        Where the labels are known, the prior of the result is the posterior of this model.
        Raises a `ValueError` unless the model has such a prior.
        """
        raise ValueError(
            f"method: {type(self).__name__} has no conjugate prior that labelled rows update, "
            'so there is no Gibbs sampler and no variational Bayes of it; use method="nuts"'
        )

    def expected_step(
        self, x: Array, sample_weight: Array | None = None
    ) -> tuple[Statistics, Array]:
        """`e_step` with the mean of log p(label, row) over the prior in place of its value.

        Of an `updated` model the prior is a posterior, and this the E-step of variational
        Bayes. Raises a `ValueError` unless the model has such means.
        """
        raise ValueError(
            f"method: {type(self).__name__} has no mean log density under a conjugate prior, so "
            'there is no variational Bayes of it; use method="nuts"'
        )

    def divergence(self, other: LatentModel) -> Array:
        """Kullback-Leibler divergence of this model's prior from that of ``other``.

        This model is ``other`` after `updated`. Raises a `ValueError` unless the model knows
        it, as `expected_step` does.
        """
        raise ValueError(
            f"method: {type(self).__name__} has no divergence between conjugate priors, so there "
            'is no variational Bayes of it; use method="nuts"'
        )

    @abc.abstractmethod
    def responsibilities(self, params: Params, x: Array) -> Float[Array, "n k"]:
        """Probability of each label given each row."""

    @abc.abstractmethod
    def statistics(
        self,
        responsibilities: Float[Array, "n k"] | Callable[[Array, Array | int], Array],
        x: Array,
        sample_weight: Array | None = None,
    ) -> Statistics:
        """Sufficient statistics at given responsibilities; they add over rows.

        ``responsibilities`` may be a function of a block of rows and of the index of its
        first row, so that (n, K) numbers never exist at once.
        """

    def form(self, x: Array) -> Params:
        """Shapes and dtypes of the parameters for such rows."""

        def first(responsibilities: Array) -> Params:
            working = self.standardise(x)
            return working.m_step(working.statistics(responsibilities, x))

        shape = jax.ShapeDtypeStruct((x.shape[0], self.n_components), x.dtype)
        return jax.eval_shape(first, shape)

    def first_params(
        self, labels: Callable[[Array, Array | int], Array], x: Array, sample_weight: Array | None
    ) -> Params:
        """Parameters at the labels of a start, most of them hard, as `statistics` takes them.

        Within the space of parameters though a label may have few rows, none, or equal ones:
        here by an M-step at labels of which a tenth is spread evenly, of all rows at once.
        """
        spread = (1 - _SPREAD) * labels(x, 0) + _SPREAD / self.n_components
        return self.m_step(self.statistics(spread, x, sample_weight))

    # -- what the doors need, with defaults for a model without special cases --

    def read(self, x: Any) -> tuple[LatentModel, Any]:
        """The model that knows the columns of a table, and the table as numbers in its order.

        By default what the user wrote, of which `check_data` makes numbers.
        """
        if isinstance(x, Measured):
            raise ValueError(
                f"x: {type(self).__name__} knows nothing of noise of each row; it goes with "
                "jaxgmm.Gaussian components"
            )
        return self, x

    def check_names(self, feature_names: tuple[str, ...]) -> None:
        """Refuse, with a `ValueError`, columns of a stream that are not those of a row."""

    def check_data(self, x: Any, sample_weight: Any = None) -> tuple[Any, Any]:
        """Arrays made of the user's data, or a `ValueError` that says what to do."""
        from jaxgmm._checks import check_rows, check_sample_weight

        rows = check_rows(x, self.holes)
        return rows, check_sample_weight(sample_weight, rows)

    def n_informative(self, x: Array, sample_weight: Array | None) -> float:
        """How many rows there are, for criteria: of weights the sum, without rows of no value."""
        there = ~np.all(np.isnan(x), axis=1) if self.incomplete else np.ones(len(x), bool)
        return float(np.sum(there if sample_weight is None else np.asarray(sample_weight) * there))

    def readable(self, x: Array) -> Array:
        """Whether all numbers are finite, or missing where the model knows of missing ones."""
        return jnp.all(jnp.isfinite(x) | (self.incomplete & jnp.isnan(x)))

    def resolve(self, x: Any, sample_weight: Any = None) -> LatentModel:
        """The same model with every data-dependent rule turned into numbers."""
        return self

    def check_model(self, x: Any, sample_weight: Any = None) -> None:
        """Refuse, with a `ValueError`, data that leave the objective unbounded."""

    def check_mode(self) -> None:
        """Refuse, with a `ValueError`, a prior under which the joint has no mode."""

    def check_coordinates(self, dtype: Any) -> None:
        """Refuse, with a `ValueError`, a prior too close to edges for unconstrained coordinates."""

    def check_samplable(self) -> None:
        """Refuse, with a `ValueError`, a prior under which no posterior exists.

        By default a flat one at any site: no data need make its posterior proper.
        """
        sites: Sites = {}
        for name, conditional in self.prior_sites().items():
            prior = conditional(sites)
            if isinstance(innermost(prior), dist.ImproperUniform):
                raise ValueError(
                    f"prior: site {name!r} has an improper distribution, under which this model "
                    f"may have no posterior; {instead(prior)}"
                )
            sites[name] = prior.sample(jax.random.key(0))  # any value will do

    def standardise(self, x: Array, sample_weight: Array | None = None) -> LatentModel:
        """The same model in working units; its log densities stay in the user's."""
        return self

    def in_user_units(self) -> LatentModel:
        """The inverse of `standardise`, of a model with a conjugate prior."""
        return self

    def to_working(self, params: Params) -> Params:
        """The user's parameters in the units of a standardised model."""
        return params

    def to_user(self, params: Params) -> Params:
        """Parameters of a standardised model in the user's units."""
        return params

    def translate(self, offset: Any, params: Params = None) -> tuple[LatentModel, Params]:
        """This model, and its parameters where given, for rows moved by ``offset`` (D,).

        ``params`` may have leading axes, or be the sites by name; what moves comes back as
        NumPy's float64.
        Only called where `moves` says that rows are places which could be moved.
        """
        raise NotImplementedError(f"translate: {type(self).__name__} has no rows to be moved")

    def embed(self, x: Array) -> Float[Array, "n e"]:
        """Rows as vectors whose Euclidean distances make sense, for starts."""
        return x.reshape(x.shape[0], -1)

    def collapsed(self, params: Params) -> Array:
        """Whether a component has left the space where the density is defined."""
        return jnp.array(False)

    def empty(self, params: Params, statistics: Statistics) -> Array:
        """Which labels no row carries, (K,): a prior may keep them all the same."""
        return jnp.zeros(self.n_components, bool)

    def cancellation(self, params: Params) -> Array:
        """Size of the terms that cancel in the log density of an average row.

        Their rounding, not that of the density itself, is what the objective carries.
        """
        return jnp.array(0.0)

    def spurious(self, params: Params, statistics: Statistics) -> Array:
        """Whether an optimum hangs on a handful of rows (see the model's rule)."""
        return jnp.array(False)

    def bounded(self) -> bool:
        """Whether the prior bounds the log joint for every data set."""
        return True

    def ascends(self) -> Array:
        """Whether `m_step` maximises the declared objective (a ridge does not)."""
        return jnp.array(True)

    def settled(self, params: Params) -> LatentModel:
        """The same model with its numerics fixed to what suits ``params`` (any leading axes).

        For programs that differentiate: what a model otherwise measures at every call is
        measured once, on the host.
        """
        return self

    def log_units(self) -> Array | None:
        """What the log prior gains when its sites are measured in the user's units.

        None for a model that is in the user's units already.
        """
        return None

    def add(self, one: Statistics, other: Statistics) -> Statistics:
        """The statistics of two sets of rows together."""
        return jax.tree.map(jnp.add, one, other)

    def coordinates(self, statistics: Statistics) -> Array:
        """Statistics as a vector that any real numbers may replace, for extrapolation."""
        raise NotImplementedError

    def from_coordinates(self, vector: Array, like: Statistics) -> Statistics:
        """The inverse of `coordinates`, with the total weight of ``like``."""
        raise NotImplementedError

    def retract(self, params: Params, tangent: Float[Array, " p"]) -> Params:
        """Parameters a step away: a smooth map of `tangent_size` numbers, zero to ``params``.

        Here each site is moved within its support, and stays on an edge where it is there.
        """
        moved: Sites = {}
        sites, start = self.sites(params), 0
        for name, conditional in self.prior_sites().items():
            support = conditional(moved or sites).support
            size = freedom(support, sites[name])
            moved[name] = stepped(support, sites[name], tangent[start : start + size])
            start += size
        return self.from_sites(moved)

    def edges(self, params: Params) -> Bool[Array, " p"]:
        """Which of the numbers that `retract` takes move a value close to an edge of its support.

        There the likelihood may have drawn it, and a standard error means little.
        """
        sites = self.sites(params)
        return jnp.concatenate(
            [at_edge(d(sites).support, sites[name]) for name, d in self.prior_sites().items()]
        )

    def inwards(self, params: Params, margin: Array | float) -> Params:
        """Parameters that keep a distance from the edges of their supports, for starts of chains.

        What is on an edge has no finite unconstrained coordinates.
        """
        sites = self.sites(params)
        held = {
            name: inwards(d(sites).support, sites[name], margin)
            for name, d in self.prior_sites().items()
        }
        return self.from_sites(held)

    def padded(self, n_components: int) -> LatentModel | None:
        """The same model with room for more labels, none of which a row can have.

        Models that differ in the number of labels then share one compiled program. None for
        a model that cannot.
        """
        return None

    def trimmed(self, params: Params) -> Params:
        """Parameters of a padded model without those of the absent labels."""
        return params

    def tangent_size(self, params: Params) -> int:
        """How many numbers `retract` takes."""
        sites = self.sites(params)
        prior = self.prior_sites().items()
        return sum(freedom(d(sites).support, sites[name]) for name, d in prior)

    def permute(self, params: Params, order: Array) -> Params:
        """Rename the labels: new label k was ``order[k]``, of the same group."""
        if n_renamings(self.label_groups) == 1:
            return params
        return jax.tree.map(lambda leaf: leaf[order], params)

    def derived_sites(self, params: Params) -> Sites:
        """Further quantities reported beside the sites."""
        return {}

    def site_dims(self) -> dict[str, list[str]]:
        """ArviZ dimension names by site."""
        return {}

    def describe(self) -> Description:
        """What the model is, and whether its M-step has a closed form or is numerical."""
        climbs = how_it_climbs(self.closed, self.iterates, self.newton)
        return Description(repr(self), self.n_components, self.label_groups, *climbs)

    def coords(self, feature_names: tuple[str, ...]) -> dict[str, list[Any]]:
        """What stands along the dimensions of `site_dims`, where it is not counted from zero."""
        names = list(feature_names)
        return {"feature": names, "feature_bis": names}

    @abc.abstractmethod
    def n_parameters(self, n_features: int) -> int:
        """Number of free parameters: the rank of the map from them to the density."""

    # -- derived: one log density for EM, NumPyro and the report -------------

    def log_prior(self, params: Params) -> Array:
        """Log density of the sites under the prior, constants included."""
        sites = self.sites(params)
        terms = [jnp.sum(d(sites).log_prob(sites[name])) for name, d in self.prior_sites().items()]
        units = self.log_units()
        total = sum(terms[1:], terms[0])
        return total if units is None else total + units

    def log_prob(self, params: Params, x: Array) -> Float[Array, " n"]:
        """Log density of each row, the label summed out."""
        return self.likelihood(params).log_prob(as_rows(x))

    def log_likelihood(self, params: Params, x: Array, sample_weight: Array | None = None) -> Array:
        """Weighted sum of `log_prob` over the rows."""
        rows = self.log_prob(params, x)
        return jnp.sum(rows if sample_weight is None else sample_weight * rows)

    def log_joint(self, params: Params, x: Array, sample_weight: Array | None = None) -> Array:
        """`log_prior` plus `log_likelihood`: EM's objective and NumPyro's log density."""
        return self.log_prior(params) + self.log_likelihood(params, x, sample_weight)

    def predict(self, params: Params, x: Array) -> Array:
        """Index of the most probable label of each row."""
        found = self.responsibilities(params, x)
        if isinstance(found, Tracer):
            return jnp.argmax(found, axis=-1)
        return jax.device_put(np.argmax(np.asarray(found), axis=-1))

    def imputing(self, key: PRNGKeyArray) -> LatentModel:
        """The model whose `e_step` draws missing values where they are `incomplete`."""
        return self

    def impute(self, params: Params, x: Array, key: PRNGKeyArray | None = None) -> Array:
        """The rows with their missing values filled in, of a model that has such."""
        raise ValueError(f"impute: {type(self).__name__} has no missing values; NaN is refused")

    def draw_prior(self, key: PRNGKeyArray) -> Params:
        """Draw parameters from the prior."""
        sites: Sites = {}
        prior = self.prior_sites()
        for site_key, name in zip(jax.random.split(key, len(prior)), prior, strict=True):
            sites[name] = prior[name](sites).sample(site_key)
        return self.from_sites(sites)

    def sample(self, params: Params, key: PRNGKeyArray, n: int, *, given: Any = None) -> Array:
        """Draw ``n`` rows.

        A model that `needs_given` keeps the columns that are not drawn of the rows ``given``; no
        other need take them.
        """
        return self.likelihood(params).sample(key, (n,))

    def sample_like(self, params: Params, key: PRNGKeyArray, x: Array) -> Array:
        """As many rows as there are in ``x``, with what is given in these where something is."""
        if self.needs_given:
            return self.sample(params, key, x.shape[0], given=x)
        return self.sample(params, key, x.shape[0])

    def numpyro_model(
        self,
        x: Array | None = None,
        n_rows: int | None = None,
        sample_weight: Array | None = None,
    ) -> None:
        """The model as a plain NumPyro program.

        Parameters
        ----------
        x : array of n rows, optional
            Observed rows; None draws ``n_rows`` of them (for `numpyro.infer.Predictive`).
        n_rows : int, optional
            Number of rows; taken from ``x`` where that is given.
        sample_weight : (n,) array, optional
            Multiplies the log density of each row.
        """
        if x is None and n_rows is None:
            raise ValueError("numpyro_model: give x (observed rows) or n_rows (rows to draw)")
        sites: Sites = {}
        for name, conditional in self.prior_sites().items():
            sites[name] = numpyro.sample(name, conditional(sites))
        units = self.log_units()
        if units is not None:
            numpyro.factor("units", units)
        scale = 1.0 if sample_weight is None else sample_weight
        count = n_rows if x is None else x.shape[0]
        with numpyro.plate("obs", count), handlers.scale(scale=scale):
            self._observe(self.from_sites(sites), None if x is None else as_rows(x), count)

    def _observe(self, params: Params, rows: Array | None, count: int | None) -> None:
        """The site ``x`` of `numpyro_model`, in its plate."""
        numpyro.sample("x", self.likelihood(params), obs=rows)
