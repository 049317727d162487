"""The bootstrap likelihood-ratio test: does a mixture need another component?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgmm._checks import check_count, check_key
from jaxgmm._contract import LatentModel, Params
from jaxgmm._programs import on_rung, program, size_for
from jaxgmm._sharded import of_block
from jaxgmm.em._bootstrap import map_in_batches, present, total_rows, written_out
from jaxgmm.em._fit import fit
from jaxgmm.em._loop import default_tolerance, run
from jaxgmm.em._problem import prepare
from jaxgmm.em._results import Fit, Status
from jaxgmm.em._search import best_of
from jaxgmm.em._start import STARTS, Labeller, nearest_centre, seeds

# Gain in the log likelihood that a run may leave: the statistic is of order one.
_GAIN_LEFT = 1e-4

# Rows of all runs that go on side by side.
_ROWS_AT_ONCE = 2**13


@dataclasses.dataclass(frozen=True, repr=False)
class LikelihoodRatioTest:
    """A test of one mixture against a larger one, its null distribution simulated.

    Attributes
    ----------
    statistic : float
        Twice the gain in log likelihood from the null to the alternative.
    p_value : float
        ``(1 + number of replicates at least as large) / (1 + number of replicates)``.
    statistics : (B,) array
        The replicates that succeeded.
    n_failed : int
        Replicates in which no start of one of the models ended well; they count neither
        way.
    null, alternative : Fit
        The two models on the data.
    """

    statistic: float
    p_value: float
    statistics: np.ndarray
    n_failed: int
    null: Fit
    alternative: Fit

    def __repr__(self) -> str:
        return (
            f"{self.null.model!r}\n  against {self.alternative.model!r}\n"
            f"  statistic {self.statistic:.4f}, p = {self.p_value:.4g} from "
            f"{len(self.statistics)} replicates ({self.n_failed} failed)"
        )


def bootstrap_lrt(
    model: LatentModel,
    x: Any,
    *,
    key: PRNGKeyArray,
    alternative: LatentModel | None = None,
    n_replicates: int = 999,
    n_init: int = 4,
    sample_weight: Any = None,
    tol: float | None = None,
    max_iter: int = 1000,
    batch_size: int | None = None,
) -> LikelihoodRatioTest:
    """Test a mixture against one with more components, by simulation under the null.

    Parameters
    ----------
    model : LatentModel
        The null hypothesis.
    x : (n, D) or (n,) array
        Data.
    key : typed random key
    alternative : LatentModel, optional
        The larger model; by default ``model`` with one component more.
    n_replicates : int
        Data sets B drawn from the fitted null; all in one compiled call.
    n_init : int
        Random starts of each kind. The null starts there and, in a replicate, at the
        parameters that made the data; the alternative starts there and where one
        component of the fitted null is split in two.
    sample_weight : (n,) array, optional
        Weights of the rows, as whole numbers.
    tol, max_iter : float, int
        As in `jaxgmm.fit`; by default a run leaves about 1e-4 of log likelihood.
    batch_size : int, optional
        Most replicates that run side by side; bounds the memory.

    Returns
    -------
    LikelihoodRatioTest

    Raises
    ------
    ValueError, TypeError
        For an alternative with fewer components, for data on which a model cannot be
        fitted but for a spurious optimum, where no replicate succeeds, and for arguments
        that do not fit.

    Notes
    -----
    The likelihood ratio of mixtures with different numbers of components has no
    chi-squared limit, hence the simulation. Data and replicates are searched alike;
    spurious optima never enter. With a prior the log likelihoods are those at the modes,
    and a data-dependent prior stays at its numbers for the data.

    References
    ----------
    McLachlan (1987), Applied Statistics 36:318-324.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("faithful").x
    >>> one = jg.Mixture(jg.Gaussian("tied"), n_components=1)
    >>> test = jg.bootstrap_lrt(one, x, key=jax.random.key(0), n_replicates=19)
    >>> test.p_value, test.n_failed
    (0.05, 0)
    """
    check_key(key, "replicates are random")
    check_count("n_replicates", n_replicates, 1)
    check_count("n_init", n_init, 1)
    if not isinstance(model, LatentModel):
        raise TypeError(f"model: needs a model such as jaxgmm.Mixture, found {model!r}")
    alternative = _larger(model, alternative)
    model = model.read(x)[0]
    problem = prepare(alternative, x, sample_weight, mode=True, beside=model)
    larger, rows, sample_weight = problem.model, problem.x, problem.sample_weight
    if larger.incomplete:
        raise ValueError(
            "x: the test is judged by simulated rows, which are whole, and these have missing "
            "values; compare the models by BIC, jaxgmm.select(models, x, key=key)"
        )
    n_rows = total_rows(sample_weight, rows.shape[0])
    if tol is None:
        tol = max(default_tolerance(rows.dtype), _GAIN_LEFT / n_rows)
    key_null, key_split, key_replicates = jax.random.split(key, 3)
    options = {"sample_weight": sample_weight, "tol": tol, "max_iter": max_iter}
    null = fit(problem.seen(model), rows, key=key_null, n_init=n_init, **options)
    fills = null.model.fills_up and larger.fills_up
    wide = on_rung(larger, rows, sample_weight) if fills else (rows, sample_weight)
    if fills and wide[1] is not None:
        n_rows = size_for(n_rows)
    starts = _larger_starts(null.model, larger, null.params, *wide, key_split, n_init)
    other = fit(larger, rows, start=starts, **options)
    for name, found in (("model", null), ("alternative", other)):
        if found.spurious or found.status not in (Status.CONVERGED, Status.OUT_OF_ITERATIONS):
            raise ValueError(f"{name}: no proper fit to compare ({found.message})")

    n_starts = 2 * n_init
    if batch_size is None:
        batch_size = max(1, _ROWS_AT_ONCE // (n_rows * n_starts))
    batch_size = check_count("batch_size", batch_size, 1)
    statistics, failed = _null_statistics(
        null.model,
        larger,
        null.params,
        jax.random.split(key_replicates, n_replicates),
        np.asarray(tol, rows.dtype),
        *wide,
        n_rows,
        n_init,
        max_iter,
        min(batch_size, n_replicates),
    )
    succeeded = np.asarray(statistics)[~np.asarray(failed)]
    if not len(succeeded):
        raise ValueError(f"bootstrap_lrt: all {n_replicates} replicates failed; use a prior")
    statistic = 2 * (other.log_likelihood - null.log_likelihood)
    return LikelihoodRatioTest(
        statistic=statistic,
        p_value=float((1 + np.sum(succeeded >= statistic)) / (1 + len(succeeded))),
        statistics=succeeded,
        n_failed=n_replicates - len(succeeded),
        null=problem.back(null),
        alternative=problem.back(other),
    )


def _larger(model: Any, alternative: Any) -> LatentModel:
    """The alternative, checked; one component more where none is given."""
    if alternative is None:
        if "n_components" not in {field.name for field in dataclasses.fields(model)}:
            raise ValueError("alternative: this model has no n_components to raise; give one")
        return dataclasses.replace(model, n_components=model.n_components + 1)
    if not isinstance(alternative, LatentModel):
        raise TypeError(f"alternative: needs a model, found {alternative!r}")
    if alternative.n_components < model.n_components:
        raise ValueError(
            f"alternative: needs at least the {model.n_components} component(s) of the null, "
            f"found {alternative.n_components}"
        )
    return alternative


@program(static_argnames=("n_rows", "n_init", "max_iter", "batch_size"))
def _null_statistics(
    null: LatentModel,
    larger: LatentModel,
    params: Params,
    keys: PRNGKeyArray,
    tol: Array,
    x: Array,
    sample_weight: Array | None,
    n_rows: int,
    n_init: int,
    max_iter: int,
    batch_size: int,
) -> tuple[Float[Array, " b"], Array]:
    """The statistic of each simulated data set, and whether it failed.

    They have as many rows as the weights stand for, filled up to ``n_rows``.
    """
    whole, weights = written_out(x, sample_weight, n_rows), None
    if sample_weight is not None:
        weights = present(sample_weight, n_rows).astype(tol.dtype)

    def one(key: PRNGKeyArray) -> tuple[Array, Array]:
        key_rows, key_null, key_larger = jax.random.split(key, 3)
        x = null.sample_like(params, key_rows, whole).astype(tol.dtype)
        search = lambda model, starts: best_of(
            jax.vmap(lambda start: run(model, x, start, weights, tol, max_iter))(starts)
        )
        drawn = _draws(null, x, weights, key_null, n_init)
        truth = jax.tree.map(lambda leaf: leaf[None], params)
        small, small_failed = search(null, _stacked(truth, drawn))
        starts = _larger_starts(null, larger, small.params, x, weights, key_larger, n_init)
        large, large_failed = search(larger, starts)
        gain = large.log_likelihood - small.log_likelihood
        return 2 * gain, small_failed | large_failed

    return map_in_batches(one, keys, batch_size)


@program(static_argnames="n_init")
def _larger_starts(
    null: LatentModel,
    larger: LatentModel,
    params: Params,
    x: Array,
    sample_weight: Array | None,
    key: PRNGKeyArray,
    n_init: int,
) -> Params:
    """Components of the null split in two, and as many starts that know nothing of it."""
    key_split, key_draw = jax.random.split(key)
    sample_weight = None if sample_weight is None else sample_weight.astype(x.dtype)
    rows = larger.standardise(x, sample_weight).embed(x)
    weight = jnp.ones(len(x), x.dtype) if sample_weight is None else sample_weight
    labels = null.responsibilities(params, x)

    def grown(key: PRNGKeyArray) -> Labeller:
        found = labels
        for one in jax.random.split(key, larger.n_components - null.n_components):
            found = _split(one, found, rows, weight, null.n_components - null.n_placed)
        return lambda rows, first: of_block(found, first, len(rows))

    split = _begun(larger, x, sample_weight, grown, jax.random.split(key_split, n_init))
    return _stacked(split, _draws(larger, x, sample_weight, key_draw, n_init))


def _draws(
    model: LatentModel, x: Array, sample_weight: Array | None, key: PRNGKeyArray, n_init: int
) -> Params:
    working = model.standardise(x, sample_weight)
    kind = model.default_start
    begin = STARTS["k-means++" if kind == "short-run" else kind]
    draw = lambda one: begin(one, working, x, sample_weight)
    return _begun(model, x, sample_weight, draw, jax.random.split(key, n_init))


def _begun(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    draw: Callable[[PRNGKeyArray], Labeller],
    keys: PRNGKeyArray,
) -> Params:
    """The first parameters of a start for each key."""
    working = model.standardise(x, sample_weight)
    first = lambda key: working.first_params(draw(key), x, sample_weight)
    return jax.vmap(lambda key: working.to_user(first(key)))(keys)


def _stacked(one: Params, other: Params) -> Params:
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), one, other)


def _split(
    key: PRNGKeyArray,
    labels: Float[Array, "n k"],
    rows: Float[Array, "n e"],
    weight: Float[Array, " n"],
    n_apart: int,
) -> Float[Array, "n k+1"]:
    """One component, drawn by its share of the rows, cut between two of its rows.

    The last labels, ``n_apart`` of them, are no components, and stay the last.
    """
    key_label, key_centres = jax.random.split(key)
    labels, apart = jnp.split(labels, [labels.shape[1] - n_apart], axis=1)
    label = jax.random.categorical(key_label, jnp.log(weight @ labels))
    member = labels[:, label]
    centres = seeds(key_centres, rows, weight * member, 2)
    halves = member[:, None] * nearest_centre(centres, lambda z: z)(rows, 0)
    return jnp.concatenate([labels.at[:, label].set(halves[:, 0]), halves[:, 1:], apart], axis=1)
