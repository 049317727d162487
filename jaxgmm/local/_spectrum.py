"""Which directions the data inform: the spectrum of an information matrix, free of units."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Scaled curvatures below this share of the largest are flat: rounding of second
# derivatives, and what is left of the gradient, reach about the root of eps.
_FLAT = 1e-6
_FLAT_FLOAT32 = 1e-3


class Spectrum(NamedTuple):
    """A symmetric matrix scaled to unit diagonal, by its eigenvectors.

    Attributes
    ----------
    scale : (p,) array
        Roots of the diagonal.
    values : (p,) array
        Eigenvalues of the scaled matrix, ascending.
    vectors : (p, p) array
        Its eigenvectors, in columns.
    flat : (p,) bool array
        Eigenvalues that are zero as far as rounding tells.
    threshold : float
        What counts as flat, as a share of the largest eigenvalue.
    """

    scale: np.ndarray
    values: np.ndarray
    vectors: np.ndarray
    flat: np.ndarray
    threshold: float

    @property
    def n_flat(self) -> int:
        return int(self.flat.sum())

    @property
    def n_negative(self) -> int:
        return int(np.sum(self.values[~self.flat] < 0))

    def newton_decrement(self, gradient: np.ndarray) -> float:
        """``sqrt(g' H^-1 g)`` over the directions that are not flat.

        The distance to the top of the local quadratic, in standard deviations.
        """
        along = self.vectors.T @ (gradient / self.scale)
        return float(np.sqrt(np.sum(along[~self.flat] ** 2 / np.abs(self.values[~self.flat]))))


def spectrum(matrix: np.ndarray, single: bool) -> Spectrum:
    """`Spectrum` of a finite matrix computed from float32 data (``single``) or float64."""
    matrix = np.asarray(matrix, np.float64)
    threshold = _threshold(single)
    diagonal = np.abs(np.diag(matrix))
    scale = np.sqrt(np.where(diagonal > 0, diagonal, 1))
    values, vectors = np.linalg.eigh(matrix / scale / scale[:, None])
    flat = np.abs(values) <= threshold * np.max(np.abs(values))
    return Spectrum(scale, values, vectors, flat, threshold)


def inverse_root(
    matrix: Float[Array, "p p"], single: bool
) -> tuple[Float[Array, "p p"], Float[Array, ""]]:
    """R with ``R R' = matrix^-1``, and whether the matrix is positive definite, inside a program.

    By the rule of `spectrum`; where it is not, R is that of a matrix of the same size that is. R is
    symmetric but for units, so that it follows the matrix: eigenvectors take any sign, and any
    turn among equals, at its last digit.
    """
    diagonal = jnp.abs(jnp.diag(matrix))
    scale = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1))
    values, vectors = jnp.linalg.eigh(matrix / scale / scale[:, None])
    least = _threshold(single) * jnp.max(jnp.abs(values))
    root = vectors / jnp.sqrt(jnp.maximum(jnp.abs(values), least))
    return root @ vectors.T / scale[:, None], values[0] > least


def _threshold(single: bool) -> float:
    return _FLAT_FLOAT32 if single else _FLAT
