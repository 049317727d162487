"""Where the density is highest around it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float

from jaxgmm.mixtures._normals import log_joint, normals
from jaxgmm.mixtures._pure import pure

_MOST_STEPS = 2000
# Of a step, in standard deviations of the density, that ends the climb; points nearer than the
# second are one.
_SMALL_STEP, _SAME = 1e-3, 30
# The square root of a dtype's eps is the accuracy of a maximum.


class Modes(NamedTuple):
    """Ends of the climbs from the means of K components.

    Attributes
    ----------
    points : (K, D) array
    log_density : (K,) array
    distinct : (K,) bool array
        Whether a maximum, and the first of several ends that are the same.
    """

    points: Float[Array, "k d"]
    log_density: Float[Array, " k"]
    distinct: Bool[Array, " k"]

    @property
    def count(self) -> Array:
        """How many modes were found."""
        return jnp.sum(self.distinct)


@pure()
def modes(mixture: Any) -> Modes:
    """Modes of the density, by a climb from the mean of every component.

    Parameters
    ----------
    mixture : GaussianParams or Normals

    Returns
    -------
    Modes

    Notes
    -----
    The climb is EM for the point, which never descends. A mixture in two or more dimensions may
    have more modes than components (Ray and Lindsay, 2005); these are not looked for.

    References
    ----------
    Carreira-Perpiñán (2000), IEEE Transactions on Pattern Analysis and Machine Intelligence
    22:1318-1323; Ray and Lindsay (2005), Annals of Statistics 33:2042-2065.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> model = jg.Mixture(jg.Gaussian("tied"), 2)
    >>> found = jg.mixtures.modes(model.params(means=[0.0, 1.5], covariances=[[1.0]]))
    >>> int(found.count), round(float(found.points[0, 0]), 4)
    (1, 0.75)
    """
    own = normals(mixture)
    inverse = jnp.linalg.inv(own.covariances)
    root = jnp.sqrt(jnp.finfo(own.means.dtype).eps)
    unit = jnp.sqrt(jnp.min(jnp.diagonal(own.covariances, axis1=1, axis2=2), axis=0))
    height = lambda point: logsumexp(log_joint(own, point[None])[:, 0])

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        point, _, count = state
        share = jax.nn.softmax(log_joint(own, point[None])[:, 0])
        precision = jnp.tensordot(share, inverse, axes=1)
        pull = jnp.einsum("k,kij,kj->i", share, inverse, own.means)
        new = jnp.linalg.solve(precision, pull)
        return new, jnp.max(jnp.abs(new - point) / unit), count + 1

    def climb(start: Array) -> Array:
        going = lambda s: (s[1] > _SMALL_STEP * root) & (s[2] < _MOST_STEPS)
        return lax.while_loop(going, step, (start, jnp.ones((), unit.dtype), jnp.zeros((), int)))[0]

    points = jax.vmap(climb)(own.means)
    curvature = jax.vmap(jax.hessian(height))(points) * unit[:, None] * unit
    top = jnp.linalg.eigvalsh(curvature)[:, -1] < root
    apart = jnp.max(jnp.abs(points[:, None] - points) / unit, axis=-1)
    # A later end is that of an earlier maximum.
    before = jnp.tril(apart < _SAME * jnp.sqrt(root), k=-1) & top
    return Modes(points, jax.vmap(height)(points), top & ~jnp.any(before, axis=1))
