"""No-U-turn sampling of the NumPyro model, compiled once per shape.

`numpyro.infer.MCMC` traces and compiles anew at each ``run``; its functional kernel,
used here inside functions that JAX caches by shape, does not.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Key, PRNGKeyArray
from numpyro.infer.hmc import hmc
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn
from tqdm.auto import tqdm

from jaxgmm._contract import LatentModel, Params, Sites

# A dense mass matrix, and the Hessian that starts it, up to this many dimensions.
_DENSE_LIMIT = 300

# Smallest curvature, relative to the largest, that the first mass matrix believes in:
# along flatter directions chains start within ten of the largest curvature's units.
_LEAST_CURVATURE = 1e-2

# Mixtures have narrow passages between modes: steps are shorter than NumPyro's default
# of 0.8 makes them.
_TARGET_ACCEPTANCE = 0.9

# Host calls per run: each draws one step of the progress bar.
_PROGRESS_STEPS = 20


class Draws(NamedTuple):
    """What a sampler returns: parameters (chain, draw, ...) and its own statistics."""

    params: Params
    stats: dict[str, Array]


def nuts(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    modes: Params,
    key: PRNGKeyArray,
    n_draws: int,
    n_warmup: int,
    progress: bool,
) -> Draws:
    """Draw by NUTS (Hoffman and Gelman, 2014), one chain from each of ``modes``.

    Warm-up adapts step size and mass matrix as in Stan. The target is
    ``model.numpyro_model`` in NumPyro's unconstrained coordinates.
    """
    chains = jax.tree.leaves(modes)[0].shape[0]
    keys = jax.random.split(key, chains)
    state = _begin(model, x, sample_weight, modes, keys, n_warmup)
    total = n_warmup + n_draws
    trail = _empty_trail(state, n_draws)
    steps = _PROGRESS_STEPS if progress else 1
    edges = [total * i // steps for i in range(steps + 1)]
    bar = tqdm(total=total, desc=f"NUTS, {chains} chains", disable=not progress, leave=False)
    with bar:
        for start, stop in itertools.pairwise(edges):
            state, trail = _advance(model, x, sample_weight, state, trail, start, stop, n_warmup)
            jax.block_until_ready(trail)
            bar.update(stop - start)
    return Draws(_constrain(model, x, sample_weight, trail["z"]), trail["stats"])


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


def _empty_trail(state: Any, n_draws: int) -> dict[str, Any]:
    """Room for the draws: a leading axis of draws on every recorded quantity."""
    recorded = jax.eval_shape(_record, state)
    return jax.tree.map(lambda leaf: jnp.zeros((n_draws, *leaf.shape), leaf.dtype), recorded)


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


@functools.partial(jax.jit, static_argnames="n_warmup", donate_argnames="trail")
def _advance(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    state: Any,
    trail: dict[str, Any],
    start: Array | int,
    stop: Array | int,
    n_warmup: int,
) -> tuple[Any, dict[str, Any]]:
    """Iterations ``start`` to ``stop`` of all chains; the bounds are traced."""
    init_kernel, sample_kernel = _kernels(model, x, sample_weight)
    # NumPyro's kernel learns its settings from its init; nothing of this is computed.
    jax.eval_shape(jax.vmap(lambda s: _init(init_kernel, s.rng_key, s.z, None, n_warmup)), state)

    def iterate(i: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        state, trail = carry
        state = jax.vmap(sample_kernel)(state)
        # Warm-up iterations write to row 0, which the first draw then overwrites.
        row = jnp.maximum(i - n_warmup, 0)
        trail = jax.tree.map(lambda room, new: room.at[row].set(new), trail, _record(state))
        return state, trail

    return lax.fori_loop(start, stop, iterate, (state, trail))


@jax.jit
def _constrain(model: LatentModel, x: Array, sample_weight: Array | None, z: Sites) -> Params:
    """Unconstrained draws (draw, chain, ...) as parameters (chain, draw, ...)."""
    kwargs = {"sample_weight": sample_weight}

    def one(z: Sites) -> Params:
        return model.from_sites(constrain_fn(model.numpyro_model, (x,), kwargs, z))

    params = jax.vmap(jax.vmap(one))(z)
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), params)
