"""Regions of highest density."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from scipy import optimize, stats

from jaxgmm.mixtures._distances import Estimate
from jaxgmm.mixtures._line import on_a_line
from jaxgmm.mixtures._normals import draw, log_density
from jaxgmm.mixtures._pure import pure

# Places on a line where the density is looked at, of each component and in its units.
_PLACES, _REACH = 801, 9.0


@pure(static_argnames="n")
def highest_density_level(
    mixture: Any, probability: Array | float, key: PRNGKeyArray, n: int = 10_000
) -> Estimate:
    """The log density above which a region holds so much probability, by Monte Carlo.

    Parameters
    ----------
    mixture : GaussianParams or Normals
    probability : float
        Of the region, between 0 and 1.
    key : typed random key
    n : int
        Draws.

    Returns
    -------
    Estimate
        A row is in the region where its `log_density` is at least the ``value``.

    References
    ----------
    Hyndman (1996), American Statistician 50:120-126.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> params = jg.Mixture(jg.Gaussian(), 1).params(means=[0.0], covariances=[[[1.0]]])
    >>> level = jg.mixtures.highest_density_level(params, 0.95, jax.random.key(0))
    >>> bool(abs(level.value + 2.84) < 5 * level.error)  # at 1.96
    True
    """
    heights = log_density(mixture, draw(mixture, key, n))
    tail = 1 - jnp.asarray(probability, heights.dtype)
    error = jnp.sqrt(tail * (1 - tail) / n)
    at = jnp.quantile(heights, jnp.clip(jnp.stack([tail, tail - error, tail + error]), 0, 1))
    return Estimate(at[0], (at[2] - at[1]) / 2)


def highest_density_intervals(mixture: Any, probability: float) -> Float[np.ndarray, "m 2"]:
    """The region of highest density in one dimension, as intervals; on the host.

    Parameters
    ----------
    mixture : GaussianParams or Normals
        Of one column.
    probability : float
        Of all intervals together, between 0 and 1.

    Returns
    -------
    (m, 2) array
        Ends of the intervals, ascending.

    Raises
    ------
    ValueError
        For more columns, and a probability that is none.

    References
    ----------
    Hyndman (1996), American Statistician 50:120-126.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> params = jg.Mixture(jg.Gaussian("tied"), 2).params(means=[0.0, 9.0], covariances=[[1.0]])
    >>> jg.mixtures.highest_density_intervals(params, 0.9).round(3).tolist()
    [[-1.645, 1.645], [7.355, 10.645]]
    """
    if not 0 < probability < 1:
        raise ValueError(
            f"probability: needs a number between 0 and 1, such as 0.9; found {probability!r}"
        )
    weights, means, spreads = (np.asarray(a, float) for a in on_a_line(mixture))
    density = lambda x: stats.norm.pdf(np.subtract.outer(x, means) / spreads) / spreads @ weights
    below = lambda x: stats.norm.cdf(np.subtract.outer(x, means) / spreads) @ weights
    offsets = np.linspace(-_REACH, _REACH, _PLACES)
    places = np.unique(means + spreads * offsets[:, None])
    heights = density(places)

    def intervals(level: float) -> Float[np.ndarray, "m 2"]:
        inside = heights >= level
        turns = np.flatnonzero(inside[1:] != inside[:-1])
        gap = lambda x: density(x) - level
        ends = [optimize.brentq(gap, places[i], places[i + 1]) for i in turns]
        return np.reshape(ends, (-1, 2))

    def excess(log_level: float) -> float:
        low, high = intervals(np.exp(log_level)).T
        return float(np.sum(below(high) - below(low)) - probability)

    top = np.max(heights)
    least = max(heights[0], heights[-1], np.finfo(float).tiny)
    # Intervals end inside of the places; at the highest one there is none.
    lowest, highest = np.log(least) + 1e-9, np.log(top) - 1e-12
    return intervals(np.exp(optimize.brentq(excess, lowest, highest)))
