"""Conjugate distributions by their hyper-parameters: one line of a table for each.

Labelled rows add to the hyper-parameters, and a flat density has some as well, so that maximum
likelihood, MAP, Gibbs and variational Bayes need no formula of a family's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import digamma
from jaxtyping import Array
from numpyro.distributions import constraints

from jaxgmm._contract import innermost
from jaxgmm.files import stored

Hyper = tuple[Array, ...]


@stored
class Sums(NamedTuple):
    """Effective rows of each component, (K,), and sums of the features of its rows, (K, f)."""

    counts: Array
    features: Array


class Moments(NamedTuple):
    """A site as natural parameters are made of it: its values, or means over a prior.

    Attributes
    ----------
    value, log, log_rest : array
        The site, its logarithm, and that of one less it (of a `Beta` alone).
    """

    value: Array
    log: Array
    log_rest: Any = None


class Kind(NamedTuple):
    """A conjugate distribution whose hyper-parameters have the shape of its values.

    Attributes
    ----------
    names : tuple of str
        NumPyro's names of the hyper-parameters, those that are powers first.
    powers : int
        How many are: below one the density has a pole.
    flat : tuple of float
        Of a constant density.
    support : constraint
        Of one value.
    mode : callable
        From hyper-parameters; where the density is flat, a value within.
    means : callable
        `Moments` over the distribution, from hyper-parameters.
    """

    names: tuple[str, ...]
    powers: int
    flat: tuple[float, ...]
    support: constraints.Constraint
    mode: Callable[..., Array]
    means: Callable[..., Moments]


def _beta_mode(one: Array, other: Array) -> Array:
    return _share(one - 1, one + other - 2, 0.5)


def _dirichlet_mode(concentration: Array) -> Array:
    rows = concentration - 1
    return _share(rows, jnp.sum(rows, axis=-1, keepdims=True), 1 / rows.shape[-1])


def _gamma_mode(concentration: Array, rate: Array) -> Array:
    # Events in no time at all have no finite rate.
    nothing = jnp.where(concentration > 1, jnp.inf, 1.0).astype(rate.dtype)
    return _share(concentration - 1, rate, nothing)


def _share(part: Array, whole: Array, otherwise: Array | float) -> Array:
    """Of nothing, something else: both branches are finite, for whoever differentiates."""
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), otherwise)


def _beta_means(one: Array, other: Array) -> Moments:
    total = digamma(one + other)
    return Moments(one / (one + other), digamma(one) - total, digamma(other) - total)


def _dirichlet_means(concentration: Array) -> Moments:
    total = jnp.sum(concentration, axis=-1, keepdims=True)
    return Moments(concentration / total, digamma(concentration) - digamma(total))


def _gamma_means(concentration: Array, rate: Array) -> Moments:
    return Moments(concentration / rate, digamma(concentration) - jnp.log(rate))


KINDS: dict[type, Kind] = {
    dist.Beta: Kind(
        ("concentration1", "concentration0"), 2, (1.0, 1.0), constraints.unit_interval,
        _beta_mode, _beta_means,
    ),
    dist.Dirichlet: Kind(
        ("concentration",), 1, (1.0,), constraints.simplex, _dirichlet_mode, _dirichlet_means
    ),
    dist.Gamma: Kind(
        ("concentration", "rate"), 1, (1.0, 0.0), constraints.positive, _gamma_mode, _gamma_means
    ),
}  # fmt: skip


def hyper(written: Any, kind: Kind, shape: tuple[int, ...]) -> Hyper:
    """The hyper-parameters of a distribution, in the shape of a whole site."""
    inner = innermost(written)
    return tuple(jnp.broadcast_to(getattr(inner, name), shape) for name in kind.names)


def at(value: Array) -> Moments:
    """`Moments` of a point.

    No value is closer to zero than the root of the smallest number, nor to one than a rounding:
    -inf times a count of none is no number, and second derivatives hold the inverse square.
    """
    return Moments(value, safe_log(value), safe_log(1 - value))


def safe_log(value: Array) -> Array:
    """The logarithm of what may be zero."""
    return jnp.log(jnp.maximum(value, 4 * jnp.finfo(value.dtype).tiny ** 0.5))
