"""Densities of normal mixtures in NumPy, for figures: nothing is compiled for a picture."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxgmm._posterior import Posterior


class Gaussians(NamedTuple):
    """Weights (..., K), means (..., K, D) and covariances (..., K, D, D), any leading axes."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    @classmethod
    def of(cls, params: Any) -> Gaussians:
        """The components of parameters that have them."""
        names = ("weights", "means", "covariances")
        return cls(*(np.asarray(getattr(params, name), np.float64) for name in names))

    @classmethod
    def drawn(cls, post: Posterior, most: int) -> Gaussians:
        """Those of equally weighted draws, in one row."""
        parts = cls.of(post.thin(most).params)
        return cls(*(part.reshape(-1, *part.shape[2:]) for part in parts))

    def at(self, s: int) -> Gaussians:
        """One of them along the first axis."""
        return Gaussians(*(part[s] for part in self))

    def of_features(self, chosen: list[int]) -> Gaussians:
        """The marginal components of some features."""
        covariances = self.covariances[(..., *np.ix_(chosen, chosen))]
        return Gaussians(self.weights, self.means[..., chosen], covariances)

    def densities(self, x: np.ndarray) -> np.ndarray:
        """(K, n) weight times density of each component at rows (n, D), without leading axes."""
        factors = np.linalg.cholesky(self.covariances)
        scaled = np.linalg.solve(factors, np.moveaxis(x - self.means[:, None], -1, -2))
        log_volume = np.sum(np.log(np.diagonal(factors, axis1=-2, axis2=-1)), -1)
        exponent = -0.5 * np.sum(scaled**2, axis=-2) - log_volume[:, None]
        constant = (2 * np.pi) ** (-0.5 * x.shape[-1])
        return constant * self.weights[:, None] * np.exp(exponent)

    def rows(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """(n, D) rows drawn at random, without leading axes."""
        labels = rng.choice(len(self.weights), n, p=self.weights / self.weights.sum())
        noise = rng.standard_normal((n, self.means.shape[-1]))
        factors = np.linalg.cholesky(self.covariances)[labels]
        return self.means[labels] + np.einsum("nij,nj->ni", factors, noise)
