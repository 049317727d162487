"""Posteriors: samplers of the NumPyro model, and labels matched afterwards."""

from jaxgmm.bayes._bridge import evidence
from jaxgmm.bayes._relabel import stephens
from jaxgmm.bayes._sample import METHODS, sample

__all__ = ["METHODS", "evidence", "sample", "stephens"]
