"""Sites on curved sets: a support that checks, and a prior that cannot be sampled yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import biject_to, constraints

if TYPE_CHECKING:
    from jaxgmm.model._structure import Curved


class OfStructure(constraints.Constraint):
    """All covariances that a structure allows, in the shape of its site."""

    def __init__(self, structure: Curved):
        self.structure = structure

    @property
    def event_dim(self) -> int:
        return 1 + len(self.structure.entry_dims)

    def __call__(self, x: Any) -> Array:
        site = jnp.asarray(x)
        rtol = float(jnp.sqrt(jnp.finfo(site.dtype).eps))
        batch = site.shape[: -self.event_dim]
        flat = site.reshape(-1, *site.shape[-self.event_dim :])
        holds = jnp.stack([self.structure.contains(one, rtol) for one in flat])
        return holds.reshape(batch)

    def feasible_like(self, prototype: Any) -> Array:
        k, d = prototype.shape[-self.event_dim], prototype.shape[-1]
        identity = self.structure.entries(jnp.broadcast_to(jnp.eye(d), (k, d, d)))
        return jnp.broadcast_to(identity, prototype.shape)

    def tree_flatten(self) -> Any:
        return (), ((), {"structure": self.structure})

    def eq(self, other: object, static: bool = False) -> bool:
        return isinstance(other, OfStructure) and other.structure is self.structure

    def __repr__(self) -> str:
        return f"OfStructure({self.structure.name!r})"


def not_samplable(name: str) -> str:
    """Why there is no posterior sample of this structure, and what there is."""
    return (
        f"structure: the posterior of {name!r} covariances cannot be sampled yet; "
        "jaxgmm.fit works (maximum likelihood and MAP). Structures that can be sampled: "
        "EII, VII (spherical), EEI, VVI (diag), EEE (tied), VVV (full)"
    )


@biject_to.register(OfStructure)
def _no_bijection(constraint: OfStructure) -> Any:
    raise NotImplementedError(not_samplable(constraint.structure.name))


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
        raise NotImplementedError(not_samplable(self._support.structure.name))


def restricted(density: dist.Distribution, support: constraints.Constraint) -> dist.Distribution:
    """The density on the support: itself, unless the support is a curved set."""
    return _Restricted(density, support) if isinstance(support, OfStructure) else density
