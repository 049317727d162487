"""The door to EM: checks, starts, every restart in one compiled call, the best of them."""

from __future__ import annotations

import functools
import math
import numbers
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, PRNGKeyArray

from jaxgmm._checks import check_count, check_key, check_name, key_numbers
from jaxgmm._contract import LatentModel, Params
from jaxgmm._programs import in_slices, on_rung, place_of, program
from jaxgmm._sharded import in_company, rows_here, spans_processes, total_over_rows
from jaxgmm.em._accelerate import ACCELERATIONS, accelerated
from jaxgmm.em._checkpoint import Checkpoint
from jaxgmm.em._loop import (
    Queue,
    as_run,
    default_tolerance,
    led,
    number_of_slots,
    queued,
    run_starts,
)
from jaxgmm.em._online import Online, fit_online, update
from jaxgmm.em._passes import fit_stream
from jaxgmm.em._problem import is_array, prepare
from jaxgmm.em._readings import check_no_weights
from jaxgmm.em._record import Rows, best_fit, certainty, distinct, ended_well, landmarks
from jaxgmm.em._results import SAME_OPTIMUM, Fit, RowSums, Run, Status, fingerprint
from jaxgmm.em._saddle import Twins, freed, twins
from jaxgmm.em._start import DETERMINISTIC, SHORT_RUNS, SHORT_STEPS, STARTS, ward_labels
from jaxgmm.em._step import evaluate
from jaxgmm.em._stream import Stream
from jaxgmm.em._variants import ALGORITHMS, RANDOM_ALGORITHMS
from jaxgmm.files import numeric
from jaxgmm.model import forms_of_start, no_labels, prior_draws, stacked


