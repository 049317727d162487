"""Functions that are one program when the host calls them, and a part of others inside."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from jaxgmm._numerics import precise
from jaxgmm._programs import program


def pure(**statics: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a function of arrays; ``statics`` as for `jax.jit`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        compiled, signature = program(**statics)(precise(function)), inspect.signature(function)

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            return compiled(**given.arguments)

        return called

    return decorate
