"""Studies: what methods say of a truth that is known, over many data sets."""

from jaxgmm.report.study._calibrate import calibrate
from jaxgmm.report.study._calibration import Calibration
from jaxgmm.report.study._case import Case, End
from jaxgmm.report.study._methods import METHODS, Outcome
from jaxgmm.report.study._result import Study
from jaxgmm.report.study._study import study
from jaxgmm.report.study._truths import TRUTHS, truth

__all__ = [
    "METHODS",
    "TRUTHS",
    "Calibration",
    "Case",
    "End",
    "Outcome",
    "Study",
    "calibrate",
    "study",
    "truth",
]
