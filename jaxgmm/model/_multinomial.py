"""Counts that share a total: how often each of several things was seen in a row."""

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

# Totals that stand for those of all rows: quantiles at even steps.
_TOTALS = 256


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class Multinomial(ConjugateFamily):
    """Rows of counts given their total, the multinomial coefficient included.

    The site is ``probs`` (K, D), the share of each column; its conjugate prior is a Dirichlet
    distribution.

    Parameters
    ----------
    totals : int or array, optional
        Totals of rows that are drawn, each one of these with equal probability. By default
        those of the data, as 256 quantiles that ``model.resolve(x)`` and `jaxgmm.fit` look up.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> model = jg.Mixture(jg.families.Multinomial(totals=10), 2)
    >>> params = model.params(probs=[[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    >>> model.sample(params, jax.random.key(0), 4).sum(axis=1).tolist()
    [10.0, 10.0, 10.0, 10.0]
    """

    totals: Any = None

    conjugate: ClassVar = {"probs": dist.Dirichlet}
    columns = "shares"
    formula = "Multinomial(N_i, p_k)"
    row_support = constraints.independent(constraints.nonnegative_integer, 1)

    @property
    def label(self) -> str:
        return "Multinomial()"

    def features(self, x: Array) -> Float[Array, "f n"]:
        coefficient = log_factorial(jnp.sum(x, axis=1)) - jnp.sum(log_factorial(x), axis=1)
        return stack([jnp.ones((1, len(x)), x.dtype), coefficient[None], x.T])

    def natural(self, of: dict[str, Moments]) -> Float[Array, "k f"]:
        logs = of["probs"].log
        zero = jnp.zeros_like(logs[:, :1])
        return jnp.concatenate([zero, zero + 1, logs], axis=1)

    def evidence(self, sums: Sums) -> dict[str, Hyper]:
        return {"probs": (sums.features[:, 2:],)}

    def looked(self, x: Array, sample_weight: Array | None) -> Multinomial:
        if self.totals is not None:
            return self
        totals = jnp.sum(x, axis=1)
        order = jnp.argsort(totals)
        weight = jnp.ones_like(totals) if sample_weight is None else sample_weight
        share = jnp.cumsum(weight[order]) / jnp.sum(weight)
        levels = (jnp.arange(_TOTALS, dtype=x.dtype) + 0.5) / _TOTALS
        return dataclasses.replace(self, totals=totals[order[jnp.searchsorted(share, levels)]])

    def draw(self, own: dict[str, Any], key: Any, labels: Array) -> Array:
        if self.totals is None:
            raise ValueError(
                "sample: the totals of the rows are not known; call model.resolve(x), use "
                "fit.model, or write Multinomial(totals=...)"
            )
        key_total, key_rows = jax.random.split(key)
        probs, totals = own["probs"][labels], jnp.ravel(jnp.asarray(self.totals))
        total = totals[jax.random.randint(key_total, labels.shape, 0, totals.size)]
        return jax.random.multinomial(key_rows, total.astype(probs.dtype), probs)

    def embed(self, x: Array) -> Float[Array, "n d"]:
        """Square roots of the shares, whose variance does not depend on them."""
        return jnp.sqrt(x / jnp.maximum(jnp.sum(x, axis=1, keepdims=True), 1))

    def check_rows(self, x: np.ndarray) -> None:
        check_counts(self.label, x)

    def cancellation(self, params: MixtureParams) -> Array:
        if self.totals is None:
            return jnp.array(0.0)
        entropy = -jnp.sum(params.probs * safe_log(params.probs), axis=1)
        return jnp.mean(jnp.asarray(self.totals)) * (params.weights @ entropy)
