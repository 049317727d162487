"""Criteria by which models are compared, all on the scale of BIC: lower is better.

Those of the fit cost nothing more than the fit; the others sample or simulate, and run only
where they are asked for.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy
from jaxtyping import Array, PRNGKeyArray

from jaxgmm import bayes, em
from jaxgmm._contract import LatentModel, Params
from jaxgmm._programs import on_rung, program
from jaxgmm.bayes import Evidence, to_datatree
from jaxgmm.em import Fit, same_data
from jaxgmm.labels import n_renamings


class Case(NamedTuple):
    """One fitted model, and what a criterion may need beside the fit."""

    fit: Fit
    model: LatentModel  # as given: its prior may be a rule, and K may be raised
    x: Any
    sample_weight: Any
    key: PRNGKeyArray


class Criterion(NamedTuple):
    """Columns of the table, and the function that fills them; the first column may decide."""

    columns: tuple[str, ...]
    of: Callable[..., tuple[float, ...]]
    decides: bool = True
    asks: bool = False  # for draws or simulations
    of_fit: bool = False  # and no rows


# -- from the fit ------------------------------------------------------------------------


def _icl_entropy(case: Case) -> tuple[float]:
    near, rows, weight = same_data(case.fit, case.x, case.sample_weight)
    rows = on_rung(near.model, rows, weight)
    return (case.fit.bic + 2 * float(_entropy(near.model, near.params, *rows)),)


@program()
def _entropy(model: LatentModel, params: Params, x: Array, sample_weight: Array | None) -> Array:
    """Of the labels given the rows, summed over them."""
    labels = model.responsibilities(params, x)
    rows = -jnp.sum(xlogy(labels, labels), axis=1)
    return jnp.sum(rows if sample_weight is None else sample_weight * rows)


# -- asked for -----------------------------------------------------------------------------


def _elbo(case: Case, **options: Any) -> tuple[float]:
    """-2 (bound + log K!): the bound knows one of K! labellings (Bishop, 2006, 10.2.4).

    Or of as many as the groups of the labels allow.
    """
    post = _draws(case, {"method": "vb", "n_draws": 100, **options})
    labellings = n_renamings(case.fit.model.label_groups)
    return (-2 * (float(post.diagnostics["elbo"]) + math.log(labellings)),)


def _loo(case: Case, **options: Any) -> tuple[float, float, float]:
    """-2 elpd, labels summed out, its standard error, and rows that it does not hold for."""
    from arviz_stats import loo

    post = _draws(case, options)
    with warnings.catch_warnings():
        # Said in a column: rows whose Pareto k is too large.
        warnings.filterwarnings("ignore", message="Estimated shape parameter of Pareto")
        found: Any = loo(to_datatree(post), pointwise=True)
    # One copy of a row was left out: each copy counts.
    elpd = np.asarray(found.elpd_i, np.float64)
    copies = np.ones(elpd.shape) if post.sample_weight is None else np.asarray(post.sample_weight)
    variance = np.average((elpd - np.average(elpd, weights=copies)) ** 2, weights=copies)
    bad = np.sum(copies[np.asarray(found.pareto_k) > found.good_k])
    return -2 * float(copies @ elpd), 2 * float(np.sqrt(np.sum(copies) * variance)), float(bad)


def _evidence(
    case: Case, *, method: str | Callable[..., Evidence] = "laplace", **options: Any
) -> tuple[float, float, float]:
    """-2 log p(x), its standard error, and Pareto k where it averages importance weights.

    By an engine whose posterior carries the evidence, or by a function
    ``(fit, x, key=, sample_weight=)``.
    """
    if callable(method):
        found = method(case.fit, case.x, key=case.key, sample_weight=case.sample_weight, **options)
    else:
        found = _draws(case, {"method": method, **options}).evidence
    if found is None:
        raise ValueError(f'method={method!r} estimates no evidence; use "laplace"')
    k = getattr(found, "pareto_k", None)
    return -2 * float(found.log_evidence), 2 * float(found.error), np.nan if k is None else k


def _lrt(case: Case, *, n_replicates: int = 99, **options: Any) -> tuple[float]:
    """p-value of K against K + 1 components."""
    test = em.bootstrap_lrt(
        case.model,
        case.x,
        key=case.key,
        n_replicates=n_replicates,
        sample_weight=case.sample_weight,
        **options,
    )
    return (test.p_value,)


def _draws(case: Case, options: dict[str, Any]) -> Any:
    fit = case.fit
    settings = {"progress": False, "sample_weight": case.sample_weight, **options}
    return bayes.sampled(fit.model, case.x, key=case.key, start=fit, **settings)


# A new criterion is a function of a `Case` and one line; its key is its place here.
CRITERIA = {
    "bic": Criterion(("bic",), lambda case: (case.fit.bic,), of_fit=True),
    "icl": Criterion(("icl",), lambda case: (case.fit.icl,), of_fit=True),
    "icl_entropy": Criterion(("icl_entropy",), _icl_entropy),
    "aic": Criterion(("aic",), lambda case: (case.fit.aic,), of_fit=True),
    "mclust_bic": Criterion(
        ("mclust_bic",), lambda case: (-case.fit.bic,), decides=False, of_fit=True
    ),
    "elbo": Criterion(("elbo",), _elbo, asks=True),
    "loo": Criterion(("loo", "loo_error", "loo_bad_k"), _loo, asks=True),
    "evidence": Criterion(("evidence", "evidence_error", "evidence_k"), _evidence, asks=True),
    "lrt": Criterion(("lrt_p",), _lrt, decides=False, asks=True),
}
DECIDING = tuple(name for name, criterion in CRITERIA.items() if criterion.decides)

LABELS = {
    "bic": "BIC",
    "icl": "ICL (most probable labels)",
    "icl_entropy": "ICL (entropy)",
    "aic": "AIC",
    "mclust_bic": "BIC, mclust's sign",
    "elbo": "-2 (variational bound + log K!)",
    "loo": "-2 elpd, leave-one-out",
    "evidence": "-2 log evidence",
    "lrt_p": "p-value of K against K + 1",
    "log_likelihood": "log likelihood",
}


def evaluate(
    names: tuple[str, ...], case: Case, options: dict[str, dict[str, Any]]
) -> tuple[dict[str, float], dict[str, str]]:
    """The columns of each criterion, and by criterion why it could not be computed."""
    values, trouble = {}, {}
    for name in names:
        criterion = CRITERIA[name]
        key = jax.random.fold_in(case.key, list(CRITERIA).index(name))
        compute = functools.partial(criterion.of, case._replace(key=key))
        try:
            found = compute(**options.get(name, {}))
        except ValueError as error:
            found = (np.nan,) * len(criterion.columns)
            trouble[name] = " ".join(str(error).split())
        values.update(zip(criterion.columns, found, strict=True))
    return values, trouble


def missing(names: tuple[str, ...]) -> dict[str, float]:
    """The columns of a model without a fit."""
    return {column: np.nan for name in names for column in CRITERIA[name].columns}
