"""Dataclasses as pytrees that JAX tells apart by their class."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from jax.tree_util import GetAttrKey, register_pytree_with_keys

Kind = TypeVar("Kind", bound=type)


def pytree(kind: Kind) -> Kind:
    """Register a dataclass as a pytree, as `jax.tree_util.register_dataclass` does.

    To JAX (0.10 to 0.12 at least) the structures of two classes that it registered itself are
    equal where their fields are: seldom, by their hashes, one is then computed by the program
    that was compiled for the other. Structures of classes registered here are equal for one only.

    Parameters
    ----------
    kind : type
        A dataclass, a decorator above ``dataclasses.dataclass``. Fields whose metadata say
        ``static`` are compared, the others are leaves or trees.

    Returns
    -------
    type
        The same.

    Examples
    --------
    >>> import dataclasses
    >>> import jax
    >>> import jaxgmm as jg
    >>> @jg.model.pytree
    ... @dataclasses.dataclass(frozen=True)
    ... class Rate:
    ...     value: float
    >>> jax.tree.map(lambda leaf: 2 * leaf, Rate(1.5))
    Rate(value=3.0)
    """
    fields = [field for field in dataclasses.fields(kind) if field.init]  # type: ignore
    static = [field.name for field in fields if field.metadata.get("static")]
    leaves = [field.name for field in fields if field.name not in static]

    def apart(value: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        parts = tuple(getattr(value, name) for name in leaves)
        return parts, tuple(getattr(value, name) for name in static)

    def apart_with_names(value: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        parts, aside = apart(value)
        return tuple(zip(map(GetAttrKey, leaves), parts, strict=True)), aside

    def together(aside: tuple[Any, ...], parts: Any) -> Any:
        named = dict(zip(leaves, parts, strict=True))
        return kind(**named, **dict(zip(static, aside, strict=True)))

    register_pytree_with_keys(kind, apart_with_names, together, apart)
    return kind
