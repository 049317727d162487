"""Laplace's approximation: the Gaussian at a mode, weighed against the posterior.

The Gaussian lives in NumPyro's unconstrained coordinates, so that each of its draws
has a density. Compiled once per shape.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import gammaln, logsumexp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxgmm._checks import check_name
from jaxgmm._contract import LatentModel, Params, Sites
from jaxgmm._numerics import block_rows, normal, rounding_bound, sum_over_blocks
from jaxgmm._programs import program
from jaxgmm.bayes._ascent import Ascent, ascend
from jaxgmm.bayes._chains import Draws
from jaxgmm.bayes._engine import Engine
from jaxgmm.bayes._evidence import Evidence
from jaxgmm.bayes._importance import Importance, importance
from jaxgmm.labels import members, n_renamings, renamings
from jaxgmm.local import Spectrum, from_vector, log_units, spectrum, to_vector

MEASURES = ("unconstrained", "declared")

# Degrees of freedom of the proposal for the evidence: tails heavier than the posterior's.
_DOF = 6

# Where the weights at the mode have no light tail, the proposal moves so often: four moves take
# k from .8 to .4 where they can. It does not stop at the first small k: that is one by chance.
_LIGHT_TAIL = 0.3
_MOST_MOVES = 4
# So many estimates are to agree, the last ones.
_UNSETTLED = 3
# Draws, in numbers of dimensions, that count as much as what the proposal was.
_SHRINKAGE = 3

# Up to this many labellings the proposal is summed over all, those of five components.
_MOST_LABELLINGS = math.factorial(5)

# Numbers that the draws weighed at once may have in a label's log densities.
_BATCH_NUMBERS = 2**18


class Bell(NamedTuple):
    """A location and scale: ``centre + spread @ z``."""

    centre: Float[Array, " d"]
    spread: Float[Array, "d d"]
    whiten: Float[Array, "d d"]  # the inverse of spread
    log_det: Array  # of spread

    def squared_distance(self, vector: Float[Array, " d"]) -> Array:
        return jnp.sum((self.whiten @ (vector - self.centre)) ** 2)

    def normal(self, vector: Float[Array, " d"]) -> Array:
        """Log density of a Gaussian."""
        d = vector.size
        return -0.5 * (d * jnp.log(2 * jnp.pi) + self.squared_distance(vector)) - self.log_det

    def student(self, vector: Float[Array, " d"]) -> Array:
        """Log density of a multivariate t."""
        d, total = vector.size, _DOF + vector.size
        constant = gammaln(total / 2) - gammaln(_DOF / 2) - d / 2 * jnp.log(_DOF * jnp.pi)
        tail = total / 2 * jnp.log1p(self.squared_distance(vector) / _DOF)
        return constant - tail - self.log_det


@dataclasses.dataclass(frozen=True, kw_only=True)
class Laplace(Engine):
    """Independent draws of the Gaussian around the mode that is reached from the first start.

    The evidence is an importance sampling estimate with a multivariate t in the Gaussian's place,
    moved to the moments of its own weighted draws where the tail of their weights is heavy.

    Parameters
    ----------
    measure : str
        The mode and the curvature are those of the density of the ``"unconstrained"`` coordinates,
        or of the sites as ``"declared"``, EM's own.

    Raises
    ------
    ValueError
        For an unknown name.

    References
    ----------
    Tierney and Kadane (1986), JASA 81:82-86.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> jg.bayes.Laplace(measure="declared")
    Laplace(measure='declared')
    """

    name = "laplace"

    measure: str = "unconstrained"

    def __post_init__(self):
        check_name("measure", self.measure, MEASURES)

    def draw(self, model, x, sample_weight, starts, key, schedule, progress):
        check_measure(model, self.measure, x.dtype)
        data = model, x, sample_weight
        start = starts.first
        ascent = climb(*data, start, np.asarray(self.measure == "unconstrained", x.dtype))
        key_draws, key_weighing = jax.random.split(key)
        counts = starts.n_chains, schedule.n_draws
        bell, draws = about(model, start, ascent, key_draws, counts, self.measure)
        weighing, found = _weighed(data, start, bell, key_weighing, math.prod(counts))
        further = {"log_evidence_laplace": weighing.log_laplace, "pareto_k_t": found.pareto_k}
        evidence = _evidence(model, weighing, found)
        return draws._replace(evidence=evidence, diagnostics={**draws.diagnostics, **further})


def check_measure(model: LatentModel, measure: str, dtype: Any) -> None:
    """Whether the model has a Gaussian in this measure."""
    check_name("measure", measure, MEASURES)
    model.check_coordinates(dtype)
    if measure == "declared":
        model.check_mode()


def about(
    model: LatentModel,
    start: Params,
    ascent: Ascent,
    key: PRNGKeyArray,
    counts: tuple[int, int],
    measure: str,
) -> tuple[Bell, Draws]:
    """The Gaussian where an ascent ended, and draws of it."""
    if not np.all(np.isfinite(ascent.gradient)) or not np.all(np.isfinite(ascent.curvature)):
        raise ValueError(
            "start: the log joint has no finite derivatives at this fit, so there is no "
            "Gaussian around it; fit again from other starts or with a stronger prior"
        )
    shape = spectrum(np.asarray(ascent.curvature), ascent.point.dtype == jnp.float32)
    bell = bell_of(ascent, shape)
    params, log_proposal = _draw(model, start, bell, key, counts)
    definite = not (shape.n_flat or shape.n_negative)
    diagnostics = {
        "measure": measure,
        "status": _status(ascent, shape),
        "converged": bool(ascent.arrived) and definite,
        "n_steps": ascent.n_steps,
        "newton_decrement": shape.newton_decrement(np.asarray(ascent.gradient)),
        "condition": shape.values[-1] / shape.values[0] if definite else np.inf,
        "n_flat": shape.n_flat,
        "n_negative": shape.n_negative,
        "centre": _sites(model, start, bell),
    }
    return bell, Draws(params, {}, None, log_proposal, diagnostics=diagnostics)


@program()
def climb(
    model: LatentModel, x: Array, sample_weight: Array | None, start: Params, jacobian: Array
) -> Ascent:
    """Newton's method on the log joint, plus the log volume where ``jacobian`` is one."""
    vector = to_vector(model, start)
    at = lambda vector: from_vector(model, vector, start)

    def value(vector: Array) -> Array:
        params, log_volume = at(vector)
        return model.log_joint(params, x, sample_weight) + jacobian * log_volume

    def derivatives(vector: Array) -> tuple[Array, Array]:
        rows = of_rows(model, start, vector, x, sample_weight)
        return jax.tree.map(jnp.add, rows, of_prior(model, start, vector, jacobian))

    return ascend(value, derivatives, vector, _rounding(model, x, sample_weight, start))


