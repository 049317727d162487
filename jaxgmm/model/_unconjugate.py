"""Families whose priors no labelled rows update: no Gibbs sampler and no variational Bayes."""

from __future__ import annotations

from typing import Any, ClassVar

from jaxtyping import Array, Float

from jaxgmm._contract import Statistics
from jaxgmm.model._family import Family


class Unconjugate(Family):
    """A `Family` that refuses, in one sentence, what conjugate priors are for."""

    # Why, after the family's name.
    without: ClassVar[str]

    def check_conjugate(self, prior: Any) -> None:
        raise ValueError(
            f"prior: labelled rows update no prior of {self.label}, {self.without}; use "
            'method="nuts", "smc", "laplace" or "svi"'
        )

    def updated(self, statistics: Statistics, prior: Any) -> Any:
        return self.check_conjugate(prior)

    def mean_log_density(self, prior: Any, x: Array, k: int) -> Float[Array, "k n"]:
        self.check_conjugate(prior)
        raise AssertionError

    def expected_step(self, prior: Any, *args: Any) -> tuple[Statistics, Array]:
        self.check_conjugate(prior)
        raise AssertionError

    def divergence(self, prior: Any, other: Any, k: int, d: int) -> Array:
        self.check_conjugate(prior)
        raise AssertionError
