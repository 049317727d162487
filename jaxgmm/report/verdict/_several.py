"""Several fits against several posteriors: a verdict for each pair, and a table across."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from jaxgmm.bayes import Posterior
from jaxgmm.em import Fit
from jaxgmm.report.verdict._decide import NEWTON, SHARE
from jaxgmm.report.verdict._explain import ERRORS, GAUSSIAN, MARGINALS, Z
from jaxgmm.report.verdict._predict import VARIATION
from jaxgmm.report.verdict._text import cell
from jaxgmm.report.verdict._verdict import Verdict

_COLUMNS = {
    "share": SHARE,
    "newton_decrement": NEWTON,
    "largest_z": Z,
    "sd_over_standard_error": ERRORS,
    "wasserstein": MARGINALS,
    "pareto_k_gaussian": GAUSSIAN,
    "total_variation": VARIATION,
}


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison:
    """Every fit judged by every posterior.

    Attributes
    ----------
    verdicts : dict
        A `Verdict` by the names of its fit and its posterior.
    """

    verdicts: dict[tuple[str, str], Verdict]

    @property
    def table(self) -> pd.DataFrame:
        """A row per pair.

        Columns: ``point`` (what the fit is), ``decided``, ``log_joint`` of the fit, ``failed``
        (names of the checks), and the values of the checks that pairs are compared by:
        ``share`` of the posterior in the fit's basin, ``newton_decrement``, ``largest_z``,
        ``sd_over_standard_error``, ``wasserstein``, ``pareto_k_gaussian`` and
        ``total_variation``; NaN where a check does not apply.
        """
        rows = {}
        for names, verdict in self.verdicts.items():
            checks = verdict.checks
            values = {name: checks.loc[check, "value"] for name, check in _COLUMNS.items()}
            rows[names] = {
                "point": verdict.point,
                "decided": verdict.decided,
                "log_joint": verdict.fit.log_joint,
                **{name: float("nan") if v is None else v for name, v in values.items()},
                "failed": "; ".join(checks.index[checks["verdict"] == "fail"]),
            }
        table = pd.DataFrame.from_dict(rows, orient="index")
        table.index = pd.MultiIndex.from_tuples(list(rows), names=["fit", "posterior"])
        return table

    def __getitem__(self, names: tuple[str, str]) -> Verdict:
        return self.verdicts[names]

    def __repr__(self) -> str:
        summaries = [f"{fit} / {post}: {v.summary}" for (fit, post), v in self.verdicts.items()]
        return "\n\n".join([self._shown().to_string(), *summaries])

    def _repr_html_(self) -> str:
        summaries = "".join(
            f"<p><b>{escape(fit)} / {escape(post)}</b>: {escape(verdict.summary)}</p>\n"
            for (fit, post), verdict in self.verdicts.items()
        )
        return f"{self._shown().to_html(border=0)}\n{summaries}"

    def _shown(self) -> pd.DataFrame:
        shown = self.table.map(cell)
        shown.columns = [name.replace("_", " ") for name in shown.columns]
        return shown

    def save(self, folder: str | Path) -> Path:
        """Write each verdict into a folder of its own.

        Parameters
        ----------
        folder : str or Path
            Made if it does not exist. The verdicts are numbered in the order of `table`.

        Returns
        -------
        Path
            The folder.
        """
        folder = Path(folder)
        for number, verdict in enumerate(self.verdicts.values(), 1):
            verdict.save(folder / str(number))
        return folder


def pairs(fits: Any, posts: Any) -> dict[tuple[str, str], tuple[Fit, Posterior]]:
    """Every fit with every posterior, by their names."""
    named_fits = _named(fits, Fit, lambda _: "fit")
    named_posts = _named(posts, Posterior, lambda post: post.method)
    return {
        (one, other): (named_fits[one], named_posts[other])
        for one, other in itertools.product(named_fits, named_posts)
    }


def _named(given: Any, kind: type, name_of: Any) -> dict[str, Any]:
    """What was given by name: its key, or a name of its own, numbered where there are several."""
    if isinstance(given, kind):
        given = [given]
    if isinstance(given, Mapping):
        named = {str(name): value for name, value in given.items()}
    elif isinstance(given, Sequence):
        values = [v for v in given if isinstance(v, kind)]
        names = [name_of(value) for value in values]
        numbers = [names[: i + 1].count(name) for i, name in enumerate(names)]
        unique = [
            f"{name} {number}" if names.count(name) > 1 else name
            for name, number in zip(names, numbers, strict=True)
        ]
        named = dict(zip(unique, values, strict=True)) if len(values) == len(given) else {"": None}
    else:
        named = {"": given}
    if not named:
        raise ValueError(f"compare: no {kind.__name__} was given")
    for value in named.values():
        if not isinstance(value, kind):
            raise TypeError(
                "compare: needs a Fit and a Posterior, or lists or dicts of them, found "
                f"{type(given).__name__} in the place of a {kind.__name__}"
            )
    return named
