"""Posteriors inside a program: the engines as pure functions, for thousands of data sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxgmm._checks import check_name
from jaxgmm._contract import LatentModel, Params
from jaxgmm._numerics import as_rows, normal, precise, widened
from jaxgmm.bayes import _gibbs, _nuts
from jaxgmm.bayes import _smc as smc
from jaxgmm.bayes import _svi as svi
from jaxgmm.bayes._chains import Starts, trail
from jaxgmm.bayes._laplace import climb
from jaxgmm.bayes._vb import ascend, default_tolerance
from jaxgmm.em import Status
from jaxgmm.local import from_vector, inverse_root

# Chains whose log likelihood has a larger split R-hat are not one sample.
_MIXED = 1.05

# Of variational Bayes.
_MOST_ROUNDS = 1000


class Drawn(NamedTuple):
    """Draws of one posterior.

    Attributes
    ----------
    params : pytree (chain, draw, ...)
        In the units of the data, labelled as drawn.
    sound : bool array
        Whether the engine did what it promises: a maximum with positive curvature, a bound that
        converged, a population that arrived, chains whose log likelihood has a split R-hat of at
        most 1.05.
    """

    params: Params
    sound: Array


class _Rows(NamedTuple):
    x: Array
    present: Array | None


class _Plan(NamedTuple):
    n_chains: int
    n_draws: int
    n_warmup: int


@precise
def draw(
    model: LatentModel,
    x: Array,
    start: Params,
    key: PRNGKeyArray,
    method: str = "gibbs",
    n_chains: int = 4,
    n_draws: int = 500,
    n_warmup: int = 100,
    present: Bool[Array, " n"] | None = None,
) -> Drawn:
    """Draw from a posterior: `jaxgmm.sample` inside the user's own ``jit`` and ``vmap``.

    No host checks and no matching of labels.

    Parameters
    ----------
    model : LatentModel
        Its prior as numbers and proper, and `LatentModel.settled` on the host beforehand.
    x : (n, D) or (n,) array
        Data.
    start : parameters
        Where every chain begins, such as the best of `jaxgmm.em.search`.
    key : typed random key
    method : str
        ``"gibbs"``, ``"nuts"``, ``"smc"``, ``"laplace"``, ``"vb"`` or ``"svi"``.
    n_chains, n_draws, n_warmup : int
        Chains, draws of each, and what is thrown away before them; populations of ``"smc"`` and
        their particles. Static.
    present : (n,) bool array, optional
        Rows that are there; the others fill up a shape.

    Returns
    -------
    Drawn

    Raises
    ------
    ValueError
        For an unknown method, or a prior that it cannot use.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("faithful").x
    >>> model = jg.Mixture(jg.Gaussian(), 2, prior="fraley-raftery").resolve(x)
    >>> start = model.params(means=[[2.0, 55.0], [4.3, 80.0]], covariances=[[[1, 0], [0, 40]]] * 2)
    >>> posterior = jax.jit(lambda key: jg.bayes.draw(model, x, start, key, n_draws=100))
    >>> posterior(jax.random.key(1)).params.means.shape
    (4, 100, 2, 2)
    """
    engine = WITHIN[check_name("method", method, WITHIN)]
    # As in `sample`: engines run in JAX's default precision.
    model, x, start = widened((model, as_rows(x), start))
    working = model.standardise(x, present)
    plan = _Plan(n_chains, n_draws, n_warmup)
    params, sound = engine(working, _Rows(x, present), working.to_working(start), key, plan)
    return Drawn(jax.vmap(jax.vmap(working.to_user))(params), sound)


def _laplace(
    model: LatentModel, rows: _Rows, start: Params, key: PRNGKeyArray, plan: _Plan
) -> tuple[Params, Array]:
    dtype = rows.x.dtype
    top = climb(model, *rows, start, jnp.ones((), dtype))
    root, definite = inverse_root(top.curvature, dtype == jnp.float32)
    noise = normal(key, (plan.n_chains, plan.n_draws, top.point.size), dtype)
    at = lambda z: from_vector(model, top.point + root @ z, start)[0]
    return jax.vmap(jax.vmap(at))(noise), top.arrived & definite


def _vb(
    model: LatentModel, rows: _Rows, start: Params, key: PRNGKeyArray, plan: _Plan
) -> tuple[Params, Array]:
    statistics, _ = model.e_step(start, *rows)
    end = ascend(model, *rows, statistics, default_tolerance(rows.x.dtype), _MOST_ROUNDS)
    found = model.updated(end.statistics)
    keys = jax.random.split(key, (plan.n_chains, plan.n_draws))
    return jax.vmap(jax.vmap(found.draw_prior))(keys), end.status == Status.CONVERGED


def _svi(
    model: LatentModel, rows: _Rows, start: Params, key: PRNGKeyArray, plan: _Plan
) -> tuple[Params, Array]:
    data, dtype = (model, *rows, start), rows.x.dtype
    key_fit, key_draws = jax.random.split(key)
    usual = svi.SVI()
    steps, guide, rate = usual.n_steps, usual.guide, jnp.asarray(usual.learning_rate, dtype)
    state, rate = svi._begin(*data, rate, key_fit, steps, guide)
    fitted = state, jnp.zeros(steps, dtype)
    state, trace = svi._advance(*data, rate, fitted, 0, steps, guide)
    counts = plan.n_chains, plan.n_draws
    params, *_ = svi._draw(*data, rate, state, key_draws, steps, counts, guide)
    return params, svi.stopped(*svi.last_gain(trace, jnp))


def _by_smc(
    model: LatentModel, rows: _Rows, start: Params, key: PRNGKeyArray, plan: _Plan
) -> tuple[Params, Array]:
    data, keys = (model, *rows), jax.random.split(key, plan.n_chains)
    population = smc._begin(*data, keys, plan.n_draws)
    batch = smc.batch_size(model, rows.x, plan.n_chains, plan.n_draws)
    usual = smc.SMC()
    settings = usual.target_ess, usual.n_moves, batch, smc.MOST_RUNGS
    population = smc._climb(*data, population, *settings)
    return smc._constrained(*data, population.tempered.particles), jnp.all(population.done)


def _by_gibbs(
    model: LatentModel, rows: _Rows, start: Params, key: PRNGKeyArray, plan: _Plan
) -> tuple[Params, Array]:
    chains, data = plan.n_chains, (model, *rows)
    keys = jax.random.split(key, chains)
    state = _gibbs.Chain(_copies(start, chains), keys, jnp.zeros(chains, bool))
    kept = _gibbs._room(*data, state, plan.n_draws)
    # A sweep records what it starts from: the first one, the start, is no draw.
    warmup = plan.n_warmup + 1
    _, kept = _gibbs._advance(*data, state, kept, 0, warmup + plan.n_draws, (warmup, 1))
    return _chains(kept.params), _mixed(kept.log_likelihood)


def _by_nuts(
    model: LatentModel, rows: _Rows, start: Params, key: PRNGKeyArray, plan: _Plan
) -> tuple[Params, Array]:
    data, starts = (model, *rows, start), Starts(_copies(start, plan.n_chains))
    keys = jax.random.split(key, plan.n_chains)
    state = _nuts._begin(*data, starts, keys, plan.n_warmup)
    kept = trail(jax.eval_shape(_nuts._record, state), plan.n_draws)
    target = jnp.asarray(_nuts.NUTS().target_acceptance, rows.x.dtype)
    total = plan.n_warmup + plan.n_draws
    _, kept = _nuts._advance(*data, target, state, kept, 0, total, plan.n_warmup, 1)
    params = _nuts._constrained(model, start, kept["position"])
    height = jax.vmap(jax.vmap(lambda p: model.log_likelihood(p, *rows)))(params)
    return _chains(params), _mixed(height)


# A new engine is a function here and a line.
WITHIN: dict[str, Callable[..., tuple[Params, Array]]] = {
    "laplace": _laplace,
    "vb": _vb,
    "gibbs": _by_gibbs,
    "nuts": _by_nuts,
    "smc": _by_smc,
    "svi": _svi,
}


def _copies(params: Params, n_chains: int) -> Params:
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (n_chains, *leaf.shape)), params)


def _chains(records: Any) -> Any:
    """Records (draw, chain, ...) as (chain, draw, ...)."""
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), records)


def _mixed(height: Float[Array, "s c"]) -> Array:
    """Whether the halves of all chains agree on their height (Gelman and others, 2013, 11.4)."""
    half = height.shape[0] // 2
    halves = jnp.concatenate([height[:half], height[-half:]], axis=1)
    within = jnp.mean(jnp.var(halves, axis=0, ddof=1))
    between = jnp.var(jnp.mean(halves, axis=0), ddof=1)
    return (half - 1) / half + between / within <= _MIXED**2
