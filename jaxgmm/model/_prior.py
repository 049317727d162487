"""Priors of a mixture: flat, conjugate, and the data-dependent rule of Fraley and Raftery."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import digamma
from jaxtyping import Array
from numpyro.distributions import constraints


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class ConjugatePrior:
    """Dirichlet weights and normal-inverse-Wishart (or -gamma) components.

    ``weights ~ Dirichlet(concentration)``, ``mean | covariance ~ N(mean, covariance /
    mean_precision)`` and ``covariance ~ inverse-Wishart(dof, scale)`` or, where the
    structure is diagonal or spherical, ``variance ~ inverse-gamma(dof / 2, scale / 2)``.
    Where all components share one covariance (EII, EEI, EEE) its prior counts once, else
    once per component, as a density of the covariance as it stands.

    Parameters
    ----------
    concentration : float or (K,) array
        Dirichlet concentration, at least one.
    mean : (D,) array
        Prior mean of the component means, in the units of the data.
    mean_precision : float
        Prior weight of ``mean``, in rows; positive.
    dof : float
        Degrees of freedom; above D - 1 for a matrix, positive for variances.
    scale : (D, D) array, (D,) array or float
        Scale matrix (``full``, ``tied`` and all with orientations); scale of each variance
        (``diag``, EEI, VEI, EVI; one number stands for all features); one number
        (``spherical``, EII). Squared units of the data.

    Raises
    ------
    ValueError
        From `jaxgmm.fit` and `jaxgmm.sample`, where a value or a shape does not fit.

    References
    ----------
    Gelman, Carlin, Stern, Dunson, Vehtari and Rubin (2013), Bayesian Data Analysis,
    3rd ed., section 3.6; Fraley and Raftery (2007), section 3.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> prior = jg.ConjugatePrior(mean=[0.0], mean_precision=0.1, dof=3.0, scale=[[0.5]])
    >>> jg.Mixture(jg.Gaussian("full"), n_components=2, prior=prior).prior_name
    'conjugate'
    """

    concentration: Any = 1.0
    mean: Any
    mean_precision: Any
    dof: Any
    scale: Any


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class PriorRule:
    """A named rule that `Mixture.resolve` turns into numbers."""

    name: str


RULES = ("fraley-raftery",)


def improper(support: constraints.Constraint, shape: tuple[int, ...]) -> dist.Distribution:
    """A flat density over the whole site."""
    return dist.ImproperUniform(support, (), shape)


def simplex_prior(concentration: Array | None, n_components: int) -> dist.Distribution:
    """Dirichlet weights, or flat ones where no concentration is given."""
    if concentration is None:
        return improper(constraints.simplex, (n_components,))
    return dist.Dirichlet(concentration)


def simplex_means(concentration: Array) -> tuple[Array, Array]:
    """Means of Dirichlet weights and of their logarithms."""
    total = jnp.sum(concentration)
    return concentration / total, digamma(concentration) - digamma(total)
