"""What EM asks of a model, and Gibbs with it."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgmm._contract._definition import Assignment, Definition, Params, Statistics, expected_labels

# Share of a hard label that a start gives to all labels, so that none is without rows.
_SPREAD = 0.1


class EM(Definition):
    """An E-step and an M-step, joined by sufficient statistics that add over rows."""

    # Whether `m_step` maximises the expected log joint; else it is a step that may overshoot,
    # of which ``share=`` takes a part, and EM refuses what falls.
    closed: bool | ClassVar[bool] = True
    # Whether that maximum has no formula, and iterations on the statistics find it.
    iterates: bool | ClassVar[bool] = False
    # How often such a step is taken with the labels held, towards the maximum.
    newton: int | ClassVar[int] = 1
    # Whether statistics have `coordinates`; else parameters are extrapolated.
    has_coordinates: bool | ClassVar[bool] = False
    # Whether responsibilities are enough to start from, by `first_params`.
    starts_from_labels: ClassVar[bool] = True
    # Where EM starts if nobody says.
    default_start: str | ClassVar[str] = "short-run"

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

    def add(
        self, one: Statistics, other: Statistics, shares: tuple[Array, Array] | None = None
    ) -> Statistics:
        """The statistics of two sets of rows together; each row counts ``shares`` times, or once.

        Only online EM asks for shares.
        """
        if shares is None:
            return jax.tree.map(jnp.add, one, other)
        return jax.tree.map(lambda a, b: shares[0] * a + shares[1] * b, one, other)

    def coordinates(self, statistics: Statistics) -> Array:
        """Statistics as a vector that any real numbers may replace, for extrapolation."""
        raise NotImplementedError

    def from_coordinates(self, vector: Array, like: Statistics) -> Statistics:
        """The inverse of `coordinates`, with the total weight of ``like``."""
        raise NotImplementedError

    def first_params(
        self, labels: Callable[[Array, Array | int], Array], x: Array, sample_weight: Array | None
    ) -> Params:
        """Parameters at the labels of a start, most of them hard, as `statistics` takes them.

        Within the space of parameters though a label may have few rows, none, or equal ones:
        here by an M-step at labels of which a tenth is spread evenly, of all rows at once.
        """
        spread = (1 - _SPREAD) * labels(x, 0) + _SPREAD / self.n_components
        return self.m_step(self.statistics(spread, x, sample_weight))
