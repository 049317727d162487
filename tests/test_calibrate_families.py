"""Calibration of every family whose rows are more than places: covariates, repeats, holes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest

import jaxgmm as jg

F = jg.families
KEY = jax.random.key(11)
N = 15
_rng = np.random.default_rng(4)
Z = pd.DataFrame({"z": np.linspace(-1.5, 1.5, N)})
LINES = jg.ConjugatePrior(mean=[0.5, 1.0], mean_precision=0.5, dof=6.0, scale=4.0)
PLACES = jg.ConjugatePrior(
    mean=[1.0, 0.5], mean_precision=0.5, dof=9.0, scale=[[3.0, 1.0], [1.0, 2.0]]
)
EVEN = dist.Dirichlet(jnp.full(2, 2.0))
# A fifth of the values, of no row all.
HOLES = np.zeros((N, 2), bool)
HOLES[::4, 0] = HOLES[1::5, 1] = True
HOLES &= ~HOLES.all(axis=1, keepdims=True)
# Three repeats of a covariate and its response, some absent.
WIDE = pd.DataFrame({f"z[{r}]": _rng.normal(size=N) for r in range(3)})
WIDE.loc[::3, "z[2]"] = np.nan
WIDE.loc[::6, "z[1]"] = np.nan
COUNTS = np.where(np.isnan(WIDE), np.nan, 1.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Punched(jg.Mixture):
    """Rows of which the same values are missing in every data set."""

    missing: Any = None

    def sample(self, params, key, n, *, given=None):
        return jnp.where(self.missing, jnp.nan, super().sample(params, key, n))


def punched(family, prior):
    rows = np.where(HOLES, np.nan, np.tile([[0.0, 1.0], [1.0, 0.0]], (N, 1))[:N])
    return Punched(family, 2, prior=prior, missing=HOLES).resolve(rows)


def line(name):
    return getattr(F, name)(on=["z"], response="y")


def of_sites(family, **prior):
    return jg.Mixture(family, 2, prior={"weights": EVEN, **prior})


def mixed():
    prior = {"y": jg.ConjugatePrior(mean=[1.0], mean_precision=0.5, dof=6.0, scale=[[3.0]])}
    family = F.Product({"y": jg.Gaussian(), ("a", "b"): F.Bernoulli()})
    rows = pd.DataFrame({"y": [0.0, 1.0], "a": [0.0, 1.0], "b": [1.0, 0.0]})
    return of_sites(family, **prior, **{"a:b.probs": dist.Beta(1.5, 2.0)}).resolve(rows)


def gated():
    prior = {"gates": dist.Normal(0, 1.5), "rates": dist.Gamma(3.0, 0.5)}
    return jg.Mixture(F.Poisson(), 2, prior=prior, gates=["z"]).resolve(Z.assign(visits=1.0))


def factors(name):
    prior = jg.ConjugatePrior(mean=np.ones(3), mean_precision=0.5, dof=8.0, scale=4.0)
    return jg.Mixture(getattr(F, name)(1), 1, prior=prior)


def heavy():
    prior = {
        "components": PLACES,
        "dof": dist.Gamma(4.0, 0.5),
        "weights": dist.Dirichlet(np.ones(1)),
    }
    return jg.Mixture(F.StudentT(), 1, prior=prior).resolve(np.eye(2))


# By name: the model, what it is given, the sampler, and data sets.
CASES = {
    "lines": (lambda: jg.Mixture(line("LinearRegression"), 2, prior=LINES), Z, "gibbs", 200),
    "answers": (
        lambda: of_sites(line("LogisticRegression"), coefficients=dist.Normal(0, 1.5)),
        Z, "nuts", 60,
    ),
    "counts": (
        lambda: of_sites(line("PoissonRegression"), coefficients=dist.Normal(0.5, 0.7)),
        Z, "nuts", 60,
    ),
    "gates": (gated, Z, "nuts", 60),
    "repeats": (
        lambda: jg.Mixture(F.Repeated(line("LinearRegression"), 3), 2, prior=LINES),
        WIDE, "gibbs", 200,
    ),
    "repeated counts": (
        lambda: of_sites(F.Repeated(F.Poisson(), 3), rates=dist.Gamma(2.0, 0.5)).resolve(COUNTS),
        COUNTS, "gibbs", 200,
    ),
    "factors": (lambda: factors("FactorAnalyser"), None, "nuts", 60),
    "ppca": (lambda: factors("PPCA"), None, "nuts", 60),
    "t": (heavy, None, "nuts", 60),
    "background": (
        lambda: jg.Mixture(
            jg.Gaussian(), 2, prior=PLACES, background=jg.Uniform([-5.0, -5.0], [7.0, 6.0])
        ),
        None, "gibbs", 200,
    ),
    "product": (mixed, None, "gibbs", 200),
    "holes": (lambda: punched(jg.Gaussian(), PLACES), None, "gibbs", 200),
    "holes in answers": (
        lambda: punched(F.Bernoulli(), {"weights": EVEN, "probs": dist.Beta(1.5, 2.0)}),
        None, "gibbs", 200,
    ),
}  # fmt: skip


@pytest.mark.turn
@pytest.mark.parametrize("name", CASES)
def test_samplers_of_every_family_are_right(name):
    make, given, method, n_datasets = CASES[name]
    found = jg.calibrate(
        make(), n=N, given=given, method=method, n_datasets=n_datasets, key=KEY, n_draws=20,
        thinning=6, n_init=2, level=0.999, progress=False,
    )  # fmt: skip
    assert found.uniform, found
    assert "log likelihood" in found.table.index
    assert found.ends["ranked"].sum() >= 0.9 * n_datasets


def exact(prior):
    """The posterior of one line, under a prior of one's own."""

    def kernel(model, x, params, key):
        known = dataclasses.replace(model, prior=prior).resolve(x)
        working = known.standardise(x)
        after = working.updated(working.statistics(jnp.ones((len(x), 1), x.dtype), x))
        return working.to_user(after.draw_prior(key))

    return kernel


@pytest.mark.turn
def test_a_sampler_of_another_prior_of_lines_is_caught():
    model = jg.Mixture(line("LinearRegression"), 1, prior=LINES)
    settings = {"n": N, "given": Z, "n_datasets": 400, "n_draws": 49, "thinning": 1, "key": KEY}
    made = lambda prior: jg.calibrate(model, method=exact(prior), progress=False, **settings)
    assert made(LINES).uniform
    wrong = made(dataclasses.replace(LINES, scale=12.0, mean_precision=2.0))
    assert "average variances" in wrong.table.index[~wrong.table["uniform"]]
