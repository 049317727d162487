"""Where EM starts: responsibilities for any block of rows, from a few numbers.

A start is a labeller, a function of a block of rows and of the index of its first row that
returns their responsibilities, so that (n, K) numbers never exist at once;
``model.statistics`` takes it. Random starts are pure functions of a key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxgmm._contract import LatentModel
from jaxgmm._sharded import highest, of_block, rows_at
from jaxgmm.em._kmeans import centring, lloyd, some_rows, spread_rows

Labeller = Callable[[Array, Array | int], Array]
# From a key, at most `_kmeans.MOST_ROWS` embedded rows, their weights and K: centres (K, E).
Place = Callable[[PRNGKeyArray, Array, Array, int], Array]

# Lloyd's algorithm settles the labels of ordinary data well within this many rounds.
_LLOYD_ROUNDS = 50

# Short-run EM: how many starts, and M-steps of each before the best goes on (Biernacki, Celeux
# and Govaert, 2003). From clusters, so few of either suffice.
SHORT_RUNS = 5
SHORT_STEPS = 5

# Ward's linkage takes memory and time of this number squared (mclust advises a subset too).
WARD_ROWS = 5000
# Singular values below this many eps of the largest carry rounding only.
_RANK_EPS = 100


# -- centres -------------------------------------------------------------------------


def embedded(model: LatentModel, rows: Array, weight: Float[Array, " n"]) -> Float[Array, "n e"]:
    """Rows in the model's embedding, means of the columns where it has nothing of a row."""
    z = model.embed(rows)
    if not model.incomplete:
        return z
    there = ~jnp.isnan(z)
    share = weight @ there
    middle = weight @ jnp.where(there, z, 0) / jnp.where(share > 0, share, 1)
    return jnp.where(there, z, middle)


def _draw_rows(
    key: PRNGKeyArray, rows: Float[Array, "n d"], weight: Float[Array, " n"], k: int
) -> Float[Array, "k d"]:
    """``k`` different rows, with probability proportional to their weight."""
    # The largest sums of Gumbel noise and log shares, as in `jax.random.choice`.
    noise = jax.random.gumbel(key, weight.shape, weight.dtype)
    return rows_at(rows, highest(noise + jnp.log(weight / jnp.sum(weight)), k)[1])


def seeds(
    key: PRNGKeyArray, rows: Float[Array, "n d"], weight: Float[Array, " n"], k: int
) -> Float[Array, "k d"]:
    """Rows far apart, by k-means++."""
    centre = jnp.mean(rows, axis=0)
    return centre + spread_rows(key, rows - centre, weight, k)


def _short_lloyd(
    key: PRNGKeyArray, rows: Float[Array, "n d"], weight: Float[Array, " n"], k: int
) -> Float[Array, "k d"]:
    chart, _ = centring(rows, weight)
    first = spread_rows(key, chart.apply(rows), weight, k)
    return chart.invert(lloyd(rows, weight, first, chart, _LLOYD_ROUNDS)[0])


def nearest_centre(
    centres: Float[Array, "k e"],
    embed: Callable[[Array], Array],
    present: Bool[Array, " k"] | None = None,
) -> Labeller:
    """The labeller that gives a row to its nearest centre, the first of several.

    Distances are those of embedded rows, by differences: exact for coinciding rows,
    whatever their offset.
    """

    def label(rows: Array, _: Array | int) -> Array:
        z = embed(rows)
        # What is missing is no distance.
        apart = jnp.where(jnp.isnan(z)[:, None], 0, z[:, None] - centres)
        squares = jnp.sum(apart**2, axis=-1)
        if present is not None:
            squares = jnp.where(present, squares, jnp.inf)
        return jax.nn.one_hot(jnp.argmin(squares, axis=1), centres.shape[0], dtype=z.dtype)

    return label


def _present(model: LatentModel) -> Bool[Array, " k"] | None:
    """Which labels there are, of those that starts give rows to."""
    return None if model.present is None else model.present[: model.n_placed]


def _in_full(model: LatentModel, label: Labeller) -> Labeller:
    """Labels of all kinds, from those of the components."""
    return lambda rows, first: model.placed(label(rows, first))


# -- the starts ----------------------------------------------------------------------


def _at_centres(place: Place) -> Callable[..., Labeller]:
    """The start whose centres ``place`` looks for on some of the rows."""

    def start(
        key: PRNGKeyArray, model: LatentModel, x: Array, sample_weight: Array | None
    ) -> Labeller:
        drawing, placing = jax.random.split(key)
        rows, weight = some_rows(drawing, x, sample_weight)
        centres = place(placing, embedded(model, rows, weight), weight, model.n_placed)
        return _in_full(model, nearest_centre(centres, model.embed, _present(model)))

    return start


def _random_responsibilities(
    key: PRNGKeyArray, model: LatentModel, x: Array, sample_weight: Array | None
) -> Labeller:
    """Rows of Dirichlet(1, ..., 1), each from its own key, however rows come in blocks."""
    k, present = model.n_placed, _present(model)

    def one(row: Array) -> Array:
        return jax.random.exponential(jax.random.fold_in(key, row), (k,), x.dtype)

    def label(rows: Array, first: Array | int) -> Array:
        noise = jax.vmap(one)(first + jnp.arange(rows.shape[0]))
        if present is not None:
            noise = jnp.where(present, noise, 0)
        return noise / jnp.sum(noise, axis=1, keepdims=True)

    return _in_full(model, label)


