"""What regressions have in common: covariates and a response by name, and their units."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints

from jaxgmm._checks import check_names
from jaxgmm._contract import Assignment, Sites, Statistics
from jaxgmm._numerics import block_rows, sum_over_blocks, weighted_moments
from jaxgmm.files import Coded, numeric, own_names, stored
from jaxgmm.model._coding import coded, is_table, joined, taken
from jaxgmm.model._family import Site
from jaxgmm.model._site_family import MixtureParams, SiteFamily


@stored
class Units(NamedTuple):
    """Where covariates and the response are measured from, and in which units."""

    shift: Float[Array, " m"]
    scale: Float[Array, " m"]
    response_shift: Array
    response_scale: Array

    def matrix(self, intercept: bool) -> Float[Array, "p p"]:
        """From working coefficients to the user's, but for the response's units."""
        inner = jnp.diag(1 / self.scale)
        if not intercept:
            return inner
        first = jnp.concatenate([jnp.ones(1, inner.dtype), -self.shift / self.scale])
        return jnp.concatenate([first[None], jnp.pad(inner, ((0, 0), (1, 0)))])

    def to_user(self, coefficients: Array, intercept: bool) -> Array:
        """Coefficients (..., p) of the user's columns."""
        slopes = coefficients[..., intercept:] / self.scale * self.response_scale
        if not intercept:
            return slopes
        first = self.response_shift + self.response_scale * coefficients[..., 0]
        return jnp.concatenate([(first - slopes @ self.shift)[..., None], slopes], axis=-1)

    def to_working(self, coefficients: Array, intercept: bool) -> Array:
        """The inverse of `to_user`."""
        slopes = coefficients[..., intercept:]
        working = slopes * self.scale / self.response_scale
        if not intercept:
            return working
        first = coefficients[..., 0] + slopes @ self.shift - self.response_shift
        return jnp.concatenate([(first / self.response_scale)[..., None], working], axis=-1)


class Points(NamedTuple):
    """A regression, and rows as it sees them.

    Attributes
    ----------
    family : Regression
    names : tuple of str
        Of its columns.
    rows : (N, d) array
    of : (N,) array
        Which row of the data each is of, or of what it is a repeat.
    """

    family: Regression
    names: tuple[str, ...]
    rows: np.ndarray
    of: np.ndarray


class OfUserCoefficients(dist.Distribution):
    """The user's distribution of all coefficients (K, p), as one of those in working units."""

    pytree_data_fields = ("base_dist", "units", "log_volume")
    pytree_aux_fields = ("intercept",)
    support = constraints.independent(constraints.real, 2)

    def __init__(self, base_dist: dist.Distribution, units: Units, intercept: bool):
        self.base_dist, self.units, self.intercept = base_dist, units, intercept
        k, p = base_dist.event_shape
        self.log_volume = k * (p * jnp.log(units.response_scale) - jnp.sum(jnp.log(units.scale)))
        super().__init__((), base_dist.event_shape)

    def log_prob(self, value: Array) -> Array:
        there = self.units.to_user(value, self.intercept)
        return self.base_dist.log_prob(there).astype(value.dtype) + self.log_volume

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        return self.units.to_working(self.base_dist.sample(key, sample_shape), self.intercept)


