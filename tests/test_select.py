"""Selection: one row per model, published criteria, failures as rows."""

import jax
import numpy as np
import pytest

import jaxgmm as jg

FAITHFUL = jg.datasets.load("faithful").x


def test_old_faithful_agrees_with_mclusts_published_table():
    """BIC of G = 1, 2 (mclust's with the sign turned), VVV and EEE."""
    models = [jg.Mixture(jg.Gaussian(code), k) for code in ("VVV", "EEE") for k in (1, 2)]
    choice = jg.select(models, FAITHFUL, key=jax.random.key(2), n_init=4)
    published = [2607.623, 2322.192, 2607.623, 2325.220]
    assert np.allclose(choice.table["bic"], published, atol=0.01)
    assert list(choice.table["n_parameters"]) == [5, 11, 5, 8]
    assert choice.best.bic == choice.table["bic"].min()
    assert choice.best.model.family.name == "full"


def test_a_model_that_fails_is_a_row_with_its_reason():
    x = np.repeat([[0.0, 1.0], [2.0, 0.5], [5.0, 5.0]], 20, axis=0)
    models = [jg.Mixture(jg.Gaussian("spherical"), 1), jg.Mixture(jg.Gaussian("full"), 5)]
    choice = jg.select(models, x, key=jax.random.key(0), n_init=2)
    assert "distinct rows" in choice.table["reason"].iloc[1]
    assert np.isnan(choice.table["bic"].iloc[1])
    assert choice.best.model.n_components == 1
    failed = jg.select(models[1:], x, key=jax.random.key(0), n_init=2)
    with pytest.raises(ValueError, match="no model could be fitted"):
        _ = failed.best


def test_a_spurious_optimum_never_wins():
    """Galaxies with five unequal variances hang on two rows; four do not."""
    x = jg.datasets.load("galaxies").x
    models = [jg.Mixture(jg.Gaussian("V"), k) for k in (3, 5)]
    choice = jg.select(models, x, key=jax.random.key(0), n_init=64, criterion="aic")
    assert not choice.best.spurious
    assert choice.table["log_likelihood"].iloc[0] == pytest.approx(-203.1792, abs=1e-3)


def test_bad_arguments_name_themselves():
    model = jg.Mixture(jg.Gaussian(), 1)
    with pytest.raises(ValueError, match="models"):
        jg.select([], FAITHFUL, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"criterion.*did you mean 'bic'"):
        jg.select([model], FAITHFUL, key=jax.random.key(0), criterion="bik")
    with pytest.raises(ValueError, match="key"):
        jg.select([model], FAITHFUL, key=None)
