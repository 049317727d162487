"""What is known of the labels: which there are, and which may change their names."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import jax
from jaxtyping import Array, Float

from jaxgmm._contract._definition import Definition, Params
from jaxgmm.labels import n_renamings


class Labels(Definition):
    """Groups of labels, labels apart, and labels that only fill up a shape."""

    # Which labels there are, (K,), where the model is `padded`; None: all of them.
    present: Any = None
    # Names of labels that are no components, the last ones; starts give them no rows of their own.
    labels_apart: tuple[str, ...] | ClassVar[tuple[str, ...]] = ()

    @property
    def label_groups(self) -> tuple[int, ...]:
        """A number for each label: those of equal numbers may be renamed, by `permute`."""
        return (0,) * self.n_components

    @property
    def n_placed(self) -> int:
        """How many labels, the first ones, starts give rows to."""
        return self.n_components - len(self.labels_apart)

    def placed(self, labels: Float[Array, "n p"]) -> Float[Array, "n k"]:
        """Labels of a start in full, from those of the `n_placed`."""
        return labels

    def permute(self, params: Params, order: Array) -> Params:
        """Rename the labels: new label k was ``order[k]``, of the same group."""
        if n_renamings(self.label_groups) == 1:
            return params
        return jax.tree.map(lambda leaf: leaf[order], params)

    def padded(self, n_components: int) -> Self | None:
        """The same model with room for more labels, none of which a row can have.

        Models that differ in the number of labels then share one compiled program. None for
        a model that cannot.
        """
        return None

    def trimmed(self, params: Params) -> Params:
        """Parameters of a padded model without those of the absent labels."""
        return params
