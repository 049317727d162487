"""No-U-turn sampling of the NumPyro model, compiled once per shape.

`numpyro.infer.MCMC` traces and compiles anew at each ``run``. Its trees and its warm-up, used
here inside functions that JAX caches by shape, do not; and the warm-up costs nothing once it
is over.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key, PRNGKeyArray
from numpyro.infer.hmc_util import (
    HMCAdaptState,
    IntegratorState,
    build_tree,
    euclidean_kinetic_energy,
    velocity_verlet,
    warmup_adapter,
)

from jaxgmm._contract import LatentModel, Params
from jaxgmm._programs import program, rung
from jaxgmm.bayes._chains import Draws, Starts, chains_first, iterate, run, trail
from jaxgmm.bayes._engine import Engine, check_share
from jaxgmm.local import (
    DENSE_LIMIT,
    from_vector,
    log_density,
    spread,
    to_vector,
)

# Smallest curvature, relative to the largest, that the first mass matrix believes in:
# along flatter directions chains start within ten of the largest curvature's units.
_LEAST_CURVATURE = 1e-2

# Mixtures have narrow passages between modes: steps are shorter than NumPyro's default
# of 0.8 makes them.

# Of the warm-up, about half of which is the last window that a mass matrix is learnt from.
_DRAWS_PER_DIMENSION = 8


# With these a chain goes on as it was.
_LEARNED = ("step_size", "inverse_mass_matrix")


class _Chain(NamedTuple):
    """Where a chain is, in unconstrained coordinates, and what its warm-up has learned."""

    position: Float[Array, " d"]
    potential: Float[Array, ""]
    gradient: Float[Array, " d"]
    adapted: HMCAdaptState
    key: PRNGKeyArray
    stats: dict[str, Array]


# By chain, but where they all are in the windows of their warm-up.
_EACH = _Chain(0, 0, 0, HMCAdaptState(0, 0, 0, 0, 0, 0, None, 0), 0, 0)  # type: ignore


@dataclasses.dataclass(frozen=True, kw_only=True)
class NUTS(Engine):
    """NumPyro's no-U-turn sampler (Hoffman and Gelman, 2014), a chain from each start.

    The mass matrix begins as the curvature there, or both it and the step size as an earlier
    warm-up left them. Warm-up adapts the matrix, where it has draws enough, and the step size as
    in Stan. The target is ``model.numpyro_model`` in NumPyro's unconstrained coordinates.

    Parameters
    ----------
    target_acceptance : float
        Mean acceptance that the step size is adapted to, between 0 and 1.

    Raises
    ------
    ValueError
        For a value that is no share.

    References
    ----------
    Hoffman and Gelman (2014), JMLR 15:1593-1623.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> jg.bayes.NUTS(target_acceptance=0.95).options
    {'target_acceptance': 0.95}
    """

    name = "nuts"

    target_acceptance: float = 0.9

    def __post_init__(self):
        check_share("target_acceptance", self.target_acceptance)

    def draw(self, model, x, sample_weight, starts, key, schedule, progress):
        model.check_coordinates(x.dtype)
        chains, like = starts.n_chains, starts.first
        data = model, x, sample_weight, like
        target = np.asarray(self.target_acceptance, x.dtype)
        state = _begin(*data, starts, jax.random.split(key, chains), schedule.n_warmup)
        kept = _room(state, rung(schedule.n_draws))

        def advance(state: _Chain, kept: Any, start: int, stop: int) -> tuple[_Chain, Any]:
            counts = schedule.n_warmup, schedule.thinning
            return _advance(*data, target, state, kept, start, stop, *counts)

        state, kept = run(advance, state, kept, schedule.total, f"NUTS, {chains} chains", progress)
        params = _constrained(model, like, kept["position"])
        learned = {name: getattr(state.adapted, name) for name in _LEARNED}
        draws = chains_first((params, kept["stats"]), schedule.n_draws)
        return Draws(*draws, n_warmup=schedule.n_warmup, adaptation=learned)


def _warmup(n_warmup: int, size: int, target: Array | float) -> tuple[Any, Any]:
    dense = size <= DENSE_LIMIT
    # A dense matrix of fewer draws than this is worse than the curvature at the mode.
    return warmup_adapter(
        n_warmup,
        adapt_mass_matrix=not dense or n_warmup >= _DRAWS_PER_DIMENSION * size,
        dense_mass=dense,
        target_accept_prob=target,
    )


@program(static_argnames="n_draws")
def _room(state: _Chain, n_draws: int) -> Any:
    return trail(_record(state), n_draws)


@program(static_argnames="n_warmup")
def _begin(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    like: Params,
    starts: Starts,
    keys: Key[Array, " chains"],
    n_warmup: int,
) -> _Chain:
    """One state per chain, at its start or spread over the curvature there."""

    def potential(vector: Array) -> Array:
        return -log_density(model, x, sample_weight, vector, like)

    def one(start: Params, key: PRNGKeyArray, learned: dict[str, Array]) -> _Chain:
        position = to_vector(model, start)
        key, key_spread, key_warmup = jax.random.split(key, 3)
        if not learned:
            root = spread(model, x, sample_weight, start, _LEAST_CURVATURE)
            learned = {} if root is None else {"inverse_mass_matrix": root @ root.T}
            noise = jax.random.normal(key_spread, position.shape, position.dtype)
            away = 0.1 * noise if root is None else root @ noise
            position = position + jnp.where(starts.exact, 0, away)
        init, _ = _warmup(n_warmup, position.size, 0.5)
        adapted = init((position,), key_warmup, **learned)
        height, gradient = jax.value_and_grad(potential)(position)
        stats = {
            "acceptance_rate": jnp.zeros_like(height),
            "diverging": jnp.array(False),
            "energy": height,
            "n_steps": jnp.zeros((), int),
            "step_size": adapted.step_size,
        }
        return _Chain(position, height, gradient, adapted, key, stats)

    return jax.vmap(one, out_axes=_EACH)(starts.params, keys, starts.adaptation)


@program(static_argnames="n_warmup", donate_argnames="kept")
def _advance(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    like: Params,
    target: Array,
    state: _Chain,
    kept: dict[str, Any],
    start: Array | int,
    stop: Array | int,
    n_warmup: int,
    thinning: Array | int,
) -> tuple[_Chain, dict[str, Any]]:
    def potential(vector: Array) -> Array:
        return -log_density(model, x, sample_weight, vector, like)

    _, adapt = _warmup(n_warmup, state.position.shape[1], target)

    def step(i: Array, state: _Chain) -> tuple[_Chain, dict[str, Any]]:
        state = jax.vmap(functools.partial(_draw, potential), (_EACH,), _EACH)(state)
        # All chains are at the same point of the warm-up, so that nothing of it is
        # computed where it is over.
        learn = jax.vmap(adapt, (None, 0, 0, _EACH.adapted), _EACH.adapted)
        adapted = lax.cond(
            i < n_warmup,
            lambda: learn(i, state.stats["acceptance_rate"], (state.position,), state.adapted),
            lambda: state.adapted,
        )
        return state._replace(adapted=adapted), _record(state)

    return iterate(step, state, kept, start, stop, n_warmup, thinning, x)


def _record(state: _Chain) -> dict[str, Any]:
    return {"position": state.position, "stats": state.stats}


def _draw(potential: Callable[[Array], Array], chain: _Chain) -> _Chain:
    """One draw. The tree grows in units in which the mass matrix is the identity."""
    _, _, root, root_inverse, *_ = chain.adapted
    # NumPyro's roots R of the mass matrix: M = R R^T.
    scale = jnp.multiply if root.ndim == 1 else jnp.matmul
    to_position = lambda v: chain.position + scale(root_inverse.T, v)
    key, key_momentum, key_tree = jax.random.split(chain.key, 3)
    origin = jnp.zeros_like(chain.position)
    one = jnp.ones_like(origin)
    state = IntegratorState(
        origin,
        jax.random.normal(key_momentum, origin.shape, origin.dtype),
        chain.potential,
        scale(root_inverse, chain.gradient),
    )
    _, leapfrog = velocity_verlet(lambda v: potential(to_position(v)), euclidean_kinetic_energy)
    tree = build_tree(
        leapfrog, euclidean_kinetic_energy, state, one, chain.adapted.step_size, key_tree
    )
    stats = {
        "acceptance_rate": tree.sum_accept_probs / tree.num_proposals,
        "diverging": tree.diverging,
        "energy": tree.z_proposal_energy,
        "n_steps": tree.num_proposals,
        "step_size": chain.adapted.step_size,
    }
    position, gradient = to_position(tree.z_proposal), scale(root, tree.z_proposal_grad)
    return _Chain(position, tree.z_proposal_pe, gradient, chain.adapted, key, stats)


@program()
def _constrained(model: LatentModel, like: Params, position: Float[Array, "s c d"]) -> Params:
    """Unconstrained draws as parameters."""
    return jax.vmap(jax.vmap(lambda vector: from_vector(model, vector, like)[0]))(position)
