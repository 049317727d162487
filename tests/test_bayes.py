"""Posteriors: the sampler against exact answers, its shapes and its cache; labels; ArviZ."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from arviz_stats.base import array_stats
from calibration import FALSE_ALARM, calibration
from jax.scipy.special import gammaln
from posteriors import FAITHFUL, old_faithful

import jaxgmm as jg
from jaxgmm.bayes import stephens
from jaxgmm.bayes._nuts import _Chain, _draw, _warmup
from jaxgmm.local._unconstrained import from_vector, log_density, to_vector


def monte_carlo_error(draws):
    return float(array_stats.mcse(np.asarray(draws, float), method="mean"))


# -- exactness ---------------------------------------------------------------------


@pytest.mark.slow
def test_one_component_agrees_with_the_closed_form():
    """K = 1: the posterior is normal-inverse-Wishart; a weight of two is a row twice."""
    x = FAITHFUL[:60]
    weight = np.where(np.arange(60) % 3 == 0, 2.0, 1.0)
    prior = jg.ConjugatePrior(mean=[3.0, 70.0], mean_precision=2.0, dof=6.0, scale=np.diag([2, 90]))
    model = jg.Mixture(jg.Gaussian("full"), 1, prior=prior)
    post = jg.sample(model, x, key=jax.random.key(3), sample_weight=weight, progress=False)
    # Of one copy of each row.
    assert np.allclose(post.pointwise_log_likelihood() @ weight, post.log_likelihood)

    rows = np.repeat(x, weight.astype(int), axis=0)
    n, d, kappa, dof = len(rows), 2, 2.0 + len(rows), 6.0 + len(rows)
    centre = rows.mean(axis=0)
    mean = (2.0 * np.array([3.0, 70.0]) + n * centre) / kappa
    pull = np.outer(centre - [3.0, 70.0], centre - [3.0, 70.0]) * 2.0 * n / kappa
    scale = np.diag([2.0, 90.0]) + (rows - centre).T @ (rows - centre) + pull
    for j in range(d):
        draws = post.draws["means"][:, :, 0, j]
        assert abs(draws.mean() - mean[j]) < 5 * monte_carlo_error(draws)
    expected = scale / (dof - d - 1)
    for i, j in [(0, 0), (0, 1), (1, 1)]:
        draws = post.draws["covariances"][:, :, 0, i, j]
        assert abs(draws.mean() - expected[i, j]) < 5 * monte_carlo_error(draws)


def test_two_components_agree_with_the_sum_over_all_assignments():
    """n = 6, K = 2: co-clustering probabilities by enumeration (law 10)."""
    x = np.array([0.0, 0.4, 1.1, 2.9, 3.2, 4.5])
    m0, kappa0, dof, scale = 1.0, 0.5, 5.0, 2.0
    prior = jg.ConjugatePrior(mean=[m0], mean_precision=kappa0, dof=dof, scale=scale)
    model = jg.Mixture(jg.Gaussian("spherical"), 2, prior=prior)
    post = jg.sample(model, x, key=jax.random.key(4), n_draws=2000, progress=False)

    def log_marginal(rows):
        """Density of rows of one component, mean and variance integrated out."""
        n = len(rows)
        if n == 0:
            return 0.0
        kappa, centre = kappa0 + n, rows.mean()
        a, a0 = (dof + n) / 2, dof / 2
        b0 = scale / 2
        spread = np.sum((rows - centre) ** 2) + kappa0 * n / kappa * (centre - m0) ** 2
        b = b0 + spread / 2
        return float(
            gammaln(a) - gammaln(a0) + a0 * np.log(b0) - a * np.log(b)
            + 0.5 * np.log(kappa0 / kappa) - n / 2 * np.log(2 * np.pi)
        )  # fmt: skip

    together, total = np.zeros((6, 6)), 0.0
    for labels in itertools.product([0, 1], repeat=6):
        z = np.array(labels)
        counts = np.bincount(z, minlength=2)
        # Dirichlet(1, 1): the probability of an assignment is n_0! n_1! / 7!.
        weight = np.exp(
            float(np.sum(gammaln(counts + 1.0)) - gammaln(8.0))
            + sum(log_marginal(x[z == k]) for k in (0, 1))
        )
        total += weight
        together += weight * (z[:, None] == z)
    together /= total

    rows = jnp.asarray(x)[:, None]
    drawn = jax.vmap(jax.vmap(lambda p: model.responsibilities(p, rows)))(
        jax.tree.map(jnp.asarray, post.params)
    )
    for i, j in itertools.combinations(range(6), 2):
        draws = np.sum(np.asarray(drawn)[:, :, i] * np.asarray(drawn)[:, :, j], axis=-1)
        assert abs(draws.mean() - together[i, j]) < 5 * monte_carlo_error(draws) + 1e-3


# -- calibration: draws against the model that they are of ------------------------------


def draw(model, x, params, key):
    """One of NUTS, whose step and mass matrix know nothing of where the chain has been.

    It is reversible: a tree is as likely from any of its points.
    """
    working = model.standardise(x)
    like = working.to_working(params)
    potential = lambda vector: -log_density(working, x, None, vector, like)
    position = to_vector(working, like)
    root = jnp.eye(position.size) + 0.1 * jnp.tri(position.size, k=-1)
    init, _ = _warmup(0, position.size, 0.5)
    adapted = init((position,), key, step_size=0.12, inverse_mass_matrix=root @ root.T)
    chain = _Chain(position, *jax.value_and_grad(potential)(position), adapted, key, {})
    return working.to_user(from_vector(working, _draw(potential, chain).position, like)[0])


def summaries(model, params, x):
    weights, means = params.weights, params.means
    between = jnp.prod(weights) * jnp.sum((means[0] - means[1]) ** 2)
    log_det = jnp.sum(jnp.linalg.slogdet(params.covariances)[1])
    likelihood = model.log_likelihood(params, x)
    centre = weights @ means[:, 0]
    return jnp.stack([weights[0], jnp.min(weights), between, log_det, centre, likelihood])


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["full", "spherical"])
def test_calibration(structure):
    """Six numbers in two structures: one false alarm in 8,000 runs."""
    # Spherical, the smallest p-value fell below 1e-20 in each of: weights sampled as if under
    # a flat prior, one degree of freedom too few, no Jacobian, momenta a fifth too large. Only
    # the target and momenta are under test: gradients wrong at a trajectory's start go unseen.
    prior = jg.ConjugatePrior(
        concentration=[2.0, 3.0],  # labels that are not exchangeable
        mean=[1.0, 0.5],
        mean_precision=0.5,
        dof=9.0,
        scale=np.array([[3.0, 1.0], [1.0, 2.0]]) if structure == "full" else 3.0,
    )
    model = jg.Mixture(jg.Gaussian(structure), 2, prior=prior).resolve(FAITHFUL)
    p_values = calibration(model, draw, summaries, 12, jax.random.key(12))
    assert np.all(p_values > FALSE_ALARM)


# -- what comes back -----------------------------------------------------------------


@pytest.mark.turn
@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "float64"])
def test_draws_have_the_sites_shapes_and_the_datas_dtype(dtype):
    _, post = old_faithful(dtype)
    shapes = {name: draw.shape for name, draw in post.draws.items()}
    assert shapes == {
        "weights": (4, 1000, 2),
        "covariances": (4, 1000, 2, 2, 2),
        "means": (4, 1000, 2, 2),
        "covariances_full": (4, 1000, 2, 2, 2),
    }
    assert {str(draw.dtype) for draw in post.draws.values()} == {dtype}
    assert set(post.draws_raw) == set(post.draws)
    assert np.allclose(post.draws["weights"].sum(axis=-1), 1, atol=1e-5)


def test_log_joint_is_the_models_own_at_every_draw():
    fit, post = old_faithful()
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf[2, 17]), post.params)
    assert post.log_joint[2, 17] == pytest.approx(float(fit.model.log_joint(params, post.x)), 1e-12)
    assert np.max(post.log_joint) < fit.log_joint  # no draw is above the mode
    # The pointwise values, label summed out, are what the total adds up.
    pointwise = post.pointwise_log_likelihood()
    assert np.allclose(pointwise.sum(axis=-1), post.log_likelihood, rtol=1e-12)


@pytest.mark.turn
def test_a_second_call_compiles_nothing(compilations):
    fit, _ = old_faithful()
    jg.sample(fit.model, FAITHFUL, key=jax.random.key(4), start=fit, progress=False)
    x = FAITHFUL[:-6] + np.array([0.5, -3.0])  # other data, not many fewer
    other = jg.fit(
        jg.Mixture(jg.Gaussian("full"), 2, prior="fraley-raftery"), x, key=jax.random.key(5),
        n_init=4,
    )  # fmt: skip
    with compilations:
        jg.sample(other.model, x, key=jax.random.key(6), start=other, progress=False)
    assert compilations.count == 0


@pytest.mark.turn
def test_chains_start_from_every_distinct_optimum_in_reach():
    from jaxgmm.bayes._starts import _dealt

    x = jg.datasets.load("galaxies").x
    model = jg.Mixture(jg.Gaussian("full"), 4, prior="fraley-raftery")
    fit = jg.fit(model, x, key=jax.random.key(0), n_init=32)
    scores = np.asarray(fit.restarts.log_joint)
    distinct = np.unique(np.round(scores[scores > fit.log_joint - 10], 2))
    assert len(distinct) > 1
    starts, _ = _dealt(fit, 4)
    heights = [
        float(fit.model.log_joint(jax.tree.map(lambda leaf, c=c: leaf[c], starts), x))
        for c in range(4)
    ]
    assert heights[0] == pytest.approx(fit.log_joint, abs=1e-3)
    assert len(np.unique(np.round(heights, 2))) == min(4, len(distinct))


# -- NumPyro -------------------------------------------------------------------------


def test_the_numpyro_model_works_with_numpyros_own_tools():
    fit, _ = old_faithful()
    prior_draws = numpyro.infer.Predictive(fit.model.numpyro_model, num_samples=3)(
        jax.random.key(0), n_rows=5
    )
    assert prior_draws["x"].shape == (3, 5, 2)
    sites = {name: value[None] for name, value in fit.model.sites(fit.params).items()}
    replicated = numpyro.infer.Predictive(fit.model.numpyro_model, sites)(
        jax.random.key(1), n_rows=20_000
    )["x"][0]
    assert np.allclose(replicated.mean(axis=0), FAITHFUL.mean(axis=0), rtol=0.02)
    with pytest.raises(ValueError, match="n_rows"):
        fit.model.numpyro_model()


def test_an_unresolved_rule_says_so():
    model = jg.Mixture(jg.Gaussian("full"), 2, prior="fraley-raftery")
    params = model.params(means=np.zeros((2, 2)) + [[0], [1]], covariances=[np.eye(2)] * 2)
    for call in (
        lambda: model.log_prior(params),
        lambda: model.log_joint(params, FAITHFUL),
        lambda: model.numpyro_model(FAITHFUL),
    ):
        with pytest.raises(ValueError, match=r"fraley-raftery.*resolve"):
            call()


@pytest.mark.slow
def test_a_short_warm_up_keeps_the_curvature_as_mass_matrix():
    """A dense one learnt from these few draws of 41 dimensions takes 41 steps a draw."""
    rows = np.random.default_rng(0).standard_normal((300, 5))
    rows[150:] += 6
    model = jg.Mixture(jg.Gaussian("full"), 2, prior="fraley-raftery")
    fit = jg.fit(model, rows, key=jax.random.key(0), n_init=4)
    post = jg.sample(
        fit.model, rows, key=jax.random.key(1), start=fit, n_draws=50, n_warmup=60, progress=False
    )
    assert np.mean(post.sample_stats["n_steps"]) < 25


# -- bad input -----------------------------------------------------------------------


def test_sample_refuses_what_it_cannot_do():
    fit, _ = old_faithful()
    key = jax.random.key(0)
    flat = jg.Mixture(jg.Gaussian("full"), 2)
    with pytest.raises(ValueError, match=r"prior: .*improper"):
        jg.sample(flat, FAITHFUL, key=key)
    with pytest.raises(ValueError, match=r"method: .*did you mean 'nuts'"):
        jg.sample(fit.model, FAITHFUL, key=key, method="nut")
    with pytest.raises(ValueError, match="other data"):
        jg.sample(fit.model, FAITHFUL + 1, key=key, start=fit)
    with pytest.raises(TypeError, match="typed random key"):
        jg.sample(fit.model, FAITHFUL, key=0)
    with pytest.raises(ValueError, match="n_draws"):
        jg.sample(fit.model, FAITHFUL, key=key, start=fit, n_draws=0)
    with pytest.raises(ValueError, match=r"target_acceptance: .*found 1\.0"):
        jg.sample(fit.model, FAITHFUL, key=key, start=fit, target_acceptance=1.0)
    with pytest.raises(TypeError, match="start"):
        jg.sample(fit.model, FAITHFUL, key=key, start=FAITHFUL[0])


@pytest.mark.parametrize("engine", jg.bayes.METHODS.values())
def test_an_engine_stands_for_its_name_and_options(engine):
    assert jg.bayes.METHODS[engine.name] is engine
    assert engine().options == {}
    with pytest.raises(dataclasses.FrozenInstanceError):
        engine().name = "mine"


def test_engines_draw_what_their_names_draw(key):
    x = jg.datasets.load("galaxies").x
    model = jg.Mixture(jg.Gaussian("tied"), 1, prior="fraley-raftery")
    fit = jg.fit(model, x, key=key, n_init=1)
    draw = lambda method, **options: jg.sample(
        fit.model, x, key=key, start=fit, method=method, n_draws=8, progress=False, **options
    )
    one, other = draw("laplace", measure="declared"), draw(jg.bayes.Laplace(measure="declared"))
    np.testing.assert_array_equal(one.draws["means"], other.draws["means"])
    assert one.settings == other.settings
    assert one.method == other.method == "laplace"

    class Mine(jg.bayes.Laplace):
        name = "mine"

    post = draw(Mine(measure="declared"))
    assert post.method == "mine"
    np.testing.assert_array_equal(post.draws["means"], one.draws["means"])
    with pytest.raises(TypeError, match=r"measure: belongs into method, as in Laplace\(measure"):
        draw(jg.bayes.Laplace(), measure="declared")
    with pytest.raises(TypeError, match=r"method: needs an engine, as VB\(\) makes"):
        draw(jg.bayes.VB)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: jg.bayes.NUTS(target_acceptance=1.0), ValueError, "target_acceptance: a share"),
        (lambda: jg.bayes.SMC(target_ess=0.0), ValueError, "target_ess: a share"),
        (lambda: jg.bayes.SMC(n_moves=0), ValueError, "n_moves: must be at least 1"),
        (lambda: jg.bayes.Laplace(measure="flat"), ValueError, "measure: "),
        (lambda: jg.bayes.VB(tol=-1.0), ValueError, "tol: must be at least 0"),
        (lambda: jg.bayes.SVI(guide="full"), ValueError, "guide: .*did you mean 'full-rank'"),
        (lambda: jg.bayes.SVI(learning_rate=0.0), ValueError, "learning_rate: must be positive"),
        (lambda: jg.bayes.Gibbs(n_init=2), TypeError, "n_init"),
    ],
)
def test_options_are_checked_where_they_are_written(make, error, words):
    with pytest.raises(error, match=words):
        make()


# -- labels --------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 6])
def test_stephens_undoes_known_permutations(k):
    rng = np.random.default_rng(0)
    truth = rng.dirichlet(np.full(k, 0.2), size=80).T  # (K, n), clear but not hard
    shuffles = np.array([rng.permutation(k) for _ in range(30)])
    noisy = np.stack([0.95 * truth[s] + 0.05 / k for s in shuffles])
    order = np.asarray(stephens(jnp.asarray(noisy), jnp.asarray(truth)))
    restored = np.take_along_axis(shuffles, order, axis=1)
    assert np.array_equal(restored, np.tile(np.arange(k), (30, 1)))


def test_relabelling_permutes_and_changes_no_number():
    _, post = old_faithful()
    order = post.labels
    assert np.array_equal(
        np.take_along_axis(post.draws_raw["weights"], order, axis=-1), post.draws["weights"]
    )
    # Chains that were shuffled come back to one labelling.
    fit, _ = old_faithful()
    assert np.allclose(post.draws["means"].mean(axis=(0, 1)), fit.params.means, rtol=0.05)


# -- ArviZ ---------------------------------------------------------------------------


def test_arviz_gets_named_dimensions_and_the_marginal_likelihood():
    import arviz

    _, post = old_faithful()
    data = post.to_arviz()
    posterior = data["posterior"]
    assert posterior["means"].dims == ("chain", "draw", "component", "feature")
    assert posterior["covariances"].dims == ("chain", "draw", "component", "feature", "feature_bis")
    assert data["log_likelihood"]["x"].dims == ("chain", "draw", "obs")
    assert data["observed_data"]["x"].shape == FAITHFUL.shape
    assert np.allclose(data["sample_stats"]["lp"], post.log_joint)
    table = arviz.summary(data, var_names=["weights"])
    assert len(table) == 2
