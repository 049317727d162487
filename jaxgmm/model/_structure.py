"""Covariance structures: how the same scatter statistics become a covariance.

A structure names the second moments it needs, the shape of its NumPyro site, its
prior, and the mode of the conjugate update. The names are those of scikit-learn and,
in capitals, of mclust (volume, shape, orientation; Banfield and Raftery, 1993).
"""

from __future__ import annotations

import abc

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float
from numpyro.distributions import biject_to, constraints

from jaxgmm._numerics import symmetrise
from jaxgmm.model._prior import ConjugatePrior, improper


class Structure(abc.ABC):
    """One covariance structure; has no state, so one instance serves every model."""

    name: str
    # Which affine maps keep the structure: a scale per column, or one for all.
    scales_columns: bool
    # Whether one covariance serves all components, so that its prior counts once.
    shared: bool
    # Whether covariances between features are free, so that rows must span them.
    uses_products: bool

    # -- second moments: (D, n) of shifted rows to (S, n), and their algebra ----

    @abc.abstractmethod
    def squares(self, z: Float[Array, "d n"]) -> list[Float[Array, "_ n"]]:
        """The quadratic sufficient statistics of each row, in pieces to be stacked."""

    @abc.abstractmethod
    def n_products(self, d: int) -> int:
        """Number of rows of `squares`."""

    @abc.abstractmethod
    def scatter(self, squares: Float[Array, "k s"], d: int) -> Array:
        """Sums of squares as scatter, by component."""

    @abc.abstractmethod
    def outer(self, vectors: Float[Array, "k d"]) -> Array:
        """``v v^T`` in the same form as `scatter`."""

    @abc.abstractmethod
    def scatter_of(self, apart: Float[Array, "k d n"], weights: Float[Array, "k n"]) -> Array:
        """Weighted scatter of differences that are each component's own."""

    @abc.abstractmethod
    def variances(self, scatter: Array) -> Float[Array, "k d"]:
        """The diagonal of scatter; one column where the columns are not told apart."""

    @abc.abstractmethod
    def natural(self, means: Float[Array, "k d"], covariances: Array) -> Array:
        """Natural parameters (K, 1 + D + S) of normal densities."""

    @abc.abstractmethod
    def whiten(self, covariances: Array, apart: Float[Array, "k d n"]) -> Float[Array, "k d n"]:
        """Differences from the means in units in which their covariance is the identity."""

    @abc.abstractmethod
    def log_det(self, covariances: Array, k: int, d: int) -> Float[Array, " k"]:
        """Log determinant of each covariance."""

    def unconstrain(self, scatter: Array) -> Array:
        """Scatter in coordinates that any real numbers may replace."""
        return biject_to(constraints.positive).inv(scatter)

    def constrain(self, coordinates: Array) -> Array:
        """The inverse of `unconstrain`."""
        return biject_to(constraints.positive)(coordinates)

    # -- the site ---------------------------------------------------------------

    @abc.abstractmethod
    def site_shape(self, k: int, d: int) -> tuple[int, ...]:
        """Shape of the site ``covariances``."""

    @abc.abstractmethod
    def expand(self, covariances: Array, k: int, d: int) -> Float[Array, "*b k d d"]:
        """The site as one matrix per component; leading batch axes pass through."""

    @abc.abstractmethod
    def contract(self, covariances: Float[Array, "k d d"]) -> Array:
        """The inverse of `expand`."""

    @abc.abstractmethod
    def n_parameters(self, k: int, d: int) -> int:
        """Free parameters of the covariances."""

    @abc.abstractmethod
    def support(self) -> constraints.Constraint:
        """Support of the site."""

    @abc.abstractmethod
    def covariance_prior(self, prior: ConjugatePrior, k: int, d: int) -> dist.Distribution:
        """The conjugate prior of the site ``covariances``."""

    @abc.abstractmethod
    def mean_prior(
        self, prior: ConjugatePrior, covariances: Array, k: int, d: int
    ) -> dist.Distribution:
        """The conjugate prior of ``means`` given the covariances."""

    @abc.abstractmethod
    def log_volume_power(self, k: int, d: int) -> float:
        """p where scaling column j by s_j multiplies the site's volume by prod s_j^p."""

    # -- the update ---------------------------------------------------------------

    @abc.abstractmethod
    def mode(
        self, scatter: Array, counts: Float[Array, " k"], prior: ConjugatePrior | None, d: int
    ) -> Array:
        """The site that maximises likelihood times prior, given scatter and counts.

        ``scatter`` is about the posterior means and includes the prior mean's pull
        (design of Fraley and Raftery, 2007, table 1).
        """

    @abc.abstractmethod
    def ridge(self, covariances: Array, amount: Float[Array, " d"]) -> Array:
        """Add ``amount`` to the diagonal."""

    @abc.abstractmethod
    def pivots(self, covariances: Array) -> Array:
        """Conditional variance of each feature given those before it, (..., D) or (..., 1)."""

    @abc.abstractmethod
    def data_pivots(self, covariance: Float[Array, "d d"]) -> Array:
        """`pivots` of one component that covers all the data."""

    @abc.abstractmethod
    def rescale(self, covariances: Array, scale: Float[Array, " d"]) -> Array:
        """The site after column j is multiplied by ``scale[j]``."""

    @abc.abstractmethod
    def rescale_prior(self, prior_scale: Array, scale: Float[Array, " d"]) -> Array:
        """The prior's scale after column j is multiplied by ``scale[j]``."""

    @abc.abstractmethod
    def prior_scale_shapes(self, d: int) -> list[tuple[int, ...]]:
        """Shapes in which a user may write the prior's scale."""

    @abc.abstractmethod
    def prior_scale(self, covariance: Float[Array, "d d"], n_components: int) -> Array:
        """Scale of the default prior for data with this covariance (Fraley and Raftery, 2007)."""

    def retract(self, covariances: Array, tangent: Float[Array, " p"], k: int, d: int) -> Array:
        """The site a step away along the structure; zero leaves it where it is."""
        to_site = biject_to(self.support())
        origin = to_site.inv(covariances)
        return to_site(origin + tangent.reshape(origin.shape))

    def flat_prior(self, k: int, d: int) -> dist.Distribution:
        return improper(self.support(), self.site_shape(k, d))


