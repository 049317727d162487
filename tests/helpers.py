"""Registries that every law runs over, and the same model written a second time."""

import contextlib
import dataclasses
import functools
import signal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.distributions import constraints

import jaxgmm as jg
from jaxgmm._programs import _store as _programs
from jaxgmm.local._unconstrained import from_vector, to_vector

STRUCTURE_OF = {structure.name: structure for structure in jg.model.STRUCTURES.values()}
# scikit-learn's four run through every law; the others take a subset in the quick lane.
STRUCTURES = ("full", "tied", "diag", "spherical")
OTHERS = tuple(name for name in STRUCTURE_OF if name not in STRUCTURES)
CURVED = tuple(name for name in OTHERS if name not in ("EII", "EEI"))
DATA = {name: jg.datasets.load(name).x for name in ("faithful", "galaxies", "iris")}
SMALL = DATA["faithful"][:90]


def explicit_prior(structure, x, k):
    """Hyper-parameters that are nobody's default, a concentration per component included."""
    d = x.shape[1]
    covariance = np.cov(x, rowvar=False).reshape(d, d)
    scales = {2: 0.3 * covariance, 1: 0.3 * np.diag(covariance), 0: 0.3 * np.trace(covariance) / d}
    return jg.ConjugatePrior(
        concentration=1.5 + np.arange(k),
        mean=x[0] + 0.1,
        mean_precision=0.2,
        dof=d + 3.5,
        scale=scales[len(STRUCTURE_OF[structure].prior_scale_shapes(d)[0])],
    )


# By name, what makes `Mixture(prior=...)` for a structure, data and K.
PRIORS = {
    "none": lambda structure, x, k: None,
    "fraley-raftery": lambda structure, x, k: "fraley-raftery",
    "conjugate": explicit_prior,
}


def mixture(structure, prior, x, k, weights=None):
    return jg.Mixture(
        jg.Gaussian(structure), k, prior=PRIORS[prior](structure, x, k), weights=weights
    )


def moved_prior(model, matrix, shift):
    """The model for data mapped to ``matrix @ x + shift``."""
    if not isinstance(model.prior, jg.ConjugatePrior):
        return model
    prior, scale = model.prior, model.prior.scale
    volume = np.abs(np.linalg.det(matrix)) ** (2 / len(matrix))
    scales = {
        2: lambda: matrix @ scale @ matrix.T,
        1: lambda: np.diag(matrix) ** 2 * scale,
        0: lambda: volume * scale,
    }
    moved = dataclasses.replace(
        prior, mean=matrix @ prior.mean + shift, scale=scales[np.ndim(scale)]()
    )
    return dataclasses.replace(model, prior=moved)


