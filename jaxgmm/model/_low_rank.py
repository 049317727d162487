"""Covariances of a few factors and independent noise: densities and M-steps of one component.

Everything here is of the covariance ``L L^T + diag(noise)`` with L (D, q), by Woodbury's
identity, and of no more than q eigenvectors of the second moments: no (D, D) matrix is factorised
where D is large.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxgmm._numerics import normal, symmetrise
from jaxgmm.local import minimise

# A noise variance may be no smaller a share of what its column varies than the root of the dtype's
# rounding: below that it is zero, a Heywood case.
_LEAST_SHARE = 0.5
# A factor that nobody needs keeps so little of the variance that no sum shows it, and a direction.
_LEAST_GAIN = 1e-10
# The longest step of log noise variances.
_LONGEST = 2.0
# Eigenvectors are taken in a space of about so many dimensions: all of it up to there (200 columns
# are fifty times as fast as by all eigenvectors).
_SPACE = 32


class Held(NamedTuple):
    """What a prior adds to the log joint of one component; zeros where there is none.

    ``-(powers / 2) log v - (squares + loadings |L_d|^2) / (2 v)`` of each noise variance v, of the
    loadings ``L_d`` of the columns that have it.
    """

    loadings: Array
    powers: Array
    squares: Array


def least_share(dtype: jnp.dtype) -> float:
    """The smallest share of its variance that a column's noise may have."""
    return float(jnp.finfo(dtype).eps) ** _LEAST_SHARE


def log_density(
    loadings: Float[Array, "k d q"], noise: Float[Array, "k d"], apart: Float[Array, "k d n"]
) -> Float[Array, "k n"]:
    """Normal log density of differences from the means: O(K n D q)."""
    root = jnp.sqrt(noise)
    white = loadings / root[..., None]
    rows = apart / root[..., None]
    inner = jnp.eye(loadings.shape[-1], dtype=white.dtype)
    factor = jnp.linalg.cholesky(inner + jnp.swapaxes(white, -1, -2) @ white)
    shown = jax.scipy.linalg.cho_solve(
        (factor, True), jnp.broadcast_to(inner, (*factor.shape[:-2], *inner.shape))
    )
    # Expected factors. The squares below are least there, so that rounding of them does not show,
    # and nothing cancels however little noise there is.
    factors = shown @ (jnp.swapaxes(white, -1, -2) @ rows)
    left = rows - white @ factors
    squares = jnp.sum(left**2, axis=-2) + jnp.sum(factors**2, axis=-2)
    log_det = jnp.sum(jnp.log(noise), axis=-1)
    log_det = log_det + 2 * jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)
    constant = log_det + noise.shape[-1] * math.log(2 * math.pi)
    return -0.5 * (squares + constant[:, None])


class _Leading(NamedTuple):
    """The largest eigenvalues of a matrix, the last one the largest, and their eigenvectors."""

    values: Float[Array, " q"]
    vectors: Float[Array, "d q"]
    products: Float[Array, "d q"]  # of the matrix and these