class _Matrix(Structure):
    """What ``full`` and ``tied`` have in common: all products of two features."""

    scales_columns = True
    uses_products = True

    def squares(self, z):
        return [z[i : i + 1] * z[i:] for i in range(z.shape[0])]

    def n_products(self, d):
        return d * (d + 1) // 2

    def scatter(self, squares, d):
        upper = jnp.triu_indices(d)
        half = jnp.zeros((*squares.shape[:-1], d, d), squares.dtype)
        half = half.at[..., upper[0], upper[1]].set(squares)
        return half + jnp.swapaxes(jnp.triu(half, 1), -1, -2)

    def outer(self, vectors):
        return vectors[:, :, None] * vectors[:, None, :]

    def scatter_of(self, apart, weights):
        return jnp.einsum("kdn,ken->kde", weights[:, None] * apart, apart)

    def variances(self, scatter):
        return jnp.diagonal(scatter, axis1=-2, axis2=-1)

    def whiten(self, covariances, apart):
        factor = jnp.linalg.cholesky(self.expand(covariances, *apart.shape[:2]))
        return solve_triangular(factor, apart, lower=True)

    def log_det(self, covariances, k, d):
        factor = jnp.linalg.cholesky(self.expand(covariances, k, d))
        return 2 * jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)

    def unconstrain(self, scatter):
        return biject_to(constraints.positive_definite).inv(scatter)

    def constrain(self, coordinates):
        return biject_to(constraints.positive_definite)(coordinates)

    def natural(self, means, covariances):
        k, d = means.shape
        factor = jnp.linalg.cholesky(covariances)
        inverse = solve_triangular(
            factor, jnp.broadcast_to(jnp.eye(d, dtype=means.dtype), factor.shape), lower=True
        )
        precision = jnp.broadcast_to(jnp.swapaxes(inverse, -1, -2) @ inverse, (k, d, d))
        log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)
        linear = jnp.einsum("kij,kj->ki", precision, means)
        rows, columns = jnp.triu_indices(d)
        # Off-diagonal products appear once among the squares, twice in the form.
        factor_of_two = jnp.where(rows == columns, -0.5, -1.0).astype(means.dtype)
        quadratic = factor_of_two * precision[:, rows, columns]
        constant = _normaliser(jnp.sum(means * linear, axis=-1), log_det, d)
        return jnp.concatenate([constant[:, None], linear, quadratic], axis=1)

    def support(self):
        return constraints.positive_definite

    def pivots(self, covariances):
        diagonal = jnp.diagonal(jnp.linalg.cholesky(covariances), axis1=-2, axis2=-1)
        return diagonal * jnp.abs(diagonal)

    def data_pivots(self, covariance):
        return self.pivots(covariance)

    def ridge(self, covariances, amount):
        return covariances + jnp.diag(amount)

    def rescale(self, covariances, scale):
        return covariances * scale[:, None] * scale

    def rescale_prior(self, prior_scale, scale):
        return self.rescale(prior_scale, scale)

    def prior_scale_shapes(self, d):
        return [(d, d)]

    def prior_scale(self, covariance, n_components):
        return covariance / n_components ** (2 / covariance.shape[0])


