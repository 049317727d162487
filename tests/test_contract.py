"""The laws of the library, over every covariance structure and prior."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    CURVED,
    DATA,
    OTHERS,
    PRIORS,
    SMALL,
    STRUCTURE_OF,
    mixture,
    moved_prior,
    numpyro_reference,
    soft_labels,
    some_params,
    starts,
    tight_fit,
    tree_allclose,
)
from numpyro.infer.util import log_density

import jaxgmm as jg
from jaxgmm._numerics import sum_over_blocks

# One data set is enough for the quick lane.
each_data = pytest.mark.parametrize(
    "data", [pytest.param(n, marks=[pytest.mark.slow] * (n != "faithful")) for n in DATA]
)


def _lane(structure, quick):
    """Two structures are in the quick lane, and of the others what a law names."""
    return [pytest.mark.slow] * (structure not in ("full", "diag") and not quick)


each_structure = pytest.mark.parametrize(
    "structure", [pytest.param(s, marks=_lane(s, False)) for s in STRUCTURE_OF]
)
# Priors vary fastest: two proper priors share one compiled program.
each_structure_and_prior = pytest.mark.parametrize(
    ("structure", "prior"),
    [pytest.param(s, p, marks=_lane(s, False)) for s in STRUCTURE_OF for p in PRIORS],
)


# -- laws 1 and 2: the number, and its mode --------------------------------------


@jax.jit
def _densities(model, params, x, sample_weight):
    """The log joint thrice (ours, our NumPyro program, the reference) and its gradient."""

    def program(sites):
        return log_density(model.numpyro_model, (x, None, sample_weight), {}, sites)[0]

    def reference(sites):
        return log_density(numpyro_reference, (model, x, sample_weight), {}, sites)[0]

    sites = model.sites(params)
    ours, value = model.log_joint(params, x, sample_weight), program(sites)
    if model.family.name in CURVED:
        return ours, value, reference(sites), _along_the_structure(model, params, x, sample_weight)
    return ours, value, reference(sites), jax.grad(program)(sites)


def _along_the_structure(model, params, x, sample_weight):
    """Gradient on a curved set: along the model's own steps, in standardised units."""
    working = model.standardise(x, sample_weight)
    here = working.to_working(params)

    def log_joint(step):
        return working.log_joint(working.retract(here, step), x, sample_weight)

    return jax.grad(log_joint)(jnp.zeros(model.n_parameters(x.shape[1])))


def _scaled(gradient, x, structure):
    """Standardised units, tangent to the simplex, symmetrised."""
    sd = jnp.std(x, axis=0)
    means, slope = gradient["means"] * sd, gradient["covariances"]
    if STRUCTURE_OF[structure].uses_products:
        slope = 0.5 * (slope + jnp.swapaxes(slope, -1, -2)) * sd[:, None] * sd
    else:
        slope = slope * (jnp.mean(sd**2) if STRUCTURE_OF[structure].isotropic else sd**2)
    scaled = {"means": means, "covariances": slope}
    if "weights" in gradient:
        scaled["weights"] = gradient["weights"] - jnp.mean(gradient["weights"])
    return scaled


def _same_number_and_mode(fit, x):
    assert fit.converged
    assert fit.log_joint == fit.log_prior + fit.log_likelihood
    ones, uneven = jnp.ones(len(x)), jnp.arange(len(x)) % 3 + 0.5
    random = [some_params(fit.model, x, seed) for seed in (0, 1)]
    for params, weight in [(fit.params, ones), (random[0], ones), (random[1], uneven)]:
        ours, program, reference, gradient = _densities(fit.model, params, x, weight)
        np.testing.assert_allclose([ours, program], reference, rtol=1e-10)
        if params is fit.params:
            np.testing.assert_allclose(fit.log_joint, reference, rtol=1e-10)
            slopes = gradient
            if fit.model.family.name not in CURVED:
                slopes = _scaled(gradient, x, fit.model.family.name)
            for slope in jax.tree.leaves(slopes):
                assert jnp.max(jnp.abs(slope)) < 1e-6 * len(x)


def _density_quick(structure, k, prior):
    """`full` with every prior and with every K, few others once."""
    hits = (k == 2) + (prior == "conjugate")
    return hits == 2 if structure in ("diag", "VEV", "EVE") else hits and structure == "full"


