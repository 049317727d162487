"""Stochastic variational inference on the NumPyro model, compiled once per shape.

`numpyro.infer.SVI.run` traces and compiles anew at each call; its steps, used here inside
functions that JAX caches by shape, do not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro import handlers
from numpyro.infer import SVI as NumPyroSVI
from numpyro.infer import Trace_ELBO, init_to_value
from numpyro.infer.autoguide import (
    AutoDelta,
    AutoGuide,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from numpyro.infer.util import log_density
from numpyro.optim import Adam

from jaxgmm._checks import check_count, check_name
from jaxgmm._contract import LatentModel, Params
from jaxgmm._programs import program
from jaxgmm.bayes._chains import Draws, run
from jaxgmm.bayes._engine import Engine
from jaxgmm.local import by_site, log_units, spread

GUIDES = {
    "full-rank": AutoMultivariateNormal,
    "mean-field": AutoNormal,
    "low-rank": AutoLowRankMultivariateNormal,
}


# Smallest curvature, relative to the largest, that the first scale of a guide believes in.
_LEAST_CURVATURE = 1e-8

# Share of the first learning rate that is left at the end.
_DECAY = 0.01

# The last quarter of the steps still moves where its mean is more nats from that of the quarter
# before it, by two standard errors; it has stopped where by as many it cannot be farther.
_STILL_MOVES = 0.1
_STOPPED = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class SVI(Engine):
    """Independent draws of a NumPyro guide that Adam has fitted, from the first of the starts.

    Parameters
    ----------
    guide : str or callable
        ``"full-rank"``, ``"mean-field"``, ``"low-rank"``, or what makes a NumPyro AutoGuide of a
        model, such as a class of ``numpyro.infer.autoguide``.
    n_steps : int
        Of Adam, at least four.
    learning_rate : float
        Falls to a hundredth; for the three names in standard deviations that the curvature at EM's
        mode leaves.

    Raises
    ------
    ValueError, TypeError
        For values out of range, an unknown name, or a guide that is neither.

    References
    ----------
    Kucukelbir and others (2017), JMLR 18(14):1-45.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> jg.bayes.SVI(guide="mean-field").options
    {'guide': 'mean-field'}
    """

    name = "svi"

    guide: str | Callable[[Any], AutoGuide] = "full-rank"
    n_steps: int = 5000
    learning_rate: float = 0.01

    def __post_init__(self):
        _check_guide(self.guide)
        check_count("n_steps", self.n_steps, 4)
        if not 0 < self.learning_rate < np.inf:
            raise ValueError(f"learning_rate: must be positive, found {self.learning_rate!r}")

    def draw(self, model, x, sample_weight, starts, key, schedule, progress):
        guide, n_steps = self.guide, self.n_steps
        model.check_coordinates(x.dtype)
        start = starts.first
        rate = np.asarray(self.learning_rate, x.dtype)
        key_fit, key_draws = jax.random.split(key)
        state, rate = _begin(model, x, sample_weight, start, rate, key_fit, n_steps, guide)
        data = model, x, sample_weight, start, rate
        fitted = state, np.zeros(n_steps, x.dtype)

        def advance(_: None, fitted: Any, first: int, last: int) -> tuple[None, Any]:
            return None, _advance(*data, fitted, first, last, guide)

        name = guide if isinstance(guide, str) else getattr(guide, "__name__", repr(guide))
        _, (state, trace) = run(advance, None, fitted, n_steps, f"SVI, {name}", progress)
        counts = starts.n_chains, schedule.n_draws
        params, log_likelihood, log_proposal, log_ratio = _draw(
            *data, state, key_draws, n_steps, counts, guide
        )
        log_ratio = np.asarray(log_ratio)
        diagnostics = {
            "guide": name,
            **_convergence(np.asarray(trace, np.float64)),
            "elbo": np.mean(log_ratio),
            "elbo_error": np.std(log_ratio) / np.sqrt(log_ratio.size),
            "elbo_trace": trace,
        }
        return Draws(params, {}, log_likelihood, log_proposal, None, diagnostics)


def _check_guide(guide: Any) -> None:
    if isinstance(guide, str):
        check_name("guide", guide, GUIDES)
    elif isinstance(guide, AutoGuide) or not callable(guide):
        raise TypeError(
            f"guide: needs a name ({', '.join(map(repr, GUIDES))}) or what makes a guide of a "
            f"model, such as a class of numpyro.infer.autoguide; found {guide!r}"
        )


def _engine(
    model: LatentModel,
    x: Array,
    start: Params,
    rate: Array,
    n_steps: int,
    guide: str | Callable[[Any], AutoGuide],
) -> NumPyroSVI:
    """NumPyro's SVI; it has to be initialised again wherever it is traced."""
    program = model.numpyro_model
    if isinstance(guide, str):
        # Narrow enough to stay within one mode.
        made = GUIDES[guide](program, init_scale=x.shape[0] ** -0.5)
    else:
        made = guide(program)
    if not isinstance(made, AutoGuide):
        raise TypeError(f"guide: needs to make a NumPyro AutoGuide, found {type(made).__name__}")
    if isinstance(made, (AutoDelta, AutoLaplaceApproximation)):
        raise ValueError(
            f"guide: {type(made).__name__} has no density while it is fitted; use jaxgmm.fit for "
            'the mode and method="laplace" for the Gaussian around it'
        )
    made.init_loc_fn = init_to_value(values=model.sites(start))
    schedule = lambda step: rate * _DECAY ** (step / n_steps)
    return NumPyroSVI(program, made, Adam(schedule), Trace_ELBO())