class Full(_Matrix):
    """VVV: a covariance matrix of its own for each component."""

    name = "full"
    shared = False

    def site_shape(self, k, d):
        return (k, d, d)

    def expand(self, covariances, k, d):
        return covariances

    def contract(self, covariances):
        return covariances

    def n_parameters(self, k, d):
        return k * d * (d + 1) // 2

    def log_volume_power(self, k, d):
        return k * (d + 1)

    def covariance_prior(self, prior, k, d):
        return dist.InverseWishart(prior.dof, prior.scale).expand([k]).to_event(1)

    def mean_prior(self, prior, covariances, k, d):
        spread = covariances / prior.mean_precision
        return dist.MultivariateNormal(prior.mean, covariance_matrix=spread).to_event(1)

    def mode(self, scatter, counts, prior, d):
        if prior is None:
            return symmetrise(scatter / counts[:, None, None])
        total = counts + prior.dof + d + 2
        return symmetrise((prior.scale + scatter) / total[:, None, None])


class Tied(_Matrix):
    """EEE: one covariance matrix for all components."""

    name = "tied"
    shared = True

    def site_shape(self, k, d):
        return (d, d)

    def expand(self, covariances, k, d):
        batch = covariances.shape[:-2]
        return jnp.broadcast_to(covariances[..., None, :, :], (*batch, k, d, d))

    def contract(self, covariances):
        return covariances[0]

    def n_parameters(self, k, d):
        return d * (d + 1) // 2

    def log_volume_power(self, k, d):
        return d + 1

    def covariance_prior(self, prior, k, d):
        return dist.InverseWishart(prior.dof, prior.scale)

    def mean_prior(self, prior, covariances, k, d):
        spread = covariances / prior.mean_precision
        normal = dist.MultivariateNormal(prior.mean, covariance_matrix=spread)
        return normal.expand([k]).to_event(1)

    def mode(self, scatter, counts, prior, d):
        pooled, total = jnp.sum(scatter, axis=0), jnp.sum(counts)
        if prior is None:
            return symmetrise(pooled / total)
        k = counts.shape[0]
        return symmetrise((prior.scale + pooled) / (total + prior.dof + d + 1 + k))


class Diagonal(Structure):
    """VVI: variances of its own for each component and feature."""

    name = "diag"
    shared = False
    uses_products = False
    scales_columns = True

    def squares(self, z):
        return [z * z]

    def n_products(self, d):
        return d

    def scatter(self, squares, d):
        return squares

    def outer(self, vectors):
        return vectors * vectors

    def scatter_of(self, apart, weights):
        return jnp.einsum("kn,kdn->kd", weights, apart**2)

    def variances(self, scatter):
        return scatter

    def whiten(self, covariances, apart):
        return apart / jnp.sqrt(covariances)[:, :, None]

    def log_det(self, covariances, k, d):
        return jnp.sum(jnp.log(covariances), axis=-1)

    def natural(self, means, covariances):
        d = means.shape[1]
        precision = 1 / covariances
        linear = precision * means
        log_det = jnp.sum(jnp.log(covariances), axis=-1)
        constant = _normaliser(jnp.sum(means * linear, axis=-1), log_det, d)
        return jnp.concatenate([constant[:, None], linear, -0.5 * precision], axis=1)

    def site_shape(self, k, d):
        return (k, d)

    def expand(self, covariances, k, d):
        return covariances[..., None] * jnp.eye(d, dtype=covariances.dtype)

    def contract(self, covariances):
        return jnp.diagonal(covariances, axis1=-2, axis2=-1)

    def n_parameters(self, k, d):
        return k * d

    def support(self):
        return constraints.positive

    def log_volume_power(self, k, d):
        return 2 * k

    def covariance_prior(self, prior, k, d):
        return dist.InverseGamma(prior.dof / 2, prior.scale / 2).expand([k, d]).to_event(2)

    def mean_prior(self, prior, covariances, k, d):
        return dist.Normal(prior.mean, jnp.sqrt(covariances / prior.mean_precision)).to_event(2)

    def mode(self, scatter, counts, prior, d):
        if prior is None:
            return scatter / counts[:, None]
        return (prior.scale + scatter) / (counts[:, None] + prior.dof + 3)

    def ridge(self, covariances, amount):
        return covariances + amount

    def pivots(self, covariances):
        return covariances

    def data_pivots(self, covariance):
        return jnp.diag(covariance)

    def rescale(self, covariances, scale):
        return covariances * scale**2

    def rescale_prior(self, prior_scale, scale):
        return prior_scale * scale**2

    def prior_scale_shapes(self, d):
        return [(d,), ()]

    def prior_scale(self, covariance, n_components):
        d = covariance.shape[0]
        mean_variance = jnp.trace(covariance) / d
        return jnp.full(d, mean_variance / n_components ** (2 / d), covariance.dtype)


