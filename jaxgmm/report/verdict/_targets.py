"""Whether a fit and a posterior have one target: EM's objective, the draws' density."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro.infer.util import log_density

from jaxgmm._contract import LatentModel, Params
from jaxgmm._numerics import widened
from jaxgmm._programs import on_rung, program
from jaxgmm.bayes import Posterior
from jaxgmm.em import Fit
from jaxgmm.report.verdict._check import FAIL, OK, Check

SAME_TARGET = "same target (relative gap)"
SAME_MODEL = "same model (largest difference in nats)"

# Relative difference of two log densities that rounding explains, in units of eps.
_SAME_TARGET_EPS = 1e5
_TARGET_POINTS = 8

# Two models whose densities of one point differ by less lead to one posterior; and what
# rounding adds where their numbers differ, in units of eps.
_SAME_NATS = 0.01
_SAME_MODEL_EPS = 64


def same_target(fit: Fit, post: Posterior) -> list[Check]:
    """Lines on the two programs of the densities, and on the two models."""
    points = _points(fit, post)
    return [_one_density(fit, post, points), _one_model(fit, post, points)]


def alike(one: LatentModel, other: LatentModel) -> bool:
    """Whether two models differ by no more than numbers, or how a prior of one kind is written."""
    if jax.tree.structure(one) == jax.tree.structure(other):
        return True
    priors = [getattr(model, "prior", None) for model in (one, other)]
    if type(one) is not type(other) or type(priors[0]) is not type(priors[1]):
        return False
    bare = [dataclasses.replace(m, prior=None) for m in (one, other)]  # type: ignore
    return jax.tree.structure(bare[0]) == jax.tree.structure(bare[1]) and list(
        one.prior_sites()
    ) == list(other.prior_sites())


def _points(fit: Fit, post: Posterior) -> Params:
    """The fit, and some draws."""
    total = post.n_chains * post.n_draws
    chosen = np.linspace(0, total - 1, _TARGET_POINTS).astype(int)
    return jax.tree.map(
        lambda draws, at: np.concatenate(
            [np.asarray(at)[None], np.asarray(draws).reshape(total, *draws.shape[2:])[chosen]]
        ),
        post.params,
        fit.params,
    )


def _one_density(fit: Fit, post: Posterior, points: Params) -> Check:
    """Largest relative difference between EM's objective and NumPyro's log density."""
    points = jax.tree.map(lambda leaf: leaf.astype(post.x.dtype), points)
    # NumPyro's density is in the fast form, unless another is settled.
    models = fit.model.settled(points), post.model.settled(points)
    rows = on_rung(post.model, post.x, post.sample_weight)
    ours, theirs = _both_densities(*models, points, *rows)
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    gap = float(np.max(np.abs(ours - theirs) / np.maximum(np.abs(ours), 1)))
    threshold = _SAME_TARGET_EPS * float(jnp.finfo(post.x.dtype).eps)
    ok = gap <= threshold
    meaning = (
        "EM's objective and NumPyro's log density are the same number"
        if ok
        else "EM and the sampler were given different priors or densities"
    )
    return Check(SAME_TARGET, gap, f"<= {threshold:.1e}", OK if ok else FAIL, meaning)


@program()
def _both_densities(
    fitted: LatentModel,
    sampled: LatentModel,
    points: Params,
    x: Array,
    sample_weight: Array | None,
) -> tuple[Array, Array]:
    def both(params: Params) -> tuple[Array, Array]:
        sites, kwargs = sampled.sites(params), {"sample_weight": sample_weight}
        numpyro_value, _ = log_density(sampled.numpyro_model, (x,), kwargs, sites)
        return fitted.log_joint(params, x, sample_weight), numpyro_value

    return jax.vmap(both)(points)


def _one_model(fit: Fit, post: Posterior, points: Params) -> Check:
    """By their numbers; where those differ, by what each model makes of one point.

    Priors are compared by themselves and likelihoods row by row, so that many rows hide nothing.
    """
    words = "the fit's model and the posterior's are the same"
    if _equal_numbers(fit.model, post.model):
        return Check(SAME_MODEL, 0.0, f"<= {_SAME_NATS:g}", OK, f"{words}, number by number")
    *models, points, x, weight = widened(
        (fit.model, post.model, points, post.x, post.sample_weight)
    )
    data = on_rung(models[1], x, weight)
    prior, rows, size = (np.asarray(v, np.float64) for v in _differences(*models, points, *data))
    gap = float(np.max(np.abs(prior + rows)))
    eps = float(jnp.finfo(jnp.result_type(float)).eps)
    threshold = _SAME_NATS + _SAME_MODEL_EPS * eps * float(np.max(size))
    ok = gap <= threshold
    meaning = f"{words} density" if ok else "their priors or fixed numbers are not the same"
    return Check(SAME_MODEL, gap, f"<= {threshold:.2g}", OK if ok else FAIL, meaning)


def _equal_numbers(one: LatentModel, other: LatentModel) -> bool:
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    pairs: Any = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


@program()
def _differences(
    one: LatentModel,
    other: LatentModel,
    points: Params,
    x: Array,
    sample_weight: Array | None,
) -> tuple[Array, Array, Array]:
    """Of the log priors and of the log likelihoods, and what their rounding is relative to."""
    weight = jnp.ones(x.shape[0], x.dtype) if sample_weight is None else sample_weight

    def at(params: Params) -> tuple[Array, Array, Array]:
        priors = one.log_prior(params), other.log_prior(params)
        rows = one.log_prob(params, x), other.log_prob(params, x)
        # The rounding of rows has no common sign.
        size = jnp.abs(priors[0]) + jnp.sqrt(jnp.sum((weight * rows[0]) ** 2))
        return priors[0] - priors[1], weight @ (rows[0] - rows[1]), size

    return jax.lax.map(at, points)
