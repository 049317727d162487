"""All data sets of a study, a batch at a time: simulated, fitted and judged on the device."""

from __future__ import annotations

import hashlib
import io
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PRNGKeyArray

from jaxgmm._contract import LatentModel, Params
from jaxgmm._programs import program
from jaxgmm.em import bar, fingerprint
from jaxgmm.files import write
from jaxgmm.report.studies._asked import ASKED, Options, asked
from jaxgmm.report.studies._case import Case, Found, Rows, Setting, searched, simulated
from jaxgmm.report.studies._criteria import CRITERIA, criteria
from jaxgmm.report.studies._each import each, everywhere
from jaxgmm.report.studies._given import Given
from jaxgmm.report.studies._methods import METHODS, Method, Outcome

# Data sets side by side: a processor is quickest with one at a time, its restarts beside each
# other; other devices want many.
_SIDE_BY_SIDE = {"cpu": 1}
_SIDE_BY_SIDE_ELSEWHERE = 64

# What each data set draws has a key of its own, so that a method more changes no other number.
_ROWS, _STARTS, _METHODS, _SELECT, _ASKED = 0, 1, 2, 3, 4


class Problem(NamedTuple):
    """The truth, the model that is fitted, what its estimates should be, models to choose from.

    And what all data sets are ``given`` of their rows, where they are given something.
    """

    truth: LatentModel
    params: Params
    model: LatentModel
    target: Params
    candidates: tuple[LatentModel, ...]
    given: Given | None


class Asked(NamedTuple):
    """What is done with a data set: by name, methods, and criteria with their options."""

    methods: Mapping[str, Method]
    criteria: Options


class Record(NamedTuple):
    """What is kept of N data sets; each array has them first.

    Attributes
    ----------
    outcomes : dict of Outcome
        By method.
    missed, elsewhere : (N,) bool arrays
        Whether the optimum near the truth is higher than the best restart, or lower.
    log_density, adjusted_rand : (N,) arrays
        Scores of the truth itself.
    criteria : dict of (N, M) arrays
        By name, of the models to choose from; infinite where one has no fit. Of ``"lrt"`` the
        p-values against the next model, NaN after the first that is not given up.
    seconds : dict of (B,) arrays
        By method, of each batch and per data set; EM's search is ``"search"``.
    """

    outcomes: dict[str, Outcome]
    missed: np.ndarray
    elsewhere: np.ndarray
    log_density: np.ndarray
    adjusted_rand: np.ndarray
    criteria: dict[str, np.ndarray]
    seconds: dict[str, np.ndarray]


def run(
    problem: Problem,
    setting: Setting,
    wanted: Asked,
    key: PRNGKeyArray,
    n: int,
    n_datasets: int,
    batch_size: int,
    path: Path | None,
    progress: bool,
) -> Record:
    """Every batch of data sets of ``n`` rows, from its file where there is one."""
    mark = _mark(problem, setting, wanted, key, n, batch_size)
    problem, key = everywhere((problem, key), batch_size)
    records = []
    with bar("data sets", progress, n_datasets) as shown:
        for first in range(0, n_datasets, batch_size):
            file = None if path is None else path / f"batch-{first:07d}.npz"
            record = None if file is None else _read(file, mark)
            if record is None:
                # The last batch may make some too many: all have one shape.
                numbers = np.arange(first, first + batch_size)
                record = _batch(problem, setting, wanted, key, numbers, n)
                if file is not None:
                    write(file.parent, {file.name: _packed(record, mark)})
            left = min(batch_size, n_datasets - first)
            records.append(_first(record, left))
            shown.update(left)
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *records)
    return joined._replace(
        outcomes={name: joined.outcomes[name] for name in wanted.methods},
        criteria={name: joined.criteria[name] for name in wanted.criteria if problem.candidates},
    )


def _batch(
    problem: Problem,
    setting: Setting,
    wanted: Asked,
    key: PRNGKeyArray,
    numbers: np.ndarray,
    n: int,
) -> Record:
    keys = _keys(key, numbers)
    rows = _simulate(problem.truth, problem.params, problem.given, keys, n, setting)
    fitted = problem.model, problem.target
    seconds, outcomes = {}, {}
    begin = time.perf_counter()
    found = jax.block_until_ready(_search(*fitted, rows, keys, setting))
    seconds["search"] = time.perf_counter() - begin
    for name, method in wanted.methods.items():
        begin = time.perf_counter()
        # By its name, so that a method draws the same whatever stands beside it.
        number = jnp.uint32(zlib.crc32(name.encode()))
        own = rows if method in METHODS.values() else _first_rows(rows, n)
        said = _judge(problem.model, own, found, keys, number, setting, method)
        outcomes[name] = jax.tree.map(np.asarray, said)
        seconds[name] = time.perf_counter() - begin
    return Record(
        outcomes,
        np.asarray(found.missed),
        np.asarray(found.elsewhere),
        np.asarray(rows.log_density),
        np.asarray(rows.adjusted_rand),
        _criteria(problem.candidates, wanted.criteria, rows, keys, n, setting),
        {name: np.array([passed / len(numbers)]) for name, passed in seconds.items()},
    )


