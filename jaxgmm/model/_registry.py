"""Every covariance structure by every name that a user may write."""

from __future__ import annotations

from jaxgmm.model import _matrix, _variances
from jaxgmm.model._diagonal import CurvedDiagonal, Diagonal
from jaxgmm.model._matrix import (
    CommonOrientation,
    CommonShape,
    CommonVolume,
    Matrix,
    OwnOrientation,
)
from jaxgmm.model._spherical import Spherical
from jaxgmm.model._structure import Structure

_FOURTEEN: list[Structure] = [
    Matrix("full", "VVV"),
    Matrix("tied", "EEE"),
    Diagonal("diag", "VVI"),
    Spherical("spherical", "VII"),
    Spherical("EII", "EII"),
    Diagonal("EEI", "EEI"),
    CurvedDiagonal("VEI", _variances.common_shape),
    CurvedDiagonal("EVI", _variances.common_volume),
    CommonShape(),
    CommonOrientation("EVE", _variances.common_volume, _matrix.common_volume_cost),
    CommonOrientation("VVE", _variances.free, _matrix.free_variances_cost),
    OwnOrientation("EEV", _variances.common),
    OwnOrientation("VEV", _variances.common_shape),
    CommonVolume(),
]

# Own names first, then mclust's codes.
STRUCTURES: dict[str, Structure] = {s.name: s for s in _FOURTEEN} | {s.code: s for s in _FOURTEEN}
# In one dimension mclust writes one letter: equal or varying variances.
UNIVARIATE: dict[str, Structure] = {"E": STRUCTURES["tied"], "V": STRUCTURES["full"]}


def structure_named(name: str) -> Structure:
    return STRUCTURES[name] if name in STRUCTURES else UNIVARIATE[name]
