"""Rows that devices share: where they lie, and passes in which each device sees its own only."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray, Tracer
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

# What the axis of a mesh that rows are cut along is called: within `jax.jit` nothing else tells.
ROWS = "rows"

Call = TypeVar("Call", bound=Callable[..., Any])


def sharing_mesh(x: Any) -> Any:
    """The mesh whose devices share the rows of ``x`` evenly; None where one has them all."""
    if isinstance(x, jax.Array) and not isinstance(x, Tracer):
        mesh = getattr(x.sharding, "mesh", None)
    else:
        mesh = getattr(getattr(jax.typeof(x), "sharding", None), "mesh", None)
    if mesh is None or mesh.empty or ROWS not in mesh.axis_names:
        return None
    count, kind = mesh.shape[ROWS], mesh.axis_types[mesh.axis_names.index(ROWS)]
    return mesh if kind is AxisType.Auto and count > 1 and x.shape[0] % count == 0 else None


def on_shares(
    mesh: Any, function: Callable[..., Any], x: Array, weight: Array | None, *same: Array
) -> Any:
    """``function(rows, weights, first)`` of the rows that each device has, behind each other.

    ``first`` is the index of the first of them. What ``function`` takes of other arrays of all
    rows, by `of_block`, each device has too. ``same`` are more arguments, the same everywhere.
    """
    n, size = x.shape[0], x.shape[0] // mesh.shape[ROWS]
    share = lambda rows: jax.ShapeDtypeStruct((size, *rows.shape[1:]), rows.dtype)
    seen = _Pass(n, [], None, 0)
    with _going(seen):
        jax.eval_shape(function, *jax.tree.map(share, (x, weight)), np.int32(0), *same)

    def own(rows: tuple[Array, Array | None], others: list[Array], same: Any) -> Any:
        first = size * lax.axis_index(ROWS)
        with _going(seen._replace(shares=others, first=first)):
            return function(*rows, first, *same)

    specs = {"in_specs": (P(ROWS), P(ROWS), P()), "out_specs": P(ROWS), "axis_names": {ROWS}}
    each = jax.shard_map(own, mesh=mesh, check_vma=False, **specs)
    return each((x, weight), seen.arrays, same)


def _as_it_is(numbers: Any) -> Any:
    return numbers if _is_key(numbers) else by_itself(numbers)


def _is_key(numbers: Any) -> bool:
    return jnp.issubdtype(numbers.dtype, jax.dtypes.prng_key)


# Types of JAX's say on which mesh numbers are, and what runs on a device may not index, or hand on,
# what lies around it with another mesh: numbers that all devices have lose it here.
_unplaced = Primitive("unplaced")
_unplaced.def_impl(_as_it_is)
_unplaced.def_abstract_eval(
    lambda kind: ShapedArray(kind.shape, kind.dtype, weak_type=kind.weak_type)
)
mlir.register_lowering(_unplaced, lambda _, numbers: [numbers])
ad.deflinear2(_unplaced, lambda cotangent, _: [cotangent])
batching.defvectorized(_unplaced)


def unplaced(tree: Any) -> Any:
    """Numbers that all devices have, for functions of blocks to close over."""

    def one(leaf: Any) -> Any:
        mesh = getattr(getattr(jax.typeof(leaf), "sharding", None), "mesh", None)
        return leaf if mesh is None or mesh.empty else _unplaced.bind(leaf)

    return jax.tree.map(lambda leaf: one(leaf) if isinstance(leaf, jax.Array) else leaf, tree)


def beside_rows(x: Array, tree: Any) -> Any:
    """Numbers beside rows, `unplaced` where devices share these."""
    return tree if sharing_mesh(x) is None else unplaced(tree)


def of_block(array: Array, first: Array | int, count: int) -> Array:
    """The part of an array of all rows that belongs to the ``count`` rows of a block.

    For functions of blocks, which see the rows of the block and the index of the first of them.
    """
    now = _PASS.get()
    if now is not None and array.shape[0] == now.n_rows:
        known = [index for index, one in enumerate(now.arrays) if one is array]
        if now.shares is None and not known:
            now.arrays.append(array)
        elif now.shares is not None and known:
            return lax.dynamic_slice_in_dim(now.shares[known[0]], first - now.first, count)
    return lax.dynamic_slice_in_dim(array, first, count)


def rows_at(x: Array, index: Array | np.ndarray | int) -> Array:
    """Some rows, as every device is to have them."""
    mesh = sharing_mesh(x)
    if mesh is None:
        return x[index]
    size = x.shape[0] // mesh.shape[ROWS]

    def own(x: Array, _: None, first: Array) -> Array:
        here = jnp.asarray(index) - first
        mine = (here >= 0) & (here < size)
        found = x[jnp.clip(here, 0, size - 1)]
        return jnp.where(jnp.reshape(mine, (*mine.shape, *(1,) * (x.ndim - 1))), found, 0)[None]

    return unplaced(jnp.sum(on_shares(mesh, own, x, None), axis=0, dtype=x.dtype))


def highest(values: Array, count: int) -> tuple[Array, Array]:
    """The highest numbers of rows, the first of equal ones first, and which rows they are of."""
    mesh = sharing_mesh(values)
    if mesh is None:
        return lax.top_k(values, count)

    def own(values: Array, _: None, first: Array) -> tuple[Array, Array]:
        found, index = lax.top_k(values, min(count, len(values)))
        return found, first + index

    found, index = on_shares(mesh, own, values, None)
    found, chosen = lax.top_k(found, count)
    return unplaced((found, index[chosen]))


def rows_below(numbers: Array, shares: Array) -> Array:
    """How many rows, the first ones, have no more than a share of the sum of all numbers."""
    mesh = sharing_mesh(numbers)
    if mesh is None:
        cumulative = jnp.cumsum(numbers)
        return jnp.searchsorted(cumulative, shares * cumulative[-1], side="right")
    each = on_shares(mesh, lambda own, _, __: jnp.sum(own)[None], numbers, None)
    until = jnp.cumsum(each)

    def own(numbers: Array, _: None, first: Array, before: Array, wanted: Array) -> Array:
        cumulative = before[first // len(numbers)] + jnp.cumsum(numbers)
        return jnp.searchsorted(cumulative, wanted, side="right")[None]

    found = on_shares(mesh, own, numbers, None, until - each, shares * until[-1])
    return unplaced(jnp.sum(found, axis=0, dtype=found.dtype))


class _Pass(NamedTuple):
    """Of functions that several devices run: what arrays of all rows they ask for.

    ``shares`` are those that this device has, from row ``first`` on; None while asking.
    """

    n_rows: int
    arrays: list[Array]
    shares: list[Array] | None
    first: Array | int


_PASS: ContextVar[_Pass | None] = ContextVar("_PASS", default=None)


@contextlib.contextmanager
def _going(now: _Pass) -> Iterator[None]:
    token = _PASS.set(now)
    try:
        yield
    finally:
        _PASS.reset(token)


# -- arrays on the host's side ---------------------------------------------------------------


def shared(x: Any) -> bool:
    """Whether rows lie on several devices, or in other processes."""
    there = isinstance(x, jax.Array) and not isinstance(x, Tracer)
    return there and len(x.sharding.device_set) > 1


def cut_along_rows(x: Any) -> bool:
    """Whether devices have rows of their own."""
    return shared(x) and isinstance(x.sharding, NamedSharding) and any(x.sharding.spec)


def along_rows(x: Any) -> Any:
    """The same rows on the same devices, the axis that they share called `ROWS`."""
    if isinstance(x, Tracer):
        refuse_explicit(x)
    if not shared(x) or not isinstance(x.sharding, NamedSharding):
        return x
    mesh: Any = x.sharding.mesh
    axes, *columns = *x.sharding.spec, None
    axes = axes if isinstance(axes, tuple) else (axes,) if axes else ()
    if any(columns):
        raise ValueError(
            f"x: devices may share rows, not columns; found {x.sharding.spec} on the mesh "
            f"{dict(mesh.shape)}"
        )
    if axes == (ROWS,) and AxisType.Explicit not in mesh.axis_types:
        return x
    others = [name for name in mesh.axis_names if name not in axes]
    order = [mesh.axis_names.index(name) for name in (*axes, *others)]
    count = int(np.prod([mesh.shape[name] for name in axes], dtype=int))
    devices = mesh.devices.transpose(order).reshape(count, -1)
    place = NamedSharding(Mesh(devices, (ROWS, "copies")), P(ROWS))
    # Nothing moves.
    parts = [shard.data for shard in x.addressable_shards]
    return jax.make_array_from_single_device_arrays(x.shape, place, parts)


def refuse_explicit(x: Tracer) -> None:
    """Refuse rows whose cut JAX carries in their types, which programs here do not."""
    place = getattr(jax.typeof(x), "sharding", None)
    if place is not None and place.spec and place.spec[0] is not None:
        raise ValueError(
            f"x: its mesh has an axis {place.spec[0]!r} of type Explicit; inside jax.jit use one "
            'of type Auto called "rows": jax.sharding.Mesh(jax.devices(), ("rows",))'
        )


def placed_as(values: np.ndarray, x: Any) -> Array:
    """Numbers of each row where the rows are."""
    if not shared(x) or not isinstance(x.sharding, NamedSharding):
        return jax.device_put(values)  # `jnp.asarray` compiles for each shape
    return jax.device_put(values, NamedSharding(x.sharding.mesh, P(*x.sharding.spec[:1])))


def by_itself(tree: Any) -> Any:
    """Numbers that every device has, tied to none of them."""
    return jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf)), tree)


def pieces(x: Any) -> Iterator[tuple[int, np.ndarray]]:
    """The rows that this process has, device by device, and the index of the first of each."""
    if not shared(x):
        yield 0, np.asarray(x)
        return
    own = {shard.index[0].start or 0: shard for shard in x.addressable_shards}
    for first in sorted(own):
        yield first, np.asarray(own[first].data)


def rows_here(x: Any) -> np.ndarray:
    """The rows that this process has, in order, on the host."""
    return np.concatenate([rows for _, rows in pieces(x)]) if shared(x) else np.asarray(x)


# -- several processes -----------------------------------------------------------------------


def spans_processes(x: Any) -> bool:
    """Whether other processes have rows that this one has not."""
    there = isinstance(x, jax.Array) and not isinstance(x, Tracer)
    return there and not x.is_fully_addressable


def in_company(call: Call) -> Call:
    """A call whose second argument is rows, which says so where another process was lost."""

    @functools.wraps(call)
    def wrapped(first: Any, x: Any, *args: Any, **options: Any) -> Any:
        try:
            return call(first, x, *args, **options)
        except jax.errors.JaxRuntimeError as error:
            if not spans_processes(x):
                raise
            reason = str(error).partition("\n")[0]
            raise RuntimeError(
                "x: another process that shares the rows has ended, or cannot be reached; start "
                f"all of them again (a fit with checkpoint= goes on where it was). JAX: {reason}"
            ) from error

    return wrapped  # type: ignore[return-value]


def of_all(here: np.ndarray) -> np.ndarray:
    """Rows that each process found, those of all behind each other."""
    from jax.experimental.multihost_utils import process_allgather

    counts = np.asarray(process_allgather(np.int32(len(here))))
    room = np.zeros((int(counts.max()), *here.shape[1:]), here.dtype)
    room[: len(here)] = here
    found = np.asarray(process_allgather(room))
    return np.concatenate([rows[:count] for rows, count in zip(found, counts, strict=True)])


def total_over_rows(x: Any, numbers: np.ndarray) -> float:
    """The sum of numbers of the rows of ``x``, of which this process has its own."""
    total = np.sum(numbers)
    return float(np.sum(of_all(total[None])) if spans_processes(x) else total)
