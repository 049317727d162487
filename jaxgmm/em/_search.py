"""The search under `fit` as a pure function: many starts, the best end, no host."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from jaxgmm._contract import LatentModel, Params
from jaxgmm._numerics import as_rows, precise
from jaxgmm.em._loop import as_run, default_tolerance, run_starts
from jaxgmm.em._results import Run, Status
from jaxgmm.em._start import SHORT_RUNS, SHORT_STEPS, STARTS
from jaxgmm.em._step import em_step


class Search(NamedTuple):
    """The ends of many starts.

    Attributes
    ----------
    best : Run
        The highest that ended well and is not spurious; any other where there is none.
    failed : bool array
        Whether there is none.
    status, spurious : (S,) arrays
        How each start ended: `Status` codes, and whether on a handful of rows.
    """

    best: Run
    failed: Array
    status: Array
    spurious: Array


@precise
def search(
    model: LatentModel,
    x: Array,
    key: PRNGKeyArray,
    n_init: int = 16,
    sample_weight: Array | None = None,
    tol: Array | float | None = None,
    max_iter: int = 1000,
) -> Search:
    """EM from ``n_init`` short runs: `jaxgmm.fit` inside the user's own ``jit`` and ``vmap``.

    No host checks, and no push off a saddle; otherwise the starts and the choice of `jaxgmm.fit`
    with the same key.

    Parameters
    ----------
    model : LatentModel
        Its prior as numbers.
    x : (n, D) or (n,) array
        Data.
    key : typed random key
    n_init : int
        Restarts. Static.
    sample_weight : (n,) array, optional
        Weights of the rows.
    tol : float, optional
        As in `run`. Traced.
    max_iter : int
        Most M-steps of a restart. Static.

    Returns
    -------
    Search

    References
    ----------
    Biernacki, Celeux and Govaert (2003), Computational Statistics and Data Analysis 41:561-575,
    for the short runs.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("faithful").x
    >>> model = jg.Mixture(jg.Gaussian("tied"), 2).resolve(x)
    >>> fits = jax.jit(jax.vmap(lambda x: jg.em.search(model, x, jax.random.key(0), n_init=2)))
    >>> found = fits(jax.numpy.stack([x[:136], x[136:]]))
    >>> found.best.log_joint.shape, found.status.shape
    ((2,), (2, 2))
    """
    x = as_rows(jnp.asarray(x))
    working = model.standardise(x, sample_weight)
    tol = default_tolerance(x.dtype) if tol is None else tol
    step = em_step(working, x, sample_weight)

    def run_all(starts: Params, most: int | None = None) -> tuple[Run, Params]:
        ends = run_starts(working, step, x, starts, sample_weight, tol, max_iter, most=most)
        return as_run(working, ends), ends.point.params

    def first(key: PRNGKeyArray) -> Params:
        if not working.starts_from_labels:
            return working.to_working(model.draw_prior(key))
        label = STARTS[working.default_start](key, working, x, sample_weight)
        return working.first_params(label, x, sample_weight)

    keys = jax.random.split(key, (SHORT_RUNS, n_init)).ravel()
    short, ends = run_all(jax.vmap(first)(keys), SHORT_STEPS)
    height = jnp.where(ended_well(short), short.log_joint, -jnp.inf)
    own = jnp.argmax(height.reshape(SHORT_RUNS, n_init), axis=0)
    chosen = own * n_init + jnp.arange(n_init)
    record, _ = run_all(jax.tree.map(lambda leaf: leaf[chosen], ends))
    best, failed = best_of(record)
    return Search(best, failed, record.status, record.spurious)


def best_of(record: Run) -> tuple[Run, Array]:
    """The best run that ended well and is not spurious, and whether there is none."""
    score = jnp.where(ended_well(record), record.log_joint, -jnp.inf)
    best = jnp.argmax(score)
    return jax.tree.map(lambda leaf: leaf[best], record), score[best] == -jnp.inf


def ended_well(record: Run) -> Array:
    """Which runs may be compared by their height."""
    well = (record.status == Status.CONVERGED) | (record.status == Status.OUT_OF_ITERATIONS)
    return well & ~record.spurious