@in_company
def fit(
    model: LatentModel,
    x: Any,
    *,
    key: PRNGKeyArray | None = None,
    n_init: int = 16,
    start: Any = None,
    sample_weight: Any = None,
    tol: float | None = None,
    max_iter: int = 1000,
    algorithm: str | Online = "em",
    acceleration: str | None = None,
    subsample: int = 65_536,
    passes: int | None = None,
    checkpoint: str | Path | None = None,
    every: int = 100,
) -> Fit:
    """Maximum likelihood or MAP by EM, all restarts in one compiled call.

    Parameters
    ----------
    model : LatentModel
        What to fit, a `Mixture` for instance; a data-dependent prior is resolved here.
    x : (n, D) or (n,) array, or Stream
        Data; of Gaussians a NaN is a missing value, but in a stream. Results follow its
        dtype (float64 needs JAX's x64 switch; without it, columns far from zero are centred
        before they are narrowed to float32). A `stream` stays
        where it is: restarts run on a sample of it, the best three distinct ends of which go on
        with all rows.
    key : typed random key, optional
        Needed where the start or the algorithm is random.
    n_init : int
        Number of random starts.
    start : str, parameters, array or function, optional
        ``"short-run"`` (the default: the best of five runs of five steps from ``"k-means++"``),
        ``"k-means++"``, ``"k-means"``, ``"random"`` (rows as centres),
        ``"random-responsibilities"`` (the default of regressions), ``"hierarchical"`` (Ward's
        linkage, runs once); ``"prior"``
        (draws of the prior, the default where the M-step is numerical); a function of a key that
        returns parameters; a parameter object; responsibilities (n, K); or a stack of S of either,
        which makes S restarts.
    sample_weight : (n,) array, optional
        Weights of the rows; two is the row twice, zero is no row. A stream has its own.
    tol : float, optional
        Bound on the Aitken estimate of the gain left, per unit of total weight
        (dimensionless). 1e-10 in float64, 1e-6 in float32; below that a run also waits
        until the parameters stop moving, and 0 never stops on a gain.
    max_iter : int
        Most M-steps per restart.
    algorithm : {"em", "classification", "stochastic", "annealing", "online"}
        How rows are given to components: by posterior probabilities; wholly to the most
        probable component (Celeux and Govaert, 1992); wholly to one drawn at random
        (Celeux and Diebolt, 1985), for ``max_iter`` steps, of which the best is returned;
        or by probabilities that start soft and harden (Ueda and Nakano, 1998), then as EM.
        Weights count in all of them. ``trace`` is the algorithm's own objective (for
        classification the classification likelihood plus the log prior); every other
        number is the model's, at the final parameters, and ranks the restarts. Of a stream
        ``"em"`` or ``"online"``, an M-step after every thousand rows, each of which is read
        once; see `jaxgmm.em.Online`, a value of which says more.
    acceleration : None, "squarem" or "anderson"
        Leap ahead after every two steps of EM, never to a lower end (Varadhan and Roland,
        2008; Anderson, 1965). Worth it where ``fit.rate`` of plain EM is close to one.
        Convergence is judged by the plain steps, at the slowest ratio of gains seen.
    subsample : int
        Of a stream: rows of the sample, drawn without replacement as the rows are read first.
    passes : int
        Of a stream: most M-steps on all rows, each of which reads them once (100); ``max_iter`` is
        for the sample. ``fit.restarts`` and ``fit.trace`` are those of all rows. Of online EM, how
        often the rows are read (once).
    checkpoint : path, optional
        A file into which the fit writes where it is, whole or not at all. The same call goes on
        from there, to the same numbers; once it has ended, it comes back with the result.
    every : int
        Iterations of all restarts between two writings of it.

    Returns
    -------
    Fit
        The best restart that is neither collapsed nor spurious, and the record of all.

    Raises
    ------
    ValueError, TypeError
        For arguments that do not fit, naming them; for data on which the objective has
        no bound; and where every restart collapsed.

    Notes
    -----
    A restart is spurious where no prior bounds the joint and a component with a
    covariance of its own rests on fewer than D + 1.5 effective rows, or has a
    conditional variance below 1e-6 of that of the components' average covariance (McLachlan
    and Peel, 2000, section 3.10).

    References
    ----------
    Dempster, Laird and Rubin (1977), JRSS B 39:1-38; Fraley and Raftery (2007),
    J. Classification 24:155-181, for MAP.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("faithful").x
    >>> model = jg.Mixture(jg.Gaussian("full"), n_components=2)
    >>> fit = jg.fit(model, x, key=jax.random.key(0), n_init=4)
    >>> fit.converged, round(fit.log_likelihood)
    (True, -1130)
    """
    if not isinstance(model, LatentModel):
        raise TypeError(f"model: needs a model such as jaxgmm.Mixture, found {model!r}")
    check_count("n_init", n_init, 1)
    check_count("every", every, 1)
    if isinstance(x, Stream):
        check_no_weights(sample_weight)
        for name, found in {"acceleration": acceleration, "checkpoint": checkpoint}.items():
            if found is not None:
                raise ValueError(f"{name}: a stream is fitted by plain EM; found {found!r}")
        settings = {"key": key, "n_init": n_init, "start": start, "tol": tol, "max_iter": max_iter}
        settings["subsample"] = subsample
        if algorithm == "em":
            return fit_stream(
                model, x, fit, passes=_PASSES if passes is None else passes, **settings
            )
        how = Online() if algorithm == "online" else algorithm
        if not isinstance(how, Online):
            raise ValueError(
                f"algorithm: a stream is fitted by plain EM or by online EM, found {algorithm!r}"
            )
        once = 1 if passes is None else passes
        return fit_online(model, x, fit, passes=once, how=how, **settings)
    asked = model, start, key, n_init
    if algorithm == "online" or isinstance(algorithm, Online):
        raise ValueError("algorithm: online EM reads a stream; pass jaxgmm.stream(x)")
    if start is None:
        start = model.default_start if model.starts_from_labels else _PRIOR
    elif callable(start):
        key, drawing = jax.random.split(check_key(key, "a function as start takes keys"))
        start = _drawn(start, jax.random.split(drawing, n_init))
    seed = None if key is None else key_numbers(check_key(key, "starts are random"))
    check_count("max_iter", max_iter, 0)
    check_name("algorithm", algorithm, ALGORITHMS)
    if acceleration is not None:
        check_name("acceleration", acceleration, ACCELERATIONS)
        if algorithm != "em":
            raise ValueError(
                f"acceleration: {acceleration!r} is for algorithm='em', found {algorithm!r}"
            )
    if algorithm != "em" and not model.closed:
        raise ValueError(
            f"algorithm: the M-step of this model is numerical, for which there is algorithm='em'; "
            f"found {algorithm!r}"
        )
    if tol is not None and not (isinstance(tol, numbers.Real) and math.isfinite(tol) and tol >= 0):
        raise ValueError(f"tol: needs a finite number of at least 0, found {tol!r}")
    problem = prepare(model, x, sample_weight, mode=True)
    model, x, sample_weight = problem.model, problem.x, problem.sample_weight
    start = problem.begin(start)
    tol = default_tolerance(x.dtype) if tol is None else tol
    tolerance = np.asarray(tol, x.dtype)

    noise = None
    if algorithm in RANDOM_ALGORITHMS:
        key, noise = jax.random.split(check_key(key, f"algorithm {algorithm!r} is random"))
    if isinstance(start, str):
        kind = check_name("start", start, [*STARTS, _PRIOR])
        if kind == _PRIOR:
            key = check_key(key, f"start {kind!r} is random")
            drawn = prior_draws(model, key, (n_init, 1), f'start: "{_PRIOR}"')
            draws = [jax.tree.map(lambda leaf: leaf[:, 0].astype(x.dtype), drawn)]
            kind = "parameters"
        elif not model.starts_from_labels:
            raise ValueError(no_labels(model))
        elif kind in DETERMINISTIC:
            if spans_processes(x):
                raise ValueError(
                    f"start: {kind!r} needs all rows in one process; use another start"
                )
            working = _standardised(model, x, sample_weight)
            draws = [ward_labels(working, x, sample_weight)[None]]
        else:
            rounds = SHORT_RUNS if kind == "short-run" else 1
            key = check_key(key, f"start {kind!r} is random")
            draws = _keys(key, rounds, n_init)
    else:
        given, kind = _given_starts(model, x, start)
        draws = [given]

    kept = None
    if checkpoint is not None:
        asked = *asked, float(tol), max_iter, algorithm, acceleration
        kept = Checkpoint(checkpoint, _digest(asked, x, sample_weight), x)

    filled = _filled(model, x, sample_weight)
    if kind == "responsibilities" or kind in DETERMINISTIC:
        more = len(filled[0]) - len(x)
        copies = lambda rows: np.concatenate([rows, np.repeat(rows[:, -1:], more, axis=1)], axis=1)
        draws = [jax.device_put(copies(np.asarray(rows))) for rows in draws]

    def first(starts: Any, kind: str) -> tuple[LatentModel, Params]:
        return _first_params(model, *filled, starts, kind)

    def run_all(working: LatentModel, params: Params, most: int = max_iter) -> tuple[Run, Params]:
        settings = noise, tolerance, most, max_iter, algorithm, acceleration
        if kept is None or most < max_iter:
            return _run_all(working, *filled, params, *settings)
        data = working, *filled, params, *settings
        like = jax.eval_shape(functools.partial(_onwards, *data), None, every)
        more = lambda now: _onwards(*data, now, every)
        end = kept.run(like, noise, more, lambda now: bool(now.going))
        return _run_all(*data, end)

    (working, params), *others = [first(starts, kind) for starts in draws]
    if others:
        drawn = [params, *(each for _, each in others)]
        params = _best_of_short_runs([run_all(working, each, SHORT_STEPS) for each in drawn])
    record, _ = run_all(working, params)
    settings = {
        "tol": float(tol),
        "max_iter": max_iter,
        "algorithm": algorithm,
        "acceleration": acceleration,
        "feature_names": problem.feature_names,
        "start": start if isinstance(start, str) else "given",
        "seed": seed,
    }
    found, twin = _select(model, x, sample_weight, filled, record, settings)
    for push in range(_PUSHES if algorithm == "em" and model.starts_from_labels else 0):
        if not _looks_like_saddle(found, twin):
            break
        pushed, _ = run_all(*first(_pushes(found, twin, push), "freed"))
        above, lifted = _off_saddle(found, twin, pushed)
        found, twin = _select(model, x, sample_weight, filled, above, settings)
        if not lifted:
            break
    return problem.back(found)


