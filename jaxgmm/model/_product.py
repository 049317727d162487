"""Columns of several kinds: each of some family, independent given the component."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from numpyro.distributions import constraints

from jaxgmm._checks import reworded
from jaxgmm._contract import Assignment, Params, Prior, Sites, Statistics
from jaxgmm._numerics import sum_over_blocks
from jaxgmm.files import Coded, ColumnRefused, numeric, stored
from jaxgmm.model._coding import Categories, coded, decoded, is_table, joined, taken
from jaxgmm.model._family import Family, known_labels
from jaxgmm.model._prior import ConjugatePrior
from jaxgmm.model._product_prior import ProductPrior
from jaxgmm.model._site_family import MixtureParams
from jaxgmm.model._tree import pytree
from jaxgmm.model._weights import SIMPLEX, STICKS


@stored
class Joint(NamedTuple):
    """Effective rows of each component, (K,), and the statistics of each part."""

    counts: Array
    parts: tuple[Statistics, ...]


class _Part(NamedTuple):
    """A family among others, and which columns of the rows are its own."""

    key: str
    family: Any
    columns: slice

    @property
    def width(self) -> int:
        return self.columns.stop - self.columns.start

    def prior(self, prior: Any) -> Any:
        """Its own; no prior, or a rule, is that of all parts."""
        return prior.parts[self.key] if isinstance(prior, ProductPrior) else prior

    def own(self, sites: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the sites that are this part's, by their own names."""
        split = ((name.rpartition("."), value) for name, value in sites.items())
        return {site: value for (key, _, site), value in split if key == self.key}

    def named(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse of `own`."""
        return {f"{self.key}.{site}": value for site, value in own.items()}


@stored
@pytree
@dataclasses.dataclass(frozen=True, repr=False)
class Product(Family):
    """Columns by name, of several families, independent given the component.

    Parameters
    ----------
    parts : dict
        A family for a column, or for a tuple of columns, by their names in a table. Columns of
        one Gaussian have covariances, those of two have none.

    Raises
    ------
    ValueError, TypeError
        For no parts, what is no family, and a column that occurs twice.

    Notes
    -----
    Data are tables (pandas, polars, Arrow, NumPy's structured arrays) with these columns among
    others, or arrays of these columns in this order. Columns of words are coded where the family
    is `Bernoulli` or `Categorical`: in the order that a categorical column declares, or else
    sorted; `jaxgmm.Mixture.table` turns codes into words again.

    Sites are those of the parts after the name of the column, or of the first and the last:
    ``income.means``, ``q1:q2.probs``. A dictionary as prior has distributions under these names,
    or under that of a part a `ConjugatePrior`, of which the concentration is not read.

    References
    ----------
    Hunt and Jorgensen (1999), Aust. N. Z. J. Stat. 41:154-171.

    Examples
    --------
    >>> import jax
    >>> import pandas as pd
    >>> import jaxgmm as jg
    >>> x = pd.DataFrame(
    ...     {"wing": [1.1, 1.0, 1.3, 2.9, 3.1, 3.3], "song": ["low"] * 3 + ["high", "high", "low"]}
    ... )
    >>> family = jg.families.Product({"wing": jg.Gaussian(), "song": jg.families.Bernoulli()})
    >>> fit = jg.fit(jg.Mixture(family, 2, prior="weak"), x, key=jax.random.key(0), n_init=4)
    >>> sorted(fit.params.own)
    ['song.probs', 'wing.covariances', 'wing.means']
    >>> fit.model.table(x.iloc[:1])["song"].tolist()
    ['low']
    """

    columns = "each"

    parts: Any
    names: tuple[tuple[str, ...], ...] = dataclasses.field(default=(), metadata={"static": True})
    # What codes stand for, column by column, once a table was read.
    categories: tuple[Categories, ...] = dataclasses.field(default=(), metadata={"static": True})
    # A key, where what is missing is to be drawn; set by `imputing`.
    noise: PRNGKeyArray | None = None

    def __post_init__(self):
        # Under transformations the families come as a tuple.
        if not isinstance(self.parts, Mapping):
            return
        names = tuple(key if isinstance(key, tuple) else (key,) for key in self.parts)
        families = tuple(self.parts.values())
        columns = [name for own in names for name in own]
        if not columns or not all(names):
            raise ValueError("parts: needs a family for each of some columns, found none")
        for name in columns:
            if not isinstance(name, str):
                raise TypeError(f"parts: columns are called by text, found {name!r}")
            if columns.count(name) > 1:
                raise ValueError(f"parts: column {name!r} occurs twice")
        for family in families:
            if not isinstance(family, Family) or isinstance(family, Product):
                raise TypeError(f"parts: needs families such as jaxgmm.Gaussian, found {family!r}")
        families = tuple(one.called(own) for one, own in zip(families, names, strict=True))
        object.__setattr__(self, "parts", families)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "categories", (None,) * len(columns))

    # -- the parts -------------------------------------------------------------------

    @property
    def column_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(name for own in self.names for name in own)

    @property
    def given_names(self) -> tuple[str, ...]:  # type: ignore[override]
        named = zip(self.column_names, self.kinds(len(self.column_names)), strict=True)
        return tuple(name for name, kind in named if kind == "given")

    @property
    def each(self) -> list[_Part]:
        found, start = [], 0
        for names, family in zip(self.names, self.parts, strict=True):
            key = names[0] if len(names) == 1 else f"{names[0]}:{names[-1]}"
            found.append(_Part(key, family, slice(start, start + len(names))))
            start += len(names)
        return found

    def _with(self, of: Callable[[_Part], Family]) -> Product:
        return dataclasses.replace(self, parts=tuple(map(of, self.each)))

    def _params(self, params: MixtureParams) -> list[tuple[_Part, Params]]:
        return [
            (part, part.family.from_sites(params.weights, part.own(params.own)))
            for part in self.each
        ]

    def _mapped(
        self, params: MixtureParams, change: Callable[[_Part, Params], Params]
    ) -> MixtureParams:
        own = {}
        for part, inner in self._params(params):
            own |= part.named(part.family.sites(change(part, inner)))
        return dataclasses.replace(params, own=own)

    @property
    def closed(self) -> bool:  # type: ignore[override]
        return all(family.closed for family in self.parts)

    @property
    def moves(self) -> bool:  # type: ignore[override]
        return any(family.moves for family in self.parts)

    @property
    def weighs(self) -> bool:  # type: ignore[override]
        return any(family.weighs for family in self.parts)

    @property
    def places(self) -> Any:
        return np.array([part.family.moves for part in self.each for _ in range(part.width)])

    @property
    def holes(self) -> bool:  # type: ignore[override]
        return any(family.holes for family in self.parts)

    @property
    def incomplete(self) -> bool:
        return any(family.incomplete for family in self.parts)

    @property
    def imputes(self) -> bool:
        return any(family.imputes for family in self.parts)

    @property
    def needs_given(self) -> bool:  # type: ignore[override]
        return any(family.needs_given for family in self.parts)

    @property
    def default_start(self) -> str:  # type: ignore[override]
        """That of a part which has one of its own."""
        usual = Family.default_start
        own = [f.default_start for f in self.parts if f.default_start != usual]
        return own[0] if own else usual

    @property
    def conjugate_prior(self) -> str:  # type: ignore[override]
        return 'prior="weak"'

    @property
    def row_support(self) -> constraints.Constraint:  # type: ignore[override]
        """What a row is: checked part by part at the door."""
        return constraints.real_vector

    @property
    def name(self) -> str:
        return f"Product({', '.join(family.name for family in self.parts)})"

    @property
    def label(self) -> str:
        return self._written(lambda family: family.label)

    def __repr__(self) -> str:
        return self.label

    @property
    def code(self) -> str:
        return f"jg.families.{self._written(lambda family: family.code)}"

    def _written(self, text: Callable[[Family], str]) -> str:
        keys = [own[0] if len(own) == 1 else own for own in self.names]
        pairs = zip(keys, self.parts, strict=True)
        return "Product({" + ", ".join(f"{key!r}: {text(family)}" for key, family in pairs) + "})"

    @property
    def formula(self) -> str:  # type: ignore[override]
        return " × ".join(f"{part.family.formula}_{{{part.key}}}" for part in self.each)

    # -- tables ----------------------------------------------------------------------

    def kinds(self, d: int) -> tuple[str | None, ...]:
        return tuple(kind for part in self.each for kind in part.family.kinds(part.width))

    def read(self, x: Any) -> tuple[Product, Any]:
        if isinstance(x, (Coded, Tracer)):
            return self, x
        names = self.column_names
        if not is_table(x):
            rows = x if isinstance(x, jax.Array) else numeric("x", x)
            if rows.ndim == 1 and len(names) == 1:
                rows = rows[:, None]
            if rows.ndim != 2 or rows.shape[1] != len(names):
                raise ValueError(
                    f"x: needs a table, or {len(names)} column(s) in the order "
                    f"{', '.join(map(repr, names))}, found an array of shape {rows.shape}"
                )
            return self, Coded(rows, names)
        levels = {
            name: part.family.n_levels
            for part in self.each
            for name in names[part.columns]
            if part.family.n_levels is not None
        }
        columns = taken(x, names)
        numbers, found = coded(columns, levels, dict(zip(names, self.categories, strict=True)))
        known = dataclasses.replace(self, categories=tuple(found[name] for name in names))
        return known, joined(x, columns, numbers)

    def lacks(self, given: np.ndarray) -> np.ndarray:
        own = [part.family.lacks(given[:, part.columns]) for part in self.each]
        return np.concatenate(own, axis=1)

    def check_names(self, names: tuple[str, ...]) -> None:
        needed = self.column_names
        if names not in (needed, tuple(f"x{j}" for j in range(len(needed)))):
            raise ValueError(
                f"x: needs the columns {', '.join(map(repr, needed))} in this order, found "
                f"{', '.join(map(repr, names))}; jaxgmm.stream(source, columns=...) takes them"
            )

    def table(self, rows: np.ndarray, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        columns = zip(self.column_names, rows.T, self.categories, strict=True)
        return {name: decoded(codes, categories) for name, codes, categories in columns}

    def coords(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for part in self.each:
            names = list(self.column_names[part.columns])
            own: dict[str, list[Any]] = {"feature": names, "feature_bis": names}
            own |= part.family.coords()
            words = set(self.categories[part.columns])
            if part.family.n_levels is not None:
                # Columns of one part may have words of their own.
                common = words.pop() if len(words) == 1 else None
                own["level"] = list(common or range(part.family.n_levels))
            found |= part.named(own)
        return found

    # -- parameters and their sites ----------------------------------------------------

    def from_sites(self, weights: Array, sites: Sites, prior: Any = None) -> MixtureParams:
        own = {}
        for part in self.each:
            made = part.family.from_sites(weights, part.own(sites), part.prior(prior))
            own |= part.named(part.family.sites(made))
        return MixtureParams(weights, own)

    def sites(self, params: MixtureParams, prior: Any = None) -> Sites:
        found: Sites = {}
        for part, inner in self._params(params):
            found |= part.named(part.family.sites(inner, part.prior(prior)))
        return found

    def checked(self, own: dict[str, Any], k: int) -> Sites:
        for name in own:
            if not any(part.own({name: None}) for part in self.each):
                keys = ", ".join(part.key for part in self.each)
                raise TypeError(f"{name}: belongs to no part of {self.label}, which has {keys}")
        found: Sites = {}
        for part in self.each:
            try:
                sites = part.family.checked(part.own(own), k)
            except (ValueError, TypeError) as error:
                raise type(error)(f"{part.key}.{error}") from None
            width = part.family.n_columns(part.family.from_sites(jnp.ones(k), sites))
            if width != part.width:
                names = ", ".join(part.named(sites))
                raise ValueError(f"{names}: needs {part.width} column(s), found {width}")
            found |= part.named(sites)
        return found

    def n_columns(self, params: MixtureParams) -> int:
        return len(self.column_names)

    def n_parameters(self, k: int, d: int) -> int:
        return sum(part.family.n_parameters(k, part.width) for part in self.each)

    def site_dims(self) -> dict[str, list[str]]:
        of = lambda part, dim: dim if dim == "component" else f"{part.key}.{dim}"
        return {
            name: [of(part, dim) for dim in dims]
            for part in self.each
            for name, dims in part.named(part.family.site_dims()).items()
        }

    def derived_sites(self, params: MixtureParams) -> Sites:
        found: Sites = {}
        for part, inner in self._params(params):
            found |= part.named(part.family.derived_sites(inner))
        return found

    def permute(self, params: MixtureParams, order: Array) -> MixtureParams:
        return self._mapped(params, lambda part, inner: part.family.permute(inner, order))

    def retract(self, params: MixtureParams, tangent: Float[Array, " p"]) -> MixtureParams:
        k, steps, start = params.weights.shape[0], {}, 0
        for part in self.each:
            size = part.family.n_parameters(k, part.width)
            steps[part.key] = tangent[start : start + size]
            start += size
        move = lambda part, inner: part.family.retract(inner, steps[part.key])
        return self._mapped(params, move)

    def edges(self, params: MixtureParams) -> Bool[Array, " p"]:
        return jnp.concatenate([part.family.edges(own) for part, own in self._params(params)])

    def inwards(self, params: MixtureParams, margin: Array | float) -> MixtureParams:
        return self._mapped(params, lambda part, inner: part.family.inwards(inner, margin))

    # -- rows --------------------------------------------------------------------------

    def sample(self, params: MixtureParams, key: PRNGKeyArray, labels: Array) -> Array:
        return self._drawn(
            params, key, lambda part, inner, own: part.family.sample(inner, own, labels)
        )

    def sample_given(
        self, params: MixtureParams, key: PRNGKeyArray, labels: Array, given: Array
    ) -> Array:
        def draw(part: _Part, inner: Params, own: PRNGKeyArray) -> Array:
            return part.family.sample_given(inner, own, labels, given[:, part.columns])

        return self._drawn(params, key, draw)

    def _drawn(self, params: MixtureParams, key: PRNGKeyArray, draw: Callable[..., Array]) -> Array:
        keys = jax.random.split(key, len(self.parts))
        pairs = zip(self._params(params), keys, strict=True)
        return jnp.concatenate([draw(*one, own) for one, own in pairs], axis=-1)

    def embed(self, x: Array) -> Float[Array, "n e"]:
        own = [part.family.embed(x[:, part.columns]) for part in self.each]
        return jnp.concatenate(own, axis=1)

    def marginal(self, params: MixtureParams, column: Array | int, grid: Float[Array, " m"]):
        """(K, m): weight times density of values of one column."""
        columns = [
            functools.partial(part.family.marginal, inner, j)
            for part, inner in self._params(params)
            for j in range(part.width)
        ]
        return lax.switch(column, columns, grid)

    def row_weights(self, params: MixtureParams, x: Array) -> Float[Array, "k n"]:
        """The product of those of the parts."""
        own = [part.family.row_weights(p, x[:, part.columns]) for part, p in self._params(params)]
        return jnp.prod(jnp.stack(own), axis=0)

    def features(self, x: Array) -> Array:
        """The rows as they are: their parts make of them what they need."""
        return x

    def log_density(self, params: MixtureParams, features: Array) -> Float[Array, "k n"]:
        return self._total(self._params(params), features)

    def _total(self, params: list[tuple[_Part, Params]], x: Array) -> Float[Array, "k n"]:
        """Log density of each row of a block, every part in the form that keeps its digits."""

        def own(part: _Part, inner: Params) -> Float[Array, "k n"]:
            rows = x[:, part.columns]
            return part.family.look(inner, rows, lambda view: view.log_density(rows))

        return _sum(own(*one) for one in params)

    def sums(self, features: Array, weights: Float[Array, "k n"]) -> Joint:
        labels = lambda rows, first: lax.dynamic_slice_in_dim(weights.T, first, rows.shape[0])
        return self.at_labels(labels, features, None, len(weights))

    def statistics(self, sums: Joint) -> Joint:
        return sums

    def block_rows(self, x: Array, n_components: int) -> int:
        own = (part.family.block_rows(x[:, part.columns], n_components) for part in self.each)
        return min(own)

    def settled(self, params: MixtureParams) -> Product:
        parts = tuple(part.family.settled(inner) for part, inner in self._params(params))
        return dataclasses.replace(self, parts=parts)

    def decided(self) -> Product:
        return self._with(lambda part: part.family.decided())

    def looked(self, x: Array, sample_weight: Array | None) -> Product:
        return self._with(lambda part: part.family.looked(x[:, part.columns], sample_weight))

    def imputing(self, key: PRNGKeyArray) -> Product:
        return dataclasses.replace(self, noise=key)

    def impute(
        self,
        params: MixtureParams,
        x: Array,
        labels: Float[Array, "n k"],
        key: PRNGKeyArray | None,
    ) -> Array:
        filled = []
        for i, (part, inner) in enumerate(self._params(params)):
            rows = x[:, part.columns]
            if part.family.incomplete:
                own = None if key is None else jax.random.fold_in(key, i)
                rows = part.family.impute(inner, rows, labels, own)
            filled.append(rows)
        return jnp.concatenate(filled, axis=1)

    # -- EM ------------------------------------------------------------------------------

    def e_step(
        self,
        log_weights: Float[Array, " k"],
        params: MixtureParams,
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Joint, Array]:
        inner = self._params(params)
        own = {part.key: params for part, params in inner}

        def statistics(part: _Part, family: Family, *rows: Any) -> Statistics:
            return family.e_step(log_weights, own[part.key], *rows)[0]

        logits = lambda rows: log_weights[:, None] + self._total(inner, rows)
        return self._labelled(logits, statistics, x, sample_weight, assign, len(log_weights))

    def _labelled(
        self,
        logits: Callable[[Array], Float[Array, "k n"]],
        statistics: Callable[..., Statistics],
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
        k: int,
    ) -> tuple[Joint, Array]:
        """The rows labelled by all parts together; then each makes its own statistics.

        ``statistics`` is of a part, its family, rows, weights and an assignment.
        """

        def block(rows: Array, weights: Array, first: Array | int) -> tuple[Joint, Array]:
            labels, value = assign(logits(rows), first)
            found, given = [], known_labels(labels)
            for i, part in enumerate(self.each):
                family = part.family
                if self.noise is not None:
                    key = jax.random.fold_in(jax.random.fold_in(self.noise, first), i)
                    family = family.imputing(key)
                found.append(statistics(part, family, rows[:, part.columns], weights, given))
            return Joint(found[0].counts, tuple(found)), weights @ value

        add = lambda one, other: (self.add(one[0], other[0]), one[1] + other[1])
        return sum_over_blocks(block, x, sample_weight, self.block_rows(x, k), add)

    def at_labels(
        self,
        labels: Callable[[Array, Array | int], Array],
        x: Array,
        sample_weight: Array | None,
        k: int,
    ) -> Joint:
        def block(rows: Array, weights: Array, first: Array | int) -> Joint:
            known = labels(rows, first)
            own = lambda rows, first: lax.dynamic_slice_in_dim(known, first, rows.shape[0])
            parts = tuple(
                part.family.at_labels(own, rows[:, part.columns], weights, k) for part in self.each
            )
            return Joint(parts[0].counts, parts)

        return sum_over_blocks(block, x, sample_weight, self.block_rows(x, k), self.add)

    def _each_statistics(self, change: Callable[..., Statistics], *statistics: Joint) -> Joint:
        """``change`` of each family and its part of the statistics."""
        of_parts = zip(*(one.parts for one in statistics), strict=True)
        pairs = zip(self.parts, of_parts, strict=True)
        parts = tuple(change(family, *own) for family, own in pairs)
        return Joint(parts[0].counts, parts)

    def shrunk(self, statistics: Joint) -> Joint:
        return self._each_statistics(lambda family, own: family.shrunk(own), statistics)

    def filled(self, statistics: Joint, present: Array) -> Joint:
        return self._each_statistics(lambda family, own: family.filled(own, present), statistics)

    def add(self, one: Joint, other: Joint) -> Joint:
        return self._each_statistics(lambda family, *own: family.add(*own), one, other)

    def scaled(self, statistics: Joint, share: Array | float) -> Joint:
        return self._each_statistics(lambda family, own: family.scaled(own, share), statistics)

    def update(
        self,
        statistics: Joint,
        prior: ProductPrior | None,
        params: MixtureParams | None = None,
        share: Array | float = 1.0,
    ) -> Sites:
        before = [None] * len(self.parts)
        if params is not None:
            before = [inner for _, inner in self._params(params)]
        found: Sites = {}
        for part, own, inner in zip(self.each, statistics.parts, before, strict=True):
            update: Callable[..., Sites] = part.family.update
            step = {} if part.family.closed else {"share": share}
            found |= part.named(update(own, part.prior(prior), inner, **step))
        return found

    # -- priors --------------------------------------------------------------------------

    def prior_of(self, distributions: dict[str, Any]) -> ProductPrior:
        of_weights = {SIMPLEX.site, STICKS.site}
        weights = {name: one for name, one in distributions.items() if name in of_weights}
        known, parts = set(weights), {}
        for part in self.each:
            own = part.own(distributions)
            given = distributions.get(part.key)
            if given is None:
                parts[part.key] = part.family.prior_of({**weights, **own})
                known |= set(part.named(own))
                continue
            if not isinstance(given, ConjugatePrior):
                raise TypeError(
                    f"prior: {part.key!r} needs a ConjugatePrior, or distributions of its sites "
                    f"such as {next(iter(part.named(part.family.site_dims())))!r}; found {given!r}"
                )
            parts[part.key] = given
            known.add(part.key)
        for name in distributions:
            if name not in known:
                keys = ", ".join(repr(part.key) for part in self.each)
                raise ValueError(f"prior: {name!r} is of none of the parts {keys}")
        return ProductPrior(weights, parts)

    def prior_sites(self, prior: ProductPrior | None, k: int, d: int) -> Prior:
        found: dict[str, Callable[[Sites], dist.Distribution]] = {}
        for part in self.each:
            own = part.family.prior_sites(part.prior(prior), k, part.width)
            found |= part.named(
                {
                    site: lambda sites, part=part, given=given: given(part.own(sites))
                    for site, given in own.items()
                }
            )
        return found

    def default_prior(
        self, rule: str, x: Array, sample_weight: Array | None, k: int, free: bool
    ) -> ProductPrior:
        """That of each part by the same rule."""
        parts = {
            part.key: part.family.default_prior(rule, x[:, part.columns], sample_weight, k, free)
            for part in self.each
        }
        weights = {SIMPLEX.site: dist.Dirichlet(jnp.ones(k, x.dtype))} if free else {}
        return ProductPrior(weights, parts)

    def _each_prior(
        self, prior: ProductPrior | None, change: Callable[[_Part, Any], Any]
    ) -> ProductPrior | None:
        if prior is None:
            return None
        parts = {part.key: change(part, part.prior(prior)) for part in self.each}
        return dataclasses.replace(prior, parts=parts)

    def sized(self, prior: ProductPrior | None, k: int, d: int, dtype: Any) -> ProductPrior | None:
        own = lambda part, prior: part.family.sized(prior, k, part.width, dtype)
        prior = self._each_prior(prior, own)
        return None if prior is None else prior.sized(k, d, dtype)

    def iterates(self, prior: Any) -> bool:
        return any(part.family.iterates(part.prior(prior)) for part in self.each)

    def bounded(self, prior: ProductPrior | None, free: bool) -> bool:
        return all(part.family.bounded(part.prior(prior), free) for part in self.each)

    def ascends(self) -> Array:
        return jnp.all(jnp.stack([family.ascends() for family in self.parts]))

    def check_conjugate(self, prior: ProductPrior) -> None:
        for part in self.each:
            with _worded(part):
                part.family.check_conjugate(part.prior(prior))

    def updated(self, statistics: Joint, prior: ProductPrior) -> ProductPrior:
        own = zip(self.each, statistics.parts, strict=True)
        parts = {part.key: part.family.updated(of, part.prior(prior)) for part, of in own}
        return dataclasses.replace(prior, parts=parts)

    def centre(self, prior: ProductPrior, k: int, d: int) -> tuple[Sites, Float[Array, " k"]]:
        found: Sites = {}
        constants = []
        for part in self.each:
            sites, constant = part.family.centre(part.prior(prior), k, part.width)
            found |= part.named(sites)
            constants.append(constant)
        return found, _sum(constants)

    def mean_log_density(self, prior: ProductPrior, x: Array, k: int) -> Float[Array, "k n"]:
        return _sum(
            part.family.mean_log_density(part.prior(prior), x[:, part.columns], k)
            for part in self.each
        )

    def expected_step(
        self,
        prior: ProductPrior,
        log_weights: Float[Array, " k"],
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Joint, Array]:
        k = len(log_weights)

        def statistics(part: _Part, family: Family, *rows: Any) -> Statistics:
            return family.expected_step(part.prior(prior), log_weights, *rows)[0]

        logits = lambda rows: log_weights[:, None] + self.mean_log_density(prior, rows, k)
        return self._labelled(logits, statistics, x, sample_weight, assign, k)

    def divergence(self, prior: ProductPrior, other: ProductPrior, k: int, d: int) -> Array:
        return _sum(
            part.family.divergence(part.prior(prior), part.prior(other), k, part.width)
            for part in self.each
        )

    # -- rows far from zero --------------------------------------------------------------

    def moved_prior(self, prior: Any, offset: Any) -> Any:
        if not isinstance(prior, ProductPrior):
            return prior
        own = lambda part, prior: part.family.moved_prior(prior, offset[part.columns])
        return self._each_prior(prior, own)

    def moved(self, params: Any, offset: Any) -> Any:
        if isinstance(params, MixtureParams):
            return dataclasses.replace(params, own=self.moved(params.own, offset))
        if not isinstance(params, Mapping):
            return params
        found = dict(params)
        for part in self.each:
            own = part.family.moved(part.own(params), offset[part.columns])
            found |= part.named(own)
        return found

    def origin(self, params: MixtureParams) -> np.ndarray | None:
        own = [part.family.origin(inner) for part, inner in self._params(params)]
        if all(origin is None for origin in own):
            return None
        each = zip(self.each, own, strict=True)
        return np.concatenate([np.zeros(p.width) if at is None else at for p, at in each])

    # -- units ---------------------------------------------------------------------------

    def standardise(
        self, x: Array, sample_weight: Array | None, prior: ProductPrior | None
    ) -> tuple[Product, ProductPrior | None]:
        made = {
            part.key: part.family.standardise(x[:, part.columns], sample_weight, part.prior(prior))
            for part in self.each
        }
        return self._in_units(prior, made)

    def in_user_units(self, prior: ProductPrior) -> tuple[Product, ProductPrior | None]:
        made = {part.key: part.family.in_user_units(part.prior(prior)) for part in self.each}
        return self._in_units(prior, made)

    def _in_units(
        self, prior: ProductPrior | None, made: dict[str, tuple[Family, Any]]
    ) -> tuple[Product, ProductPrior | None]:
        prior = self._each_prior(prior, lambda part, _: made[part.key][1])
        return self._with(lambda part: made[part.key][0]), prior

    def log_units(self, prior: ProductPrior | None, k: int, d: int | None) -> Array | None:
        own = [part.family.log_units(part.prior(prior), k, part.width) for part in self.each]
        moved = [units for units in own if units is not None]
        return _sum(moved) if moved else None

    def to_working(self, params: MixtureParams) -> MixtureParams:
        return self._mapped(params, lambda part, inner: part.family.to_working(inner))

    def to_user(self, params: MixtureParams) -> MixtureParams:
        return self._mapped(params, lambda part, inner: part.family.to_user(inner))

    # -- doors and health ------------------------------------------------------------------

    def check_rows(self, x: np.ndarray) -> None:
        for part in self.each:
            rows = x[:, part.columns]
            with _of_columns(part):
                holes = np.isnan(rows)
                if not part.family.holes and holes.any():
                    row, column = np.argwhere(holes)[0]
                    raise ColumnRefused(
                        f"x: {part.family.label} has no missing values, found nan at row {row}, "
                        "{column}; drop or impute such rows",
                        int(column),
                    )
                part.family.check_rows(rows)

    def check_rule(self, rule: str, x: np.ndarray, total_weight: float) -> None:
        for part in self.each:
            with _of_columns(part):
                part.family.check_rule(rule, x[:, part.columns], total_weight)

    def check_prior(self, prior: Any, k: int, d: int, free: bool) -> None:
        if not isinstance(prior, ProductPrior):
            raise TypeError(
                f"prior: {type(prior).__name__} is of Gaussian components; {self.label} takes "
                'None, "weak", or a dictionary by site and part'
            )
        prior.check({}, k, free)
        for part in self.each:
            with _worded(part):
                part.family.check_prior(part.prior(prior), k, part.width, free)

    def check_bounded(self, x: np.ndarray, k: int) -> None:
        for part in self.each:
            with _of_columns(part):
                part.family.check_bounded(x[:, part.columns], k)

    def check_mode(self, prior: ProductPrior | None) -> None:
        for part in self.each:
            with _worded(part):
                part.family.check_mode(part.prior(prior))

    def collapsed(self, params: MixtureParams, bounded: bool) -> Array:
        lost = [part.family.collapsed(own, bounded) for part, own in self._params(params)]
        return jnp.any(jnp.stack(lost))

    def cancellation(self, params: MixtureParams) -> Array:
        return _sum(part.family.cancellation(own) for part, own in self._params(params))

    def spurious(self, params: MixtureParams, statistics: Joint) -> Array:
        of_parts = zip(self._params(params), statistics.parts, strict=True)
        found = [
            part.family.spurious(inner, own._replace(counts=statistics.counts))
            for (part, inner), own in of_parts
        ]
        return jnp.any(jnp.stack(found))


def _sum(terms: Iterable[Array]) -> Array:
    first, *others = terms
    return sum(others, first)


@contextlib.contextmanager
def _of_columns(part: _Part) -> Iterator[None]:
    """What a part refuses in here is of a column of the whole."""
    try:
        yield
    except ColumnRefused as refusal:
        sentence, column, names = refusal.args
        raise ColumnRefused(sentence, column + part.columns.start, names) from None


@contextlib.contextmanager
def _worded(part: _Part) -> Iterator[None]:
    """What is refused in here says of which part."""
    try:
        yield
    except (ValueError, TypeError) as error:
        message = reworded(str(error), {"prior": f"prior of {part.key!r}"})
        raise type(error)(message) from None
