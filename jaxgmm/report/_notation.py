"""The model and its prior in mathematical notation, and as code that builds them again."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import numpyro.distributions as dist

from jaxgmm._contract import LatentModel, Sites
from jaxgmm.bayes import Posterior
from jaxgmm.model import ConjugatePrior, Mixture

# Larger arrays are named by their shape.
_MOST_NUMBERS = 36


def formulas(model: LatentModel, sites: Sites) -> list[str]:
    """Lines of the model and its prior, as HTML; ``sites`` are any values of the sites."""
    if isinstance(model, Mixture) and isinstance(model.prior, ConjugatePrior):
        return _mixture_formulas(model)
    if isinstance(model, Mixture) and model.prior is None:
        return [_row_formula(model), "flat in all parameters: maximum likelihood"]
    if isinstance(model, Mixture) and model.prior_name == "sites":
        return [_row_formula(model), *_joining(model), *_written_formulas(model)]
    return _site_formulas(model, sites)


def hyper_parameters(model: LatentModel) -> list[tuple[str, str]]:
    """Symbol (HTML) and value (text) of each number in the prior; in the units of the data."""
    if not (isinstance(model, Mixture) and isinstance(model.prior, ConjugatePrior)):
        return []
    prior = model.prior
    rows = [
        ("<i>m</i>, prior mean", prior.mean),
        ("<i>&kappa;</i>, its weight in rows", prior.mean_precision),
        ("<i>&nu;</i>, degrees of freedom", prior.dof),
        ("<i>&Lambda;</i>, scale", prior.scale),
    ]
    if model.weights is None:
        rows.insert(0, ("<i>&alpha;</i>, concentration", prior.concentration))
    else:
        rows.insert(0, ("<i>w</i>, fixed weights", model.weights))
    return [(symbol, _number_text(value)) for symbol, value in rows]


_FULL, _ONE = "<i>&Sigma;<sub>k</sub></i>", "<i>&Sigma;</i>"


def _covariance_symbols(model: Mixture) -> tuple[str, str, str]:
    """The covariance of a component, what of it has a prior, and how they hang together."""
    return {
        "full": (_FULL, _FULL, ""),
        "tied": (_ONE, _ONE, "one for all components"),
        "diag": (
            _FULL,
            "<i>&sigma;</i>²<sub><i>kj</i></sub>",
            f"{_FULL} = diag(<i>&sigma;</i>²<sub><i>k</i>1</sub>, …, "
            f"<i>&sigma;</i>²<sub><i>k</i>{model.n_features}</sub>)",
        ),
        "spherical": (
            _FULL,
            "<i>&sigma;</i>²<sub><i>k</i></sub>",
            f"{_FULL} = <i>&sigma;</i>²<sub><i>k</i></sub> <i>I</i>",
        ),
        "EEI": (
            _ONE,
            "<i>&sigma;</i>²<sub><i>j</i></sub>",
            f"{_ONE} = diag(<i>&sigma;</i>²<sub>1</sub>, …, "
            f"<i>&sigma;</i>²<sub>{model.n_features}</sub>)",
        ),
        "EII": (_ONE, "<i>&sigma;</i>²", f"{_ONE} = <i>&sigma;</i>² <i>I</i>"),
    }.get(model.family.name) or _decomposed(model.family.name)


def _decomposed(code: str) -> tuple[str, str, str]:
    """Those of mclust's letters: volume, shape and orientation, equal or of each component."""
    part = lambda symbol, letter: (
        f"<i>{symbol}</i>" if letter == "E" else f"<i>{symbol}<sub>k</sub></i>"
    )
    volume, shape = part("&lambda;", code[0]), part("A", code[1])
    if code[2] == "I":
        form = f"{_FULL} = {volume} {shape}, &nbsp; {shape} diagonal, |{shape}| = 1"
        return _FULL, "<i>&sigma;</i>²<sub><i>kj</i></sub>", form
    axes = part("D", code[2])
    form = (
        f"{_FULL} = {volume} {axes} {shape} {axes}<sup>T</sup>, &nbsp; {shape} diagonal, "
        f"|{shape}| = 1, &nbsp; {axes} orthogonal"
    )
    return _FULL, _FULL, form


