"""Posteriors of rows that are read in blocks: the engines whose rounds are sums over all rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Key, PRNGKeyArray

from jaxgmm._checks import check_count, check_options
from jaxgmm._contract import LatentModel, Params, Statistics
from jaxgmm._numerics import at_once, rounding_bound, widened
from jaxgmm._programs import program
from jaxgmm.bayes import _ascent, _gibbs, _laplace, _vb
from jaxgmm.bayes._chains import Draws, Schedule, Starts
from jaxgmm.bayes._posterior import Posterior
from jaxgmm.bayes._sampled import assembled, to_working
from jaxgmm.bayes._starts import beginning
from jaxgmm.em import Block, Fit, Readings, check_precision
from jaxgmm.local import from_vector, to_vector


def sample_stream(
    rows: Readings,
    *,
    key: PRNGKeyArray,
    start: Any,
    method: str,
    n_chains: int | None,
    n_draws: int,
    n_warmup: int | None,
    thinning: int,
    **options: Any,
) -> Posterior:
    """`jaxgmm.sample` of rows in readings, from a given start; by a method of `STREAMED`."""
    engine = STREAMED[method]
    check_options(method, engine, options)
    for name, (count, least) in {"n_draws": (n_draws, 4), "thinning": (thinning, 1)}.items():
        check_count(name, count, least)
    if n_warmup is None:
        n_warmup = 0 if isinstance(start, Posterior) else _WARMUP
    check_count("n_warmup", n_warmup, 0)
    if isinstance(start, (Fit, Posterior)):
        check_precision(start)
        if start.fingerprint != rows.fingerprint:
            kind = type(start).__name__.lower()
            raise ValueError(
                f"start: this {kind} is of other rows or weights; fit the stream first"
            )
    model = rows.model
    key, key_starts = jax.random.split(key)
    some = rows.sample, rows.sample_weight
    begun = beginning(model, *some, start, n_chains, method, key_starts)

    # As in memory, engines run in JAX's default precision.
    wide, stand_in = widened(model), widened(rows.stand_in)
    working, params = to_working(wide, *stand_in, widened(begun.starts.params))
    working = working.settled(params)
    schedule = Schedule(n_draws, n_warmup, thinning)
    starts = begun.starts._replace(params=params)
    draws: Draws = engine(working, rows, starts, key, schedule, **options)
    if draws.log_likelihood is None:
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), draws.params)
        heights = _log_likelihoods(working, rows, flat)
        draws = draws._replace(log_likelihood=heights.reshape(starts.n_chains, n_draws))
    return assembled(
        model, wide, working, *some, draws, begun, method=method, sampled=not rows.whole,
        fingerprint=rows.fingerprint, feature_names=rows.feature_names,
    )  # fmt: skip


_WARMUP = 500


def _arrays(rows: Readings, block: Block) -> tuple[np.ndarray, np.ndarray]:
    """A block in JAX's default precision; without weights of its own, which rows are there."""
    widest = jnp.result_type(float)
    weight = block.weight.astype(widest) if rows.weighted else block.weight > 0
    return block.rows.astype(widest), weight


def _total(rows: Readings, add: Callable[..., Any], sums: Any) -> Any:
    """A reading: ``add`` takes the sums so far, rows, weights, and how many rows came before."""
    before = 0
    for block in rows.blocks():
        sums = add(sums, *_arrays(rows, block), before)
        before += block.n_rows
    return sums


def _like(rows: Readings) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((2, rows.sample.shape[1]), jnp.result_type(float))


def _nothing(model: LatentModel, params: Params, rows: Readings) -> tuple[Statistics, Array]:
    """Statistics and a sum of no rows, for each of a stack of parameters."""
    sums = jax.eval_shape(jax.vmap(model.e_step, (0, None)), params, _like(rows))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), sums)


def _log_likelihoods(model: LatentModel, rows: Readings, params: Params) -> np.ndarray:
    """Of each of a stack, in one reading; blocks are added in float64."""

    def add(total: np.ndarray, x: np.ndarray, weight: np.ndarray, _: int) -> np.ndarray:
        return total + np.asarray(_of_block(model, params, x, weight), np.float64)

    return _total(rows, add, np.zeros(len(jax.tree.leaves(params)[0])))


@program()
def _of_block(model: LatentModel, params: Params, x: Array, weight: Array) -> Array:
    batch = at_once(x.shape[0] * model.n_components, x.dtype)
    return lax.map(lambda one: model.log_likelihood(one, x, weight), params, batch_size=batch)


# -- variational Bayes -----------------------------------------------------------------------


