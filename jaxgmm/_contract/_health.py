"""What the loop and the verdict ask: whether a point is one that counts."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from jaxgmm._contract._definition import Definition, Params, Statistics


class Health(Definition):
    """Collapses, edges, empty labels, and what of the objective is rounding."""

    # What happened where every restart collapsed, and what to do.
    collapse: str | ClassVar[str] = "a label lost its rows; use a proper prior, or fewer labels"

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

    def check_mode(self) -> None:
        """Refuse, with a `ValueError`, a prior under which the joint has no mode."""
