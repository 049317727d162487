"""Densities of normal mixtures in NumPy, for figures: nothing is compiled for a picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxgmm.bayes import Posterior


def normals_of(model: Any, params: Any) -> Any:
    """What has weights, means and covariances of normal components; None where nothing has."""
    family = getattr(model, "family", None)
    if family is not None:
        return family.normals(params)
    known = hasattr(params, "means") and hasattr(params, "covariances")
    return params if known else None


class Gaussians(NamedTuple):
    """Weights (..., K), means (..., K, D) and covariances (..., K, D, D), any leading axes.

    And a box (2, D) where there is a background, which then has what the weights leave of one.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    box: np.ndarray | None = None

    @classmethod
    def of(cls, model: Any, params: Any) -> Gaussians:
        """The components of parameters that have them."""
        known = normals_of(model, params)
        names = ("weights", "means", "covariances")
        parts = (np.asarray(getattr(known, name), np.float64) for name in names)
        uniform, box = getattr(getattr(model, "family", None), "uniform", None), None
        if uniform is not None:
            sides = (np.asarray(side, np.float64) for side in (uniform.low, uniform.high))
            box = np.stack([np.broadcast_to(side, known.means.shape[-1:]) for side in sides])
        weights, means, covariances = parts
        return cls(weights, means, covariances, box)

    @classmethod
    def drawn(cls, post: Posterior, most: int) -> Gaussians:
        """Those of equally weighted draws, in one row."""
        return cls.of(post.model, post.thin(most).params)._each(
            lambda part: part.reshape(-1, *part.shape[2:])
        )

    def _each(self, change: Callable[[np.ndarray], np.ndarray]) -> Gaussians:
        parts = (change(part) for part in (self.weights, self.means, self.covariances))
        return self._replace(**dict(zip(self._fields, parts, strict=False)))

    def at(self, s: int) -> Gaussians:
        """One of them along the first axis."""
        return self._each(lambda part: part[s])

    def of_features(self, chosen: list[int]) -> Gaussians:
        """The marginal components of some features."""
        covariances = self.covariances[(..., *np.ix_(chosen, chosen))]
        box = None if self.box is None else self.box[:, chosen]
        return Gaussians(self.weights, self.means[..., chosen], covariances, box)

    def densities(self, x: np.ndarray) -> np.ndarray:
        """(K, n) weight times density of each component at rows (n, D), without leading axes.

        That of the background comes last.
        """
        factors = np.linalg.cholesky(self.covariances)
        scaled = np.linalg.solve(factors, np.moveaxis(x - self.means[:, None], -1, -2))
        log_volume = np.sum(np.log(np.diagonal(factors, axis1=-2, axis2=-1)), -1)
        exponent = -0.5 * np.sum(scaled**2, axis=-2) - log_volume[:, None]
        constant = (2 * np.pi) ** (-0.5 * x.shape[-1])
        found = constant * self.weights[:, None] * np.exp(exponent)
        if self.box is None:
            return found
        low, high = self.box
        inside = np.all((x >= low) & (x <= high), axis=-1)
        share = (1 - self.weights.sum()) / np.prod(high - low)
        return np.concatenate([found, share * inside[None]])

    def rows(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """(n, D) rows drawn at random, without leading axes."""
        if self.box is not None:
            inner = self._replace(weights=self.weights / self.weights.sum(), box=None)
            low, high = self.box
            apart = rng.random((n, 1)) > self.weights.sum()
            return np.where(apart, rng.uniform(low, high, (n, len(low))), inner.rows(rng, n))
        labels = rng.choice(len(self.weights), n, p=self.weights / self.weights.sum())
        noise = rng.standard_normal((n, self.means.shape[-1]))
        factors = np.linalg.cholesky(self.covariances)[labels]
        return self.means[labels] + np.einsum("nij,nj->ni", factors, noise)
