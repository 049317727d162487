"""Posteriors: samplers of the NumPyro model, and the rules that match labels afterwards."""

from jaxgmm.bayes._bridge import evidence
from jaxgmm.bayes._draw import WITHIN, Drawn, draw
from jaxgmm.bayes._engine import Engine
from jaxgmm.bayes._evidence import Evidence
from jaxgmm.bayes._export import to_datatree, to_netcdf
from jaxgmm.bayes._gibbs import Gibbs
from jaxgmm.bayes._labelling import AMBIGUOUS, RELABELLINGS, all_sites, in_labels_of, relabelled
from jaxgmm.bayes._laplace import Laplace
from jaxgmm.bayes._modes import around_modes, mode_evidence
from jaxgmm.bayes._nuts import NUTS
from jaxgmm.bayes._posterior import Posterior, invariants, systematic
from jaxgmm.bayes._predictive import (
    imputed,
    log_prob,
    responsibilities,
    responsibilities_at,
    row_weights,
)
from jaxgmm.bayes._sample import sample
from jaxgmm.bayes._sampled import METHODS, sampled
from jaxgmm.bayes._smc import SMC
from jaxgmm.bayes._streamed import STREAMED, sample_stream
from jaxgmm.bayes._summary import constant, health, moments, quantiles, spread_k
from jaxgmm.bayes._svi import SVI
from jaxgmm.bayes._vb import VB, Variational, variational
from jaxgmm.labels import data_based, ecr, ordering, pivotal, stephens

# What is not named here is for the rooms above.
__all__ = [
    "METHODS",
    "NUTS",
    "RELABELLINGS",
    "SMC",
    "STREAMED",
    "SVI",
    "VB",
    "WITHIN",
    "Drawn",
    "Engine",
    "Gibbs",
    "Laplace",
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
