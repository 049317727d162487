"""Point estimates: the EM loop, its starts, and the best of many restarts."""

from jaxgmm.em._accelerate import ACCELERATIONS
from jaxgmm.em._fit import fit
from jaxgmm.em._loop import default_tolerance, run
from jaxgmm.em._start import STARTS
from jaxgmm.em._variants import ALGORITHMS

__all__ = ["ACCELERATIONS", "ALGORITHMS", "STARTS", "default_tolerance", "fit", "run"]
