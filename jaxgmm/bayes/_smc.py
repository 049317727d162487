"""Tempered sequential Monte Carlo: populations of particles that go from prior to posterior.

blackjax makes arrays when it is imported, so that functions import it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray
from numpyro import handlers
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn

from jaxgmm._checks import check_count
from jaxgmm._contract import LatentModel, Params, Sites
from jaxgmm._programs import program
from jaxgmm.bayes._chains import Draws, Schedule
from jaxgmm.bayes._engine import Engine, check_share
from jaxgmm.bayes._evidence import Evidence
from jaxgmm.em import bar

# No ladder of a mixture needs as many rungs: a population that does is stuck.
MOST_RUNGS = 500

# Rungs between two looks of the progress bar.
_RUNGS_PER_LOOK = 5

# Numbers of one (label, row) table for all particles moved at once: they stay in the cache
# of a core; other devices want more work at once.
_BLOCK_NUMBERS = {"cpu": 2**19}
_BLOCK_NUMBERS_ELSEWHERE = 2**26

# Trajectories of so many steps, whose length varies from particle to particle (Buchholz,
# Chopin and Jacob, 2021) by this factor and its inverse.
_LEAPFROG_STEPS = 8
_LOG_JITTER = 0.5
_FIRST_STEP_SIZE = 0.2

# The step size follows the mean acceptance of the rung before.
_TARGET_ACCEPTANCE = 0.8
_STEP_GAIN = 2.0

# Share of its own diagonal that the preconditioner adds.
_SHRINKAGE = 1e-3

# The log likelihood where rounding has left none: zero times it is zero.
_IMPOSSIBLE = -1e30


class _Population(NamedTuple):
    """A population on its way up; what it has climbed is recorded by rung."""

    tempered: Any
    step_size: Float[Array, " particles"]
    inverse_mass: Float[Array, "1 p p"]
    log_step: Float[Array, ""]
    log_evidence: Float[Array, ""]
    variance: Float[Array, ""]
    acceptance: Float[Array, " particles"]
    diverging: Bool[Array, " particles"]
    ladder: Float[Array, " rungs"]
    rung: Int[Array, ""]
    done: Bool[Array, ""]
    key: PRNGKeyArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class SMC(Engine):
    """Adaptive tempering, a population for every chain.

    Particles start from the prior, which has to have draws (the covariances of VEI, EVI, VEE,
    EVE, VVE, EEV, VEV and EVV have none); of starts only the number counts. The likelihood is
    raised to powers from 0 to 1, each so far from the one before that weights keep a share of
    their effective size; in between, particles are resampled and moved by Hamiltonian Monte Carlo.

    Parameters
    ----------
    target_ess : float
        Share of their effective size that particles keep from one power to the next.
    n_moves : int
        Hamiltonian trajectories in between, at least one.

    Raises
    ------
    ValueError, TypeError
        For values that are no share, or no number of trajectories.

    References
    ----------
    Del Moral, Doucet and Jasra (2006), JRSS B 68:411-436.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> jg.bayes.SMC(n_moves=8)
    SMC(target_ess=0.5, n_moves=8)
    """

    name = "smc"

    target_ess: float = 0.5
    n_moves: int = 4

    def __post_init__(self):
        check_share("target_ess", self.target_ess)
        check_count("n_moves", self.n_moves, 1)

    def draw(self, model, x, sample_weight, starts, key, schedule, progress):
        populations = starts.n_chains
        model.check_coordinates(x.dtype)
        _check(schedule, populations)
        data = model, x, sample_weight
        try:
            population = _begin(*data, jax.random.split(key, populations), schedule.n_draws)
        except NotImplementedError as error:
            # What NumPyro's distributions without draws raise.
            raise ValueError(
                f'method: "smc" starts from draws of the prior, but {error}'
            ) from error
        settings = (
            self.target_ess,
            self.n_moves,
            batch_size(model, x, populations, schedule.n_draws),
        )
        with bar(f"SMC, {populations} populations, rungs", progress) as shown:
            look = MOST_RUNGS if shown.disable else _RUNGS_PER_LOOK
            for stop in range(look, MOST_RUNGS + 1, look):
                population = _climb(*data, population, *settings, stop)
                power = np.min(np.asarray(population.tempered.tempering_param))
                shown.set_postfix(power=float(power))
                shown.update(look)
                if np.all(np.asarray(population.done)):
                    break
        if power < 1:
            raise FloatingPointError(
                f"smc: not all populations went from prior to posterior in {MOST_RUNGS} rungs; "
                "raise n_moves or n_draws, or look for a prior under which the likelihood overflows"
            )
        rungs = int(np.max(np.asarray(population.rung)))
        return Draws(
            _constrained(*data, population.tempered.particles),
            {"acceptance_rate": population.acceptance, "diverging": population.diverging},
            evidence=_evidence(
                np.asarray(population.log_evidence),
                np.asarray(population.variance),
                schedule.n_draws,
            ),
            diagnostics={
                "powers": np.asarray(population.ladder)[:, :rungs],
                "log_evidence": population.log_evidence,
            },
        )


def batch_size(model: LatentModel, x: Array, populations: int, n_particles: int) -> int:
    """Particles of a population to move at once; zero stands for all."""
    numbers = _BLOCK_NUMBERS.get(jax.default_backend(), _BLOCK_NUMBERS_ELSEWHERE)
    batch = max(1, numbers // (populations * x.shape[0] * model.n_components))
    return 0 if batch >= n_particles else batch


def _check(schedule: Schedule, populations: int) -> None:
    if populations < 2:
        raise ValueError(
            'n_chains: method="smc" judges its evidence by how populations differ, so it needs '
            f"at least 2, found {populations}"
        )
    if schedule.thinning != 1:
        raise ValueError(
            'thinning: particles of method="smc" are no sequence to thin; raise n_moves instead'
        )


def _evidence(
    by_population: Float[np.ndarray, " c"], variance: Float[np.ndarray, " c"], n_particles: int
) -> Evidence:
    """Of the mean of the populations' estimates, each of which is unbiased.

    Its error is how they differ, but no less than what the weights alone, ``variance``, leave
    to moves that forget where they came from: a few populations may agree by chance.
    """
    count, top = by_population.size, np.max(by_population)
    scaled = np.exp(by_population - top)
    mean = np.mean(scaled)
    relative = max(np.var(scaled, ddof=1) / mean**2, np.mean(variance))
    return Evidence(
        float(np.log(mean) + top),
        float(np.sqrt(relative / count)),
        f"tempered SMC, {count} populations of {n_particles} from the prior, "
        "which covers all labellings",
    )


class _Density(NamedTuple):
    """The model as functions of a vector of NumPyro's unconstrained coordinates."""

    log_prior: Callable[[Array], Array]
    log_likelihood: Callable[[Array], Array]
    params: Callable[[Array], Params]


