"""Standard errors: against numerical ones, closed forms, and honest where there are none."""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import DATA, split_labels, tight_fit
from numpyro.distributions import constraints

import jaxgmm as jg
from jaxgmm.em._information import _moments

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))
from three_coins import THROWS, Coins, ThreeCoins

FAITHFUL = DATA["faithful"]
REFERENCE = json.loads((pathlib.Path(__file__).parent / "data" / "information.json").read_text())


def natural(params):
    """The parameters in the reference's order: p, means, standard deviations."""
    sd = jnp.sqrt(params.covariances[:, 0, 0])
    return jnp.concatenate([params.weights[:1], params.means[:, 0], sd])


def waiting_fit(dtype=np.float64, **options):
    x = FAITHFUL[:, 1:].astype(dtype)
    model = jg.Mixture(jg.Gaussian("V"), 2)
    options = {"tol": 1e-14, "max_iter": 5000, **options}
    return jg.fit(model, x, start=split_labels(x, 2), **options), x


@pytest.mark.turn
@pytest.mark.parametrize(("kind", "error"), [("information", "hessian"), ("opg", "opg")])
def test_errors_agree_with_independent_ones(kind, error):
    """Against R: numDeriv's Hessian, and outer products of scores; sd by the delta method."""
    fit, x = waiting_fit()
    errors = jg.standard_errors(fit, x, kind=kind)
    value, found, covariance = errors.delta(natural)
    np.testing.assert_allclose(value, REFERENCE["mle"], rtol=1e-9)
    np.testing.assert_allclose(found, REFERENCE[f"se_{error}"], rtol=1e-5)
    np.testing.assert_allclose(found, np.sqrt(np.diag(covariance)), rtol=1e-12)
    if kind == "information":
        np.testing.assert_allclose(covariance, REFERENCE["vcov"], rtol=1e-4)
    assert errors.definite
    assert errors.condition < 1e3
    assert "positive definite" in errors.status


def test_one_gaussian_has_its_closed_forms():
    """Var(mean) = S / n, Var(S_ij) = (S_ii S_jj + S_ij^2) / n; the sandwich from fourth moments."""
    fit = jg.fit(jg.Mixture(jg.Gaussian("full"), 1), FAITHFUL, start=np.ones((272, 1)))
    s, n = np.asarray(fit.params.covariances[0]), len(FAITHFUL)
    found = jg.standard_errors(fit, FAITHFUL)
    errors = found.standard_errors
    np.testing.assert_allclose(errors["means"][0], np.sqrt(np.diag(s) / n), rtol=1e-9)
    variance = (np.outer(np.diag(s), np.diag(s)) + s**2) / n
    np.testing.assert_allclose(errors["covariances"][0], np.sqrt(variance), rtol=1e-9)
    assert errors["weights"].tolist() == [0.0]

    robust = found.by("sandwich").standard_errors
    centred = FAITHFUL - FAITHFUL.mean(axis=0)
    products = centred[:, :, None] * centred[:, None, :]
    np.testing.assert_allclose(robust["means"][0], np.sqrt(np.diag(s) / n), rtol=1e-9)
    np.testing.assert_allclose(
        robust["covariances"][0], products.std(axis=0) / np.sqrt(n), rtol=1e-9
    )


def test_all_weights_have_errors_and_shapes_are_those_of_the_sites():
    fit = tight_fit("iris", "diag", "fraley-raftery", 3)
    errors = jg.standard_errors(fit, DATA["iris"])
    sites = fit.model.sites(fit.params)
    assert {name: found.shape for name, found in errors.standard_errors.items()} == {
        **{name: site.shape for name, site in sites.items()},
        "covariances_full": (3, 4, 4),
    }
    assert np.all(errors.standard_errors["weights"] > 0)
    assert errors.covariance.shape == (fit.n_parameters, fit.n_parameters)
    assert len(errors.table) == 3 + 12 + 12
    assert list(errors.table.columns) == ["estimate", "standard_error"]
    total = errors.delta(lambda params: params.weights.sum())
    assert total.standard_error == pytest.approx(0, abs=1e-8)


@pytest.mark.slow
def test_an_integer_weight_is_the_row_repeated():
    """Also with a prior, where the scores of the rows do not sum to zero."""
    weight = 1.0 + np.arange(272) % 3
    repeated = np.repeat(FAITHFUL, weight.astype(int), axis=0)
    model = jg.Mixture(jg.Gaussian("full"), 2, prior="fraley-raftery")
    fit = jg.fit(model, FAITHFUL, start=split_labels(FAITHFUL, 2), sample_weight=weight, tol=1e-14)
    same = jg.fit(fit.model, repeated, start=fit.params, tol=1e-14)
    for kind in ("information", "sandwich", "opg"):
        one = jg.standard_errors(fit, FAITHFUL, kind=kind, sample_weight=weight)
        other = jg.standard_errors(same, repeated, kind=kind)
        np.testing.assert_allclose(one.covariance, other.covariance, rtol=1e-6, atol=1e-9)