@pytest.mark.parametrize(
    ("structure", "k", "prior"),
    [
        pytest.param(s, k, p, marks=[pytest.mark.slow] * (not _density_quick(s, k, p)))
        for s in STRUCTURE_OF
        for k in (1, 2, 3)
        for p in PRIORS
    ],
)
@each_data
def test_one_density_and_its_mode(data, structure, prior, k):
    x = jnp.asarray(DATA[data])
    fit = tight_fit(data, structure, prior, k)
    _same_number_and_mode(fit, x)


@each_structure
def test_one_density_and_its_mode_with_fixed_weights(structure):
    x = jnp.asarray(DATA["faithful"])
    model = mixture(structure, "conjugate", x, 2, weights=[0.4, 0.6])
    fit = jg.fit(model, x, start=starts(x, 2), tol=1e-14, max_iter=20000)
    assert "weights" not in fit.model.sites(fit.params)
    np.testing.assert_array_equal(fit.params.weights, [0.4, 0.6])
    _same_number_and_mode(fit, x)


# -- law 3: EM never descends ------------------------------------------------------


@functools.partial(jax.jit, static_argnames="steps")
def _chain(model, x, labels, sample_weight=None, steps=30):
    """Raw M and E steps, no stopping rule: objectives and parameters, and the last ones."""
    working = model.standardise(x, sample_weight)

    def step(pair, _):
        params, _ = pair
        statistics, log_likelihood = working.e_step(params, x, sample_weight)
        following = working.m_step(statistics, params)
        return (following, params), log_likelihood + working.log_prior(params)

    first = working.m_step(working.statistics(labels, x, sample_weight))
    (_, params), objectives = jax.lax.scan(step, (first, first), length=steps)
    return objectives, params


@each_structure_and_prior
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_em_never_descends(structure, prior, dtype):
    x = jnp.asarray(DATA["faithful"], dtype)
    n, d = x.shape
    model = mixture(structure, prior, DATA["faithful"], 3).resolve(x)
    labels = jnp.asarray(starts(DATA["faithful"], 3)[1], dtype)
    objectives, params = _chain(model, x, labels, steps=80)
    assert objectives.dtype == dtype
    # A row's log density is a product over 1 + D + D^2 features; its terms are as large as
    # the squared distance of a component from the origin in its own units, and each rounds.
    inverse = jnp.linalg.inv(params.covariances)
    reach = jnp.max(jnp.einsum("ki,kij,kj->k", params.means, inverse, params.means))
    bound = jnp.finfo(dtype).eps * (1 + d + d * d) * (jnp.max(jnp.abs(objectives)) + n * reach)
    assert jnp.min(jnp.diff(objectives)) >= -bound
    assert objectives[-1] - objectives[0] > 1000 * bound


# -- law 4: statistics add ---------------------------------------------------------


@each_structure
def test_statistics_add(structure):
    x, labels = jnp.asarray(SMALL), jnp.asarray(soft_labels(len(SMALL), 3))
    weight = jnp.arange(len(x)) % 4 / 2
    model = mixture(structure, "none", x, 3).resolve(x).standardise(x)
    params = model.m_step(model.statistics(labels, x))
    rounding = len(x) * jnp.finfo(x.dtype).eps
    for whole in (
        lambda rows: model.statistics(labels[rows], x[rows], weight[rows]),
        lambda rows: model.e_step(params, x[rows], weight[rows])[0],
    ):
        parts = model.add(whole(slice(0, 37)), whole(slice(37, None)))
        tree_allclose(parts, whole(slice(None)), rounding)
        twice = model.add(parts, parts)
        tree_allclose(
            model.add(parts, twice, (2.0, 1.5)), model.add(twice, model.add(twice, parts)), rounding
        )
    # 9,000 rows are several blocks and a tail of the library's own size.
    many, value = model.e_step(params, jnp.tile(x, (100, 1)), jnp.tile(weight, 100))
    once, one = model.e_step(params, x, weight)
    tree_allclose(value, 100 * one, 100 * rounding)
    tree_allclose(many.means, once.means, 100 * rounding)
    tree_allclose(
        (many.counts, many.scatter), (100 * once.counts, 100 * once.scatter), 100 * rounding
    )


@pytest.mark.parametrize(
    ("n", "block"), [(30, 1), (30, 7), (30, 8), (30, 30), (30, 31), (300, 131), (1001, 1000)]
)
def test_blocks_add_up_to_the_whole(n, block):
    x = jnp.arange(2.0 * n).reshape(n, 2)  # whole numbers: every order of summing is exact
    weight = jnp.arange(float(n)) % 3

    def sums(rows, w, _):
        return {"squares": (w * rows.T) @ rows, "weight": jnp.sum(w)}

    tree_allclose(sum_over_blocks(sums, x, weight, block=block), sums(x, weight, 0), 0.0)


