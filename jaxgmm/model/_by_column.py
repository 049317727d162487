"""Rows with holes of independent columns: each row counts in the columns that it has."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgmm.model._family import Form
from jaxgmm.model._hyper import Hyper, Moments, Sums


@dataclasses.dataclass(frozen=True)
class ByColumn(Form):
    """An exponential family of which every column is weighed and counted for itself.

    What a row that lacks a value lacks is the term of that column in its log density, so that all
    that is computed stays exact (Little and Rubin, 2002, section 6.2). Features are a one, and of
    each column the family's own, zero in the holes.
    """

    # A `ConjugateFamily`.
    family: Any

    def features(self, x: Float[Array, "n d"]) -> Float[Array, "f n"]:
        there = ~jnp.isnan(x)
        # One is a value of every kind of column; what it makes is left out again.
        own = jax.vmap(lambda column: self.family.features(column[:, None]), in_axes=1)
        each = jnp.where(there.T[:, None], own(jnp.where(there, x, 1)), 0)
        return jnp.concatenate([jnp.ones((1, len(x)), x.dtype), each.reshape(-1, len(x))])

    def natural(self, of: dict[str, Moments]) -> Float[Array, "k f"]:
        """The factor of each feature, as `ConjugateFamily.natural`."""
        own = lambda one: self.family.natural(jax.tree.map(lambda site: site[:, None], one))
        each = jax.vmap(own, in_axes=1, out_axes=1)(of)
        each = each.reshape(len(each), -1)
        return jnp.concatenate([jnp.zeros_like(each[:, :1]), each], axis=1)

    def evidence(self, sums: Sums) -> dict[str, Hyper]:
        """What labelled rows add to the hyper-parameters, as `ConjugateFamily.evidence`."""
        own = lambda one: self.family.evidence(self.family.statistics(one))
        each = jax.vmap(own, in_axes=1, out_axes=1)(self._each(sums.features))
        return jax.tree.map(lambda added: added[:, :, 0], each)

    def average(self, sums: Float[Array, "k f"]) -> Float[Array, "k f"]:
        """The sums of one row that has the average value in every column."""
        each = self._each(sums)
        values = each[..., :1]
        each = each / jnp.where(values > 0, values, 1)
        return jnp.concatenate([jnp.ones_like(sums[:, :1]), each.reshape(len(sums), -1)], axis=1)

    def _each(self, sums: Float[Array, "k f"]) -> Float[Array, "k d g"]:
        """The sums of every column, how many values it has first."""
        one = jax.ShapeDtypeStruct((1, 1), sums.dtype)
        width = jax.eval_shape(self.family.features, one).shape[0]
        return sums[:, 1:].reshape(len(sums), -1, width)

    def log_density(self, params: Any, features: Float[Array, "f n"]) -> Float[Array, "k n"]:
        return self.natural(self.family.moments(params)) @ features

    def sums(self, features: Float[Array, "f n"], weights: Float[Array, "k n"]) -> Array:
        return self.family.sums(features, weights)

    def statistics(self, sums: Float[Array, "k f"]) -> Sums:
        return self.family.statistics(sums)

    def block_rows(self, x: Array, n_components: int) -> int:
        return self.family.block_rows(x, n_components)
