"""Tier B: how far the mode, its curvature and its partition describe the posterior."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import chi2

from jaxgmm.bayes import Posterior, quantiles
from jaxgmm.em import Fit
from jaxgmm.report._draws import MOST_AMBIGUOUS, Seen, ambiguous_labels, pairs_of
from jaxgmm.report.verdict._approximations import LAPLACE_DRAWS, Approximations
from jaxgmm.report.verdict._check import OK, WARNING, Check, not_applicable
from jaxgmm.report.verdict._decide import MOST_PARETO_K

# The labels that are drawn come from one seed: equal arguments, equal verdicts.
_SEED = 0

_MOST_Z = 2.0
_LEAST_INSIDE = 0.9
_MOST_RATIO = 1.25
_MOST_SANDWICH = 2.0
_MOST_WASSERSTEIN = 0.25
_MOST_CO_CLUSTERING = 0.05
_LEAST_RAND = 0.9

LABELS = "draws with ambiguous labels"
INSIDE = "quantities with the MAP inside their 95% interval"
Z = "largest |z| of the MAP"
GAUSSIAN = "Pareto k of the Gaussian at the mode"
MARGINALS = "largest Wasserstein distance to Laplace (sd)"
ERRORS = "posterior sd / standard error, farthest from 1"
TOGETHER = "co-clustering, mean difference from EM's"
RAND = "expected adjusted Rand index of EM's partition"
SPREAD_K = "largest Pareto k of an sd"


def explain(
    fit: Fit, post: Posterior, near: Approximations, table: pd.DataFrame, seen: Seen
) -> list[Check]:
    """The lines of tier B."""
    return [
        _labels(fit, post, seen),
        _spreads(table, post),
        _laplace(near),
        _inside(parameters(table, post)),
        _z(parameters(table, post)),
        _gap(fit, post, near),
        *_errors(table, near),
        _wasserstein(table, near),
        *_clusterings(seen),
    ]


def _line(name: str, value: float, ok: bool, threshold: str, good: str, bad: str) -> Check:
    """A line that explains: it warns, it never decides."""
    return Check(name, value, threshold, OK if ok else WARNING, good if ok else bad)


def _labels(fit: Fit, post: Posterior, seen: Seen) -> Check:
    """How clear the labels of draws are as they stand, whatever rule matched them."""
    if fit.model.n_components == 1:
        return not_applicable(LABELS, "one component has one label")
    share = ambiguous_labels(seen, fit.model.label_groups)
    return _line(
        LABELS,
        share,
        share <= MOST_AMBIGUOUS,
        f"<= {MOST_AMBIGUOUS}",
        "each draw is clear about which component is which",
        post.label_note or "other labels suit them as well",
    )


def _spreads(table: pd.DataFrame, post: Posterior) -> Check:
    """A square has a heavier tail than the weights: good weights may misjudge a spread."""
    k = table["pareto_k"].astype(float)
    if k.isna().all():
        weighted = post.log_weights is not None
        why = "too few draws" if weighted else "draws of the posterior itself"
        return not_applicable(SPREAD_K, why)
    worst, many = k.idxmax(), int(np.sum(k > MOST_PARETO_K))
    return _line(
        SPREAD_K,
        float(k[worst]),
        many == 0,
        f"<= {MOST_PARETO_K}",
        "the weights can tell every sd",
        f"the weights cannot tell the sd of {many} of {len(k)} quantities, {worst} the worst: it "
        "may be too small; sample it",
    )


def _laplace(near: Approximations) -> Check:
    if near.laplace is None or near.laplace.pareto_k is None:
        return not_applicable(GAUSSIAN, near.why)
    k = near.laplace.pareto_k
    return _line(
        GAUSSIAN,
        k,
        k <= MOST_PARETO_K,
        f"<= {MOST_PARETO_K}",
        f"the posterior around the mode is nearly Gaussian ({LAPLACE_DRAWS} draws)",
        f"tails or modes that no Gaussian at the mode has ({LAPLACE_DRAWS} draws)",
    )


def parameters(table: pd.DataFrame, post: Posterior) -> pd.DataFrame:
    """The rows of what is estimated and varies over the draws.

    Sorted weights are none of it: where weights are equal the MAP is at the end of their range.
    """
    varying = table[table["z"].notna()]
    return varying.drop(index=list(post.invariants()), errors="ignore")


def _inside(rows: pd.DataFrame) -> Check:
    if rows.empty:
        return not_applicable(INSIDE, "no parameter varies over the draws")
    share = float(rows["inside_95"].astype(float).mean())
    return _line(
        INSIDE,
        share,
        share >= _LEAST_INSIDE,
        f">= {_LEAST_INSIDE}",
        "the mode is typical, one number at a time",
        "the mode is not where single numbers mostly are",
    )


def _z(rows: pd.DataFrame) -> Check:
    if rows.empty:
        return not_applicable(Z, "no parameter varies over the draws")
    z = rows["z"].astype(float)
    worst = z.abs().idxmax()
    size = float(abs(z[worst]))
    return _line(
        Z,
        size,
        size <= _MOST_Z,
        f"<= {_MOST_Z:g}",
        f"{worst}: the mode is within reach of the mean",
        f"{worst}: the mode is far from the mean",
    )


def _gap(fit: Fit, post: Posterior, near: Approximations) -> Check:
    """In a Gaussian, twice the gap is chi-square with as many degrees as parameters."""
    name = "median gap of the log joint below the fit"
    if near.information is None:
        return not_applicable(name, near.why)
    gap = float(quantiles(fit.log_joint - post.log_joint, [0.5], post.log_weights)[0])
    low, middle, high = chi2.ppf([0.25, 0.5, 0.75], fit.n_parameters) / 2
    return _line(
        name,
        gap,
        bool(low <= gap <= high),
        f"{low:.1f} .. {high:.1f}",
        f"as in a Gaussian of {fit.n_parameters} dimensions (chi-square / 2: {middle:.1f})",
        "draws lie "
        + ("lower" if gap > high else "higher")
        + f" than in a Gaussian of {fit.n_parameters} dimensions (chi-square / 2: {middle:.1f})",
    )


def _errors(table: pd.DataFrame, near: Approximations) -> list[Check]:
    names = (ERRORS, "sandwich / information error, farthest from 1")
    errors = table["standard_error"].astype(float)
    known = np.isfinite(errors) & (errors > 0) & (table["sd"] > 0)
    if near.information is None or not known.any():
        return [not_applicable(name, near.why or "no finite standard error") for name in names]
    ratios = (
        table["sd"][known] / errors[known],
        table["standard_error_sandwich"].astype(float)[known] / errors[known],
    )
    bounds = (_MOST_RATIO, _MOST_SANDWICH)
    words = (
        ("standard errors may stand for the posterior's spread", "the curvature misjudges it"),
        ("rows vary as the model says", "rows vary otherwise than the model says"),
    )
    lines = []
    for name, ratio, bound, (good, bad) in zip(names, ratios, bounds, words, strict=True):
        worst = np.log(np.maximum(ratio, 1e-300)).abs().idxmax()
        value = float(ratio[worst])
        ok = 1 / bound <= value <= bound
        threshold = f"{1 / bound:g} .. {bound:g}"
        lines.append(_line(name, value, ok, threshold, f"{worst}: {good}", f"{worst}: {bad}"))
    return lines


def _wasserstein(table: pd.DataFrame, near: Approximations) -> Check:
    distances = table["wasserstein"].astype(float)
    if near.laplace is None or distances.isna().all():
        return not_applicable(MARGINALS, near.why)
    worst = distances.idxmax()
    return _line(
        MARGINALS,
        float(distances[worst]),
        float(distances[worst]) <= _MOST_WASSERSTEIN,
        f"<= {_MOST_WASSERSTEIN}",
        f"{worst}: every marginal is close to that of the Gaussian",
        f"{worst}: this marginal is not that of the Gaussian at the mode",
    )


# -- partitions --------------------------------------------------------------------------


def _clusterings(seen: Seen) -> list[Check]:
    """EM's co-clustering and partition against those of draws, which need no labels."""
    copies = seen.copies
    difference = np.abs(pairs_of(seen.fit_probability[None]) - pairs_of(seen.probability))
    # A copy is with itself for sure, with another of its row as with any row.
    apart = float(copies @ difference @ copies - copies @ np.diag(difference)) / copies.sum() ** 2

    each = seen.each_copy
    partition = np.argmax(seen.fit_probability[each], axis=-1)
    uniform = np.random.default_rng(_SEED).random((len(seen.log_density), len(each)))
    rand = lambda probability: float(
        np.mean([adjusted_rand(partition, labels) for labels in drawn(probability, uniform)])
    )
    theirs, ours = seen.probability[:, each], seen.fit_probability[each]
    found, expected = rand(theirs), rand(ours)
    least = _LEAST_RAND * expected
    return [
        _line(
            TOGETHER,
            apart,
            apart <= _MOST_CO_CLUSTERING,
            f"<= {_MOST_CO_CLUSTERING}",
            f"EM puts the same rows together ({seen.size})",
            f"EM puts other rows together ({seen.size})",
        ),
        _line(
            RAND,
            found,
            found >= least,
            f">= {least:.2f}",
            f"EM itself expects {expected:.2f}",
            f"EM itself expects {expected:.2f}: its partition is one of several",
        ),
    ]


def drawn(probability: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Labels (S, n) by inversion of uniform numbers."""
    edges = np.cumsum(probability, axis=-1)[..., :-1]
    return np.sum(edges <= uniform[..., None], axis=-1)


def adjusted_rand(one: np.ndarray, other: np.ndarray) -> float:
    """Hubert and Arabie (1985): 1 for equal partitions, 0 expected of random ones."""
    k = int(max(one.max(), other.max())) + 1
    counts = np.bincount(one * k + other, minlength=k * k).reshape(k, k).astype(float)
    pairs = lambda n: float(np.sum(n * (n - 1)) / 2)
    both, ours, theirs = pairs(counts), pairs(counts.sum(1)), pairs(counts.sum(0))
    expected = ours * theirs / pairs(np.array([len(one)])) if len(one) > 1 else 0.0
    highest = (ours + theirs) / 2
    return 1.0 if highest == expected else (both - expected) / (highest - expected)
