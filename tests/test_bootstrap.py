"""Bootstrap: replicates by hand, laws of weights and labels, failures counted, the test for K."""

import dataclasses
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import DATA, split_labels, tree_allclose
from scipy import stats

import jaxgmm as jg
from jaxgmm.em import _bootstrap

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))
from three_coins import THROWS, Coins, ThreeCoins

FAITHFUL = DATA["faithful"]


def small_fit(prior="fraley-raftery", sample_weight=None, dtype=np.float64):
    x = FAITHFUL[:100, 1:].astype(dtype)
    model = jg.Mixture(jg.Gaussian("full"), 2, prior=prior)
    return jg.fit(model, x, start=split_labels(x, 2), sample_weight=sample_weight), x


@pytest.mark.slow
def test_a_replicate_is_em_on_resampled_rows_from_the_fit(key):
    """The prior stays at the numbers that were resolved for the data."""
    fit, x = small_fit()
    boot = jg.bootstrap(fit, x, key=key, n_replicates=5)

    @jax.jit
    def by_hand(one):
        counts = _bootstrap._counts(one, jnp.asarray(x), None, 100)
        return counts, jg.em.run(fit.model, jnp.asarray(x), fit.params, counts).params.means

    for i, one in enumerate(jax.random.split(key, 5)):
        counts, means = by_hand(one)
        assert counts.sum() == 100
        assert np.array_equal(counts, np.round(counts))
        np.testing.assert_allclose(boot.draws["means"][i], means, rtol=1e-6)
    drawn = boot.draws["means"][:, 0, 0]
    assert len(np.unique(drawn)) == 5


@pytest.mark.parametrize("kind", ["nonparametric", "weighted", "parametric"])
def test_errors_of_one_gaussian_are_the_textbooks(kind, key):
    x = FAITHFUL[:100]
    fit = jg.fit(jg.Mixture(jg.Gaussian("full"), 1), x, start=np.ones((100, 1)))
    boot = jg.bootstrap(fit, x, key=key, n_replicates=800, kind=kind)
    assert boot.unmatched == 0
    covariance = np.asarray(fit.params.covariances[0])
    # A standard deviation from 800 replicates is known to 1 / sqrt(1600) = 2.5%.
    expected = np.sqrt(np.diag(covariance) / 100)
    np.testing.assert_allclose(boot.standard_errors["means"][0], expected, rtol=0.1)
    low, high = boot.intervals(0.9)["means"][:, 0]
    np.testing.assert_allclose(high - low, 2 * 1.645 * expected, rtol=0.15)
    assert np.allclose(boot.draws["means"].mean(axis=0), fit.params.means, atol=4 * expected / 28)


@pytest.mark.slow
def test_the_key_decides_and_batches_do_not(key):
    fit, x = small_fit()
    one = jg.bootstrap(fit, x, key=key, n_replicates=7)
    same = jg.bootstrap(fit, x, key=key, n_replicates=7)
    batched = jg.bootstrap(fit, x, key=key, n_replicates=7, batch_size=3)
    other = jg.bootstrap(fit, x, key=jax.random.key(1), n_replicates=7)
    tree_allclose(one.draws, same.draws, rtol=0)
    tree_allclose(one.draws, batched.draws, rtol=1e-6)
    assert not np.allclose(one.draws["means"], other.draws["means"], rtol=1e-3)


@pytest.mark.slow
def test_an_integer_weight_is_the_row_repeated(key):
    weight = 1.0 + np.arange(100) % 3
    fit, x = small_fit(sample_weight=weight)
    repeated = np.repeat(x, weight.astype(int), axis=0)
    same = jg.fit(fit.model, repeated, start=fit.params)
    one = jg.bootstrap(fit, x, key=key, n_replicates=4, sample_weight=weight)
    other = jg.bootstrap(same, repeated, key=key, n_replicates=4)
    tree_allclose(one.draws, other.draws, rtol=1e-5)


