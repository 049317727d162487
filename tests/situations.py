"""Staged situations: a fit and a posterior of which the truth is known, and what is to be said.

``python tests/situations.py [name ...]`` prints the verdict on them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import numpyro.distributions as dist

import jaxgmm as jg
from jaxgmm.bayes._labelling import all_sites, relabelled

# -- data ----------------------------------------------------------------------------------

# One shape of data and one model serve most of them: few compilations.
ROWS = 150


class Data(NamedTuple):
    x: np.ndarray
    labels: np.ndarray  # whose row is whose


def clusters(centres, n=ROWS, dtype="float64", seed=5):
    """Unit normals around the centres (K, D), as many rows of each."""
    centres = np.asarray(centres, float)
    labels = np.arange(n) % len(centres)
    x = np.random.default_rng(seed).normal(size=(n, centres.shape[1])) + centres[labels]
    return Data(x.astype(dtype), labels)


def two(apart, **options):
    """Two clusters, ``apart`` standard deviations apart."""
    return clusters([[-apart / 2, 0], [apart / 2, 0]], **options)


def three(shift=0.0, apart=6.0, n=ROWS, dtype="float64", seed=5):
    """Clusters at -apart, apart and ``shift``, each other's mirror images where that is 0.

    Two components have two modes: the middle goes with the left cluster or with the right one.
    """
    rng, mirror = np.random.default_rng(seed), np.array([-1, 1])
    left, half = rng.normal(size=(n // 3, 2)) - [apart, 0], rng.normal(size=(n // 6, 2))
    middle = np.concatenate([half, half * mirror]) + [shift, 0]
    x = np.concatenate([left, left * mirror, middle])
    return Data(x.astype(dtype), np.repeat([0, 1, 2, 2], [n // 3, n // 3, n // 6, n // 6]))


def lopsided(n=ROWS, **options):
    """`three` with the middle a little to the left: that mode holds three quarters."""
    return three(-7.5 / n, n=n, **options)


def with_left(data):
    return np.array([0, 1, 0])[data.labels]


def with_right(data):
    return np.array([0, 1, 1])[data.labels]


# -- models, fits and draws ------------------------------------------------------------------

PRIOR = jg.ConjugatePrior(
    concentration=2.0, mean=[0.0, 0.0], mean_precision=0.1, dof=5.0, scale=np.eye(2)
)


def changed(**changes):
    """`PRIOR` with other hyper-parameters."""
    return dataclasses.replace(PRIOR, **changes)


def mixture(k=2, structure="full", **changes):
    return jg.Mixture(jg.Gaussian(structure), k, prior=changed(**changes))


def fit_from(labels, data, model=None, **options):
    """EM from partitions of the rows: (n,) labels, or a stack of them."""
    model = mixture() if model is None else model
    return jg.fit(model, data.x, start=np.eye(model.n_components)[labels], **options)


def sampled(fit, data, method="gibbs", **options):
    options = {"n_draws": 1000, "n_warmup": 200, "progress": False} | options
    return jg.sample(fit.model, data.x, key=jax.random.key(1), start=fit, method=method, **options)


def both(data, model=None, **options):
    """The fit that the rows' own labels lead to, and draws around it."""
    fit = fit_from(data.labels, data, model)
    return fit, sampled(fit, data, **options)


# -- the situations --------------------------------------------------------------------------


class Situation(NamedTuple):
    """What is staged, what is true, and what the verdict has to say of it.

    ``decided`` is None where a call is to be refused; ``says`` must stand in the conclusion or in
    the meaning of a line that is not ok, or in the refusal; ``not_said`` in neither.
    """

    stage: Callable
    staged: str
    truth: str
    decided: bool | None
    says: tuple[str, ...]
    not_said: tuple[str, ...] = ()
    slow: bool = False


AGREE = "so the two agree"
SITUATIONS: dict[str, Situation] = {}


def situation(staged, truth, decided, *says, not_said=None, slow=False):
    """Add one; that the two agree is not to be said unless it is in ``says``."""
    if not_said is None:
        not_said = () if AGREE in says else (AGREE,)

    def add(stage):
        stage = functools.cache(stage)
        SITUATIONS[stage.__name__] = Situation(
            stage, staged, truth, decided, says, tuple(not_said), slow
        )
        return stage

    return add


