"""Where chains begin: optima of a fit, the user's own points, the prior, the ends of others."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from arviz_stats.base import array_stats
from enumeration import PRIOR, X, exact, the_model
from posteriors import FAITHFUL, old_faithful
from scipy import stats

import jaxgmm as jg
from jaxgmm.bayes._chains import Starts
from jaxgmm.bayes._nuts import _begin
from jaxgmm.local._unconstrained import from_vector

RNG = np.random.default_rng(3)
# Two clusters beside each other and one above: K = 2 has an optimum for each pair of them.
CENTRES = np.array([[0.0, 0.0], [8.0, 0.0], [4.0, 30.0]])
BLOBS = np.concatenate([RNG.normal(size=(30, 2)) + centre for centre in CENTRES])
SIDES = np.repeat(np.arange(3), 30)


@functools.cache
def two_optima():
    """A fit whose second optimum is far below the first."""
    prior = jg.ConjugatePrior(
        concentration=2.0, mean=[4.0, 10.0], mean_precision=0.1, dof=5.0, scale=np.eye(2)
    )
    model = jg.Mixture(jg.Gaussian("full"), 2, prior=prior)
    together = ([0, 0, 1], [0, 1, 1])
    return jg.fit(model, BLOBS, start=np.stack([np.eye(2)[np.array(t)[SIDES]] for t in together]))


@functools.cache
def gibbs_of_blobs(start="stack", **options):
    fit = two_optima()
    start = fit.restarts.params if start == "stack" else fit
    return jg.sample(
        fit.model, BLOBS, key=jax.random.key(0), method="gibbs", start=start, n_draws=20,
        n_warmup=0, progress=False, **options,
    )  # fmt: skip


# -- the optima of a fit ---------------------------------------------------------------


@pytest.mark.turn
def test_optima_without_a_chain_are_said():
    fit = two_optima()
    heights = np.array([optimum.log_joint for optimum in fit.optima])
    assert len(heights) == 2
    assert heights[0] - heights[1] > 10
    post = gibbs_of_blobs(start="fit")
    note = post.diagnostics["starts"]
    assert note.startswith(
        "2 optima of the fit, 1 more than 10 below the highest left out; a stack"
    )
    assert f"starts: {note}" in repr(post)
    assert post.start == "fit"
    assert np.all(post.log_joint > heights[1] + 10)  # both optima are far from any passage
    # Two optima in reach, one chain.
    near = dataclasses.replace(fit, log_joint=heights[1])
    one = jg.bayes._starts._dealt(near, 1)[1]
    assert "more than" not in one
    fit, post = old_faithful()
    assert jg.bayes._starts._dealt(fit, 4)[1] == ""
    assert "starts" not in post.diagnostics


# -- the user's own points -------------------------------------------------------------


@pytest.mark.turn
def test_a_stack_of_parameters_is_a_chain_each():
    """Also at an optimum that no chain of the fit's would begin at."""
    fit, post = two_optima(), gibbs_of_blobs()
    assert post.n_chains == 2
    assert post.start == "given"
    assert "starts" not in post.diagnostics
    ends = np.asarray(fit.restarts.log_joint)
    assert np.all(np.abs(post.log_joint.mean(axis=1) - ends) < 10)
    single = jg.sample(
        fit.model, BLOBS, key=jax.random.key(0), method="gibbs", start=fit.params, n_draws=20,
        n_warmup=0, n_chains=2, progress=False,
    )  # fmt: skip
    assert single.n_chains == 2
    assert np.all(np.abs(single.log_joint - fit.log_joint) < 20)


@pytest.mark.turn
def test_nuts_begins_right_there():
    fit, _ = old_faithful()
    working = fit.model.standardise(FAITHFUL)
    params = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), working.to_working(fit.params))
    like = jax.tree.map(lambda leaf: leaf[0], params)
    keys = jax.random.split(jax.random.key(0), 4)
    at = lambda exact: (
        _begin(working, jnp.asarray(FAITHFUL), None, like, Starts(params, exact), keys, 0).position
    )
    means = jax.vmap(lambda v: from_vector(working, v, like)[0].means)
    np.testing.assert_allclose(means(at(True)), params.means, rtol=1e-12)
    assert np.all(np.abs(means(at(False)) - params.means) > 1e-6)


# -- going on --------------------------------------------------------------------------


