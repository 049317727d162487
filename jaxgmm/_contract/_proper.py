"""What distributions are of: their supports in words, and proper ones to name in their place."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints


def innermost(distribution: Any) -> Any:
    """What a distribution is called after."""
    while isinstance(distribution, (dist.Independent, dist.ExpandedDistribution)):
        distribution = distribution.base_dist
    return distribution


def support_of(written: dist.Distribution) -> constraints.Constraint:
    """The support of one value."""
    found = written.support
    while hasattr(found, "base_constraint"):
        found = found.base_constraint
    return found


def improper(support: constraints.Constraint, shape: tuple[int, ...]) -> dist.Distribution:
    """A flat density over the whole site."""
    return dist.ImproperUniform(support, (), shape)


# Each support in words, and what has a density on all of it.
_SUPPORTS = (
    (constraints.real, "all real numbers", "Normal or StudentT"),
    (constraints.positive, "all positive numbers", "LogNormal, Gamma or HalfNormal"),
    (constraints.simplex, "the simplex", "Dirichlet (of ones: uniform)"),
    (constraints.unit_interval, "numbers between 0 and 1", "Beta (of ones: uniform)"),
    (constraints.positive_definite, "positive definite matrices", "InverseWishart"),
    (constraints.corr_matrix, "correlation matrices", "LKJ (of one: uniform)"),
)


def described(support: Any) -> tuple[str, str]:
    """A support in words, and the names of distributions on it."""
    known = ((text, names) for one, text, names in _SUPPORTS if one == support)
    return next(known, (repr(support), "a proper one"))


def instead(written: dist.Distribution, support: Any = None) -> str:
    """What to write in place of a distribution, with numbers where it is a uniform one.

    On all numbers or all positive ones that is a distribution of the same mean and variance.
    """
    support = support_of(written) if support is None else support
    inner = innermost(written)
    if isinstance(inner, dist.Uniform):
        mean, variance = np.asarray(inner.mean), np.asarray(inner.variance)
        alike = ", of the same mean and variance"
        if support == constraints.real:
            return f"use Normal({_digits(mean)}, {_digits(np.sqrt(variance))}){alike}"
        if support == constraints.positive and np.all(mean > 0):
            return f"use Gamma({_digits(mean**2 / variance)}, {_digits(mean / variance)}){alike}"
    return f"use {described(support)[1]}"


def _digits(numbers: np.ndarray) -> str:
    """Four digits of each, as code."""
    four = np.vectorize(lambda number: float(f"{number:.4g}"))(numbers).tolist()
    return f"np.array({four})" if isinstance(four, list) else str(four)
