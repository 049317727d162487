"""Acceleration: wrappers around a step of EM that are steps themselves.

Both see EM as a map of sufficient statistics to sufficient statistics, in the model's
`coordinates` of them, in which any real vector is valid; or, where it has none, of parameters to
parameters. After every two plain steps they leap along what those steps, and some before, say of
the map; every update is one evaluation.

The objective never falls. A search that leapt to a lower point may go on from there for one
cycle, unseen; if it is not above the last kept point by then, it goes back, and leaps
shorter. Where a leap collapses it goes back at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgmm._checks import check_name
from jaxgmm._contract import LatentModel, Params
from jaxgmm.em._step import Move, Point, Step, choose, next_params
from jaxgmm.local import from_vector, to_vector

# Growth of the bound on the length of a leap after one that reached it, and its shrinkage
# after one in vain (the defaults of Varadhan and Roland's SQUAREM).
_GROWTH = 4.0

# Evaluations that a leap has to make good what it lost: its own cycle.
_PATIENCE = 3

# Evaluations that Anderson's method mixes, beside the last one.
_MEMORY = 5

# Changes that are combinations of others up to this share are not told apart.
_RIDGE = 1e-12

# From the last residual and the last changes of arguments and residuals, (m, p) each, the
# newest last, and a bound on the length: where to go from the last argument, and whether
# the bound was reached.
Leap = Callable[[Array, Array, Array, Array], tuple[Array, Array]]


class _Search(NamedTuple):
    turn: Array  # -1: the start; 0 and 1: plain steps; 2: a leap
    here: Point  # where the search is; the kept point unless `behind` counts
    behind: Array  # evaluations since it fell below the kept point
    longest: Array
    argument: Float[Array, " p"]  # of the last evaluation of the map
    residual: Float[Array, " p"]  # how far the map moved it
    argument_changes: Float[Array, "m p"]
    residual_changes: Float[Array, "m p"]
    inner: Any


def squarem(model: LatentModel, step: Step) -> Step:
    """Squared extrapolation with step length S3.

    From the last three iterates ``s0, s1, s2``, with ``r = s1 - s0`` and ``v = s2 - s1 - r``,
    the leap goes to ``s0 + 2 a r + a^2 v`` where ``a = |r| / |v|``, at least one (which is
    ``s2``) and at most the bound.

    References
    ----------
    Varadhan and Roland (2008), Scandinavian Journal of Statistics 35:335-353.
    """

    def leap(residual: Array, arguments: Array, residuals: Array, longest: Array):
        r, v = arguments[-1], residuals[-1]
        length = jnp.clip(jnp.linalg.norm(r) / jnp.linalg.norm(v), 1.0, longest)
        return (2 * length - 1) * r + length**2 * v, length >= longest

    return _leaping(model, step, leap, memory=1)


def anderson(model: LatentModel, step: Step, memory: int = _MEMORY) -> Step:
    """Anderson mixing of the last iterates, turned forwards.

    The leap combines the last ``memory + 1`` evaluations so that their residuals cancel in
    the least-squares sense. Where EM's steps still grow, that combination lies behind the
    search, near a saddle: the leap then goes as far the other way. Its length is bounded
    in steps of EM.

    References
    ----------
    Anderson (1965), J. ACM 12:547-560; Walker and Ni (2011), SIAM J. Numer. Anal.
    49:1715-1735; Henderson and Varadhan (2019), J. Comput. Graph. Stat. 28:834-846, for
    its use with EM.
    """

    def leap(residual: Array, arguments: Array, residuals: Array, longest: Array):
        gram = residuals @ residuals.T
        ridge = _RIDGE * jnp.trace(gram) + jnp.finfo(gram.dtype).tiny
        mix = jnp.linalg.solve(gram + ridge * jnp.eye(memory), residuals @ residual)
        ahead = residual - mix @ (arguments + residuals)
        ahead = jnp.where(ahead @ residual < 0, -ahead, ahead)
        length = jnp.linalg.norm(ahead) / jnp.linalg.norm(residual)
        return ahead * jnp.minimum(1.0, longest / length), length >= longest

    return _leaping(model, step, leap, memory)


# A new acceleration is a function (model, step) -> step and one line here.
ACCELERATIONS: dict[str, Callable[[LatentModel, Step], Step]] = {
    "squarem": squarem,
    "anderson": anderson,
}


def accelerated(model: LatentModel, step: Step, name: str | None) -> Step:
    """``step`` as it is, or wrapped by the acceleration of that name."""
    if name is None:
        return step
    return ACCELERATIONS[check_name("acceleration", name, ACCELERATIONS)](model, step)


class _Statistics(NamedTuple):
    """EM as a map of statistics: a leap is followed by an M-step."""

    model: LatentModel

    def of(self, point: Point) -> Array:
        return self.model.coordinates(point.statistics)

    def at(self, vector: Array, point: Point) -> Point:
        """``point`` with other coordinates."""
        return point._replace(statistics=self.model.from_coordinates(vector, point.statistics))

    def mapped(self, tried: Array, new: Point) -> tuple[Array, Array]:
        """An argument of the map and its value, once the point that it led to is evaluated."""
        return tried, self.of(new)


class _Parameters(NamedTuple):
    """EM as a map of parameters: a leap is evaluated where it ends."""

    model: LatentModel

    def of(self, point: Point) -> Array:
        return self._vector(point.params)

    def at(self, vector: Array, point: Point) -> Point:
        params = from_vector(self.model, vector, point.params)[0]
        params = jax.tree.map(lambda a, like: a.astype(like.dtype), params, point.params)
        unknown = jnp.full_like(point.log_likelihood, jnp.nan)
        return point._replace(params=params, log_likelihood=unknown)

    def mapped(self, tried: Array, new: Point) -> tuple[Array, Array]:
        return self.of(new), self._vector(next_params(self.model, new))

    def _vector(self, params: Params) -> Array:
        # On an edge of its support a value has no finite coordinate.
        margin = float(jnp.finfo(jax.tree.leaves(params)[0].dtype).eps)
        return to_vector(self.model, self.model.inwards(params, margin))


def _leaping(model: LatentModel, step: Step, leap: Leap, memory: int) -> Step:
    """Two steps and a leap, in turn."""
    coordinates = _Statistics(model) if model.has_coordinates else _Parameters(model)

    def enter(point: Point, turn: int, longest: Array | float, inner: Any) -> _Search:
        """A search that knows nothing yet of the map about ``point``."""
        unknown = jnp.full_like(coordinates.of(point), jnp.nan)
        empty = jnp.zeros((memory, *unknown.shape), unknown.dtype)
        bound = jnp.asarray(longest, unknown.dtype)
        none = jnp.int32(0)
        return _Search(jnp.int32(turn), point, none, bound, unknown, unknown, empty, empty, inner)

    def init(point: Point, start: Array) -> _Search:
        return enter(point, -1, 1.0, step.init(point, start))

    def update(point: Point, search: _Search) -> tuple[Point, _Search, Array]:
        here, longest = search.here, search.longest
        leaps = search.turn == 2
        displacement, reached = leap(
            search.residual, search.argument_changes, search.residual_changes, longest
        )
        tried = jnp.where(leaps, search.argument + displacement, coordinates.of(here))
        origin = choose(leaps, coordinates.at(tried, here), here)
        new, inner, move = step.update(origin, search.inner)

        # A step of EM from the kept point is the loop's to judge, whatever it does.
        ordinary = ~leaps & (search.behind == 0)
        better = new.sound & (new.objective >= point.objective)
        behind = jnp.where(ordinary | better, 0, search.behind + 1)
        given_up = (behind > _PATIENCE) | ((behind > 0) & ~new.sound)
        longest = jnp.where(leaps & better & reached, _GROWTH * longest, longest)

        argument, value = coordinates.mapped(tried, new)
        residual = value - argument
        known = jnp.all(jnp.isfinite(search.residual)) & jnp.all(jnp.isfinite(residual))

        def push(changes: Array, change: Array) -> Array:
            return jnp.where(known, jnp.concatenate([changes[1:], change[None]]), changes)

        onwards = _Search(
            turn=jnp.where(leaps, 0, search.turn + 1),
            here=new,
            behind=behind,
            longest=longest,
            argument=argument,
            residual=residual,
            argument_changes=push(search.argument_changes, argument - search.argument),
            residual_changes=push(search.residual_changes, residual - search.residual),
            inner=inner,
        )
        back = enter(point, 0, jnp.maximum(longest / _GROWTH, 1.0), inner)
        reached_by = jnp.where(better, jnp.int32(Move.OTHER), jnp.int32(Move.REFUSED))
        move = jnp.where(ordinary, move, reached_by)
        kept = choose(ordinary | better, new, point)
        return kept, choose(given_up, back, onwards), move

    return step._replace(init=init, update=update, leaps=True)