def test_weights_of_the_weighted_bootstrap(key):
    x, weight = jnp.zeros((4, 1)), jnp.array([0.0, 1.0, 2.5, 1.5])
    draws = jax.vmap(lambda k: _bootstrap._dirichlet(k, x, weight, 4))(jax.random.split(key, 4000))
    assert np.allclose(draws.sum(axis=1), 5)
    assert np.all(draws[:, 0] == 0)
    # Dirichlet(w): mean w, variance w (W - w) / (W + 1) after scaling to W.
    w = np.asarray(weight)
    np.testing.assert_allclose(draws.mean(axis=0), w, atol=4 * 1.1 / np.sqrt(4000))
    np.testing.assert_allclose(draws.var(axis=0), w * (5 - w) / 6, rtol=0.15)


@pytest.mark.turn
def test_replicates_take_the_labels_of_the_fit(key, monkeypatch):
    """Runs whose labels come out swapped give the same draws; so does a renamed fit, renamed."""
    fit, x = small_fit()
    boot = jg.bootstrap(fit, x, key=key, n_replicates=4, max_iter=900)
    swap = jnp.array([1, 0])
    renamed = dataclasses.replace(fit, params=fit.model.permute(fit.params, swap))
    other = jg.bootstrap(renamed, x, key=key, n_replicates=4, max_iter=900)
    tree_allclose(other.draws, {k: v[:, ::-1] for k, v in boot.draws.items()}, rtol=1e-6)

    run = _bootstrap.run

    def swapped(model, *arguments):
        end = run(model, *arguments)
        return end._replace(params=model.permute(end.params, swap))

    monkeypatch.setattr(_bootstrap, "run", swapped)
    again = jg.bootstrap(fit, x, key=key, n_replicates=4, max_iter=901)  # traced anew
    tree_allclose(again.draws, boot.draws, rtol=1e-6)
    assert np.all(again.clarity > 0.5)


@pytest.mark.slow
def test_many_labels_are_matched_on_the_host(key):
    rng = np.random.default_rng(0)
    x = np.concatenate([10 * k + rng.normal(size=(20, 1)) for k in range(6)])
    fit = jg.fit(jg.Mixture(jg.Gaussian("E"), 6), x, start=np.repeat(np.eye(6), 20, axis=0))
    boot = jg.bootstrap(fit, x, key=key, n_replicates=6)
    assert boot.unmatched == 0
    assert np.allclose(boot.clarity, 1, atol=0.05)
    assert np.allclose(boot.draws["means"][:, :, 0], 10 * np.arange(6), atol=1.5)


@pytest.mark.slow
def test_what_cannot_be_matched_is_counted_and_never_averaged(key):
    fit, x = small_fit()
    stopped = jg.bootstrap(fit, x, key=key, n_replicates=5, max_iter=0)
    assert stopped.unmatched == 1
    assert stopped.counts.to_dict() == {"out of iterations": 5}
    with pytest.raises(ValueError, match=r"0 of 5 replicates .*5 out of iterations"):
        _ = stopped.standard_errors
    assert "5 out of iterations" in repr(stopped)

    # The same coin twice: which of the two is which, the data do not say.
    throws = jnp.array(THROWS, float)
    coins = jg.fit(ThreeCoins(), throws, start=Coins(*map(jnp.asarray, (0.5, 0.5, 0.5))))
    for kind in ("nonparametric", "parametric", "weighted"):
        boot = jg.bootstrap(coins, throws, key=key, n_replicates=6, kind=kind)
        assert boot.counts.to_dict() == {"ambiguous labels": 6}
        # What the data identify is there all the same.
        heads = boot.params.pi * boot.params.p + (1 - boot.params.pi) * boot.params.q
        assert np.all((heads >= 0) & (heads <= 1))
        assert np.ptp(heads) > 0


@pytest.mark.turn
def test_the_table_and_float32(key):
    fit, x = small_fit(dtype=np.float32)
    boot = jg.bootstrap(fit, x, key=key, n_replicates=20)
    assert {draw.dtype for draw in boot.draws.values()} == {np.dtype(np.float32)}
    assert {value.dtype for value in boot.intervals().values()} == {np.dtype(np.float32)}
    assert {value.dtype for value in boot.standard_errors.values()} == {np.dtype(np.float32)}
    assert list(boot.table.columns) == [
        *("estimate", "bias", "standard_error", "eti95_low", "eti95_high")
    ]
    assert len(boot.table) == 6
    assert np.all(boot.table["eti95_low"] < boot.table["eti95_high"])


