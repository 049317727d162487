"""The verdict as HTML: a fragment for notebooks, and a page that needs nothing but itself."""

from __future__ import annotations

import base64
import platform
from collections.abc import Sequence
from html import escape
from importlib import metadata
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from jaxgmm.report._check import NOT_APPLICABLE
from jaxgmm.report._notation import formulas, hyper_parameters, quoted, snippet
from jaxgmm.report._text import shown_basins, shown_checks, shown_table

if TYPE_CHECKING:
    from jaxgmm.report._compare import Verdict

_PACKAGES = ("jaxgmm", "jax", "numpyro", "arviz-stats", "numpy")

_BASINS_NOTE = (
    "EM climbs from draws of the posterior: the share of them that arrives at each optimum with "
    "its Monte-Carlo error, the optimum's log joint and sorted weights, how many restarts of the "
    "fit ended there, and how many draws."
)
_TABLE_NOTE = (
    "Quantities that no renaming of labels changes come first. z is (MAP - mean) / sd; the "
    "intervals have equal tails. EM's error is the standard error from the curvature at the MAP."
)
_MEASURE_NOTE = (
    "The MAP is the mode of the joint density of these sites as they are declared, with no "
    "Jacobian of a transformation; the numbers are in the units of the data."
)


class Illustration(NamedTuple):
    """A figure of the page."""

    name: str
    title: str
    caption: str
    png: bytes


def verdict_html(verdict: Verdict) -> str:
    """The verdict for notebooks: the conclusion, the tables and the picture of the components."""
    from jaxgmm.report._figure import png
    from jaxgmm.report._plot import has_components, plot_components

    picture = ""
    if has_components(verdict.fit):
        figure = png(plot_components(verdict.fit, verdict.posterior), dpi=100)
        picture = _image(figure, "data with EM's components over the posterior's")
    return (
        f'<div class="jaxgmm-verdict">\n<style>{_style("notebook.css")}</style>\n'
        f"{_conclusion(verdict)}\n{_checks(verdict)}\n"
        f"<p><b>Where EM leads from draws of the posterior</b></p>\n{_basins(verdict)}\n"
        f"<p><b>MAP against posterior</b></p>\n{_table(shown_table(verdict.table))}\n"
        f"{picture}\n</div>"
    )


def report_page(verdict: Verdict, figures: Sequence[Illustration]) -> str:
    """The full report as one HTML page with its figures inside.

    Parameters
    ----------
    verdict : Verdict
    figures : sequence of Illustration
        Shown in their order.

    Returns
    -------
    str
        An HTML5 document that loads nothing from elsewhere.
    """
    fit, post = verdict.fit, verdict.posterior
    title = f"EM against its posterior: {fit.model!r}"
    names = ", ".join(map(str, fit.feature_names))
    count = len(fit.feature_names)
    features = "1 feature" if count == 1 else f"{count} features"
    weighted = "" if post.sample_weight is None else f", total weight {fit.total_weight:g}"
    sections = [
        ("conclusion", "Conclusion", _conclusion(verdict)),
        ("checks", "Checks", _checks(verdict)),
        ("basins", "Basins", _note(_BASINS_NOTE) + _basins(verdict)),
        ("parameters", "MAP against posterior", _parameters(verdict)),
        ("figures", "Figures", "\n".join(map(_figure, figures))),
        ("model", "Model and prior", _model(verdict)),
        ("settings", "Settings", _pairs(_settings(verdict))),
        ("versions", "Versions", _pairs(_versions())),
        ("reproduce", "How to reproduce", _reproduce(verdict)),
    ]
    links = "\n".join(f'<li><a href="#{key}">{name}</a></li>' for key, name, _ in sections[1:])
    body = "\n".join(
        f'<section id="{key}">\n<h2>{name}</h2>\n{content}\n</section>'
        + (f'\n<nav aria-label="Contents">\n<ul>\n{links}\n</ul>\n</nav>' if i == 0 else "")
        for i, (key, name, content) in enumerate(sections)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_style('page.css')}</style>\n</head>\n<body>\n"
        f"<main>\n<h1>EM against its posterior</h1>\n"
        f'<p class="subject"><code>{escape(repr(fit.model))}</code><br>{fit.n_rows} rows, '
        f"{features}: {escape(names)}{weighted}</p>\n"
        f"{body}\n</main>\n</body>\n</html>\n"
    )


# -- sections ----------------------------------------------------------------------------


def _conclusion(verdict: Verdict) -> str:
    state = "decided" if verdict.decided else "undecided"
    return f'<p class="summary {state}">{escape(verdict.summary)}</p>'


