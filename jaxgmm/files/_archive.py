"""Results as one file: arrays as NumPy writes them, and a record in JSON of what they are.

Nothing is unpickled or evaluated: a file names kinds that the library knows, distributions of
NumPyro's and their arguments, numbers, and code of the user's that who loads it hands over.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import io
import json
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints, transforms

from jaxgmm.files._whole import write

_FORMAT, _VERSION = "jaxgmm", 1
_RECORD = "record.json"
# Members of equal content make equal files, whenever they are written.
_EPOCH = (1980, 1, 1, 0, 0, 0)

Kind = TypeVar("Kind", bound=type)


class _Stored(NamedTuple):
    """How a kind is taken apart into named parts, and put together."""

    kind: type
    apart: Callable[[Any], Mapping[str, Any]]
    together: Callable[[dict[str, Any]], Any]


_KINDS: dict[str, _Stored] = {}


def stored(kind: Kind) -> Kind:
    """Decorate a dataclass, named tuple or enum that files may hold: its fields are its parts."""
    make: Any = kind
    if issubclass(kind, enum.Enum):
        store(kind, lambda value: {"name": value.name}, lambda parts: make[parts["name"]])
    else:
        store(*_by_field(kind))
    return kind


def _by_field(kind: type) -> _Stored:
    """A dataclass or a named tuple: its fields are its parts."""
    make: Any = kind
    plain = dataclasses.is_dataclass(kind)
    fields = dataclasses.fields(make) if plain else ()
    names = [field.name for field in fields] if plain else list(make._fields)
    # What a kind has gained with a default may be missing from files of before.
    given = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
    defaults = given if plain else make._field_defaults

    def together(parts: dict[str, Any]) -> Any:
        parts = defaults | parts
        if set(parts) != set(names):
            origin = "jaxgmm" if _ours(kind) else "your code"
            raise _Unreadable(f"has a {kind.__name__} of another version of {origin}")
        if not plain:
            return make(**parts)
        # As it was: not as it would be checked and made of what users write.
        made = object.__new__(make)
        for name, part in parts.items():
            object.__setattr__(made, name, part)
        return made

    return _Stored(kind, lambda value: {name: getattr(value, name) for name in names}, together)


def _ours(code: Any) -> bool:
    module = getattr(code, "__module__", None) or ""
    return module.partition(".")[0] == __name__.partition(".")[0]


def _may_be_own(kind: type) -> bool:
    """Whether it has fields and is none of ours, which need `stored`."""
    named = issubclass(kind, tuple) and hasattr(kind, "_fields")
    return (dataclasses.is_dataclass(kind) or named) and not _ours(kind)


def store(
    kind: type,
    apart: Callable[[Any], Mapping[str, Any]],
    together: Callable[[dict[str, Any]], Any],
) -> None:
    """Let files hold a kind of which these are the parts."""
    _KINDS[kind.__name__] = _Stored(kind, apart, together)


def packed(value: Any) -> bytes:
    """A result as the content of one file."""
    arrays = _Arrays()
    tree = _encode(value, type(value).__name__.lower(), arrays)
    record = {"format": _FORMAT, "version": _VERSION, "value": tree}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [*arrays.members(), (_RECORD, json.dumps(record, indent=1).encode())]:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return buffer.getvalue()


def save(value: Any, path: str | Path) -> Path:
    """Write a result to one file, whole or not at all."""
    return _written(Path(path), packed(value))


def _written(path: Path, content: bytes) -> Path:
    write(path.parent, {path.name: content})
    return path


# Other formats that files of ours are found in, by their first bytes: how to get at it.
_CARRIERS: dict[bytes, Callable[[Path], bytes | None]] = {}


def carried(first: bytes, read: Callable[[Path], bytes | None]) -> None:
    """Let `load` look for what `packed` made inside files of another format; None is nothing."""
    _CARRIERS[first] = read


class Kept:
    """A result that has a file of its own."""

    def save(self, path: str | Path) -> Path:
        """Write all of it to one file, which `jaxgmm.load` reads: of a posterior the data too.

        Parameters
        ----------
        path : str or Path
            Such as ``fit.npz``; replaced where it exists, and whole or not there.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        TypeError
            For what is no dataclass, named tuple or function with a name among models, families
            and parameters of one's own, and for a distribution of one's own.
        OSError
            Where it cannot be written.
        """
        return _written(Path(path), self._content(Path(path).suffix))

    def _content(self, suffix: str) -> bytes:
        """What a file of such a name holds."""
        return packed(self)


def load(path: str | Path, own: Iterable[Any] = ()) -> Any:
    """What ``save`` of a fit, a posterior, a verdict or a selection has written.

    Every number comes back bit for bit, the model and its prior included.

    Parameters
    ----------
    path : str or Path
        The file.
    own : list of classes and functions, optional
        Code of one's own that the file names: a model, its parameters, a program, a family.

    Returns
    -------
    Fit, Posterior, Verdict or Selection
        What was saved.

    Raises
    ------
    OSError
        Where the file cannot be read.
    TypeError
        For something else in ``own``.
    ValueError
        For a file that is something else, is truncated or damaged, or was written by a newer
        version of jaxgmm; for one that names code which is not among ``own``; for numbers in
        double precision where JAX's 64-bit switch is off.

    Notes
    -----
    Nothing is unpickled or evaluated. The arrays are a NumPy archive, which `numpy.load` reads too.
    Of code of one's own the file has the ``__qualname__``, and what the fields of a dataclass or
    a named tuple hold; whether the code is still what it was then is for its author to know.

    Examples
    --------
    >>> import pathlib
    >>> import tempfile
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("galaxies").x
    >>> fit = jg.fit(jg.Mixture(jg.Gaussian("tied"), 2), x, key=jax.random.key(0), n_init=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = jg.load(fit.save(pathlib.Path(folder) / "fit.npz"))
    >>> again.log_joint == fit.log_joint
    True
    """
    path, known = Path(path), _by_name(own)
    with path.open("rb") as file:
        head = file.read(max(map(len, _CARRIERS), default=0))
        inside = [read for first, read in _CARRIERS.items() if head.startswith(first)]
        try:
            file = io.BytesIO(inside[0](path) or b"") if inside else file
            with zipfile.ZipFile(file) as archive:
                return _read(archive, known)
        except _Unreadable as error:
            raise ValueError(f"{path}: {error}") from None
        except zipfile.BadZipFile:
            raise ValueError(
                f"{path}: is no file of jaxgmm's, or one that is truncated or damaged; load takes "
                "what .save of a result has written"
            ) from None
        except (KeyError, ValueError, TypeError, EOFError, AttributeError, OSError) as error:
            raise ValueError(f"{path}: is damaged ({error}); save it again") from error


def _by_name(own: Iterable[Any]) -> dict[str, Any]:
    own = list(own)
    for code in own:
        if not hasattr(code, "__qualname__"):
            raise TypeError(f"own: needs classes and functions, found {type(code).__name__}")
    return {code.__qualname__: code for code in own}


class _Unreadable(Exception):
    """Says what is the matter with a file."""


def _read(archive: zipfile.ZipFile, own: Mapping[str, Any]) -> Any:
    if _RECORD not in archive.namelist():
        raise _Unreadable("is an archive, but not one of jaxgmm's")
    record = json.loads(archive.read(_RECORD))
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise _Unreadable("is an archive, but not one of jaxgmm's")
    if record["version"] > _VERSION:
        raise _Unreadable(
            f"has the format {record['version']} of a newer jaxgmm, and this one reads up to "
            f"{_VERSION}; upgrade jaxgmm"
        )

    def array(name: str) -> np.ndarray:
        with archive.open(f"{name}.npy") as member:
            return np.lib.format.read_array(member, allow_pickle=False)

    missing = sorted(set(_named(record["value"])) - set(own))
    if missing:
        listed = ", ".join(missing)
        raise _Unreadable(
            f"names code of your own; hand it over: jaxgmm.load(path, own=[{listed}])"
        )
    return _decode(record["value"], array, own)


def _named(tree: Any) -> Iterator[str]:
    """The names of code that is the user's."""
    parts = tree if isinstance(tree, list) else []
    if isinstance(tree, dict):
        if "own" in tree:
            yield tree["own"]
        parts = [list(part.values()) if isinstance(part, dict) else part for part in tree.values()]
    for part in parts:
        yield from _named(part)


class _Arrays:
    """Arrays that a record names; one that occurs twice is written once."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._kept: list[Any] = []

    def name(self, array: Any) -> str:
        if id(array) not in self._names:
            self._names[id(array)] = f"a{len(self._kept)}"
            self._kept.append(array)  # as long as it is kept, nothing else has its id
        return self._names[id(array)]

    def members(self) -> Any:
        for array in self._kept:
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
            yield f"{self._names[id(array)]}.npy", buffer.getvalue()


def _encode(value: Any, name: str, arrays: _Arrays) -> Any:
    """A value as JSON; ``name`` is where it stands, for refusals."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if type(value) in (int, float):
        return value if type(value) is int or math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        if isinstance(value, np.ndarray) and value.dtype == object:
            parts = [_encode(v, f"{name}[{i}]", arrays) for i, v in enumerate(value.ravel())]
            return {"objects": parts, "shape": value.shape}
        origin = "jax" if isinstance(value, jax.Array) else "numpy"
        return {origin: arrays.name(value), "scalar": isinstance(value, np.generic)}
    inner = lambda part, item: _encode(item, f"{name}.{part}", arrays)
    if type(value).__name__ in _KINDS and type(value) is _KINDS[type(value).__name__].kind:
        parts = _KINDS[type(value).__name__].apart(value)
        return {"kind": type(value).__name__, "parts": {n: inner(n, p) for n, p in parts.items()}}
    if _may_be_own(type(value)):
        parts = _by_field(type(value)).apart(value)
        return {
            "own": type(value).__qualname__,
            "parts": {n: inner(n, p) for n, p in parts.items()},
        }
    if isinstance(value, (list, tuple)):
        if hasattr(value, "_fields"):
            raise _refusal(value, name)
        return {
            type(value).__name__: [_encode(v, f"{name}[{i}]", arrays) for i, v in enumerate(value)]
        }
    if isinstance(value, Mapping):
        return {
            "dict": [
                [inner("key", k), _encode(v, f"{name}[{k!r}]", arrays)] for k, v in value.items()
            ]
        }
    if isinstance(value, (dist.Distribution, transforms.Transform)):
        arguments = _arguments(value, name)
        return {
            "numpyro": type(value).__name__,
            "arguments": {n: inner(n, p) for n, p in arguments.items()},
            # Arguments may have become arrays inside since.
            "leaves": [inner("leaves", leaf) for leaf in jax.tree.leaves(value)],
        }
    support = _SUPPORTS.get(id(value))
    if support is not None:
        return {"support": support}
    if callable(value) and getattr(dist, getattr(value, "__name__", ""), None) is value:
        return {"distribution": value.__name__}
    called = getattr(value, "__qualname__", "<")
    if callable(value) and not called.endswith(">") and not _ours(value):
        return {"own": called}
    raise _refusal(value, name)


def _decode(tree: Any, array: Callable[[str], np.ndarray], own: Mapping[str, Any]) -> Any:
    if not isinstance(tree, dict):
        return tree
    inner = lambda part: _decode(part, array, own)
    if "float" in tree:
        return float(tree["float"])
    if "numpy" in tree:
        found = array(tree["numpy"])
        return found[()] if tree["scalar"] else found
    if "jax" in tree:
        return _as_jax(array(tree["jax"]))
    if "objects" in tree:
        objects = np.empty(len(tree["objects"]), object)
        objects[:] = [inner(part) for part in tree["objects"]]
        return objects.reshape(tree["shape"])
    if "list" in tree:
        return [inner(part) for part in tree["list"]]
    if "tuple" in tree:
        return tuple(inner(part) for part in tree["tuple"])
    if "dict" in tree:
        return {inner(key): inner(part) for key, part in tree["dict"]}
    if "support" in tree:
        return getattr(constraints, _known(tree["support"], set(_SUPPORTS.values())))
    if "distribution" in tree:
        return getattr(dist, _known(tree["distribution"], set(dist.__all__)))
    if "numpyro" in tree:
        named = _known(tree["numpyro"], {*dist.__all__, *transforms.__all__})
        made = _numpyros(named)(**{n: inner(p) for n, p in tree["arguments"].items()})
        return jax.tree.unflatten(
            jax.tree.structure(made), [inner(leaf) for leaf in tree["leaves"]]
        )
    if "own" in tree and "parts" not in tree:
        return own[tree["own"]]
    kind = (
        _by_field(own[tree["own"]]) if "own" in tree else _KINDS[_known(tree["kind"], set(_KINDS))]
    )
    return kind.together({name: inner(part) for name, part in tree["parts"].items()})


def _known(name: str, names: set[str]) -> str:
    if name not in names:
        raise _Unreadable(f"holds {name!r}, which this version of jaxgmm does not know")
    return name


def _as_jax(found: np.ndarray) -> jax.Array:
    made = jax.device_put(found)
    if made.dtype != found.dtype:
        raise _Unreadable(
            f"holds {found.dtype}, and JAX's 64-bit switch is off in this process; set the "
            "environment variable JAX_ENABLE_X64=1, or call "
            'jax.config.update("jax_enable_x64", True) first'
        )
    return made


def _refusal(value: Any, name: str) -> TypeError:
    kind = value if hasattr(value, "__qualname__") else type(value)
    return TypeError(
        f"{name}: files hold the library's kinds, and of your code dataclasses, named tuples and "
        f"functions with a name; found {kind.__module__}.{kind.__qualname__}; keep the parameters "
        "with numpy.savez"
    )


# -- distributions and transforms -------------------------------------------------------

# Supports that are values, by name.
_SUPPORTS = {
    id(value): name
    for name, value in vars(constraints).items()
    if isinstance(value, constraints.Constraint) and not name.startswith("_")
}
# Where either of several arguments says the same, the one that NumPyro computes with.
_TRIANGLE = "scale_tril"
# Arguments that NumPyro keeps under another name.
_KEPT_AS = {"base_distribution": "base_dist"}


def _numpyros(name: str) -> Any:
    """A distribution or a transform of NumPyro's by name; None where there is none."""
    return getattr(dist, name, None) or getattr(transforms, name, None)


def _arguments(value: Any, name: str) -> dict[str, Any]:
    """What NumPyro made this of; a `TypeError` where that does not make it again."""
    kind = type(value)
    if _numpyros(kind.__name__) is not kind:
        raise _refusal(value, name)
    accepted = list(inspect.signature(kind.__init__).parameters)[1:]
    if _TRIANGLE in accepted:
        accepted = [a for a in accepted if not a.endswith("_matrix")]
    missing = object()
    arguments = {
        a: getattr(value, _KEPT_AS.get(a, a), missing) for a in accepted if a != "validate_args"
    }
    arguments = {a: given for a, given in arguments.items() if given is not missing}
    try:
        same = _same(kind(**arguments), value)
    except (TypeError, ValueError):
        same = False
    if not same:
        raise TypeError(f"{name}: files cannot hold this {kind.__name__}; write it another way")
    return arguments


def _same(one: Any, other: Any) -> bool:
    (some, structure), (others, like) = jax.tree.flatten(one), jax.tree.flatten(other)
    return structure == like and all(
        np.array_equal(a, b) and jnp.result_type(a) == jnp.result_type(b)
        for a, b in zip(some, others, strict=True)
    )
