"""One fit and posterior of Old Faithful that many tests look at."""

import dataclasses
import functools

import jax

import jaxgmm as jg

FAITHFUL = jg.datasets.load("faithful").x


@functools.cache
def old_faithful(dtype="float64"):
    x = FAITHFUL.astype(dtype)
    model = jg.Mixture(jg.Gaussian("full"), 2, prior="fraley-raftery")
    fit = jg.fit(model, x, key=jax.random.key(0), n_init=4)
    return fit, jg.sample(fit.model, x, key=jax.random.key(1), start=fit, progress=False)


def first_draws(post, n):
    """The posterior as it would be had the sampler stopped after ``n`` draws."""
    cut = lambda tree: jax.tree.map(lambda leaf: leaf[:, :n], tree)
    names = ("draws", "draws_raw", "params", "labels", "log_prior", "log_likelihood")
    names = (*names, "sample_stats", "label_margins")
    fields = {name: cut(getattr(post, name)) for name in names}
    return dataclasses.replace(post, **fields)
