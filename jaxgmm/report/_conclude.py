"""The verdict in words: what may be concluded, and what may not."""

from __future__ import annotations

import numpy as np
import pandas as pd

from jaxgmm._posterior import Posterior
from jaxgmm._results import Fit
from jaxgmm.report._check import FAIL, OK
from jaxgmm.report._curvature import Curvature
from jaxgmm.report._decide import HEALTH, HIGHER, PARETO_K, SAME_TARGET, directions
from jaxgmm.report._explain import ERRORS, GAUSSIAN, MARGINALS

# A basin with this share of the draws is the posterior, as far as they tell.
_NEARLY_ALL = 0.95


def point_kind(checks: pd.DataFrame, shape: Curvature) -> str:
    """What the fit is, in two words at most."""
    if not shape.stationary:
        return "stopped early"
    if shape.n_negative:
        return "saddle"
    if shape.n_flat:
        return "not identified"
    return "minor mode" if checks.loc[HIGHER, "verdict"] == FAIL else "mode"


def conclude(
    point: str,
    checks: pd.DataFrame,
    shape: Curvature,
    table: pd.DataFrame,
    basins: pd.DataFrame,
    fit: Fit,
    post: Posterior,
) -> tuple[bool, str]:
    """Whether anything may be concluded of the posterior, and the sentences that say what."""
    if checks.loc[SAME_TARGET, "verdict"] == FAIL:
        gap = checks.loc[SAME_TARGET, "value"]
        return False, (
            "No verdict: the fit and the posterior have different targets (their log densities "
            f"differ by {gap:.2g} relative), so the draws say nothing about this fit. "
            "Sample fit.model."
        )
    opening = _what_the_point_is(point, shape, basins, fit)
    failed = [name for name in HEALTH if checks.loc[name, "verdict"] == FAIL]
    if failed:
        return False, f"{opening} {_why_no_verdict(failed, checks)}"
    if point in ("stopped early", "saddle"):
        return True, (
            f"{opening} Intervals and z-scores refer to a point that is not the MAP: the tables "
            "describe the posterior, but nothing may be concluded from this fit."
        )
    if point == "not identified":
        return True, (
            f"{opening} Along the ridge the posterior only hands back the prior, so intervals and "
            "z-scores of single parameters say nothing about the fit; quantities that the data "
            "identify (the log likelihood, predictions) can be compared."
        )
    sentences = [opening, _where_the_mass_is(table, basins), _what_may_be_concluded(checks, basins)]
    if post.log_weights is not None:
        sentences.append(_what_an_approximation_hides(post, basins))
    return True, " ".join(sentences)


def _why_no_verdict(failed: list[str], checks: pd.DataFrame) -> str:
    reasons = "; ".join(
        f"{name} is {_number(checks.loc[name, 'value'])}, needs {checks.loc[name, 'threshold']}"
        for name in failed
    )
    if PARETO_K in failed:
        return (
            f"No verdict on the posterior: the approximation cannot be trusted ({reasons}). "
            'Sample it, with method="nuts" or "gibbs", before reading the tables below.'
        )
    if checks.loc[PARETO_K, "verdict"] == OK:
        return f"No verdict on the posterior: too few draws count ({reasons}). Draw more."
    return (
        f"No verdict on the posterior: the sampler did not converge ({reasons}). "
        "Draw more, or from more chains, before reading the tables below."
    )


def _what_the_point_is(point: str, shape: Curvature, basins: pd.DataFrame, fit: Fit) -> str:
    distance = f"Newton decrement {shape.newton_decrement:.1e} sd"
    if point == "stopped early":
        return (
            f"EM stopped before the mode: it is {shape.newton_decrement:.2g} posterior sd away in "
            f"the local quadratic ({fit.status.name.lower().replace('_', ' ')}); "
            "lower tol or raise max_iter."
        )
    if point == "saddle":
        return (
            f"EM stands at a saddle, not at a mode: the posterior density rises in "
            f"{directions(shape.n_negative)} ({distance}); start it elsewhere."
        )
    if point == "not identified":
        return (
            f"The parameters are not identified: {directions(shape.n_flat, 'flat ')} at EM's "
            f"answer, which is one point of a ridge of equally good ones ({distance})."
        )
    if point == "minor mode":
        highest = basins.loc[basins["log_joint"].idxmax()]
        found = int(highest["found_by_restarts"])
        whence = f"{found} restart(s) of it" if found else "draws, and no restart,"
        return (
            f"EM's answer is a minor mode of this posterior ({distance}): {whence} lead to an "
            f"optimum whose log joint is {highest['log_joint'] - fit.log_joint:.2f} higher"
            f"{_described(highest)}. Raise n_init."
        )
    bounded = (
        ""
        if fit.model.bounded()
        else " The joint density is unbounded elsewhere, so this is an interior local mode."
    )
    return f"EM's answer is a mode of this posterior ({distance}).{bounded}"


