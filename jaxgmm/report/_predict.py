"""Tier C: what predictions from the point lose against those of the posterior; the evidence."""

from __future__ import annotations

import numpy as np
from arviz_stats.base import array_stats
from jaxtyping import Array, PRNGKeyArray
from scipy.special import logsumexp

from jaxgmm._contract import LatentModel, Params
from jaxgmm._posterior import Posterior
from jaxgmm._programs import program
from jaxgmm._results import Fit
from jaxgmm.report._approximations import Approximations
from jaxgmm.report._check import OK, WARNING, Check, not_applicable
from jaxgmm.report._decide import MOST_PARETO_K
from jaxgmm.report._draws import Seen, look

LOO = "optimism of the plug-in score over LOO (nats)"
LOO_K = "largest Pareto k of LOO"
VARIATION = "total variation, plug-in against predictive"

# Fewer have no tail to smooth.
_LEAST_DRAWS = 25
_MOST_OPTIMISM = 2.0
_MOST_VARIATION = 0.1
_MOST_EVIDENCE_ERROR = 0.5


def predict(
    fit: Fit, post: Posterior, near: Approximations, seen: Seen, key: PRNGKeyArray
) -> list[Check]:
    """The lines of tier C."""
    return [
        *_leave_one_out(fit, post, seen),
        _variation(fit, post, seen, key),
        _evidence(post, near),
    ]


def _leave_one_out(fit: Fit, post: Posterior, seen: Seen) -> list[Check]:
    """Score of the point in sample against that of the posterior out of it.

    Leave-one-out by Pareto-smoothed importance sampling (Vehtari, Gelman and Gabry, 2017); for
    large n the difference is the number of parameters (Stone, 1977). One copy of a row is left
    out, the others stay.
    """
    # Copies of a draw, which resampled weights make, are that draw with their number as weight.
    distinct, copies = np.unique(seen.log_density, axis=0, return_counts=True)
    if len(distinct) < _LEAST_DRAWS:
        why = f"only {len(distinct)} distinct draws"
        return [not_applicable(LOO, why), not_applicable(LOO_K, why)]
    log_weights, k = array_stats.psislw(distinct - np.log(copies)[:, None], axis=0)
    elpd = logsumexp(distinct + np.moveaxis(log_weights, -1, 0), axis=0)
    weight = post.sample_weight
    n = post.x.shape[0] if weight is None else float(np.sum(np.asarray(weight, np.float64)))
    mean = lambda values: float(np.average(values, weights=seen.copies))
    lost = seen.fit_log_density - elpd
    optimism = mean(lost) * n
    error = np.sqrt(mean((lost - mean(lost)) ** 2) / np.sum(seen.copies)) * n
    most, worst = _MOST_OPTIMISM * fit.n_parameters, float(np.max(k))
    return [
        Check(
            LOO,
            optimism,
            f"<= {most:g}",
            OK if optimism <= most else WARNING,
            f"+- {error:.1f}; {fit.n_parameters} parameters explain {fit.n_parameters}; LOO elpd "
            f"{mean(elpd) * n:.1f} ({seen.size})",
        ),
        Check(
            LOO_K,
            worst,
            f"<= {MOST_PARETO_K}",
            OK if worst <= MOST_PARETO_K else WARNING,
            "no row decides alone"
            if worst <= MOST_PARETO_K
            else f"{np.sum(seen.copies[k > MOST_PARETO_K]):g} row(s) shape the posterior, their "
            "LOO is rough",
        ),
    ]


def _variation(fit: Fit, post: Posterior, seen: Seen, key: PRNGKeyArray) -> Check:
    """Half the integral of |plug-in - predictive|, at rows drawn from the plug-in density."""
    count = len(seen.each_copy)
    rows = _sampled(fit.model, fit.params, key, count)
    there = look(fit, post, rows.astype(post.x.dtype), np.ones(count))
    predictive = logsumexp(there.log_density, axis=0) - np.log(len(there.log_density))
    missing = np.maximum(0.0, -np.expm1(predictive - there.fit_log_density))
    distance, error = float(np.mean(missing)), float(np.std(missing) / np.sqrt(len(missing)))
    ok = distance <= _MOST_VARIATION
    return Check(
        VARIATION,
        distance,
        f"<= {_MOST_VARIATION}",
        OK if ok else WARNING,
        f"+- {error:.2g}; "
        + ("predictions from the point will do" if ok else "predict from the posterior")
        + f" ({seen.size})",
    )


@program(static_argnames="n")
def _sampled(model: LatentModel, params: Params, key: PRNGKeyArray, n: int) -> Array:
    return model.sample(params, key, n)


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
