"""Tier A: is it a mode of this posterior, can the draws be believed, where is the mass."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from arviz_stats.base import array_stats

from jaxgmm.bayes import Posterior, health
from jaxgmm.em import SAME_OPTIMUM, Fit
from jaxgmm.report.verdict._basins import Basins, unseen, weighty
from jaxgmm.report.verdict._check import FAIL, OK, WARNING, Check, not_applicable
from jaxgmm.report.verdict._curvature import Curvature
from jaxgmm.report.verdict._targets import same_target

# Thresholds of Vehtari et al. (2021) for R-hat and effective draws, of Betancourt (2016)
# for the energy fraction, and of Vehtari et al. (2024) for the tail of importance weights.
_MOST_R_HAT = 1.01
_LEAST_ESS = 400
_LEAST_BFMI = 0.3
MOST_PARETO_K = 0.7
# R-hat of one population exceeds this by chance less than once in a thousand, from a hundred
# thinned draws a chain.
_MOST_R_HAT_THINNED = 1.05
# A few divergent transitions cast doubt, a larger share ends the comparison.
_MOST_DIVERGING = 0.005
# A basin with this share of the posterior is the posterior, as far as its draws tell.
NEARLY_ALL = 0.95
# Draws that miss more of the mass than this are no draws of the posterior.
_MOST_MISSED = 0.1

NEWTON = "Newton decrement (sd)"
SHARE = "posterior in the fit's basin"
HIGHER = "height of the highest optimum above the fit"
R_HAT = "largest R-hat, invariants"
ESS = {
    "bulk": "smallest bulk ESS, invariants",
    "tail": "smallest tail ESS, invariants",
}
MEMBERSHIP = "largest R-hat, basin membership"
DIVERGENCES = "divergences"
ENERGY = "smallest E-BFMI"
PARETO_K = "Pareto k of the approximation"
WEIGHTS = "effective draws of the weights"
CONVERGENCE = "convergence of the approximation"
MISSED = "mass of the optima without a draw, by Laplace"
# The lines without which nothing is said of the posterior.
HEALTH = (R_HAT, *ESS.values(), MEMBERSHIP, DIVERGENCES, ENERGY, PARETO_K, WEIGHTS, MISSED)


def decide(
    fit: Fit,
    post: Posterior,
    shape: Curvature,
    invariants: Mapping[str, np.ndarray],
    where: Basins,
) -> list[Check]:
    """The lines of tier A; ``invariants`` are (chain, draw) numbers that labels cannot change."""
    return [
        *same_target(fit, post),
        _em_status(fit),
        _stationary(shape),
        _definite(shape),
        *_chains(invariants, post),
        _membership(where, post),
        *_transitions(post),
        *_weights(post),
        *_coverage(where.table, post),
    ]


# -- the point ---------------------------------------------------------------------------


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


def _chains(invariants: Mapping[str, np.ndarray], post: Posterior) -> list[Check]:
    names = (R_HAT, *ESS.values())
    if post.log_weights is not None:
        return [not_applicable(name, "draws are independent, not chains") for name in names]
    judged = pd.DataFrame({name: health(draws) for name, draws in invariants.items()}).T
    lines = [_mixing(judged["r_hat"], post)]
    for kind, name in ESS.items():
        ess = float(judged[f"ess_{kind}"].min())
        verdict = OK if ess >= _LEAST_ESS else FAIL
        use = f"effective draws for {_ESS_USE[kind]}"
        lines.append(Check(name, ess, f">= {_LEAST_ESS}", verdict, use))
    return lines


_ESS_USE = {"bulk": "means", "tail": "interval ends"}


def _mixing(r_hat: pd.Series, post: Posterior) -> Check:
    largest = float(r_hat.max())
    ok = largest <= _MOST_R_HAT
    meaning = f"chains {'agree' if ok else 'disagree'} on what labels cannot change"
    if post.n_chains < 2:
        meaning = NEEDS_CHAINS
    elif np.isnan(largest):
        meaning = "the draws do not move"
    elif not ok:
        meaning += f": {r_hat.idxmax()}"
    return Check(R_HAT, largest, f"<= {_MOST_R_HAT}", OK if ok else FAIL, meaning)


NEEDS_CHAINS = "R-hat needs two chains"


def _membership(where: Basins, post: Posterior) -> Check:
    """Whether chains agree on where the mass is, which totals of mirrored modes do not tell."""
    if post.log_weights is not None:
        return not_applicable(MEMBERSHIP, "draws are independent, not chains")
    if post.n_chains < 2:
        return not_applicable(MEMBERSHIP, NEEDS_CHAINS)
    shares = where.table["share"]
    rows = shares.index[(shares >= 1 - NEARLY_ALL) & (shares <= NEARLY_ALL)]
    if rows.empty:
        return not_applicable(MEMBERSHIP, f"no two optima hold {1 - NEARLY_ALL:.0%} of the draws")
    reached = [(where.row_of == row).astype(float) for row in rows]
    stays = all(np.all(r == r[:, :1]) for r in reached)
    largest = np.inf if stays else float(np.nanmax([health(r)["r_hat"] for r in reached]))
    ok = largest <= _MOST_R_HAT_THINNED
    meaning = "chains agree on how much lies in each basin"
    if stays:
        meaning = "no chain moves between basins, so their shares are how chains were dealt out"
    elif not ok:
        meaning = "chains disagree on how much lies in each basin"
    return Check(MEMBERSHIP, largest, f"<= {_MOST_R_HAT_THINNED}", OK if ok else FAIL, meaning)


def _transitions(post: Posterior) -> list[Check]:
    """What only Hamiltonian trajectories record."""
    diverging, energy = (post.sample_stats.get(name) for name in ("diverging", "energy"))
    why = f"{post.method} has no trajectories"
    lines = [not_applicable(DIVERGENCES, why), not_applicable(ENERGY, why)]
    if diverging is not None and (energy is not None or np.any(diverging)):
        count, share = int(np.sum(diverging)), float(np.mean(diverging))
        verdict = OK if count == 0 else WARNING if share <= _MOST_DIVERGING else FAIL
        meaning = "no divergent transition" if count == 0 else "strongly curved regions are missed"
        if count and energy is None:
            # Particles come everywhere from the prior by their weights; what is left out is a move.
            verdict = WARNING
            meaning = "moves of particles that were refused, no bias where populations agree"
        lines[0] = Check(DIVERGENCES, count, "0", verdict, meaning)
    if energy is not None:
        bfmi = float(np.min(array_stats.bfmi(np.asarray(energy, np.float64))))
        ok = bfmi >= _LEAST_BFMI
        meaning = "energy is explored" if ok else "energy is explored too slowly"
        threshold = f">= {_LEAST_BFMI}"
        lines[1] = Check(ENERGY, bfmi, threshold, OK if ok else FAIL, meaning)
    return lines


def _weights(post: Posterior) -> list[Check]:
    """What only approximations have: weights, and their own convergence."""
    names = (PARETO_K, WEIGHTS, CONVERGENCE)
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
    converged = bool(post.diagnostics.get("converged", False))
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


def _coverage(basins: pd.DataFrame, post: Posterior) -> list[Check]:
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
    new = optima[(optima["found_by_restarts"] == 0) & (optima["visited"] > 0)]
    return [
        Check(SHARE, share, ">= 0.5", OK if share >= 0.5 else WARNING, meaning),
        Check(
            HIGHER,
            float(max(higher, 0)),
            f"<= {SAME_OPTIMUM:g}",
            FAIL if above else OK,
            "a higher one is known" if above else "none higher is known",
        ),
        *_unseen(basins, post),
        Check(
            "optima of draws without a restart",
            len(new),
            "0",
            WARNING if len(new) else OK,
            f"restarts missed optima that {new['share'].sum():.1%} of the draws lead to"
            if len(new)
            else "restarts found all that draws lead to",
        ),
    ]


def _unseen(basins: pd.DataFrame, post: Posterior) -> list[Check]:
    """Lines on the optima that no draw leads to: how many, and what they hold."""
    without = unseen(basins)
    mass, unknown = float(without["laplace_share"].sum()), without["laplace_share"].isna().any()
    doubt = len(weighty(without)) > 0
    missed = "an approximation around one mode cannot see others"
    if post.log_weights is None:
        missed = "the sampler may have missed them; chains that start there would tell"
    verdict = FAIL if mass > _MOST_MISSED else WARNING if doubt else OK
    holds = "what no draw reached holds next to nothing"
    if unknown:
        holds = "some are no maximum that a Gaussian fits: what they hold is not known"
    elif verdict == WARNING:
        holds = "the draws describe the rest of the posterior"
    elif verdict == FAIL:
        holds = "the draws are not those of this posterior"
    return [
        Check(
            "optima of restarts without a draw",
            len(without),
            "0 in reach",
            WARNING if doubt else OK,
            missed if doubt else "none that holds anything to speak of",
        ),
        Check(MISSED, mass, f"<= {_MOST_MISSED:g}", verdict, holds),
    ]