@pytest.mark.turn
def test_new_data_of_the_same_shape_compile_nothing(key, compilations):
    fit, x = small_fit()
    jg.bootstrap(fit, x, key=key, n_replicates=7)
    fewer = x[:-1] + 1
    moved = jg.fit(fit.model, fewer, start=split_labels(fewer, 2))
    with compilations:
        jg.bootstrap(moved, fewer, key=jax.random.key(8), n_replicates=7, tol=1e-7)
    assert compilations.count == 0


def test_the_door(key):
    fit, x = small_fit()
    with pytest.raises(ValueError, match="not the data or the weights of this fit"):
        jg.bootstrap(fit, x + 1, key=key)
    with pytest.raises(ValueError, match="did you mean 'parametric'"):
        jg.bootstrap(fit, x, key=key, kind="parametrics")
    with pytest.raises(TypeError, match="typed random key"):
        jg.bootstrap(fit, x, key=0)
    with pytest.raises(ValueError, match="n_replicates: must be at least 2"):
        jg.bootstrap(fit, x, key=key, n_replicates=1)
    fractions = np.full(100, 0.5)
    fit, x = small_fit(sample_weight=fractions)
    with pytest.raises(ValueError, match="needs counts, found fractions"):
        jg.bootstrap(fit, x, key=key, sample_weight=fractions)


# -- the likelihood-ratio test -------------------------------------------------------

TWO = np.concatenate([stats.norm.ppf((np.arange(60) + 0.5) / 60) + m for m in (0, 6)])


def gaussians(k):
    return jg.Mixture(jg.Gaussian("V"), k)


@pytest.mark.slow
def test_two_components_are_needed_and_a_third_is_not(key):
    needed = jg.bootstrap_lrt(gaussians(1), TWO, key=key, n_replicates=39)
    assert needed.p_value == 1 / (40 - needed.n_failed)
    third = jg.bootstrap_lrt(gaussians(2), TWO, key=key, n_replicates=39)
    assert third.p_value > 0.2
    for test in (needed, third):
        assert len(test.statistics) + test.n_failed == 39
        assert np.all(np.isfinite(test.statistics))
        gain = test.alternative.log_likelihood - test.null.log_likelihood
        assert test.statistic == pytest.approx(2 * gain)
        assert test.p_value == (1 + np.sum(test.statistics >= test.statistic)) / (
            1 + len(test.statistics)
        )
    # The larger model is searched well enough never to end below the smaller one.
    assert np.min(third.statistics) > -1e-3


def test_doors_of_the_test(key):
    with pytest.raises(ValueError, match="needs at least the 2 component"):
        jg.bootstrap_lrt(gaussians(2), TWO, key=key, alternative=gaussians(1))
    with pytest.raises(ValueError, match="n_components to raise"):
        jg.bootstrap_lrt(ThreeCoins(), THROWS, key=key)
    with pytest.raises(ValueError, match="key: replicates are random"):
        jg.bootstrap_lrt(gaussians(1), TWO, key=None)
    with pytest.raises(ValueError, match="needs counts, found fractions"):
        jg.bootstrap_lrt(gaussians(1), TWO, key=key, sample_weight=np.full(120, 0.5))


@pytest.mark.slow
def test_under_the_null_p_values_are_uniform(key):
    """With one variance for all: with several a fit of noise may end on a few rows only."""
    equal = jg.Mixture(jg.Gaussian("E"), 1)
    keys = jax.random.split(key, 60)
    data = np.asarray(jax.vmap(lambda k: jax.random.normal(k, (60,)))(keys))
    again = jax.random.split(jax.random.key(5), 60)
    p = [
        jg.bootstrap_lrt(equal, x, key=one, n_replicates=39).p_value
        for x, one in zip(data, again, strict=True)
    ]
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    # The share below 0.1 of 60 independent tests of that size.
    assert stats.binomtest(int(np.sum(np.array(p) <= 0.1)), 60, 0.1).pvalue > 1e-3
