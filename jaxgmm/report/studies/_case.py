"""One simulated data set: its rows, the fit in the labels of the truth, how it ended."""

from __future__ import annotations

import enum
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxgmm import em
from jaxgmm._contract import LatentModel, Params
from jaxgmm.bayes import AMBIGUOUS
from jaxgmm.em import SAME_OPTIMUM, Status
from jaxgmm.labels import cheapest, directions, drawn_labels, margin
from jaxgmm.report.studies._given import Given, rows_beside
from jaxgmm.report.studies._quantities import Quantities, values


class End(enum.IntEnum):
    """What became of a method on a data set; the first that applies."""

    USED = 0
    COLLAPSED = 1
    SPURIOUS = 2
    NOT_CONVERGED = 3
    NOT_A_MAXIMUM = 4
    UNMATCHED = 5

    @property
    def words(self) -> str:
        return self.name.lower().replace("_", " ")


class Setting(NamedTuple):
    """What is compiled for."""

    quantities: Quantities
    levels: tuple[float, ...]
    n_rows: int  # those of a data set, and some that fill them up
    n_labels: int  # of the truth
    n_init: int
    n_chains: int
    n_draws: int
    n_warmup: int
    n_replicates: int
    n_held_out: int
    max_iter: int


class Rows(NamedTuple):
    """What was drawn from the truth, and what the truth itself scores on it.

    Few numbers of rows are compiled for: those of a data set come first, with a weight of one, and
    what fills them up has a weight of zero.
    """

    x: Float[Array, "n d"]
    weight: Float[Array, " n"]
    labels: Int[Array, " n"]
    held_out: Float[Array, "m d"]
    log_density: Array  # mean over the rows held out
    adjusted_rand: Array


class Found(NamedTuple):
    """EM's answer, in the labels of the target."""

    params: Params
    end: Array
    missed: Array  # the optimum near the truth is higher
    elsewhere: Array  # the optimum near the truth is lower


class Case(NamedTuple):
    """What a method sees of a data set; ``model`` has its prior as numbers.

    Functions of the user's own see the rows of the data set and no others.
    """

    model: LatentModel
    rows: Rows
    found: Found
    key: PRNGKeyArray
    setting: Setting

    @property
    def x(self) -> Array:
        return self.rows.x

    @property
    def weight(self) -> Array:
        return self.rows.weight

    def values(self, params: Params) -> Float[Array, " q"]:
        """The quantities of the study at parameters."""
        return values(self.setting.quantities, self.model, params)


def simulated(
    truth: LatentModel,
    params: Params,
    given: Given | None,
    key: PRNGKeyArray,
    n: Array | int,
    setting: Setting,
) -> Rows:
    """``n`` rows of the truth, with the labels that they came from."""
    key_rows, key_labels, key_held_out = jax.random.split(key, 3)
    beside, beside_held_out = (None, None) if given is None else given
    x = rows_beside(truth, params, key_rows, setting.n_rows, beside)
    weight = (jnp.arange(setting.n_rows) < n).astype(x.dtype)
    # Labels given rows: the two together are as if labels had been drawn first.
    probability = truth.responsibilities(params, x)
    labels = drawn_labels(key_labels, probability.T, 0)
    held_out = rows_beside(truth, params, key_held_out, setting.n_held_out, beside_held_out)
    agreed = jnp.argmax(probability, axis=1)
    return Rows(
        x,
        weight,
        labels,
        held_out,
        jnp.mean(truth.log_prob(params, held_out)),
        adjusted_rand(labels, agreed, truth.n_components, truth.n_components, weight),
    )


def searched(
    model: LatentModel, target: Params, rows: Rows, key: PRNGKeyArray, setting: Setting
) -> Found:
    """EM from random starts, and from the target to see which optimum lies near."""
    x, weight, most = rows.x, rows.weight, setting.max_iter
    search = em.search(model, x, key, setting.n_init, weight, max_iter=most)
    near = em.run(model, x, target, weight, max_iter=most)
    params, clarity = matched(model, search.best.params, target, rows)
    gap = search.best.log_joint - near.log_joint
    arrived = (near.status == Status.CONVERGED) & ~near.spurious & ~search.failed
    end = first_of(
        (search.failed & jnp.any(search.spurious), End.SPURIOUS),
        (search.failed & jnp.any(search.status == Status.COLLAPSED), End.COLLAPSED),
        (search.best.status != Status.CONVERGED, End.NOT_CONVERGED),
        (clarity < AMBIGUOUS, End.UNMATCHED),
    )
    return Found(
        params,
        end,
        missed=arrived & (gap < -SAME_OPTIMUM),
        elsewhere=~search.failed & (~arrived | (gap > SAME_OPTIMUM)),
    )


def first_of(*cases: tuple[Array, End]) -> Array:
    """The code of the first case that holds; `End.USED` where none does."""
    holds, ends = zip(*cases, strict=True)
    return jnp.select(holds, [jnp.int32(end) for end in ends], jnp.int32(End.USED))


def matched(
    model: LatentModel, params: Params, target: Params, rows: Rows
) -> tuple[Params, Float[Array, ""]]:
    """Parameters in the labels of others, as in `jaxgmm.bootstrap`, and how clear these are."""
    labels = lambda point: directions(rows.weight * model.responsibilities(point, rows.x).T)
    likeness = labels(params) @ labels(target).T
    order = cheapest(-likeness[None], model.label_groups)
    clarity = margin(-likeness[None], order, model.label_groups)[0] / 2
    return model.permute(params, order[0]), clarity


def adjusted_rand(
    one: Int[Array, " n"],
    other: Int[Array, " n"],
    k_one: int,
    k_other: int,
    weight: Float[Array, " n"],
) -> Float[Array, ""]:
    """Agreement of two partitions, zero for chance (Hubert and Arabie, 1985)."""
    table = weight * jax.nn.one_hot(one, k_one).T @ jax.nn.one_hot(other, k_other)
    pairs = lambda counts: jnp.sum(counts * (counts - 1)) / 2
    rows, columns = pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    chance = rows * columns / pairs(table.sum())
    span = (rows + columns) / 2 - chance
    # Two partitions into one part each agree.
    return jnp.where(span > 0, (pairs(table) - chance) / jnp.where(span > 0, span, 1), 1.0)
