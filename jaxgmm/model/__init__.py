"""What is fitted: mixtures, their component families and priors."""

from jaxgmm.model._background import Uniform
from jaxgmm.model._bernoulli import Bernoulli
from jaxgmm.model._categorical import Categorical
from jaxgmm.model._conjugate import ConjugateFamily, MixtureParams, Sums
from jaxgmm.model._coordinates import coordinates
from jaxgmm.model._covariates import n_columns
from jaxgmm.model._custom import Custom
from jaxgmm.model._distributions import (
    Beta,
    Binomial,
    Gamma,
    LogNormal,
    NegativeBinomial,
    VonMises,
    Weibull,
)
from jaxgmm.model._exponential import Exponential
from jaxgmm.model._factors import PPCA, FactorAnalyser
from jaxgmm.model._family import Family
from jaxgmm.model._gaussian import Gaussian, GaussianParams
from jaxgmm.model._generalised import LogisticRegression, PoissonRegression
from jaxgmm.model._given import (
    check_start,
    forms_of_start,
    no_labels,
    prior_draws,
    same_form,
    stacked,
)
from jaxgmm.model._hyper import Moments
from jaxgmm.model._linear_regression import LinearRegression
from jaxgmm.model._mixture import Mixture
from jaxgmm.model._multinomial import Multinomial
from jaxgmm.model._noisy import rows
from jaxgmm.model._numerical import NumericalModel
from jaxgmm.model._numerical_family import NumericalFamily
from jaxgmm.model._origin import about, centred_rows, narrowed, wide_rows
from jaxgmm.model._poisson import Poisson
from jaxgmm.model._prior import ConjugatePrior
from jaxgmm.model._product import Product
from jaxgmm.model._program import from_numpyro
from jaxgmm.model._registry import STRUCTURES, UNIVARIATE
from jaxgmm.model._repeated import Repeated, repeated
from jaxgmm.model._student import StudentT
from jaxgmm.model._tree import pytree

# What is not named here is for the rooms above.
__all__ = [
    "PPCA",
    "STRUCTURES",
    "UNIVARIATE",
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "ConjugateFamily",
    "ConjugatePrior",
    "Custom",
    "Exponential",
    "FactorAnalyser",
    "Family",
    "Gamma",
    "Gaussian",
    "GaussianParams",
    "LinearRegression",
    "LogNormal",
    "LogisticRegression",
    "Mixture",
    "MixtureParams",
    "Moments",
    "Multinomial",
    "NegativeBinomial",
    "NumericalFamily",
    "NumericalModel",
    "Poisson",
    "PoissonRegression",
    "Product",
    "Repeated",
    "StudentT",
    "Sums",
    "Uniform",
    "VonMises",
    "Weibull",
    "from_numpyro",
    "pytree",
    "repeated",
    "rows",
]
