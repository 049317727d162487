"""What can be done with a mixture of normals: pure functions, for a fit and for draws by vmap."""

from jaxgmm.mixtures._distances import (
    Estimate,
    kl_bound,
    kl_monte_carlo,
    sliced_wasserstein,
    wasserstein_bound,
)
from jaxgmm.mixtures._line import cdf, quantile
from jaxgmm.mixtures._modes import Modes, modes
from jaxgmm.mixtures._normals import (
    Normals,
    affine,
    collapse,
    conditional,
    draw,
    log_density,
    marginal,
    normals,
    product,
)
from jaxgmm.mixtures._regions import highest_density_intervals, highest_density_level

__all__ = [
    "Estimate",
    "Modes",
    "Normals",
    "affine",
    "cdf",
    "collapse",
    "conditional",
    "draw",
    "highest_density_intervals",
    "highest_density_level",
    "kl_bound",
    "kl_monte_carlo",
    "log_density",
    "marginal",
    "modes",
    "normals",
    "product",
    "quantile",
    "sliced_wasserstein",
    "wasserstein_bound",
]