@situation(
    "EM stopped three iterations after a start beside the mode",
    "the distance, by the gradient and curvature that SciPy finds there",
    True,
    "EM stopped before the mode",
    "posterior sd away in the local quadratic",
)
def stopped_early(**options):
    data = two(5.0, **options)
    return fit_from(_mislabelled(data), data, max_iter=3), both(data)[1]


def _mislabelled(data):
    """A tenth of the rows in the other cluster."""
    return np.where(np.arange(len(data.x)) % 10, data.labels, 1 - data.labels)


@situation(
    "EM stopped one iteration after that start",
    "the density still rises in one direction, by SciPy: no local quadratic tells how far it is",
    True,
    "EM stopped before the mode",
    "still rises",
    not_said=(AGREE, "sd away"),
    slow=True,
)
def stopped_far(**options):
    data = two(5.0, **options)
    return fit_from(_mislabelled(data), data, max_iter=1), both(data)[1]


@situation(
    "both components equal",
    "a saddle: the density rises in as many directions as SciPy counts",
    True,
    "EM stands at a saddle, not at a mode",
    "rises in three directions",
    slow=True,
)
def saddle(**options):
    data = two(5.0, **options)
    even = np.full((len(data.x), 2), 0.5, data.x.dtype)
    return jg.fit(mixture(), data.x, start=even, max_iter=0), both(data)[1]


@situation(
    "a minor mode as the start, draws from the highest one",
    "a minor mode, by as much as SciPy finds it lower; no draw of the quarter that it holds",
    False,
    "EM's answer is a minor mode of this posterior",
    "no draw reached EM's optimum",
)
def minor_mode(**options):
    data = lopsided(**options)
    best = fit_from(with_left(data), data)
    return fit_from(with_right(data), data), sampled(best, data)


@situation(
    "a minor mode as the only start, of EM and of the chains",
    "a quarter of the posterior, which nothing but another start could tell",
    True,
    "so the two agree as far as one start of EM can tell",
    "nor that the draws have seen every mode",
    not_said=("so the two agree:",),
    slow=True,
)
def minor_mode_alone(**options):
    data = lopsided(**options)
    fit = fit_from(with_right(data), data)
    return fit, sampled(fit, data)


@situation(
    "all chains in a minor mode, the fit in the highest one",
    "three quarters of the posterior lie in the fit's basin, by each mode's own evidence",
    False,
    "no draw reached EM's optimum",
    "by its Laplace evidence: the chains did not move between modes",
    not_said=(AGREE, "the highest mode is not where the mass is"),
)
def stuck_below(**options):
    data = lopsided(**options)
    fit = fit_from(np.stack([with_left(data), with_right(data)]), data)
    return fit, minor_mode_alone(**options)[1]


@situation(
    "all chains in the fit's basin, another one known",
    "a quarter of the posterior lies elsewhere, by each mode's own evidence",
    False,
    "no draw reached the optimum of 1 restart(s)",
    "by its Laplace evidence: the chains did not move between modes",
    slow=True,
)
def stuck_above(**options):
    return stuck_below(**options)[0], minor_mode(**options)[1]


@situation(
    "two mirrored modes, two chains in each that never cross",
    "half of the posterior in each, by symmetry",
    False,
    "No verdict on the posterior",
    "More draws are no cure for chains in separated modes",
)
def mirrored(**options):
    data = three(**options)
    fit = fit_from(np.stack([with_left(data), with_right(data)]), data)
    return fit, sampled(fit, data)


@situation(
    "four components on three clusters, NUTS after 30 iterations of warm-up",
    "600 draws, fewer effective ones: no verdict",
    False,
    "No verdict on the posterior: the sampler did not converge",
    slow=True,
)
def unmixed_nuts(**options):
    data, model = three(**options), mixture(4)
    fit = jg.fit(model, data.x, key=jax.random.key(0))
    return fit, sampled(fit, data, "nuts", n_draws=150, n_warmup=30)


