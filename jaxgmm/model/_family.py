"""What the components of a mixture are: the protocol by which `Mixture` knows them.

A family has the components' own parameters and their prior; weights are the mixture's.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from numpyro.distributions import constraints

from jaxgmm._contract import Assignment, Params, Prior, Sites, Statistics
from jaxgmm._numerics import sum_over_blocks
from jaxgmm.files import numeric

# Of one number, along a grid.
Density = Callable[[np.ndarray], np.ndarray]


class Site(NamedTuple):
    """What a site holds, and how many of its last axes make one value of its support."""

    shape: tuple[int, ...]
    support: constraints.Constraint


class View(NamedTuple):
    """One way to see rows: log p(row | label) of a block of them, and how many make a block.

    ``whole``: who asks for single rows gets all at once, and differentiates block by block.
    """

    log_density: Callable[[Array], Float[Array, "k n"]]
    block: int
    whole: bool = False


class Form(abc.ABC):
    """How components are computed with: what blocks of rows are turned into.

    What is computed of a block is used twice: by the densities and by the sums, which add over
    blocks and of which the statistics are made.
    """

    @abc.abstractmethod
    def features(self, x: Array) -> Array:
        """What densities and sums need of each row, rows last."""

    @abc.abstractmethod
    def log_density(self, params: Params, features: Array) -> Float[Array, "k n"]:
        """Log density of each row under each component."""

    @abc.abstractmethod
    def sums(self, features: Array, weights: Float[Array, "k n"]) -> Any:
        """Sums over rows that count ``weights`` in each component."""

    @abc.abstractmethod
    def statistics(self, sums: Any) -> Statistics:
        """Sufficient statistics made of sums; ``counts`` (K,) among them."""

    @abc.abstractmethod
    def block_rows(self, x: Array, n_components: int) -> int:
        """How many rows to handle at once."""


class Family(Form):
    """What the components of a mixture are.

    Subclasses are frozen dataclasses registered as pytrees. ``params`` is the parameter object
    of the whole mixture, of which a family reads its own fields; ``prior`` is None (flat) or
    what `prior_of` made of the user's.
    """

    # Whether rows are places, so that they may be measured from an origin.
    moves: ClassVar[bool] = False
    # Whether `update` maximises; else it takes a share of a step from ``params``.
    closed: ClassVar[bool] = True
    # Whether a NaN is a value missing at random.
    holes: ClassVar[bool] = False
    # Whether some columns of a row are given and not drawn: then there is `sample_given`.
    needs_given: ClassVar[bool] = False
    # Where EM starts if nobody says.
    default_start: ClassVar[str] = "short-run"
    # Priors by name, that `default_prior` computes from the data.
    rules: ClassVar[tuple[str, ...]] = ("weak",)
    # Whether `row_weights` are other than one.
    weighs: bool | ClassVar[bool] = False
    # Whether there are `coordinates` of statistics.
    has_coordinates: ClassVar[bool] = False
    # What to write where a proper prior is needed, and where every component collapsed.
    proper_prior: ClassVar[str] = 'prior="weak" or a dictionary of distributions'
    conjugate_prior: ClassVar[str] = 'prior="weak"'
    collapse: ClassVar[str] = (
        'a component lost its rows; use a proper prior (prior="weak"), or fewer components'
    )
    # What kind of numbers the columns are, for pictures: "numbers", "counts", "positives",
    # "levels" (codes), or "shares" (counts that share a total); "each": by column, of `kinds`.
    columns: ClassVar[str | None] = None
    # How many values a column of codes has.
    n_levels: int | ClassVar[int | None] | None = None
    # The distribution of a component, for reports, and what its parameters have in common:
    # formulas, in which ``_`` opens a subscript.
    formula: ClassVar[str] = "p(x_i | θ_k)"
    constraint: ClassVar[str] = ""
    # Whether mixing weights are a site; else the family makes them of the rows.
    has_weights: ClassVar[bool] = True
    # What the columns of a row are called, where the family knows; and those that are given.
    column_names: tuple[Any, ...] | None = None
    given_names: tuple[Any, ...] = ()
    # Labels that are no components, the last ones, each of a kind of its own.
    labels_apart: ClassVar[tuple[str, ...]] = ()
    # What a row is.
    row_support: constraints.Constraint = constraints.real_vector

    @property
    def name(self) -> str:
        """What tells models apart in a table."""
        return type(self).__name__

    @property
    def label(self) -> str:
        """The family as a user writes it, without its room."""
        return repr(self)

    def prior_formulas(self, prior: Any) -> tuple[str, ...]:
        """Formulas of a conjugate prior, or of how declared sites make the parameters."""
        return ()

    def prior_density(self, prior: Any, site: str, index: tuple[int, ...]) -> Density | None:
        """Of one number of a site under a conjugate prior, where it has a closed form."""
        return None

    @property
    def code(self) -> str:
        """Python that makes the family."""
        ours = type(self).__module__.startswith("jaxgmm.")
        return f"jg.families.{self.label}" if ours else self.label

    @property
    def places(self) -> Any:
        """Which columns are places, by column where not all are alike."""
        return self.moves

    @property
    def beside(self) -> dict[str, str]:
        """What `Mixture` was given beside the family, by argument, as Python that makes it."""
        return {}

    def iterates(self, prior: Any) -> bool:
        """Whether `update` finds its maximum by iterations on the statistics."""
        return False

    # -- parameters and their sites ----------------------------------------------

    @abc.abstractmethod
    def from_sites(self, weights: Array, sites: Sites, prior: Any = None) -> Params:
        """Parameters made of weights and of the sites of the components."""

    @abc.abstractmethod
    def sites(self, params: Params, prior: Any = None) -> Sites:
        """The inverse of `from_sites`, but for the weights."""

    @abc.abstractmethod
    def checked(self, own: dict[str, Any], k: int) -> Sites:
        """The user's arrays as sites in their shapes; raises where they do not fit."""

    @abc.abstractmethod
    def n_columns(self, params: Params) -> int:
        """How many numbers a row has."""

    @abc.abstractmethod
    def n_parameters(self, k: int, d: int) -> int:
        """Free parameters of the components."""

    @abc.abstractmethod
    def site_dims(self) -> dict[str, list[str]]:
        """ArviZ dimensions of each site."""

    def normals(self, params: Params) -> Any:
        """The normal components that a picture can have, with their means and covariances."""
        return None

    def derived_sites(self, params: Params) -> Sites:
        """Further quantities reported beside the sites."""
        return {}

    @abc.abstractmethod
    def permute(self, params: Params, order: Array) -> Params:
        """Rename the components, but for their weights: new component k was ``order[k]``."""

    @abc.abstractmethod
    def retract(self, params: Params, tangent: Float[Array, " p"]) -> Params:
        """Parameters a step of `n_parameters` numbers away, their weights as they were."""

    def edges(self, params: Params) -> Bool[Array, " p"]:
        """Which numbers of a step move something close to an edge of its support."""
        return jnp.zeros(self.n_parameters(params.weights.shape[0], self.n_columns(params)), bool)

    def inwards(self, params: Params, margin: Array | float) -> Params:
        """Parameters that keep a distance of ``margin`` from such edges."""
        return params

    # -- rows ----------------------------------------------------------------------

    def kinds(self, d: int) -> tuple[str | None, ...]:
        """`columns`, one by one."""
        return (self.columns,) * d

    def read(self, x: Any) -> tuple[Family, Any]:
        """The family that knows the columns of a table, and the table as numbers in its order."""
        return self, x

    def given_rows(self, x: Any) -> Array:
        """The user's rows of which only columns that are not drawn need be there."""
        return x if isinstance(x, jax.Array) else jax.device_put(numeric("given", self.read(x)[1]))

    def lacks(self, given: Float[np.ndarray, "n d"]) -> Bool[np.ndarray, "n d"]:
        """Numbers of `given_rows` that are not there, though rows are drawn beside them."""
        known = [kind == "given" for kind in self.kinds(given.shape[1])]
        return ~np.isfinite(given) & np.array(known, bool)

    def called(self, names: tuple[Any, ...]) -> Family:
        """The family that knows what the columns of a row are called."""
        return self

    def features_of(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the names of columns that are the features of components."""
        return names

    def check_names(self, names: tuple[str, ...]) -> None:
        """Refuse, with a `ValueError`, columns that are not those of a row, in their order."""

    def table(self, rows: np.ndarray, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Columns by name, as a user would write them."""
        return dict(zip(names, rows.T, strict=True))

    def coords(self) -> dict[str, list[Any]]:
        """What stands along ArviZ dimensions of its own."""
        return {}

    @abc.abstractmethod
    def sample(self, params: Params, key: PRNGKeyArray, labels: Array) -> Float[Array, "*n d"]:
        """One row of the component named by each label."""

    def sample_given(
        self, params: Params, key: PRNGKeyArray, labels: Array, given: Float[Array, "n d"]
    ) -> Float[Array, "n d"]:
        """The same with the columns that are not drawn taken from rows, in their order."""
        return self.sample(params, key, labels)

    def log_weights(self, params: Params, x: Array) -> Float[Array, "*n k"]:
        """Log mixing weights of all rows, or of each."""
        return jnp.log(params.weights)

    def embed(self, x: Array) -> Float[Array, "n e"]:
        """Rows as vectors whose Euclidean distances make sense, for starts."""
        return x

    def placed(self, labels: Float[Array, "n p"]) -> Float[Array, "n k"]:
        """Labels of a start in full, from those of the components."""
        return labels

    def row_weights(self, params: Params, x: Array) -> Float[Array, "k n"]:
        """How often each row of a component counts in its M-step."""
        return jnp.ones((params.weights.shape[0], len(x)), x.dtype)

    @property
    def layout(self) -> Form:
        """The form in which rows are computed with."""
        return self

    def look(self, params: Params, x: Array, see: Callable[[View], Array]) -> Array:
        """What ``see`` makes of the rows' log p(row | label) at ``params``."""
        form = self.layout
        log_density = lambda rows: form.log_density(params, form.features(rows))
        return see(View(log_density, self.block_rows(x, params.weights.shape[0])))

    @property
    def incomplete(self) -> bool:
        """Whether the family knows of values missing in the data."""
        return False

    @property
    def imputes(self) -> bool:
        """Whether statistics hold what is missing, expected or drawn; else it drops out of them."""
        return False

    def imputing(self, key: PRNGKeyArray) -> Family:
        """The family with missing values drawn, not expected, in its statistics."""
        return self

    def impute(
        self, params: Params, x: Array, labels: Float[Array, "n k"], key: PRNGKeyArray | None
    ) -> Array:
        """The rows with their holes filled, given probabilities of their labels."""
        raise ValueError(f"impute: {self.label} has no missing values; NaN is refused")

    def settled(self, params: Params) -> Family:
        """The family with its numerics fixed to what suits ``params`` (any leading axes)."""
        return self

    def decided(self) -> Family:
        """The family with its numerics fixed to anything, for whoever differentiates."""
        return self

    # -- EM ------------------------------------------------------------------------

    def e_step(
        self,
        log_weights: Float[Array, " k"],
        params: Params,
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Statistics, Array]:
        """Statistics and objective at ``params`` but for their weights."""
        log_density = lambda features: self.log_density(params, features)
        return labelled(self, log_density, log_weights, x, sample_weight, assign)

    def at_labels(
        self,
        labels: Callable[[Array, Array | int], Array],
        x: Array,
        sample_weight: Array | None,
        k: int,
    ) -> Statistics:
        """Statistics at given labels (n, K) of blocks of rows."""
        return counted(self.layout, labels, x, sample_weight, k)

    def shrunk(self, statistics: Statistics) -> Statistics:
        """Statistics of hard clusters, moved away from the edges of the parameters."""
        return statistics

    def filled(self, statistics: Statistics, present: Array) -> Statistics:
        """Statistics in which absent components have some that an M-step survives."""
        return statistics

    def add(self, one: Statistics, other: Statistics) -> Statistics:
        """The statistics of two sets of rows together."""
        return jax.tree.map(jnp.add, one, other)

    def scaled(self, statistics: Statistics, share: Array | float) -> Statistics:
        """The statistics of rows each of which counts ``share`` times as much."""
        return jax.tree.map(lambda leaf: share * leaf, statistics)

    @abc.abstractmethod
    def update(self, statistics: Statistics, prior: Any, params: Params | None = None) -> Sites:
        """The sites of the components at the mode given labelled rows, with or without a prior.

        ``params`` are those before the step, if any.
        """

    # -- priors --------------------------------------------------------------------

    @abc.abstractmethod
    def prior_of(self, distributions: dict[str, Any]) -> Any:
        """The prior that a dictionary of distributions by site stands for."""

    @abc.abstractmethod
    def prior_sites(self, prior: Any, k: int, d: int) -> Prior:
        """Distributions of the components' sites; flat ones where there is no prior."""

    @abc.abstractmethod
    def default_prior(
        self, rule: str, x: Array, sample_weight: Array | None, k: int, free: bool
    ) -> Any:
        """The prior that a rule makes of the data; ``free``: of the weights too."""

    def sized(self, prior: Any, k: int, d: int, dtype: Any) -> Any:
        """A prior with arrays for numbers, in the dtype of the rows."""
        return None if prior is None else prior.sized(k, d, dtype)

    def bounded(self, prior: Any, free: bool) -> bool:
        """Whether the log joint is bounded for every data set; ``free``: so are the weights."""
        return True

    def ascends(self) -> Array:
        """Whether `update` maximises the declared objective."""
        return jnp.array(True)

    @abc.abstractmethod
    def check_conjugate(self, prior: Any) -> None:
        """Refuse, with a `ValueError`, a prior that labelled rows do not update."""

    @abc.abstractmethod
    def updated(self, statistics: Statistics, prior: Any) -> Any:
        """The prior after labelled rows, but for the weights."""

    def centre(self, prior: Any, k: int, d: int) -> tuple[Sites, Float[Array, " k"]]:
        """Sites whose log densities are, but for constants, their means over the prior."""
        raise ValueError(f"centre: no parameters of {self.label} have the mean log density")

    @abc.abstractmethod
    def mean_log_density(self, prior: Any, x: Array, k: int) -> Float[Array, "k n"]:
        """Mean over the prior of the log density of each row of a block."""

    @abc.abstractmethod
    def expected_step(
        self,
        prior: Any,
        log_weights: Float[Array, " k"],
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Statistics, Array]:
        """`e_step` with means of the log densities over the prior."""

    @abc.abstractmethod
    def divergence(self, prior: Any, other: Any, k: int, d: int) -> Array:
        """Kullback-Leibler divergence of a prior from ``other``, before rows updated it."""

    def looked(self, x: Array, sample_weight: Array | None) -> Family:
        """The family with what it has to know of the data."""
        return self

    # -- units ---------------------------------------------------------------------

    def standardise(self, x: Array, sample_weight: Array | None, prior: Any) -> tuple[Family, Any]:
        """The family and its prior in working units."""
        return self, prior

    def in_user_units(self, prior: Any) -> tuple[Family, Any]:
        """The inverse of `standardise`."""
        return self, prior

    def to_working(self, params: Params) -> Params:
        """The user's parameters in working units."""
        return params

    def to_user(self, params: Params) -> Params:
        """The inverse of `to_working`."""
        return params

    def log_units(self, prior: Any, k: int, d: int | None) -> Array | None:
        """log |working / user volume element| of the sites; None in the user's units."""
        return None

    def translated(self, offset: Any) -> Family:
        """Where the family `moves`, what it has to know of rows moved by ``offset``."""
        return self

    def moved_prior(self, prior: Any, offset: Any) -> Any:
        """And the prior for them."""
        return prior

    def moved(self, params: Any, offset: Any) -> Any:
        """And parameters, or sites by name."""
        return params

    def origin(self, params: Params) -> np.ndarray | None:
        """An origin near parameters that JAX would round; None for all others."""
        return None

    # -- doors and health ----------------------------------------------------------

    def check_rows(self, x: np.ndarray) -> None:
        """Refuse, with a `ValueError`, values that no row can have."""

    def check_present(self, x: np.ndarray) -> None:
        """Refuse values that no row of any weight can have."""

    def check_rule(self, rule: str, x: np.ndarray, total_weight: float) -> None:
        """Refuse data of which a rule makes no prior."""

    @abc.abstractmethod
    def check_prior(self, prior: Any, k: int, d: int, free: bool) -> None:
        """Refuse a prior that does not fit; ``free``: the weights have one too."""

    def check_bounded(self, x: np.ndarray, k: int) -> None:
        """Refuse data on which the log joint grows without bound."""

    def check_mode(self, prior: Any) -> None:
        """Refuse a prior under which the components have no mode."""

    def collapsed(self, params: Params, bounded: bool) -> Array:
        """Whether a component has left the space where its density is defined."""
        return jnp.array(False)

    def cancellation(self, params: Params) -> Array:
        """Size of the terms that cancel in the log density of an average row."""
        return jnp.array(0.0)

    def spurious(self, params: Params, statistics: Statistics) -> Array:
        """Whether an unbounded optimum hangs on a handful of rows."""
        return jnp.array(False)

    # -- leaps ---------------------------------------------------------------------

    def coordinates(self, statistics: Statistics) -> Array:
        """Statistics as a vector that any real numbers may replace."""
        raise NotImplementedError

    def from_coordinates(self, vector: Array, like: Statistics) -> Statistics:
        """The inverse of `coordinates`."""
        raise NotImplementedError


def known_labels(labels: Float[Array, "k n"]) -> Assignment:
    """The assignment of rows whose labels are known, for whoever makes statistics of them."""

    def assign(logits: Array, first: Array | int) -> tuple[Array, Array]:
        own = lax.dynamic_slice_in_dim(labels, first, logits.shape[1], axis=1)
        return own, jnp.zeros_like(own[0])

    return assign


def labelled(
    form: Form,
    log_density: Callable[[Array], Array],
    log_weights: Float[Array, " k"],
    x: Array,
    sample_weight: Array | None,
    assign: Assignment,
    moments: Form | None = None,
) -> tuple[Statistics, Array]:
    """The rows labelled by ``assign``: their statistics, and what the labels add up to.

    Log densities are of the features of ``form``, sums of those of ``moments``.
    """
    moments = form if moments is None else moments

    def block(rows: Array, weights: Array, first: Array | int) -> tuple[Any, Array]:
        features = form.features(rows)
        logits = log_weights[:, None] + log_density(features)
        labels, value = assign(logits, first)
        seen = features if moments is form else moments.features(rows)
        return moments.sums(seen, weights * labels), weights @ value

    size = form.block_rows(x, log_weights.shape[0])
    sums, value = sum_over_blocks(block, x, sample_weight, size)
    return moments.statistics(sums), value


def counted(
    form: Form,
    labels: Callable[[Array, Array | int], Array],
    x: Array,
    sample_weight: Array | None,
    k: int,
) -> Statistics:
    """The statistics of rows whose labels are known."""

    def block(rows: Array, weights: Array, first: Array | int) -> Any:
        return form.sums(form.features(rows), weights * labels(rows, first).T)

    return form.statistics(sum_over_blocks(block, x, sample_weight, form.block_rows(x, k)))
