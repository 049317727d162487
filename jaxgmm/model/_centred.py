"""The slower form of a Gaussian E-step, which keeps its digits where the fast one cancels.

The fast form expands the squares about one origin. A component much smaller than its distance
from there, or much flatter than it is long, is then the small difference of large
numbers; here each component has its differences from its own mean.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgmm._numerics import Affine, block_rows
from jaxgmm.model._family import Form
from jaxgmm.model._moments import Moments, about_their_means
from jaxgmm.model._structure import Structure


@dataclasses.dataclass(frozen=True)
class Centred(Form):
    """Gaussian components seen from their own ``means`` (K, D), in the units of ``chart``."""

    structure: Structure
    chart: Affine
    means: Float[Array, "k d"]

    def features(self, x: Array) -> Float[Array, "k d n"]:
        return self.chart.apply(x).T - self.means[:, :, None]

    def log_density(self, params: Any, features: Float[Array, "k d n"]) -> Float[Array, "k n"]:
        d = self.means.shape[1]
        whitened, log_det = self.structure.whiten(params.covariance_site, features)
        constant = -0.5 * (log_det + d * math.log(2 * math.pi)) - self.chart.log_scale
        return constant[:, None] - 0.5 * jnp.sum(whitened**2, axis=1)

    def sums(
        self, features: Float[Array, "k d n"], weights: Float[Array, "k n"]
    ) -> tuple[Array, Array, Array]:
        return (
            jnp.sum(weights, axis=1),
            jnp.einsum("kn,kdn->kd", weights, features),
            self.structure.scatter_of(features, weights),
        )

    def statistics(self, sums: tuple[Array, Array, Array]) -> Moments:
        return about_their_means(self.structure, *sums, self.means)

    def block_rows(self, x: Array, n_components: int) -> int:
        return block_rows(n_components * x.shape[1], x.dtype)
