"""Priors by site: NumPyro distributions of the user's in place of conjugate ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from helpers import DATA, STRUCTURE_OF, split_labels, starts
from jax.scipy.linalg import block_diag
from numpyro import handlers
from numpyro.infer.util import log_density
from scipy.optimize import minimize

import jaxgmm as jg

X = DATA["faithful"]
WEIGHTS = dist.Dirichlet(np.array([2.0, 3.0]))
LOGISTIC_NORMAL = dist.TransformedDistribution(
    dist.Normal(np.array([0.5]), 1.5).to_event(1), dist.transforms.StickBreakingTransform()
)
MEANS = dist.Normal(np.array([3.0, 70.0]), np.array([5.0, 20.0]))
SCALES = dist.HalfNormal(np.array([2.0, 20.0]))
VARIANCES = dist.InverseGamma(3.0, np.array([0.5, 30.0]))
WISHART = dist.InverseWishart(6.0, np.diag([0.5, 30.0]))
LKJ = dist.LKJ(2, 1.5)

# By name: the structure, and the distributions of its sites.
PRIORS = {
    "full": ("full", {"weights": WEIGHTS, "means": MEANS, "scales": SCALES, "correlations": LKJ}),
    "full-wishart": ("full", {"weights": WEIGHTS, "means": MEANS, "covariances": WISHART}),
    "full-jointly": (
        "full",
        {
            "weights": WEIGHTS,
            "means": dist.MultivariateNormal(
                np.array([3.0, 70.0]), np.array([[9.0, 1.0], [1.0, 300.0]])
            )
            .expand([2])
            .to_event(1),
            "scales": dist.LogNormal(np.array([[0.0, 2.0], [0.5, 1.5]]), 0.5),
            "correlations": dist.LKJ(2, np.array([1.5, 2.5])),
        },
    ),
    "tied": (
        "tied",
        {"weights": WEIGHTS, "means": MEANS, "scales": SCALES, "correlations": LKJ},
    ),
    "diag": (
        "diag",
        {
            "sticks": dist.Beta(2.0, 3.0),
            "means": dist.StudentT(4.0, np.array([[2.0, 55.0], [4.0, 80.0]]), 5.0),
            "scales": dist.Gamma(3.0, np.array([4.0, 0.4])),
        },
    ),
    "diag-variances": ("diag", {"weights": WEIGHTS, "means": MEANS, "covariances": VARIANCES}),
    "spherical": (
        "spherical",
        {"weights": WEIGHTS, "means": MEANS, "scales": dist.LogNormal(np.array([1.0, 2.0]), 1.0)},
    ),
    "EII": ("EII", {"weights": WEIGHTS, "means": MEANS, "covariances": dist.Gamma(2.0, 0.1)}),
    "EEI": ("EEI", {"weights": LOGISTIC_NORMAL, "means": MEANS, "scales": dist.HalfCauchy(3.0)}),
}


def model_of(name, **options):
    structure, prior = PRIORS[name]
    return jg.Mixture(jg.Gaussian(structure), 2, prior=prior, **options)


def some_params(model):
    """Parameters of the model's structure, all numbers apart."""
    matrices = np.array([[[0.3, 0.7], [0.7, 33.0]], [[0.2, -0.4], [-0.4, 41.0]]])
    site = STRUCTURE_OF[model.family.name].contract(jnp.asarray(matrices))
    return model.params(
        weights=None if model.weights is not None else [0.35, 0.65],
        means=[[2.1, 54.0], [4.3, 80.5]],
        covariances=site,
    )


def reference(name, fixed, x, sample_weight):
    """The model a second time, with NumPyro's plates and distributions only."""
    structure, prior = PRIORS[name]
    shared, k, d = STRUCTURE_OF[structure].shared, 2, 2
    matrix = STRUCTURE_OF[structure].uses_products
    width = () if STRUCTURE_OF[structure].isotropic else (d,)
    batch = () if shared else (k,)

    def draw(site, shape):
        written = prior[site]
        shape = shape[: len(shape) - written.event_dim]
        return numpyro.sample(site, written.expand(shape).to_event(len(shape)))

    if fixed:
        weights = jnp.array([0.5, 0.5])
    elif "sticks" in prior:
        stick = draw("sticks", (1,))
        weights = jnp.concatenate([stick, 1 - stick])
    else:
        weights = draw("weights", (k,))
    means = draw("means", (k, d))
    if "scales" not in prior:
        covariances = draw("covariances", batch + ((d, d) if matrix else width))
    elif matrix:
        scales = draw("scales", batch + (d,))
        correlations = draw("correlations", batch + (d, d))
        covariances = scales[..., None] * correlations * scales[..., None, :]
    else:
        covariances = draw("scales", batch + width) ** 2
    if not matrix:
        variances = covariances if width else jnp.asarray(covariances)[..., None]
        covariances = jnp.broadcast_to(variances, (*batch, d))[..., None] * jnp.eye(d)
    rows = dist.MultivariateNormal(means, jnp.broadcast_to(covariances, (k, d, d)))
    whole = dist.MixtureSameFamily(dist.Categorical(probs=weights), rows)
    with numpyro.plate("rows", len(x)), handlers.scale(scale=sample_weight):
        numpyro.sample("x", whole, obs=x)