@each_structure_and_prior
def test_a_weight_counts_rows(structure, prior):
    counts = np.arange(len(SMALL)) % 3
    repeated = np.repeat(SMALL, counts, axis=0)
    labels = soft_labels(len(SMALL), 2)
    model = mixture(structure, prior, SMALL, 2)
    weighted = _chain(
        model.resolve(SMALL, counts), jnp.asarray(SMALL), labels, jnp.asarray(counts, float)
    )
    rows = _chain(model.resolve(repeated), jnp.asarray(repeated), np.repeat(labels, counts, axis=0))
    tree_allclose(weighted, rows, 1e-11)  # 30 steps that each round n terms


def test_a_weight_counts_rows_at_the_door():
    counts = np.arange(len(SMALL)) % 3
    repeated = np.repeat(SMALL, counts, axis=0)
    model = mixture("full", "fraley-raftery", SMALL, 2)
    start = some_params(model.resolve(SMALL), jnp.asarray(SMALL))
    weighted = jg.fit(model, SMALL, start=start, sample_weight=counts)
    rows = jg.fit(model, repeated, start=start)
    assert weighted.n_iter == rows.n_iter
    tree_allclose(weighted.params, rows.params, 1e-9)
    for number in ("log_joint", "log_likelihood", "bic", "aic", "icl", "total_weight"):
        np.testing.assert_allclose(getattr(weighted, number), getattr(rows, number), rtol=1e-11)


# -- laws 5 and 6: affine maps, and labels -------------------------------------------


def _affine_map(structure, prior, d):
    """A matrix of the widest kind under which structure and prior are closed."""
    kind, rng = STRUCTURE_OF[structure], np.random.default_rng(5)
    if kind.scales_columns and kind.uses_products:
        return rng.standard_normal((d, d)) * np.logspace(1, -1, d)
    if kind.scales_columns and prior != "fraley-raftery":
        return np.diag(np.logspace(3, -2, d))
    if kind.scales_columns:
        return 250.0 * np.eye(d)  # the rule's scale is one number for all columns
    return 250.0 * np.linalg.qr(rng.standard_normal((d, d)))[0]


def _two_orders(x, k):
    """Responsibilities in two label orders, and the second order."""
    labels, order = soft_labels(len(x), k), np.roll(np.arange(k), 1)
    return np.stack([labels, labels[:, order]]), order


@each_structure_and_prior
def test_a_fit_moves_with_the_data(structure, prior):
    matrix, shift = _affine_map(structure, prior, 2), np.array([-300.0, 7.0])
    # Three of the others end in hundreds of steps, where rounding decides on the last one.
    k = 2 if structure in OTHERS else 3
    model = mixture(structure, prior, SMALL, k)
    moved_model = moved_prior(model, matrix, shift)
    stack, order = _two_orders(SMALL, k)
    moved_x = SMALL @ matrix.T + shift
    fit = jg.fit(model, SMALL, start=stack)
    moved = jg.fit(moved_model, moved_x, start=stack)

    assert fit.converged
    np.testing.assert_array_equal(moved.restarts.n_iter, fit.restarts.n_iter)
    log_volume = np.linalg.slogdet(matrix)[1]
    np.testing.assert_allclose(
        moved.log_likelihood, fit.log_likelihood - len(SMALL) * log_volume, rtol=1e-10
    )
    here, there = (jax.tree.map(lambda leaf: leaf[0], f.restarts.params) for f in (fit, moved))
    tree_allclose(there.weights, here.weights, 1e-8)
    tree_allclose(there.means, here.means @ matrix.T + shift, 1e-8)
    tree_allclose(there.covariances, matrix @ here.covariances @ matrix.T, 1e-8)

    # Law 6: the second start is the first with its labels renamed.
    again = jax.tree.map(lambda leaf: leaf[1], fit.restarts)
    first = jax.tree.map(lambda leaf: leaf[0], fit.restarts)
    renamed = fit.model.permute(first.params, order)
    np.testing.assert_allclose(
        fit.model.log_prob(renamed, SMALL), fit.model.log_prob(first.params, SMALL), rtol=1e-12
    )
    if prior == "conjugate":  # its concentrations differ, so its labels mean something
        return
    assert again.n_iter == first.n_iter
    assert again.status == first.status
    tree_allclose(again.params, renamed, 1e-9)
    for number in ("log_joint", "log_likelihood", "log_prior"):
        np.testing.assert_allclose(getattr(again, number), getattr(first, number), rtol=1e-12)


