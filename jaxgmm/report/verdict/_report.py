"""The report of a verdict: what stands where, whatever it is written as."""

from __future__ import annotations

import numpy as np

from jaxgmm._contract import number_text
from jaxgmm.report._code import key_code, quoted, snippet
from jaxgmm.report.page._document import (
    Block,
    Code,
    Document,
    Folded,
    Formulas,
    Illustration,
    Pairs,
    Section,
    Table,
    Words,
    versions,
)
from jaxgmm.report.verdict._check import NOT_APPLICABLE
from jaxgmm.report.verdict._findings import Findings
from jaxgmm.report.verdict._text import labels_note, shown_basins, shown_checks, shown_table

_BASINS_NOTE = (
    "EM climbs from draws of the posterior: the share of them that arrives at each optimum with "
    "its Monte-Carlo error, the optimum's log joint and sorted weights, how many restarts of the "
    "fit ended there, and how many draws. Beside the share is that of Laplace's evidence of each "
    "optimum in their sum, which no chain enters into."
)
_TABLE_NOTE = (
    "Quantities that no renaming of labels changes come first. z is (MAP - mean) / sd; the "
    "intervals have equal tails. EM's error is the standard error from the curvature at the MAP."
)
_MEASURE_NOTE = (
    "The MAP is the mode of the joint density of these sites as they are declared, with no "
    "Jacobian of a transformation; the numbers are in the units of the data."
)
_UNDECIDED_NOTE = "No verdict was reached: read these numbers with the failed checks in mind."


def report(verdict: Findings, figures: list[Illustration]) -> Document:
    """The document with all its figures."""
    fit, post = verdict.fit, verdict.posterior
    names = ", ".join(map(str, fit.feature_names))
    features = "1 feature" if len(fit.feature_names) == 1 else f"{len(fit.feature_names)} features"
    weighted = "" if post.sample_weight is None else f", total weight {fit.total_weight:g}"
    subject = [repr(fit.model), f"{fit.n_rows} rows, {features}: {names}{weighted}"]
    sections = [
        Section("conclusion", "Conclusion", [conclusion(verdict)]),
        Section("checks", "Checks", checks(verdict)),
        Section("basins", "Basins", [Words(_BASINS_NOTE), Table(shown_basins(verdict.basins))]),
        Section("parameters", "MAP against posterior", _parameters(verdict)),
        Section("figures", "Figures", list(figures)),
        Section("model", "Model and prior", _model(verdict)),
        Section("settings", "Settings", [Pairs(_settings(verdict))]),
        Section("versions", "Versions", [Pairs(versions())]),
        Section("reproduce", "How to reproduce", [Code(code(verdict)), Words(_keys_note(verdict))]),
    ]
    return Document("EM against its posterior", subject, sections)


def notebook(verdict: Findings) -> str:
    """The verdict as HTML for notebooks: the conclusion, the tables, the components."""
    from jaxgmm.report.page._html import fragment, image
    from jaxgmm.report.plots._components import has_components, plot_components
    from jaxgmm.report.plots._figure import png

    blocks = [
        conclusion(verdict),
        *checks(verdict),
        Words("Where EM leads from draws of the posterior", "tier"),
        Table(shown_basins(verdict.basins)),
        Words(f"MAP against posterior{labels_note(verdict.table)}", "tier"),
        Table(shown_table(verdict.table)),
    ]
    picture = ""
    if has_components(verdict.fit):
        figure = png(plot_components(verdict.fit, verdict.posterior), dpi=100)
        picture = image(figure, "data with EM's components over the posterior's")
    return fragment(blocks, picture)


def conclusion(verdict: Findings) -> Words:
    return Words(verdict.summary, "decided" if verdict.decided else "undecided")


def checks(verdict: Findings) -> list[Block]:
    blocks: list[Block] = []
    for words, lines in shown_checks(verdict.checks).items():
        applies = lines["verdict"] != NOT_APPLICABLE
        blocks.append(Words(words, "tier"))
        if applies.any():
            blocks.append(Table(lines[applies], "checks"))
        if not applies.all():
            rest = lines.loc[~applies, ["meaning"]]
            title = f"{len(rest)} more that do not apply here"
            blocks.append(Folded(title, Table(rest, "words")))
    return blocks


