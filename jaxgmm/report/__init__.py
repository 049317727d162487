"""Verdicts: the only room that sees a point fit and a posterior together."""

from jaxgmm.report import _frame as _frame  # tables in files
from jaxgmm.report._compare import Verdict, compare
from jaxgmm.report._criteria import CRITERIA, DECIDING
from jaxgmm.report._curvature import Curvature, curvature
from jaxgmm.report._merge import MergeTree, merge_components
from jaxgmm.report._plot_basins import plot_basins
from jaxgmm.report._plot_chains import plot_chains
from jaxgmm.report._plot_components import plot_components
from jaxgmm.report._plot_density import plot_density
from jaxgmm.report._plot_labels import (
    plot_background,
    plot_co_clustering,
    plot_pairs,
    plot_uncertainty,
)
from jaxgmm.report._plot_marginals import plot_marginals
from jaxgmm.report._plot_missing import plot_missing
from jaxgmm.report._plot_predictive import plot_predictive
from jaxgmm.report._plot_restarts import plot_optima, plot_traces
from jaxgmm.report._plot_row_weights import plot_row_weights
from jaxgmm.report._select import Selection, select
from jaxgmm.report._several import Comparison
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
