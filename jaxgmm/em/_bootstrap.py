"""Bootstrap of a fit: all replicates in one compiled call, with the labels of the fit."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxgmm._checks import check_count, check_key, check_name
from jaxgmm._contract import LatentModel, Params, Sites
from jaxgmm._programs import on_rung, program, size_for
from jaxgmm.em._loop import default_tolerance, run
from jaxgmm.em._results import Fit, Status, same_data
from jaxgmm.labels import cheapest, margin
from jaxgmm.model import coordinates

KINDS = ("nonparametric", "parametric", "weighted")

# Rows that decide the labels: more would not change them, only cost memory.
_LABEL_ROWS = 2000

# Labels are ambiguous where the second-best renaming agrees nearly as well with the fit:
# within this share of what an exchange of two clear labels costs.
_AMBIGUOUS = 0.05

# Rows of all replicates that run side by side; fewer wait less for the slowest.
_ROWS_AT_ONCE = 2**13


@dataclasses.dataclass(frozen=True, repr=False)
class Bootstrap:
    """Replicates of a fit, and what they say of its errors.

    Errors and intervals rest on the replicates that `matched` selects.

    Attributes
    ----------
    kind : str
        ``"nonparametric"``, ``"parametric"`` or ``"weighted"``.
    fit : Fit
        What was replicated.
    draws : dict of arrays (S, ...)
        Every replicate by site, in the labels of the fit; a mixture adds
        ``covariances_full`` (S, K, D, D).
    params : pytree
        The same as parameters, stacked.
    status : (S,) int array
        `Status` codes.
    spurious : (S,) bool array
        Whether the replicate hangs on a handful of rows.
    clarity : (S,) array
        How much worse the second-best renaming is: 1 for clear labels, 0 for a tie.
    """

    kind: str
    fit: Fit
    draws: dict[str, np.ndarray]
    params: Params
    status: np.ndarray
    spurious: np.ndarray
    clarity: np.ndarray

    @property
    def matched(self) -> np.ndarray:
        """(S,) replicates that converged, are not spurious, and have clear labels."""
        return _matched(self.status, self.spurious, self.clarity)

    @property
    def unmatched(self) -> float:
        """Share of the replicates that are left out."""
        return float(np.mean(~self.matched))

    @property
    def counts(self) -> pd.Series:
        """How many replicates ended how: each is counted once, by the first that applies."""
        ends = [Status(code).name.lower().replace("_", " ") for code in self.status]
        ends = np.where(self.status != Status.CONVERGED, ends, "ambiguous labels")
        ends = np.where((self.status == Status.CONVERGED) & self.spurious, "spurious", ends)
        return pd.Series(np.where(self.matched, "matched", ends)).value_counts()

    @property
    def standard_errors(self) -> dict[str, np.ndarray]:
        """Standard deviation over the matched replicates, by site."""
        return {name: np.std(draw, axis=0, ddof=1) for name, draw in self._kept().items()}

    def intervals(self, level: float = 0.95) -> dict[str, np.ndarray]:
        """Percentile intervals by site.

        Parameters
        ----------
        level : float
            Probability inside, equal tails.

        Returns
        -------
        dict of arrays (2, ...)
            Lower and upper ends.

        Raises
        ------
        ValueError
            For a level that is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level: needs a number between 0 and 1, found {level!r}")
        tails = [(1 - level) / 2, (1 + level) / 2]
        return {
            name: np.quantile(draw, tails, axis=0).astype(draw.dtype)
            for name, draw in self._kept().items()
        }

    @property
    def table(self) -> pd.DataFrame:
        """A row per number in the sites: estimate, bias, standard error, 95% interval."""
        fit, kept = self.fit, self._kept()
        sites = jax.tree.map(np.asarray, fit.model.sites(fit.params))
        rows = []
        for site, index, label in coordinates(fit.model, sites, fit.feature_names):
            draws, estimate = kept[site][(slice(None), *index)], float(sites[site][index])
            low, high = np.quantile(draws, [0.025, 0.975])
            rows.append(
                {
                    "quantity": label,
                    "estimate": estimate,
                    "bias": float(np.mean(draws)) - estimate,
                    "standard_error": float(np.std(draws, ddof=1)),
                    "eti95_low": low,
                    "eti95_high": high,
                }
            )
        return pd.DataFrame(rows).set_index("quantity")

    def _kept(self) -> dict[str, np.ndarray]:
        if self.matched.sum() < 2:
            raise ValueError(
                f"bootstrap: {self.matched.sum()} of {len(self.status)} replicates could be "
                f"matched to the fit ({self._ends()}), which tells no errors; see draws"
            )
        return {name: draw[self.matched] for name, draw in self.draws.items()}

    def _ends(self) -> str:
        return ", ".join(f"{count} {end}" for end, count in self.counts.items())

    def __repr__(self) -> str:
        return (
            f"Bootstrap ({self.kind}) of {self.fit.model!r}\n"
            f"  {len(self.status)} replicates: {self._ends()}\n"
            f"  errors and intervals leave out {self.unmatched:.1%}"
        )


