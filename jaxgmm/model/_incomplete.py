"""Gaussian rows with holes: a NaN is a value missing at random, integrated out.

Rows with the same holes share a pattern, and with it every factor of a covariance: what depends
on the holes costs one Cholesky factor per pattern and component, and a row two products of a
matrix with a vector.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float, Int

from jaxgmm._checks import blocks
from jaxgmm._numerics import Affine, block_rows, map_over_blocks, sum_over_blocks
from jaxgmm._sharded import of_all, spans_processes
from jaxgmm.model._family import Form
from jaxgmm.model._moments import Moments, about_their_means
from jaxgmm.model._structure import Structure

# Columns whose holes are looked up at once.
_WORD = 8


def patterns_of(x: Any) -> Bool[np.ndarray, "p d"] | None:
    """Which values are there: each pattern of the rows once, or None where nothing is missing.

    The complete pattern is always among them. It also fills the table up to a power of two, so
    that data with a few more patterns share compiled programs.
    """
    seen = np.ones((1, x.shape[1]), bool)
    for _, block in blocks(x):
        packed = np.packbits(~np.isnan(block), axis=1)
        _, first = np.unique(packed, axis=0, return_index=True)
        seen = np.unique(np.concatenate([seen, ~np.isnan(block[first])]), axis=0)
    if spans_processes(x):
        seen = np.unique(of_all(seen), axis=0)
    if len(seen) == 1:
        return None
    spare = 2 ** math.ceil(math.log2(len(seen))) - len(seen)
    return np.concatenate([seen, np.ones((spare, x.shape[1]), bool)])


def without_holes(x: np.ndarray) -> np.ndarray:
    """The rows with any value, their holes filled by the means of the columns; for checks."""
    there = ~np.isnan(x)
    if there.all():
        return x
    x = x[there.any(axis=1)]
    return np.where(np.isnan(x), np.nanmean(x, axis=0, dtype=np.float64).astype(x.dtype), x)


def available_moments(
    x: Array, sample_weight: Array | None
) -> tuple[Float[Array, " d"], Float[Array, " d"], Float[Array, "d d"]]:
    """Total weight and mean of the values in each column, and the scatter about the means.

    Products count where both values are there.
    """
    there = ~jnp.isnan(x)
    heaviest = there if sample_weight is None else jnp.where(there, sample_weight[:, None], -1)
    origin = jnp.take_along_axis(x, jnp.argmax(heaviest, axis=0)[None], axis=0)[0]

    def apart(block: Array, centre: Array) -> Array:
        return jnp.where(jnp.isnan(block), 0, block - centre)

    def block_sum(block: Array, w: Array, _: Array | int) -> tuple[Array, Array]:
        return w @ ~jnp.isnan(block), w @ apart(block, origin)

    totals, offset = sum_over_blocks(block_sum, x, sample_weight)
    mean = origin + offset / totals

    def block_scatter(block: Array, w: Array, _: Array | int) -> Array:
        centred = apart(block, mean)
        return (w * centred.T) @ centred

    return totals, mean, sum_over_blocks(block_scatter, x, sample_weight)


# -- which pattern a row has -----------------------------------------------------------


class _Tree(NamedTuple):
    """Patterns as paths: at every level the codes of those that go on, in order."""

    levels: list[Int[Array, " p"]]

    def walk(self, there: Bool[Array, "n d"]) -> tuple[Int[Array, " n"], Bool[Array, " n"]]:
        """The leaf at which the path of each row ends, and whether there is such a path."""
        leaf, known = jnp.zeros(len(there), jnp.int32), jnp.ones(len(there), bool)
        for level, word in zip(self.levels, _words(there), strict=True):
            code = leaf * 2**_WORD + word
            leaf = jnp.minimum(jnp.searchsorted(level, code), len(level) - 1)
            known &= level[leaf] == code
        return leaf, known


def _words(there: Bool[Array, "n d"]) -> Int[Array, "w n"]:
    """Rows of bits as small whole numbers, a word of columns at a time."""
    bits = jnp.pad(there, ((0, 0), (0, -there.shape[1] % _WORD)))
    powers = 2 ** jnp.arange(_WORD, dtype=jnp.int32)
    return jnp.sum(bits.reshape(len(there), -1, _WORD) * powers, axis=-1, dtype=jnp.int32).T


def _grown(patterns: Bool[Array, "p d"]) -> _Tree:
    tree = _Tree([])
    leaf = jnp.zeros(len(patterns), jnp.int32)
    for word in _words(patterns):
        code = leaf * 2**_WORD + word
        tree.levels.append(jnp.sort(code))
        leaf = jnp.searchsorted(tree.levels[-1], code)
    return tree


def rows_at_once(n_components: int, d: int, dtype: Any) -> int:
    """How many rows with holes make a block."""
    return block_rows(n_components * d * (d + 4), dtype)


# -- the form --------------------------------------------------------------------------


class Seen(NamedTuple):
    """What densities and sums need of a block of rows.

    Attributes
    ----------
    there : (n, D) bool array
        Which values are there.
    pattern : (n,) int array
        Which pattern that is.
    apart : (n, K, D) array
        Values from the means, zero in the holes.
    white : (n, K, D) array
        The same in units in which those there are independent.
    noise : (n, K, D) array, optional
        Draws of the components about their means, for imputations.
    """

    there: Array
    pattern: Array
    apart: Array
    white: Array
    noise: Array | None = None


@dataclasses.dataclass(frozen=True)
class Incomplete(Form):
    """Gaussian components seen from their means, holes integrated out; made by `incomplete`.

    ``params`` are those of the E-step, whose expectations of what is missing the sums hold.

    References
    ----------
    Ghahramani and Jordan (1994), NIPS 6:120-127, section 3.2; Little and Rubin (2002),
    Statistical Analysis with Missing Data, 2nd ed., section 11.2.
    """

    structure: Structure
    chart: Affine
    means: Float[Array, "k d"]
    covariances: Float[Array, "k d d"]
    tree: _Tree
    patterns: Bool[Array, "p d"]
    # Of each pattern: what whitens values that are there, zero elsewhere; the normaliser.
    whitening: Float[Array, "p k d d"]
    normaliser: Float[Array, "p k"]

    def features(self, x: Float[Array, "n d"]) -> Seen:
        there = ~jnp.isnan(x)
        pattern, known = self.tree.walk(there)
        z = self.chart.apply(jnp.where(there, x, self.chart.shift))
        apart = jnp.where(there[:, None], z[:, None] - self.means, 0)
        white = jnp.einsum("nkij,nkj->nki", self.whitening[pattern], apart)
        # Nothing is known of a pattern that the data did not have.
        return Seen(there, pattern, apart, jnp.where(known[:, None, None], white, jnp.nan))

    def log_density(self, params: Any, features: Seen) -> Float[Array, "k n"]:
        square = jnp.sum(features.white**2, axis=-1)
        return (self.normaliser[features.pattern] - 0.5 * square).T

    def sums(self, features: Seen, weights: Float[Array, "k n"]) -> tuple[Array, Array, Array]:
        apart = jnp.transpose(self.completed(features), (1, 2, 0))
        return (
            self.rows(features, weights),
            jnp.einsum("kn,kdn->kd", weights, apart),
            self.structure.scatter_of(apart, weights),
        )

    def rows(self, features: Seen, weights: Float[Array, "k n"]) -> Float[Array, "p k"]:
        """How many rows of each pattern a component has."""
        return jax.ops.segment_sum(weights.T, features.pattern, len(self.patterns))

    def statistics(
        self, sums: tuple[Array, Array, Array], rows: Float[Array, "p k"] | None = None
    ) -> Moments:
        """``rows`` are how many each pattern has, where rows count other than once in the sums."""
        counts, total, scatter = sums
        unknown = self.unknown(counts if rows is None else rows)
        scatter = scatter + self.structure.scatter_in(unknown)
        return about_their_means(
            self.structure, jnp.sum(counts, axis=0), total, scatter, self.means
        )

    def completed(self, seen: Seen) -> Float[Array, "n k d"]:
        """Rows from the means, expectations in the holes."""
        return jnp.where(seen.there[:, None], seen.apart, self.expected(seen.pattern, seen.white))

    def expected(self, pattern: Array, white: Float[Array, "n k d"]) -> Float[Array, "n k d"]:
        """Expectations of all values from the means, given those that are there."""
        natural = jnp.einsum("nkij,nki->nkj", self.whitening[pattern], white)
        return jnp.einsum("kij,nkj->nki", self.covariances, natural)

    def unknown(self, counts: Float[Array, "p k"]) -> Float[Array, "k d d"]:
        """Covariances of what is missing given what is there, summed over the rows.

        In the form of Joseph, which no rounding makes negative.
        """
        w, covariances = self.whitening, self.covariances
        given = jnp.einsum("kij,pkaj,pkal->pkil", covariances, w, w)
        eye = jnp.eye(w.shape[-1], dtype=w.dtype)
        own = jnp.where(self.patterns[:, None, :, None], 0, eye - given)
        return jnp.einsum("pk,pkij,kjl,pkml->kim", counts, own, covariances, own)

    def block_rows(self, x: Array, n_components: int) -> int:
        return rows_at_once(n_components, self.means.shape[1], x.dtype)


class Imputing(Incomplete):
    """The same, with the holes drawn; rows have as much standard normal noise beside them.

    A draw of the whole row, moved by what the values there say of its error, has the
    distribution of the missing given those (Hoffman and Ribak, 1991, ApJ 380:L5-L8).
    """

    def features(self, x: Float[Array, "n d+d"]) -> Seen:
        rows, noise = jnp.split(x, 2, axis=1)
        noise = jnp.einsum("kij,nj->nki", jnp.linalg.cholesky(self.covariances), noise)
        return super().features(rows)._replace(noise=noise)

    def completed(self, seen: Seen) -> Float[Array, "n k d"]:
        assert seen.noise is not None
        noise = jnp.where(seen.there[:, None], seen.noise, 0)
        own = jnp.einsum("nkij,nkj->nki", self.whitening[seen.pattern], noise)
        drawn = seen.noise + self.expected(seen.pattern, seen.white - own)
        return jnp.where(seen.there[:, None], seen.apart, drawn)

    def unknown(self, counts: Float[Array, "p k"]) -> Float[Array, "k d d"]:
        return jnp.zeros_like(self.covariances)


def incomplete(
    structure: Structure,
    chart: Affine,
    patterns: Bool[Array, "p d"],
    means: Float[Array, "k d"],
    covariances: Float[Array, "k d d"],
    form: type[Incomplete] = Incomplete,
) -> Incomplete:
    """The form for rows of these patterns, at parameters in the units of ``chart``."""
    # Who casts all numbers of a model casts these too.
    patterns = jnp.asarray(patterns, bool)
    tree, d = _grown(patterns), means.shape[1]
    leaf, _ = tree.walk(patterns)
    patterns = jnp.ones_like(patterns).at[leaf].set(patterns)
    both = (patterns[:, :, None] & patterns[:, None, :])[:, None]
    eye = jnp.eye(d, dtype=means.dtype)
    factor = jnp.linalg.cholesky(jnp.where(both, covariances, eye))
    whitening = solve_triangular(factor, jnp.broadcast_to(eye, factor.shape), lower=True)
    log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)
    constant = patterns @ (0.5 * math.log(2 * math.pi) + jnp.log(chart.scale))
    return form(
        structure,
        chart,
        means,
        covariances,
        tree,
        patterns,
        jnp.where(both, whitening, 0),
        -0.5 * log_det - constant[:, None],
    )


# -- imputations ------------------------------------------------------------------------


def imputed(
    form: Incomplete, rows: Float[Array, "n c"], labels: Float[Array, "n k"]
) -> Float[Array, "n d"]:
    """The rows, as the form takes them, with their holes filled, given labels."""
    k, d = form.means.shape
    width = rows.shape[1]

    def block(rows: Array) -> Array:
        seen = form.features(rows[:, :width])
        z = jnp.einsum("nk,nkd->nd", rows[:, width:], form.means + form.completed(seen))
        return jnp.where(seen.there, rows[:, :d], form.chart.invert(z))

    return map_over_blocks(block, jnp.concatenate([rows, labels], 1), form.block_rows(rows, k))
