"""One function of every data set: devices share them, each takes several side by side."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def each(one: Callable[[Any, Any], Any], common: Any, cases: Any, side_by_side: int) -> Any:
    """``one(common, case)`` of every case, inside a program; leaves of cases have them first."""
    count = len(jax.tree.leaves(cases)[0])
    mesh = _mesh(count)
    if mesh.size == 1:
        return _mapped(one, common, cases, side_by_side)
    # Every device has equally many; some do a case over again.
    places = np.arange(-(-count // mesh.size) * mesh.size) % count
    share = jax.shard_map(
        lambda common, own: _mapped(one, common, own, side_by_side),
        mesh=mesh,
        in_specs=(P(), P("cases")),
        out_specs=P("cases"),
        check_vma=False,
    )
    found = share(common, jax.tree.map(lambda leaf: leaf[places], cases))
    return jax.tree.map(lambda leaf: leaf[:count], found)


def everywhere(tree: Any, count: int) -> Any:
    """Copies for every device that `each` of ``count`` cases uses."""
    mesh = _mesh(count)
    return tree if mesh.size == 1 else jax.device_put(tree, NamedSharding(mesh, P()))


def _mesh(count: int) -> Mesh:
    return Mesh(np.array(jax.local_devices()[:count]), ("cases",))


def _mapped(one: Callable[[Any, Any], Any], common: Any, cases: Any, side_by_side: int) -> Any:
    of = functools.partial(one, common)
    count = len(jax.tree.leaves(cases)[0])
    # A smaller last batch would be compiled apart.
    size = max(size for size in range(1, min(side_by_side, count) + 1) if count % size == 0)
    return lax.map(of, cases, batch_size=size) if size > 1 else lax.map(of, cases)
