"""Figure: the log joint along the chains."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxgmm.bayes import Posterior
from jaxgmm.report.plots._canvas import LEGEND, TITLE, canvas, colour, spread

_MOST_DRAWS = 1000  # of each chain: more cover one another
_TITLE = "Log joint along the chains"


def plot_chains(post: Posterior, ax: Any = None) -> Any:
    """The log joint along each chain, which no renaming of labels changes.

    Parameters
    ----------
    post : Posterior
        Weighted draws are resampled; they are no chains.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Figure or Axes
        A new figure, which notebooks show; or ``ax``, where it was given.
    """
    weighted, post = post.log_weights is not None, post.resample()
    figure, axes = canvas(ax, (7.2, 3.6))
    for chain, values in enumerate(post.log_joint):
        draws = spread(np.arange(len(values)), _MOST_DRAWS)
        axes.plot(
            draws, values[draws], lw=0.7, alpha=0.75, color=colour(chain), label=f"chain {chain}"
        )
    axes.set(xlabel="draw", ylabel="log joint", xlim=(0, post.n_draws - 1))
    title = "Log joint of the draws, resampled by weight" if weighted else _TITLE
    axes.set_title(title, **TITLE)
    legend = axes.legend(**{**LEGEND, "ncols": min(post.n_chains, 4)})
    for line in legend.get_lines():
        line.set(linewidth=2.5, alpha=1)
    return figure if ax is None else ax
