"""The figures of the report, with captions that say what one sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgmm.em import SAME_OPTIMUM
from jaxgmm.report.page._document import Illustration
from jaxgmm.report.plots._basins import plot_basins
from jaxgmm.report.plots._canvas import MOST_FEATURES, MOST_ROWS
from jaxgmm.report.plots._chains import plot_chains
from jaxgmm.report.plots._columns import DISCRETE, LINES, ONE_BY_ONE, PROFILES, kind_of
from jaxgmm.report.plots._communalities import has_communalities, plot_communalities
from jaxgmm.report.plots._components import ELLIPSE_MASS, has_components, plot_components
from jaxgmm.report.plots._density import plot_density
from jaxgmm.report.plots._labels import plot_background, plot_co_clustering, plot_uncertainty
from jaxgmm.report.plots._lines import lines_of
from jaxgmm.report.plots._marginals import MOST_PANELS, marginals, plot_marginals
from jaxgmm.report.plots._missing import plot_missing
from jaxgmm.report.plots._predictive import plot_predictive
from jaxgmm.report.plots._profile import MOST_ITEMS
from jaxgmm.report.plots._restarts import plot_optima, plot_traces
from jaxgmm.report.plots._row_weights import has_row_weights, plot_row_weights
from jaxgmm.report.verdict._findings import Findings

# Replicates come from one seed: equal verdicts, equal reports.
_SEED = 0


class _Picture(NamedTuple):
    name: str
    title: str
    caption: Callable[[Findings], str]
    draw: Callable[[Findings], Any]
    applies: Callable[[Findings], bool] = lambda _: True


def illustrations(verdict: Findings) -> list[Illustration]:
    """Those that apply to the verdict, in the order of the report."""
    from jaxgmm.report.plots._figure import png

    shown = [picture for picture in _PICTURES if picture.applies(verdict)]
    return [Illustration(p.name, p.title, p.caption(verdict), png(p.draw(verdict))) for p in shown]


def _components(verdict: Findings) -> str:
    fit, post = verdict.fit, verdict.posterior
    n_features, kind = len(fit.feature_names), kind_of(fit.model)
    if kind in PROFILES:
        return (
            "Probabilities by column, one colour a component: EM's (points and lines) and the "
            "posterior's 95% intervals (bars)." + _left_out(n_features, MOST_ITEMS)
        )
    if kind in ONE_BY_ONE:
        what = {"counts": "masses", "each": "densities or masses"}.get(kind, "densities")
        return (
            f"The data of each column (grey) with the components' {what} times their weights, one "
            "colour a component: EM's (thick) over those of some draws of the posterior (thin)."
        ) + _left_out(n_features)
    if kind == LINES:
        n_covariates = len(lines_of(fit, np.asarray(post.x)).family.on)
        return (
            "The response over each covariate, one colour a component: rows by EM's labels, EM's "
            "mean response (line) and the posterior's 95% band of it; other covariates are at "
            "their means." + _left_out(n_covariates)
        )
    if n_features == 1:
        return (
            "Histogram of the data with each component's density times its weight, one colour a "
            "component: EM's (thick) over those of some draws of the posterior (thin)."
        )
    caption = (
        f"Ellipses hold {ELLIPSE_MASS:.0%} of a component, one colour a component: EM's "
        "(thick, with a dot at the mean) over those of some draws of the posterior (thin)."
    )
    if len(post.x) > MOST_ROWS:
        caption += f" {MOST_ROWS} of the {len(post.x)} rows are drawn."
    if post.sample_weight is not None:
        caption += " The area of a point grows with its weight."
    return caption + _left_out(n_features) + _noise(verdict)


def _density(verdict: Findings) -> str:
    n_features, kind = len(verdict.fit.feature_names), kind_of(verdict.fit.model)
    if n_features == 2 and kind not in ONE_BY_ONE:
        return (
            "Contours of the regions that hold 50, 90 and 99% of the posterior predictive density "
            "(blue) and of EM's (black, dashed). The ground is the darker the less the draws "
            "agree on the density there; where there is hardly any, nothing is painted."
        ) + _noise(verdict)
    of = "the density" if n_features == 1 else "the marginal density of each feature"
    if kind in ("counts", "each"):
        of = of.replace("density", "mass" if kind == "counts" else "density or mass")
    return (
        f"What the draws say of {of}: bands that hold half and 90% of them, point by point, "
        "their mean, which is the posterior predictive density (blue), and EM's (black, dashed). "
        "Where the dashed line leaves the bands, the point misleads." + _left_out(n_features)
    )


def _noise(verdict: Findings) -> str:
    """Of rows with columns beside those that have names, which is their noise."""
    if verdict.posterior.x.shape[-1] <= len(verdict.fit.feature_names):
        return ""
    return " Rows are as they were seen, all else is without their noise."


def _left_out(n_features: int, most: int = MOST_FEATURES) -> str:
    if n_features <= most:
        return ""
    return f" The first {most} of {n_features} features are shown."


def _predictive(verdict: Findings) -> str:
    whole = "Kernel density of each feature (black) over those of data sets"
    if kind_of(verdict.fit.model) in DISCRETE:
        whole = "Shares of the values of each feature (black) over 95% intervals of data sets"
    elif kind_of(verdict.fit.model) == "each":
        whole = (
            "Kernel density of each feature, or shares of its values (black), over those of data "
            "sets"
        )
    caption = (
        f"{whole} that the posterior predicts (blue). The numbers are shares of the replicates "
        "below the data: near 0 or 1 the model does not bring forth what was seen."
    )
    gaussian = kind_of(verdict.fit.model) not in (*PROFILES, *ONE_BY_ONE)
    return caption if gaussian else caption + _left_out(len(verdict.fit.feature_names))


def _marginals(verdict: Findings) -> str:
    fit, post = verdict.fit, verdict.posterior
    count = len(marginals(fit, post))
    caption = (
        "Posterior density of each parameter, its 95% interval shaded, the MAP (dashed) and, "
        "where it has a closed form, the prior (dotted; flat and low where it is vague). The "
        "outermost draws, at most 1% on a side, are not drawn."
    )
    if np.any([axes[:1] == ["component"] for axes in fit.model.site_dims().values()]):
        caption += " Colours are those of the components."
    if count > MOST_PANELS:
        caption += f" {count - MOST_PANELS} more parameters are in the table only."
    return caption


def _missing(verdict: Findings) -> str:
    holes = int(np.sum(np.isnan(np.asarray(verdict.posterior.x)).any(axis=0)))
    return (
        "Which values are missing (dark), rows with the same holes together; and what the "
        "posterior says they were. Numbers: median and 95% interval of each imputation (blue) over "
        "the range of 95% of the values that are there (grey). Codes and counts: shares among the "
        "imputations, with 95% intervals (blue), over those among the values there (grey)."
    ) + _left_out(holes).replace("features", "columns with holes")


def _co_clustering(_: Findings) -> str:
    return (
        "Probability that two rows carry one label, whatever its name: above the diagonal by EM, "
        "below by the posterior; dark is one. Rows stand by EM's label, the surest of each label "
        "first. A picture that mirrors itself is agreement."
    )


def _both(verdict: Findings) -> str:
    """Where EM's numbers of the rows are, and where the posterior's."""
    return {
        1: "against the feature, by EM (dashed) and by the posterior",
        2: "as the colour of each row, by EM on the left and by the posterior on the right",
    }.get(len(verdict.fit.feature_names), "as colour: by EM above, by the posterior below")


def _uncertainty(verdict: Findings) -> str:
    how = _both(verdict)
    return (
        f"Entropy of each row's label, 0 for a sure one and 1 for all labels alike, {how}. EM "
        "takes its point for the truth; the posterior averages over the draws, and rows that "
        "are darker there are less sure than EM says." + _left_out(len(verdict.fit.feature_names))
    )


def _background(verdict: Findings) -> str:
    return (
        "Probability of each row that the background brought it forth, and no component, "
        f"{_both(verdict)}." + _left_out(len(verdict.fit.feature_names))
    )


def _chains(verdict: Findings) -> str:
    post, height = verdict.posterior, f"the fit, at {verdict.fit.log_joint:.2f},"
    if post.log_weights is not None:
        return (
            f"Log joint of the draws of the approximation ({post.method}), each as often as its "
            f"weight says, copies side by side; {height} is higher than typical draws are."
        )
    return (
        "Log joint of each draw. Chains that explore the same posterior overlap; "
        f"{height} is higher than typical draws are."
    )


def _said(caption: str) -> Callable[[Findings], str]:
    return lambda _: caption


_has_components = lambda v: has_components(v.fit)
_has_labels = lambda v: v.fit.model.n_components > 1

_PICTURES = (
    _Picture(
        "components",
        "Data, EM and posterior",
        _components,
        lambda v: plot_components(v.fit, v.posterior),
        _has_components,
    ),
    _Picture(
        "missing",
        "Missing values",
        _missing,
        lambda v: plot_missing(v.posterior, jax.random.key(_SEED)),
        # Of repeats of regressions only whole ones are missing.
        lambda v: v.fit.model.incomplete and kind_of(v.fit.model) not in (None, LINES),
    ),
    _Picture(
        "basins",
        "Basins",
        _said(
            "Share of the posterior from which EM climbs to each optimum, with the 95% interval "
            "of its Monte-Carlo error; the fit's is dark, the highest optimum is marked as MAP."
        ),
        plot_basins,
    ),
    _Picture(
        "density",
        "Density",
        _density,
        lambda v: plot_density(v.fit, v.posterior),
        lambda v: has_components(v.fit) and kind_of(v.fit.model) not in (*PROFILES, LINES),
    ),
    _Picture("marginals", "Parameters", _marginals, lambda v: plot_marginals(v.fit, v.posterior)),
    _Picture(
        "co_clustering",
        "Which rows belong together",
        _co_clustering,
        lambda v: plot_co_clustering(v.fit, v.posterior),
        _has_labels,
    ),
    _Picture(
        "uncertainty",
        "How sure the labels are",
        _uncertainty,
        lambda v: plot_uncertainty(v.fit, v.posterior),
        lambda v: _has_labels(v) and kind_of(v.fit.model) not in PROFILES,
    ),
    _Picture(
        "background",
        "Which rows belong to no component",
        _background,
        lambda v: plot_background(v.fit, v.posterior),
        lambda v: bool(v.fit.model.labels_apart) and kind_of(v.fit.model) not in PROFILES,
    ),
    _Picture(
        "row_weights",
        "How much each row counts",
        _said(
            "How often each row counts in the M-step of components with heavy tails: EM's weights "
            "(black) and the posterior's 95% intervals (blue), the lowest first. Outliers count "
            "least; about one is an ordinary row."
        ),
        lambda v: plot_row_weights(v.fit, v.posterior),
        lambda v: has_row_weights(v.fit),
    ),
    _Picture(
        "communalities",
        "What factors explain",
        _said(
            "The share of each column's variance that the factors of a component explain, which no "
            "rotation of them changes: EM's (points) and the posterior's 95% intervals."
        ),
        lambda v: plot_communalities(v.fit, v.posterior),
        lambda v: has_communalities(v.fit),
    ),
    _Picture(
        "predictive",
        "Posterior predictive check",
        _predictive,
        lambda v: plot_predictive(v.posterior, key=jax.random.key(_SEED)),
        _has_components,
    ),
    _Picture(
        "restarts",
        "Objective of the restarts",
        _said(
            "How far each restart is below the best value found, on a logarithmic axis whose "
            "lower end stands for zero. Black: the restart that became the fit."
        ),
        lambda v: plot_traces(v.fit),
    ),
    _Picture(
        "optima",
        "Optima of the restarts",
        _said(
            "Number of restarts by the log joint at which they ended. Restarts within "
            f"{SAME_OPTIMUM:g} of the fit count as its optimum."
        ),
        lambda v: plot_optima(v.fit),
    ),
    _Picture("chains", "Chains", _chains, lambda v: plot_chains(v.posterior)),
)