def _checks(verdict: Verdict) -> str:
    parts = []
    for words, lines in shown_checks(verdict.checks).items():
        table = _table(lines, "words")
        for name in ("ok", "warning", "fail", NOT_APPLICABLE):
            colour = f'<td class="{name.replace(" ", "-")}">{name}</td>'
            table = table.replace(f"<td>{name}</td>", colour)
        parts.append(f'<p class="tier">{escape(words)}</p>\n{table}')
    return "\n".join(parts)


def _basins(verdict: Verdict) -> str:
    return _table(shown_basins(verdict.basins))


def _parameters(verdict: Verdict) -> str:
    warning = (
        ""
        if verdict.decided
        else _note("No verdict was reached: read these numbers with the failed checks in mind.")
    )
    return warning + _note(_TABLE_NOTE) + _table(shown_table(verdict.table))


def _figure(figure: Illustration) -> str:
    return (
        f'<figure id="figure-{escape(figure.name)}">\n<h3>{escape(figure.title)}</h3>\n'
        f"{_image(figure.png, figure.title)}\n"
        f"<figcaption>{escape(figure.caption)}</figcaption>\n</figure>"
    )


def _model(verdict: Verdict) -> str:
    model, params = verdict.fit.model, verdict.fit.params
    lines = "".join(f"<li>{line}</li>\n" for line in formulas(model, model.sites(params)))
    numbers = hyper_parameters(model)
    table = _rows([(symbol, escape(value)) for symbol, value in numbers]) if numbers else ""
    return f'<ul class="formulas">\n{lines}</ul>\n{_note(_MEASURE_NOTE)}{table}'


def _settings(verdict: Verdict) -> list[tuple[str, str]]:
    fit, post = verdict.fit, verdict.posterior
    return [
        ("restarts", str(len(fit.restarts.status))),
        ("tol", f"{fit.tol:g}"),
        ("max_iter", str(fit.max_iter)),
        ("EM", f"{fit.message}; {fit.n_iter} iterations"),
        (
            "log joint",
            f"{fit.log_joint:.6f} = log likelihood {fit.log_likelihood:.6f} "
            f"+ log prior {fit.log_prior:.6f}",
        ),
        ("criteria", f"BIC {fit.bic:.2f}, AIC {fit.aic:.2f}, ICL {fit.icl:.2f}"),
        ("free parameters", str(fit.n_parameters)),
        ("method", post.method),
        ("chains", str(post.n_chains)),
        ("draws per chain", str(post.n_draws)),
        ("warm-up per chain", "none" if post.n_warmup is None else str(post.n_warmup)),
        ("precision", str(np.asarray(post.x).dtype)),
        ("data fingerprint", post.fingerprint),
    ]


def _versions() -> list[tuple[str, str]]:
    return [*((name, _version(name)) for name in _PACKAGES), ("Python", platform.python_version())]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed as a package"


def _reproduce(verdict: Verdict) -> str:
    fit, post = verdict.fit, verdict.posterior
    weights = "" if post.sample_weight is None else ", sample_weight=sample_weight"
    calls = [
        f"fit = jg.fit(\n    model, x{weights}, key=jax.random.key(0), "
        f"n_init={len(fit.restarts.status)}, tol={fit.tol!r}, max_iter={fit.max_iter}\n)",
        f"post = jg.sample(\n    fit.model, x{weights}, key=jax.random.key(1), start=fit, "
        f"method={quoted(post.method)},\n    n_chains={post.n_chains}, n_draws={post.n_draws}, "
        f"n_warmup={post.n_warmup}\n)",
        'jg.compare(fit, post).save("report")',
    ]
    note = (
        "Results hold neither the data nor the random keys nor the kind of start: with other keys "
        "the restarts and draws differ, the conclusion should not. posterior.nc beside this page "
        "holds the draws themselves."
    )
    return f"<pre><code>{escape(snippet(fit.model, calls, post))}</code></pre>\n{_note(note)}"


# -- pieces ------------------------------------------------------------------------------


def _table(frame: pd.DataFrame, kind: str = "numbers") -> str:
    html = frame.to_html(escape=True, border=0, justify="unset", classes=kind)
    return f'<div class="scroll">{html}</div>'


def _pairs(pairs: list[tuple[str, str]]) -> str:
    return _rows([(escape(name), escape(value)) for name, value in pairs])


def _rows(pairs: list[tuple[str, str]]) -> str:
    """A two-column table of HTML cells."""
    rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>\n" for name, value in pairs)
    return f'<div class="scroll"><table class="pairs">\n{rows}</table></div>'


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>\n'


def _image(png: bytes, alt: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{data}">'


def _style(name: str) -> str:
    return files("jaxgmm.report").joinpath(name).read_text(encoding="utf-8")
