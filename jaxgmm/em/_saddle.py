"""Whether a run ended where two labels coincide, and the starts that push it off.

There a likelihood is flat along the split of the two: EM stops, though something lies higher
on either side (a summit keeps equal labels only under a prior that holds them together).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxgmm._contract import LatentModel, Params
from jaxgmm._sharded import rows_at
from jaxgmm.em._kmeans import some_rows
from jaxgmm.em._start import Labeller, embedded, nearest_centre, seeds

# Rows on which labels are compared.
_ROWS = 512
# Labels closer than this coincide.
_COINCIDE = 1e-3


class Twins(NamedTuple):
    """The two labels that rows tell apart least.

    Attributes
    ----------
    pair : (2,) int array
        Their indices, the one with more rows first.
    apart : scalar array
        The share of the variance of "the first, not the second" that rows explain: 0 where
        both have one density but for a factor, 1 where no row can have either.
    """

    pair: Int[Array, " pair"]
    apart: Float[Array, ""]

    @property
    def coincide(self) -> bool:
        """Whether the two are one; asked on the host."""
        return float(self.apart) < _COINCIDE


def twins(model: LatentModel, params: Params, x: Array, sample_weight: Array | None) -> Twins:
    """The two labels most alike at ``params``, on at most some hundred rows."""
    first, second = map(jnp.asarray, _pairs(model.label_groups))
    some = np.unique(np.linspace(0, len(x) - 1, _ROWS).astype(int))
    labels = model.responsibilities(params, rows_at(x, some))
    weight = jnp.ones(len(some), labels.dtype)
    weight = weight if sample_weight is None else rows_at(sample_weight, some)
    ratio = lambda part, whole: part / jnp.where(whole > 0, whole, 1)
    one, other = labels[:, first], labels[:, second]
    # With q the probability of the first of a pair: the sum of q (1 - q) over the rows of the
    # pair, beside what it would be at the mean of q.
    unexplained = weight @ ratio(one * other, one + other)
    rows = weight @ labels
    total = ratio(rows[first] * rows[second], rows[first] + rows[second])
    apart = jnp.where((total > 0) & (first != second), 1 - ratio(unexplained, total), 1)
    least = jnp.argmin(apart)
    pair = jnp.stack([first[least], second[least]])
    return Twins(jnp.where(rows[pair[0]] < rows[pair[1]], pair[::-1], pair), apart[least])


def _pairs(groups: tuple[int, ...]) -> Int[np.ndarray, "two pairs"]:
    """Labels that may be exchanged, two by two; a label with itself where there are none."""
    known = np.asarray(groups)
    first, second = np.triu_indices(len(groups), 1)
    alike = known[first] == known[second]
    return np.stack([first[alike], second[alike]]) if alike.any() else np.zeros((2, 1), int)


def freed(
    key: PRNGKeyArray,
    model: LatentModel,
    params: Params,
    pair: Int[Array, " pair"],
    within: Bool[Array, ""],
    x: Array,
    sample_weight: Array | None,
) -> Labeller:
    """The start at which one label of a pair has both's rows, and the other half of a third's.

    The third is drawn by its share of the rows, or, ``within`` the pair, is the first itself; it
    is cut between two of its rows (a merge and a split; Ueda et al., 2000).
    """
    kept, free = pair[0], pair[1]
    key_rows, key_label, key_centres = jax.random.split(key, 3)

    def merged(rows: Array) -> Float[Array, "n k"]:
        labels = model.responsibilities(params, rows)
        return labels.at[:, kept].add(labels[:, free]).at[:, free].set(0)

    rows, weight = some_rows(key_rows, x, sample_weight)
    labels = merged(rows)
    drawn = jax.random.categorical(key_label, jnp.log(weight @ labels))
    cut = jnp.where(within, kept, drawn)
    centres = seeds(key_centres, embedded(model, rows, weight), weight * labels[:, cut], 2)
    halves = nearest_centre(centres, model.embed)

    def label(rows: Array, first: Array | int) -> Float[Array, "n k"]:
        labels = merged(rows)
        half = labels[:, cut, None] * halves(rows, first)
        return labels.at[:, cut].set(half[:, 0]).at[:, free].set(half[:, 1])

    return label
