"""Priors of a mixture: flat, conjugate, and the data-dependent rule of Fraley and Raftery."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from jaxgmm._contract import Hyper, number_text
from jaxgmm.files import numeric, stored
from jaxgmm.model._tree import pytree
from jaxgmm.model._weights import SIMPLEX, STICKS, Weighting


@stored
@pytree
@dataclasses.dataclass(frozen=True, kw_only=True)
class ConjugatePrior:
    """Dirichlet or stick-breaking weights, normal-inverse-Wishart (or -gamma) components.

    ``weights ~ Dirichlet(concentration)``, ``mean | covariance ~ N(mean, covariance /
    mean_precision)`` and ``covariance ~ inverse-Wishart(dof, scale)`` or, where the
    structure is diagonal or spherical, ``variance ~ inverse-gamma(dof / 2, scale / 2)``.
    Where all components share one covariance (EII, EEI, EEE) its prior counts once, else
    once per component, as a density of the covariance as it stands.

    Parameters
    ----------
    concentration : float or (K,) array
        Dirichlet concentration, positive. With ``stick_breaking`` that of the Dirichlet
        process, or (2, K - 1) Beta concentrations of each stick. Below one, weights are drawn to
        zero and the joint has no mode: `jaxgmm.fit` refuses it, samplers take it.
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
    stick_breaking : bool
        Whether the weights have the prior of a Dirichlet process truncated at K components in
        place of the Dirichlet's: the site ``sticks`` (K - 1,) is ``Beta(1, concentration)``, each
        the share that a weight takes of what those before it leave. Components are then not
        exchangeable, and the mode is one in the sticks.

    Raises
    ------
    ValueError
        From `jaxgmm.fit` and `jaxgmm.sample`, where a value or a shape does not fit.

    References
    ----------
    Gelman, Carlin, Stern, Dunson, Vehtari and Rubin (2013), Bayesian Data Analysis,
    3rd ed., section 3.6; Fraley and Raftery (2007), section 3; for the sticks Ishwaran and James
    (2001), JASA 96:161-173.

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
    stick_breaking: bool = dataclasses.field(default=False, metadata={"static": True})

    # What tables call it.
    name: ClassVar[str] = "conjugate"

    # -- in reports ------------------------------------------------------------------

    @property
    def code(self) -> str:
        """Python that makes it."""
        lines = [f"    {name}={np.asarray(value).tolist()},\n" for name, value in self._numbers]
        if self.stick_breaking:
            lines.append("    stick_breaking=True,\n")
        return "jg.ConjugatePrior(\n" + "".join(lines) + ")"

    @property
    def text(self) -> str:
        """What it is in one line, the weights aside, which are not its own everywhere."""
        numbers = (f"{name}={number_text(value)}" for name, value in self._numbers[1:])
        return f"ConjugatePrior({', '.join(numbers)})"

    @property
    def hyper(self) -> tuple[Hyper, ...]:
        """Its numbers, for reports."""
        return tuple(Hyper(name, _SYMBOLS[name], value) for name, value in self._numbers)

    @property
    def _numbers(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in _SYMBOLS]

    # -- weights -------------------------------------------------------------------

    @property
    def weighting(self) -> Weighting:
        """What the site of the weights is."""
        return STICKS if self.stick_breaking else SIMPLEX

    def of_weights(self, k: int) -> dist.Distribution:
        """The distribution of that site."""
        return self.weighting.prior(self.concentration, k)

    def weights_mode(self, counts: Array, before: Array | None) -> Array:
        """The weights at the mode given labelled rows."""
        return self.weighting.mode(self.weighting.updated(self.concentration, counts))

    def reweighted(self, concentration: Any) -> ConjugatePrior:
        """The same prior with another one of the weights."""
        return dataclasses.replace(self, concentration=concentration)

    def sized(self, k: int, d: int, dtype: Any) -> ConjugatePrior:
        """With arrays for numbers and lists, and the concentrations of all weights."""
        # A list in place of an array is one leaf, not a tree of numbers.
        arrays = {
            name: jnp.asarray(one if isinstance(one, jax.Array) else numeric(name, one), dtype)
            for name, one in self._numbers
        }
        broken = self.stick_breaking and k > 1
        if k == 1:  # its one weight has no stick
            arrays["concentration"] = jax.device_put(np.ones(1, dtype))
        weighting = STICKS if broken else SIMPLEX
        arrays["concentration"] = weighting.resolved(arrays["concentration"], k)
        return dataclasses.replace(self, stick_breaking=broken, **arrays)

    def check_samplable(self) -> None:
        """It is proper."""


# What reports call them.
_SYMBOLS = {
    "concentration": "α, concentration",
    "mean": "m, prior mean",
    "mean_precision": "κ, its weight in rows",
    "dof": "ν, degrees of freedom",
    "scale": "Λ, scale",
}


@stored
@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class PriorRule:
    """A named rule that `Mixture.resolve` turns into numbers."""

    name: str

    @property
    def code(self) -> str:
        """Python that names it."""
        return f'"{self.name}"'

    # Of the weights, whatever numbers it makes.
    weighting: ClassVar[Weighting] = SIMPLEX
    concentration: ClassVar[None] = None

    def check_samplable(self) -> None:
        """It makes a proper one."""
