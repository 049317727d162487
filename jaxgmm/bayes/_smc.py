"""Tempered sequential Monte Carlo: populations of particles from prior to posterior."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro import handlers
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn
from tqdm.auto import tqdm

from jaxgmm._contract import LatentModel, Params
from jaxgmm._evidence import Evidence
from jaxgmm.bayes._chains import Draws, Schedule

# No ladder of a mixture needs as many rungs: one that does is stuck.
_MOST_RUNGS = 500

# Rungs between two looks of the progress bar.
_RUNGS_PER_LOOK = 5

# Numbers that one block of particles may hold beside the data: populations times
# particles times rows times labels.
_BLOCK_NUMBERS = 2**25

_TARGET_ACCEPTANCE = 0.8


class _Population(NamedTuple):
    """One population on its way; `n_rungs` have been climbed."""

    tempered: Any
    kernel: dict[str, Array]
    log_step: Array
    log_evidence: Array
    ladder: Float[Array, " rungs"]
    acceptance: Float[Array, " rungs"]
    n_rungs: Array
    done: Array
    key: PRNGKeyArray


def smc(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    modes: Params,
    key: PRNGKeyArray,
    schedule: Schedule,
    progress: bool,
    *,
    target_ess: float = 0.7,
    n_moves: int = 4,
    n_leapfrog: int = 8,
) -> Draws:
    populations = jax.tree.leaves(modes)[0].shape[0]
    keys = jax.random.split(key, populations)
    batch = max(1, _BLOCK_NUMBERS // (populations * x.size * model.n_components))
    batch = 0 if batch >= schedule.n_draws else batch
    data = model, x, sample_weight
    state = _begin(*data, keys, schedule.n_draws)
    counts = n_moves, n_leapfrog, batch
    rungs = 0
    while rungs < _MOST_RUNGS and not np.all(state.done):
        state = _climb(*data, state, target_ess, *counts, rungs + _RUNGS_PER_LOOK)
        rungs += _RUNGS_PER_LOOK
        if progress and False:
            print(rungs, state.tempered.tempering_param, state.log_evidence, jnp.exp(state.log_step), state.acceptance[:, rungs-1])
    params = _constrained(*data, state.tempered.particles)
    return params, state


def _densities(model: LatentModel, x: Array, sample_weight: Array | None):
    """Log prior and log likelihood of a vector of NumPyro's unconstrained coordinates."""
    kwargs = {"sample_weight": sample_weight}
    example = jax.eval_shape(
        lambda: _coordinates(model, x, sample_weight, model.draw_prior(jax.random.key(0)))
    )
    unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), example))[1]
    prior = handlers.block(model.numpyro_model, hide=["x"])

    def log_prior(z: Array) -> Array:
        return -potential_energy(prior, (x,), kwargs, unravel(z))

    def params(z: Array) -> Params:
        return model.from_sites(constrain_fn(model.numpyro_model, (x,), kwargs, unravel(z)))

    def log_likelihood(z: Array) -> Array:
        return model.log_likelihood(params(z), x, sample_weight)

    return log_prior, log_likelihood, params


def _coordinates(model, x, sample_weight, params):
    kwargs = {"sample_weight": sample_weight}
    return unconstrain_fn(model.numpyro_model, (x,), kwargs, model.sites(params))


@functools.partial(jax.jit, static_argnames="n_particles")
def _begin(model, x, sample_weight, keys, n_particles):
    from blackjax.smc.tempered import TemperedSMCState

    def one(key):
        key_draws, key_run = jax.random.split(key)
        draw = lambda k: ravel_pytree(_coordinates(model, x, sample_weight, model.draw_prior(k)))[0]
        particles = jax.vmap(draw)(jax.random.split(key_draws, n_particles))
        dtype = particles.dtype
        zero = jnp.zeros((), dtype)
        weights = jnp.full(n_particles, 1 / n_particles, dtype)
        tempered = TemperedSMCState(particles, weights, zero)
        log_prior, log_lik, _ = _densities(model, x, sample_weight)
        log_step = jnp.log(jnp.asarray(0.2, dtype))
        kernel = _tuned(key_run, log_prior, log_lik, tempered, log_step, 0)
        trace = jnp.full(_MOST_RUNGS, jnp.nan, dtype)
        return _Population(tempered, kernel, log_step, zero, trace, trace, jnp.zeros((), int), jnp.array(False), key_run)

    return jax.vmap(one)(keys)


def _tuned(key, log_prior, log_lik, tempered, log_step, batch):
    from blackjax.smc.base import map_fn
    lam = tempered.tempering_param
    grads = map_fn(jax.grad(lambda z: log_prior(z) + lam * log_lik(z)), batch)(tempered.particles)
    ok = jnp.all(jnp.isfinite(grads), axis=1)
    grads = jnp.where(ok[:, None], grads, 0)
    F = (grads.T * (tempered.weights * ok)) @ grads / jnp.sum(tempered.weights * ok)
    scale = jnp.sqrt(jnp.diag(F) + 1e-10)
    F = F / scale / scale[:, None]
    inv = jnp.linalg.inv(F + 1e-3 * jnp.eye(len(F))) / scale / scale[:, None]
    inv = 0.5 * (inv + inv.T)
    n = len(tempered.weights)
    jitter = jnp.exp(0.5 * jax.random.normal(key, (n,), F.dtype))
    return {"step_size": jnp.exp(log_step) * jitter, "inverse_mass_matrix": inv[None]}


@functools.partial(jax.jit, static_argnames=("n_moves", "n_leapfrog", "batch"))
def _climb(model, x, sample_weight, state, target_ess, n_moves, n_leapfrog, batch, stop):
    from blackjax.mcmc import hmc
    from blackjax.smc import adaptive_tempered, resampling

    log_prior, log_lik, _ = _densities(model, x, sample_weight)
    hmc_kernel = hmc.build_kernel()

    def move(key, state, logdensity, step_size, inverse_mass_matrix):
        return hmc_kernel(key, state, logdensity, step_size, inverse_mass_matrix, n_leapfrog)

    kernel = adaptive_tempered.build_kernel(
        log_prior, log_lik, move, hmc.init, resampling.systematic, target_ess, batch_size=batch
    )

    def rung(p):
        key, key_step, key_tune = jax.random.split(p.key, 3)
        done = p.tempered.tempering_param >= 1
        tempered, info = kernel(key_step, p.tempered, n_moves, p.kernel)
        acc = jnp.mean(info.update_info.acceptance_rate)
        log_step = p.log_step + 2 * (acc - _TARGET_ACCEPTANCE)
        tuned = _tuned(key_tune, log_prior, log_lik, tempered, log_step, batch)
        return _Population(
            tempered, tuned, log_step, p.log_evidence + info.log_likelihood_increment,
            p.ladder.at[p.n_rungs].set(tempered.tempering_param),
            p.acceptance.at[p.n_rungs].set(acc), p.n_rungs + 1, done, key)

    one = lambda p: lax.while_loop(lambda p: ~p.done & (p.n_rungs < stop), rung, p)
    return jax.vmap(one)(state)


@jax.jit
def _constrained(model, x, sample_weight, z):
    _, _, params = _densities(model, x, sample_weight)
    return jax.vmap(jax.vmap(params))(z)