def _row_formula(model: Mixture) -> str:
    component, note = model.family.formula, ""
    if component is None:
        covariance, _, note = _covariance_symbols(model)
        component = f"N(<i>&mu;<sub>k</sub></i>, {covariance})"
    apart = "".join(f" + <i>w</i><sub>{name}</sub> uniform(box)" for name in model.labels_apart)
    if not model.family.has_weights:
        gated = "<i>w</i> = softmax([<i>gates</i>, 0] (1, <i>u<sub>i</sub></i>))"
        note = f"{gated}, &nbsp; {note}" if note else gated
    return (
        "<i>x<sub>i</sub></i> ~ &sum;<sub><i>k</i></sub> <i>w<sub>k</sub></i> "
        f"{component}{apart}, &nbsp; <i>k</i> = 1, …, {model.n_placed}"
        + (f", &nbsp; {note}" if note else "")
    )


def _joining(model: Mixture) -> list[str]:
    """How declared scales and correlations make the covariances."""
    if not getattr(model.prior, "scaled", False):
        return []
    covariance, variance, _ = _covariance_symbols(model)
    if "correlations" in model.prior.distributions:
        return [f"{covariance} = diag(<i>scales</i>) <i>correlations</i> diag(<i>scales</i>)"]
    return [f"{variance} = <i>scales</i>²"]


def _mixture_formulas(model: Mixture) -> list[str]:
    own = model.family.prior_formulas or _gaussian_formulas(model)
    lines = [_row_formula(model), *own]
    if model.weights is None:
        weights = "(<i>w</i><sub>1</sub>, …, <i>w<sub>K</sub></i>) ~ Dirichlet(<i>&alpha;</i>)"
        if model.prior.stick_breaking:
            weights = (
                "<i>w<sub>k</sub></i> = <i>v<sub>k</sub></i> &prod;<sub><i>j</i>&lt;<i>k</i></sub> "
                "(1 &minus; <i>v<sub>j</sub></i>), &nbsp; <i>v<sub>k</sub></i> ~ "
                "Beta(<i>&alpha;</i><sub>1<i>k</i></sub>, <i>&alpha;</i><sub>2<i>k</i></sub>), "
                "&nbsp; <i>v<sub>K</sub></i> = 1"
            )
        lines.insert(1, weights)
    return lines


def _gaussian_formulas(model: Mixture) -> tuple[str, str]:
    """Of means and covariances."""
    mean = "<i>&mu;<sub>k</sub></i>"
    covariance, own, form = _covariance_symbols(model)
    if "&sigma;" not in own:
        prior = f"{own} ~ inverse-Wishart(<i>&nu;</i>, <i>&Lambda;</i>)"
    else:
        scale = "<i>&Lambda;<sub>j</sub></i>" if np.ndim(model.prior.scale) else "<i>&Lambda;</i>"
        prior = f"{own} ~ inverse-gamma(<i>&nu;</i>/2, {scale}/2)"
    if "<i>A" in form:
        prior += f", &nbsp; a density of {own} as it stands, on the covariances of this form"
    return f"{mean} | {covariance} ~ N(<i>m</i>, {covariance} / <i>&kappa;</i>)", prior


def _site_formulas(model: LatentModel, sites: Sites) -> list[str]:
    """The sites and the names of their NumPyro distributions."""
    lines = []
    for name, conditional in model.prior_sites().items():
        try:
            text = _distribution_text(conditional({}))
        except KeyError:
            # It depends on sites before it: its numbers at the fit are not the prior's.
            text = type(_innermost(conditional(sites))).__name__ + " given the sites above"
        lines.append(_site_formula(name, text))
    return lines


def _written_formulas(model: Mixture) -> list[str]:
    """The distributions of a mixture's sites as the user wrote them, each for a whole site."""
    return [
        _site_formula(name, _distribution_text(written))
        for name, written in model.prior.by_site.items()
    ]


def _site_formula(name: str, text: str) -> str:
    return f"<i>{escape(name)}</i> ~ {escape(text)}"


def _innermost(distribution: Any) -> Any:
    """What a distribution is named after."""
    while isinstance(distribution, (dist.Independent, dist.ExpandedDistribution)):
        distribution = distribution.base_dist
    return distribution


def _distribution_text(distribution: Any) -> str:
    if isinstance(distribution, ConjugatePrior):
        values = [f"{name}={_number_text(getattr(distribution, name))}" for name in _HYPER]
        return f"ConjugatePrior({', '.join(values)})"
    distribution = _innermost(distribution)
    values = {
        name: getattr(distribution, name)
        for name in distribution.arg_constraints
        if name in vars(distribution)
    }
    arguments = ", ".join(f"{name}={_number_text(value)}" for name, value in values.items())
    if type(distribution) is dist.TransformedDistribution:
        steps = ", ".join(type(t).__name__ for t in distribution.transforms)
        arguments = f"{_distribution_text(distribution.base_dist)}, {steps}"
    return f"{type(distribution).__name__}({arguments})"


