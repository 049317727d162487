"""What a mixture says of itself: formulas, numbers and code."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxgmm._contract import Hyper
from jaxgmm.model._prior import ConjugatePrior, PriorRule
from jaxgmm.model._site_prior import SitePrior

_FLAT = "flat in all parameters: maximum likelihood"
_DIRICHLET = "(w_1, …, w_K) ~ Dirichlet(α)"
_STICKS = "w_k = v_k ∏_{j<k} (1 − v_j), v_k ~ Beta(α_1k, α_2k), v_K = 1"
_GATED = "w = softmax([gates, 0] (1, u_i))"


def formulas(model: Any) -> tuple[str, ...]:
    """The density of a row of a mixture, then its prior."""
    family, prior = model.family, model.prior
    row = _row(model)
    if prior is None:
        return row, _FLAT
    if isinstance(prior, PriorRule):
        return row, f"prior {prior.name!r}, made of the data"
    own = family.prior_formulas(prior)
    if isinstance(prior, SitePrior):
        return row, *own, *prior.formulas
    if model.weights is not None:
        return row, *own
    return row, _STICKS if prior.stick_breaking else _DIRICHLET, *own


def _row(model: Any) -> str:
    family = model.family
    apart = "".join(f" + w_{name} uniform(box)" for name in model.labels_apart)
    gated = "" if family.has_weights else _GATED
    sum_ = f"x_i ~ ∑_k w_k {family.formula}{apart}"
    known = ["k = 1", "k = 1, 2"]
    labels = [*known, f"k = 1, …, {model.n_placed}"][min(model.n_placed, 3) - 1]
    return ", ".join(filter(None, [sum_, labels, gated, family.constraint]))


def hyper(model: Any) -> tuple[Hyper, ...]:
    """The numbers in a conjugate prior."""
    if not isinstance(model.prior, ConjugatePrior):
        return ()
    first, *others = model.prior.hyper
    if model.weights is not None:
        first = Hyper("weights", "w, fixed weights", model.weights)
    return first, *others


def code(model: Any, n_components: object) -> str:
    """Python that makes the mixture."""
    parts = [model.family.code, f"n_components={n_components}"]
    if model.prior is not None:
        parts.append(f"prior={model.prior.code}")
    if model.weights is not None:
        parts.append(f"weights={np.asarray(model.weights).tolist()}")
    parts += [f"{argument}={made}" for argument, made in model.family.beside.items()]
    return f"jg.Mixture({', '.join(parts)})"


def prior_of(model: Any, site: str, index: tuple[int, ...]) -> Any:
    """What a number is distributed like, as in `Description.prior`."""
    prior = model.prior
    if isinstance(prior, SitePrior):
        return prior.by_site.get(site)
    if not isinstance(prior, ConjugatePrior):
        return None
    if site in ("weights", "sticks"):
        return model.prior_sites()[site]({})
    return model.family.prior_density(prior, site, index)
