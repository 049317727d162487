"""Merging components into clusters by the entropy of their labels."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy.special import xlogy

from jaxgmm._checks import check_count
from jaxgmm.bayes import responsibilities_at
from jaxgmm.em import Fit, same_data
from jaxgmm.report.plots._selection import plot_entropies


@dataclasses.dataclass(frozen=True, repr=False)
class MergeTree:
    """Clusters made of components: which two merge at each step, and what that gains.

    Attributes
    ----------
    component_responsibilities : (n, K) array
        Those of the components.
    sample_weight : (n,) array or None
        Weights of the rows.
    merges : list of pairs of int
        The clusters that merge at each step, the lower number first, by which the two go on;
        a cluster is named by its first component.
    entropies : (K,) array
        Entropy of the labels with 1, ..., K clusters.
    """

    component_responsibilities: np.ndarray
    sample_weight: np.ndarray | None
    merges: list[tuple[int, int]]
    entropies: np.ndarray

    def groups(self, n_clusters: int) -> list[list[int]]:
        """The components of each of so many clusters, in ascending order.

        Parameters
        ----------
        n_clusters : int
            From 1 to K.

        Returns
        -------
        list of lists of int
        """
        k = len(self.entropies)
        if check_count("n_clusters", n_clusters, 1) > k:
            raise ValueError(f"n_clusters: there are {k} components, found {n_clusters}")
        members = {one: [one] for one in range(k)}
        for kept, gone in self.merges[: k - n_clusters]:
            members[kept] += members.pop(gone)
        return [sorted(group) for group in members.values()]

    def responsibilities(self, n_clusters: int) -> np.ndarray:
        """Probability (n, n_clusters) of each cluster given each row."""
        parts = self.component_responsibilities
        groups = self.groups(n_clusters)
        return np.stack([parts[:, group].sum(axis=1) for group in groups], axis=1)

    def predict(self, n_clusters: int) -> np.ndarray:
        """Most probable cluster of each row, (n,) ints."""
        return np.argmax(self.responsibilities(n_clusters), axis=1)

    def plot(self, ax: Any = None) -> Any:
        """Entropy against the number of clusters; an elbow says where merging may stop.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw.

        Returns
        -------
        matplotlib Figure or Axes
            A new figure, which notebooks show; or ``ax``, where it was given.
        """
        return plot_entropies(self.entropies, ax)

    def __repr__(self) -> str:
        lines = [f"{len(self.entropies)} components, merged by the entropy of their labels"]
        for count in range(len(self.entropies), 0, -1):
            groups = " ".join("{" + ",".join(map(str, g)) + "}" for g in self.groups(count))
            lines.append(f"  {count} cluster(s), entropy {self.entropies[count - 1]:.4f}: {groups}")
        return "\n".join(lines)


def merge_components(fit: Fit, x: Any, *, sample_weight: Any = None) -> MergeTree:
    """Merge the components of a mixture, two at a time, into fewer clusters.

    The density stays that of all components, chosen by BIC, say; a cluster that is no
    Gaussian is then several of them. Each step merges the two whose union lowers the entropy
    of the labels most.

    Parameters
    ----------
    fit : Fit
        Of a mixture.
    x : (n, D) or (n,) array
        The data of the fit.
    sample_weight : (n,) array, optional
        The weights of the fit.

    Returns
    -------
    MergeTree

    Raises
    ------
    ValueError, TypeError
        For what is no fit, and for other data or weights.

    Notes
    -----
    The entropy is ``-sum_i w_i sum_k r_ik log r_ik``; of ties the first pair merges.

    References
    ----------
    Baudry, Raftery, Celeux, Lo and Gottardo (2010), JCGS 19:332-353.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("faithful").x
    >>> fit = jg.fit(jg.Mixture(jg.Gaussian("tied"), 3), x, key=jax.random.key(0))
    >>> tree = jg.merge_components(fit, x)
    >>> [len(group) for group in sorted(tree.groups(2), key=len)]
    [1, 2]
    """
    near, rows, weight = same_data(fit, x, sample_weight)
    labels = np.asarray(responsibilities_at(near.model, near.params, rows), np.float64)
    weight = None if weight is None else np.asarray(weight, np.float64)
    weights = np.ones(len(labels)) if weight is None else weight

    clusters = dict(enumerate(labels.T))
    surprise = lambda r: -float(weights @ xlogy(r, r))
    entropies, merges = [sum(map(surprise, clusters.values()))], []
    while len(clusters) > 1:
        names = sorted(clusters)
        pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        gains = [
            surprise(clusters[a])
            + surprise(clusters[b])
            - surprise(np.minimum(clusters[a] + clusters[b], 1))
            for a, b in pairs
        ]
        kept, gone = pairs[int(np.argmax(gains))]
        clusters[kept] = np.minimum(clusters[kept] + clusters.pop(gone), 1)
        merges.append((kept, gone))
        entropies.append(sum(map(surprise, clusters.values())))
    return MergeTree(labels, weight, merges, np.abs(entropies[::-1]))
