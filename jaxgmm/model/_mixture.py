"""Mixtures of one component family: the definition from which every engine starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints

from jaxgmm._checks import check_count, check_name
from jaxgmm._contract import (
    Assignment,
    Family,
    LatentModel,
    Prior,
    Sites,
    Statistics,
    expected_labels,
)
from jaxgmm._numerics import (
    as_rows,
    log_sum_exp,
    normalise,
    precise,
    sum_over_blocks,
)
from jaxgmm._origin import about, centred_rows, narrowed
from jaxgmm._tables import numeric
from jaxgmm.model._door import (
    check_bounded,
    check_concentration,
    check_coordinates,
    check_prior,
    check_rule_defined,
    check_squares,
    check_univariate,
)
from jaxgmm.model._gaussian import Gaussian, GaussianParams
from jaxgmm.model._look import by_row, total
from jaxgmm.model._prior import RULES, ConjugatePrior, PriorRule
from jaxgmm.model._registry import structure_named
from jaxgmm.model._site_mode import components_mode, weights_mode
from jaxgmm.model._site_prior import SitePrior
from jaxgmm.model._structure import Structure
from jaxgmm.model._weights import SIMPLEX, STICKS, Weighting

# A component that holds less of a row than this holds none.
_EMPTY_ROWS = 1e-3


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Mixture(LatentModel):
    """A finite mixture, written once for EM and for NumPyro.

    Parameters
    ----------
    family : Gaussian
        What the components are.
    n_components : int
        Number of components K, at least one.
    prior : None, str, ConjugatePrior or dict
        None: exact maximum likelihood, flat at every site. ``"fraley-raftery"``: the
        data-dependent conjugate prior of Fraley and Raftery (2007) with flat Dirichlet
        weights. Or explicit hyper-parameters. Or a NumPyro distribution for each site (below),
        in the units of the data; one of smaller batch shape is expanded. The structure is one
        of EII, VII, EEI, VVI, EEE and VVV, and M-steps go by Newton's method.
    weights : None, "equal" or (K,) array
        None estimates the mixing weights; otherwise they are fixed.

    Raises
    ------
    ValueError, TypeError
        For an unknown name, ``n_components`` below one, or weights that are not a
        probability vector of length K.

    Notes
    -----
    ``params`` everywhere below is a `GaussianParams`, as made by `params`. The sites
    are ``weights`` (K,), or ``sticks`` (K - 1,) under a stick-breaking prior, unless they
    are fixed; ``means`` (K, D); and ``covariances`` in the structure's own shape.

    A dictionary may declare ``scales``, standard deviations in the shape of the variances, in
    place of ``covariances``; of matrices with D > 1 also ``correlations`` (K, D, D), or (D, D)
    where the components share theirs. MAP is then a mode of the density of these. Unless
    `bounded`, the joint has no highest point, and MAP is a local mode.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> model = jg.Mixture(jg.Gaussian("full"), n_components=2)
    >>> model.n_parameters(n_features=2)
    11

    >>> import numpy as np
    >>> import numpyro.distributions as dist
    >>> prior = {
    ...     "weights": dist.Dirichlet(np.ones(2)),
    ...     "means": dist.Normal(0, 5),
    ...     "scales": dist.HalfNormal(2),
    ...     "correlations": dist.LKJ(2, 1.0),
    ... }
    >>> jg.Mixture(jg.Gaussian("full"), n_components=2, prior=prior).bounded()
    False
    """

    moves = True

    family: Gaussian
    n_components: int = dataclasses.field(metadata={"static": True})
    _: dataclasses.KW_ONLY
    prior: Any = None
    weights: Any = None
    n_features: int | None = dataclasses.field(default=None, metadata={"static": True})
    present: Any = None

    def __post_init__(self):
        # Names and counts only: arrays pass through here under transformations.
        if not isinstance(self.family, Gaussian):
            raise TypeError(f"family: needs a component family, found {self.family!r}")
        check_count("n_components", self.n_components, 1)
        if isinstance(self.prior, str):
            object.__setattr__(self, "prior", PriorRule(check_name("prior", self.prior, RULES)))
        elif isinstance(self.prior, Mapping):
            object.__setattr__(self, "prior", SitePrior(dict(self.prior)))
        if isinstance(self.weights, str):
            check_name("weights", self.weights, ["equal"])
            equal = np.full(self.n_components, 1 / self.n_components)
            object.__setattr__(self, "weights", equal)
        elif isinstance(self.weights, (list, tuple, np.ndarray)):
            object.__setattr__(self, "weights", _probabilities(self.weights, self.n_components))

    @property
    def prior_name(self) -> str:
        """``"none"``, a rule that is not resolved yet, ``"conjugate"`` or ``"sites"``."""
        if self.prior is None:
            return "none"
        if isinstance(self.prior, SitePrior):
            return "sites"
        return self.prior.name if isinstance(self.prior, PriorRule) else "conjugate"

    def __repr__(self) -> str:
        fixed = "" if self.weights is None else ", fixed weights"
        return (
            f"Mixture(Gaussian({self.family.name!r}), n_components={self.n_components}, "
            f"prior={self.prior_name}{fixed})"
        )

    # -- the definition ------------------------------------------------------

    def prior_sites(self) -> Prior:
        prior = self._numbers()
        if self.n_features is None:
            raise ValueError("the number of features is not known yet: call model.resolve(x)")
        if isinstance(prior, SitePrior):
            return prior.prior_sites(*self._shape, free=self.weights is None)
        sites = self.family.prior_sites(prior, self.n_components, self.n_features)
        if self.weights is not None:
            return sites
        concentration = None if prior is None else prior.concentration
        weighting = self._weighting
        return {
            weighting.site: lambda _: weighting.prior(concentration, self.n_components),
            **sites,
        }

    @property
    def _weighting(self) -> Weighting:
        """What the site of the weights is, where they are free."""
        if isinstance(self.prior, SitePrior):
            return self.prior.weighting
        broken = isinstance(self.prior, ConjugatePrior) and self.prior.stick_breaking
        return STICKS if broken else SIMPLEX

    @property
    def _structure(self) -> Structure:
        return structure_named(self.family.name)

    @property
    def _shape(self) -> tuple[Structure, int, int]:
        """What the shapes of the sites depend on."""
        assert self.n_features is not None
        return self._structure, self.n_components, self.n_features

    def _numbers(self) -> ConjugatePrior | SitePrior | None:
        """The prior as numbers; raises where it is still a rule."""
        if isinstance(self.prior, PriorRule):
            raise ValueError(
                f"prior {self.prior.name!r} is a rule that depends on the data: "
                "call model.resolve(x) first, or use fit.model"
            )
        return self.prior

    def _conjugate(self) -> ConjugatePrior:
        """The prior as numbers; raises where there is none that rows update."""
        prior = self._numbers()
        if prior is None:
            raise ValueError("prior: flat priors are not conjugate; use a ConjugatePrior")
        if isinstance(prior, SitePrior):
            raise ValueError(
                "prior: distributions by site are not conjugate, as Gibbs and variational Bayes "
                'need; use method="nuts", or a ConjugatePrior'
            )
        self.family.check_conjugate()
        return prior

    def likelihood(self, params: GaussianParams) -> MixtureOfRows:
        return MixtureOfRows(self, params)

    @precise
    def log_prob(self, params: GaussianParams, x: Array) -> Float[Array, " n"]:
        """Log density of each row, the label summed out; ``x`` is (n, D) or (n,)."""
        model, params, x = self._near(params, x)
        return by_row(model.family, params, as_rows(x), log_sum_exp)

    @precise
    def log_likelihood(
        self, params: GaussianParams, x: Array, sample_weight: Array | None = None
    ) -> Array:
        """Weighted sum of `log_prob` over the rows, one block at a time."""
        model, params, x = self._near(params, x)
        return total(model.family, params, as_rows(x), sample_weight)

    def settled(self, params: GaussianParams) -> Mixture:
        family = self.family.settled(params)
        return dataclasses.replace(self, family=family)

    def sites(self, params: GaussianParams) -> Sites:
        own = self.family.sites(params)
        if isinstance(self.prior, SitePrior):
            own = self.prior.split(self._structure, own)
        if self.weights is not None:
            return own
        return {self._weighting.site: self._weighting.to_site(params.weights), **own}

    def from_sites(self, sites: Sites) -> GaussianParams:
        if self.weights is not None:
            weights = self._fixed(sites["means"].dtype)
        else:
            weights = self._weighting.from_site(sites[self._weighting.site])
        if isinstance(self.prior, SitePrior):
            sites = self.prior.joined(self._structure, sites)
        return self.family.from_sites(weights, sites)

    def _fixed(self, dtype: Any) -> Float[Array, " k"]:
        return jnp.asarray(self.weights, dtype)

    def log_units(self) -> Array | None:
        if isinstance(self.prior, SitePrior):
            chart = self.family.chart
            return None if chart is None else self.prior.log_units(chart, *self._shape)
        return None if self.prior is None else self.family.log_units(self.n_components)

    @precise
    def log_prior(self, params: GaussianParams) -> Array:
        """Log density of the sites under the prior, constants included; 0 without a prior."""
        if self._numbers() is None:
            return jnp.zeros((), jnp.result_type(params.means))
        model, params, _ = self._near(params)
        return super(Mixture, model).log_prior(params)

    def _near(self, params: GaussianParams, x: Any = None) -> tuple[Mixture, GaussianParams, Any]:
        """The model, parameters and rows about an origin, where JAX would round them.

        Parameters of rows far from zero come in NumPy's float64 (see `translate`).
        """
        wide = isinstance(params.means, np.ndarray) and params.means.dtype == np.float64
        if not wide or jnp.result_type(float) == np.float64 or isinstance(x, Tracer):
            return self, params, x
        origin = np.mean(params.means, axis=0)
        model, params = narrowed(self.translate(-origin, params))
        return model, params, None if x is None else about(x, origin)

    # -- EM ------------------------------------------------------------------

    @precise
    def e_step(
        self,
        params: GaussianParams,
        x: Array,
        sample_weight: Array | None = None,
        assign: Assignment = expected_labels,
    ) -> tuple[Statistics, Array]:
        return self._e_step(jnp.log(params.weights), params, x, sample_weight, assign)

    def _e_step(
        self,
        log_weights: Float[Array, " k"],
        params: GaussianParams,
        x: Array,
        sample_weight: Array | None,
        assign: Assignment,
    ) -> tuple[Statistics, Array]:
        """The E-step at ``params`` but for their weights."""
        family, x = self.family, as_rows(x)
        natural = family.natural(params)

        def counted(
            density: Family, moments: Family, log_density: Callable[[Array], Array]
        ) -> tuple[Statistics, Array]:
            def block(rows: Array, weights: Array, first: Array | int) -> tuple[Any, Array]:
                features = density.features(rows)
                logits = log_weights[:, None] + log_density(features)
                labels, value = assign(logits, first)
                seen = features if moments is density else moments.features(rows)
                return moments.sums(seen, weights * labels), weights @ value

            size = density.block_rows(x, self.n_components)
            sums, value = sum_over_blocks(block, x, sample_weight, size)
            return moments.statistics(sums), value

        once = counted(family, family, lambda features: natural @ features)
        # Digits are lost in the densities of a component far out, and in the moments of one
        # that has just shrunk.
        before = family.cancels(family.cancellation(params, natural))
        after = family.cancelled(once[0])
        origin = jnp.where(before, params.means, once[0].means)

        def centred() -> tuple[Statistics, Array]:
            density = family.centred(params.means)
            log_density = lambda features: density.log_density(params, features)
            return counted(density, family.centred(origin), log_density)

        return lax.cond(before | after, centred, lambda: once)

    @precise
    def statistics(
        self,
        responsibilities: Float[Array, "n k"] | Callable[[Array, Array | int], Array],
        x: Array,
        sample_weight: Array | None = None,
    ) -> Statistics:
        def labels(rows: Array, first: Array | int) -> Array:
            if callable(responsibilities):
                return responsibilities(rows, first)
            return lax.dynamic_slice_in_dim(responsibilities, first, rows.shape[0])

        x = as_rows(x)

        def counted(form: Family) -> Statistics:
            def block(rows: Array, weights: Array, first: Array | int) -> Any:
                return form.sums(form.features(rows), weights * labels(rows, first).T)

            size = form.block_rows(x, self.n_components)
            return form.statistics(sum_over_blocks(block, x, sample_weight, size))

        # Before there are parameters, the first pass itself tells what cancelled in it.
        once = counted(self.family)
        return lax.cond(
            self.family.cancelled(once),
            lambda: counted(self.family.centred(once.means)),
            lambda: once,
        )

    @precise
    def first_params(
        self, labels: Callable[[Array, Array | int], Array], x: Array, sample_weight: Array | None
    ) -> GaussianParams:
        return self.m_step(self.family.shrunk(self.statistics(labels, x, sample_weight)))

    def add(self, one: Statistics, other: Statistics) -> Statistics:
        return self.family.add(one, other)

    def coordinates(self, statistics: Statistics) -> Array:
        return self.family.coordinates(statistics)

    def from_coordinates(self, vector: Array, like: Statistics) -> Statistics:
        return self.family.from_coordinates(vector, like)

    @precise
    def m_step(
        self, statistics: Statistics, params: GaussianParams | None = None
    ) -> GaussianParams:
        if self.present is not None:
            statistics = self.family.filled(statistics, self.present)
        prior, counts = self._numbers(), statistics.counts
        if isinstance(prior, SitePrior):
            previous = None if params is None else self.family.sites(params)
            sites = components_mode(prior, self._structure, statistics, previous)
            means, covariances = sites["means"], self.family.ridged(sites["covariances"])
        else:
            means, covariances = self.family.update(statistics, prior, params)
        if self.weights is not None:
            weights = self._fixed(means.dtype)
        elif prior is None:
            weights = counts / jnp.sum(counts)
            if self.present is not None:
                weights = jnp.where(self.present, weights, 0)
        elif isinstance(prior, SitePrior):
            weights = weights_mode(prior, counts, None if params is None else params.weights)
        else:
            weights = self._weighting.mode(self._weighting.updated(prior.concentration, counts))
        if prior is not None:
            # A component that lost all its rows stays at its prior mode; its weight, zero
            # to rounding, keeps a logarithm.
            weights = jnp.maximum(weights, jnp.finfo(weights.dtype).tiny)
        return GaussianParams(weights, means, covariances, self.family.name)

    def updated(self, statistics: Statistics) -> Mixture:
        prior = self._conjugate()
        after = self.family.updated(statistics, prior)
        concentration = self._weighting.updated(prior.concentration, statistics.counts)
        after = dataclasses.replace(after, concentration=concentration)
        return dataclasses.replace(self, prior=after)

    @precise
    def expected_step(
        self, x: Array, sample_weight: Array | None = None
    ) -> tuple[Statistics, Array]:
        centre, log_weights = self.centre()
        return self._e_step(log_weights, centre, x, sample_weight, expected_labels)

    @precise
    def divergence(self, other: LatentModel) -> Array:
        assert isinstance(other, Mixture)
        centre, log_weights = self.centre()
        ratio = self.log_prior(centre) - other.log_prior(centre)
        # Labelled rows are all that the two priors differ by, so the log of their ratio is linear
        # in log p(label, row): its mean is its value at the centre, plus the constants that
        # means of log p(label, row) have there, once for each row.
        counts = self._conjugate().mean_precision - other._conjugate().mean_precision
        return ratio + counts @ (log_weights - jnp.log(centre.weights))

    def centre(self) -> tuple[GaussianParams, Float[Array, " k"]]:
        """Prior means of the weights, the means and the precisions, as parameters.

        And log weights at which log p(label, row) of these is its mean over the prior: of an
        `updated` model, what variational Bayes labels rows by. Raises a `ValueError` without a
        conjugate prior.
        """
        prior = self._conjugate()
        assert self.n_features is not None
        sites, constants = self.family.centre(prior, self.n_components, self.n_features)
        if self.weights is not None:
            weights = self._fixed(constants.dtype)
            log_weights = jnp.log(weights)
        else:
            weights, log_weights = self._weighting.means(prior.concentration)
        return self.family.from_sites(weights, sites), log_weights + constants

    @precise
    def responsibilities(self, params: GaussianParams, x: Array) -> Float[Array, "n k"]:
        """Probability of each component given each row; rows sum to one."""
        model, params, x = self._near(params, x)
        return by_row(model.family, params, as_rows(x), _labels)

    # -- doors ---------------------------------------------------------------

    def resolve(self, x: Array, sample_weight: Array | None = None) -> Mixture:
        """The same model with numbers in place of a data-dependent prior.

        Parameters
        ----------
        x : (n, D) array
            The data that the rule looks at.
        sample_weight : (n,) array, optional
            Weights of the rows, as counts.

        Returns
        -------
        Mixture
            With `ConjugatePrior` hyper-parameters, in the dtype of ``x``.

        Examples
        --------
        >>> import jaxgmm as jg
        >>> x = jg.datasets.load("galaxies").x
        >>> model = jg.Mixture(jg.Gaussian(), 3, prior="fraley-raftery").resolve(x)
        >>> float(model.prior.dof)
        3.0
        """
        rows, sample_weight = self.check_data(x, sample_weight)
        centred = None if isinstance(x, jax.Array) else centred_rows(x, rows)
        if centred is not None:
            near, origin = centred
            resolved = self.translate(-origin)[0].resolve(jnp.asarray(near), sample_weight)
            return resolved.translate(origin)[0]
        prior = self.prior
        if isinstance(prior, PriorRule):
            prior = self.family.default_prior(rows, sample_weight, self.n_components)
        return dataclasses.replace(self, prior=prior)._sized(rows)

    def _sized(self, rows: Array) -> Mixture:
        """With the width and the dtype of the rows; no rule asks for more than these."""
        prior = self._numbers()
        if isinstance(prior, SitePrior):
            prior = prior.resolved(rows.dtype, rows.shape[1])
        elif prior is not None:
            prior = jax.tree.map(lambda leaf: jnp.asarray(leaf, rows.dtype), _as_arrays(prior))
            k = self.n_components
            if k == 1:  # its one weight has no stick
                one = jnp.ones(1, rows.dtype)
                prior = dataclasses.replace(prior, concentration=one, stick_breaking=False)
            weighting = STICKS if prior.stick_breaking else SIMPLEX
            concentration = weighting.resolved(prior.concentration, k)
            prior = dataclasses.replace(prior, concentration=concentration)
        return dataclasses.replace(self, prior=prior, n_features=rows.shape[1])

    def check_data(self, x: Any, sample_weight: Any = None) -> tuple[Array, Array | None]:
        if isinstance(x, Tracer) or isinstance(sample_weight, Tracer):
            return as_rows(x), sample_weight
        return super().check_data(x, sample_weight)

    def check_model(self, x: Array, sample_weight: Array | None = None) -> None:
        rows = np.asarray(x if sample_weight is None else x[np.asarray(sample_weight) > 0])
        structure = self.family.structure
        check_squares(np.asarray(x), structure)
        if isinstance(self.prior, PriorRule):
            total = len(rows) if sample_weight is None else float(np.sum(sample_weight))
            check_rule_defined(self.prior.name, rows, total, structure)
        elif isinstance(self.prior, ConjugatePrior):
            check_prior(self.prior, structure, self.n_components, rows.shape[1])
        else:
            if isinstance(self.prior, SitePrior):
                check_univariate(structure, rows.shape[1])
                shape = self._structure, self.n_components, rows.shape[1]
                self.prior.check(*shape, free=self.weights is None)
            if not (self.bounded() or np.all(np.asarray(self.family.reg_covar) > 0)):
                check_bounded(rows, structure, self._n_present)

    def check_mode(self) -> None:
        if self._edges is not None:
            method = "gibbs" if isinstance(self.prior, ConjugatePrior) else "nuts"
            check_concentration(self._edges, method)

    def check_coordinates(self, dtype: Any) -> None:
        if self._edges is not None:
            check_coordinates(self._edges, dtype)

    @property
    def _edges(self) -> np.ndarray | None:
        """How the density of the weights ends at the edges: its concentrations, where known."""
        free = self.weights is None and self.n_components > 1
        if not free or not isinstance(self.prior, (ConjugatePrior, SitePrior)):
            return None
        concentration = self.prior.concentration
        return None if concentration is None else numeric("prior.concentration", concentration)

    def check_samplable(self) -> None:
        if self.prior is None:
            raise ValueError(
                "prior: a mixture has no posterior under flat priors (it is improper); "
                'use prior="fraley-raftery" or a ConjugatePrior'
            )
        if isinstance(self.prior, SitePrior):
            self.prior.check_samplable()

    @precise
    def standardise(self, x: Array, sample_weight: Array | None = None) -> Mixture:
        x = as_rows(x)
        model = self._sized(x) if self.n_features is None else self
        prior = model._numbers()
        if isinstance(prior, SitePrior):
            family, _ = self.family.standardise(x, sample_weight, None)
            assert family.chart is not None
            prior = prior.standardised(family.chart)
        else:
            family, prior = self.family.standardise(x, sample_weight, prior)
        return dataclasses.replace(model, family=family, prior=prior)

    def in_user_units(self) -> Mixture:
        family, prior = self.family.in_user_units(self._conjugate())
        return dataclasses.replace(self, family=family, prior=prior)

    def to_working(self, params: GaussianParams) -> GaussianParams:
        return self.family.to_working(params)

    def to_user(self, params: GaussianParams) -> GaussianParams:
        return self.family.to_user(params)

    def translate(self, offset: Any, params: Any = None) -> tuple[Mixture, Any]:
        prior = self.prior
        if isinstance(prior, ConjugatePrior):
            mean = numeric("prior.mean", prior.mean)
            # A mean of the wrong shape is for the door to name.
            mean = mean + offset if mean.shape == offset.shape else mean
            prior = dataclasses.replace(prior, mean=mean)
        elif isinstance(prior, SitePrior):
            prior = prior.translated(offset)
        # Where rows are far JAX may have no such numbers, but NumPy has.
        moved = lambda means: np.asarray(means, np.float64) + offset
        if isinstance(params, GaussianParams):
            params = dataclasses.replace(params, means=moved(params.means))
        elif isinstance(params, Mapping):
            params = {**params, "means": moved(params["means"])}
        return dataclasses.replace(self, prior=prior), params

    def embed(self, x: Array) -> Float[Array, "n d"]:
        return x if self.family.chart is None else self.family.chart.apply(x)

    def collapsed(self, params: GaussianParams) -> Array:
        empty = ~jnp.all((params.weights > 0) | self._absent)
        return empty | self.family.collapsed(params, self.bounded())

    def empty(self, params: GaussianParams, statistics: Statistics) -> Array:
        return (statistics.counts < _EMPTY_ROWS) & ~jnp.asarray(self._absent)

    def cancellation(self, params: GaussianParams) -> Array:
        lost = self.family.cancellation(params, self.family.natural(params))
        return jnp.where(self.family.cancels(lost), 0.0, params.weights @ lost)

    def spurious(self, params: GaussianParams, statistics: Statistics) -> Array:
        if self.bounded():
            return jnp.array(False)
        counts = jnp.where(self._absent, jnp.inf, statistics.counts)
        return self.family.spurious(params, statistics._replace(counts=counts))

    def bounded(self) -> bool:
        if isinstance(self.prior, SitePrior):
            return self.prior.bounded(free=self.weights is None)
        return self.prior is not None

    def ascends(self) -> Array:
        return jnp.all(jnp.asarray(self.family.reg_covar) == 0)

    @precise
    def retract(self, params: GaussianParams, tangent: Float[Array, " p"]) -> GaussianParams:
        free, weights = 0, params.weights
        if self.weights is None:
            free = self.n_components - 1
            # Logits of the other labels against the last one.
            step = jnp.concatenate([tangent[:free], jnp.zeros(1, tangent.dtype)])
            weights = weights * jnp.exp(step - jnp.max(step))
            weights = weights / jnp.sum(weights)
        moved = self.family.retract(params, tangent[free:])
        return dataclasses.replace(moved, weights=weights)

    def tangent_size(self, params: GaussianParams) -> int:
        return self.n_parameters(params.means.shape[-1])

    def padded(self, n_components: int) -> Mixture | None:
        if self.prior is not None or self.weights is not None:
            return None
        present = np.arange(n_components) < self.n_components
        return dataclasses.replace(self, n_components=n_components, present=present)

    def trimmed(self, params: GaussianParams) -> GaussianParams:
        return self.permute(params, jnp.arange(self._n_present))

    @property
    def _absent(self) -> Any:
        return False if self.present is None else ~self.present

    @property
    def _n_present(self) -> int:
        return self.n_components if self.present is None else int(np.sum(self.present))

    def permute(self, params: GaussianParams, order: Array) -> GaussianParams:
        renamed = self.family.permute(params, order)
        return dataclasses.replace(renamed, weights=params.weights[order])

    def derived_sites(self, params: GaussianParams) -> Sites:
        derived = {"covariances_full": params.covariances}
        if self.weights is None and self._weighting is STICKS:
            derived["weights"] = params.weights
        return derived

    def site_dims(self) -> dict[str, list[str]]:
        """ArviZ dimensions of each site."""
        return {
            "weights": ["component"],
            "sticks": ["stick"],
            "means": ["component", "feature"],
            "covariances": self.family.covariance_dims,
            "scales": self.family.scale_dims,
            "correlations": self.family.covariance_dims,
            "covariances_full": ["component", "feature", "feature_bis"],
        }

    def n_parameters(self, n_features: int) -> int:
        """Free parameters of weights, means and covariances."""
        k = self._n_present
        free_weights = k - 1 if self.weights is None else 0
        return free_weights + k * n_features + self.family.n_parameters(k, n_features)

    # -- parameters ----------------------------------------------------------

    def params(self, *, weights: Any = None, means: Any, covariances: Any) -> GaussianParams:
        """A checked parameter object.

        Parameters
        ----------
        weights : (K,) array, optional
            Mixing weights; the fixed ones, or else equal ones, by default.
        means : (K, D) array
            Component means; (K,) is one feature.
        covariances : array
            (K, D, D) matrices, or the shape of the structure's site.

        Returns
        -------
        GaussianParams

        Raises
        ------
        ValueError
            For a wrong shape, weights that do not sum to one, or covariances that are
            not positive definite or not of the structure.

        Examples
        --------
        >>> import jaxgmm as jg
        >>> model = jg.Mixture(jg.Gaussian("diag"), 2)
        >>> model.params(means=[[0.0], [1.0]], covariances=[[1.0], [2.0]]).covariances.shape
        (2, 1, 1)
        """
        k = self.n_components
        centres = numeric("means", means)
        centres = centres[:, None] if centres.ndim == 1 else centres
        if centres.ndim != 2 or centres.shape[0] != k:
            raise ValueError(f"means: needs shape ({k}, D), found {centres.shape}")
        if not np.all(np.isfinite(centres)):
            raise ValueError("means: contains a non-finite value")
        if weights is None:
            weights = np.full(k, 1 / k) if self.weights is None else self.weights
        weights = _probabilities(weights, k)
        site = self.family.check_covariances(covariances, k, centres.shape[1])
        dtype = jnp.asarray(centres).dtype
        return GaussianParams(
            jnp.asarray(weights, dtype),
            jnp.asarray(centres),
            jnp.asarray(site, dtype),
            self.family.name,
        )


def _labels(logits: Float[Array, "k n"]) -> Float[Array, "n k"]:
    return normalise(logits)[0].T


class MixtureOfRows(dist.Distribution):
    """One row of a mixture, the label summed out, as a NumPyro distribution."""

    support = constraints.real_vector

    def __init__(self, model: Mixture, params: GaussianParams):
        # A sampler's gradient would pay for the choice of a form: `settled` makes it before.
        family = dataclasses.replace(model.family, form=model.family.form or "fast")
        self._model, self._params = dataclasses.replace(model, family=family), params
        super().__init__(batch_shape=(), event_shape=params.means.shape[-1:])

    def log_prob(self, value: Array) -> Array:
        rows = jnp.reshape(value, (-1, value.shape[-1]))
        return jnp.reshape(self._model.log_prob(self._params, rows), value.shape[:-1])

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Array:
        key_label, key_row = jax.random.split(key)
        labels = jax.random.categorical(
            key_label, jnp.log(self._params.weights), shape=sample_shape
        )
        return self._model.family.sample(self._params, key_row, labels)


def _probabilities(weights: Any, n_components: int) -> np.ndarray:
    array = numeric("weights", weights)
    if array.shape != (n_components,):
        raise ValueError(f"weights: needs shape ({n_components},), found {array.shape}")
    if not np.all(array > 0) or not np.isclose(array.sum(), 1, atol=1e-5):
        raise ValueError(f"weights: must be positive and sum to one, found {array.tolist()}")
    return array


def _as_arrays(prior: ConjugatePrior) -> ConjugatePrior:
    """Lists in place of arrays are one leaf each, not a tree of numbers."""
    fields = [f for f in dataclasses.fields(prior) if not f.metadata.get("static")]
    return dataclasses.replace(
        prior,
        **{
            f.name: value if isinstance(value, jax.Array) else numeric(f.name, value)
            for f in fields
            for value in [getattr(prior, f.name)]
        },
    )
