"""What a NumPyro program is made of: labels in row plates, rows, parameters; or why it is not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro import handlers
from numpyro.primitives import Messenger

from jaxgmm._contract import innermost
from jaxgmm._programs import filled, size_for
from jaxgmm._programs import program as compiled
from jaxgmm.files import stored

# What JAX raises where Python reads an abstract value.
_READ = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


# NumPyro's stack of handlers is one for all threads.
TRACING = threading.RLock()


@stored
class Label(NamedTuple):
    """A discrete latent site in the plate of the rows.

    Attributes
    ----------
    name : str
    values : tuple
        What it may be.
    shape : tuple of int
        Of the site, for one row.
    """

    name: str
    values: tuple[Any, ...]
    shape: tuple[int, ...]


@stored
class Plan(NamedTuple):
    """The structure of a program; hashable.

    Attributes
    ----------
    labels : tuple of Label
    parameters : tuple of str
        Latent sites outside of the plate, in their order.
    rows : tuple of str
        All sites in the plate.
    axis : int
        Of the plate, counted from the last.
    columns : tuple of (str, tuple of int)
        Observed sites and the columns of the data that they are; none where they are something
        made of the data.
    """

    labels: tuple[Label, ...]
    parameters: tuple[str, ...]
    rows: tuple[str, ...]
    axis: int
    columns: tuple[tuple[str, tuple[int, ...]], ...]


def seeded(program: Callable[..., Any], key: Array) -> Callable[..., Any]:
    """The program with every latent site drawn; one without draws takes any value."""

    def anywhere(site: dict[str, Any]) -> Array | None:
        if isinstance(innermost(site["fn"]), dist.ImproperUniform):
            return site["fn"].support.feasible_like(jnp.zeros(site["fn"].shape()))
        return None

    return handlers.seed(handlers.substitute(program, substitute_fn=anywhere), key)


def plan_of(
    program: Callable[..., Any],
    x: Array,
    arrays: dict[str, Array],
    constants: tuple[tuple[str, Hashable], ...],
) -> Plan:
    """The plan of ``program(x, **fixed)``, or a `ValueError` that names what stands in its way."""
    sites = _abstract(program, x, {**arrays, **dict(constants)})
    _refuse_kinds(sites)
    samples = {name: site for name, site in sites.items() if site["type"] == "sample"}
    hidden = {name: site for name, site in samples.items() if not site["is_observed"]}
    discrete = {name: site for name, site in hidden.items() if site["fn"].support.is_discrete}
    if not discrete:
        raise ValueError(
            "program: has no discrete latent site to sum out; use NumPyro's own inference, or "
            "jaxgmm.NumericalModel"
        )
    plate = _row_plate(discrete, len(x))
    within = [name for name, site in samples.items() if plate in _plates(site)]
    for name in within:
        if name in hidden and name not in discrete:
            raise ValueError(
                f"program: site {name!r} is continuous and latent in the plate of the rows "
                f"({plate[0]!r}), so that it can not be summed out; marginalise it by hand, as "
                "Normal(m, sqrt(s**2 + t**2)) does a Normal mean, or use NumPyro's NUTS"
            )
    for name, site in samples.items():
        if name not in within:
            _check_outside(name, site, plate)
    observed = tuple(name for name in within if name not in hidden)
    rows = filled(x, size_for(len(x)))
    try:
        values = _values(program, constants, tuple(discrete), observed, rows, arrays)
    except (TypeError, ValueError) as error:
        raise not_of_any_size(tuple(discrete), error) from error
    flat = rows.reshape(len(rows), -1)

    def label(name: str, site: dict[str, Any]) -> Label:
        shape = list(jnp.shape(site["value"]))
        shape[plate[1]] = 1
        return Label(name, tuple(np.asarray(values[name]).ravel().tolist()), tuple(shape))

    return Plan(
        tuple(label(name, site) for name, site in discrete.items()),
        tuple(name for name in hidden if name not in within),
        tuple(within),
        plate[1],
        tuple((name, _columns(values[name], flat)) for name in observed),
    )


def not_of_any_size(labels: tuple[str, ...], error: Exception) -> ValueError:
    """The refusal of a program that failed where there were more rows, or fewer."""
    plates = ", ".join(map(repr, labels))
    return ValueError(
        f"program: can not be run with another number of rows ({error}); the size of the plate of "
        f"{plates} must be len(x), and what has a value per row a column of x"
    )


@compiled(static_argnames=("program", "constants", "labels", "observed"))
def _values(
    program: Callable[..., Any],
    constants: tuple[tuple[str, Hashable], ...],
    labels: tuple[str, ...],
    observed: tuple[str, ...],
    x: Array,
    arrays: dict[str, Array],
) -> dict[str, Array]:
    """What labels may be, and what was observed."""
    with TRACING, handlers.block():
        run = handlers.trace(seeded(program, jax.random.key(0)))
        sites = run.get_trace(x, **arrays, **dict(constants))
    values = {name: sites[name]["fn"].enumerate_support(expand=False) for name in labels}
    return values | {name: jnp.asarray(sites[name]["value"]) for name in observed}


def _abstract(program: Callable[..., Any], x: Array, fixed: dict[str, Any]) -> dict[str, Any]:
    """The sites of a run without numbers: nothing may depend on Python's reading of a draw."""
    recorder = handlers.trace(seeded(_NoLoops(program), jax.random.key(0)))
    with TRACING, handlers.block():
        try:
            jax.eval_shape(lambda: (recorder(x, **fixed), None)[1])
        except _READ as error:
            drawn = [n for n, site in recorder.trace.items() if site["type"] == "sample"]
            raise ValueError(
                f"program: Python reads the value of a latent site (one of {', '.join(drawn)}), "
                "by `if`, float() or as an index of a list; use jnp.where, or arrays indexed by "
                "the label"
            ) from error
    return recorder.trace


