"""`compare`: is EM's answer a mode of this posterior, which one, and can the draws tell."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import overload

import jax
import pandas as pd

from jaxgmm import files
from jaxgmm.bayes import Posterior
from jaxgmm.em import Fit, check_precision
from jaxgmm.files import stored
from jaxgmm.report._approximations import approximations
from jaxgmm.report._basins import basins
from jaxgmm.report._check import check_table
from jaxgmm.report._conclude import conclude, point_kind
from jaxgmm.report._curvature import curvature
from jaxgmm.report._decide import decide
from jaxgmm.report._draws import (
    MOST_AMBIGUOUS,
    aligned,
    ambiguous_labels,
    invariants,
    look_at_data,
)
from jaxgmm.report._explain import explain
from jaxgmm.report._predict import predict
from jaxgmm.report._several import Comparison, pairs
from jaxgmm.report._tables import moved_table, parameter_table
from jaxgmm.report._targets import alike

# What is drawn for the verdict comes from one seed: equal arguments, equal verdicts.
_SEED = 0


@stored
@dataclasses.dataclass(frozen=True, repr=False)
class Verdict:
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

    summary: str
    decided: bool
    checks: pd.DataFrame
    table: pd.DataFrame
    basins: pd.DataFrame
    fit: Fit
    posterior: Posterior
    point: str = ""

    def __repr__(self) -> str:
        from jaxgmm.report._text import verdict_text

        return verdict_text(self)

    def details(self) -> str:
        """All that the verdict says, as text: every check, the basins, a row per parameter.

        `print` of the verdict itself is one screen: the conclusion, the checks that are not ok,
        and the basins.
        """
        from jaxgmm.report._text import details_text

        return details_text(self)

    def _repr_html_(self) -> str:
        from jaxgmm.report._report import notebook

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
        from jaxgmm.report._save import save

        return save(self, Path(folder))


# One of them, or several in a list or by name.
Fits = Fit | Sequence[Fit] | Mapping[str, Fit]
Posteriors = Posterior | Sequence[Posterior] | Mapping[str, Posterior]


@overload
def compare(fit: Fit, post: Posterior) -> Verdict: ...


@overload
def compare(fit: Fits, post: Posteriors) -> Verdict | Comparison: ...


def compare(fit: Fits, post: Posteriors) -> Verdict | Comparison:
    """Judge a point fit by a posterior of the same model and data.

    Parameters
    ----------
    fit : Fit, or several in a list or dict
        From `jaxgmm.fit`.
    post : Posterior, or several in a list or dict
        From `jaxgmm.sample`, on the same data and weights.

    Returns
    -------
    Verdict or Comparison
        A `Comparison` of every fit with every posterior where either is a list or dict.

    Raises
    ------
    TypeError
        Where the arguments are not fits and posteriors.
    ValueError
        Where they are of other data, weights or models; for an empty list.

    Notes
    -----
    Mode means mode in the declared coordinates: the density of weights on the simplex,
    means and covariances as the sites are declared, with no Jacobian.

    What is costly is computed on 400 thinned draws and at most 2,000 rows; each line says how
    many. The little that is random has a fixed seed.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter and Buerkner (2021), Bayesian Analysis 16:667-718,
    for R-hat and effective draws; Vehtari, Simpson, Gelman, Yao and Gabry (2024), JMLR
    25(72):1-58, for Pareto k; Vehtari, Gelman and Gabry (2017), Statistics and Computing
    27:1413-1432, for leave-one-out; Hubert and Arabie (1985), J. Classification 2:193-218,
    for the adjusted Rand index; Wilson (1927), JASA 22:209-212, for the intervals of shares;
    Kallioinen, Paananen, Buerkner and Vehtari (2024), Statistics and Computing 34:57, for
    power-scaling.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("galaxies").x
    >>> model = jg.Mixture(jg.Gaussian("tied"), n_components=1, prior="fraley-raftery")
    >>> fit = jg.fit(model, x, key=jax.random.key(0), n_init=1)
    >>> post = jg.sample(fit.model, x, key=jax.random.key(1), start=fit, progress=False)
    >>> verdict = jg.compare(fit, post)
    >>> verdict.decided, verdict.point
    (True, 'mode')

    Several posteriors of one fit:

    >>> vb = jg.sample(fit.model, x, key=jax.random.key(2), start=fit, method="vb")
    >>> jg.compare(fit, {"nuts": post, "vb": vb}).table["decided"].tolist()
    [True, True]
    """
    if isinstance(fit, Fit) and isinstance(post, Posterior):
        return _judge(fit, post)
    return Comparison({names: _judge(*pair) for names, pair in pairs(fit, post).items()})


def _judge(fit: Fit, post: Posterior) -> Verdict:
    check_precision(fit)
    post.check_rows("posterior")
    if fit.fingerprint != post.fingerprint:
        raise ValueError("compare: the fit and the posterior are of other data or weights")
    if not alike(fit.model, post.model):
        raise ValueError(
            "compare: the fit and the posterior are of different models: "
            f"{fit.model!r} and {post.model!r}"
        )
    if post.origin is not None:
        here = post.near
        verdict = _judge(fit.moved(-post.origin, here.fingerprint), here)
        there = verdict.posterior.moved(post.origin, post.x, post.fingerprint)
        table = moved_table(verdict.table, verdict.fit, fit, post.feature_names)
        return dataclasses.replace(verdict, table=table, fit=fit, posterior=there)
    key_laplace, key_rows = jax.random.split(jax.random.key(_SEED))
    seen = look_at_data(fit, post)
    post = aligned(post, seen)
    shape = curvature(fit.model, fit.params, post.x, post.sample_weight)
    near = approximations(fit, post, shape, key_laplace)
    ambiguous = ambiguous_labels(seen, post.model.label_groups) > MOST_AMBIGUOUS
    table = parameter_table(fit, post, near, ambiguous)
    where = basins(fit, post)
    checks = check_table(
        {
            "A": decide(fit, post, shape, invariants(post, seen), where),
            "B": explain(fit, post, near, table, seen),
            "C": predict(fit, post, near, seen, key_rows),
        }
    )
    point = point_kind(checks, shape)
    decided, summary = conclude(point, checks, shape, where.table, table, fit, post)
    return Verdict(summary, decided, checks, table, where.table, fit, post, point)