Fit.going_on = staticmethod(update)

# Readings of a stream by EM, if nobody says.
_PASSES = 100


@program(static_argnames="start")
def _drawn(start: Callable[[PRNGKeyArray], Params], keys: PRNGKeyArray) -> Params:
    return jax.vmap(start)(keys)


@program(static_argnames=("rounds", "n_init"))
def _keys(key: PRNGKeyArray, rounds: int, n_init: int) -> list[PRNGKeyArray]:
    return list(jax.random.split(key, (rounds, n_init)))


@program()
def _standardised(model: LatentModel, x: Array, sample_weight: Array | None) -> LatentModel:
    return model.standardise(x, sample_weight)


# Starts and runs compile apart: XLA's compiler takes memory by the length of a program, and
# the runs are the same whatever they start from.
@program(static_argnames="kind")
def _first_params(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    starts: Any,
    kind: str,
) -> tuple[LatentModel, Params]:
    """The model in working units, and there the parameters that each start means.

    ``starts`` are keys, responsibilities or parameters by ``kind``.
    """
    working = model.standardise(x, sample_weight)
    if kind == "parameters":
        return working, jax.vmap(working.to_working)(starts)

    def first(start: Any) -> Params:
        if kind == "freed":
            key, params, pair, within = start
            at = working.to_working(params)
            label = freed(key, working, at, pair, within, x, sample_weight)
            return working.first_params(label, x, sample_weight)
        if kind in STARTS:
            label = STARTS[kind](start, working, x, sample_weight)
            return working.first_params(label, x, sample_weight)
        return working.m_step(working.statistics(start, x, sample_weight))

    batch = _batch(model, x, jax.tree.leaves(starts)[0].shape[0])
    return working, lax.map(first, starts, batch_size=batch)


