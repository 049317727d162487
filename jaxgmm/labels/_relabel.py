"""Relabelling of draws: pure functions of arrays, each a rule that returns permutations.

All return ``order`` (S, K): new label k of a draw was its label ``order[k]``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxgmm._checks import check_allocation, check_axes
from jaxgmm._numerics import as_rows
from jaxgmm._programs import program
from jaxgmm.labels._assignment import Groups, cheapest, margin, members

# What is refined until nothing changes settles in a handful of rounds.
_MOST_ROUNDS = 100

# Arguments that say how much of each row each label has: columns sum to one.
_ALLOCATIONS = ("probabilities", "reference")


def _rule(**axes: str) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Compile a rule, behind a check of its arguments against the names of their axes.

    Labels and rows exchanged would otherwise be matched all the same, rows for labels: n^3
    operations for each draw.
    """

    def decorate(function: Callable[..., Array]) -> Callable[..., Array]:
        compiled = program(static_argnames="groups")(function)
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Array:
            given = signature.bind(*args, **kwargs).arguments
            for name in _ALLOCATIONS:
                if name in given:
                    check_allocation(name, given[name])
            check_axes({name: (given[name], axes[name]) for name in axes})
            return compiled(**given)

        return checked

    return decorate


@_rule(probabilities="s k n", reference="k n")
def stephens(
    probabilities: Float[Array, "s k n"],
    reference: Float[Array, "k n"],
    groups: Groups | None = None,
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
    groups : tuple of int, optional
        A number for each label; names change within a group of equal numbers only. One group by
        default.

    Returns
    -------
    (S, K) int array
        ``order``: new label k was ``order[k]``.

    Raises
    ------
    ValueError
        For other shapes, or columns of probabilities that do not sum to one.

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

    def from_average(order: Array) -> Array:
        return cheapest(_divergence(probabilities, _average(probabilities, order)), groups)

    return _settled(from_average, cheapest(_divergence(probabilities, reference), groups))


@_rule(probabilities="s k n", pivot="n")
def ecr(
    probabilities: Float[Array, "s k n"], pivot: Int[Array, " n"], groups: Groups | None = None
) -> Int[Array, "s k"]:
    """Permutations under which most rows carry their label of a pivot allocation.

    The equivalence classes representatives (ECR) algorithm.

    Parameters
    ----------
    probabilities : (S, K, n) array
        Ones and zeros for drawn labels, which is the published algorithm; responsibilities
        for the expected number of rows in place of the drawn one.
    pivot : (n,) int array
        A good allocation, such as that of the draw with the highest density.
    groups : tuple of int, optional
        A number for each label; names change within a group of equal numbers only. One group by
        default.

    Returns
    -------
    (S, K) int array
        ``order``: new label k was ``order[k]``.

    Raises
    ------
    ValueError
        For other shapes, or columns of probabilities that do not sum to one.

    References
    ----------
    Papastamoulis and Iliopoulos (2010), JCGS 19:313-331.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jaxgmm.bayes import ecr
    >>> p = jnp.array([[0.9, 0.8, 0.1], [0.1, 0.2, 0.9]])
    >>> ecr(jnp.stack([p, p[::-1]]), jnp.array([0, 0, 1])).tolist()
    [[0, 1], [1, 0]]
    """
    agreed = jax.nn.one_hot(pivot, probabilities.shape[1], dtype=probabilities.dtype)
    return cheapest(-jnp.einsum("sjn,nk->sjk", probabilities, agreed), groups)


@_rule(coordinates="s k p", pivot="k p")
def pivotal(
    coordinates: Float[Array, "s k p"], pivot: Float[Array, "k p"], groups: Groups | None = None
) -> Int[Array, "s k"]:
    """Permutations nearest to a pivot in standardised parameters.

    The distance is Euclidean after each coordinate is divided by its standard deviation over
    all draws and labels, which no renaming changes.

    Parameters
    ----------
    coordinates : (S, K, p) array
        Parameters of each label of each draw.
    pivot : (K, p) array
        Those of a point with a high density, such as an EM fit.
    groups : tuple of int, optional
        A number for each label; names change within a group of equal numbers only. One group by
        default.

    Returns
    -------
    (S, K) int array
        ``order``: new label k was ``order[k]``.

    Raises
    ------
    ValueError
        For other shapes.

    References
    ----------
    Marin, Mengersen and Robert (2005), Handbook of Statistics 25:459-507.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jaxgmm.bayes import pivotal
    >>> means = jnp.array([[[0.1], [5.2]], [[4.9], [0.3]]])
    >>> pivotal(means, jnp.array([[0.0], [5.0]])).tolist()
    [[0, 1], [1, 0]]
    """
    spread = jnp.std(coordinates, axis=(0, 1))
    unit = jnp.where(spread > 0, spread, 1)
    gaps = (coordinates[:, :, None] - pivot) / unit
    return cheapest(jnp.sum(gaps**2, axis=-1), groups)


@_rule(values="s k")
def ordering(values: Float[Array, "s k"], groups: Groups | None = None) -> Int[Array, "s k"]:
    """Permutations that put one number of each label in ascending order.

    Simple, and wrong wherever the labels' numbers overlap: the constraint then cuts through
    the posterior (Celeux, Hurn and Robert, 2000).

    Parameters
    ----------
    values : (S, K) array
        The number of each label in each draw, such as a coordinate of its mean.
    groups : tuple of int, optional
        A number for each label; names change within a group of equal numbers only. One group by
        default.

    Returns
    -------
    (S, K) int array
        ``order``: new label k was ``order[k]``.

    Raises
    ------
    ValueError
        For another shape.

    References
    ----------
    Diebolt and Robert (1994), JRSS B 56:363-375; Celeux, Hurn and Robert (2000), JASA
    95:957-970.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jaxgmm.bayes import ordering
    >>> ordering(jnp.array([[0.1, 5.2], [4.9, 0.3]])).tolist()
    [[0, 1], [1, 0]]
    """
    order = jnp.zeros(values.shape, jnp.int32)
    for own in members(groups or (0,) * values.shape[1]):
        order = order.at[:, own].set(jnp.asarray(own)[jnp.argsort(values[:, own], axis=1)])
    return order


@_rule(probabilities="s k n", x="n *d", reference="k n")
def data_based(
    probabilities: Float[Array, "s k n"],
    x: Float[Array, "n ..."],
    reference: Float[Array, "k n"],
    groups: Groups | None = None,
) -> Int[Array, "s k"]:
    """Permutations under which the rows of a label lie near the centre of that label.

    The loss of k-means with a spread for each centre: the sum over rows of ``((x - centre) /
    spread)^2``. Centres and spreads are those of the rows in the relabelled allocations of all
    draws, refined until no permutation changes.

    Parameters
    ----------
    probabilities : (S, K, n) array
        Ones and zeros for drawn labels, or responsibilities for the expected loss.
    x : (n, D) or (n,) array
        The rows.
    reference : (K, n) array
        Allocation that gives the first centres.
    groups : tuple of int, optional
        A number for each label; names change within a group of equal numbers only. One group by
        default.

    Returns
    -------
    (S, K) int array
        ``order``: new label k was ``order[k]``.

    Raises
    ------
    ValueError
        For other shapes, or columns of probabilities that do not sum to one.

    References
    ----------
    After Rodriguez and Walker (2014), JCGS 23:25-45.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jaxgmm.bayes import data_based
    >>> p = jnp.array([[0.9, 0.8, 0.1], [0.1, 0.2, 0.9]])
    >>> x = jnp.array([[0.0], [1.0], [5.0]])
    >>> data_based(jnp.stack([p, p[::-1]]), x, p).tolist()
    [[0, 1], [1, 0]]
    """
    x = as_rows(x)
    z = (x - jnp.mean(x, axis=0)) / jnp.maximum(jnp.std(x, axis=0), jnp.finfo(x.dtype).tiny)
    features = jnp.concatenate([jnp.ones((len(z), 1), z.dtype), z, z**2], axis=1)
    sums = probabilities @ features
    floor = jnp.finfo(x.dtype).eps

    def assign(total: Float[Array, "k f"]) -> Array:
        count, first, second = jnp.split(total, [1, 1 + z.shape[1]], axis=1)
        count = jnp.maximum(count, floor)
        centre = first / count
        inverse = 1 / jnp.maximum(second / count - centre**2, floor)
        # sum ((x - centre) / spread)^2 is linear in the sums of 1, x and x^2.
        loss = jnp.concatenate(
            [jnp.sum(centre**2 * inverse, axis=1)[:, None], -2 * centre * inverse, inverse], axis=1
        )
        return cheapest(sums @ loss.T, groups)

    return _settled(lambda order: assign(_average(sums, order)), assign(reference @ features))


@program(static_argnames="groups")
def clarity(
    probabilities: Float[Array, "s k n"], order: Int[Array, "s k"], groups: Groups | None = None
) -> Float[Array, " s"]:
    """How much better the labels of each draw agree with the rest than any other renaming.

    Agreement is the sum over labels of the cosine between the draw's responsibilities and the
    average of all draws as relabelled, so that small components count like large ones. 1 for
    labels as clear as can be, 0 for a tie, negative where another renaming agrees better.
    """
    agreement = jnp.einsum(
        "sjn,kn->sjk", directions(probabilities), directions(_average(probabilities, order))
    )
    best = cheapest(-agreement, groups)
    total = lambda chosen: jnp.sum(
        jnp.take_along_axis(agreement, chosen[:, None], axis=1)[:, 0], axis=1
    )
    behind = total(order) - total(best)
    # An exchange of two clear labels lowers two cosines from one to zero.
    ahead = margin(-agreement, best, groups)
    return jnp.where(jnp.all(best == order, axis=1), ahead, behind) / 2


def directions(probabilities: Float[Array, "*s k n"]) -> Float[Array, "*s k n"]:
    """Responsibilities of each label as a vector of unit length, zero for one without rows."""
    length = jnp.sqrt(jnp.sum(probabilities**2, axis=-1, keepdims=True))
    return probabilities / jnp.where(length > 0, length, 1)


def _average(values: Float[Array, "s k n"], order: Int[Array, "s k"]) -> Float[Array, "k n"]:
    """Mean over the draws, relabelled."""
    return jnp.mean(jnp.take_along_axis(values, order[:, :, None], axis=1), axis=0)


def _divergence(
    probabilities: Float[Array, "s k n"], average: Float[Array, "k n"]
) -> Float[Array, "s k k"]:
    """Kullback-Leibler divergence of each pair of labels, up to what no renaming changes."""
    tiny = jnp.finfo(probabilities.dtype).tiny
    return -jnp.einsum("sjn,kn->sjk", probabilities, jnp.log(average + tiny))


def _settled(refine: Callable[[Array], Array], order: Array) -> Array:
    """Permutations that ``refine`` leaves as they are; it cannot cycle, only be slow."""

    def again(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        order, _, rounds = state
        new = refine(order)
        return new, jnp.any(new != order), rounds + 1

    start = (order, jnp.array(True), jnp.zeros((), jnp.int32))
    return lax.while_loop(lambda s: s[1] & (s[2] < _MOST_ROUNDS), again, start)[0]
