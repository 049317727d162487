"""Sites on curved sets: a support that checks, and densities on it."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import Transform

from jaxgmm._programs import program


@program(static_argnames=("structure", "rtol"))
def contains(structure: Any, covariances: Array, rtol: float) -> Array:
    """Whether a site's array is of a structure."""
    return structure.contains(covariances, rtol)


class OfStructure(constraints.Constraint):
    """All covariances of K components in D features that a (`Curved`) structure allows."""

    def __init__(self, structure: Any, k: int, d: int):
        self.structure, self.k, self.d = structure, k, d

    @property
    def event_dim(self) -> int:
        return 1 + len(self.structure.entry_dims)

    def __call__(self, x: Any) -> Array:
        site = jnp.asarray(x)
        rtol = float(jnp.finfo(site.dtype).eps) ** 0.5
        batch = site.shape[: -self.event_dim]
        flat = site.reshape(-1, *site.shape[-self.event_dim :])
        holds = jnp.stack([contains(self.structure, one, rtol) for one in flat])
        return holds.reshape(batch)

    def feasible_like(self, prototype: Any) -> Array:
        # Ties would leave the axes open.
        variances = jnp.exp(jnp.arange(self.d) - (self.d - 1) / 2)
        matrices = jnp.broadcast_to(jnp.diag(variances), (self.k, self.d, self.d))
        return jnp.broadcast_to(self.structure.entries(matrices), prototype.shape)

    def tree_flatten(self) -> Any:
        return (), ((), {"structure": self.structure, "k": self.k, "d": self.d})

    def eq(self, other: object, static: bool = False) -> bool:
        mine = (self.structure, self.k, self.d)
        return isinstance(other, OfStructure) and mine == (other.structure, other.k, other.d)

    def __repr__(self) -> str:
        return f"OfStructure({self.structure.name!r}, k={self.k}, d={self.d})"


@biject_to.register(OfStructure)
def _chart(constraint: OfStructure) -> Transform:
    return constraint.structure.chart(constraint)


class _Restricted(dist.Distribution):
    """A density, as it stands, on the curved set that a structure allows."""

    pytree_data_fields = ("density",)
    pytree_aux_fields = ("_support",)

    def __init__(self, density: dist.Distribution, support: OfStructure):
        self.density, self._support = density, support
        super().__init__(density.batch_shape, density.event_shape)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> OfStructure:
        return self._support

    def log_prob(self, value: Array) -> Array:
        return self.density.log_prob(value)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        raise NotImplementedError(
            f"the prior of {self._support.structure.name!r} covariances has no exact draws; "
            'sample it by MCMC, as jaxgmm.sample(method="nuts") does the posterior'
        )


def restricted(density: dist.Distribution, support: constraints.Constraint) -> dist.Distribution:
    """The density on the support: itself, unless the support is a curved set."""
    return _Restricted(density, support) if isinstance(support, OfStructure) else density
