"""The door for scikit-learn users: its mixture estimators, by the engines of jaxgmm."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, PRNGKeyArray

from jaxgmm import bayes, em
from jaxgmm._checks import check_count, check_name, check_sample_weight, reworded
from jaxgmm._contract import Params
from jaxgmm._programs import filled, program, rung, size_for
from jaxgmm.em import Status
from jaxgmm.files import naming_columns, numeric, refuse_masked, refuse_times
from jaxgmm.model import ConjugatePrior, Gaussian, GaussianParams, Mixture, centred_rows

try:
    from sklearn.base import BaseEstimator, DensityMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        'jaxgmm.sklearn needs scikit-learn 1.6 or later: pip install "jaxgmm[sklearn]"'
    ) from error

__all__ = ["BayesianGaussianMixture", "GaussianMixture"]

# Scikit-learn's names of starts, and jaxgmm's.
_STARTS = {
    "kmeans": "k-means",
    "k-means++": "k-means++",
    "random": "random-responsibilities",
    "random_from_data": "random",
}
# Rows below which a component of a warm start has vanished.
_VANISHED = 1e-3
# Rows that are looked at in one call.
_ROWS_AT_ONCE = 2**16
# Structures whose covariances have a shape of their own; those of others are matrices.
_TYPES = ("full", "tied", "diag", "spherical")
# jaxgmm's names of arguments, and scikit-learn's.
_ARGUMENTS = {"x": "X", "structure": "covariance_type", "covariances": "precisions_init"}


class _MixtureEstimator(DensityMixin, BaseEstimator, metaclass=ABCMeta):
    """What both estimators do with data and with fitted parameters."""

    # The parameters, set by the constructors of the subclasses.
    n_components: int
    covariance_type: str
    tol: float
    reg_covar: float
    max_iter: int
    n_init: int
    init_params: str
    random_state: Any
    warm_start: bool
    verbose: int

    # Attributes of a fit.
    weights_: np.ndarray
    means_: np.ndarray
    covariances_: np.ndarray
    converged_: bool
    n_iter_: int
    lower_bound_: float
    lower_bounds_: np.ndarray

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None):
        """Estimate the parameters.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows; two is the row twice, zero is no row. (Not in scikit-learn.)

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For data or parameters that do not fit, naming them; where every restart collapsed.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            Where ``max_iter`` steps were too few.
        """
        rows = self._rows(X, ensure_min_samples=2)
        check_count("n_components", self.n_components, 1)
        if len(rows) < self.n_components:
            raise ValueError(
                "Expected n_samples >= n_components, but got n_components = "
                f"{self.n_components}, n_samples = {len(rows)}"
            )
        with _arguments_as_written(), naming_columns(X):
            message = self._fit(rows, sample_weight)
        matrices = self.covariances_.ndim == 3 or self._structure == "tied"
        self.precisions_cholesky_ = (
            _precisions_cholesky(self.covariances_) if matrices else self.covariances_**-0.5
        )
        factor = self.precisions_cholesky_
        self.precisions_ = factor @ np.swapaxes(factor, -1, -2) if matrices else factor**2
        if not self.converged_ and self.max_iter > 0:
            warnings.warn(
                "Best performing initialization did not converge. Try different init parameters, "
                "or increase max_iter, tol, or check for degenerate data. It ended "
                f"{message}",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """`fit`, then `predict` on the same data."""
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def predict(self, X: Any) -> np.ndarray:
        """Index of the most probable component of each row, (n_samples,)."""
        return self._look(X, _most_probable).astype(np.int64)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each component given each row, (n_samples, n_components)."""
        return self._look(X, _probabilities)

    def score_samples(self, X: Any) -> np.ndarray:
        """Log density of each row, (n_samples,)."""
        found = self._look(X, _log_density)
        return found + np.asarray(self._density()[1], found.dtype)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Mean of `score_samples`, weighted by ``sample_weight`` where that is given."""
        if sample_weight is None:  # to the last digit the mean that a caller would take
            return float(self.score_samples(X).mean())
        total, weight = self._log_likelihood(X, sample_weight)
        return total / weight

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Draw rows (n_samples, n_features) of the mixture, and their components.

        They are the same at every call where ``random_state`` is an int.
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(
                f"Invalid value for 'n_samples': {n_samples}. Needs at least one sample."
            )
        params, origin = self._about(np.result_type(self.means_))
        params = dataclasses.replace(params, weights=self.weights_)
        drawn = _draw(params, self._key(), np.int32(n_samples), size_for(n_samples))
        labels, rows = (np.asarray(values)[:n_samples] for values in drawn)
        return rows + origin, labels.astype(np.int64)

    @abstractmethod
    def _fit(self, x: np.ndarray, sample_weight: Any) -> str:
        """Set the attributes; how the best restart ended, as a sentence."""

    @abstractmethod
    def _density(self) -> tuple[GaussianParams, Any]:
        """Parameters that label rows, and what to add to their log density."""

    def _rows(self, X: Any, **checks: Any) -> np.ndarray:
        """Checked rows, without what scikit-learn's checks take for numbers."""
        refuse_masked("X", X)
        if not hasattr(X, "toarray"):  # sparse, which scikit-learn refuses
            refuse_times("X", X, np.asarray(X))
        return validate_data(self, X, dtype=[np.float64, np.float32], **checks)

    @property
    def _structure(self) -> str:
        return Gaussian(self.covariance_type).name

    def _key(self) -> PRNGKeyArray:
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        return jax.random.key(seed)

    def _search(self) -> dict[str, Any]:
        """How `jaxgmm.fit` starts."""
        kind = check_name("init_params", self.init_params, _STARTS)
        return {"key": self._key(), "n_init": self.n_init, "start": _STARTS[kind]}

    def _look(self, X: Any, see: Callable[[GaussianParams, Any], Array]) -> np.ndarray:
        """What ``see`` makes of each row, a block of rows at a time."""
        check_is_fitted(self)
        rows = self._rows(X, reset=False)
        params, origin = self._about(rows.dtype)
        n, size = len(rows), min(len(rows), _ROWS_AT_ONCE)
        found = np.empty(0)
        for start in range(0, n, size):
            # The last block reaches back: one size of block is one program, of few sizes.
            first = min(start, n - size)
            block = filled(rows[first : first + size] - origin, rung(size, 8))
            part = np.asarray(see(params, block))[:size]
            if start == 0:
                found = np.empty((n, *part.shape[1:]), part.dtype)
            found[first : first + size] = part
        return found

    def _about(self, dtype: Any) -> tuple[GaussianParams, np.ndarray]:
        """Parameters that label rows, seen from an origin that is to be taken from the rows.

        Zero where JAX keeps the digits of numbers of this dtype, else among the means.
        """
        params, _ = self._density()
        origin = np.zeros(self.means_.shape[1], dtype)
        if jax.device_put(origin).dtype != dtype:
            origin = np.average(self.means_, axis=0, weights=self.weights_).astype(dtype)
        return dataclasses.replace(params, means=self.means_ - origin), origin

    def _log_likelihood(self, X: Any, sample_weight: Any) -> tuple[float, float]:
        """Of all rows together, and their weight."""
        each = self.score_samples(X)
        weight = check_sample_weight(sample_weight, jax.device_put(each))
        weight = np.ones(len(each)) if weight is None else np.asarray(weight, np.float64)
        return float(weight @ each), float(weight.sum())

    def _tell(self, statuses: Any, n_iter: Any, bounds: Any) -> None:
        """What ``verbose`` prints: a line for each restart."""
        if self.verbose:
            for start, (status, count, bound) in enumerate(
                zip(statuses, n_iter, bounds, strict=True)
            ):
                print(f"Initialization {start}: {count} iterations, lower bound {bound:.5f}")
                if self.verbose > 1:
                    print(f"  {Status(int(status))}")


