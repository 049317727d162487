"""Posteriors in ArviZ's form, the same on ArviZ 0.23 (InferenceData) and 1.x (DataTree)."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from jaxgmm._checks import check_key
from jaxgmm.bayes import _predictive
from jaxgmm.bayes._labelling import all_sites
from jaxgmm.model import prior_draws


def to_datatree(
    posterior: Any,
    *,
    log_likelihood: bool = True,
    posterior_predictive: bool = False,
    prior: bool = False,
    prior_predictive: bool = False,
    key: PRNGKeyArray | None = None,
) -> Any:
    """An xarray DataTree of a `Posterior`, with named dimensions and coordinates."""
    import arviz_base

    if posterior_predictive or prior or prior_predictive:
        key_rows, key_prior = jax.random.split(check_key(key, "these groups are drawn"))
    attributes = _attributes(posterior)
    if posterior.log_weights is not None:
        # Each copy keeps the weight that it is there for.
        stats = {**posterior.sample_stats, "log_weight": posterior.log_weights}
        posterior = dataclasses.replace(posterior, sample_stats=stats).resample()
    x, d = np.asarray(posterior.x), len(posterior.feature_names)
    values = lambda rows: rows[..., :d] if x.ndim == 2 else rows  # without noise beside them
    named = posterior.model.coords(posterior.feature_names)
    # Components need not have all columns as features.
    whole = len(named.get("feature", ())) == d
    row_dims = ["obs", "feature" if whole else "column"][: x.ndim]
    dims = {**posterior.model.site_dims(), "x": row_dims, "sample_weight": ["obs"]}
    dims["noise"] = ["obs", "of_noise"]
    coords = {
        "component": np.arange(posterior.model.n_components),
        **named,
        "column": list(posterior.feature_names),
        "obs": np.arange(x.shape[0]) if posterior.row_names is None else posterior.row_names,
    }
    groups = {
        "posterior": posterior.draws,
        "sample_stats": {"lp": posterior.log_joint, **posterior.sample_stats},
        "observed_data": {"x": values(x)},
    }
    constant = {}
    if posterior.sample_weight is not None:
        constant["sample_weight"] = np.asarray(posterior.sample_weight)
    if x.ndim == 2 and x.shape[1] > d:
        constant["noise"] = x[:, d:]
    if constant:
        groups["constant_data"] = constant
    if posterior_predictive:
        groups["posterior_predictive"] = {"x": values(posterior.replicate(key_rows))}
    if prior or prior_predictive:
        key_prior, key_replicates = jax.random.split(key_prior)
        shape, model = (posterior.n_chains, posterior.n_draws), posterior.near.model
        asked = "prior" if prior else "prior_predictive"
        drawn = prior_draws(model, key_prior, shape, asked)
        if prior:
            sites = all_sites(model, drawn)
            if posterior.origin is not None:
                _, sites = model.translate(posterior.origin, sites)
            groups["prior"] = {name: np.asarray(site, x.dtype) for name, site in sites.items()}
        if prior_predictive:
            flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), drawn)
            rows = _predictive.replicates(model, flat, key_replicates, posterior.near.x)
            rows = rows.astype(x.dtype).reshape(*shape, *x.shape)
            rows = rows if posterior.origin is None else rows + posterior.origin
            groups["prior_predictive"] = {"x": values(rows)}
    tree = arviz_base.from_dict(groups, dims=dims, coords=coords)
    if log_likelihood:
        # Rows have features, their log-likelihood has not: the two need dims of their own.
        pointwise = arviz_base.from_dict(
            {"log_likelihood": {"x": posterior.pointwise_log_likelihood()}},
            dims={"x": ["obs"]},
            coords={"obs": coords["obs"]},
        )
        tree["log_likelihood"] = pointwise["log_likelihood"]
    tree.attrs.update(attributes)
    return tree


# The group of a NetCDF file that has the posterior itself, beside those that ArviZ reads.
_GROUP = "jaxgmm"


def to_netcdf(posterior: Any, whole: bytes | None) -> bytes:
    """`to_datatree` as a file; with the ``whole`` inside, of which `jaxgmm.load` makes it again."""
    import xarray as xr

    tree = to_datatree(posterior)
    if whole is not None:
        own = np.frombuffer(whole, np.uint8)
        tree[_GROUP] = xr.DataTree(xr.Dataset({"archive": ("byte", own)}))
    # Made in memory: HDF5 takes the process with it where a disk is full.
    with tree.to_netcdf(engine="h5netcdf") as buffer:
        return bytes(buffer)


def from_netcdf(path: Path) -> bytes | None:
    """What `to_netcdf` has put inside; None where there is nothing, or no such file."""
    import h5netcdf  # xarray would keep the file open, and remember what it was

    try:
        with h5netcdf.File(path, "r") as file:
            return np.asarray(file[_GROUP]["archive"][...]).tobytes()
    except (OSError, KeyError, ValueError):
        return None


def _attributes(posterior: Any) -> dict[str, Any]:
    """What holds for all groups: where the draws come from, their weights, the evidence."""
    attributes: dict[str, Any] = {"inference_library": "jaxgmm", "sampler": posterior.method}
    if posterior.log_weights is not None:
        attributes["resampled"] = "systematic"
        attributes["pareto_k"] = posterior.pareto_k
        attributes["effective_draws"] = posterior.effective_draws
    if posterior.sample_weight is not None:
        attributes["total_weight"] = float(np.sum(posterior.sample_weight))
    if posterior.evidence is not None:
        attributes["log_evidence"] = posterior.evidence.log_evidence
        attributes["log_evidence_error"] = posterior.evidence.error
        attributes["log_evidence_method"] = posterior.evidence.method
    return attributes


def to_arviz(posterior: Any, **groups: Any) -> Any:
    """InferenceData where the installed ArviZ has it, a DataTree elsewhere."""
    with warnings.catch_warnings():
        # Before 1.0 it tells of 1.0 when it is imported; either will do here.
        warnings.filterwarnings("ignore", category=FutureWarning, module="arviz")
        import arviz

    tree = to_datatree(posterior, **groups)
    # ArviZ 1.x answers to the name with a warning and a DataTree.
    if "InferenceData" not in vars(arviz):
        return tree
    datasets = {name: group.to_dataset() for name, group in tree.children.items()}
    return arviz.InferenceData(attrs=dict(tree.attrs), **datasets)
