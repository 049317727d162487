"""Studies: what methods say of a truth that is known, over many data sets."""

from jaxgmm.report.studies._calibrate import calibrate
from jaxgmm.report.studies._calibration import Calibration
from jaxgmm.report.studies._case import Case, End
from jaxgmm.report.studies._methods import METHODS, Outcome
from jaxgmm.report.studies._result import Study
from jaxgmm.report.studies._study import study
from jaxgmm.report.studies._truths import TRUTHS, truth

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
