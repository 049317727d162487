"""The laws of the library over the mixtures of `MODELS`: regressions, tails, factors, gates, ..."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import MODELS
from helpers import soft_labels, tree_allclose
from numpyro.infer.util import log_density

import jaxgmm as jg


def _lane(name, prior=None):
    """Few are in the quick lane, under their usual prior."""
    case = MODELS[name]
    quick = case.quick and prior in (None, case.usual)
    return [] if quick else [pytest.mark.turn]


each_model = pytest.mark.parametrize("name", [pytest.param(n, marks=_lane(n)) for n in MODELS])
each_model_and_prior = pytest.mark.parametrize(
    ("name", "prior"),
    [pytest.param(n, p, marks=_lane(n, p)) for n, model in MODELS.items() for p in model.priors],
)
# A fit to where nothing moves.
TIGHT = {"tol": 1e-14, "max_iter": 5000}


def start(name, seed=0):
    model = MODELS[name]
    return soft_labels(len(model.x), model.k, seed)


@functools.cache
def fitted(name, prior):
    """From two starts, of which one has two labels of the other renamed."""
    model, labels = MODELS[name], start(name)
    stack = np.stack([labels, labels[:, model.order]])
    return jg.fit(model.mixture(prior), model.rows(), start=stack, **TIGHT)


def seen(fit, name):
    """The rows as densities take them."""
    _, x = fit.model.read(MODELS[name].rows())
    return jnp.asarray(getattr(x, "values", x))


@jax.jit
def first_params(model, labels, x):
    """The M-step at given labels, in the user's units."""
    working = model.standardise(x)
    return working.to_user(working.m_step(working.statistics(labels, x)))


# -- laws 1, 2, 6 and 9: the number, its mode, labels that mean nothing, and the count ---------


@functools.partial(jax.jit, static_argnames="logits")
def _numbers(model, params, x, weight, logits):
    """Log densities by ourselves, by our program and by another hand; slopes, and rows' slopes."""
    working, sites = model.standardise(x), model.sites(params)
    near = working.to_working(params)
    program = lambda of, at: log_density(of.numpyro_model, (x, None, weight), {}, at)[0]
    ours = [
        model.log_joint(params, x, weight),
        working.log_joint(near, x, weight),
        program(model, sites),
        program(working, working.sites(near)),
    ]
    other = weight @ jax.nn.logsumexp(logits(sites, x), axis=1)
    rows = lambda step: working.log_prob(working.retract(near, step), x)
    joint = lambda step: working.log_joint(working.retract(near, step), x)
    origin = jnp.zeros(working.tangent_size(near))
    return ours, other, jax.grad(joint)(origin), jax.jacfwd(rows)(origin)


def _written_prior(prior, sites):
    """Its log density by the distributions as they are written; a rule has tests of its own."""
    if not isinstance(prior, dict):
        return 0.0 if prior is None else None
    return sum(float(jnp.sum(prior[name].log_prob(site))) for name, site in sites.items())


@each_model_and_prior
def test_one_density_and_its_mode(name, prior):
    case, fit = MODELS[name], fitted(name, prior)
    x, uneven = seen(fit, name), jnp.arange(len(case.x)) % 3 + 0.5
    assert fit.converged
    model = fit.model
    somewhere = first_params(model, start(name, seed=3), x)
    for params, weight in [(somewhere, uneven), (fit.params, jnp.ones(len(x)))]:
        ours, other, slope, jacobian = _numbers(model, params, x, weight, case.logits)
        of_prior = model.log_prior(params)
        np.testing.assert_allclose(ours, other + of_prior, rtol=1e-10)
        written = _written_prior(case.priors[prior], model.sites(params))
        if written is not None:
            np.testing.assert_allclose(of_prior, written, rtol=1e-10, atol=1e-12)
        if params is somewhere:
            # At generic parameters, as many directions as there are parameters; rounding of none
            # is 1e-15.
            assert jacobian.shape[1] == fit.n_parameters
            singular = np.linalg.svd(jacobian, compute_uv=False)
            assert singular[-1] > 1e-9 * singular[0]
    np.testing.assert_allclose(fit.log_joint, ours, rtol=1e-10)
    assert np.max(np.abs(slope)) < 1e-6 * len(x)
    if prior != "sites":  # of which the concentrations differ
        first, second = (jax.tree.map(lambda a, s=s: a[s], fit.restarts.params) for s in (0, 1))
        tree_allclose(model.permute(first, jnp.asarray(case.order)), second, 1e-5, 1e-7)
        np.testing.assert_allclose(*fit.restarts.log_joint, rtol=1e-12)


# -- law 3: EM never descends ----------------------------------------------------------------


