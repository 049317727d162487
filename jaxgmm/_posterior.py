"""The posterior as a noun: draws by site, whatever engine made them, and its ArviZ form."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from jaxgmm._contract import LatentModel, Params
from jaxgmm._evidence import Evidence


@dataclasses.dataclass(frozen=True, repr=False)
class Posterior:
    """Draws of a posterior, relabelled, with everything needed to judge them.

    Attributes
    ----------
    model : LatentModel
        The model with its prior as numbers.
    method : str
        The engine.
    x, sample_weight : arrays
        The data and weights, as given.
    draws : dict of arrays (chain, draw, ...)
        By site, relabelled; a mixture adds ``covariances_full`` (chain, draw, K, D, D).
    draws_raw : dict of arrays (chain, draw, ...)
        As drawn.
    params : pytree
        The relabelled draws as parameters (chain, draw, ...).
    labels : (chain, draw, K) array
        The permutations: new label k was ``labels[..., k]``.
    log_prior, log_likelihood : (chain, draw) arrays
        At each draw, in the declared coordinates and the units of the data.
    sample_stats : dict of (chain, draw) arrays
        The sampler's own statistics.
    log_weights : (chain, draw) array or None
        Where the draws are those of an approximation: their log importance weights, Pareto-
        smoothed and normalised. None where the draws are the posterior's own.
    pareto_k : float or None
        The shape of the tail of those weights: above 0.7 they, and the approximation, are not
        to be trusted.
    evidence : Evidence or None
        log p(x) with its error, where the engine estimates it.
    diagnostics : dict
        What the engine says of itself, such as the trace of a bound.
    """

    model: LatentModel
    method: str
    x: Array
    sample_weight: Array | None
    draws: dict[str, np.ndarray]
    draws_raw: dict[str, np.ndarray]
    params: Params
    labels: np.ndarray
    log_prior: np.ndarray
    log_likelihood: np.ndarray
    sample_stats: dict[str, np.ndarray]
    n_warmup: int
    fingerprint: str
    feature_names: tuple[str, ...]
    log_weights: np.ndarray | None = None
    pareto_k: float | None = None
    evidence: Evidence | None = None
    diagnostics: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def log_joint(self) -> np.ndarray:
        """(chain, draw) log density of parameters and data, in the declared coordinates."""
        return self.log_prior + self.log_likelihood

    @property
    def n_chains(self) -> int:
        """Number of chains."""
        return self.log_prior.shape[0]

    @property
    def n_draws(self) -> int:
        """Number of kept draws of each chain."""
        return self.log_prior.shape[1]

    def invariants(self) -> dict[str, np.ndarray]:
        """(chain, draw) quantities that no renaming of labels changes."""
        return invariants(self.log_joint, self.log_likelihood, self.draws)

    def pointwise_log_likelihood(self) -> np.ndarray:
        """(chain, draw, n) log density of each row, the label summed out, weights applied."""
        values = np.asarray(_pointwise(self.model, self.params, self.x))
        return values if self.sample_weight is None else values * np.asarray(self.sample_weight)

    def to_arviz(self) -> Any:
        """The posterior as the installed ArviZ understands it.

        Returns
        -------
        arviz.InferenceData or xarray.DataTree
            InferenceData under ArviZ 0.x, a DataTree under 1.x, with the groups
            ``posterior`` (relabelled), ``sample_stats``, ``log_likelihood`` (pointwise,
            marginal over labels) and ``observed_data``. Dimensions are ``chain, draw,
            component, feature, feature_bis, obs``.

        Examples
        --------
        ``arviz.loo(post.to_arviz())`` estimates the predictive accuracy of the mixture.
        """
        from jaxgmm._export import to_arviz

        return to_arviz(self)

    def __repr__(self) -> str:
        divergences = int(np.sum(self.sample_stats.get("diverging", 0)))
        shapes = ", ".join(f"{name} {draw.shape[2:]}" for name, draw in self.draws.items())
        return (
            f"Posterior of {self.model!r}\n"
            f"  {self.method}: {self.n_chains} chains x {self.n_draws} draws after "
            f"{self.n_warmup} of warm-up, {divergences} divergences\n"
            f"  sites: {shapes}"
        )


@jax.jit
def _pointwise(model: LatentModel, params: Params, x: Array) -> Array:
    return jax.vmap(jax.vmap(lambda p: model.log_prob(p, x)))(params)


def invariants(
    log_joint: np.ndarray, log_likelihood: np.ndarray, sites: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Quantities that no renaming of labels changes, for draws or for one point."""
    result = {"log_joint": log_joint, "log_likelihood": log_likelihood}
    if "weights" in sites:
        ordered = np.sort(sites["weights"], axis=-1)
        for k in range(ordered.shape[-1]):
            result[f"sorted_weights[{k}]"] = ordered[..., k]
    return result
