"""Arithmetic with a stated contract, shared by every room."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgmm._sharded import along_rows, on_shares, rows_at, sharing_mesh, unplaced
from jaxgmm.files import refuse_masked, stored

# A block of rows and what is computed of it, a few times as much, stay in the cache of a core, of
# half a megabyte here; other devices want few large blocks.
_BLOCK_BYTES = {"cpu": 2**17}
_BLOCK_BYTES_ELSEWHERE = 2**28
_BLOCK_ROWS = {"cpu": (256, 2048)}
_BLOCK_ROWS_ELSEWHERE = (256, 2**20)
# Fewer rows than these are hardly worth a block of their own: they may fill so much.
_FEW_ROWS, _WIDE_BYTES = 512, 2**22
# Blocks of many rows have a multiple of these, whole lines of the cache.
_LINE = 8

# What is computed side by side (restarts, draws) fills this much memory (measured with restarts:
# twice as much or half as much is slower).
_LIVE_BYTES = 2**18

# Factors of one product whose logarithm is taken; more of them gain nothing.
_LONGEST_PRODUCT = 16

# Counts below this have the logarithms of their factorials in a table.
_TABLED = 1024

# Share of `sqrt(n) eps |objective|` that a sum of n rounded terms may lose, times
# the dozen or so operations behind every term.
_ROUNDING_FACTOR = 64.0


@stored
class Affine(NamedTuple):
    """The map ``z = (x - shift) / scale`` between user's and working units."""

    shift: Float[Array, " d"]
    scale: Float[Array, " d"]

    def apply(self, x: Array) -> Array:
        return (x - self.shift) / self.scale

    def invert(self, z: Array) -> Array:
        return z * self.scale + self.shift

    @property
    def log_scale(self) -> Array:
        """log |dx/dz| of one row."""
        return jnp.sum(jnp.log(self.scale))


