"""A posterior from a start: checks, chains from EM's modes, labels matched."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from jaxgmm._checks import check_count, check_key, check_name, check_options
from jaxgmm._contract import LatentModel, Params
from jaxgmm._numerics import at_once, widened
from jaxgmm._programs import in_slices, on_rung, program
from jaxgmm.bayes._chains import Draws, Schedule, device_mesh, on_all
from jaxgmm.bayes._engine import Engine
from jaxgmm.bayes._gibbs import Gibbs
from jaxgmm.bayes._importance import importance
from jaxgmm.bayes._labelling import all_sites, highest, match_labels, relabelled
from jaxgmm.bayes._laplace import Laplace
from jaxgmm.bayes._nuts import NUTS
from jaxgmm.bayes._posterior import Posterior
from jaxgmm.bayes._smc import SMC
from jaxgmm.bayes._starts import Beginning, beginning, check_same_data
from jaxgmm.bayes._svi import SVI
from jaxgmm.bayes._vb import VB
from jaxgmm.em import prepare

# A new engine is one file and one name here.
METHODS: dict[str, type[Engine]] = {
    engine.name: engine for engine in (NUTS, Gibbs, SMC, Laplace, VB, SVI)
}

_DEFAULT_WARMUP = 500


def sampled(
    model: LatentModel,
    x: Any,
    *,
    key: PRNGKeyArray,
    start: Any,
    method: str | Engine = "nuts",
    n_chains: int | None = None,
    n_draws: int = 1000,
    n_warmup: int | None = None,
    thinning: int = 1,
    sample_weight: Any = None,
    progress: bool = True,
    **options: Any,
) -> Posterior:
    """`jaxgmm.sample` from a given start."""
    engine = engine_of(method, options)
    check_key(key, "sampling is random")
    least_counts = {"n_draws": (n_draws, 4), "thinning": (thinning, 1)}
    if n_chains is not None:
        least_counts["n_chains"] = (n_chains, 1)
    for name, (count, least) in least_counts.items():
        check_count(name, count, least)
    if n_warmup is None:
        n_warmup = 0 if isinstance(start, Posterior) else _DEFAULT_WARMUP
    check_count("n_warmup", n_warmup, 0)
    model.check_samplable()
    problem = prepare(model, x, sample_weight)
    check_same_data(start, problem)
    start = start.near if isinstance(start, Posterior) else problem.begin(start)
    model, x, sample_weight = problem.model, problem.x, problem.sample_weight
    key, key_starts = jax.random.split(key)
    begun = beginning(model, x, sample_weight, start, n_chains, engine.name, key_starts)

    # Chains run in JAX's default precision: NumPyro's kernel knows no other.
    wide = widened((model, x))
    wide = wide[0], *on_rung(*wide, widened(sample_weight))
    params = widened(begun.starts.params)
    mesh = device_mesh(begun.starts.n_chains, x)
    wide, params = on_all(mesh, (wide, params))
    working, params = to_working(*wide, params)
    working = working.settled(params)
    starts = begun.starts._replace(params=params)
    schedule = Schedule(n_draws, n_warmup, thinning)
    draws = engine.draw(working, wide[1], wide[2], starts, key, schedule, progress)
    drawn = draws.params
    if mesh.size > 1:  # what follows is for the device where the rows are
        drawn = jax.tree.map(np.asarray, drawn)
    log_likelihood = draws.log_likelihood
    if log_likelihood is None:
        of_slice = lambda part: _log_likelihood(working, *wide[1:], part)
        log_likelihood = in_slices(of_slice, drawn, 2)
    draws = draws._replace(params=drawn, log_likelihood=np.asarray(log_likelihood))
    found = assembled(
        model, wide[0], working, x, sample_weight, draws, begun, method=engine.name,
        fingerprint=problem.fingerprint, feature_names=problem.feature_names,
        row_names=problem.row_names,
    )  # fmt: skip
    if problem.origin is None:
        return found
    return found.moved(problem.origin, problem.wide, problem.fingerprint)


def named(method: str | Engine, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of an engine and its options, which one that is no name has in itself."""
    if isinstance(method, Engine):
        for name in options:
            kind = type(method).__name__
            raise TypeError(f"{name}: belongs into method, as in {kind}({name}=...)")
        return method.name, method.options
    if isinstance(method, type) and issubclass(method, Engine):
        raise TypeError(f"method: needs an engine, as {method.__name__}() makes, found the class")
    return check_name("method", method, METHODS), options


