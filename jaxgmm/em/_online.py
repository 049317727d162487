"""Online EM: statistics that follow rows as they come, for streams that are read once."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from jaxgmm._checks import check_count, key_numbers
from jaxgmm._contract import LatentModel, Params, Statistics, expected_labels
from jaxgmm._programs import on_rung, program, size_for
from jaxgmm.em._loop import RUNNING
from jaxgmm.em._progress import bar
from jaxgmm.em._readings import Block, check_no_weights
from jaxgmm.em._record import Rows, best_fit, certainty, landmarks
from jaxgmm.em._results import Fit, RowSums, Run, Status, check_precision, joined
from jaxgmm.em._step import choose
from jaxgmm.em._stream import Stream, stream
from jaxgmm.em._survey import Patterns, Seen, again, check_again

# Weights of the average grow with this power of the rows seen (Shamir and Zhang, 2013): a poor
# start is forgotten, and three quarters of the rows count.
_FORGETTING = 1.0


@dataclasses.dataclass(frozen=True)
class Online:
    r"""Online EM: an M-step after every few rows, each of which may be read once.

    ``jaxgmm.fit(model, jaxgmm.stream(...), algorithm="online")``, or with a value of this class for
    other settings.

    Parameters
    ----------
    exponent : float
        Of the step sizes, above 0.5 and at most 1. Where the t-th batch is learned the statistics
        of an average row become ``(1 - g) s + g s_t`` with ``g = t ** -exponent``, and t counts
        batches of the rows that the start rests on as well. At 1 every row counts the same,
        whatever the parameters were when its labels were made; below, old labels are
        forgotten.
    batch_rows : int
        Rows between two M-steps.
    averaging : bool
        Whether the result rests on an average of the statistics along the way, later ones with
        more weight, which takes the noise of the last steps away.

    Raises
    ------
    ValueError, TypeError
        For settings outside these ranges.

    Notes
    -----
    The first rows of the stream (``subsample``) are fitted in memory, as `jaxgmm.fit` does with an
    array; what follows starts at that fit and its statistics. So rows must come in no order that
    matters: shuffle a sorted file first. Nothing tells whether the parameters have arrived: the
    status says that, and never "converged". ``fit.trace`` has the mean log density of the first
    rows, then that of each batch before it was learned. Where rows can be read again, one more
    reading gives the log likelihood and the criteria; else these are NaN.

    References
    ----------
    Cappé and Moulines (2009), JRSS B 71:593-613; Polyak and Juditsky (1992), SIAM J. Control
    Optim. 30:838-855, for averages; Shamir and Zhang (2013), ICML, for their weights.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> rows = jg.stream(iter([jg.datasets.load("faithful").x] * 4), block_rows=272)
    >>> online = jg.em.Online(batch_rows=100)
    >>> model = jg.Mixture(jg.Gaussian(), 2)
    >>> fit = jg.fit(model, rows, key=jax.random.key(0), n_init=4, algorithm=online, subsample=272)
    >>> fit.n_rows, fit.converged
    (1088, False)
    """

    exponent: float = 0.6
    batch_rows: int = 1024
    averaging: bool = True

    def __post_init__(self) -> None:
        if not 0.5 < self.exponent <= 1:
            raise ValueError(
                f"exponent: must be above 0.5 and at most 1, found {self.exponent}; with others "
                "the steps do not settle, or come to a stand too early"
            )
        check_count("batch_rows", self.batch_rows, 1)


# Each row of `Fit.update` counts the same.
_EVENLY = Online(exponent=1.0, averaging=False)


class _State(NamedTuple):
    """Where online EM is."""

    params: Params
    statistics: Statistics  # scaled to the weight of all rows so far
    average: Statistics
    seen: Array  # that weight
    status: Array


def fit_online(
    model: LatentModel,
    stream: Stream,
    in_memory: Callable[..., Fit],
    *,
    key: Any,
    n_init: int,
    start: Any,
    tol: float | None,
    max_iter: int,
    subsample: int,
    passes: int,
    how: Online,
) -> Fit:
    """`jaxgmm.fit` of a stream by online EM: the first rows in memory, then all others in turn."""
    check_count("subsample", subsample, 1)
    check_count("passes", passes, 1)
    refuse_numerical(model)
    if passes > 1:
        check_again(stream)
    given = not (start is None or isinstance(start, str) or callable(start))
    model.check_names(stream.feature_names)
    stream = stream.with_holes(model.holes)
    with bar("online EM", True, unit="rows") as shown:
        first, patterns = Seen(stream), Patterns(stream)
        blocks = _counted(stream.blocks(), first, shown)
        sample, weight, rest = _head(stream, blocks, subsample)
        found = in_memory(
            model, sample, key=key, n_init=n_init, start=start, tol=tol, sample_weight=weight,
            max_iter=0 if given else max_iter,
        )  # fmt: skip
        model = found.model
        patterns.offer(np.asarray(sample))
        working, state, height = _begun(model, found.params, *on_rung(model, sample, weight))
        traces = [np.asarray(height)[None]]
        for number in range(passes):
            more = again(stream, first, shown) if number else itertools.chain(rest, blocks)
            working, state, trace = _learned(working, state, more, how, patterns)
            traces.append(trace)
        model = _resolved(model, patterns, sample.dtype)
        end = _ended(working, state, np.asarray(first.total_weight, sample.dtype))
        densities = None
        if stream.again:
            densities = _densities(working, end.working, again(stream, first, shown))
    n, total, informative = first.n_rows, first.total_weight, first.n_informative
    rows = Rows(n, total, informative, landmarks(sample, len(sample)), first.fingerprint())
    settings = {
        "tol": found.tol,
        "max_iter": passes,
        "feature_names": stream.feature_names,
        "start": found.start,
        "seed": None if key is None else key_numbers(key),
    }
    return _fit(model, working, end, densities, traces, rows, settings)


def update(fit: Fit, x: Any, *, sample_weight: Any = None, algorithm: Online | None = None) -> Fit:
    """`Fit.update`."""
    check_precision(fit)
    how = _EVENLY if algorithm is None else algorithm
    if not isinstance(how, Online):
        raise TypeError(f"algorithm: needs a jaxgmm.em.Online, found {how!r}")
    refuse_numerical(fit.model)
    if fit.row_sums is None:
        raise ValueError(
            "fit: keeps no sums over its rows to go on from (it is of rows that were centred "
            "first, or has been moved or trimmed); fit all rows together"
        )
    working, old = fit.row_sums
    dtype = fit.trace.dtype
    rows = _as_stream(fit, x, sample_weight)
    # Features are fewer than columns where rows have noise beside them.
    width = getattr(fit.model, "n_features", None) or len(fit.feature_names)
    if rows.n_columns != width:
        raise ValueError(f"x: needs the {width} column(s) of the fit, found {rows.n_columns}")
    with bar("online EM", isinstance(x, Stream), unit="rows") as shown:
        seen, patterns = Seen(rows), Patterns(rows)
        blocks = _counted(rows.blocks(), seen, shown)
        first = next(blocks)
        some = jnp.asarray(first.rows[: first.n_rows], dtype)
        state = _going_on(working, fit.params, old, np.asarray(fit.total_weight, dtype))
        more = itertools.chain([first], blocks)
        working, state, trace = _learned(working, state, more, how, patterns)
        model = _resolved(fit.model, patterns, dtype)
        total = fit.total_weight + seen.total_weight
        end = _ended(working, state, np.asarray(total, dtype))
    digest = joined(fit.fingerprint, seen.fingerprint())
    of_rows = Rows(fit.n_rows + seen.n_rows, total, total, landmarks(some, len(some)), digest)
    settings = {
        "tol": fit.tol,
        "max_iter": 1,
        "feature_names": fit.feature_names,
        "start": "given",
        "seed": fit.seed,
    }
    traces = [np.full(1, np.nan, dtype), trace]
    return _fit(model, working, end, None, traces, of_rows, settings)


def refuse_numerical(model: LatentModel) -> None:
    """Refuse a model of which a block of rows does not say enough."""
    if not model.closed:
        raise ValueError(
            "x: the M-step of this model is numerical, for which EM needs all rows in memory; "
            "fit a sample of the stream"
        )


def _as_stream(fit: Fit, x: Any, sample_weight: Any) -> Stream:
    if isinstance(x, Stream):
        check_no_weights(sample_weight)
        fit.model.check_names(x.feature_names)
        return x.with_holes(fit.model.holes)
    model, x = fit.model.read(x)
    rows, weight = model.check_data(x, sample_weight)
    weights = None if weight is None else np.asarray(weight)
    block_rows = min(65_536, size_for(len(rows)))
    known = stream(np.asarray(rows), weight=weights, block_rows=block_rows)
    return known.with_holes(model.holes)


def _counted(blocks: Iterator[Block], seen: Seen, shown: Any) -> Iterator[Block]:
    for block in blocks:
        seen.add(block)
        yield block
        shown.update(block.n_rows)


def _head(
    stream: Stream, blocks: Iterator[Block], size: int
) -> tuple[Array, Array | None, list[Block]]:
    """The first ``size`` rows and their weights, and what is left of their last block."""
    taken, count = [], 0
    while count < size and (block := next(blocks, None)) is not None:
        taken.append(block)
        count += block.n_rows
    rows = np.concatenate([block.rows[: block.n_rows] for block in taken])
    weight = np.concatenate([block.weight[: block.n_rows] for block in taken])
    rest = []
    if count > size:
        copies = np.zeros(stream.block_rows - (count - size), weight.dtype)
        more = np.concatenate([rows[size:], np.repeat(rows[-1:], len(copies), axis=0)])
        rest = [Block(more, np.concatenate([weight[size:], copies]), count - size)]
    own = jax.device_put(weight[:size]) if stream.weighted else None
    return jax.device_put(rows[:size]), own, rest


@program()
def _begun(
    model: LatentModel, params: Params, sample: Array, weight: Array | None
) -> tuple[LatentModel, _State, Array]:
    """The model in working units, where it starts, and the mean log density there."""
    working = model.standardise(sample, weight)
    params = working.to_working(params)
    statistics, height = working.e_step(params, sample, weight)
    seen = jnp.asarray(len(sample) if weight is None else jnp.sum(weight), height.dtype)
    return working, _entered(params, statistics, seen), height / seen


@program()
def _going_on(model: LatentModel, params: Params, statistics: Statistics, seen: Array) -> _State:
    return _entered(model.to_working(params), statistics, seen)


def _entered(params: Params, statistics: Statistics, seen: Array) -> _State:
    return _State(params, statistics, statistics, seen, jnp.int32(RUNNING))


def _learned(
    model: LatentModel, state: _State, blocks: Iterator[Block], how: Online, patterns: Patterns
) -> tuple[LatentModel, _State, np.ndarray]:
    """Model and state after a reading, and the mean log density of each batch before it.

    The model learns which values are missing together: sums are of expectations, whatever was
    missing in the rows before.
    """
    dtype, trace = np.dtype(state.seen.dtype), [np.empty(0, state.seen.dtype)]
    exponent = np.asarray(how.exponent, dtype)
    for block in blocks:
        if patterns.offer(block.rows):
            model = _resolved(model, patterns, dtype)
            _check_sums(model, state, block)
        rows, weight = _in_batches(block, how.batch_rows, dtype)
        state, means, there = _learn(model, state, rows, weight, exponent, how.averaging)
        trace.append(np.asarray(means)[np.asarray(there)])
    return model, state, np.concatenate(trace)


def _resolved(model: LatentModel, patterns: Patterns, dtype: Any) -> LatentModel:
    """The model that knows these patterns of missing values, where there are any."""
    if not len(patterns.rows):
        return model
    # A row without holes, so that no column is empty.
    rows = np.concatenate([patterns.rows, np.ones_like(patterns.rows[:1])])
    return model.resolve(jax.device_put(rows.astype(dtype)))


def _check_sums(model: LatentModel, state: _State, block: Block) -> None:
    """Refuse holes of which the sums so far know nothing."""
    step = lambda params, x: model.e_step(params, x)[0]
    found = jax.eval_shape(step, state.params, block.rows[:1])
    shapes = [jax.tree.map(np.shape, sums) for sums in (found, state.statistics)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "x: values are missing in other columns than in the rows before, where sums over "
            "independent columns have to count the values of each; let such rows be among the "
            "first (subsample), or fit all rows together"
        )


def _in_batches(block: Block, size: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """A block in equal batches, the last filled up with copies of weight zero."""
    n_rows = len(block.rows)
    count = -(-n_rows // size)
    more = -n_rows % count
    rows = np.concatenate([block.rows, np.repeat(block.rows[-1:], more, axis=0)])
    weight = np.concatenate([block.weight, np.zeros(more, block.weight.dtype)])
    batches = rows.reshape(count, -1, rows.shape[1]), weight.reshape(count, -1)
    return batches[0].astype(dtype, copy=False), batches[1].astype(dtype, copy=False)


@program(static_argnames="averaging")
def _learn(
    model: LatentModel, state: _State, rows: Array, weight: Array, exponent: Array, averaging: bool
) -> tuple[_State, Array, Array]:
    """All batches of a block, one after another."""
    size = jnp.asarray(rows.shape[1], rows.dtype)

    def learn(state: _State, batch: tuple[Array, Array]) -> tuple[_State, tuple[Array, Array]]:
        x, w = batch
        more, log_likelihood = model.e_step(state.params, x, w)
        own = jnp.sum(w)
        some, seen = jnp.where(own > 0, own, 1), state.seen + own
        # A batch with fewer rows is a part of a step; with an exponent of one, own / seen.
        step = jnp.minimum(own / size * (seen / size) ** -exponent, 1)
        grown = seen / state.seen
        shares = (1 - step) * grown, step * seen / some
        statistics = model.add(state.statistics, more, shares)
        average = statistics
        if averaging:
            share = own * (1 + _FORGETTING) / (seen + _FORGETTING * size)
            share = jnp.minimum(share, 1)
            average = model.add(state.average, statistics, ((1 - share) * grown, share))
        params = model.m_step(statistics, state.params)
        status = _soundness(model, params, log_likelihood)
        new = _State(params, statistics, average, seen, status)
        new = choose(status == RUNNING, new, state._replace(status=status))
        learned = (own > 0) & (state.status == RUNNING)
        return choose(learned, new, state), (log_likelihood / some, learned)

    state, (means, learned) = lax.scan(learn, state, (rows, weight))
    return state, means, learned


def _soundness(model: LatentModel, params: Params, log_likelihood: Array) -> Array:
    leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)]
    finite = jnp.isfinite(log_likelihood) & jnp.all(jnp.stack(leaves))
    status = jnp.where(finite, RUNNING, Status.NONFINITE_OBJECTIVE)
    return jnp.where(model.collapsed(params), Status.COLLAPSED, status).astype(jnp.int32)


class _End(NamedTuple):
    """What a run leaves."""

    working: Params
    params: Params
    statistics: Statistics
    log_prior: Array
    spurious: Array
    empty: Array
    status: Array


@program()
def _ended(model: LatentModel, state: _State, total: Array) -> _End:
    """The result, its statistics scaled to the weight of all rows, however often they were read."""
    statistics = model.add(state.average, state.average, (total / state.seen, 0 * total))
    params = model.m_step(statistics, state.params)
    sound = _soundness(model, params, total) == RUNNING
    params = choose(sound, params, state.params)
    ran = state.status == RUNNING
    return _End(
        working=params,
        params=model.to_user(params),
        statistics=statistics,
        log_prior=model.log_prior(params),
        spurious=model.spurious(params, statistics),
        empty=model.empty(params, statistics),
        status=jnp.where(ran, jnp.int32(Status.UNJUDGED), state.status),
    )


def _densities(model: LatentModel, params: Params, blocks: Iterator[Block]) -> np.ndarray:
    """Log likelihood and log probability of the most probable labels, of all rows."""
    found = np.zeros(2)
    for block in blocks:
        found += np.asarray(_of_block(model, params, block.rows, block.weight), np.float64)
    return found


@program()
def _of_block(model: LatentModel, params: Params, rows: Array, weight: Array) -> Array:
    each = [model.e_step(params, rows, weight, how)[1] for how in (expected_labels, certainty)]
    return jnp.stack(each)


def _fit(
    model: LatentModel,
    working: LatentModel,
    end: _End,
    densities: np.ndarray | None,
    traces: list[np.ndarray],
    rows: Rows,
    settings: dict[str, Any],
) -> Fit:
    """The fit; where rows were gone, without log likelihood and criteria."""
    end, trace = jax.tree.map(np.asarray, end), np.concatenate(traces)
    log_likelihood, log_certainty = (np.nan, np.nan) if densities is None else densities

    def of(number: Any) -> Any:
        return np.asarray([number], trace.dtype)

    count: Any = np.asarray([len(trace) - 1], np.int32)
    record = Run(
        params=jax.tree.map(lambda leaf: leaf[None], end.params),
        log_joint=of(log_likelihood + float(end.log_prior)),
        log_likelihood=of(log_likelihood),
        log_prior=of(end.log_prior),
        status=end.status[None],
        n_iter=count,
        n_evaluations=count + 1 + (densities is not None),
        rate=of(np.nan),
        trace=of(trace),
        spurious=end.spurious[None],
    )
    learned = RowSums(working, end.statistics)
    labels_at: Any = lambda _: (log_certainty, end.empty, None, learned)
    settings = {"algorithm": "online", "acceleration": None, **settings}
    return best_fit(model, record, rows, labels_at, settings)[0]
