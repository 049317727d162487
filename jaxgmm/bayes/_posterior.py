"""The posterior as a noun: draws by site, whatever engine made them, and its ArviZ form."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from jaxgmm._checks import check_key
from jaxgmm._contract import LatentModel, Params
from jaxgmm._programs import in_slices, on_rung
from jaxgmm.bayes import _predictive
from jaxgmm.bayes._evidence import Evidence
from jaxgmm.bayes._labelling import (
    AMBIGUOUS,
    all_sites,
    highest,
    match_labels,
    relabelled,
    symmetry_note,
)
from jaxgmm.bayes._summary import MOST_SHOWN, posterior_html, table
from jaxgmm.em import fingerprint
from jaxgmm.files import Kept, carried, packed, stored
from jaxgmm.model import about, coordinates, narrowed

if TYPE_CHECKING:
    import pandas as pd


@stored
@dataclasses.dataclass(frozen=True, repr=False)
class Posterior(Kept):
    """Draws of a posterior, relabelled, with everything needed to judge them.

    Attributes
    ----------
    model : LatentModel
        The model with its prior as numbers.
    method : str
        The engine.
    x, sample_weight : arrays
        The data and weights, as given; of a stream a sample of its rows, weighted to all of them.
    draws : dict of arrays (chain, draw, ...)
        By site, relabelled; a mixture adds ``covariances_full`` (chain, draw, K, D, D).
    draws_raw : dict of arrays (chain, draw, ...)
        As drawn.
    params : pytree
        The relabelled draws as parameters (chain, draw, ...).
    labels : (chain, draw, K) array
        The permutations: new label k was ``labels[..., k]``.
    log_prior, log_likelihood : (chain, draw) arrays
        At each draw, in the declared coordinates and the units of the data.
    sample_stats : dict of (chain, draw) arrays
        The sampler's own statistics.
    log_weights : (chain, draw) array or None
        Where the draws are those of an approximation: their log importance weights, Pareto-
        smoothed and normalised. None where the draws are the posterior's own.
    pareto_k : float or None
        The shape of the tail of those weights: above 0.7 they, and the approximation, are not
        to be trusted.
    evidence : Evidence or None
        log p(x) with its error, where the engine estimates it.
    diagnostics : dict
        What the engine says of itself, such as the trace of a bound.
    settings : dict
        What else the engine was told: ``thinning`` and the options of the method.
    seed : tuple of int or None
        The numbers in the random key, as `jax.random.key_data` has them.
    label_method : str
        The rule that matched the labels, one of `jaxgmm.bayes.RELABELLINGS`.
    label_clarity : (chain, draw) array or None
        How much better the labels of each draw agree with the other draws than under any other
        renaming: 1 for clear labels, 0 for a tie, negative where another one agrees better.
        Agreement is the sum over labels of the cosine between the draw's responsibilities and
        their average, as in `Bootstrap`.
    row_names : (n,) array or None
        The index of a data frame.
    start : str
        Where the engine began: ``"fit"``, ``"given"`` for parameters, ``"prior"`` or
        ``"posterior"``. Optima of a fit at which nothing began are in ``diagnostics["starts"]``.
    adaptation : dict of arrays (chain, ...)
        What warm-up learned, with which ``jaxgmm.sample(start=posterior)`` goes on: of NUTS
        ``step_size`` and ``inverse_mass_matrix``, in unconstrained coordinates of working units.
    origin : (D,) array or None
        What rows far from zero were measured from where JAX has no float64; the rows and the
        draws of the means are then NumPy's float64.
    sampled : bool
        Whether ``x`` is a sample of the rows that the posterior is of.

    Notes
    -----
    Where there are ``log_weights``, every average below is weighted. Averages go through the
    draws one at a time, so that memory does not grow with their number.
    """

    model: LatentModel
    method: str
    x: Array
    sample_weight: Array | None
    draws: dict[str, np.ndarray]
    draws_raw: dict[str, np.ndarray]
    params: Params
    labels: np.ndarray
    log_prior: np.ndarray
    log_likelihood: np.ndarray
    sample_stats: dict[str, np.ndarray]
    n_warmup: int | None
    fingerprint: str
    feature_names: tuple[str, ...]
    log_weights: np.ndarray | None = None
    pareto_k: float | None = None
    evidence: Evidence | None = None
    diagnostics: dict[str, Any] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    seed: tuple[int, ...] | None = None
    label_method: str = "stephens"
    label_clarity: np.ndarray | None = None
    row_names: np.ndarray | None = None
    start: str = "fit"
    adaptation: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    origin: np.ndarray | None = None
    sampled: bool = False

    def moved(self, offset: np.ndarray, x: Any, digest: str) -> Posterior:
        """The posterior given ``x``, these rows moved by ``offset``, of which it is the digest."""
        model, params = self.model.translate(offset, self.params)
        _, draws = self.model.translate(offset, self.draws)
        _, raw = self.model.translate(offset, self.draws_raw)
        origin = offset if self.origin is None else self.origin + offset
        if not origin.any():
            origin, (model, params, draws, raw) = None, narrowed((model, params, draws, raw))
        changes = {"model": model, "params": params, "draws": draws, "draws_raw": raw}
        return dataclasses.replace(self, x=x, fingerprint=digest, origin=origin, **changes)

    @property
    def near(self) -> Posterior:
        """The same posterior measured from its ``origin``, for what JAX computes."""
        if self.origin is None:
            return self
        rows = self._rows(None)
        return self.moved(-self.origin, rows, fingerprint(rows, self.sample_weight))

    def check_rows(self, argument: str) -> None:
        """A `ValueError` where all rows are needed, and there is a sample of them."""
        if self.sampled:
            raise ValueError(
                f"{argument}: this posterior is of a stream, of whose rows it has a sample, and "
                "all are needed here; take as many rows as fit in memory, as an array"
            )

    @property
    def log_joint(self) -> np.ndarray:
        """(chain, draw) log density of parameters and data, in the declared coordinates."""
        return self.log_prior + self.log_likelihood

    @property
    def n_chains(self) -> int:
        """Number of chains."""
        return self.log_prior.shape[0]

    @property
    def n_draws(self) -> int:
        """Number of kept draws of each chain."""
        return self.log_prior.shape[1]

    @property
    def effective_draws(self) -> float:
        """Number of equally weighted draws that the weights leave (Kish, 1965)."""
        if self.log_weights is None:
            return float(self.log_prior.size)
        return float(1 / np.sum(np.exp(2 * self.log_weights)))

    def invariants(self) -> dict[str, np.ndarray]:
        """(chain, draw) quantities that no renaming of labels changes."""
        return invariants(self.log_joint, self.log_likelihood, self.draws)

    # -- labels ------------------------------------------------------------------------

    def raw_params(self) -> Params:
        """The draws as parameters (chain, draw, ...), labelled as drawn."""
        near = self.near
        raw = relabelled(near.model, near.params, np.argsort(self.labels, axis=-1))
        return raw if self.origin is None else near.model.translate(self.origin, raw)[1]

    @property
    def ambiguous_labels(self) -> float:
        """Share of the draws whose labels are ambiguous.

        Those with a ``label_clarity`` below 0.05, for which another renaming is as good or
        nearly: what is said of single components depends on the rule that matched them.
        """
        if self.label_clarity is None:
            return 0.0
        ambiguous = self.label_clarity < AMBIGUOUS
        weights = None if self.log_weights is None else np.exp(self.log_weights)
        return float(np.average(ambiguous, weights=weights))

    @property
    def label_note(self) -> str:
        """A sentence where the draws say that labels are a convention; empty elsewhere.

        That is where the permutation changes at more than one of twenty steps, so that the
        draws move freely between labellings, or where two components coincide: in every number
        that each component has, the Kolmogorov-Smirnov distance of the two relabelled marginals
        is below 0.1, which is within the error of 400 draws.
        """
        return symmetry_note(self.model, self.labels, self.draws)

    def relabel(
        self, method: str = "stephens", *, reference: Params = None, **options: Any
    ) -> Posterior:
        """The same draws, their labels matched by another rule.

        Parameters
        ----------
        method : str
            ``"stephens"``: the draws agree on who belongs where (Stephens, 2000).
            ``"ecr"``: most rows keep the label of a pivot allocation (Papastamoulis and
            Iliopoulos, 2010). ``"pivot"``: nearest to a pivot in standardised parameters
            (Marin, Mengersen and Robert, 2005). ``"ordering"``: one number of each component
            ascends. ``"data-based"``: rows near the centre of their label (after Rodriguez
            and Walker, 2014).
        reference : parameters, optional
            Parameters whose labels the draws take, such as ``fit.params``: the pivot, or where
            an iteration starts. The draw with the highest log joint by default. An ordering
            has no use for it.
        **options
            Of ``"ordering"``: ``by``, a site (``"means"``), and ``coordinate``, an index into
            what each component has of it (0).

        Returns
        -------
        Posterior
            With other ``draws``, ``params``, ``labels`` and ``label_clarity``.

        Raises
        ------
        ValueError, TypeError
            For an unknown method, site or coordinate; for options that a method does not have.

        Examples
        --------
        >>> import jax
        >>> import jaxgmm as jg
        >>> x = jg.datasets.load("galaxies").x
        >>> model = jg.Mixture(jg.Gaussian("tied"), n_components=2, prior="fraley-raftery")
        >>> post = jg.sample(
        ...     model, x, key=jax.random.key(0), method="gibbs", n_draws=50, progress=False
        ... )
        >>> means = post.relabel("ordering", by="means").draws["means"][..., 0]
        >>> bool((means[..., 0] <= means[..., 1]).all())
        True
        """
        if self.origin is not None:
            _, reference = self.model.translate(-self.origin, reference)
            found = self.near.relabel(method, reference=reference, **options)
            return found.moved(self.origin, self.x, self.fingerprint)
        raw = self.raw_params()
        if reference is None:
            reference = highest(self.params, self.log_joint)
        labelling = match_labels(self.model, self.x, raw, reference, method, **options)
        params = relabelled(self.model, raw, labelling.order)
        sites = all_sites(self.model, params)
        return dataclasses.replace(
            self,
            draws={name: np.asarray(site, self.draws[name].dtype) for name, site in sites.items()},
            params=jax.tree.map(np.asarray, params),
            labels=np.asarray(labelling.order),
            label_method=method,
            label_clarity=np.asarray(labelling.clarity),
        )

    # -- what the draws say of rows ------------------------------------------------------

    def responsibilities(self, x_new: Any = None) -> np.ndarray:
        """Posterior mean probability of each label of each row.

        Parameters
        ----------
        x_new : (m, D) array, optional
            Rows; those of the posterior by default.

        Returns
        -------
        (m, K) array
        """
        x = self._rows(x_new)
        rows, _ = on_rung(self.model, x, None)
        values = _predictive.responsibilities(self.model, *self._weighted_draws(), rows)
        return np.asarray(values, x.dtype)[: len(x)]

    def predict(self, x_new: Any = None) -> np.ndarray:
        """Most probable label of each row under `responsibilities`, (m,) ints."""
        return np.argmax(self.responsibilities(x_new), axis=-1)

    def log_prob(self, x_new: Any = None) -> np.ndarray:
        """Log posterior predictive density of each row: that of the average of all draws.

        Parameters
        ----------
        x_new : (m, D) array, optional
            Rows; those of the posterior by default.

        Returns
        -------
        (m,) array
            ``log sum_s w_s p(x | draw s)`` with ``w`` equal or the importance weights.
        """
        x = self._rows(x_new)
        rows, _ = on_rung(self.model, x, None)
        values = _predictive.log_prob(self.model, *self._weighted_draws(), rows)
        return np.asarray(values, x.dtype)[: len(x)]

    def co_clustering(self, rows: Any = None) -> np.ndarray:
        """Posterior probability that two rows carry one label, whatever its name.

        The posterior similarity matrix, with labels summed out given each draw.

        Parameters
        ----------
        rows : array of int or bool, optional
            Which rows; all by default, which takes n x n numbers.

        Returns
        -------
        (m, m) array
        """
        x = self._rows(None) if rows is None else self._rows(None)[np.asarray(rows)]
        all_rows, _ = on_rung(self.model, x, None)
        values = _predictive.co_clustering(self.model, *self._weighted_draws(), all_rows)
        return np.asarray(values, x.dtype)[: len(x), : len(x)]

    def sample_assignments(self, key: PRNGKeyArray) -> np.ndarray:
        """Labels of all rows drawn given each draw, (chain, draw, n) int32.

        With importance weights, those of a draw hold for its labels.
        """
        check_key(key, "labels are drawn")
        rows, _ = on_rung(self.model, self._rows(None), None)
        drawn = _predictive.assignments(self.model, self._flat_params(), key, rows)
        return np.asarray(drawn)[:, : len(self.x)].reshape(*self.log_prior.shape, -1)

    def replicate(self, key: PRNGKeyArray) -> np.ndarray:
        """As many rows as there are data, drawn from the model at each draw.

        (chain, draw, n, ...): draws of the posterior predictive distribution, where the draws
        are not weighted. Columns that a model is given, such as covariates, are those of the data.
        """
        check_key(key, "rows are drawn")
        drawn = _predictive.replicates(self.model, self._flat_params(), key, self._rows(None))
        drawn = drawn.astype(self.x.dtype)
        drawn = drawn if self.origin is None else drawn + self.origin
        return drawn.reshape(*self.log_prior.shape, *drawn.shape[1:])

    def impute(self, key: PRNGKeyArray) -> np.ndarray:
        """The data with their missing values drawn at each draw, (chain, draw, n, D).

        Multiple imputations (Little and Rubin, 2002, chapter 10), where the draws are not
        weighted. A `ValueError` for a model that has no missing values.
        """
        check_key(key, "missing values are drawn")
        rows, _ = on_rung(self.model, self._rows(None), None)
        drawn = _predictive.imputed(self.model, self._flat_params(), key, rows)
        drawn = np.asarray(drawn)[:, : len(self.x)].astype(self.x.dtype)
        drawn = drawn if self.origin is None else drawn + self.origin
        return drawn.reshape(*self.log_prior.shape, *drawn.shape[1:])

    def pointwise_log_likelihood(self) -> np.ndarray:
        """(chain, draw, n) log density of one copy of each row, the label summed out.

        A weight is a number of copies, so the weighted sum over rows is `log_likelihood`. What
        leaves a row out leaves out one copy: the weight multiplies afterwards.
        """
        model, n = self.model.settled(self.params), len(self.x)
        rows, _ = on_rung(model, self._rows(None), None)
        of_slice = lambda part: _predictive.pointwise(model, part, rows)
        return in_slices(of_slice, self.params, 2)[..., :n]

    def _rows(self, x_new: Any) -> Array:
        """Rows as JAX sees them: about the origin, where there is one."""
        if x_new is None:
            return self.x if self.origin is None else jax.device_put(about(self.x, self.origin))
        rows, _ = self.model.check_data(x_new)
        if rows.shape[1:] != self.x.shape[1:]:
            raise ValueError(
                f"x_new: needs rows of shape {self.x.shape[1:]} as in the data, "
                f"found {rows.shape[1:]}"
            )
        return rows if self.origin is None else jax.device_put(about(x_new, self.origin))

    def _flat(self, draws: Any) -> Any:
        """Draws of all chains in one row."""
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), draws)

    def _flat_params(self) -> Params:
        """The draws in one row, about the origin as the rows are."""
        return self._flat(self.near.params)

    def _weighted_draws(self) -> tuple[Params, np.ndarray]:
        """All draws and their log weights."""
        equal = np.full(self.log_prior.size, -np.log(self.log_prior.size))
        log_weights = equal if self.log_weights is None else self.log_weights.ravel()
        return self._flat_params(), log_weights

    # -- other forms ---------------------------------------------------------------------

    def resample(self) -> Posterior:
        """Equally weighted draws in place of weighted ones, for tools without weights.

        Systematic resampling at the middle of each stratum (Kitagawa, 1996), which needs no
        random numbers: a draw of weight w among S is there S w times, rounded up or down, and
        copies stand beside each other. Draws without weights stay as they are.

        Returns
        -------
        Posterior
            Without ``log_weights``, with as many draws.
        """
        if self.log_weights is None:
            return self
        count = self.log_weights.size
        chosen = systematic(self.log_weights, count).reshape(self.log_weights.shape)
        return self._chosen(chosen)

    def thin(self, most: int) -> Posterior:
        """At most so many equally weighted draws, for what is costly.

        Parameters
        ----------
        most : int
            How many to keep, at least one of each chain.

        Returns
        -------
        Posterior
            Evenly spaced draws of every chain; where there are ``log_weights``, a single chain
            of draws resampled as in `resample`.
        """
        if self.log_weights is not None:
            count = min(most, self.log_weights.size)
            return self._chosen(systematic(self.log_weights, count)[None])
        kept = min(self.n_draws, max(1, most // self.n_chains))
        within = np.linspace(0, self.n_draws - 1, kept).astype(int)
        return self._chosen(np.arange(self.n_chains)[:, None] * self.n_draws + within)

    def _chosen(self, chosen: np.ndarray) -> Posterior:
        """Equally weighted draws by their numbers (chain, draw) in the row of all chains."""
        names = ("draws", "draws_raw", "params", "labels", "log_prior", "log_likelihood")
        names = (*names, "sample_stats", "label_clarity")
        fields = {
            name: jax.tree.map(lambda leaf: leaf[chosen], self._flat(getattr(self, name)))
            for name in names
        }
        return dataclasses.replace(self, **fields, log_weights=None)

    def summary(self) -> pd.DataFrame:
        """A row per number in the sites, symmetric ones once.

        Returns
        -------
        DataFrame
            ``mean``, ``sd``, ends of the 89% interval with equal tails, bulk and tail effective
            draws and rank-normalised R-hat (Vehtari et al., 2021). Of weighted draws the
            effective number is that of the weights, and in place of R-hat stands the Pareto k of
            what makes the sd, which is too small where that is above 0.7.
        """
        return table(self._numbers(), self.log_weights, self.effective_draws)

    def _numbers(self) -> Iterator[tuple[str, np.ndarray]]:
        """Every number in the sites by its name, with its draws (chain, draw)."""
        sites = {name: self.draws[name][0, 0] for name in self.model.sites(self.params)}
        for site, index, label in coordinates(self.model, sites, self.feature_names):
            yield label, self.draws[site][(..., *index)]

    def to_arviz(
        self,
        *,
        log_likelihood: bool = True,
        posterior_predictive: bool = False,
        prior: bool = False,
        prior_predictive: bool = False,
        key: PRNGKeyArray | None = None,
    ) -> Any:
        """The posterior as the installed ArviZ understands it.

        Parameters
        ----------
        log_likelihood : bool
            Whether to add the log density of each row at each draw, the label summed out, which
            `arviz.loo` needs. It takes draws x n numbers: for 4,000 draws of 100,000 rows 3.2
            GB in float64.
        posterior_predictive : bool
            Whether to add a data set drawn at each draw: D times as many numbers.
        prior : bool
            Whether to add as many draws of the prior.
        prior_predictive : bool
            Whether to add a data set drawn at each draw of the prior.
        key : typed random key, optional
            For the three groups that are drawn.

        Returns
        -------
        arviz.InferenceData or xarray.DataTree
            InferenceData under ArviZ 0.x, a DataTree under 1.x, with the groups ``posterior``
            (relabelled), ``sample_stats``, ``observed_data`` and those asked for. Dimensions
            are ``chain, draw, component, feature, feature_bis, obs``, the last with the index of a
            data frame. Attributes: ``log_evidence`` with ``log_evidence_error`` and
            ``log_evidence_method``, where the engine estimates it. ArviZ knows no weights: weighted
            draws are resampled, see `resample`, and ``pareto_k``, ``effective_draws`` and
            ``sample_stats["log_weight"]`` say from which weights; those of rows are
            ``constant_data["sample_weight"]``, with their sum as ``total_weight``.

        Raises
        ------
        ValueError, TypeError
            Without a key where one is needed; for draws of a prior that has none.

        Examples
        --------
        ``arviz.loo(post.to_arviz())`` estimates the predictive accuracy of the mixture.
        ``post.to_arviz().to_netcdf("posterior.nc")`` writes it, ``arviz.from_netcdf`` reads it.
        """
        from jaxgmm.bayes._export import to_arviz

        return to_arviz(
            self,
            log_likelihood=log_likelihood,
            posterior_predictive=posterior_predictive,
            prior=prior,
            prior_predictive=prior_predictive,
            key=key,
        )

    def save(self, path: str | Path) -> Path:
        """Write all of it, the data too, to one file, which `jaxgmm.load` reads.

        Parameters
        ----------
        path : str or Path
            Such as ``post.npz``. A name that ends in ``.nc`` makes it a NetCDF file, of which ArviZ
            reads what `to_arviz` has.

        Returns
        -------
        Path
            The file, whole or not there.

        Raises
        ------
        TypeError
            For a distribution of one's own, and code without a name in a model of one's own.
        OSError
            Where it cannot be written.
        """
        return super().save(path)

    def _content(self, suffix: str) -> bytes:
        if suffix != ".nc":
            return super()._content(suffix)
        from jaxgmm.bayes._export import to_netcdf

        return to_netcdf(self, packed(self))

    def __repr__(self) -> str:
        history = "draws"
        if self.n_warmup is not None:
            divergences = int(np.sum(self.sample_stats.get("diverging", 0)))
            history = f"draws after {self.n_warmup} of warm-up, {divergences} divergences"
        shapes = ", ".join(f"{name} {draw.shape[2:]}" for name, draw in self.draws.items())
        lines = [
            f"Posterior of {self.model!r}",
            f"{self.method}: {self.n_chains} chains x {self.n_draws} {history}",
            f"sites: {shapes}",
        ]
        if self.log_weights is not None:
            lines.append(
                f"importance weights: {self.effective_draws:.0f} effective draws, "
                f"Pareto k {self.pareto_k:.2f}"
            )
        if self.evidence is not None:
            lines.append(
                f"log evidence: {self.evidence.log_evidence:.4f} +- {self.evidence.error:.2g} "
                f"({self.evidence.method})"
            )
        if "starts" in self.diagnostics:
            lines.append(f"starts: {self.diagnostics['starts']}")
        if self.model.n_components > 1:
            note = f"; {self.label_note}" if self.label_note else ""
            lines.append(
                f"labels: {self.label_method}, {self.ambiguous_labels:.1%} of the draws "
                f"ambiguous{note}"
            )
        return "\n  ".join(lines)

    def _repr_html_(self) -> str:
        first = itertools.islice(self._numbers(), MOST_SHOWN)
        return posterior_html(repr(self), table(first, self.log_weights, self.effective_draws))


def systematic(log_weights: np.ndarray, count: int) -> np.ndarray:
    """Indices of ``count`` draws, each as often as its share of the weights, rounded."""
    upto = np.cumsum(np.exp(log_weights.ravel()))
    return np.searchsorted(upto / upto[-1], (np.arange(count) + 0.5) / count)


def invariants(
    log_joint: np.ndarray, log_likelihood: np.ndarray, sites: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Quantities that no renaming of labels changes, for draws or for one point."""
    result = {"log_joint": log_joint, "log_likelihood": log_likelihood}
    if "weights" in sites:
        ordered = np.sort(sites["weights"], axis=-1)
        for k in range(ordered.shape[-1]):
            result[f"sorted_weights[{k}]"] = ordered[..., k]
    return result


def _within(path: Path) -> bytes | None:
    from jaxgmm.bayes._export import from_netcdf

    return from_netcdf(path)


carried(b"\x89HDF\r\n\x1a\n", _within)  # HDF5, which NetCDF is
