"""Repeats that share a label: a row is a group, such as a patient with all of her visits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxgmm._checks import check_count
from jaxgmm._contract import Assignment, Params, Sites, Statistics
from jaxgmm._numerics import sum_over_blocks
from jaxgmm.files import Coded, ColumnRefused, numeric, own_names, row_names, stored
from jaxgmm.model._around import Around
from jaxgmm.model._coding import is_table, taken
from jaxgmm.model._family import Family, View, known_labels
from jaxgmm.model._site_family import MixtureParams
from jaxgmm.model._tree import pytree


@stored
class OfGroups(NamedTuple):
    """Effective groups of each component, (K,), and the statistics of their repeats."""

    counts: Array
    components: Statistics


@stored
@pytree
@dataclasses.dataclass(frozen=True, repr=False)
class Repeated(Around):
    """Groups of repeats of one family, all of a group under one label.

    Parameters
    ----------
    family : Family
        What a repeat is. Its columns stand side by side, repeat by repeat.
    m : int
        Most repeats that a group has, at least one.

    Raises
    ------
    ValueError, TypeError
        For no repeats, and for what is no family of single rows.

    Notes
    -----
    Rows are (n, m c), where a repeat has c columns: the density of a group under a component is
    the product of those of its repeats, and weights, responsibilities, criteria and bootstraps
    are of groups. A repeat of which all columns are NaN is absent; others have missing values
    only where the family has them. `jaxgmm.repeated` makes such rows of a table with a row for
    each repeat. Sites and priors are those of the family.

    References
    ----------
    Leisch (2004), J. Stat. Softw. 11(8), on groups in mixtures of regressions.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jaxgmm as jg
    >>> nan = jnp.nan
    >>> x = jnp.array([[1, 0, 2], [0, 1, nan], [9, 7, 8], [6, nan, nan], [2, 1, 1], [8, 7, 9.0]])
    >>> model = jg.Mixture(jg.families.Repeated(jg.families.Poisson(), 3), 2, prior="weak")
    >>> fit = jg.fit(model, x, key=jax.random.key(0))
    >>> fit.params.rates.shape, sorted(fit.model.predict(fit.params, x).tolist())
    ((2, 1), [0, 0, 0, 1, 1, 1])
    """

    moves = False  # type: ignore[override]
    places = False  # type: ignore[override]

    m: int = dataclasses.field(metadata={"static": True})
    # Whether some groups have fewer repeats; set by `looked`.
    ragged: bool = dataclasses.field(default=False, metadata={"static": True})
    # A key, where what is missing is to be drawn; set by `imputing`.
    noise: PRNGKeyArray | None = None

    def __post_init__(self):
        if not isinstance(self.family, Family) or isinstance(self.family, Around):
            raise TypeError(
                f"family: needs a family of single rows, such as jaxgmm.Gaussian(), found "
                f"{self.family!r}"
            )
        check_count("m", self.m, 1)

    @property
    def name(self) -> str:
        return f"Repeated({self.family.name})"

    @property
    def label(self) -> str:
        return f"Repeated({self.family.label}, {self.m})"

    def __repr__(self) -> str:
        return self.label

    @property
    def code(self) -> str:
        return f"jg.families.Repeated({self.family.code}, {self.m})"

    @property
    def holes(self) -> bool:  # type: ignore[override]
        return self.m > 1 or self.family.holes

    @property
    def incomplete(self) -> bool:
        return self.ragged or self.family.incomplete

    @property
    def needs_given(self) -> bool:  # type: ignore[override]
        """Which repeats are there is given too."""
        return self.ragged or self.family.needs_given

    @property
    def columns(self) -> str | None:  # type: ignore[override]
        return "lines" if self.family.columns == "lines" else "each"

    @property
    def formula(self) -> str:  # type: ignore[override]
        return f"∏_r {self.family.formula}"

    # -- repeats -----------------------------------------------------------------------

    def _width(self, d: int) -> int:
        return d // self.m

    def _apart(self, x: Any) -> tuple[Any, Bool[Array, "n m"] | None]:
        """Repeats (n m, c), and which are there; None for all of them.

        Absent ones are as another of their group, so that all that is made of them is finite.
        """
        xp: Any = np if isinstance(x, np.ndarray) else jnp
        each = x.reshape(len(x), self.m, x.shape[1] // self.m)
        if not self.ragged:
            return each.reshape(-1, each.shape[2]), None
        there = ~xp.all(xp.isnan(each), axis=2)
        first = xp.take_along_axis(each, xp.argmax(there, axis=1)[:, None, None], axis=1)
        first = xp.where(there.any(axis=1)[:, None, None], first, 1.0)
        rows = xp.where(there[:, :, None], each, first)
        return rows.reshape(-1, each.shape[2]), there

    def _rows(self, x: Any) -> Any:
        return self._apart(x)[0]

    def _present(self, x: np.ndarray) -> np.ndarray:
        rows, there = self._apart(x)
        return rows if there is None else rows[there.ravel()]

    def _weighted(self, x: Array, weights: Array | None) -> tuple[Array, Array | None]:
        """The repeats and what they count, where groups have weights."""
        rows, there = self._apart(x)
        if weights is None and there is None:
            return rows, None
        each = jnp.ones((len(x), self.m), x.dtype) if there is None else there.astype(x.dtype)
        return rows, (each if weights is None else each * weights[:, None]).ravel()

    def _of_groups(self, x: Array, density: Callable[[Array], Array]) -> Float[Array, "k n"]:
        """Sums over the repeats of a group."""
        rows, there = self._apart(x)
        each = density(rows).reshape(-1, len(x), self.m)
        return jnp.sum(each if there is None else jnp.where(there, each, 0), axis=2)

    # -- parameters --------------------------------------------------------------------

    def components(self, params: MixtureParams) -> Params:
        return self.family.from_sites(params.weights, params.own)

    def from_sites(self, weights: Array, sites: Sites, prior: Any = None) -> MixtureParams:
        made = self.family.from_sites(weights, sites, prior)
        return MixtureParams(weights, self.family.sites(made))

    def sites(self, params: MixtureParams, prior: Any = None) -> Sites:
        return self.family.sites(self.components(params), prior)

    def n_columns(self, params: MixtureParams) -> int:
        return self.m * super().n_columns(params)

    # -- tables ------------------------------------------------------------------------

    @property
    def column_names(self) -> tuple[Any, ...] | None:  # type: ignore[override]
        names = self.family.column_names
        if names is None:
            return None
        if not _by_name(names):
            return tuple(r * len(names) + name for r in range(self.m) for name in names)
        return tuple(_of_repeat(name, r) for r in range(self.m) for name in names)

    @property
    def given_names(self) -> tuple[Any, ...]:  # type: ignore[override]
        names = self.column_names or ()
        named = zip(names, self.kinds(len(names)), strict=True)
        return tuple(name for name, kind in named if kind == "given")

    def called(self, names: tuple[Any, ...]) -> Repeated:
        return self._around(self.family.called(names[: len(names) // self.m]))

    def features_of(self, names: tuple[str, ...]) -> tuple[str, ...]:
        first = names[: len(names) // self.m]
        return self.family.features_of(tuple(name.removesuffix("[0]") for name in first))

    def kinds(self, d: int) -> tuple[str | None, ...]:
        return self.family.kinds(d // self.m) * self.m

    def read(self, x: Any) -> tuple[Repeated, Any]:
        inner = self.family.column_names
        if isinstance(x, (Coded, Tracer)) or inner is None or not _by_name(inner):
            return self, x
        if not is_table(x):
            return self, Coded(self._as_rows(x), self.column_names or ())
        family, made = self.family.read(self._long(x))
        wide = tuple(_of_repeat(name, r) for r in range(self.m) for name in made.columns)
        return self._around(family), Coded(self._side_by_side(made), wide, row_names(x))

    def _as_rows(self, x: Any) -> Any:
        rows = x if isinstance(x, jax.Array) else numeric("x", x)
        names = self.column_names or ()
        if rows.ndim != 2 or rows.shape[1] != len(names):
            raise ValueError(
                f"x: {self.label} needs a table, or {len(names)} columns in the order "
                f"{', '.join(map(repr, names))}, found an array of shape {rows.shape}"
            )
        return rows

    def _long(self, x: Any) -> pd.DataFrame:
        """A table with a row for each repeat, the first ones of all groups first."""
        fields = getattr(getattr(x, "dtype", None), "names", None)
        known = tuple(fields) if fields else own_names(x) or ()
        names = [name.removesuffix("[0]") for name in known if name.endswith("[0]")]
        more = [name for name in names if _of_repeat(name, self.m) in known]
        if not names or more:
            found = f"{_of_repeat(more[0], self.m)!r}, a repeat more" if more else "none"
            raise ValueError(
                f"x: {self.label} needs columns called name[0], ..., name[{self.m - 1}], found "
                f"{found}; jaxgmm.repeated(table, by=...) makes them, and says how many there are"
            )
        each = lambda name: taken(x, [_of_repeat(name, r) for r in range(self.m)]).values()
        long = {name: np.concatenate([np.asarray(one) for one in each(name)]) for name in names}
        return pd.DataFrame(long)

    def _side_by_side(self, long: Any) -> np.ndarray:
        rows = np.asarray(long)
        each = rows.reshape(self.m, -1, rows.shape[1]).transpose(1, 0, 2)
        return each.reshape(len(each), -1)

    def given_rows(self, x: Any) -> Array:
        if isinstance(x, jax.Array):
            return x
        if is_table(x) and _by_name(self.family.column_names or (0,)):
            return jax.device_put(self._side_by_side(self.family.given_rows(self._long(x))))
        rows = jax.device_put(numeric("given", x))
        self._check_width(rows.shape[-1])
        return rows

    def lacks(self, given: np.ndarray) -> np.ndarray:
        """But of a repeat of which nothing is given, which is absent."""
        each = given.reshape(-1, given.shape[1] // self.m)
        known = [j for j, kind in enumerate(self.family.kinds(each.shape[1])) if kind == "given"]
        absent = np.all(np.isnan(each[:, known]), axis=1, keepdims=True)
        return (self.family.lacks(each) & ~absent).reshape(given.shape)

    def check_names(self, names: tuple[str, ...]) -> None:
        d = len(names) // self.m
        self.family.check_names(tuple(name.removesuffix("[0]") for name in names[:d]))

    def table(self, rows: np.ndarray, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        d, found = len(names) // self.m, {}
        for r in range(self.m):
            own = slice(r * d, (r + 1) * d)
            plain = tuple(name.removesuffix(f"[{r}]") for name in names[own])
            made = self.family.table(rows[:, own], plain)
            found |= dict(zip(names[own], (made[name] for name in plain), strict=True))
        return found

    # -- rows --------------------------------------------------------------------------

    def looked(self, x: Array, sample_weight: Array | None) -> Repeated:
        known = self
        if not isinstance(x, Tracer):
            each = np.isnan(np.asarray(x)).reshape(-1, self.m, x.shape[1] // self.m)
            known = dataclasses.replace(self, ragged=bool(each.all(axis=2).any()))
        rows = known._rows(x if isinstance(x, Tracer) else np.asarray(x))
        return known._around(self.family.looked(rows, None))

    def lines(self, x: np.ndarray, names: tuple[str, ...]) -> Any:
        rows, there = self._apart(x)
        kept = np.ones(len(rows), bool) if there is None else there.ravel()
        found = self.family.lines(rows[kept], self.features_of(names))
        return found._replace(of=np.repeat(np.arange(len(x)), self.m)[kept])

    def block_rows(self, x: Array, n_components: int) -> int:
        return max(1, super().block_rows(x, n_components) // self.m)

    def look(self, params: MixtureParams, x: Array, see: Callable[[View], Array]) -> Array:
        def grouped(view: View) -> Array:
            density = lambda rows: self._of_groups(rows, view.log_density)
            return see(view._replace(log_density=density, block=max(1, view.block // self.m)))

        return self.family.look(self.components(params), self._rows(x), grouped)

    def embed(self, x: Array) -> Float[Array, "n e"]:
        """The average of the repeats."""
        rows, there = self._apart(x)
        each = self.family.embed(rows).reshape(len(x), self.m, -1)
        if there is None:
            return jnp.mean(each, axis=1)
        count = jnp.maximum(jnp.sum(there, axis=1, keepdims=True), 1)
        return jnp.sum(jnp.where(there[:, :, None], each, 0), axis=1) / count

    def row_weights(self, params: MixtureParams, x: Array) -> Float[Array, "k n"]:
        """The average over the repeats."""
        density = lambda rows: self.family.row_weights(self.components(params), rows)
        there = self._apart(x)[1]
        count = self.m if there is None else jnp.maximum(jnp.sum(there, axis=1), 1)
        return self._of_groups(x, density) / count

    def sample(self, params: MixtureParams, key: PRNGKeyArray, labels: Array) -> Array:
        inner = self.components(params)
        each = jnp.repeat(labels[..., None], self.m, axis=-1)
        drawn = self.family.sample(inner, key, each.reshape(-1))
        return drawn.reshape(*labels.shape, -1)

    def sample_given(
        self, params: MixtureParams, key: PRNGKeyArray, labels: Array, given: Array
    ) -> Array:
        each = given.reshape(len(given), self.m, given.shape[1] // self.m)
        kinds = np.array(self.family.kinds(each.shape[2]), object)
        known = kinds == "given"
        there = ~jnp.all(jnp.isnan(each[..., known] if known.any() else each), axis=2)
        inner, own = self.components(params), jnp.repeat(labels, self.m)
        rows = each.reshape(-1, each.shape[2])
        if self.family.needs_given:
            drawn = self.family.sample_given(inner, key, own, rows)
        else:
            drawn = self.family.sample(inner, key, own).astype(given.dtype)
        drawn = jnp.where(there[:, :, None], drawn.reshape(each.shape), jnp.nan)
        return drawn.reshape(given.shape)

    def impute(
        self,
        params: MixtureParams,
        x: Array,
        labels: Float[Array, "n k"],
        key: PRNGKeyArray | None,
    ) -> Array:
        """Absent repeats too."""
        rows = x.reshape(-1, x.shape[1] // self.m)
        own = jnp.repeat(labels, self.m, axis=0)
        filled = self.family.impute(self.components(params), rows, own, key)
        return filled.reshape(x.shape)

    def marginal(
        self, params: MixtureParams, column: Array | int, grid: Float[Array, " p"]
    ) -> Float[Array, "k p"]:
        inner = self.components(params)
        return self.family.marginal(inner, column % self.family.n_columns(inner), grid)

    # -- EM ------------------------------------------------------------------------------

    def imputing(self, key: PRNGKeyArray) -> Repeated:
        return dataclasses.replace(self, noise=key)

    def e_step(
        self,
        log_weights: Float[Array, " k"],
        params: MixtureParams,
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[OfGroups, Array]:
        inner = self.components(params)
        density = lambda rows: self.log_density(params, rows)

        def statistics(family: Family, *rows: Any) -> Statistics:
            return family.e_step(log_weights, inner, *rows)[0]

        return self._labelled(log_weights, density, statistics, x, sample_weight, assign)

    def expected_step(
        self,
        prior: Any,
        log_weights: Float[Array, " k"],
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[OfGroups, Array]:
        k = len(log_weights)
        density = lambda rows: self.mean_log_density(prior, rows, k)

        def statistics(family: Family, *rows: Any) -> Statistics:
            return family.expected_step(prior, log_weights, *rows)[0]

        return self._labelled(log_weights, density, statistics, x, sample_weight, assign)

    def mean_log_density(self, prior: Any, x: Array, k: int) -> Float[Array, "k n"]:
        return self._of_groups(x, lambda rows: self.family.mean_log_density(prior, rows, k))

    def _labelled(
        self,
        log_weights: Float[Array, " k"],
        density: Callable[[Array], Float[Array, "k n"]],
        statistics: Callable[..., Statistics],
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[OfGroups, Array]:
        """The groups labelled as a whole; then their repeats make the statistics."""

        def block(rows: Array, weights: Array, first: Array | int) -> tuple[OfGroups, Array]:
            labels, value = assign(log_weights[:, None] + density(rows), first)
            family = self.family
            if self.noise is not None:
                family = family.imputing(jax.random.fold_in(self.noise, first))
            own = known_labels(jnp.repeat(labels, self.m, axis=1))
            found = statistics(family, *self._weighted(rows, weights), own)
            return OfGroups(labels @ weights, found), weights @ value

        add = lambda one, other: (self.add(one[0], other[0]), one[1] + other[1])
        size = self.block_rows(x, len(log_weights))
        return sum_over_blocks(block, x, sample_weight, size, add)

    def at_labels(
        self,
        labels: Callable[[Array, Array | int], Array],
        x: Array,
        sample_weight: Array | None,
        k: int,
    ) -> OfGroups:
        def block(rows: Array, weights: Array, first: Array | int) -> OfGroups:
            known = labels(rows, first)
            each = jnp.repeat(known, self.m, axis=0)
            own = lambda rows, first: lax.dynamic_slice_in_dim(each, first, rows.shape[0])
            found = self.family.at_labels(own, *self._weighted(rows, weights), k)
            return OfGroups(weights @ known, found)

        return sum_over_blocks(block, x, sample_weight, self.block_rows(x, k), self.add)

    def sums(self, features: Array, weights: Float[Array, "k n"]) -> OfGroups:
        labels = lambda rows, first: lax.dynamic_slice_in_dim(weights.T, first, rows.shape[0])
        return self.at_labels(labels, features, None, len(weights))

    def shrunk(self, statistics: OfGroups) -> OfGroups:
        return statistics._replace(components=self.family.shrunk(statistics.components))

    def filled(self, statistics: OfGroups, present: Array) -> OfGroups:
        return statistics._replace(components=self.family.filled(statistics.components, present))

    def add(self, one: OfGroups, other: OfGroups) -> OfGroups:
        both = self.family.add(one.components, other.components)
        return OfGroups(one.counts + other.counts, both)

    # -- priors and units --------------------------------------------------------------

    def default_prior(
        self, rule: str, x: Array, sample_weight: Array | None, k: int, free: bool
    ) -> Any:
        return self.family.default_prior(rule, *self._weighted(x, sample_weight), k, free)

    def standardise(
        self, x: Array, sample_weight: Array | None, prior: Any
    ) -> tuple[Repeated, Any]:
        family, prior = self.family.standardise(*self._weighted(x, sample_weight), prior)
        return self._around(family), prior

    def origin(self, params: MixtureParams) -> None:
        return None

    # -- doors and health ----------------------------------------------------------------

    def check_rows(self, x: np.ndarray) -> None:
        self._check_width(x.shape[1])
        c = x.shape[1] // self.m
        known = dataclasses.replace(self, ragged=True)
        rows, there = known._apart(x)
        assert there is not None
        each = rows.reshape(len(x), self.m, c)
        for r in range(self.m):
            holes = np.isnan(each[:, r])
            try:
                if not self.family.holes and holes.any():
                    row, column = np.argwhere(holes)[0]
                    raise ColumnRefused(
                        f"x: {self.family.label} has no missing values, found nan at row {row}, "
                        "{column}; a repeat that is absent has none at all",
                        int(column),
                    )
                self.family.check_rows(each[:, r])
            except ColumnRefused as refusal:
                sentence, column, names = refusal.args
                raise ColumnRefused(sentence, r * c + column, names) from None

    def _check_width(self, d: int) -> None:
        if d % self.m:
            raise ValueError(
                f"x: {self.label} needs {self.m} repeats of as many columns, found {d} column(s)"
            )

    def _looked(self, x: np.ndarray) -> Repeated:
        return dataclasses.replace(self, ragged=bool(np.isnan(x).any()))

    def check_present(self, x: np.ndarray) -> None:
        self.family.check_present(self._looked(x)._present(x))

    def check_rule(self, rule: str, x: np.ndarray, total_weight: float) -> None:
        rows = self._looked(x)._present(x)
        self.family.check_rule(rule, rows, total_weight * len(rows) / len(x))

    def check_bounded(self, x: np.ndarray, k: int) -> None:
        self.family.check_bounded(self._looked(x)._present(x), k)

    def check_prior(self, prior: Any, k: int, d: int, free: bool) -> None:
        self.family.check_prior(prior, k, self._width(d), free)

    def cancellation(self, params: MixtureParams) -> Array:
        return self.m * super().cancellation(params)

    def spurious(self, params: MixtureParams, statistics: OfGroups) -> Array:
        """Whether the repeats of few groups make an optimum."""
        absent = jnp.isinf(statistics.counts)
        counts = jnp.where(absent, jnp.inf, statistics.components.counts)
        found = statistics.components._replace(counts=counts)
        return self.family.spurious(self.components(params), found)


def _of_repeat(name: str, r: int) -> str:
    return f"{name}[{r}]"


def _by_name(names: tuple[Any, ...]) -> bool:
    return not names or isinstance(names[0], str)


def repeated(table: pd.DataFrame, by: str, once: Sequence[str] = ()) -> tuple[pd.DataFrame, int]:
    """A table with a row for each repeat as one with a row for each group.

    Parameters
    ----------
    table : pandas.DataFrame
        A row for each repeat, those of a group in the order in which they are to stand.
    by : str
        The column that says which group a row is of.
    once : sequence of str
        Columns that are alike within groups, and stand in a row once, as for ``gates=``.

    Returns
    -------
    table : pandas.DataFrame
        A row for each group, with the groups as index, and columns ``name[r]`` of repeat r side by
        side, repeat by repeat; NaN where a group has fewer. Columns of ``once`` come last.
    m : int
        Most repeats of a group.

    Raises
    ------
    ValueError
        For columns that are not there, groups that are missing, and columns of ``once`` that are
        not alike within a group.

    Examples
    --------
    >>> import pandas as pd
    >>> import jaxgmm as jg
    >>> visits = pd.DataFrame({"patient": ["a", "a", "b"], "dose": [1, 2, 1], "effect": [5, 7, 4]})
    >>> rows, m = jg.repeated(visits, by="patient")
    >>> list(rows.columns), m
    (['dose[0]', 'effect[0]', 'dose[1]', 'effect[1]'], 2)
    >>> rows.loc["a"].tolist()
    [1.0, 5.0, 2.0, 7.0]
    """
    once = tuple(once)
    for name in (by, *once):
        if name not in table.columns:
            raise ValueError(f"by: no column {name!r}, found {', '.join(map(repr, table.columns))}")
    if table[by].isna().any():
        raise ValueError(f"by: {by!r} is missing at row {int(np.argmax(table[by].isna()))}")
    groups = table.groupby(by, sort=False)
    for name in once:
        varies = groups[name].nunique(dropna=False) > 1
        if varies.any():
            raise ValueError(
                f"once: {name!r} is not alike within the group {varies.index[varies.argmax()]!r}"
            )
    place = groups.cumcount().to_numpy()
    m, names = int(place.max()) + 1, [n for n in table.columns if n != by and n not in once]
    blocks = []
    for r in range(m):
        own = table[place == r].set_index(by)[names]
        blocks.append(own.rename(columns=lambda name, r=r: _of_repeat(name, r)))
    return blocks[0].join([*blocks[1:], groups[list(once)].first()]), m
