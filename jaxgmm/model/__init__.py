"""What is fitted: mixtures, their component families and priors."""

from jaxgmm.model._family import ConjugateFamily, Family
from jaxgmm.model._gaussian import Gaussian, GaussianParams
from jaxgmm.model._mixture import Mixture
from jaxgmm.model._numerical import NumericalModel
from jaxgmm.model._prior import ConjugatePrior
from jaxgmm.model._program import from_numpyro
from jaxgmm.model._registry import STRUCTURES, UNIVARIATE

__all__ = [
    "STRUCTURES",
    "UNIVARIATE",
    "ConjugateFamily",
    "ConjugatePrior",
    "Family",
    "Gaussian",
    "GaussianParams",
    "Mixture",
    "NumericalModel",
    "from_numpyro",
]
