"""Criteria of a fit, inside the program of all data sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from jaxgmm import em
from jaxgmm._contract import LatentModel
from jaxgmm.report.studies._case import Rows, Setting


class Fitted(NamedTuple):
    """What criteria are made of, lower is better as in `jaxgmm.select`."""

    log_likelihood: Array
    log_certainty: Array  # sum over rows of the log probability of the most probable label
    n_parameters: int
    n_rows: Array

    @property
    def bic(self) -> Array:
        return self.n_parameters * jnp.log(self.n_rows) - 2 * self.log_likelihood


CRITERIA: dict[str, Callable[[Fitted], Array]] = {
    "bic": lambda fit: fit.bic,
    "icl": lambda fit: fit.bic - 2 * fit.log_certainty,
    "aic": lambda fit: 2 * fit.n_parameters - 2 * fit.log_likelihood,
}


def criteria(
    model: LatentModel, rows: Rows, key: PRNGKeyArray, setting: Setting
) -> dict[str, Array]:
    """All of them, of one model on one data set; infinite where it has no fit."""
    x, weight = rows.x, rows.weight
    model = model.resolve(x, weight)
    found = em.search(model, x, key, setting.n_init, weight, max_iter=setting.max_iter)
    labels = model.responsibilities(found.best.params, x)
    fit = Fitted(
        found.best.log_likelihood,
        jnp.sum(weight * jnp.log(jnp.max(labels, axis=1))),
        model.n_parameters(x.shape[1]),
        jnp.sum(weight),
    )
    return {name: jnp.where(found.failed, jnp.inf, of(fit)) for name, of in CRITERIA.items()}