def _density(model: LatentModel, x: Array, sample_weight: Array | None) -> _Density:
    example = jax.eval_shape(lambda: _from_prior(model, x, jax.random.key(0)))
    unravel = ravel_pytree(jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), example))[1]
    prior = handlers.block(model.numpyro_model, hide=["x"])

    def params(z: Array) -> Params:
        return model.from_sites(constrain_fn(model.numpyro_model, (x,), {}, unravel(z)))

    def log_likelihood(z: Array) -> Array:
        value = model.log_likelihood(params(z), x, sample_weight)
        return jnp.where(jnp.isfinite(value), value, _IMPOSSIBLE)

    return _Density(
        lambda z: -potential_energy(prior, (x,), {}, unravel(z)), log_likelihood, params
    )


def _from_prior(model: LatentModel, x: Array, key: PRNGKeyArray) -> Sites:
    """A draw from the prior in unconstrained coordinates."""
    sites = model.sites(model.draw_prior(key))
    return unconstrain_fn(model.numpyro_model, (x,), {}, sites)


@program(static_argnames="n_particles")
def _begin(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    keys: Key[Array, " c"],
    n_particles: int,
) -> _Population:
    """Populations from the prior. Their first move is of draws that need none."""
    from blackjax.smc import tempered

    def one(key: PRNGKeyArray) -> _Population:
        key_particles, key_run = jax.random.split(key)
        draw = lambda k: ravel_pytree(_from_prior(model, x, k))[0]
        particles = jax.vmap(draw)(jax.random.split(key_particles, n_particles))
        zero = jnp.zeros((), particles.dtype)
        each = jnp.full(n_particles, 1 / n_particles, particles.dtype)
        return _Population(
            tempered=tempered.TemperedSMCState(particles, each, zero),
            step_size=jnp.full_like(each, _FIRST_STEP_SIZE),
            inverse_mass=jnp.diag(jnp.var(particles, axis=0))[None],
            log_step=jnp.full_like(zero, jnp.log(_FIRST_STEP_SIZE)),
            log_evidence=zero,
            variance=zero,
            acceptance=each,
            diverging=jnp.zeros(n_particles, bool),
            ladder=jnp.full(MOST_RUNGS, jnp.nan, particles.dtype),
            rung=jnp.zeros((), jnp.int32),
            done=jnp.array(False),
            key=key_run,
        )

    return jax.vmap(one)(keys)


