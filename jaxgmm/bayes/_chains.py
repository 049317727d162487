"""Chains: iterations of which some are kept, with a bar, compiled once per shape."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from jaxgmm._contract import Params
from jaxgmm._sharded import sharing_mesh
from jaxgmm.bayes._evidence import Evidence
from jaxgmm.em import bar

# Host calls per run: each draws one step of the progress bar.
_PROGRESS_STEPS = 20


class Starts(NamedTuple):
    """Where chains begin.

    Attributes
    ----------
    params : pytree (chain, ...)
        In the units of the model that is sampled.
    exact : bool
        Whether they begin right there, and not spread around.
    adaptation : dict of arrays (chain, ...)
        What an earlier warm-up of these chains learned; empty where there was none.
    """

    params: Params
    exact: bool = False
    adaptation: dict[str, Any] = {}  # noqa: RUF012 (nothing writes into it)

    @property
    def n_chains(self) -> int:
        return jax.tree.leaves(self.params)[0].shape[0]

    @property
    def first(self) -> Params:
        """That of the first chain, for engines with a single start."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[0], self.params)


class Draws(NamedTuple):
    """What a sampler returns, (chain, draw, ...) throughout.

    Attributes
    ----------
    params : pytree
        In the units of the model that was sampled.
    stats : dict of arrays
        The sampler's own statistics.
    log_likelihood : array or None
        At each draw, where the sampler knows it.
    log_proposal : array or None
        Log density of each draw where it comes from an approximation: that of the sites
        in the measure and units of ``log_prior`` (`LatentModel.log_units` included).
    evidence : Evidence or None
        Where the engine estimates it.
    diagnostics : dict
        What the engine says of itself beyond its draws, such as the trace of a bound.
    n_warmup : int
        Iterations of each chain before its first draw; None where there are no chains.
    adaptation : dict of arrays (chain, ...)
        What the warm-up of each chain learned.
    """

    params: Params
    stats: dict[str, Array]
    log_likelihood: Array | None = None
    log_proposal: Array | None = None
    evidence: Evidence | None = None
    diagnostics: dict[str, Any] = {}  # noqa: RUF012 (nothing writes into it)
    n_warmup: int | None = None
    adaptation: dict[str, Any] = {}  # noqa: RUF012


class Schedule(NamedTuple):
    """Which iterations are kept: after ``n_warmup``, each ``thinning``-th."""

    n_draws: int
    n_warmup: int
    thinning: int

    @property
    def total(self) -> int:
        return self.n_warmup + self.n_draws * self.thinning


def trail(record: Any, n_draws: int) -> Any:
    """Room for ``n_draws`` records of the same form as ``record``."""
    return jax.tree.map(lambda leaf: jnp.zeros((n_draws, *leaf.shape), leaf.dtype), record)


def iterate(
    step: Callable[[Array, Any], tuple[Any, Any]],
    state: Any,
    kept: Any,
    start: Array | int,
    stop: Array | int,
    n_warmup: Array | int,
    thinning: Array | int,
    x: Array,
) -> tuple[Any, Any]:
    """Iterations ``start`` to ``stop`` of all chains, with their records where kept.

    ``step`` takes an iteration and the state of the chains before it to the next state and
    a record. All counts may be traced. Several devices share the chains, and none waits for
    the chains of another; where they share the rows ``x``, each has its part in every chain.
    """

    def body(i: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        state, kept = carry
        state, record = step(i, state)
        # What is not kept writes where the next one that is will write over it.
        row = jnp.maximum(i - n_warmup, 0) // thinning
        return state, jax.tree.map(lambda room, new: room.at[row].set(new), kept, record)

    def loop(state: Any, kept: Any, start: Array | int, stop: Array | int) -> tuple[Any, Any]:
        return lax.fori_loop(start, stop, body, (state, kept))

    mesh = device_mesh(jax.tree.leaves(kept)[0].shape[1], x)
    if mesh.size > 1:
        # A leaf of the state without axes is the same for all chains.
        of_state = jax.tree.map(lambda leaf: P("chains") if jnp.ndim(leaf) else P(), state)
        both = of_state, P(None, "chains")
        loop = jax.shard_map(
            loop, mesh=mesh, in_specs=(*both, P(), P()), out_specs=both, check_vma=False
        )
    return loop(state, kept, start, stop)


def device_mesh(n_chains: int, x: Array) -> Mesh:
    """As many of the process's devices as share the chains evenly; one where they share more.

    Rows ``x``, that is, or what is around.
    """
    shared = bool(jax.sharding.get_abstract_mesh().manual_axes) or sharing_mesh(x) is not None
    devices = jax.local_devices()[: 1 if shared else None]
    count = max(c for c in range(1, len(devices) + 1) if n_chains % c == 0)
    return Mesh(np.array(devices[:count]), ("chains",))


def on_all(mesh: Mesh, tree: Any) -> Any:
    """Copies for each device of a mesh; nothing happens where it is one."""
    return tree if mesh.size == 1 else jax.device_put(tree, NamedSharding(mesh, P()))


def run(
    advance: Callable[[Any, Any, int, int], tuple[Any, Any]],
    state: Any,
    kept: Any,
    total: int,
    title: str,
    progress: bool,
) -> tuple[Any, Any]:
    """All iterations, a part at a time where somebody watches: the last state, the records."""
    with bar(title, progress, total) as shown:
        steps = 1 if shown.disable else _PROGRESS_STEPS
        edges = [total * i // steps for i in range(steps + 1)]
        for start, stop in itertools.pairwise(edges):
            state, kept = advance(state, kept, start, stop)
            jax.block_until_ready(kept)
            shown.update(stop - start)
    return state, kept


def chains_first(records: Any, n_draws: int) -> Any:
    """The first of records (draw, chain, ...) as (chain, draw, ...), on the host."""
    return jax.tree.map(lambda leaf: np.swapaxes(np.asarray(leaf)[:n_draws], 0, 1), records)
