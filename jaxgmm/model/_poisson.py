"""Counts without a bound, independent given the component."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from jaxgmm._numerics import log_factorial, stack
from jaxgmm.files import stored
from jaxgmm.model._conjugate import ConjugateFamily, MixtureParams, Sums
from jaxgmm.model._door import check_counts
from jaxgmm.model._hyper import Hyper, Moments, safe_log
from jaxgmm.model._tree import pytree


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class Poisson(ConjugateFamily):
    """Columns of counts, each Poisson and independent within a component.

    The site is ``rates`` (K, D); its conjugate prior is a Gamma distribution.

    References
    ----------
    Karlis and Xekalaki (2005), Int. Statist. Rev. 73:35-58.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jaxgmm as jg
    >>> x = jnp.array([0.0, 1.0, 0.0, 2.0, 1.0, 9.0, 12.0, 10.0])
    >>> fit = jg.fit(jg.Mixture(jg.families.Poisson(), 2), x, key=jax.random.key(0))
    >>> [round(float(rate), 1) for rate in sorted(fit.params.rates[:, 0])]
    [0.8, 10.3]
    """

    conjugate: ClassVar = {"rates": dist.Gamma}
    holes = True
    columns = "counts"
    formula = "∏_j Poisson(λ_kj)"
    row_support = constraints.independent(constraints.nonnegative_integer, 1)

    def features(self, x: Array) -> Float[Array, "f n"]:
        one = jnp.ones((1, len(x)), x.dtype)
        return stack([one, -jnp.sum(log_factorial(x), axis=1)[None], x.T])

    def natural(self, of: dict[str, Moments]) -> Float[Array, "k f"]:
        rates = of["rates"]
        total = jnp.sum(rates.value, axis=1, keepdims=True)
        return jnp.concatenate([-total, jnp.ones_like(total), rates.log], axis=1)

    def evidence(self, sums: Sums) -> dict[str, Hyper]:
        return {"rates": (sums.features[:, 2:], sums.counts[:, None])}

    def draw(self, own: dict[str, Any], key: Any, labels: Array) -> Array:
        return jax.random.poisson(key, own["rates"][labels])

    def expected(self, own: dict[str, Any], labels: Array) -> Float[Array, "n d"]:
        return labels @ own["rates"]

    def embed(self, x: Array) -> Float[Array, "n d"]:
        """Square roots, whose variance is a quarter whatever the rate."""
        return jnp.sqrt(x)

    def check_rows(self, x: np.ndarray) -> None:
        check_counts(self.label, x)

    def cancellation(self, params: MixtureParams) -> Array:
        rates = params.rates
        return params.weights @ jnp.sum(rates * (1 + jnp.abs(safe_log(rates))), axis=1)
