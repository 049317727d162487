"""The evidence as a noun."""

from __future__ import annotations

from typing import NamedTuple


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
    """

    log_evidence: float
    error: float
    method: str