def _leading(matrix: Float[Array, "d d"], near: Float[Array, "d q"]) -> _Leading:
    """Those of a block Krylov space that begins ``near`` them; exact up to `_SPACE` columns.

    The best approximations within a space that holds what is ``near``, so that a maximum over them
    is no lower than there.

    References
    ----------
    Golub and Van Loan (2013), Matrix Computations, 4th ed., sections 8.1.4 and 10.3.6.
    """
    d, q = near.shape
    steps = -(-_SPACE // q)
    if d <= steps * q:
        values, vectors = jnp.linalg.eigh(symmetrise(matrix))
        return _Leading(values[-q:], vectors[:, -q:], vectors[:, -q:] * values[-q:])
    first = jnp.linalg.qr(near)[0]

    def onwards(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        basis, block = state
        block = matrix @ block
        block = jnp.linalg.qr(block - basis @ (basis.T @ block))[0]
        return lax.dynamic_update_slice(basis, block, (0, i * q)), block

    basis = jnp.zeros((d, steps * q), near.dtype).at[:, :q].set(first)
    basis, _ = lax.fori_loop(1, steps, onwards, (basis, first))
    basis = jnp.linalg.qr(basis)[0]
    products = matrix @ basis
    values, turn = jnp.linalg.eigh(symmetrise(basis.T @ products))
    return _Leading(values[-q:], basis @ turn[:, -q:], products @ turn[:, -q:])


def anywhere_near(d: int, q: int, dtype: jnp.dtype) -> Float[Array, "d q"]:
    """Where eigenvectors are looked for if nothing is known of them."""
    return normal(jax.random.key(0), (d, q), dtype)


def shared_noise(
    covariance: Float[Array, "d d"],
    rows: Array,
    near: Float[Array, "d q"],
    held: Held | None,
) -> tuple[Float[Array, "d q"], Array]:
    """Loadings and the one noise variance at the mode given second moments.

    ``near`` are loadings before.

    References
    ----------
    Tipping and Bishop (1999), JRSS B 61:611-622, eqs 7 and 8.
    """
    d, q = near.shape
    most, axes, _ = _leading(covariance, near)
    total = jnp.trace(covariance)
    rest = jnp.maximum(total - jnp.sum(most), 0)
    least = least_share(most.dtype) * total / d + jnp.finfo(most.dtype).tiny ** 0.5
    noise = rest / (d - q)
    if held is not None:
        noise = (rows * rest + held.squares) / (rows * (d - q) + held.powers)
        data = most, rest, rows, jnp.asarray(d, noise.dtype), held
        move = lambda log_noise, step: log_noise + step[0]
        found = minimise(_noise_loss, move, jnp.log(jnp.maximum(noise, least)), 1, data)
        noise = jnp.exp(found)
    noise = jnp.maximum(noise, least)
    gains = _gains(most / noise, rows, held)
    return axes * jnp.sqrt(noise * (gains - 1)), noise


def _noise_loss(log_noise: Array, data: tuple[Array, Array, Array, Array, Held]) -> Array:
    """What the best loadings leave of minus the log joint, by row and column."""
    most, rest, rows, d, held = data
    noise = jnp.exp(log_noise)
    gains = _gains(most / noise, rows, held)
    of_rows = d * log_noise + jnp.sum(jnp.log(gains) + most / (noise * gains)) + rest / noise
    of_prior = held.powers * log_noise + held.squares / noise + held.loadings * jnp.sum(gains - 1)
    return 0.5 * (rows * of_rows + of_prior) / (rows * d)


def own_noise(
    covariance: Float[Array, "d d"],
    rows: Array,
    near: Float[Array, "d q"],
    held: Held | None,
    noise: Float[Array, " d"],
) -> tuple[Float[Array, "d q"], Float[Array, " d"]]:
    """Loadings and noise variances nearer to the mode given second moments.

    ``near`` are loadings before, and ``noise`` that before.

    The loadings are the best ones for the noise before. Then the noise takes the better of two
    steps for these loadings: that of EM with the factors unseen, and Newton's with each column
    by itself, which sees a variance of zero from afar.

    References
    ----------
    Rubin and Thayer (1982), Psychometrika 47:69-76, for EM; Zhao and Yu (2008), IEEE Trans.
    Neural Networks 19:1956-1961, for conditional maximisation without the factors.
    """
    tiny = jnp.finfo(noise.dtype).tiny ** 0.5
    own = jnp.diagonal(covariance)
    least = jnp.minimum(least_share(noise.dtype) * own, noise)
    noise = jnp.maximum(noise, tiny)
    root = jnp.sqrt(noise)
    scaled = covariance / root / root[:, None]
    most, axes, products = _leading(scaled, near / root[:, None])
    gains = _gains(most, rows, held)
    loadings = root[:, None] * axes * jnp.sqrt(gains - 1)

    # Along the columns, in units of the noise: variances, precisions, and what rows say of both.
    along = lambda numbers: axes**2 @ numbers
    lost = (gains - 1) / gains
    precision = 1 - along(lost)
    seen = own / noise - 2 * (axes * products) @ lost + along(lost**2 * most)
    left = seen + along(lost)
    powers, squares = jnp.zeros_like(rows), jnp.zeros_like(noise)
    if held is not None:
        powers = held.powers
        squares = held.squares + held.loadings * jnp.sum(loadings**2, axis=1)
    slope = 0.5 * (rows * (seen - precision) - powers + squares / noise)
    bend = 0.5 * (rows * precision**2 + squares / noise)
    step = jnp.clip(slope / bend, -_LONGEST, _LONGEST)
    tried = jnp.stack([noise * jnp.exp(step), (rows * noise * left + squares) / (rows + powers)])
    tried = jnp.maximum(tried, jnp.maximum(least, tiny))

    def height(noise: Array) -> Array:
        scaled = loadings / noise[:, None]
        inner = jnp.eye(near.shape[1], dtype=noise.dtype) + loadings.T @ scaled
        factor = jnp.linalg.cholesky(inner)
        explained = jnp.trace(
            jax.scipy.linalg.cho_solve((factor, True), scaled.T @ covariance @ scaled)
        )
        log_det = jnp.sum(jnp.log(noise)) + 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))
        of_rows = rows * (log_det + jnp.sum(own / noise) - explained)
        return -(of_rows + jnp.sum(powers * jnp.log(noise) + squares / noise))

    heights = jax.vmap(height)(tried)
    return loadings, lax.select(heights[0] >= heights[1], *tried)


def first_noise(covariance: Float[Array, "d d"]) -> Float[Array, " d"]:
    """Where noise variances start: half of what there is."""
    return 0.5 * jnp.diagonal(covariance)


def _gains(most: Float[Array, " q"], rows: Array, held: Held | None) -> Float[Array, " q"]:
    """Variances along the factors in units of the noise, from those of the rows."""
    gains = most
    if held is not None:
        gains = 2 * most / (1 + jnp.sqrt(1 + 4 * held.loadings * most / rows))
    return jnp.maximum(gains, 1 + _LEAST_GAIN)
