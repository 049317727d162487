"""Spherical covariances: EII and VII."""

from __future__ import annotations

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from jaxgmm.model._diagonal import normaliser
from jaxgmm.model._structure import Structure


class Spherical(Structure):
    """A multiple of the identity; an entry is one variance, scatter is its trace."""

    uses_products = False
    scales_columns = False
    entry_dims = ()

    def __init__(self, name: str, code: str):
        self.name, self.code = name, code

    def squares(self, z):
        return [jnp.sum(z * z, axis=0, keepdims=True)]

    def n_products(self, d):
        return 1

    def scatter(self, squares, d):
        return squares[:, 0]

    def squares_of(self, scatter):
        return scatter[:, None]

    def scatter_in(self, matrices):
        return jnp.trace(matrices, axis1=-2, axis2=-1)

    def outer(self, vectors):
        return jnp.sum(vectors * vectors, axis=1)

    def scatter_of(self, apart, weights):
        return jnp.einsum("kn,kdn->k", weights, apart**2)

    def variances(self, entries):
        return entries[..., None]

    def whiten(self, covariances, apart):
        k, d, _ = apart.shape
        variances = jnp.broadcast_to(covariances, (k,))
        return apart / jnp.sqrt(variances)[:, None, None], d * jnp.log(variances)

    def natural(self, means, covariances):
        k, d = means.shape
        variances = jnp.broadcast_to(covariances, (k,))
        precision = 1 / variances[:, None]
        linear = precision * means
        constant = normaliser(jnp.sum(means * linear, axis=-1), d * jnp.log(variances), d)
        return jnp.concatenate([constant[:, None], linear, -0.5 * precision], axis=1)

    def entry_shape(self, d):
        return ()

    def matrices(self, entries, d):
        return entries[..., None, None] * jnp.eye(d, dtype=entries.dtype)

    def entries(self, matrices):
        return matrices[..., 0, 0]

    def entry_support(self):
        return constraints.positive

    def entry_prior(self, prior, d):
        return dist.InverseGamma(prior.dof / 2, prior.scale / 2, validate_args=False)

    def mean_prior(self, prior, covariances, k, d):
        spread = jnp.sqrt((covariances / prior.mean_precision)[..., None])
        return dist.Normal(prior.mean, spread, validate_args=False).expand([k, d]).to_event(2)

    def prior_rows(self, dof, d):
        return (dof + 2) / d

    def dof_of_row(self, d):
        return d

    def entry_volume_power(self, d):
        # The columns share one scale s, so that prod s_j^p is s^(d p).
        return 2 / d

    def prior_scale_shapes(self, d):
        return [()]

    def prior_scale(self, covariance, n_components):
        d = covariance.shape[0]
        return jnp.trace(covariance) / d / n_components ** (2 / d)

    def minimise(self, scatter, counts, d, previous):
        return scatter / (d * counts)

    def ridge(self, covariances, amount):
        return covariances + amount[0]

    def pivots(self, covariances):
        return covariances[..., None]

    def data_pivots(self, covariance):
        return jnp.mean(jnp.diag(covariance), keepdims=True)

    def rescale(self, covariances, scale):
        return covariances * scale[0] ** 2
