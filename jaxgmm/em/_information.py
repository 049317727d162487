"""Standard errors of a point: information matrices in the model's chart, the delta method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxgmm._checks import check_name
from jaxgmm._contract import LatentModel, Params, held
from jaxgmm._numerics import as_rows, block_rows, precise, sum_over_blocks, widened
from jaxgmm._programs import on_rung, program
from jaxgmm._sharded import beside_rows, in_company
from jaxgmm.em._progress import bar
from jaxgmm.em._readings import check_no_weights
from jaxgmm.em._results import Fit, check_precision, same_data
from jaxgmm.em._stream import Stream
from jaxgmm.em._survey import rows_of
from jaxgmm.local import Spectrum, inverse_root, spectrum
from jaxgmm.model import coordinates

KINDS = ("information", "sandwich", "opg")

# A fit this share of a standard error from the top of the local quadratic is at the top
# as far as standard errors go.
_STATIONARY = 0.1

# Directions along which derivatives are taken side by side, and how many of more than these.
_AT_ONCE, _FEW = 300, 64


class Delta(NamedTuple):
    """A function of the parameters by the delta method.

    Attributes
    ----------
    value : array
        The function at the fit.
    standard_error : array
        Of each entry, in the shape of ``value``.
    covariance : (m, m) array
        Of the m entries, in order.
    """

    value: np.ndarray
    standard_error: np.ndarray
    covariance: np.ndarray


@dataclasses.dataclass(frozen=True, repr=False)
class StandardErrors:
    """How far a point estimate may be off, from the curvature of its objective.

    Attributes
    ----------
    kind : str
        ``"information"``, ``"sandwich"`` or ``"opg"``.
    standard_errors : dict of arrays
        By site, in the shape of the site; a mixture adds ``covariances_full`` (K, D, D).
    covariance : (p, p) array
        Covariance matrix in the chart: the numbers that ``model.retract`` takes.
    information : (p, p) array
        Minus the Hessian of the log joint in the chart.
    eigenvalues : array
        Of the information scaled to unit diagonal, ascending; none where it is not finite.
    condition : float
        The largest over the smallest; infinite where that is not positive.
    n_flat, n_negative : int
        Directions without curvature, and along which the log joint rises.
    n_boundary : int
        Parameters on the boundary of what they may be, such as a probability of zero. They are
        taken as known: their errors are zero, and the others are those given them.
    newton_decrement : float
        Distance of the fit to the top of the local quadratic, in standard errors.
    feature_names : tuple of str
        Names of the columns.
    """

    kind: str
    standard_errors: dict[str, np.ndarray]
    covariance: np.ndarray
    information: np.ndarray
    eigenvalues: np.ndarray
    condition: float
    n_flat: int
    n_negative: int
    n_boundary: int
    newton_decrement: float
    feature_names: tuple[str, ...]
    _model: LatentModel
    _params: Params
    _spread: _Spread
    _moments: _Moments

    def by(self, kind: str) -> StandardErrors:
        """The same errors of another kind, from the derivatives that these were made of.

        Parameters
        ----------
        kind : str
            As in `jaxgmm.standard_errors`.

        Returns
        -------
        StandardErrors

        Raises
        ------
        ValueError
            For an unknown kind.

        Examples
        --------
        >>> import jax
        >>> import jaxgmm as jg
        >>> x = jg.datasets.load("galaxies").x
        >>> fit = jg.fit(jg.Mixture(jg.Gaussian(), 1), x, key=jax.random.key(0), n_init=1)
        >>> errors = jg.standard_errors(fit, x)
        >>> errors.by("sandwich").kind, errors.by("sandwich").n_flat
        ('sandwich', 0)
        """
        check_name("kind", kind, KINDS)
        known = self.feature_names, self._model, self._params
        return _errors(kind, self._moments, self.information.dtype, *known)

    @property
    def status(self) -> str:
        """What the information says of the point, as a sentence."""
        if not self.n_boundary:
            return self._status
        many = "parameter lies" if self.n_boundary == 1 else "parameters lie"
        return f"{self._status}; {self.n_boundary} {many} on the boundary, taken as known"

    @property
    def _status(self) -> str:
        if np.isnan(self.newton_decrement):
            return "not finite: the log joint has no second derivatives here; no errors are known"
        if self.newton_decrement > _STATIONARY:
            return (
                f"stopped early: the maximum is {self.newton_decrement:.2g} standard errors away; "
                "lower tol or raise max_iter"
            )
        if self.n_negative:
            return (
                f"not a maximum: the log joint rises in {self.n_negative} direction(s); errors "
                "along them are infinite, fit again from other starts"
            )
        if self.n_flat:
            return (
                f"not identified: {self.n_flat} flat direction(s); errors of what moves along "
                "them are infinite"
            )
        return "a maximum: the information is positive definite"

    @property
    def definite(self) -> bool:
        """Whether the information is positive definite, so that every error is finite."""
        return not (self.n_flat or self.n_negative)

    @property
    def table(self) -> pd.DataFrame:
        """A row per number in the sites: ``estimate`` and ``standard_error``."""
        sites = jax.tree.map(np.asarray, self._model.sites(self._params))
        rows = [
            {
                "quantity": label,
                "estimate": float(sites[site][index]),
                "standard_error": float(self.standard_errors[site][index]),
            }
            for site, index, label in coordinates(self._model, sites, self.feature_names)
        ]
        return pd.DataFrame(rows).set_index("quantity")

    def delta(self, function: Callable[[Params], Any]) -> Delta:
        """Value and standard error of any smooth function of the parameters.

        Parameters
        ----------
        function : callable
            From the parameters (``fit.params``) to an array, in JAX.

        Returns
        -------
        Delta
            Infinite where the function moves along directions without curvature.

        Examples
        --------
        >>> import jax
        >>> import jaxgmm as jg
        >>> x = jg.datasets.load("faithful").x
        >>> fit = jg.fit(jg.Mixture(jg.Gaussian(), 2), x, key=jax.random.key(0), n_init=4)
        >>> gap = lambda params: abs(params.means[0, 1] - params.means[1, 1])
        >>> value, error, _ = jg.standard_errors(fit, x).delta(gap)
        >>> round(float(value), 1), round(float(error), 2)
        (25.5, 0.74)
        """
        along = lambda tangent: jnp.asarray(function(self._model.retract(self._params, tangent)))
        size, dtype = len(self.covariance), self.covariance.dtype
        origin = jnp.zeros(size)
        value = np.asarray(along(origin), dtype)
        slope = np.asarray(jax.jacfwd(along)(origin), np.float64)
        rows = slope.reshape(-1, size)
        error = np.sqrt(self._spread.variances(rows)).reshape(value.shape)
        return Delta(value, error.astype(dtype), self._spread.of(rows).astype(dtype))

    def __repr__(self) -> str:
        return f"{self.table.to_string(float_format='{:.5g}'.format)}\n{self.kind}: {self.status}"

    def _repr_html_(self) -> str:
        table = self.table.to_html(float_format="{:.5g}".format, border=0)
        return f"{table}<p>{self.kind}: {self.status}</p>"


@in_company
def standard_errors(
    fit: Fit, x: Any, *, kind: str = "information", sample_weight: Any = None
) -> StandardErrors:
    """Standard errors of a fit from the curvature of its log joint.

    Parameters
    ----------
    fit : Fit
        From `jaxgmm.fit`, converged; for many digits fit with a small ``tol``.
    x : (n, D) or (n,) array, or Stream
        The data of the fit; a stream is read once.
    kind : str
        With A minus the Hessian of the log joint and B the sum of outer products of the
        rows' scores about their average: ``"information"`` is the inverse of A;
        ``"sandwich"`` is ``A^-1 B A^-1``, right even where the model is not; ``"opg"`` puts
        B in the place of the likelihood's part of A.
    sample_weight : (n,) array, optional
        The weights of the fit, as counts: two is the row twice, in B as well.

    Returns
    -------
    StandardErrors
        Of every site by the delta method. Where the information is not positive
        definite, what moves along such directions has an infinite error and
        ``status`` says so.

    Raises
    ------
    ValueError, TypeError
        For data or weights that are not those of the fit, and an unknown kind.

    Notes
    -----
    Derivatives are exact and taken in the model's own smooth coordinates
    (``model.retract``), one block of rows at a time: memory beyond the data does not
    grow with n. At a mode the choice of coordinates does not matter. The component
    labels are taken as given, and the errors say nothing of other modes.

    References
    ----------
    Efron and Hinkley (1978), Biometrika 65:457-482, for the observed information; Huber
    (1967), Proc. Fifth Berkeley Symposium 1:221-233, and White (1982), Econometrica
    50:1-25, for the sandwich; Berndt, Hall, Hall and Hausman (1974), Annals of Economic
    and Social Measurement 3:653-665, for the outer products.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("faithful").x
    >>> fit = jg.fit(jg.Mixture(jg.Gaussian(), 2), x, key=jax.random.key(0), n_init=4)
    >>> errors = jg.standard_errors(fit, x)
    >>> errors.status
    'a maximum: the information is positive definite'
    >>> [round(float(error), 3) for error in errors.standard_errors["weights"]]
    [0.029, 0.029]
    """
    check_name("kind", kind, KINDS)
    if isinstance(x, Stream):
        near = _fit_of_stream(fit, sample_weight)
    else:
        near, x, sample_weight = same_data(fit, x, sample_weight)
    # Derivatives are taken in JAX's default precision: NumPyro's transforms know no other.
    model, params = widened((near.model, near.params))
    model = model.settled(params)
    moments: Any
    if isinstance(x, Stream):
        moments = _moments_of_stream(model, params, x, fit.fingerprint)
    else:
        moments = _float64(_moments(model, params, *on_rung(model, x, sample_weight)))
    params = params if fit.origin is None else fit.params
    return _errors(kind, moments, x.dtype, fit.feature_names, model, params)


def _errors(
    kind: str,
    moments: Any,
    dtype: Any,
    feature_names: tuple[str, ...],
    model: LatentModel,
    params: Params,
) -> StandardErrors:
    """What derivatives, on the host, say."""
    single = dtype == np.float32
    hessian = -(moments.likelihood + moments.prior)
    free = ~held(moments.edges > 0, np.diag(hessian))
    inner = np.ix_(free, free)
    if not (np.all(np.isfinite(hessian)) and np.all(np.isfinite(moments.scores))):
        size = len(hessian)
        free = np.ones(size, bool)
        spread = _Spread(np.zeros((size, size)), np.eye(size), np.ones(size), 0.0, free)
        condition, decrement, n_flat, n_negative = np.inf, np.nan, size, 0
        eigenvalues = np.zeros(0)
    else:
        shape = spectrum(hessian[inner], single)
        eigenvalues = shape.values
        spread = _spread(kind, shape, moments.scores[inner], -moments.prior[inner], single)
        spread = spread._replace(free=free)
        n_flat, n_negative = spread.unbounded.shape[1] - shape.n_negative, shape.n_negative
        decrement = shape.newton_decrement(moments.gradient[free])
        bounded = not spread.unbounded.size
        condition = float(eigenvalues[-1] / eigenvalues[0]) if bounded else np.inf

    def errors(slope: np.ndarray) -> np.ndarray:
        variances = spread.variances(slope.reshape(-1, slope.shape[-1]))
        return np.sqrt(variances).reshape(slope.shape[:-1]).astype(dtype)

    return StandardErrors(
        kind=kind,
        standard_errors={name: errors(slope) for name, slope in moments.slopes.items()},
        covariance=spread.of(np.eye(len(hessian))).astype(dtype),
        information=hessian.astype(dtype),
        eigenvalues=eigenvalues,
        condition=condition,
        n_flat=n_flat,
        n_negative=n_negative,
        n_boundary=int(np.sum(~free)),
        newton_decrement=decrement,
        feature_names=feature_names,
        _model=model,
        _params=params,
        _spread=spread,
        _moments=moments,
    )


def _fit_of_stream(fit: Fit, sample_weight: Any) -> Fit:
    """The fit, of which a stream may have the rows."""
    if not isinstance(fit, Fit):
        raise TypeError(f"fit: needs a Fit from jaxgmm.fit, found {type(fit).__name__}")
    check_precision(fit)
    check_no_weights(sample_weight)
    if fit.origin is not None:
        raise ValueError(
            "x: this fit is of float64 rows that were centred in memory, and blocks of a stream "
            "are not; turn on JAX's x64 switch, or pass the rows as an array"
        )
    return fit


class LocalErrors(NamedTuple):
    """Standard errors of m numbers at a point, inside a program.

    Attributes
    ----------
    values : (m,) array
        The numbers at the point.
    information, sandwich : (m,) arrays
        Their standard errors of either kind.
    newton_decrement : array
        Distance of the point to the top of the local quadratic, in standard errors.
    definite : bool array
        Whether the information is positive definite; where it is not, the errors mean nothing.
    """

    values: Array
    information: Array
    sandwich: Array
    newton_decrement: Array
    definite: Array

    @property
    def stationary(self) -> Array:
        """Whether the point is at a maximum, as far as standard errors go."""
        return self.definite & (self.newton_decrement <= _STATIONARY)


@precise
def local_errors(
    model: LatentModel,
    params: Params,
    x: Array,
    function: Callable[[Params], Array],
    sample_weight: Array | None = None,
) -> LocalErrors:
    """Standard errors at a point: `jaxgmm.standard_errors` inside the user's ``jit`` and ``vmap``.

    Parameters
    ----------
    model : LatentModel
        Its prior as numbers, and `LatentModel.settled` on the host beforehand.
    params : parameters
        A mode, in the units of the data.
    x : (n, D) or (n,) array
        Data.
    function : callable
        From parameters to the m numbers whose errors are asked for, smooth.
    sample_weight : (n,) array, optional
        Weights of the rows, as counts.

    Returns
    -------
    LocalErrors

    References
    ----------
    Efron and Hinkley (1978), Biometrika 65:457-482; White (1982), Econometrica 50:1-25.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("faithful").x
    >>> fit = jg.fit(jg.Mixture(jg.Gaussian(), 2), x, key=jax.random.key(0), n_init=4)
    >>> model = fit.model.settled(fit.params)
    >>> weights = lambda params: params.weights
    >>> errors = jax.jit(lambda x: jg.em.local_errors(model, fit.params, x, weights))
    >>> [round(float(error), 3) for error in errors(jax.numpy.asarray(x)).information]
    [0.029, 0.029]
    """
    single = x.dtype == np.float32
    # As in `standard_errors`: NumPyro's transforms know JAX's default precision only.
    model, params, x, sample_weight = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.result_type(float)),
        (model, params, as_rows(jnp.asarray(x)), sample_weight),
    )
    model, params = beside_rows(x, (model, params))
    moments = _moments(model, params, x, sample_weight)
    root, definite = inverse_root(-(moments.likelihood + moments.prior), single)
    along = lambda tangent: function(model.retract(params, tangent))
    origin = jnp.zeros(len(root))
    slope = jax.jacfwd(along)(origin) @ root
    outer = root.T @ moments.scores @ root
    return LocalErrors(
        values=along(origin),
        information=jnp.sqrt(jnp.sum(slope**2, axis=1)),
        sandwich=jnp.sqrt(jnp.maximum(jnp.sum(slope @ outer * slope, axis=1), 0)),
        newton_decrement=jnp.linalg.norm(root.T @ moments.gradient),
        definite=definite & jnp.all(jnp.isfinite(root)),
    )


class _Moments(NamedTuple):
    gradient: Array  # of the log joint
    likelihood: Array  # Hessian of the log likelihood
    prior: Array  # Hessian of the log prior
    scores: Array  # outer products of the rows' scores about their average
    slopes: dict[str, Array]  # of each site, the direction last
    edges: Array  # which directions lead from an edge


@program()
def _moments(model: LatentModel, params: Params, x: Array, sample_weight: Array | None) -> _Moments:
    """Derivatives in the chart at ``params``, one block of rows at a time."""
    return _together(_sums(model, params, x, sample_weight), _without_rows(model, params))


class _Sums(NamedTuple):
    """What rows add up to."""

    score: Array
    likelihood: Array  # Hessian
    outer: Array  # products of scores
    total_weight: Array


@program()
def _sums(model: LatentModel, params: Params, x: Array, sample_weight: Array | None) -> _Sums:
    size = model.tangent_size(params)
    origin = jnp.zeros(size)
    weight = jnp.ones(x.shape[0], x.dtype) if sample_weight is None else sample_weight
    at = lambda tangent: model.retract(params, tangent)

    def block(rows: Array, weights: Array, _: Array | int) -> tuple[Array, Array, Array]:
        rows, weights = rows.astype(origin.dtype), weights.astype(origin.dtype)
        log_prob = lambda tangent: model.log_prob(at(tangent), rows)
        scores = _derivatives(log_prob, origin)
        hessian = _derivatives(jax.grad(lambda tangent: weights @ log_prob(tangent)), origin)
        return weights @ scores, hessian, (weights * scores.T) @ scores

    rows = block_rows(size * model.n_components, origin.dtype)
    score, likelihood, outer = sum_over_blocks(block, x, weight, rows)
    return _Sums(score, likelihood, outer, jnp.sum(weight))


@program()
def _without_rows(model: LatentModel, params: Params) -> tuple[Any, ...]:
    """Gradient and Hessian of the log prior, slopes of the sites, and edges."""
    origin = jnp.zeros(model.tangent_size(params))
    at = lambda tangent: model.retract(params, tangent)
    log_prior = lambda tangent: model.log_prior(at(tangent))
    all_sites = lambda params: {**model.sites(params), **model.derived_sites(params)}
    slopes = jax.jacfwd(lambda tangent: all_sites(at(tangent)))(origin)
    of_prior = jax.grad(log_prior)
    return of_prior(origin), _derivatives(of_prior, origin), slopes, model.edges(params)


def _together(sums: _Sums, others: tuple[Any, ...]) -> _Moments:
    gradient, prior, slopes, edges = others
    # With a prior the scores of the rows do not sum to zero at the mode.
    scores = sums.outer - sums.score[:, None] * sums.score / sums.total_weight
    return _Moments(sums.score + gradient, sums.likelihood, prior, scores, slopes, edges)


def _moments_of_stream(model: LatentModel, params: Params, stream: Stream, digest: str) -> _Moments:
    """The same in one reading; blocks are added in float64."""
    sums: Any = None
    with bar("standard errors of a stream", True, unit="rows") as shown:
        for block in rows_of(stream, digest, shown):
            more = _float64(_sums(model, params, block.rows, block.weight))
            sums = more if sums is None else jax.tree.map(np.add, sums, more)
    return _together(sums, _float64(_without_rows(model, params)))


def _float64(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def _derivatives(
    function: Callable[[Array], Array], at: Float[Array, " p"]
) -> Float[Array, "... p"]:
    """Along every direction; of many a few at a time, since each holds a block of rows."""
    if at.size <= _AT_ONCE:
        return jax.jacfwd(function)(at)
    along = lambda way: jax.jvp(function, (at,), (way,))[1]
    found = lax.map(along, jnp.eye(at.size, dtype=at.dtype), batch_size=_FEW)
    return jnp.moveaxis(found, 0, -1)


class _Spread(NamedTuple):
    """A covariance matrix in the chart that is infinite along some directions.

    It is that of the ``free`` numbers of the chart; the others are known.
    """

    bounded: Float[np.ndarray, "p p"]
    unbounded: Float[np.ndarray, "p m"]
    scale: Float[np.ndarray, " p"]
    tolerance: float
    free: Bool[np.ndarray, " all"]

    def variances(self, slopes: Float[np.ndarray, "r all"]) -> Float[np.ndarray, " r"]:
        """Of linear functions of the chart, infinite where they move along ``unbounded``."""
        slopes = slopes[:, self.free]
        finite = np.sum((slopes @ self.bounded) * slopes, axis=1)
        return np.where(self._leak(slopes) > 0, np.inf, np.maximum(finite, 0))

    def of(self, slopes: Float[np.ndarray, "r all"]) -> Float[np.ndarray, "r r"]:
        """Their covariance matrix: the limit as the curvature along ``unbounded`` vanishes."""
        slopes = slopes[:, self.free]
        finite = slopes @ self.bounded @ slopes.T
        along = np.where(self._leak(slopes)[:, None] > 0, slopes @ self.unbounded, 0)
        inner, length = along @ along.T, np.linalg.norm(along, axis=1)
        parallel = np.abs(inner) > self.tolerance * np.outer(length, length)
        return np.where(parallel & (inner != 0), np.copysign(np.inf, inner), finite)

    def _leak(self, slopes: np.ndarray) -> np.ndarray:
        """Squared share of a slope along ``unbounded``, zero where rounding explains it."""
        whole = np.sum((slopes / self.scale) ** 2, axis=1)
        share = np.sum((slopes @ self.unbounded) ** 2, axis=1) / np.where(whole > 0, whole, 1)
        return np.where(share > self.tolerance, share, 0)


def _spread(
    kind: str, shape: Spectrum, scores: np.ndarray, prior: np.ndarray, single: bool
) -> _Spread:
    """The covariance in the chart; unbounded where the information is not positive."""
    curved = ~shape.flat & (shape.values > 0)
    basis = shape.vectors[:, curved] / shape.scale[:, None]
    unbounded = shape.vectors[:, ~curved] / shape.scale[:, None]
    if kind == "opg":
        # Fewer rows than parameters leave further directions without scores.
        inner = spectrum(basis.T @ (scores + prior) @ basis, single)
        turned = basis / inner.scale @ inner.vectors
        known = ~inner.flat & (inner.values > 0)
        unbounded = np.hstack([unbounded, turned[:, ~known]])
        basis, variance = turned[:, known], np.diag(1 / inner.values[known])
    else:
        variance = np.diag(1 / shape.values[curved])
        if kind == "sandwich":
            variance = variance @ (basis.T @ scores @ basis) @ variance
    free = np.ones(len(basis), bool)
    return _Spread(basis @ variance @ basis.T, unbounded, shape.scale, shape.threshold, free)
