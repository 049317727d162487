"""Point estimates: the EM loop, its starts, and the best of many restarts."""

from jaxgmm.em._fit import fit
from jaxgmm.em._loop import default_tolerance, run
from jaxgmm.em._start import STARTS

__all__ = ["STARTS", "default_tolerance", "fit", "run"]