@situation(
    "four components on three clusters, Gibbs",
    "several optima with a mass of their own; chains that do not move between them",
    False,
    "No verdict on the posterior",
    slow=True,
)
def unmixed_gibbs(**options):
    data = three(**options)
    fit = unmixed_nuts(**options)[0]
    return fit, sampled(fit, data)


@situation(
    "a posterior under another Dirichlet prior (20 in place of 2)",
    "different targets",
    False,
    "different targets",
    "Sample fit.model",
)
def another_prior(**options):
    data = two(6.0, **options)
    return both(data)[0], both(data, mixture(concentration=20.0))[1]


@situation("a posterior of other data", "refused", None, "are of other data or weights", slow=True)
def other_data(**options):
    return both(two(6.0, **options))[0], both(two(5.0, **options))[1]


@situation(
    "a posterior of the same rows in another order", "refused", None, "of other data", slow=True
)
def permuted_rows(**options):
    data = two(6.0, **options)
    turned = Data(data.x[::-1].copy(), data.labels[::-1])
    return both(data)[0], both(turned)[1]


@situation(
    "five components on two clusters, Dirichlet 0.1",
    "the density of the weights has no mode inside",
    None,
    "concentration",
    slow=True,
)
def sparse(**options):
    data = two(6.0, **options)
    return jg.fit(mixture(5, concentration=0.1), data.x, key=jax.random.key(0)), None


@situation(
    "five components on two clusters, Dirichlet 1",
    "many optima, none of which is the posterior",
    False,
    "No verdict on the posterior",
    slow=True,
)
def too_many(**options):
    data, model = two(6.0, **options), mixture(5, concentration=1.0)
    fit = jg.fit(model, data.x, key=jax.random.key(0), n_init=32)
    return fit, sampled(fit, data)


@situation(
    "a prior mean forty sd away with the weight of 200 rows",
    "prior and data in conflict: the posterior mean is the prior's and the data's average",
    True,
    "in conflict with the data",
)
def conflict(**options):
    return both(two(6.0, **options), mixture(mean=[40.0, 0.0], mean_precision=200.0))


@situation(
    "the same prior, one component (not seen: only the line on the sandwich warns)",
    "a fitted sd of 30 for data of sd 1, in closed form: prior and data in conflict",
    True,
    "rows vary otherwise than the model says",
    not_said=(),
    slow=True,
)
def conflict_exact(**options):
    data = single(**options)
    return both(data, mixture(1, mean=[40.0, 0.0], mean_precision=200.0))


@situation(
    "nearly equal means",
    "one weight is 0.8 by one rule of labels and 0.5 by another",
    False,
    "No verdict on the posterior",
    "Labels are ambiguous",
    slow=True,
)
def equal_means(**options):
    data = two(0.3, **options)
    starts = np.random.default_rng(0).dirichlet([1, 1], size=(16, len(data.x)))
    fit = jg.fit(mixture(), data.x, start=starts.astype(data.x.dtype))
    return fit, sampled(fit, data)


def spurious_rows(**options):
    """Three rows next to one another, and who is who if they are a component."""
    data = two(6.0, **options)
    x, few = data.x.copy(), np.array([3, 5, 7])
    x[few] = [2.0, 2.0] + 1e-3 * np.random.default_rng(0).normal(size=(3, 2))
    return Data(x, data.labels), np.isin(np.arange(len(x)), few).astype(int)


@situation(
    "draws around a spurious maximum of the likelihood",
    "a posterior under flat priors is improper: refused",
    None,
    "prior",
    slow=True,
)
def spurious_likelihood(**options):
    data, few = spurious_rows(**options)
    fit = fit_from(np.stack([data.labels, few]), data, jg.Mixture(jg.Gaussian("full"), 2))
    return fit, sampled(fit, data)


@situation(
    "the same start under a weak prior, draws from the highest mode",
    "a minor mode",
    True,
    "EM's answer is a minor mode of this posterior",
)
def spurious(**options):
    data, few = spurious_rows(**options)
    weak = mixture(scale=1e-3 * np.eye(2))
    return fit_from(few, data, weak), both(data, weak)[1]


