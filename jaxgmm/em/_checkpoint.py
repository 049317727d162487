"""A fit that a process may be stopped in: what it has found so far, in one file."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgmm._sharded import of_all, spans_processes
from jaxgmm.files import check_folder, write

_OF = "of"


class Checkpoint:
    """The file of a fit, whose runs are told apart by their order.

    Parameters
    ----------
    path : path
        Of the file, which is there whole or not at all; of several processes the first writes.
    of : str
        What the fit is of: one of anything else is refused.
    x : array
        Its rows.
    """

    def __init__(self, path: str | Path, of: str, x: Any) -> None:
        self._path, self._of, self._run = Path(path), of, 0
        several = spans_processes(x)
        self._writes = not several or jax.process_index() == 0
        if self._writes:
            check_folder(self._path.parent)
        self._kept = self._read() if self._path.exists() else {}
        if several:
            known = of_all(np.array([len(self._kept)]))
            if len(set(known.tolist())) > 1:
                raise ValueError(
                    f"checkpoint: not all processes find the same file at {self._path}; it has to "
                    "be on a disk that they share"
                )

    def run(
        self, like: Any, key: Any, onwards: Callable[[Any], Any], going: Callable[[Any], bool]
    ) -> Any:
        """The end of a run from its beginning, None, or from where it was when last written.

        ``like`` are shapes and dtypes of its states, whose random keys are of the kind of ``key``.
        """
        leaves, structure = jax.tree.flatten(like)
        names = [f"{self._run}.{index}" for index in range(len(leaves))]
        self._run += 1
        state = None
        if names[0] in self._kept:
            kept = [_as(leaf, self._kept[n], key) for leaf, n in zip(leaves, names, strict=True)]
            state = jax.tree.unflatten(structure, kept)
        while state is None or going(state):
            state = onwards(state)
            numbers = map(_numbers, jax.tree.leaves(state))
            self._kept |= dict(zip(names, numbers, strict=True))
            self._write()
        return state

    def _write(self) -> None:
        if not self._writes:
            return
        content = io.BytesIO()
        members: dict[str, Any] = {_OF: np.array(self._of), **self._kept}
        np.savez(content, **members)
        write(self._path.parent, {self._path.name: content.getvalue()})

    def _read(self) -> dict[str, np.ndarray]:
        try:
            content = io.BytesIO(self._path.read_bytes())
            with np.load(content, allow_pickle=False) as file:
                kept = dict(file)
                of = str(kept.pop(_OF))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"checkpoint: {self._path} is no checkpoint of a fit ({error}); name another file"
            ) from None
        if of != self._of:
            raise ValueError(
                f"checkpoint: {self._path} is of a fit to other data, of another model, or with "
                "other settings; name another file, or delete this one"
            )
        return kept


def _numbers(leaf: jax.Array) -> np.ndarray:
    """What a file holds of an array; a random key is the numbers that it is made of."""
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _as(like: Any, numbers: np.ndarray, key: Any) -> jax.Array:
    found = jax.device_put(numbers)
    if not _is_key(like):
        return found
    return jax.random.wrap_key_data(found, impl=jax.random.key_impl(key))


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