# -- law 1 -------------------------------------------------------------------------


def _same_number(name, dtype, rtol, **options):
    x = jnp.asarray(X[:50], dtype)
    weight = jnp.asarray(np.arange(50) % 3 + 0.5, dtype)
    model = model_of(name, **options).resolve(x)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), some_params(model))

    @jax.jit
    def numbers(model, params):
        working = model.standardise(x, weight)
        there = working.to_working(params)
        program = lambda model, params: log_density(
            model.numpyro_model, (x, None, weight), {}, model.sites(params)
        )[0]
        ours = model.log_joint(params, x, weight), program(model, params)
        return *ours, working.log_joint(there, x, weight), program(working, there)

    found = numbers(model, params)
    args = name, "weights" in options, x, weight
    expected = log_density(reference, args, {}, model.sites(params))[0]
    np.testing.assert_allclose(found, expected, rtol=rtol)
    assert {number.dtype for number in found} == {x.dtype}
    again = model.from_sites(model.sites(params))
    np.testing.assert_allclose(again.covariances, params.covariances, rtol=10 * rtol)


@pytest.mark.parametrize("name", PRIORS)
def test_one_density(name):
    _same_number(name, "float64", 1e-10)


@pytest.mark.turn
def test_one_density_in_float32():
    _same_number("full", "float32", 1e-5)


def test_one_density_with_fixed_weights():
    structure, prior = PRIORS["diag-variances"]
    PRIORS["fixed"] = structure, {n: d for n, d in prior.items() if n != "weights"}
    try:
        _same_number("fixed", "float64", 1e-10, weights="equal")
    finally:
        del PRIORS["fixed"]


def test_a_smaller_batch_shape_is_expanded():
    short = {"weights": WEIGHTS, "means": dist.Normal(1.0, 5), "scales": dist.HalfNormal(2)}
    long = {
        "weights": WEIGHTS,
        "means": dist.Normal(jnp.ones((2, 2)), 5).to_event(1),
        "scales": dist.HalfNormal(jnp.full((2, 2), 2.0)).to_event(2),
    }
    both = [jg.Mixture(jg.Gaussian("diag"), 2, prior=p).resolve(X) for p in (short, long)]
    params = some_params(both[0])
    one, other = (model.log_prior(params) for model in both)
    np.testing.assert_allclose(one, other, rtol=1e-14)
    assert {n: d.shape for n, d in both[0].sites(params).items()} == {
        "weights": (2,),
        "means": (2, 2),
        "scales": (2, 2),
    }


# -- law 2, and the M-step ------------------------------------------------------------


@functools.cache
def tight_fit(name):
    return jg.fit(model_of(name), X, start=starts(X, 2, 2), tol=1e-14, max_iter=5000)


@jax.jit
def _slopes(model, params, x):
    """Gradient in the declared coordinates, tangent to their sets, in standardised units."""
    working = model.standardise(x)
    here = working.sites(working.to_working(params))
    slopes = jax.grad(lambda s: working.log_joint(working.from_sites(s), x))(here)
    for name in ("covariances", "correlations"):
        if name in slopes and slopes[name].ndim > 1 and slopes[name].shape[-2] == 2:
            slopes[name] = 0.5 * (slopes[name] + jnp.swapaxes(slopes[name], -1, -2))
    if "correlations" in slopes:
        slopes["correlations"] = jnp.where(jnp.eye(2, dtype=bool), 0, slopes["correlations"])
    if "weights" in slopes:
        slopes["weights"] -= jnp.mean(slopes["weights"])
    return slopes


def _is_mode(fit):
    assert fit.converged
    for slope in jax.tree.leaves(_slopes(fit.model, fit.params, jnp.asarray(X))):
        assert jnp.max(jnp.abs(slope)) < 1e-6 * len(X)
    gains = np.diff(np.asarray(fit.restarts.trace), axis=1)
    bound = 64 * np.finfo(float).eps * (abs(fit.log_joint) + len(X))
    assert np.nanmin(gains) >= -bound
    assert np.nanmax(gains) > 1


