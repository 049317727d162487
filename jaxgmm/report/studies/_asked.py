"""Criteria that draw or simulate: one data set after another, as `jaxgmm.select` has them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from jaxgmm import em
from jaxgmm._checks import check_name
from jaxgmm._contract import LatentModel
from jaxgmm.report.selection._criteria import DECIDING
from jaxgmm.report.selection._select import select
from jaxgmm.report.studies._case import Setting
from jaxgmm.report.studies._criteria import CRITERIA

LRT = "lrt"
ASKED = tuple(name for name in (*DECIDING, LRT) if name not in CRITERIA)

# The engine behind a criterion, unless its options name another.
ENGINES = {"elbo": "vb", "loo": "gibbs", "evidence": "laplace"}

# A model is given up for the next one at this level of the test.
_LEVEL = 0.05
_REPLICATES = 99

Options = Mapping[str, Mapping[str, Any]]


def checked(criteria: Sequence[str] | Options) -> Options:
    """Criteria as the user names them, with their options."""
    if isinstance(criteria, str):
        criteria = (criteria,)
    if not isinstance(criteria, Mapping):
        criteria = {name: {} for name in criteria}
    for name, options in criteria.items():
        check_name("criteria", name, (*CRITERIA, *ASKED))
        if options and name not in ASKED:
            raise ValueError(f"criteria: {name!r} has no options, found {dict(options)}")
    return criteria


def check_order(criteria: Options, models: tuple[LatentModel, ...]) -> None:
    """The test goes from smaller to larger models."""
    counts = [model.n_components for model in models]
    if LRT in criteria and counts != sorted(counts):
        raise ValueError(
            'select: criteria "lrt" tests each model against the next, which needs at least as '
            f"many components; found {', '.join(map(str, counts))}"
        )


def engines_of(criteria: Options) -> list[Any]:
    """What draws for criteria."""
    asking = {name: criteria[name] for name in ENGINES if name in criteria}
    return [options.get("method", ENGINES[name]) for name, options in asking.items()]


def asked(
    criteria: Options,
    models: tuple[LatentModel, ...],
    x: Float[np.ndarray, "b n d"],
    keys: Sequence[PRNGKeyArray],
    setting: Setting,
) -> dict[str, Float[np.ndarray, "b m"]]:
    """Values of criteria by name, for each data set and model.

    Lower is better, and infinite where there is none; of the test the p-values of each model
    against the next, up to the first that is not given up, and NaN from there.
    """
    names = tuple(name for name in criteria if name in ASKED and name != LRT)
    options = {name: _settings(name, setting) | dict(criteria[name]) for name in names}
    found: dict[str, list[np.ndarray]] = {name: [] for name in criteria if name in ASKED}
    for rows, key in zip(x, keys, strict=True):
        if names:
            chosen = select(
                models,
                rows,
                key=key,
                criteria=names,
                options=options,
                n_init=setting.n_init,
                progress=False,
            )
            able = (chosen.table["reason"] == "").to_numpy()
            for name in names:
                values = chosen.table[name].to_numpy(float)
                found[name].append(np.where(able & ~np.isnan(values), values, np.inf))
        if LRT in found:
            found[LRT].append(_p_values(models, rows, key, criteria[LRT]))
    return {name: np.stack(values) for name, values in found.items()}


def picked(name: str, values: Float[np.ndarray, "n m"]) -> np.ndarray:
    """The model that a criterion picks on each data set; -1 where it has none."""
    stands = values > _LEVEL if name == LRT else values == np.min(values, axis=1, keepdims=True)
    stands &= np.isfinite(values)
    return np.where(stands.any(axis=1), np.argmax(stands, axis=1), -1)


def _settings(name: str, setting: Setting) -> dict[str, Any]:
    if name not in ("loo", "evidence"):
        return {}
    shared = {"method": ENGINES[name], "n_draws": setting.n_draws, "n_chains": setting.n_chains}
    return shared | ({"n_warmup": setting.n_warmup} if name == "loo" else {})


def _p_values(
    models: tuple[LatentModel, ...], x: np.ndarray, key: PRNGKeyArray, options: Mapping[str, Any]
) -> Float[np.ndarray, " m"]:
    found = np.full(len(models), np.nan)
    for i, (model, larger) in enumerate(itertools.pairwise(models)):
        own = {"n_replicates": _REPLICATES, **options, "alternative": larger}
        try:
            found[i] = em.bootstrap_lrt(model, x, key=jax.random.fold_in(key, i), **own).p_value
        except ValueError:  # no proper fit of one of the two
            found[i] = np.inf
        if found[i] > _LEVEL:
            return found
    # The last model has no other to be given up for.
    found[-1] = 1.0
    return found
