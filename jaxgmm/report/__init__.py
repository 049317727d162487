"""Verdicts: the only room that sees a point fit and a posterior together."""

from jaxgmm.report._compare import Verdict, compare
from jaxgmm.report._criteria import CRITERIA, DECIDING
from jaxgmm.report._curvature import Curvature, curvature
from jaxgmm.report._merge import MergeTree, merge_components
from jaxgmm.report._plot import (
    plot_chains,
    plot_components,
    plot_marginals,
    plot_optima,
    plot_traces,
)
from jaxgmm.report._select import Selection, select
from jaxgmm.report._several import Comparison

__all__ = [
    "CRITERIA",
    "DECIDING",
    "Comparison",
    "Curvature",
    "MergeTree",
    "Selection",
    "Verdict",
    "compare",
    "curvature",
    "merge_components",
    "plot_chains",
    "plot_components",
    "plot_marginals",
    "plot_optima",
    "plot_traces",
    "select",
]