def bootstrap(
    fit: Fit,
    x: Any,
    *,
    key: PRNGKeyArray,
    n_replicates: int = 1000,
    kind: str = "nonparametric",
    sample_weight: Any = None,
    tol: float | None = None,
    max_iter: int = 1000,
    batch_size: int | None = None,
) -> Bootstrap:
    """Replicate a fit on resampled data, all replicates in one compiled call.

    Parameters
    ----------
    fit : Fit
        From `jaxgmm.fit`; every replicate starts at its parameters.
    x : (n, D) or (n,) array
        The data of the fit.
    key : typed random key
    n_replicates : int
        Number of replicates S, at least 2.
    kind : str
        ``"nonparametric"``: rows drawn with replacement, as counts. ``"weighted"``: the
        weighted-likelihood bootstrap, rows with Dirichlet(1, ..., 1) weights that sum to
        the total weight. ``"parametric"``: new rows drawn from the fitted model;
        what it is given of a row, such as covariates, stays.
    sample_weight : (n,) array, optional
        The weights of the fit, as counts; whole numbers unless ``kind="weighted"``.
    tol, max_iter : float, int
        Of the replicates, as in `jaxgmm.fit`.
    batch_size : int, optional
        Most replicates that run side by side; bounds the memory, changes no number
        beyond rounding. By default as many as hold about 8,000 rows.

    Returns
    -------
    Bootstrap

    Raises
    ------
    ValueError, TypeError
        For data or weights that are not those of the fit, fractional weights where
        counts are needed, and arguments that do not fit, naming them.

    Notes
    -----
    A data-dependent prior stays at the numbers resolved for the fit. Labels are those of
    the fit: the renaming with the largest sum, over components, of the cosine between
    responsibilities of replicate and fit for the original rows. That needs no metric
    between parameters, counts small components like large ones, and serves any
    latent-variable model. Replicates that did not converge, are spurious, or whose
    second-best renaming is nearly as good are left out of errors and intervals, and
    counted.

    References
    ----------
    Efron (1979), Annals of Statistics 7:1-26; Newton and Raftery (1994), JRSS B 56:3-48,
    for the weighted likelihood; O'Hagan, Murphy, Scrucca and Gormley (2019),
    Computational Statistics 34:1779-1813, for all three on mixtures.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("faithful").x
    >>> fit = jg.fit(jg.Mixture(jg.Gaussian(), 2), x, key=jax.random.key(0), n_init=4)
    >>> boot = jg.bootstrap(fit, x, key=jax.random.key(1), n_replicates=200)
    >>> boot.unmatched
    0.0
    >>> boot.intervals(0.9)["means"].shape
    (2, 2, 2)
    """
    check_name("kind", kind, KINDS)
    check_key(key, "replicates are random")
    check_count("n_replicates", n_replicates, 2)
    check_count("max_iter", max_iter, 0)
    near, x, sample_weight = same_data(fit, x, sample_weight)
    if kind == "parametric" and near.model.incomplete:
        raise ValueError(
            'kind: "parametric" draws whole rows, and these have missing values; use '
            'kind="nonparametric"'
        )
    n_rows = x.shape[0] if kind == "weighted" else total_rows(sample_weight, x.shape[0])
    x, sample_weight = on_rung(near.model, x, sample_weight)
    n_rows = n_rows if sample_weight is None else size_for(n_rows)
    if batch_size is not None:
        check_count("batch_size", batch_size, 1)
    tol = default_tolerance(x.dtype) if tol is None else tol
    replicates = replicate(
        near.model,
        x,
        sample_weight,
        near.params,
        jax.random.split(key, n_replicates),
        np.asarray(tol, x.dtype),
        kind,
        n_rows,
        max_iter,
        batch_size,
    )
    replicates = jax.tree.map(np.asarray, replicates)
    if fit.origin is not None:
        there = lambda values: near.model.translate(fit.origin, values)[1]
        draws, params = there(replicates.draws), there(replicates.params)
        replicates = replicates._replace(draws=draws, params=params)
    return Bootstrap(kind=kind, fit=fit, **replicates._asdict())


