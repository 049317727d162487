"""Mixture models written once: compiled EM beside the NumPyro posterior of the same model."""

from jaxgmm import bayes, datasets, em, families, model, report
from jaxgmm._archive import load
from jaxgmm._contract import LatentModel, expected_labels
from jaxgmm._posterior import Posterior
from jaxgmm._results import Fit, Run, Status
from jaxgmm._sample import sample
from jaxgmm.bayes import evidence
from jaxgmm.em import (
    Bootstrap,
    KMeans,
    KMeansRun,
    LikelihoodRatioTest,
    StandardErrors,
    bootstrap,
    bootstrap_lrt,
    fit,
    kmeans,
    standard_errors,
)
from jaxgmm.model import (
    ConjugateFamily,
    ConjugatePrior,
    Family,
    Gaussian,
    GaussianParams,
    Mixture,
    MixtureParams,
    NumericalModel,
    from_numpyro,
)
from jaxgmm.report import (
    Calibration,
    Comparison,
    MergeTree,
    Selection,
    Study,
    Verdict,
    calibrate,
    compare,
    merge_components,
    select,
    study,
)

__all__ = [
    "Bootstrap",
    "Calibration",
    "Comparison",
    "ConjugateFamily",
    "ConjugatePrior",
    "Family",
    "Fit",
    "Gaussian",
    "GaussianParams",
    "KMeans",
    "KMeansRun",
    "LatentModel",
    "LikelihoodRatioTest",
    "MergeTree",
    "Mixture",
    "MixtureParams",
    "NumericalModel",
    "Posterior",
    "Run",
    "Selection",
    "StandardErrors",
    "Status",
    "Study",
    "Verdict",
    "bayes",
    "bootstrap",
    "bootstrap_lrt",
    "calibrate",
    "compare",
    "datasets",
    "em",
    "evidence",
    "expected_labels",
    "families",
    "fit",
    "from_numpyro",
    "kmeans",
    "load",
    "merge_components",
    "model",
    "report",
    "sample",
    "select",
    "standard_errors",
    "study",
]
