"""Covariance matrices with products of features: EEE, VVV and the six between them."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax.nn import logsumexp
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import digamma
from jaxtyping import Array
from numpyro.distributions import constraints

from jaxgmm._numerics import symmetrise
from jaxgmm.model import _variances
from jaxgmm.model._charts import CommonAxesChart, OwnAxesChart, TriangularChart
from jaxgmm.model._diagonal import normaliser
from jaxgmm.model._inverse_wishart import InverseWishart, NormalGivenCovariance, inverse
from jaxgmm.model._orientation import along, assembled, common_frame
from jaxgmm.model._structure import Curved, Structure


class Matrix(Structure):
    """A free matrix: VVV, and EEE where components share it."""

    uses_products = True
    scales_columns = True
    entry_dims = ("feature", "feature_bis")

    def __init__(self, name: str, code: str):
        self.name, self.code = name, code

    def squares(self, z):
        return [z[i : i + 1] * z[i:] for i in range(z.shape[0])]

    def n_products(self, d):
        return d * (d + 1) // 2

    def scatter(self, squares, d):
        upper = jnp.triu_indices(d)
        half = jnp.zeros((*squares.shape[:-1], d, d), squares.dtype)
        half = half.at[..., upper[0], upper[1]].set(squares)
        return half + jnp.swapaxes(jnp.triu(half, 1), -1, -2)

    def squares_of(self, scatter):
        return scatter[(..., *jnp.triu_indices(scatter.shape[-1]))]

    def scatter_in(self, matrices):
        return matrices

    def outer(self, vectors):
        return vectors[:, :, None] * vectors[:, None, :]

    def scatter_of(self, apart, weights):
        return jnp.einsum("kdn,ken->kde", weights[:, None] * apart, apart)

    def variances(self, entries):
        return jnp.diagonal(entries, axis1=-2, axis2=-1)

    def whiten(self, covariances, apart):
        factor = jnp.linalg.cholesky(self.expand(covariances, *apart.shape[:2]))
        log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)
        return solve_triangular(factor, apart, lower=True), log_det

    def natural(self, means, covariances):
        k, d = means.shape
        precision, log_det = inverse(covariances)
        precision = jnp.broadcast_to(precision, (k, d, d))
        linear = jnp.einsum("kij,kj->ki", precision, means)
        rows, columns = jnp.triu_indices(d)
        # Off-diagonal products appear once among the squares, twice in the form.
        factor_of_two = jnp.where(rows == columns, -0.5, -1.0).astype(means.dtype)
        quadratic = factor_of_two * precision[:, rows, columns]
        constant = normaliser(jnp.sum(means * linear, axis=-1), log_det, d)
        return jnp.concatenate([constant[:, None], linear, quadratic], axis=1)

    def entry_shape(self, d):
        return (d, d)

    def matrices(self, entries, d):
        return entries

    def entries(self, matrices):
        return matrices

    def entry_support(self):
        return constraints.positive_definite

    def entry_prior(self, prior, d):
        return InverseWishart(prior.dof, prior.scale, validate_args=False)

    def mean_prior(self, prior, covariances, k, d):
        normal = NormalGivenCovariance(prior.mean, covariances, prior.mean_precision)
        return normal.expand([k]).to_event(1)

    def prior_rows(self, dof, d):
        return dof + d + 1

    def log_det_excess(self, dof, d):
        halves = (dof[..., None] - jnp.arange(d)) / 2
        return jnp.sum(digamma(halves) - jnp.log(dof / 2)[..., None], axis=-1)

    def entry_volume_power(self, d):
        return d + 1

    def prior_scale_shapes(self, d):
        return [(d, d)]

    def prior_scale(self, covariance, n_components):
        return covariance / n_components ** (2 / covariance.shape[0])

    def minimise(self, scatter, counts, d, previous):
        return symmetrise(scatter / counts[..., None, None])

    def ridge(self, covariances, amount):
        return covariances + jnp.diag(amount)

    def pivots(self, covariances):
        diagonal = jnp.diagonal(jnp.linalg.cholesky(covariances), axis1=-2, axis2=-1)
        return diagonal * jnp.abs(diagonal)

    def data_pivots(self, covariance):
        return self.pivots(covariance)

    def rescale(self, covariances, scale):
        return covariances * scale[:, None] * scale


class CommonShape(Curved, Matrix):
    """VEE: multiples of one matrix."""

    name = code = "VEE"
    chart = TriangularChart

    def __init__(self):
        pass

    def minimise(self, scatter, counts, d, previous):
        traces = jnp.trace(scatter, axis1=1, axis2=2)
        return symmetrise(_variances.proportional(scatter, counts, traces, _log_det))


class CommonVolume(Curved, Matrix):
    """EVV: matrices of one determinant."""

    name = code = "EVV"
    chart = TriangularChart

    def __init__(self):
        pass

    def minimise(self, scatter, counts, d, previous):
        volumes = jnp.exp(_log_det(scatter) / d)
        factor = jnp.sum(volumes) / jnp.sum(counts) / volumes
        return symmetrise(scatter * factor[:, None, None])


class OwnOrientation(Curved, Matrix):
    """EEV and VEV: each component has axes of its own, with variances under a rule.

    The axes are the eigenvectors of each scatter matrix, in one order (Celeux and Govaert,
    1995, section 3).
    """

    scales_columns = False
    chart = OwnAxesChart

    def __init__(self, code: str, rule: _variances.Rule):
        self.name = self.code = code
        self._rule = rule

    def minimise(self, scatter, counts, d, previous):
        values, frames = jnp.linalg.eigh(scatter)
        return symmetrise(assembled(frames, self._rule(values, counts)))


class CommonOrientation(Curved, Matrix):
    """EVE and VVE: all components share their axes, with variances under a rule.

    ``cost`` is what the variances along the axes leave of the M-step's objective, as
    Flury (1984), JASA 79:892-898, has it for VVE.
    """

    scales_columns = False
    chart = CommonAxesChart

    def __init__(self, code: str, rule: _variances.Rule, cost: Callable[[Array, Array], Array]):
        self.name = self.code = code
        self._rule, self._cost = rule, cost

    def minimise(self, scatter, counts, d, previous):
        frame = common_frame(scatter, counts, self._cost, previous)
        variances = self._rule(along(frame, scatter), counts)
        return symmetrise(assembled(frame, variances))


def free_variances_cost(variances: Array, shares: Array) -> Array:
    """What VVE minimises over orientations."""
    return shares @ jnp.sum(jnp.log(variances), axis=1)


def common_volume_cost(variances: Array, shares: Array) -> Array:
    """What EVE minimises over orientations."""
    return variances.shape[1] * logsumexp(jnp.mean(jnp.log(variances), axis=1))


def _log_det(matrices: Array) -> Array:
    return jnp.linalg.slogdet(matrices)[1]