@program(static_argnames=("max_iter", "algorithm", "acceleration"))
def _run_all(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    params: Params,
    noise: PRNGKeyArray | None,
    tol: Array,
    most: int,
    max_iter: int,
    algorithm: str,
    acceleration: str | None,
    end: Queue | None = None,
) -> tuple[Run, Params]:
    """Every start to its end, or ``most`` steps, in one call; and the ends in working units.

    ``model`` and ``params`` are in working units; ``end`` is where `_onwards` led.
    """
    step = ALGORITHMS[algorithm](model, x, sample_weight, noise)
    step = accelerated(model, step, acceleration)
    rows = x, params, sample_weight
    ends = run_starts(model, step, *rows, tol, max_iter, most=most) if end is None else end.found
    if not step.declared:
        declared = functools.partial(evaluate, model, x=x, sample_weight=sample_weight)
        batch = _batch(model, x, len(ends.status))
        points = lax.map(declared, ends.point.params, batch_size=batch)
        ends = ends._replace(point=points, n_evaluations=ends.n_evaluations + 1)
    return as_run(model, ends), ends.point.params


@program(static_argnames=("max_iter", "algorithm", "acceleration"))
def _onwards(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    params: Params,
    noise: PRNGKeyArray | None,
    tol: Array,
    most: int,
    max_iter: int,
    algorithm: str,
    acceleration: str | None,
    now: Queue | None,
    count: int,
) -> Queue:
    """At most ``count`` iterations of `_run_all`, from its beginning or from ``now``."""
    step = accelerated(model, ALGORITHMS[algorithm](model, x, sample_weight, noise), acceleration)
    first, onwards = queued(model, step, x, params, sample_weight, tol, max_iter, most=most)
    return led(onwards, first if now is None else now, count)


def _digest(asked: Any, x: Array, sample_weight: Array | None) -> str:
    """What tells one call of `fit` from another, in any process."""
    leaves, structure = jax.tree.flatten(asked)
    said = [leaf if isinstance(leaf, (str, int, float)) else _of_numbers(leaf) for leaf in leaves]
    anywhere = re.sub(r" at 0x\w+", "", str(structure))
    return f"{fingerprint(x, sample_weight)} {said} {anywhere}"


