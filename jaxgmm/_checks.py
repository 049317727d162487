"""Door checks: what a user's arguments must look like, said in one sentence each.

They run on the host before anything is traced.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxgmm._sharded import (
    along_rows,
    of_all,
    pieces,
    placed_as,
    rows_here,
    shared,
    spans_processes,
    total_over_rows,
)
from jaxgmm.files import column_called, numeric, own_names, place

# Of each process, where its own rows are not enough for a check that more of them pass.
_SOME_ROWS = 4096


def unknown_name(argument: str, found: object, known: Iterable[str]) -> str:
    """The message for a name that does not exist, with the nearest one that does."""
    known = list(known)
    near = difflib.get_close_matches(str(found), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{argument}: unknown name {found!r}{hint} Known: {', '.join(map(repr, known))}"


def reworded(message: str, names: Mapping[str, str]) -> str:
    """A refusal that calls the argument as the user of another door wrote it."""
    argument, colon, rest = message.partition(":")
    return names.get(argument, argument) + colon + rest


def check_name(argument: str, found: object, known: Iterable[str]) -> str:
    known = list(known)
    if not isinstance(found, str) or found not in known:
        raise ValueError(unknown_name(argument, found, known))
    return found


def check_names(owner: str, given: Iterable[str], needed: Iterable[str]) -> None:
    """The keyword arguments that an owner takes, all of them."""
    given, needed = list(given), list(needed)
    for name in given:
        if name not in needed:
            raise TypeError(f"{name}: not a parameter of {owner}, which has {', '.join(needed)}")
    for name in needed:
        if name not in given:
            raise TypeError(f"{name}: {owner} needs it; its parameters are {', '.join(needed)}")


def check_options(method: str, function: Callable[..., Any], options: Iterable[str]) -> None:
    """The options of a method are what its function takes by keyword only."""
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            has = f"its options are {', '.join(known)}" if known else "it has no options"
            raise TypeError(f"{name}: not an option of method={method!r}; {has}")


def check_count(argument: str, value: object, least: int) -> int:
    """A whole number of at least ``least``."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{argument}: needs a whole number, found {value!r}")
    if value < least:
        raise ValueError(f"{argument}: must be at least {least}, found {value}")
    return int(value)


def key_numbers(key: jax.Array) -> tuple[int, ...]:
    """What a random key is made of: (0, 7) of ``jax.random.key(7)``."""
    return tuple(int(word) for word in np.asarray(jax.random.key_data(key)).ravel())


def check_key(key: Any, why: str) -> jax.Array:
    """A typed random key."""
    if key is None:
        raise ValueError(f"key: {why}; pass key=jax.random.key(0), say")
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(
            f"key: needs a typed random key, found {type(key).__name__}; "
            "make one with jax.random.key(0)"
        )
    if key.ndim != 0:
        raise ValueError(f"key: needs one key, found an array of shape {key.shape}")
    return key


def check_rows(x: Any, holes: bool = False) -> jax.Array:
    """Data as a floating array (n, D): finite, numeric, at least one row.

    Where ``holes`` are allowed, a NaN is a missing value, of which no column is made.

    float32 and float64 are kept (float64 needs JAX's x64 switch), integers become
    JAX's default float; a vector is one feature.
    """
    x = along_rows(x)
    array: Any = _of_devices(x) if shared(x) else numeric("x", x)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise ValueError(
            f"x: needs rows and columns (n, D) or a vector (n,), found shape {array.shape}"
        )
    if array.shape[0] == 0 or array.shape[1] == 0:
        raise ValueError(f"x: has no rows or no columns, found shape {array.shape}")
    empty = np.full(array.shape[1], holes)

    def values() -> None:
        for start, block in blocks(array):
            finite = np.isfinite(block)
            if np.all(finite):
                empty[:] = False
                continue
            empty[:] &= ~np.any(finite, axis=0)
            wrong = np.isinf(block) if holes else ~finite
            if np.any(wrong):
                row, column = np.argwhere(wrong)[0]
                raise ValueError(
                    f"x: non-finite value {block[row, column]} at "
                    f"{place(own_names(x), start + row, column)}; drop or impute such rows"
                )

    everywhere(array, values)
    if spans_processes(array):
        empty = np.all(of_all(empty[None]), axis=0)
    if np.any(empty):
        column = column_called(own_names(x), int(np.argmax(empty)))
        raise ValueError(f"x: {column} has no value at all; leave it out")
    if array.dtype == np.float64 and jnp.result_type(float) != np.float64:
        warn_of_narrowing()
    # A JAX array that is right as it is need not be copied.
    kept = isinstance(x, jax.Array) and (x.shape, x.dtype) == (array.shape, array.dtype)
    if shared(array):
        return array
    # `jnp.asarray` would copy twice.
    return x if kept else jax.device_put(array)


