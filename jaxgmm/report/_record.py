"""Reports for machines: every number at full precision."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxgmm._contract import LatentModel
from jaxgmm.bayes import Posterior
from jaxgmm.em import Fit
from jaxgmm.model import ConjugatePrior
from jaxgmm.report._document import Illustration, versions
from jaxgmm.report._json import rows
from jaxgmm.report._markdown import formula_text
from jaxgmm.report._notation import formulas

if TYPE_CHECKING:
    from jaxgmm.report._compare import Verdict
    from jaxgmm.report._select import Selection


def verdict_record(verdict: Verdict, figures: list[Illustration], code: str) -> dict[str, Any]:
    """All that the page of a verdict says."""
    fit, post = verdict.fit, verdict.posterior
    sites = fit.model.sites(fit.params)
    basins = verdict.basins.rename_axis("optimum")
    return {
        "kind": "verdict",
        "summary": verdict.summary,
        "decided": verdict.decided,
        "point": verdict.point,
        "checks": rows(verdict.checks),
        "basins": rows(basins),
        "parameters": rows(verdict.table),
        "model": {
            "description": repr(fit.model),
            "m_step": fit.model.describe().m_step,
            "formulas": [formula_text(line) for line in formulas(fit.model, sites)],
            "hyper_parameters": hyper_parameters(fit.model),
        },
        "map": {name: np.asarray(site) for name, site in sites.items()},
        "data": {
            **data_record(fit),
            "weighted": post.sample_weight is not None,
            "dtype": str(np.asarray(post.x).dtype),
        },
        "settings": {"fit": fit_settings(fit), "posterior": posterior_settings(post)},
        "restarts": fit.optima_table.to_dict(orient="records"),
        "versions": dict(versions()),
        "figures": [{"title": f.title, "caption": f.caption, "file": f.file} for f in figures],
        "reproduce": code,
    }


def hyper_parameters(model: LatentModel) -> dict[str, Any]:
    """The numbers in a conjugate prior, in the units of the data."""
    prior = getattr(model, "prior", None)
    if not isinstance(prior, ConjugatePrior):
        return {}
    # `dataclasses.asdict` copies arrays, each by a program.
    return {field.name: getattr(prior, field.name) for field in dataclasses.fields(prior)}


def data_record(fit: Fit) -> dict[str, Any]:
    """What is known of the data without them."""
    names = ("n_rows", "total_weight", "feature_names", "fingerprint")
    return {name: getattr(fit, name) for name in names}


def fit_settings(fit: Fit) -> dict[str, Any]:
    """How a fit was made, and what came of it."""
    names = ("start", "seed", "tol", "max_iter", "algorithm", "acceleration", "converged")
    ends = ("n_iter", "n_parameters", "log_joint", "log_likelihood", "log_prior")
    found = {name: getattr(fit, name) for name in (*names, *ends, "bic", "aic", "icl")}
    return {"n_init": len(fit.restarts.status), "status": fit.message, **found}


def posterior_settings(post: Posterior) -> dict[str, Any]:
    """How draws were made, and what they are worth."""
    names = ("method", "seed", "n_chains", "n_draws", "n_warmup", "label_method")
    ends = ("pareto_k", "effective_draws", "ambiguous_labels")
    return {**{name: getattr(post, name) for name in (*names, *ends)}, **post.settings}


def selection_record(choice: Selection) -> dict[str, Any]:
    """All that the page of a selection says."""
    from jaxgmm.report._select_page import conclusion

    models, ranking = rows(choice.table), choice.ranking.tolist()
    fits = [None if fit is None else fit_settings(fit) for fit in choice.fits]
    any_fit = next((fit for fit in choice.fits if fit is not None), None)
    return {
        "kind": "selection",
        "criterion": choice.criterion,
        "best": models[ranking[0]]["model"] if ranking else None,
        "ranking": ranking,
        "n_init": choice.n_init,
        "conclusion": conclusion(choice),
        "models": models,
        "fits": fits,
        "data": None if any_fit is None else data_record(any_fit),
        "versions": dict(versions()),
    }
