"""All fourteen covariance structures: names, minimisers, supports, derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CURVED, SMALL, STRUCTURE_OF, mixture, split_labels

import jaxgmm as jg
from jaxgmm.local._newton import minimise
from jaxgmm.model._matrix import common_volume_cost, free_variances_cost
from jaxgmm.model._orientation import _FEW_AXES, along, axes, turned
from jaxgmm.model._rotations import swept

CODES = [
    "EII",
    "VII",
    "EEI",
    "VEI",
    "EVI",
    "VVI",
    "EEE",
    "VEE",
    "EVE",
    "VVE",
    "EEV",
    "VEV",
    "EVV",
    "VVV",
]
BY_CODE = {structure.code: structure for structure in STRUCTURE_OF.values()}
each_code = pytest.mark.parametrize("code", CODES)
each_curved = pytest.mark.parametrize("name", CURVED)
K, D = 3, 3
COUNTS = jnp.array([30.0, 45.0, 25.0])


def _matrices(seed=0):
    """Scatter matrices of three unlike components in three features."""
    rows = np.random.default_rng(seed).standard_normal((K, 9, D))
    rows = rows @ np.diag([1, 3, 10]) @ (1.5 * np.eye(D) + np.tri(D, k=-1))
    return jnp.asarray(np.einsum("k,kni,knj->kij", [1, 9, 81], rows, rows))


def _scatter(structure, seed=0):
    """The same as the structure holds it."""
    matrices = _matrices(seed)
    return jnp.trace(matrices, 0, 1, 2) if structure.isotropic else structure.entries(matrices)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _minimised(structure, scatter, counts, d=D, previous=None):
    if structure.shared:
        scatter, counts = jnp.sum(scatter, axis=0), jnp.sum(counts)
    return structure.minimise(scatter, counts, d, previous)


def _cost(structure, site, scatter, counts):
    """``sum_k N_k log|Sigma_k| + tr(Sigma_k^-1 S_k)``."""
    covariances = structure.expand(site, K, D)
    inverse = jnp.linalg.inv(covariances)
    if structure.isotropic:
        traces = inverse[:, 0, 0] * scatter
    else:
        traces = jnp.einsum("kij,kji->k", inverse, structure.matrices(scatter, D))
    return jnp.sum(counts * jnp.linalg.slogdet(covariances)[1] + traces)


# -- names and counts ----------------------------------------------------------------------


def test_names():
    assert sorted(BY_CODE) == sorted(CODES)
    alias = {"VVV": "full", "EEE": "tied", "VVI": "diag", "VII": "spherical"}
    for code in CODES:
        assert jg.Gaussian(code).name == alias.get(code, code)
    assert [jg.Gaussian(letter).name for letter in "EV"] == ["tied", "full"]
    with pytest.raises(ValueError, match=r"structure: .*'VVX'.*EVE"):
        jg.Gaussian("VVX")


@each_code
@pytest.mark.parametrize("d", [1, 2, 4])
def test_parameter_counts_are_ranks(code, d):
    """Law 9: steps along the structure are as many as the directions they reach."""
    model = jg.Mixture(jg.Gaussian(code), 3, n_features=d)
    structure = BY_CODE[code]
    rng, size = np.random.default_rng(1), model.n_parameters(d)
    spread = jnp.diag(jnp.arange(1.0, d + 1))
    plain = jg.model.GaussianParams(
        jnp.full(3, 1 / 3),
        jnp.asarray(rng.standard_normal((3, d))),
        structure.contract(jnp.stack([spread] * 3)),
        model.family.name,
    )

    @jax.jit
    def derivative(step):
        generic = model.retract(plain, step)

        def numbers(tangent):
            params = model.retract(generic, tangent)
            return jax.flatten_util.ravel_pytree(
                (params.weights, params.means, params.covariances)
            )[0]

        here = (generic.weights, generic.means, generic.covariances)
        zero = jnp.zeros(size)
        still = numbers(zero) - jax.flatten_util.ravel_pytree(here)[0]
        return jax.jacfwd(numbers)(zero), still

    jacobian, still = derivative(0.3 * jnp.asarray(rng.standard_normal(size)))
    assert jnp.max(jnp.abs(still)) < 1e-13
    assert jacobian.shape[1] == size
    assert np.linalg.matrix_rank(jacobian, rtol=1e-8) == size
    free = [1, d - 1, d * (d - 1) // 2]
    by_letters = sum({"E": 1, "V": 3, "I": 0}[c] * n for c, n in zip(code, free, strict=True))
    assert size == 2 + 3 * d + by_letters


# -- the minimiser ---------------------------------------------------------------------------


@each_code
def test_the_minimiser_is_a_minimum_over_its_structure(code):
    structure = BY_CODE[code]
    scatter = _scatter(structure)
    site = _minimised(structure, scatter, COUNTS)

    @jax.jit
    def around(steps):
        moved = lambda step: _cost(structure, structure.retract(site, step, K, D), scatter, COUNTS)
        here = jnp.zeros(steps.shape[1])
        return moved(here), jax.grad(moved)(here), jax.vmap(moved)(steps)

    lengths = np.logspace(-2, 0.5, 400)[:, None]
    directions = np.random.default_rng(2).standard_normal((400, structure.n_parameters(K, D)))
    value, gradient, elsewhere = around(jnp.asarray(lengths * directions))
    assert jnp.max(jnp.abs(gradient)) < 1e-11 * abs(value)
    assert jnp.all(elsewhere > value)


@pytest.mark.parametrize("name", ["EVE", "VVE"])
def test_an_orientation_ends_no_higher_than_the_one_before(name):
    structure = STRUCTURE_OF[name]
    found = []
    for seed in range(8):
        scatter = _scatter(structure, seed=seed)
        before = _minimised(structure, _scatter(structure, seed=seed + 100), COUNTS)
        after = _minimised(structure, scatter, COUNTS, D, before)
        cold = _minimised(structure, scatter, COUNTS)
        found.append([_cost(structure, site, scatter, COUNTS) for site in (before, after, cold)])
    before, after, cold = np.array(found).T
    assert np.all(after < before)
    np.testing.assert_array_less(after, cold + 1e-9)


@pytest.mark.turn
@pytest.mark.parametrize("d", [2, 5, 8])
def test_turns_in_planes_find_what_newton_finds(d):
    rng = np.random.default_rng(d)
    rows = rng.standard_normal((K, 6 * d, d)) * np.exp(rng.standard_normal((K, 1, d)))
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    scatter = jnp.asarray(np.einsum("kni,knj->kij", rows @ turn, rows @ turn))
    shares, size = jnp.full(K, 1 / K), d * (d - 1) // 2
    for cost in (free_variances_cost, common_volume_cost):
        height = lambda frame, data: cost(along(frame, data), shares)  # noqa: B023
        for start in (jnp.eye(d), axes(jnp.sum(scatter, axis=0))):
            found = swept(start, scatter, shares, cost)
            np.testing.assert_allclose(found.T @ found, np.eye(d), atol=1e-13)
            polished = minimise(height, turned, found, size, scatter)
            gained = height(found, scatter) - height(polished, scatter)
            assert height(found, scatter) <= height(start, scatter)
            assert gained < 1e-11


@pytest.mark.turn
@pytest.mark.parametrize("name", ["EVE", "VVE"])
def test_many_angles_go_by_turns_in_planes(name):
    """As many as Newton's method is slow with; each step of EM still gains (law 3)."""
    rng = np.random.default_rng(5)
    d = _FEW_AXES + 1
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    x = rng.standard_normal((120, d)) * np.exp(rng.standard_normal((2, 1, d)))
    x = np.concatenate([x[0], x[1] + 2]) @ turn
    labels = np.eye(2)[np.repeat([0, 1], 120)] * 0.8 + 0.1
    fit = jg.fit(jg.Mixture(jg.Gaussian(name), 2), x, start=labels)
    assert fit.converged
    assert np.all(np.diff(fit.trace) > -1e-9)
    (again,) = np.diff(jg.fit(fit.model, x, start=fit.params, max_iter=1, tol=0).trace)
    assert abs(again) < 1e-5
    assert STRUCTURE_OF[name].contains(fit.params.covariance_site, 1e-6)


