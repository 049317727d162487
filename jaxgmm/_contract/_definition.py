"""What must be written to define a model: five names."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any

import numpyro.distributions as dist
from jaxtyping import Array, Float

from jaxgmm._numerics import normalise

Params = Any
Statistics = Any
Sites = dict[str, Array]
# Site by site, in the order in which they are drawn: the distribution of a site
# given the sites before it.
Prior = Mapping[str, Callable[[Sites], dist.Distribution]]
# From log p(label, row), (K, n), and the index of the first of these rows: what the rows
# count in each label, (K, n), and what each adds to the objective, (n,).
Assignment = Callable[[Array, Array | int], tuple[Array, Array]]


def expected_labels(logits: Float[Array, "k n"], first_row: Array | int) -> tuple[Array, Array]:
    """The assignment of EM: posterior probabilities, and the label summed out.

    Parameters
    ----------
    logits : (K, n) array
        log p(label, row).
    first_row : int
        Index of the first of these rows; not used here.

    Returns
    -------
    responsibilities : (K, n) array
        Columns sum to one.
    log_density : (n,) array
        log p(row).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jaxgmm as jg
    >>> responsibilities, _ = jg.expected_labels(jnp.zeros((2, 1)), 0)
    >>> responsibilities.tolist()
    [[0.5], [0.5]]
    """
    return normalise(logits)


class Definition(abc.ABC):
    """The joint density of sites and rows, from which all else can be derived."""

    n_components: int

    @abc.abstractmethod
    def prior_sites(self) -> Prior:
        """The distribution of each site given the sites before it."""

    @abc.abstractmethod
    def likelihood(self, params: Params) -> dist.Distribution:
        """The distribution of one row, the label summed out."""

    @abc.abstractmethod
    def sites(self, params: Params) -> Sites:
        """The free parameters by NumPyro site name."""

    @abc.abstractmethod
    def from_sites(self, sites: Sites) -> Params:
        """The inverse of `sites`."""

    @abc.abstractmethod
    def n_parameters(self, n_features: int) -> int:
        """Number of free parameters: the rank of the map from them to the density."""