def precise(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with every float32 product in float32.

    By default JAX rounds the factors to ten bits on GPUs, and fits then end at other optima
    (docs/performance.md).
    """

    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return traced


def as_rows(x: Array) -> Array:
    """Data with a column axis: a vector is one feature. JAX would forget a mask."""
    refuse_masked("x", x)
    x = along_rows(x)
    return x[:, None] if x.ndim == 1 else x


def normalise(logits: Float[Array, "k n"]) -> tuple[Float[Array, "k n"], Float[Array, " n"]]:
    """Columns of ``exp(logits)`` divided by their sum, and the log of that sum."""
    powers, total, top = _powers(logits)
    return powers * (1 / total), jnp.log(total) + top


def log_sum_exp(logits: Float[Array, "k n"]) -> Float[Array, " n"]:
    """log of the column sums of ``exp(logits)``; a column of -inf gives -inf."""
    return normalise(logits)[1]


def total_log_sum_exp(
    logits: Float[Array, "k n"], weight: Float[Array, " n"], whole: bool
) -> Float[Array, ""]:
    """``weight @ log_sum_exp(logits)``; ``whole`` says that weights are 0 or 1."""
    _, total, top = _powers(logits)
    if not whole:
        return weight @ (jnp.log(total) + top)
    return weight @ top + _log_product(jnp.where(weight > 0, total, 1), len(logits))


def _powers(logits: Float[Array, "k n"]) -> tuple[Float[Array, "k n"], Array, Array]:
    """``exp(logits - top)``, their column sums, which are 1 to K, and the largest, ``top``."""
    top = jnp.max(logits, axis=0)
    top = lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0.0))
    # One exponential per number: they cost as much as a matrix product.
    powers = jnp.exp(logits - top)
    return powers, jnp.sum(powers, axis=0), top


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _log_product(factors: Float[Array, " n"], most: int) -> Float[Array, ""]:
    """Sum of the logarithms of factors between 1 and ``most``.

    Processors take logarithms one number at a time: here, one of every product that can not
    overflow.
    """
    exponents = math.log2(jnp.finfo(factors.dtype).max) // math.log2(max(most, 2))
    length = max(1, min(_LONGEST_PRODUCT, int(exponents)))
    padding = -factors.size % length
    factors = jnp.pad(factors, (0, padding), constant_values=1)
    return jnp.sum(jnp.log(jnp.prod(factors.reshape(length, -1), axis=0)))


@_log_product.defjvp
def _log_product_tangent(
    most: int, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    (factors,), (tangent,) = primals, tangents
    return _log_product(factors, most), jnp.sum(tangent / factors)


def log_factorial(counts: Array) -> Array:
    """log(x!) of each number, Gamma(x + 1) where one is no count.

    Counts, as long as all are below a thousand, are looked up: the gamma function of eight columns
    took longer than all else of an iteration of EM.
    """
    return _log_factorial(jnp.asarray(counts, jnp.result_type(counts, float)))


@functools.cache
def _log_factorials() -> np.ndarray:
    return np.array([math.lgamma(count + 1) for count in range(_TABLED)])


@jax.custom_jvp
def _log_factorial(counts: Array) -> Array:
    tabled = jnp.all((counts >= 0) & (counts < _TABLED) & (counts == jnp.floor(counts)))
    return lax.cond(
        anywhere(~tabled),
        lambda: gammaln(counts + 1),
        lambda: (
            jnp.asarray(_log_factorials(), counts.dtype)
            .at[counts.astype(jnp.int32)]
            .get(mode="promise_in_bounds")
        ),
    )


@_log_factorial.defjvp
def _log_factorial_tangent(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (counts,), (tangent,) = primals, tangents
    return _log_factorial(counts), digamma(counts + 1) * tangent


@custom_vmap
def anywhere(condition: Array) -> Array:
    """Whether a condition holds in any lane of the ``vmap``s around.

    What depends on it alone is not batched, so that a `lax.cond` on it runs one branch.
    """
    return condition


@anywhere.def_vmap
def _anywhere_in_lanes(_size: int, _batched: list[bool], condition: Array) -> tuple[Array, bool]:
    return anywhere(jnp.any(condition, axis=0)), False


def then(value: Array, function: Callable[[], Array]) -> Array:
    """``function()`` once ``value`` is known to be finite; NaN where it is not.

    Under ``jaxlib`` 0.10 two large batches of matrices that are factorised or solved at the
    same time can, on two or three threads, wait for each other for ever: this puts one after
    the other.
    """
    nothing = lambda: jnp.full_like(value, jnp.nan)
    return lax.cond(anywhere(jnp.isfinite(value)), function, nothing)


def rounding_bound(objective: Array, total_weight: Array, cancellation: Array) -> Array:
    """How far rounding alone may lower an objective that sums ``total_weight`` rows.

    Row terms are of order one to ten in working units, and ``cancellation`` more where
    large parts of them cancel, so that the bound counts the rows as well as the sum.
    """
    eps = jnp.finfo(objective.dtype).eps
    return _ROUNDING_FACTOR * eps * (jnp.abs(objective) + total_weight * (1 + cancellation))


def weighted_moments(x: Array, sample_weight: Array | None) -> tuple[Array, Array, Array]:
    """Total weight, mean and scatter matrix about the mean (two passes, no cancellation)."""
    # One of the rows as provisional origin keeps the mean exact at large offsets.
    origin = rows_at(x, 0 if sample_weight is None else jnp.argmax(sample_weight))

    def block_sum(block: Array, w: Array, _: Array | int) -> tuple[Array, Array]:
        return jnp.sum(w), w @ (block - origin)

    total, offset = sum_over_blocks(block_sum, x, sample_weight)
    mean = origin + offset / total

    def block_scatter(block: Array, w: Array, _: Array | int) -> Array:
        centred = block - mean
        return (w * centred.T) @ centred

    return total, mean, sum_over_blocks(block_scatter, x, sample_weight)


def block_rows(width: int, dtype: Any) -> int:
    """How many rows of ``width`` numbers make a block on the default device."""
    device = jax.default_backend()
    least, most = _BLOCK_ROWS.get(device, _BLOCK_ROWS_ELSEWHERE)
    size = _BLOCK_BYTES.get(device, _BLOCK_BYTES_ELSEWHERE)
    row = width * jnp.dtype(dtype).itemsize
    return min(most, max(least, size // row, min(_FEW_ROWS, _WIDE_BYTES // row)))


def _cut(n: int, block: int) -> tuple[int, int]:
    """How many blocks cover ``n`` rows, and the rows of each: about ``block``, and even."""
    rows = -(-n // -(-n // block))
    if rows > _LINE**2:
        rows = min(n, -(-rows // _LINE) * _LINE)
    return -(-n // rows), rows


def widened(tree: Any) -> Any:
    """Arrays in JAX's default precision; Python's own numbers have none."""
    widest = jnp.result_type(float)
    return jax.tree.map(lambda a: a if isinstance(a, float) else jnp.asarray(a, widest), tree)


def normal(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Array:
    """Standard normal noise, as `jax.random.normal` has it.

    Drawn in one dimension: XLA's CPU code for random bits of several takes ten times as long to
    compile.
    """
    return jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)


def _added(one: Any, other: Any) -> Any:
    return jax.tree.map(jnp.add, one, other)


def sum_over_blocks(
    function: Callable[..., Any],
    x: Array,
    weight: Array | None,
    block: int | None = None,
    add: Callable[[Any, Any], Any] = _added,
) -> Any:
    """Sum ``function(rows, weights, first)``, a pytree of statistics, over blocks of rows.

    ``first`` is the index of the first row of a block; no weights count every row once; ``add``
    takes statistics together, zeros to nothing.
    Holds one block of intermediates at a time, by default of `block_rows` for the width of
    ``x``. The last block reaches back over rows that the one before has counted, and
    weighs them zero: nothing is padded or copied, and compiled code holds ``function`` once.
    Where devices share the rows, each passes over its own.
    """
    block = block_rows(x.shape[1], x.dtype) if block is None else block
    weight = None if weight is None else weight.astype(x.dtype)
    mesh = sharing_mesh(x)
    if mesh is None:
        return _summed(function, x, weight, block, add, 0)

    def own(x: Array, weight: Array | None, first: Array | int) -> Any:
        sums = _summed(function, x, weight, block, add, first)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], sums)

    shares = on_shares(mesh, own, x, weight)
    if add is _added:
        total = lambda leaf: jnp.sum(leaf, axis=0, dtype=leaf.dtype)
        return unplaced(jax.tree.map(total, shares))
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), shares)
    return unplaced(lax.scan(lambda total, one: (add(total, one), None), zero, shares)[0])


def _summed(
    function: Callable[..., Any],
    x: Array,
    weight: Array | None,
    block: int,
    add: Callable[[Any, Any], Any],
    before: Array | int,
) -> Any:
    """The sum over rows that one device has, ``before`` of which there are others."""
    n = x.shape[0]
    if n <= block:
        return function(x, jnp.ones(n, x.dtype) if weight is None else weight, before)
    count, block = _cut(n, block)

    def part(index: Array | int) -> Any:
        begin = block * index
        first = jnp.minimum(begin, n - block)
        rows = lax.dynamic_slice_in_dim(x, first, block)
        weights = (first + jnp.arange(block) >= begin).astype(x.dtype)
        if weight is not None:
            weights = weights * lax.dynamic_slice_in_dim(weight, first, block)
        return function(rows, weights, before + first)

    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(part, 0))
    onwards = lambda total, index: (add(total, part(index)), None)
    return lax.scan(onwards, zero, jnp.arange(count))[0]


def map_over_blocks(
    function: Callable[[Array], Array], x: Array, block: int
) -> Float[Array, "n ..."]:
    """What ``function`` makes of each row, one block of rows at a time.

    Beyond the result it holds one block of intermediates. The last block reaches back, as in
    `sum_over_blocks`; where devices share the rows, each has the results of its own.
    """
    mesh = sharing_mesh(x)
    if mesh is not None:
        own = lambda x, _, __: map_over_blocks(function, x, block)
        return on_shares(mesh, own, x, None)
    n = x.shape[0]
    if n <= block:
        return function(x)
    count, block = _cut(n, block)

    def part(index: Array, found: Array) -> Array:
        first = jnp.minimum(block * index, n - block)
        rows = function(lax.dynamic_slice_in_dim(x, first, block))
        return lax.dynamic_update_slice_in_dim(found, rows, first, axis=0)

    one = jax.eval_shape(function, x[:block])
    found = jnp.zeros((n, *one.shape[1:]), one.dtype)
    return lax.fori_loop(0, count, part, found)


def at_once(numbers: int, dtype: Any) -> int:
    """How many things that hold so many numbers each to compute side by side."""
    return max(1, _LIVE_BYTES // (numbers * jnp.dtype(dtype).itemsize))


def stack(pieces: list[Float[Array, "_ n"]]) -> Float[Array, "f n"]:
    """Rows of several arrays below each other.

    XLA would weave the making of the pieces into the copy, one number at a time; finished
    pieces are copied whole, which halves the time of an E-step.
    """
    return jnp.concatenate([lax.optimization_barrier(piece) for piece in pieces])


def symmetrise(matrix: Float[Array, "... d d"]) -> Float[Array, "... d d"]:
    return 0.5 * (matrix + jnp.swapaxes(matrix, -1, -2))