def of_rows(
    model: LatentModel, start: Params, vector: Array, x: Array, sample_weight: Array | None
) -> tuple[Array, Array]:
    """Gradient and Hessian of the log likelihood, block by block, so that memory does not grow."""

    def block(rows: Array, weights: Array, _: Array | int) -> tuple[Array, Array]:
        def part(vector: Array) -> Array:
            return weights @ model.log_prob(from_vector(model, vector, start)[0], rows)

        return _twice(part, vector)

    rows = block_rows(vector.size * model.n_components, vector.dtype)
    return sum_over_blocks(block, x, sample_weight, rows)


def of_prior(
    model: LatentModel, start: Params, vector: Array, jacobian: Array
) -> tuple[Array, Array]:
    """Those of the log prior, and of the log volume where ``jacobian`` is one."""

    def part(vector: Array) -> Array:
        params, log_volume = from_vector(model, vector, start)
        return model.log_prior(params) + jacobian * log_volume

    return _twice(part, vector)


def _twice(function: Callable[[Array], Array], vector: Array) -> tuple[Array, Array]:
    def slope(vector: Array) -> tuple[Array, Array]:
        gradient = jax.grad(function)(vector)
        return gradient, gradient

    hessian, gradient = jax.jacfwd(slope, has_aux=True)(vector)
    return gradient, hessian


def _rounding(
    model: LatentModel, x: Array, sample_weight: Array | None, params: Params
) -> Callable[[Array], Array]:
    """How much of a log joint near ``params`` rounding may have changed."""
    total = jnp.asarray(x.shape[0]) if sample_weight is None else jnp.sum(sample_weight)
    return lambda value: rounding_bound(value, total, model.cancellation(params))


def bell_of(ascent: Ascent, shape: Spectrum) -> Bell:
    """The Gaussian of the curvature; where that is not positive, of its size."""
    curvature = np.maximum(np.abs(shape.values), shape.threshold * np.max(np.abs(shape.values)))
    roots = np.sqrt(curvature)
    asarray = lambda a: jax.device_put(np.asarray(a, ascent.point.dtype))
    return Bell(
        centre=ascent.point,
        spread=asarray(shape.vectors / roots / shape.scale[:, None]),
        whiten=asarray(roots[:, None] * shape.vectors.T * shape.scale),
        log_det=asarray(-np.sum(np.log(roots)) - np.sum(np.log(shape.scale))),
    )


