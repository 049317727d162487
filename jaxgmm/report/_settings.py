"""Fits and posteriors in reports for machines: how they were made, and what came of it."""

from __future__ import annotations

from typing import Any

from jaxgmm.bayes import Posterior
from jaxgmm.em import Fit


def data_record(fit: Fit) -> dict[str, Any]:
    """What is known of the data without them."""
    names = ("n_rows", "total_weight", "feature_names", "fingerprint")
    return {name: getattr(fit, name) for name in names}


def fit_settings(fit: Fit) -> dict[str, Any]:
    """How a fit was made, and what came of it."""
    names = ("start", "seed", "tol", "max_iter", "algorithm", "acceleration", "converged")
    ends = ("n_iter", "n_parameters", "log_joint", "log_likelihood", "log_prior")
    found = {name: getattr(fit, name) for name in (*names, *ends, "bic", "aic", "icl")}
    return {"n_init": len(fit.restarts.status), "status": fit.message, **found}


def posterior_settings(post: Posterior) -> dict[str, Any]:
    """How draws were made, and what they are worth."""
    names = ("method", "seed", "n_chains", "n_draws", "n_warmup", "label_method")
    ends = ("pareto_k", "effective_draws", "ambiguous_labels")
    return {**{name: getattr(post, name) for name in (*names, *ends)}, **post.settings}
