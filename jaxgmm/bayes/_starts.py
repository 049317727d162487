"""Where engines begin: at optima of a fit, where the user says, in the prior, at old ends."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from jaxgmm._contract import LatentModel, Params
from jaxgmm._programs import on_rung, program
from jaxgmm.bayes._chains import Starts
from jaxgmm.bayes._labelling import highest
from jaxgmm.bayes._posterior import Posterior
from jaxgmm.em import SAME_OPTIMUM, Fit, Problem, Status, check_precision
from jaxgmm.model import forms_of_start, prior_draws, same_form, stacked

_DEFAULT_CHAINS = 4

# Engines that begin at every start: the others know one, or begin in the prior.
_AT_EVERY_START = ("nuts", "gibbs", "vb")

# A fit may lie on an edge, which no chain reaches: it starts so far inside.
EDGE_MARGIN = 1e-3

# Chains start from every distinct optimum that is not hopeless: within this many units
# of log joint of the best (odds of 1 to 20000).
_MODE_RANGE = 10.0


class Beginning(NamedTuple):
    """Where an engine begins, and what is said of it.

    Attributes
    ----------
    kind : str
        That of `Posterior.start`.
    starts : Starts
        In the units of the user.
    reference : parameters or None
        Whose labels the draws take; None for the highest of the draws.
    note : str
        What has no chain; empty where nothing was left out.
    """

    kind: str
    starts: Starts
    reference: Params = None
    note: str = ""


def check_same_data(start: Any, problem: Problem) -> None:
    """Refuse a fit or a posterior of other data, or of another precision."""
    if isinstance(start, (Fit, Posterior)):
        check_precision(start)
        if start.fingerprint != problem.fingerprint:
            kind = type(start).__name__.lower()
            raise ValueError(f"start: this {kind} is of other data or weights; fit x first")


def beginning(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    start: Any,
    n_chains: int | None,
    method: str,
    key: PRNGKeyArray,
) -> Beginning:
    """What the user's ``start`` means, checked; ``model`` has its prior as numbers."""
    if isinstance(start, Posterior):
        _check_resumable(model, start, n_chains, method)
        ends = jax.tree.map(lambda leaf: leaf[:, -1], start.raw_params())
        starts = Starts(ends, exact=True, adaptation=start.adaptation)
        return Beginning("posterior", starts, highest(start.params, start.log_joint))
    if isinstance(start, Fit):
        # Its prior may be another one.
        _, needed = forms_of_start(model, x)
        if not same_form(start.params, needed):
            raise ValueError(f"start: this fit is of {start.model!r}, not of {model!r}")
        params, note = _dealt(start, n_chains or _DEFAULT_CHAINS)
        params = inwards(model, params, EDGE_MARGIN)
        note = note if method in _AT_EVERY_START else ""
        return Beginning("fit", Starts(params), start.params, note)
    reference = None
    if isinstance(start, str) and start == "prior":
        drawn = prior_draws(model, key, (n_chains or _DEFAULT_CHAINS, 1), 'start: "prior"')
        kind, params = "prior", jax.tree.map(lambda leaf: leaf[:, 0], drawn)
    else:
        kind, params = "given", _given(model, x, start)
        if jax.tree.leaves(start)[0].ndim < jax.tree.leaves(params)[0].ndim:
            reference = start
            count = n_chains or _DEFAULT_CHAINS
            params = jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), params)
        elif method not in _AT_EVERY_START:
            raise ValueError(
                f"start: method={method!r} begins at one point, or in the prior; found a stack of "
                f"{Starts(params).n_chains}"
            )
        _check_chains(Starts(params).n_chains, n_chains)
    # Rounding may have put a draw on an edge.
    params = inwards(model, params, float(jnp.finfo(x.dtype).eps))
    height = np.asarray(_log_joints(model, *on_rung(model, x, sample_weight), params))
    if not np.all(np.isfinite(height)):
        chain = int(np.argmin(np.isfinite(height)))
        raise ValueError(f"start: the log joint at the start of chain {chain} is {height[chain]}")
    return Beginning(kind, Starts(params, exact=True), reference)


def _dealt(fit: Fit, n_chains: int) -> tuple[Params, str]:
    """Parameters of the distinct optima in reach, dealt out in turn, and what that leaves out."""
    ended_well = Status.CONVERGED, Status.OUT_OF_ITERATIONS
    optima = [o for o in fit.optima if o.status in ended_well and not o.spurious]
    below = [fit.log_joint - optimum.log_joint + SAME_OPTIMUM for optimum in optima]
    near = [o.starts[0] for o, gap in zip(optima, below, strict=True) if 0 <= gap <= _MODE_RANGE]
    chosen = near or [fit.best]
    dealt = np.array([chosen[chain % len(chosen)] for chain in range(n_chains)])
    missing = {
        f"more than {_MODE_RANGE:g} below the highest": sum(gap > _MODE_RANGE for gap in below),
        "beyond n_chains": len(near) - n_chains,
    }
    left_out = [f"{count} {why}" for why, count in missing.items() if count > 0]
    note = ""
    if left_out:
        note = (
            f"{len(optima)} optima of the fit, {' and '.join(left_out)} left out; a stack of "
            "parameters as start begins wherever it says"
        )
    return jax.tree.map(lambda leaf: leaf[dealt], fit.restarts.params), note


def _given(model: LatentModel, x: Array, start: Any) -> Params:
    """The user's parameters, with a leading axis."""
    _, needed = forms_of_start(model, x)
    if jax.tree.structure(start) != jax.tree.structure(needed):
        raise TypeError(
            "start: needs a Fit from jaxgmm.fit, parameters of this model (one, or a stack with "
            'one for each chain), "prior", or a Posterior to go on from; found '
            f"{start if isinstance(start, str) else type(start).__name__!r}"
        )
    return stacked("start", "parameters", start, needed, x.dtype)


def _check_resumable(
    model: LatentModel, start: Posterior, n_chains: int | None, method: str
) -> None:
    """Refuse a posterior that has no chains, or those of another kernel or target."""
    if start.n_warmup is None:
        raise ValueError(
            f"start: the draws of method={start.method!r} are no chains to go on from; draw more "
            "at once (n_draws), with another key"
        )
    if start.method != method:
        raise ValueError(
            f"start: this posterior is by method={start.method!r}, and goes on with that; to begin "
            f"{method!r} at its last draws pass jax.tree.map(lambda a: a[:, -1], post.params)"
        )
    same = jax.tree.structure(model) == jax.tree.structure(start.model) and all(
        np.array_equal(one, other)
        for one, other in zip(*map(jax.tree.leaves, (model, start.model)), strict=True)
    )
    if not same:
        raise ValueError("start: this posterior is of another model; its chains go on with its own")
    _check_chains(start.n_chains, n_chains)


def _check_chains(found: int, n_chains: int | None) -> None:
    if n_chains not in (None, found):
        raise ValueError(f"n_chains: start has {found} chain(s), found {n_chains}; leave it out")


@program()
def inwards(model: LatentModel, params: Params, margin: Array | float) -> Params:
    """A stack of parameters, none closer to an edge of its support than ``margin``."""
    return jax.vmap(lambda one: model.inwards(one, margin))(params)


@program()
def _log_joints(model: LatentModel, x: Array, sample_weight: Array | None, params: Params) -> Array:
    return jax.vmap(lambda one: model.log_joint(one, x, sample_weight))(params)
