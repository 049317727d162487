"""Figure: the response over the covariates, with EM's lines and the posterior's bands."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from jaxgmm._contract import Params
from jaxgmm._programs import program
from jaxgmm.bayes import Posterior
from jaxgmm.em import Fit
from jaxgmm.report.plots._canvas import (
    GREY,
    LEGEND,
    MOST_FEATURES,
    MOST_ROWS,
    TITLE,
    colour,
    dash,
    panels,
    plain,
    span,
    spread,
)
from jaxgmm.report.plots._columns import drawn, one

_DRAWS = 200
_BAND = 0.95
_POINTS = 100


def plot_lines(fit: Fit, post: Posterior, ax: Any = None) -> Any:
    """Rows, or all repeats, by EM's labels, EM's mean response and the posterior's 95% band."""
    model: Any = fit.model
    seen = lines_of(fit, np.asarray(post.x, np.float64))
    x, (covariates, response) = seen.rows, seen.family.positions
    shown = covariates[:MOST_FEATURES]
    weights = np.ones(len(post.x)) if post.sample_weight is None else post.sample_weight
    weights = np.asarray(weights)[seen.of]
    middle = np.average(x, axis=0, weights=weights)
    rows = spread(np.flatnonzero(weights > 0), MOST_ROWS)
    probability = np.asarray(model.responsibilities(fit.params, jnp.asarray(post.x)))
    labels, params = np.argmax(probability, axis=1)[seen.of][rows], drawn(post, _DRAWS)
    columns = min(len(shown), 3)
    shape = (-(-len(shown) // columns), columns)
    size = (7.2, 4.8) if len(shown) == 1 else (max(3.4 * columns, 7.2), 3.0 * shape[0] + 0.6)
    figure, grid = panels(ax, shape if ax is None else (1, len(shown)), size)
    for axes, column in zip(grid.ravel(), shown, strict=False):
        there = np.tile(middle, (_POINTS, 1))
        there[:, column] = np.linspace(*span(x[:, column], 0.03), _POINTS)
        at = jnp.asarray(there, fit.params.weights.dtype)
        bands = np.quantile(
            np.asarray(_means(model.family, params, at)), [(1 - _BAND) / 2, (1 + _BAND) / 2], axis=0
        )
        lines = np.asarray(_means(model.family, one(fit.params), at))[0]
        shades = [colour(k) for k in range(len(lines))] + [GREY]
        points = [shades[min(label, len(lines))] for label in labels]
        axes.scatter(x[rows, column], x[rows, response], c=points, s=9, alpha=0.5, lw=0, zorder=1)
        for k, line in enumerate(lines):
            share = np.asarray(fit.params.weights)[k]
            label = f"EM, component {k} (weight {share:.2f})"
            axes.fill_between(
                there[:, column], *bands[:, k], color=colour(k), alpha=0.25, lw=0, zorder=2
            )
            axes.plot(
                there[:, column], line, color=colour(k), lw=2, ls=dash(k), label=label, zorder=3
            )
        axes.fill_between([], [], [], color=GREY, alpha=0.4, label="posterior, 95%")
        axes.set(xlabel=plain(seen.names[column]), ylim=span(x[:, response]))
    for axes in grid.ravel()[len(shown) :]:
        axes.remove()
    grid[0, 0].set(ylabel=plain(seen.names[response]))
    grid[0, 0].set_title("Lines: EM over the posterior", **TITLE)
    grid[0, 0].legend(**LEGEND)
    return figure if ax is None else ax


def lines_of(fit: Fit, x: np.ndarray) -> Any:
    """The regression of a fit, and the rows that it sees."""
    model: Any = fit.model
    return model.family.lines(x, fit.feature_names)


@program()
def _means(family: Any, params: Params, x: Array) -> Array:
    """(S, K, m): mean responses at each draw, at rows of the regression."""
    return lax.map(lambda p: family.mean_responses(p, x), params)
