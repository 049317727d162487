"""Diagonal covariances: EEI, VEI, EVI and VVI."""

from __future__ import annotations

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import constraints

from jaxgmm.model._charts import DiagonalChart
from jaxgmm.model._structure import Curved, Structure
from jaxgmm.model._variances import Rule


class Diagonal(Structure):
    """Variances of each feature: VVI, and EEI where components share them."""

    uses_products = False
    scales_columns = True
    entry_dims = ("feature",)

    def __init__(self, name: str, code: str):
        self.name, self.code = name, code

    def squares(self, z):
        return [z * z]

    def n_products(self, d):
        return d

    def scatter(self, squares, d):
        return squares

    def squares_of(self, scatter):
        return scatter

    def scatter_in(self, matrices):
        return jnp.diagonal(matrices, axis1=-2, axis2=-1)

    def outer(self, vectors):
        return vectors * vectors

    def scatter_of(self, apart, weights):
        return jnp.einsum("kn,kdn->kd", weights, apart**2)

    def variances(self, entries):
        return entries

    def whiten(self, covariances, apart):
        variances = jnp.broadcast_to(covariances, apart.shape[:2])
        return apart / jnp.sqrt(variances)[:, :, None], jnp.sum(jnp.log(variances), axis=-1)

    def natural(self, means, covariances):
        k, d = means.shape
        variances = jnp.broadcast_to(covariances, (k, d))
        precision = 1 / variances
        linear = precision * means
        log_det = jnp.sum(jnp.log(variances), axis=-1)
        constant = normaliser(jnp.sum(means * linear, axis=-1), log_det, d)
        return jnp.concatenate([constant[:, None], linear, -0.5 * precision], axis=1)

    def entry_shape(self, d):
        return (d,)

    def matrices(self, entries, d):
        return entries[..., None] * jnp.eye(d, dtype=entries.dtype)

    def entries(self, matrices):
        return jnp.diagonal(matrices, axis1=-2, axis2=-1)

    def entry_support(self):
        return constraints.positive

    def entry_prior(self, prior, d):
        dof = jnp.asarray(prior.dof)[..., None]
        return dist.InverseGamma(dof / 2, prior.scale / 2, validate_args=False)

    def mean_prior(self, prior, covariances, k, d):
        spread = jnp.sqrt(covariances / jnp.asarray(prior.mean_precision)[..., None])
        return dist.Normal(prior.mean, spread, validate_args=False).expand([k, d]).to_event(2)

    def prior_rows(self, dof, d):
        return dof + 2

    def entry_volume_power(self, d):
        return 2

    def prior_scale_shapes(self, d):
        return [(d,), ()]

    def prior_scale(self, covariance, n_components):
        d = covariance.shape[0]
        mean_variance = jnp.trace(covariance) / d
        return jnp.full(d, mean_variance / n_components ** (2 / d), covariance.dtype)

    def minimise(self, scatter, counts, d, previous):
        return scatter / counts[..., None]

    def ridge(self, covariances, amount):
        return covariances + amount

    def pivots(self, covariances):
        return covariances

    def data_pivots(self, covariance):
        return jnp.diag(covariance)

    def rescale(self, covariances, scale):
        return covariances * scale**2


class CurvedDiagonal(Curved, Diagonal):
    """VEI and EVI: variances under a rule."""

    chart = DiagonalChart

    def __init__(self, code: str, rule: Rule):
        self.name = self.code = code
        self._rule = rule

    def minimise(self, scatter, counts, d, previous):
        return self._rule(scatter, counts)


def normaliser(square: Array, log_det: Array, d: int) -> Array:
    """The constant of a normal log density, the mean's own square included."""
    return -0.5 * (square + log_det + d * jnp.log(2 * jnp.pi).astype(square.dtype))
