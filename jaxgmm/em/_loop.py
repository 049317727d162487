"""The EM loop: E and M steps to a stated tolerance, with an ordered verdict."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from jaxgmm._contract import LatentModel, Params, Statistics
from jaxgmm._numerics import as_rows, rounding_bound
from jaxgmm._results import Run, Status

# Carried while a run goes on; never returned.
_RUNNING = -1


class _State(NamedTuple):
    params: Params
    statistics: Statistics
    objective: Array
    log_prior: Array
    step: Array
    rate: Array
    move: Array
    n_iter: Array
    status: Array
    trace: Array


def default_tolerance(dtype: Any) -> float:
    """Remaining gain per unit of weight that counts as none."""
    return 1e-10 if jnp.dtype(dtype) == jnp.float64 else 1e-6


def run(
    model: LatentModel,
    x: Array,
    start: Params | Array,
    sample_weight: Array | None = None,
    tol: Array | float | None = None,
    max_iter: int = 1000,
) -> Run:
    """EM from one start: the pure loop under `jaxgmm.fit`.

    No host checks; works inside the user's own ``jit`` and ``vmap`` (over starts, data
    sets, weights, hyper-parameters). The parameters that come back, and the log
    densities at them, differentiate with respect to data, weights and hyper-parameters
    by the implicit function theorem at the fixed point.

    Parameters
    ----------
    model : LatentModel
        A resolved model (`Mixture.resolve`).
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

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        For a model whose prior is still a rule.

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
    working = model.standardise(x, sample_weight)
    if _is_responsibilities(start):
        params = working.m_step(working.statistics(start, x, sample_weight))
    else:
        params = working.to_working(start)
    inputs = jax.tree.leaves((x, sample_weight, start))
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in inputs]))
    if tol is None:
        tol = default_tolerance(x.dtype)
    return _differentiable(working, x, params, sample_weight, tol, max_iter, finite)


def run_standardised(
    model: LatentModel,
    x: Array,
    params: Params,
    sample_weight: Array | None,
    tol: Array | float,
    max_iter: int,
    finite: Array | bool = True,
) -> Run:
    """`run` for a model and start in working units, without derivatives.

    ``finite`` says whether the input is.
    """
    last = _iterate(model, x, params, sample_weight, tol, max_iter, finite)
    return Run(
        params=model.to_user(last.params),
        log_joint=last.objective,
        log_likelihood=last.objective - last.log_prior,
        log_prior=last.log_prior,
        status=last.status,
        n_iter=jnp.maximum(last.n_iter, 0),
        trace=last.trace,
        spurious=model.spurious(last.params, last.statistics),
    )


def _differentiable(
    model: LatentModel,
    x: Array,
    params: Params,
    sample_weight: Array | None,
    tol: Array | float,
    max_iter: int,
    finite: Array | bool,
) -> Run:
    """`run_standardised` whose parameters and densities differentiate at the fixed point."""

    def solve(_, initial: Params) -> tuple[Params, tuple]:
        last = _iterate(model, x, initial, sample_weight, tol, max_iter, finite)
        # Integers pass as floats: an implicit derivative has no tangent for them.
        numbers = jnp.stack([last.status, jnp.maximum(last.n_iter, 0)]).astype(last.trace.dtype)
        spurious = model.spurious(last.params, last.statistics).astype(last.trace.dtype)
        return last.params, (numbers, last.trace, spurious)

    def residual(at: Params) -> Params:
        statistics, _ = model.e_step(at, x, sample_weight)
        return jax.tree.map(jnp.subtract, model.m_step(statistics, at), at)

    params, (numbers, trace, spurious) = lax.custom_root(
        residual, params, solve, _solve_tangent, has_aux=True
    )
    status, n_iter = lax.stop_gradient(numbers).astype(jnp.int32)
    log_prior = model.log_prior(params)
    log_likelihood = model.log_likelihood(params, x, sample_weight)
    return Run(
        params=model.to_user(params),
        log_joint=log_prior + log_likelihood,
        log_likelihood=log_likelihood,
        log_prior=log_prior,
        status=status,
        n_iter=n_iter,
        trace=lax.stop_gradient(trace),
        spurious=lax.stop_gradient(spurious) > 0,
    )


def _is_responsibilities(start: Any) -> bool:
    return hasattr(start, "ndim") and hasattr(start, "shape")