@each_model
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_em_never_descends(name, dtype):
    case, prior = MODELS[name], MODELS[name].usual
    if dtype == "float64":
        fit = fitted(name, prior)
    else:
        fit = jg.fit(case.mixture(prior), case.rows(dtype), start=start(name).astype(dtype))
        if jax.config.jax_enable_x64:
            np.testing.assert_allclose(fit.log_joint, fitted(name, prior).log_joint, rtol=1e-4)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(fit.params))
    bound = np.finfo(dtype).eps * 64 * (np.max(np.abs(fit.trace)) + len(case.x))
    assert np.min(np.diff(fit.trace)) >= -bound
    assert fit.trace[-1] - fit.trace[0] > 20 * bound


# -- law 4: statistics add -------------------------------------------------------------------


@jax.jit
def _e_step(model, params, x, weight):
    return model.e_step(params, x, weight)


@each_model
def test_statistics_add_and_a_weight_counts_rows(name):
    fit = fitted(name, MODELS[name].usual)
    x, n = seen(fit, name), len(MODELS[name].x)
    model = fit.model.standardise(x)
    params = model.to_working(first_params(fit.model, start(name, seed=3), x))
    step = functools.partial(_e_step, model, params)
    whole, value = step(x, jnp.ones(n))
    # Rows of weight zero are absent.
    early = 1.0 * (jnp.arange(n) < n // 3)
    parts = [step(x, weight) for weight in (early, 1 - early)]
    tree_allclose(model.add(parts[0][0], parts[1][0]), whole, 1e-9, 1e-11)
    np.testing.assert_allclose(parts[0][1] + parts[1][1], value, rtol=1e-12)
    counts = np.arange(n) % 3
    copies = step(x[np.repeat(np.arange(n), counts)], jnp.ones(n))
    tree_allclose(step(x, jnp.asarray(counts, float)), copies, 1e-9, 1e-11)
    times = 10_000 // n  # several blocks
    many, of_many = step(jnp.tile(x, (times, 1)), jnp.ones(times * n))
    np.testing.assert_allclose(of_many, times * value, rtol=1e-10)
    tree_allclose(many, model.add(whole, whole, (times / 2, times / 2)), 1e-9, 1e-6)


# -- laws 5 and 7: units, and one program ------------------------------------------------------


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=_lane(n)) for n, model in MODELS.items() if model.maps]
)
def test_a_fit_moves_with_the_data_by_the_same_program(name, compilations):
    prior = MODELS[name].usual
    case, here = MODELS[name], fitted(name, prior)
    labels = start(name)
    stack = np.stack([labels, labels[:, case.order]])
    jg.fit(case.mixture(prior), case.rows(), start=stack, **TIGHT)  # compiled, if it was forgotten
    chances = here.model.responsibilities(here.params, seen(here, name))
    for factors, shift in case.maps:
        x = case.rows(factors=factors, shift=shift)
        with compilations:
            there = jg.fit(case.mixture(prior), x, start=stack, **TIGHT)
        assert compilations.count == 0
        each = np.broadcast_to(np.log(factors), case.x.shape[1:])[case.drawn]
        lost = np.sum(~np.isnan(case.x[:, case.drawn]), axis=0) @ each
        np.testing.assert_allclose(
            there.log_likelihood, here.log_likelihood - lost, rtol=1e-8, atol=1e-7
        )
        moved = there.model.responsibilities(there.params, there.model.read(x)[1])
        np.testing.assert_allclose(moved, chances, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].quick])
def test_starts_together_are_starts_alone(name):
    prior = MODELS[name].usual
    case, together = MODELS[name], fitted(name, prior)
    labels = start(name)[:, case.order]
    alone = jg.fit(case.mixture(prior), case.rows(), start=labels, **TIGHT)
    np.testing.assert_allclose(together.restarts.log_joint[1], alone.log_joint, rtol=1e-12)
    second = jax.tree.map(lambda leaf: leaf[1], together.restarts.params)
    tree_allclose(second, alone.params, 1e-5, 1e-7)


# -- law 8: success is the last thing decided --------------------------------------------------


@each_model
def test_bad_rows_are_refused_and_an_empty_component_is_no_success(name):
    case, prior = MODELS[name], MODELS[name].usual
    broken = case._replace(x=case.x.copy())
    broken.x[3, -1] = np.inf
    with pytest.raises(ValueError, match="inf"):
        jg.fit(case.mixture(prior), broken.rows(), start=start(name))
    if prior == "none":
        given = np.zeros((len(case.x), case.k))
        given[:, 0] = 1
        run = lambda: jg.fit(case.mixture(prior), case.rows(), start=given, **TIGHT)
        if "gates" in (case.options or {}):  # which are no counts of rows, and give it some again
            assert run().n_empty == 0
        else:
            with pytest.raises(ValueError, match="collapsed"):
                run()
