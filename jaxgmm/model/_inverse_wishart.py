"""The normal-inverse-Wishart prior, on precisions that it shares with the likelihood.

NumPyro's own densities factorise and solve for themselves. These say the same of the same
values, and XLA merges their inverse with that of the likelihood.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import multigammaln
from jaxtyping import Array, Float

from jaxgmm._numerics import precise


@jax.custom_jvp
@precise
def inverse(covariances: Float[Array, "*k d d"]) -> tuple[Float[Array, "*k d d"], Array]:
    """Precisions, and the logarithms of the determinants of the covariances.

    Their derivatives are products with the precisions; those of a factor would be solved
    for again.
    """
    factor = jnp.linalg.cholesky(covariances)
    identity = jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
    root = solve_triangular(factor, identity, lower=True)
    return jnp.swapaxes(root, -1, -2) @ root, _log_det(factor)


@inverse.defjvp
@precise
def _inverse_tangent(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Any, Any]:
    precision, log_det = inverse(*primals)
    product = precision @ tangents[0]
    slope = jnp.trace(product, axis1=-2, axis2=-1)
    return (precision, log_det), (-product @ precision, slope)


class InverseWishart(dist.InverseWishart):
    """Gelman et al. (2013), Bayesian Data Analysis, table A.1."""

    @precise
    def log_prob(self, value: Array) -> Array:
        d, dof = value.shape[-1], self.concentration
        precision, log_det = inverse(value)
        scale = _log_det(self.scale_tril) - d * math.log(2)
        constant = dof / 2 * scale - multigammaln(dof / 2, d)
        trace = jnp.sum(precision * self.scale_matrix, axis=(-2, -1))
        return constant - ((dof + d + 1) * log_det + trace) / 2


class NormalGivenCovariance(dist.MultivariateNormal):
    """A mean whose covariance is that of its component over ``mean_precision``."""

    pytree_data_fields = ("covariances", "mean_precision")

    def __init__(self, mean: Array, covariances: Array, mean_precision: Array):
        self.covariances, self.mean_precision = covariances, jnp.asarray(mean_precision)
        root = jnp.sqrt(self.mean_precision)[..., None, None]
        tril = jnp.linalg.cholesky(covariances) / root
        super().__init__(mean, scale_tril=tril, validate_args=False)

    @precise
    def log_prob(self, value: Array) -> Array:
        apart, count = value - self.loc, self.mean_precision
        precision, log_det = inverse(self.covariances)
        square = jnp.einsum("...i,...ij,...j->...", apart, precision, apart)
        d = value.shape[-1]
        return (d * jnp.log(count / (2 * math.pi)) - log_det - count * square) / 2


def _log_det(factor: Float[Array, "*k d d"]) -> Float[Array, "*k"]:
    """Of the matrix of which this is the Cholesky factor."""
    return 2 * jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)
