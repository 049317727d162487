"""Verdicts: the only room that sees a point fit and a posterior together."""

from jaxgmm.report._compare import Verdict, compare
from jaxgmm.report._curvature import Curvature, curvature

__all__ = ["Curvature", "Verdict", "compare", "curvature"]
