"""The normal-inverse-Wishart density is NumPyro's, to the second derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jaxgmm.model._inverse_wishart import InverseWishart, NormalGivenCovariance, inverse

DIM = 3


def matrices(count, dtype=float):
    root = np.random.default_rng(0).standard_normal((count, DIM, 2 * DIM))
    return jnp.asarray(root @ np.swapaxes(root, 1, 2), dtype)


def ours(means, covariances, scale):
    normal = NormalGivenCovariance(jnp.arange(1.0, DIM + 1), covariances, 0.3)
    return normal.log_prob(means) + InverseWishart(5.5, scale).log_prob(covariances)


def numpyros(means, covariances, scale):
    normal = dist.MultivariateNormal(jnp.arange(1.0, DIM + 1), covariances / 0.3)
    return normal.log_prob(means) + dist.InverseWishart(5.5, scale).log_prob(covariances)


def test_the_density():
    covariances, scale, means = matrices(4), matrices(1)[0], jnp.zeros((4, DIM))
    found = ours(means, covariances, scale)
    assert found.shape == (4,)
    np.testing.assert_allclose(found, numpyros(means, covariances, scale), rtol=1e-12)


def test_the_inverse_keeps_the_dtype():
    precision, log_det = inverse(matrices(4, "float32"))
    assert precision.dtype == log_det.dtype == "float32"
    wide, wide_log_det = inverse(matrices(4))
    np.testing.assert_allclose(precision, wide, atol=1e-4 * np.max(np.abs(wide)))
    np.testing.assert_allclose(log_det, wide_log_det, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("derivative", [jax.grad, jax.hessian])
def test_its_derivatives(derivative):
    rows, columns = np.tril_indices(DIM)
    scale, means = matrices(1)[0], jnp.zeros(DIM)

    def of(density):
        def at(entries):
            factor = jnp.zeros((DIM, DIM)).at[rows, columns].set(entries)
            return density(means, factor @ factor.T, scale)

        return derivative(at)

    entries = jnp.linalg.cholesky(matrices(1)[0])[rows, columns]
    np.testing.assert_allclose(of(ours)(entries), of(numpyros)(entries), rtol=1e-9, atol=1e-9)


def test_several_means_share_a_covariance():
    covariance, means = matrices(1)[0], jnp.ones((5, DIM))
    found = NormalGivenCovariance(jnp.zeros(DIM), covariance, 2.0).log_prob(means)
    expected = dist.MultivariateNormal(jnp.zeros(DIM), covariance / 2.0).log_prob(means)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_matrix_outside_the_cone_has_no_inverse():
    precision, log_det = inverse(-jnp.eye(DIM))
    assert np.all(np.isnan(precision))
    assert np.isnan(log_det)
