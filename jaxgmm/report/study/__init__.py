"""Studies: what methods say of a truth that is known, over many data sets."""

from jaxgmm.report.study._case import Case, End
from jaxgmm.report.study._methods import Outcome
from jaxgmm.report.study._result import Study
from jaxgmm.report.study._study import study

__all__ = ["Case", "End", "Outcome", "Study", "study"]
