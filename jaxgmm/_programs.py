"""What the library compiles when the host calls it: `jax.jit`, with XLA's options for CPUs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

_OPTIONS = {
    # Where XLA still has two generators of CPU code, the newer one keeps 1.25 MB per kernel and
    # compiles for twice as long, and its kernels run no faster here (docs/performance.md).
    "xla_cpu_use_fusion_emitters": False,
    # Kernels in turn: where two large batches of factorisations run at once, each waits for
    # threads that the other one holds (see `jaxgmm._numerics.then`).
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}


class Program:
    """A function that the host calls; JAX refuses it inside another compiled one.

    ``statics`` are keyword arguments of `jax.jit`, which is called at the first use, since the
    options depend on the device and importing the library touches none.
    """

    def __init__(self, function: Callable[..., Any], **statics: Any) -> None:
        functools.update_wrapper(self, function)
        self._compile = functools.partial(jax.jit, function, **statics)

    @functools.cached_property
    def _compiled(self) -> Any:
        return self._compile(compiler_options=_options())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._compiled(*args, **kwargs)

    def clear_cache(self) -> None:
        """Forget what was compiled."""
        self._compiled.clear_cache()


def program(**statics: Any) -> Callable[[Callable[..., Any]], Program]:
    """Decorate a function of the host's."""
    return functools.partial(Program, **statics)


@functools.cache
def _options() -> dict[str, bool | str] | None:
    """`_OPTIONS`, where this version of XLA knows them."""
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return _OPTIONS
