"""No-U-turn sampling of the NumPyro model, compiled once per shape.

`numpyro.infer.MCMC` traces and compiles anew at each ``run``; its functional kernel,
used here inside functions that JAX caches by shape, does not.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Key, PRNGKeyArray
from numpyro.infer.hmc import hmc
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn

from jaxgmm._contract import LatentModel, Params, Sites
from jaxgmm.bayes._chains import Draws, Schedule, chains_first, iterate, run, trail

# A dense mass matrix, and the Hessian that starts it, up to this many dimensions.
_DENSE_LIMIT = 300

# Smallest curvature, relative to the largest, that the first mass matrix believes in:
# along flatter directions chains start within ten of the largest curvature's units.
_LEAST_CURVATURE = 1e-2

# Mixtures have narrow passages between modes: steps are shorter than NumPyro's default
# of 0.8 makes them.
_TARGET_ACCEPTANCE = 0.9


def nuts(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    modes: Params,
    key: PRNGKeyArray,
    schedule: Schedule,
    progress: bool,
) -> Draws:
    """Draw by NUTS (Hoffman and Gelman, 2014), one chain from each of ``modes``.

    Warm-up adapts step size and mass matrix as in Stan. The target is
    ``model.numpyro_model`` in NumPyro's unconstrained coordinates.
    """
    chains = jax.tree.leaves(modes)[0].shape[0]
    keys = jax.random.split(key, chains)
    state = _begin(model, x, sample_weight, modes, keys, schedule.n_warmup)
    kept = trail(jax.eval_shape(_record, state), schedule.n_draws)

    def advance(state: Any, kept: Any, start: int, stop: int) -> tuple[Any, Any]:
        counts = schedule.n_warmup, schedule.thinning
        return _advance(model, x, sample_weight, state, kept, start, stop, *counts)

    kept = run(advance, state, kept, schedule.total, f"NUTS, {chains} chains", progress)
    params = _constrain(model, x, sample_weight, kept["z"])
    return Draws(*chains_first((params, kept["stats"])), n_warmup=schedule.n_warmup)


def _kernels(model: LatentModel, x: Array, sample_weight: Array | None) -> tuple[Any, Any]:
    kwargs = {"sample_weight": sample_weight}
    return hmc(lambda z: potential_energy(model.numpyro_model, (x,), kwargs, z), algo="NUTS")


def _init(
    init_kernel: Any, key: PRNGKeyArray, z: Sites, inverse_mass: Array | None, n_warmup: int
) -> Any:
    return init_kernel(
        z,
        n_warmup,
        inverse_mass_matrix=inverse_mass,
        dense_mass=_size(z) <= _DENSE_LIMIT,
        target_accept_prob=_TARGET_ACCEPTANCE,
        rng_key=key,
    )


def _size(z: Sites) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(z))


@functools.partial(jax.jit, static_argnames="n_warmup")
def _begin(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    modes: Params,
    keys: Key[Array, " chains"],
    n_warmup: int,
) -> Any:
    """One sampler state per chain, spread over the curvature at its mode."""
    init_kernel, _ = _kernels(model, x, sample_weight)
    kwargs = {"sample_weight": sample_weight}

    def one(mode: Params, key: PRNGKeyArray) -> Any:
        centre = unconstrain_fn(model.numpyro_model, (x,), kwargs, model.sites(mode))
        flat, unravel = ravel_pytree(centre)
        key_spread, key_chain = jax.random.split(key)
        noise = jax.random.normal(key_spread, flat.shape, flat.dtype)
        inverse_mass = None
        if flat.size <= _DENSE_LIMIT:

            def potential(v: Array) -> Array:
                return potential_energy(model.numpyro_model, (x,), kwargs, unravel(v))

            curvature, axes = jnp.linalg.eigh(jax.hessian(potential)(flat))
            floor = _LEAST_CURVATURE * jnp.max(jnp.abs(curvature))
            spread = axes / jnp.sqrt(jnp.maximum(jnp.abs(curvature), floor))
            noise = spread @ noise
            inverse_mass = spread @ spread.T
        else:
            noise = 0.1 * noise
        return _init(init_kernel, key_chain, unravel(flat + noise), inverse_mass, n_warmup)

    return jax.vmap(one)(modes, keys)


def _record(state: Any) -> dict[str, Any]:
    return {
        "z": state.z,
        "stats": {
            "acceptance_rate": state.accept_prob,
            "diverging": state.diverging,
            "energy": state.energy,
            "n_steps": state.num_steps,
            "step_size": state.adapt_state.step_size,
        },
    }


@functools.partial(jax.jit, static_argnames="n_warmup", donate_argnames="kept")
def _advance(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    state: Any,
    kept: dict[str, Any],
    start: Array | int,
    stop: Array | int,
    n_warmup: int,
    thinning: Array | int,
) -> tuple[Any, dict[str, Any]]:
    init_kernel, sample_kernel = _kernels(model, x, sample_weight)
    # NumPyro's kernel learns its settings from its init; nothing of this is computed.
    jax.eval_shape(jax.vmap(lambda s: _init(init_kernel, s.rng_key, s.z, None, n_warmup)), state)

    def step(state: Any) -> tuple[Any, dict[str, Any]]:
        state = sample_kernel(state)
        return state, _record(state)

    return iterate(step, state, kept, start, stop, n_warmup, thinning)


@jax.jit
def _constrain(model: LatentModel, x: Array, sample_weight: Array | None, z: Sites) -> Params:
    """Unconstrained draws as parameters."""
    kwargs = {"sample_weight": sample_weight}

    def one(z: Sites) -> Params:
        return model.from_sites(constrain_fn(model.numpyro_model, (x,), kwargs, z))

    return jax.vmap(jax.vmap(one))(z)
