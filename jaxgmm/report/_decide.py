"""Tier A: is it a mode of this posterior, can the draws be believed, where is the mass."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from arviz_stats.base import array_stats
from jaxtyping import Array
from numpyro.infer.util import log_density

from jaxgmm._contract import LatentModel, Params
from jaxgmm._posterior import Posterior
from jaxgmm._programs import program
from jaxgmm._results import SAME_OPTIMUM, Fit
from jaxgmm.report._check import FAIL, OK, WARNING, Check, not_applicable
from jaxgmm.report._curvature import Curvature

# Thresholds of Vehtari et al. (2021) for R-hat and effective draws, of Betancourt (2016)
# for the energy fraction, and of Vehtari et al. (2024) for the tail of importance weights.
_MOST_R_HAT = 1.01
_LEAST_ESS = 400
_LEAST_BFMI = 0.3
MOST_PARETO_K = 0.7
# A few divergent transitions cast doubt, a larger share ends the comparison.
_MOST_DIVERGING = 0.005
# An optimum so far below the fit may well hold no draw: odds of 1 to 150 at equal volume.
_FAR_BELOW = 5.0

# Relative difference of two log densities that rounding explains, in units of eps.
_SAME_TARGET_EPS = 1e5
_TARGET_POINTS = 8

SAME_TARGET = "same target (relative gap)"
NEWTON = "Newton decrement (sd)"
PARETO_K = "Pareto k of the approximation"
SHARE = "posterior in the fit's basin"
HIGHER = "height of the highest optimum above the fit"
# The lines without which nothing is said of the posterior.
HEALTH = (
    "largest R-hat, invariants",
    "smallest bulk ESS, invariants",
    "smallest tail ESS, invariants",
    "divergences",
    "smallest E-BFMI",
    PARETO_K,
    "effective draws of the weights",
)


def decide(
    fit: Fit, post: Posterior, shape: Curvature, table: pd.DataFrame, basins: pd.DataFrame
) -> list[Check]:
    """The lines of tier A."""
    return [
        _same_target(_target_gap(fit, post), post.x.dtype),
        _em_status(fit),
        _stationary(shape),
        _definite(shape),
        *_chains(table, post),
        *_transitions(post),
        *_weights(post),
        *_coverage(fit, post, basins),
    ]


# -- the point ---------------------------------------------------------------------------


def _target_gap(fit: Fit, post: Posterior) -> float:
    """Largest relative difference between EM's objective and NumPyro's log density."""
    total = post.n_chains * post.n_draws
    chosen = np.linspace(0, total - 1, _TARGET_POINTS).astype(int)
    points = jax.tree.map(
        lambda draws, at: jnp.concatenate(
            [jnp.asarray(at)[None], jnp.asarray(draws.reshape(total, *draws.shape[2:])[chosen])]
        ).astype(post.x.dtype),
        post.params,
        fit.params,
    )
    ours, theirs = _both_densities(fit.model, post.model, points, post.x, post.sample_weight)
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.max(np.abs(ours - theirs) / np.maximum(np.abs(ours), 1)))


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


def _same_target(gap: float, dtype: np.dtype) -> Check:
    threshold = _SAME_TARGET_EPS * float(jnp.finfo(dtype).eps)
    verdict = OK if gap <= threshold else FAIL
    meaning = (
        "EM's objective and NumPyro's log density are the same number"
        if verdict == OK
        else "EM and the sampler were given different priors or densities"
    )
    return Check(SAME_TARGET, gap, f"<= {threshold:.1e}", verdict, meaning)


def _em_status(fit: Fit) -> Check:
    value = fit.status.name.lower().replace("_", " ")
    return Check("EM status", value, "converged", OK if fit.converged else WARNING, fit.message)


def _stationary(shape: Curvature) -> Check:
    ok = shape.stationary
    meaning = "EM stands at a stationary point" if ok else "EM stopped before the top"
    threshold = f"< {shape.threshold:g}"
    return Check(NEWTON, shape.newton_decrement, threshold, OK if ok else FAIL, meaning)


def _definite(shape: Curvature) -> Check:
    smallest = float(shape.eigenvalues[0]) if shape.eigenvalues.size else np.nan
    if shape.n_negative:
        verdict, meaning = FAIL, f"saddle: the density rises in {directions(shape.n_negative)}"
    elif shape.n_flat:
        verdict, meaning = FAIL, f"not identified: {directions(shape.n_flat, 'flat ')}"
    else:
        verdict, meaning = OK, "a maximum in every direction"
    return Check("smallest scaled curvature", smallest, "> 0", verdict, meaning)


def directions(count: int, kind: str = "") -> str:
    """A count of directions in words."""
    words = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
    return f"{words.get(count, count)} {kind}direction" + ("" if count == 1 else "s")


# -- the draws ---------------------------------------------------------------------------


def _chains(table: pd.DataFrame, post: Posterior) -> list[Check]:
    names = ("largest R-hat, invariants", *(f"smallest {k} ESS, invariants" for k in _KINDS))
    if post.log_weights is not None:
        return [not_applicable(name, "draws are independent, not chains") for name in names]
    invariant = table.loc[list(post.invariants())]
    r_hat = float(invariant["r_hat"].max())
    ok = r_hat <= _MOST_R_HAT
    meaning = f"chains {'agree' if ok else 'disagree'} on what labels cannot change"
    if np.isnan(r_hat):
        meaning = "the draws do not move"
    lines = [Check(names[0], r_hat, f"<= {_MOST_R_HAT}", OK if ok else FAIL, meaning)]
    for name, (kind, use) in zip(names[1:], _KINDS.items(), strict=True):
        ess = float(invariant[f"ess_{kind}"].min())
        verdict = OK if ess >= _LEAST_ESS else FAIL
        lines.append(Check(name, ess, f">= {_LEAST_ESS}", verdict, f"effective draws for {use}"))
    return lines


_KINDS = {"bulk": "means", "tail": "interval ends"}


def _transitions(post: Posterior) -> list[Check]:
    """What only Hamiltonian chains record."""
    diverging, energy = (post.sample_stats.get(name) for name in ("diverging", "energy"))
    why = f"{post.method} has no trajectories"
    lines = [not_applicable("divergences", why), not_applicable("smallest E-BFMI", why)]
    if diverging is not None and (energy is not None or np.any(diverging)):
        count, share = int(np.sum(diverging)), float(np.mean(diverging))
        verdict = OK if count == 0 else WARNING if share <= _MOST_DIVERGING else FAIL
        meaning = "no divergent transition" if count == 0 else "strongly curved regions are missed"
        lines[0] = Check("divergences", count, "0", verdict, meaning)
    if energy is not None:
        bfmi = float(np.min(array_stats.bfmi(np.asarray(energy, np.float64))))
        ok = bfmi >= _LEAST_BFMI
        meaning = "energy is explored" if ok else "energy is explored too slowly"
        threshold = f">= {_LEAST_BFMI}"
        lines[1] = Check("smallest E-BFMI", bfmi, threshold, OK if ok else FAIL, meaning)
    return lines


def _weights(post: Posterior) -> list[Check]:
    """What only approximations have: weights, and their own convergence."""
    names = (PARETO_K, "effective draws of the weights", "convergence of the approximation")
    if post.log_weights is None:
        return [not_applicable(name, "draws of the posterior itself") for name in names]
    k = np.nan if post.pareto_k is None else float(post.pareto_k)
    trusted = k <= MOST_PARETO_K
    meaning = (
        "importance weights correct the approximation where it has draws"
        if trusted
        else "the approximation is too far from the posterior for its weights to correct"
    )
    effective = post.effective_draws
    converged = bool(post.diagnostics.get("converged", True))
    status = str(post.diagnostics.get("status", "the engine does not say"))
    value = "converged" if converged else "not converged"
    return [
        Check(names[0], k, f"<= {MOST_PARETO_K}", OK if trusted else FAIL, meaning),
        Check(
            names[1],
            effective,
            f">= {_LEAST_ESS}",
            OK if effective >= _LEAST_ESS else FAIL,
            "equally weighted draws that are worth as much",
        ),
        Check(names[2], value, "converged", OK if converged else WARNING, status),
    ]


# -- the mass ----------------------------------------------------------------------------


def _coverage(fit: Fit, post: Posterior, basins: pd.DataFrame) -> list[Check]:
    first, others = basins.iloc[0], basins.iloc[1:]
    visited = others[others["visited"] > 0]
    reached = len(visited)
    meaning = f"95% interval {first['share_low']:.0%} to {first['share_high']:.0%}; "
    if reached == 0:
        meaning += "every draw climbs to EM's optimum"
    else:
        meaning += f"draws climb to {reached} other {'optimum' if reached == 1 else 'optima'}"
    share = float(first["share"])
    optima = others[others["log_joint"].notna()]
    higher = np.max(optima["log_joint"].to_numpy(), initial=-np.inf) - first["log_joint"]
    above = higher > SAME_OPTIMUM
    unseen = optima[(optima["found_by_restarts"] > 0) & (optima["visited"] == 0)]
    near = unseen[unseen["log_joint"] > fit.log_joint - _FAR_BELOW]
    new = optima[(optima["found_by_restarts"] == 0) & (optima["visited"] > 0)]
    blind = post.log_weights is not None
    return [
        Check(SHARE, share, ">= 0.5", OK if share >= 0.5 else WARNING, meaning),
        Check(
            HIGHER,
            float(max(higher, 0)),
            f"<= {SAME_OPTIMUM:g}",
            FAIL if above else OK,
            "EM's answer is a minor mode" if above else "none higher is known",
        ),
        Check(
            "optima of restarts without a draw",
            len(unseen),
            "0 in reach",
            WARNING if len(near) else OK,
            ("an approximation around one mode cannot see others" if blind else _MISSED)
            if len(near)
            else f"none within {_FAR_BELOW:g} of the fit, where a draw is to be expected",
        ),
        Check(
            "optima of draws without a restart",
            len(new),
            "0",
            WARNING if len(new) else OK,
            f"restarts missed optima that hold {new['share'].sum():.1%} of the posterior"
            if len(new)
            else "restarts found all that draws lead to",
        ),
    ]


_MISSED = "the sampler may have missed them; chains that start there would tell"
