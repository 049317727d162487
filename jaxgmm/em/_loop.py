"""The one loop of EM: steps to a stated tolerance, restarts in turn, an ordered verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from jaxgmm._contract import LatentModel, Params
from jaxgmm._numerics import anywhere, as_rows, at_once, precise, rounding_bound
from jaxgmm._sharded import beside_rows
from jaxgmm.em._accelerate import accelerated
from jaxgmm.em._results import Run, Status
from jaxgmm.em._step import Move, Point, Step, choose, em_step, unevaluated
from jaxgmm.model import check_start

# Carried while a run goes on; never returned.
RUNNING = -1

# Models sum over blocks of about so many rows.
_LIVE_ROWS = 2**13


def default_tolerance(dtype: Any) -> float:
    """Remaining gain per unit of weight that counts as none."""
    return 1e-10 if jnp.dtype(dtype) == jnp.float64 else 1e-6


@precise
def run(
    model: LatentModel,
    x: Array,
    start: Params | Array,
    sample_weight: Array | None = None,
    tol: Array | float | None = None,
    max_iter: int = 1000,
    acceleration: str | None = None,
) -> Run:
    """EM from one start: the pure loop under `jaxgmm.fit`.

    No host checks; works inside the user's own ``jit`` and ``vmap`` (over starts, data
    sets, weights, hyper-parameters). The parameters that come back, and the log
    densities at them, differentiate with respect to data, weights and hyper-parameters
    by the implicit function theorem at the fixed point.

    Parameters
    ----------
    model : LatentModel
        Its prior as numbers: one that a rule makes of the data has been through
        `Mixture.resolve`.
    x : (n, D) array
        Data.
    start : parameters or (n, K) array
        Parameters in the units of the data, or responsibilities, from which the first
        M-step is made.
    sample_weight : (n,) array, optional
        Weights of the rows.
    tol : float, optional
        Bound on the Aitken estimate of the gain left, per unit of total weight; 1e-10
        in float64 and 1e-6 in float32 by default; below that default a run also waits
        until the parameters stop moving. Traced.
    max_iter : int
        Most M-steps after the start. Static: it is the length of the trace.
    acceleration : None, "squarem" or "anderson"
        How to leap ahead of EM; see `jaxgmm.fit`. Static.

    Returns
    -------
    Run

    Raises
    ------
    ValueError, TypeError
        For a model whose prior is still a rule, an unknown acceleration, shapes that do not fit.

    References
    ----------
    Dempster, Laird and Rubin (1977), JRSS B 39:1-38; McLachlan and Krishnan (2008), The
    EM Algorithm and Extensions, section 4.9, for the Aitken estimate.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jaxgmm as jg
    >>> x = jnp.array([[0.0], [0.2], [0.3], [4.0], [4.1], [4.5]])
    >>> model = jg.Mixture(jg.Gaussian("tied"), 2).resolve(x)
    >>> start = model.params(means=[0.0, 4.0], covariances=[[1.0]])
    >>> bool(jg.em.run(model, x, start).converged)
    True
    """
    x = as_rows(x)
    check_start(model, x, start, sample_weight, labels=True)
    model = beside_rows(x, model)
    start = start if _is_responsibilities(start) else beside_rows(x, start)
    working = model.standardise(x, sample_weight)
    if _is_responsibilities(start):
        params = working.m_step(working.statistics(start, x, sample_weight))
    else:
        params = working.to_working(start)
    inputs = jax.tree.leaves((sample_weight, start))
    finite = [working.readable(x), *(jnp.all(jnp.isfinite(leaf)) for leaf in inputs)]
    finite = jnp.all(jnp.stack(finite))
    if tol is None:
        tol = default_tolerance(x.dtype)
    step = accelerated(working, em_step(working, x, sample_weight), acceleration)
    return _differentiable(working, step, x, params, sample_weight, tol, max_iter, finite)


class Slot(NamedTuple):
    """One live restart."""

    start: Array
    point: Point
    memory: Any
    gain: Array
    ratio: Array  # of the last two gains
    move: Array  # largest change of a parameter; inf where the last step says nothing
    rate: Array  # of the last two moves
    n_iter: Array
    n_evaluations: Array
    status: Array


class _End(NamedTuple):
    """Where a restart ended, in working units."""

    point: Point
    rate: Array
    status: Array
    n_iter: Array
    n_evaluations: Array


class Ends(NamedTuple):
    """The ends of S starts and their traces; every field has a leading axis S."""

    point: Point
    rate: Array
    status: Array
    n_iter: Array
    n_evaluations: Array
    trace: Array


class Queue(NamedTuple):
    """All starts on their way.

    A fixed number of slots holds one live restart each. A slot whose restart ended writes
    its record and takes the next start, so that nobody waits for the slowest: the time is
    that of all iterations together, the memory that of the slots and the records.
    """

    slots: Slot
    taken: Array  # how many starts have had a slot
    ends: _End
    trace: Array

    @property
    def going(self) -> Array:
        """Whether a restart is live."""
        return jnp.any(self.slots.start < self.trace.shape[0])

    @property
    def found(self) -> Ends:
        return Ends(*self.ends, self.trace)


def run_starts(
    model: LatentModel,
    step: Step,
    x: Array,
    starts: Params,
    sample_weight: Array | None,
    tol: Array | float,
    max_iter: int,
    finite: Array | bool = True,
    most: Array | int | None = None,
) -> Ends:
    """Every start to its end; ``starts`` are a stack of parameters in working units.

    ``max_iter`` is the length of the trace, and the most steps unless ``most`` says fewer.
    """
    first, onwards = queued(model, step, x, starts, sample_weight, tol, max_iter, finite, most)
    return led(onwards, first).found


def led(onwards: Callable[[Queue], Queue], now: Queue, count: Array | int | None = None) -> Queue:
    """To the end of all starts, or by at most ``count`` iterations."""
    if count is None:
        going, step, state = (
            lambda state: state[0].going,
            lambda state: (onwards(state[0]),),
            (now,),
        )
    else:
        going = lambda state: state[0].going & (state[1] < count)
        step = lambda state: (onwards(state[0]), state[1] + 1)
        state = now, jnp.int32(0)
    return lax.while_loop(going, step, state)[0]


def queued(
    model: LatentModel,
    step: Step,
    x: Array,
    starts: Params,
    sample_weight: Array | None,
    tol: Array | float,
    max_iter: int,
    finite: Array | bool = True,
    most: Array | int | None = None,
) -> tuple[Queue, Callable[[Queue], Queue]]:
    """How `run_starts` begins, and how it goes on."""
    n_starts = jax.tree.leaves(starts)[0].shape[0]
    n_slots = number_of_slots(model, x, n_starts)
    most = max_iter if most is None else most
    total = jnp.asarray(x.shape[0], x.dtype) if sample_weight is None else jnp.sum(sample_weight)
    verdict = verdict_on(model, total, tol, most, finite, step.leaps)

    def enter(start: Array) -> Slot:
        params = jax.tree.map(lambda leaf: leaf[jnp.minimum(start, n_starts - 1)], starts)
        point = unevaluated(model, params, x)
        return entered(point, step.init(point, start), start)

    def advance(slot: Slot) -> Slot:
        return verdict(slot, *step.update(slot.point, slot.memory))

    def onwards(now: Queue) -> Queue:
        slots, taken, ends, trace = now
        slots = jax.vmap(advance)(slots)
        # Slots that found no start left go on idly; their start lies outside the record.
        ended = slots.status != RUNNING
        row = jnp.where(ended, slots.start, n_starts)
        results = jax.vmap(step.result)(slots.point, slots.memory)
        trace = trace.at[slots.start, slots.n_iter].set(slots.point.objective, mode="drop")
        ends = jax.tree.map(
            lambda record, new: record.at[row].set(new, mode="drop"), ends, _end(slots, results)
        )
        fresh = jax.vmap(enter)(taken + jnp.cumsum(ended, dtype=jnp.int32) - 1)
        slots = jax.vmap(choose)(ended, fresh, slots)
        return Queue(slots, taken + jnp.sum(ended, dtype=jnp.int32), ends, trace)

    slots = jax.vmap(enter)(jnp.arange(n_slots, dtype=jnp.int32))
    ends = jax.tree.map(
        lambda leaf: jnp.zeros((n_starts, *leaf.shape[1:]), leaf.dtype), _end(slots, slots.point)
    )
    trace = jnp.full((n_starts, max_iter + 1), jnp.nan, slots.gain.dtype)
    return Queue(slots, jnp.int32(n_slots), ends, trace), onwards


def _end(slot: Slot, point: Point) -> _End:
    return _End(point, slot.rate, slot.status, slot.n_iter, slot.n_evaluations)


def entered(point: Point, memory: Any, start: Array) -> Slot:
    """The slot of a start that is not evaluated yet."""
    unknown, none = point.log_likelihood, jnp.int32(0)
    far = jnp.full_like(unknown, jnp.inf)
    return Slot(
        start=start,
        point=point,
        memory=memory,
        gain=jnp.zeros_like(unknown),
        ratio=far,
        move=far,
        rate=unknown,
        n_iter=none,
        n_evaluations=none,
        status=jnp.int32(RUNNING),
    )


def number_of_slots(model: LatentModel, x: Array, n_starts: int) -> int:
    """How many restarts run side by side: as many as keep a block of their logits in cache."""
    logits = min(x.shape[0], _LIVE_ROWS) * model.n_components
    return max(1, min(n_starts, at_once(logits, x.dtype)))


def verdict_on(
    model: LatentModel,
    total: Array,
    tol: Array | float,
    most: Array | int,
    finite: Array | bool,
    leaps: bool,
) -> Callable[[Slot, Point, Any, Array], Slot]:
    """What an update makes of a restart, and whether it ends there; of rows of weight ``total``."""
    ascends = model.ascends()
    tight = jnp.asarray(tol) < default_tolerance(total.dtype)

    def judge(slot: Slot, point: Point, memory: Any, kind: Array) -> Slot:
        first = slot.n_evaluations == 0
        # Only a step of EM itself tells how far it still has to go.
        em, refused = (kind == Move.EM) & ~first, kind == Move.REFUSED
        change = point.objective - slot.point.objective
        gain = jnp.where(ascends, change, jnp.abs(change))
        move = _largest_change(point.params, slot.point.params)
        compared = em & jnp.isfinite(slot.move)
        ratio = jnp.where(slot.gain > 0, gain / slot.gain, jnp.inf)
        # The larger of the last two ratios guards against a lucky first step.
        slower = jnp.maximum(ratio, slot.ratio)
        # Steps after a leap are quick where it took away what is slow: there the slowest
        # ratio of the whole run counts.
        recalled = _slowest(slot.ratio, ratio, 1.0) if leaps else ratio
        left = jnp.where(slower < 1, gain * slower / (1 - slower), jnp.inf)
        # Near a tight tolerance gains drown in rounding long before the parameters do:
        # there a run also waits until its steps, which shrink steadily, shrink no more.
        settled = (move >= slot.move) | (move <= 4 * jnp.finfo(move.dtype).eps) | ~tight

        eps = jnp.finfo(move.dtype).eps
        fell = em & ascends & (change < 0)
        # Steps that grow, though the objective hardly does.
        stray = compared & (move >= slot.move) & (gain <= eps**0.5 * total)

        def rounding() -> Array:
            return rounding_bound(point.objective, total, model.cancellation(point.params))

        # How far the objective may change by rounding, where that is asked.
        asked = anywhere(fell | stray)
        bound = lax.cond(asked, rounding, lambda: jnp.full_like(gain, jnp.inf))

        # The rate is read off moves that stand well above their rounding. That of an M-step may be
        # larger, and steps that shrink no more end a run that waits for it: steps that grow tell
        # of a saddle only where the objective grows with them.
        size = _largest_change(point.params, jax.tree.map(jnp.zeros_like, point.params))
        telling = compared & (move > eps ** (2 / 3) * size) & (~stray | (gain > bound))

        n_evaluations = slot.n_evaluations + 1
        status = _first_true(
            [
                (~jnp.asarray(finite), Status.NONFINITE_INPUT),
                # Where a component collapsed, the objective is noise.
                (point.collapsed, Status.COLLAPSED),
                (~point.sound, Status.NONFINITE_OBJECTIVE),
                (fell & (-change > bound), Status.OBJECTIVE_FELL),
                (em & settled & ((gain <= 0) | (left <= tol * total)), Status.CONVERGED),
                (n_evaluations > most, Status.OUT_OF_ITERATIONS),
            ],
            RUNNING,
        )
        here = Slot(
            start=slot.start,
            point=point,
            memory=memory,
            gain=jnp.where(em, gain, 0),
            ratio=jnp.where(compared, recalled, slot.ratio),
            move=jnp.where(em, move, jnp.inf),
            rate=jnp.where(telling, _slowest(slot.rate, move / slot.move, 2.0), slot.rate),
            n_iter=slot.n_iter + ~first,
            n_evaluations=n_evaluations,
            status=status,
        )
        stayed = slot._replace(memory=memory)
        # A collapsed point has no density: the run ends where it still had one.
        here = choose(refused | ~point.sound, stayed, here)
        return here._replace(n_evaluations=n_evaluations, status=status)

    return judge


def as_run(model: LatentModel, ends: Ends) -> Run:
    """The record in the units of the data."""
    point = ends.point
    return Run(
        params=jax.vmap(model.to_user)(point.params),
        log_joint=point.objective,
        log_likelihood=point.log_likelihood,
        log_prior=point.log_prior,
        status=ends.status,
        n_iter=ends.n_iter,
        n_evaluations=ends.n_evaluations,
        rate=ends.rate,
        trace=ends.trace,
        spurious=jax.vmap(model.spurious)(point.params, point.statistics),
    )


def _differentiable(
    model: LatentModel,
    step: Step,
    x: Array,
    params: Params,
    sample_weight: Array | None,
    tol: Array | float,
    max_iter: int,
    finite: Array | bool,
) -> Run:
    """One start, whose parameters and densities differentiate at the fixed point of EM."""

    def solve(_, initial: Params) -> tuple[Params, tuple]:
        starts = jax.tree.map(lambda leaf: leaf[None], initial)
        ends = run_starts(model, step, x, starts, sample_weight, tol, max_iter, finite)
        ends = jax.tree.map(lambda leaf: leaf[0], ends)
        spurious = model.spurious(ends.point.params, ends.point.statistics)
        # Integers pass as floats: an implicit derivative has no tangent for them.
        counts = [ends.status, ends.n_iter, ends.n_evaluations, spurious]
        numbers = jnp.stack([jnp.asarray(count, ends.rate.dtype) for count in counts])
        return ends.point.params, (numbers, ends.rate, ends.trace)

    def residual(at: Params) -> Params:
        statistics, _ = model.e_step(at, x, sample_weight)
        return jax.tree.map(jnp.subtract, model.m_step(statistics, at), at)

    params, aux = lax.custom_root(residual, params, solve, _solve_tangent, has_aux=True)
    numbers, rate, trace = lax.stop_gradient(aux)
    status, n_iter, n_evaluations, spurious = numbers.astype(jnp.int32)
    log_prior = model.log_prior(params)
    log_likelihood = model.log_likelihood(params, x, sample_weight)
    return Run(
        params=model.to_user(params),
        log_joint=log_prior + log_likelihood,
        log_likelihood=log_likelihood,
        log_prior=log_prior,
        status=status,
        n_iter=n_iter,
        n_evaluations=n_evaluations,
        rate=rate,
        trace=trace,
        spurious=spurious > 0,
    )


def _is_responsibilities(start: Any) -> bool:
    return hasattr(start, "ndim") and hasattr(start, "shape")


def _solve_tangent(linear: Any, right: Params) -> Params:
    """Solve ``linear(params) = right`` densely: there are few parameters beside rows."""
    flat, unravel = ravel_pytree(right)
    matrix = jax.jacobian(lambda v: ravel_pytree(linear(unravel(v)))[0])(flat)
    return unravel(jnp.linalg.solve(matrix, flat))


def _largest_change(new: Params, old: Params) -> Array:
    changes = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), new, old)
    return jnp.max(jnp.stack(jax.tree.leaves(changes)))


def _slowest(older: Array, latest: Array, fading: float) -> Array:
    """The slowest convergence seen; the slack of an older ratio below one grows meanwhile."""
    left = jnp.where(older < 1, 1 - fading * (1 - older), -jnp.inf)
    return jnp.maximum(left, latest)


def _first_true(cases: list[tuple[Array, Status]], otherwise: int) -> Array:
    """The code of the first case that holds: the order of the list is the order of blame."""
    code = jnp.asarray(otherwise, jnp.int32)
    for holds, status in reversed(cases):
        code = jnp.where(holds, jnp.int32(status), code)
    return code