def _given_labels(
    labels: Int[Array, " n"], model: LatentModel, x: Array, sample_weight: Array | None
) -> Labeller:
    """Labels that were found beforehand."""

    def label(rows: Array, first: Array | int) -> Array:
        block = of_block(labels, first, rows.shape[0])
        return jax.nn.one_hot(block, model.n_placed, dtype=x.dtype)

    return _in_full(model, label)


# A new start is a function (key, model, x, sample_weight) -> labeller and one line here. In
# place of a key, "hierarchical" takes the labels of `ward_labels`, made beforehand on the
# host; "short-run" is where each of its short runs begins (`fit` picks the best).
STARTS: dict[str, Callable[..., Labeller]] = {
    "k-means++": _at_centres(seeds),
    "k-means": _at_centres(_short_lloyd),
    "random": _at_centres(_draw_rows),
    "random-responsibilities": _random_responsibilities,
    "hierarchical": _given_labels,
    "short-run": _at_centres(seeds),
}
# Starts that need no key and run once.
DETERMINISTIC = ("hierarchical",)


# -- Ward's linkage, on the host -------------------------------------------------------


def ward_labels(
    model: LatentModel, x: Any, sample_weight: Any = None, most_rows: int = WARD_ROWS
) -> Int[np.ndarray, " n"]:
    """Labels of Ward's hierarchical clustering on SVD-whitened rows, mclust's default in spirit.

    Embedded rows are centred, their columns scaled to unit variance, and projected on the
    left singular vectors (Scrucca and Raftery, 2015). Of more than ``most_rows`` rows an
    even subset is clustered and the others take the nearest cluster mean. So do rows of
    weight zero; other weights only count in the choice of a subset.

    Parameters
    ----------
    model : LatentModel
        In the units of its `LatentModel.embed`; gives the number of clusters.
    x : (n, D) array
        Data.
    sample_weight : (n,) array, optional
        Weights of the rows.
    most_rows : int
        Most rows to cluster.

    Returns
    -------
    (n,) int32 array
        Labels, numbered by first appearance; fewer than K where rows coincide.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jaxgmm as jg
    >>> from jaxgmm.em._start import ward_labels
    >>> x = jnp.array([[0.0], [0.1], [5.0], [5.2], [0.2]])
    >>> ward_labels(jg.Mixture(jg.Gaussian(), 2), x).tolist()
    [0, 0, 1, 1, 0]
    """

    def seen(rows: Any) -> np.ndarray:
        return np.asarray(model.embed(rows), float)

    n = len(x)
    chosen = np.arange(n) if sample_weight is None else np.flatnonzero(np.asarray(sample_weight))
    if len(chosen) > most_rows:
        mass = np.ones(n) if sample_weight is None else np.asarray(sample_weight, float)
        cumulative = np.cumsum(mass[chosen])
        places = (np.arange(most_rows) + 0.5) / most_rows * cumulative[-1]
        chosen = np.unique(chosen[np.searchsorted(cumulative, places)])
    rows = seen(x[chosen])
    there = ~np.isnan(rows)
    middle = np.sum(rows, axis=0, where=there) / np.maximum(np.sum(there, axis=0), 1)
    rows = np.where(there, rows, middle)
    mean, whiten = _whitening(rows)
    white = (rows - mean) @ whiten
    own = _ward(white, model.n_placed)
    centres = np.stack([white[own == label].mean(axis=0) for label in range(own.max() + 1)])
    labels = np.empty(n, np.int32)
    for start in range(0, n, most_rows):
        block = seen(x[start : start + most_rows])
        block = (np.where(np.isnan(block), middle, block) - mean) @ whiten
        score = 0.5 * np.sum(centres**2, axis=1) - block @ centres.T
        labels[start : start + most_rows] = np.argmin(score, axis=1)
    labels[chosen] = own
    return labels


def _ward(white: Float[np.ndarray, "n r"], k: int) -> Int[np.ndarray, " n"]:
    """Labels of at most ``k`` clusters, numbered by first appearance."""
    from scipy.cluster.hierarchy import fcluster, linkage

    # Without two different rows there is nothing to link.
    if len(white) == 1 or white.shape[1] == 0:
        return np.zeros(len(white), np.int32)
    found = fcluster(linkage(white, "ward"), k, "maxclust")
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int32)


def _whitening(rows: Float[np.ndarray, "n e"]) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and the matrix from centred rows to the left singular vectors of scaled ones."""
    mean = rows.mean(axis=0)
    centred = rows - mean
    scale = centred.std(axis=0)
    scale[scale == 0] = 1
    _, singular, right = np.linalg.svd(centred / scale, full_matrices=False)
    kept = singular > _RANK_EPS * np.finfo(float).eps * max(singular[0], 1)
    return mean, (right[kept] / singular[kept, None]).T / scale[:, None]