class Spherical(Structure):
    """VII: one variance for each component."""

    name = "spherical"
    shared = False
    uses_products = False
    scales_columns = False

    def squares(self, z):
        return [jnp.sum(z * z, axis=0, keepdims=True)]

    def n_products(self, d):
        return 1

    def scatter(self, squares, d):
        return squares[:, 0]

    def outer(self, vectors):
        return jnp.sum(vectors * vectors, axis=1)

    def scatter_of(self, apart, weights):
        return jnp.einsum("kn,kdn->k", weights, apart**2)

    def variances(self, scatter):
        return scatter[..., None]

    def whiten(self, covariances, apart):
        return apart / jnp.sqrt(covariances)[:, None, None]

    def log_det(self, covariances, k, d):
        return d * jnp.log(covariances)

    def natural(self, means, covariances):
        d = means.shape[1]
        precision = 1 / covariances[:, None]
        linear = precision * means
        log_det = d * jnp.log(covariances)
        constant = _normaliser(jnp.sum(means * linear, axis=-1), log_det, d)
        return jnp.concatenate([constant[:, None], linear, -0.5 * precision], axis=1)

    def site_shape(self, k, d):
        return (k,)

    def expand(self, covariances, k, d):
        return covariances[..., None, None] * jnp.eye(d, dtype=covariances.dtype)

    def contract(self, covariances):
        return covariances[:, 0, 0]

    def n_parameters(self, k, d):
        return k

    def support(self):
        return constraints.positive

    def log_volume_power(self, k, d):
        # The columns share one scale s, so that prod s_j^p is s^(d p).
        return 2 * k / d

    def covariance_prior(self, prior, k, d):
        return dist.InverseGamma(prior.dof / 2, prior.scale / 2).expand([k]).to_event(1)

    def mean_prior(self, prior, covariances, k, d):
        spread = jnp.sqrt(covariances[:, None] / prior.mean_precision)
        return dist.Normal(prior.mean, spread).to_event(2)

    def mode(self, scatter, counts, prior, d):
        if prior is None:
            return scatter / (d * counts)
        return (prior.scale + scatter) / (d * (counts + 1) + prior.dof + 2)

    def ridge(self, covariances, amount):
        return covariances + amount[0]

    def pivots(self, covariances):
        return covariances[..., None]

    def data_pivots(self, covariance):
        return jnp.mean(jnp.diag(covariance), keepdims=True)

    def rescale(self, covariances, scale):
        return covariances * scale[0] ** 2

    def rescale_prior(self, prior_scale, scale):
        return prior_scale * scale[0] ** 2

    def prior_scale_shapes(self, d):
        return [()]

    def prior_scale(self, covariance, n_components):
        d = covariance.shape[0]
        return jnp.trace(covariance) / d / n_components ** (2 / d)


def _normaliser(square: Array, log_det: Array, d: int) -> Array:
    """The constant of a normal log density, the mean's own square included."""
    return -0.5 * (square + log_det + d * jnp.log(2 * jnp.pi).astype(square.dtype))


_FULL, _TIED, _DIAGONAL, _SPHERICAL = Full(), Tied(), Diagonal(), Spherical()

# Every name a user may write; a new structure is one class and one line here.
STRUCTURES: dict[str, Structure] = {
    "full": _FULL,
    "tied": _TIED,
    "diag": _DIAGONAL,
    "spherical": _SPHERICAL,
    "VVV": _FULL,
    "EEE": _TIED,
    "VVI": _DIAGONAL,
    "VII": _SPHERICAL,
}
# In one dimension mclust writes one letter: equal or varying variances.
UNIVARIATE: dict[str, Structure] = {"E": _TIED, "V": _FULL}


def structure_named(name: str) -> Structure:
    return STRUCTURES[name] if name in STRUCTURES else UNIVARIATE[name]
