"""A prior that holds the model where the data are not."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from arviz_stats.base import array_stats
from jaxtyping import Float
from scipy.special import softmax

from jaxgmm.bayes import Posterior
from jaxgmm.report._draws import Seen
from jaxgmm.report.verdict._check import OK, WARNING, Check, not_applicable
from jaxgmm.report.verdict._loo import LEAST_DRAWS

CONFLICT = "sensitivity of the log likelihood to the prior"

# Powers of the prior, ArviZ's, and the sensitivity at which twice the prior moves a quantity by
# two of its sd: at 0.05 it is 0.3 of them (Kallioinen et al., 2024), where a prior matters
# without being in anybody's way.
_POWERS = 0.99, 1.01
_MOST_SENSITIVE = 1 / 3
# Of a hundred data sets that the model makes, two are as far from the middle.
_LEAST_P = 0.02


def conflict(post: Posterior, seen: Seen, replicated: Float[np.ndarray, "s m"]) -> Check:
    """Whether the prior costs likelihood, and the data do not look like the model's.

    Power-scaling sensitivity (Kallioinen, Paananen, Buerkner and Vehtari, 2024) of the log
    likelihood, which no renaming of labels changes. ``replicated`` has the log densities of rows
    drawn at each draw: where a prior holds the model off, the data's have another mean or sd.
    """
    draws = post.resample()
    if len(np.unique(draws.log_prior)) < LEAST_DRAWS:
        return not_applicable(CONFLICT, "too few draws, or a prior that does not vary over them")
    try:
        value = _sensitivity(draws.log_likelihood, draws.log_prior)
    except ValueError:  # ArviZ's, of a tail of equal values
        return not_applicable(CONFLICT, "a few draws stand for all")
    strong, alike = value > _MOST_SENSITIVE, _alike(seen, replicated)
    if not strong:
        meaning = "another weight of the prior would fit the data as well"
    elif alike:
        meaning = "the prior is strong, and the data look like the model's all the same"
    else:
        meaning = (
            "prior in conflict with the data: a weaker one would fit them better, and they do not "
            "look like what the model makes, so neither estimates nor predictions are the data's"
        )
    verdict = WARNING if strong and not alike else OK
    return Check(CONFLICT, value, f"<= {_MOST_SENSITIVE:.2f}", verdict, meaning)


def _sensitivity(quantity: Float[np.ndarray, "c d"], log_prior: Float[np.ndarray, "c d"]) -> float:
    stats: Any = array_stats  # declared with narrower types than it takes
    quantity, log_prior = (np.asarray(a, np.float64) for a in (quantity, log_prior))
    with warnings.catch_warnings():
        # Draws that are copies of each other may make a tail without a shape.
        warnings.simplefilter("ignore", UserWarning)
        scaled = [
            softmax(stats.power_scale_lw(log_prior, alpha=power, axis=(-2, -1)))
            for power in _POWERS
        ]
    return float(stats.power_scale_sense(quantity, *scaled, *_POWERS))


def _alike(seen: Seen, replicated: Float[np.ndarray, "s m"]) -> bool:
    """Whether mean and sd of the rows' log densities are those of data that the model makes."""
    share = seen.copies / np.sum(seen.copies)
    mean = seen.log_density @ share
    sd = np.sqrt((seen.log_density - mean[:, None]) ** 2 @ share)
    below = [
        np.mean(np.mean(replicated, axis=1) <= mean),
        np.mean(np.std(replicated, axis=1) <= sd),
    ]
    return min(2 * min(p, 1 - p) for p in below) > _LEAST_P
