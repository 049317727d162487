"""Tier C: what predictions from the point lose against those of the posterior; the evidence."""

from __future__ import annotations

import dataclasses

import numpy as np
from arviz_stats.base import array_stats
from jaxtyping import PRNGKeyArray
from scipy.special import logsumexp

from jaxgmm._posterior import Posterior
from jaxgmm._results import Fit
from jaxgmm.report._approximations import Approximations
from jaxgmm.report._check import OK, WARNING, Check, not_applicable
from jaxgmm.report._decide import MOST_PARETO_K
from jaxgmm.report._draws import some_rows

VARIATION = "total variation, plug-in against predictive"

# Draws that leave-one-out weighs, and rows at which two densities are compared.
_LOO_DRAWS = 1000
_DENSITY_ROWS = 2000

_MOST_OPTIMISM = 2.0
_MOST_VARIATION = 0.1
_MOST_EVIDENCE_ERROR = 0.5


def predict(
    fit: Fit, post: Posterior, few: Posterior, near: Approximations, key: PRNGKeyArray
) -> list[Check]:
    """The lines of tier C; ``few`` are thinned draws."""
    return [*_leave_one_out(fit, post), _variation(fit, few, key), _evidence(post, near)]


def _leave_one_out(fit: Fit, post: Posterior) -> list[Check]:
    """Score of the point in sample against that of the posterior out of it.

    Leave-one-out by Pareto-smoothed importance sampling (Vehtari, Gelman and Gabry, 2017); for
    large n the difference is the number of parameters (Stone, 1977).
    """
    rows, n = some_rows(post), post.x.shape[0]
    some = post.thin(_LOO_DRAWS)
    weight = None if post.sample_weight is None else post.sample_weight[rows]
    some = dataclasses.replace(some, x=post.x[rows], sample_weight=weight)
    scores = some.pointwise_log_likelihood().reshape(-1, len(rows)).astype(np.float64)
    log_weights, k = array_stats.psislw(scores, axis=0)
    elpd = logsumexp(scores + np.moveaxis(log_weights, -1, 0), axis=0)
    plug_in = np.asarray(fit.model.log_prob(fit.params, some.x), np.float64)
    plug_in = plug_in if weight is None else plug_in * np.asarray(weight)
    lost = plug_in - elpd
    optimism = float(np.mean(lost) * n)
    error = float(np.std(lost) / np.sqrt(len(rows)) * n)
    most = _MOST_OPTIMISM * fit.n_parameters
    worst = float(np.max(k))
    size = f"{len(rows)} rows, {some.log_prior.size} draws"
    return [
        Check(
            "optimism of the plug-in score over LOO (nats)",
            optimism,
            f"<= {most:g}",
            OK if optimism <= most else WARNING,
            f"+- {error:.1f}; {fit.n_parameters} parameters explain {fit.n_parameters}; LOO elpd "
            f"{np.mean(elpd) * n:.1f} ({size})",
        ),
        Check(
            "largest Pareto k of LOO",
            worst,
            f"<= {MOST_PARETO_K}",
            OK if worst <= MOST_PARETO_K else WARNING,
            "no row decides alone"
            if worst <= MOST_PARETO_K
            else f"{int(np.sum(k > MOST_PARETO_K))} row(s) shape the posterior, their LOO is rough",
        ),
    ]


def _variation(fit: Fit, few: Posterior, key: PRNGKeyArray) -> Check:
    """Half the integral of |plug-in - predictive|, at rows drawn from the plug-in density."""
    rows = fit.model.sample(fit.params, key, _DENSITY_ROWS)
    plug_in = np.asarray(fit.model.log_prob(fit.params, rows), np.float64)
    predictive = np.asarray(few.log_prob(rows), np.float64)
    missing = np.maximum(0.0, -np.expm1(predictive - plug_in))
    distance, error = float(np.mean(missing)), float(np.std(missing) / np.sqrt(len(missing)))
    ok = distance <= _MOST_VARIATION
    return Check(
        VARIATION,
        distance,
        f"<= {_MOST_VARIATION}",
        OK if ok else WARNING,
        f"+- {error:.2g}; "
        + ("predictions from the point will do" if ok else "predict from the posterior")
        + f" ({_DENSITY_ROWS} rows, {few.log_prior.size} draws)",
    )


def _evidence(post: Posterior, near: Approximations) -> Check:
    source = near.laplace if post.evidence is None else post
    if source is None or source.evidence is None:
        return not_applicable("log evidence", f"{post.method} does not estimate it")
    found, tail = source.evidence, float(source.diagnostics.get("pareto_k_t", -np.inf))
    ok = found.error <= _MOST_EVIDENCE_ERROR and tail <= MOST_PARETO_K
    whose = "" if source is post else "Laplace's at the fit: "
    doubt = "" if tail <= MOST_PARETO_K else f"; not to be trusted, Pareto k {tail:.2f}"
    return Check(
        "log evidence",
        float(found.log_evidence),
        f"error <= {_MOST_EVIDENCE_ERROR}",
        OK if ok else WARNING,
        f"+- {found.error:.2g}; {whose}{found.method}{doubt}",
    )
