"""Families around a family: what one that changes a few things leaves to the one inside."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from numpyro.distributions import constraints

from jaxgmm._contract import Params, Prior, Sites, Statistics
from jaxgmm.model._family import Density, Family
from jaxgmm.model._site_family import MixtureParams


@dataclasses.dataclass(frozen=True)
class Around(Family):
    """A family with another one inside, of which it says here what it sees.

    Parameters are `MixtureParams` with the sites of the family inside, among others. Statistics
    have ``components``, those of the family inside.
    """

    family: Any

    # -- what the family inside sees ---------------------------------------------------

    @abc.abstractmethod
    def components(self, params: MixtureParams) -> Params:
        """Its parameters."""

    def _count(self, k: int) -> int:
        """How many of K labels are its own."""
        return k

    def _width(self, d: int) -> int:
        """How many numbers its rows have, of the d of a row."""
        return d

    def _rows(self, x: Any) -> Any:
        """Its rows, which may be more than there are of these."""
        return x

    def _prior(self, prior: Any) -> Any:
        """Its prior; none, or a rule, is that of all sites."""
        return prior

    def _around(self, family: Family) -> Self:
        return dataclasses.replace(self, family=family)

    def scaled(self, statistics: Any, share: Array | float) -> Any:
        own = self.family.scaled(statistics.components, share)
        return super().scaled(statistics, share)._replace(components=own)

    def _mapped(self, params: MixtureParams, change: Callable[[Params], Params]) -> MixtureParams:
        own = self.family.sites(change(self.components(params)))
        return dataclasses.replace(params, own={**params.own, **own})

    # -- what it is --------------------------------------------------------------------

    @property
    def closed(self) -> bool:  # type: ignore[override]
        return self.family.closed

    @property
    def moves(self) -> bool:  # type: ignore[override]
        return self.family.moves

    @property
    def weighs(self) -> bool:  # type: ignore[override]
        return self.family.weighs

    @property
    def places(self) -> Any:
        return self.family.places

    @property
    def holes(self) -> bool:  # type: ignore[override]
        return self.family.holes

    @property
    def needs_given(self) -> bool:  # type: ignore[override]
        return self.family.needs_given

    @property
    def default_start(self) -> str:  # type: ignore[override]
        return self.family.default_start

    @property
    def incomplete(self) -> bool:
        return self.family.incomplete

    @property
    def imputes(self) -> bool:
        return self.family.imputes

    @property
    def rules(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.family.rules

    @property
    def proper_prior(self) -> str:  # type: ignore[override]
        return self.family.proper_prior

    @property
    def conjugate_prior(self) -> str:  # type: ignore[override]
        return self.family.conjugate_prior

    @property
    def collapse(self) -> str:  # type: ignore[override]
        return self.family.collapse

    @property
    def columns(self) -> str | None:  # type: ignore[override]
        return self.family.columns

    @property
    def n_levels(self) -> int | None:  # type: ignore[override]
        return self.family.n_levels

    @property
    def formula(self) -> str:  # type: ignore[override]
        return self.family.formula

    @property
    def constraint(self) -> str:  # type: ignore[override]
        return self.family.constraint

    @property
    def row_support(self) -> constraints.Constraint:  # type: ignore[override]
        return self.family.row_support

    @property
    def name(self) -> str:
        return self.family.name

    @property
    def label(self) -> str:
        return self.family.label

    @property
    def code(self) -> str:
        return self.family.code

    @property
    def column_names(self) -> tuple[Any, ...] | None:  # type: ignore[override]
        return self.family.column_names

    @property
    def given_names(self) -> tuple[Any, ...]:  # type: ignore[override]
        return self.family.given_names

    def iterates(self, prior: Any) -> bool:
        return self.family.iterates(self._prior(prior))

    # -- parameters and their sites ----------------------------------------------------

    def checked(self, own: dict[str, Any], k: int) -> Sites:
        return self.family.checked(own, self._count(k))

    def n_columns(self, params: MixtureParams) -> int:
        return self.family.n_columns(self.components(params))

    def n_parameters(self, k: int, d: int) -> int:
        return self.family.n_parameters(self._count(k), self._width(d))

    def site_dims(self) -> dict[str, list[str]]:
        return self.family.site_dims()

    def derived_sites(self, params: MixtureParams) -> Sites:
        return self.family.derived_sites(self.components(params))

    def permute(self, params: MixtureParams, order: Array) -> MixtureParams:
        return self._mapped(params, lambda inner: self.family.permute(inner, order))

    def retract(self, params: MixtureParams, tangent: Float[Array, " p"]) -> MixtureParams:
        return self._mapped(params, lambda inner: self.family.retract(inner, tangent))

    def edges(self, params: MixtureParams) -> Bool[Array, " p"]:
        return self.family.edges(self.components(params))

    def inwards(self, params: MixtureParams, margin: Array | float) -> MixtureParams:
        return self._mapped(params, lambda inner: self.family.inwards(inner, margin))

    # -- rows --------------------------------------------------------------------------

    def kinds(self, d: int) -> tuple[str | None, ...]:
        return self.family.kinds(d)

    def read(self, x: Any) -> tuple[Self, Any]:
        family, x = self.family.read(x)
        return self._around(family), x

    def called(self, names: tuple[Any, ...]) -> Self:
        return self._around(self.family.called(names))

    def features_of(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return self.family.features_of(names)

    def check_names(self, names: tuple[str, ...]) -> None:
        self.family.check_names(names)

    def table(self, rows: np.ndarray, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        return self.family.table(rows, names)

    def coords(self) -> dict[str, list[Any]]:
        return self.family.coords()

    def given_rows(self, x: Any) -> Array:
        return self.family.given_rows(x)

    def lacks(self, given: np.ndarray) -> np.ndarray:
        return self.family.lacks(given)

    def lines(self, x: np.ndarray, names: tuple[str, ...]) -> Any:
        """The regression inside, where there is one, and its rows."""
        return self.family.lines(x, names)

    def mean_responses(self, params: MixtureParams, x: Array) -> Float[Array, "k n"]:
        return self.family.mean_responses(self.components(params), x)

    def embed(self, x: Array) -> Float[Array, "n e"]:
        return self.family.embed(self._rows(x))

    def features(self, x: Array) -> Array:
        """The rows as they are: the family inside makes of them what it needs."""
        return x

    def log_density(self, params: MixtureParams, features: Array) -> Float[Array, "k n"]:
        return self.look(params, features, lambda view: view.log_density(features))

    def block_rows(self, x: Array, n_components: int) -> int:
        return self.family.block_rows(self._rows(x), n_components)

    def settled(self, params: MixtureParams) -> Self:
        return self._around(self.family.settled(self.components(params)))

    def decided(self) -> Self:
        return self._around(self.family.decided())

    def imputing(self, key: PRNGKeyArray) -> Self:
        return self._around(self.family.imputing(key))

    # -- EM ------------------------------------------------------------------------------

    def statistics(self, sums: Statistics) -> Statistics:
        return sums

    def update(
        self,
        statistics: Statistics,
        prior: Any,
        params: MixtureParams | None = None,
        share: Array | float = 1.0,
    ) -> Sites:
        update: Callable[..., Sites] = self.family.update
        step = {} if self.family.closed else {"share": share}
        before = None if params is None else self.components(params)
        return update(statistics.components, self._prior(prior), before, **step)

    # -- priors --------------------------------------------------------------------------

    def prior_of(self, distributions: dict[str, Any]) -> Any:
        return self.family.prior_of(distributions)

    def prior_sites(self, prior: Any, k: int, d: int) -> Prior:
        return self.family.prior_sites(self._prior(prior), self._count(k), self._width(d))

    def sized(self, prior: Any, k: int, d: int, dtype: Any) -> Any:
        # Of labels a prior has those of the weights only.
        return self.family.sized(prior, k, self._width(d), dtype)

    def bounded(self, prior: Any, free: bool) -> bool:
        return self.family.bounded(self._prior(prior), free)

    def ascends(self) -> Array:
        return self.family.ascends()

    def prior_formulas(self, prior: Any) -> tuple[str, ...]:
        return self.family.prior_formulas(self._prior(prior))

    def prior_density(self, prior: Any, site: str, index: tuple[int, ...]) -> Density | None:
        return self.family.prior_density(self._prior(prior), site, index)

    def check_conjugate(self, prior: Any) -> None:
        self.family.check_conjugate(prior)

    def updated(self, statistics: Statistics, prior: Any) -> Any:
        return self.family.updated(statistics.components, prior)

    def divergence(self, prior: Any, other: Any, k: int, d: int) -> Array:
        return self.family.divergence(prior, other, self._count(k), self._width(d))

    # -- units ---------------------------------------------------------------------------

    def standardise(self, x: Array, sample_weight: Array | None, prior: Any) -> tuple[Self, Any]:
        family, prior = self.family.standardise(self._rows(x), sample_weight, prior)
        return self._around(family), prior

    def in_user_units(self, prior: Any) -> tuple[Self, Any]:
        family, prior = self.family.in_user_units(prior)
        return self._around(family), prior

    def log_units(self, prior: Any, k: int, d: int | None) -> Array | None:
        width = None if d is None else self._width(d)
        return self.family.log_units(self._prior(prior), self._count(k), width)

    def to_working(self, params: MixtureParams) -> MixtureParams:
        return self._mapped(params, self.family.to_working)

    def to_user(self, params: MixtureParams) -> MixtureParams:
        return self._mapped(params, self.family.to_user)

    def moved_prior(self, prior: Any, offset: Any) -> Any:
        return self.family.moved_prior(prior, offset)

    def moved(self, params: Any, offset: Any) -> Any:
        if isinstance(params, MixtureParams):
            return dataclasses.replace(params, own=self.moved(params.own, offset))
        return self.family.moved(params, offset)

    def origin(self, params: MixtureParams) -> np.ndarray | None:
        return self.family.origin(self.components(params))

    # -- doors and health ------------------------------------------------------------------

    def check_rule(self, rule: str, x: np.ndarray, total_weight: float) -> None:
        self.family.check_rule(rule, self._rows(x), total_weight)

    def check_bounded(self, x: np.ndarray, k: int) -> None:
        self.family.check_bounded(self._rows(x), self._count(k))

    def check_mode(self, prior: Any) -> None:
        self.family.check_mode(self._prior(prior))

    def collapsed(self, params: MixtureParams, bounded: bool) -> Array:
        return self.family.collapsed(self.components(params), bounded)

    def cancellation(self, params: MixtureParams) -> Array:
        return self.family.cancellation(self.components(params))

    def spurious(self, params: MixtureParams, statistics: Statistics) -> Array:
        counts = statistics.counts[: self._count(len(statistics.counts))]
        found = statistics.components._replace(counts=counts)
        return self.family.spurious(self.components(params), found)
