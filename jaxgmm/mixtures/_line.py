"""One dimension: distribution function and quantiles."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float

from jaxgmm.mixtures._normals import normals
from jaxgmm.mixtures._pure import pure

# Halvings of an interval, after which float64 has no digits left.
_HALVINGS = 80


def on_a_line(mixture: Any) -> tuple[Float[Array, " k"], Float[Array, " k"], Float[Array, " k"]]:
    """Weights, means and standard deviations in one dimension."""
    weights, means, covariances = normals(mixture)
    if means.shape[-1] != 1:
        raise ValueError(
            f"mixture: has {means.shape[-1]} columns, and this is for one; take jaxgmm.mixtures."
            "marginal(mixture, column), or affine(mixture, direction)"
        )
    return weights, means[:, 0], jnp.sqrt(covariances[:, 0, 0])


@pure()
def cdf(mixture: Any, x: Array) -> Array:
    """Distribution function in one dimension.

    Parameters
    ----------
    mixture : GaussianParams or Normals
        Of one column.
    x : array
        Of any shape.

    Returns
    -------
    array
        Of the shape of ``x``.

    Raises
    ------
    ValueError
        For more columns.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> params = jg.Mixture(jg.Gaussian("tied"), 2).params(means=[0.0, 4.0], covariances=[[1.0]])
    >>> round(float(jg.mixtures.cdf(params, 2.0)), 6)
    0.5
    """
    weights, means, spreads = on_a_line(mixture)
    x = jnp.asarray(x, means.dtype)
    return jnp.sum(weights * ndtr((x[..., None] - means) / spreads), axis=-1)


@pure()
def quantile(mixture: Any, probability: Array) -> Array:
    """Quantiles in one dimension, the inverse of `cdf`, by halving.

    Parameters
    ----------
    mixture : GaussianParams or Normals
        Of one column.
    probability : array
        Of any shape, from 0 to 1; NaN outside.

    Returns
    -------
    array
        Of the shape of ``probability``.

    Raises
    ------
    ValueError
        For more columns.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> params = jg.Mixture(jg.Gaussian("tied"), 2).params(means=[0.0, 4.0], covariances=[[1.0]])
    >>> round(float(jg.mixtures.quantile(params, 0.5)), 6)
    2.0
    """
    _, means, spreads = on_a_line(mixture)
    p = jnp.asarray(probability, means.dtype)
    # That of a mixture lies between those of its components.
    own = means + spreads * ndtri(p)[..., None]
    low, high = jnp.min(own, axis=-1), jnp.max(own, axis=-1)

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = low + (high - low) / 2
        below = cdf(mixture, middle) < p
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = lax.fori_loop(0, _HALVINGS, halve, (low, high))
    return jnp.where(jnp.isfinite(own[..., 0]), low + (high - low) / 2, own[..., 0])
