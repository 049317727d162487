"""A background beside the components: rows that belong to none of them, uniform in a box."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgmm._contract import Assignment, Params, Sites, Statistics
from jaxgmm._numerics import sum_over_blocks
from jaxgmm._sharded import of_all, of_block, rows_here, spans_processes
from jaxgmm.files import ColumnRefused, numeric, stored
from jaxgmm.model._around import Around
from jaxgmm.model._family import View
from jaxgmm.model._prior import ConjugatePrior
from jaxgmm.model._product_prior import ProductPrior
from jaxgmm.model._site_family import MixtureParams
from jaxgmm.model._site_prior import SitePrior
from jaxgmm.model._tree import pytree
from jaxgmm.model._weights import SIMPLEX, STICKS

BACKGROUND = "background"

# What a start gives to the background of every row.
_AT_START = 0.1

# Rows leave the box only by more than so many units of rounding of its sides.
_SLACK = 8.0

# Columns a uniform density is of, and those where it is a mass: values are whole numbers.
_WHOLE = ("counts", "levels")
_KNOWN = ("numbers", "positives", "responses", "given", *_WHOLE)


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class Uniform:
    """The same density everywhere in a box, as the background of a `Mixture`.

    Parameters
    ----------
    low, high : (D,) arrays or floats, optional
        Sides of the box, in the units of the data; by default the least and the greatest value of
        each column of the data that a model is fitted to. Of counts and codes the least and the
        greatest whole number.

    Raises
    ------
    ValueError
        Where only one side is given, or a side has no length; from `jaxgmm.fit` for rows outside,
        and for a side that the data do not tell.

    Notes
    -----
    The density has no parameters: one over the volume of the box, times the weight of the
    background (Banfield and Raftery, 1993). A NaN is integrated out.

    References
    ----------
    Banfield and Raftery (1993), Biometrics 49:803-821.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("faithful").x
    >>> model = jg.Mixture(jg.Gaussian(), 3, background=jg.Uniform()).resolve(x)
    >>> model.family.uniform.high.tolist()
    [5.1, 96.0]
    >>> model.label_groups
    (0, 0, 1)
    """

    low: Any = None
    high: Any = None

    def __post_init__(self):
        if (self.low is None) != (self.high is None):
            raise ValueError("Uniform: needs both low and high, or neither")
        # Under transformations anything may stand here.
        if self.low is None or not _written(self.low) or not _written(self.high):
            return
        low, high = numeric("low", self.low), numeric("high", self.high)
        if not np.all(np.isfinite(low)) or not np.all(np.isfinite(high)):
            raise ValueError("Uniform: low and high must be finite")
        if low.ndim > 1 or high.ndim > 1 or not np.all(high >= low):
            raise ValueError(
                f"Uniform: needs a low and a high for each column, low below high, found "
                f"{low.tolist()} and {high.tolist()}"
            )
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    @property
    def known(self) -> bool:
        """Whether the box has sides."""
        return self.low is not None

    @property
    def code(self) -> str:
        """Python that makes it."""
        if not self.known:
            return "jg.Uniform()"
        low, high = np.asarray(self.low), np.asarray(self.high)
        return f"jg.Uniform(low={low.tolist()}, high={high.tolist()})"


def _written(side: Any) -> bool:
    return isinstance(side, (int, float, list, tuple, np.ndarray))


@stored
class Beside(NamedTuple):
    """Effective rows of all labels, (K,), and the statistics of the components."""

    counts: Array
    components: Statistics


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class Background(Around):
    """Components of a family, and beside them, under the last label, a `Uniform` density.

    `Mixture` makes it of its argument ``background``. Parameters are `MixtureParams` with the
    sites of the components, K - 1 of them.
    """

    uniform: Uniform

    labels_apart = (BACKGROUND,)

    # -- the components --------------------------------------------------------------

    def components(self, params: MixtureParams) -> Params:
        """Parameters of the components alone, their weights summing to one."""
        weights = params.weights[..., :-1]
        total = weights.sum(axis=-1, keepdims=True)
        return self.family.from_sites(weights / jnp.where(total > 0, total, 1), params.own)

    @property
    def beside(self) -> dict[str, str]:
        return {BACKGROUND: self.uniform.code}

    def _count(self, k: int) -> int:
        return k - 1

    # -- parameters and their sites ----------------------------------------------------

    def from_sites(self, weights: Array, sites: Sites, prior: Any = None) -> MixtureParams:
        made = self.family.from_sites(weights[..., :-1], sites, prior)
        return MixtureParams(weights, self.family.sites(made))

    def sites(self, params: MixtureParams, prior: Any = None) -> Sites:
        return self.family.sites(self.components(params), prior)

    def site_dims(self) -> dict[str, list[str]]:
        return {"weights": ["label"], **super().site_dims()}

    def normals(self, params: MixtureParams) -> Any:
        """Their weights as they are, which do not sum to one."""
        return self.family.normals(self.family.from_sites(params.weights[..., :-1], params.own))

    def permute(self, params: MixtureParams, order: Array) -> MixtureParams:
        return self._mapped(params, lambda inner: self.family.permute(inner, order[:-1]))

    # -- the box -----------------------------------------------------------------------

    def _sides(self, d: int, dtype: Any) -> tuple[Array, Array, Array]:
        """Its low and high corner, and the volume of each column in units of its values."""
        if not self.uniform.known:
            raise ValueError(
                "background: its box is that of the data: call model.resolve(x) first, use "
                "fit.model, or give jaxgmm.Uniform low and high"
            )
        corner = lambda side: jnp.broadcast_to(self._corner(jnp.asarray(side, dtype), d), (d,))
        low, high = corner(self.uniform.low), corner(self.uniform.high)
        return low, high, high - low + self._steps(d).astype(dtype)

    def _steps(self, d: int) -> np.ndarray:
        """How far apart the values of a column are that have masses; 0 where there are none."""
        return np.array([1.0 if kind in _WHOLE else 0.0 for kind in self.family.kinds(d)])

    def _given(self, d: int) -> np.ndarray:
        """Which columns are not drawn."""
        return np.array([kind == "given" for kind in self.family.kinds(d)])

    def _corner(self, side: Any, d: int) -> Any:
        """One with numbers for the columns that are drawn only, for all of them."""
        drawn = ~self._given(d)
        if np.ndim(side) == 0 or len(side) == d or len(side) != np.sum(drawn):
            return side
        return side[np.maximum(np.cumsum(drawn) - 1, 0)]

    def log_uniform(self, x: Array) -> Float[Array, " n"]:
        """Log density of rows in the box; what is missing is integrated out."""
        low, high, sides = self._sides(x.shape[1], x.dtype)
        slack = _SLACK * jnp.finfo(x.dtype).eps * jnp.maximum(jnp.abs(low), jnp.abs(high))
        # What is given has no density.
        there = ~jnp.isnan(x) & ~self._given(x.shape[1])
        outside = there & ((x < low - slack) | (x > high + slack))
        volume = jnp.sum(jnp.where(there, jnp.log(sides), 0), axis=1)
        return jnp.where(jnp.any(outside, axis=1), -jnp.inf, -volume)

    def _under_all(self, components: Float[Array, "k-1 n"], x: Array) -> Float[Array, "k n"]:
        """What is known of rows under the components, the background's density beside it."""
        return jnp.concatenate([components, self.log_uniform(x)[None]])

    def looked(self, x: Array, sample_weight: Array | None) -> Background:
        uniform = self.uniform
        if not uniform.known:
            rows = x
            if not isinstance(x, Tracer):
                rows = rows_here(x)
                rows = rows if sample_weight is None else rows[rows_here(sample_weight) > 0]
            elif sample_weight is not None:
                rows = jnp.where(sample_weight[:, None] > 0, x, jnp.nan)
            xp = jnp if isinstance(rows, Tracer) else np
            edges: Any = xp.nanmin(rows, axis=0), xp.nanmax(rows, axis=0)
            if spans_processes(x):
                edges = of_all(edges[0][None]).min(axis=0), of_all(edges[1][None]).max(axis=0)
            uniform = Uniform(*edges)
        family = self.family.looked(x, sample_weight)
        return dataclasses.replace(self, family=family, uniform=uniform)

    def translated(self, offset: Any) -> Background:
        family, uniform = self.family.translated(offset), self.uniform
        if uniform.known:
            wide = lambda side: self._corner(np.asarray(side, np.float64), len(offset))
            moved = lambda side: wide(side) + offset
            uniform = Uniform(moved(uniform.low), moved(uniform.high))
        return dataclasses.replace(self, family=family, uniform=uniform)

    # -- rows --------------------------------------------------------------------------

    def check_names(self, names: tuple[str, ...]) -> None:
        if not self.uniform.known:
            raise ValueError(
                "background: the box of a stream is not known before all of it is read; give "
                "jaxgmm.Uniform low and high"
            )
        super().check_names(names)

    def sample(self, params: MixtureParams, key: PRNGKeyArray, labels: Array) -> Array:
        return self._rows_beside(params, key, labels, self.family.sample)

    def sample_given(
        self, params: MixtureParams, key: PRNGKeyArray, labels: Array, given: Array
    ) -> Array:
        return self._rows_beside(
            params, key, labels, functools.partial(self.family.sample_given, given=given)
        )

    def _rows_beside(
        self, params: MixtureParams, key: PRNGKeyArray, labels: Array, sample: Callable[..., Array]
    ) -> Array:
        key_own, key_box = jax.random.split(key)
        last = params.weights.shape[0] - 1
        rows = sample(self.components(params), key_own, jnp.minimum(labels, last - 1))
        drawn = self._drawn(key_box, rows.shape, rows.dtype)
        boxed = (labels == last)[..., None] & ~self._given(rows.shape[-1])
        return jnp.where(boxed, drawn, rows)

    def _drawn(self, key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Array:
        low, _, sides = self._sides(shape[-1], dtype)
        drawn = low + sides * jax.random.uniform(key, shape, dtype)
        return jnp.where(self._steps(shape[-1]) > 0, jnp.floor(drawn), drawn)

    def placed(self, labels: Float[Array, "n k-1"]) -> Float[Array, "n k"]:
        most = (1 - _AT_START) * labels
        return jnp.concatenate([most, jnp.full((len(labels), 1), _AT_START, labels.dtype)], axis=1)

    def marginal(
        self, params: MixtureParams, column: Array | int, grid: Float[Array, " m"]
    ) -> Float[Array, "k m"]:
        """Weight times density, or mass, of values of one column."""
        own = self.family.marginal(self.components(params), column, grid)  # type: ignore
        low, high, sides = (
            side[column] for side in self._sides(self.n_columns(params), grid.dtype)
        )
        flat = jnp.where((grid < low) | (grid > high), 0, 1 / sides)
        share = params.weights[-1]
        return jnp.concatenate([own * (1 - share), share * flat[None]])

    def row_weights(self, params: MixtureParams, x: Array) -> Float[Array, "k n"]:
        own = self.family.row_weights(self.components(params), x)
        return jnp.concatenate([own, jnp.ones((1, len(x)), own.dtype)])

    def look(self, params: MixtureParams, x: Array, see: Callable[[View], Array]) -> Array:
        def beside(view: View) -> Array:
            density = lambda rows: self._under_all(view.log_density(rows), rows)
            return see(view._replace(log_density=density))

        return self.family.look(self.components(params), x, beside)

    def sums(self, features: Array, weights: Float[Array, "k n"]) -> Beside:
        labels = lambda rows, first: lax.dynamic_slice_in_dim(weights.T, first, rows.shape[0])
        return self.at_labels(labels, features, None, len(weights))

    def impute(
        self,
        params: MixtureParams,
        x: Array,
        labels: Float[Array, "n k"],
        key: PRNGKeyArray | None,
    ) -> Array:
        """Under the background what is missing is anywhere in the box, its centre expected.

        Of codes, which have no centre, all are as probable there.
        """
        share, own = labels[:, -1:], labels[:, :-1]
        total = jnp.sum(own, axis=1, keepdims=True)
        own = jnp.where(total > 0, own / jnp.where(total > 0, total, 1), 1 / own.shape[1])
        key_own, key_box = (None, None) if key is None else jax.random.split(key)
        rows = self.family.impute(self.components(params), x, own, key_own)
        d = rows.shape[1]
        seen = x[:, :d]
        if key_box is None:
            low, _, sides = self._sides(x.shape[1], x.dtype)
            flat = (low + (sides - self._steps(x.shape[1]).astype(x.dtype)) / 2)[:d]
            codes = np.array([kind == "levels" for kind in self.kinds(x.shape[1])])[:d]
            flat = jnp.where(codes, rows, flat)
        else:
            flat = self._drawn(key_box, x.shape, x.dtype)[:, :d]
        # Of what was seen the background knows no better.
        flat = jnp.where(jnp.isnan(seen), flat, seen)
        return jnp.where(rows == seen, rows, (1 - share) * rows + share * flat)

    # -- EM ------------------------------------------------------------------------------

    def e_step(
        self,
        log_weights: Float[Array, " k"],
        params: MixtureParams,
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Beside, Array]:
        beside = self._beside(log_weights, x, assign)
        found, value = self.family.e_step(
            log_weights[:-1], self.components(params), x, sample_weight, beside
        )
        return self._counted(found, x, sample_weight), value

    def _beside(self, log_weights: Float[Array, " k"], x: Array, assign: Assignment) -> Assignment:
        """The assignment to all labels, for whoever knows the components only."""
        background = log_weights[-1] + self.log_uniform(x)

        def to_components(logits: Array, first: Array | int) -> tuple[Array, Array]:
            own = of_block(background, first, logits.shape[1])
            labels, value = assign(jnp.concatenate([logits, own[None]]), first)
            return labels[:-1], value

        return to_components

    def _counted(self, found: Statistics, x: Array, sample_weight: Array | None) -> Beside:
        """The background has the rows that the components leave."""
        total = len(x) if sample_weight is None else jnp.sum(sample_weight)
        rest = jnp.maximum(total - jnp.sum(found.counts), 0)
        return Beside(jnp.append(found.counts, rest), found)

    def at_labels(
        self,
        labels: Callable[[Array, Array | int], Array],
        x: Array,
        sample_weight: Array | None,
        k: int,
    ) -> Beside:
        own = lambda rows, first: labels(rows, first)[:, :-1]
        found = self.family.at_labels(own, x, sample_weight, k - 1)
        block = lambda rows, weights, first: weights @ labels(rows, first)[:, -1]
        rest = sum_over_blocks(block, x, sample_weight, self.block_rows(x, k))
        return Beside(jnp.append(found.counts, rest), found)

    def shrunk(self, statistics: Beside) -> Beside:
        return self._again(statistics, self.family.shrunk(statistics.components))

    def _again(self, statistics: Beside, found: Statistics) -> Beside:
        return Beside(jnp.append(found.counts, statistics.counts[-1]), found)

    def filled(self, statistics: Beside, present: Array) -> Beside:
        return self._again(statistics, self.family.filled(statistics.components, present[:-1]))

    def add(self, one: Beside, other: Beside) -> Beside:
        both = self.family.add(one.components, other.components)
        return Beside(one.counts + other.counts, both)

    # -- priors --------------------------------------------------------------------------

    def default_prior(
        self, rule: str, x: Array, sample_weight: Array | None, k: int, free: bool
    ) -> Any:
        """That of the components, with flat weights of all labels."""
        prior = self.family.default_prior(rule, x, sample_weight, k - 1, free)
        return _of_labels(prior, jnp.ones(k, x.dtype))

    def centre(self, prior: Any, k: int, d: int) -> tuple[Sites, Float[Array, " k"]]:
        sites, constants = self.family.centre(prior, k - 1, d)
        return sites, jnp.append(constants, 0)

    def mean_log_density(self, prior: Any, x: Array, k: int) -> Float[Array, "k n"]:
        return self._under_all(self.family.mean_log_density(prior, x, k - 1), x)

    def expected_step(
        self,
        prior: Any,
        log_weights: Float[Array, " k"],
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Beside, Array]:
        beside = self._beside(log_weights, x, assign)
        found, value = self.family.expected_step(prior, log_weights[:-1], x, sample_weight, beside)
        return self._counted(found, x, sample_weight), value

    # -- doors and health ------------------------------------------------------------------

    def check_rows(self, x: np.ndarray) -> None:
        for column, kind in enumerate(self.family.kinds(x.shape[1])):
            if kind not in _KNOWN:
                raise ColumnRefused(
                    f"background: {{column}} is of {self.label}, whose values have no box; a "
                    "background goes with numbers, counts and codes",
                    column,
                )
        d = x.shape[1]
        drawn = d - int(np.sum(self._given(d)))
        for name in ("low", "high") if self.uniform.known else ():
            shape = np.shape(getattr(self.uniform, name))
            if shape not in {(), (d,), (drawn,)}:
                raise ValueError(
                    f"background: {name} needs a number for each of {drawn} column(s), found "
                    f"shape {shape}"
                )
        self.family.check_rows(x)

    def check_present(self, x: np.ndarray) -> None:
        d = x.shape[1]
        low, high = np.nanmin(x, axis=0), np.nanmax(x, axis=0)
        if self.uniform.known:
            sides = np.asarray(self.uniform.low), np.asarray(self.uniform.high)
            low, high = (
                np.broadcast_to(self._corner(side.astype(x.dtype), d), d) for side in sides
            )
        flat = (high - low + self._steps(d) <= 0) & ~self._given(d)
        if np.any(flat):
            column = int(np.argmax(flat))
            raise ColumnRefused(
                f"background: {{column}} is {low[column]:g} everywhere, which leaves no box; give "
                "jaxgmm.Uniform low and high",
                column,
            )
        slack = _SLACK * np.finfo(x.dtype).eps * np.maximum(np.abs(low), np.abs(high))
        outside = ((x < low - slack) | (x > high + slack)) & ~self._given(d)
        if np.any(outside):
            row, column = np.argwhere(outside)[0]
            raise ColumnRefused(
                f"background: {x[row, column]:g} at row {row}, {{column}}, is outside of the box "
                f"from {low[column]:g} to {high[column]:g}, where a row that belongs to no "
                "component could only belong to one; widen low and high, or leave the row out",
                int(column),
            )
        self.family.check_present(x)

    def check_prior(self, prior: Any, k: int, d: int, free: bool) -> None:
        """All sizes of a `ConjugatePrior` are those of the weights; others have distributions."""
        if not isinstance(prior, SitePrior):
            self.family.check_prior(prior, k, d, free)
            return
        weights = {
            name: written
            for name, written in prior.distributions.items()
            if name in (SIMPLEX.site, STICKS.site)
        }
        self.family.check_prior(_of_components(prior, k - 1), k - 1, d, free)
        SitePrior(weights).check({}, k, free)


def _of_labels(prior: Any, concentration: Float[Array, " k"]) -> Any:
    """The prior of components with that of the weights of all labels, where it has one."""
    prior = _reweighted(prior, concentration)
    free = isinstance(prior, SitePrior) and SIMPLEX.site in prior.distributions
    return prior.reweighted(concentration) if free else prior


def _of_components(prior: SitePrior, k: int) -> Any:
    """The prior with weights of K components, for checks of all but the weights."""
    if isinstance(prior, ProductPrior):
        part = lambda one: _of_components(one, k) if isinstance(one, SitePrior) else one
        prior = dataclasses.replace(prior, parts={n: part(one) for n, one in prior.parts.items()})
    given = prior.distributions
    own = {name: one for name, one in given.items() if name not in (SIMPLEX.site, STICKS.site)}
    weights = {} if len(own) == len(given) else {SIMPLEX.site: dist.Dirichlet(np.ones(k))}
    return _reweighted(dataclasses.replace(prior, distributions={**weights, **own}), 1.0)


def _reweighted(prior: Any, concentration: Any) -> Any:
    """With another concentration in every `ConjugatePrior`; that of a part is not read."""
    conjugate = lambda node: isinstance(node, ConjugatePrior)
    change = lambda node: node.reweighted(concentration) if conjugate(node) else node
    return jax.tree.map(change, prior, is_leaf=conjugate)
