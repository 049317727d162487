"""Relabelling of draws: pure functions from allocation probabilities to permutations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxgmm._assignment import cheapest

# Stephens' algorithm settles in a handful of rounds; it cannot cycle, only be slow.
_MOST_ROUNDS = 100


@jax.jit
def stephens(
    probabilities: Float[Array, "s k n"], reference: Float[Array, "k n"]
) -> Int[Array, "s k"]:
    """Permutations that make draws agree on who belongs where.

    Minimises the Kullback-Leibler divergence from the draws' allocation probabilities
    to their relabelled average, starting from a reference allocation.

    Parameters
    ----------
    probabilities : (S, K, n) array
        Responsibilities of each draw.
    reference : (K, n) array
        Responsibilities to start from, those of an EM fit.

    Returns
    -------
    (S, K) int array
        ``order``: new label k was ``order[k]``.

    References
    ----------
    Stephens (2000), JRSS B 62:795-809, algorithm 2.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jaxgmm.bayes import stephens
    >>> p = jnp.array([[0.9, 0.1], [0.1, 0.9]])
    >>> stephens(jnp.stack([p, p[::-1]]), p).tolist()
    [[0, 1], [1, 0]]
    """
    tiny = jnp.finfo(probabilities.dtype).tiny

    def assign(average: Array) -> Array:
        cost = -jnp.einsum("sjn,kn->sjk", probabilities, jnp.log(average + tiny))
        return cheapest(cost)

    def refine(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        order, _, rounds = state
        relabelled = jnp.take_along_axis(probabilities, order[:, :, None], axis=1)
        new = assign(jnp.mean(relabelled, axis=0))
        return new, jnp.any(new != order), rounds + 1

    start = (assign(reference), jnp.array(True), jnp.zeros((), jnp.int32))
    order, _, _ = lax.while_loop(lambda s: s[1] & (s[2] < _MOST_ROUNDS), refine, start)
    return order
