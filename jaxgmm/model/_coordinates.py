"""Names of the numbers in a model's sites, for tables."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from numpyro.distributions import constraints

from jaxgmm._contract import LatentModel


def coordinates(
    model: LatentModel, sites: Mapping[str, Any], feature_names: tuple[str, ...]
) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """(site, index, label) of every number in the sites, symmetric ones once.

    What a support holds fixed is no parameter, and left out: the ones on the diagonal of
    correlation matrices, and entries of which it says so by ``free``.
    """
    dims, prior = model.site_dims(), model.prior_sites()
    names = model.coords(feature_names)
    for site, value in sites.items():
        axes = dims.get(site, [])
        symmetric = len(axes) > 1 and axes[-1] == f"{axes[-2]}_bis"
        support = _support(prior[site], sites) if site in prior else None
        unit_diagonal = symmetric and support == constraints.corr_matrix
        free = getattr(support, "free", None)
        for index in itertools.product(*map(range, np.shape(value))):
            if symmetric and index[-2] > index[-1]:
                continue
            if unit_diagonal and index[-2] == index[-1]:
                continue
            if free is not None and not free[index[len(index) - free.ndim :]]:
                continue
            parts = [
                str(names[axis][i]) if axis in names else str(i)
                for i, axis in itertools.zip_longest(index, axes)
            ]
            yield site, index, f"{site}[{', '.join(parts)}]" if parts else site


def _support(conditional: Callable[[Any], Any], sites: Mapping[str, Any]) -> constraints.Constraint:
    """Where one value of a site lives."""
    found = []
    # Only traced: the distribution need not be computed to say where it lives.
    jax.eval_shape(lambda at: found.append(conditional(at).support), sites)
    (support,) = found
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support
