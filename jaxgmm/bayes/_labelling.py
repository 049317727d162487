"""Labels of a posterior's draws: the rules by name, how clear they are, what they hide."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxgmm import labels
from jaxgmm._checks import check_name, check_options
from jaxgmm._contract import LatentModel, Params, Sites
from jaxgmm._numerics import as_rows, at_once
from jaxgmm._programs import in_slices, on_rung, program, rows_at
from jaxgmm.bayes._predictive import responsibilities_at
from jaxgmm.labels import members, n_renamings

# Rows that decide the labels: more would not change them, only cost memory. Fewer where
# draws x labels x rows would be too many numbers.
_MOST_ROWS = 2000
_LEAST_ROWS = 200
_MOST_NUMBERS = 2**26

# Labels are ambiguous where another renaming agrees nearly as well with the other draws: within
# this share of what an exchange of two clear labels costs.
AMBIGUOUS = 0.05

# Draws that change their labels at more steps than this move freely between labellings.
_FREE_MOVES = 0.05
# Kolmogorov-Smirnov distance that 400 effective draws of one distribution exceed by chance
# in one of twenty comparisons.
_SAME_MARGINAL = 0.1


class Drawn(NamedTuple):
    """Draws whose labels are to be matched.

    Attributes
    ----------
    model : LatentModel
    x : array
        Rows that decide.
    n_rows : int
        How many of them are there; others fill up.
    params : pytree (S, ...)
    probabilities : (S, K, n) array
        Responsibilities.
    reference : pytree
        Parameters whose labels the draws are to take.
    """

    model: LatentModel
    x: Array
    n_rows: int
    params: Params
    probabilities: Array
    reference: Params


class Labelling(NamedTuple):
    """Permutations of the labels and how clear they are.

    Attributes
    ----------
    order : (chain, draw, K) array
        New label k was ``order[..., k]``.
    clarity : (chain, draw) array
        How much better it agrees with the other draws than any other.
    """

    order: np.ndarray
    clarity: np.ndarray


def _by_stephens(drawn: Drawn) -> Array:
    return labels.stephens(drawn.probabilities, _allocation(drawn), drawn.model.label_groups)


def _by_ecr(drawn: Drawn) -> Array:
    pivot = np.argmax(_allocation(drawn), axis=0)
    return labels.ecr(drawn.probabilities, pivot, drawn.model.label_groups)


def _by_pivot(drawn: Drawn) -> Array:
    if not _component_sites(drawn.model, drawn.model.sites(drawn.reference)):
        raise ValueError(
            f"method: {type(drawn.model).__name__} names no site with a value for each "
            'component in site_dims, so there is no pivot; use "stephens"'
        )
    coordinates = _component_coordinates(drawn.model, drawn.params, drawn.reference)
    return labels.pivotal(*coordinates, drawn.model.label_groups)


def _by_ordering(
    drawn: Drawn, *, by: str = "means", coordinate: int | tuple[int, ...] = 0
) -> Array:
    sites = jax.vmap(drawn.model.sites)(drawn.params)
    values = sites[check_name("by", by, _component_sites(drawn.model, sites))]
    index = coordinate if isinstance(coordinate, tuple) else (coordinate,) * (values.ndim > 2)
    shape = values.shape[2:]
    if len(index) != len(shape) or not all(-n <= i < n for i, n in zip(index, shape, strict=True)):
        raise ValueError(
            f"coordinate: {coordinate!r} is no index into {by!r}, which has shape {shape} "
            "for each component"
        )
    numbers = np.asarray(values[(..., *index)])
    # Labels that are no components have no number, nor others to be exchanged with.
    numbers = np.pad(numbers, ((0, 0), (0, drawn.model.n_components - numbers.shape[1])))
    return labels.ordering(numbers, drawn.model.label_groups)


def _by_data(drawn: Drawn) -> Array:
    there = slice(drawn.n_rows)
    rows = as_rows(drawn.x)[there].astype(drawn.probabilities.dtype)
    allocated = drawn.probabilities[..., there], rows, _allocation(drawn)[:, there]
    return labels.data_based(*allocated, drawn.model.label_groups)


# A new rule is one function here and one line. What it takes by keyword only are its options.
RELABELLINGS: dict[str, Callable[..., Array]] = {
    "stephens": _by_stephens,
    "ecr": _by_ecr,
    "pivot": _by_pivot,
    "ordering": _by_ordering,
    "data-based": _by_data,
}


def match_labels(
    model: LatentModel,
    x: Array,
    params: Params,
    reference: Params,
    method: str = "stephens",
    **options: Any,
) -> Labelling:
    """Permutations by a rule of `RELABELLINGS` for draws ``params`` (chain, draw, ...)."""
    rule = RELABELLINGS[check_name("method", method, RELABELLINGS)]
    check_options(method, rule, options)
    shape = jax.tree.leaves(params)[0].shape[:2]
    k, n, n_draws = model.n_components, x.shape[0], shape[0] * shape[1]
    if n_renamings(model.label_groups) == 1:
        as_drawn = np.broadcast_to(np.arange(k, dtype=np.int32), (*shape, k))
        return Labelling(as_drawn, np.full(shape, np.inf))
    decisive = rows_at(x, np.arange(0, n, _stride(n, n_draws * k)))
    rows, there = on_rung(model, decisive, None)
    settled = model.settled(params)
    of_slice = lambda part: _probabilities(settled, rows, there, part)
    flat = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(n_draws, *leaf.shape[2:]), params)
    probabilities = in_slices(of_slice, flat)
    order = rule(Drawn(model, rows, len(decisive), flat, probabilities, reference), **options)
    if there is not None:
        probabilities = np.where(np.asarray(there), probabilities, 0)
    order, clarity = map(
        np.asarray, (order, labels.clarity(probabilities, order, model.label_groups))
    )
    return Labelling(order.reshape(*shape, k), clarity.reshape(shape))


def in_labels_of(
    model: LatentModel, x: Array, present: Array, params: Params, reference: Params
) -> Params:
    """Draws (S, ...) in the labels of a reference, by Stephens' algorithm, inside a program.

    Rows that are not ``present`` have no say.
    """
    n_draws = len(jax.tree.leaves(params)[0])
    groups = model.label_groups
    if n_renamings(groups) == 1:
        return params
    stride = _stride(x.shape[0], n_draws * model.n_components)
    rows, there = x[::stride], present[::stride]
    own = _probabilities(model, rows, there, params)
    allocation = there * responsibilities_at(model, reference, rows).T
    order = labels.stephens(own, allocation, groups)
    return jax.vmap(model.permute)(params, order)


def _stride(n: int, n_labels: int) -> int:
    """Of the rows that decide the labels of so many labels in all draws."""
    most = min(_MOST_ROWS, max(_LEAST_ROWS, _MOST_NUMBERS // n_labels))
    return -(-n // most)


def highest(params: Params, log_joint: np.ndarray) -> Params:
    """Of draws (chain, draw, ...) the one with the highest log joint."""
    at = np.unravel_index(np.argmax(log_joint), log_joint.shape)
    return jax.tree.map(lambda leaf: leaf[at], params)


@program()
def relabelled(model: LatentModel, params: Params, order: Array) -> Params:
    """Draws (chain, draw, ...) with their labels renamed."""
    return jax.vmap(jax.vmap(model.permute))(params, order)


@program()
def all_sites(model: LatentModel, params: Params) -> Sites:
    """Sites of draws (chain, draw, ...), and what the model derives from them."""
    both = lambda p: {**model.sites(p), **model.derived_sites(p)}
    return jax.vmap(jax.vmap(both))(params)


def symmetry_note(model: LatentModel, labels: np.ndarray, sites: dict[str, np.ndarray]) -> str:
    """A sentence where the draws themselves say that labels are a convention; else nothing.

    Two rules, either suffices. The draws move freely between labellings: the permutation
    changes at more than one of twenty steps. Two labels coincide: in every number that each
    component has, the Kolmogorov-Smirnov distance of their relabelled marginals is below 0.1.
    """
    notes = []
    moves = float(np.mean(np.any(labels[:, 1:] != labels[:, :-1], axis=-1)))
    if moves > _FREE_MOVES:
        notes.append(f"the draws change their labelling at {moves:.0%} of the steps")
    drawn = [sites[name] for name in _component_sites(model, sites)]
    pairs = [
        f"{j} and {k}"
        for own in members(model.label_groups)
        for j, k in itertools.combinations(own, 2)
        if drawn and all(_coincide(site[:, :, j], site[:, :, k]) for site in drawn)
    ]
    if pairs:
        notes.append(f"the marginals of components {', '.join(pairs)} coincide")
    if not notes:
        return ""
    return " and ".join(notes) + ": which component is which is a convention of the relabelling"


def _coincide(one: np.ndarray, other: np.ndarray) -> bool:
    columns = lambda draws: draws.reshape(draws.shape[0] * draws.shape[1], -1).T
    return all(
        _kolmogorov_smirnov(a, b) < _SAME_MARGINAL
        for a, b in zip(columns(one), columns(other), strict=True)
    )


def _kolmogorov_smirnov(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference of the two empirical distribution functions."""
    points = np.concatenate([one, other])
    below = lambda draws: np.searchsorted(np.sort(draws), points, side="right") / draws.size
    return float(np.max(np.abs(below(one) - below(other))))