def _criteria(
    models: tuple[LatentModel, ...],
    wanted: Options,
    rows: Rows,
    keys: Key[Array, " b"],
    n: int,
    setting: Setting,
) -> dict[str, np.ndarray]:
    if not models:
        return {}
    found = {}
    if CRITERIA.keys() & wanted:
        of_fits = [
            _compare(one, rows, keys, jnp.asarray(i), setting) for i, one in enumerate(models)
        ]
        found = {name: np.stack([each[name] for each in of_fits], axis=1) for name in CRITERIA}
    if set(ASKED) & set(wanted):
        own = [jax.random.fold_in(key, _ASKED) for key in keys]
        found |= asked(wanted, models, np.asarray(rows.x)[:, :n], own, setting)
    return {name: found[name] for name in wanted}


@program()
def _keys(key: PRNGKeyArray, numbers: Array) -> Key[Array, " b"]:
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)


@program(static_argnames="setting")
def _simulate(
    truth: LatentModel,
    params: Params,
    given: Given | None,
    keys: Key[Array, " b"],
    n: Array | int,
    setting: Setting,
) -> Rows:
    def one(common: tuple[LatentModel, Params, Given | None, Array], key: PRNGKeyArray) -> Rows:
        truth, params, given, n = common
        return simulated(truth, params, given, jax.random.fold_in(key, _ROWS), n, setting)

    return _each(one, (truth, params, given, jnp.asarray(n)), keys)


@program(static_argnames="n")
def _first_rows(rows: Rows, n: int) -> Rows:
    """Those of the data sets, without what fills them up."""
    cut = lambda leaf: leaf[:, :n]
    return rows._replace(x=cut(rows.x), weight=cut(rows.weight), labels=cut(rows.labels))


@program(static_argnames="setting")
def _search(
    model: LatentModel, target: Params, rows: Rows, keys: Key[Array, " b"], setting: Setting
) -> Found:
    def one(wanted: tuple[LatentModel, Params], case: tuple[Rows, PRNGKeyArray]) -> Found:
        (model, target), (rows, key) = wanted, case
        own = model.resolve(rows.x, rows.weight)
        return searched(own, target, rows, jax.random.fold_in(key, _STARTS), setting)

    return _each(one, (model, target), (rows, keys))


@program(static_argnames=("setting", "method"))
def _judge(
    model: LatentModel,
    rows: Rows,
    found: Found,
    keys: Key[Array, " b"],
    number: Array,
    setting: Setting,
    method: Method,
) -> Outcome:
    def one(common: tuple[LatentModel, Array], case: tuple[Rows, Found, PRNGKeyArray]) -> Outcome:
        (model, number), (rows, found, key) = common, case
        key = jax.random.fold_in(jax.random.fold_in(key, _METHODS), number)
        return method(Case(model.resolve(rows.x, rows.weight), rows, found, key, setting))

    return _each(one, (model, number), (rows, found, keys))


@program(static_argnames="setting")
def _compare(
    model: LatentModel, rows: Rows, keys: Key[Array, " b"], number: Array, setting: Setting
) -> dict[str, Array]:
    def one(common: tuple[LatentModel, Array], case: tuple[Rows, PRNGKeyArray]) -> dict[str, Array]:
        (model, number), (rows, key) = common, case
        key = jax.random.fold_in(jax.random.fold_in(key, _SELECT), number)
        return criteria(model, rows, key, setting)

    return _each(one, (model, number), (rows, keys))


def _each(one: Callable[[Any, Any], Any], common: Any, cases: Any) -> Any:
    together = _SIDE_BY_SIDE.get(jax.default_backend(), _SIDE_BY_SIDE_ELSEWHERE)
    return each(one, common, cases, together)


def _first(record: Record, count: int) -> Record:
    """The first data sets of a batch."""
    kept = jax.tree.map(lambda leaf: leaf[:count], record._replace(seconds={}))
    return kept._replace(seconds=record.seconds)


# -- files ---------------------------------------------------------------------------------


def _mark(
    problem: Problem,
    setting: Setting,
    wanted: Asked,
    key: PRNGKeyArray,
    n: int,
    batch_size: int,
) -> str:
    """A digest of all that decides the numbers of a batch."""
    digest = hashlib.blake2b(digest_size=16)
    named = [(name, getattr(how, "__qualname__", "")) for name, how in wanted.methods.items()]
    choice = [
        (name, [(key, getattr(value, "__qualname__", value)) for key, value in options.items()])
        for name, options in wanted.criteria.items()
    ]
    said = jax.tree.structure(problem), setting, named, choice, n, batch_size, jax.__version__
    digest.update(repr(said).encode())
    digest.update(fingerprint(jax.tree.leaves(problem), jax.random.key_data(key)).encode())
    return digest.hexdigest()


def _packed(record: Record, mark: str) -> bytes:
    """A batch as the bytes of an npz file."""
    leaves, _ = jax.tree.flatten_with_path(record)
    arrays = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    buffer = io.BytesIO()
    np.savez(buffer, mark=np.array(mark), **arrays)
    return buffer.getvalue()


def _read(file: Path, mark: str) -> Record | None:
    """The batch in a file; None where there is none."""
    if not file.exists():
        return None
    with np.load(file) as arrays:
        if str(arrays.get("mark")) != mark:
            raise ValueError(
                f"path: {file} belongs to another study (its truth, model, settings, key, "
                "size of batches or version of JAX differ); name another folder, or remove this one"
            )
        found = {name: arrays[name] for name in arrays.files if name != "mark"}
    tree: dict[str, Any] = {}
    for name, array in found.items():
        *parents, last = name.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = array
    outcomes = {name: Outcome(**fields) for name, fields in tree.pop("outcomes").items()}
    return Record(outcomes=outcomes, criteria=tree.pop("criteria", {}), **tree)