def soft_labels(n, k, seed=0):
    """Responsibilities (n, K) that differ enough for every component to be its own."""
    logits = 2 * np.random.default_rng(seed).standard_normal((n, k))
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def split_labels(x, k):
    """Responsibilities (n, K) that cut the rows into K slices of their first column."""
    order = np.argsort(np.argsort(x[:, 0], kind="stable"), kind="stable")
    return 0.9 * np.eye(k)[k * order // len(x)] + 0.1 / k


def starts(x, k, n_starts=4):
    """A stack (S, n, K): the slices, then random ones."""
    n = len(x)
    noisy = [
        0.5 * split_labels(x, k) + 0.5 * soft_labels(n, k, seed) for seed in range(1, n_starts)
    ]
    return np.stack([split_labels(x, k), *noisy])


@functools.cache
def tight_fit(data, structure, prior, k):
    """The best of four starts, run until nothing moves."""
    x = DATA[data]
    model = mixture(structure, prior, x, k)
    return jg.fit(model, x, start=starts(x, k), tol=1e-14, max_iter=20000)


def some_params(model, x, seed=0):
    """Parameters of any structure: the M-step at random responsibilities."""
    labels = jnp.asarray(soft_labels(len(x), model.n_components, seed), x.dtype)
    return _first_params(model, jnp.asarray(x), labels)


@jax.jit
def _first_params(model, x, labels):
    working = model.standardise(x)
    return working.to_user(working.m_step(working.statistics(labels, x)))


def numpyro_reference(model, x, sample_weight):
    """The mixture written a second time, with NumPyro's own distributions only."""
    k, d, prior = model.n_components, x.shape[1], model.prior
    code = STRUCTURE_OF[model.family.name].code
    matrix, spherical = code[2] != "I", code[1] == "I"
    shape = (() if "V" not in code else (k,)) + (() if matrix or spherical else (d,))

    def flat(support, event):
        return dist.ImproperUniform(support, (), event)

    if prior is None:
        support = constraints.positive_definite if matrix else constraints.positive
        site = numpyro.sample("covariances", flat(support, shape + (d, d) * matrix))
        means = numpyro.sample("means", flat(constraints.real, (k, d)))
    else:
        if matrix:
            variance = dist.InverseWishart(jnp.full(shape, prior.dof), prior.scale)
        else:
            variance = dist.InverseGamma(prior.dof / 2, jnp.broadcast_to(prior.scale, shape) / 2)
        site = numpyro.sample("covariances", variance.to_event(len(shape)))
        spread = site / prior.mean_precision
        if matrix:
            centre = dist.MultivariateNormal(jnp.broadcast_to(prior.mean, (k, d)), spread)
            means = numpyro.sample("means", centre.to_event(1))
        else:
            sd = jnp.sqrt(spread[..., None] if spherical else spread)
            centre = dist.Normal(jnp.broadcast_to(prior.mean, (k, d)), sd)
            means = numpyro.sample("means", centre.to_event(2))
    if model.weights is not None:
        weights = jnp.asarray(model.weights)
    elif prior is None:
        weights = numpyro.sample("weights", flat(constraints.simplex, (k,)))
    else:
        weights = numpyro.sample("weights", dist.Dirichlet(prior.concentration))
    if matrix:
        rows = dist.MultivariateNormal(means, jnp.broadcast_to(site, (k, d, d)))
    else:
        sd = jnp.sqrt(site[..., None] if spherical else site)
        rows = dist.Normal(means, jnp.broadcast_to(sd, (k, d))).to_event(1)
    whole = dist.MixtureSameFamily(dist.Categorical(probs=weights), rows)
    with numpyro.plate("rows", len(x)), handlers.scale(scale=sample_weight):
        numpyro.sample("x", whole, obs=x)


@contextlib.contextmanager
def full_disk(room):
    """No file may grow beyond ``room`` bytes: writing fails as it does on a full disk."""
    resource = pytest.importorskip("resource", reason="Windows limits no file sizes")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def tree_allclose(a, b, rtol, atol=0.0):
    """Assert that two pytrees hold the same numbers; ``atol`` counts the largest leaf entry."""
    left, right = jax.tree.leaves(a), jax.tree.leaves(b)
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert one.dtype == other.dtype
        size = np.max(np.abs(other), initial=0.0)
        np.testing.assert_allclose(one, other, rtol=rtol, atol=max(atol, rtol * size))


@_programs.program()
def decrement(model, params, x):
    """How far the top of the local quadratic is, in squared standard deviations."""

    def height(vector):
        return model.log_joint(from_vector(model, vector, params)[0], x)

    at = to_vector(model, params)
    gradient, curvature = jax.grad(height)(at), -jax.hessian(height)(at)
    scale = 1 / jnp.sqrt(jnp.maximum(jnp.abs(jnp.diagonal(curvature)), 1e-9))
    values, vectors = jnp.linalg.eigh(curvature * scale * scale[:, None])
    along = vectors.T @ (scale * gradient)
    return jnp.sum(along**2 / jnp.maximum(jnp.abs(values), 1e-6))