@program(static_argnames=("n_steps", "guide"))
def _begin(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    start: Params,
    rate: Array,
    key: PRNGKeyArray,
    n_steps: int,
    guide: Any,
) -> tuple[Any, Array]:
    """The first state, and the learning rate in the units of the coordinates.

    A guide known by name starts as wide as the curvature says, and its steps are shares of
    that width: Adam's would otherwise be many times as long as many rows leave it wide.
    """
    first = None
    if isinstance(guide, str):
        root = spread(model, x, sample_weight, start, _LEAST_CURVATURE)
        if root is not None:
            first = _first_scale(model, start, root, guide)
            rate = rate * jnp.median(jnp.linalg.norm(root, axis=1))
    svi = _engine(model, x, start, rate, n_steps, guide)
    return svi.init(key, x, init_params=first, sample_weight=sample_weight), rate


def _first_scale(
    model: LatentModel, start: Params, root: Float[Array, "d d"], guide: str
) -> dict[str, Array]:
    """The scale whose square is ``root @ root.T``, under the names of NumPyro's guides."""
    if guide == "full-rank":
        return {"auto_scale_tril": jnp.linalg.cholesky(root @ root.T)}
    # Of one coordinate given all others, as the bound has it for independent ones.
    scale = jnp.linalg.norm(jnp.linalg.inv(root), axis=0) ** -1
    if guide == "low-rank":
        return {"auto_scale": scale}
    return {f"{name}_auto_scale": part for name, part in by_site(model, scale, start).items()}


@program(static_argnames="guide", donate_argnames="fitted")
def _advance(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    start: Params,
    rate: Array,
    fitted: tuple[Any, Array],
    first: Array | int,
    last: Array | int,
    guide: Any,
) -> tuple[Any, Array]:
    """Steps ``first`` to ``last``, and the estimate of the ELBO at each."""
    svi = _engine(model, x, start, rate, fitted[1].size, guide)
    # The guide learns its shapes from its init; nothing of this is computed.
    svi.init(fitted[0].rng_key, x, sample_weight=sample_weight)

    def step(i: Array, fitted: tuple[Any, Array]) -> tuple[Any, Array]:
        state, trace = fitted
        # The bound is that of the evidence whatever units the sites are measured in: what the
        # working model adds for them is taken off. A step that would lead out of the finite
        # numbers is not taken.
        state, loss = svi.stable_update(state, x, sample_weight=sample_weight)
        return state, trace.at[i].set(-loss - log_units(model))

    return lax.fori_loop(first, last, step, fitted)


@program(static_argnames=("n_steps", "counts", "guide"))
def _draw(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    start: Params,
    rate: Array,
    state: Any,
    key: PRNGKeyArray,
    n_steps: int,
    counts: tuple[int, int],
    guide: Any,
) -> tuple[Params, Array, Array, Array]:
    """Draws, their log likelihood and log proposal, and log joint minus log proposal."""
    svi = _engine(model, x, start, rate, n_steps, guide)
    kwargs = {"sample_weight": sample_weight}
    svi.init(key, x, **kwargs)
    learned = svi.get_params(state)

    def one(key: PRNGKeyArray) -> tuple[Params, Array, Array, Array]:
        log_proposal, found = log_density(handlers.seed(svi.guide, key), (x,), kwargs, learned)
        params = model.from_sites({name: found[name]["value"] for name in model.prior_sites()})
        log_likelihood = model.log_likelihood(params, x, sample_weight)
        log_proposal += log_units(model)
        log_ratio = model.log_prior(params) + log_likelihood - log_proposal
        return params, log_likelihood, log_proposal, log_ratio

    draws = lax.map(one, jax.random.split(key, counts[0] * counts[1]))
    return jax.tree.map(lambda leaf: leaf.reshape(*counts, *leaf.shape[1:]), draws)


def last_gain(trace: Any, numpy: Any) -> tuple[Any, Any]:
    """What the last quarter of the steps gained on the quarter before it, and its error.

    NaN where one of them has no finite value. ``numpy`` is NumPy, or JAX's inside a program.
    """
    means, squares = [], []
    for part in numpy.array_split(trace, 4)[2:]:
        known = numpy.isfinite(part)
        # Zero of zero is the NaN that is wanted, without a warning.
        count = numpy.where(numpy.any(known), numpy.sum(known), numpy.nan)
        mean = numpy.sum(numpy.where(known, part, 0)) / count
        apart = numpy.where(known, part - mean, 0)
        means.append(mean)
        squares.append(numpy.sum(apart**2) / count**2)
    return means[1] - means[0], numpy.sqrt(squares[0] + squares[1])


def stopped(gain: Any, error: Any) -> Any:
    """Whether a gain is small for sure; not where it is NaN."""
    return abs(gain) + 2 * error <= _STOPPED


def _convergence(trace: Float[np.ndarray, " steps"]) -> dict[str, Any]:
    """Whether the last quarter of the steps still gained on the quarter before it."""
    gain, error = map(float, last_gain(trace, np))
    amount = f"the last quarter of the steps gained {gain:.2g} +- {error:.2g} nats"
    converged = bool(stopped(gain, error))
    if np.isnan(gain):
        status = "not converged: the ELBO is not finite; lower learning_rate"
    elif converged:
        status = f"converged: {amount}"
    elif abs(gain) - 2 * error > _STILL_MOVES:
        status = f"not converged: {amount}; raise n_steps or learning_rate"
    else:
        status = f"cannot tell: {amount}; raise n_steps"
    return {
        "status": status,
        "converged": converged,
        "elbo_gain": gain,
        "elbo_gain_error": error,
        "n_refused": np.sum(~np.isfinite(trace)),
    }
