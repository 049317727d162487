"""k-means: k-means++ seeds and Lloyd's algorithm, every restart in one compiled call."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxgmm._checks import check_count, check_key, check_rows, check_sample_weight
from jaxgmm._numerics import map_over_blocks, sum_over_blocks
from jaxgmm._programs import filled_up, program
from jaxgmm._sharded import (
    beside_rows,
    highest,
    rows_at,
    rows_below,
    rows_here,
    total_over_rows,
)
from jaxgmm.model import centred_rows

# Rows that starts are looked for on: enough to see every cluster that a mixture can hold on to.
MOST_ROWS = 2**16

# Rows of a block, and its scores, rows times centres: more fall out of the cache (measured).
_BLOCK_ROWS, _BLOCK_SCORES = 16384, 2**18
# Up to this many columns, and differences of a row, distances are written out term by term:
# exact, and 2 to 3 times faster than a matrix product (more would take long to compile).
_FEW_COLUMNS, _FEW_DIFFERENCES = 8, 128
# Centres up to which comparisons are written out: XLA's argmin compares one by one.
_FEW_CENTRES = 256

# Squared distances below this many eps of the squared norms are rounding: the rows coincide.
_COINCIDE = 8


class KMeansRun(NamedTuple):
    """What one restart of k-means led to; a leading axis stacks several.

    Attributes
    ----------
    start : (K, D) array
        The centres it started from.
    centres : (K, D) array
        The centres it ended at.
    inertia : scalar array
        Weighted sum of squared distances to the nearest centre.
    n_iter : int32 array
        Rounds of Lloyd's algorithm, the last of which changed nothing.
    converged : bool array
        Whether it stopped by itself.
    """

    start: Array
    centres: Array
    inertia: Array
    n_iter: Array
    converged: Array


@dataclasses.dataclass(frozen=True, repr=False)
class KMeans:
    """Hard clusters: the best of many restarts of `jaxgmm.kmeans`.

    Attributes
    ----------
    centres : (K, D) array
        Means of the clusters.
    labels : (n,) int32 array
        The nearest centre of each row.
    inertia : float
        Weighted sum of squared distances to the nearest centre.
    n_iter : int
        Rounds of Lloyd's algorithm.
    converged : bool
        Whether it stopped before ``max_iter``.
    restarts : KMeansRun
        The same record for every restart, stacked.
    best : int
        Index of the result among the restarts.
    """

    centres: Array
    labels: Array
    inertia: float
    n_iter: int
    converged: bool
    restarts: KMeansRun
    best: int

    def __repr__(self) -> str:
        end = "converged" if self.converged else "out of iterations: raise max_iter"
        return (
            f"KMeans with {len(self.centres)} centres: inertia {self.inertia:.6g}, {end} "
            f"({self.n_iter} iterations), best of {len(self.restarts.inertia)} start(s)"
        )


def kmeans(
    x: Any,
    n_clusters: int,
    *,
    key: PRNGKeyArray,
    n_init: int = 16,
    sample_weight: Any = None,
    max_iter: int = 300,
    tol: float | None = None,
) -> KMeans:
    """k-means by Lloyd's algorithm, all restarts in one compiled call.

    Parameters
    ----------
    x : (n, D) or (n,) array
        Data, finite. Results follow its dtype (float64 needs JAX's x64 switch).
    n_clusters : int
        Number of clusters K, at most the number of rows.
    key : typed random key
        For the k-means++ seeds.
    n_init : int
        Number of restarts; the one of least inertia is returned.
    sample_weight : (n,) array, optional
        Weights of the rows; two is the row twice, zero is no row.
    max_iter : int
        Most rounds per restart.
    tol : float, optional
        Stop once the centres' squared shifts sum to at most ``tol`` times the mean
        variance of a column. By default a restart runs until nothing changes.

    Returns
    -------
    KMeans
        Centres, labels, inertia, and the record of every restart.

    Raises
    ------
    ValueError, TypeError
        For arguments that do not fit, naming them.

    Notes
    -----
    Seeds are looked for on at most 65,536 rows, drawn anew for each restart, by the greedy
    form of k-means++ (the best of ``2 + log K`` candidates). A cluster that
    loses its rows moves to the row farthest from its centre (several to the next
    farthest ones), which never raises the inertia; where all rows coincide with centres, it
    stays. Where K D <= 128 and D <= 8, distances are sums of squared differences; beyond, one
    matrix product of centred rows, so that labels are exact to the rounding of squared
    distances from the mean. The inertia is summed from differences. Beside the data and
    the labels, memory holds one block of rows.

    References
    ----------
    Lloyd (1982), IEEE Transactions on Information Theory 28:129-137; Arthur and
    Vassilvitskii (2007), k-means++: the advantages of careful seeding.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("faithful").x
    >>> hard = jg.kmeans(x, 2, key=jax.random.key(0))
    >>> hard.converged, sorted(jax.numpy.bincount(hard.labels).tolist())
    (True, [100, 172])
    """
    given = check_rows(x)
    narrowed = centred_rows(x, given)
    x, origin = (given, None) if narrowed is None else narrowed
    sample_weight = check_sample_weight(sample_weight, x)
    check_count("n_clusters", n_clusters, 1)
    check_count("n_init", n_init, 1)
    check_count("max_iter", max_iter, 1)
    rows = x.shape[0]
    if sample_weight is not None:
        rows = int(total_over_rows(x, rows_here(sample_weight) > 0))
    if n_clusters > rows:
        raise ValueError(
            f"n_clusters: {n_clusters} clusters need at least as many rows (of positive weight), "
            f"found {rows}"
        )
    tol = 0.0 if tol is None else tol
    if not (isinstance(tol, numbers.Real) and math.isfinite(tol) and tol >= 0):
        raise ValueError(f"tol: needs a finite number of at least 0, found {tol!r}")
    keys = jax.random.split(check_key(key, "k-means++ is random"), n_init)
    tolerance = jnp.asarray(tol, x.dtype)
    wide = filled_up(x, sample_weight)
    restarts, labels, best = _run_all(*wide, keys, tolerance, n_clusters, max_iter)
    if len(labels) > len(x):
        labels = jax.device_put(np.asarray(labels)[: len(x)])
    index = int(best)
    if origin is not None:
        restarts = restarts._replace(centres=np.asarray(restarts.centres, np.float64) + origin)
    return KMeans(
        centres=restarts.centres[index],
        labels=labels,
        inertia=float(restarts.inertia[index]),
        n_iter=int(restarts.n_iter[index]),
        converged=bool(restarts.converged[index]),
        restarts=restarts,
        best=index,
    )


@program(static_argnames=("n_clusters", "max_iter"))
def _run_all(
    x: Float[Array, "n d"],
    sample_weight: Float[Array, " n"] | None,
    keys: Array,
    tol: Array,
    n_clusters: int,
    max_iter: int,
) -> tuple[KMeansRun, Array, Array]:
    """Every restart, the labels of the best, and its index."""
    given = None if sample_weight is None else sample_weight.astype(x.dtype)
    weight = jnp.ones(x.shape[0], x.dtype) if given is None else given
    chart, variance = centring(x, weight)

    def one(key: PRNGKeyArray) -> KMeansRun:
        drawing, seeding = jax.random.split(key)
        rows, row_weight = some_rows(drawing, x, given)
        start = spread_rows(seeding, chart.apply(rows), row_weight, n_clusters)
        centres, n_iter, converged = lloyd(x, weight, start, chart, max_iter, tol * variance)
        inertia = _inertia(x, weight, centres, chart)
        return KMeansRun(chart.invert(start), chart.invert(centres), inertia, n_iter, converged)

    restarts = map_restarts(one, keys, x.shape[0])
    best = jnp.argmin(restarts.inertia)
    centres = chart.apply(restarts.centres[best])

    def block(rows: Array) -> Array:
        return nearest(chart.apply(rows), centres)

    return restarts, map_over_blocks(block, x, _block_rows(n_clusters)), best


def map_restarts(one: Callable[[Array], Any], starts: Array, n_rows: int) -> Any:
    """``one`` of every start: small data in batches, large data one start after another.

    So a restart of large data pays for its own rounds only, and memory is that of one.
    """
    batch = min(MOST_ROWS // 8 // n_rows, starts.shape[0])
    return lax.map(one, starts, batch_size=batch if batch > 1 else None)


# -- coordinates -------------------------------------------------------------------


class Chart(NamedTuple):
    """Rows about their mean, in units (a power of two: exact) in which squares neither
    overflow nor vanish."""

    shift: Float[Array, " d"]
    unit: Float[Array, ""]

    def apply(self, x: Array) -> Array:
        return (x - self.shift) * (1 / self.unit)

    def invert(self, z: Array) -> Array:
        return z * self.unit + self.shift


def centring(x: Float[Array, "n d"], weight: Float[Array, " n"]) -> tuple[Chart, Array]:
    """The chart of the data, and the mean variance of a column in its units."""
    total = jnp.sum(weight)
    # A first row as provisional origin keeps the mean exact at large offsets.
    origin = rows_at(x, 0)
    shift = origin + sum_over_blocks(lambda rows, w, _: w @ (rows - origin), x, weight) / total
    largest = jnp.maximum(jnp.max(x, axis=0) - shift, shift - jnp.min(x, axis=0))
    _, exponent = jnp.frexp(jnp.max(largest))
    chart = beside_rows(x, Chart(shift, jnp.ldexp(jnp.ones((), x.dtype), exponent)))
    scatter = sum_over_blocks(lambda rows, w, _: w @ chart.apply(rows) ** 2, x, weight)
    return chart, jnp.mean(scatter) / total


# -- Lloyd's algorithm ---------------------------------------------------------------


def nearest(z: Float[Array, "n d"], centres: Float[Array, "k d"]) -> Int[Array, " n"]:
    """Index of the nearest centre, the lowest of several; both in centred units."""
    k, d = centres.shape
    if d <= _FEW_COLUMNS and k * d <= _FEW_DIFFERENCES:
        columns = [z[:, i] for i in range(d)]
        scores = [sum((columns[i] - centres[j, i]) ** 2 for i in range(d)) for j in range(k)]
    else:
        # Half the squared distance, less the row's own part, which no comparison needs.
        product = jnp.matmul(z, centres.T, precision=lax.Precision.HIGHEST)
        score = 0.5 * jnp.sum(centres**2, axis=1) - product
        if k > _FEW_CENTRES:
            return jnp.argmin(score, axis=1).astype(jnp.int32)
        scores = [score[:, j] for j in range(k)]
    least, labels = scores[0], jnp.zeros(z.shape[0], jnp.int32)
    for j, score in enumerate(scores[1:], 1):
        nearer = score < least
        least, labels = jnp.where(nearer, score, least), jnp.where(nearer, jnp.int32(j), labels)
    return labels


def lloyd(
    x: Float[Array, "n d"],
    weight: Float[Array, " n"],
    start: Float[Array, "k d"],
    chart: Chart,
    max_iter: int,
    tol: Array | float = 0.0,
) -> tuple[Float[Array, "k d"], Array, Array]:
    """Centres where Lloyd's algorithm ends, rounds made, and whether it stopped by itself.

    ``start`` and the result are in the units of ``chart``; ``tol`` bounds the sum of
    squared shifts.
    """
    k = start.shape[0]

    def block(rows: Array, w: Array, centres: Array) -> tuple[Array, Array]:
        z = chart.apply(rows)
        labels = nearest(z, centres)
        return _by_label(w[:, None] * z, labels, k), _by_label(w, labels, k)

    def body(state: tuple) -> tuple:
        centres, n_iter, _ = state
        sums, counts = sum_over_blocks(
            lambda rows, w, _: block(rows, w, centres), x, weight, _block_rows(k)
        )
        occupied = counts > 0
        safe = jnp.where(occupied, counts, 1)[:, None]
        means = jnp.where(occupied[:, None], sums / safe, centres)
        new = lax.cond(
            jnp.all(occupied),
            lambda: means,
            lambda: _relocate(x, weight, means, occupied, chart),
        )
        return new, n_iter + 1, jnp.sum((new - centres) ** 2)

    def going(state: tuple) -> Array:
        _, n_iter, shift = state
        return (shift > tol) & (n_iter < max_iter)

    unmoved = jnp.full((), jnp.inf, start.dtype)
    centres, n_iter, shift = lax.while_loop(going, body, (start, jnp.int32(0), unmoved))
    return centres, n_iter, shift <= tol


def _by_label(values: Float[Array, "n ..."], labels: Int[Array, " n"], k: int) -> Array:
    """Sums of the values of each label.

    Elsewhere than on a CPU rows are added up in another order every time, so that centres never
    stand still: there as a product, whose order is fixed.
    """
    if jax.default_backend() == "cpu":
        return jax.ops.segment_sum(values, labels, k)
    own = jax.nn.one_hot(labels, k, dtype=values.dtype, axis=0)
    return jnp.matmul(own, values, precision=lax.Precision.HIGHEST)


def _relocate(
    x: Array, weight: Array, centres: Float[Array, "k d"], occupied: Array, chart: Chart
) -> Float[Array, "k d"]:
    """Empty clusters at the rows farthest from their centres, as far as there are such rows."""
    k = centres.shape[0]

    def block(rows: Array) -> Array:
        z = chart.apply(rows)
        square = _to_nearest(z, centres)
        return jnp.where(square > _rounding(z), square, 0)

    distance = jnp.where(weight > 0, map_over_blocks(block, x, _block_rows(k)), 0)
    # The r-th empty cluster takes the r-th farthest row.
    rank = jnp.cumsum(~occupied) - 1
    far, index = highest(distance, min(k, x.shape[0]))
    far, rows = far[rank], chart.apply(rows_at(x, index))[rank]
    return jnp.where((~occupied & (far > 0))[:, None], rows, centres)


def _to_nearest(z: Float[Array, "n d"], centres: Float[Array, "k d"]) -> Float[Array, " n"]:
    """Squared distance to the nearest centre, by differences."""
    return jnp.sum((z - centres[nearest(z, centres)]) ** 2, axis=1)


def _inertia(x: Array, weight: Array, centres: Float[Array, "k d"], chart: Chart) -> Array:
    def block(rows: Array, w: Array, _: Array | int) -> Array:
        return w @ _to_nearest(chart.apply(rows), centres)

    return chart.unit**2 * sum_over_blocks(block, x, weight, _block_rows(len(centres)))


def _block_rows(k: int) -> int:
    return max(min(_BLOCK_ROWS, _BLOCK_SCORES // k), 256)


# -- seeds ---------------------------------------------------------------------------


def some_rows(
    key: PRNGKeyArray, x: Array, sample_weight: Float[Array, " n"] | None
) -> tuple[Array, Float[Array, " m"]]:
    """At most `MOST_ROWS` rows with their weights, where there are more: a random subset.

    One row out of each of as many strata of equal weight, so that no memory beside the
    cumulative weights grows with n.
    """
    n, m = x.shape[0], MOST_ROWS
    if n <= m:
        return x, jnp.ones(n, x.dtype) if sample_weight is None else sample_weight
    if sample_weight is None:
        size, longer = divmod(n, m)
        stratum = jnp.arange(m)
        width = size + (stratum < longer)
        index = stratum * size + jnp.minimum(stratum, longer)
        index = index + jax.random.randint(key, (m,), 0, width)
    else:
        place = (jnp.arange(m) + jax.random.uniform(key, (m,), x.dtype)) / m
        index = _at_share(sample_weight, place)
    return rows_at(x, index), jnp.ones(m, x.dtype)


def spread_rows(
    key: PRNGKeyArray, rows: Float[Array, "n d"], weight: Float[Array, " n"], k: int
) -> Float[Array, "k d"]:
    """Greedy k-means++ (Arthur and Vassilvitskii, 2007) among centred rows.

    Candidates for the next seed have probability D^2; the one that lowers the inertia
    most is kept.
    """
    n_candidates = 2 + int(math.log(k))
    keys = jax.random.split(key, k)
    columns, squares = rows.T, jnp.sum(rows**2, axis=1)

    def distances(points: Float[Array, "c d"]) -> Float[Array, "c n"]:
        product = jnp.matmul(points, columns, precision=lax.Precision.HIGHEST)
        norms = squares + jnp.sum(points**2, axis=1)[:, None]
        square = norms - 2 * product
        return jnp.where(square > _COINCIDE * jnp.finfo(rows.dtype).eps * norms, square, 0)

    def draw(key: PRNGKeyArray, mass: Array, count: int) -> Array:
        return _at_share(mass, jax.random.uniform(key, (count,), rows.dtype))

    first = rows_at(rows, draw(keys[0], weight, 1))

    def add(near: Array, key: PRNGKeyArray) -> tuple[Array, Array]:
        # With fewer distinct rows than seeds every distance is zero: take any row.
        mass = weight * near
        mass = jnp.where(jnp.any(mass > 0), mass, weight)
        candidates = rows_at(rows, draw(key, mass, n_candidates))
        then = jnp.minimum(near, distances(candidates))
        best = jnp.argmin(then @ weight)
        return then[best], candidates[best]

    _, others = lax.scan(add, distances(first)[0], keys[1:])
    return beside_rows(rows, jnp.concatenate([first, others]))


def _at_share(mass: Float[Array, " n"], share: Float[Array, " m"]) -> Int[Array, " m"]:
    """The rows at which the cumulative mass reaches these shares of the total."""
    index = jnp.minimum(rows_below(mass, share), mass.shape[0] - 1)
    # Rounding of the sums may point between two rows: never at a row without mass.
    return jnp.where(rows_at(mass, index) > 0, index, jnp.argmax(mass))


def _rounding(z: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Squared distances that are rounding beside the norms of the rows."""
    return _COINCIDE * jnp.finfo(z.dtype).eps * jnp.sum(z**2, axis=1)