def single(n=ROWS, dtype="float64", seed=7):
    """A single cluster."""
    return clusters([[0.0, 0.0]], n, dtype, seed)


@situation(
    "t with two degrees of freedom, fitted by Gaussians",
    "tails heavier than the model's",
    True,
    "heavier tails than the model",
    not_said=(),
    slow=True,
)
def heavy_tails(**options):
    data = two(12.0, **options)
    rng = np.random.default_rng(3)
    noise = rng.standard_t(2, size=data.x.shape)
    x = noise + np.array([[-6, 0], [6, 0]])[data.labels]
    return both(Data(x.astype(data.x.dtype), data.labels))


@situation(
    "one gross outlier, row 17 thirty sd away",
    "one row decides",
    True,
    "row 17",
    not_said=(),
)
def outlier(**options):
    data = two(6.0, **options)
    x = data.x.copy()
    x[17] = [0.0, 30.0]
    return both(Data(x, data.labels))


@situation(
    "twelve rows, one component",
    "sd 1.98 times the standard error in closed form: skewed",
    True,
    "not that its standard errors are the posterior's spread",
    slow=True,
)
def twelve_rows(**options):
    return both(single(**{"n": 12, **options}), mixture(1))


@situation(
    "twelve rows, two components",
    "skewed: no standard error is the posterior's spread",
    True,
    "standard errors",
    "not that its standard errors are the posterior's spread",
    slow=True,
)
def twelve_rows_two(**options):
    return both(two(4.0, **{"n": 12, **options}))


@situation(
    "VB where components overlap",
    "its spread is too small, held against Gibbs",
    False,
    "the approximation cannot be trusted",
    slow=True,
)
def vb_overlapping(**options):
    return both(two(2.5, **options), method="vb")


@situation(
    "VB where they do not",
    "right",
    True,
    AGREE,
    "they cannot show modes that it does not reach",
    slow=True,
)
def vb_apart(**options):
    return both(two(6.0, **options), method="vb")


@situation(
    "SVI after 20 steps where components overlap",
    "far from its end: the bound still rises by nats",
    False,
    "the approximation cannot be trusted",
    slow=True,
)
def svi_stopped(**options):
    return both(two(2.5, **options), method="svi", n_steps=20)


@situation(
    "SVI after 20 steps where they do not",
    "its noise hides whether the bound still rises; its weights make up for that",
    True,
    AGREE,
    "cannot tell",
    slow=True,
)
def svi_noisy(**options):
    return both(two(6.0, **options), method="svi", n_steps=20)


@situation(
    "labels that switch at every other draw, as drawn",
    "numbers of single components mean nothing",
    True,
    "Labels are ambiguous",
    not_said=(AGREE, "not that its standard errors are the posterior's spread"),
)
def switching(**options):
    fit, post = both(two(6.0, **options))
    order = np.where(np.arange(post.n_draws)[:, None] % 2, [1, 0], [0, 1])
    order = np.broadcast_to(order, post.labels.shape)
    params = relabelled(post.model, post.params, order)
    drawn = {name: np.asarray(site) for name, site in all_sites(post.model, params).items()}
    as_drawn = np.broadcast_to([0, 1], post.labels.shape)
    return fit, dataclasses.replace(
        post, params=jax.tree.map(np.asarray, params), draws=drawn, draws_raw=drawn, labels=as_drawn
    )


@situation(
    "the same draws, relabelled",
    "labels are clear",
    True,
    AGREE,
    not_said=("ambiguous",),
    slow=True,
)
def switching_relabelled(**options):
    fit, post = switching(**options)
    return fit, post.relabel()


@situation(
    "one component under a normal-inverse-Wishart prior",
    "an exact t, exact evidence, standard errors within eight per cent",
    True,
    AGREE,
    "EM's estimates, standard errors",
    not_said=("not that its",),
    slow=True,
)
def one_component(**options):
    return both(single(**options), mixture(1))


