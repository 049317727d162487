"""The nouns that come out: a status, the record of a run, a fit, a posterior."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PRNGKeyArray

from jaxgmm._contract import LatentModel, Params
from jaxgmm._sharded import of_all, pieces, shared, spans_processes
from jaxgmm.em._html import fit_html
from jaxgmm.files import Kept, stored
from jaxgmm.model import about, coordinates, narrowed

if TYPE_CHECKING:
    import pandas as pd


@stored
class Status(enum.IntEnum):
    """Why a run of EM ended; the number is what compiled code carries.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> jg.Status(0)
    converged: no further gain above the tolerance
    """

    CONVERGED = 0
    OUT_OF_ITERATIONS = 1
    COLLAPSED = 2
    OBJECTIVE_FELL = 3
    NONFINITE_OBJECTIVE = 4
    NONFINITE_INPUT = 5
    SADDLE = 6
    UNJUDGED = 7

    def __str__(self) -> str:
        return _SENTENCES[self]

    __repr__ = __str__


_SENTENCES = {
    Status.CONVERGED: "converged: no further gain above the tolerance",
    Status.OUT_OF_ITERATIONS: "out of iterations before convergence: raise max_iter or passes",
    Status.COLLAPSED: "a component collapsed: use a proper or wider prior, or fewer components",
    Status.OBJECTIVE_FELL: "the objective fell by more than rounding: use float64 or rescale x",
    Status.NONFINITE_OBJECTIVE: "the objective is not finite: check the start and the prior",
    Status.NONFINITE_INPUT: "the data, weights or start hold non-finite values",
    Status.SADDLE: "a saddle: components coincide, or steps grow; use fewer components or a prior",
    Status.UNJUDGED: (
        "not judged: the rows are learned, and how far the optimum is nobody knows; plain EM from "
        "here tells"
    ),
}


# Ends of EM whose log joints differ by less are one optimum, reached to its tolerance.
SAME_OPTIMUM = 1e-2


class Optimum(NamedTuple):
    """A distinct end of the restarts.

    Attributes
    ----------
    log_joint : float
        Its height.
    starts : array of int
        The restarts that ended there, the highest first.
    status : Status
        Why they ended.
    spurious : bool
        Whether it hangs on a handful of rows.
    """

    log_joint: float
    starts: np.ndarray
    status: Status
    spurious: bool


def _span(values: Any, form: str) -> str:
    """The least and the greatest finite value, or the only one."""
    finite = np.asarray(values)[np.isfinite(values)]
    if finite.size == 0:
        return "not finite"
    low, high = f"{finite.min():{form}}", f"{finite.max():{form}}"
    return low if low == high else f"{low} to {high}"


@stored
class Run(NamedTuple):
    """Everything one start led to; a leading axis stacks several starts.

    Attributes
    ----------
    params : pytree
        Final parameters, in the units of the data.
    log_joint, log_likelihood, log_prior : scalar arrays
        At exactly ``params``, the last point with a density; NaN where not even the start
        had one (``params`` is then that start).
    status : int32 array
        A `Status` code.
    n_iter : int32 array
        Number of steps taken after the start.
    n_evaluations : int32 array
        Number of E-steps computed: the start's, those of ``n_iter``, and those of steps
        that were tried and not taken.
    rate : array
        Estimated rate of EM near the end: the share of the distance to the optimum that
        one step leaves, which is the fraction of information that the missing labels
        take away (Dempster, Laird and Rubin, 1977). The ratio of the largest changes of
        a parameter in the last two consecutive steps of EM; NaN before there are two.
    trace : (max_iter + 1,) array
        The objective at the start and after every iteration, NaN after the end.
    spurious : bool array
        Whether the optimum hangs on a handful of rows (the model's rule).
    """

    params: Params
    log_joint: Array
    log_likelihood: Array
    log_prior: Array
    status: Array
    n_iter: Array
    n_evaluations: Array
    rate: Array
    trace: Array
    spurious: Array

    @property
    def converged(self) -> Array:
        """Whether the status is `Status.CONVERGED`."""
        return self.status == Status.CONVERGED

    def __repr__(self) -> str:
        """How many starts ended how, and how high; the numbers are in the fields."""
        if isinstance(self.status, Tracer):
            return tuple.__repr__(self)
        codes, counts = np.unique(self.status, return_counts=True)
        ends = [
            f"{count} {Status(int(code)).name.lower().replace('_', ' ')}"
            for code, count in zip(codes, counts, strict=True)
        ]
        n_spurious, heights = int(np.sum(self.spurious)), np.asarray(self.log_joint)
        spurious = f" ({n_spurious} spurious)" if n_spurious else ""
        return (
            f"Run of {np.size(self.status)} start(s): {', '.join(ends)}{spurious}\n"
            f"  log joint {_span(heights, '.4f')}, iterations {_span(self.n_iter, 'd')}\n"
            f"  fields: {', '.join(self._fields)}"
        )


@stored
class RowSums(NamedTuple):
    """Sums over the rows of a fit at its parameters: what EM needs of them to go on.

    Attributes
    ----------
    model : LatentModel
        In the working units of the sums.
    statistics : pytree
        K F numbers, where F is how many features of a row the model sums.
    """

    model: LatentModel
    statistics: Any


@stored
@dataclasses.dataclass(frozen=True, repr=False)
class Fit(Kept):
    """A point estimate with the record of every restart.

    Attributes
    ----------
    model : LatentModel
        The model with its prior as numbers.
    params : pytree
        Parameters of the best restart that is neither collapsed nor spurious.
    log_likelihood, log_prior, log_joint : float
        Totals at exactly ``params``.
    status : Status
        Why the best restart ended; prints as a sentence.
    n_iter, n_evaluations : int
        Its number of steps, and of E-steps computed for them.
    rate : float
        Its estimated rate of EM, the fraction of missing information; see `Run`. Close to
        one, plain EM is slow and acceleration pays. A lower bound where the run was
        accelerated.
    trace : (n_iter + 1,) array
        Its objective at the start and after each iteration.
    restarts : Run
        The same record for every start, stacked.
    best : int
        Index of the fit among the restarts.
    optimum_of : (S,) array of int
        Which optimum each restart reached, the highest numbered 0.
    n_spurious_better : int
        Restarts that scored higher and were set aside as spurious.
    n_empty : int
        Components that hold no rows, to a thousandth of one; only a prior keeps such.
    bic, aic, icl : float
        Information criteria, lower is better; ``icl`` is Biernacki, Celeux and Govaert's
        (2000) with hard labels, ``bic - 2 sum log max_k r_ik``. The ``n`` of ``bic`` is
        the total weight of the rows with at least one value.
    tol, max_iter, algorithm, acceleration
        The settings used.
    fingerprint : str
        Digest of the data and weights.
    start : str
        The kind of start; ``"given"`` for parameters and responsibilities.
    seed : tuple of int or None
        The numbers in the random key, as `jax.random.key_data` has them; None without one.
    origin : (D,) array or None
        What rows far from zero were measured from where JAX has no float64; means are then
        NumPy's float64.
    row_sums : RowSums or None
        What `update` goes on from; None where the M-step is numerical, and where there is an
        ``origin``.
    """

    model: LatentModel
    params: Params
    log_likelihood: float
    log_prior: float
    log_joint: float
    status: Status
    n_iter: int
    n_evaluations: int
    rate: float
    trace: np.ndarray
    restarts: Run
    best: int
    optimum_of: np.ndarray
    n_spurious_better: int
    n_empty: int
    n_rows: int
    total_weight: float
    n_parameters: int
    bic: float
    aic: float
    icl: float
    tol: float
    max_iter: int
    algorithm: str
    acceleration: str | None
    fingerprint: str
    feature_names: tuple[str, ...]
    start: str = "given"
    seed: tuple[int, ...] | None = None
    origin: np.ndarray | None = None
    row_sums: RowSums | None = None

    # Set by the room that knows how to go on.
    going_on: ClassVar[Callable[..., Fit]]

    def update(self, x: Any, *, sample_weight: Any = None, algorithm: Any = None) -> Fit:
        """The fit after further rows, without the old ones: online EM from the sums it keeps.

        Parameters
        ----------
        x : (m, D) or (m,) array, or Stream
            Rows of the same columns; read once, in their order.
        sample_weight : (m,) array, optional
            Weights of the rows of an array.
        algorithm : jaxgmm.em.Online, optional
            Step sizes. By default each row counts the same (``Online(exponent=1.0,
            averaging=False)``): after every ``batch_rows`` rows an M-step at all sums.

        Returns
        -------
        Fit
            ``n_rows``, ``total_weight`` and ``fingerprint`` are of old and new rows together.
            Log likelihood and criteria are NaN, since the old rows are not there, and the status
            is ``Status.UNJUDGED``.

        Raises
        ------
        ValueError, TypeError
            For rows that do not fit, and a fit that keeps no sums; for the first missing values in
            families of independent columns, whose sums count the values of each column then.

        Notes
        -----
        Labels of the old rows stay what they were under the old parameters, so that the result
        lies between the old fit and that of all rows: nearer to the latter, the less
        information the labels take away (``1 - fit.rate`` of the way, at about the optimum). To
        arrive, fit all rows with ``start=`` the result's parameters.

        References
        ----------
        Neal and Hinton (1998), in Jordan (ed.), Learning in Graphical Models, 355-368; Cappé and
        Moulines (2009), JRSS B 71:593-613.

        Examples
        --------
        >>> import jax
        >>> import jaxgmm as jg
        >>> x = jg.datasets.load("faithful").x
        >>> fit = jg.fit(jg.Mixture(jg.Gaussian(), 2), x[:200], key=jax.random.key(0), n_init=4)
        >>> fit.update(x[200:]).n_rows
        272
        """
        return type(self).going_on(self, x, sample_weight=sample_weight, algorithm=algorithm)

    def moved(self, offset: np.ndarray, digest: str) -> Fit:
        """The fit of rows moved by ``offset``, whose fingerprint is ``digest``."""
        model, params = self.model.translate(offset, self.params)
        _, ends = self.model.translate(offset, self.restarts.params)
        origin = offset if self.origin is None else self.origin + offset
        if not origin.any():
            origin, (model, params, ends) = None, narrowed((model, params, ends))
        record = self.restarts._replace(params=jax.tree.map(np.asarray, ends))
        changes = {"model": model, "params": params, "restarts": record, "origin": origin}
        return dataclasses.replace(self, fingerprint=digest, row_sums=None, **changes)

    @property
    def near(self) -> Fit:
        """The same fit measured from its ``origin``, for what JAX computes."""
        return self if self.origin is None else self.moved(-self.origin, self.fingerprint)

    def impute(self, x: Any, key: PRNGKeyArray | None = None) -> Any:
        """The rows with their missing values filled in, at ``params``; `jaxgmm.Mixture.impute`."""
        return self.model.impute(self.params, x, key)

    @property
    def converged(self) -> bool:
        """Whether the best restart converged."""
        return self.status == Status.CONVERGED

    @property
    def spurious(self) -> bool:
        """Whether even the best restart hangs on a handful of rows."""
        return bool(self.restarts.spurious[self.best])

    @property
    def optima(self) -> list[Optimum]:
        """Distinct ends of the restarts, the highest first.

        Two ends are one where they have the same height, the same density whatever the
        labels, the same status, and both or neither are spurious.
        """
        record, groups = self.restarts, {}
        height = np.where(np.isnan(record.log_joint), -np.inf, record.log_joint)
        kinds = zip(self.optimum_of, record.status, record.spurious, strict=True)
        kinds = [(int(which), int(status), bool(spurious)) for which, status, spurious in kinds]
        for start in np.argsort(-height, kind="stable"):
            groups.setdefault(kinds[start], []).append(start)
        return [
            Optimum(float(height[starts[0]]), np.array(starts), Status(status), spurious)
            for (_, status, spurious), starts in groups.items()
        ]

    @property
    def optima_table(self) -> pd.DataFrame:
        """`optima` as a DataFrame, a row each.

        Columns: ``log_joint``, ``below`` (how far below the fit; negative for spurious ends
        above it), ``restarts`` and ``share`` that ended there, ``status``, ``spurious``.
        """
        import pandas as pd

        n_starts = len(self.restarts.status)
        rows = [
            {
                "log_joint": optimum.log_joint,
                "below": self.log_joint - optimum.log_joint,
                "restarts": len(optimum.starts),
                "share": len(optimum.starts) / n_starts,
                "status": optimum.status.name.lower(),
                "spurious": optimum.spurious,
            }
            for optimum in self.optima
        ]
        return pd.DataFrame(rows)

    @property
    def message(self) -> str:
        """The status as a sentence, with what was set aside."""
        sentence = str(self.status)
        if self.n_spurious_better:
            count = self.n_spurious_better
            sentence += f"; {count} better-scoring restart(s) set aside as spurious"
        if self.spurious:
            sentence += "; this optimum is itself spurious (it hangs on a handful of rows)"
        if self.n_empty:
            sentence += f"; {self.n_empty} of {self.model.n_components} components hold no rows"
        return sentence

    @property
    def _pace(self) -> str:
        """How the search went, in words."""
        name = {"em": "EM"}.get(self.algorithm, f"{self.algorithm} EM")
        if self.acceleration is not None:
            return f"{name} with {self.acceleration}, {self.n_evaluations} evaluations"
        return f"{name} rate {self.rate:.3g}" if np.isfinite(self.rate) else name

    def __repr__(self) -> str:
        n_starts = len(self.restarts.status)
        converged = int(np.sum(np.asarray(self.restarts.status) == Status.CONVERGED))
        same = int(np.sum(self.optimum_of == self.optimum_of[self.best]))
        heights = "log likelihood not known: the rows are gone"
        if np.isfinite(self.log_likelihood):
            heights = (
                f"log joint {self.log_joint:.4f} = log likelihood {self.log_likelihood:.4f}"
                f" + log prior {self.log_prior:.4f}"
            )
        return (
            f"Fit of {self.model!r}\n"
            f"  {heights}\n"
            f"  {self.message} ({self.n_iter} iterations, {self._pace})\n"
            f"  {n_starts} start(s), {converged} converged, {len(self.optima)} distinct end(s), "
            f"this one reached {same} time(s)\n"
            f"  BIC {self.bic:.2f}, AIC {self.aic:.2f}, ICL {self.icl:.2f}"
        )

    def _repr_html_(self) -> str:
        sites = jax.tree.map(np.asarray, self.model.sites(self.params))
        names = coordinates(self.model, sites, self.feature_names)
        numbers = ((label, sites[site][index]) for site, index, label in names)
        return fit_html(repr(self), numbers, self.optima_table)


class Digest:
    """The fingerprint of arrays that come piece by piece."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, piece: Any) -> None:
        self._hash.update(np.ascontiguousarray(piece).data)

    def end(self, dtype: Any, shape: tuple[int, ...]) -> None:
        """What the pieces since the last end were."""
        self._hash.update(f"{dtype}{shape}".encode())

    def __str__(self) -> str:
        return self._hash.hexdigest()


def fingerprint(x: Any, sample_weight: Any) -> str:
    """A digest that tells whether a fit and a posterior saw the same data and weights."""
    rows = _digest_of(x)
    return rows if sample_weight is None else joined(rows, _digest_of(sample_weight))


def joined(one: str, other: str) -> str:
    """The fingerprint of two things together: rows and their weights, old rows and new."""
    return hashlib.blake2b(f"{one} {other}".encode(), digest_size=16).hexdigest()


def _digest_of(arrays: Any) -> str:
    digest = Digest()
    for leaf in jax.tree.leaves(arrays):
        for _, piece in pieces(leaf):
            digest.add(piece)
        digest.end(leaf.dtype if shared(leaf) else np.asarray(leaf).dtype, np.shape(leaf))
    if any(map(spans_processes, jax.tree.leaves(arrays))):
        each = of_all(np.frombuffer(bytes.fromhex(str(digest)), np.uint8))
        digest = Digest()
        digest.add(each)
    return str(digest)


def check_precision(made: Any) -> None:
    """Refuse a fit or a posterior that lost digits when this process loaded it."""
    numbers = made.trace if isinstance(made, Fit) else made.log_prior
    if numbers.dtype == np.float64 and jnp.result_type(float) != np.float64:
        kind = type(made).__name__.lower()
        raise ValueError(
            f"{kind}: was computed in float64, and JAX's 64-bit switch is off in this process; set "
            "the environment variable JAX_ENABLE_X64=1, or call "
            f'jax.config.update("jax_enable_x64", True) before the {kind} is loaded'
        )


def same_data(fit: Fit, x: Any, sample_weight: Any) -> tuple[Fit, Any, Any]:
    """A fit and its data and weights, given again, as JAX sees them; a `ValueError` for others."""
    if not isinstance(fit, Fit):
        raise TypeError(f"fit: needs a Fit from jaxgmm.fit, found {type(fit).__name__}")
    check_precision(fit)
    rows, weight = fit.model.check_data(x, sample_weight)
    if fingerprint(rows, weight) != fit.fingerprint:
        raise ValueError(
            "x: these are not the data or the weights of this fit; pass the x and the "
            "sample_weight that jaxgmm.fit was given"
        )
    if fit.origin is not None:
        rows = jax.device_put(about(x, fit.origin))
    return fit.near, rows, weight
