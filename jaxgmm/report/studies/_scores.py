"""What N data sets say of each method: tables with their Monte-Carlo errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from jaxgmm._contract import LatentModel
from jaxgmm.report.studies._asked import picked
from jaxgmm.report.studies._batches import Record
from jaxgmm.report.studies._case import End
from jaxgmm.report.studies._methods import Outcome
from jaxgmm.report.studies._quantities import Quantities

# How often a study of methods that keep all their promises may call one of them wrong.
FALSE_ALARM = 0.01
RATIO = "standard error / spread"

# Methods whose time is that of the search as well.
_POINTS = ("em", "em-sandwich")

# Data sets below which a share says nothing.
_FEWEST = 20


class Scores(NamedTuple):
    """The frames of `Study`, which describes them."""

    table: pd.DataFrame
    coverage: pd.DataFrame
    groups: pd.DataFrame
    failures: pd.DataFrame
    scores: pd.DataFrame
    findings: pd.DataFrame


def scores(
    record: Record, wanted: Quantities, truth: np.ndarray, levels: tuple[float, ...]
) -> Scores:
    """All frames of a study; ``truth`` has the true values of the quantities."""
    table = pd.DataFrame(_parameter_rows(record, wanted, truth)).set_index(["method", "quantity"])
    coverage = pd.DataFrame(_coverage_rows(record, wanted, truth, levels))
    coverage = coverage.set_index(["method", "quantity", "level"])
    groups = pd.DataFrame(_group_rows(record, wanted, truth, levels))
    return Scores(
        table,
        coverage,
        groups.set_index(["method", "group"]),
        _failures(record),
        _scores(record),
        _findings(table, coverage),
    )


def usable(outcome: Outcome, wanted: Quantities) -> np.ndarray:
    """(N, Q) where a quantity may be used: ambiguous labels leave what belongs to none."""
    end = np.asarray(outcome.end)[:, None]
    return (end == End.USED) | ((end == End.UNMATCHED) & [q.invariant for q in wanted])


def _each(record: Record, wanted: Quantities) -> Iterator[tuple[str, Outcome, int, np.ndarray]]:
    """Each method, each quantity, and the data sets where it may be used."""
    for name, outcome in record.outcomes.items():
        kept = usable(outcome, wanted)
        for j in range(len(wanted)):
            yield name, outcome, j, kept[:, j]


def _parameter_rows(
    record: Record, wanted: Quantities, truth: np.ndarray
) -> Iterator[dict[str, object]]:
    for name, outcome, j, kept in _each(record, wanted):
        estimate = outcome.estimate[kept, j]
        squares = outcome.standard_error[kept, j] ** 2
        apart = estimate - truth[j]
        bias, bias_error = _mean(apart)
        mean_square, square_error = _mean(apart**2)
        variance, mean_variance = _mean(_centred(estimate) ** 2)[0], _mean(squares)[0]
        rmse, ratio = np.sqrt(mean_square), np.sqrt(mean_variance / variance)
        # The delta method for the root of a ratio of two means.
        influence = (squares / mean_variance - _centred(estimate) ** 2 / variance) / 2
        yield {
            "method": name,
            "quantity": wanted[j].label,
            "truth": truth[j],
            "n_used": int(kept.sum()),
            "bias": bias,
            "bias_error": bias_error,
            "rmse": rmse,
            "rmse_error": square_error / (2 * rmse) if rmse > 0 else np.nan,
            "spread": np.sqrt(variance),
            "standard_error": np.sqrt(mean_variance),
            "ratio": ratio,
            "ratio_error": ratio * _mean(influence)[1],
            "invariant": wanted[j].invariant,
        }


def _coverage_rows(
    record: Record, wanted: Quantities, truth: np.ndarray, levels: tuple[float, ...]
) -> Iterator[dict[str, object]]:
    for name, outcome, j, kept in _each(record, wanted):
        for i, level in enumerate(levels):
            low, high = outcome.low[kept, i, j], outcome.high[kept, i, j]
            covered, count = _mean((low <= truth[j]) & (truth[j] <= high))[0], int(kept.sum())
            width, width_error = _mean(high - low)
            yield {
                "method": name,
                "quantity": wanted[j].label,
                "level": level,
                "coverage": covered,
                "error": share_error(covered, count),
                "width": width,
                "width_error": width_error,
                "n_used": count,
            }


def _group_rows(
    record: Record, wanted: Quantities, truth: np.ndarray, levels: tuple[float, ...]
) -> Iterator[dict[str, object]]:
    """Coverage on average over the quantities of each site; the data sets are the sample."""
    for name, outcome in record.outcomes.items():
        kept = usable(outcome, wanted)
        for group in dict.fromkeys(q.site for q in wanted):
            own = np.array([q.site == group for q in wanted])
            rows = kept[:, own].all(axis=1)
            inside = (outcome.low <= truth) & (truth <= outcome.high)
            row: dict[str, object] = {"method": name, "group": group, "n_used": int(rows.sum())}
            for i, level in enumerate(levels):
                mean, error = _mean(inside[rows, i][:, own].mean(axis=1))
                # Where all or none are inside, their spread is no measure.
                error = error or share_error(mean, int(rows.sum()))
                row |= {f"coverage_{level:g}": mean, f"error_{level:g}": error}
            yield row


def _failures(record: Record) -> pd.DataFrame:
    rows = {}
    for name, outcome in record.outcomes.items():
        counts = {end.words: int(np.sum(outcome.end == end)) for end in End}
        rows[name] = counts | {
            "missed": int(record.missed.sum()),
            "elsewhere": int(record.elsewhere.sum()),
        }
    return pd.DataFrame(rows).T.rename_axis("method")


def _scores(record: Record) -> pd.DataFrame:
    rows = []
    seconds = {name: float(np.median(each)) for name, each in record.seconds.items()}
    for name in seconds.keys() & set(_POINTS):
        seconds[name] += seconds["search"]
    everything = [("truth", record.log_density, record.adjusted_rand)]
    everything += [(n, o.log_density, o.adjusted_rand) for n, o in record.outcomes.items()]
    for name, density, rand in everything:
        known = np.isfinite(density)
        short, short_error = _mean((record.log_density - density)[known])
        rows.append(
            {
                "method": name,
                "log_density": _mean(density[known])[0],
                "below_truth": short,
                "below_truth_error": short_error,
                "adjusted_rand": _mean(rand[known])[0],
                "adjusted_rand_error": _mean(rand[known])[1],
                "seconds": seconds.get(name, np.nan),
            }
        )
    return pd.DataFrame(rows).set_index("method")


def _findings(table: pd.DataFrame, coverage: pd.DataFrame) -> pd.DataFrame:
    """What is not as promised beyond Monte-Carlo error, the worst first.

    Bonferroni's bound over all comparisons, so that a study of right methods has a row once in a
    hundred.
    """
    found = []
    for (method, quantity, level), row in coverage.iterrows():
        if row["n_used"] >= _FEWEST:
            z = (row["coverage"] - level) / np.sqrt(level * (1 - level) / row["n_used"])
            what = f"coverage of {100 * level:g}% intervals"
            found.append((method, quantity, what, row["coverage"], level, z))
    for (method, quantity), row in table.iterrows():
        if row["n_used"] >= _FEWEST:
            # Ratios are symmetric on the scale of logarithms.
            z = np.log(row["ratio"]) / (row["ratio_error"] / row["ratio"])
            found.append((method, quantity, RATIO, row["ratio"], 1.0, z))
    frame = pd.DataFrame(found, columns=["method", "quantity", "what", "found", "promised", "z"])
    beyond = norm.isf(FALSE_ALARM / 2 / max(1, len(frame)))
    frame = frame[np.abs(frame["z"]) > beyond]
    return frame.sort_values("z", key=np.abs, ascending=False, ignore_index=True)


def selection(
    values: dict[str, np.ndarray], models: tuple[LatentModel, ...], right: list[bool]
) -> pd.DataFrame:
    """A row for each criterion and model; ``values`` are (N, M) by criterion."""
    rows, names = [], [repr(model) for model in models]
    # Names that several have, such as models that differ in numbers of their prior.
    names = [f"{n} (select[{i}])" if names.count(n) > 1 else n for i, n in enumerate(names)]
    for name, of in values.items():
        best = picked(name, of)
        best = best[best >= 0]
        for i, model in enumerate(names):
            share = float(np.mean(best == i)) if len(best) else np.nan
            rows.append(
                {
                    "criterion": name,
                    "model": model,
                    "picked": share,
                    "error": share_error(share, len(best)),
                    "truth": right[i],
                    "no_fit": int(np.sum(np.isinf(of[:, i]))),
                    "n_used": len(best),
                }
            )
    columns = ["criterion", "model", "picked", "error", "truth", "no_fit", "n_used"]
    return pd.DataFrame(rows, columns=columns).set_index(["criterion", "model"])


def share_error(share: float, count: int) -> float:
    """Standard error of a share by Agresti and Coull (1998): not zero at none or all."""
    if count == 0:
        return np.nan
    shrunk = (share * count + 2) / (count + 4)
    return float(np.sqrt(shrunk * (1 - shrunk) / (count + 4)))


def _mean(values: Any) -> tuple[float, float]:
    """The mean and its standard error."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return (float(values[0]) if len(values) else np.nan), np.nan
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def _centred(values: Any) -> np.ndarray:
    """With a variance, divided by n, that is the unbiased one."""
    values = np.asarray(values, float)
    count = len(values)
    return (values - values.mean()) * np.sqrt(count / max(count - 1, 1)) if count else values
