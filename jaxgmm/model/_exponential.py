"""Waiting times: positive numbers, independent given the component."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from jaxgmm.files import ColumnRefused, stored
from jaxgmm.model._conjugate import ConjugateFamily, Sums
from jaxgmm.model._door import check_values
from jaxgmm.model._hyper import Hyper, Moments
from jaxgmm.model._tree import pytree


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class Exponential(ConjugateFamily):
    """Columns of positive numbers, each exponential and independent within a component.

    The site is ``rates`` (K, D), in one over the units of the data; its conjugate prior is a
    Gamma distribution. Without a prior zeros are refused: on a component of zeros alone the
    likelihood has no bound.

    References
    ----------
    Heckman and Singer (1984), Econometrica 52:271-320; Jewell (1982), Ann. Statist. 10:479-484.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jaxgmm as jg
    >>> x = jnp.array([0.1, 0.02, 0.05, 0.2, 7.0, 12.0, 9.0, 30.0])
    >>> fit = jg.fit(jg.Mixture(jg.families.Exponential(), 2), x, key=jax.random.key(0))
    >>> fit.converged
    True
    """

    conjugate: ClassVar = {"rates": dist.Gamma}
    holes = True
    columns = "positives"
    formula = "∏_j Exponential(λ_kj)"
    row_support = constraints.independent(constraints.nonnegative, 1)

    def features(self, x: Array) -> Float[Array, "f n"]:
        return jnp.concatenate([jnp.ones((1, len(x)), x.dtype), x.T])

    def natural(self, of: dict[str, Moments]) -> Float[Array, "k f"]:
        rates = of["rates"]
        return jnp.concatenate([jnp.sum(rates.log, axis=1, keepdims=True), -rates.value], axis=1)

    def evidence(self, sums: Sums) -> dict[str, Hyper]:
        return {"rates": (sums.counts[:, None], sums.features[:, 1:])}

    def draw(self, own: dict[str, Any], key: Any, labels: Array) -> Array:
        rates = own["rates"][labels]
        return jax.random.exponential(key, rates.shape, rates.dtype) / rates

    def expected(self, own: dict[str, Any], labels: Array) -> Float[Array, "n d"]:
        return labels @ (1 / own["rates"])

    def embed(self, x: Array) -> Float[Array, "n d"]:
        """Logarithms, whose variance does not depend on the rate."""
        return jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny))

    def bounded(self, prior: Any, free: bool) -> bool:
        return prior is not None

    def check_rows(self, x: np.ndarray) -> None:
        holds = lambda rows: rows >= 0
        check_values(self.label, x, holds, "positive numbers", "look where it comes from")

    def check_bounded(self, x: np.ndarray, k: int) -> None:
        remedy = f"use {self.proper_prior}, or half of the step that it was rounded to"
        needs = "numbers above 0 where no prior bounds the rate"
        check_values(self.label, x, lambda rows: rows > 0, needs, remedy)

    def check_rule(self, rule: str, x: np.ndarray, total_weight: float) -> None:
        zeros = np.all((x == 0) | np.isnan(x), axis=0)
        if np.any(zeros):
            raise ColumnRefused(
                f"prior: {rule!r} has no scale for {{column}}, which is zero; leave it out",
                int(np.argmax(zeros)),
            )