def _status(ascent: Ascent, shape: Spectrum) -> str:
    if not ascent.arrived:
        reason = "no step leads higher" if not ascent.going else "the steps ran out"
        return f"not converged: {reason} after {int(ascent.n_steps)} steps of Newton's method"
    if shape.n_negative:
        return (
            f"not a maximum: the density rises in {shape.n_negative} direction(s); the Gaussian "
            "is a guess along them"
        )
    if shape.n_flat:
        return f"not identified: {shape.n_flat} flat direction(s); the Gaussian is wide along them"
    return "a maximum: the curvature is positive definite"


@program(static_argnames="counts")
def _draw(
    model: LatentModel, start: Params, bell: Bell, key: PRNGKeyArray, counts: tuple[int, int]
) -> tuple[Params, Array]:
    """Draws of the Gaussian, and their log density as sites are declared."""

    def one(noise: Array) -> tuple[Params, Array]:
        vector = bell.centre + bell.spread @ noise
        params, log_volume = from_vector(model, vector, start)
        return params, bell.normal(vector) - log_volume + log_units(model)

    noise = normal(key, (*counts, bell.centre.size), bell.centre.dtype)
    return jax.vmap(jax.vmap(one))(noise)


@program()
def _sites(model: LatentModel, start: Params, bell: Bell) -> Sites:
    """The centre in the user's units."""
    return model.sites(model.to_user(from_vector(model, bell.centre, start)[0]))


# -- evidence ------------------------------------------------------------------------


def student_draws(bell: Bell, key: PRNGKeyArray, count: int) -> Float[Array, "s d"]:
    """Of the multivariate t whose density is `Bell.student`."""
    key_normal, key_tail = jax.random.split(key)
    noise = normal(key_normal, (count, bell.centre.size), bell.centre.dtype)
    tail = jnp.sum(normal(key_tail, (count, _DOF), bell.centre.dtype) ** 2, axis=1)
    return bell.centre + jnp.sqrt(_DOF / tail)[:, None] * noise @ bell.spread.T


class _Weighing(NamedTuple):
    vectors: Array
    log_target: Array
    log_proposal: Array
    exchangeable: Array  # whether no renaming of labels changes the log joint
    log_laplace: Array  # Laplace's own formula, of all labellings


def _weighed(
    data: tuple[LatentModel, Array, Array | None],
    start: Params,
    bell: Bell,
    key: PRNGKeyArray,
    count: int,
) -> tuple[_Weighing, Importance]:
    """Draws of the t that covers the posterior best, and their weights.

    Adaptive importance sampling by moments (Oh and Berger, 1992): a skewed posterior is not
    where its mode is, and the t at the mode misses the far side. What the last moves still
    changed counts as error.
    """
    t, weighing, found = bell, *_importance(data, start, bell, key, 0, count)
    estimates, log_laplace = [found.log_mean], weighing.log_laplace  # that of the mode
    for move in range(1, 1 + _MOST_MOVES) if found.pareto_k > _LIGHT_TAIL else ():
        if 1 / np.sum(np.exp(2 * found.log_weights)) < t.centre.size:
            break  # too few draws count to move by
        t = _moved(t, np.asarray(weighing.vectors, np.float64), found.log_weights)
        weighing, found = _importance(data, start, t, key, move, count)
        estimates.append(found.log_mean)
    error = math.hypot(found.error, np.ptp(estimates[-_UNSETTLED:]))
    return weighing._replace(log_laplace=log_laplace), found._replace(error=error)


def _importance(
    data: tuple[LatentModel, Array, Array | None],
    start: Params,
    t: Bell,
    key: PRNGKeyArray,
    move: int,
    count: int,
) -> tuple[_Weighing, Importance]:
    """Draws of one t."""
    weighing = _weigh(*data, start, t, key, move, count)
    densities = weighing.log_target, weighing.log_proposal
    return weighing, importance(*map(np.asarray, densities))


def _moved(t: Bell, vectors: np.ndarray, log_weights: np.ndarray) -> Bell:
    """A t with the mean and covariance of weighted draws of another, as far as these are many."""
    weights = np.exp(log_weights)
    trust = 1 / (1 + _SHRINKAGE * t.centre.size * np.sum(weights**2))
    mean = weights @ vectors
    apart = vectors - mean
    covariance = (apart * weights[:, None]).T @ apart * (_DOF - 2) / _DOF
    old = np.asarray(t.spread, np.float64)
    values, axes = np.linalg.eigh(trust * covariance + (1 - trust) * old @ old.T)
    roots = np.sqrt(values)
    asarray = lambda a: jax.device_put(np.asarray(a, t.centre.dtype))
    return Bell(
        centre=asarray(trust * mean + (1 - trust) * np.asarray(t.centre, np.float64)),
        spread=asarray(axes * roots),
        whiten=asarray((axes / roots).T),
        log_det=asarray(np.sum(np.log(roots))),
    )