def engine_of(method: str | Engine, options: dict[str, Any]) -> Engine:
    """An engine by name and options, or one that has its options, which may be one's own."""
    name, options = named(method, options)
    if isinstance(method, Engine):
        return method
    check_options(name, METHODS[name], options)
    return METHODS[name](**options)


def assembled(
    model: LatentModel,
    wide: LatentModel,
    working: LatentModel,
    x: Any,
    sample_weight: Any,
    draws: Draws,
    begun: Beginning,
    **known: Any,
) -> Posterior:
    """The posterior of draws whose log likelihoods are known, their labels matched.

    ``wide`` is the model in the precision of the draws, ``working`` the one that was sampled, and
    ``known`` further fields.
    """
    raw = jax.tree.map(np.asarray, _to_user(working, draws.params))
    log_prior = in_slices(lambda part: _log_prior(wide, part), raw, 2)
    log_likelihood = np.asarray(draws.log_likelihood)
    log_joint = log_prior + log_likelihood
    weighing = None
    if draws.log_proposal is not None:
        weighing = importance(log_joint, np.asarray(draws.log_proposal))
    reference = highest(raw, log_joint) if begun.reference is None else begun.reference
    labelling = match_labels(model, x, raw, reference)
    params = relabelled(model, raw, labelling.order)
    diagnostics = jax.tree.map(np.asarray, draws.diagnostics)
    if begun.note:
        diagnostics["starts"] = begun.note
    narrow = lambda tree: jax.tree.map(lambda a: np.asarray(a, x.dtype), tree)
    return Posterior(
        model=model,
        x=x,
        sample_weight=sample_weight,
        draws=narrow(all_sites(model, params)),
        draws_raw=narrow(all_sites(model, raw)),
        params=jax.tree.map(np.asarray, params),
        labels=np.asarray(labelling.order),
        label_clarity=np.asarray(labelling.clarity),
        log_prior=log_prior,
        log_likelihood=log_likelihood,
        sample_stats={name: np.asarray(s) for name, s in draws.stats.items()},
        n_warmup=draws.n_warmup,
        log_weights=None if weighing is None else weighing.log_weights,
        pareto_k=None if weighing is None else weighing.pareto_k,
        evidence=draws.evidence,
        diagnostics=diagnostics,
        start=begun.kind,
        adaptation=jax.tree.map(np.asarray, draws.adaptation),
        **known,
    )


@program()
def to_working(
    model: LatentModel, x: Array, sample_weight: Array | None, params: Params
) -> tuple[LatentModel, Params]:
    working = model.standardise(x, sample_weight)
    return working, jax.vmap(working.to_working)(params)


@program()
def _to_user(working: LatentModel, params: Params) -> Params:
    return jax.vmap(jax.vmap(working.to_user))(params)


@program()
def _log_prior(model: LatentModel, params: Params) -> Array:
    return jax.vmap(model.log_prior)(params)


@program()
def _log_likelihood(
    model: LatentModel, x: Array, sample_weight: Array | None, params: Params
) -> Array:
    """Of each draw, a few at a time."""
    batch = at_once(x.shape[0] * model.n_components, x.dtype)
    one = lambda p: model.log_likelihood(p, x, sample_weight)
    return jax.lax.map(one, params, batch_size=batch)
