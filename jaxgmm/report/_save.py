"""The verdict on disk: a page, its figures as files, and the draws."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxgmm._export import to_datatree
from jaxgmm._results import SAME_OPTIMUM
from jaxgmm.report import _plot as plot
from jaxgmm.report._html import Illustration, report_page

if TYPE_CHECKING:
    from jaxgmm.report._compare import Verdict


def save(verdict: Verdict, folder: Path) -> Path:
    """Write report.html, the figures as PNG files and posterior.nc; return the page's path.

    ``posterior.nc`` is NetCDF-4 with a group each for the relabelled draws, the sampler's
    statistics, the log likelihood of every row and the data, as ArviZ reads it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    to_datatree(verdict.posterior).to_netcdf(folder / "posterior.nc", engine="h5netcdf")
    figures = illustrations(verdict)
    for figure in figures:
        (folder / f"{figure.name}.png").write_bytes(figure.png)
    page = folder / "report.html"
    page.write_text(report_page(verdict, figures), encoding="utf-8")
    return page


def illustrations(verdict: Verdict) -> list[Illustration]:
    """The figures of the report with their titles and captions."""
    from jaxgmm.report._figure import png

    fit, post = verdict.fit, verdict.posterior
    figures = []
    if plot.has_components(fit):
        figures.append(
            Illustration(
                "components",
                "Data, EM and posterior",
                _components_caption(verdict),
                png(plot.plot_components(fit, post)),
            )
        )
    figures += [
        Illustration(
            "marginals",
            "Parameters",
            _marginals_caption(verdict),
            png(plot.plot_marginals(fit, post)),
        ),
        Illustration(
            "restarts",
            "Objective of the restarts",
            "How far each restart is below the best value found, on a logarithmic axis whose "
            "lower end stands for zero. Black: the restart that became the fit.",
            png(plot.plot_traces(fit)),
        ),
        Illustration(
            "optima",
            "Optima of the restarts",
            "Number of restarts by the log joint at which they ended. Restarts within "
            f"{SAME_OPTIMUM:g} of the fit count as its optimum.",
            png(plot.plot_optima(fit)),
        ),
        Illustration(
            "chains",
            "Chains",
            "Log joint of each draw. Chains that explore the same posterior overlap; the fit, "
            f"at {fit.log_joint:.2f}, is higher than typical draws are.",
            png(plot.plot_chains(post)),
        ),
    ]
    return figures


def _components_caption(verdict: Verdict) -> str:
    fit, post = verdict.fit, verdict.posterior
    n_features = fit.params.means.shape[-1]
    if n_features == 1:
        caption = (
            "Histogram of the data with each component's density times its weight, one colour a "
            "component: EM's (thick) over those of some draws of the posterior (thin)."
        )
    else:
        caption = (
            f"Ellipses hold {plot.ELLIPSE_MASS:.0%} of a component, one colour a component: EM's "
            "(thick, with a dot at the mean) over those of some draws of the posterior (thin)."
        )
        if len(post.x) > plot.MOST_ROWS:
            caption += f" {plot.MOST_ROWS} of the {len(post.x)} rows are drawn."
        if post.sample_weight is not None:
            caption += " The area of a point grows with its weight."
    if n_features > plot.MOST_FEATURES:
        caption += f" The first {plot.MOST_FEATURES} of {n_features} features are shown."
    return caption


def _marginals_caption(verdict: Verdict) -> str:
    fit, post = verdict.fit, verdict.posterior
    count = len(plot.marginals(fit, post))
    caption = (
        "Posterior density of each parameter, its 95% interval shaded, and the MAP (dashed). The "
        "outermost draws, at most 1% on a side, are not drawn."
    )
    if np.any([axes[:1] == ["component"] for axes in fit.model.site_dims().values()]):
        caption += " Colours are those of the components."
    if count > plot.MOST_PANELS:
        caption += f" {count - plot.MOST_PANELS} more parameters are in the table only."
    return caption
