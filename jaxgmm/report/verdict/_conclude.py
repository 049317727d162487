"""The verdict in words: what may be concluded, and what may not."""

from __future__ import annotations

import numpy as np
import pandas as pd

from jaxgmm.bayes import Posterior
from jaxgmm.em import SAME_OPTIMUM, Fit
from jaxgmm.report.verdict._basins import unseen, weighty
from jaxgmm.report.verdict._check import FAIL, NOT_APPLICABLE, OK, WARNING
from jaxgmm.report.verdict._conflict import CONFLICT
from jaxgmm.report.verdict._curvature import Curvature
from jaxgmm.report.verdict._decide import (
    CONVERGENCE,
    DIVERGENCES,
    ENERGY,
    HEALTH,
    HIGHER,
    MEMBERSHIP,
    MISSED,
    NEARLY_ALL,
    NEEDS_CHAINS,
    PARETO_K,
    WEIGHTS,
    directions,
)
from jaxgmm.report.verdict._explain import (
    ERRORS,
    GAUSSIAN,
    INSIDE,
    LABELS,
    MARGINALS,
    RAND,
    TOGETHER,
    Z,
    parameters,
)
from jaxgmm.report.verdict._misfit import ALONE, TAILS
from jaxgmm.report.verdict._predict import VARIATION
from jaxgmm.report.verdict._targets import SAME_MODEL, SAME_TARGET

# What may be concluded of EM's answer: each clause from the lines that measure it, and what is
# said where one of them warns.
CLAUSES = {
    "estimates": ((INSIDE, Z, LABELS), "its estimates are typical of it"),
    "standard errors": ((ERRORS,), "its standard errors are the posterior's spread"),
    "normal approximation": ((GAUSSIAN, MARGINALS), "the posterior is normal around it"),
    "partition": ((TOGETHER, RAND), "its partition is the posterior's"),
    "predictions": ((VARIATION,), "predictions from it are the posterior's"),
}
# Of single components: where labels are ambiguous, their lines measure how labels vary.
_BY_LABEL = ("standard errors", "normal approximation")
# The two agree where these do.
_AGREEMENT = ("estimates", "standard errors", "partition", "predictions")

_CAVEATS = "not that the model is right, nor that the draws have seen every mode"


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
    basins: pd.DataFrame,
    table: pd.DataFrame,
    fit: Fit,
    post: Posterior,
) -> tuple[bool, str]:
    """Whether anything may be concluded of the posterior, and the sentences that say what."""
    for name, unit in ((SAME_TARGET, "relative"), (SAME_MODEL, "nats")):
        if checks.loc[name, "verdict"] == FAIL:
            gap = checks.loc[name, "value"]
            return False, (
                "No verdict: the fit and the posterior have different targets (their log densities "
                f"differ by {gap:.2g} {unit}), so the draws say nothing about this fit. "
                "Sample fit.model."
            )
    opening = _what_the_point_is(point, shape, basins, fit)
    failed = [name for name in HEALTH if checks.loc[name, "verdict"] == FAIL]
    if failed:
        why = _why_no_verdict(failed, checks, basins, post)
        return False, " ".join(filter(None, [opening, why, _what_labels_mean(checks)]))
    if point in ("stopped early", "saddle"):
        return True, (
            f"{opening} Intervals and z-scores refer to a point that is not the MAP: the tables "
            f"describe the posterior, but nothing may be concluded from this fit; {_CAVEATS}."
        )
    if point == "not identified":
        return True, (
            f"{opening} Along the ridge the posterior only hands back the prior, so intervals and "
            "z-scores of single parameters say nothing about the fit; quantities that the data "
            f"identify (the log likelihood, predictions) can be compared; {_CAVEATS}."
        )
    sentences = [
        opening,
        _where_the_mass_is(point, checks, basins, parameters(table, post), fit),
        _what_may_be_concluded(checks, basins),
        _what_labels_mean(checks),
        _what_draws_hide(checks, basins, post),
        *_what_else_is_amiss(checks),
    ]
    return True, " ".join(filter(None, sentences))


# -- no verdict ---------------------------------------------------------------------------


def _why_no_verdict(
    failed: list[str], checks: pd.DataFrame, basins: pd.DataFrame, post: Posterior
) -> str:
    reasons = [_reason(name, checks) for name in failed if name != MISSED]
    causes = []
    if MISSED in failed:
        causes.append(_where_no_draw_is(basins, post))
    if reasons:
        what = "the sampler did not converge"
        if PARETO_K in failed:
            what = "the approximation cannot be trusted"
        elif post.log_weights is not None:
            what = "too few draws count"
        causes.append(f"{what} ({'; '.join(reasons)})")
    return f"No verdict on the posterior: {'; '.join(causes)}. {_cure(failed, post)}"