@pytest.mark.turn
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "diag")) for n in PRIORS]
)
def test_em_climbs_to_a_mode(name):
    _is_mode(tight_fit(name))


@pytest.mark.turn
def test_other_hyper_parameters_compile_nothing(compilations):
    tight_fit("diag")
    prior = {
        "sticks": dist.Beta(1.5, 2.5),
        "means": dist.StudentT(5.0, np.array([[2.5, 50.0], [4.5, 75.0]]), 6.0),
        "scales": dist.Gamma(2.5, np.array([3.0, 0.3])),
    }
    other = jg.Mixture(jg.Gaussian("diag"), 2, prior=prior)
    with compilations:
        fit = jg.fit(other, X + 1, start=starts(X, 2, 2), tol=1e-12, max_iter=5000)
    assert compilations.count == 0
    assert fit.converged


@pytest.mark.slow
def test_the_mode_is_one_of_the_declared_coordinates():
    # One component in one dimension: a flat mean, and the same prior of a variance twice.
    x = X[:, 0]
    a, b, n = 3.0, 2.0, len(x)
    squares = np.sum((x - x.mean()) ** 2)
    variance = dist.InverseGamma(a, b)
    root = dist.transforms.PowerTransform(0.5)
    flat = dist.ImproperUniform(dist.constraints.real, (), ())

    def mode(**prior):
        model = jg.Mixture(
            jg.Gaussian("spherical"), 1, prior={"means": flat, **prior}, weights="equal"
        )
        return jg.fit(model, x, start=np.ones((n, 1)), tol=1e-14).params.covariance_site[0]

    of_variance = mode(covariances=variance)
    of_scale = mode(scales=dist.TransformedDistribution(variance, root))
    np.testing.assert_allclose(of_variance, (b + squares / 2) / (a + n / 2 + 1), rtol=1e-12)
    np.testing.assert_allclose(of_scale, (b + squares / 2) / (a + n / 2 + 0.5), rtol=1e-12)


@pytest.mark.slow
def test_the_mode_is_scipys():
    fit = tight_fit("full")
    model, x = fit.model, jnp.asarray(X)
    here = np.asarray(fit.params.means)
    spread = np.std(X, axis=0)

    def params(v):
        weights = jnp.array([jax.nn.sigmoid(v[0]), jax.nn.sigmoid(-v[0])])
        means, scales = v[1:5].reshape(2, 2) * spread, jnp.exp(v[5:9].reshape(2, 2)) * spread
        rho = jnp.tanh(v[9:])
        one = jnp.ones(2)
        correlations = jnp.stack([jnp.stack([one, rho]), jnp.stack([rho, one])]).transpose(2, 0, 1)
        sites = {"weights": weights, "means": means, "scales": scales}
        return model.from_sites({**sites, "correlations": correlations})

    value = jax.jit(jax.value_and_grad(lambda v: -model.log_joint(params(v), x)))
    first = np.concatenate([[-0.5], (here / spread).ravel() * 1.02, np.full(4, -1.0), [0.1, 0.1]])
    found = minimize(lambda v: tuple(map(np.asarray, value(v))), first, jac=True, method="BFGS")
    np.testing.assert_allclose(-found.fun, fit.log_joint, rtol=1e-10)
    np.testing.assert_allclose(
        params(jnp.asarray(found.x)).covariances, fit.params.covariances, rtol=1e-4
    )


@pytest.mark.slow
def test_components_apart_are_components_together():
    # A joint distribution of all means, equal to independent ones, takes the other road.
    structure, prior = PRIORS["full"]
    joint = dist.MultivariateNormal(
        np.array([3.0, 70.0, 3.0, 70.0]), block_diag(*[np.diag([25.0, 400.0])] * 2)
    )
    reshaped = dist.TransformedDistribution(joint, dist.transforms.ReshapeTransform((2, 2), (4,)))
    model = jg.Mixture(jg.Gaussian(structure), 2, prior={**prior, "means": reshaped})
    fit = jg.fit(model, X, start=starts(X, 2, 2), tol=1e-14, max_iter=5000)
    np.testing.assert_allclose(fit.log_joint, tight_fit("full").log_joint, rtol=1e-12)
    np.testing.assert_allclose(fit.params.means, tight_fit("full").params.means, rtol=1e-7)