def total_rows(sample_weight: Array | None, n: int) -> int:
    """How many rows the weights stand for; a `ValueError` where they are no counts."""
    if sample_weight is None:
        return n
    weight = np.asarray(sample_weight)
    if np.any(weight != np.round(weight)):
        raise ValueError(
            "sample_weight: resampling needs counts, found fractions; "
            'use bootstrap(kind="weighted"), or whole numbers'
        )
    return int(weight.sum(dtype=np.float64))


def written_out(x: Array, sample_weight: Array | None, n_rows: int) -> Array:
    """Every row as often as it counts."""
    if sample_weight is None:
        return x
    times = sample_weight.astype(jnp.int32)
    return jnp.repeat(x, times, axis=0, total_repeat_length=n_rows)


def present(sample_weight: Array, n_rows: int) -> Bool[Array, " n"]:
    """Which of ``n_rows`` are there where as many rows were drawn as the weights stand for."""
    return jnp.arange(n_rows) < _total(sample_weight)


class Replicates(NamedTuple):
    """Replicates of a fit, in its labels; the fields are those of `Bootstrap`."""

    draws: Sites
    params: Params
    status: Array
    spurious: Array
    clarity: Array

    @property
    def matched(self) -> Array:
        """(S,) as `Bootstrap.matched`."""
        return _matched(self.status, self.spurious, self.clarity)


def _matched(status: Any, spurious: Any, clarity: Any) -> Any:
    return (status == Status.CONVERGED) & ~spurious & ~(clarity < _AMBIGUOUS)