def _number_text(value: Any) -> str:
    """A number or a small array to four figures, a large array as its shape."""
    array = np.asarray(value)
    if array.size > _MOST_NUMBERS:
        return f"array of shape {array.shape}"
    text = lambda entry: f"{entry:.4g}"
    if array.ndim == 0:
        return text(array)
    if array.ndim == 1:
        return "(" + ", ".join(map(text, array)) + ")"
    rows = array.reshape(-1, array.shape[-1])
    return "[" + "; ".join(" ".join(map(text, row)) for row in rows) + "]"


# -- code ------------------------------------------------------------------------------


def key_code(seed: tuple[int, ...] | None) -> str:
    """The random key that has these numbers; any where they are not known."""
    if seed is None:
        return "jax.random.key(0)"
    if len(seed) == 2 and seed[0] == 0:
        return f"jax.random.key({seed[1]})"
    return f'jax.random.wrap_key_data(jax.numpy.array({list(seed)}, "uint32"))'


def quoted(name: str) -> str:
    return f'"{name}"'


def snippet(model: LatentModel, calls: list[str], post: Posterior) -> str:
    """Python that makes the comparison again, the data left to the reader."""
    shape = " x ".join(map(str, np.shape(post.x)))
    weights = "" if post.sample_weight is None else "\nsample_weight = ...  # a number per row"
    wide = np.asarray(post.x).dtype == np.float64
    switch = 'jax.config.update("jax_enable_x64", True)\n' if wide else ""
    made = model_code(model, str(model.n_components))
    numpy = "import numpy as np\nimport numpyro.distributions as dist\n" if "dist." in made else ""
    return (
        f"import jax\nimport jaxgmm as jg\n{numpy}\n{switch}"
        f"x = ...  # the data, {shape}, fingerprint {post.fingerprint[:12]}{weights}\n"
        f"model = {made}\n" + "\n".join(calls) + "\n"
    )


def model_code(model: LatentModel, n_components: str) -> str:
    """Python that makes the model, its number of components as written here."""
    if not isinstance(model, Mixture):
        return f"...  # {model!r}"
    parts = [model.family.code, f"n_components={n_components}"]
    if isinstance(model.prior, ConjugatePrior):
        names = ("concentration", *_HYPER)
        parts.append(f"prior={_conjugate_code(model.prior, names)}")
    elif model.prior_name == "sites":
        parts.append("prior={" + _prior_code(model.prior.by_site) + "}")
    elif model.prior is not None:
        parts.append(f"prior={quoted(model.prior_name)}")
    if model.weights is not None:
        parts.append(f"weights={np.asarray(model.weights).tolist()}")
    parts += [f"{argument}={code}" for argument, code in model.family.beside.items()]
    return "jg.Mixture(" + ", ".join(parts) + ")"


_HYPER = ("mean", "mean_precision", "dof", "scale")


def _conjugate_code(prior: ConjugatePrior, names: tuple[str, ...]) -> str:
    numbers = [f"{name}={np.asarray(getattr(prior, name)).tolist()}" for name in names]
    if prior.stick_breaking:
        numbers.append("stick_breaking=True")
    return "jg.ConjugatePrior(\n" + "".join(f"    {n},\n" for n in numbers) + ")"


# What a table of numbers rebuilds.
_WRITTEN = (dist.Beta, dist.Dirichlet, dist.Gamma)


def _prior_code(distributions: dict[str, Any]) -> str:
    """A dictionary of distributions, without its braces; dots where one is not known."""
    inner = {name: _innermost(written) for name, written in distributions.items()}
    if not all(isinstance(one, (*_WRITTEN, ConjugatePrior)) for one in inner.values()):
        return ", ".join(f"{quoted(name)}: ..." for name in inner)
    lines = []
    for name, one in inner.items():
        if isinstance(one, ConjugatePrior):
            lines.append(f"    {quoted(name)}: {_conjugate_code(one, _HYPER)},\n")
            continue
        values = (np.asarray(getattr(one, argument)) for argument in one.arg_constraints)
        numbers = ", ".join(f"np.array({value.tolist()})" for value in values)
        lines.append(f"    {quoted(name)}: dist.{type(one).__name__}({numbers}),\n")
    return "\n" + "".join(lines)