@program(static_argnames=("n_moves", "batch"))
def _climb(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    population: _Population,
    target_ess: Array | float,
    n_moves: int,
    batch: int,
    stop: Array | int,
) -> _Population:
    """All populations up to rung ``stop``, or to the posterior."""
    from blackjax.mcmc import hmc
    from blackjax.smc import adaptive_tempered, resampling

    density = _density(model, x, sample_weight)
    trajectory = hmc.build_kernel()
    move = lambda key, state, log_density, step_size, inverse_mass_matrix: trajectory(
        key, state, log_density, step_size, inverse_mass_matrix, _LEAPFROG_STEPS
    )
    kernel = adaptive_tempered.build_kernel(
        density.log_prior,
        density.log_likelihood,
        move,
        hmc.init,
        resampling.systematic,
        target_ess,  # pyright: ignore[reportArgumentType]
        batch_size=batch,
    )

    def step(old: _Population) -> _Population:
        key, key_step, key_tune = jax.random.split(old.key, 3)
        parameters = {"step_size": old.step_size, "inverse_mass_matrix": old.inverse_mass}
        tempered, info = kernel(key_step, old.tempered, n_moves, parameters)
        moves = info.update_info
        acceptance = jnp.mean(moves.acceptance_rate, axis=1)
        change = _STEP_GAIN * (jnp.mean(acceptance) - _TARGET_ACCEPTANCE)
        log_step = old.log_step + change
        noise = jax.random.normal(key_tune, acceptance.shape, acceptance.dtype)
        return _Population(
            tempered,
            jnp.exp(log_step + _LOG_JITTER * noise),
            _inverse_mass(density, tempered, batch)[None],
            log_step,
            old.log_evidence + info.log_likelihood_increment,
            old.variance + jnp.sum(tempered.weights**2) - 1 / acceptance.size,
            acceptance,
            jnp.any(moves.is_divergent, axis=1),
            old.ladder.at[old.rung].set(tempered.tempering_param),
            old.rung + 1,
            # The kernel moves before it weighs: one more rung moves the posterior's own.
            old.tempered.tempering_param >= 1,
            key,
        )

    going = lambda p: ~p.done & (p.rung < stop)
    return jax.vmap(lambda p: lax.while_loop(going, step, p))(population)


def _inverse_mass(density: _Density, tempered: Any, batch: int) -> Float[Array, "p p"]:
    """Inverse of the mean outer product of the scores: the mean curvature (Titsias, 2023).

    Unlike the covariance of the particles it knows nothing of how far modes are apart.
    """
    from blackjax.smc.base import map_fn

    target = lambda z: density.log_prior(z) + tempered.tempering_param * density.log_likelihood(z)
    scores = map_fn(jax.grad(target), batch)(tempered.particles)
    known = jnp.all(jnp.isfinite(scores), axis=1)
    scores = jnp.where(known[:, None], scores, 0)
    weights = tempered.weights * known
    information = (weights * scores.T) @ scores / jnp.sum(weights)
    size = jnp.sqrt(jnp.diag(information))
    size = jnp.where(size > 0, size, 1)
    shrunk = information / size / size[:, None] + _SHRINKAGE * jnp.eye(len(size), dtype=size.dtype)
    return jnp.linalg.inv(shrunk) / size / size[:, None]


@program()
def _constrained(
    model: LatentModel, x: Array, sample_weight: Array | None, z: Float[Array, "c s p"]
) -> Params:
    return jax.vmap(jax.vmap(_density(model, x, sample_weight).params))(z)
