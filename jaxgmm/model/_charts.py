"""Charts of the curved structures, and the reference measure of their densities.

A chart takes real numbers to covariances ``F_k diag(exp(l_k + s_k)) F_k^T``: log volumes l,
log shapes s that sum to zero, and frames F, with common ones where the structure's letters say E.
Frames are the identity, unit lower triangular, or orthogonal.

The density of the site ``covariances`` is with respect to one measure, whatever the chart:

    prod_k |Sigma_k|^rho  x  prod d log|Sigma|  x  prod dS,

a factor for each free volume and each free shape with its orientation; rho is (D + 1) / 2 for
matrices and 1 for diagonals. ``dS`` is the volume of the Fisher metric of normal
distributions (Skovgaard, 1984, Scand. J. Statist. 11:211-223), which no linear map changes,
scaled such that with one component the measure is Lebesgue's on the entries of Sigma.
"""

from __future__ import annotations

import abc
import math
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.nn import log_sigmoid, softplus
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform

from jaxgmm.model._orientation import along, assembled, axes, shared_axes, turned
from jaxgmm.model._support import OfStructure


class Chart(Transform, abc.ABC):
    """Real numbers to the covariances of a curved structure, and back.

    ``log_abs_det_jacobian`` is the log density of the reference measure with respect to
    the real numbers. Leading batch axes pass through.
    """

    domain = constraints.real_vector

    def __init__(self, support: OfStructure):
        self.support = support

    @property
    def codomain(self) -> OfStructure:
        return self.support

    def __call__(self, x: Array) -> Array:
        return jnp.vectorize(self._site, signature=f"(p)->{self._event}")(x)

    def _inverse(self, y: Array) -> Array:
        return jnp.vectorize(self._coordinates, signature=f"{self._event}->(p)")(y)

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: Any = None) -> Array:
        return jnp.vectorize(self._log_measure, signature="(p)->()")(x)

    @property
    def _event(self) -> str:
        return "(k,d,d)" if self.support.event_dim == 3 else "(k,d)"

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        support = self.support
        return shape[:-1] + support.structure.site_shape(support.k, support.d)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        support = self.support
        size = support.structure.n_parameters(support.k, support.d)
        return (*shape[: -support.event_dim], size)

    def tree_flatten(self) -> Any:
        return (), ((), {"support": self.support})

    def eq(self, other: object, static: bool = False) -> bool:
        return type(other) is type(self) and other.support == self.support

    # -- one site ------------------------------------------------------------------

    def _site(self, x: Float[Array, " p"]) -> Array:
        volume, shape, turn = self._split(x)
        return self.assemble(self._logs(volume, shape), turn)

    def _coordinates(self, site: Array) -> Float[Array, " p"]:
        logs, turn = self.apart(site)
        volume = jnp.mean(logs, axis=1, keepdims=True)
        shape = self.free_numbers(logs - volume)
        parts = zip((volume, shape, turn), self.support.structure.code, strict=True)
        pooled = [jnp.mean(a, axis=0) if letter == "E" else a for a, letter in parts]
        return jnp.concatenate([jnp.ravel(a) for a in pooled])

    def _log_measure(self, x: Float[Array, " p"]) -> Array:
        volume, shape, turn = self._split(x)
        logs = self._logs(volume, shape)
        rho = self.support.structure.entry_volume_power(self.support.d) / 2
        return (
            rho * jnp.sum(logs)
            + volume.size * math.log(self.support.d)  # log|Sigma| is D log volumes
            + self.log_shape_measure(shape)
            + self.log_orientation_measure(logs, turn)
        )

    def _split(self, x: Float[Array, " p"]) -> list[Array]:
        """Free numbers in log volumes (m, 1), shapes (m, D - 1) and orientations (m, P)."""
        pieces, start = [], 0
        for shape in self.support.structure.free_shapes(self.support.k, self.support.d):
            pieces.append(x[start : start + math.prod(shape)].reshape(shape))
            start += math.prod(shape)
        return pieces

    def _logs(self, volume: Array, shape: Array) -> Float[Array, "k d"]:
        logs = volume + self.log_shape(shape)
        return jnp.broadcast_to(logs, (self.support.k, self.support.d))

    # -- shapes ----------------------------------------------------------------------

    def log_shape(self, free: Float[Array, "m e"]) -> Float[Array, "m d"]:
        """Log shapes that sum to zero, made of free numbers."""
        return jnp.concatenate([free, -jnp.sum(free, axis=1, keepdims=True)], axis=1)

    def free_numbers(self, log_shape: Float[Array, "m d"]) -> Float[Array, "m e"]:
        """The inverse of `log_shape`."""
        return log_shape[:, :-1]

    def log_shape_measure(self, free: Float[Array, "m e"]) -> Array | float:
        """Log density of ``ds_1 ... ds_(D-1)`` with respect to the free numbers."""
        return 0.0

    # -- orientations ------------------------------------------------------------------

    @abc.abstractmethod
    def assemble(self, logs: Float[Array, "k d"], turn: Float[Array, "m p"]) -> Array:
        """The site with these log variances in frames given by free numbers."""

    @abc.abstractmethod
    def apart(self, site: Array) -> tuple[Float[Array, "k d"], Float[Array, "m p"]]:
        """The inverse of `assemble`."""

    @abc.abstractmethod
    def log_orientation_measure(self, logs: Array, turn: Array) -> Array | float:
        """Log density of what ``dS`` is beyond ``ds_1 ... ds_(D-1)``."""


