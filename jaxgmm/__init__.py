"""Mixture models written once: compiled EM beside the NumPyro posterior of the same model."""

import importlib
import warnings

# NumPyro loads it, and in a notebook without widgets it warns of that: bars are text there.
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="IProgress not found")
    importlib.import_module("tqdm.auto")

from jaxgmm import bayes, datasets, em, families, mixtures, model, report
from jaxgmm._contract import LatentModel, expected_labels
from jaxgmm.bayes import Posterior, evidence, sample
from jaxgmm.em import (
    Bootstrap,
    Fit,
    KMeans,
    KMeansRun,
    LikelihoodRatioTest,
    Run,
    StandardErrors,
    Status,
    Stream,
    bootstrap,
    bootstrap_lrt,
    fit,
    kmeans,
    share,
    standard_errors,
    stream,
)
from jaxgmm.files import load
from jaxgmm.model import (
    ConjugateFamily,
    ConjugatePrior,
    Family,
    Gaussian,
    GaussianParams,
    Mixture,
    MixtureParams,
    NumericalModel,
    Uniform,
    from_numpyro,
    repeated,
    rows,
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
    "Stream",
    "Study",
    "Uniform",
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
    "mixtures",
    "model",
    "repeated",
    "report",
    "rows",
    "sample",
    "select",
    "share",
    "standard_errors",
    "stream",
    "study",
]