def _solve_tangent(linear: Any, right: Params) -> Params:
    """Solve ``linear(params) = right`` densely: there are few parameters beside rows."""
    flat, unravel = ravel_pytree(right)
    matrix = jax.jacobian(lambda v: ravel_pytree(linear(unravel(v)))[0])(flat)
    return unravel(jnp.linalg.solve(matrix, flat))


def _iterate(
    model: LatentModel,
    x: Array,
    params: Params,
    sample_weight: Array | None,
    tol: Array | float,
    max_iter: int,
    finite: Array | bool,
) -> _State:
    total = jnp.asarray(x.shape[0], x.dtype) if sample_weight is None else jnp.sum(sample_weight)
    ascends = model.ascends()
    tight = jnp.asarray(tol) < default_tolerance(x.dtype)

    def body(state: _State) -> _State:
        # The first pass only evaluates the start, so that the program holds one E-step.
        first = state.n_iter < 0
        proposal = jax.tree.map(
            lambda new, old: jnp.where(first, old, new),
            model.m_step(state.statistics, state.params),
            state.params,
        )
        collapsed = model.collapsed(proposal)
        statistics, log_likelihood = model.e_step(proposal, x, sample_weight)
        log_prior = model.log_prior(proposal)
        value = log_likelihood + log_prior
        n_iter = state.n_iter + 1
        gain = value - state.objective
        step = jnp.where(first, 0, jnp.where(ascends, gain, jnp.abs(gain)))
        rate = jnp.where(state.step > 0, step / state.step, jnp.inf)
        # The larger of the last two rates guards against a lucky first step.
        slower = jnp.maximum(rate, state.rate)
        left = jnp.where(slower < 1, step * slower / (1 - slower), jnp.inf)
        # Near a tight tolerance gains drown in rounding long before the parameters do:
        # there a run also waits until its steps, which shrink steadily, shrink no more.
        move = jnp.where(first, jnp.inf, _largest_change(proposal, state.params))
        settled = (move >= state.move) | (move <= 4 * jnp.finfo(move.dtype).eps) | ~tight

        rounding = rounding_bound(value, total, model.cancellation(proposal))
        # A collapsed proposal has no density: the run ends where it still had one.
        refused = collapsed | ~jnp.isfinite(value)
        status = _first_true(
            [
                (~jnp.asarray(finite), Status.NONFINITE_INPUT),
                (~collapsed & refused, Status.NONFINITE_OBJECTIVE),
                (ascends & (gain < -rounding), Status.OBJECTIVE_FELL),
                (collapsed, Status.COLLAPSED),
                (~first & settled & ((step <= 0) | (left <= tol * total)), Status.CONVERGED),
                (n_iter >= max_iter, Status.OUT_OF_ITERATIONS),
            ],
            _RUNNING,
        )
        accepted = _State(
            params=proposal,
            statistics=statistics,
            objective=value,
            log_prior=log_prior,
            step=step,
            rate=rate,
            move=move,
            n_iter=n_iter,
            status=status,
            trace=state.trace.at[n_iter].set(value),
        )
        kept = jax.tree.map(lambda new, old: jnp.where(refused, old, new), accepted, state)
        return kept._replace(status=status)

    shapes, number = jax.eval_shape(model.e_step, params, x, sample_weight)
    unknown = jnp.full((), jnp.nan, number.dtype)
    initial = _State(
        params=params,
        statistics=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes),
        objective=unknown,
        log_prior=unknown,
        step=jnp.zeros_like(unknown),
        rate=jnp.full_like(unknown, jnp.inf),
        move=jnp.full_like(unknown, jnp.inf),
        n_iter=jnp.array(-1, jnp.int32),
        status=jnp.array(_RUNNING, jnp.int32),
        trace=jnp.full(max_iter + 1, jnp.nan, number.dtype),
    )
    return lax.while_loop(lambda state: state.status == _RUNNING, body, initial)


def _largest_change(new: Params, old: Params) -> Array:
    changes = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), new, old)
    return jnp.max(jnp.stack(jax.tree.leaves(changes)))


def _first_true(cases: list[tuple[Array, Status]], otherwise: int) -> Array:
    """The code of the first case that holds: the order of the list is the order of blame."""
    code = jnp.asarray(otherwise, jnp.int32)
    for holds, status in reversed(cases):
        code = jnp.where(holds, jnp.int32(status), code)
    return code