def code(verdict: Findings) -> str:
    """Python that makes the comparison again."""
    fit, post = verdict.fit, verdict.posterior
    weights = "" if post.sample_weight is None else ", sample_weight=sample_weight"
    start = quoted(fit.start) if fit.start != "given" else "..."
    how = "".join(
        f", {name}={quoted(value)}"
        for name, value, default in (
            ("algorithm", fit.algorithm, "em"),
            ("acceleration", fit.acceleration, None),
        )
        if value is not None and value != default
    )
    options = "".join(
        f", {name}={value!r}" for name, value in post.settings.items() if (name, value) != _PLAIN
    )
    calls = [
        f"fit = jg.fit(\n    model, x{weights}, key={key_code(fit.seed)}, start={start},\n"
        f"    n_init={len(fit.restarts.status)}, tol={fit.tol!r}, max_iter={fit.max_iter}{how}\n)",
        f"post = jg.sample(\n    fit.model, x{weights}, key={key_code(post.seed)}, "
        f"start={_STARTS.get(post.start, '...')}, "
        f"method={quoted(post.method)},\n    n_chains={post.n_chains}, n_draws={post.n_draws}, "
        f"n_warmup={post.n_warmup}{options}\n)",
        'jg.compare(fit, post).save("report")',
    ]
    return snippet(fit.model, calls, post)


_PLAIN = ("thinning", 1)
# As the user wrote them; parameters and posteriors have no name here.
_STARTS = {"fit": "fit", "prior": '"prior"'}


def _parameters(verdict: Findings) -> list[Block]:
    warning: list[Block] = [] if verdict.decided else [Words(_UNDECIDED_NOTE)]
    note = f"{_TABLE_NOTE}{labels_note(verdict.table)}"
    return [*warning, Words(note), Table(shown_table(verdict.table))]


def _model(verdict: Findings) -> list[Block]:
    model = verdict.fit.model.describe()
    numbers = [(symbol, number_text(value)) for _, symbol, value in model.hyper]
    parts: list[Block] = [Formulas(model.formulas), Words(_MEASURE_NOTE)]
    return [*parts, Pairs(numbers, symbols=True)] if numbers else parts


def _settings(verdict: Findings) -> list[tuple[str, str]]:
    fit, post = verdict.fit, verdict.posterior
    model = fit.model.describe()
    seed = lambda numbers: "not recorded" if numbers is None else " ".join(map(str, numbers))
    acceleration = "" if fit.acceleration is None else f", accelerated by {fit.acceleration}"
    return [
        ("restarts", f"{len(fit.restarts.status)}, {fit.start}"),
        ("algorithm", f"{fit.algorithm}{acceleration}"),
        ("M-step", f"{model.m_step}: {model.how}"),
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
        *((name, str(value)) for name, value in post.settings.items()),
        ("chains", str(post.n_chains)),
        ("draws per chain", str(post.n_draws)),
        ("warm-up per chain", "none" if post.n_warmup is None else str(post.n_warmup)),
        ("labels", f"{post.label_method}, {post.ambiguous_labels:.1%} of the draws ambiguous"),
        ("seed of the fit", seed(fit.seed)),
        ("seed of the draws", seed(post.seed)),
        ("precision", str(np.asarray(post.x).dtype)),
        ("data fingerprint", post.fingerprint),
    ]


def _keys_note(verdict: Findings) -> str:
    known = verdict.fit.seed is not None and verdict.posterior.seed is not None
    keys = (
        "With other keys the restarts and draws differ, the conclusion should not."
        if known
        else "Where a random key is not known, another one stands for it: the restarts and draws "
        "then differ, the conclusion should not."
    )
    return (
        f"{keys} What the verdict itself draws comes from a fixed seed. The data are not in this "
        "report; posterior.nc beside it holds the draws, report.json every number."
    )
