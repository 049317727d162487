"""Charts of the structures: round trips, the reference measure, and posteriors under it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from arviz_stats.base import array_stats
from helpers import CURVED, SMALL, STRUCTURE_OF, explicit_prior, mixture, split_labels
from jax.scipy.special import digamma
from numpyro.distributions import biject_to
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn

import jaxgmm as jg

each_structure = pytest.mark.parametrize("name", STRUCTURE_OF)
each_curved = pytest.mark.parametrize("name", CURVED)
slow = pytest.mark.slow


def _lane(names, quick=("VEE", "EEV")):
    return [pytest.param(n, marks=[slow] * (n not in quick)) for n in names]


def _points(name, k, d, count=4):
    """Unconstrained numbers; moderate, so that what checks them keeps its digits."""
    transform = biject_to(STRUCTURE_OF[name].support(k, d))
    shape = transform.inverse_shape(STRUCTURE_OF[name].site_shape(k, d))
    rng = np.random.default_rng(3)
    return transform, jnp.asarray(0.8 * rng.standard_normal((count, *shape)))


# -- the chart -----------------------------------------------------------------------------


@each_structure
@pytest.mark.parametrize(("k", "d"), [(2, 3), pytest.param(3, 1, marks=slow)])
def test_a_chart_goes_there_and_back(name, k, d):
    structure = STRUCTURE_OF[name]
    transform, points = _points(name, k, d)
    holds = structure.support(k, d)

    @jax.jit
    def there_and_back(z):
        site = transform(z)
        return site, transform(transform.inv(site))

    sites, again = there_and_back(points)
    assert sites.shape == (4, *structure.site_shape(k, d))
    assert transform.forward_shape(points.shape) == sites.shape
    assert points[0].size == structure.n_parameters(k, d)
    assert all(bool(jnp.all(holds(site))) for site in sites)
    np.testing.assert_allclose(again, sites, rtol=1e-10, atol=1e-11 * float(jnp.max(sites)))
    assert jnp.all(jnp.isfinite(transform.log_abs_det_jacobian(points, sites)))


@each_curved
def test_axes_may_point_anywhere_and_shapes_may_tie(name):
    """Half turns, which Cayley's map does not reach, become other signs of the same axes."""
    structure = STRUCTURE_OF[name]
    transform = biject_to(structure.support(2, 3))
    tilted = np.eye(3) - 2 * np.outer([1, 2, 2], [1, 2, 2]) / 9
    orders = [np.eye(3)[list(order)] for order in ([1, 0, 2], [1, 2, 0])]
    for frame in (np.diag([-1.0, -1.0, 1.0]), -np.eye(3), tilted, -tilted, *orders):
        if structure.uses_products:
            matrix = frame @ np.diag([0.5, 1.0, 4.0]) @ frame.T
            matrices = jnp.asarray(np.stack([matrix, matrix]))
        else:
            matrices = jnp.asarray(np.stack([np.diag([0.5, 1.0, 4.0])] * 2))
        site = structure.entries(0.5 * (matrices + jnp.swapaxes(matrices, 1, 2)))
        coordinates = transform.inv(site)
        # Signs are chosen such that no turn is near the end of the chart.
        assert jnp.max(jnp.abs(coordinates)) < 6
        np.testing.assert_allclose(transform(coordinates), site, atol=1e-13)
    tied = structure.entries(jnp.broadcast_to(2 * jnp.eye(3), (2, 3, 3)))
    np.testing.assert_allclose(transform(transform.inv(tied)), tied, atol=1e-12)


# -- the measure ------------------------------------------------------------------------------


@each_curved
@pytest.mark.parametrize(("k", "d"), [(2, 3), pytest.param(3, 2, marks=slow)])
def test_the_measure_is_the_volume_of_the_fisher_metric(name, k, d):
    """Gram determinants of the chart's derivatives, a constant apart."""
    structure = STRUCTURE_OF[name]
    transform, points = _points(name, k, d)
    power = (d + 1) / 2 if structure.uses_products else 1.0

    @jax.jit
    @jax.vmap
    def both(z):
        full = lambda z: structure.expand(transform(z), k, d)
        here = full(z)
        moves = jnp.moveaxis(jax.jacfwd(full)(z), -1, 0)
        relative = jnp.linalg.inv(here) @ moves
        gram = jnp.einsum("akij,bkji->ab", relative, relative)
        log_volumes = power * jnp.sum(jnp.linalg.slogdet(here)[1])
        gram = 0.5 * jnp.linalg.slogdet(gram)[1]
        return transform.log_abs_det_jacobian(z, transform(z)), gram + log_volumes

    ours, reference = both(points)
    np.testing.assert_allclose(ours - ours[0], reference - reference[0], atol=1e-8)