def _reason(name: str, checks: pd.DataFrame) -> str:
    line = checks.loc[name]
    if line["meaning"] == NEEDS_CHAINS:
        return f"{name}: {NEEDS_CHAINS}"
    why = f": {line['meaning']}" if name == MEMBERSHIP else ""
    return f"{name} is {_number(line['value'])}, needs {line['threshold']}{why}"


def _where_no_draw_is(basins: pd.DataFrame, post: Posterior) -> str:
    """The heaviest optimum without a draw, held against the highest that has some."""
    without, reached = unseen(basins), basins[basins["visited"] > 0]
    missed = without.loc[without["laplace_share"].idxmax()]
    above = missed["log_joint"] - reached["log_joint"].max()
    found = int(missed["found_by_restarts"])
    name = "EM's optimum" if missed.name == 0 else f"the optimum of {found} restart(s)"
    height = "" if np.isnan(above) else f", {abs(above):.2f} {'higher' if above > 0 else 'lower'}"
    others = len(weighty(without)) - 1
    more = f" (and {others} more, {_missed(without.drop(missed.name))})" if others else ""
    why = "the chains did not move between modes"
    if post.log_weights is not None:
        why = "an approximation around one mode does not see the others"
    share = f"about {_percent(missed['laplace_share'])} by its Laplace evidence"
    return f"no draw reached {name}{height}, which holds {share}{more}: {why}"


def _missed(without: pd.DataFrame) -> str:
    """What optima without a draw hold."""
    if without["laplace_share"].isna().any():
        return "an unknown share"
    return f"about {_percent(without['laplace_share'].sum())}"


def _cure(failed: list[str], post: Posterior) -> str:
    """What to do about it: the deepest cause first; more draws where nothing else is amiss."""
    if PARETO_K in failed:
        return 'Sample it, with method="nuts" or "gibbs", before reading the tables below.'
    cures = []
    if {MISSED, MEMBERSHIP} & set(failed):
        cures.append(
            "More draws are no cure for chains in separated modes: start some at every optimum, or "
            'use method="smc", which moves between them.'
        )
    if DIVERGENCES in failed:
        cures.append(
            "Divergent transitions ask for a higher target_acceptance and n_warmup, not for more "
            "draws."
        )
    if ENERGY in failed:
        cures.append("Slow energy asks for a higher n_warmup and a tighter prior.")
    if cures:
        return " ".join(cures)
    if WEIGHTS in failed:
        return "Draw more."
    if post.method == "smc":
        return "Take more particles (n_draws) and more moves of each (n_moves)."
    if post.n_chains < 2:
        return "Draw two chains or more before reading the tables below."
    return "Draw more, or from more chains, before reading the tables below."


# -- the point ----------------------------------------------------------------------------


