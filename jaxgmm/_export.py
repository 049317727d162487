"""Posteriors in ArviZ's form, the same on ArviZ 0.23 (InferenceData) and 1.x (DataTree)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from jaxgmm import _predictive
from jaxgmm._checks import check_key
from jaxgmm._labelling import all_sites

if TYPE_CHECKING:
    from jaxgmm._posterior import Posterior


def to_datatree(
    posterior: Posterior,
    *,
    log_likelihood: bool = True,
    posterior_predictive: bool = False,
    prior: bool = False,
    key: PRNGKeyArray | None = None,
) -> Any:
    """An xarray DataTree with named dimensions and coordinates."""
    import arviz_base

    if posterior_predictive or prior:
        key_rows, key_prior = jax.random.split(check_key(key, "these groups are drawn"))
    weighted = posterior.log_weights is not None
    posterior = posterior.resample()
    x = np.asarray(posterior.x)
    row_dims = ["obs", "feature"][: x.ndim]
    dims = {**posterior.model.site_dims(), "x": row_dims}
    coords = {
        "component": np.arange(posterior.model.n_components),
        "feature": list(posterior.feature_names),
        "feature_bis": list(posterior.feature_names),
        "obs": np.arange(x.shape[0]),
    }
    groups = {
        "posterior": posterior.draws,
        "sample_stats": {"lp": posterior.log_joint, **posterior.sample_stats},
        "observed_data": {"x": x},
    }
    if posterior.sample_weight is not None:
        groups["constant_data"] = {"sample_weight": np.asarray(posterior.sample_weight)}
        dims["sample_weight"] = ["obs"]
    if posterior_predictive:
        groups["posterior_predictive"] = {"x": posterior.replicate(key_rows)}
    if prior:
        shape = (posterior.n_chains, posterior.n_draws)
        drawn = _predictive.prior_draws(posterior.model, key_prior, shape)
        sites = all_sites(posterior.model, drawn)
        groups["prior"] = {name: np.asarray(site, x.dtype) for name, site in sites.items()}
    tree = arviz_base.from_dict(groups, dims=dims, coords=coords)
    if log_likelihood:
        # Rows have features, their log-likelihood has not: the two need dims of their own.
        pointwise = arviz_base.from_dict(
            {"log_likelihood": {"x": posterior.pointwise_log_likelihood()}},
            dims={"x": ["obs"]},
            coords={"obs": coords["obs"]},
        )
        tree["log_likelihood"] = pointwise["log_likelihood"]
    tree.attrs.update(inference_library="jaxgmm", sampler=posterior.method)
    if weighted:
        tree.attrs.update(resampled="systematic", pareto_k=posterior.pareto_k)
    return tree


def to_arviz(posterior: Posterior, **groups: Any) -> Any:
    """InferenceData where the installed ArviZ has it, a DataTree elsewhere."""
    import arviz

    tree = to_datatree(posterior, **groups)
    # ArviZ 1.x answers to the name with a warning and a DataTree.
    if "InferenceData" not in vars(arviz):
        return tree
    datasets = {name: group.to_dataset() for name, group in tree.children.items()}
    return arviz.InferenceData(attrs=dict(tree.attrs), **datasets)
