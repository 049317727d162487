"""Latent classes of several levels: columns of codes, independent given the class."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from jaxgmm._checks import check_count
from jaxgmm._numerics import stack
from jaxgmm.files import stored
from jaxgmm.model._conjugate import ConjugateFamily, Sums
from jaxgmm.model._door import check_values
from jaxgmm.model._hyper import Hyper, Moments, safe_log
from jaxgmm.model._tree import pytree


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class Categorical(ConjugateFamily):
    """Columns of codes ``0, ..., levels - 1``, independent within a component.

    The site is ``probs`` (K, D, levels), the probability of each level; its conjugate prior is
    a Dirichlet distribution.

    Parameters
    ----------
    levels : int
        How many levels every column has, at least two.

    References
    ----------
    Goodman (1974), Biometrika 61:215-231.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> jg.Mixture(jg.families.Categorical(levels=3), 2).n_parameters(n_features=4)
    17
    """

    levels: int = dataclasses.field(metadata={"static": True})

    conjugate: ClassVar = {"probs": dist.Dirichlet}
    holes = True
    columns = "levels"
    formula = "∏_j Categorical(p_kj)"
    dims = ("component", "feature", "level")

    def __post_init__(self):
        check_count("levels", self.levels, 2)

    @property
    def n_levels(self) -> int:  # type: ignore[override]
        """How many values a column has."""
        return self.levels

    @property
    def row_support(self) -> constraints.Constraint:
        """What a row is."""
        return constraints.independent(constraints.integer_interval(0, self.levels - 1), 1)

    def shape(self, k: int, d: int) -> tuple[int, ...]:
        return k, d, self.levels

    def features(self, x: Array) -> Float[Array, "f n"]:
        codes = jnp.arange(self.levels, dtype=x.dtype)[:, None]
        each = (lax.optimization_barrier(x.T)[:, None] == codes).astype(x.dtype)
        return stack([jnp.ones((1, len(x)), x.dtype), each.reshape(-1, len(x))])

    def natural(self, of: dict[str, Moments]) -> Float[Array, "k f"]:
        logs = of["probs"].log
        logs = logs.reshape(logs.shape[0], -1)
        return jnp.concatenate([jnp.zeros_like(logs[:, :1]), logs], axis=1)

    def evidence(self, sums: Sums) -> dict[str, Hyper]:
        counts = sums.features[:, 1:]
        return {"probs": (counts.reshape(len(counts), -1, self.levels),)}

    def draw(self, own: dict[str, Any], key: Any, labels: Array) -> Array:
        return jax.random.categorical(key, safe_log(own["probs"][labels]))

    def expected(self, own: dict[str, Any], labels: Array) -> Float[Array, "n d"]:
        probs = jnp.einsum("nk,kdl->ndl", labels, own["probs"])
        return jnp.argmax(probs, axis=-1).astype(labels.dtype)

    def _indicators(self, x: Array) -> Float[Array, "n e"]:
        codes = jnp.arange(self.levels, dtype=x.dtype)
        return (x[..., None] == codes).astype(x.dtype).reshape(x.shape[0], -1)

    def embed(self, x: Array) -> Float[Array, "n e"]:
        """One column for each level."""
        return jnp.where(jnp.isnan(jnp.repeat(x, self.levels, 1)), jnp.nan, self._indicators(x))

    def check_rows(self, x: np.ndarray) -> None:
        holds = lambda rows: (rows >= 0) & (rows < self.levels) & (rows % 1 == 0)
        needs = f"codes 0, ..., {self.levels - 1}"
        remedy = "recode the column (codes count from 0), or raise levels"
        check_values(self.label, x, holds, needs, remedy)