def _component_sites(model: LatentModel, names: Iterable[str]) -> list[str]:
    """Those of the sites that have a value for each component."""
    dims = model.site_dims()
    return [name for name in names if dims.get(name, [])[:1] == ["component"]]


@program()
def _component_coordinates(
    model: LatentModel, params: Params, reference: Params
) -> tuple[Float[Array, "s k p"], Float[Array, "k p"]]:
    """What each component has, as vectors, of draws and of a point."""

    def vectors(p: Params) -> Float[Array, "k p"]:
        sites = model.sites(p)
        names = _component_sites(model, sites)
        own = jnp.concatenate([sites[n].reshape(len(sites[n]), -1) for n in names], axis=1)
        # Labels that are no components have nothing, nor others to be exchanged with.
        return jnp.pad(own, ((0, model.n_components - len(own)), (0, 0)))

    return jax.vmap(vectors)(params), vectors(reference)


@program()
def _probabilities(
    model: LatentModel, x: Array, there: Array | None, params: Params
) -> Float[Array, "s k n"]:
    """Rows that are not there have the same for each label of each draw: none agrees better."""
    batch = at_once(x.shape[0] * model.n_components, x.dtype)
    of = lambda p: model.responsibilities(p, x).T
    if there is not None:
        of = lambda p: jnp.where(there, model.responsibilities(p, x).T, 1 / model.n_components)
    return lax.map(of, params, batch_size=batch)


def _allocation(drawn: Drawn) -> Float[np.ndarray, "k n"]:
    """Responsibilities of the reference."""
    return np.asarray(responsibilities_at(drawn.model, drawn.reference, drawn.x)).T