class GaussianMixture(_MixtureEstimator):
    """Gaussian mixture by EM, with the interface of `sklearn.mixture.GaussianMixture`.

    Parameters
    ----------
    n_components : int
        Number of components.
    covariance_type : str
        ``"full"``, ``"tied"``, ``"diag"``, ``"spherical"``, or one of mclust's fourteen codes
        (see `Gaussian`; VEI, EVI, VEE, EVE, VEV and EVV need ``reg_covar=0``).
    tol : float
        EM stops once the mean log-likelihood has less than this still to gain, estimated from
        the last steps; scikit-learn stops after a step that gained less, which may be far
        away from the end. ``converged_`` is true in either case.
    reg_covar : float
        Added to the diagonal of every covariance after each step, in squared units of the data;
        not where there is a ``prior``, whose mode it would move.
    max_iter : int
        Most steps of each restart.
    n_init : int
        Number of restarts, all in one compiled call. The best is kept; unlike in scikit-learn,
        one that hangs on a handful of rows only where there is no other (see `jaxgmm.fit`).
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}
        How restarts begin: at clusters of k-means; at its seeds; at random responsibilities; at
        random rows. Seeds and rows are centres of clusters from which the first covariances are
        estimated; scikit-learn starts there with covariances of ``reg_covar``.
    weights_init : array-like of shape (n_components,), optional
    means_init : array-like of shape (n_components, n_features), optional
    precisions_init : array-like in the shape of ``precisions_``, optional
        Take the place of what ``init_params`` finds. With all three there is one restart.
    random_state : int, RandomState or None
        Seeds the restarts and `sample`. The numbers are JAX's: a seed leads to other random
        starts than in scikit-learn.
    warm_start : bool
        Whether the next `fit` starts where the last ended.
    verbose : int
        1 prints a line for each restart once all have ended, 2 also why it ended.
    verbose_interval : int
        Ignored: iterations run in one compiled call.
    prior : None, str, ConjugatePrior or dict
        That of `Mixture`, such as ``"fraley-raftery"``: EM then finds the mode of the posterior,
        and `jaxgmm.compare` takes ``result_``. (Not in scikit-learn.)

    Attributes
    ----------
    weights_ : (n_components,) array
    means_ : (n_components, n_features) array
    covariances_, precisions_, precisions_cholesky_ : arrays
        ``full`` (n_components, n_features, n_features), ``tied`` (n_features, n_features),
        ``diag`` (n_components, n_features), ``spherical`` (n_components,); that of ``full`` for
        codes of other structures.
    converged_ : bool
    n_iter_ : int
        Steps of the best restart.
    lower_bound_ : float
        Mean log-likelihood at exactly these parameters, plus the log density of the ``prior`` per
        row where there is one; scikit-learn's is that of a step before.
    lower_bounds_ : (n_iter_,) array
        The same after each step.
    result_ : Fit
        The fit with every restart, for all else that jaxgmm has; `jaxgmm.compare` and
        `jaxgmm.sample` need a ``prior``.
    n_features_in_ : int
    feature_names_in_ : array of str
        Where ``X`` has names.

    Notes
    -----
    Arrays are NumPy's. They follow the dtype of ``X``, float64 needs JAX's x64 switch
    (``jax.config.update("jax_enable_x64", True)``) and becomes float32 without it. Each
    shape of data compiles once, for some seconds.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> from jaxgmm.sklearn import GaussianMixture
    >>> x = jg.datasets.load("faithful").x
    >>> mixture = GaussianMixture(2, random_state=0).fit(x)
    >>> sorted(round(float(weight), 2) for weight in mixture.weights_)
    [0.36, 0.64]
    >>> mixture.predict([[2.0, 50.0]]) == mixture.predict([[1.9, 52.0]])
    array([ True])
    """

    result_: Any

    def __init__(
        self,
        n_components=1,
        *,
        covariance_type="full",
        tol=1e-3,
        reg_covar=1e-6,
        max_iter=100,
        n_init=1,
        init_params="kmeans",
        weights_init=None,
        means_init=None,
        precisions_init=None,
        random_state=None,
        warm_start=False,
        verbose=0,
        verbose_interval=10,
        prior=None,
    ):
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.prior = prior

    def bic(self, X: Any, sample_weight: Any = None) -> float:
        """Bayesian information criterion on ``X``; lower is better. Weights count rows."""
        total, weight = self._log_likelihood(X, sample_weight)
        return -2 * total + math.log(weight) * self._n_parameters()

    def aic(self, X: Any, sample_weight: Any = None) -> float:
        """Akaike information criterion on ``X``; lower is better. Weights count rows."""
        return -2 * self._log_likelihood(X, sample_weight)[0] + 2 * self._n_parameters()

    def _n_parameters(self) -> int:
        """Free parameters, under the name that programs written for scikit-learn call."""
        return self._model().n_parameters(self.means_.shape[1])

    def _model(self) -> Mixture:
        ridge = self.reg_covar if self.prior is None else 0.0
        return Mixture(Gaussian(self.covariance_type, ridge), self.n_components, prior=self.prior)

    def _fit(self, x: np.ndarray, sample_weight: Any) -> str:
        model = self._model()
        found = em.fit(
            model,
            x,
            sample_weight=sample_weight,
            tol=self.tol,
            max_iter=self.max_iter,
            **self._begin(model, x, sample_weight),
        )
        if hasattr(self, "feature_names_in_"):
            names = tuple(map(str, self.feature_names_in_))
            found = dataclasses.replace(found, feature_names=names)
        self.result_ = found
        params, total = found.params, found.total_weight
        self.weights_ = np.array(params.weights)
        self.means_ = np.array(params.means)
        own_shape = self._structure in _TYPES
        self.covariances_ = np.array(params.covariance_site if own_shape else params.covariances)
        trace = found.trace / total
        small = len(trace) > 1 and abs(trace[-1] - trace[-2]) < self.tol
        stopped_early = found.status == Status.OUT_OF_ITERATIONS and small
        self.converged_ = bool(found.converged or stopped_early)
        self.n_iter_ = found.n_iter
        self.lower_bound_ = found.log_joint / total
        self.lower_bounds_ = trace[1:]
        ends = found.restarts
        self._tell(ends.status, ends.n_iter, ends.log_joint / total)
        return found.message

    def _begin(self, model: Mixture, x: np.ndarray, sample_weight: Any) -> dict[str, Any]:
        """Where the restarts begin, as arguments of `jaxgmm.fit`."""
        if self.warm_start and hasattr(self, "result_"):
            return {"start": self._where_it_ended(model, x, sample_weight)}
        given = self._given(x.shape[1])
        search = self._search()
        if not given:
            return search
        if len(given) == 3:
            return {"start": model.params(**given)}
        drawn = em.fit(model, x, sample_weight=sample_weight, max_iter=0, **search).restarts.params
        first = jax.tree.map(lambda leaf: leaf[0], drawn)
        whole = {"weights": first.weights, "means": first.means, "covariances": first.covariances}
        one = model.params(**(whole | given))
        fields = ["covariance_site" if name == "covariances" else name for name in given]
        tiled = {
            field: np.broadcast_to(getattr(one, field), getattr(drawn, field).shape)
            for field in fields
        }
        return {"start": dataclasses.replace(drawn, **tiled)}

    def _where_it_ended(self, model: Mixture, x: np.ndarray, sample_weight: Any) -> GaussianParams:
        """The last parameters; components without rows here begin anew at rows of their own."""
        ended, n = self.result_.params, len(x)
        _, checked = model.check_data(x, sample_weight)
        weight = np.ones(n) if checked is None else np.asarray(checked, float)
        held, total = weight @ self.predict_proba(x), weight.sum()
        gone = held < _VANISHED
        if not gone.any():
            return ended
        heaviest = np.where(gone, np.argmax(held), np.arange(len(gone)))
        rows = check_random_state(self.random_state).choice(n, len(gone), p=weight / total)
        weights = np.where(gone, total / len(gone), held)
        return dataclasses.replace(
            model.permute(ended, jnp.asarray(heaviest)),
            weights=jnp.asarray(weights / weights.sum(), ended.weights.dtype),
            means=np.where(gone[:, None], x[rows], ended.means),
        )

    def _given(self, d: int) -> dict[str, np.ndarray]:
        """The user's part of a start, checked, as arguments of `Mixture.params`."""
        k, given = self.n_components, {}
        if self.weights_init is not None:
            weights = given["weights"] = numeric("weights_init", self.weights_init)
            _check_shape("weights_init", "weights", weights, (k,))
            if not np.all(weights > 0):
                raise ValueError(f"weights_init: should be positive, but got {weights.tolist()}")
            if not np.isclose(weights.sum(), 1, atol=1e-5):
                raise ValueError(
                    "weights_init: The parameter 'weights' should be normalized, but got "
                    f"sum(weights) = {weights.sum():.5f}"
                )
        if self.means_init is not None:
            means = given["means"] = numeric("means_init", self.means_init)
            _check_shape("means_init", "means", means, (k, d))
            if not np.all(np.isfinite(means)):
                raise ValueError("means_init: holds a value that is not finite")
        if self.precisions_init is not None:
            given["covariances"] = self._inverted(numeric("precisions_init", self.precisions_init))
        return given

    def _inverted(self, precisions: np.ndarray) -> np.ndarray:
        """Covariances of ``precisions_init``, which must have inverses."""
        k, d = self.n_components, self.n_features_in_
        shapes = {"tied": (d, d), "diag": (k, d), "spherical": (k,)}
        called = self._structure if self._structure in _TYPES else "full"
        _check_shape(
            "precisions_init", f"{called} precision", precisions, shapes.get(called, (k, d, d))
        )
        sentence = f"precisions_init: The parameter '{called} precision' should be"
        if called in ("diag", "spherical"):
            if not np.all(precisions > 0):
                raise ValueError(f"{sentence} positive")
            return 1 / precisions
        if not _positive_definite(precisions):
            raise ValueError(f"{sentence} symmetric, positive-definite")
        return np.linalg.inv(precisions)

    def _density(self) -> tuple[GaussianParams, Any]:
        structure = self._structure if self._structure in _TYPES else "full"
        return GaussianParams(self.weights_, self.means_, self.covariances_, structure), 0.0


