"""Families whose evidence is a sum over few assignments: every exact engine finds it."""

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from enumeration import summed
from scipy import stats
from scipy.special import gammaln

import jaxgmm as jg

F = jg.families
K, CONCENTRATION, SIGMAS = 2, 1.5, 4.0
DOSE = np.array([-1.0, -0.4, 0.1, 0.5, 0.9, 1.6, 2.0])
LINES = np.column_stack([DOSE, [0.2, 1.9, 0.6, 3.1, 1.2, 4.4, 1.7]])
LINE = jg.ConjugatePrior(
    concentration=CONCENTRATION,
    mean=[1.0, 0.5],
    mean_precision=[[0.5, 0.1], [0.1, 0.4]],
    dof=4.0,
    scale=2.0,
)
COUNTS = np.array([[0, 2], [1, 0], [6, 4], [3, 7], [0, 1], [5, np.nan]])
SHAPE, RATE = 2.0, 0.7


def line(mask):
    """The response of some rows has a multivariate t (Gelman et al., 2013, section 14.3)."""
    if not mask.any():
        return 0.0
    z = np.column_stack([np.ones(mask.sum()), DOSE[mask]])
    spread = np.eye(len(z)) + z @ np.linalg.inv(LINE.mean_precision) @ z.T
    response = stats.multivariate_t(z @ LINE.mean, LINE.scale / LINE.dof * spread, LINE.dof)
    return response.logpdf(LINES[mask, 1])


def counts(mask):
    """Gamma rates summed out."""
    own = COUNTS[mask].ravel()
    own = own[~np.isnan(own)]
    after = SHAPE + own.sum(), RATE + len(own)
    log_p = SHAPE * np.log(RATE) - gammaln(SHAPE) + gammaln(after[0]) - after[0] * np.log(after[1])
    return log_p - gammaln(own + 1).sum()


MODELS = {
    "lines": (jg.Mixture(F.LinearRegression(on=[0]), K, prior=LINE), LINES, line),
    "repeated counts": (
        jg.Mixture(
            F.Repeated(F.Poisson(), 2),
            K,
            prior={
                "weights": dist.Dirichlet(np.full(K, CONCENTRATION)),
                "rates": dist.Gamma(SHAPE, RATE),
            },
        ),
        COUNTS,
        counts,
    ),
}


@pytest.mark.turn
@pytest.mark.parametrize("method", ["gibbs", "nuts", "smc"])
@pytest.mark.parametrize("name", MODELS)
def test_evidence_is_the_sum_over_all_assignments(name, method):
    model, x, one = MODELS[name]
    exact = summed(len(x), K, CONCENTRATION, one)
    post = jg.sample(model, x, key=jax.random.key(1), method=method, progress=False)
    found = post.evidence or jg.evidence(post, key=jax.random.key(2))
    assert abs(found.log_evidence - exact) < SIGMAS * found.error < 0.5


@pytest.mark.turn
@pytest.mark.parametrize("name", MODELS)
def test_the_variational_bound_is_one(name):
    """Of one labelling, where there are two."""
    model, x, one = MODELS[name]
    exact = summed(len(x), K, CONCENTRATION, one)
    vb = jg.sample(model, x, key=jax.random.key(1), method="vb", n_draws=100, progress=False)
    assert -3 < vb.diagnostics["elbo"] - exact < 0
