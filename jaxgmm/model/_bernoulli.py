"""Latent classes of yes or no: columns that are 0 or 1, independent given the class."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from jaxgmm._numerics import stack
from jaxgmm.files import stored
from jaxgmm.model._conjugate import ConjugateFamily, Sums
from jaxgmm.model._door import check_values
from jaxgmm.model._hyper import Hyper, Moments
from jaxgmm.model._tree import pytree


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class Bernoulli(ConjugateFamily):
    """Columns of zeros and ones, independent within a component.

    The site is ``probs`` (K, D), the probability of a one; its conjugate prior is a Beta
    distribution.

    References
    ----------
    Lazarsfeld and Henry (1968), Latent Structure Analysis; Goodman (1974), Biometrika
    61:215-231, for EM.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jaxgmm as jg
    >>> x = jnp.array([[1.0, 1.0, 0.0]] * 6 + [[0.0, 0.0, 1.0]] * 3 + [[1.0, 0.0, 0.0]])
    >>> fit = jg.fit(jg.Mixture(jg.families.Bernoulli(), 2), x, key=jax.random.key(0))
    >>> round(fit.log_likelihood, 3)
    -8.979
    """

    conjugate: ClassVar = {"probs": dist.Beta}
    holes = True
    columns = "levels"
    n_levels = 2
    formula = "∏_j Bernoulli(p_kj)"
    row_support = constraints.independent(constraints.boolean, 1)

    def features(self, x: Array) -> Float[Array, "f n"]:
        return stack([jnp.ones((1, len(x)), x.dtype), x.T, 1 - x.T])

    def natural(self, of: dict[str, Moments]) -> Float[Array, "k f"]:
        probs = of["probs"]
        return jnp.concatenate([jnp.zeros_like(probs.log[:, :1]), probs.log, probs.log_rest], 1)

    def evidence(self, sums: Sums) -> dict[str, Hyper]:
        ones, zeros = jnp.split(sums.features[:, 1:], 2, axis=1)
        return {"probs": (ones, zeros)}

    def draw(self, own: dict[str, Any], key: Any, labels: Array) -> Array:
        return jax.random.bernoulli(key, own["probs"][labels])

    def expected(self, own: dict[str, Any], labels: Array) -> Float[Array, "n d"]:
        return (labels @ own["probs"] > 0.5).astype(labels.dtype)

    def check_rows(self, x: np.ndarray) -> None:
        holds = lambda rows: (rows == 0) | (rows == 1)
        check_values(self.label, x, holds, "codes 0 and 1", "recode the column")
