"""Programs, priors and data by chance: what EM says of its ends is true."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from helpers import decrement

import jaxgmm as jg
from jaxgmm._programs import _store as _programs

N, D = 20, 4
# Of each program; twelve of them are 10^4 in all.
CASES = 850

SPREADS = {
    "log-normal": lambda size, shape: dist.LogNormal(jnp.log(size), shape),
    "half-normal": lambda size, _: dist.HalfNormal(size),
    "gamma": lambda size, shape: dist.Gamma(shape, 1 / size),
}


def _labels(k, concentration):
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(k, concentration)))
    return dist.Categorical(weights)


def normals(k, spread, own):
    """Normal components with their own scales or one."""

    def program(x, concentration, width, size, shape):
        labels = _labels(k, concentration)
        locs = numpyro.sample("locs", dist.Normal(0.0, width).expand([k]).to_event(1))
        scale = SPREADS[spread](size, shape)
        scale = numpyro.sample("scale", scale.expand([k]).to_event(1) if own else scale)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", labels)
            numpyro.sample("x", dist.Normal(locs[z], scale[z] if own else scale), obs=x[:, 0])

    return program


def counts(k, spread, own):
    """Poisson components, with structural zeros or without."""

    def program(x, concentration, width, size, shape):
        labels = _labels(k, concentration)
        rates = numpyro.sample("rates", SPREADS[spread](size, shape).expand([k]).to_event(1))
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", labels)
            rate = jnp.where(z == 0, 0.0, rates[z]) if own else rates[z]
            numpyro.sample("x", dist.Poisson(rate), obs=_whole(x[:, 0]))

    return program


def items(k, spread, own):
    """Latent classes."""

    def program(x, concentration, width, size, shape):
        labels = _labels(k, concentration)
        chance = dist.Beta(shape, shape if own else 1.0)
        probs = numpyro.sample("probs", chance.expand([k, D]).to_event(2))
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", labels)
            numpyro.sample("x", dist.Bernoulli(probs[z]).to_event(1), obs=(x > 0).astype(float))

    return program


def lines(k, spread, own):
    """Regressions of counts or of numbers."""

    def program(x, concentration, width, size, shape):
        labels = _labels(k, concentration)
        slopes = numpyro.sample("slopes", dist.Normal(0.0, width).expand([k, 2]).to_event(2))
        noise = numpyro.sample("noise", SPREADS[spread](size, shape))
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", labels)
            mean = slopes[z, 0] + slopes[z, 1] * jnp.tanh(x[:, 1])
            if own:
                numpyro.sample("x", dist.Poisson(noise * jnp.exp(mean)), obs=_whole(x[:, 0]))
            else:
                numpyro.sample("x", dist.Normal(mean, noise), obs=x[:, 0])

    return program


def _whole(x):
    return jnp.minimum(jnp.abs(jnp.round(x)), 1e6)


PROGRAMS = [
    (normals, 2, "log-normal", True),
    (normals, 2, "gamma", True),
    (normals, 3, "half-normal", False),
    (normals, 3, "log-normal", False),
    (counts, 2, "gamma", True),
    (counts, 2, "half-normal", True),
    (counts, 3, "log-normal", False),
    (counts, 3, "gamma", False),
    (items, 2, "gamma", True),
    (items, 3, "gamma", False),
    (lines, 2, "half-normal", False),
    (lines, 2, "log-normal", True),
]


def _data(seed):
    """Groups, tails, ties, an outlier, other units, counts, one value, nothing at all to find."""
    noise = np.random.default_rng(seed)
    groups = noise.normal(0, 4, (3, D))[noise.integers(0, 3, N)] + noise.normal(0, 0.5, (N, D))
    return [
        groups,
        noise.standard_t(2, (N, D)),
        noise.integers(0, 3, (N, D)).astype(float),
        np.where(np.arange(N)[:, None] == 0, 50.0, groups),
        1e-3 * groups,
        1e4 * groups,
        np.minimum(30 * np.abs(groups), 400),
        np.where(noise.random((N, D)) < 0.5, 0.0, noise.poisson(4.0, (N, D))),
        np.full((N, D), float(noise.integers(0, 3))),
        noise.normal(0, 1, (N, D)),
    ][seed % 10]


def _priors(seed):
    """Of every width, with poles and without."""
    noise = np.random.default_rng(10**6 + seed)
    ranges = {"concentration": (0.2, 5), "width": (0.3, 30), "size": (0.05, 20), "shape": (0.2, 4)}
    return {
        name: np.exp(noise.uniform(*np.log(ends)), dtype=float) for name, ends in ranges.items()
    }


@_programs.program()
def _ends(model, cases):
    """Of one program under many priors, on many data."""

    def one(case):
        x, priors, key = case
        drawn = dataclasses.replace(model, arrays=priors, example=x)
        run = jg.em.run(drawn, x, drawn.draw_prior(key), max_iter=150)
        statistics, _ = drawn.e_step(run.params, x)
        next_step = lambda share: drawn.m_step(statistics, run.params, share)
        gone = jax.vmap(lambda share: drawn.collapsed(next_step(share)))(2.0 ** -jnp.arange(12))
        return run, decrement(drawn, run.params, x), jnp.any(gone)

    return jax.lax.map(one, cases, batch_size=64)


@pytest.mark.slow
@pytest.mark.parametrize(
    "program", PROGRAMS, ids=lambda p: "-".join([p[0].__name__, *map(str, p[1:])])
)
def test_statuses_are_true(program):
    make, k, spread, own = program
    data = np.stack([_data(seed) for seed in range(CASES)])
    priors = jax.tree.map(lambda *each: np.stack(each), *map(_priors, range(CASES)))
    first = {name: values[0] for name, values in priors.items()}
    model = jg.from_numpyro(make(k, spread, own), data[0], **jax.tree.map(np.asarray, first))
    keys = jax.random.split(jax.random.key(0), CASES)
    run, left, gone = jax.tree.map(np.asarray, _ends(model, (data, priors, keys)))

    converged, collapsed = (run.status == s for s in (jg.Status.CONVERGED, jg.Status.COLLAPSED))
    assert np.sum(converged) > 100
    # Nothing that is no number is called converged.
    leaves = [np.reshape(leaf, (CASES, -1)) for leaf in run.params.values()]
    finite = np.all([np.all(np.isfinite(leaf), axis=1) for leaf in leaves], axis=0)
    assert np.all(finite & np.isfinite(run.log_joint), where=converged)
    # What is left to climb is of the order of the tolerance per row; along a ridge, where EM hardly
    # moves, it may be more than its steps say.
    settled = left[converged & ~run.spurious]
    assert np.mean(settled < 1e-3) > 0.995
    assert np.max(settled) < 0.01
    # No step falls by more than rounding.
    rises = np.diff(run.trace, axis=1) / (1 + np.abs(run.log_joint[:, None]))
    assert np.nanmin(rises) > -1e-9
    # Who collapsed was a step from a pole, or next to that of the weights.
    pole, least = priors["concentration"] < 1, np.min(run.params["weights"], axis=1)
    assert np.all(gone | (pole & (least < 1e-6)), where=collapsed)
    assert np.all(least > 1e-10, where=converged & pole)
    if make in (counts, items):  # whose rows have probabilities
        bounded = ~pole & ((priors["shape"] >= 1) | (spread != "gamma"))
        assert not np.any(collapsed & bounded)
