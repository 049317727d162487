"""What a study compares: each method as a function of a data set."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float

from jaxgmm import bayes, em
from jaxgmm._contract import Params
from jaxgmm.bayes import in_labels_of, log_prob, responsibilities
from jaxgmm.report.studies._case import Case, End, adjusted_rand

# Draws that a predictive density averages over; more change its third digit.
_PREDICTIVE_DRAWS = 100

# Engines whose draws are not independent.
_CHAINS = ("gibbs", "nuts")

# A bootstrap of which a larger share was lost tells no errors.
_MOST_LOST = 0.5


class Outcome(NamedTuple):
    """What a method says of Q quantities of one data set.

    Attributes
    ----------
    estimate, standard_error : (Q,) arrays
    low, high : (L, Q) arrays
        Ends of the intervals of each level.
    end : int32 array
        0 where all this may be used; see ``End``.
    log_density : array
        Mean log density of the rows held out.
    adjusted_rand : array
        Agreement of its partition with the labels that the rows came from.
    """

    estimate: Array
    standard_error: Array
    low: Array
    high: Array
    end: Array
    log_density: Array
    adjusted_rand: Array


Method = Callable[[Case], Outcome]


def _em(case: Case, kind: str) -> Outcome:
    """Intervals of so many standard errors about EM's point."""
    point = case.found.params
    errors = em.local_errors(case.model, point, case.x, case.values, case.weight)
    unknown = _usable(case.found.end) & ~errors.stationary
    end = jnp.where(unknown, jnp.int32(End.NOT_A_MAXIMUM), case.found.end)
    return wald(case, errors.values, getattr(errors, kind), end, *_plug_in(case))


def wald(
    case: Case, estimate: Array, error: Array, end: Array, log_density: Array, rand: Array
) -> Outcome:
    """Intervals of so many standard errors to either side."""
    tails = (1 + jnp.array(case.setting.levels)) / 2
    reach = norm.ppf(tails)[:, None] * error
    return Outcome(estimate, error, estimate - reach, estimate + reach, end, log_density, rand)


def _bootstrap(case: Case, kind: str) -> Outcome:
    setting, point, x = case.setting, case.found.params, case.x
    made = em.replicate(
        case.model,
        x,
        case.weight > 0,
        point,
        jax.random.split(case.key, setting.n_replicates),
        em.default_tolerance(x.dtype),
        kind,
        setting.n_rows,
        setting.max_iter,
    )
    lost = jnp.mean(~made.matched) > _MOST_LOST
    unknown = _usable(case.found.end) & lost
    end = jnp.where(unknown, jnp.int32(End.UNMATCHED), case.found.end)
    _, error, low, high = _summary(case, jax.vmap(case.values)(made.params), made.matched)
    return Outcome(case.values(point), error, low, high, end, *_plug_in(case))


def _posterior(case: Case, method: str) -> Outcome:
    setting, x, present = case.setting, case.x, case.weight > 0
    # Independent draws need no chains.
    n_chains = setting.n_chains if method in _CHAINS else 1
    counts = n_chains, setting.n_draws, setting.n_warmup
    point = case.found.params
    drawn = bayes.draw(case.model, x, point, case.key, method, *counts, present=present)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), drawn.params)
    params = in_labels_of(case.model, x, present, flat, point)
    unknown = _usable(case.found.end) & ~drawn.sound
    end = jnp.where(unknown, jnp.int32(End.NOT_CONVERGED), case.found.end)
    summary = _summary(case, jax.vmap(case.values)(params))
    return Outcome(*summary, end, *_predictive(case, params))


METHODS: dict[str, Method] = {
    "em": functools.partial(_em, kind="information"),
    "em-sandwich": functools.partial(_em, kind="sandwich"),
    "bootstrap": functools.partial(_bootstrap, kind="nonparametric"),
    "bootstrap-weighted": functools.partial(_bootstrap, kind="weighted"),
    "bootstrap-parametric": functools.partial(_bootstrap, kind="parametric"),
    **{name: functools.partial(_posterior, method=name) for name in bayes.WITHIN},
}


def _usable(end: Array) -> Array:
    """Whether EM found a point, whatever its labels."""
    return (end == End.USED) | (end == End.UNMATCHED)


def _summary(
    case: Case, drawn: Float[Array, "s q"], kept: Bool[Array, " s"] | None = None
) -> tuple[Array, Array, Array, Array]:
    """Mean, standard deviation, and ends of the intervals with equal tails."""
    if kept is not None:
        drawn = jnp.where(kept[:, None], drawn, jnp.nan)
    levels = jnp.array(case.setting.levels)
    tails = jnp.concatenate([1 - levels, 1 + levels]) / 2
    low, high = jnp.split(jnp.nanquantile(drawn, tails, axis=0), 2)
    return jnp.nanmean(drawn, axis=0), jnp.nanstd(drawn, axis=0, ddof=1), low, high


def _plug_in(case: Case) -> tuple[Array, Array]:
    """Scores of the density and the partition at EM's point."""
    params = case.found.params
    density = jnp.mean(case.model.log_prob(params, case.rows.held_out))
    return density, _rand(case, case.model.responsibilities(params, case.x))


def _predictive(case: Case, params: Params) -> tuple[Array, Array]:
    """Scores of the posterior's mean density, and of its mean labels."""
    stride = -(-len(jax.tree.leaves(params)[0]) // _PREDICTIVE_DRAWS)
    some = jax.tree.map(lambda leaf: leaf[::stride], params)
    count = len(jax.tree.leaves(some)[0])
    log_weights = jnp.full(count, -jnp.log(count))
    density = jnp.mean(log_prob(case.model, some, log_weights, case.rows.held_out))
    return density, _rand(case, responsibilities(case.model, some, log_weights, case.x))


def _rand(case: Case, labels: Float[Array, "n k"]) -> Array:
    counts = case.setting.n_labels, case.model.n_components
    own = jnp.argmax(labels, axis=1)
    return adjusted_rand(case.rows.labels, own, *counts, case.weight)