@dataclasses.dataclass(frozen=True)
class Regression(SiteFamily):
    """A family of one column, the response, given others.

    Rows are the covariates and the response, in any order that the names say.
    """

    needs_given: ClassVar[bool] = True
    default_start: ClassVar[str] = "random-responsibilities"

    on: Any = dataclasses.field(metadata={"static": True})
    _: dataclasses.KW_ONLY
    response: Any = dataclasses.field(default=None, metadata={"static": True})
    intercept: bool = dataclasses.field(default=True, metadata={"static": True})
    # What the columns of a row are called, once somebody said.
    names: tuple[Any, ...] | None = dataclasses.field(
        default=None, repr=False, metadata={"static": True}
    )
    units: Any = dataclasses.field(default=None, repr=False)

    def __post_init__(self):
        if isinstance(self.on, tuple) and self.names is not None:
            return
        if isinstance(self.on, str) or not isinstance(self.on, (list, tuple)):
            raise TypeError(f"on: needs a list of columns, as on=['age'], found {self.on!r}")
        on = tuple(self.on)
        asked = on if self.response is None else (*on, self.response)
        number = lambda one: isinstance(one, (int, np.integer)) and not isinstance(one, bool)
        if not (all(isinstance(one, str) for one in asked) or all(map(number, asked))):
            raise TypeError(
                f"on: columns are called by text, or by their places in an array, found {asked!r}"
            )
        if len(set(asked)) < len(asked):
            raise ValueError(f"on: a column occurs twice in {asked!r}")
        if not isinstance(self.intercept, bool):
            raise TypeError(f"intercept: needs True or False, found {self.intercept!r}")
        if not on and not self.intercept:
            raise ValueError("on: without columns and an intercept there is nothing to fit")
        object.__setattr__(self, "on", on)

    @property
    def label(self) -> str:
        given = [f"on={list(self.on)!r}"]
        if self.response is not None:
            given.append(f"response={self.response!r}")
        if not self.intercept:
            given.append("intercept=False")
        return f"{type(self).__name__}({', '.join(given)})"

    # -- columns -----------------------------------------------------------------------

    @property
    def width(self) -> int:
        """Of the coefficients."""
        return self.intercept + len(self.on)

    @property
    def by_name(self) -> bool:
        return isinstance((*self.on, self.response)[0], str)

    @property
    def column_names(self) -> tuple[Any, ...]:  # type: ignore[override]
        """The columns of a row by the names that `on` uses."""
        if self.names is not None:
            return self.names
        if not self.by_name:
            return tuple(range(len(self.on) + 1))
        return (*self.on, "response" if self.response is None else self.response)

    @property
    def given_names(self) -> tuple[Any, ...]:  # type: ignore[override]
        return self.on

    @property
    def positions(self) -> tuple[list[int], int]:
        """Where in a row the covariates and the response stand."""
        names = self.column_names
        others = [name for name in names if name not in self.on]
        response = self.response
        if response is None and len(others) == 1:
            (response,) = others
        missing = [name for name in (*self.on, response) if name not in names]
        if missing or len(others) != 1:
            raise ValueError(
                f"on: {self.label} needs rows of {', '.join(map(repr, self.on)) or 'no covariate'} "
                f"and one response, found the columns {', '.join(map(repr, names))}; choose them, "
                "or say response="
            )
        return [names.index(name) for name in self.on], names.index(response)

    def lines(self, x: np.ndarray, names: tuple[str, ...]) -> Points:
        """The rows of a regression, which may be inside of another family."""
        return Points(self, names, x, np.arange(len(x)))

    def called(self, names: tuple[Any, ...]) -> Regression:
        # Text does not call columns that are known by their places.
        known = self.by_name or not self.on or not isinstance(names[0], str)
        made = names if known else tuple(range(len(names)))
        known = dataclasses.replace(self, names=tuple(made))
        known.positions  # noqa: B018 - refuses what does not fit
        return known

    def read(self, x: Any) -> tuple[Regression, Any]:
        return self._read(x, whole=True)

    def given_rows(self, x: Any) -> Array:
        if isinstance(x, jax.Array):
            return x
        return jax.device_put(np.asarray(self._read(x, whole=False)[1]))

    def _read(self, x: Any, whole: bool) -> tuple[Regression, Any]:
        """Rows as numbers; of a table that is not ``whole`` the response may be left out."""
        if isinstance(x, (Coded, Tracer)):
            return self, x
        if not is_table(x) or not self.by_name:
            rows = x if isinstance(x, jax.Array) else numeric("x", x)
            rows = rows[:, None] if rows.ndim == 1 else rows
            names = self.column_names
            if rows.ndim != 2 or rows.shape[1] != len(names):
                raise ValueError(
                    f"x: {self.label} needs a table, or {len(names)} column(s) in the order "
                    f"{', '.join(map(repr, names))}, found an array of shape {rows.shape}"
                )
            return self, Coded(rows, names) if self.by_name else x
        names = self.names
        if names is None and not whole:
            names = self.column_names
        if names is None:
            response = self.response
            if response is None:
                taken(x, self.on)  # a covariate that is not there is named first
                response = _other(self.label, x, self.on)
            names = (*self.on, response)
        known = self.called(names)
        asked = names if whole else self.on
        columns = taken(x, asked)
        numbers = dict(zip(asked, coded(columns, {}, dict.fromkeys(asked))[0], strict=True))
        if not whole:
            nothing = np.full(len(next(iter(numbers.values()))), np.nan)
            numbers = {name: numbers.get(name, nothing) for name in names}
        return known, joined(x, numbers, list(numbers.values()))

    def check_names(self, names: tuple[str, ...]) -> None:
        needed = tuple(map(str, self.column_names))
        if names not in (needed, tuple(f"x{j}" for j in range(len(needed)))):
            raise ValueError(
                f"x: needs the columns {', '.join(map(repr, needed))} in this order, found "
                f"{', '.join(map(repr, names))}; jaxgmm.stream(source, columns=...) takes them"
            )

    def coords(self) -> dict[str, list[Any]]:
        first = ["intercept"] if self.intercept else []
        return {"covariate": [*first, *self.on]}

    def kinds(self, d: int) -> tuple[str | None, ...]:
        response = self.positions[1]
        return tuple("responses" if j == response else "given" for j in range(d))

    def n_columns(self, params: MixtureParams) -> int:
        return len(self.on) + 1

    # -- rows --------------------------------------------------------------------------

    def features(self, x: Array) -> Float[Array, "p+1 n"]:
        """The design of the coefficients, and the response, both in working units."""
        on, response = self.positions
        z, y = x[:, np.array(on, int)].T, x[:, response]
        if self.units is not None:
            z = (z - self.units.shift[:, None]) / self.units.scale[:, None]
            y = (y - self.units.response_shift) / self.units.response_scale
        ones = jnp.ones((int(self.intercept), x.shape[0]), x.dtype)
        return jnp.concatenate([ones, z, y[None]])

    def embed(self, x: Array) -> Float[Array, "n e"]:
        return self.features(x)[int(self.intercept) :].T

    def block_rows(self, x: Array, n_components: int) -> int:
        return block_rows((2 + self.width) * n_components + self.width, x.dtype)

    def sample(self, params: MixtureParams, key: PRNGKeyArray, labels: Array) -> Array:
        raise ValueError(f"given: {self.label} draws responses beside covariates that are given")

    def sample_given(
        self, params: MixtureParams, key: PRNGKeyArray, labels: Array, given: Array
    ) -> Float[Array, "n d"]:
        _, response = self.positions
        nothing = jnp.where(jnp.isnan(given), 0, given)
        line = jnp.sum(params.own["coefficients"][labels] * self.features(nothing)[:-1].T, axis=1)
        drawn = self.respond(params, key, labels, line)
        return given.at[:, response].set(drawn.astype(given.dtype))

    def respond(
        self, params: MixtureParams, key: PRNGKeyArray, labels: Array, line: Float[Array, " n"]
    ) -> Float[Array, " n"]:
        """Responses where the linear predictor is ``line``."""
        raise NotImplementedError

    @property
    def columns(self) -> str | None:  # type: ignore[override]
        """There is a picture of lines where there are covariates to draw them over."""
        return "lines" if self.on else None

    def mean_responses(self, params: MixtureParams, x: Array) -> Float[Array, "k n"]:
        """Mean responses under each component at the covariates of rows, as in `lines`."""
        return self.mean_at(params.own["coefficients"] @ self.features(x)[:-1])

    def mean_at(self, line: Array) -> Array:
        """The mean response where the linear predictor is ``line``."""
        return line

    def marginal(self, params: MixtureParams, column: int, grid: Array) -> Array:
        """NaN: columns have no density of their own."""
        return jnp.full((params.weights.shape[0], grid.shape[0]), jnp.nan, grid.dtype)

    # -- EM ----------------------------------------------------------------------------

    def summed(
        self, features: Array, weights: Float[Array, "k n"], at: Float[Array, "k p"]
    ) -> tuple[Array, ...]:
        """Sums over rows seen from lines ``at``, of which and of these are the statistics."""
        raise NotImplementedError

    def e_step(
        self,
        log_weights: Float[Array, " k"],
        params: MixtureParams,
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Statistics, Array]:
        density = functools.partial(self.log_density, params)
        at = params.own["coefficients"]
        return self._labelled(log_weights, density, at, x, sample_weight, assign)

    def _labelled(
        self,
        log_weights: Float[Array, " k"],
        density: Any,
        at: Float[Array, "k p"],
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Statistics, Array]:
        def block(rows: Array, weights: Array, first: Array | int) -> tuple[Any, Array]:
            features = self.features(rows)
            labels, value = assign(log_weights[:, None] + density(features), first)
            return self.summed(features, weights * labels, at), weights @ value

        size = self.block_rows(x, log_weights.shape[0])
        sums, value = sum_over_blocks(block, x, sample_weight, size)
        return self.statistics(sums)._replace(at=at), value

    def add(self, one: Statistics, other: Statistics) -> Statistics:
        """Of rows seen from the same lines; sums that hold no rows yet are seen from none."""
        return jax.tree.map(jnp.add, one, other)._replace(at=other.at)

    def scaled(self, statistics: Statistics, share: Array | float) -> Statistics:
        return super().scaled(statistics, share)._replace(at=statistics.at)

    def shrunk(self, statistics: Statistics) -> Statistics:
        """Each cluster with one row more, the average one: there is a line through any."""
        total = jnp.sum(statistics.counts)
        more = jax.tree.map(lambda sums: sums + jnp.sum(sums, axis=0) / total, statistics)
        return more._replace(at=statistics.at)

    def filled(self, statistics: Statistics, present: Array) -> Statistics:
        """Absent components are the largest one, of so few rows that no sum shows them."""
        counts, at = statistics.counts, statistics.at
        largest = jnp.argmax(jnp.where(present, counts, -1))
        few = jnp.finfo(counts.dtype).eps / counts[largest]
        shape = lambda sums: present.reshape(-1, *(1,) * (sums.ndim - 1))
        full = lambda sums: jnp.where(shape(sums), sums, few * sums[largest])
        at = jnp.where(shape(at), at, at[largest])
        return jax.tree.map(full, statistics)._replace(at=at)

    # -- sites -------------------------------------------------------------------------

    def site_dims(self) -> dict[str, list[str]]:
        dims = {"coefficients": ["component", "covariate"]}
        return {name: dims.get(name, ["component"]) for name in self.site_names}

    def n_parameters(self, k: int, d: int) -> int:
        sites = self.component_sites(k, d).values()
        return sum(int(np.prod(site.shape)) for site in sites)

    def checked(self, own: dict[str, Any], k: int) -> Sites:
        check_names(self.label, own, self.site_names)
        sites = {}
        for name, (shape, support) in self.component_sites(k, 1).items():
            array = numeric(name, own[name])
            if array.shape != shape:
                raise ValueError(f"{name}: needs shape {shape}, found {array.shape}")
            if not np.all(np.isfinite(array)) or not np.all(np.asarray(support(array))):
                values = "positive numbers" if support is constraints.positive else "numbers"
                raise ValueError(f"{name}: needs finite {values}, found {array.tolist()}")
            sites[name] = jax.device_put(array)
        return sites

    def coefficient_site(self, k: int) -> Site:
        return Site((k, self.width), constraints.real)

    # -- units -------------------------------------------------------------------------

    def measured(self, x: Array, sample_weight: Array | None, responses: bool) -> Units:
        """Mean and spread of the columns; zero and root mean square where lines pass zero."""
        on, response = self.positions
        mean, scale = spread(x, sample_weight, self.intercept)
        z = np.array(on, int)
        one = jnp.ones((), x.dtype)
        own = (mean[response], scale[response]) if responses else (0 * one, one)
        return Units(mean[z], scale[z], *own)

    # -- doors -------------------------------------------------------------------------

    def check_covariates(
        self, x: np.ndarray, trouble: str, remedy: str
    ) -> tuple[np.ndarray, float]:
        """Refuse covariates that are linear in each other; and these about their means, and noise.

        The noise is the share of a column's length that may be its rounding.
        """
        on, _ = self.positions
        z, noise, independent = about_means(x[:, on], self.intercept)
        if not independent:
            raise ValueError(
                f"{trouble}: {len(x)} row(s) do not tell {self.width} coefficients apart, as the "
                f"covariates are linear in each other; drop a covariate, or {remedy}"
            )
        return z, noise


