"""Families whose components are NumPyro distributions without a closed M-step."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import i0e, i1e
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from jaxgmm.files import stored
from jaxgmm.model._door import check_counts, check_values
from jaxgmm.model._numerical_family import NumericalFamily
from jaxgmm.model._tree import pytree

_POSITIVE = constraints.positive


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class Gamma(NumericalFamily):
    """Positive columns, each Gamma: sites ``concentration`` and ``rate`` (K, D).

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jax.random.gamma(jax.random.key(1), 4.0, (60,)).at[:30].multiply(9.0)
    >>> jg.fit(jg.Mixture(jg.families.Gamma(), 2), x, key=jax.random.key(0)).converged
    True
    """

    supports: ClassVar = {"concentration": _POSITIVE, "rate": _POSITIVE}

    def make(self, **sites: Array) -> dist.Distribution:
        return dist.Gamma(**sites)

    def begin(self, averages: Float[Array, " m"]) -> dict[str, Array]:
        mean, variance = _moments(averages)
        return {"concentration": mean**2 / variance, "rate": mean / variance}

    def embed(self, x: Array) -> Float[Array, "n d"]:
        return jnp.log(x)


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class Weibull(NumericalFamily):
    """Positive columns, each Weibull: sites ``scale`` and ``concentration`` (K, D)."""

    supports: ClassVar = {"scale": _POSITIVE, "concentration": _POSITIVE}

    def make(self, **sites: Array) -> dist.Distribution:
        return dist.Weibull(**sites)

    def begin(self, averages: Float[Array, " m"]) -> dict[str, Array]:
        """By the coefficient of variation, whose power -1.086 is close to the concentration.

        Justus, Hargraves, Mikhail and Graber (1978), J. Appl. Meteorol. 17:350-353.
        """
        mean, variance = _moments(averages)
        concentration = (jnp.sqrt(variance) / mean) ** -1.086
        scale = mean / jnp.exp(jax.scipy.special.gammaln(1 + 1 / concentration))
        return {"scale": scale, "concentration": concentration}

    def embed(self, x: Array) -> Float[Array, "n d"]:
        return jnp.log(x)


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class LogNormal(NumericalFamily):
    """Positive columns whose logarithms are normal: sites ``loc`` and ``scale`` (K, D)."""

    supports: ClassVar = {"loc": constraints.real, "scale": _POSITIVE}

    def make(self, **sites: Array) -> dist.Distribution:
        return dist.LogNormal(**sites)

    def summaries(self, x: Array) -> Float[Array, "m n d"]:
        return super().summaries(jnp.log(x))

    def begin(self, averages: Float[Array, " m"]) -> dict[str, Array]:
        mean, variance = _moments(averages)
        return {"loc": mean, "scale": jnp.sqrt(variance)}

    def embed(self, x: Array) -> Float[Array, "n d"]:
        return jnp.log(x)


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class Beta(NumericalFamily):
    """Columns between 0 and 1, each Beta: sites ``concentration1``, ``concentration0`` (K, D)."""

    supports: ClassVar = {"concentration1": _POSITIVE, "concentration0": _POSITIVE}

    def make(self, **sites: Array) -> dist.Distribution:
        return dist.Beta(**sites)

    def begin(self, averages: Float[Array, " m"]) -> dict[str, Array]:
        mean, variance = _moments(averages)
        total = jnp.maximum(mean * (1 - mean) / variance - 1, 0.1)
        return {"concentration1": total * mean, "concentration0": total * (1 - mean)}

    def embed(self, x: Array) -> Float[Array, "n d"]:
        return jnp.log(x) - jnp.log1p(-x)


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class VonMises(NumericalFamily):
    """Angles in radians, each von Mises: sites ``cosine`` and ``sine`` (K, D).

    The natural parameters, concentration times the cosine and sine of the mean direction: a mean
    direction itself would have a seam at pi.

    References
    ----------
    Mardia and Jupp (2000), Directional Statistics, section 3.5.4.
    """

    supports: ClassVar = {"cosine": constraints.real, "sine": constraints.real}

    def make(self, **sites: Array) -> dist.Distribution:
        cosine, sine = sites["cosine"], sites["sine"]
        # Where both are zero the direction is any.
        nowhere = cosine**2 + sine**2 == 0
        safe = jnp.where(nowhere, jnp.finfo(jnp.result_type(cosine)).tiny ** 0.25, cosine)
        return dist.VonMises(jnp.arctan2(sine, safe), jnp.sqrt(safe**2 + sine**2))

    def summaries(self, x: Array) -> Float[Array, "m n d"]:
        return jnp.stack([jnp.cos(x), jnp.sin(x)])

    def begin(self, averages: Float[Array, " m"]) -> dict[str, Array]:
        """By the mean resultant length (Banerjee et al., 2005, JMLR 6:1345-1382)."""
        length2 = jnp.clip(jnp.sum(averages**2), 1e-6, 1 - 1e-6)
        factor = (2 - length2) / (1 - length2)
        return {"cosine": factor * averages[0], "sine": factor * averages[1]}

    def expected(self, own: dict[str, Any], labels: Float[Array, "n k"]) -> Float[Array, "n d"]:
        """The direction of the mean vector."""
        length = jnp.sqrt(own["cosine"] ** 2 + own["sine"] ** 2)
        # Of a component: the ratio of Bessel functions, over the concentration.
        shrink = i1e(length) / i0e(length) / jnp.maximum(length, jnp.finfo(length.dtype).tiny)
        return jnp.arctan2(labels @ (shrink * own["sine"]), labels @ (shrink * own["cosine"]))

    def embed(self, x: Array) -> Float[Array, "n e"]:
        return jnp.concatenate([jnp.cos(x), jnp.sin(x)], axis=1)

    def check_rows(self, x: np.ndarray) -> None:
        holds = lambda rows: np.abs(rows) <= np.pi * (1 + 1e-6)
        check_values(self.label, x, holds, "angles between -pi and pi", "take them modulo 2 pi")


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class NegativeBinomial(NumericalFamily):
    """Counts that vary more than Poisson ones: sites ``mean`` and ``concentration`` (K, D).

    The variance is ``mean + mean**2 / concentration``.
    """

    supports: ClassVar = {"mean": _POSITIVE, "concentration": _POSITIVE}

    def make(self, **sites: Array) -> dist.Distribution:
        return dist.NegativeBinomial2(**sites)

    def begin(self, averages: Float[Array, " m"]) -> dict[str, Array]:
        mean, variance = _moments(averages)
        mean = jnp.maximum(mean, 1e-3)
        return {"mean": mean, "concentration": mean**2 / jnp.maximum(variance - mean, 0.1 * mean)}

    def embed(self, x: Array) -> Float[Array, "n d"]:
        return jnp.sqrt(x)

    def check_rows(self, x: np.ndarray) -> None:
        check_counts(self.label, x)


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class Binomial(NumericalFamily):
    """Successes in ``total_count`` trials: site ``probs`` (K, D).

    Components can be told apart from at least 2 K - 1 trials.
    """

    total_count: int = dataclasses.field(metadata={"static": True})
    supports: ClassVar = {"probs": constraints.unit_interval}

    def make(self, **sites: Array) -> dist.Distribution:
        return dist.BinomialProbs(total_count=self.total_count, **sites)

    def begin(self, averages: Float[Array, " m"]) -> dict[str, Any]:
        least = 0.5 / (self.total_count + 1)
        return {"probs": jnp.clip(averages[0] / self.total_count, least, 1 - least)}

    def embed(self, x: Array) -> Float[Array, "n d"]:
        return jnp.arcsin(jnp.sqrt(x / self.total_count))

    def check_rows(self, x: np.ndarray) -> None:
        holds = lambda rows: (rows >= 0) & (rows <= self.total_count) & (rows % 1 == 0)
        check_values(
            self.label, x, holds, f"counts 0, ..., {self.total_count}", "raise total_count"
        )


def _moments(averages: Float[Array, " m"]) -> tuple[Array, Array]:
    """Mean and variance, which is not less than rounding makes it."""
    mean, square = averages
    least = 64 * jnp.finfo(mean.dtype).eps * square + jnp.finfo(mean.dtype).tiny
    return mean, jnp.maximum(square - mean**2, least)