def test_gibbs_goes_on_under_the_labels_that_it_had():
    """Raw draws go on: a chain whose labels were exchanged has them exchanged."""
    fit = two_optima()
    order = np.array([[0, 1], [1, 0]])
    stack = jax.vmap(fit.model.permute, (None, 0))(fit.params, order)
    draw = functools.partial(
        jg.sample, fit.model, BLOBS, method="gibbs", n_draws=20, n_warmup=0, progress=False
    )
    first = draw(key=jax.random.key(0), start=stack)
    more = draw(key=jax.random.key(1), start=first)
    assert more.start == "posterior"
    assert more.n_warmup == 0
    for post in (first, more):
        # Far from any passage: chains keep the labels that they began with.
        raw = post.draws_raw["means"][..., 1]
        ascends = bool(fit.params.means[0, 1] < fit.params.means[1, 1])
        assert np.all((raw[0, :, 0] < raw[0, :, 1]) == ascends)
        assert np.all((raw[1, :, 0] > raw[1, :, 1]) == ascends)
    # ... and what is reported has the labels of the draws before.
    assert np.allclose(more.draws["means"].mean((0, 1)), first.draws["means"].mean((0, 1)), atol=1)
    again = draw(key=jax.random.key(2), start=more, n_draws=4, n_warmup=3)
    assert (again.n_chains, again.n_warmup) == (2, 3)