def spread(
    x: Array, sample_weight: Array | None, about_mean: bool
) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """Mean and standard deviation of columns; or zero, and the root of their mean square."""
    total, mean, scatter = weighted_moments(x, sample_weight)
    square = jnp.diagonal(scatter) / total
    if not about_mean:
        mean, square = jnp.zeros_like(mean), square + mean**2
    return mean, jnp.where(square > 0, jnp.sqrt(square), 1)


def about_means(z: np.ndarray, intercept: bool) -> tuple[np.ndarray, float, bool]:
    """Covariates about their means, the noise in them, and whether they are independent.

    The noise is the share of a column's length that may be its rounding.
    """
    n, m = z.shape
    noise = max(10, m) * float(np.finfo(z.dtype).eps) * np.sqrt(n)
    z = np.asarray(z, float)
    z = z - z.mean(axis=0) if intercept else z
    size = np.sqrt(np.sum(z**2, axis=0))
    rank = np.linalg.matrix_rank(z / np.where(size > 0, size, 1), tol=noise) if m else 0
    return z, noise, rank == m and n >= m + intercept


def _other(label: str, x: Any, on: tuple[str, ...]) -> str:
    """The one column of a table that is no covariate."""
    names = own_names(x) or getattr(getattr(x, "dtype", None), "names", None) or ()
    others = [name for name in names if name not in on]
    if len(others) != 1:
        raise ValueError(
            f"x: {label} needs one column beside {', '.join(map(repr, on)) or 'none'}, found "
            f"{', '.join(map(repr, others)) or 'none'}; say response="
        )
    return others[0]
