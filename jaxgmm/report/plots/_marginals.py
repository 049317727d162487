"""Figure: the marginals of the posterior with the MAP, the interval and the prior."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from arviz_stats.base import array_stats

from jaxgmm._checks import check_name
from jaxgmm.bayes import Posterior, constant
from jaxgmm.em import Fit
from jaxgmm.model import coordinates
from jaxgmm.report.plots._canvas import GREY, colour, panels, plain
from jaxgmm.report.plots._prior_density import prior_density

MOST_PANELS = 24


def plot_marginals(
    fit: Fit, post: Posterior, ax: Any = None, *, names: Sequence[str] | None = None
) -> Any:
    """Posterior density of each parameter with its 95% interval, the MAP and the prior.

    The prior is drawn where its marginal has a closed form: everywhere but for covariances with
    a shared shape, volume or orientation. A vague one is a line near zero.

    Parameters
    ----------
    fit, post : Fit, Posterior
        Of the same model and data; weighted draws are resampled.
    ax : matplotlib Axes, or an array of them, optional
        Where to draw, one a parameter.
    names : sequence of str, optional
        Which parameters, as the verdict's table names them; by default the first 24 that vary.

    Returns
    -------
    matplotlib Figure or Axes
        A new figure, which notebooks show; or ``ax``, where it was given.

    Raises
    ------
    ValueError
        For an unknown name; where ``ax`` has another number of panels than the picture.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("galaxies").x
    >>> model = jg.Mixture(jg.Gaussian("tied"), n_components=1, prior="fraley-raftery")
    >>> fit = jg.fit(model, x, key=jax.random.key(0), n_init=1)
    >>> post = jg.sample(
    ...     fit.model, x, key=jax.random.key(1), method="gibbs", n_draws=50, progress=False
    ... )
    >>> len(jg.report.plot_marginals(fit, post, names=["means[0, x0]"]).axes)
    1
    """
    shown = marginals(fit, post)
    if names is not None:
        known = {label: (site, index, label) for site, index, label in shown}
        shown = [known[check_name("names", name, known)] for name in names]
    shown = shown[:MOST_PANELS]
    point = {name: np.asarray(value) for name, value in fit.model.sites(fit.params).items()}
    dims, drawn = fit.model.site_dims(), post.resample().draws
    width = max(len(label) for *_, label in shown)
    # Long names of features need wide panels.
    columns = min(4 if width <= 34 else 3, len(shown))
    rows = -(-len(shown) // columns)
    size = (max(9.6 if len(shown) > 3 else 3.2 * columns, 4.5), 1.75 * rows + 0.5)
    figure, grid = panels(ax, (rows, columns) if ax is None else (1, len(shown)), size)
    for panel, (site, index, label) in zip(grid.ravel(), shown, strict=False):
        component = index[0] if dims.get(site, [""])[0] in ("component", "label") else None
        own = GREY if component is None else colour(component)
        _draw_marginal(panel, drawn[site][(..., *index)], point[site][index], own)
        _draw_prior(panel, fit, site, index)
        panel.set_title(textwrap.fill(plain(label), 34 if columns == 4 else 45), fontsize=9)
    for panel in grid.ravel()[len(shown) :]:
        panel.remove()
    if ax is None:
        _legend(figure, grid[0, 0])
    return figure if ax is None else ax


def marginals(fit: Fit, post: Posterior) -> list[tuple[str, tuple[int, ...], str]]:
    """(site, index, label) of every number that varies over the draws."""
    sites = fit.model.sites(fit.params)
    every = list(coordinates(fit.model, sites, post.feature_names))
    varying = [c for c in every if not constant(post.draws[c[0]][(..., *c[1])])]
    return varying or every


def _draw_marginal(axes: Any, draws: np.ndarray, at_map: float, own: str) -> None:
    draws = np.asarray(draws, np.float64).ravel()
    # A few draws far out in a tail would squeeze the rest into a spike.
    first, low, high, last = np.quantile(draws, [0.005, 0.025, 0.975, 0.99])
    if last > first:
        grid, density, _ = array_stats.kde(draws[(draws >= first) & (draws <= last)])
        inside = (grid >= low) & (grid <= high)
        axes.plot(grid, density, color=own, lw=1.3)
        axes.fill_between(grid[inside], density[inside], color=own, alpha=0.3, lw=0)
    axes.axvline(at_map, color="black", lw=1.3, ls="--")
    axes.set(yticks=[], ylim=(0, None))
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(labelsize=8)


def _draw_prior(axes: Any, fit: Fit, site: str, index: tuple[int, ...]) -> None:
    """The prior over the range that the posterior has, no higher than the panel."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    grid = np.linspace(left, right, 200)
    density = prior_density(fit.model, site, index, grid)
    if density is not None:
        axes.plot(grid, density, color="black", lw=1.2, ls=":")
        axes.set(xlim=(left, right), ylim=(bottom, top))


def _legend(figure: Any, axes: Any) -> None:
    """Colours are those of the components, so the legend has none."""
    axes.plot([], [], color=GREY, lw=1.3, label="posterior")
    axes.fill_between([], [], color=GREY, alpha=0.3, lw=0, label="95% interval")
    axes.plot([], [], color="black", lw=1.3, ls="--", label="MAP")
    axes.plot([], [], color="black", lw=1.2, ls=":", label="prior")
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