@each_curved
@pytest.mark.parametrize("d", [3, pytest.param(1, marks=slow)])
def test_with_one_component_the_measure_is_lebesgues(name, d):
    structure = STRUCTURE_OF[name]
    transform, points = _points(name, 1, d)

    @jax.jit
    @jax.vmap
    def both(z):
        jacobian = jax.jacfwd(transform)(z)[0]
        if structure.uses_products:
            jacobian = jacobian[jnp.triu_indices(d)]
        return transform.log_abs_det_jacobian(z, transform(z)), jnp.linalg.slogdet(jacobian)[1]

    ours, reference = both(points)
    np.testing.assert_allclose(ours, reference, atol=1e-8)


@each_curved
def test_the_measure_scales_with_the_data(name):
    """Law 5: scaling the columns, or all of them, multiplies the measure by one number."""
    k, d, structure = 2, 3, STRUCTURE_OF[name]
    transform, points = _points(name, k, d)
    scale = jnp.array([2.0, 0.3, 5.0] if structure.scales_columns else [2.0] * 3)

    @jax.jit
    @jax.vmap
    def change(z):
        move = lambda z: transform.inv(structure.rescale(transform(z), scale))
        log_det = lambda z: transform.log_abs_det_jacobian(z, transform(z))
        return log_det(move(z)) + jnp.linalg.slogdet(jax.jacfwd(move)(z))[1] - log_det(z)

    power = structure.log_volume_power(k, d)
    np.testing.assert_allclose(change(points), power * jnp.sum(jnp.log(scale)), rtol=1e-9)


@pytest.mark.parametrize("name", _lane(STRUCTURE_OF))
def test_the_potential_is_the_log_joint_and_the_measure(name):
    """Law 1 in the space in which NUTS moves, in the user's units and in working ones."""
    x = jnp.asarray(SMALL[:30])
    model = mixture(name, "conjugate", x, 2).resolve(x)
    params = jg.fit(model, x, start=split_labels(x, 2), max_iter=5).params

    @jax.jit
    def both(model, params):
        sites = model.sites(params)
        z = unconstrain_fn(model.numpyro_model, (x,), {}, sites)
        back = constrain_fn(model.numpyro_model, (x,), {}, z)
        measure = sum(
            jnp.sum(biject_to(d(sites).support).log_abs_det_jacobian(z[site], sites[site]))
            for site, d in model.prior_sites().items()
        )
        potential = potential_energy(model.numpyro_model, (x,), {}, z)
        return back, -potential, model.log_joint(params, x) + measure

    for written in (model, model.standardise(x)):
        here = params if written is model else written.to_working(params)
        back, potential, expected = both(written, here)
        np.testing.assert_allclose(potential, expected, rtol=1e-10)
        for site, value in written.sites(here).items():
            np.testing.assert_allclose(back[site], value, rtol=1e-9, atol=1e-12)


# -- posteriors ----------------------------------------------------------------------------------


def monte_carlo_error(draws):
    return float(array_stats.mcse(np.asarray(draws, float), method="mean"))


