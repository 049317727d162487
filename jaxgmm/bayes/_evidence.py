"""The evidence as a noun."""

from __future__ import annotations

from typing import NamedTuple

from jaxgmm.files import stored


@stored
class Evidence(NamedTuple):
    """Log of the integral of prior times likelihood, over all labellings.

    Attributes
    ----------
    log_evidence : float
        log p(x), the rows in the user's units.
    error : float
        Its standard error, by the estimator's own formula.
    method : str
        The estimator, and how it counted the labellings, in words.
    pareto_k : float or None
        Where it averages importance weights: the shape of their tail. Above 0.7 neither the
        number nor its error is to be trusted.
    """

    log_evidence: float
    error: float
    method: str
    pareto_k: float | None = None
