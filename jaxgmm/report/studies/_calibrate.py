"""The door to calibration: draws from the prior, rows from them, ranks among what is drawn back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from jaxgmm import bayes, em
from jaxgmm._checks import check_count, check_key, check_name, key_numbers
from jaxgmm._contract import LatentModel, Params
from jaxgmm._numerics import at_once, normal
from jaxgmm._programs import program, size_for
from jaxgmm.em import Status, bar
from jaxgmm.model import n_columns, prior_draws
from jaxgmm.report.studies._calibration import Calibration
from jaxgmm.report.studies._case import End, first_of
from jaxgmm.report.studies._each import each, everywhere
from jaxgmm.report.studies._given import check_given, filled, given_of, rows_beside, some_of
from jaxgmm.report.studies._quantities import SHARED, entries, invariants
from jaxgmm.report.studies._ranks import rank_table

# Of a model, parameters and rows: numbers by name.
Watched = Callable[[LatentModel, Params, Array], Mapping[str, Array]]
# The next member of a reversible chain that leaves the posterior as it is.
Kernel = Callable[[LatentModel, Array, Params, PRNGKeyArray], Params]

_MOST_IN_BATCH = 250

# Chains that begin at the fit.
_CHAINS = {"gibbs": 4, "nuts": 4}

# What ranks are taken after: draws of chains that did not converge say what a user would see.
_RANKED = (End.USED, End.NOT_CONVERGED)


class _Plan(NamedTuple):
    """What is compiled for."""

    method: str | Kernel
    watched: Watched | None  # of the user's own
    n_rows: int  # those of a data set, and where only we see them some that fill them up
    n_kept: int
    thinning: int
    n_warmup: int
    n_init: int


class _Rows(NamedTuple):
    """A data set, and which rows of it are there where some fill it up."""

    x: Float[Array, "n d"]
    present: Bool[Array, " n"] | None

    @property
    def weight(self) -> Float[Array, " n"] | None:
        return None if self.present is None else self.present.astype(self.x.dtype)


def calibrate(
    model: LatentModel,
    *,
    n: int,
    key: PRNGKeyArray,
    method: str | Kernel = "gibbs",
    n_datasets: int = 1000,
    quantities: Watched | None = None,
    given: Any = None,
    n_draws: int = 99,
    thinning: int = 5,
    n_warmup: int = 100,
    n_init: int = 4,
    level: float = 0.95,
    progress: bool = True,
) -> Calibration:
    """Is a posterior right? Ranks of draws from the prior among draws of the posterior.

    Parameters
    ----------
    model : LatentModel
        With a proper prior, as numbers.
    n : int
        Rows of each data set.
    key : typed random key
    method : str or callable
        ``"gibbs"``, ``"nuts"`` (chains that begin at EM's fit), ``"smc"`` (a population),
        ``"laplace"``, ``"vb"``, ``"svi"``, or ``"em"``: the normal approximation of each quantity
        at EM's fit. Or a function ``(model, x, params, key)`` that returns the next member of a
        reversible chain, which is run from the truth both ways.
    n_datasets : int
        Draws from the prior.
    quantities : callable, optional
        A function ``(model, params, x)`` that returns numbers by name; of what no renaming of
        labels changes unless the labels differ in their prior. By default moments of the density,
        the probability that two rows share a component, the smallest weight, and the log
        likelihood.
    given : (N, D) array or table, optional
        Of a model that draws rows beside columns that are given, such as the covariates of a
        regression: rows that have them, as in ``model.sample``. All data sets have the same: these
        rows where N is n, or else n of them drawn with replacement.
    n_draws : int
        Draws L that ranks are taken among.
    thinning : int
        Members of a chain, or particles, for each of these.
    n_warmup, n_init : int
        What goes before the draws of a chain, and restarts of EM.
    level : float
        Probability that right draws stay in the bands of all quantities.
    progress : bool
        Whether to show a bar.

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError, TypeError
        For a prior that has no draws, arguments that do not fit, and a model without what it needs
        to be ``given`` of each row.

    Notes
    -----
    A function of parameters and rows, such as the log likelihood, sees errors that functions of the
    parameters alone can miss (Modrák and others, 2023). Ranks of a reversible chain are uniform
    however slowly it mixes, where the truth stands at a random place of it (Gandy and Scott, 2021).

    References
    ----------
    Talts, Betancourt, Simpson, Vehtari and Gelman (2018), arXiv:1804.06788; Säilynoja, Bürkner and
    Vehtari (2022), Statistics and Computing 32:32, for the bands; Gandy and Scott (2021),
    arXiv:2001.06465; Modrák and others (2023), Bayesian Analysis, doi:10.1214/23-BA1404.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> prior = jg.ConjugatePrior(mean=[0.0], mean_precision=0.5, dof=5.0, scale=[[2.0]])
    >>> model = jg.Mixture(jg.Gaussian("full"), 1, prior=prior)
    >>> found = jg.calibrate(
    ...     model, n=10, method="vb", key=jax.random.key(0), n_datasets=100, n_init=1
    ... )
    >>> found.uniform
    True
    """
    counts = {
        "n": (n, 2),
        "n_datasets": (n_datasets, 20),
        "n_draws": (n_draws, 4),
        "thinning": (thinning, 1),
        "n_warmup": (n_warmup, 0),
        "n_init": (n_init, 1),
    }
    for name, (count, least) in counts.items():
        check_count(name, count, least)
    check_key(key, "parameters and data sets are random")
    if not 0 < level < 1:
        raise ValueError(f"level: needs a number between 0 and 1, such as 0.95; found {level!r}")
    if not callable(method):
        check_name("method", method, ("em", *bayes.WITHIN))
    model = _sized(model, given)
    key_look, key_sets = jax.random.split(key)
    looked = prior_draws(model, key_look, (1, 1), "model")
    point = jax.tree.map(lambda leaf: leaf[0, 0], looked)
    whole, beside = given_of(model, point, given, key_look), None
    # Few numbers of rows are compiled for, but of rows that functions of the user's own see.
    fills = model.fills_up and quantities is None and not callable(method)
    n_rows, count = (size_for(n), np.int32(n)) if fills else (n, None)
    if whole is not None:
        some = some_of(whole, n, key, 0)
        model = model.resolve(jax.device_put(some))  # knows which repeats are absent
        beside = filled(some, n_rows)
    model = model.settled(point)

    chains = 1 if callable(method) else _CHAINS.get(method, 1)
    n_kept = -(-n_draws // chains) * chains
    plan = _Plan(method, quantities, n_rows, n_kept, thinning, n_warmup, n_init)
    batch = -(-n_datasets // -(-n_datasets // _MOST_IN_BATCH))
    numbers = np.arange(-(-n_datasets // batch) * batch).reshape(-1, batch)
    common = everywhere((model, key_sets, beside, count), batch)
    found = []
    with bar("data sets", progress, n_datasets) as shown:
        for some in numbers:
            found.append(_ranked(*common, some, plan))
            shown.update(min(batch, n_datasets - int(some[0])))
    joined, end = jax.tree.map(lambda *parts: np.concatenate(parts)[:n_datasets], *found)
    kept = np.stack(list(joined.values()), axis=1)
    settings = {
        "model": repr(model),
        "method": getattr(method, "__name__", method),
        "level": level,
        "n_kept": n_kept,
        "seed": key_numbers(key),
        **({} if whole is None else {"n_given": len(whole)}),
        **{name: count for name, (count, _) in counts.items()},
    }
    ends = _counted(end, kept[:, 0] >= 0, "drawn" if callable(method) else "converged")
    return Calibration(rank_table(kept, list(joined), n_kept, level), kept, ends, settings)


def _counted(end: np.ndarray, ranked: np.ndarray, well: str) -> pd.DataFrame:
    """How many data sets ended how, and how many of these have ranks."""
    rows = {
        well if reason is End.USED else reason.words: [np.sum(own), np.sum(own & ranked)]
        for reason in End
        for own in [end == reason]
        if reason is not End.UNMATCHED  # labels are not asked for
    }
    columns = ["data_sets", "ranked"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("end")


def _sized(model: LatentModel, given: Any) -> LatentModel:
    """The model as numbers that draws can be made of."""
    if not isinstance(model, LatentModel):
        raise TypeError(f"model: needs one such as jaxgmm.Mixture, found {type(model).__name__}")
    check_given(model, given)
    if getattr(model, "n_features", 0) is None:
        width = n_columns(model, given)
        if width is None:
            raise ValueError(
                f"model: {model!r} has no prior as numbers to draw from; give a ConjugatePrior, or "
                "model.resolve(x) for rows x"
            )
        model = model.resolve(jnp.zeros((2, width)))
    model.check_samplable()
    return model


def _watched(plan: _Plan, model: LatentModel, params: Params, rows: _Rows) -> Mapping[str, Array]:
    """The user's quantities, or those that no renaming of labels changes."""
    if plan.watched is not None:
        return plan.watched(model, params, rows.x)
    names = tuple(f"x{j}" for j in range(rows.x.shape[1]))
    found = {
        label: value[index]
        for name, value in invariants(model, params).items()
        if name != SHARED or model.n_components > 1
        for index, label in entries(model, params, name, value, names)
    }
    weights = model.sites(params).get("weights")
    if weights is not None and model.n_components > 1:
        found["smallest weight"] = jnp.min(weights)
    return {**found, "log likelihood": model.log_likelihood(params, *rows)}


@program(static_argnames="plan")
def _ranked(
    model: LatentModel,
    key: PRNGKeyArray,
    given: Float[Array, "n d"] | None,
    count: Array | None,
    numbers: Int[Array, " b"],
    plan: _Plan,
) -> tuple[dict[str, Array], Array]:
    """Ranks of a batch of data sets, -1 where there are none, and how each ended.

    ``count`` says how many of the rows are there; None where all are.
    """

    def one(
        common: tuple[LatentModel, PRNGKeyArray, Array | None, Array | None], number: Array
    ) -> tuple[dict[str, Array], Array]:
        model, key, given, count = common
        keys = jax.random.split(jax.random.fold_in(key, number), 4)
        truth = model.draw_prior(keys[0])
        x = rows_beside(model, truth, keys[1], plan.n_rows, given)
        rows = _Rows(x, None if count is None else jnp.arange(plan.n_rows) < count)
        known = _watched(plan, model, truth, rows)
        make = _by_kernel if callable(plan.method) else _MAKERS.get(plan.method, _from_fit)
        drawn, end = make(model, rows, truth, keys[2], plan)
        # What the normal approximation has no errors of is not drawn.
        own = {name: known[name] for name in drawn}
        ties = jax.random.split(keys[3], len(own))
        finite = jnp.all(jnp.array([jnp.all(jnp.isfinite(drawn[name])) for name in own]))
        ranked = finite & jnp.isin(end, jnp.array(_RANKED))
        ranks = [_rank(k, drawn[name], own[name]) for k, name in zip(ties, own, strict=True)]
        ranks = [jnp.where(ranked, rank, -1) for rank in ranks]
        return dict(zip(own, ranks, strict=True)), end

    # Kernels take equally long, EM does not.
    together = at_once(plan.n_rows * model.n_components, float) if callable(plan.method) else 1
    return each(one, (model, key, given, count), numbers, together)


def _rank(key: PRNGKeyArray, drawn: Float[Array, " s"], own: Array) -> Int[Array, ""]:
    # A chain that stands still ties with the truth but for rounding.
    rounding = 1e-9 if drawn.dtype == jnp.float64 else 1e-5
    tied = jnp.isclose(drawn, own, rtol=rounding, atol=rounding)
    n_tied = jnp.sum(tied)
    return jnp.sum(~tied & (drawn < own)) + jax.random.randint(key, (), 0, n_tied + 1)


def _by_kernel(
    model: LatentModel, rows: _Rows, truth: Params, key: PRNGKeyArray, plan: _Plan
) -> tuple[dict[str, Array], Array]:
    """A chain in which the truth stands at a random place."""
    key_place, key_steps = jax.random.split(key)
    place = jax.random.randint(key_place, (), 0, plan.n_kept + 1)
    kernel: Any = plan.method

    def step(params: Params, step: tuple[Array, Key[Array, " t"]]) -> tuple[Params, Mapping]:
        i, keys = step
        params = jax.tree.map(lambda a, b: jnp.where(i == place, a, b), truth, params)
        again = lambda params, key: (kernel(model, rows.x, params, key), None)
        params, _ = lax.scan(again, params, keys)
        return params, _watched(plan, model, params, rows)

    steps = jnp.arange(plan.n_kept), jax.random.split(key_steps, (plan.n_kept, plan.thinning))
    return dict(lax.scan(step, truth, steps)[1]), jnp.int32(End.USED)


def _from_fit(
    model: LatentModel, rows: _Rows, truth: Params, key: PRNGKeyArray, plan: _Plan
) -> tuple[dict[str, Array], Array]:
    """Draws as `jaxgmm.sample` makes them, from the best of EM's restarts."""
    key_fit, key_draws = jax.random.split(key)
    search = em.search(model, rows.x, key_fit, plan.n_init, rows.weight)
    start, failed = search.best.params, _failures(search)
    method = str(plan.method)
    n_chains, thinning = (_CHAINS[method], plan.thinning) if method in _CHAINS else (1, 1)
    counts = n_chains, plan.n_kept // n_chains * thinning, plan.n_warmup
    drawn = bayes.draw(model, rows.x, start, key_draws, method, *counts, present=rows.present)
    end = first_of(*failed, (~drawn.sound, End.NOT_CONVERGED))
    return _thinned(model, rows, drawn.params, thinning, plan), end


def _from_prior(
    model: LatentModel, rows: _Rows, truth: Params, key: PRNGKeyArray, plan: _Plan
) -> tuple[dict[str, Array], Array]:
    """Particles of one population, which asks for no fit."""
    counts = 1, plan.n_kept * plan.thinning
    drawn = bayes.draw(model, rows.x, truth, key, str(plan.method), *counts, present=rows.present)
    end = first_of((~drawn.sound, End.NOT_CONVERGED))
    return _thinned(model, rows, drawn.params, plan.thinning, plan), end


def _thinned(
    model: LatentModel, rows: _Rows, params: Params, thinning: int, plan: _Plan
) -> dict[str, Array]:
    """What is watched, at some of the draws (chain, draw, ...)."""
    kept = lambda leaf: leaf[:, thinning - 1 :: thinning].reshape(-1, *leaf.shape[2:])
    return dict(jax.vmap(lambda one: _watched(plan, model, one, rows))(jax.tree.map(kept, params)))


def _failures(search: em.Search) -> tuple[tuple[Array, End], ...]:
    return (
        (search.failed & jnp.any(search.spurious), End.SPURIOUS),
        (search.failed, End.COLLAPSED),
    )


def _from_normal(
    model: LatentModel, rows: _Rows, truth: Params, key: PRNGKeyArray, plan: _Plan
) -> tuple[dict[str, Array], Array]:
    """Draws of each quantity's normal approximation, but of the likelihood, which is at its top."""
    key_fit, key_draws = jax.random.split(key)
    search = em.search(model, rows.x, key_fit, plan.n_init, rows.weight)
    point = search.best.params
    names = [name for name in _watched(plan, model, point, rows) if name != "log likelihood"]
    vector = lambda params: jnp.stack([_watched(plan, model, params, rows)[name] for name in names])
    errors = em.local_errors(model, point, rows.x, vector, rows.weight)
    noise = normal(key_draws, (plan.n_kept, len(names)), errors.values.dtype)
    drawn = errors.values + errors.information * noise
    drawn = jnp.where(errors.stationary, drawn, jnp.nan)
    end = first_of(
        *_failures(search),
        (search.best.status != Status.CONVERGED, End.NOT_CONVERGED),
        (~errors.stationary, End.NOT_A_MAXIMUM),
    )
    return {name: drawn[:, j] for j, name in enumerate(names)}, end


# Where it is not from a fit that draws come.
_MAKERS: dict[str, Callable[..., tuple[dict[str, Array], Array]]] = {
    "em": _from_normal,
    "smc": _from_prior,
}