class BayesianGaussianMixture(_MixtureEstimator):
    """Variational Bayes, with the interface of `sklearn.mixture.BayesianGaussianMixture`.

    The updates are those of Bishop (2006), section 10.2. Scikit-learn's are too for ``full`` and
    ``tied`` covariances with Dirichlet weights; see Notes for the others.

    Parameters
    ----------
    n_components : int
        Number of components, some of which may end without rows.
    covariance_type : {"full", "tied", "diag", "spherical"}
        Or mclust's codes of the same, VVV, EEE, VVI and VII.
    tol : float
        Gain of the evidence lower bound, in total, at which the ascent stops.
    reg_covar : float
        Added once to the diagonal of the default scale of the prior; scikit-learn adds it to
        the covariance of each component at each step, which a proper prior does not need.
    max_iter : int
        Most rounds of each restart.
    n_init : int
        Number of restarts, all in one compiled call; that of the highest bound is kept.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}
        As for `GaussianMixture`.
    weight_concentration_prior_type : {"dirichlet_process", "dirichlet_distribution"}
        Whether weights are broken off a stick one after the other or exchangeable.
    weight_concentration_prior : float, optional
        Concentration of either; 1 / n_components by default.
    mean_precision_prior : float, optional
        Weight of ``mean_prior``, in rows; 1 by default.
    mean_prior : array-like of shape (n_features,), optional
        The mean of the data by default.
    degrees_of_freedom_prior : float, optional
        The number of features by default.
    covariance_prior : float or array-like, optional
        ``full`` and ``tied`` (n_features, n_features), ``diag`` (n_features,), ``spherical`` one
        number; the covariance of the data by default.
    random_state, warm_start, verbose, verbose_interval
        As for `GaussianMixture`.

    Attributes
    ----------
    weights_, means_ : arrays
        Posterior means.
    covariances_, precisions_, precisions_cholesky_ : arrays
        The posterior means of the precisions, and their inverses, shaped as for `GaussianMixture`.
    converged_ : bool
    n_iter_ : int
        Rounds of the best restart.
    lower_bound_ : float
        The evidence lower bound in total, with its constants, which scikit-learn leaves out.
    lower_bounds_ : (n_iter_,) array
        The same after each round.
    weight_concentration_prior_, mean_precision_prior_, mean_prior_, \
    degrees_of_freedom_prior_, covariance_prior_ :
        The prior as numbers.
    weight_concentration_ : (n_components,) array, or a pair of them
        Dirichlet concentrations, or both parameters of the Beta of each stick.
    mean_precision_, degrees_of_freedom_ : (n_components,) arrays
        ``degrees_of_freedom_`` is one number where covariances are tied.
    posterior_ : Mixture
        The model with the closest distribution in place of its prior: `Mixture.draw_prior`
        draws parameters from it.
    n_features_in_, feature_names_in_
        As for `GaussianMixture`.

    Notes
    -----
    As in scikit-learn, a prior for ``tied`` covariances counts once per component, and one for
    ``spherical`` once per feature. What differs: scikit-learn takes the mean log determinant of
    ``diag`` and ``spherical`` covariances from the Wishart distribution of a whole matrix, here
    each variance has its inverse-gamma distribution; its last stick leaves something over, here
    it is what the others left. Both matter only where labels are uncertain. Arrays and dtypes are
    as for `GaussianMixture`.

    `score_samples` is, as in scikit-learn, the log of the sum over components of exponentials of
    mean log densities, a lower bound on the log predictive density.

    References
    ----------
    Bishop (2006), Pattern Recognition and Machine Learning, section 10.2; Blei and Jordan (2006),
    Bayesian Analysis 1:121-143.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> from jaxgmm.sklearn import BayesianGaussianMixture
    >>> x = jg.datasets.load("faithful").x
    >>> mixture = BayesianGaussianMixture(n_components=4, max_iter=1000, random_state=0).fit(x)
    >>> mixture.weights_.shape, mixture.converged_
    ((4,), True)
    """

    posterior_: Mixture

    def __init__(
        self,
        *,
        n_components=1,
        covariance_type="full",
        tol=1e-3,
        reg_covar=1e-6,
        max_iter=100,
        n_init=1,
        init_params="kmeans",
        weight_concentration_prior_type="dirichlet_process",
        weight_concentration_prior=None,
        mean_precision_prior=None,
        mean_prior=None,
        degrees_of_freedom_prior=None,
        covariance_prior=None,
        random_state=None,
        warm_start=False,
        verbose=0,
        verbose_interval=10,
    ):
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weight_concentration_prior_type = weight_concentration_prior_type
        self.weight_concentration_prior = weight_concentration_prior
        self.mean_precision_prior = mean_precision_prior
        self.mean_prior = mean_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval

    def _fit(self, x: np.ndarray, sample_weight: Any) -> str:
        check_name("covariance_type", self._structure, _TYPES)
        model = Mixture(Gaussian(self._structure), self.n_components)
        rows, weight = model.check_data(x, sample_weight)
        if centred_rows(x, rows) is not None:
            raise ValueError(
                "X: lies so far from zero that float32 has not its digits; turn on JAX's x64 "
                'switch, jax.config.update("jax_enable_x64", True), or subtract a number'
            )
        total = len(rows) if weight is None else float(weight.sum())
        prior = self._prior(x, None if weight is None else np.asarray(weight))
        if self.warm_start and hasattr(self, "posterior_"):
            params, _ = self._density()
            starts = jax.tree.map(lambda leaf: leaf[None], params)
        else:
            # Of the starts' own M-step: a mode needs a concentration of one.
            flat = dataclasses.replace(prior, concentration=1.0, stick_breaking=False)
            own = dataclasses.replace(model, prior=flat)
            found = em.fit(own, x, sample_weight=sample_weight, max_iter=0, **self._search())
            starts = found.restarts.params
        model = dataclasses.replace(model, prior=prior).resolve(rows, weight)
        check_count("max_iter", self.max_iter, 0)
        ends = _climb(model, rows, starts, weight, self.tol / total, self.max_iter)
        bounds, n_iter, status = (np.asarray(a) for a in (ends.elbo, ends.n_iter, ends.status))
        if not np.any(np.isfinite(bounds)):
            raise ValueError("the lower bound is not finite from any start; check the prior")
        best = int(np.argmax(np.where(np.isfinite(bounds), bounds, -np.inf)))
        self.posterior_ = jax.tree.map(lambda leaf: leaf[best], ends.model)
        self._set_parameters()
        self.converged_ = bool(status[best] == Status.CONVERGED)
        self.n_iter_ = int(n_iter[best])
        self.lower_bound_ = float(bounds[best])
        self.lower_bounds_ = np.asarray(ends.trace[best])[1 : self.n_iter_ + 1]
        self._tell(status, n_iter, bounds)
        return str(Status(int(status[best])))

    @property
    def _copies(self) -> int:
        """How often scikit-learn counts the prior of a covariance."""
        d = len(self.mean_prior_)
        return {"tied": self.n_components, "spherical": d}.get(self._structure, 1)

    def _prior(self, x: np.ndarray, weight: np.ndarray | None) -> ConjugatePrior:
        """The prior as scikit-learn's attributes, and as jaxgmm takes it."""
        kinds = ("dirichlet_process", "dirichlet_distribution")
        kind = self.weight_concentration_prior_type
        check_name("weight_concentration_prior_type", kind, kinds)
        or_else = lambda value, default: default if value is None else value
        self.weight_concentration_prior_ = or_else(
            self.weight_concentration_prior, 1 / self.n_components
        )
        if not self.weight_concentration_prior_ > 0:
            raise ValueError(
                "weight_concentration_prior: must be positive, found "
                f"{self.weight_concentration_prior}"
            )
        d, mean = x.shape[1], np.average(x, axis=0, weights=weight)
        self.mean_prior_ = np.asarray(or_else(self.mean_prior, mean), x.dtype)
        _check_shape("mean_prior", "means", self.mean_prior_, (d,))
        matrices = self._structure in ("full", "tied")
        self.mean_precision_prior_ = or_else(self.mean_precision_prior, 1.0)
        _check_above("mean_precision_prior", self.mean_precision_prior_, 0)
        self.degrees_of_freedom_prior_ = or_else(self.degrees_of_freedom_prior, d)
        _check_above("degrees_of_freedom_prior", self.degrees_of_freedom_prior_, (d - 1) * matrices)
        if self.covariance_prior is None:
            scatter = (x - mean).T * (1 if weight is None else weight) @ (x - mean)
            total = len(x) if weight is None else weight.sum()
            shapes = {"diag": np.diag, "spherical": lambda matrix: np.diag(matrix).mean()}
            shaped = shapes.get(self._structure, np.asarray)
            scale, ridge = shaped(scatter / (total - 1)), self.reg_covar * shaped(np.eye(d))
        else:
            ridge = 0.0
            scale = numeric("covariance_prior", self.covariance_prior)
            shape = {"diag": (d,), "spherical": ()}.get(self._structure, (d, d))
            called = f"{self._structure} covariance_prior"
            _check_shape("covariance_prior", called, scale, shape)
            if not (_positive_definite(scale) if matrices else np.all(scale > 0)):
                proper = "symmetric, positive-definite" if matrices else "positive"
                raise ValueError(f"The parameter '{called}' should be {proper}")
        self.covariance_prior_ = np.asarray(scale, x.dtype)
        return ConjugatePrior(
            concentration=self.weight_concentration_prior_,
            mean=self.mean_prior_,
            mean_precision=self.mean_precision_prior_,
            dof=self._copies * self.degrees_of_freedom_prior_,
            scale=self._copies * (self.covariance_prior_ + ridge),
            stick_breaking=kind == "dirichlet_process",
        )

    def _set_parameters(self) -> None:
        q, (params, _) = self.posterior_.prior, self.posterior_.centre()
        self.weights_ = np.array(params.weights)
        self.means_ = np.array(params.means)
        self.covariances_ = np.array(params.covariance_site)
        self.mean_precision_ = np.array(q.mean_precision)
        self.degrees_of_freedom_ = np.array(q.dof) / self._copies
        counts = self.mean_precision_ - self.mean_precision_prior_
        before = self.weight_concentration_prior_
        if self.weight_concentration_prior_type == "dirichlet_process":
            later = np.append(np.cumsum(counts[:0:-1])[::-1], 0)
            self.weight_concentration_ = (1 + counts, before + later)
        else:
            self.weight_concentration_ = before + counts

    def _density(self) -> tuple[GaussianParams, Any]:
        params, log_weights = self.posterior_.centre()
        log_mass = logsumexp(log_weights)
        return dataclasses.replace(params, weights=jnp.exp(log_weights - log_mass)), log_mass


