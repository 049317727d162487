"""Point estimates: the EM loop, its starts, and the best of many restarts."""

from jaxgmm.em._fit import fit
from jaxgmm.em._kmeans import KMeans, KMeansRun, kmeans
from jaxgmm.em._loop import default_tolerance, run
from jaxgmm.em._start import STARTS

__all__ = ["STARTS", "KMeans", "KMeansRun", "default_tolerance", "fit", "kmeans", "run"]
