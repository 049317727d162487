"""The verdict as a noun, with the ways to read it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jaxgmm import files
from jaxgmm.files import stored
from jaxgmm.report.verdict._findings import Findings
from jaxgmm.report.verdict._report import notebook
from jaxgmm.report.verdict._save import save
from jaxgmm.report.verdict._text import details_text, verdict_text


@stored
@dataclasses.dataclass(frozen=True, repr=False)
class Verdict(Findings):
    """What the posterior says of the fit.

    Attributes
    ----------
    summary : str
        The conclusion in plain sentences.
    decided : bool
        False where the sampler did not converge or missed an optimum that holds much of the
        posterior, so that no conclusion is drawn.
    checks : DataFrame
        A row per check: ``tier`` (A decides, B explains, C is context), ``value``,
        ``threshold``, ``verdict`` ("ok", "warning", "fail" or "not applicable") and
        ``meaning``.
    table : DataFrame
        A row per quantity, label-invariant ones first, then every parameter: MAP,
        posterior mean, sd, 89% and 95% intervals, z, inside or not, R-hat, effective draws;
        EM's standard errors by the information and the sandwich, and the Wasserstein
        distance to Laplace's approximation in posterior sd, NaN where there is none; whether
        it belongs to single components whose labels are ``ambiguous``. What is constant over
        the draws has neither intervals nor z. Of weighted draws ``pareto_k``: above 0.7 the sd is
        too small.
    basins : DataFrame
        Share of the posterior in the basin of each optimum, the fit's first:
        ``share``, ``log_joint``, ``found_by_restarts``, ``visited`` (draws), ``share_low``
        and ``share_high`` (a 95% interval of Monte-Carlo error; chains that do not move
        between optima count as one observation each), ``weights`` (sorted), ``laplace_share``
        (of the mass of all optima by `jaxgmm.bayes.mode_evidence`, corrected by importance
        sampling where no draw visits one that matters; NaN where it is not known).
        Draws from which EM did not converge make up a last row without a log joint.
    fit : Fit
        What was judged.
    posterior : Posterior
        By what, its labels renamed as one where they were not those of the fit.
    point : str
        What the fit is: "mode", "minor mode", "saddle", "stopped early" or "not identified".
    """

    def __repr__(self) -> str:
        return verdict_text(self)

    def details(self) -> str:
        """All that the verdict says, as text: every check, the basins, a row per parameter.

        `print` of the verdict itself is one screen: the conclusion, the checks that are not ok,
        and the basins.
        """
        return details_text(self)

    def _repr_html_(self) -> str:
        return notebook(self)

    def save(self, folder: str | Path) -> Path:
        """Write the report, the figures and the draws; or one file, which `jaxgmm.load` reads.

        ``report.html`` is self-contained, ``report.md`` shows the figures beside it,
        ``report.json`` has every table and number at full precision, and ``posterior.nc``
        the draws as ArviZ reads them.

        Parameters
        ----------
        folder : str or Path
            Made if it does not exist; files of the same names are replaced. A name that ends in
            ``.npz`` is that of the one file.

        Returns
        -------
        Path
            The page, or the file.
        """
        if Path(folder).suffix == ".npz":
            return files.save(self, folder)
        return save(self, Path(folder))
