"""What the library compiles when the host calls it: one store, whose programs run in turn."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from jaxgmm._numerics import precise
from jaxgmm._sharded import cut_along_rows, unplaced

# Where XLA still has two generators of CPU code, the newer one keeps 1.25 MB per kernel and
# compiles for twice as long, and its kernels run no faster (docs/performance.md): but for those
# whose result takes the place of an argument, which the older one makes go number by number.
_OLDER = {"xla_cpu_use_fusion_emitters": False}
_OPTIONS = {
    # Kernels in turn: where two large batches of factorisations run at once, each waits for
    # threads that the other one holds (see `jaxgmm._numerics.then`).
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}

# In jaxlib 0.10 the two may belong to two programs; 0.9.2, 0.11.2 and 0.12 do not wait.
_WAITING = "0.10."

# XLA maps memory for each program, a hundred pieces or so, and a process that reaches the
# kernel's limit dies. Half of the limit is the library's; a program takes some 7 MB besides.
_MAPS, _LIMIT = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
_SHARE_OF_MAPS = 0.5
_MOST_PROGRAMS = 512
# What a fit, its posterior and their verdict need stays, whoever else fills the process.
_LEAST_PROGRAMS = 64

_config: Any = jax.config


class Program:
    """A function that the host calls; inside another compiled one it is a part of that.

    ``statics`` are keyword arguments of `jax.jit`; ``newer`` asks for the newer code generator.
    """

    def __init__(self, function: Callable[..., Any], newer: bool = False, **statics: Any) -> None:
        function = precise(function)
        functools.update_wrapper(self, function)
        self._part = jax.jit(function, **statics)
        self._new = functools.partial(_Compiled, function, newer, statics)
        names = statics.get("static_argnames", ())
        self._names = (names,) if isinstance(names, str) else tuple(names)
        places = list(inspect.signature(function).parameters)
        self._places = [places.index(name) for name in self._names]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, structure = jax.tree.flatten((args, kwargs))
        if _config.jax_disable_jit or [leaf for leaf in leaves if isinstance(leaf, Tracer)]:
            return self._part(*args, **kwargs)
        static = [args[place] for place in self._places if place < len(args)]
        static += [kwargs[name] for name in self._names if name in kwargs]
        rows = tuple(index for index, leaf in enumerate(leaves) if cut_along_rows(leaf))
        key = self, structure, rows, *static, *map(_form, leaves)
        return _stored(key, functools.partial(self._new, rows))(*args, **kwargs)


def program(**statics: Any) -> Callable[[Callable[..., Any]], Program]:
    """Decorate a function of the host's."""
    return functools.partial(Program, **statics)


def free_programs() -> None:
    """Forget what the library compiled.

    It does so itself with what was not used for longest, before the process holds more than it
    may; calls that follow compile again.
    """
    with _LOCK:
        _STORE.clear()


class _Compiled:
    """A program for arguments of one form."""

    def __init__(
        self,
        function: Callable[..., Any],
        newer: bool,
        statics: dict[str, Any],
        rows: tuple[int, ...],
    ) -> None:
        # JAX forgets programs together with their function: each has its own.
        @functools.wraps(function)
        def own(*args: Any, **kwargs: Any) -> Any:
            if rows:
                leaves, structure = jax.tree.flatten((args, kwargs))
                beside = [n if i in rows else unplaced(n) for i, n in enumerate(leaves)]
                args, kwargs = jax.tree.unflatten(structure, beside)
            return function(*args, **kwargs)

        self._run = jax.jit(own, compiler_options=_options(newer), **statics)
        self._ready, self._lock = False, threading.RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not _in_turn():
            return self._run(*args, **kwargs)
        if not self._ready:
            # The turn is for running; meanwhile others may compile.
            with self._lock:
                if not self._ready:
                    self._run.lower(*args, **kwargs).compile()
                    self._ready = True
        with contextlib.nullcontext() if _called_back() else _TURN:
            # What a call leaves to be computed would run on beside the next.
            return jax.block_until_ready(self._run(*args, **kwargs))


# The least recently used first.
_STORE: dict[Any, _Compiled] = {}
_LOCK = threading.RLock()
_TURN = threading.RLock()


def _called_back() -> bool:
    """Whether a program that runs has called a function on a thread of XLA's, not Python's."""
    return isinstance(threading.current_thread(), threading._DummyThread)  # type: ignore


def _stored(key: Any, new: Callable[[], _Compiled]) -> _Compiled:
    with _LOCK:
        found = _STORE.pop(key, None)
        if found is None:
            _make_room()
            found = new()
        _STORE[key] = found
    return found


def _form(leaf: Any) -> Any:
    """What a program depends on; JAX looks closer, and compiles anew where there is more."""
    try:
        return leaf.aval
    except AttributeError:
        return (leaf.shape, leaf.dtype) if isinstance(leaf, np.ndarray) else type(leaf)


def _make_room() -> None:
    """Forget what was not used for longest until the process may hold more."""
    while len(_STORE) > _LEAST_PROGRAMS and _crowded():
        _STORE.pop(next(iter(_STORE)))


def _crowded() -> bool:
    if len(_STORE) > _MOST_PROGRAMS:
        return True
    most = _most_maps()
    return most is not None and _MAPS.read_bytes().count(b"\n") > most


@functools.cache
def _most_maps() -> float | None:
    """Where a kernel counts them."""
    try:
        return _SHARE_OF_MAPS * int(_LIMIT.read_text())
    except OSError:
        return None


@functools.cache
def _in_turn() -> bool:
    """Whether two programs that run at once may wait for each other for ever."""
    return version("jaxlib").startswith(_WAITING) and jax.default_backend() == "cpu"


@functools.cache
def _options(newer: bool) -> dict[str, Any] | None:
    """What a program asks of XLA, where this version knows it."""
    if jax.default_backend() != "cpu":
        return None
    options = _OPTIONS if newer else _OLDER | _OPTIONS
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return options
