"""Whether a point is a mode, by the derivatives that its standard errors are made of."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgmm import em

# Newton decrement up to which a point counts as stationary: it is the distance to the
# mode of the local quadratic, in posterior standard deviations.
STATIONARY = 1e-3
STATIONARY_FLOAT32 = 1e-1


@dataclasses.dataclass(frozen=True)
class Curvature:
    """What the log joint looks like around a point.

    It is the density of the sites as they are declared, along the numbers that ``model.retract``
    takes: no Jacobian of an unconstraining map enters.

    Attributes
    ----------
    newton_decrement : float
        ``sqrt(g' H^-1 g)`` over the directions that are not flat: the distance to the
        top of the local quadratic, in standard deviations. Free of units.
    threshold : float
        Below which it counts as none, by the precision of the fit.
    eigenvalues : (d,) array
        Of minus the Hessian, scaled to unit diagonal, ascending.
    n_flat, n_negative : int
        Directions without curvature, and with curvature of the wrong sign.
    stationary : bool
        Whether the Newton decrement is below its threshold.
    """

    newton_decrement: float
    threshold: float
    eigenvalues: np.ndarray
    n_flat: int
    n_negative: int

    @property
    def stationary(self) -> bool:
        return self.newton_decrement < self.threshold


def curvature(errors: em.StandardErrors) -> Curvature:
    """`Curvature` of the log joint at a fit, from its standard errors."""
    single = errors.information.dtype == np.float32
    return Curvature(
        newton_decrement=errors.newton_decrement,
        threshold=STATIONARY_FLOAT32 if single else STATIONARY,
        eigenvalues=errors.eigenvalues,
        n_flat=errors.n_flat,
        n_negative=errors.n_negative,
    )