def _what_the_point_is(point: str, shape: Curvature, basins: pd.DataFrame, fit: Fit) -> str:
    distance = f"Newton decrement {shape.newton_decrement:.1e} sd"
    if point == "stopped early":
        where = f"it is {shape.newton_decrement:.2g} posterior sd away in the local quadratic"
        if shape.n_negative:
            rising = directions(shape.n_negative)
            where = f"where it stands the density still rises in {rising}, as at no mode"
        rise = max(0.0, basins["log_joint"].iloc[0] - fit.log_joint)
        return (
            f"EM stopped before the mode: {where}; going on from there leads {rise:.2f} higher "
            f"({fit.status.name.lower().replace('_', ' ')}): lower tol or raise max_iter."
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


# -- the posterior ------------------------------------------------------------------------


def _where_the_mass_is(
    point: str, checks: pd.DataFrame, basins: pd.DataFrame, rows: pd.DataFrame, fit: Fit
) -> str:
    first, share = basins.iloc[0], float(basins["share"].iloc[0])
    distances = _distances(rows)
    if share >= NEARLY_ALL:
        amiss = [what for what in _AGREEMENT if _holds(what, checks) is False]
        ending = ":"
        if _ambiguous(checks):
            ending = ", yet the draws do not agree on labels:"
        elif "estimates" in amiss:
            ending = ", yet the mode is not typical of it:"
        elif amiss:
            ending = f", yet EM's {_listed(amiss)} are not the posterior's:"
        elif point == "mode" and all(_holds(what, checks) for what in _AGREEMENT):
            alone = fit.model.n_components > 1 and len(fit.restarts.status) == 1
            ending = f", so the two agree{' as far as one start of EM can tell' * alone}:"
        return f"{share:.0%} of the posterior lies in its basin{ending} {distances}"
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
    above = heaviest["log_joint"] - first["log_joint"]
    level, reading = "a higher", " and most mass"
    if abs(above) <= SAME_OPTIMUM:
        level, reading = "an equally high", ""
    elif above < 0:
        level, reading = "a lower", ", so the highest mode is not where the mass is"
    return (
        f"Only {_share(first)} of the posterior lies in its basin{_described(first)}; "
        f"{_share(heaviest)} lies in that of {level} optimum (log joint "
        f"{heaviest['log_joint']:.2f} against {first['log_joint']:.2f}){_described(heaviest)}"
        f"{reading}. {distances}"
    )


def _distances(rows: pd.DataFrame) -> str:
    """How far the MAP is from the draws, one number at a time."""
    if rows.empty:
        return "no parameter varies over the draws."
    z = rows["z"].astype(float)
    worst = z.abs().idxmax()
    return (
        f"{int(rows['inside_95'].sum())} of {len(rows)} quantities have the MAP inside their 95% "
        f"interval; the largest distance is {z[worst]:+.2f} sd ({worst})."
    )


def _share(basin: pd.Series) -> str:
    return f"{basin['share']:.0%} ({basin['share_low']:.0%} to {basin['share_high']:.0%})"


def _described(basin: pd.Series) -> str:
    """An optimum by its weights, where it has any."""
    weights = " ".join(f"{weight:.2f}" for weight in basin["weights"])
    return f", weights {weights}" if weights else ""


def _holds(what: str, checks: pd.DataFrame) -> bool | None:
    """Whether all lines that measure a clause are ok; None where none of them can tell."""
    if what in _BY_LABEL and _ambiguous(checks):
        return None
    verdicts = checks.loc[list(CLAUSES[what][0]), "verdict"]
    verdicts = verdicts[verdicts != NOT_APPLICABLE]
    return None if verdicts.empty else bool((verdicts == OK).all())


def _what_may_be_concluded(checks: pd.DataFrame, basins: pd.DataFrame) -> str:
    if float(basins["share"].iloc[0]) < NEARLY_ALL:
        visited = int(np.sum(basins["share"] > 0))
        said = "no draw leads to it"
        if basins["share"].iloc[0] > 0:
            said = f"this is one of {visited} optima that the posterior visits, "
            said += "and how much lies near it"
        return (
            f"It may be concluded that {said}; not that its estimates, standard errors or "
            f"partition stand for the posterior, {_CAVEATS}."
        )
    holds = {what: _holds(what, checks) for what in CLAUSES}
    good = [what for what, is_so in holds.items() if is_so]
    refused = [
        f"not that {CLAUSES[what][1]} ({_reasons(what, checks)}), "
        for what, is_so in holds.items()
        if is_so is False
    ]
    if not refused:
        said = f"EM's {_listed(good)} describe this posterior"
    else:
        said = "EM's point is the mode around which the draws lie"
        said += f", and that its {_listed(good)} will do" if good else ""
    return f"It may be concluded that {said}; {''.join(refused)}{_CAVEATS}."


def _reasons(what: str, checks: pd.DataFrame) -> str:
    """The lines of a clause that warn, with their values."""
    lines = checks.loc[list(CLAUSES[what][0])]
    lines = lines[~lines["verdict"].isin([OK, NOT_APPLICABLE])]
    return "; ".join(f"{name}: {_number(value)}" for name, value in lines["value"].items())


def _ambiguous(checks: pd.DataFrame) -> bool:
    return checks.loc[LABELS, "verdict"] not in (OK, NOT_APPLICABLE)


def _what_labels_mean(checks: pd.DataFrame) -> str:
    if not _ambiguous(checks):
        return ""
    line = checks.loc[LABELS]
    return (
        f"Labels are ambiguous: {line['value']:.0%} of the draws could as well carry others, so "
        "numbers of single components (marked in the table) depend on the rule that matched "
        "labels; totals, partitions and predictions do not."
    )


def _what_draws_hide(checks: pd.DataFrame, basins: pd.DataFrame, post: Posterior) -> str:
    without, sentences = unseen(basins), []
    approximate = post.log_weights is not None
    if approximate:
        elsewhere = len(without[without["found_by_restarts"] > 0])
        more = f"; restarts found {elsewhere} other(s) without a draw" if elsewhere else ""
        sentences.append(
            f"The draws are those of an approximation ({post.method}), weighed: they cannot show "
            f"modes that it does not reach{more}."
        )
        if checks.loc[CONVERGENCE, "verdict"] != OK:
            sentences.append(f"Its convergence: {checks.loc[CONVERGENCE, 'meaning']}.")
    near = weighty(without)
    if len(near):
        one = len(near) == 1
        count = "one optimum" if one else f"{len(near)} optima"
        by = "" if near["laplace_share"].isna().any() else " by Laplace's evidence"
        sentences.append(
            f"No draw reached {count} of the restarts, which hold{'s' * one} {_missed(near)}{by}."
        )
    return " ".join(sentences)


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _percent(share: float) -> str:
    """To a tenth of a per cent, and never all of it."""
    return f"{min(share, 0.999):.1%}"


def _what_else_is_amiss(checks: pd.DataFrame) -> list[str]:
    """A prior or a model that does not suit the data: a sentence each."""
    said = [checks.loc[name] for name in (CONFLICT, TAILS, ALONE)]
    return [
        f"{line['meaning'][0].upper()}{line['meaning'][1:]}."
        for line in said
        if line["verdict"] == WARNING
    ]


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
