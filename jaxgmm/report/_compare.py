"""`compare`: is EM's answer a mode of this posterior, which one, and can the draws tell."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from arviz_stats.base import array_stats
from jaxtyping import Array
from numpyro.infer.util import log_density

from jaxgmm._contract import LatentModel, Params
from jaxgmm._posterior import Posterior
from jaxgmm._results import Fit
from jaxgmm.report._curvature import Curvature, curvature
from jaxgmm.report._tables import basin_table, parameter_table

# Thresholds of Vehtari et al. (2021) for R-hat and effective draws, and of Betancourt
# (2016) for the energy fraction.
_MOST_R_HAT = 1.01
_LEAST_ESS = 400
_LEAST_BFMI = 0.3
# A few divergent transitions cast doubt, a larger share ends the comparison.
_MOST_DIVERGING = 0.005

# Relative difference of two log densities that rounding explains, in units of eps.
_SAME_TARGET_EPS = 1e5
_TARGET_POINTS = 8

OK, WARNING, FAIL, NOT_APPLICABLE = "ok", "warning", "fail", "not applicable"


@dataclasses.dataclass(frozen=True, repr=False)
class Verdict:
    """What the posterior says of the fit.

    Attributes
    ----------
    summary : str
        The conclusion in plain sentences.
    decided : bool
        False where the sampler did not converge, so that no conclusion is drawn.
    checks : DataFrame
        A row per check: value, threshold, verdict, what it means.
    table : DataFrame
        A row per quantity, label-invariant ones first, then every parameter: MAP,
        posterior mean, sd, 89% and 95% intervals, z, inside or not, R-hat, effective draws.
    basins : DataFrame
        Share of the posterior in the basin of each optimum, the fit's first:
        ``share``, ``log_joint``, ``found_by_restarts``, ``visited``.
    fit, posterior
        What was compared.
    """

    summary: str
    decided: bool
    checks: pd.DataFrame
    table: pd.DataFrame
    basins: pd.DataFrame
    fit: Fit
    posterior: Posterior

    def __repr__(self) -> str:
        from jaxgmm.report._text import verdict_text

        return verdict_text(self)

    def _repr_html_(self) -> str:
        from jaxgmm.report._html import verdict_html

        return verdict_html(self)

    def save(self, folder: str | Path) -> Path:
        """Write ``report.html`` (self-contained), the figures and ``posterior.nc``.

        Parameters
        ----------
        folder : str or Path
            Made if it does not exist; files of the same names are replaced.

        Returns
        -------
        Path
            The page.
        """
        from jaxgmm.report._save import save

        return save(self, Path(folder))


def compare(fit: Fit, post: Posterior) -> Verdict:
    """Judge a point fit by a posterior of the same model and data.

    Parameters
    ----------
    fit : Fit
        From `jaxgmm.fit`.
    post : Posterior
        From `jaxgmm.sample`, on the same data and weights.

    Returns
    -------
    Verdict

    Raises
    ------
    TypeError
        Where the arguments are not a fit and a posterior.
    ValueError
        Where they are of other data, weights or numbers of components.

    Notes
    -----
    Mode means mode in the declared coordinates: the density of weights on the simplex,
    means and covariances as the sites are declared, with no Jacobian.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter and Buerkner (2021), Bayesian Analysis 16:667-718,
    for R-hat and effective draws.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("galaxies").x
    >>> model = jg.Mixture(jg.Gaussian("tied"), n_components=1, prior="fraley-raftery")
    >>> fit = jg.fit(model, x, key=jax.random.key(0), n_init=1)
    >>> post = jg.sample(fit.model, x, key=jax.random.key(1), start=fit, progress=False)
    >>> jg.compare(fit, post).decided
    True
    """
    if not isinstance(fit, Fit) or not isinstance(post, Posterior):
        raise TypeError(
            "compare: needs a Fit and a Posterior, "
            f"found {type(fit).__name__} and {type(post).__name__}"
        )
    if fit.fingerprint != post.fingerprint:
        raise ValueError("compare: the fit and the posterior are of other data or weights")
    if jax.tree.structure(fit.model) != jax.tree.structure(post.model):
        raise ValueError(
            "compare: the fit and the posterior are of different models: "
            f"{fit.model!r} and {post.model!r}"
        )
    shape = curvature(fit.model, fit.params, post.x, post.sample_weight)
    gap = _target_gap(fit, post)
    table = parameter_table(fit, post)
    basins = basin_table(fit, post)
    checks = pd.DataFrame(
        [
            _same_target(gap, post.x.dtype),
            _em_status(fit),
            _stationary(shape),
            _definite(shape),
            *_sampler(table, post),
            _coverage(basins),
        ],
        columns=["check", "value", "threshold", "verdict", "meaning"],
    ).set_index("check")
    decided, summary = _conclude(checks, shape, table, basins, fit)
    return Verdict(summary, decided, checks, table, basins, fit, post)


# -- the checks: (name, value, threshold, verdict, meaning) -----------------------


def _target_gap(fit: Fit, post: Posterior) -> float:
    """Largest relative difference between EM's objective and NumPyro's log density."""
    total = post.n_chains * post.n_draws
    chosen = np.linspace(0, total - 1, _TARGET_POINTS).astype(int)
    points = jax.tree.map(
        lambda draws, at: jnp.concatenate(
            [jnp.asarray(at)[None], jnp.asarray(draws.reshape(total, *draws.shape[2:])[chosen])]
        ).astype(post.x.dtype),
        post.params,
        fit.params,
    )
    ours, theirs = _both_densities(fit.model, post.model, points, post.x, post.sample_weight)
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.max(np.abs(ours - theirs) / np.maximum(np.abs(ours), 1)))


@jax.jit
def _both_densities(
    fitted: LatentModel,
    sampled: LatentModel,
    points: Params,
    x: Array,
    sample_weight: Array | None,
) -> tuple[Array, Array]:
    def both(params: Params) -> tuple[Array, Array]:
        sites, kwargs = sampled.sites(params), {"sample_weight": sample_weight}
        numpyro_value, _ = log_density(sampled.numpyro_model, (x,), kwargs, sites)
        return fitted.log_joint(params, x, sample_weight), numpyro_value

    return jax.vmap(both)(points)


def _same_target(gap: float, dtype: np.dtype) -> tuple:
    threshold = _SAME_TARGET_EPS * float(jnp.finfo(dtype).eps)
    verdict = OK if gap <= threshold else FAIL
    meaning = (
        "EM's objective and NumPyro's log density are the same number"
        if verdict == OK
        else "EM and the sampler were given different priors or densities"
    )
    return "same target (relative gap)", gap, f"<= {threshold:.1e}", verdict, meaning


def _em_status(fit: Fit) -> tuple:
    value = fit.status.name.lower().replace("_", " ")
    return "EM status", value, "converged", OK if fit.converged else WARNING, fit.message


def _stationary(shape: Curvature) -> tuple:
    ok = shape.stationary
    meaning = "EM stands at a stationary point" if ok else "EM stopped before the top"
    return (
        "Newton decrement (sd)",
        shape.newton_decrement,
        f"< {shape.threshold:g}",
        OK if ok else FAIL,
        meaning,
    )


def _definite(shape: Curvature) -> tuple:
    smallest = float(shape.eigenvalues[0]) if shape.eigenvalues.size else np.nan
    if shape.n_negative:
        verdict, meaning = FAIL, f"saddle: the density rises in {_directions(shape.n_negative)}"
    elif shape.n_flat:
        verdict, meaning = FAIL, f"not identified: {_directions(shape.n_flat, 'flat ')}"
    else:
        verdict, meaning = OK, "a maximum in every direction"
    return "smallest scaled curvature", smallest, "> 0", verdict, meaning


def _sampler(table: pd.DataFrame, post: Posterior) -> list[tuple]:
    invariant = table.loc[list(post.invariants())]
    r_hat = float(invariant["r_hat"].max())
    rows = [
        (
            "largest R-hat, invariants",
            r_hat,
            f"<= {_MOST_R_HAT}",
            OK if r_hat <= _MOST_R_HAT else FAIL,
            "chains agree on what labels cannot change"
            if r_hat <= _MOST_R_HAT
            else "chains disagree on what labels cannot change",
        )
    ]
    for kind in ("bulk", "tail"):
        ess = float(invariant[f"ess_{kind}"].min())
        rows.append(
            (
                f"smallest {kind} ESS, invariants",
                ess,
                f">= {_LEAST_ESS}",
                OK if ess >= _LEAST_ESS else FAIL,
                f"effective draws for {'means' if kind == 'bulk' else 'interval ends'}",
            )
        )
    diverging = post.sample_stats.get("diverging")
    if diverging is not None:
        count, share = int(np.sum(diverging)), float(np.mean(diverging))
        verdict = OK if count == 0 else WARNING if share <= _MOST_DIVERGING else FAIL
        meaning = "no divergent transition" if count == 0 else "strongly curved regions are missed"
        rows.append(("divergences", count, "0", verdict, meaning))
    energy = post.sample_stats.get("energy")
    if energy is not None:
        bfmi = float(np.min(array_stats.bfmi(np.asarray(energy, np.float64))))
        ok = bfmi >= _LEAST_BFMI
        meaning = "energy is explored" if ok else "energy is explored too slowly"
        rows.append(("smallest E-BFMI", bfmi, f">= {_LEAST_BFMI}", OK if ok else FAIL, meaning))
    return rows


def _coverage(basins: pd.DataFrame) -> tuple:
    share = float(basins["share"].iloc[0])
    others = int(np.sum(basins["share"].iloc[1:] > 0))
    if others == 0:
        meaning = "every draw climbs to EM's optimum"
    else:
        meaning = f"draws climb to {others} other optimum" + ("" if others == 1 else "s")
        meaning = meaning.replace("optimums", "optima")
    verdict = OK if share >= 0.5 else WARNING
    return "posterior in the fit's basin", share, ">= 0.5", verdict, meaning


def _directions(count: int, kind: str = "") -> str:
    words = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
    return f"{words.get(count, count)} {kind}direction" + ("" if count == 1 else "s")


# -- the conclusion ----------------------------------------------------------------


def _conclude(
    checks: pd.DataFrame,
    shape: Curvature,
    table: pd.DataFrame,
    basins: pd.DataFrame,
    fit: Fit,
) -> tuple[bool, str]:
    """Whether anything may be concluded, and two or three sentences that say what."""
    verdict = checks["verdict"]
    if verdict["same target (relative gap)"] == FAIL:
        gap = checks.loc["same target (relative gap)", "value"]
        return False, (
            "No verdict: the fit and the posterior have different targets (their log densities "
            f"differ by {gap:.2g} relative), so the draws say nothing about this fit. "
            "Sample fit.model."
        )
    point = _what_the_point_is(shape, fit)
    sampler = [
        "largest R-hat, invariants",
        "smallest bulk ESS, invariants",
        "smallest tail ESS, invariants",
        "divergences",
        "smallest E-BFMI",
    ]
    failed = [name for name in sampler if name in verdict.index and verdict[name] == FAIL]
    if failed:
        reasons = "; ".join(
            f"{name} is {_number(checks.loc[name, 'value'])}, needs {checks.loc[name, 'threshold']}"
            for name in failed
        )
        return False, (
            f"{point} No verdict on the posterior: the sampler did not converge ({reasons}). "
            "Draw more, or from more chains, before reading the tables below."
        )
    if shape.n_negative or not shape.stationary:
        return True, f"{point} Intervals and z-scores refer to a point that is not the MAP."
    if shape.n_flat:
        return True, (
            f"{point} Along the ridge the posterior only hands back the prior, so intervals and "
            "z-scores of single parameters say nothing about the fit; quantities that the data "
            "identify (the log likelihood, predictions) can be compared."
        )
    return True, f"{point} {_where_the_mass_is(table, basins)}"


def _what_the_point_is(shape: Curvature, fit: Fit) -> str:
    distance = f"Newton decrement {shape.newton_decrement:.1e} sd"
    if not shape.stationary:
        return (
            f"EM stopped before the mode: it is {shape.newton_decrement:.2g} posterior sd away in "
            f"the local quadratic ({fit.status.name.lower().replace('_', ' ')}); "
            "lower tol or raise max_iter."
        )
    if shape.n_negative:
        return (
            f"EM stands at a saddle, not at a mode: the posterior density rises in "
            f"{_directions(shape.n_negative)} ({distance}); start it elsewhere."
        )
    if shape.n_flat:
        return (
            f"The parameters are not identified: {_directions(shape.n_flat, 'flat ')} at EM's "
            f"answer, which is one point of a ridge of equally good ones ({distance})."
        )
    bounded = (
        ""
        if fit.model.bounded()
        else " The joint density is unbounded elsewhere, so this is an interior local mode."
    )
    return f"EM's answer is a mode of this posterior ({distance}).{bounded}"


def _where_the_mass_is(table: pd.DataFrame, basins: pd.DataFrame) -> str:
    parameters = table[table["z"].notna()]
    share = float(basins["share"].iloc[0])
    inside = int(parameters["inside_95"].sum())
    z = parameters["z"].astype(float)
    worst = z.abs().idxmax()
    distances = (
        f"{inside} of {len(parameters)} quantities have the MAP inside their 95% interval; the "
        f"largest distance is {z[worst]:+.2f} sd ({worst})."
    )
    if share >= 0.95:
        opening = f"{share:.0%} of the posterior lies in its basin, so the two agree:"
        if inside < len(parameters) / 2 or abs(z[worst]) > 4:
            opening = (
                f"{share:.0%} of the posterior lies in its basin, "
                "yet the mode is not typical of it:"
            )
        return f"{opening} {distances}"
    heaviest = basins.iloc[int(basins["share"].to_numpy().argmax())]
    if share >= float(heaviest["share"]):
        return (
            f"Only {share:.0%} of the posterior lies in its basin, the largest share of "
            f"{int((basins['share'] > 0).sum())} optima: one point does not describe this "
            f"posterior. {distances}"
        )
    return (
        f"Only {share:.0%} of the posterior lies in its basin; {heaviest['share']:.0%} lies in "
        f"that of a lower optimum (log joint {heaviest['log_joint']:.2f} against "
        f"{basins['log_joint'].iloc[0]:.2f}), so the highest mode is not where the mass is. "
        f"{distances}"
    )


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
