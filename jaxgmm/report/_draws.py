"""The posterior as the verdict needs it: with the labels of the fit, its weights counted."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int
from scipy.optimize import linear_sum_assignment

from jaxgmm._contract import LatentModel, Params
from jaxgmm._programs import in_slices, on_rung, program, rows_at, rung
from jaxgmm.bayes import AMBIGUOUS, Posterior, all_sites, relabelled, systematic
from jaxgmm.em import Fit
from jaxgmm.labels import Groups, clarity, members

# Rows and draws that clusterings and predictions are judged on.
_MOST_ROWS = 2000
_MOST_DRAWS = 400
# Rows whose log density chains have to agree on.
_LANDMARKS = 16
# Where more of the draws have ambiguous labels, numbers of single components mean little.
MOST_AMBIGUOUS = 0.05


class Seen(NamedTuple):
    """What some draws and the fit say of some rows.

    Attributes
    ----------
    log_density : (S, n) array
        Of each row at each draw, the label summed out.
    probability : (S, n, K) array
        Of each label.
    fit_log_density, fit_probability : (n,) and (n, K) arrays
        The same at the fit.
    copies : (n,) array
        How many rows each stands for: a weight is a number of copies.
    """

    log_density: Float[np.ndarray, "s n"]
    probability: Float[np.ndarray, "s n k"]
    fit_log_density: Float[np.ndarray, " n"]
    fit_probability: Float[np.ndarray, "n k"]
    copies: Float[np.ndarray, " n"]

    @property
    def size(self) -> str:
        """How much that is, in words."""
        return f"{np.sum(self.copies):g} rows, {len(self.log_density)} draws"

    @property
    def each_copy(self) -> Int[np.ndarray, " m"]:
        """Which row each single copy is of, for what is random by row."""
        count = min(max(1, round(float(np.sum(self.copies)))), _MOST_ROWS)
        return systematic(np.log(self.copies / np.sum(self.copies)), count)


class Rows(NamedTuple):
    """Rows that stand for all of the data."""

    index: Int[np.ndarray, " n"]
    copies: Float[np.ndarray, " n"]


def some_rows(post: Posterior) -> Rows:
    """All rows that weigh anything, or evenly spaced ones, each with its number of copies."""
    weight = post.sample_weight
    copies = np.ones(post.x.shape[0]) if weight is None else np.asarray(weight, np.float64)
    held = np.flatnonzero(copies)
    if len(held) <= _MOST_ROWS:
        return Rows(held, copies[held])
    spaced = systematic(np.log(copies[held] / np.sum(copies)), _MOST_ROWS)
    chosen, times = np.unique(held[spaced], return_counts=True)
    return Rows(chosen, times.astype(float))


def look_at_data(fit: Fit, post: Posterior) -> Seen:
    """`Seen` of `some_rows` of the data."""
    fit, post = fit.near, post.near
    rows = some_rows(post)
    return look(fit, post, rows_at(post.x, rows.index), rows.copies)


def look(fit: Fit, post: Posterior, x: Array, copies: np.ndarray) -> Seen:
    """`Seen` of rows by thinned draws, which count alike."""
    at = points(fit, post)
    model = fit.model.settled(at)
    rows, _ = on_rung(model, x, None)
    density, probability = in_slices(lambda part: _at_all(model, part, rows), at)
    density, probability = (v[:, : len(x)].astype(np.float64) for v in (density, probability))
    return Seen(density[1:], probability[1:], density[0], probability[0], copies)


def points(fit: Fit, post: Posterior) -> Params:
    """The fit and, after it, thinned draws, as parameters in one row."""
    stack = lambda at, draws: np.concatenate(
        [np.asarray(at)[None], np.asarray(draws).reshape(-1, *draws.shape[2:])]
    )
    return jax.tree.map(stack, fit.params, post.thin(_MOST_DRAWS).params)


@program()
def _at_all(model: LatentModel, params: Params, x: Array) -> tuple[Array, Array]:
    return lax.map(lambda p: (model.log_prob(p, x), model.responsibilities(p, x)), params)


def invariants(post: Posterior, seen: Seen) -> dict[str, np.ndarray]:
    """(chain, draw) numbers that no renaming of labels changes and that tell modes apart.

    Totals may be equal at modes of different partitions; the log densities of single rows are
    not. The rows lie at even steps of the fit's log density, whatever order they come in.
    """
    if post.log_weights is not None:
        return post.invariants()
    order = np.argsort(seen.fit_log_density, kind="stable")
    spaced = systematic(np.log(seen.copies[order] / np.sum(seen.copies)), _LANDMARKS)
    chosen = some_rows(post).index[order[spaced]]
    model, landmarks = post.model.settled(post.params), rows_at(post.x, chosen)
    of_slice = lambda part: _log_density(model, part, landmarks)
    density = in_slices(of_slice, post.params, 2)
    rows = {f"log density of row {i}": density[..., at] for at, i in enumerate(chosen)}
    return post.invariants() | rows


@program()
def _log_density(model: LatentModel, params: Params, x: Array) -> Array:
    return lax.map(lambda p: model.log_prob(p, x), params, batch_size=_BATCH)


# Draws at once: enough to fill vector units, with a few rows each.
_BATCH = 100


def aligned(post: Posterior, seen: Seen) -> Posterior:
    """The posterior with one renaming of all its labels, that which agrees best with the fit.

    Each label of the draws takes the name of the label of the fit that holds the same rows:
    the sum of the cosines between their probabilities of the rows is largest.
    """
    copies = np.sqrt(seen.copies)[:, None]
    unit = lambda columns: columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
    ours, theirs = seen.fit_probability, np.mean(seen.probability, axis=0)
    agreement = unit(copies * theirs).T @ unit(copies * ours)
    order = np.arange(len(agreement))
    for own in members(post.model.label_groups):
        rows, columns = linear_sum_assignment(-agreement[np.ix_(own, own)])
        order[own[columns]] = own[rows]
    if np.array_equal(order, np.arange(len(order))):
        return post
    params = relabelled(post.model, post.params, np.broadcast_to(order, post.labels.shape))
    sites = all_sites(post.model, params)
    return dataclasses.replace(
        post,
        draws={name: np.asarray(sites[name], old.dtype) for name, old in post.draws.items()},
        params=jax.tree.map(np.asarray, params),
        labels=post.labels[..., order],
    )


def ambiguous_labels(seen: Seen, groups: Groups) -> float:
    """Share of the draws whose labels, as they stand, are no clearer than others would be.

    ``groups`` are those of the labels.
    """
    probability = np.moveaxis(seen.probability * np.sqrt(seen.copies)[:, None], -1, 1)
    more = rung(probability.shape[-1], 8) - probability.shape[-1]
    probability = np.pad(probability, [(0, 0), (0, 0), (0, more)])  # no row, no direction
    as_they_are = np.broadcast_to(np.arange(probability.shape[1]), probability.shape[:2])
    return float(np.mean(np.asarray(clarity(probability, as_they_are, groups)) < AMBIGUOUS))


def together(probability: np.ndarray) -> np.ndarray:
    """(n, n) probability that two rows carry one label, over (S, n, K) of the labels."""
    shared = pairs_of(probability)
    np.fill_diagonal(shared, 1)
    return shared


def pairs_of(probability: np.ndarray) -> np.ndarray:
    """`together` with two copies of a row on the diagonal."""
    draws, n, _ = probability.shape
    rows = np.moveaxis(probability, 1, 0).reshape(n, -1)
    return rows @ rows.T / draws
