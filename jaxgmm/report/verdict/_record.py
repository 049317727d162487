"""Reports for machines: every number at full precision."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxgmm.report._settings import data_record, fit_settings, posterior_settings
from jaxgmm.report.page._document import Illustration, versions
from jaxgmm.report.page._json import rows
from jaxgmm.report.verdict._findings import Findings


def verdict_record(verdict: Findings, figures: list[Illustration], code: str) -> dict[str, Any]:
    """All that the page of a verdict says."""
    fit, post = verdict.fit, verdict.posterior
    sites, model = fit.model.sites(fit.params), fit.model.describe()
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
            "m_step": model.m_step,
            "formulas": model.formulas,
            "hyper_parameters": {name: value for name, _, value in model.hyper},
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