def _of_numbers(leaf: Any) -> str:
    """A random key is the numbers that it is made of; of a function nothing more is known."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return type(leaf).__name__ if callable(leaf) else fingerprint(leaf, None)


def _filled(
    model: LatentModel, x: Array, sample_weight: Array | None
) -> tuple[Array, Array | None]:
    """On the next rung, weights as numbers: starts draw rows by them."""
    x, weight = on_rung(model, x, sample_weight)
    if weight is None or weight.dtype != bool:
        return x, weight
    return x, jax.device_put(np.asarray(weight, x.dtype), place_of(x))


def _batch(model: LatentModel, x: Array, n_starts: int) -> int:
    """Starts to handle at once, in even batches: a smaller last one would be compiled apart."""
    n_batches = -(-n_starts // number_of_slots(model, x, n_starts))
    return -(-n_starts // n_batches)


def ends_from(
    fit: Fit, points: Params, x: Array, sample_weight: Array | None, max_iter: int
) -> tuple[Run, np.ndarray]:
    """Where EM leads from each of many points, and which of the ends are one optimum.

    A few at a time, as many as the fit had restarts: its own program serves.

    Parameters
    ----------
    fit : Fit
        Of which the model and ``tol`` are taken.
    points : parameters (S, ...)
        In the units of the data.
    x : (n, D) array
        Data of the fit.
    sample_weight : (n,) array or None
        Weights of the fit.
    max_iter : int
        Most iterations of each.

    Returns
    -------
    Run
        Record of all ends, leaves (S, ...).
    (S,) int array
        Which optimum each reached, the highest numbered 0, by the rule of `Fit.optima`.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jaxgmm as jg
    >>> x = jnp.asarray(jg.datasets.load("faithful").x)
    >>> fit = jg.fit(jg.Mixture(jg.Gaussian(), 2), x, key=jax.random.key(0), n_init=4)
    >>> _, optimum = jg.em.ends_from(fit, fit.restarts.params, x, None, 1000)
    >>> optimum.tolist()
    [0, 0, 0, 0]
    """
    tolerance = np.asarray(fit.tol, x.dtype)
    filled = _filled(fit.model, x, sample_weight)

    def climb(points: Params) -> Run:
        working, params = _first_params(fit.model, *filled, points, "parameters")
        settings = None, tolerance, max_iter, max_iter, "em", None
        return _run_all(working, *filled, params, *settings)[0]

    size = min(len(fit.restarts.status), _MOST_AT_ONCE)
    record = in_slices(climb, points, size=size)
    return record, distinct(fit.model, landmarks(filled[0], len(x)), record, fit.total_weight)


_MOST_AT_ONCE = 64


def _best_of_short_runs(runs: list[tuple[Run, Params]]) -> Params:
    """For each restart the highest end of its short runs, in working units."""
    records = [jax.tree.map(np.asarray, record) for record, _ in runs]
    height = [np.where(ended_well(r) & ~r.spurious, r.log_joint, -np.inf) for r in records]
    best = np.argmax(height, axis=0), np.arange(len(height[0]))
    # On the host, where nothing compiles; back on the device for the program that ran them.
    chosen = lambda *leaves: jax.device_put(np.stack([np.asarray(leaf) for leaf in leaves])[best])
    return jax.tree.map(chosen, *[ends for _, ends in runs])


# The start at draws of the prior.
_PRIOR = "prior"


def _given_starts(model: LatentModel, x: Array, start: Any) -> tuple[Any, str]:
    """The user's starts with a leading axis, checked, and what they are."""
    labelled = is_array(start)
    if labelled and spans_processes(x):
        raise ValueError(
            "start: responsibilities are of rows that other processes have; start by name or at "
            "parameters"
        )
    if labelled and not model.starts_from_labels:
        raise ValueError(no_labels(model))
    if labelled:
        start = numeric("start", start)
        if not np.all(np.isfinite(start)) or np.any(start < 0):
            raise ValueError("start: responsibilities must be finite and not negative")
        if start.ndim > 1 and not np.allclose(start.sum(axis=-1), 1, atol=1e-4):
            raise ValueError("start: the responsibilities of each row must sum to one")
    responsibilities, params = forms_of_start(model, x)
    needed, kind = (responsibilities, "responsibilities") if labelled else (params, "parameters")
    if jax.tree.structure(start) != jax.tree.structure(needed):
        raise TypeError(
            f"start: needs a name ({', '.join([*STARTS, _PRIOR])}), responsibilities (n, K), "
            "parameters of this model, such as model.params(...) makes, or a function of a key "
            f"that returns them; found {type(start).__name__} of another kind or structure"
        )
    return stacked("start", kind, start, needed, x.dtype), kind