@pytest.mark.slow
def test_a_mode_differentiates_in_its_hyper_parameters():
    x = jnp.asarray(X)
    labels = jnp.asarray(split_labels(X, 2))

    def first_mean(loc):
        prior = {**PRIORS["diag-variances"][1], "means": dist.Normal(loc, jnp.array([0.5, 2.0]))}
        model = jg.Mixture(jg.Gaussian("diag"), 2, prior=prior).resolve(x)
        return jg.em.run(model, x, labels, tol=1e-14).params.means[0, 0]

    at, step = jnp.array([3.0, 70.0]), jnp.array([1e-4, 0.0])
    slope = jax.jit(jax.grad(first_mean))(at)[0]
    value = jax.jit(first_mean)
    np.testing.assert_allclose(slope, (value(at + step) - value(at - step)) / 2e-4, rtol=1e-5)
    assert slope > 0.001


# -- what is refused --------------------------------------------------------------------


def _changed(name, **sites):
    structure, prior = PRIORS[name]
    prior = {**prior, **sites}
    return jg.Mixture(
        jg.Gaussian(structure), 2, prior={n: d for n, d in prior.items() if d is not None}
    )


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (_changed("full", scales=None), r"'scales', 'correlations'.*found 'weights', 'means'"),
        (_changed("full", correlations=None), r"'correlations'.*found 'weights'"),
        (_changed("diag", correlations=LKJ), r"found .*'correlations'"),
        (
            _changed("diag-variances", scales=SCALES),
            r"needs .*'means', 'scales' .*found .*'covariances'$",
        ),
        (_changed("full", mean=MEANS), r"found .*'mean'"),
        (_changed("diag", means=dist.HalfNormal(1.0)), r"'means'.*real numbers.*HalfNormal"),
        (_changed("full", scales=dist.Normal(0, 1)), r"'scales'.*positive numbers.*Normal"),
        (
            _changed("full", scales=dist.Uniform(0, 4)),
            r"'scales'.*positive numbers.*Uniform.*; use Gamma\(3.0, 1.5\), of the same mean",
        ),
        (
            _changed("full", means=dist.Uniform(np.array([-3.0, 0.0]), np.array([9.0, 30.0]))),
            r"; use Normal\(np.array\(\[3.0, 15.0\]\), np.array\(\[3.464, 8.66\]\)\), of the same",
        ),
        (_changed("diag", sticks=dist.Uniform(0.0, 0.5)), r"'sticks'.*; use Beta \(of ones"),
        (
            _changed("full", correlations=dist.Uniform(-1.0, 1.0)),
            r"'correlations'.*Uniform.*; use LKJ \(of one: uniform\)",
        ),
        (
            _changed("full-wishart", covariances=dist.Uniform(0.0, 1.0)),
            r"'covariances'.*Uniform.*; use InverseWishart",
        ),
        (_changed("full", weights=dist.Uniform(0.0, 1.0)), r"'weights'.*; use Dirichlet \(of ones"),
        (_changed("full", correlations=dist.LKJ(3, 1.0)), r"shape \(2, 2, 2\).*\(3, 3\)"),
        (_changed("full", means=dist.Normal(np.zeros(3), 1)), r"'means'.*\(2, 2\).*\(3,\)"),
        (_changed("full", weights=dist.Dirichlet(np.ones(3))), r"'weights'.*\(2,\).*\(3,\)"),
        (_changed("full", weights=dist.Dirichlet(np.array([0.5, 1]))), "at least 1"),
        (_changed("full-wishart", covariances=dist.InverseWishart(0.5, np.eye(2))), "above 1"),
        (jg.Mixture(jg.Gaussian("VEE"), 2, prior=PRIORS["full"][1]), "'VEE' ties together"),
        (model_of("full", weights="equal"), "the weights being fixed"),
    ],
)
def test_what_does_not_fit_is_named(model, words):
    with pytest.raises(ValueError, match=words):
        jg.fit(model, X, start=split_labels(X, 2))


def test_what_is_no_distribution_is_refused():
    with pytest.raises(TypeError, match="'means' needs a NumPyro distribution"):
        jg.fit(_changed("full", means=3.0), X, start=split_labels(X, 2))


def test_flat_sites_have_no_posterior(key):
    flat = dist.ImproperUniform(dist.constraints.real, (), ())
    with pytest.raises(ValueError, match=r"'means'.*improper.*; use Normal or StudentT"):
        jg.sample(_changed("diag", means=flat), X, key=key)
    flat = dist.ImproperUniform(dist.constraints.positive, (), ())
    with pytest.raises(ValueError, match=r"'scales'.*improper.*; use LogNormal, Gamma or"):
        jg.sample(_changed("diag", scales=flat), X, key=key)


