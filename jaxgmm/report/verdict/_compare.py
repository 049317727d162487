"""`compare`: is EM's answer a mode of this posterior, which one, and can the draws tell."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import overload

import jax

from jaxgmm.bayes import Posterior
from jaxgmm.em import Fit, check_precision, standard_errors
from jaxgmm.report._draws import (
    MOST_AMBIGUOUS,
    aligned,
    ambiguous_labels,
    invariants,
    look_at_data,
)
from jaxgmm.report.verdict._approximations import approximations
from jaxgmm.report.verdict._basins import basins
from jaxgmm.report.verdict._check import check_table
from jaxgmm.report.verdict._conclude import conclude, point_kind
from jaxgmm.report.verdict._curvature import curvature
from jaxgmm.report.verdict._decide import decide
from jaxgmm.report.verdict._explain import explain
from jaxgmm.report.verdict._predict import predict
from jaxgmm.report.verdict._several import Comparison, pairs
from jaxgmm.report.verdict._tables import moved_table, parameter_table
from jaxgmm.report.verdict._targets import alike
from jaxgmm.report.verdict._verdict import Verdict

# What is drawn for the verdict comes from one seed: equal arguments, equal verdicts.
_SEED = 0


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
    information = standard_errors(fit, post.x, sample_weight=post.sample_weight)
    shape = curvature(information)
    near = approximations(fit, post, information, shape, key_laplace)
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