def test_chunks_add_up_and_nothing_depends_on_units():
    """Several blocks of rows; columns in units 1e3 apart and far from the origin."""
    n = 5000
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n, 2))
    rows[n // 2 :] = 4 + 2 * rows[n // 2 :]
    scale = np.array([1e-3, 1.0])
    model = jg.Mixture(jg.Gaussian("full"), 2)
    start = split_labels(rows, 2)
    fit = jg.fit(model, rows, start=start, tol=1e-14)
    moved = jg.fit(model, 10 + scale * rows, start=start, tol=1e-14)
    one = jg.standard_errors(fit, rows)
    other = jg.standard_errors(moved, 10 + scale * rows)
    assert one.definite
    means = other.standard_errors["means"]
    np.testing.assert_allclose(means / scale, one.standard_errors["means"], rtol=1e-5)

    # Against one derivative of the whole log likelihood, in the very same chart.
    def whole(tangent):
        return jnp.sum(model.log_prob(fit.model.retract(fit.params, tangent), rows))

    expected = -jax.jit(jax.hessian(whole))(jnp.zeros(fit.n_parameters))
    np.testing.assert_allclose(one.information, expected, rtol=1e-9, atol=1e-6)


def test_float32_stays_float32():
    fit, x = waiting_fit(np.float32, tol=None)
    errors = jg.standard_errors(fit, x)
    _, found, covariance = errors.delta(natural)
    assert {a.dtype for a in (found, covariance, *errors.standard_errors.values())} == {x.dtype}
    # EM in float32 ends some hundredths of an error off the mode, where the curvature differs.
    np.testing.assert_allclose(found, REFERENCE["se_hessian"], rtol=5e-3)
    assert errors.definite


def test_a_ridge_has_infinite_errors_except_for_what_the_data_identify():
    x = jnp.array(THROWS, float)
    fit = jg.fit(ThreeCoins(), x, start=Coins(*map(jnp.asarray, (0.4, 0.6, 0.7))))
    first = jg.standard_errors(fit, x)
    for kind in ("information", "sandwich", "opg"):
        errors = jg.standard_errors(fit, x, kind=kind)
        assert errors.n_flat == 2
        assert not errors.definite
        assert errors.condition == np.inf
        assert "not identified: 2 flat" in errors.status
        assert np.all(errors.table["standard_error"] == np.inf)
        assert not np.any(np.isnan(errors.covariance))
        np.testing.assert_array_equal(errors.covariance, first.by(kind).covariance)
        heads = errors.delta(lambda coins: coins.pi * coins.p + (1 - coins.pi) * coins.q)
        assert heads.standard_error == pytest.approx(np.sqrt(0.6 * 0.4 / 10), rel=1e-6)


@pytest.mark.slow
def test_a_saddle_is_called_one():
    """Two equal components at the maximum of one: EM's steps stay, the likelihood rises."""
    model = jg.Mixture(jg.Gaussian("full"), 2)
    fit = jg.fit(model, FAITHFUL, start=np.full((272, 2), 0.5), max_iter=0)
    errors = jg.standard_errors(fit, FAITHFUL)
    assert errors.n_negative > 0
    assert "not a maximum" in errors.status
    assert np.all(errors.standard_errors["means"] == np.inf)
    average = errors.delta(lambda params: params.weights @ params.means)
    assert np.all(np.isfinite(average.standard_error))


def test_a_fit_that_stopped_early_says_so():
    fit, x = waiting_fit(max_iter=2)
    errors = jg.standard_errors(fit, x)
    assert errors.newton_decrement > 0.1
    assert "stopped early" in errors.status


def test_new_data_of_the_same_shape_compile_nothing(compilations):
    fit, x = waiting_fit()
    jg.standard_errors(fit, x)
    moved, other = jg.fit(fit.model, x + 1, start=split_labels(x, 2)), x + 1
    with compilations:
        jg.standard_errors(moved, other, kind="sandwich")
    assert compilations.count == 0


def test_the_door():
    fit, x = waiting_fit()
    with pytest.raises(ValueError, match="not the data or the weights of this fit"):
        jg.standard_errors(fit, x + 1)
    with pytest.raises(ValueError, match="not the data or the weights of this fit"):
        jg.standard_errors(fit, x, sample_weight=np.ones(272))
    with pytest.raises(ValueError, match="did you mean 'sandwich'"):
        jg.standard_errors(fit, x, kind="sandwhich")
    with pytest.raises(ValueError, match="did you mean 'sandwich'"):
        jg.standard_errors(fit, x).by("sandwhich")
    with pytest.raises(TypeError, match="needs a Fit"):
        jg.standard_errors(fit.params, x)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there a block holds all these rows")
def test_derivatives_hold_a_block_of_rows_at_a_time():
    n, model = 200_000, jg.Mixture(jg.Gaussian("full"), 2).resolve(FAITHFUL)
    params = model.params(means=FAITHFUL[:2], covariances=np.stack([np.eye(2)] * 2))
    rows = jax.ShapeDtypeStruct((n, 2), jnp.float64)
    model = model.settled(params)
    compiled = jax.jit(_moments.__wrapped__).lower(model, params, rows, None).compile()
    # A number per row, component and direction would be eleven times this.
    assert compiled.memory_analysis().temp_size_in_bytes < n * 2 * 8


def test_a_flat_prior_of_a_model_of_ones_own_is_not_sampled():
    class Flat(ThreeCoins):
        def prior_sites(self):
            flat = dist.ImproperUniform(constraints.unit_interval, (), ()).expand([1]).to_event(1)
            return {**super().prior_sites(), "q": lambda _: flat}

    with pytest.raises(ValueError, match="'q' has an improper distribution"):
        jg.sample(Flat(), jnp.array(THROWS, float), key=jax.random.key(0), progress=False)
