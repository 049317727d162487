"""How much of a posterior lies around each of its modes."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.special import logsumexp
from scipy.stats import chi2

from jaxgmm._contract import LatentModel, Params
from jaxgmm._numerics import widened
from jaxgmm._programs import program
from jaxgmm.bayes._importance import Importance, importance
from jaxgmm.bayes._laplace import Bell, bell_of, climb, student_draws
from jaxgmm.bayes._sampled import to_working
from jaxgmm.bayes._starts import EDGE_MARGIN, inwards
from jaxgmm.local import from_vector, log_units, spectrum, to_vector
from jaxgmm.model import forms_of_start, same_form

# A top farther from its start than this share of its own Gaussian is another mode's.
_OWN = 0.999


class Surroundings(NamedTuple):
    """Draws around modes, and what they weigh.

    Attributes
    ----------
    params : pytree (S * n_draws, ...)
        Draws of a multivariate t at each mode, one mode after the other, in the units of the data.
    weighing : Importance
        Their weights under the posterior, by the density of all the t's together.
    """

    params: Params
    weighing: Importance


def mode_evidence(
    model: LatentModel, x: Any, modes: Params, sample_weight: Any = None
) -> Float[np.ndarray, " s"]:
    r"""Log of the integral of prior times likelihood around each mode, of one labelling.

    Laplace's formula in NumPyro's unconstrained coordinates u of the sites,

    .. math:: \log p(x, u^*) + \tfrac{p}{2} \log 2\pi - \tfrac{1}{2} \log \det(-H),

    with the Jacobian in the density and :math:`u^*` its mode, which Newton's method reaches from
    the mode that is given.

    Parameters
    ----------
    model : LatentModel
        With its prior as numbers.
    x : (n, D) or (n,) array
        Data.
    modes : pytree
        S parameters in a stack, ends of EM for instance.
    sample_weight : (n,) array, optional
        Copies of each row.

    Returns
    -------
    (S,) array
        Minus infinity at a saddle, where nothing lies around; NaN along a ridge, and where
        Newton's method does not arrive or leaves for another mode.

    Raises
    ------
    ValueError, TypeError
        For data or modes that do not fit the model.

    References
    ----------
    Tierney and Kadane (1986), JASA 81:82-86.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("galaxies").x
    >>> model = jg.Mixture(jg.Gaussian("tied"), n_components=1, prior="fraley-raftery")
    >>> fit = jg.fit(model, x, key=jax.random.key(0), n_init=1)
    >>> one = jg.bayes.mode_evidence(fit.model, x, fit.restarts.params)
    >>> post = jg.sample(
    ...     fit.model, x, key=jax.random.key(1), start=fit, method="laplace", progress=False
    ... )
    >>> bool(abs(one[0] - post.evidence.log_evidence) < 0.05)
    True
    """
    working, rows, weight, each = _prepared(model, x, modes, sample_weight)
    return np.array([_log_mass(working, rows, weight, mode) for mode in each])


def around_modes(
    model: LatentModel,
    x: Any,
    modes: Params,
    sample_weight: Any = None,
    *,
    key: PRNGKeyArray,
    n_draws: int,
) -> Surroundings:
    """Draws around modes, weighed: what Laplace's formula misses, and where modes meet.

    Parameters
    ----------
    model, x, modes, sample_weight
        As in `mode_evidence`; the modes have the labels of one, and Gaussians around them.
    key : typed random key
    n_draws : int
        Of each mode.

    Returns
    -------
    Surroundings
        ``weighing.log_mean`` is the log evidence of all modes together, by importance sampling
        from the mixture of the t's; a part of the draws holds ``exp(weighing.log_weights)`` of it.

    References
    ----------
    Veach and Guibas (1995), SIGGRAPH 95:419-428, for the weights.
    """
    working, rows, weight, each = _prepared(model, x, modes, sample_weight)
    bells = [_bell(working, rows, weight, mode)[0] for mode in each]
    keys = jax.random.split(key, len(each))
    drawn = [
        _drawn(working, rows, weight, mode, bell, key, n_draws)
        for mode, bell, key in zip(each, bells, keys, strict=True)
    ]
    vectors, params, log_target = zip(*drawn, strict=True)
    densities = np.array([[_log_student(bell, v) for v in vectors] for bell in bells])
    log_proposal = logsumexp(densities, axis=0) - np.log(len(each))
    join = lambda *leaves: np.concatenate(leaves)
    weighing = importance(join(*log_target), log_proposal.ravel())
    return Surroundings(jax.tree.map(join, *params), weighing)


def _prepared(
    model: LatentModel, x: Any, modes: Params, sample_weight: Any
) -> tuple[LatentModel, Array, Array | None, list[Params]]:
    """The model in working units, the data, and one mode after the other."""
    model, x = model.read(x)
    rows, weight = model.check_data(x, sample_weight)
    _, needed = forms_of_start(model, rows)
    if not same_form(modes, needed, stack=True):
        raise ValueError(
            "modes: needs a stack of parameters of this model, such as fit.restarts.params; for "
            "one, jax.tree.map(lambda leaf: leaf[None], fit.params)"
        )
    model, rows, weight, modes = widened((model, rows, weight, modes))
    working, modes = to_working(model, rows, weight, inwards(model, modes, EDGE_MARGIN))
    working = working.settled(modes)
    leaves, form = jax.tree.flatten(modes)
    each = [jax.tree.unflatten(form, mode) for mode in zip(*leaves, strict=True)]
    return working, rows, weight, each


def _bell(
    model: LatentModel, x: Array, sample_weight: Array | None, mode: Params
) -> tuple[Bell | None, float]:
    """The Gaussian at the top that is reached from a mode; without one, what lies there."""
    ascent = climb(model, x, sample_weight, mode, jnp.ones((), x.dtype))
    if not np.all(np.isfinite(ascent.curvature)):
        return None, np.nan
    shape = spectrum(np.asarray(ascent.curvature), ascent.point.dtype == jnp.float32)
    if not ascent.arrived or shape.n_flat:
        return None, np.nan
    return (None, -np.inf) if shape.n_negative else (bell_of(ascent, shape), 0.0)


def _log_mass(model: LatentModel, x: Array, sample_weight: Array | None, mode: Params) -> float:
    bell, nothing = _bell(model, x, sample_weight, mode)
    if bell is None:
        return nothing
    log_mass, moved = _at_the_top(model, x, sample_weight, mode, bell)
    return float(log_mass) if moved <= chi2.ppf(_OWN, bell.centre.size) else np.nan


@program()
def _at_the_top(
    model: LatentModel, x: Array, sample_weight: Array | None, mode: Params, bell: Bell
) -> tuple[Array, Array]:
    """The integral, and the squared distance from where the ascent began."""
    top, log_volume = from_vector(model, bell.centre, mode)
    height = model.log_joint(top, x, sample_weight) + log_volume - log_units(model)
    log_mass = height - bell.normal(bell.centre)
    return log_mass, bell.squared_distance(to_vector(model, mode))


@program(static_argnames="count")
def _drawn(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    mode: Params,
    bell: Bell,
    key: PRNGKeyArray,
    count: int,
) -> tuple[Array, Params, Array]:
    """Draws of a t, also as parameters in the user's units, and the log target there."""

    def one(vector: Array) -> tuple[Params, Array]:
        params, log_volume = from_vector(model, vector, mode)
        target = model.log_joint(params, x, sample_weight) + log_volume - log_units(model)
        # A draw far out may leave the numbers that have a density.
        return model.to_user(params), jnp.where(jnp.isnan(target), -jnp.inf, target)

    vectors = student_draws(bell, key, count)
    return vectors, *jax.lax.map(one, vectors)


@program()
def _log_student(bell: Bell, vectors: Array) -> Array:
    return jax.vmap(bell.student)(vectors)
