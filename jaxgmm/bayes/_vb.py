"""Coordinate-ascent variational Bayes of a model with a conjugate prior.

The posterior is approximated by q(labels) q(parameters). The best q(parameters) given the
labels' probabilities is the prior updated by the expected statistics; the best q(labels) is
an E-step with mean log densities. One after the other they climb the evidence lower bound.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from jaxgmm._checks import check_count
from jaxgmm._contract import LatentModel, Params, Statistics
from jaxgmm._numerics import as_rows, rounding_bound, then
from jaxgmm._programs import program
from jaxgmm._sharded import beside_rows
from jaxgmm.bayes._chains import Draws
from jaxgmm.bayes._engine import Engine
from jaxgmm.em import Status
from jaxgmm.labels import row_keys
from jaxgmm.model import check_start

# Carried while a start climbs; never returned.
RUNNING = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class VB(Engine):
    """Independent draws of the closest q(labels) q(parameters), by coordinate ascent.

    It climbs from the responsibilities at each of the starts, and from random ones; the best end is
    drawn from. There is neither warm-up nor thinning.

    Parameters
    ----------
    n_init : int
        Random starts beside those at EM's optima.
    tol : float, optional
        Gain of the bound per unit of total weight that ends an ascent.
    max_iter : int
        Most iterations of one.

    Raises
    ------
    ValueError, TypeError
        For values out of range.

    References
    ----------
    Bishop (2006), Pattern Recognition and Machine Learning, section 10.2.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> jg.bayes.VB(n_init=8).options
    {'n_init': 8}
    """

    name = "vb"

    n_init: int = 0
    tol: float | None = None
    max_iter: int = 10_000

    def __post_init__(self):
        check_ascent(self.n_init, self.tol, "max_iter", self.max_iter)

    def draw(self, model, x, sample_weight, starts, key, schedule, progress):
        check_bound(model)
        tol = default_tolerance(x.dtype) if self.tol is None else self.tol
        key_starts, key_draws = jax.random.split(key)
        keys = jax.random.split(key_starts, self.n_init)
        ends = climb(model, x, sample_weight, starts.params, keys, tol, self.max_iter)
        return drawn(model, ends, key_draws, starts.n_chains, schedule.n_draws)


def check_bound(model: LatentModel) -> None:
    """Refuse rows that are seen in part only, where a bound would have to complete them."""
    if model.imputes:
        raise ValueError(
            "x: variational Bayes has no bound for rows with missing values or noise here; use "
            'method="gibbs", which imputes them, or "nuts"'
        )


def check_ascent(n_init: int, tol: float | None, name: str, most: int) -> None:
    """Refuse options out of range; ``most`` iterations go by ``name``."""
    check_count("n_init", n_init, 0)
    check_count(name, most, 1)
    if tol is not None and not tol >= 0:
        raise ValueError(f"tol: must be at least 0, found {tol}")


def drawn(
    model: LatentModel, ends: Ascent, key: PRNGKeyArray, n_chains: int, n_draws: int
) -> Draws:
    """Draws of the best of several ends."""
    elbos = np.asarray(ends.elbo)
    if not np.any(np.isfinite(elbos)):
        raise ValueError(
            "method: the evidence lower bound is not finite from any start; check the prior, or "
            "use float64"
        )
    best = int(np.argmax(np.where(np.isfinite(elbos), elbos, -np.inf)))
    end = jax.tree.map(lambda leaf: np.asarray(leaf)[best], ends)
    params, log_q = _draw(model, jax.device_put(end.statistics), key, n_chains, n_draws)
    n_iter, status = int(end.n_iter), Status(int(end.status))
    return Draws(
        params,
        {},
        log_proposal=log_q,
        diagnostics={
            "elbo": elbos[best],
            "elbo_trace": end.trace[: n_iter + 1],
            "converged": status is Status.CONVERGED,
            "status": str(status),
            "n_iter": n_iter,
            "start_elbos": elbos,
        },
    )


class Variational(NamedTuple):
    """The closest q(labels) q(parameters) to the posterior, from one start.

    Attributes
    ----------
    model : LatentModel
        The model with q(parameters) in place of its prior, in the units of the data:
        `Mixture.centre` has its means, ``draw_prior`` draws from it.
    elbo : scalar array
        The evidence lower bound at q(parameters) and the best q(labels) for it.
    trace : (max_iter + 1,) array
        The bound at the start and after every iteration, NaN after the end.
    n_iter, status : int32 arrays
        Iterations after the start, and a `Status` code.
    """

    model: LatentModel
    elbo: Array
    trace: Array
    n_iter: Array
    status: Array


def variational(
    model: LatentModel,
    x: Array,
    start: Params,
    sample_weight: Array | None = None,
    tol: Array | float | None = None,
    max_iter: int = 1000,
) -> Variational:
    """Variational Bayes from one start: what ``jaxgmm.sample(method="vb")`` draws from.

    No host checks; works inside the user's own ``jit`` and ``vmap`` (over starts, data sets,
    weights, hyper-parameters).

    Parameters
    ----------
    model : LatentModel
        A resolved model with a conjugate prior. Dirichlet concentrations below one are
        allowed here: no mode is looked for.
    x : (n, D) or (n,) array
        Data.
    start : parameters
        In the units of the data; the first labels are the responsibilities there.
    sample_weight : (n,) array, optional
        Weights of the rows.
    tol : float, optional
        Gain of the bound per unit of total weight that ends the ascent; 1e-10 in float64 and
        1e-6 in float32 by default. Traced.
    max_iter : int
        Most rounds. Static.

    Returns
    -------
    Variational

    Raises
    ------
    ValueError, TypeError
        For a model without a conjugate prior, or shapes that do not fit.

    References
    ----------
    Bishop (2006), Pattern Recognition and Machine Learning, section 10.2.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jaxgmm as jg
    >>> x = jnp.array([[0.0], [0.2], [0.3], [4.0], [4.1], [4.5]])
    >>> prior = jg.ConjugatePrior(mean=[2.0], mean_precision=0.1, dof=3.0, scale=[[1.0]])
    >>> model = jg.Mixture(jg.Gaussian("full"), 2, prior=prior).resolve(x)
    >>> start = model.params(means=[0.0, 4.0], covariances=[[[1.0]]] * 2)
    >>> q = jg.bayes.variational(model, x, start)
    >>> [round(float(rows), 1) for rows in q.model.prior.mean_precision]
    [3.1, 3.1]
    """
    x = as_rows(x)
    check_start(model, x, start, sample_weight, labels=False)
    model, start = beside_rows(x, (model, start))
    working = model.standardise(x, sample_weight)
    statistics, _ = working.e_step(working.to_working(start), x, sample_weight)
    tol = default_tolerance(x.dtype) if tol is None else tol
    end = ascend(working, x, sample_weight, statistics, tol, max_iter)
    found = working.updated(end.statistics).in_user_units()
    return Variational(found, end.elbo, end.trace, end.n_iter, end.status)


def default_tolerance(dtype: Any) -> float:
    return 1e-10 if dtype == jnp.float64 else 1e-6


class Ascent(NamedTuple):
    """The climb from one start.

    Attributes
    ----------
    statistics : pytree
        Those that the prior is updated by: q(parameters).
    following : pytree
        Expected statistics under that q.
    elbo : scalar array
        The bound at that q(parameters) and the best q(labels) for it.
    trace : (max_iter + 1,) array
        The bound at the start and after every iteration, NaN after the end.
    n_iter, status : int32 arrays
        Iterations after the start, and why they ended.
    """

    statistics: Statistics
    following: Statistics
    elbo: Array
    trace: Array
    n_iter: Int[Array, "*s"]
    status: Int[Array, "*s"]


@program(static_argnames="max_iter")
def climb(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    modes: Params,
    keys: Key[Array, " s"],
    tol: Array | float,
    max_iter: int,
) -> Ascent:
    """From the responsibilities at each of ``modes``, and from random ones for each key."""
    at_mode = lambda mode: model.e_step(mode, x, sample_weight)[0]
    starts = jax.vmap(at_mode)(modes)
    if len(keys):
        at_random = lambda key: random_start(model, x, sample_weight, key)
        drawn = jax.vmap(at_random)(keys)
        starts = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), starts, drawn)
    return jax.vmap(lambda start: ascend(model, x, sample_weight, start, tol, max_iter))(starts)


def random_start(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    key: PRNGKeyArray,
    before: Array | int = 0,
) -> Statistics:
    """Statistics at responsibilities that are uniform on the simplex, row by row.

    ``before`` says how many rows there are before these.
    """

    def label(rows: Array, first: Array | int) -> Float[Array, "n k"]:
        draw = lambda k: jax.random.exponential(k, (model.n_components,), x.dtype)
        noise = jax.vmap(draw)(row_keys(key, rows.T, before + first))
        return noise / jnp.sum(noise, axis=1, keepdims=True)

    return model.statistics(label, x, sample_weight)


def ascend(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    start: Statistics,
    tol: Array | float,
    max_iter: int,
) -> Ascent:
    """Coordinate ascent from q(parameters) at the statistics ``start``."""
    total = jnp.asarray(x.shape[0] if sample_weight is None else jnp.sum(sample_weight), x.dtype)

    def step(last: Ascent) -> Ascent:
        q = model.updated(last.following)
        return climbed(model, q, last, *q.expected_step(x, sample_weight), total, tol, max_iter)

    first = begun(start, x.dtype, max_iter)
    return lax.while_loop(lambda ascent: ascent.status == RUNNING, step, first)


def begun(start: Statistics, dtype: Any, max_iter: int) -> Ascent:
    """An ascent that has computed nothing yet."""
    nowhere = jnp.asarray(-jnp.inf, dtype)
    trace = jnp.full(max_iter + 1, jnp.nan, dtype)
    return Ascent(start, start, nowhere, trace, jnp.asarray(-1), jnp.asarray(RUNNING))


def climbed(
    model: LatentModel,
    q: LatentModel,
    last: Ascent,
    following: Statistics,
    expected: Array,
    total: Array,
    tol: Array | float,
    max_iter: int,
) -> Ascent:
    """A round of coordinate ascent, of which the expected step at ``q`` is known."""
    elbo = expected - then(expected, lambda: q.divergence(model))
    gain, n_iter = elbo - last.elbo, last.n_iter + 1
    lost = ~jnp.isfinite(elbo)
    fell = gain < -rounding_bound(elbo, total, jnp.zeros((), elbo.dtype))
    status = jnp.select(
        [lost, fell, gain <= tol * total, n_iter >= max_iter],
        [
            Status.NONFINITE_OBJECTIVE,
            Status.OBJECTIVE_FELL,
            Status.CONVERGED,
            Status.OUT_OF_ITERATIONS,
        ],
        RUNNING,
    )
    trace = last.trace.at[n_iter].set(elbo)
    new = Ascent(last.following, following, elbo, trace, n_iter, status)
    # What went wrong leaves the last q that was right.
    kept = last._replace(trace=new.trace, n_iter=n_iter, status=status)
    return jax.tree.map(functools.partial(jnp.where, lost | fell), kept, new)


@program(static_argnames=("chains", "n_draws"))
def _draw(
    model: LatentModel, statistics: Statistics, key: PRNGKeyArray, chains: int, n_draws: int
) -> tuple[Params, Array]:
    """Draws (chain, draw) of q(parameters), and its log density at each."""
    q = model.updated(statistics)

    def one(key: PRNGKeyArray) -> tuple[Params, Any]:
        params = q.draw_prior(key)
        return params, q.log_prior(params)

    return jax.vmap(jax.vmap(one))(jax.random.split(key, (chains, n_draws)))