def vb(
    model: LatentModel,
    rows: Readings,
    starts: Starts,
    key: PRNGKeyArray,
    schedule: Schedule,
    *,
    n_init: int = 0,
    tol: float | None = None,
    passes: int = 100,
) -> Draws:
    """`jaxgmm.bayes.VB`, a reading for each round of all starts together."""
    _vb.check_bound(model)
    dtype = jnp.result_type(float)
    _vb.check_ascent(n_init, tol, "passes", passes)
    tol = _vb.default_tolerance(rows.sample.dtype) if tol is None else tol
    key_starts, key_draws = jax.random.split(key)
    keys = jax.random.split(key_starts, n_init)
    nothing = _nothing(model, starts.params, rows)

    def first(sums: Any, *block: Any) -> Any:
        return _first_labels(model, starts.params, keys, sums, *block)

    more = jax.tree.map(lambda leaf: np.zeros((n_init, *leaf.shape[1:]), leaf.dtype), nothing[0])
    begun = _total(rows, first, (nothing[0], more))
    ascents = _begun(*begun, passes)
    nothing = _begun_sums(nothing, n_init)
    tolerance, total = np.asarray(tol, dtype), np.asarray(rows.total_weight, dtype)
    while np.any(np.asarray(ascents.status) == _vb.RUNNING):
        sums = _total(rows, lambda sums, *b, at=ascents: _expected(model, at, sums, *b), nothing)
        ascents = _climbed(model, ascents, sums, total, tolerance, passes)
    return _vb.drawn(model, ascents, key_draws, starts.n_chains, schedule.n_draws)


@program()
def _first_labels(
    model: LatentModel,
    modes: Params,
    keys: Key[Array, " s"],
    sums: tuple[Statistics, Statistics],
    x: Array,
    weight: Array,
    before: Array | int,
) -> tuple[Statistics, Statistics]:
    """Statistics at the labels of each mode, and at random ones for each key."""
    given, drawn = sums
    given = jax.vmap(model.add)(given, jax.vmap(lambda p: model.e_step(p, x, weight)[0])(modes))
    if len(keys):
        at_random = jax.vmap(lambda key: _vb.random_start(model, x, weight, key, before))(keys)
        drawn = jax.vmap(model.add)(drawn, at_random)
    return given, drawn


@program(static_argnames="passes")
def _begun(given: Statistics, drawn: Statistics, passes: int) -> _vb.Ascent:
    starts = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), given, drawn)
    dtype = jnp.result_type(float)
    return jax.vmap(lambda start: _vb.begun(start, dtype, passes))(starts)


def _begun_sums(nothing: Any, more: int) -> Any:
    return jax.tree.map(
        lambda leaf: np.zeros((len(leaf) + more, *leaf.shape[1:]), leaf.dtype), nothing
    )


@program()
def _expected(
    model: LatentModel, ascents: _vb.Ascent, sums: Any, x: Array, weight: Array, _: Array | int
) -> Any:
    def one(each: Any) -> Any:
        ascent, (statistics, total) = each

        def added() -> Any:
            more, expected = model.updated(ascent.following).expected_step(x, weight)
            return model.add(statistics, more), total + expected

        going = ascent.status == _vb.RUNNING
        return lax.cond(going, added, lambda: (statistics, total))

    return lax.map(one, (ascents, sums))


@program(static_argnames="passes")
def _climbed(
    model: LatentModel, ascents: _vb.Ascent, sums: Any, total: Array, tol: Array, passes: int
) -> _vb.Ascent:
    def one(each: Any) -> _vb.Ascent:
        last, (following, expected) = each
        q = model.updated(last.following)
        new = _vb.climbed(model, q, last, following, expected, total, tol, passes)
        going = last.status == _vb.RUNNING
        return jax.tree.map(lambda a, b: jnp.where(going, a, b), new, last)

    return lax.map(one, (ascents, sums))


# -- Gibbs sampling --------------------------------------------------------------------------


def gibbs(
    model: LatentModel, rows: Readings, starts: Starts, key: PRNGKeyArray, schedule: Schedule
) -> Draws:
    """`jaxgmm.bayes._gibbs.gibbs`, a reading for each sweep of all chains together."""
    if model.imputes:
        raise ValueError(
            'x: Gibbs sampling imputes no rows of a stream; use method="laplace", or fit a sample'
        )
    n_chains = starts.n_chains
    no = jax.device_put(np.zeros(n_chains, bool))
    chains = _gibbs.Chain(starts.params, jax.random.split(key, n_chains), no)
    nothing, kept = _nothing(model, starts.params, rows), []
    # A sweep records what it starts from: the first one, the start, is no draw.
    n_warmup = schedule.n_warmup + 1
    for sweep in range(n_warmup + schedule.n_draws * schedule.thinning):
        keys = _three(chains.key)

        def labelled(sums: Any, x: Any, weight: Any, before: int, at: Any = (chains, keys)) -> Any:
            if weight.dtype != bool:
                _gibbs.check_copies(weight)
            return _labelled(model, *at, sums, x, weight, before)

        sums = _total(rows, labelled, nothing)
        chains, record = _swept(model, chains, keys, sums)
        if sweep >= n_warmup and (sweep - n_warmup) % schedule.thinning == schedule.thinning - 1:
            kept.append(jax.tree.map(np.asarray, record))
    draws: Draws = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *kept)
    return draws._replace(n_warmup=schedule.n_warmup)