@program(static_argnames=("kind", "n_rows", "max_iter", "batch_size"))
def replicate(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    params: Params,
    keys: PRNGKeyArray,
    tol: Array | float,
    kind: str,
    n_rows: int,
    max_iter: int,
    batch_size: int | None = None,
) -> Replicates:
    """The pure function under `jaxgmm.bootstrap`, a replicate for each of ``keys``.

    It works inside the user's own ``jit`` and ``vmap``; arguments are those of `bootstrap`, and
    ``n_rows`` the number of rows that the weights stand for, or more. Weights may be booleans,
    which say which rows are there. The model has its prior as numbers.
    """
    stride = -(-x.shape[0] // _LABEL_ROWS)
    judges = x[::stride]
    weight = None if sample_weight is None else sample_weight[::stride].astype(x.dtype)
    reference = _directions(model.responsibilities(params, judges), weight)
    drawn = None if sample_weight is None else present(sample_weight, n_rows).astype(x.dtype)
    whole = written_out(x, sample_weight, n_rows) if kind == "parametric" else x

    def one(key: PRNGKeyArray) -> tuple[Params, Array, Array, Array]:
        if kind == "parametric":
            rows, weights = model.sample_like(params, key, whole).astype(x.dtype), drawn
        else:
            draw = _counts if kind == "nonparametric" else _dirichlet
            rows, weights = x, draw(key, x, sample_weight, n_rows)
        end = run(model, rows, params, weights, tol, max_iter)
        found = _directions(model.responsibilities(end.params, judges), weight)
        return end.params, end.status, end.spurious, found.T @ reference

    if batch_size is None:
        batch_size = max(1, _ROWS_AT_ONCE // n_rows)
    ends, status, spurious, likeness = map_in_batches(one, keys, batch_size)
    order = cheapest(-likeness, model.label_groups)
    ends = jax.vmap(model.permute)(ends, order)
    draws = jax.vmap(lambda p: {**model.sites(p), **model.derived_sites(p)})(ends)
    # An exchange of two clear labels lowers two cosines from one to zero.
    clarity = margin(-likeness, order, model.label_groups) / 2
    return Replicates(draws, ends, status, spurious, clarity)


def map_in_batches(function: Any, keys: PRNGKeyArray, batch_size: int) -> Any:
    """`lax.map` over keys in equal batches, so that the program holds one copy of the body."""
    count = keys.shape[0]
    n_batches = -(-count // batch_size)
    size = -(-count // n_batches)
    # The few keys that fill the last batch repeat the first ones, and are dropped.
    padded = keys[jnp.arange(n_batches * size) % count]
    results = lax.map(jax.vmap(function), padded.reshape(n_batches, size))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], results)


def _directions(responsibilities: Float[Array, "n k"], weight: Array | None) -> Array:
    """Columns of unit length; a component without rows stays zero."""
    if weight is not None:
        responsibilities = jnp.sqrt(weight)[:, None] * responsibilities
    length = jnp.sqrt(jnp.sum(responsibilities**2, axis=0))
    return responsibilities / jnp.where(length > 0, length, 1)


def _counts(key: PRNGKeyArray, x: Array, sample_weight: Array | None, n_rows: int) -> Array:
    """How often each row is drawn in as many draws with replacement."""
    nowhere = jnp.zeros(x.shape[0], x.dtype)
    if sample_weight is None:
        return nowhere.at[jax.random.randint(key, (n_rows,), 0, n_rows)].add(1)
    # The draw among the rows written out as often as they count.
    ends = jnp.cumsum(sample_weight.astype(jnp.int32))
    chosen = jax.random.randint(key, (n_rows,), 0, ends[-1])
    counts = (jnp.arange(n_rows) < ends[-1]).astype(x.dtype)
    return nowhere.at[jnp.searchsorted(ends, chosen, side="right")].add(counts)


def _total(sample_weight: Array) -> Array:
    """The number of rows that counts stand for, exactly."""
    return jnp.sum(sample_weight.astype(jnp.int32))


def _dirichlet(key: PRNGKeyArray, x: Array, sample_weight: Array | None, n_rows: int) -> Array:
    """Dirichlet weights of the rows that sum to their total weight."""
    if sample_weight is None:
        weight = jax.random.exponential(key, (n_rows,), x.dtype)
        return weight * (n_rows / jnp.sum(weight))
    if sample_weight.dtype == bool:
        weight = sample_weight * jax.random.exponential(key, sample_weight.shape, x.dtype)
        return weight * (jnp.sum(sample_weight) / jnp.sum(weight))
    # A row that counts w times has the sum of w exponentials.
    present = sample_weight > 0
    gamma = jax.random.gamma(key, jnp.where(present, sample_weight, 1), dtype=x.dtype)
    weight = jnp.where(present, gamma, 0)
    return weight * (jnp.sum(sample_weight) / jnp.sum(weight))
