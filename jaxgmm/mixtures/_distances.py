"""How far two mixtures are apart: bounds, and estimates with their errors."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgmm.mixtures._line import quantile
from jaxgmm.mixtures._normals import Normals, affine, draw, log_density, normals
from jaxgmm.mixtures._pure import pure

# Rounds after which neither a bound nor a plan of transport changes in what matters.
_ROUNDS = 200
# The smoothest plan is this share of the mean cost away from a matching; each is 2 times sharper.
_SHARPENED = 12
# Quantiles of a projection.
_QUANTILES = 512


class Estimate(NamedTuple):
    """A number by Monte Carlo.

    Attributes
    ----------
    value : scalar array
    error : scalar array
        Its standard error.
    """

    value: Array
    error: Array


@pure()
def kl_bound(one: Any, other: Any) -> Array:
    """An upper bound of the Kullback-Leibler divergence of one mixture from another.

    Parameters
    ----------
    one, other : GaussianParams or Normals
        The first is what the mean is taken over.

    Returns
    -------
    scalar array

    Notes
    -----
    Components are split so that parts of one face parts of the other, and the split is refined;
    the divergence of the wholes is at most that of the parts. It is zero for equal mixtures, and
    exact for one component each.

    References
    ----------
    Hershey and Olsen (2007), ICASSP 4:317-320, the variational upper bound.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> model = jg.Mixture(jg.Gaussian("tied"), 1)
    >>> at = lambda mean: model.params(means=[mean], covariances=[[1.0]])
    >>> float(jg.mixtures.kl_bound(at(0.0), at(2.0)))
    2.0
    """
    a, b = normals(one), normals(other)
    each = _pairs(_kl, a, b)
    log_a, log_b = jnp.log(a.weights)[:, None], jnp.log(b.weights)[None]

    def refine(_: Array, phi: Array) -> Array:
        psi = log_b + phi - logsumexp(phi, axis=0)
        inner = psi - each
        return log_a + inner - logsumexp(inner, axis=1, keepdims=True)

    phi = lax.fori_loop(0, _ROUNDS, refine, log_a + log_b)
    psi = log_b + phi - logsumexp(phi, axis=0)
    share = jnp.exp(phi)
    return jnp.sum(jnp.where(share > 0, share * (phi - psi + each), 0))


@pure(static_argnames="n")
def kl_monte_carlo(one: Any, other: Any, key: PRNGKeyArray, n: int = 10_000) -> Estimate:
    """The Kullback-Leibler divergence of one mixture from another, by draws of the first.

    Parameters
    ----------
    one, other : GaussianParams or Normals
    key : typed random key
    n : int
        Draws.

    Returns
    -------
    Estimate

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> model = jg.Mixture(jg.Gaussian("tied"), 1)
    >>> at = lambda mean: model.params(means=[mean], covariances=[[1.0]])
    >>> found = jg.mixtures.kl_monte_carlo(at(0.0), at(2.0), jax.random.key(0))
    >>> bool(abs(found.value - 2) < 5 * found.error)
    True
    """
    x = draw(one, key, n)
    apart = log_density(one, x) - log_density(other, x)
    return Estimate(jnp.mean(apart), jnp.std(apart) / jnp.sqrt(n))


@pure()
def wasserstein_bound(one: Any, other: Any) -> Array:
    """An upper bound of the Wasserstein distance W2: mass goes from component to component.

    Parameters
    ----------
    one, other : GaussianParams or Normals

    Returns
    -------
    scalar array
        In the units of the data.

    Notes
    -----
    Any plan that moves whole parts of components, each by the optimal map of two normals, bounds
    the distance. The plan is that of entropic transport, sharpened and made feasible; it is within
    a few thousandths of the best one, whose cost is MW2 of Delon and Desolneux. Exact for one
    component each.

    References
    ----------
    Delon and Desolneux (2020), SIAM Journal on Imaging Sciences 13:936-970; Altschuler, Weed and
    Rigollet (2017), NeurIPS 30, algorithm 2, for feasible plans.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> model = jg.Mixture(jg.Gaussian("tied"), 1)
    >>> at = lambda mean: model.params(means=[mean], covariances=[[1.0]])
    >>> round(float(jg.mixtures.wasserstein_bound(at(0.0), at(2.0))), 6)
    2.0
    """
    a, b = normals(one), normals(other)
    cost = _pairs(_squared_wasserstein, a, b)
    return jnp.sqrt(jnp.sum(_plan(a.weights, b.weights, cost) * cost))


@pure(static_argnames="n_directions")
def sliced_wasserstein(
    one: Any, other: Any, key: PRNGKeyArray, n_directions: int = 200
) -> Estimate:
    """The sliced Wasserstein distance: the root of the mean of W2^2 over random directions.

    Parameters
    ----------
    one, other : GaussianParams or Normals
    key : typed random key
    n_directions : int
        Projections, on each of which W2 is that of quantiles.

    Returns
    -------
    Estimate
        At most W2 but for its error, and that of 512 quantiles; W2 itself in one dimension.

    References
    ----------
    Bonneel, Rabin, Peyré and Pfister (2015), Journal of Mathematical Imaging and Vision 51:22-45.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> model = jg.Mixture(jg.Gaussian("tied"), 1)
    >>> at = lambda mean: model.params(means=[mean], covariances=[[1.0]])
    >>> found = jg.mixtures.sliced_wasserstein(at(0.0), at(2.0), jax.random.key(0), 4)
    >>> round(float(found.value), 6)
    2.0
    """
    a, b = normals(one), normals(other)
    width = a.means.shape[1]
    directions = jax.random.normal(key, (n_directions, width), a.means.dtype)
    directions /= jnp.linalg.norm(directions, axis=1, keepdims=True)
    places = (jnp.arange(_QUANTILES) + 0.5) / _QUANTILES

    def along(direction: Array) -> Array:
        on_it = lambda mixture: quantile(affine(mixture, direction[None]), places)
        return jnp.mean((on_it(a) - on_it(b)) ** 2)

    squares = lax.map(along, directions)
    value = jnp.sqrt(jnp.mean(squares))
    error = jnp.std(squares) / jnp.sqrt(n_directions)
    return Estimate(value, error / (2 * jnp.where(value > 0, value, 1)))


def _pairs(of: Any, one: Normals, other: Normals) -> Float[Array, "k l"]:
    """A function of two normals, for each component of one and of the other."""
    row = jax.vmap(of, (None, None, 0, 0))
    return jax.vmap(row, (0, 0, None, None))(*one[1:], *other[1:])


def _kl(mean: Array, spread: Array, centre: Array, width: Array) -> Array:
    """Kullback-Leibler divergence of two normals."""
    root, own = jnp.linalg.cholesky(width), jnp.linalg.cholesky(spread)
    apart = solve_triangular(root, mean - centre, lower=True)
    trace = jnp.trace(cho_solve((root, True), spread))
    log_det = lambda factor: 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))
    return 0.5 * (trace + jnp.sum(apart**2) - mean.size + log_det(root) - log_det(own))


def _squared_wasserstein(mean: Array, spread: Array, centre: Array, width: Array) -> Array:
    """W2^2 of two normals (Givens and Shortt, 1984)."""
    root = jnp.linalg.cholesky(width)
    values = jnp.linalg.eigvalsh(root.T @ spread @ root)
    cross = jnp.sum(jnp.sqrt(jnp.maximum(values, 0)))
    apart = jnp.sum((mean - centre) ** 2)
    return apart + jnp.maximum(jnp.trace(spread) + jnp.trace(width) - 2 * cross, 0)


def _plan(a: Float[Array, " k"], b: Float[Array, " l"], cost: Array) -> Float[Array, "k l"]:
    """A plan with exactly these margins, near the cheapest."""
    log_a, log_b = jnp.log(a), jnp.log(b)
    unit = jnp.maximum(jnp.mean(cost), jnp.finfo(cost.dtype).tiny)

    def sharpen(i: Array, dual: Array) -> Array:
        scale = unit * 2.0 ** -i.astype(cost.dtype)

        def balance(_: Array, dual: Array) -> Array:
            left = -scale * logsumexp((dual - cost) / scale + log_b, axis=1)
            return -scale * logsumexp((left[:, None] - cost) / scale + log_a[:, None], axis=0)

        return lax.fori_loop(0, _ROUNDS, balance, dual)

    dual = lax.fori_loop(0, _SHARPENED, sharpen, jnp.zeros_like(b))
    scale = unit * 2.0 ** (1 - _SHARPENED)
    left = -scale * logsumexp((dual - cost) / scale + log_b, axis=1)
    plan = jnp.exp((left[:, None] + dual - cost) / scale + log_a[:, None] + log_b)
    shrunk = lambda own, wanted: jnp.minimum(wanted / jnp.where(own > 0, own, 1), 1)
    plan = plan * shrunk(plan.sum(axis=1), a)[:, None]
    plan = plan * shrunk(plan.sum(axis=0), b)
    rows, columns = a - plan.sum(axis=1), b - plan.sum(axis=0)
    left_over = jnp.sum(rows)
    return plan + rows[:, None] * columns / jnp.where(left_over > 0, left_over, 1)
