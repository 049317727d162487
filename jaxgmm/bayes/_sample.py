"""The door to posteriors: checks, chains from EM's modes, labels matched."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgmm._checks import check_count, check_key, check_name, feature_names
from jaxgmm._contract import LatentModel, Params, Sites
from jaxgmm._posterior import Posterior
from jaxgmm._results import SAME_OPTIMUM, Fit, Status, fingerprint
from jaxgmm.bayes._chains import Schedule
from jaxgmm.bayes._gibbs import gibbs
from jaxgmm.bayes._importance import importance
from jaxgmm.bayes._nuts import nuts
from jaxgmm.bayes._relabel import stephens
from jaxgmm.bayes._smc import smc

# A new engine is one file and one line here. What it takes by keyword only are its options.
METHODS = {"nuts": nuts, "gibbs": gibbs, "smc": smc}

_DEFAULT_WARMUP = 500

# Rows that decide the labels: more would not change them, only cost memory.
_LABEL_ROWS = 2000

# Chains start from every distinct optimum that is not hopeless: within this many units
# of log joint of the best (odds of 1 to 20000).
_MODE_RANGE = 10.0


def sample(
    model: LatentModel,
    x: Any,
    *,
    key: PRNGKeyArray,
    start: Fit,
    method: str = "nuts",
    n_chains: int = 4,
    n_draws: int = 1000,
    n_warmup: int | None = None,
    thinning: int = 1,
    sample_weight: Any = None,
    progress: bool = True,
    **options: Any,
) -> Posterior:
    """`jaxgmm.sample` with the fit that it starts from."""
    check_name("method", method, METHODS)
    _check_options(method, options)
    check_key(key, "sampling is random")
    least_counts = {"n_chains": (n_chains, 1), "n_draws": (n_draws, 4), "thinning": (thinning, 1)}
    for name, (count, least) in least_counts.items():
        check_count(name, count, least)
    n_warmup = _DEFAULT_WARMUP if n_warmup is None else check_count("n_warmup", n_warmup, 0)
    names = feature_names(x)
    x, sample_weight = model.check_data(x, sample_weight)
    model.check_samplable()
    model.check_model(x, sample_weight)
    model = model.resolve(x, sample_weight)
    if not isinstance(start, Fit):
        raise TypeError(f"start: needs a Fit from jaxgmm.fit, found {type(start).__name__}")
    digest = fingerprint(x, sample_weight)
    if start.fingerprint != digest:
        raise ValueError("start: this fit is of other data or weights; fit x first")

    # Chains run in JAX's default precision: NumPyro's kernel knows no other.
    wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.result_type(float)), (model, x, sample_weight))
    modes = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.result_type(float)), _chain_starts(start, n_chains)
    )
    working, modes = _to_working(*wide, modes)
    key, _ = jax.random.split(key)
    schedule = Schedule(n_draws, n_warmup, thinning)
    draws = METHODS[method](working, wide[1], wide[2], modes, key, schedule, progress, **options)
    raw = _to_user(working, draws.params)
    order = _label_order(model, x, raw, start.params)
    relabelled = _relabelled(model, raw, order)
    log_likelihood = draws.log_likelihood
    if log_likelihood is None:
        log_likelihood = _log_likelihood(*wide, raw)
    log_prior = np.asarray(_log_prior(wide[0], raw))
    weighing = None
    if draws.log_proposal is not None:
        log_target = log_prior + np.asarray(log_likelihood)
        weighing = importance(log_target, np.asarray(draws.log_proposal))
    narrow = lambda tree: jax.tree.map(lambda a: np.asarray(a, x.dtype), tree)
    return Posterior(
        model=model,
        method=method,
        x=x,
        sample_weight=sample_weight,
        draws=narrow(_all_sites(model, relabelled)),
        draws_raw=narrow(_all_sites(model, raw)),
        params=jax.tree.map(np.asarray, relabelled),
        labels=np.asarray(order),
        log_prior=log_prior,
        log_likelihood=np.asarray(log_likelihood),
        sample_stats={name: np.asarray(s) for name, s in draws.stats.items()},
        n_warmup=n_warmup,
        fingerprint=digest,
        feature_names=names,
        log_weights=None if weighing is None else weighing.log_weights,
        pareto_k=None if weighing is None else weighing.pareto_k,
        evidence=draws.evidence,
        diagnostics=jax.tree.map(np.asarray, draws.diagnostics),
    )


def _check_options(method: str, options: dict[str, Any]) -> None:
    parameters = inspect.signature(METHODS[method]).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            has = f"its options are {', '.join(known)}" if known else "it has no options"
            raise TypeError(f"{name}: not an option of method={method!r}; {has}")


def _chain_starts(fit: Fit, n_chains: int) -> Params:
    """Parameters of the distinct optima in reach, dealt out to the chains in turn."""
    near = [
        int(optimum.starts[0])
        for optimum in fit.optima
        if optimum.status in (Status.CONVERGED, Status.OUT_OF_ITERATIONS)
        and not optimum.spurious
        and 0 <= fit.log_joint - optimum.log_joint + SAME_OPTIMUM <= _MODE_RANGE
    ]
    chosen = near or [fit.best]
    dealt = [chosen[c % len(chosen)] for c in range(n_chains)]
    return jax.tree.map(lambda leaf: leaf[np.array(dealt)], fit.restarts.params)


@jax.jit
def _to_working(
    model: LatentModel, x: Array, sample_weight: Array | None, params: Params
) -> tuple[LatentModel, Params]:
    working = model.standardise(x, sample_weight)
    return working, jax.vmap(working.to_working)(params)


@jax.jit
def _to_user(working: LatentModel, params: Params) -> Params:
    return jax.vmap(jax.vmap(working.to_user))(params)


def _label_order(model: LatentModel, x: Array, params: Params, reference: Params) -> Array:
    """(chain, draw, K) permutations by Stephens' algorithm from the fit's responsibilities."""
    chains, draws = jax.tree.leaves(params)[0].shape[:2]
    if model.n_components == 1:
        return jnp.zeros((chains, draws, 1), jnp.int32)
    stride = -(-x.shape[0] // _LABEL_ROWS)
    order = stephens(*_allocations(model, x[::stride], params, reference))
    return order.reshape(chains, draws, -1)


@jax.jit
def _allocations(
    model: LatentModel, x: Array, params: Params, reference: Params
) -> tuple[Float[Array, "s k n"], Float[Array, "k n"]]:
    probability = lambda p: model.responsibilities(p, x).T
    drawn = jax.vmap(jax.vmap(probability))(params)
    return drawn.reshape(-1, *drawn.shape[2:]), probability(reference)


@jax.jit
def _relabelled(model: LatentModel, params: Params, order: Array) -> Params:
    return jax.vmap(jax.vmap(model.permute))(params, order)


@jax.jit
def _all_sites(model: LatentModel, params: Params) -> Sites:
    both = lambda p: {**model.sites(p), **model.derived_sites(p)}
    return jax.vmap(jax.vmap(both))(params)


@jax.jit
def _log_prior(model: LatentModel, params: Params) -> Array:
    return jax.vmap(jax.vmap(model.log_prior))(params)


@jax.jit
def _log_likelihood(
    model: LatentModel, x: Array, sample_weight: Array | None, params: Params
) -> Array:
    """Of each draw, one draw at a time."""
    one = lambda p: model.log_likelihood(p, x, sample_weight)
    return jax.lax.map(lambda chain: jax.lax.map(one, chain), params)