class DiagonalChart(Chart):
    """VEI and EVI: no orientation."""

    def assemble(self, logs, turn):
        return jnp.exp(logs)

    def apart(self, site):
        return jnp.log(site), jnp.zeros((0, 0), site.dtype)

    def log_orientation_measure(self, logs, turn):
        return 0.0


class TriangularChart(Chart):
    """VEE and EVV: shape and orientation together are any matrix of determinant one.

    Frames are unit lower triangular, one to one (Muirhead, 1982, Aspects of Multivariate
    Statistical Theory, theorem 2.1.9, for the measure).
    """

    def assemble(self, logs, turn):
        d = logs.shape[1]
        rows, columns = jnp.tril_indices(d, -1)
        frames = jnp.broadcast_to(jnp.eye(d, dtype=logs.dtype), (len(turn), d, d))
        frames = frames.at[:, rows, columns].set(turn)
        factor = frames * jnp.exp(logs / 2)[:, None, :]
        return factor @ jnp.swapaxes(factor, -1, -2)

    def apart(self, site):
        factor = jnp.linalg.cholesky(site)
        scale = jnp.diagonal(factor, axis1=-2, axis2=-1)
        rows, columns = jnp.tril_indices(site.shape[-1], -1)
        return 2 * jnp.log(scale), (factor / scale[:, None, :])[:, rows, columns]

    def log_orientation_measure(self, logs, turn):
        d = logs.shape[1]
        # Volumes drop out, and each free shape counts once, as its orientation does.
        return jnp.sum(logs[: len(turn)] @ (0.5 * (d - 1) - jnp.arange(d, dtype=logs.dtype)))


