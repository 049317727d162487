"""The door to studies: checks, what estimates should be, batches, tables."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from jaxgmm import bayes, em
from jaxgmm._checks import check_count, check_key, check_name, key_numbers
from jaxgmm._contract import LatentModel, Params
from jaxgmm._programs import size_for
from jaxgmm.files import check_folder
from jaxgmm.model import forms_of_start, same_form
from jaxgmm.report._code import key_code, model_code, quoted
from jaxgmm.report.studies import _batches
from jaxgmm.report.studies._asked import ASKED, Options, check_order, checked, engines_of
from jaxgmm.report.studies._case import Setting
from jaxgmm.report.studies._given import Given, filled, given_of, rows_beside, some_of
from jaxgmm.report.studies._methods import METHODS, Method
from jaxgmm.report.studies._quantities import quantities, values
from jaxgmm.report.studies._result import Study
from jaxgmm.report.studies._scores import scores, selection

# Numbers in the rows of a batch, and most data sets in one: what is lost by an interruption,
# fewer where each takes seconds.
_BATCH_NUMBERS, _MOST_IN_BATCH, _FEW_IN_BATCH = 2**22, 100, 10

# Rows from which the target of a model that lacks the truth is estimated.
_TARGET_ROWS = 50_000

# The least of each.
_COUNTS = {
    "n_init": 1,
    "n_chains": 1,
    "n_draws": 4,
    "n_warmup": 0,
    "n_replicates": 2,
    "n_held_out": 1,
    "max_iter": 1,
}

# What the study itself draws, beside the data sets.
_LOOK, _TARGET, _HELD_OUT = 2**32 - 1, 2**32 - 2, 2**32 - 3


def study(
    truth: LatentModel,
    params: Params,
    *,
    n: int,
    key: PRNGKeyArray,
    n_datasets: int = 1000,
    methods: Sequence[str] | Mapping[str, str | Method] = ("em",),
    model: LatentModel | None = None,
    select: Sequence[LatentModel] = (),
    criteria: Sequence[str] | Options = ("bic", "icl", "aic"),
    n_init: int = 16,
    levels: Sequence[float] = (0.5, 0.89, 0.95),
    n_chains: int = 4,
    n_draws: int = 500,
    n_warmup: int = 100,
    n_replicates: int = 200,
    n_held_out: int = 500,
    max_iter: int = 1000,
    given: Any = None,
    feature_names: Sequence[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Study:
    """Simulate data sets from a truth and see what each method says of it.

    Data sets are drawn, fitted and judged on the device, a batch at a time; only summaries come
    back.

    Parameters
    ----------
    truth : LatentModel
        The model that data are drawn from; its prior does not matter.
    params : parameters
        Those that data are drawn at, such as ``truth.params(...)`` makes. Their dtype is that of
        the study.
    n : int
        Rows of each data set.
    key : typed random key
        Data set i has the key ``jax.random.fold_in(key, i)``, whatever the methods.
    n_datasets : int
        How many.
    methods : sequence of str, or mapping
        ``"em"`` (intervals by the information) and ``"em-sandwich"``; ``"bootstrap"``,
        ``"bootstrap-weighted"``, ``"bootstrap-parametric"``; ``"laplace"``, ``"vb"``,
        ``"gibbs"``, ``"nuts"``, ``"smc"``, ``"svi"``, which need a proper prior. A mapping names
        them anew, and its values may be functions of a `jaxgmm.report.Case` that return a
        `jaxgmm.report.Outcome`.
    model : LatentModel, optional
        What is fitted, the truth by default. A data-dependent prior is resolved for each data
        set. Where it is not the truth with another prior, its estimates are compared with those
        of 50,000 rows, which stand for the parameters nearest to the truth (White, 1982).
    select : sequence of LatentModel
        Models that the criteria choose from on each data set.
    criteria : sequence of str, or mapping
        ``"bic"``, ``"icl"`` and ``"aic"`` come with the fits, all data sets in one program. Those
        of `jaxgmm.select` that draw or simulate, ``"icl_entropy"``, ``"elbo"``, ``"loo"`` (by
        Gibbs sampling), ``"evidence"``, and ``"lrt"``, take a data set after the other: seconds
        of each, where a fit takes milliseconds. ``"lrt"`` tests each model against the next
        with 99 replicates and picks the first that is not given up at 5% (McLachlan, 1987). A
        mapping has options by name, as in `jaxgmm.select`.
    n_init : int
        Restarts of EM, of each model.
    levels : sequence of float
        Probabilities of the intervals.
    n_chains, n_draws, n_warmup : int
        Chains of ``"gibbs"`` and ``"nuts"``, draws of each, and what goes before them;
        ``"laplace"``, ``"vb"`` and ``"svi"`` make ``n_draws`` independent ones, ``"smc"`` as many
        particles.
    n_replicates : int
        Replicates of a bootstrap.
    n_held_out : int
        Rows on which densities are judged.
    max_iter : int
        Most M-steps of a restart.
    given : (N, D) array or table, optional
        Of a truth that draws rows beside columns that are given, such as the covariates of a
        regression: rows that have them, as in ``truth.sample``. All data sets have the same: these
        rows where N is n, or else n of them drawn with replacement, as those held out are.
    feature_names : sequence of str, optional
        Names of the columns; ``x0, x1, ...`` by default.
    path : path, optional
        A folder with a file for each batch, whole or not there; a study that was interrupted goes
        on from it with the same numbers.
    progress : bool
        Whether to show a bar, with an estimate of what is left.

    Returns
    -------
    Study

    Raises
    ------
    ValueError, TypeError
        For arguments that do not fit, a prior that a method cannot use, a folder that holds another
        study, and a truth without what it needs to be ``given`` of each row.

    Notes
    -----
    Labels of a fit are matched to the truth as in `jaxgmm.bootstrap`, those of draws to the fit by
    Stephens' algorithm. A data set on which a method has no answer is left out of its tables and
    counted in ``failures``; where only the labels are ambiguous, what no renaming changes stays.
    The partition is compared with labels drawn given rows and truth, which are as if they had
    been drawn before the rows.

    References
    ----------
    Basford, Greenway, McLachlan and Peel (1997), Computational Statistics 12:1-17, and O'Hagan,
    Murphy, Scrucca and Gormley (2019), Computational Statistics 34:1779-1813, for such studies;
    McLachlan (1987), Applied Statistics 36:318-324, for the test of one model after the other;
    Morris, White and Crowther (2019), Statistics in Medicine 38:2074-2102, for Monte-Carlo errors;
    White (1982), Econometrica 50:1-25, for models without the truth.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> truth = jg.Mixture(jg.Gaussian("tied"), 2)
    >>> params = truth.params(means=[0.0, 5.0], covariances=[[1.0]])
    >>> found = jg.study(truth, params, n=100, n_datasets=40, key=jax.random.key(0), n_init=2)
    >>> int(found.failures.loc["em", "used"])
    40
    >>> bool(0.6 < found.coverage.loc[("em", "means[0, x0]", 0.89), "coverage"] <= 1)
    True
    """
    named = _methods(methods)
    asked = (n_init, n_chains, n_draws, n_warmup, n_replicates, n_held_out, max_iter)
    counts = dict(zip(_COUNTS, asked, strict=True))
    check_count("n", n, 2)
    check_count("n_datasets", n_datasets, 2)
    for name, least in _COUNTS.items():
        check_count(name, counts[name], least)
    check_key(key, "data sets are random")
    levels = _levels(levels)
    criteria = checked(criteria)
    folder = None if path is None else Path(path)
    if folder is not None:
        check_folder(folder)
    model, candidates = truth if model is None else model, tuple(select)
    # Few numbers of rows are compiled for.
    able = all(getattr(one, "fills_up", False) for one in (model, *candidates))
    n_rows = size_for(n) if able else n
    look, whole = _looked_at(truth, params, given, n, n_rows, key)
    _check_model(model, look, [name for name in bayes.WITHIN if METHODS[name] in named.values()])
    engines = engines_of(criteria)
    for candidate in candidates:
        _check_model(candidate, look, engines, "select")
    check_order(criteria, candidates)

    contains = _kind(model) == _kind(truth)
    target = params if contains else _target(truth, params, model, whole, key)
    # With weights only where it matters which rows a data set has.
    weight = None if whole is None else jnp.asarray(np.arange(n_rows) < n, look.dtype)
    sized = model.resolve(look, weight)
    if whole is not None:
        # What is made of parameters at the average covariates, such as weights of gates.
        target = sized.from_sites(sized.sites(target))
    sized = sized.settled(target)
    names = _names(feature_names, look.shape[1])
    wanted = quantities(sized, target, names)
    setting = Setting(wanted, levels, n_rows, truth.n_components, **counts)
    asks = candidates and set(ASKED) & set(criteria)
    most = max(1, min(_FEW_IN_BATCH if asks else _MOST_IN_BATCH, _BATCH_NUMBERS // look.size))
    batch = -(-n_datasets // -(-n_datasets // most))
    tried = tuple(_in_numbers(candidate, look, weight) for candidate in candidates)
    fitted = _in_numbers(model, look, weight).settled(target)
    beside = None
    if whole is not None:
        beside = Given(look, jax.device_put(some_of(whole, n_held_out, key, _HELD_OUT)))
    known = _in_numbers(truth, look, weight)
    problem = _batches.Problem(known, params, fitted, target, tried, beside)
    tasks = _batches.Asked(named, criteria)
    record = _batches.run(problem, setting, tasks, key, n, n_datasets, batch, folder, progress)
    found = scores(record, wanted, np.asarray(values(wanted, sized, target), float), levels)
    settings = {
        "truth": repr(truth),
        "model": repr(model),
        "contains_truth": contains,
        "dtype": str(look.dtype),
        "methods": tuple(named),
        "criteria": tuple(criteria) if candidates else (),
        "levels": levels,
        "seed": key_numbers(key),
        "n": n,
        "n_datasets": n_datasets,
        **({} if whole is None else {"n_given": len(whole)}),
        **counts,
    }
    settings["code"] = _code(truth, params, model, candidates, criteria, settings)
    right = [_kind(candidate) == _kind(truth) for candidate in candidates]
    chosen = selection(record.criteria, candidates, right)
    return Study(*found, selection=chosen, settings=settings, record=record)


def _code(
    truth: LatentModel,
    params: Params,
    model: LatentModel,
    candidates: tuple[LatentModel, ...],
    criteria: Options,
    settings: dict[str, Any],
) -> str:
    """Python that makes the study again."""
    sites = {name: np.asarray(site).tolist() for name, site in truth.sites(params).items()}
    arrays = "".join(f"    {quoted(name)}: jnp.array({site}),\n" for name, site in sites.items())
    lines = [
        "import jax\nimport jax.numpy as jnp\nimport jaxgmm as jg\n",
        'jax.config.update("jax_enable_x64", True)  # for data in double precision',
        f"truth = {model_code(truth)}",
        f"params = truth.from_sites({{\n{arrays}}})",
        f"model = {model_code(model)}",
    ]
    asked = ("n", "n_datasets", "methods", "levels", *_COUNTS)
    options = "".join(f"    {name}={settings[name]!r},\n" for name in asked)
    if "n_given" in settings:
        lines.append(f"given = ...  # the {settings['n_given']} rows that have the covariates")
        options += "    given=given,\n"
    if candidates:
        models = "".join(f"        {model_code(one)},\n" for one in candidates)
        named = {name: dict(how) for name, how in criteria.items()}
        options += f"    select=[\n{models}    ],\n    criteria={named!r},\n"
    call = f"    truth, params, model=model, key={key_code(settings['seed'])},\n{options}"
    return "\n".join([*lines, f"found = jg.study(\n{call})", 'found.save("study")\n'])


def _methods(methods: Sequence[str] | Mapping[str, str | Method]) -> dict[str, Method]:
    if isinstance(methods, str):
        methods = (methods,)
    if not methods:
        raise ValueError(f"methods: needs at least one of {', '.join(METHODS)}; found none")
    if not isinstance(methods, Mapping):
        methods = {name: name for name in methods}
    return {
        str(name): what if callable(what) else METHODS[check_name("methods", what, METHODS)]
        for name, what in methods.items()
    }


def _levels(levels: Sequence[float]) -> tuple[float, ...]:
    found = tuple(float(level) for level in np.atleast_1d(np.asarray(levels, float)))
    for level in found:
        if not 0 < level < 1:
            raise ValueError(f"levels: need numbers between 0 and 1, such as 0.95; found {level:g}")
    if not found:
        raise ValueError("levels: needs at least one, such as (0.95,); found none")
    return found


def _names(given: Sequence[str] | None, width: int) -> tuple[str, ...]:
    names = tuple(f"x{j}" for j in range(width)) if given is None else tuple(map(str, given))
    if len(names) != width:
        raise ValueError(f"feature_names: needs {width} name(s), found {len(names)}")
    return names


def _looked_at(
    truth: LatentModel, params: Params, given: Any, n: int, n_rows: int, key: PRNGKeyArray
) -> tuple[jax.Array, np.ndarray | None]:
    """Rows of the truth, and all that it is given; a refusal where these do not fit together.

    ``n`` rows, and the first ones again until there are ``n_rows`` where something is given.
    """
    if not isinstance(truth, LatentModel):
        raise TypeError(
            f"truth: needs a model such as jaxgmm.Mixture, found {type(truth).__name__}; pass "
            "truth=fit.model and params=fit.params for a check of a fit"
        )
    leaves = jax.tree.leaves(params)
    if not leaves or not all(hasattr(leaf, "dtype") for leaf in leaves):
        raise TypeError(
            "params: needs parameters of the truth, such as truth.params(...) makes; found "
            f"{type(params).__name__}"
        )
    if not all(np.all(np.isfinite(leaf)) for leaf in leaves):
        raise ValueError("params: hold a non-finite value; use finite ones")
    refusal = (
        f"params: do not fit {truth!r}: needs what truth.params(...) makes, found "
        f"{type(params).__name__} with shapes {[jnp.shape(leaf) for leaf in leaves]}"
    )
    own = jax.random.fold_in(key, _LOOK)
    try:
        whole = given_of(truth, params, given, own)
        beside = None if whole is None else filled(some_of(whole, n, key, _LOOK), n_rows)
        x = rows_beside(truth, params, own, n_rows, beside)
        _, needed = forms_of_start(truth.resolve(x), x)
    except (AttributeError, TypeError, IndexError, KeyError) as error:
        if str(error).startswith("given:"):
            raise
        raise TypeError(refusal) from error
    if not same_form(params, needed):
        raise ValueError(refusal)
    return x, whole


def _check_model(
    model: LatentModel, x: jax.Array, engines: Collection[Any], argument: str = "model"
) -> None:
    if not isinstance(model, LatentModel):
        found = type(model).__name__
        raise TypeError(f"{argument}: needs models such as jaxgmm.Mixture, found {found}")
    resolved = em.prepare(model, x, None, mode=True).model
    if engines:
        resolved.check_samplable()
    if {"gibbs", "vb"} & set(engines):
        working = resolved.standardise(x)
        even = jnp.full((len(x), model.n_components), 1 / model.n_components, x.dtype)
        working.updated(working.statistics(even, x))


def _in_numbers(model: LatentModel, x: jax.Array, weight: jax.Array | None) -> LatentModel:
    """Hyper-parameters as arrays: programs know no lists. A rule stays one, for each data set.

    Rows that have a ``weight`` tell what is known once and for all, such as which repeats are
    absent.
    """
    name = getattr(model, "prior_name", "")
    if weight is None:
        return model.resolve(x) if name == "conjugate" else model
    known: Any = model.resolve(x, weight)
    rule = name not in ("", "none", "conjugate", "sites")
    return dataclasses.replace(known, prior=model.prior) if rule else known  # type: ignore


def _kind(model: LatentModel) -> tuple[Any, ...]:
    """What models that differ in their prior share, whatever tables they have read."""
    family = getattr(model, "family", None)
    named = None if family is None else (family.label, *family.beside.items())
    return type(model), model.n_components, named


def _target(
    truth: LatentModel,
    params: Params,
    model: LatentModel,
    whole: np.ndarray | None,
    key: PRNGKeyArray,
) -> Params:
    """The parameters of a model that are nearest to the truth, from many rows of it."""
    key_rows, key_starts = jax.random.split(jax.random.fold_in(key, _TARGET))
    beside = None if whole is None else jax.device_put(some_of(whole, _TARGET_ROWS, key, _TARGET))
    x = rows_beside(truth, params, key_rows, _TARGET_ROWS, beside)
    return em.fit(model, x, key=key_starts, n_init=16).params
