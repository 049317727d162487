"""Normal distributions around the fit: EM's standard errors, and Laplace's approximation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PRNGKeyArray
from scipy.stats import wasserstein_distance

from jaxgmm import bayes, em
from jaxgmm.bayes import Posterior
from jaxgmm.em import Fit
from jaxgmm.report.verdict._curvature import Curvature

LAPLACE_DRAWS = 1000


class Approximations(NamedTuple):
    """What stands around the fit; all None where it is no mode, and ``why``."""

    information: em.StandardErrors | None
    sandwich: em.StandardErrors | None
    laplace: Posterior | None
    why: str

    def of(
        self, site: str, index: tuple[int, ...], draws: np.ndarray, sd: float, post: Posterior
    ) -> dict[str, Any]:
        """Columns of the table for one number: errors, and how far Laplace's draws are."""
        error = lambda e: float(e.standard_errors[site][index]) if e is not None else np.nan
        distance = np.nan
        if self.laplace is not None and sd > 0:
            approximate = np.asarray(self.laplace.draws[site][(..., *index)], np.float64)
            weights = None if post.log_weights is None else np.exp(post.log_weights).ravel()
            exact = np.asarray(draws, np.float64).ravel()
            distance = float(wasserstein_distance(approximate.ravel(), exact, None, weights)) / sd
        return {
            "standard_error": error(self.information),
            "standard_error_sandwich": error(self.sandwich),
            "wasserstein": distance,
        }


def approximations(
    fit: Fit, post: Posterior, information: em.StandardErrors, shape: Curvature, key: PRNGKeyArray
) -> Approximations:
    """`Approximations` around a fit whose curvature, by its ``information``, is ``shape``."""
    if not shape.stationary or shape.n_negative or shape.n_flat:
        return Approximations(None, None, None, "the fit is not an isolated mode")
    sandwich = information.by("sandwich")
    try:
        laplace = bayes.sampled(
            fit.model,
            post.x,
            key=key,
            start=fit,
            method="laplace",
            n_chains=1,
            n_draws=LAPLACE_DRAWS,
            sample_weight=post.sample_weight,
            progress=False,
        )
    except ValueError as problem:  # derivatives that are not finite: the verdict goes on without
        return Approximations(information, sandwich, None, str(problem))
    return Approximations(information, sandwich, laplace, "")