@functools.cache
def _nuts(name, k, n):
    x = SMALL[:n]
    model = jg.Mixture(jg.Gaussian(name), k, prior=explicit_prior(name, SMALL, k))
    fit = jg.fit(model, x, key=jax.random.key(0))
    return fit, jg.sample(model, x, key=jax.random.key(8), start=fit, n_draws=500, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", _lane(CURVED, ["EEV"]))
def test_one_component_has_the_posterior_of_its_plain_twin(name):
    """The conjugate posterior in closed form: with K = 1 nothing is tied to anything."""
    fit, post = _nuts(name, 1, 12)
    prior, rows = fit.model.prior, SMALL[:12]
    n, centre = len(rows), SMALL[:12].mean(axis=0)
    kappa, dof = float(prior.mean_precision), float(prior.dof) + n
    scatter = np.cov(rows.T, bias=True) * n
    scatter = scatter + np.outer(centre - prior.mean, centre - prior.mean) * kappa * n / (kappa + n)
    drawn = np.asarray(post.draws["covariances"][:, :, 0])
    if STRUCTURE_OF[name].uses_products:
        scale = np.asarray(prior.scale) + scatter
        pairs = [(drawn[..., i, j], scale[i, j] / (dof - 3)) for i, j in [(0, 0), (0, 1), (1, 1)]]
        gammas = sum(float(digamma((dof - j) / 2)) + np.log(2) for j in (0, 1))
        pairs.append((np.linalg.slogdet(drawn)[1], np.linalg.slogdet(scale)[1] - gammas))
    else:
        scale = np.asarray(prior.scale) + np.diag(scatter)
        pairs = [(drawn[..., j], scale[j] / (dof - 2)) for j in (0, 1)]
    for numbers, exact in pairs:
        assert abs(numbers.mean() - exact) < 5 * monte_carlo_error(numbers)


@pytest.mark.turn
@pytest.mark.parametrize("name", _lane(CURVED, ["VEE"]))
def test_chains_agree_and_rarely_diverge(name):
    fit, post = _nuts(name, 2, 60)
    assert post.sample_stats["diverging"].mean() < 0.01
    assert np.max(post.log_joint) < fit.log_joint  # the mode of the declared density
    volumes = np.linalg.slogdet(post.draws["covariances_full"])[1]
    for numbers in (post.log_joint, *np.moveaxis(volumes, -1, 0)):
        assert array_stats.rhat(np.asarray(numbers)) < 1.03
    some = post.draws_raw["covariances"][:, ::100]
    assert np.all(STRUCTURE_OF[name].support(2, 2)(some))


def _by_angles(name, n, prior):
    """Two covariances in two features, drawn by volume, shape and angle: (n, 2, 2, 2).

    And log weights for the prior under the reference measure, which is written out for
    these coordinates.
    """
    rng, structure = np.random.default_rng(7), STRUCTURE_OF[name]
    copies = {"E": 1, "V": 2, "I": 1}
    volume, shape, angle = (rng.standard_normal((n, copies[letter])) for letter in structure.code)
    weights = 0.5 * np.sum(volume**2, axis=1) + 0.5 * np.sum(shape**2, axis=1)
    volume, shape = volume - 1.5, 1.5 * shape
    angle = np.pi * rng.random(angle.shape) * structure.uses_products
    logs = volume[..., None] + shape[..., None] * np.array([0.5, -0.5]) + np.zeros((2, 2))
    frames = np.stack(
        [
            np.stack([np.cos(angle), -np.sin(angle)], axis=-1),
            np.stack([np.sin(angle), np.cos(angle)], axis=-1),
        ],
        axis=-2,
    )
    drawn = np.einsum("...ij,...j,...kj->...ik", frames, np.exp(logs), frames)
    if structure.uses_products:
        lever = np.sinh((logs[..., 0] - logs[..., 1]) / 2) ** 2
        lever = np.mean(lever, axis=1, keepdims=True) if angle.shape[1] == 1 else lever
        weights += 0.5 * np.sum(np.log(lever), axis=1)
        powers, pull = prior.dof / 2, np.einsum("ij,nkji->n", prior.scale, np.linalg.inv(drawn))
    else:
        powers, pull = prior.dof / 2, np.sum(prior.scale / np.exp(logs), axis=(1, 2))
    return drawn, weights - powers * np.sum(logs, axis=(1, 2)) - 0.5 * pull


def _numbers(drawn):
    """What to compare: log variances, log volumes and correlations of covariances."""
    variances = np.diagonal(drawn, axis1=-2, axis2=-1)
    correlation = drawn[..., 0, 1] / np.sqrt(np.prod(variances, axis=-1))
    log_volume = np.linalg.slogdet(drawn)[1]
    columns = [log_volume[..., 0] * log_volume[..., 1], np.log(variances[..., 0, 0])]
    if np.any(correlation):
        columns += [correlation[..., 0], correlation[..., 0] * correlation[..., 1]]
    return columns


@pytest.mark.turn
@pytest.mark.parametrize("name", _lane(CURVED, ["VVE"]))
def test_draws_of_the_prior_agree_with_importance_sampling(name):
    structure = STRUCTURE_OF[name]
    scale = np.array([[3.0, 1.0], [1.0, 2.0]]) if structure.uses_products else np.array([3.0, 2.0])
    prior = jg.ConjugatePrior(mean=np.zeros(2), mean_precision=1.0, dof=6.0, scale=scale)

    def model():
        numpyro.sample("covariances", structure.covariance_prior(prior, 2, 2))

    chains = numpyro.infer.MCMC(
        numpyro.infer.NUTS(model, dense_mass=True, target_accept_prob=0.9),
        num_warmup=500,
        num_samples=2000,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    chains.run(jax.random.key(9))
    drawn = chains.get_samples(group_by_chain=True)["covariances"]
    drawn = np.asarray(structure.expand(drawn, 2, 2))

    proposed, log_weights = _by_angles(name, 400_000, prior)
    weights = np.exp(log_weights - np.max(log_weights))
    weights /= np.sum(weights)
    assert 1 / np.sum(weights**2) > 10_000
    for ours, theirs in zip(_numbers(drawn), _numbers(proposed), strict=True):
        mean = weights @ theirs
        error = np.sqrt(np.sum(weights**2 * (theirs - mean) ** 2))
        assert abs(ours.mean() - mean) < 5 * np.hypot(monte_carlo_error(ours), error)


@pytest.mark.turn
@pytest.mark.parametrize("name", _lane(CURVED, ["EVE"]))
def test_the_curvature_is_that_along_the_structure(name):
    x = SMALL[:60]
    fit = jg.fit(mixture(name, "conjugate", x, 2), x, start=split_labels(x, 2), tol=1e-14)
    here = jg.report.curvature(jg.standard_errors(fit, x))
    assert here.stationary
    assert here.n_negative == here.n_flat == 0
    assert len(here.eigenvalues) == fit.model.n_parameters(2)


def test_a_support_is_checked_inside_jit():
    support = STRUCTURE_OF["VEE"].support(2, 2)
    scales = jnp.array([1.0, 3.0])[:, None, None]
    inside = scales * jnp.array([[2.0, 0.5], [0.5, 1.0]])
    check = jax.jit(lambda site: support(site))
    assert check(inside)
    assert not check(inside.at[1, 0, 0].add(1.0))
