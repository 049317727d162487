"""Models whose M-step is a Newton step on the expected log joint."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import tree_allclose

import jaxgmm as jg
from jaxgmm.em._step import evaluate
from jaxgmm.local._unconstrained import from_vector, to_vector


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Lines(jg.NumericalModel):
    """Two Poisson regressions: rows are (count, covariate)."""

    sd: jax.Array
    n_components = 2

    def prior_sites(self):
        slopes = dist.Normal(0.0, self.sd).expand([2, 2]).to_event(2)
        return {"weights": lambda _: dist.Dirichlet(jnp.full(2, 2.0)), "slopes": lambda _: slopes}

    def logits(self, params, x):
        along = params["slopes"] @ jnp.stack([jnp.ones(len(x), x.dtype), x[:, 1]])
        rows = dist.Poisson(jnp.exp(along)).log_prob(x[:, 0])
        return jnp.log(params["weights"])[:, None] + rows


def _rows(n=150, seed=0):
    noise = np.random.default_rng(seed)
    z, label = noise.uniform(-1, 1, n), noise.integers(0, 2, n)
    slopes = np.array([[0.5, 2.0], [2.5, -1.0]])
    counts = noise.poisson(np.exp(slopes[label, 0] + slopes[label, 1] * z))
    return jnp.asarray(np.stack([counts, z], axis=1), float)


MODEL = Lines(jnp.array(3.0))
NEAR = {"weights": jnp.array([0.4, 0.6]), "slopes": jnp.array([[0.3, 1.5], [2.0, -0.5]])}
FAR = {"weights": jnp.array([0.9, 0.1]), "slopes": jnp.array([[-6.0, -6.0], [-6.0, 6.0]])}


@jax.jit
def _e_step(x, weight):
    return MODEL.e_step(NEAR, x, weight)


def test_the_gradient_of_q_is_that_of_the_likelihood():
    """Fisher's identity, at any parameters."""
    x, weight = _rows(), jnp.arange(150) % 3 / 2
    expansion, value = _e_step(x, weight)

    def log_likelihood(vector):
        return MODEL.log_likelihood(from_vector(MODEL, vector, NEAR)[0], x, weight)

    @jax.jit
    def derivatives():
        at = to_vector(MODEL, NEAR)
        return jax.value_and_grad(log_likelihood)(at), jax.hessian(log_likelihood)(at)

    (height, slope), bend = derivatives()
    np.testing.assert_allclose(expansion.gradient, slope, rtol=1e-10)
    np.testing.assert_allclose(value, height, rtol=1e-12)
    assert jnp.sum(expansion.counts) == pytest.approx(float(jnp.sum(weight)))
    # What the labels hide makes the likelihood flatter than Q.
    hidden = bend - expansion.curvature
    assert jnp.min(jnp.linalg.eigvalsh(hidden)) > -1e-8


def test_statistics_add():
    x, weight = _rows(), jnp.arange(150) % 3
    ones = jnp.ones(150)
    whole, _ = _e_step(x, 1.0 * weight)
    parts = [_e_step(x[rows], 1.0 * weight[rows])[0] for rows in (slice(75), slice(75, 150))]
    tree_allclose(MODEL.add(*parts), whole, 1e-10)
    copies, _ = _e_step(jnp.repeat(x, weight, axis=0), ones)
    tree_allclose(copies, whole, 1e-10)
    # Several blocks and a tail.
    many, _ = _e_step(jnp.tile(x, (30, 1)), jnp.tile(ones, 30))
    tree_allclose(many, _e_step(x, 30 * ones)[0], 1e-9)


@pytest.mark.turn
def test_a_far_start_converges_where_a_plain_step_falls():
    x = _rows()
    point = evaluate(MODEL, FAR, x, None)
    plain = evaluate(MODEL, MODEL.m_step(point.statistics, FAR), x, None)
    assert not plain.objective >= point.objective
    fit = jg.fit(MODEL, x, start=FAR)
    assert fit.converged
    assert fit.n_evaluations > fit.n_iter + 1  # something was refused
    assert np.min(np.diff(fit.trace)) >= -1e-9
    slope = jax.grad(MODEL.log_joint)(fit.params, x)["slopes"]
    assert jnp.max(jnp.abs(slope)) < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("acceleration", ["squarem", "anderson"])
def test_leaps_end_at_the_same_optimum(acceleration):
    x = _rows()
    plain = jg.fit(MODEL, x, key=jax.random.key(0), tol=1e-12)
    leapt = jg.fit(MODEL, x, key=jax.random.key(0), tol=1e-12, acceleration=acceleration)
    assert leapt.converged
    assert leapt.log_joint == pytest.approx(plain.log_joint, abs=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("newton", [1, 4])
def test_ends_differentiate(newton):
    """By the implicit function theorem, whatever the M-step."""
    x = _rows()

    @jax.jit
    def end(sd):
        model = Exact(sd, newton) if newton > 1 else Lines(sd)
        return jg.em.run(model, x, NEAR, tol=1e-14).params["slopes"][0, 1]

    slope = jax.grad(end)(jnp.array(1.0))
    step = 1e-4
    np.testing.assert_allclose(slope, (end(1.0 + step) - end(1.0 - step)) / (2 * step), rtol=1e-4)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Exact(Lines):
    newton: int = dataclasses.field(default=1, metadata={"static": True})


@pytest.mark.slow
def test_single_precision():
    x = _rows().astype(jnp.float32)
    single = jg.fit(Lines(jnp.float32(3.0)), x, start=NEAR)
    double = jg.fit(MODEL, _rows(), start=NEAR)
    assert single.converged
    assert {leaf.dtype for leaf in single.params.values()} == {jnp.dtype("float32")}
    np.testing.assert_allclose(single.params["slopes"], double.params["slopes"], atol=1e-2)


def test_a_start_by_a_function_of_a_key(compilations):
    x = _rows()

    def start(key):
        return NEAR | {"slopes": NEAR["slopes"] + 0.1 * jax.random.normal(key, (2, 2))}

    fit = jg.fit(MODEL, x, start=start, key=jax.random.key(0), n_init=2)
    assert len(fit.restarts.status) == 2
    assert fit.start == "given"
    other = Lines(jnp.array(2.0))
    with compilations:
        jg.fit(other, x, start=start, key=jax.random.key(1), n_init=2, tol=1e-6)
    assert compilations.count == 0
    with pytest.raises(ValueError, match="key: a function as start takes keys"):
        jg.fit(MODEL, x, start=start)


@pytest.mark.slow
def test_a_mixture_starts_at_draws_of_its_prior():
    x = jg.datasets.load("faithful").x[:60]
    prior = jg.ConjugatePrior(
        mean=[3.0, 70.0], mean_precision=0.1, dof=5.0, scale=np.diag([1.0, 99.0])
    )
    model = jg.Mixture(jg.Gaussian("full"), 2, prior=prior)
    fit = jg.fit(model, x, start="prior", key=jax.random.key(0), n_init=4)
    assert fit.converged
    with pytest.raises(ValueError, match='start: "prior"'):
        jg.fit(jg.Mixture(jg.Gaussian("full"), 2), x, start="prior", key=jax.random.key(0))
