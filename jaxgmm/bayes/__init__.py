"""Posteriors: samplers of the NumPyro model, and the rules that match labels afterwards."""

from jaxgmm._labelling import RELABELLINGS
from jaxgmm._relabel import data_based, ecr, ordering, pivotal, stephens
from jaxgmm.bayes._bridge import evidence
from jaxgmm.bayes._draw import WITHIN, Drawn, draw
from jaxgmm.bayes._modes import around_modes, mode_evidence
from jaxgmm.bayes._sample import METHODS, sample
from jaxgmm.bayes._streamed import STREAMED, sample_stream
from jaxgmm.bayes._vb import Variational, variational

__all__ = [
    "METHODS",
    "RELABELLINGS",
    "STREAMED",
    "WITHIN",
    "Drawn",
    "Variational",
    "around_modes",
    "data_based",
    "draw",
    "ecr",
    "evidence",
    "mode_evidence",
    "ordering",
    "pivotal",
    "sample",
    "sample_stream",
    "stephens",
    "variational",
]
