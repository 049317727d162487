"""Against mclust 6.0.0 and scikit-learn 1.9.1, from their own starts (values in ``data/``)."""

import functools
import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import DATA, tree_allclose

import jaxgmm as jg

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent / "data"
FAITHFUL = DATA["faithful"]


def _read(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


OPTIMA, ONE_STEP = _read("mclust_optima")["datasets"], _read("mclust_onestep")["cases"]
PRIOR, SKLEARN = _read("mclust_prior")["fits"], _read("sklearn")


def _name(case):
    return "-".join(str(case[field]) for field in ("structure", "k"))


def _hard_start(data, k):
    if k == 1:
        return np.ones((len(DATA[data]), 1))
    labels = np.array(list(OPTIMA[data]["start"][str(k)]), int)
    return np.eye(k)[labels - 1]


@functools.cache
def _optimum(data, structure, k, prior=None):
    model = jg.Mixture(jg.Gaussian(structure), k, prior=prior)
    return jg.fit(model, DATA[data], start=_hard_start(data, k), tol=1e-14, max_iter=20000)


OPTIMUM_CASES = [
    pytest.param(data, case, id=f"{data}-{_name(case)}")
    for data, record in OPTIMA.items()
    for case in record["fits"]
]


@pytest.mark.parametrize(("data", "case"), OPTIMUM_CASES)
def test_mclust_optimum(data, case):
    if case["tight_loglik"] is None:  # mclust ended at a singular covariance
        with pytest.raises(ValueError, match="collapsed"):
            _optimum(data, case["structure"], case["k"])
        return
    fit = _optimum(data, case["structure"], case["k"])
    assert fit.converged
    assert fit.n_parameters == case["df"]
    if "trajectory" in case:
        steps = case["trajectory"]  # of M-steps known to 1e-6 in the covariances
        np.testing.assert_allclose(fit.trace[: len(steps)], steps, rtol=1e-8)
    assert fit.log_likelihood >= case["tight_loglik"] - 1e-6  # mclust may have stopped early
    # Where mclust's default tolerance reached the same point, its criteria are ours.
    if case["loglik"] is not None and abs(case["loglik"] - fit.log_likelihood) < 1e-9:
        np.testing.assert_allclose(fit.bic, -case["bic"], rtol=1e-9)
        np.testing.assert_allclose(fit.icl, -case["icl"], rtol=1e-7)


@pytest.mark.parametrize("case", ONE_STEP, ids=_name)
def test_mclust_one_step_and_trajectory(case):
    k = case["k"]
    z = np.loadtxt(FOLDER / f"z_faithful_G{k}.csv", delimiter=",", skiprows=1)
    model = jg.Mixture(jg.Gaussian(case["structure"]), k)
    fit = jg.fit(model, FAITHFUL, start=z, tol=0, max_iter=9)
    if case["trajectory"] is not None:
        # mclust's inner iterations for VEE stop at a relative change of 1.5e-8.
        rtol = 1e-8 if case["structure"] == "VEE" else 1e-9
        np.testing.assert_allclose(fit.trace, case["trajectory"], rtol=rtol)
    flat = case["structure"] in ("VEE", "EVE", "VVE")  # the stored optimum is known less well
    np.testing.assert_allclose(fit.trace[0], case["loglik"], rtol=1e-9 if flat else 1e-10)
    working = model.resolve(FAITHFUL).standardise(jnp.asarray(FAITHFUL))
    params = working.to_user(working.m_step(working.statistics(z, jnp.asarray(FAITHFUL))))
    ours = [params.weights, params.means, params.covariances]
    theirs = [jnp.array(case[name]) for name in ("weights", "means", "covariances")]
    tree_allclose(ours, theirs, 1e-6 if flat else 1e-10)


@pytest.mark.parametrize("case", PRIOR, ids=_name)
def test_mclust_prior(case):
    fit = _optimum("faithful", case["structure"], case["k"], "fraley-raftery")
    assert fit.converged
    np.testing.assert_allclose(fit.model.prior.dof, case["dof"])
    np.testing.assert_allclose(
        fit.model.prior.scale, np.broadcast_to(case["prior_scale"], fit.model.prior.scale.shape)
    )
    dirichlet = math.lgamma(case["k"])  # mclust has no prior on the weights
    reference = case["loglik"] + case["logprior"] + dirichlet
    assert abs(fit.log_joint - reference) < 1e-6
    assert abs(fit.log_prior - dirichlet - case["logprior"]) < 1e-5
    ours = [fit.params.weights, fit.params.means, fit.params.covariances]
    theirs = [jnp.array(case[name]) for name in ("weights", "means", "covariances")]
    tree_allclose(ours, theirs, 1e-5)  # both stop where the joint is flat to rounding


@pytest.mark.parametrize("case", SKLEARN["fits"], ids=lambda c: f"{_name(c)}-{c['reg_covar']}")
def test_sklearn_trajectory_and_optimum(case):
    k, structure, n = case["k"], case["structure"], len(FAITHFUL)
    start = SKLEARN["starts"][str(k)]
    total = np.cov(FAITHFUL.T, bias=True)
    site = {
        "full": np.stack([total] * k),
        "tied": total,
        "diag": np.stack([np.diag(total)] * k),
        "spherical": np.full(k, np.trace(total) / 2),
    }[structure]
    model = jg.Mixture(jg.Gaussian(structure, reg_covar=case["reg_covar"]), k)
    params = model.params(
        weights=start["weights_init"], means=start["means_init"], covariances=site
    )
    fit = jg.fit(model, FAITHFUL, start=params, tol=1e-13, max_iter=5000)
    steps = case["trajectory"]
    np.testing.assert_allclose(fit.trace[: len(steps)] / n, steps, rtol=1e-9)
    assert fit.converged
    assert abs(fit.log_likelihood - n * case["mean_score"]) < 1e-6
