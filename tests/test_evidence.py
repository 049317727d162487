"""Evidence by bridge sampling: against closed forms, sums over all assignments, and SMC."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from enumeration import X, exact, the_model
from posteriors import FAITHFUL
from scipy import stats

import jaxgmm as jg
from jaxgmm.bayes import _bridge
from jaxgmm.labels._assignment import renamings

# A bridge misses by so many of its standard errors once in 15,000 keys.
SIGMAS = 4.0


@functools.cache
def posterior(k, method="gibbs", weights=None, sample_weight=None, n_draws=500):
    model = the_model(k, weights)
    copies = None if sample_weight is None else np.array(sample_weight)
    fit = jg.fit(model, X, key=jax.random.key(0), n_init=4, sample_weight=copies)
    return jg.sample(
        fit.model, X, key=jax.random.key(1), start=fit, method=method, n_draws=n_draws,
        sample_weight=copies, progress=False,
    )  # fmt: skip


def agrees(evidence, truth):
    assert abs(evidence.log_evidence - truth) < SIGMAS * evidence.error


def test_one_component_is_exact():
    found = jg.evidence(posterior(1), key=jax.random.key(2))
    assert found.log_evidence == pytest.approx(exact(X, 1).log_evidence, abs=1e-10)
    assert found.error < 1e-10


@pytest.mark.turn
@pytest.mark.parametrize("k", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_it_is_the_sum_over_all_assignments(k):
    found = jg.evidence(posterior(k), key=jax.random.key(2))
    agrees(found, exact(X, k).log_evidence)
    assert 0 < found.error < 0.05
    assert "all labellings" in found.method


@pytest.mark.turn
def test_errors_are_what_they_say():
    """Other draws, assignments and proposals give estimates that spread by their errors."""
    truth = exact(X, 2).log_evidence
    post = posterior(2, n_draws=4000)
    found = []
    for i in range(8):
        part = dataclasses.replace(
            post,
            draws_raw={name: d[:, 500 * i : 500 * (i + 1)] for name, d in post.draws_raw.items()},
            log_prior=post.log_prior[:, :500],
        )
        found.append(jg.evidence(part, key=jax.random.key(i)))
    scores = [(e.log_evidence - truth) / e.error for e in found]
    low, high = stats.chi2.ppf([1e-4, 1 - 1e-4], len(scores))
    assert low < np.sum(np.square(scores)) < high


@pytest.mark.slow
def test_draws_of_nuts_serve_as_well():
    agrees(jg.evidence(posterior(2, "nuts"), key=jax.random.key(2)), exact(X, 2).log_evidence)


@pytest.mark.turn
def test_chains_in_one_labelling_are_enough():
    """The prior treats labels alike, so what the chains did not visit is known."""
    x = X + 20.0 * (X[:, :1] > 2)
    fit = jg.fit(the_model(2), x, key=jax.random.key(0), n_init=4)
    post = jg.sample(
        fit.model, x, key=jax.random.key(1), start=fit, method="gibbs", n_draws=500,
        progress=False,
    )  # fmt: skip
    means = post.draws_raw["means"][..., 0]
    assert np.all(means.argmax(axis=-1) == means[:, :1].argmax(axis=-1))
    agrees(jg.evidence(post, key=jax.random.key(2)), exact(x, 2).log_evidence)


@pytest.mark.slow
def test_fixed_weights_are_not_renamed():
    weights = (0.3, 0.7)
    post = posterior(2, weights=weights)
    agrees(jg.evidence(post, key=jax.random.key(2)), exact(X, 2, weights).log_evidence)


@pytest.mark.slow
def test_weights_are_copies():
    copies = (2, 0, 1, 1, 3, 1, 0)
    truth = exact(np.repeat(X, copies, axis=0), 2).log_evidence
    agrees(jg.evidence(posterior(2, sample_weight=copies), key=jax.random.key(2)), truth)


def test_units_change_the_evidence_by_their_volume():
    model = jg.Mixture(jg.Gaussian("full"), 2, prior="fraley-raftery")
    found = []
    for unit in (1.0, 60.0):
        fit = jg.fit(model, X * unit, key=jax.random.key(0), n_init=4)
        post = jg.sample(
            fit.model, X * unit, key=jax.random.key(1), start=fit, method="gibbs", n_draws=500,
            progress=False,
        )  # fmt: skip
        found.append(jg.evidence(post, key=jax.random.key(2)).log_evidence)
    assert found[0] - found[1] == pytest.approx(X.size * np.log(60.0), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["full", "tied", "EEI"])
def test_all_labellings_follow_from_a_few(structure):
    """The log density of complete data is linear in the permutation matrix."""
    k, rng = 4, np.random.default_rng(0)
    model = jg.Mixture(jg.Gaussian(structure), k, prior="fraley-raftery").resolve(FAITHFUL)
    x = jax.numpy.asarray(FAITHFUL)
    working = model.standardise(x)
    labels = jax.numpy.asarray(np.eye(k)[rng.integers(k, size=len(x))])
    after = working.updated(working.statistics(labels, x))
    params = after.draw_prior(jax.random.key(0))
    orders = renamings((0,) * k)
    one = lambda order: after.log_prior(working.permute(params, order))
    each = jax.jit(jax.vmap(one))(orders)
    basis, combine = _bridge._spanning(orders)
    assert len(orders) == 24
    assert len(basis) == 10
    few = jax.jit(jax.vmap(one))(basis)
    np.testing.assert_allclose(combine @ np.asarray(few), each, rtol=1e-9, atol=1e-9)


def test_a_second_call_compiles_nothing(compilations):
    jg.evidence(posterior(2), key=jax.random.key(2))
    with compilations:
        jg.evidence(posterior(2), key=jax.random.key(3))
    assert compilations.count == 0


def test_what_it_cannot_do_it_refuses():
    post = posterior(2)
    with pytest.raises(TypeError, match=r"posterior: needs a Posterior .* found str"):
        jg.evidence("post", key=jax.random.key(0))
    with pytest.raises(ValueError, match="key: "):
        jg.evidence(post, key=None)
    with pytest.raises(ValueError, match="n_assignments: must be at least 1"):
        jg.evidence(post, key=jax.random.key(0), n_assignments=0)
    many = jg.Mixture(jg.Gaussian("EII"), 7, prior="fraley-raftery")
    with pytest.raises(ValueError, match=r"7 components have 5040 labellings.*smc"):
        jg.evidence(dataclasses.replace(post, model=many), key=jax.random.key(0))
    approximate = dataclasses.replace(post, method="vb", log_weights=np.zeros((4, 500)))
    with pytest.raises(ValueError, match=r"approximation's; use method="):
        jg.evidence(approximate, key=jax.random.key(0))
    halves = dataclasses.replace(post, sample_weight=np.full(7, 0.5))
    with pytest.raises(ValueError, match=r"sample weights must be whole numbers.*smc"):
        jg.evidence(halves, key=jax.random.key(0))
    flat = jg.Mixture(jg.Gaussian("full"), 2).resolve(X)
    with pytest.raises(ValueError, match=r"posterior: .*conjugate prior.*smc"):
        jg.evidence(dataclasses.replace(post, model=flat), key=jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 2, 3])
def test_bridge_and_smc_agree_on_old_faithful(k):
    model = jg.Mixture(jg.Gaussian("full"), k, prior="fraley-raftery")
    fit = jg.fit(model, FAITHFUL, key=jax.random.key(0))
    draw = functools.partial(jg.sample, fit.model, FAITHFUL, start=fit, progress=False)
    bridge = jg.evidence(draw(method="gibbs", key=jax.random.key(1)), key=jax.random.key(2))
    smc = draw(method="smc", n_chains=8, n_draws=250, key=jax.random.key(3)).evidence
    # The error of SMC has seven degrees of freedom.
    bound = stats.t.ppf(1 - 0.5e-4, 7)
    apart = abs(bridge.log_evidence - smc.log_evidence)
    assert apart < bound * np.hypot(bridge.error, smc.error)


def test_a_draw_that_proposals_never_reach_counts_as_nothing():
    """Far out in p, where q has no mass: no overflow, and the share of p that q covers."""
    at_draws = np.zeros((4, 100))
    at_draws[0, 0] = 1000.0
    found = _bridge._bridge(at_draws, np.zeros(10_000))
    assert found.log_evidence == pytest.approx(-np.log1p(-1 / 400), rel=1e-6)