@each_curved
@pytest.mark.parametrize("lost", ["rows", "all spread", "spread beside one column"])
def test_a_component_that_loses_its_spread_is_seen_to_collapse(name, lost):
    structure = STRUCTURE_OF[name]
    matrices, counts = _matrices(), COUNTS
    pooled = jnp.sum(matrices, axis=0) / jnp.sum(counts)
    matrices = matrices.at[1].set(0)
    if lost == "rows":
        counts = counts.at[1].set(0)
    if lost == "spread beside one column":
        matrices = matrices.at[1, 0, 0].set(1.0)
    site = _minimised(structure, structure.entries(matrices), counts)
    weights = counts / jnp.sum(counts)
    params = jg.model.GaussianParams(weights, jnp.zeros((K, D)), site, name)
    family = jg.Gaussian(name, data_pivots=structure.data_pivots(pooled))
    collapsed = jg.Mixture(family, K).collapsed(params)
    # Where volume and shape are common, one component cannot shrink alone; and along axes
    # that it shares with the others, a line has variances.
    safe = name == "EEV" or (name == "EVE" and lost == "spread beside one column")
    assert bool(collapsed) == (lost == "rows" or not safe)


@each_code
def test_one_dimension_has_two_structures(code):
    structure = BY_CODE[code]
    squares = jnp.array([40.0, 3.0, 7.0])
    scatter = squares.reshape(K, *structure.entry_shape(1))
    site = _minimised(structure, scatter, COUNTS, 1)
    variances = structure.expand(site, K, 1)[:, 0, 0]
    exact = squares / COUNTS if code[0] == "V" else jnp.full(K, jnp.sum(squares) / jnp.sum(COUNTS))
    np.testing.assert_allclose(variances, exact, rtol=1e-12)
    assert structure.n_parameters(K, 1) == (K if code[0] == "V" else 1)