def _where_the_mass_is(table: pd.DataFrame, basins: pd.DataFrame) -> str:
    parameters = table[table["z"].notna()]
    first = basins.iloc[0]
    share = float(first["share"])
    inside = int(parameters["inside_95"].sum())
    z = parameters["z"].astype(float)
    worst = z.abs().idxmax()
    distances = (
        f"{inside} of {len(parameters)} quantities have the MAP inside their 95% interval; the "
        f"largest distance is {z[worst]:+.2f} sd ({worst})."
    )
    if share >= _NEARLY_ALL:
        opening = f"{share:.0%} of the posterior lies in its basin, so the two agree:"
        if inside < len(parameters) / 2 or abs(z[worst]) > 4:
            opening = (
                f"{share:.0%} of the posterior lies in its basin, "
                "yet the mode is not typical of it:"
            )
        return f"{opening} {distances}"
    heaviest = basins.iloc[int(basins["share"].to_numpy().argmax())]
    if share >= float(heaviest["share"]):
        among = f"the largest share of {int((basins['share'] > 0).sum())} optima"
        if share < 0.5:
            return (
                f"Only {_share(first)} of the posterior lies in its basin, {among}: one point "
                f"does not describe this posterior. {distances}"
            )
        return (
            f"{_share(first)} of the posterior lies in its basin, {among}: the point describes "
            f"where most of the posterior is, and nothing of the rest. {distances}"
        )
    level = "lower" if heaviest["log_joint"] < first["log_joint"] else "higher"
    reading = (
        ", so the highest mode is not where the mass is" if level == "lower" else " and most mass"
    )
    return (
        f"Only {_share(first)} of the posterior lies in its basin{_described(first)}; "
        f"{_share(heaviest)} lies in that of a {level} optimum (log joint "
        f"{heaviest['log_joint']:.2f} against {first['log_joint']:.2f}){_described(heaviest)}"
        f"{reading}. {distances}"
    )


def _share(basin: pd.Series) -> str:
    return f"{basin['share']:.0%} ({basin['share_low']:.0%} to {basin['share_high']:.0%})"


def _described(basin: pd.Series) -> str:
    """An optimum by its weights, where it has any."""
    weights = " ".join(f"{weight:.2f}" for weight in basin["weights"])
    return f", weights {weights}" if weights else ""


def _what_may_be_concluded(checks: pd.DataFrame, basins: pd.DataFrame) -> str:
    verdict = checks["verdict"]
    if float(basins["share"].iloc[0]) < _NEARLY_ALL:
        others = int(np.sum(basins["share"].iloc[1:] > 0))
        return (
            f"It may be concluded that this is one of {others + 1} optima that the posterior "
            "visits, and how much lies near it; not that its estimates, standard errors or "
            "partition stand for the posterior."
        )
    amiss = [name for name in (ERRORS, MARGINALS, GAUSSIAN) if verdict[name] != OK]
    if not amiss:
        return (
            "It may be concluded that EM's estimates and standard errors describe this posterior; "
            "not that the model is right, nor that the draws have seen every mode."
        )
    reasons = "; ".join(f"{name} {_number(checks.loc[name, 'value'])}" for name in amiss)
    return (
        "It may be concluded that EM's point is the mode around which the draws lie; not that its "
        f"standard errors are the posterior's spread ({reasons})."
    )


def _what_an_approximation_hides(post: Posterior, basins: pd.DataFrame) -> str:
    others = basins.iloc[1:]
    unseen = int(np.sum((others["found_by_restarts"] > 0) & (others["visited"] == 0)))
    elsewhere = f"; restarts found {unseen} other(s) without a draw" if unseen else ""
    return (
        f"The draws are those of an approximation ({post.method}), weighed: they cannot show "
        f"modes that it does not reach{elsewhere}."
    )


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