@contextlib.contextmanager
def _arguments_as_written() -> Iterator[None]:
    """What is refused in here calls the arguments as scikit-learn does."""
    try:
        yield
    except (ValueError, TypeError) as error:
        message = reworded(str(error), _ARGUMENTS)
        if message == str(error):
            raise
        raise (TypeError if isinstance(error, TypeError) else ValueError)(message) from None


def _check_shape(argument: str, called: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    """In scikit-learn's words, which call the argument otherwise."""
    if array.shape != shape:
        raise ValueError(
            f"{argument}: The parameter '{called}' should have the shape of {shape}, "
            f"but got {array.shape}"
        )


def _check_above(argument: str, value: Any, least: float) -> None:
    number = numeric(argument, value)
    if number.shape != () or not number > least:
        found = f"{number:.3f}" if number.shape == () else f"shape {number.shape}"
        raise ValueError(
            f"The parameter '{argument}' should be greater than {least}, but got {found}."
        )


def _positive_definite(matrices: np.ndarray) -> bool:
    symmetric = np.allclose(matrices, np.swapaxes(matrices, -1, -2))
    return symmetric and bool(np.all(np.linalg.eigvalsh(matrices) > 0))


def _precisions_cholesky(covariances: np.ndarray) -> np.ndarray:
    """Upper triangular factors, of which the precisions are products with the transpose."""
    return np.triu(np.swapaxes(np.linalg.inv(np.linalg.cholesky(covariances)), -1, -2))


def _any_structure(params: GaussianParams) -> Mixture:
    return Mixture(Gaussian(params.structure), params.means.shape[0])


@program()
def _log_density(params: GaussianParams, x: Array) -> Array:
    return _any_structure(params).log_prob(params, x)


@program()
def _probabilities(params: GaussianParams, x: Array) -> Array:
    return _any_structure(params).responsibilities(params, x)


@program()
def _most_probable(params: GaussianParams, x: Array) -> Array:
    return _any_structure(params).predict(params, x)


@program(static_argnames="size")
def _draw(
    params: GaussianParams, key: PRNGKeyArray, n: Array | int, size: int
) -> tuple[Array, Array]:
    """Components, sorted, and a row of each; the first ``n`` of them count."""
    key_labels, key_rows = jax.random.split(key)
    labels = jax.random.categorical(key_labels, jnp.log(params.weights), shape=(size,))
    last = len(params.weights) - 1
    labels = jnp.sort(jnp.where(jnp.arange(size) < n, labels, last))
    return labels, _any_structure(params).family.sample(params, key_rows, labels)


@program(static_argnames="max_iter")
def _climb(
    model: Mixture, x: Array, starts: Params, weight: Array | None, tol: float, max_iter: int
) -> bayes.Variational:
    climb = lambda start: bayes.variational(model, x, start, weight, tol, max_iter)
    return jax.vmap(climb)(starts)