def _of_devices(x: jax.Array) -> jax.Array:
    """Rows that stay on their devices, so that nothing is made of them."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"x: rows that devices share need floating numbers, found {x.dtype}; use "
            "x.astype(float)"
        )
    return x


def everywhere(x: Any, check: Callable[[], None]) -> None:
    """A check that each process makes of its own rows: where one refuses them, all do."""
    if not spans_processes(x):
        check()
        return
    refusal = None
    try:
        check()
    except (ValueError, TypeError) as error:
        refusal = error
    refused = of_all(np.array([refusal is not None]))
    if refusal is not None:
        raise refusal
    if refused.any():
        raise ValueError(f"x: process {np.argmax(refused)} refused its rows, and says why")


def on_enough(x: Any, rows: np.ndarray, check: Callable[[np.ndarray], None]) -> None:
    """A check that more rows only help to pass: of the ``rows`` of ``x`` that are here.

    Where no process has enough of them, it is of some of each.
    """
    if not spans_processes(x):
        check(rows)
        return
    passed = len(rows) > 0
    try:
        check(rows) if passed else None
    except ValueError:
        passed = False
    if not of_all(np.array([passed])).any():
        some = np.unique(np.linspace(0, len(rows) - 1, _SOME_ROWS).astype(int))
        check(of_all(rows[some]))


@functools.cache  # once in a process
def warn_of_narrowing(stacklevel: int = 7) -> None:
    warnings.warn(
        "x: float64 data, computed in float32 because JAX's 64-bit switch is off in this process. "
        'Turn it on with jax.config.update("jax_enable_x64", True) before anything is computed, or '
        "set the environment variable JAX_ENABLE_X64=1, which worker processes inherit; or hand "
        "over float32 data",
        stacklevel=stacklevel,  # by default where jaxgmm.fit was called
    )


def wider(dtype: Any) -> str:
    """What more to advise where digits ran out: nothing in float64."""
    if np.dtype(dtype) == np.float64:
        return ""
    return (
        '; or turn on JAX\'s x64 switch, jax.config.update("jax_enable_x64", True), and give '
        "float64 data"
    )


def any_nan(x: Any) -> bool:
    """Whether a value is missing."""
    # By NumPy: under a `jit` around, JAX traces even what it knows.
    found = any(np.isnan(block).any() for _, block in blocks(x))
    return bool(of_all(np.array([found])).any()) if spans_processes(x) else found


def blocks(x: Any, rows: int = 2**16) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks of the rows that are here, with the index of their first: no check copies them all."""
    for first, piece in pieces(x):
        for start in range(0, len(piece), rows):
            yield first + start, piece[start : start + rows]


def check_sample_weight(sample_weight: Any, x: jax.Array) -> jax.Array | None:
    """Weights (n,) in the dtype of the data: finite, not negative, not all zero."""
    if sample_weight is None:
        return None
    spans = spans_processes(x)
    if spans and not spans_processes(sample_weight):
        raise ValueError(
            "sample_weight: needs to be an array of the processes that share the rows, as x is"
        )
    weight = sample_weight if spans else numeric("sample_weight", sample_weight)
    if weight.shape != (x.shape[0],):
        raise ValueError(
            f"sample_weight: needs one number per row, shape ({x.shape[0]},), "
            f"found shape {weight.shape}"
        )

    def values() -> None:
        for first, own in pieces(weight):
            for kind, wrong in (("non-finite", ~np.isfinite(own)), ("negative", own < 0)):
                if np.any(wrong):
                    row = int(np.argmax(wrong))
                    raise ValueError(f"sample_weight: {kind} value {own[row]} at row {first + row}")

    everywhere(x, values)
    if not total_over_rows(x, rows_here(weight)) > 0:
        raise ValueError("sample_weight: all weights are zero, so there is no data to fit")
    return (
        along_rows(sample_weight).astype(x.dtype)
        if spans
        else placed_as(np.asarray(weight, x.dtype), x)
    )


def check_axes(arrays: Mapping[str, tuple[Any, str]]) -> None:
    """Arrays by name, each with the names of its axes: those of one name have one length.

    The last axes may be any where the name begins with a star. Shapes only, so that it holds
    for arrays that are traced as well.
    """
    lengths: dict[str, int] = {}
    for argument, (value, axes) in arrays.items():
        found, names = np.shape(value), axes.split()
        fixed = [name for name in names if not name.startswith("*")]
        expected = tuple(lengths.get(name, "?") for name in fixed)
        fits = len(found) >= len(fixed) if len(fixed) < len(names) else len(found) == len(fixed)
        if not fits or any(
            lengths.setdefault(n, f) != f for n, f in zip(fixed, found, strict=False)
        ):
            known = [
                f"{name} = {lengths[name]}" for name in dict.fromkeys(fixed) if name in lengths
            ]
            beside = f" with {', '.join(known)}" if known and "?" not in expected else ""
            raise ValueError(
                f"{argument}: needs axes ({', '.join(names)}){beside}, found shape {found}"
            )


def check_allocation(argument: str, value: Any) -> None:
    """Probabilities (..., K, n) of each label of each row: those of a row sum to one."""
    if isinstance(value, Tracer) or np.ndim(value) < 2:
        return
    first = np.asarray(value).reshape(-1, *np.shape(value)[-2:])[0]
    sums_to_one = lambda axis: np.allclose(first.sum(axis=axis), 1, atol=1e-2)
    if sums_to_one(0):
        return
    hint = "labels come before rows"
    if sums_to_one(1):
        hint = f"labels and rows seem exchanged: pass {argument}.swapaxes(-1, -2)"
    raise ValueError(f"{argument}: the probabilities of a row must sum to one; {hint}")
