"""Factor loadings as a site: up to rotation, lower triangular with a positive diagonal.

Densities of the site are with respect to the measure that Lebesgue's on all (D, q) matrices
leaves once they are rotated: of independent normal loadings the density is that of all their D q
numbers, and neither it nor its mode depends on the order of the columns (Leung and Drton, 2016,
Statistics and Computing 26:751-763).
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import Transform

from jaxgmm._numerics import normal, precise


@precise
def rotated(loadings: Float[Array, "*b d q"]) -> Float[Array, "*b d q"]:
    """The same loadings after a rotation of the factors that leaves zeros above the diagonal."""
    top = loadings[..., : loadings.shape[-1], :]
    turn, corner = jnp.linalg.qr(jnp.swapaxes(top, -1, -2))
    signs = jnp.where(jnp.diagonal(corner, axis1=-2, axis2=-1) < 0, -1, 1)
    return jnp.tril(loadings @ (turn * signs[..., None, :].astype(turn.dtype)))


def n_loadings(d: int, q: int) -> int:
    """How many of them are free."""
    return d * q - q * (q - 1) // 2


class LowerTriangular(constraints.Constraint):
    """(d, q) matrices with zeros above the diagonal, and positive numbers on it."""

    event_dim = 2  # type: ignore[assignment]

    def __init__(self, d: int, q: int):
        self.d, self.q = d, q

    @property
    def free(self) -> np.ndarray:
        """Which entries are not zero by definition."""
        return np.tri(self.d, self.q, dtype=bool)

    def __call__(self, x: Any) -> Array:
        above = jnp.all(jnp.where(self.free, 0, x) == 0, axis=(-2, -1))
        return above & jnp.all(jnp.diagonal(x, axis1=-2, axis2=-1) > 0, axis=-1)

    def feasible_like(self, prototype: Any) -> Array:
        return jnp.broadcast_to(jnp.eye(self.d, self.q), jnp.shape(prototype))

    def tree_flatten(self) -> Any:
        return (), ((), {"d": self.d, "q": self.q})

    def eq(self, other: object, static: bool = False) -> bool:
        return isinstance(other, LowerTriangular) and (self.d, self.q) == (other.d, other.q)

    def __repr__(self) -> str:
        return f"LowerTriangular(d={self.d}, q={self.q})"


class _ToLoadings(Transform):
    """Real numbers to loadings: logarithms on the diagonal, the others as they are.

    ``log_abs_det_jacobian`` is the log density of the reference measure with respect to them.
    """

    domain = constraints.real_vector

    def __init__(self, support: LowerTriangular):
        self.support = support

    @property
    def codomain(self) -> LowerTriangular:
        return self.support

    @property
    def _places(self) -> tuple[np.ndarray, ...]:
        return np.nonzero(self.support.free)

    def __call__(self, x: Array) -> Array:
        rows, columns = self._places
        values = jnp.where(rows == columns, jnp.exp(x), x)
        site = jnp.zeros((*x.shape[:-1], self.support.d, self.support.q), x.dtype)
        return site.at[..., rows, columns].set(values)

    def _inverse(self, y: Array) -> Array:
        rows, columns = self._places
        values, diagonal = y[..., rows, columns], rows == columns
        return jnp.where(diagonal, jnp.log(jnp.where(diagonal, values, 1)), values)

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: Any = None) -> Array:
        # Row i of a matrix is, seen along the rows before, a length on the diagonal and a direction
        # on a sphere of q - i dimensions (Muirhead, 1982, theorems 2.1.12 and 2.1.13).
        q = self.support.q
        logs = jnp.log(jnp.diagonal(y, axis1=-2, axis2=-1))
        dims = np.arange(q, 0, -1)
        spheres = [math.log(2) + n / 2 * math.log(math.pi) - math.lgamma(n / 2) for n in dims]
        return logs @ jnp.asarray(dims, logs.dtype) + sum(spheres)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], self.support.d, self.support.q)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-2], n_loadings(self.support.d, self.support.q))

    def tree_flatten(self) -> Any:
        return (), ((), {"support": self.support})

    def eq(self, other: object, static: bool = False) -> bool:
        return isinstance(other, _ToLoadings) and other.support.eq(self.support)


@biject_to.register(LowerTriangular)
def _chart(constraint: LowerTriangular) -> Transform:
    return _ToLoadings(constraint)


class NormalLoadings(dist.Distribution):
    """Independent normal loadings with these variances by column of the data, rotated.

    Parameters
    ----------
    variances : (..., D) array
    n_factors : int
    """

    pytree_data_fields = ("variances",)
    pytree_aux_fields = ("n_factors",)

    def __init__(self, variances: Array, n_factors: int):
        self.variances, self.n_factors = variances, n_factors
        shape = (variances.shape[-1], n_factors)
        super().__init__(variances.shape[:-1], shape, validate_args=False)

    @constraints.dependent_property(is_discrete=False, event_dim=2)
    def support(self) -> LowerTriangular:
        return LowerTriangular(*self.event_shape)

    def log_prob(self, value: Array) -> Array:
        squares = jnp.sum(value**2, axis=-1) / self.variances
        logs = self.n_factors * jnp.log(2 * math.pi * self.variances)
        return -0.5 * jnp.sum(squares + logs, axis=-1)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        shape = self.shape(sample_shape)
        return rotated(
            jnp.sqrt(self.variances)[..., None] * normal(key, shape, self.variances.dtype)
        )
