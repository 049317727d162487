"""What the components of a mixture may be: ``jaxgmm.Mixture(jaxgmm.families.Poisson(), 3)``."""

from jaxgmm.model import (
    Bernoulli,
    Categorical,
    Exponential,
    Gaussian,
    MixtureParams,
    Multinomial,
    Poisson,
)

__all__ = [
    "Bernoulli",
    "Categorical",
    "Exponential",
    "Gaussian",
    "MixtureParams",
    "Multinomial",
    "Poisson",
]
