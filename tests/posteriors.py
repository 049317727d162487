"""One fit and posterior of Old Faithful that many tests look at."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxgmm as jg
from jaxgmm.bayes import _labelling

FAITHFUL = jg.datasets.load("faithful").x


@functools.cache
def old_faithful(dtype="float64"):
    x = FAITHFUL.astype(dtype)
    model = jg.Mixture(jg.Gaussian("full"), 2, prior="fraley-raftery")
    fit = jg.fit(model, x, key=jax.random.key(0), n_init=4)
    return fit, jg.sample(fit.model, x, key=jax.random.key(1), start=fit, progress=False)


@functools.cache
def agreement():
    """The verdict on Old Faithful, where mode and posterior agree."""
    return jg.compare(*old_faithful())


def written(fit, params, x, method="hand", **fields):
    """Draws that are written down, ``params`` (chain, draw, ...), and not sampled."""
    heights = lambda p: (fit.model.log_prior(p), fit.model.log_likelihood(p, x))
    log_prior, log_likelihood = map(np.asarray, jax.jit(jax.vmap(jax.vmap(heights)))(params))
    sites = {name: np.asarray(v) for name, v in fit.model.sites(params).items()}
    shape = log_prior.shape
    known = {
        "model": fit.model,
        "method": method,
        "x": jnp.asarray(x),
        "sample_weight": None,
        "draws": sites,
        "draws_raw": sites,
        "params": params,
        "labels": np.tile(np.arange(fit.model.n_components), (*shape, 1)),
        "log_prior": log_prior,
        "log_likelihood": log_likelihood,
        "sample_stats": {},
        "n_warmup": 0,
        "fingerprint": fit.fingerprint,
        "feature_names": fit.feature_names,
    }
    return jg.Posterior(**known | fields)


def first_draws(post, n):
    """The posterior as it would be had the sampler stopped after ``n`` draws."""
    cut = lambda tree: jax.tree.map(lambda leaf: leaf[:, :n], tree)
    names = ("draws", "draws_raw", "params", "labels", "log_prior", "log_likelihood")
    names = (*names, "sample_stats", "label_clarity")
    fields = {name: cut(getattr(post, name)) for name in names}
    return dataclasses.replace(post, **fields)


@functools.cache
def by_hand(gap=1.0, swap=0.5, n_draws=500, seed=0):
    """Draws of two components of Old Faithful, written down and not sampled, and their shuffle.

    ``gap`` is their distance in units of that of the data; each draw swaps their names with
    probability ``swap``.
    """
    prior = jg.ConjugatePrior(mean=[3.5, 70.0], mean_precision=0.1, dof=4.0, scale=20.0)
    model = jg.Mixture(jg.Gaussian("spherical"), 2, prior=prior).resolve(FAITHFUL)
    rng = np.random.default_rng(seed)
    centre, half = np.array([3.2, 67.0]), gap * np.array([1.1, 12.5])
    means = centre + np.array([[-1], [1]]) * half + 0.1 * rng.normal(size=(2, n_draws, 2, 2))
    weights = rng.dirichlet([40, 60], size=(2, n_draws))
    if gap == 0:  # nothing tells the two apart
        weights = rng.dirichlet([50, 50], size=(2, n_draws))
    variances = 35.0 * np.exp(0.1 * rng.normal(size=(2, n_draws, 2)))
    clear = jg.GaussianParams(weights, means, variances, "spherical")
    clear = jax.tree.map(jnp.asarray, clear)
    shuffle = np.where(rng.random((2, n_draws, 1)) < swap, [1, 0], [0, 1])
    raw = _labelling.relabelled(model, clear, shuffle)
    height = jax.vmap(jax.vmap(lambda p: model.log_likelihood(p, FAITHFUL)))(raw)
    log_prior = jax.vmap(jax.vmap(model.log_prior))(raw)
    sites = {name: np.asarray(v) for name, v in _labelling.all_sites(model, raw).items()}
    return shuffle, jg.Posterior(
        model=model,
        method="hand",
        x=jnp.asarray(FAITHFUL),
        sample_weight=None,
        draws=sites,
        draws_raw=sites,
        params=jax.tree.map(np.asarray, raw),
        labels=np.tile(np.arange(2), (2, n_draws, 1)),
        log_prior=np.asarray(log_prior),
        log_likelihood=np.asarray(height),
        sample_stats={},
        n_warmup=0,
        fingerprint="",
        feature_names=("x0", "x1"),
    )