# -- derivatives ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["VEI", "VEE", pytest.param("EVE", marks=pytest.mark.slow)])
def test_a_converged_fit_differentiates(name):
    x = jnp.asarray(SMALL[:40])
    start = jnp.asarray(split_labels(SMALL[:40], 2))
    model = mixture(name, "none", x, 2).resolve(x)
    noise = jnp.asarray(np.random.default_rng(0).standard_normal(x.shape)) * jnp.std(x, axis=0)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def fitted(amount):
        run = jg.em.run(model, x + amount * noise, start, tol=1e-14)
        return jnp.sum(jnp.sin(run.params.covariances)) + jnp.sum(run.params.means), run.converged

    (_, converged), slope = fitted(0.0)
    assert converged
    step = 1e-5  # central differences: error of order step^2, rounding eps / step
    (up, _), (down, _) = fitted(step)[0], fitted(-step)[0]
    np.testing.assert_allclose(slope, (up - down) / (2 * step), rtol=1e-5)


# -- supports and doors -------------------------------------------------------------------------


@each_curved
def test_a_support_knows_its_members(name):
    structure = STRUCTURE_OF[name]
    site = _minimised(structure, _scatter(structure), COUNTS)
    holds = structure.support(K, D)
    assert bool(holds(site))
    assert bool(holds(holds.feasible_like(site)))
    other = _minimised(BY_CODE["VV" + name[2].replace("E", "V")], _scatter(structure), COUNTS)
    np.testing.assert_array_equal(holds(jnp.stack([site, other, -site])), [True, False, False])


@pytest.mark.turn
@each_curved
def test_what_gibbs_and_the_prior_cannot_draw_says_so(name, key):
    model = jg.Mixture(jg.Gaussian(name), 2, prior="fraley-raftery").resolve(SMALL)
    fit = jg.fit(model, SMALL, start=split_labels(SMALL, 2))
    with pytest.raises(ValueError, match=f'structure: {name!r} .*Gibbs.*use method="nuts"'):
        jg.sample(model, SMALL, key=key, method="gibbs", start=fit)
    with pytest.raises(NotImplementedError, match=f"prior of {name!r} .*exact draws"):
        model.draw_prior(key)


@each_code
def test_a_ridge_keeps_the_structure_or_is_refused(code):
    structure = BY_CODE[code]
    if code in ("VEI", "EVI", "VEE", "EVE", "VEV", "EVV"):
        with pytest.raises(ValueError, match=f"reg_covar: .*{structure.name!r}"):
            jg.Gaussian(code, reg_covar=0.1)
    else:
        jg.Gaussian(code, reg_covar=0.1)
        site = _minimised(structure, _scatter(structure), COUNTS)
        assert jnp.all(structure.support(K, D)(structure.ridge(site, jnp.full(D, 0.7))))


def test_parameters_of_a_structure():
    model = jg.Mixture(jg.Gaussian("VEE"), 2)
    common = np.array([[2.0, 0.3], [0.3, 1.0]]) / 3  # written to six figures
    written = np.round([common, 1.7 * common], 6)
    params = model.params(means=SMALL[:2], covariances=written)
    np.testing.assert_array_equal(params.covariances, written)
    with pytest.raises(ValueError, match=r"covariances: .*'VEE'"):
        model.params(means=SMALL[:2], covariances=[common, np.eye(2)])
    with pytest.raises(ValueError, match=r"covariances: .*'EVI'"):
        jg.Mixture(jg.Gaussian("EVI"), 2).params(means=SMALL[:2], covariances=[[1, 2], [3, 4]])
    equal = jg.Mixture(jg.Gaussian("EII"), 2).params(means=SMALL[:2], covariances=2.0)
    assert equal.covariance_site.shape == ()
    assert equal.covariances.shape == (2, 2, 2)


@each_code
def test_data_without_spread_are_refused_where_it_counts(code):
    constant = np.column_stack([SMALL[:, 0], np.full(len(SMALL), 5.0)])
    parallel = np.column_stack([SMALL[:, 0], 2 * SMALL[:, 0] + 1])
    model = jg.Mixture(jg.Gaussian(code), 2)

    def unbounded(x):
        try:
            return model.check_model(x)
        except ValueError as error:
            return "unbounded" in str(error)

    # A shape follows a constant column to zero, an orientation any dependence.
    assert bool(unbounded(constant)) == (code[1] != "I")
    assert bool(unbounded(parallel)) == (code[2] != "I")