@program(static_argnames="count")
def _weigh(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    start: Params,
    bell: Bell,
    key: PRNGKeyArray,
    move: Array | int,
    count: int,
) -> _Weighing:
    """Target and proposal at draws of the t, each summed over the labellings.

    The mean ratio of the two sums estimates the evidence, whether or not labellings
    overlap: it is importance sampling from the t with its labels shuffled at random.
    """
    orders = _labellings(model)
    at = lambda vector: from_vector(model, vector, start)[0]

    def relabelled(params: Params, order: Array) -> Params:
        # By way of the sites: fixed weights stay where they are.
        return model.from_sites(model.sites(model.permute(params, order)))

    def target(params: Params) -> Array:
        value = model.log_joint(params, x, sample_weight)
        # A draw far out may leave the numbers that have a density.
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    def proposal(params: Params) -> Array:
        vector = to_vector(model, params)
        value = bell.student(vector) - from_vector(model, vector, start)[1] + log_units(model)
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    vectors = student_draws(bell, jax.random.split(key, 1 + _MOST_MOVES)[move], count)

    # Whether a point without symmetries tells labels apart: all permutations are made of swaps.
    somewhere = jax.vmap(lambda order: relabelled(at(vectors[0]), order))(_swaps(model))
    centre, log_volume = from_vector(model, bell.centre, start)
    join = lambda one, more: jnp.concatenate([one[None], more])
    at_centre, height, *swapped = lax.map(target, jax.tree.map(join, centre, somewhere))
    bound = _rounding(model, x, sample_weight, centre)(height)
    exchangeable = jnp.all(jnp.abs(jnp.array(swapped) - height) <= bound)
    # Labellings of one density are counted, those of several are visited.
    trips = jnp.where(exchangeable, 1, len(orders))
    copies = jnp.where(exchangeable, math.log(n_renamings(model.label_groups)), 0.0)

    def weigh(vector: Array) -> tuple[Array, Array]:
        params = at(vector)
        add = lambda i, total: jnp.logaddexp(total, target(relabelled(params, orders[i])))
        log_target = copies + lax.fori_loop(0, trips, add, -jnp.inf * jnp.ones_like(vector[0]))
        log_proposal = jax.vmap(lambda order: proposal(relabelled(params, order)))(orders)
        return log_target, logsumexp(log_proposal)

    most = max(1, _BATCH_NUMBERS // (x.shape[0] * model.n_components))
    batch = max(b for b in range(1, min(most, count) + 1) if count % b == 0)
    log_target, log_proposal = lax.map(jax.vmap(weigh), vectors.reshape(count // batch, batch, -1))
    log_laplace = at_centre + log_volume - log_units(model) - bell.normal(bell.centre) + copies
    return _Weighing(vectors, log_target.ravel(), log_proposal.ravel(), exchangeable, log_laplace)


def _labellings(model: LatentModel) -> Array:
    """Permutations to sum over: all, or none but the identity."""
    if n_renamings(model.label_groups) > _MOST_LABELLINGS:
        return jnp.arange(model.n_components)[None]
    return jnp.asarray(renamings(model.label_groups))


def _swaps(model: LatentModel) -> Int[Array, "_ k"]:
    """No change, and the exchange of each label and the next of its group."""
    orders = [np.arange(model.n_components)]
    for own in members(model.label_groups):
        for pair in itertools.pairwise(own):
            swapped = orders[0].copy()
            swapped[list(pair)] = pair[::-1]
            orders.append(swapped)
    return jnp.asarray(np.stack(orders))


def _evidence(model: LatentModel, weighing: _Weighing, found: Importance) -> Evidence:
    count = n_renamings(model.label_groups)
    method = "importance sampling from a multivariate t at the mode"
    if 1 < count <= _MOST_LABELLINGS:
        method += ", summed over all labellings"
    elif count > 1 and weighing.exchangeable:
        method += " of one labelling, plus the log of how many there are"
    elif count > 1:
        method += " of one labelling; the others, of other densities, are not counted"
    return Evidence(found.log_mean, found.error, method, found.pareto_k)
