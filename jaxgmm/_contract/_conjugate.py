"""What Gibbs, variational Bayes and the bridge ask of a model."""

from __future__ import annotations

from typing import Self

from jaxtyping import Array

from jaxgmm._contract._definition import Definition, Statistics


class Conjugate(Definition):
    """A prior that labelled rows update."""

    def updated(self, statistics: Statistics) -> Self:
        """The same model with its prior updated by complete data (conjugacy).

        Where the labels are known, the prior of the result is the posterior of this model.
        Raises a `ValueError` unless the model has such a prior.
        """
        raise ValueError(
            f"method: {type(self).__name__} has no conjugate prior that labelled rows update, "
            'so there is no Gibbs sampler and no variational Bayes of it; use method="nuts"'
        )

    def expected_step(
        self, x: Array, sample_weight: Array | None = None
    ) -> tuple[Statistics, Array]:
        """`e_step` with the mean of log p(label, row) over the prior in place of its value.

        Of an `updated` model the prior is a posterior, and this the E-step of variational
        Bayes. Raises a `ValueError` unless the model has such means.
        """
        raise ValueError(
            f"method: {type(self).__name__} has no mean log density under a conjugate prior, so "
            'there is no variational Bayes of it; use method="nuts"'
        )

    def divergence(self, other: Self) -> Array:
        """Kullback-Leibler divergence of this model's prior from that of ``other``.

        This model is ``other`` after `updated`. Raises a `ValueError` unless the model knows
        it, as `expected_step` does.
        """
        raise ValueError(
            f"method: {type(self).__name__} has no divergence between conjugate priors, so there "
            'is no variational Bayes of it; use method="nuts"'
        )

    def in_user_units(self) -> Self:
        """The inverse of `standardise`, of a model with a conjugate prior."""
        return self
