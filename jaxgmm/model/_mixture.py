"""Mixtures of one component family: the definition from which every engine starts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from numpyro.distributions import constraints

from jaxgmm._checks import any_nan, check_count, check_name, everywhere, on_enough
from jaxgmm._contract import (
    Assignment,
    Description,
    LatentModel,
    Params,
    Prior,
    Sites,
    Statistics,
    at_edge,
    expected_labels,
    least_share,
)
from jaxgmm._numerics import as_rows, log_sum_exp, normalise, precise
from jaxgmm._programs import of_each_row, on_rung, program
from jaxgmm._sharded import beside_rows, by_itself, of_block, rows_here, shared, total_over_rows
from jaxgmm.files import Coded, numeric, stored
from jaxgmm.labels import check_renaming
from jaxgmm.model._background import Background, Uniform
from jaxgmm.model._covariates import given_rows
from jaxgmm.model._door import check_concentration, check_coordinates
from jaxgmm.model._facts import code, formulas, hyper, prior_of
from jaxgmm.model._family import Family
from jaxgmm.model._gates import Gated
from jaxgmm.model._look import by_row, counts, fill, total
from jaxgmm.model._noisy import with_noise
from jaxgmm.model._origin import about, centred_rows, narrowed
from jaxgmm.model._prior import ConjugatePrior, PriorRule
from jaxgmm.model._site_prior import SitePrior
from jaxgmm.model._tree import pytree
from jaxgmm.model._weights import SIMPLEX, STICKS, Weighting

# A component that holds less of a row than this holds none.
_EMPTY_ROWS = 1e-3


@stored
@pytree
@dataclasses.dataclass(frozen=True, repr=False)
class Mixture(LatentModel):
    """A finite mixture, written once for EM and for NumPyro.

    Parameters
    ----------
    family : Family
        What the components are: a `Gaussian`, or one of `jaxgmm.families`.
    n_components : int
        Number of components K, at least one.
    prior : None, str, ConjugatePrior or dict
        None: exact maximum likelihood, flat at every site. ``"weak"``: a prior that the family
        makes of the data, worth about one row, with flat Dirichlet weights; of Gaussians the
        conjugate one of Fraley and Raftery (2007), which ``"fraley-raftery"`` names too. Or
        explicit hyper-parameters of Gaussians. Or a NumPyro distribution for each site (below),
        in the units of the data; one of smaller batch shape is expanded. Conjugate ones are
        recognised. Of Gaussians the structure is then one of EII, VII, EEI, VVI, EEE and VVV, and
        M-steps go by Newton's method.
    weights : None, "equal" or (K,) array
        None estimates the mixing weights; otherwise they are fixed.
    background : Uniform, optional
        A density beside the components, for rows that belong to none: it is the last of the K
        labels, which keeps its name, so that there are K - 1 components.
    gates : list of str, or list of int, optional
        Covariates on which the weights of a row depend: columns of a table by name, which an
        array has last, or of an array by place. Components do not see them, but for a regression
        that has them among its own. The weights are then ``softmax([gates, 0] (1, covariates))``.

    Raises
    ------
    ValueError, TypeError
        For an unknown name, ``n_components`` below one, or weights that are not a
        probability vector of length K.

    Notes
    -----
    ``params`` everywhere below is a `GaussianParams`, or of other families a `MixtureParams`, as
    made by `params`. The sites are ``weights`` (K,), or ``sticks`` (K - 1,) under a
    stick-breaking prior, unless they are fixed; and the family's own: of Gaussians ``means``
    (K, D), and ``covariances`` in the structure's own shape. With ``gates`` there is a site of
    that name, (K - 1, 1 + m), in place of the weights: log odds of each label against the last.

    Of Gaussians a dictionary may declare ``scales``, standard deviations in the shape of the
    variances, in place of ``covariances``; of matrices with D > 1 also ``correlations`` (K, D, D),
    or (D, D) where the components share theirs. MAP is then a mode of the density of these.
    Unless `bounded`, the joint has no highest point, and MAP is a local mode.

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

    family: Family
    n_components: int = dataclasses.field(metadata={"static": True})
    _: dataclasses.KW_ONLY
    prior: Any = None
    weights: Any = None
    n_features: int | None = dataclasses.field(default=None, metadata={"static": True})
    present: Any = None
    background: dataclasses.InitVar[Uniform | None] = None
    fills_up = True
    gates: dataclasses.InitVar[Any] = None

    def __post_init__(self, background: Uniform | None, gates: Any):
        # Names and counts only: arrays pass through here under transformations.
        if not isinstance(self.family, Family):
            raise TypeError(f"family: needs a component family, found {self.family!r}")
        check_count("n_components", self.n_components, 1)
        if background is not None or gates is not None:
            object.__setattr__(self, "family", _with(self.family, background, gates))
        if self.weights is not None and not self.family.has_weights:
            raise ValueError("weights: are made by the gates; give one or the other")
        if self.n_components <= len(self.labels_apart):
            raise ValueError(
                f"n_components: counts the background too, so at least 2, found {self.n_components}"
            )
        if isinstance(self.prior, str):
            rule = PriorRule(check_name("prior", self.prior, self.family.rules))
            object.__setattr__(self, "prior", rule)
        elif isinstance(self.prior, Mapping):
            object.__setattr__(self, "prior", self.family.prior_of(dict(self.prior)))
        if isinstance(self.weights, str):
            check_name("weights", self.weights, ["equal"])
            equal = np.full(self.n_components, 1 / self.n_components)
            object.__setattr__(self, "weights", equal)
        elif isinstance(self.weights, (list, tuple, np.ndarray)):
            object.__setattr__(self, "weights", _probabilities(self.weights, self.n_components))

    @property
    def prior_name(self) -> str:
        """``"none"``, a rule that is not resolved yet, ``"conjugate"`` or ``"sites"``."""
        return "none" if self.prior is None else self.prior.name

    def __repr__(self) -> str:
        fixed = "" if self.weights is None else ", fixed weights"
        with_article = {"background": "a background"}
        beside = [with_article.get(name, name) for name in self.family.beside]
        fixed = "".join(f", {name}" for name in beside) + fixed
        return (
            f"Mixture({self.family.label}, n_components={self.n_components}, "
            f"prior={self.prior_name}{fixed})"
        )

    def describe(self) -> Description:
        written, density = functools.partial(code, self), functools.partial(prior_of, self)
        return self._described(formulas(self), hyper(self), written, density)

    @property
    def labels_apart(self) -> tuple[str, ...]:  # type: ignore
        """Names of labels that are no components, the last ones."""
        return self.family.labels_apart

    @property
    def label_groups(self) -> tuple[int, ...]:
        apart = len(self.labels_apart)
        return (0,) * (self.n_components - apart) + tuple(range(1, 1 + apart))

    # -- the definition ------------------------------------------------------

    def prior_sites(self) -> Prior:
        prior = self._numbers()
        if self.n_features is None:
            raise ValueError("the number of features is not known yet: call model.resolve(x)")
        sites = self.family.prior_sites(prior, self.n_components, self.n_features)
        if not self._free_weights:
            return sites
        return {self._weighting.site: lambda _: self._prior_of_weights(prior), **sites}

    def _prior_of_weights(self, prior: ConjugatePrior | SitePrior | None) -> dist.Distribution:
        if prior is None:
            return SIMPLEX.prior(None, self.n_components)
        return prior.of_weights(self.n_components)

    @property
    def _free_weights(self) -> bool:
        """Whether the weights are a site."""
        return self.weights is None and self.family.has_weights

    @property
    def _weighting(self) -> Weighting:
        """What the site of the weights is, where they are free."""
        return SIMPLEX if self.prior is None else self.prior.weighting

    @property
    def closed(self) -> bool:  # type: ignore
        """Whether M-steps maximise the expected log joint."""
        return self.family.closed

    @property
    def iterates(self) -> bool:  # type: ignore
        """Whether that maximum has no formula, and iterations on the statistics find it."""
        sites = self.prior if isinstance(self.prior, SitePrior) else None
        weights = self._free_weights and sites is not None and sites.concentration is None
        return weights or self.family.iterates(self.prior)

    @property
    def moves(self) -> bool:  # type: ignore
        """Whether rows are places, so that `translate` applies."""
        return self.family.moves

    @property
    def places(self) -> Any:
        return self.family.places

    @property
    def holes(self) -> bool:  # type: ignore
        """Whether a NaN in the data is a value missing at random."""
        return self.family.holes

    @property
    def incomplete(self) -> bool:  # type: ignore
        """Whether the data that the model was resolved for have missing values."""
        return self.family.incomplete

    @property
    def imputes(self) -> bool:  # type: ignore
        """Whether statistics hold what is missing; else it drops out of them."""
        return self.family.imputes

    @property
    def needs_given(self) -> bool:  # type: ignore
        """Whether some columns of a row are given, such as covariates, and not drawn."""
        return self.family.needs_given

    @property
    def default_start(self) -> str:  # type: ignore
        """Where `jaxgmm.fit` starts if nobody says."""
        return self.family.default_start

    @property
    def collapse(self) -> str:  # type: ignore
        """What happened where every restart collapsed, and what to do."""
        return self.family.collapse

    def _numbers(self) -> ConjugatePrior | SitePrior | None:
        """The prior as numbers; raises where it is still a rule."""
        if isinstance(self.prior, PriorRule):
            raise ValueError(
                f"prior {self.prior.name!r} is a rule that depends on the data: "
                "call model.resolve(x) first, or use fit.model"
            )
        return self.prior

    def _conjugate(self) -> Any:
        """The prior as numbers; raises where there is none that rows update."""
        prior = self._numbers()
        if prior is None:
            raise ValueError(
                f"prior: flat priors are not conjugate; use {self.family.conjugate_prior}"
            )
        self.family.check_conjugate(prior)
        if self._free_weights and prior.concentration is None:
            raise ValueError(
                f"prior: {self._weighting.site!r} need a Dirichlet distribution of 'weights', as "
                'Gibbs and variational Bayes do; use method="nuts"'
            )
        return prior

    def likelihood(self, params: Params) -> MixtureOfRows:
        return MixtureOfRows(self, params)

    @precise
    def log_prob(self, params: Params, x: Array) -> Float[Array, " n"]:
        """Log density of each row, the label summed out; ``x`` is (n, D) or (n,)."""
        model, params, x = self._near(params, x)
        density = lambda rows: by_row(model.family, params, rows, log_sum_exp)
        return of_each_row(density, model, as_rows(x))

    @precise
    def log_likelihood(self, params: Params, x: Array, sample_weight: Array | None = None) -> Array:
        """Weighted sum of `log_prob` over the rows, one block at a time."""
        model, params, x = self._near(params, x)
        return total(model.family, params, *on_rung(model, as_rows(x), sample_weight))

    def settled(self, params: Params) -> Mixture:
        family = self.family.settled(params)
        return dataclasses.replace(self, family=family)

    def sites(self, params: Params) -> Sites:
        own = self.family.sites(params, self.prior)
        if not self._free_weights:
            return own
        return {self._weighting.site: self._weighting.to_site(params.weights), **own}

    def from_sites(self, sites: Sites) -> Params:
        if not self._free_weights:
            weights = self._fixed(jnp.result_type(*sites.values()))
        else:
            weights = self._weighting.from_site(sites[self._weighting.site])
        return self.family.from_sites(weights, sites, self.prior)

    def _fixed(self, dtype: Any) -> Float[Array, " k"]:
        """Those that are no site; what a family makes of rows stands in their place."""
        if self.weights is None:
            return jnp.full(self.n_components, 1 / self.n_components, dtype)
        return jnp.asarray(self.weights, dtype)

    def log_units(self) -> Array | None:
        return self.family.log_units(self.prior, self.n_components, self.n_features)

    @precise
    def log_prior(self, params: Params) -> Array:
        """Log density of the sites under the prior, constants included; 0 without a prior."""
        if self._numbers() is None:
            return jnp.zeros((), jnp.result_type(params.weights))
        model, params, _ = self._near(params)
        return super(Mixture, model).log_prior(params)

    def _near(self, params: Params, x: Any = None) -> tuple[Mixture, Params, Any]:
        """The model, parameters and rows about an origin, where JAX would round them.

        Parameters of rows far from zero come in NumPy's float64 (see `translate`). Rows with
        holes may be others than the model was resolved for.
        """
        if x is not None and not isinstance(x, jax.Array):
            x = self.read(x)[1]
            x = numeric("x", x.values if isinstance(x, Coded) else x)
        if self.holes and x is not None and not isinstance(x, Tracer) and any_nan(x):
            family = self.family.looked(as_rows(x), None)
            self = dataclasses.replace(self, family=family)
        origin = None if isinstance(x, Tracer) else self.family.origin(params)
        if origin is None:
            return self, params, x
        model, params = narrowed(self.translate(-origin, params))
        return model, params, None if x is None else about(x, origin)

    def imputing(self, key: PRNGKeyArray) -> Mixture:
        return dataclasses.replace(self, family=self.family.imputing(key))

    @precise
    def impute(self, params: Params, x: Array, key: PRNGKeyArray | None = None) -> Any:
        """The rows with their missing values filled in; the others are as they were.

        Parameters
        ----------
        params : GaussianParams or MixtureParams
            In the units of the data.
        x : (n, D) array or table
            Rows, NaN where a value is missing.
        key : typed random key, optional
            None fills in expectations given the values that are there, the labels summed out, and
            of codes the most probable one; with a key all that is missing is drawn, label and
            values of a row together.

        Returns
        -------
        (n, D) array
            In the dtype of ``x``, without NaN; `table` makes words of codes. Of rows with noise
            (`jaxgmm.rows`) what they are without it.

        Raises
        ------
        ValueError
            For a family that has no missing values, and without a key for one of your own that
            says nothing of expectations.

        Notes
        -----
        Expectations have too little spread, and correlate too much, to stand for data: draw
        several times for that (Little and Rubin, 2002, section 4.3 and chapter 5).

        Examples
        --------
        >>> import jax.numpy as jnp
        >>> import jaxgmm as jg
        >>> model = jg.Mixture(jg.Gaussian(), 1)
        >>> params = model.params(means=[[0.0, 1.0]], covariances=[[[1.0, 0.5], [0.5, 1.0]]])
        >>> model.impute(params, jnp.array([[2.0, jnp.nan], [0.5, 1.5]])).tolist()
        [[2.0, 2.0], [0.5, 1.5]]
        """
        origin = None if isinstance(x, Tracer) else self.family.origin(params)
        model, params, x = self._near(params, x)
        filled = of_each_row(lambda rows: fill(model.family, params, rows, key), model, as_rows(x))
        return filled if origin is None else np.asarray(filled) + origin[: filled.shape[1]]

    @precise
    def sample(self, params: Params, key: PRNGKeyArray, n: int, *, given: Any = None) -> Array:
        """Draw rows.

        Parameters
        ----------
        params : GaussianParams or MixtureParams
            In the units of the data.
        key : typed random key
        n : int
            How many rows.
        given : (n, D) array or table, optional
            Where columns are given and not drawn, such as the covariates of a regression: rows
            that have them, of which the other columns are not read.

        Returns
        -------
        (n, D) array
            With the columns of ``given`` that are not drawn as they were.

        Raises
        ------
        ValueError
            Without ``given`` where it is needed, with it where it is not, for other than n rows,
            and for a covariate that is not there or missing in a row.

        Examples
        --------
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import jaxgmm as jg
        >>> model = jg.Mixture(jg.families.LinearRegression(on=["age"]), 1)
        >>> params = model.params(coefficients=[[1.0, 2.0]], variances=[1e-12])
        >>> ages = jnp.array([[0.0, jnp.nan], [3.0, jnp.nan]])
        >>> model.sample(params, jax.random.key(0), 2, given=ages).round(2).tolist()
        [[0.0, 1.0], [3.0, 7.0]]
        """
        if not self.needs_given:
            if given is not None:
                raise ValueError(f"given: {self.family.label} draws all columns; leave it out")
            return _rows_drawn(self, params, key, n)
        if given is None:
            raise ValueError(no_given(self))
        rows = given_rows(self.family, given)
        if len(rows) != n:
            raise ValueError(f"given: needs {n} rows, found {len(rows)}")
        return _rows_drawn_given(self.family, params, key, rows)

    # -- EM ------------------------------------------------------------------

    @precise
    def e_step(
        self,
        params: Params,
        x: Array,
        sample_weight: Array | None = None,
        assign: Assignment = expected_labels,
    ) -> tuple[Statistics, Array]:
        x = as_rows(x)
        family, params = beside_rows(x, (self.family, params))
        return family.e_step(jnp.log(params.weights), params, x, sample_weight, assign)

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
            return of_block(responsibilities, first, rows.shape[0])

        return self.family.at_labels(labels, as_rows(x), sample_weight, self.n_components)

    @precise
    def first_params(
        self, labels: Callable[[Array, Array | int], Array], x: Array, sample_weight: Array | None
    ) -> Params:
        return self.m_step(self.family.shrunk(self.statistics(labels, x, sample_weight)))

    def add(
        self, one: Statistics, other: Statistics, shares: tuple[Array, Array] | None = None
    ) -> Statistics:
        if shares is not None:
            pairs = zip((one, other), shares, strict=True)
            one, other = (self.family.scaled(each, share) for each, share in pairs)
        return self.family.add(one, other)

    @property
    def has_coordinates(self) -> bool:  # type: ignore
        """Whether statistics have `coordinates`, in which leaps are then taken."""
        return self.family.has_coordinates

    def coordinates(self, statistics: Statistics) -> Array:
        return self.family.coordinates(statistics)

    def from_coordinates(self, vector: Array, like: Statistics) -> Statistics:
        return self.family.from_coordinates(vector, like)

    @precise
    def m_step(
        self, statistics: Statistics, params: Params | None = None, share: Array | float = 1.0
    ) -> Params:
        if self.present is not None:
            statistics = self.family.filled(statistics, self.present)
        prior, counts = self._numbers(), statistics.counts
        update: Callable[..., Sites] = self.family.update
        part = {} if self.family.closed else {"share": share}
        own = update(statistics, prior, params, **part)
        if not self._free_weights:
            weights = self._fixed(jnp.result_type(*own.values()))
        elif prior is None:
            weights = counts / jnp.sum(counts)
            if self.present is not None:
                weights = jnp.where(self.present, weights, 0)
            weights = jnp.where(self._apart, jnp.maximum(weights, least_share(weights)), weights)
        else:
            weights = prior.weights_mode(counts, None if params is None else params.weights)
        if prior is not None:
            # A component that lost all its rows stays at its prior mode; its weight, zero
            # to rounding, keeps a logarithm.
            weights = jnp.maximum(weights, jnp.finfo(weights.dtype).tiny)
        return self.family.from_sites(weights, own)

    def updated(self, statistics: Statistics) -> Mixture:
        prior = self._conjugate()
        after = self.family.updated(statistics, prior)
        if prior.concentration is not None:
            concentration = self._weighting.updated(prior.concentration, statistics.counts)
            after = after.reweighted(concentration)
        return dataclasses.replace(self, prior=after)

    @precise
    def expected_step(
        self, x: Array, sample_weight: Array | None = None
    ) -> tuple[Statistics, Array]:
        prior, (_, log_weights) = self._conjugate(), self._mean_weights()
        return self.family.expected_step(
            prior, log_weights, as_rows(x), sample_weight, expected_labels
        )

    @precise
    def divergence(self, other: LatentModel) -> Array:
        assert isinstance(other, Mixture)
        assert self.n_features is not None
        mine, theirs = self._conjugate(), other._conjugate()
        components = self.family.divergence(mine, theirs, self.n_components, self.n_features)
        if self.weights is not None:
            return components
        weights = [
            self._weighting.prior(p.concentration, self.n_components) for p in (mine, theirs)
        ]
        return components + jnp.sum(dist.kl_divergence(*weights))

    def centre(self) -> tuple[Params, Float[Array, " k"]]:
        """Prior means of the weights, the means and the precisions, as parameters.

        And log weights at which log p(label, row) of these is its mean over the prior: of an
        `updated` model, what variational Bayes labels rows by. Raises a `ValueError` without a
        conjugate prior, and for a family whose parameters cannot have such densities.
        """
        prior = self._conjugate()
        assert self.n_features is not None
        sites, constants = self.family.centre(prior, self.n_components, self.n_features)
        weights, log_weights = self._mean_weights()
        return self.family.from_sites(weights, sites), log_weights + constants

    def _mean_weights(self) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """Prior means of the weights and of their logarithms."""
        if self.weights is None:
            return self._weighting.means(self._conjugate().concentration)
        weights = self._fixed(jnp.result_type(*jax.tree.leaves(self.prior)))
        return weights, jnp.log(weights)

    @precise
    def responsibilities(self, params: Params, x: Array) -> Float[Array, "n k"]:
        """Probability of each component given each row; rows sum to one."""
        model, params, x = self._near(params, x)
        probabilities = lambda rows: by_row(model.family, params, rows, _labels)
        return of_each_row(probabilities, model, as_rows(x))

    @precise
    def row_weights(self, params: Params, x: Array) -> Float[Array, " n"]:
        """How often each row counts in the M-step of its component, the label summed out.

        Parameters
        ----------
        params : parameters
            In the units of the data.
        x : (n, D) array
            Rows.

        Returns
        -------
        (n,) array
            One for every row, but of components with heavy tails (`jaxgmm.families.StudentT`):
            there close to zero for outliers.

        Examples
        --------
        >>> import jax.numpy as jnp
        >>> import jaxgmm as jg
        >>> model = jg.Mixture(jg.families.StudentT(), 1)
        >>> params = model.params(locations=[[0.0]], scale_matrices=[[[1.0]]], dof=[3.0])
        >>> model.row_weights(params, jnp.array([[1.0], [9.0]])).round(2).tolist()
        [1.0, 0.05]
        """
        model, params, x = self._near(params, x)
        return counts(model.family, params, as_rows(x))

    # -- doors ---------------------------------------------------------------

    def read(self, x: Any) -> tuple[Mixture, Any]:
        """The model that knows the columns of a table, and the table as numbers in its order.

        Only a family with columns by name and rows with noise do anything here; whatever takes
        data calls it.
        """
        family, x = with_noise(self.family, x).read(x)
        return dataclasses.replace(self, family=family), x

    def check_names(self, feature_names: tuple[str, ...]) -> None:
        self.family.check_names(feature_names)

    def table(self, x: Any, feature_names: tuple[str, ...] | None = None) -> pd.DataFrame:
        """Rows of numbers as a table: columns by name, and categories where they are known.

        Parameters
        ----------
        x : (n, D) array
            Rows, such as `sample` draws.
        feature_names : tuple of str, optional
            Of the columns, where the family does not name them; such as ``fit.feature_names``.

        Returns
        -------
        pandas.DataFrame

        Examples
        --------
        >>> import numpy as np
        >>> import pandas as pd
        >>> import jaxgmm as jg
        >>> family = jg.families.Product({"wing": jg.Gaussian(), "sings": jg.families.Bernoulli()})
        >>> birds = pd.DataFrame({"sings": ["no", "yes"], "wing": [1.5, 2.0]})
        >>> model, rows = jg.Mixture(family, 1).read(birds)
        >>> np.asarray(rows).tolist()
        [[1.5, 0.0], [2.0, 1.0]]
        >>> model.table([[1.2, 1.0]]).to_dict("records")
        [{'wing': 1.2, 'sings': 'yes'}]
        """
        rows = np.asarray(self.read(x)[1])
        rows = rows[:, None] if rows.ndim == 1 else rows
        names = feature_names or tuple(f"x{j}" for j in range(rows.shape[1]))
        return pd.DataFrame(self.family.table(rows, names))

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
            Whose prior has numbers (`ConjugatePrior` hyper-parameters of Gaussians, distributions
            by site of other families), in the dtype of ``x``.

        Examples
        --------
        >>> import jaxgmm as jg
        >>> x = jg.datasets.load("galaxies").x
        >>> model = jg.Mixture(jg.Gaussian(), 3, prior="fraley-raftery").resolve(x)
        >>> float(model.prior.dof)
        3.0
        """
        self, x = self.read(x)
        rows, sample_weight = self.check_data(x, sample_weight)
        centred = None if isinstance(x, jax.Array) else centred_rows(x, rows, self.places)
        if centred is not None:
            near, origin = centred
            resolved = self.translate(-origin)[0].resolve(jax.device_put(near), sample_weight)
            return resolved.translate(origin)[0]
        prior, family = self.prior, self.family.looked(rows, sample_weight)
        if isinstance(prior, PriorRule):
            shape = self.n_components, self._free_weights
            known = on_rung(dataclasses.replace(self, family=family), rows, sample_weight)
            prior = _prior_by_rule(family, prior.name, *known, *shape)
            prior = by_itself(prior) if shared(rows) else prior
        return dataclasses.replace(self, family=family, prior=prior)._sized(rows)

    def _sized(self, rows: Array) -> Mixture:
        """With the width and the dtype of the rows; no rule asks for more than these."""
        d = rows.shape[1]
        prior = self.family.sized(self._numbers(), self.n_components, d, rows.dtype)
        return dataclasses.replace(self, prior=prior, n_features=d)

    def check_data(self, x: Any, sample_weight: Any = None) -> tuple[Array, Array | None]:
        if isinstance(x, Tracer) or isinstance(sample_weight, Tracer):
            return as_rows(x), sample_weight
        return super().check_data(self.read(x)[1], sample_weight)

    def check_model(self, x: Array, sample_weight: Array | None = None) -> None:
        here = rows_here(x)
        weight = None if sample_weight is None else rows_here(sample_weight)
        rows = here if weight is None else here[weight > 0]

        def values() -> None:
            self.family.check_rows(here)
            self.family.check_present(rows)

        everywhere(x, values)
        if isinstance(self.prior, PriorRule):
            total = float(len(x)) if weight is None else total_over_rows(x, weight)
            name = self.prior.name
            on_enough(x, rows, lambda rows: self.family.check_rule(name, rows, total))
        elif self.prior is not None:
            shape = self.n_components, rows.shape[1]
            self.family.check_prior(self.prior, *shape, free=self._free_weights)
        if not self.bounded():
            on_enough(x, rows, lambda rows: self.family.check_bounded(rows, self._n_present))

    def check_mode(self) -> None:
        if self._edges is not None:
            method = "gibbs" if isinstance(self.prior, ConjugatePrior) else "nuts"
            check_concentration(self._edges, method)
        self.family.check_mode(self.prior)

    def check_coordinates(self, dtype: Any) -> None:
        if self._edges is not None:
            check_coordinates(self._edges, dtype)

    @property
    def _edges(self) -> np.ndarray | None:
        """How the density of the weights ends at the edges: its concentrations, where known."""
        free = self._free_weights and self.n_components > 1
        if not free or self.prior is None:
            return None
        concentration = self.prior.concentration
        return None if concentration is None else numeric("prior.concentration", concentration)

    def check_samplable(self) -> None:
        if self.prior is None:
            raise ValueError(
                "prior: a mixture has no posterior under flat priors (it is improper); "
                f"use {self.family.proper_prior}"
            )
        self.prior.check_samplable()

    @precise
    def standardise(self, x: Array, sample_weight: Array | None = None) -> Mixture:
        x = as_rows(x)
        model = self._sized(x) if self.n_features is None else self
        family, prior = self.family.standardise(x, sample_weight, model._numbers())
        return dataclasses.replace(model, family=family, prior=prior)

    def in_user_units(self) -> Mixture:
        family, prior = self.family.in_user_units(self._conjugate())
        return dataclasses.replace(self, family=family, prior=prior)

    def to_working(self, params: Params) -> Params:
        return self.family.to_working(params)

    def to_user(self, params: Params) -> Params:
        return self.family.to_user(params)

    def translate(self, offset: Any, params: Any = None) -> tuple[Mixture, Any]:
        prior = self.family.moved_prior(self.prior, offset)
        moved = dataclasses.replace(self, family=self.family.translated(offset), prior=prior)
        return moved, self.family.moved(params, offset)

    def embed(self, x: Array) -> Float[Array, "n d"]:
        return self.family.embed(x)

    def collapsed(self, params: Params) -> Array:
        empty = ~jnp.all((params.weights > 0) | self._may_be_empty)
        return empty | self.family.collapsed(params, self.bounded())

    def empty(self, params: Params, statistics: Statistics) -> Array:
        return (statistics.counts < _EMPTY_ROWS) & ~jnp.asarray(self._may_be_empty)

    def cancellation(self, params: Params) -> Array:
        return self.family.cancellation(params)

    def spurious(self, params: Params, statistics: Statistics) -> Array:
        if self.bounded():
            return jnp.array(False)
        counts = jnp.where(self._absent, jnp.inf, statistics.counts)
        return self.family.spurious(params, statistics._replace(counts=counts))

    def bounded(self) -> bool:
        return self.family.bounded(self.prior, free=self._free_weights)

    def ascends(self) -> Array:
        return self.family.ascends()

    @precise
    def retract(self, params: Params, tangent: Float[Array, " p"]) -> Params:
        if not self._free_weights:
            return self.family.retract(params, tangent)
        free = self.n_components - 1
        # Logits of the other labels against the first one.
        step = jnp.concatenate([jnp.zeros(1, tangent.dtype), tangent[:free]])
        weights = params.weights * jnp.exp(step - jnp.max(step))
        weights = weights / jnp.sum(weights)
        moved = self.family.retract(params, tangent[free:])
        return dataclasses.replace(moved, weights=weights)

    def edges(self, params: Params) -> Bool[Array, " p"]:
        own = self.family.edges(params)
        if not self._free_weights:
            return own
        # Only of labels apart a weight may be on its edge.
        empty = self._apart & at_edge(constraints.unit_interval, params.weights)
        return jnp.concatenate([empty[1:], own])

    def inwards(self, params: Params, margin: Array | float) -> Params:
        return self.family.inwards(params, margin)

    def tangent_size(self, params: Params) -> int:
        return self.n_parameters(self.family.n_columns(params))

    def padded(self, n_components: int) -> Mixture | None:
        if self.prior is not None or not self._free_weights:
            return None
        # Labels apart stay the last ones.
        label, apart = np.arange(n_components), len(self.labels_apart)
        present = (label < self.n_placed) | (label >= n_components - apart)
        return dataclasses.replace(self, n_components=n_components, present=present)

    def trimmed(self, params: Params) -> Params:
        there = np.ones(self.n_components, bool) if self.present is None else self.present
        return self._with_labels(params, np.flatnonzero(there))

    @property
    def _absent(self) -> Any:
        return False if self.present is None else ~self.present

    @property
    def _apart(self) -> np.ndarray:
        """Which labels are no components."""
        return np.asarray(self.label_groups) > 0

    @property
    def _may_be_empty(self) -> Any:
        return self._absent | self._apart

    def placed(self, labels: Float[Array, "n p"]) -> Float[Array, "n k"]:
        return self.family.placed(labels)

    @property
    def _n_present(self) -> int:
        return self.n_components if self.present is None else int(np.sum(self.present))

    def permute(self, params: Params, order: Array) -> Params:
        check_renaming(order, self.label_groups)
        return self._with_labels(params, order)

    def _with_labels(self, params: Params, order: Any) -> Params:
        """Some or all of the labels in an order."""
        renamed = self.family.permute(params, order)
        return dataclasses.replace(renamed, weights=params.weights[order])

    def derived_sites(self, params: Params) -> Sites:
        derived = self.family.derived_sites(params)
        if self._free_weights and self._weighting is STICKS:
            derived["weights"] = params.weights
        return derived

    def site_dims(self) -> dict[str, list[str]]:
        """ArviZ dimensions of each site."""
        return {
            "weights": ["component"],
            "sticks": ["stick"],
            **self.family.site_dims(),
        }

    def coords(self, feature_names: tuple[str, ...]) -> dict[str, list[Any]]:
        features = self.family.features_of(feature_names)
        names = {**super().coords(features), **self.family.coords()}
        if self.labels_apart:
            names["component"] = list(range(self.n_placed))
            names["label"] = [*map(str, range(self.n_placed)), *self.labels_apart]
        return names

    def n_parameters(self, n_features: int) -> int:
        """Free parameters of the weights and the components."""
        k = self._n_present
        free_weights = k - 1 if self._free_weights else 0
        return free_weights + self.family.n_parameters(k, n_features)

    # -- parameters ----------------------------------------------------------

    def params(self, *, weights: Any = None, **own: Any) -> Params:
        """A checked parameter object.

        Parameters
        ----------
        weights : (K,) array, optional
            Mixing weights; the fixed ones, or else equal ones, by default.
        **own
            The parameters of the components by name, each with a leading axis K. Of Gaussians
            ``means`` (K, D), where (K,) is one feature, and ``covariances``, (K, D, D) matrices or
            the shape of the structure's site.

        Returns
        -------
        GaussianParams
            Or, of another family, `MixtureParams`.

        Raises
        ------
        ValueError
            For a wrong shape, weights that do not sum to one, or values that no component can
            have, such as covariances that are not positive definite or not of the structure.
        TypeError
            For a parameter that is missing, or that the family does not have.

        Examples
        --------
        >>> import jaxgmm as jg
        >>> model = jg.Mixture(jg.Gaussian("diag"), 2)
        >>> model.params(means=[[0.0], [1.0]], covariances=[[1.0], [2.0]]).covariances.shape
        (2, 1, 1)
        """
        k = self.n_components
        if weights is not None and not self.family.has_weights:
            raise TypeError("weights: are made by the gates; give gates=")
        sites = self.family.checked(own, k)
        if weights is None:
            weights = np.full(k, 1 / k) if self.weights is None else self.weights
        dtype = jnp.result_type(*sites.values())
        weights = jax.device_put(np.asarray(_probabilities(weights, k), dtype))
        return self.family.from_sites(weights, sites)


@program(static_argnames=("rule", "k", "free"))
def _prior_by_rule(
    family: Family, rule: str, x: Array, sample_weight: Array | None, k: int, free: bool
) -> Any:
    return family.default_prior(rule, x, sample_weight, k, free)


def _with(family: Family, background: Any, gates: Any) -> Family:
    """A family with another background, or other gates, around what has none."""
    if isinstance(family, Gated):
        gates = list(family.on) if gates is None else gates
        family = family.family
    if background is not None:
        if not isinstance(background, Uniform):
            raise TypeError(f"background: needs a jaxgmm.Uniform, found {background!r}")
        if isinstance(family, Background):
            family = family.family
        family = Background(family, background)
    return family if gates is None else Gated.of(family, gates)


@program(static_argnames="n")
def _rows_drawn(model: Mixture, params: Params, key: PRNGKeyArray, n: int) -> Array:
    return model.likelihood(params).sample(key, (n,))


@program()
def _rows_drawn_given(family: Family, params: Params, key: PRNGKeyArray, rows: Array) -> Array:
    key_label, key_row = jax.random.split(key)
    log_weights = family.log_weights(params, rows)
    labels = jax.random.categorical(key_label, log_weights, shape=(len(rows),))
    return family.sample_given(params, key_row, labels, rows)


def _labels(logits: Float[Array, "k n"]) -> Float[Array, "n k"]:
    return normalise(logits)[0].T


class MixtureOfRows(dist.Distribution):
    """One row of a mixture, the label summed out, as a NumPyro distribution."""

    def __init__(self, model: Mixture, params: Params):
        # A sampler's gradient would pay for the choice of a form: `settled` makes it before.
        family = model.family.decided()
        self._model, self._params = dataclasses.replace(model, family=family), params
        super().__init__(batch_shape=(), event_shape=(family.n_columns(params),))

    @property
    def support(self) -> constraints.Constraint:
        return self._model.family.row_support

    def log_prob(self, value: Array) -> Array:
        rows = jnp.reshape(value, (-1, value.shape[-1]))
        return jnp.reshape(self._model.log_prob(self._params, rows), value.shape[:-1])

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Array:
        if self._model.needs_given:
            raise ValueError(no_given(self._model))
        key_label, key_row = jax.random.split(key)
        labels = jax.random.categorical(
            key_label, jnp.log(self._params.weights), shape=sample_shape
        )
        return self._model.family.sample(self._params, key_row, labels)


def no_given(model: Mixture) -> str:
    """The refusal to draw rows from nothing."""
    return (
        f"given: {model.family.label} draws rows beside columns that are given; pass rows that "
        "have them, as in model.sample(params, key, len(x), given=x)"
    )


def _probabilities(weights: Any, n_components: int) -> np.ndarray:
    array = numeric("weights", weights)
    if array.shape != (n_components,):
        raise ValueError(f"weights: needs shape ({n_components},), found {array.shape}")
    if not np.all(array > 0) or not np.isclose(array.sum(), 1, atol=1e-5):
        raise ValueError(f"weights: must be positive and sum to one, found {array.tolist()}")
    return array
