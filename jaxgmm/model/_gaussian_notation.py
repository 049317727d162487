"""Gaussians and their conjugate prior as formulas, and what that prior says of single numbers."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from jaxgmm.model._family import Density
from jaxgmm.model._prior import ConjugatePrior

# Structures whose covariances have the prior of any matrix or variance: the others bind them.
_MATRICES, _VARIANCES = ("full", "tied"), ("diag", "spherical", "EEI", "EII")


class Symbols(NamedTuple):
    """The covariance of a component, what of it has a prior, and how they hang together."""

    covariance: str
    entry: str
    form: str = ""


_SYMBOLS = {
    "full": Symbols("Σ_k", "Σ_k"),
    "tied": Symbols("Σ", "Σ", "one for all components"),
    "diag": Symbols("Σ_k", "σ²_kj", "Σ_k = diag(σ²_k1, …, σ²_kD)"),
    "spherical": Symbols("Σ_k", "σ²_k", "Σ_k = σ²_k I"),
    "EEI": Symbols("Σ", "σ²_j", "Σ = diag(σ²_1, …, σ²_D)"),
    "EII": Symbols("Σ", "σ²", "Σ = σ² I"),
}


def symbols(structure: str) -> Symbols:
    return _SYMBOLS.get(structure) or _decomposed(structure)


def _decomposed(code: str) -> Symbols:
    """Those of mclust's letters: volume, shape and orientation, equal or of each component."""
    part = lambda symbol, letter: symbol if letter == "E" else f"{symbol}_k"
    volume, shape = part("λ", code[0]), part("A", code[1])
    if code[2] == "I":
        form = f"Σ_k = {volume} {shape}, {shape} diagonal, |{shape}| = 1"
        return Symbols("Σ_k", "σ²_kj", form)
    axes = part("D", code[2])
    diagonal = f"{shape} diagonal, |{shape}| = 1"
    form = f"Σ_k = {volume} {axes} {shape} {axes}ᵀ, {diagonal}, {axes} orthogonal"
    return Symbols("Σ_k", "Σ_k", form)


def conjugate_formulas(structure: str, prior: ConjugatePrior) -> tuple[str, str]:
    """Of means and covariances."""
    covariance, entry, form = symbols(structure)
    if "Σ" in entry:
        line = f"{entry} ~ inverse-Wishart(ν, Λ)"
    else:
        scale = "Λ_j" if np.ndim(prior.scale) else "Λ"
        line = f"{entry} ~ inverse-gamma(ν/2, {scale}/2)"
    if "A" in form:
        line += f", a density of {entry} as it stands, on the covariances of this form"
    return f"μ_k | {covariance} ~ N(m, {covariance} / κ)", line


def joining_formulas(structure: str, declared: Any) -> tuple[str, ...]:
    """How declared scales and correlations make the covariances."""
    covariance, entry, _ = symbols(structure)
    if "correlations" in declared:
        return (f"{covariance} = diag(scales) correlations diag(scales)",)
    return (f"{entry} = scales²",) if "scales" in declared else ()


def conjugate_density(
    structure: str, prior: ConjugatePrior, site: str, index: tuple[int, ...]
) -> Density | None:
    """Student's t and inverse gamma; Gelman et al. (2013), sections 3.3 to 3.6."""
    dof, scale = float(prior.dof), np.asarray(prior.scale, np.float64)
    if structure in _MATRICES:
        if site == "covariances":
            return functools.partial(_inverse_wishart, dof, scale, index[-2:])
        dof -= len(scale) - 1
        own = scale[index[-1], index[-1]]
    elif structure in _VARIANCES:
        own = scale if scale.ndim == 0 else scale[index[-1]]
        if site == "covariances":
            return stats.invgamma(dof / 2, scale=own / 2).pdf
    else:
        return None
    spread = np.sqrt(own / dof / float(prior.mean_precision))
    return stats.t(dof, float(np.asarray(prior.mean)[index[-1]]), spread).pdf


def _inverse_wishart(
    dof: float, scale: np.ndarray, entry: tuple[int, ...], grid: np.ndarray
) -> np.ndarray:
    """Of an entry; the block of two features is inverse-Wishart with fewer degrees of freedom."""
    i, j = entry
    dof -= len(scale) - 1
    if i == j:
        return stats.invgamma.pdf(grid, dof / 2, scale=scale[i, i] / 2)
    # The covariance is a variance times a slope, independent of it, with Student's t: an
    # average over quantiles of the variance.
    levels = (np.arange(256) + 0.5) / 256
    variances = stats.invgamma.ppf(levels, dof / 2, scale=scale[i, i] / 2)[:, None]
    slope = scale[i, j] / scale[i, i]
    residual = scale[j, j] - slope * scale[i, j]
    spread = np.sqrt(residual / (dof + 1) / scale[i, i])
    return np.mean(stats.t.pdf(grid / variances, dof + 1, slope, spread) / variances, axis=0)
