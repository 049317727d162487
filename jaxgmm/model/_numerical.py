"""Models whose M-step has no closed form: one Newton step on the expected log joint.

Gradient and curvature of Q add over rows, so that an iteration is one pass over the data (the
EM gradient algorithm; Lange, 1995, JRSS B 57:425-437).
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float
from numpyro.distributions import constraints

from jaxgmm._contract import (
    Assignment,
    LatentModel,
    Params,
    Sites,
    expected_labels,
    innermost,
    support_of,
)
from jaxgmm._numerics import block_rows, log_sum_exp, normalise, sum_over_blocks
from jaxgmm.local import by_site, derivatives, from_vector, to_vector, uphill
from jaxgmm.model._given import no_labels

# An entry so near to an edge of its support is at a pole where the log prior gains as much as
# this while the distance to the edge is divided by e.
_EDGE, _RISE = 1e-10, 1e-3
# An end with so many units of log joint in its next step is near no optimum, and may climb a pole.
_STILL_RISING = 1.0
# A positive entry below this is at one whatever the prior: a scale that shrinks onto a row.
_VANISHED = 1e-12
# Where the log joint does not rise, no step leads one below this.
_LEAST_RATE = 1e-11


class Expansion(NamedTuple):
    """The expected log likelihood of rows and labels, to second order about the parameters.

    Attributes
    ----------
    counts : (K,) array
        Rows in each label.
    gradient : (p,) array
        In unconstrained coordinates.
    curvature : (p, p) array
        The Hessian.
    """

    counts: Float[Array, " k"]
    gradient: Float[Array, " p"]
    curvature: Float[Array, "p p"]


class NumericalModel(LatentModel):
    """A latent-variable model that is written as its prior and log p(label, row).

    Everything else is derived: the M-step is one Newton step in NumPyro's unconstrained
    coordinates of the sites, shortened by EM where the objective falls. The parameters are the
    dictionary of the sites. Starts are draws of the prior, parameters, or a function of a key.
    There is no Gibbs sampler and no variational Bayes of such a model.

    Subclasses are frozen dataclasses registered as pytrees, with ``n_components`` and two
    methods, `prior_sites` and `logits`; `permute` where the labels can be renamed (else
    `label_groups` says so), and `sample` for what draws rows.

    References
    ----------
    Lange (1995), JRSS B 57:425-437.

    Examples
    --------
    >>> import dataclasses
    >>> import jax, jax.numpy as jnp
    >>> import jaxgmm as jg
    >>> import numpyro.distributions as dist
    >>> @jg.model.pytree
    ... @dataclasses.dataclass(frozen=True)
    ... class Contaminated(jg.NumericalModel):
    ...     n_components = 2
    ...     label_groups = (0, 1)
    ...     def prior_sites(self):
    ...         return {"rare": lambda _: dist.Beta(1, 9), "mean": lambda _: dist.Normal(0, 9)}
    ...     def logits(self, params, x):
    ...         rare, row = params["rare"], lambda sd: dist.Normal(params["mean"], sd)
    ...         usual, wild = row(1.0).log_prob(x[:, 0]), row(10.0).log_prob(x[:, 0])
    ...         return jnp.stack([jnp.log1p(-rare) + usual, jnp.log(rare) + wild])
    >>> x = jnp.array([0.1, -0.4, 0.3, 1.0, 30.0])
    >>> fit = jg.fit(Contaminated(), x, key=jax.random.key(0))
    >>> fit.converged, round(float(fit.params["mean"]), 1)
    (True, 0.3)
    """

    closed = False
    starts_from_labels = False
    # What is derived takes rows one by one, as often as they count.
    fills_up = True

    # -- the definition --------------------------------------------------------------------

    @abc.abstractmethod
    def logits(self, params: Params, x: Array) -> Float[Array, "k n"]:
        """log p(label, row) of rows (n, D)."""

    def sites(self, params: Params) -> Sites:
        return params

    def from_sites(self, sites: Sites) -> Params:
        return dict(sites)

    def likelihood(self, params: Params) -> dist.Distribution:
        raise NotImplementedError(
            f"likelihood: {type(self).__name__} is written as log p(label, row); use log_prob, and "
            "write sample(params, key, n) to draw rows"
        )

    # -- densities -------------------------------------------------------------------------

    def log_prior(self, params: Params) -> Array:
        dtype = jnp.result_type(*jax.tree.leaves(params))
        return jnp.asarray(super().log_prior(params), dtype)

    def log_prob(self, params: Params, x: Array) -> Float[Array, " n"]:
        return log_sum_exp(self._logits(params, x))

    def responsibilities(self, params: Params, x: Array) -> Float[Array, "n k"]:
        return normalise(self._logits(params, x))[0].T

    def _observe(self, params: Params, rows: Array | None, count: int | None) -> None:
        if rows is None:
            numpyro.deterministic("x", self.sample(params, numpyro.prng_key(), count or 0))
        else:
            numpyro.factor("x", self.log_prob(params, rows))

    def _logits(self, params: Params, x: Array) -> Float[Array, "k n"]:
        """`logits` in the dtype of the rows; what is impossible has no derivatives."""
        found = self.logits(params, x[:, None] if x.ndim == 1 else x)
        return jnp.where(jnp.isneginf(found), -jnp.inf, found).astype(x.dtype)

    # -- EM --------------------------------------------------------------------------------

    def form(self, x: Array) -> Params:
        """Shapes of the sites, in the dtype of the rows."""
        return jax.eval_shape(lambda: self._somewhere(x.dtype))

    def _somewhere(self, dtype: Any) -> Params:
        """Any parameters."""
        sites: Sites = {}
        for name, conditional in self.prior_sites().items():
            prior = conditional(sites)
            like = prior.support.feasible_like(jnp.zeros(prior.shape(), dtype))
            sites[name] = jnp.asarray(like, dtype)
        return self.from_sites(sites)

    def e_step(
        self,
        params: Params,
        x: Array,
        sample_weight: Array | None = None,
        assign: Assignment = expected_labels,
    ) -> tuple[Expansion, Array]:
        at = to_vector(self, params)

        def block(rows: Array, weights: Array, first: Array | int) -> tuple[Expansion, Array]:
            labels, value = assign(self._logits(params, rows), first)

            def expected(vector: Array) -> Array:
                logits = self._logits(from_vector(self, vector, params)[0], rows)
                return jnp.sum(weights * labels * jnp.where(labels > 0, logits, 0))

            return Expansion(labels @ weights, *derivatives(expected, at)), weights @ value

        size = block_rows(at.size * self.n_components, x.dtype)
        return sum_over_blocks(block, x, sample_weight, size)

    def m_step(
        self, statistics: Expansion, params: Params | None = None, share: Array | float = 1.0
    ) -> Params:
        """``params`` moved by a share of the Newton step on the expected log joint."""
        if params is None:
            raise ValueError(no_labels(self))
        at = to_vector(self, params)
        gradient, step = self._newton_step(statistics, params)
        moved = at + (share * step).astype(at.dtype)
        moved = jnp.where(self._idle(gradient, moved, params), at, moved)
        moved = from_vector(self, moved, params)[0]
        return jax.tree.map(lambda new, old: new.astype(jnp.result_type(old)), moved, params)

    def _newton_step(self, statistics: Expansion, params: Params) -> tuple[Array, Array]:
        """Gradient of the expected log joint, and the step on it."""
        log_prior = lambda vector: self.log_prior(from_vector(self, vector, params)[0])
        slope, bend = derivatives(log_prior, to_vector(self, params))
        gradient = statistics.gradient + slope
        return gradient, uphill(gradient, statistics.curvature + bend)

    def _idle(
        self, gradient: Float[Array, " p"], moved: Float[Array, " p"], params: Params
    ) -> Bool[Array, " p"]:
        """Which steps towards zero gain nothing: a rate may be at that edge, and has arrived."""
        gains, logs, idle = by_site(self, gradient, params), by_site(self, moved, params), {}
        for name, conditional in self.prior_sites().items():
            low = logs[name] < math.log(_LEAST_RATE)
            positive = support_of(conditional(self.sites(params))) == constraints.positive
            idle[name] = positive & low & (jnp.abs(gains[name]) < _RISE)
        return ravel_pytree(idle)[0]

    def statistics(
        self,
        responsibilities: Float[Array, "n k"] | Callable[[Array, Array | int], Array],
        x: Array,
        sample_weight: Array | None = None,
    ) -> Any:
        raise ValueError(no_labels(self))

    # -- health ----------------------------------------------------------------------------

    def collapsed(self, params: Params) -> Array:
        """Whether an entry is at a pole: at an edge towards which the prior rises, or zero."""
        sites = self.sites(params)
        rising = jax.grad(lambda sites: self.log_prior(self.from_sites(sites)))(sites)
        found = jnp.array(False)
        for name, conditional in self.prior_sites().items():
            support, value, slope = support_of(conditional(sites)), sites[name], rising[name]
            at_pole = lambda left, rise: jnp.any((left < _EDGE) & (left * rise > _RISE))
            if support == constraints.positive:
                found |= jnp.any(value < _VANISHED)
            if support in (constraints.positive, constraints.simplex, constraints.unit_interval):
                found |= at_pole(value, -slope)
            if support == constraints.unit_interval:
                found |= at_pole(1 - value, slope)
        return found

    def spurious(self, params: Params, statistics: Expansion) -> Array:
        """Whether a run was still on its way up by more than an optimum has to offer."""
        gradient, step = self._newton_step(statistics, params)
        return gradient @ step / 2 > _STILL_RISING

    def empty(self, params: Params, statistics: Expansion) -> Array:
        return statistics.counts < 1e-3

    def bounded(self) -> bool:
        """Whether no prior has a pole; nothing is known of the densities of rows."""
        sites = self._somewhere(float)
        priors = [innermost(conditional(sites)) for conditional in self.prior_sites().values()]
        return not any(_has_pole(prior) for prior in priors)

    def n_parameters(self, n_features: int) -> int:
        """Free numbers of the sites; fewer where not all of them are identified."""
        return jax.eval_shape(lambda: to_vector(self, self._somewhere(float))).size


def _has_pole(prior: dist.Distribution) -> bool:
    """Whether a density has no bound at an edge."""
    names = {
        dist.Dirichlet: ("concentration",),
        dist.Beta: ("concentration0", "concentration1"),
        dist.Gamma: ("concentration",),
    }
    return any(bool(jnp.any(getattr(prior, name) < 1)) for name in names.get(type(prior), ()))