def test_labelled_rows_do_not_update_it():
    x = jnp.asarray(X)
    model = model_of("full").resolve(x).standardise(x)
    moments = model.statistics(jnp.asarray(split_labels(X, 2)), x)
    with pytest.raises(ValueError, match="not conjugate"):
        model.updated(moments)
    with pytest.raises(ValueError, match="not conjugate"):
        model.expected_step(x)


def test_whether_the_joint_is_bounded():
    bounded = {name: model_of(name).bounded() for name in PRIORS}
    assert bounded == {
        "full": False,  # correlations, and standard deviations that may vanish
        "full-wishart": True,
        "full-jointly": False,
        "tied": False,
        "diag": False,
        "diag-variances": True,
        "spherical": True,
        "EII": False,
        "EEI": False,
    }


@pytest.mark.slow
def test_a_component_that_shrinks_onto_a_row_has_a_status():
    x = X[:40]
    labels = np.stack([split_labels(x, 2), np.eye(2)[(np.arange(40) == 0).astype(int)]])
    fit = jg.fit(_changed("diag", scales=dist.HalfNormal(5.0)), x, start=labels)
    assert fit.converged
    assert fit.best == 0
    assert fit.restarts.status[1] == jg.Status.COLLAPSED


# -- samplers and the report -----------------------------------------------------------


def test_the_report_writes_it_down():
    model = model_of("full").resolve(X)
    text = "\n".join(model.describe().formulas)
    assert "LKJ(concentration=1.5)" in text
    assert "HalfNormal(scale=(2, 20))" in text
    assert "Σ_k = diag(scales) correlations diag(scales)" in text
    assert "LogNormal" in str(model_of("spherical").resolve(X).describe().formulas)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["nuts", "laplace", "svi"])
def test_samplers_agree_with_em(method, key):
    weight = np.arange(len(X)) % 2 + 1.0
    model = model_of("full")
    fit = jg.fit(model, X, start=split_labels(X, 2), sample_weight=weight)
    post = jg.sample(
        fit.model,
        X,
        key=key,
        start=fit,
        method=method,
        n_draws=300,
        sample_weight=weight,
        progress=False,
    )
    assert set(post.draws) == {"weights", "means", "scales", "correlations", "covariances_full"}
    assert post.draws["covariances_full"].shape == (4, 300, 2, 2, 2)
    scales, correlations = post.draws["scales"], post.draws["correlations"]
    np.testing.assert_allclose(
        post.draws["covariances_full"],
        scales[..., None] * correlations * scales[..., None, :],
        rtol=1e-10,
    )
    draw = jax.tree.map(lambda leaf: leaf[1, 7], post.params)
    np.testing.assert_allclose(
        post.log_prior[1, 7] + post.log_likelihood[1, 7],
        fit.model.log_joint(draw, jnp.asarray(X), jnp.asarray(weight)),
        rtol=1e-10,
    )
    for name in ("means", "scales"):
        drawn = post.draws[name]
        mode = np.asarray(fit.model.sites(fit.params)[name])
        assert np.all(np.abs(drawn.mean((0, 1)) - mode) < 0.5 * drawn.std((0, 1)))
    verdict = jg.compare(fit, post)
    assert "correlations[0, " in "".join(verdict.table.index)
    assert not any(np.isnan(verdict.table["sd"]))
    assert "unbounded elsewhere" in str(verdict)


@pytest.mark.slow
def test_a_fit_in_float32():
    fit = jg.fit(model_of("full"), X.astype("float32"), start=starts(X, 2, 2))
    assert fit.converged
    assert fit.params.covariances.dtype == "float32"
    np.testing.assert_allclose(fit.log_joint, tight_fit("full").log_joint, rtol=1e-5)


@pytest.mark.slow
def test_a_fit_moves_with_the_data():
    structure, prior = PRIORS["full"]
    stretch, shift = np.array([250.0, 0.01]), np.array([-300.0, 7.0])
    moved = {
        **prior,
        "means": dist.Normal(stretch * MEANS.loc + shift, stretch * MEANS.scale),
        "scales": dist.HalfNormal(stretch * SCALES.scale),
    }
    model = jg.Mixture(jg.Gaussian(structure), 2, prior=moved)
    fit = jg.fit(model, X * stretch + shift, start=starts(X, 2, 2), tol=1e-14, max_iter=5000)
    here = tight_fit("full").params
    np.testing.assert_allclose(fit.params.means, here.means * stretch + shift, rtol=1e-8)
    np.testing.assert_allclose(
        fit.params.covariances, here.covariances * np.outer(stretch, stretch), rtol=1e-8
    )