def _select(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    filled: tuple[Array, Array | None],
    record: Run,
    settings: dict[str, Any],
) -> tuple[Fit, Twins]:
    """The best restart, and the two of its labels that are most alike.

    ``filled`` are the rows and weights that its program is compiled for.
    """
    total = float(len(x))
    if sample_weight is not None:
        total = total_over_rows(x, rows_here(sample_weight))
    rows = Rows(
        len(x),
        total,
        model.n_informative(x, sample_weight),
        landmarks(filled[0], len(x)),
        fingerprint(x, sample_weight),
    )
    labels_at = lambda params: _labels_at(model, params, *filled)
    return best_fit(model, record, rows, labels_at, settings)


# -- saddles ----------------------------------------------------------------------------

# How often the best run is pushed off a saddle.
_PUSHES = 3


def _looks_like_saddle(found: Fit, twin: Twins) -> bool:
    # Leaps hide the rate of EM; a label by itself has none to coincide with.
    grows = found.rate >= 1 and found.acceleration is None and found.model.n_placed > 1
    return found.converged and (twin.coincide or grows)


def _pushes(found: Fit, twin: Twins, attempt: int) -> tuple[Any, ...]:
    """As many starts off the fit as it had restarts, the first within the pair."""
    n = len(found.restarts.status)
    keys = jax.random.split(jax.random.key(attempt), n)
    params, pair = jax.tree.map(
        lambda leaf: np.broadcast_to(leaf, (n, *leaf.shape)), (found.params, twin.pair)
    )
    return keys, params, pair, np.arange(n) == attempt


def _off_saddle(found: Fit, twin: Twins, pushed: Run) -> tuple[Run, bool]:
    """The record of the fit after its best run was pushed, and whether that led higher."""
    record, pushed = found.restarts, jax.tree.map(np.asarray, pushed)
    rise = pushed.log_joint - found.log_joint
    usable = ended_well(pushed) & ~pushed.spurious & (rise > SAME_OPTIMUM)
    lifted = bool(usable.any())
    came_back = (pushed.status == Status.CONVERGED) & (np.abs(rise) <= SAME_OPTIMUM)
    # A prior may hold labels together, a likelihood never does.
    stands = came_back.any() and (found.model.bounded() or not twin.coincide)
    if twin.coincide if lifted else not stands:
        here = (found.optimum_of == found.optimum_of[found.best]) & record.converged
        record = record._replace(status=np.where(here, np.int32(Status.SADDLE), record.status))
    if lifted:
        end = np.argmax(np.where(usable, rise, -np.inf))
        own = np.arange(len(rise)) == found.best
        record = jax.tree.map(
            lambda old, new: np.where(own.reshape(-1, *(1,) * (old.ndim - 1)), new[end], old),
            record,
            pushed,
        )
    return record, lifted


@program()
def _labels_at(
    model: LatentModel, params: Params, x: Array, sample_weight: Array | None
) -> tuple[Array, Array, Twins, RowSums]:
    """What the labels of all rows say.

    The sum over rows of the log probability of the most probable label, which labels no row has,
    the two that are most alike, and the sums over the rows.
    """
    working = model.standardise(x, sample_weight)
    here = working.to_working(params)
    statistics, total = working.e_step(here, x, sample_weight, certainty)
    alike = twins(working, here, x, sample_weight)
    return total, working.empty(here, statistics), alike, RowSums(working, statistics)
