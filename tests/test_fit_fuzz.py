"""Fits of programs, with restarts, to data by chance: what `jg.fit` says of every end is true."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from helpers import decrement

import jaxgmm as jg

N = 30
WEIGHTS = {"pole": 0.4, "flat": 1.0, "inner": 3.0}
SPREADS = {
    "log-normal": lambda: dist.LogNormal(0.0, 1.5),
    "half-normal": lambda: dist.HalfNormal(3.0),
    "gamma pole": lambda: dist.Gamma(0.5, 0.5),
}


def _mixture(k, concentration, spread, own):
    """Normal components with their own scales or one."""

    def program(x):
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(k, concentration)))
        locs = numpyro.sample("locs", dist.Normal(0.0, 5.0).expand([k]).to_event(1))
        scale = SPREADS[spread]()
        scale = scale.expand([k]).to_event(1) if own else scale
        scale = numpyro.sample("scale", scale)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(weights))
            numpyro.sample("x", dist.Normal(locs[z], scale[z] if own else scale), obs=x)

    return program


def _counts(k, concentration, spread, own):
    """Poisson components, with structural zeros or without."""

    def program(x):
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(k, concentration)))
        rates = numpyro.sample("rates", SPREADS[spread]().expand([k]).to_event(1))
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(weights))
            rate = jnp.where(z == 0, 0.0, rates[z]) if own else rates[z]
            numpyro.sample("x", dist.Poisson(rate), obs=jnp.abs(jnp.round(x)))

    return program


def _data(seed):
    """Rows in groups, heavy tails, repeated values, one outlier, tiny and large units."""
    noise = np.random.default_rng(seed)
    kind = seed % 6
    groups = noise.normal(0, 4, 3)[noise.integers(0, 3, N)] + noise.normal(0, 0.5, N)
    return [
        groups,
        noise.standard_t(2, N),
        noise.integers(0, 3, N).astype(float),
        np.where(np.arange(N) == 0, 50.0, groups),
        1e-3 * groups,
        np.minimum(30 * np.abs(groups), 400),
    ][kind]


CASES = list(itertools.product((_mixture, _counts), (2, 3), WEIGHTS, SPREADS, (False, True)))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join([c[0].__name__, *map(str, c[1:])]))
def test_statuses_are_true(case):
    make, k, weights, spread, own = case
    program = make(k, WEIGHTS[weights], spread, own)
    for seed in range(12):
        x = _data(seed)
        model = jg.from_numpyro(program, x)
        try:
            fit = jg.fit(model, x, key=jax.random.key(seed), n_init=16, max_iter=400)
        except ValueError as refusal:
            if not any(why in str(refusal) for why in ("collapsed", "finite objective")):
                raise
            continue
        runs = fit.restarts
        assert np.all(np.isfinite(runs.log_joint[runs.converged]))
        assert set(np.unique(runs.status)) <= {
            jg.Status.CONVERGED,
            jg.Status.OUT_OF_ITERATIONS,
            jg.Status.COLLAPSED,
            jg.Status.NONFINITE_OBJECTIVE,
        }
        rises = np.diff(runs.trace, axis=1)
        assert np.nanmin(rises, initial=0) > -1e-6
        if not fit.converged and runs.converged.any():
            assert fit.status == jg.Status.OUT_OF_ITERATIONS
        for end in np.flatnonzero(runs.converged):
            params = jax.tree.map(lambda leaf, end=end: jnp.asarray(leaf[end]), runs.params)
            assert all(np.all(np.isfinite(leaf)) for leaf in params.values())
            assert float(jnp.min(params["weights"])) > 1e-10 or weights != "pole"
            # What is left is of the order of the tolerance, per row.
            assert decrement(model, params, jnp.asarray(x)[:, None]) < 1e-3, (seed, end, params)