@pytest.mark.turn
def test_nuts_goes_on_with_what_it_learned():
    fit, post = old_faithful()
    draw = functools.partial(
        jg.sample, fit.model, FAITHFUL, key=jax.random.key(7), n_draws=4, progress=False
    )
    more = draw(start=post)
    step_size = post.sample_stats["step_size"][:, -1]
    assert more.n_warmup == 0
    np.testing.assert_array_equal(more.sample_stats["step_size"], np.tile(step_size, (4, 1)).T)
    np.testing.assert_array_equal(
        more.adaptation["inverse_mass_matrix"], post.adaptation["inverse_mass_matrix"]
    )
    # Hardly moving, it is where it was.
    learned = {**post.adaptation, "step_size": np.full(4, 1e-9)}
    still = draw(start=dataclasses.replace(post, adaptation=learned))
    for name, site in still.draws_raw.items():
        np.testing.assert_allclose(site[:, 0], post.draws_raw[name][:, -1], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_what_went_on_is_one_chain():
    fit, _ = old_faithful()
    draw = functools.partial(jg.sample, fit.model, FAITHFUL, n_draws=500, progress=False)
    first = draw(key=jax.random.key(1), start=fit)
    more = draw(key=jax.random.key(2), start=first)
    both = lambda name: np.concatenate([first.draws[name], more.draws[name]], axis=1)
    for name in ("weights", "means"):
        for draws in both(name).reshape(4, 1000, -1).transpose(2, 0, 1):
            assert array_stats.rhat(draws) < 1.01
    height = np.concatenate([first.log_joint, more.log_joint], axis=1)
    assert array_stats.rhat(height) < 1.01


def test_what_cannot_go_on_is_refused():
    fit, post = two_optima(), gibbs_of_blobs()
    draw = functools.partial(
        jg.sample, key=jax.random.key(0), method="gibbs", n_draws=4, progress=False
    )
    for method in ("nuts", "smc", "vb", "svi", "laplace"):
        with pytest.raises(ValueError, match=r"start: this posterior is by method='gibbs'"):
            draw(fit.model, BLOBS, start=post, method=method)
    chainless = dataclasses.replace(post, method="smc", n_warmup=None)
    with pytest.raises(ValueError, match=r"start: the draws of method='smc' are no chains"):
        draw(fit.model, BLOBS, start=chainless, method="smc")
    with pytest.raises(ValueError, match="start: this posterior is of other data"):
        draw(fit.model, BLOBS + 1, start=post)
    prior = dataclasses.replace(fit.model.prior, dof=6.0)
    with pytest.raises(ValueError, match="start: this posterior is of another model"):
        draw(dataclasses.replace(fit.model, prior=prior), BLOBS, start=post)
    with pytest.raises(
        ValueError, match=r"n_chains: start has 2 chain\(s\), found 4; leave it out"
    ):
        draw(fit.model, BLOBS, start=post, n_chains=4)
    with pytest.raises(ValueError, match=r"n_chains: start has 2 chain"):
        draw(fit.model, BLOBS, start=fit.restarts.params, n_chains=3)
    with pytest.raises(TypeError, match=r"start: needs a Fit .* found 'priors'"):
        draw(fit.model, BLOBS, start="priors")
    with pytest.raises(ValueError, match=r"start: parameters need shapes"):
        draw(fit.model, BLOBS, start=jax.tree.map(lambda leaf: leaf[..., :1], fit.params))
    for method in ("laplace", "svi", "smc"):
        with pytest.raises(ValueError, match="begins at one point, or in the prior; found a stack"):
            draw(fit.model, BLOBS, start=fit.restarts.params, method=method)
    prior = dataclasses.replace(fit.model.prior, concentration=np.full(3, 2.0))
    three = dataclasses.replace(fit.model, n_components=3, prior=prior)
    with pytest.raises(ValueError, match=r"start: this fit is of Mixture.*=2.*, not of .*=3"):
        draw(three, BLOBS, start=fit)
    lost = dataclasses.replace(fit.params, means=fit.params.means + 1e200)
    with pytest.raises(ValueError, match=r"start: the log joint at the start of chain 0 is"):
        draw(fit.model, BLOBS, start=lost)


# -- the prior: sparse weights have no fit ---------------------------------------------


def sparse_truth(concentration, below):
    """P(min weight < below) and the mean of the product of the weights, by enumeration."""
    prior = jg.ConjugatePrior(**{**vars(PRIOR), "concentration": concentration})
    found = exact(X, 2, prior=prior)
    count = np.arange(len(X) + 1)
    a, b = concentration + count, concentration + len(X) - count
    small = stats.beta.cdf(below, a, b) + stats.beta.sf(1 - below, a, b)
    product = a * b / (a + b) / (a + b + 1)
    return found.first_count @ small, found.first_count @ product, found.mean


@pytest.mark.turn
@pytest.mark.parametrize(
    ("method", "concentration", "n_draws"),
    [
        ("gibbs", 0.5, 4000),
        pytest.param("nuts", 0.5, 4000, marks=pytest.mark.slow),
        pytest.param("smc", 0.5, 2000, marks=pytest.mark.slow),
        pytest.param("gibbs", 0.01, 8000, marks=pytest.mark.slow),
    ],
)
def test_sparse_weights_by_enumeration(method, concentration, n_draws):
    below = 0.02
    post = jg.sample(
        the_model(2, concentration=concentration), X, key=jax.random.key(5), method=method,
        start="prior", n_draws=n_draws, progress=False,
    )  # fmt: skip
    assert post.start == "prior"
    small, product, mean = sparse_truth(concentration, below)
    weights = post.draws["weights"]
    centre = np.einsum("cdk,cdkj->jcd", weights, post.draws["means"])
    empty, both = np.min(weights, axis=-1) < below, np.prod(weights, axis=-1)
    for draws, truth in zip((empty, both, *centre), (small, product, *mean), strict=True):
        draws = np.asarray(draws, float)
        error = float(array_stats.mcse(draws, method="mean"))
        assert error < 0.05
        assert abs(draws.mean() - truth) < 5 * error


def test_sparse_weights_have_no_fit_and_the_refusal_names_the_way():
    sparse = the_model(2, concentration=0.5)
    way = r"concentration 0.5 is below 1.*no mode.*method=\"gibbs\", start=\"prior\""
    for call in (jg.fit, jg.sample):
        with pytest.raises(ValueError, match=way):
            call(sparse, X, key=jax.random.key(0))
    sites = {
        "weights": dist.Dirichlet(np.array([0.5, 0.5])),
        "means": dist.Normal(0.0, 5.0),
        "covariances": dist.InverseWishart(6.0, np.eye(2)),
    }
    own = jg.Mixture(jg.Gaussian("full"), 2, prior=sites)
    with pytest.raises(ValueError, match=r"is below 1.*method=\"nuts\", start=\"prior\""):
        jg.fit(own, X, key=jax.random.key(0))
    with pytest.raises(ValueError, match="concentration must be positive, found 0"):
        jg.sample(the_model(2, concentration=0.0), X, key=jax.random.key(0), start="prior")


@pytest.mark.turn
def test_a_fit_under_another_concentration_is_a_start_too():
    interior = jg.fit(the_model(2, concentration=1.0), X, key=jax.random.key(0), n_init=4)
    post = jg.sample(
        the_model(2, concentration=0.5), X, key=jax.random.key(1), start=interior, method="gibbs",
        n_draws=4, progress=False,
    )  # fmt: skip
    assert post.model.prior.concentration.tolist() == [0.5, 0.5]
    # Where the weights are fixed the concentration says nothing.
    fixed = the_model(2, weights=[0.4, 0.6], concentration=0.5)
    assert jg.fit(fixed, X, key=jax.random.key(0), n_init=2).converged


def test_weights_closer_to_zero_than_coordinates_go():
    draw = lambda c, **options: jg.sample(
        the_model(2, concentration=c), X, key=jax.random.key(0), start="prior", progress=False,
        n_draws=4, **options,
    )  # fmt: skip
    for method in ("nuts", "laplace", "smc", "svi"):
        with pytest.raises(ValueError, match=r"concentration of 0.05.*use method=\"gibbs\"$"):
            draw(0.05, method=method)
    with pytest.raises(ValueError, match=r"concentration \[0.5, 0.5\] is below 1"):
        draw(0.5, method="laplace", measure="declared")


def test_a_prior_without_draws_is_no_start():
    model = jg.Mixture(jg.Gaussian("VEE"), 2, prior="fraley-raftery")
    with pytest.raises(ValueError, match=r'start: "prior": needs draws of the prior, but .*VEE'):
        jg.sample(model, FAITHFUL, key=jax.random.key(0), start="prior", progress=False)