@pytest.mark.turn
@each_structure
@pytest.mark.parametrize(("dtype", "offset"), [("float64", 1e6), ("float32", 1e4)])
def test_a_fit_far_from_the_origin(structure, dtype, offset):
    far = (SMALL + offset).astype(dtype)
    near = far - np.asarray(offset, dtype)  # exact: rounding took place in the line above
    model = mixture(structure, "fraley-raftery", SMALL, 3)
    fits = [jg.fit(model, x, start=starts(SMALL, 3, 2)) for x in (near, far)]
    here, there = fits
    assert here.converged
    assert there.converged
    eps = np.finfo(dtype).eps
    assert there.params.means.dtype == dtype
    # Both stop where a gain drowns in the rounding of the objective; the parameters are
    # then known to the square root of that, in units of a standard error.
    spread = np.std(near, axis=0)
    slack = 10 * np.sqrt(eps * abs(here.log_joint) / len(near))
    means = np.asarray(there.params.means, np.float64) - offset
    assert np.all(np.abs(means - here.params.means) < slack * spread + eps * offset)
    tree_allclose(there.params.covariances, here.params.covariances, slack)
    tree_allclose(there.params.weights, here.params.weights, slack)

    # The rule's prior mean is known to eps * offset only.
    def log_prior(mean):
        prior = dataclasses.replace(here.model.prior, mean=mean)
        return dataclasses.replace(here.model, prior=prior).log_prior(here.params)

    slope = np.abs(jax.grad(log_prior)(here.model.prior.mean)).sum()
    slack = 64 * eps * abs(here.log_joint) + slope * eps * offset
    assert abs(there.log_joint - here.log_joint) < slack


# -- law 7: jit = eager, vmap = a loop, and nothing compiles twice -----------------------


def _three_steps(structure):
    """EM on 30 rows as a function of its start, a stack of starts, and what rounding does."""
    x = jnp.asarray(SMALL[:30])
    model = mixture(structure, "conjugate", x, 2).resolve(x)
    stack = jnp.asarray(starts(x, 2, 3))
    return jax.jit(lambda labels: jg.em.run(model, x, labels, max_iter=3)), stack, 1e-12


@pytest.mark.turn
@each_structure
def test_vmap_over_starts_is_a_loop(structure):
    run, stack, rounding = _three_steps(structure)
    loop = [run(labels) for labels in stack]
    together = jax.jit(jax.vmap(run))(stack)
    tree_allclose(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *loop), rounding)


def test_jit_is_eager():
    # Eager JAX compiles every operation alone, which takes longer than all of EM: once.
    run, stack, rounding = _three_steps("full")
    jitted = run(stack[0])
    with jax.disable_jit():
        tree_allclose(run(stack[0]), jitted, rounding)


def test_a_second_call_compiles_nothing(compilations, key):
    other = SMALL[::-1] * 1.5 + 3
    keys = jax.random.split(key, 4)

    def explicit(dof):
        prior = jg.ConjugatePrior(mean=[3.0, 70.0], mean_precision=0.1, dof=dof, scale=np.eye(2))
        return jg.Mixture(jg.Gaussian("full"), 2, prior=prior)

    rule = mixture("full", "fraley-raftery", SMALL, 2)
    stack = starts(SMALL, 2)
    params = explicit(5.0).params(means=[[2.0, 50.0], [4.0, 80.0]], covariances=[np.eye(2)] * 2)
    warmer = dataclasses.replace(params, means=1.01 * params.means)
    pairs = [
        (
            lambda: jg.fit(explicit(5.0), SMALL, start=stack),
            lambda: jg.fit(explicit(7.5), other, start=stack[::-1], tol=1e-3),
        ),
        (
            lambda: jg.fit(explicit(5.0), SMALL, start=params),
            lambda: jg.fit(explicit(6.0), other, start=warmer, tol=1e-12),
        ),
    ]
    for name in jg.em.STARTS:
        pairs.append(
            (
                lambda name=name: jg.fit(rule, SMALL, start=name, key=keys[0], n_init=2),
                lambda name=name: jg.fit(rule, other, start=name, key=keys[1], n_init=2, tol=1e-4),
            )
        )
    for first, second in pairs:
        first()
        with compilations:
            second()
        assert compilations.count == 0
    with compilations:  # the counter counts
        jg.fit(rule, SMALL[:80], start="random", key=keys[2], n_init=2)
    assert compilations.count > 0
