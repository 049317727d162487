"""What the components of a mixture may be: ``jaxgmm.Mixture(jaxgmm.families.Poisson(), 3)``."""

from jaxgmm.model import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Custom,
    Exponential,
    Gamma,
    Gaussian,
    LogNormal,
    MixtureParams,
    Multinomial,
    NegativeBinomial,
    Poisson,
    Product,
    VonMises,
    Weibull,
)

__all__ = [
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "Custom",
    "Exponential",
    "Gamma",
    "Gaussian",
    "LogNormal",
    "MixtureParams",
    "Multinomial",
    "NegativeBinomial",
    "Poisson",
    "Product",
    "VonMises",
    "Weibull",
]