class AxesChart(Chart):
    """Orthogonal frames by Cayley's map of skew matrices with entries ``sinh(turn / 2)``.

    The map reaches all rotations but those by half a turn, once each, and has tails like
    ``exp(-|turn| / 2)``. For Haar's measure in it see León, Massé and Rivest (2006),
    J. Multivariate Anal. 97:412-430.
    """

    def assemble(self, logs, turn):
        one = jnp.eye(logs.shape[1], dtype=logs.dtype)
        return assembled(turned(one, 2 * jnp.sinh(turn / 2)), jnp.exp(logs))

    def turns(self, frames: Float[Array, "m d d"]) -> Float[Array, "m p"]:
        """Free numbers of frames, up to the signs of their axes."""
        d = frames.shape[-1]
        frames = frames * lax.stop_gradient(_signs(frames))[:, None, :]
        one = jnp.eye(d, dtype=frames.dtype)
        skew = jnp.linalg.solve(frames + one, frames - one)
        rows, columns = jnp.triu_indices(d, 1)
        return 2 * jnp.arcsinh(skew[:, rows, columns])

    def log_orientation_measure(self, logs, turn):
        d = logs.shape[1]
        rows, columns = jnp.triu_indices(d, 1)
        # Where all variances along two axes are equal, turning them moves nothing.
        lever = 4 * jnp.sinh((logs[:, rows] - logs[:, columns]) / 2) ** 2
        lever = self.per_frame(lever)
        upper = jnp.zeros((len(turn), d, d), logs.dtype).at[:, rows, columns]
        skew = upper.set(jnp.sinh(turn / 2))
        skew = skew - jnp.swapaxes(skew, -1, -2)
        log_det = jnp.linalg.slogdet(jnp.eye(d, dtype=logs.dtype) + skew)[1]
        haar = jnp.sum(jnp.log(jnp.cosh(turn / 2))) - (d - 1) * jnp.sum(log_det)
        return 0.5 * jnp.sum(jnp.log(lever)) + haar

    @abc.abstractmethod
    def per_frame(self, lever: Float[Array, "k p"]) -> Float[Array, "m p"]:
        """Squared lengths by component as those by frame."""


class CommonAxesChart(AxesChart):
    """EVE and VVE: all components in one frame."""

    def apart(self, site):
        frame = shared_axes(site)[None]
        return jnp.log(along(frame, site)), self.turns(frame)

    def per_frame(self, lever):
        return jnp.mean(lever, axis=0, keepdims=True)


class OwnAxesChart(AxesChart):
    """EEV and VEV: one ascending shape in a frame for each component.

    Shapes are given by gaps, ``log(1 + exp(free))``: where a gap closes the structure has a tip,
    and the measure vanishes.
    """

    def log_shape(self, free):
        steps = jnp.cumsum(softplus(free), axis=1)
        steps = jnp.concatenate([jnp.zeros((len(free), 1), free.dtype), steps], axis=1)
        return steps - jnp.mean(steps, axis=1, keepdims=True)

    def free_numbers(self, log_shape):
        gaps = jnp.diff(log_shape, axis=1)
        gaps = jnp.maximum(gaps, jnp.finfo(gaps.dtype).eps)
        return gaps + jnp.log(-jnp.expm1(-gaps))

    def log_shape_measure(self, free):
        return jnp.sum(log_sigmoid(free)) - len(free) * math.log(self.support.d)

    def apart(self, site):
        frames = axes(site)
        return jnp.log(along(frames, site)), self.turns(frames)

    def per_frame(self, lever):
        return lever


def _signs(frames: Float[Array, "m d d"]) -> Float[Array, "m d"]:
    """Signs of the axes under which I + F has pivots of one or more, so that F has a turn.

    They can be chosen while eliminating (Ballard, Demmel, Grigori, Jacquelin, Knight and
    Nguyen, 2015, J. Parallel Distrib. Comput. 85:3-31, section 5).
    """
    d = frames.shape[-1]

    def eliminate(j: Array | int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        rest, signs = carry
        sign = jnp.where(rest[:, j, j] < 0, -1.0, 1.0).astype(rest.dtype)
        column = (sign[:, None] * rest[:, :, j]).at[:, j].add(1)
        row = rest[:, j] / column[:, j, None]
        return rest - column[:, :, None] * row[:, None, :], signs.at[:, j].set(sign)

    return lax.fori_loop(0, d, eliminate, (frames, jnp.ones(frames.shape[:2], frames.dtype)))[1]
