"""A component family in one line: any NumPyro distribution."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import constraints

from jaxgmm._contract import described
from jaxgmm.files import stored
from jaxgmm.model._numerical_family import NumericalFamily

# What a parameter may be: one number with a chart on all of it.
_SUPPORTS = (constraints.real, constraints.positive, constraints.unit_interval)


@stored
@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Custom(NumericalFamily):
    """Components of any NumPyro distribution of one number, each column with its own parameters.

    Parameters
    ----------
    make : callable
        From the parameters by name, arrays of one shape, to the distribution; the same function
        for one model and the next, since programs are kept by it.
    **supports : constraint
        What each parameter is: `numpyro.distributions.constraints` ``real``, ``positive`` or
        ``unit_interval``.

    Raises
    ------
    TypeError, ValueError
        For a ``make`` that does not return a distribution of one number from these
        parameters, or another support.

    Notes
    -----
    Columns are independent given the component. The sites are the parameters (K, D), flat without
    a prior. M-steps are Newton steps on the expected log joint in unconstrained coordinates,
    refused and shortened where the log joint falls; starts match the mean and variance of each
    cluster. There is no Gibbs sampler and no variational Bayes. Log densities need two derivatives:
    at a kink, as a Laplace distribution has at its location, EM ends out of iterations.

    References
    ----------
    Lange (1995), JRSS B 57:425-437.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> import jaxgmm as jg
    >>> import numpyro.distributions as dist
    >>> positive = dist.constraints.positive
    >>> family = jg.families.Custom(dist.Gumbel, loc=dist.constraints.real, scale=positive)
    >>> x = jnp.array([0.1, 0.5, -0.3, 0.2, 0.9, 8.5, 9.4, 8.1, 9.9, 8.8])
    >>> fit = jg.fit(jg.Mixture(family, 2), x, key=jax.random.key(0))
    >>> [round(float(loc), 1) for loc in sorted(fit.params.loc[:, 0])]
    [0.1, 8.6]
    """

    function: Callable[..., dist.Distribution]
    parameters: tuple[tuple[str, constraints.Constraint], ...]

    def __init__(
        self, make: Callable[..., dist.Distribution], **supports: constraints.Constraint
    ) -> None:
        object.__setattr__(self, "function", make)
        object.__setattr__(self, "parameters", tuple(supports.items()))
        if not supports:
            raise TypeError("supports: needs a constraint by the name of each parameter of make")
        for name, support in supports.items():
            if not any(support is known for known in _SUPPORTS):
                known = ", ".join(described(one)[0] for one in _SUPPORTS)
                raise ValueError(f"{name}: needs a support among {known}, found {support!r}")
        made = self._somewhere()
        if not isinstance(made, dist.Distribution):
            raise TypeError(f"make: needs to return a NumPyro distribution, found {made!r}")
        if made.event_shape or made.batch_shape:
            raise ValueError(
                "make: needs a distribution of one number, from parameters that are single "
                f"numbers; found batch shape {made.batch_shape}, event shape {made.event_shape}"
            )

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", "make")
        name = "make" if name == "<lambda>" else name
        return f"Custom({', '.join([name, *(f'{one}=...' for one in self.supports)])})"

    @property
    def name(self) -> str:
        return repr(self)

    @property
    def supports(self) -> dict[str, Any]:  # type: ignore[override]
        return dict(self.parameters)

    def make(self, **sites: Array) -> dist.Distribution:
        return self.function(**sites)

    def check_bounded(self, x: np.ndarray, k: int) -> None:
        made = self._somewhere()
        if not np.all(np.isfinite(jnp.stack([made.mean, made.variance]))):
            raise ValueError(
                f"family: {type(made).__name__} has no mean or no variance, to which starts are "
                'matched; use start="prior" and a prior by site'
            )
