"""Point estimates: the EM loop, its starts, the best of many restarts, and its errors."""

from jaxgmm._programs import free_programs
from jaxgmm.em._accelerate import ACCELERATIONS
from jaxgmm.em._bootstrap import Bootstrap, Replicates, bootstrap, replicate
from jaxgmm.em._fit import ends_from, fit
from jaxgmm.em._information import (
    Delta,
    LocalErrors,
    StandardErrors,
    local_errors,
    standard_errors,
)
from jaxgmm.em._kmeans import KMeans, KMeansRun, kmeans
from jaxgmm.em._loop import default_tolerance, run
from jaxgmm.em._lrt import LikelihoodRatioTest, bootstrap_lrt
from jaxgmm.em._online import Online
from jaxgmm.em._problem import Problem, prepare
from jaxgmm.em._progress import bar
from jaxgmm.em._readings import Block, Readings, check_no_weights
from jaxgmm.em._results import (
    SAME_OPTIMUM,
    Digest,
    Fit,
    Optimum,
    Run,
    Status,
    check_precision,
    fingerprint,
    same_data,
)
from jaxgmm.em._search import Search, search
from jaxgmm.em._share import share
from jaxgmm.em._start import STARTS
from jaxgmm.em._stream import Stream, stream
from jaxgmm.em._survey import readings
from jaxgmm.em._variants import ALGORITHMS

# What is not named here is for the rooms above.
__all__ = [
    "ACCELERATIONS",
    "ALGORITHMS",
    "STARTS",
    "Block",
    "Bootstrap",
    "Delta",
    "KMeans",
    "KMeansRun",
    "LikelihoodRatioTest",
    "LocalErrors",
    "Online",
    "Readings",
    "Replicates",
    "Search",
    "StandardErrors",
    "Stream",
    "bootstrap",
    "bootstrap_lrt",
    "default_tolerance",
    "ends_from",
    "fit",
    "free_programs",
    "kmeans",
    "local_errors",
    "readings",
    "replicate",
    "run",
    "search",
    "share",
    "standard_errors",
    "stream",
]