class _NoLoops(Messenger):
    """Refuses what a trace does not hold."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "control_flow":
            raise ValueError(
                "program: holds a loop of NumPyro's (scan or cond); labels that depend on each "
                "other are a hidden Markov model, for which there is dynamax"
            )


def _refuse_kinds(sites: dict[str, Any]) -> None:
    for name, site in sites.items():
        if site["type"] == "param":
            raise ValueError(
                f"program: site {name!r} is a numpyro.param, which has no prior; make it a sample "
                "site, of dist.ImproperUniform where its prior is flat"
            )
        if site["type"] == "plate" and site["args"][1] not in (None, site["args"][0]):
            raise ValueError(
                f"program: plate {name!r} is subsampled, {site['args'][1]} of {site['args'][0]}; "
                "every row counts in EM, leave out subsample_size"
            )


def _plates(site: dict[str, Any]) -> set[tuple[str, int, int]]:
    return {(frame.name, frame.dim, frame.size) for frame in site["cond_indep_stack"]}


def _row_plate(discrete: dict[str, Any], n: int) -> tuple[str, int, int]:
    """The one plate that every label lies in, name, axis and size."""
    first: set[tuple[str, int, int]] | None = None
    for name, site in discrete.items():
        found = _plates(site)
        names = " and ".join(repr(plate[0]) for plate in sorted(found)) or "no plate"
        if not site["fn"].has_enumerate_support:
            raise ValueError(
                f"program: site {name!r}, {type(innermost(site['fn'])).__name__}, is discrete "
                "without an end; labels need finitely many values"
            )
        if len(found) != 1 or site["fn"].event_shape:
            raise ValueError(
                f"program: site {name!r} is discrete in {names}; a label is one number per row, in "
                "the plate of the rows alone, such as numpyro.plate('rows', len(x))"
            )
        if first is not None and found != first:
            raise ValueError(
                f"program: site {name!r} is in {names}, other labels in another plate; all "
                "labels must lie in the plate of the rows"
            )
        first = found
    (plate,) = first or set()
    if plate[2] != n:
        raise ValueError(
            f"program: the labels are in plate {plate[0]!r} of size {plate[2]}, but x has {n} "
            "rows; give each row its label, in numpyro.plate('rows', len(x))"
        )
    return plate


def _check_outside(name: str, site: dict[str, Any], plate: tuple[str, int, int]) -> None:
    if site["is_observed"]:
        raise ValueError(
            f"program: site {name!r} is observed (or a factor) outside of the plate of the rows "
            f"({plate[0]!r}), and is neither prior nor row; move it into the plate"
        )
    if site["scale"] is not None:
        raise ValueError(
            f"program: the prior of site {name!r} is scaled, by handlers.scale; write a prior that "
            "is as it is meant"
        )


def _columns(value: Array, x: np.ndarray) -> tuple[int, ...]:
    """Which columns of the data an observed value is."""
    flat = np.asarray(value).reshape(len(x), -1)
    same = (flat[:, :, None] == x[:, None]).all(axis=0)
    return tuple(int(np.argmax(row)) for row in same) if same.any(axis=1).all() else ()
