"""Around a point: unconstrained coordinates, Newton steps, the spectrum of a curvature."""

from jaxgmm.local._newton import (
    MOST_ROUNDS,
    ROUNDING,
    derivatives,
    differentiable,
    minimise,
    uphill,
)
from jaxgmm.local._spectrum import Spectrum, inverse_root, spectrum
from jaxgmm.local._unconstrained import (
    DENSE_LIMIT,
    by_site,
    from_vector,
    log_density,
    log_units,
    spread,
    to_vector,
)

__all__ = [
    "DENSE_LIMIT",
    "MOST_ROUNDS",
    "ROUNDING",
    "Spectrum",
    "by_site",
    "derivatives",
    "differentiable",
    "from_vector",
    "inverse_root",
    "log_density",
    "log_units",
    "minimise",
    "spectrum",
    "spread",
    "to_vector",
    "uphill",
]
