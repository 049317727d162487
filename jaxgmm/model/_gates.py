"""Gates: mixing weights of each row by its covariates, a multinomial logit of the labels.

Concomitant variables of Dayton and Macready (1988, JASA 83:173-178), the gating network of a
mixture of experts (Jacobs, Jordan, Nowlan and Hinton, 1991, Neural Computation 3:79-87).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from numpyro.distributions import constraints

from jaxgmm._contract import Assignment, Params, Prior, Sites, Statistics, improper, least_share
from jaxgmm._numerics import sum_over_blocks
from jaxgmm.files import Coded, ColumnRefused, numeric, own_names, row_names, stored
from jaxgmm.local import derivatives, uphill
from jaxgmm.model._around import Around
from jaxgmm.model._coding import Categories, coded, decoded, is_table, taken
from jaxgmm.model._family import Family, Site, View, known_labels
from jaxgmm.model._prior import ConjugatePrior
from jaxgmm.model._regression import OfUserCoefficients, Units, about_means, spread
from jaxgmm.model._site_family import MixtureParams
from jaxgmm.model._site_prior import SitePrior, in_units
from jaxgmm.model._tree import pytree
from jaxgmm.model._unconjugate import Unconjugate
from jaxgmm.model._weights import SIMPLEX, STICKS

GATES = "gates"
_COMPONENTS = "components"

# Standard deviation of the weak prior of differences of gates, covariates standardised.
_WEAK = 2.5
# Log odds of two labels that change by more than this with a standard deviation of a covariate
# leave no doubt about any label.
_SEPARATED = 10.0


@stored
class Gating(NamedTuple):
    """Sums over rows of what the gates and the components need.

    Attributes
    ----------
    counts : (K,) array
        Effective rows of each label.
    components
        Statistics of the components.
    gradient, curvature : (K - 1, q) and (K - 1, q, K - 1, q) arrays
        Of the expected log weights in the gates ``at``.
    at : (K - 1, q) array
        Zero at a start from labels. One component has no gates.
    """

    counts: Array
    components: Statistics
    gradient: Any
    curvature: Any
    at: Any


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class GatedPrior(SitePrior):
    """`SitePrior` of the gates, beside the prior of the components.

    Attributes
    ----------
    components
        What `Family.prior_of` or a rule has made, or a `ConjugatePrior`.
    """

    components: Any = None

    @property
    def nested(self) -> tuple[Any, ...]:
        return (self.components,)

    @property
    def by_site(self) -> dict[str, Any]:
        inner = self.components
        own = inner.by_site if isinstance(inner, SitePrior) else {_COMPONENTS: inner}
        return {**self.distributions, **own}


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class Gated(Unconjugate, Around):
    """Components of a family, and gates that make the mixing weights of each row.

    `Mixture` makes it of its argument ``gates``. With u = (1, covariates) of a row the weights
    are ``softmax([gates, 0] u)``: the site ``gates`` (K - 1, 1 + m) has the log odds of each
    label against the last. Parameters are `MixtureParams` with the sites of the components beside
    it; their ``weights`` are those at the average covariates, and what rows are like does not
    depend on them.
    """

    closed = False  # type: ignore[override]
    has_weights = False
    moves = False  # type: ignore[override]
    places = False  # type: ignore[override]
    without = "as gates have no conjugate prior"
    proper_prior = 'prior="weak"'  # type: ignore[override]
    conjugate_prior = 'method="nuts", "smc", "laplace" or "svi"'  # type: ignore[override]

    # The covariates, by name or by place in a row.
    on: tuple[Any, ...] = dataclasses.field(default=(), metadata={"static": True})
    # What codes of columns of words stand for.
    categories: tuple[Categories, ...] = dataclasses.field(default=(), metadata={"static": True})
    # Average covariates, once data were seen, and their units.
    centre: Any = None
    units: Units | None = None

    @classmethod
    def of(cls, family: Family, on: Any) -> Gated:
        """What `Mixture` makes of its arguments; raises where they do not fit."""
        if isinstance(on, str) or not isinstance(on, (list, tuple)):
            raise TypeError(f"gates: needs a list of columns, as gates=['sex'], found {on!r}")
        number = lambda one: isinstance(one, (int, np.integer)) and not isinstance(one, bool)
        by_name = all(isinstance(one, str) for one in on)
        if not by_name and not all(map(number, on)):
            raise TypeError(
                f"gates: columns are called by text, or by their places in an array, found {on!r}"
            )
        on = tuple(on) if by_name else tuple(map(int, on))
        if len(set(on)) < len(on):
            raise ValueError(f"gates: a column occurs twice in {list(on)!r}")
        if any(not by_name and place < 0 for place in on):
            raise ValueError(f"gates: places are counted from 0, found {list(on)!r}")
        names, given = family.column_names, family.given_names
        if names and on and isinstance(names[0], str) != by_name:
            raise TypeError(
                f"gates: {family.label} calls columns by {'place' if by_name else 'text'}, so call "
                f"those of the gates alike, found {list(on)!r}"
            )
        if names and not by_name:
            extra = [one for one in on if one not in given]
            places = range(len(names) + len(extra))
            family = family.called(tuple(j for j in places if j not in extra))
        for one in on if by_name else ():
            if one in (names or ()) and one not in given:
                raise ValueError(
                    f"gates: column {one!r} is drawn by {family.label}, and weights are made of "
                    "columns that are given"
                )
        return cls(family, on=on, categories=(None,) * len(on))

    # -- columns -----------------------------------------------------------------------

    @property
    def by_name(self) -> bool:
        return not self.on or isinstance(self.on[0], str)

    @property
    def _shared(self) -> tuple[Any, ...]:
        """The covariates that are those of the components too."""
        names = self.family.column_names or ()
        return tuple(one for one in self.on if one in names)

    @property
    def _extra(self) -> tuple[Any, ...]:
        """And those that only the gates see; called by name they are the last columns of a row."""
        return tuple(one for one in self.on if one not in self._shared)

    def _places(self, d: int) -> tuple[np.ndarray, np.ndarray]:
        """Where in a row of d numbers the components' columns stand, and the covariates."""
        if not self.by_name:
            own = [j for j in range(d) if j not in self._extra]
            return np.array(own, int), np.array(self.on, int)
        first, names = d - len(self._extra), list(self.family.column_names or ())
        of = lambda one: names.index(one) if one in names else first + self._extra.index(one)
        return np.arange(first), np.array([of(one) for one in self.on], int)

    def _width(self, d: int) -> int:
        return d - len(self._extra)

    def _rows(self, x: Any) -> Any:
        return x[:, self._places(x.shape[1])[0]]

    def _covariates(self, x: Array) -> Float[Array, "q n"]:
        """The design of the gates, in working units."""
        u = x[:, self._places(x.shape[1])[1]].T
        if self.units is not None:
            u = (u - self.units.shift[:, None]) / self.units.scale[:, None]
        return jnp.concatenate([jnp.ones((1, x.shape[0]), x.dtype), u])

    @property
    def column_names(self) -> tuple[Any, ...] | None:
        inner = self.family.column_names
        return None if inner is None else (*inner, *self._extra)

    def features_of(self, names: tuple[str, ...]) -> tuple[str, ...]:
        own = tuple(names[j] for j in self._places(len(names))[0])
        return self.family.features_of(own)

    def kinds(self, d: int) -> tuple[str | None, ...]:
        found: list[str | None] = ["given"] * d
        own = self._places(d)[0]
        for place, kind in zip(own, self.family.kinds(len(own)), strict=True):
            found[place] = kind
        return tuple(found)

    def lines(self, x: np.ndarray, names: tuple[str, ...]) -> Any:
        own = self._places(len(names))[0]
        return self.family.lines(x[:, own], tuple(names[j] for j in own))

    @property
    def columns(self) -> str | None:  # type: ignore[override]
        return "each" if self.family.columns != "lines" else "lines"

    @property
    def needs_given(self) -> bool:  # type: ignore[override]
        return bool(self.on) or self.family.needs_given

    # -- tables ------------------------------------------------------------------------

    def read(self, x: Any) -> tuple[Gated, Any]:
        if isinstance(x, (Coded, Tracer)):
            return self, x
        if self.by_name and is_table(x):
            return self._read(x, whole=True)
        rows = x if isinstance(x, jax.Array) else numeric("x", x)
        rows = rows[:, None] if rows.ndim == 1 else rows
        inner, extra = self.family.column_names, self._extra
        d = rows.shape[1] if rows.ndim == 2 else 0
        known = d == len(inner) + len(extra) if inner is not None else d > len(extra)
        if not known or d <= max((one for one in self.on if not self.by_name), default=-1):
            those = "of the components" if inner is None else ", ".join(map(repr, inner))
            raise ValueError(
                f"x: {self.label} with gates={list(self.on)!r} needs a table, or the columns "
                f"{those} and those of the gates, found an array of shape {np.shape(x)}"
            )
        if not self.by_name:
            return self, x
        first = inner or tuple(f"x{j}" for j in range(d - len(extra)))
        return self, Coded(rows, (*map(str, first), *extra))

    def _read(self, x: Any, whole: bool) -> tuple[Gated, Any]:
        """Rows of a table; of one that is not ``whole`` only what is given need be there."""
        family, rest = self.family, _Rest(x, self._extra)
        if self.family.column_names is None:
            names = rest.column_names if whole else ()
            if whole and not names:
                raise ValueError(f"x: has no column beside those of the gates {list(self.on)!r}")
            numbers = coded(taken(x, names), {}, dict.fromkeys(names))[0]
        elif whole:
            family, made = self.family.read(rest)
            names, numbers = made.columns, list(np.asarray(made).T)
        else:
            numbers = list(np.asarray(self.family.given_rows(rest)).T)
            names = tuple(map(str, self.family.column_names))
        two = dict.fromkeys(self._extra, 2)
        known = dict(zip(self.on, self.categories, strict=True))
        gates, found = coded(taken(x, self._extra), two, known)
        categories = tuple(found.get(one) for one in self.on)
        known_family = dataclasses.replace(self, family=family, categories=categories)
        rows = np.stack([*numbers, *gates], axis=1)
        return known_family, Coded(rows, (*names, *self._extra), row_names(x))

    def given_rows(self, x: Any) -> Array:
        if isinstance(x, jax.Array):
            return x
        if self.by_name and is_table(x):
            return jax.device_put(np.asarray(self._read(x, whole=False)[1]))
        return jax.device_put(numeric("given", x))

    def lacks(self, given: np.ndarray) -> np.ndarray:
        own, at = self._places(given.shape[1])
        found = np.zeros(given.shape, bool)
        found[:, own] = self.family.lacks(given[:, own])
        found[:, at] |= ~np.isfinite(given[:, at])
        return found

    def check_names(self, names: tuple[str, ...]) -> None:
        own, at = self._places(len(names))
        self.family.check_names(tuple(names[j] for j in own))
        found = tuple(names[j] for j in at)
        if self.by_name and found not in (self.on, tuple(f"x{j}" for j in at)):
            raise ValueError(f"x: needs the columns {self.on} for the gates, found {found}")

    def table(self, rows: np.ndarray, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        own, at = self._places(rows.shape[1])
        found = self.family.table(rows[:, own], tuple(names[j] for j in own))
        for place, known in zip(at, self.categories, strict=True):
            found.setdefault(names[place], decoded(rows[:, place], known))
        return {name: found[name] for name in names}

    def coords(self) -> dict[str, list[Any]]:
        return {**self.family.coords(), "concomitant": ["intercept", *self.on]}

    # -- parameters and their sites ----------------------------------------------------

    @property
    def beside(self) -> dict[str, str]:
        return {**self.family.beside, GATES: repr(list(self.on))}

    @property
    def labels_apart(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.family.labels_apart

    @property
    def collapse(self) -> str:  # type: ignore[override]
        return (
            "covariates of the gates tell labels apart exactly (separation), where the likelihood "
            f"has no highest point, or {self.family.collapse}"
        )

    @property
    def _q(self) -> int:
        return 1 + len(self.on)

    def components(self, params: MixtureParams) -> Params:
        return self.family.from_sites(params.weights, params.own)

    def _site(self, k: int) -> Site:
        return Site((k - 1, self._q), constraints.real)

    def from_sites(self, weights: Array, sites: Sites, prior: Any = None) -> MixtureParams:
        own = self.family.sites(self.family.from_sites(weights, sites, self._prior(prior)))
        if GATES not in sites:  # one component has none
            return MixtureParams(weights, own)
        return self._with_gates(MixtureParams(weights, own), sites[GATES])

    def _gates(self, params: MixtureParams) -> Float[Array, "k-1 q"]:
        nothing = (*params.weights.shape[:-1], 0, self._q)
        return params.own.get(GATES, jnp.zeros(nothing, params.weights.dtype))

    def _with_gates(self, params: MixtureParams, gates: Array) -> MixtureParams:
        if params.weights.shape[-1] == 1:
            return params
        return MixtureParams(self._average_weights(gates), {**params.own, GATES: gates})

    def _average_weights(self, gates: Float[Array, "*b k-1 q"]) -> Float[Array, "*b k"]:
        """The mixing weights at the average covariates; all of them have logarithms."""
        logits = gates[..., 0]
        if self.units is None and self.centre is not None:
            logits = logits + gates[..., 1:] @ jnp.asarray(self.centre, logits.dtype)
        weights = jax.nn.softmax(_with_last(logits, -1), axis=-1)
        return jnp.maximum(weights, least_share(weights))

    def sites(self, params: MixtureParams, prior: Any = None) -> Sites:
        own = self.family.sites(self.components(params), self._prior(prior))
        return {GATES: params.own[GATES], **own} if GATES in params.own else own

    def checked(self, own: dict[str, Any], k: int) -> Sites:
        own = dict(own)
        gates, shape = own.pop(GATES, None), self._site(k).shape
        if k > 1 and gates is None:
            raise TypeError(f"gates: needed, shape {shape}, log odds of each label to the last")
        sites = self.family.checked(own, k)
        if k == 1:
            return sites
        array = numeric(GATES, gates)
        if array.shape != shape or not np.all(np.isfinite(array)):
            raise ValueError(
                f"gates: needs finite numbers of shape {shape}, a row for each label but the last, "
                f"found shape {array.shape}"
            )
        return {GATES: jax.device_put(array), **sites}

    def n_columns(self, params: MixtureParams) -> int:
        return super().n_columns(params) + len(self._extra)

    def n_parameters(self, k: int, d: int) -> int:
        return (k - 1) * self._q + super().n_parameters(k, d)

    def site_dims(self) -> dict[str, list[str]]:
        return {GATES: ["gate", "concomitant"], **super().site_dims()}

    def derived_sites(self, params: MixtureParams) -> Sites:
        return {**super().derived_sites(params), "weights": params.weights}

    def permute(self, params: MixtureParams, order: Array) -> MixtureParams:
        """The gates are measured from the label that becomes the last."""
        moved = super().permute(params, order)
        gates = _with_last(self._gates(params), -2)[order]
        return self._with_gates(moved, (gates - gates[-1:])[:-1])

    def retract(self, params: MixtureParams, tangent: Float[Array, " p"]) -> MixtureParams:
        gates = self._gates(params)
        moved = super().retract(params, tangent[gates.size :])
        return self._with_gates(moved, gates + tangent[: gates.size].reshape(gates.shape))

    def edges(self, params: MixtureParams) -> Bool[Array, " p"]:
        return jnp.concatenate([jnp.zeros(self._gates(params).size, bool), super().edges(params)])

    # -- rows --------------------------------------------------------------------------

    def log_weights(self, params: MixtureParams, x: Array) -> Float[Array, "n k"]:
        """Log mixing weights of each row."""
        return self._log_gates(self._gates(params), self._covariates(x)).T

    def _log_gates(self, gates: Array, u: Float[Array, "q n"]) -> Float[Array, "k n"]:
        return jax.nn.log_softmax(_with_last(gates @ u, 0), axis=0)

    def _against_weights(self, params: MixtureParams, x: Array) -> Float[Array, "k n"]:
        """What the weights of rows are more than those of the parameters, in logarithms."""
        own = self._log_gates(self._gates(params), self._covariates(x))
        return own - jnp.log(params.weights)[:, None]

    def look(self, params: MixtureParams, x: Array, see: Callable[[View], Array]) -> Array:
        def gated(view: View) -> Array:
            def density(rows: Array) -> Array:
                return view.log_density(self._rows(rows)) + self._against_weights(params, rows)

            return see(view._replace(log_density=density))

        return self.family.look(self.components(params), self._rows(x), gated)

    def sums(self, features: Array, weights: Float[Array, "k n"]) -> Gating:
        labels = lambda rows, first: lax.dynamic_slice_in_dim(weights.T, first, rows.shape[0])
        return self.at_labels(labels, features, None, len(weights))

    def sample(self, params: MixtureParams, key: PRNGKeyArray, labels: Array) -> Array:
        return self.family.sample(self.components(params), key, labels)

    def sample_given(
        self, params: MixtureParams, key: PRNGKeyArray, labels: Array, given: Array
    ) -> Array:
        inner, own = self.components(params), self._places(given.shape[1])[0]
        if self.family.needs_given:
            drawn = self.family.sample_given(inner, key, labels, given[:, own])
        else:
            drawn = self.family.sample(inner, key, labels)
        if self.by_name:
            return jnp.concatenate([drawn, given[:, len(own) :].astype(drawn.dtype)], axis=1)
        return given.at[:, own].set(drawn.astype(given.dtype))

    def impute(
        self,
        params: MixtureParams,
        x: Array,
        labels: Float[Array, "n k"],
        key: PRNGKeyArray | None,
    ) -> Array:
        filled = self.family.impute(self.components(params), self._rows(x), labels, key)
        return x.at[:, self._places(x.shape[1])[0]].set(filled)

    def row_weights(self, params: MixtureParams, x: Array) -> Float[Array, "k n"]:
        return self.family.row_weights(self.components(params), self._rows(x))

    def placed(self, labels: Float[Array, "n p"]) -> Float[Array, "n k"]:
        return self.family.placed(labels)

    def marginal(
        self, params: MixtureParams, column: Array | int, grid: Float[Array, " m"]
    ) -> Float[Array, "k m"]:
        """At the average covariates; NaN of these."""
        inner = self.components(params)
        own = list(self._places(self.n_columns(params))[0])
        if isinstance(column, int):
            if column not in own:
                return jnp.full((params.weights.shape[0], len(grid)), jnp.nan, grid.dtype)
            return self.family.marginal(inner, own.index(column), grid)
        columns = [
            lambda j=j: self.marginal(params, j, grid) for j in range(self.n_columns(params))
        ]
        return lax.switch(column, columns)

    # -- EM ------------------------------------------------------------------------------

    def e_step(
        self,
        log_weights: Float[Array, " k"],
        params: MixtureParams,
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Gating, Array]:
        inner, gates = self.components(params), self._gates(params)

        def block(rows: Array, weights: Array, first: Array | int) -> tuple[Gating, Array]:
            logits = log_weights[:, None] + self.log_density(params, rows)
            labels, value = assign(logits, first)
            own = self._rows(rows), weights, known_labels(labels)
            found, _ = self.family.e_step(log_weights, inner, *own)
            return self._counted(found, rows, weights * labels, gates), weights @ value

        add = lambda one, other: (self.add(one[0], other[0]), one[1] + other[1])
        size = self.block_rows(x, len(log_weights))
        return sum_over_blocks(block, x, sample_weight, size, add)

    def _counted(
        self, found: Statistics, x: Array, labels: Float[Array, "k n"], at: Array
    ) -> Gating:
        """With the gradient and curvature of the sum of ``labels`` times log weights."""
        if not len(at):
            return Gating(found.counts, found, None, None, None)
        u, total = self._covariates(x), jnp.sum(labels, axis=0)
        weights = jnp.exp(self._log_gates(at, u))[:-1]
        gradient = (labels[:-1] - total * weights) @ u.T
        each = weights[:, None] * u
        flat = each.reshape(-1, u.shape[1])
        apart = ((total * flat) @ flat.T).reshape(*at.shape, *at.shape)
        same = jnp.einsum("kpn,qn->kpq", total * each, u)
        alike = jnp.eye(len(at), dtype=u.dtype)[:, None, :, None]
        return Gating(found.counts, found, gradient, apart - alike * same[:, :, None], at)

    def at_labels(
        self,
        labels: Callable[[Array, Array | int], Array],
        x: Array,
        sample_weight: Array | None,
        k: int,
    ) -> Gating:
        nothing = jnp.zeros(self._site(k).shape, x.dtype)

        def block(rows: Array, weights: Array, first: Array | int) -> Gating:
            known = labels(rows, first)
            own = lambda rows, first: lax.dynamic_slice_in_dim(known, first, rows.shape[0])
            found = self.family.at_labels(own, self._rows(rows), weights, k)
            return self._counted(found, rows, weights * known.T, nothing)

        return sum_over_blocks(block, x, sample_weight, self.block_rows(x, k), self.add)

    def shrunk(self, statistics: Gating) -> Gating:
        found = self.family.shrunk(statistics.components)
        return statistics._replace(counts=found.counts, components=found)

    def add(self, one: Gating, other: Gating) -> Gating:
        """Of rows seen from the same gates; ``one`` may be none yet, all zeros."""
        both = self.family.add(one.components, other.components)
        return jax.tree.map(jnp.add, one, other)._replace(components=both, at=other.at)

    def scaled(self, statistics: Gating, share: Array | float) -> Gating:
        """Sums of rows that count so much; where they are seen from stays."""
        return super().scaled(statistics, share)._replace(at=statistics.at)

    def update(
        self,
        statistics: Gating,
        prior: GatedPrior | None,
        params: MixtureParams | None = None,
        share: Array | float = 1.0,
    ) -> Sites:
        """The components' own step, and of the gates a share of Newton's."""
        own = super().update(statistics, prior, params, share)
        at, gradient, curvature = statistics.at, statistics.gradient, statistics.curvature
        if at is None:
            return own
        if params is None:
            return {GATES: self._first(gradient, curvature), **own}
        if prior is not None:
            given = self._of_gates(prior, len(statistics.counts))
            log_prior = lambda flat: given.log_prob(flat.reshape(at.shape))
            slope, bend = derivatives(log_prior, at.ravel())
            gradient = gradient + slope.reshape(at.shape)
            curvature = curvature + bend.reshape(curvature.shape)
        step = uphill(gradient.ravel(), curvature.reshape(at.size, at.size))
        return {GATES: at + share * step.reshape(at.shape), **own}

    def _first(self, gradient: Array, curvature: Array) -> Float[Array, "k-1 q"]:
        """A step of Newton's from the weights of all rows, of labels with one row more each.

        It goes along differences of the labels' average covariates, as a linear discriminant.
        """
        k = len(gradient) + 1
        # At gates of zero, where all weights are 1 / K.
        gram = -curvature[0, :, 0] * k**2 / (k - 1)
        total = gram[0]
        sums = gradient + total / k
        sums = jnp.concatenate([sums, (total - jnp.sum(sums, axis=0))[None]]) + total / total[0]
        average = sums / sums[:, :1]
        step = jax.vmap(uphill, (0, None))(average[:-1] - average[-1], -gram / total[0])
        return step.at[:, 0].add(jnp.log(sums[:-1, 0] / sums[-1, 0]))

    # -- priors --------------------------------------------------------------------------

    def _prior(self, prior: Any) -> Any:
        if isinstance(prior, ConjugatePrior):
            self._refuse_prior(prior)
        return prior.components if isinstance(prior, GatedPrior) else prior

    def _refuse_prior(self, prior: Any) -> NoReturn:
        raise TypeError(
            f"prior: with gates it is None, {' or '.join(map(repr, self.rules))}, or a dictionary "
            "of 'gates' and either the sites of the components or 'components', such as "
            "{'gates': dist.Normal(0, 2.5), 'components': jg.ConjugatePrior(...)}; found "
            f"{type(prior).__name__}"
        )

    def prior_of(self, distributions: dict[str, Any]) -> GatedPrior:
        own = {name: one for name, one in distributions.items() if name != GATES}
        for name in (SIMPLEX.site, STICKS.site):
            if name in own:
                raise ValueError(f"prior: {name!r} are made by the gates; give one of 'gates'")
        conjugate = own.get(_COMPONENTS)
        if isinstance(conjugate, ConjugatePrior) and len(own) == 1:
            inner: Any = conjugate
        else:
            inner = self.family.prior_of(own)
        gates = {GATES: distributions[GATES]} if GATES in distributions else {}
        return GatedPrior(gates, inner)

    def _of_gates(self, prior: GatedPrior, k: int) -> dist.Distribution:
        written, site = prior.distributions[GATES], self._site(k)
        one = jnp.ones((), jnp.result_type(*jax.tree.leaves(written)))
        given: dist.Distribution = in_units(written, site, 0 * one, one, 0 * one)
        return given if self.units is None else OfUserCoefficients(given, self.units, True)

    def prior_sites(self, prior: GatedPrior | None, k: int, d: int) -> Prior:
        inner = super().prior_sites(prior, k, d)
        if k == 1:
            return inner
        site = self._site(k)
        flat = improper(site.support, site.shape)
        gates = flat if prior is None else self._of_gates(prior, k)
        return {GATES: lambda _: gates, **inner}

    def default_prior(
        self, rule: str, x: Array, sample_weight: Array | None, k: int, free: bool
    ) -> GatedPrior:
        """Of standardised covariates Normal(0, 2.5) for the log odds of any two labels.

        They are differences of independent numbers of each label, so that the labels are alike.
        """
        inner = self.family.default_prior(rule, self._rows(x), sample_weight, k, False)
        if k == 1:
            return GatedPrior({}, inner)
        both = (jnp.eye(k - 1, dtype=x.dtype) + 1) / 2
        matrix = self._measured(x, sample_weight).matrix(True)
        # The Cholesky factor of what maps standardised gates to the user's.
        factor = jnp.linalg.qr(matrix.T)[1].T
        gates = dist.MatrixNormal(
            jnp.zeros(self._site(k).shape, x.dtype),
            _WEAK * jnp.linalg.cholesky(both),
            factor * jnp.sign(jnp.diagonal(factor)),
        )
        return GatedPrior({GATES: gates}, inner)

    def sized(self, prior: GatedPrior | None, k: int, d: int, dtype: Any) -> GatedPrior | None:
        if prior is None:
            return None
        inner = super().sized(self._prior(prior), k, d, dtype)
        return dataclasses.replace(prior.sized(k, d, dtype), components=inner)

    def bounded(self, prior: Any, free: bool) -> bool:
        return prior is not None and super().bounded(prior, False)

    def looked(self, x: Array, sample_weight: Array | None) -> Gated:
        family = self.family.looked(self._rows(x), sample_weight)
        centre = self.centre
        if centre is None:
            xp = jnp if isinstance(x, Tracer) or isinstance(sample_weight, Tracer) else np
            u = xp.asarray(x)[:, self._places(x.shape[1])[1]]
            weight = xp.ones(len(u)) if sample_weight is None else xp.asarray(sample_weight)
            centre = weight @ u / xp.sum(weight)
        return dataclasses.replace(self, family=family, centre=centre)

    # -- units ---------------------------------------------------------------------------

    def _measured(self, x: Array, sample_weight: Array | None) -> Units:
        one = jnp.ones((), x.dtype)
        at = self._places(x.shape[1])[1]
        if not self.on:
            return Units(jnp.zeros(0, x.dtype), jnp.zeros(0, x.dtype), 0 * one, one)
        return Units(*spread(x[:, at], sample_weight, about_mean=True), 0 * one, one)

    def standardise(
        self, x: Array, sample_weight: Array | None, prior: GatedPrior | None
    ) -> tuple[Gated, GatedPrior | None]:
        own = self._rows(x), sample_weight, self._prior(prior)
        family, inner = self.family.standardise(*own)
        units = self._measured(x, sample_weight)
        if prior is not None:
            prior = dataclasses.replace(prior, components=inner)
        return dataclasses.replace(self, family=family, units=units), prior

    def log_units(self, prior: GatedPrior | None, k: int, d: int | None) -> Array | None:
        inner = super().log_units(prior, k, d)
        if self.units is None or prior is None:
            return inner
        own = (k - 1) * jnp.sum(jnp.log(self.units.scale))
        return own if inner is None else own + inner

    def to_working(self, params: MixtureParams) -> MixtureParams:
        assert self.units is not None
        gates = self.units.to_working(self._gates(params), True)
        return self._with_gates(super().to_working(params), gates)

    def to_user(self, params: MixtureParams) -> MixtureParams:
        assert self.units is not None
        user = dataclasses.replace(self, units=None)
        gates = self.units.to_user(self._gates(params), True)
        return user._with_gates(super().to_user(params), gates)

    def origin(self, params: MixtureParams) -> None:
        return None

    # -- doors and health ------------------------------------------------------------------

    def check_rows(self, x: np.ndarray) -> None:
        for column in self._places(x.shape[1])[1]:
            missing = np.isnan(x[:, column])
            if missing.any():
                raise ColumnRefused(
                    f"gates: found nan at row {int(np.argmax(missing))}, {{column}}; weights are "
                    "made of covariates, which no row may miss: drop or impute such rows",
                    int(column),
                )
        self._of_own(x, self.family.check_rows)

    def _of_own(self, x: np.ndarray, check: Callable[[np.ndarray], None]) -> None:
        """What is refused in here is of one of the components' columns."""
        own = self._places(x.shape[1])[0]
        try:
            check(x[:, own])
        except ColumnRefused as refusal:
            sentence, column, names = refusal.args
            raise ColumnRefused(sentence, int(own[column]), names) from None

    def check_present(self, x: np.ndarray) -> None:
        self._of_own(x, self.family.check_present)

    def check_rule(self, rule: str, x: np.ndarray, total_weight: float) -> None:
        self._of_own(x, lambda own: self.family.check_rule(rule, own, total_weight))

    def check_bounded(self, x: np.ndarray, k: int) -> None:
        at = self._places(x.shape[1])[1]
        _, _, independent = about_means(x[:, at], True)
        if k > 1 and not independent:
            raise ValueError(
                f"gates: {len(x)} row(s) do not tell {self._q} log odds apart, as the covariates "
                'are linear in each other or constant; leave one out, or use prior="weak"'
            )
        self._of_own(x, lambda own: self.family.check_bounded(own, k))

    def check_prior(self, prior: Any, k: int, d: int, free: bool) -> None:
        if not isinstance(prior, GatedPrior):
            self._refuse_prior(prior)
        sites = {} if k == 1 else {GATES: self._site(k)}
        SitePrior(prior.distributions).check(sites, k, free)
        self.family.check_prior(prior.components, k, self._width(d), free)

    def collapsed(self, params: MixtureParams, bounded: bool) -> Array:
        gates = self._gates(params)
        lost = super().collapsed(params, bounded) | ~jnp.all(jnp.isfinite(gates))
        if bounded or not self.on or params.weights.shape[0] == 1:
            return lost
        slopes = _with_last(gates[:, 1:], 0)
        return lost | jnp.any(jnp.max(slopes, axis=0) - jnp.min(slopes, axis=0) > _SEPARATED)


def _with_last(rows: Array, axis: int) -> Array:
    """Gates, or what is made of them, with the last label's, which are zero."""
    shape = list(rows.shape)
    shape[axis] = 1
    return jnp.concatenate([rows, jnp.zeros(shape, rows.dtype)], axis)


class _Rest:
    """A table without some of its columns."""

    def __init__(self, table: Any, without: tuple[str, ...]):
        self._table, self._without = table, without

    @property
    def column_names(self) -> tuple[str, ...]:
        fields = getattr(getattr(self._table, "dtype", None), "names", None)
        names = tuple(fields) if fields else own_names(self._table) or ()
        return tuple(name for name in names if name not in self._without)

    def __getitem__(self, name: str) -> Any:
        return taken(self._table, [name])[name]
