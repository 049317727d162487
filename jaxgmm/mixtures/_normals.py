"""Mixtures of normals that make other mixtures of normals."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgmm.mixtures._pure import pure


class Normals(NamedTuple):
    """A mixture of normals, whatever the structure that it was fitted with.

    Attributes
    ----------
    weights : (K,) array
    means : (K, D) array
    covariances : (K, D, D) array
    """

    weights: Float[Array, "*b k"]
    means: Float[Array, "*b k d"]
    covariances: Float[Array, "*b k d d"]


def normals(mixture: Any) -> Normals:
    """A mixture as three arrays.

    Every function here takes what this takes: ``fit.params``, one draw of ``post.params``, or
    anything with weights, means and covariances; `jax.vmap` goes over draws.

    Parameters
    ----------
    mixture : GaussianParams or Normals

    Returns
    -------
    Normals

    Raises
    ------
    TypeError
        For parameters of other components.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> params = jg.Mixture(jg.Gaussian("tied"), 2).params(means=[0.0, 5.0], covariances=[[2.0]])
    >>> jg.mixtures.normals(params).covariances.shape
    (2, 1, 1)
    """
    try:
        arrays = mixture.weights, mixture.means, mixture.covariances
    except AttributeError as error:
        raise TypeError(
            "mixture: needs weights, means and covariances, such as fit.params of a Gaussian "
            f"mixture has; found {type(mixture).__name__}"
        ) from error
    return Normals(*map(jnp.asarray, arrays))


def _shape(mixture: Any) -> tuple[int, int]:
    """Components and columns."""
    means = mixture.means if hasattr(mixture, "means") else normals(mixture).means
    return np.shape(means)[-2], np.shape(means)[-1]


def _columns(columns: Any, width: int) -> tuple[int, ...]:
    """Different columns by position, from the end where negative."""
    found = tuple(int(j) for j in np.atleast_1d(np.asarray(columns, int)))
    if not found or not all(-width <= j < width for j in found):
        raise ValueError(f"columns: need positions below {width}, found {list(found)}")
    found = tuple(j % width for j in found)
    if len(set(found)) < len(found):
        raise ValueError(f"columns: each once, found {list(found)}")
    return found


def marginal(mixture: Any, columns: Any) -> Normals:
    """The mixture of some of the columns, in their order.

    Parameters
    ----------
    mixture : GaussianParams or Normals
    columns : int or sequence of int

    Returns
    -------
    Normals

    Raises
    ------
    ValueError
        For columns that are not there.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> params = jg.Mixture(jg.Gaussian(), 1).params(
    ...     means=[[1.0, 2.0]], covariances=[[[1.0, 0.5], [0.5, 3.0]]]
    ... )
    >>> jg.mixtures.marginal(params, 1).covariances.tolist()
    [[[3.0]]]
    """
    return _marginal(mixture, _columns(columns, _shape(mixture)[1]))


@pure(static_argnames="columns")
def _marginal(mixture: Any, columns: tuple[int, ...]) -> Normals:
    weights, means, covariances = normals(mixture)
    at = jnp.array(columns)
    return Normals(weights, means[:, at], covariances[:, at[:, None], at])


def conditional(mixture: Any, columns: Any, values: Any) -> Normals:
    """The mixture of the other columns where some are known: regression by a mixture.

    Parameters
    ----------
    mixture : GaussianParams or Normals
    columns : int or sequence of int
        Those that are known.
    values : (c,) array
        What they are; `jax.vmap` goes over rows.

    Returns
    -------
    Normals
        Of the other columns, in their order. Its mean, by `collapse`, is the regression.

    Raises
    ------
    ValueError
        For columns that are not there, none that is left, or another number of values.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> params = jg.Mixture(jg.Gaussian(), 1).params(
    ...     means=[[0.0, 2.0]], covariances=[[[1.0, 0.5], [0.5, 3.0]]]
    ... )
    >>> found = jg.mixtures.conditional(params, 0, 1.0)
    >>> float(found.means[0, 0]), float(found.covariances[0, 0, 0])
    (2.5, 2.75)
    """
    width = _shape(mixture)[1]
    known = _columns(columns, width)
    if len(known) == width:
        raise ValueError(f"columns: all {width} are known, nothing is left")
    if np.size(values) != len(known):
        raise ValueError(f"values: need one for each of {len(known)} column(s)")
    return _conditional(mixture, known, values)


@pure(static_argnames="columns")
def _conditional(mixture: Any, columns: tuple[int, ...], values: Array) -> Normals:
    weights, means, covariances = normals(mixture)
    known = jnp.array(columns)
    rest = jnp.array([j for j in range(means.shape[1]) if j not in columns])
    values = jnp.reshape(jnp.asarray(values, means.dtype), (-1,))

    def one(mean: Array, covariance: Array) -> tuple[Array, Array, Array]:
        root = jnp.linalg.cholesky(covariance[known[:, None], known])
        apart = solve_triangular(root, values - mean[known], lower=True)
        lever = solve_triangular(root, covariance[known[:, None], rest], lower=True)
        left = covariance[rest[:, None], rest] - lever.T @ lever
        return mean[rest] + lever.T @ apart, left, _log_normal(root, apart)

    centres, spreads, height = jax.vmap(one)(means, covariances)
    return Normals(jax.nn.softmax(jnp.log(weights) + height), centres, spreads)


@pure()
def affine(mixture: Any, matrix: Array, shift: Array | float = 0.0) -> Normals:
    """The mixture of ``matrix @ x + shift``.

    Parameters
    ----------
    mixture : GaussianParams or Normals
    matrix : (E, D) array
    shift : (E,) array, optional

    Returns
    -------
    Normals
        Of E columns.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> import numpy as np
    >>> params = jg.Mixture(jg.Gaussian(), 1).params(means=[[1.0, 2.0]], covariances=[np.eye(2)])
    >>> total = jg.mixtures.affine(params, np.ones((1, 2)))
    >>> float(total.means[0, 0]), float(total.covariances[0, 0, 0])
    (3.0, 2.0)
    """
    weights, means, covariances = normals(mixture)
    matrix = jnp.asarray(matrix, means.dtype)
    return Normals(weights, means @ matrix.T + shift, matrix @ covariances @ matrix.T)


@pure()
def product(one: Any, other: Any) -> tuple[Normals, Array]:
    """The product of two densities, which is a mixture of K L normals but for its mass.

    Parameters
    ----------
    one, other : GaussianParams or Normals
        Of K and L components in the same columns.

    Returns
    -------
    (Normals, scalar array)
        The product as a density, and the log of its mass: the integral of the product.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> params = jg.Mixture(jg.Gaussian(), 1).params(means=[0.0], covariances=[[[1.0]]])
    >>> both, log_mass = jg.mixtures.product(params, params)
    >>> round(float(both.covariances[0, 0, 0]), 4), round(float(log_mass), 4)
    (0.5, -1.2655)
    """
    a, b = normals(one), normals(other)

    def pair(mean: Array, spread: Array, centre: Array, width: Array) -> tuple[Array, ...]:
        root = jnp.linalg.cholesky(spread + width)
        lever = cho_solve((root, True), width)  # of the sum's inverse and the other's covariance
        height = _log_normal(root, solve_triangular(root, mean - centre, lower=True))
        return centre + lever.T @ (mean - centre), spread @ lever, height

    row = jax.vmap(pair, (None, None, 0, 0))
    means, covariances, height = jax.vmap(row, (0, 0, None, None))(*a[1:], *b[1:])
    logits = jnp.log(a.weights)[:, None] + jnp.log(b.weights) + height
    flat = lambda array: array.reshape(-1, *array.shape[2:])
    covariances = (covariances + jnp.swapaxes(covariances, -1, -2)) / 2
    weights = jax.nn.softmax(logits.ravel())
    return Normals(weights, flat(means), flat(covariances)), logsumexp(logits)


def collapse(mixture: Any, groups: Any = None) -> Normals:
    """Components taken together, with the moments that they have together.

    Parameters
    ----------
    mixture : GaussianParams or Normals
    groups : sequence of K int, optional
        The new component of each, from 0; one for all by default, whose mean and covariance are
        those of the density.

    Returns
    -------
    Normals

    Raises
    ------
    ValueError
        For other than K groups numbered from 0.

    References
    ----------
    Runnalls (2007), IEEE Transactions on Aerospace and Electronic Systems 43:989-999.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> params = jg.Mixture(jg.Gaussian("tied"), 2).params(means=[0.0, 4.0], covariances=[[1.0]])
    >>> whole = jg.mixtures.collapse(params)
    >>> float(whole.means[0, 0]), float(whole.covariances[0, 0, 0])
    (2.0, 5.0)
    """
    k = _shape(mixture)[0]
    found = (0,) * k if groups is None else tuple(int(g) for g in groups)
    if len(found) != k or set(found) != set(range(max(found, default=0) + 1)):
        raise ValueError(f"groups: need {k} numbers from 0 without a gap, found {list(found)}")
    return _collapse(mixture, found)


@pure(static_argnames="groups")
def _collapse(mixture: Any, groups: tuple[int, ...]) -> Normals:
    weights, means, covariances = normals(mixture)
    member = jax.nn.one_hot(jnp.array(groups), max(groups) + 1, dtype=means.dtype)
    total = weights @ member
    share = member * weights[:, None] / total
    centres = share.T @ means
    apart = means - member @ centres
    spread = covariances + apart[:, :, None] * apart[:, None, :]
    return Normals(total, centres, jnp.tensordot(share.T, spread, axes=1))


@pure()
def log_density(mixture: Any, x: Array) -> Float[Array, " n"]:
    """Log density of rows.

    Parameters
    ----------
    mixture : GaussianParams or Normals
    x : (n, D) array

    Returns
    -------
    (n,) array

    Examples
    --------
    >>> import jaxgmm as jg
    >>> params = jg.Mixture(jg.Gaussian(), 1).params(means=[0.0], covariances=[[[1.0]]])
    >>> round(float(jg.mixtures.log_density(params, [[0.0]])[0]), 4)
    -0.9189
    """
    return logsumexp(log_joint(normals(mixture), jnp.asarray(x)), axis=0)


def log_joint(mixture: Normals, x: Float[Array, "n d"]) -> Float[Array, "k n"]:
    """Log weight and log density of each component at each row."""

    def one(mean: Array, covariance: Array) -> Array:
        root = jnp.linalg.cholesky(covariance)
        apart = solve_triangular(root, (x - mean).T, lower=True)
        return _log_normal(root, apart)

    height = jax.vmap(one)(mixture.means, mixture.covariances)
    return jnp.log(mixture.weights)[:, None] + height


def _log_normal(root: Float[Array, "d d"], apart: Array) -> Array:
    """Log density at whitened differences, by the root of the covariance."""
    constant = len(root) / 2 * jnp.log(2 * jnp.pi) + jnp.sum(jnp.log(jnp.diagonal(root)))
    return -0.5 * jnp.sum(apart**2, axis=0) - constant


@pure(static_argnames="n")
def draw(mixture: Any, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
    """Rows of the mixture: labels first, then one normal for each row and not one for each label.

    Parameters
    ----------
    mixture : GaussianParams or Normals
    key : typed random key
    n : int
        How many.

    Returns
    -------
    (n, D) array

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> params = jg.Mixture(jg.Gaussian("tied"), 2).params(means=[0.0, 4.0], covariances=[[1.0]])
    >>> jg.mixtures.draw(params, jax.random.key(0), 5).shape
    (5, 1)
    """
    weights, means, covariances = normals(mixture)
    key_labels, key_noise = jax.random.split(key)
    labels = jax.random.categorical(key_labels, jnp.log(weights), shape=(n,))
    noise = jax.random.normal(key_noise, (n, means.shape[1]), means.dtype)
    roots = jnp.linalg.cholesky(covariances)
    return means[labels] + jnp.einsum("nij,nj->ni", roots[labels], noise)
