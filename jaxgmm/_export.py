"""Posteriors in ArviZ's form, the same on ArviZ 0.23 (InferenceData) and 1.x (DataTree)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxgmm._posterior import Posterior


def to_datatree(posterior: Posterior) -> Any:
    """An xarray DataTree with named dimensions and coordinates."""
    import arviz_base

    dims = posterior.model.site_dims()
    coords = {
        "component": np.arange(posterior.model.n_components),
        "feature": list(posterior.feature_names),
        "feature_bis": list(posterior.feature_names),
        "obs": np.arange(posterior.x.shape[0]),
    }
    x = np.asarray(posterior.x)
    row_dims = ["obs", "feature"][: x.ndim]
    tree = arviz_base.from_dict(
        {
            "posterior": posterior.draws,
            "sample_stats": {"lp": posterior.log_joint, **posterior.sample_stats},
            "observed_data": {"x": x},
        },
        dims={**dims, "x": row_dims},
        coords=coords,
    )
    # Rows have features, their log-likelihood has not: the two need dims of their own.
    pointwise = arviz_base.from_dict(
        {"log_likelihood": {"x": posterior.pointwise_log_likelihood()}},
        dims={"x": ["obs"]},
        coords={"obs": coords["obs"]},
    )
    tree["log_likelihood"] = pointwise["log_likelihood"]
    tree.attrs.update(inference_library="jaxgmm", sampler=posterior.method)
    return tree


def to_arviz(posterior: Posterior) -> Any:
    """InferenceData where the installed ArviZ has it, a DataTree elsewhere."""
    import arviz

    tree = to_datatree(posterior)
    # ArviZ 1.x answers to the name with a warning and a DataTree.
    if "InferenceData" not in vars(arviz):
        return tree
    groups = {name: group.to_dataset() for name, group in tree.children.items()}
    return arviz.InferenceData(**groups)
