"""Gaussian rows with noise of their own, known beforehand: extreme deconvolution.

Row i is seen as ``w_i = v_i + e_i`` with ``e_i ~ N(0, S_i)``: of the mixture are the v_i. The noise
is columns beside the values, and every row has factors of its own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxgmm._contract import Assignment, Prior, Sites
from jaxgmm._numerics import Affine, block_rows, map_over_blocks, normal
from jaxgmm._sharded import of_block
from jaxgmm.files import Coded, Measured, feature_names, numeric, row_names, stored
from jaxgmm.model._background import Background
from jaxgmm.model._family import Family, Form, View, labelled
from jaxgmm.model._gaussian import Gaussian, GaussianParams
from jaxgmm.model._moments import Moments, about_their_means
from jaxgmm.model._structure import Structure
from jaxgmm.model._tree import pytree

# Noise that is symmetric and has no negative eigenvalue, to rounding of so many units.
_ROUNDING = 1e4


def rows(x: Any, *, noise: Any) -> Measured:
    """Rows that were seen with noise of known size, each its own.

    Parameters
    ----------
    x : (n, D) or (n,) array, or table
        What was seen, NaN where a value is missing.
    noise : (n, D), (n,) or (n, D, D) array
        Variances of the noise of each value, or covariance matrices of that of each row; zero
        where there is none. Of a missing value it is not read.

    Returns
    -------
    Measured
        What `jaxgmm.fit`, `sample`, `select`, `standard_errors` and `Mixture`'s own methods take
        as ``x`` where components are `Gaussian`.

    Raises
    ------
    ValueError, TypeError
        For a shape that does not fit, numbers that are not finite, negative variances, and
        matrices that are not symmetric or have a negative eigenvalue.

    Notes
    -----
    A row is ``w = v + e`` with ``e ~ N(0, S)`` of its own S, so that under component k it is
    ``N(mean_k, covariance_k + S)``. Parameters are those of the rows without noise, whose
    distribution the fit deconvolves.

    References
    ----------
    Bovy, Hogg and Roweis (2011), Annals of Applied Statistics 5:1657-1677.

    Examples
    --------
    >>> import jax
    >>> import numpy as np
    >>> import jaxgmm as jg
    >>> rng = np.random.default_rng(0)
    >>> variances = rng.uniform(0.5, 1.5, 400)
    >>> seen = np.sqrt(variances) * rng.normal(size=400) + rng.normal(size=400)
    >>> model = jg.Mixture(jg.Gaussian(), 1)
    >>> fit = jg.fit(model, jg.rows(seen, noise=variances), key=jax.random.key(0))
    >>> bool(abs(fit.params.covariances[0, 0, 0] - 1) < 0.2), bool(seen.var() > 1.6)
    (True, True)
    """
    values, spread = numeric("x", x), numeric("noise", noise)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"x: needs rows and columns (n, D), found shape {np.shape(x)}")
    n, d = values.shape
    spread = spread[:, None] if spread.shape == (n,) and d == 1 else spread
    if spread.shape not in {(n, d), (n, d, d)}:
        raise ValueError(
            f"noise: needs a variance for each value, shape ({n}, {d}), or a matrix for each row, "
            f"shape ({n}, {d}, {d}), found shape {spread.shape}"
        )
    joint = spread.ndim == 3
    there = ~np.isnan(values)
    if joint:
        there = there[:, :, None] & there[:, None, :]
    spread = np.where(there, spread, 0).astype(values.dtype)
    if not np.all(np.isfinite(spread)):
        row = int(np.argwhere(~np.isfinite(spread))[0][0])
        raise ValueError(
            f"noise: not finite at row {row}; a value that nothing is known of is NaN in x"
        )
    beside = _factors(spread) if joint else spread
    if not joint and np.any(spread < 0):
        row, column = np.argwhere(spread < 0)[0]
        raise ValueError(f"noise: negative variance {spread[row, column]:g} at row {row}")
    return Measured(
        np.concatenate([values, beside], axis=1), feature_names(x), row_names(x), joint=joint
    )


def _factors(covariances: Float[np.ndarray, "n d d"]) -> Float[np.ndarray, "n c"]:
    """Lower triangles whose products with their transposes are the matrices, row by row."""
    mirrored = np.swapaxes(covariances, 1, 2)
    size = np.abs(covariances).max(axis=(1, 2))
    rounding = _ROUNDING * np.finfo(covariances.dtype).eps * size
    apart = np.abs(covariances - mirrored).max(axis=(1, 2)) > rounding
    values, axes = np.linalg.eigh((covariances + mirrored) / 2)
    wrong = apart | (values[:, 0] < -rounding)
    if np.any(wrong):
        raise ValueError(
            f"noise: the matrix at row {int(np.argmax(wrong))} is not symmetric, or has a negative "
            "eigenvalue"
        )
    roots = axes * np.sqrt(np.maximum(values, 0))[:, None]
    upper = np.linalg.qr(np.swapaxes(roots, 1, 2), mode="r")
    low = np.tril_indices(covariances.shape[1])
    return np.swapaxes(upper, 1, 2)[:, low[0], low[1]]


def with_noise(family: Family, x: Any) -> Family:
    """The family that knows of noise beside the values, where ``x`` has some."""
    if not isinstance(x, Measured) or isinstance(family, Noisy):
        return family
    if isinstance(family, Background):
        return dataclasses.replace(family, family=with_noise(family.family, x))
    if type(family) is not Gaussian:
        raise ValueError(
            f"x: noise of each row goes with jaxgmm.Gaussian components, found {family.label}"
        )
    return Noisy(family, len(x.columns), x.joint)


# -- the form --------------------------------------------------------------------------


class Blurred(NamedTuple):
    """What densities and sums need of a block of rows.

    Attributes
    ----------
    white : (n, K, D) array
        Values from the means, in units in which they are independent; zero where missing.
    whitening : (n, K, D, D) array
        What makes them so.
    normaliser : (n, K) array
        Of the log density.
    own, noise : (n, K, D) and (n, D) arrays, optional
        Draws of the components about their means, and of the noise, for imputations.
    """

    white: Array
    whitening: Array
    normaliser: Array
    own: Array | None = None
    noise: Array | None = None


@dataclasses.dataclass(frozen=True)
class Deconvolving(Form):
    """Gaussian components seen from their means through the noise of each row.

    Parameters are those of the E-step, whose expectations of what was seen with noise the sums
    hold (Bovy, Hogg and Roweis, 2011, equations 13 to 16); a missing value is one without
    any information.
    """

    family: Noisy
    structure: Structure
    chart: Affine
    means: Float[Array, "k d"]
    covariances: Float[Array, "k d d"]

    def features(self, x: Float[Array, "n c"]) -> Blurred:
        d = self.family.d
        draws = x[:, self.family.width :]
        values, noise, factor = self.family.split(x[:, : self.family.width])
        there = ~jnp.isnan(values)
        z = self.chart.apply(jnp.where(there, values, self.chart.shift))
        scale = self.chart.scale
        apart = jnp.where(there[:, None], z[:, None] - self.means, 0)
        both = (there[:, :, None] & there[:, None, :])[:, None]
        whole = self.covariances + (noise / scale / scale[:, None])[:, None]
        eye = jnp.eye(d, dtype=z.dtype)
        root = jnp.linalg.cholesky(jnp.where(both, whole, eye))
        inverse = solve_triangular(root, jnp.broadcast_to(eye, root.shape), lower=True)
        whitening = jnp.where(both, inverse, 0)
        log_det = jnp.sum(jnp.log(jnp.diagonal(root, axis1=-2, axis2=-1)), axis=-1)
        constant = there @ (0.5 * math.log(2 * math.pi) + jnp.log(scale))
        white = jnp.einsum("nkij,nkj->nki", whitening, apart)
        seen = Blurred(white, whitening, -log_det - constant[:, None])
        if not draws.shape[1]:
            return seen
        own, error = jnp.split(draws, 2, axis=1)
        own = jnp.einsum("kij,nj->nki", jnp.linalg.cholesky(self.covariances), own)
        return seen._replace(own=own, noise=jnp.einsum("nij,nj->ni", factor, error) / scale)

    def log_density(self, params: Any, features: Blurred) -> Float[Array, "k n"]:
        return (features.normaliser - 0.5 * jnp.sum(features.white**2, axis=-1)).T

    def sums(self, features: Blurred, weights: Float[Array, "k n"]) -> tuple[Array, ...]:
        apart = jnp.transpose(self.completed(features), (1, 2, 0))
        counts = jnp.sum(weights, axis=1)
        return (
            counts,
            jnp.einsum("kn,kdn->kd", weights, apart),
            self.structure.scatter_of(apart, weights),
            self._unknown(features, weights),
        )

    def statistics(self, sums: tuple[Array, ...]) -> Moments:
        counts, total, scatter, unknown = sums
        scatter = scatter + self.structure.scatter_in(unknown)
        return about_their_means(self.structure, counts, total, scatter, self.means)

    def completed(self, seen: Blurred) -> Float[Array, "n k d"]:
        """Rows without noise from the means: expected, or drawn where there are draws.

        A draw of row and noise, moved by what the values say of its error, has the distribution
        of the row given the values (Hoffman and Ribak, 1991, ApJ 380:L5-L8).
        """
        if seen.own is None or seen.noise is None:
            return self._expected(seen, seen.white)
        drawn = seen.own + seen.noise[:, None]
        error = seen.white - jnp.einsum("nkij,nkj->nki", seen.whitening, drawn)
        return seen.own + self._expected(seen, error)

    def _expected(self, seen: Blurred, white: Float[Array, "n k d"]) -> Float[Array, "n k d"]:
        natural = jnp.einsum("nkij,nki->nkj", seen.whitening, white)
        return jnp.einsum("kij,nkj->nki", self.covariances, natural)

    def _unknown(self, seen: Blurred, weights: Float[Array, "k n"]) -> Float[Array, "k d d"]:
        """Covariances of rows given what was seen of them, summed."""
        if seen.own is not None:
            return jnp.zeros_like(self.covariances)
        known = jnp.einsum("nkij,kjl->nkil", seen.whitening, self.covariances)
        gained = jnp.einsum("kn,nkai,nkaj->kij", weights, known, known)
        return jnp.sum(weights, axis=1)[:, None, None] * self.covariances - gained

    def block_rows(self, x: Array, n_components: int) -> int:
        return self.family.block_rows(x, n_components)


# -- the family ------------------------------------------------------------------------


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class Noisy(Family):
    """`Gaussian` components of rows with noise of their own; `jaxgmm.rows` makes such rows.

    Parameters are those of the rows without noise. A row is D values, and beside them the
    variances of their noise or (``joint``) the lower triangle of a factor of its covariance.
    """

    normal: Gaussian
    d: int = dataclasses.field(metadata={"static": True})
    joint: bool = dataclasses.field(metadata={"static": True})
    # A key, where rows without noise are to be drawn; set by `imputing`.
    key: PRNGKeyArray | None = None

    moves = True
    holes = True
    columns = "numbers"
    rules = Gaussian.rules
    proper_prior = Gaussian.proper_prior
    conjugate_prior = Gaussian.conjugate_prior
    collapse = Gaussian.collapse
    needs_given = True

    @property
    def width(self) -> int:
        """How many columns values and noise have."""
        return self.d + (self.d * (self.d + 1) // 2 if self.joint else self.d)

    @property
    def name(self) -> str:
        return self.normal.name

    @property
    def label(self) -> str:
        return f"{self.normal.label} of rows with noise"

    @property
    def code(self) -> str:
        return self.normal.code

    @property
    def places(self) -> Bool[np.ndarray, " c"]:
        return np.arange(self.width) < self.d

    @property
    def incomplete(self) -> bool:
        return self.normal.incomplete

    @property
    def imputes(self) -> bool:
        return True

    def _around(self, normal: Gaussian) -> Noisy:
        return dataclasses.replace(self, normal=normal)

    def iterates(self, prior: Any) -> bool:
        return self.normal.iterates(prior)

    # -- parameters and their sites ----------------------------------------------------

    def from_sites(self, weights: Array, sites: Sites, prior: Any = None) -> GaussianParams:
        return self.normal.from_sites(weights, sites, prior)

    def sites(self, params: GaussianParams, prior: Any = None) -> Sites:
        return self.normal.sites(params, prior)

    def checked(self, own: dict[str, Any], k: int) -> Sites:
        return self.normal.checked(own, k)

    def n_columns(self, params: GaussianParams) -> int:
        return self.width

    def n_parameters(self, k: int, d: int) -> int:
        return self.normal.n_parameters(k, self.d)

    def site_dims(self) -> dict[str, list[str]]:
        return self.normal.site_dims()

    def derived_sites(self, params: GaussianParams) -> Sites:
        return self.normal.derived_sites(params)

    def normals(self, params: GaussianParams) -> GaussianParams:
        return params

    def permute(self, params: GaussianParams, order: Array) -> GaussianParams:
        return self.normal.permute(params, order)

    def retract(self, params: GaussianParams, tangent: Float[Array, " p"]) -> GaussianParams:
        return self.normal.retract(params, tangent)

    # -- rows --------------------------------------------------------------------------

    def read(self, x: Any) -> tuple[Noisy, Any]:
        if isinstance(x, Measured):
            if (len(x.columns), x.joint) != (self.d, self.joint):
                raise ValueError(
                    f"noise: needs {'matrices' if self.joint else 'variances'} of {self.d} "
                    f"column(s), as the model has seen them, found "
                    f"{'matrices' if x.joint else 'variances'} of {len(x.columns)}"
                )
            return self, x
        if isinstance(x, (Coded, Tracer)):
            return self, x
        found = x if isinstance(x, jax.Array) else numeric("x", x)
        found = found[:, None] if found.ndim == 1 else found
        if found.ndim != 2 or found.shape[1] not in (self.d, self.width):
            raise ValueError(
                f"x: needs {self.d} column(s), or jaxgmm.rows(x, noise=...), found shape "
                f"{np.shape(x)}"
            )
        if found.shape[1] == self.width:
            return self, x
        # Rows without noise.
        nothing = np.zeros((len(found), self.width - self.d), found.dtype)
        values = np.concatenate([np.asarray(found), nothing], axis=1)
        return self, Measured(values, feature_names(x), row_names(x), joint=self.joint)

    def values(self, x: Array) -> Array:
        """What was seen, without the noise beside it."""
        return x[:, : self.d]

    def split(
        self, x: Float[Array, "n c"]
    ) -> tuple[Float[Array, "n d"], Float[Array, "n d d"], Float[Array, "n d d"]]:
        """Values, the covariances of their noise, and factors of these."""
        values, beside = x[:, : self.d], x[:, self.d :]
        if not beside.shape[1]:
            nothing = jnp.zeros((len(x), self.d, self.d), x.dtype)
            return values, nothing, nothing
        if not self.joint:
            eye = jnp.eye(self.d, dtype=x.dtype)
            return values, eye * beside[:, None], eye * jnp.sqrt(beside)[:, None]
        low = np.tril_indices(self.d)
        factor = jnp.zeros((len(x), self.d, self.d), x.dtype).at[:, low[0], low[1]].set(beside)
        return values, factor @ jnp.swapaxes(factor, 1, 2), factor

    def form(self, params: GaussianParams) -> tuple[Deconvolving, GaussianParams]:
        shown, working = self.normal.centred_on(params)
        structure, chart = shown.covariance_structure, shown.chart
        assert chart is not None
        return Deconvolving(self, structure, chart, working.means, working.covariances), working

    def features(self, x: Array) -> Array:
        """The rows as they are: noise goes with the parameters' covariances."""
        return x

    def log_density(self, params: GaussianParams, features: Array) -> Float[Array, "k n"]:
        form, working = self.form(params)
        return form.log_density(working, form.features(features))

    def sums(self, features: Array, weights: Float[Array, "k n"]) -> Moments:
        labels = lambda rows, first: lax.dynamic_slice_in_dim(weights.T, first, rows.shape[0])
        return self.at_labels(labels, features, None, len(weights))

    def statistics(self, sums: Moments) -> Moments:
        return sums

    def block_rows(self, x: Array, n_components: int) -> int:
        return block_rows(n_components * self.d * (4 * self.d + 4), x.dtype)

    def look(self, params: GaussianParams, x: Array, see: Callable[[View], Array]) -> Array:
        form, working = self.form(params)
        seen = lambda rows: form.log_density(working, form.features(rows))
        return see(View(seen, self.block_rows(x, params.weights.shape[0])))

    def embed(self, x: Array) -> Float[Array, "n e"]:
        return self.normal.embed(self.values(x))

    def marginal(
        self, params: GaussianParams, column: Array | int, grid: Float[Array, " m"]
    ) -> Float[Array, "k m"]:
        """Weight times density of values of one column, without noise."""
        return self.normal.marginal(params, column, grid)

    def kinds(self, d: int) -> tuple[str | None, ...]:
        return ("numbers",) * self.d + ("given",) * (d - self.d)

    def sample(self, params: GaussianParams, key: PRNGKeyArray, labels: Array) -> Array:
        raise ValueError(
            "given: every row has noise of its own, so that there are no others to draw; pass "
            "rows that have it"
        )

    def sample_given(
        self, params: GaussianParams, key: PRNGKeyArray, labels: Array, given: Array
    ) -> Float[Array, "n c"]:
        """Rows with the noise of those that are given, drawn too."""
        key_rows, key_noise = jax.random.split(key)
        _, _, factor = self.split(given)
        error = normal(key_noise, (len(given), self.d), given.dtype)
        seen = self.normal.sample(params, key_rows, labels)
        seen = seen + jnp.einsum("nij,nj->ni", factor, error)
        return jnp.concatenate([seen.astype(given.dtype), given[:, self.d :]], axis=1)

    def looked(self, x: Array, sample_weight: Array | None = None) -> Noisy:
        return self._around(self.normal.looked(self.values(x), sample_weight))

    def imputing(self, key: PRNGKeyArray) -> Noisy:
        return dataclasses.replace(self, key=key)

    def _beside_draws(self, x: Array) -> Array:
        """Rows, with the draws beside them of which imputations are made."""
        if self.key is None:
            return x
        return jnp.concatenate([x, normal(self.key, (len(x), 2 * self.d), x.dtype)], axis=1)

    def impute(
        self,
        params: GaussianParams,
        x: Array,
        labels: Float[Array, "n k"],
        key: PRNGKeyArray | None,
    ) -> Float[Array, "n d"]:
        """What the rows are without noise."""
        family = self if key is None else self.imputing(key)
        nothing = jnp.zeros((len(x), self.width - x.shape[1]), x.dtype)
        seen = family._beside_draws(jnp.concatenate([x, nothing], axis=1))
        form, _ = family.form(params)
        width = seen.shape[1]

        def block(rows: Array) -> Array:
            completed = form.means + form.completed(form.features(rows[:, :width]))
            return form.chart.invert(jnp.einsum("nk,nkd->nd", rows[:, width:], completed))

        size = self.block_rows(x, labels.shape[1])
        return map_over_blocks(block, jnp.concatenate([seen, labels], axis=1), size)

    # -- EM ------------------------------------------------------------------------------

    def e_step(
        self,
        log_weights: Float[Array, " k"],
        params: GaussianParams,
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Moments, Array]:
        form, working = self.form(params)
        log_density = lambda seen: form.log_density(working, seen)
        rows = self._beside_draws(x)
        return labelled(form, log_density, log_weights, rows, sample_weight, assign)

    def at_labels(
        self,
        labels: Callable[[Array, Array | int], Array],
        x: Array,
        sample_weight: Array | None,
        k: int,
    ) -> Moments:
        """Before there are parameters, noise is taken for a part of the components."""

        def of_rows(values: Array, first: Array | int) -> Array:
            return labels(of_block(x, first, len(values)), first)

        return self.normal.at_labels(of_rows, self.values(x), sample_weight, k)

    def shrunk(self, statistics: Moments) -> Moments:
        return self.normal.shrunk(statistics)

    def filled(self, statistics: Moments, present: Array) -> Moments:
        return self.normal.filled(statistics, present)

    def add(self, one: Moments, other: Moments) -> Moments:
        return self.normal.add(one, other)

    def scaled(self, statistics: Moments, share: Array | float) -> Moments:
        return self.normal.scaled(statistics, share)

    def update(self, statistics: Moments, prior: Any, params: Any = None) -> Sites:
        return self.normal.update(statistics, prior, params)

    # -- priors --------------------------------------------------------------------------

    def prior_of(self, distributions: dict[str, Any]) -> Any:
        return self.normal.prior_of(distributions)

    def prior_sites(self, prior: Any, k: int, d: int) -> Prior:
        return self.normal.prior_sites(prior, k, self.d)

    def default_prior(
        self, rule: str, x: Array, sample_weight: Array | None, k: int, free: bool
    ) -> Any:
        """That of the rows as they were seen."""
        return self.normal.default_prior(rule, self.values(x), sample_weight, k, free)

    def sized(self, prior: Any, k: int, d: int, dtype: Any) -> Any:
        return self.normal.sized(prior, k, self.d, dtype)

    def bounded(self, prior: Any, free: bool) -> bool:
        return self.normal.bounded(prior, free)

    def ascends(self) -> Array:
        return self.normal.ascends()

    def check_conjugate(self, prior: Any) -> None:
        self.normal.check_conjugate(prior)

    def updated(self, statistics: Moments, prior: Any) -> Any:
        return self.normal.updated(statistics, prior)

    def mean_log_density(self, prior: Any, x: Array, k: int) -> Float[Array, "k n"]:
        raise ValueError(_NO_BOUND)

    def expected_step(self, *_: Any) -> tuple[Moments, Array]:
        raise ValueError(_NO_BOUND)

    def divergence(self, prior: Any, other: Any, k: int, d: int) -> Array:
        raise ValueError(_NO_BOUND)

    # -- units ---------------------------------------------------------------------------

    def standardise(self, x: Array, sample_weight: Array | None, prior: Any) -> tuple[Noisy, Any]:
        found, prior = self.normal.standardise(self.values(x), sample_weight, prior)
        return self._around(found), prior

    def in_user_units(self, prior: Any) -> tuple[Noisy, Any]:
        found, prior = self.normal.in_user_units(prior)
        return self._around(found), prior

    def log_units(self, prior: Any, k: int, d: int | None) -> Array | None:
        return self.normal.log_units(prior, k, self.d)

    def to_working(self, params: GaussianParams) -> GaussianParams:
        return self.normal.to_working(params)

    def to_user(self, params: GaussianParams) -> GaussianParams:
        return self.normal.to_user(params)

    def moved_prior(self, prior: Any, offset: Any) -> Any:
        return self.normal.moved_prior(prior, offset[: self.d])

    def moved(self, params: Any, offset: Any) -> Any:
        known = isinstance(params, (GaussianParams, Mapping))
        return self.normal.moved(params, offset[: self.d]) if known else params

    def origin(self, params: GaussianParams) -> np.ndarray | None:
        found = self.normal.origin(params)
        return None if found is None else np.append(found, np.zeros(self.width - self.d))

    # -- doors and health ------------------------------------------------------------------

    def check_rows(self, x: np.ndarray) -> None:
        self.normal.check_rows(x[:, : self.d])

    def check_rule(self, rule: str, x: np.ndarray, total_weight: float) -> None:
        self.normal.check_rule(rule, x[:, : self.d], total_weight)

    def check_prior(self, prior: Any, k: int, d: int, free: bool) -> None:
        self.normal.check_prior(prior, k, self.d, free)

    def check_bounded(self, x: np.ndarray, k: int) -> None:
        self.normal.check_bounded(x[:, : self.d], k)

    def check_mode(self, prior: Any) -> None:
        self.normal.check_mode(prior)

    def collapsed(self, params: GaussianParams, bounded: bool) -> Array:
        return self.normal.collapsed(params, bounded)

    def spurious(self, params: GaussianParams, statistics: Moments) -> Array:
        return self.normal.spurious(params, statistics)


_NO_BOUND = (
    "x: variational Bayes has no bound for rows with noise here; use "
    'method="gibbs", which draws what they are without it, or "nuts"'
)