@situation(
    "six rows of eight columns, one component, a proper prior",
    "sd 8.5 times the standard error in closed form",
    True,
    "not that its standard errors are the posterior's spread",
    "not that predictions from it are the posterior's",
    slow=True,
)
def fewer_rows_than_columns(n=6, dtype="float64"):
    prior = jg.ConjugatePrior(mean=np.zeros(8), mean_precision=0.1, dof=10.0, scale=np.eye(8))
    return both(
        clusters(np.zeros((1, 8)), n, dtype), jg.Mixture(jg.Gaussian("full"), 1, prior=prior)
    )


@functools.cache
def weighted(k=1, n=ROWS, dtype="float64", copies=3):
    """Rows with ``copies`` as their weights, and the rows repeated: (fit, posterior) of each."""
    few = two(5.0, n=n // copies, dtype=dtype, seed=9)
    weight = np.full(len(few.x), float(copies), dtype)
    labels = few.labels % k
    many = Data(np.repeat(few.x, copies, axis=0), np.repeat(labels, copies))
    fit = fit_from(labels, few, mixture(k), sample_weight=weight)
    return (fit, sampled(fit, few, sample_weight=weight)), both(many, mixture(k))


@situation(
    "every weight 3",
    "every number is that of tripled rows",
    True,
    AGREE,
    slow=True,
)
def weights(**options):
    return weighted(**options)[0]


@situation(
    "four clusters, three components",
    "one component covers two clusters",
    True,
    "not that the model is right",
    not_said=(),
    slow=True,
)
def one_too_few(**options):
    data = clusters([[-8, 0], [0, 0], [0, 4], [8, 0]], **options)
    glued = np.array([[0, 1, 1, 2], [0, 0, 1, 2], [0, 1, 2, 2]])[:, data.labels]
    fit = fit_from(glued, data, mixture(3))
    return fit, sampled(fit, data)


@situation("tied covariances, NUTS", "clear clusters: agreement", True, AGREE, slow=True)
def tied(**options):
    return both(two(6.0, **options), mixture(structure="tied"), method="nuts", n_draws=500)


@situation(
    "a curved structure (VEV) on round clusters, NUTS",
    "round clusters have no orientation: chains are slow to turn their axes round",
    False,
    "the sampler did not converge",
    slow=True,
)
def curved(**options):
    return both(two(6.0, **options), mixture(structure="VEV"), method="nuts", n_draws=1000)


@situation(
    "a dictionary of priors: normal means, half-normal scales, LKJ correlations",
    "the density is unbounded where a component shrinks onto a row: a local mode",
    True,
    "The joint density is unbounded elsewhere, so this is an interior local mode",
    not_said=(),
    slow=True,
)
def dictionary(**options):
    prior = {
        "weights": dist.Dirichlet(np.full(2, 2.0)),
        "means": dist.Normal(0.0, 10.0),
        "scales": dist.HalfNormal(3.0),
        "correlations": dist.LKJ(2, 1.5),
    }
    model = jg.Mixture(jg.Gaussian("full"), 2, prior=prior)
    return both(two(6.0, **options), model, method="nuts", n_draws=500)


# -- verdicts, and the table of the documentation ----------------------------------------------


@functools.cache
def verdict(name, **options):
    return jg.compare(*SITUATIONS[name].stage(**options))


def words(found):
    """The conclusion, and what the lines say that are not ok."""
    lines = found.checks[found.checks["verdict"].isin(["warning", "fail"])]
    return "\n".join([found.summary, *lines["meaning"]])


def table():
    """A row per situation, as docs/situations.md has it."""
    lines = ["| situation | truth | verdict | in its words |", "|---|---|---|---|"]
    kinds = {None: "refused", False: "no verdict", True: "decided"}
    for one in SITUATIONS.values():
        said = "; ".join(f"“{phrase}”" for phrase in one.says)
        lines.append(f"| {one.staged} | {one.truth} | {kinds[one.decided]} | {said} |")
    return "\n".join(lines)


if __name__ == "__main__":
    import sys

    for name in sys.argv[1:] or SITUATIONS:
        try:
            found = verdict(name)
            print(f"\n== {name}: decided {found.decided}\n{words(found)}", flush=True)
        except ValueError as refusal:
            print(f"\n== {name}: refused\n{refusal}", flush=True)