@program()
def _three(keys: Key[Array, " c"]) -> Key[Array, "c 3"]:
    return jax.vmap(lambda key: jax.random.split(key, 3))(keys)


@program()
def _labelled(
    model: LatentModel,
    chains: _gibbs.Chain,
    keys: Key[Array, "c 3"],
    sums: Any,
    x: Array,
    weight: Array,
    before: Array | int,
) -> Any:
    def one(each: Any) -> Any:
        params, key, (statistics, total) = each
        more, log_likelihood = _gibbs.labelled(model, x, weight, params, key, before)
        return model.add(statistics, more), total + log_likelihood

    return lax.map(one, (chains.params, keys[:, 1], sums))


@program()
def _swept(
    model: LatentModel, chains: _gibbs.Chain, keys: Key[Array, "c 3"], sums: Any
) -> tuple[_gibbs.Chain, Draws]:
    return jax.vmap(lambda chain, own, sum: _gibbs.swept(model, chain, own, *sum))(
        chains, keys, sums
    )


# -- Laplace's approximation -----------------------------------------------------------------


def laplace(
    model: LatentModel,
    rows: Readings,
    starts: Starts,
    key: PRNGKeyArray,
    schedule: Schedule,
    *,
    measure: str = "unconstrained",
    passes: int = 100,
) -> Draws:
    """`jaxgmm.bayes._laplace.laplace`, two readings for each step of Newton's method.

    There is no estimate of the evidence, for which draws would have to be weighed several times.
    """
    check_count("passes", passes, 2)
    dtype = jnp.result_type(float)
    _laplace.check_measure(model, measure, dtype)
    start, jacobian = starts.first, jnp.asarray(measure == "unconstrained", dtype)
    ascent, total = _beginning(model, start), jnp.asarray(rows.total_weight, dtype)
    while not bool(ascent.done):
        at = ascent.point
        sums = _total(
            rows, lambda sums, *b, at=at: _added_slopes(model, start, at, sums, *b), _no_slopes(at)
        )
        slopes = _with_prior(model, start, at, jacobian, *sums)
        found = _proposed(at, *slopes)
        heights = _log_likelihoods(model, rows, _params_at(model, start, found.points))
        ascent = _taken(
            model, start, ascent, slopes, found, heights.astype(dtype), jacobian, total,
            passes // 2,
        )  # fmt: skip
    counts = starts.n_chains, schedule.n_draws
    key_draws, _ = jax.random.split(key)  # as in memory, where the other weighs
    _, draws = _laplace.about(model, start, ascent, key_draws, counts, measure)
    return draws


@program()
def _beginning(model: LatentModel, start: Params) -> _ascent.Ascent:
    return _ascent.beginning(to_vector(model, start))


def _no_slopes(point: Array) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(point.size), np.zeros((point.size, point.size))


def _added_slopes(
    model: LatentModel, start: Params, point: Array, sums: Any, x: Array, weight: Array, _: int
) -> Any:
    more = _slopes(model, start, point, x, weight)
    return tuple(old + np.asarray(new, np.float64) for old, new in zip(sums, more, strict=True))


@program()
def _slopes(
    model: LatentModel, start: Params, point: Array, x: Array, weight: Array
) -> tuple[Array, Array]:
    return _laplace.of_rows(model, start, point, x, weight)


@program()
def _with_prior(
    model: LatentModel,
    start: Params,
    point: Array,
    jacobian: Array,
    gradient: Array,
    hessian: Array,
) -> tuple[Array, Array]:
    of_prior = _laplace.of_prior(model, start, point, jacobian)
    return gradient.astype(point.dtype) + of_prior[0], hessian.astype(point.dtype) + of_prior[1]


@program()
def _proposed(point: Array, gradient: Array, hessian: Array) -> _ascent.Proposals:
    return _ascent.proposed(point, gradient, hessian)


@program()
def _params_at(model: LatentModel, start: Params, points: Array) -> Params:
    return jax.vmap(lambda point: from_vector(model, point, start)[0])(points)


@program()
def _taken(
    model: LatentModel,
    start: Params,
    ascent: _ascent.Ascent,
    slopes: tuple[Array, Array],
    found: _ascent.Proposals,
    log_likelihoods: Array,
    jacobian: Array,
    total: Array,
    most: Array | int,
) -> _ascent.Ascent:
    def others(point: Array) -> Array:
        params, log_volume = from_vector(model, point, start)
        return model.log_prior(params) + jacobian * log_volume

    heights = log_likelihoods + lax.map(others, found.points)
    bound = rounding_bound(heights[-1], total, model.cancellation(start))
    return _ascent.taken(ascent, *slopes, found, heights, bound, most)


# A new engine is a function here and a line. What it takes by keyword only are its options.
STREAMED: dict[str, Callable[..., Draws]] = {"vb": vb, "gibbs": gibbs, "laplace": laplace}
