"""Tier C: what predictions from the point lose, whether model and prior suit the data, evidence."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, PRNGKeyArray
from scipy.special import logsumexp

from jaxgmm._contract import LatentModel, Params
from jaxgmm._programs import on_rung, program, rows_at
from jaxgmm.bayes import Posterior
from jaxgmm.em import Fit
from jaxgmm.report._draws import Rows, Seen, look, points, some_rows
from jaxgmm.report.verdict._approximations import Approximations
from jaxgmm.report.verdict._check import OK, WARNING, Check, not_applicable
from jaxgmm.report.verdict._conflict import conflict
from jaxgmm.report.verdict._decide import MOST_PARETO_K
from jaxgmm.report.verdict._loo import LEAST_DRAWS, LeftOut, leave_one_out
from jaxgmm.report.verdict._misfit import misfit, named_rows

LOO = "optimism of the plug-in score over LOO (nats)"
LOO_K = "largest Pareto k of LOO"
VARIATION = "total variation, plug-in against predictive"

_MOST_OPTIMISM = 2.0
_MOST_VARIATION = 0.1
_MOST_EVIDENCE_ERROR = 0.5


def predict(
    fit: Fit, post: Posterior, near: Approximations, seen: Seen, key: PRNGKeyArray
) -> list[Check]:
    """The lines of tier C."""
    rows, left_out = some_rows(post), leave_one_out(seen)
    like = rows_at(post.x, rows.index[seen.each_copy])
    at = points(fit, post)
    made, replicated = _made(fit.model.settled(at), at, key, on_rung(fit.model, like, None)[0])
    made = np.asarray(made, post.x.dtype)[: len(like)]
    replicated = np.asarray(replicated, np.float64)[:, : len(like)]
    return [
        *_optimism(fit, post, seen, rows, left_out),
        *misfit(near, seen, rows, left_out, replicated),
        conflict(post, seen, replicated),
        _variation(fit, post, seen, jax.device_put(made)),
        _evidence(post, near),
    ]


@program()
def _made(
    model: LatentModel, params: Params, key: PRNGKeyArray, like: Array
) -> tuple[Array, Array]:
    """Rows drawn at the first parameters, and log densities of as many at each of the others.

    They miss what the rows that they are ``like`` miss.
    """

    def made(own: Params, own_key: PRNGKeyArray) -> Array:
        drawn = model.sample_like(own, own_key, like)
        return jnp.where(jnp.isnan(like), jnp.nan, drawn) if model.incomplete else drawn

    def of_draw(draw: tuple[Params, PRNGKeyArray]) -> Array:
        return model.log_prob(draw[0], made(*draw))

    first = jax.tree.map(lambda leaf: leaf[0], params)
    others = jax.tree.map(lambda leaf: leaf[1:], params)
    keys = jax.random.split(key, len(jax.tree.leaves(params)[0]))
    return made(first, keys[0]), lax.map(of_draw, (others, keys[1:]))


def _optimism(fit: Fit, post: Posterior, seen: Seen, rows: Rows, left_out: LeftOut) -> list[Check]:
    """Score of the point in sample against that of the posterior out of it.

    For large n the difference is the number of parameters (Stone, 1977). One copy of a row is
    left out, the others stay.
    """
    elpd, k = left_out.log_density, left_out.pareto_k
    if left_out.n_draws < LEAST_DRAWS:
        why = f"only {left_out.n_draws} distinct draws"
        return [not_applicable(LOO, why), not_applicable(LOO_K, why)]
    weight = post.sample_weight
    n = post.x.shape[0] if weight is None else float(np.sum(np.asarray(weight, np.float64)))
    mean = lambda values: float(np.average(values, weights=seen.copies))
    lost = seen.fit_log_density - elpd
    optimism = mean(lost) * n
    error = np.sqrt(mean((lost - mean(lost)) ** 2) / np.sum(seen.copies)) * n
    heavy = k > MOST_PARETO_K
    most, worst = _MOST_OPTIMISM * fit.n_parameters, float(np.max(k))
    return [
        Check(
            LOO,
            optimism,
            f"<= {most:g}",
            OK if optimism <= most else WARNING,
            f"+- {error:.1f}; {fit.n_parameters} parameters explain {fit.n_parameters}; LOO elpd "
            f"{mean(elpd) * n:.1f} ({seen.size})",
        ),
        Check(
            LOO_K,
            worst,
            f"<= {MOST_PARETO_K}",
            OK if worst <= MOST_PARETO_K else WARNING,
            "no row decides alone"
            if worst <= MOST_PARETO_K
            else f"{np.sum(seen.copies[heavy]):g} row(s) shape the posterior, their LOO is rough: "
            + named_rows(rows.index[heavy][np.argsort(-k[heavy])]),
        ),
    ]


def _variation(fit: Fit, post: Posterior, seen: Seen, made: Array) -> Check:
    """Half the integral of |plug-in - predictive|, at rows drawn from the plug-in density."""
    there = look(fit, post, made, np.ones(len(made)))
    predictive = logsumexp(there.log_density, axis=0) - np.log(len(there.log_density))
    missing = np.maximum(0.0, -np.expm1(predictive - there.fit_log_density))
    distance, error = float(np.mean(missing)), float(np.std(missing) / np.sqrt(len(missing)))
    ok = distance <= _MOST_VARIATION
    return Check(
        VARIATION,
        distance,
        f"<= {_MOST_VARIATION}",
        OK if ok else WARNING,
        f"+- {error:.2g}; "
        + ("predictions from the point will do" if ok else "predict from the posterior")
        + f" ({seen.size})",
    )


def _evidence(post: Posterior, near: Approximations) -> Check:
    source = near.laplace if post.evidence is None else post
    if source is None or source.evidence is None:
        return not_applicable("log evidence", f"{post.method} does not estimate it")
    found = source.evidence
    tail = -np.inf if found.pareto_k is None else found.pareto_k
    ok = found.error <= _MOST_EVIDENCE_ERROR and tail <= MOST_PARETO_K
    whose = "" if source is post else "Laplace's at the fit: "
    doubt = "" if tail <= MOST_PARETO_K else f"; not to be trusted, Pareto k {tail:.2f}"
    return Check(
        "log evidence",
        float(found.log_evidence),
        f"error <= {_MOST_EVIDENCE_ERROR}",
        OK if ok else WARNING,
        f"+- {found.error:.2g}; {whose}{found.method}{doubt}",
    )
