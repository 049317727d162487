"""Verdicts: the only room that sees a point fit and a posterior together."""

from jaxgmm.report.page import _frame as _frame  # tables in files
from jaxgmm.report.plots._basins import plot_basins
from jaxgmm.report.plots._chains import plot_chains
from jaxgmm.report.plots._communalities import plot_communalities
from jaxgmm.report.plots._components import plot_components
from jaxgmm.report.plots._density import plot_density
from jaxgmm.report.plots._labels import (
    plot_background,
    plot_co_clustering,
    plot_pairs,
    plot_uncertainty,
)
from jaxgmm.report.plots._marginals import plot_marginals
from jaxgmm.report.plots._missing import plot_missing
from jaxgmm.report.plots._predictive import plot_predictive
from jaxgmm.report.plots._restarts import plot_optima, plot_traces
from jaxgmm.report.plots._row_weights import plot_row_weights
from jaxgmm.report.selection._criteria import CRITERIA, DECIDING
from jaxgmm.report.selection._merge import MergeTree, merge_components
from jaxgmm.report.selection._select import select
from jaxgmm.report.selection._selection import Selection
from jaxgmm.report.studies import (
    METHODS,
    TRUTHS,
    Calibration,
    Case,
    End,
    Outcome,
    Study,
    calibrate,
    study,
    truth,
)
from jaxgmm.report.verdict._compare import compare
from jaxgmm.report.verdict._curvature import Curvature, curvature
from jaxgmm.report.verdict._several import Comparison
from jaxgmm.report.verdict._verdict import Verdict

__all__ = [
    "CRITERIA",
    "DECIDING",
    "METHODS",
    "TRUTHS",
    "Calibration",
    "Case",
    "Comparison",
    "Curvature",
    "End",
    "MergeTree",
    "Outcome",
    "Selection",
    "Study",
    "Verdict",
    "calibrate",
    "compare",
    "curvature",
    "merge_components",
    "plot_background",
    "plot_basins",
    "plot_chains",
    "plot_co_clustering",
    "plot_communalities",
    "plot_components",
    "plot_density",
    "plot_marginals",
    "plot_missing",
    "plot_optima",
    "plot_pairs",
    "plot_predictive",
    "plot_row_weights",
    "plot_traces",
    "plot_uncertainty",
    "select",
    "study",
    "truth",
]
