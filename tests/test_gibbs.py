"""Gibbs sampling: against exact sums over assignments, NUTS, and its own joint distribution."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats
from calibration import FALSE_ALARM, calibration
from posteriors import FAITHFUL, old_faithful
from scipy import stats
from scipy.special import digamma, gammaln, multigammaln

import jaxgmm as jg
from jaxgmm._programs._shapes import rung
from jaxgmm.bayes._chains import Schedule, Starts
from jaxgmm.bayes._gibbs import Chain, Gibbs, _sweep
from jaxgmm.labels._drawn import sampled_labels

STRUCTURES = ("full", "tied", "diag", "spherical", "EII", "EEI")
X = np.array([[0.0, 0.3], [0.4, -0.2], [1.1, 0.9], [2.9, 3.6], [3.2, 2.4], [4.5, 3.9], [0.2, 2.0]])

# Between an estimate and the truth, in Monte-Carlo standard errors: a test that makes 70 such
# comparisons fails once in 25,000 seeds by chance.
SIGMAS = 5.0


def the_prior(structure):
    """Proper, and wide enough for a chain to pass from any assignment to any other."""
    matrix, diagonal = np.array([[9.0, 3.0], [3.0, 6.0]]), np.array([9.0, 6.0])
    scale = {"full": matrix, "tied": matrix, "diag": diagonal, "EEI": diagonal}
    return jg.ConjugatePrior(
        concentration=[1.5, 2.5],  # labels that are not exchangeable
        mean=[1.0, 0.5],
        mean_precision=0.5,
        dof=9.0,
        scale=scale.get(structure, 8.0),
    )


def the_model(structure, weights=None):
    return jg.Mixture(jg.Gaussian(structure), 2, prior=the_prior(structure), weights=weights)


def chains(model, x, key, n_draws, sample_weight=None, thinning=1):
    """Draws (chain, draw, ...) without a fit before them."""
    x = jnp.asarray(x)
    weight = None if sample_weight is None else jnp.asarray(sample_weight, x.dtype)
    working = model.resolve(x, weight).standardise(x, weight)
    cut = jnp.where(jnp.arange(len(x))[:, None] % 2 == jnp.arange(2), 0.9, 0.1)
    start = working.m_step(working.statistics(cut, x, weight))
    starts = Starts(jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), start))
    draws = Gibbs().draw(working, x, weight, starts, key, Schedule(n_draws, 50, thinning), False)
    return jax.vmap(jax.vmap(working.to_user))(draws.params)


def error(draws):
    return float(array_stats.mcse(np.asarray(draws, float), method="mean"))


def within_error(draws, truth):
    assert abs(np.mean(draws) - truth) < SIGMAS * error(draws)


# -- the truth, by hand --------------------------------------------------------------


def features_of(weights, means, covariances):
    """What no renaming of labels changes, and what its mean is known of, given an assignment."""
    second = covariances + means[..., :, None] * means[..., None, :]
    mean = np.sum(weights[..., None] * means, axis=-2)
    second = np.sum(weights[..., None, None] * second, axis=-3)
    log_det = np.sum(np.linalg.slogdet(covariances)[1], axis=-1)
    return [mean[..., 0], mean[..., 1], second[..., 0, 0], second[..., 0, 1], second[..., 1, 1],
            weights[..., 0] * weights[..., 1], log_det]  # fmt: skip


def exact(structure, x, fixed_weights=None):
    """Posterior means of `features_of`, summed over all assignments of ``x`` to two labels.

    Given the labels all is conjugate: an entry of the covariances is inverse-Wishart, or its
    variances are inverse-gamma, and the marginal likelihood is a ratio of their normalisers.
    """
    prior, d = the_prior(structure), 2
    m0, kappa0 = np.array(prior.mean), prior.mean_precision
    matrix, shared = structure in ("full", "tied"), structure in ("tied", "EII", "EEI")
    total, sums = 0.0, np.zeros(7)

    def log_normaliser(dof, scale):
        if matrix:
            return multigammaln(dof / 2, d) - dof / 2 * np.linalg.slogdet(scale / 2)[1]
        return np.sum(gammaln(dof / 2) - dof / 2 * np.log(np.asarray(scale) / 2))

    def entry(scatter):
        if matrix:
            return scatter
        return np.trace(scatter) if structure in ("spherical", "EII") else np.diag(scatter)

    per_row = d if structure in ("spherical", "EII") else 1
    for labels in itertools.product([0, 1], repeat=len(x)):
        z = np.array(labels)
        counts = np.bincount(z, minlength=2)
        kappa = kappa0 + counts
        means, scatters = [], []
        for k in (0, 1):
            rows = x[z == k]
            centre = rows.mean(axis=0) if len(rows) else m0
            apart = centre - m0
            means.append((kappa0 * m0 + counts[k] * centre) / kappa[k])
            pull = kappa0 * counts[k] / kappa[k] * np.outer(apart, apart)
            scatters.append(entry((rows - centre).T @ (rows - centre) + pull))
        if shared:
            dofs = [prior.dof + per_row * len(x)]
            scales = [prior.scale + scatters[0] + scatters[1]]
        else:
            dofs = prior.dof + per_row * counts
            scales = [prior.scale + scatter for scatter in scatters]
        log_weight = sum(map(log_normaliser, dofs, scales))
        log_weight -= len(dofs) * log_normaliser(prior.dof, prior.scale)
        log_weight += d / 2 * np.sum(np.log(kappa0 / kappa))
        alpha = np.array(prior.concentration) + counts
        if fixed_weights is None:
            log_weight += np.sum(gammaln(alpha)) - gammaln(alpha.sum())
            share = alpha / alpha.sum()
            product = share[0] * alpha[1] / (alpha.sum() + 1)
        else:
            share = np.array(fixed_weights)
            log_weight += counts @ np.log(share)
            product = share[0] * share[1]

        # Moments of the parameters given this assignment.
        covariances, log_dets = [], []
        for dof, scale in zip(dofs, scales, strict=True):
            if matrix:
                covariances.append(scale / (dof - d - 1))
                half = digamma((dof - np.arange(d)) / 2)
                log_dets.append(np.linalg.slogdet(scale / 2)[1] - np.sum(half))
            else:
                variances = np.broadcast_to(scale, d) / (dof - 2)
                covariances.append(np.diag(variances))
                log_dets.append(np.sum(np.log(np.broadcast_to(scale, d) / 2) - digamma(dof / 2)))
        covariances = covariances * (2 if shared else 1)
        log_det = sum(log_dets) * (2 if shared else 1)
        mean = share[0] * means[0] + share[1] * means[1]
        second = sum(
            share[k] * (covariances[k] * (1 + 1 / kappa[k]) + np.outer(means[k], means[k]))
            for k in (0, 1)
        )
        expected = [*mean, second[0, 0], second[0, 1], second[1, 1], product, log_det]
        total += np.exp(log_weight)
        sums += np.exp(log_weight) * np.array(expected)
    return sums / total


@pytest.mark.turn
@pytest.mark.parametrize("structure", STRUCTURES)
def test_draws_agree_with_the_sum_over_all_assignments(structure):
    params = chains(the_model(structure), X, jax.random.key(1), 4000)
    drawn = features_of(*map(np.asarray, (params.weights, params.means, params.covariances)))
    for draws, truth in zip(drawn, exact(structure, X), strict=True):
        within_error(draws, truth)


def test_fixed_weights_stay_and_enter_the_labels():
    weights = [0.2, 0.8]
    params = chains(the_model("diag", weights), X, jax.random.key(2), 4000)
    assert np.all(params.weights == np.array(weights))
    drawn = features_of(*map(np.asarray, (params.weights, params.means, params.covariances)))
    truth = exact("diag", X, weights)
    for i in (0, 1, 2, 3, 4, 6):
        within_error(drawn[i], truth[i])


@pytest.mark.turn
def test_a_weight_is_a_number_of_copies_each_with_its_own_label():
    copies = np.array([2, 0, 1, 1, 3, 1, 0])
    params = chains(the_model("diag"), X, jax.random.key(3), 4000, sample_weight=copies)
    drawn = features_of(*map(np.asarray, (params.weights, params.means, params.covariances)))
    for draws, truth in zip(drawn, exact("diag", np.repeat(X, copies, axis=0)), strict=True):
        within_error(draws, truth)


# -- labels --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_labels_are_drawn_by_their_probability_however_rows_are_cut(dtype, key):
    probability = np.array([0.5, 0.0, 0.2, 0.3, 0.0])
    with np.errstate(divide="ignore"):
        logits = np.log(probability) + 7.0
    logits[4] = -60.0  # possible, but beyond rounding
    rows = jnp.asarray(np.tile(logits[:, None], 40_000), dtype)
    labels, log_density = sampled_labels(key, rows, 0)
    assert labels.dtype == log_density.dtype == dtype
    assert np.all(labels.sum(axis=0) == 1)
    np.testing.assert_allclose(log_density, 7.0, rtol=1e-6)
    counts = np.asarray(labels.sum(axis=1), float)
    assert counts[1] == counts[4] == 0
    expected = 40_000 * probability[[0, 2, 3]]
    assert stats.chisquare(counts[[0, 2, 3]], expected).pvalue > 1e-4  # its false-alarm rate
    tail, _ = sampled_labels(key, rows[:, 123:], 123)
    np.testing.assert_array_equal(tail, labels[:, 123:])


# -- the door ------------------------------------------------------------------------


@functools.cache
def faithful(dtype="float64", **options):
    fit = faithful_fit(dtype)
    options = {"progress": False} | options
    x = FAITHFUL.astype(dtype)
    return jg.sample(fit.model, x, key=jax.random.key(1), start=fit, method="gibbs", **options)


@functools.cache
def faithful_fit(dtype="float64"):
    if dtype == "float64":
        return old_faithful()[0]
    model = jg.Mixture(jg.Gaussian("full"), 2, prior="fraley-raftery")
    return jg.fit(model, FAITHFUL.astype(dtype), start=old_faithful()[0].params)


@pytest.mark.slow
def test_gibbs_and_nuts_draw_from_one_posterior():
    nuts, post = old_faithful()[1], faithful()
    for name in ("weights", "means", "covariances"):
        shape = nuts.draws[name].shape[2:]
        for index in np.ndindex(*shape):
            one, other = (p.draws[name][(..., *index)] for p in (nuts, post))
            for f in (lambda draws: draws, np.square):
                one_error, other_error = error(f(one)), error(f(other))
                apart = abs(f(one).mean() - f(other).mean())
                assert apart < SIGMAS * np.hypot(one_error, other_error)
    apart = abs(nuts.log_joint.mean() - post.log_joint.mean())
    assert apart < SIGMAS * np.hypot(error(nuts.log_joint), error(post.log_joint))


@pytest.mark.turn
def test_the_posterior_is_the_same_noun():
    fit, post = faithful_fit(), faithful()
    assert post.method == "gibbs"
    assert "gibbs: 4 chains x 1000 draws after 500 of warm-up, 0 divergences" in repr(post)
    assert set(post.draws) == {"weights", "means", "covariances", "covariances_full"}
    for chain, draw in ((0, 0), (2, 17), (3, 999)):
        params = jax.tree.map(lambda leaf, at=(chain, draw): jnp.asarray(leaf[at]), post.params)
        expected = float(fit.model.log_joint(params, post.x))
        assert post.log_joint[chain, draw] == pytest.approx(expected, rel=1e-12)
    assert array_stats.rhat(post.log_joint) < 1.01
    tree = post.to_arviz()
    assert tree["sample_stats"]["diverging"].dtype == bool


@pytest.mark.turn
def test_thinning_keeps_every_third_draw_and_a_bar_changes_none():
    every, third = faithful(), faithful(thinning=3, progress=True)
    for one, other in ((third.draws_raw["means"], every.draws_raw["means"]),
                       (third.log_joint, every.log_joint)):  # fmt: skip
        np.testing.assert_array_equal(one[:, :333], other[:, 2::3])


def test_without_warm_up_the_first_draw_is_no_mode():
    post = faithful(n_warmup=0)
    assert np.all(post.log_joint[:, 0] < faithful_fit().log_joint - 0.1)
    assert len(np.unique(post.draws["weights"][..., 0])) == 4000


@pytest.mark.turn
def test_single_precision_stays_single():
    post = faithful("float32")
    assert {str(draw.dtype) for draw in post.draws.values()} == {"float32"}
    draws = faithful().draws["means"]
    for j in range(2):
        one, other = post.draws["means"][:, :, 1, j].astype(float), draws[:, :, 1, j]
        assert abs(one.mean() - other.mean()) < SIGMAS * np.hypot(error(one), error(other))


def test_a_second_call_compiles_nothing(compilations):
    faithful.__wrapped__()  # the tests before may have freed what they compiled
    x = FAITHFUL[:-6] + np.array([0.5, -3.0])  # other data, not many fewer
    model = jg.Mixture(jg.Gaussian("full"), 2, prior="fraley-raftery")
    other = jg.fit(model, x, key=jax.random.key(0), n_init=4)
    with compilations:
        jg.sample(
            other.model, x, key=jax.random.key(6), start=other, method="gibbs", n_warmup=7,
            thinning=2, progress=False,
        )  # fmt: skip
    assert compilations.count == 0


def test_what_gibbs_cannot_do_it_refuses():
    fit = faithful_fit()
    sample = functools.partial(jg.sample, fit.model, FAITHFUL, key=jax.random.key(0), start=fit)
    with pytest.raises(ValueError, match="thinning: must be at least 1"):
        sample(method="gibbs", thinning=0)
    with pytest.raises(ValueError, match=r"Mixture has no conjugate prior.*nuts"):
        jg.LatentModel.updated(fit.model, None)
    weight = np.full(len(FAITHFUL), 1.5)
    weighted = jg.fit(fit.model, FAITHFUL, start=fit.params, sample_weight=weight)
    with pytest.raises(ValueError, match=r"sample_weight: .*whole numbers.*nuts"):
        sample(start=weighted, method="gibbs", sample_weight=weight)


def test_a_draw_without_a_density_is_refused_and_counted(key):
    model = the_model("spherical")
    model = dataclasses.replace(model, prior=dataclasses.replace(model.prior, scale=0.0))
    x = jnp.asarray(X)
    working = model.resolve(x).standardise(x)
    params = working.to_working(
        model.params(means=[[0.0, 0.0], [3.0, 3.0]], covariances=[1.0, 1.0])
    )
    equal = jnp.zeros_like(x)  # no spread, and no prior to add any
    chain, record = jax.jit(_sweep)(working, equal, None, Chain(params, key, jnp.array(False)))
    assert chain.refused
    assert not record.stats["diverging"]
    np.testing.assert_array_equal(chain.params.means, params.means)


# -- calibration: the sampler against the model that it samples ------------------------


def sweep(model, x, params, key):
    """One sweep in the units in which the sampler works, which are those of the data."""
    working = model.standardise(x)
    chain, _ = _sweep(working, x, None, Chain(working.to_working(params), key, jnp.array(False)))
    return working.to_user(chain.params)


def summaries(model, params, x):
    """Numbers that any error in labels, counts, scatter or scale would move."""
    log_det = jnp.sum(jnp.linalg.slogdet(params.covariances)[1])
    mean = params.weights @ params.means
    return jnp.stack(
        [
            params.weights[0],
            params.means[0, 0],
            log_det,
            mean[1],
            jnp.log(params.covariances[1, 0, 0]),
            jnp.log(jnp.sum(params.covariances[0])),
            model.log_likelihood(params, x),
        ]
    )


@pytest.mark.slow
@pytest.mark.parametrize("structure", STRUCTURES)
def test_joint_distribution(structure):
    """Geweke (2004), JASA 99:799-804: data drawn anew between sweeps leave the prior as it is.

    Seven numbers and their squares in six structures make 84 comparisons at 5 standard
    errors: one false alarm in 20,000 runs.
    """
    model, n = the_model(structure).resolve(X), 6
    with_data = lambda params, key: summaries(model, params, model.sample(params, key, n))

    @jax.jit
    def from_prior(key):
        def one(key):
            key_params, key_rows = jax.random.split(key)
            return with_data(model.draw_prior(key_params), key_rows)

        return jax.lax.map(one, jax.random.split(key, 40_000), batch_size=1000)

    @jax.jit
    def by_turns(key):
        def step(params, key):
            key_rows, key_sweep = jax.random.split(key)
            x = model.sample(params, key_rows, n)
            return sweep(model, x, params, key_sweep), summaries(model, params, x)

        def chain(key):
            key_start, key_steps = jax.random.split(key)
            steps = jax.random.split(key_steps, 10_000)
            return jax.lax.scan(step, model.draw_prior(key_start), steps)[1]

        return jax.vmap(chain)(jax.random.split(key, 8))

    direct = np.asarray(from_prior(jax.random.key(10)))
    drawn = np.asarray(by_turns(jax.random.key(11)))
    for i in range(direct.shape[1]):
        for f in (lambda values: values, np.square):
            one, other = f(direct[:, i]), f(drawn[:, :, i])
            apart = abs(one.mean() - other.mean())
            tolerance = np.hypot(one.std() / np.sqrt(len(one)), error(other))
            assert apart <= SIGMAS * tolerance


@pytest.mark.slow
@pytest.mark.parametrize("structure", STRUCTURES)
def test_calibration(structure):
    """Seven numbers in six structures: one false alarm in 2,400 runs."""

    def draw(model, x, params, key):
        again = lambda p, k: (sweep(model, x, p, k), None)
        return jax.lax.scan(again, params, jax.random.split(key, 4))[0]

    model = the_model(structure).resolve(X)
    p_values = calibration(model, draw, summaries, 12, jax.random.key(12))
    assert np.all(p_values > FALSE_ALARM)


def test_few_numbers_of_draws_are_compiled_for(compilations):
    assert [rung(n) for n in (4, 7, 9, 17, 500, 900, 1000, 1025)] == [
        4, 7, 10, 20, 512, 1024, 1024, 1280
    ]  # fmt: skip
    x = jnp.asarray(X)
    working = the_model("full").resolve(x).standardise(x)
    labels = jnp.where(jnp.arange(len(x))[:, None] % 2 == jnp.arange(2), 0.9, 0.1)
    start = working.m_step(working.statistics(labels, x))
    starts = Starts(jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), start))
    draw = lambda n: (
        Gibbs()
        .draw(working, x, None, starts, jax.random.key(0), Schedule(n, 3, 1), False)
        .params.means
    )
    many = draw(20)
    with compilations:
        fewer = draw(17)
    assert compilations.count == 0
    assert fewer.shape == (2, 17, 2, 2)
    np.testing.assert_array_equal(fewer, many[:, :17])
