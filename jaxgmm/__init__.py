"""Mixture models written once: compiled EM beside the NumPyro posterior of the same model."""

from jaxgmm import bayes, datasets, em, model, report
from jaxgmm._contract import ConjugateFamily, Family, LatentModel, expected_labels
from jaxgmm._posterior import Posterior
from jaxgmm._results import Fit, Run, Status
from jaxgmm._sample import sample
from jaxgmm.em import KMeans, KMeansRun, fit, kmeans
from jaxgmm.model import ConjugatePrior, Gaussian, GaussianParams, Mixture
from jaxgmm.report import Selection, Verdict, compare, select

__all__ = [
    "ConjugateFamily",
    "ConjugatePrior",
    "Family",
    "Fit",
    "Gaussian",
    "GaussianParams",
    "KMeans",
    "KMeansRun",
    "LatentModel",
    "Mixture",
    "Posterior",
    "Run",
    "Selection",
    "Status",
    "Verdict",
    "bayes",
    "compare",
    "datasets",
    "em",
    "expected_labels",
    "fit",
    "kmeans",
    "model",
    "report",
    "sample",
    "select",
]
