"""The laws of the library over the families beside the Gaussian; their doors and edges."""

import doctest
import functools
import itertools
import json
import pathlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from calibration import FALSE_ALARM, calibration
from families import FAMILIES, PRIORS, component_sites, mixture
from helpers import soft_labels, tree_allclose
from numpyro.infer.util import log_density
from scipy.special import betaln, gammaln, logsumexp

import jaxgmm as jg

REFS = pathlib.Path(__file__).parent / "data"

each_family = pytest.mark.parametrize("name", FAMILIES)


def _lane(name, prior):
    """One family has a prior in the quick lane."""
    return [pytest.mark.slow] * (prior == "weak" or (prior == "sites" and name != "poisson"))


each_family_and_prior = pytest.mark.parametrize(
    ("name", "prior"),
    [pytest.param(name, prior, marks=_lane(name, prior)) for name in FAMILIES for prior in PRIORS],
)


def table(name):
    return np.genfromtxt(REFS / f"{name}.csv", delimiter=",", skip_header=1)


CARCINOMA = jg.datasets.load("carcinoma").x


def labels(name, k=2, seed=0):
    return soft_labels(len(FAMILIES[name].x), k, seed)


@jax.jit
def first_params(model, labels, x):
    """The M-step at given labels: compiled once for each family."""
    return model.m_step(model.statistics(labels, x))


def reference(model, rows, x, sample_weight):
    """The mixture written a second time, with NumPyro's own distributions only."""
    sites = {}
    for name, site in component_sites(model.family, model.n_components, x.shape[1]).items():
        written = dist.ImproperUniform(site.support, (), site.shape)
        if model.prior is not None:
            written = model.prior.by_site[name]
            batch = site.shape[: len(site.shape) - written.event_dim]
            written = written.expand(batch).to_event(len(batch))
        sites[name] = numpyro.sample(name, written)
    weights = dist.ImproperUniform(dist.constraints.simplex, (), (model.n_components,))
    if model.prior is not None:
        weights = model.prior.distributions["weights"]
    logits = jnp.log(numpyro.sample("weights", weights)) + rows(sites, x[:, None])
    numpyro.factor("x", sample_weight @ jax.nn.logsumexp(logits, axis=1))


@functools.cache
def fitted(name, prior):
    """To where nothing moves, from two starts of which one has the labels of the other renamed."""
    start = labels(name)
    stack = np.stack([start, start[:, ::-1]])
    model = mixture(name, prior)
    return jg.fit(model, FAMILIES[name].x, start=stack, tol=1e-14, max_iter=5000)


# -- laws 1, 2 and 6: the number, its mode, and labels that mean nothing -----------------


@functools.partial(jax.jit, static_argnames="rows")
def _densities(model, params, x, sample_weight, rows):
    sites = model.sites(params)
    ours = model.log_joint(params, x, sample_weight)
    program = log_density(model.numpyro_model, (x, None, sample_weight), {}, sites)[0]
    other = log_density(reference, (model, rows, x, sample_weight), {}, sites)[0]

    def along(step):
        return model.log_joint(model.retract(params, step), x, sample_weight)

    origin = jnp.zeros(model.tangent_size(params))
    return ours, program, other, jax.grad(along)(origin), jax.hessian(along)(origin)


@each_family_and_prior
def test_one_density_and_its_mode(name, prior):
    case, fit = FAMILIES[name], fitted(name, prior)
    x, weight = jnp.asarray(case.x), jnp.arange(len(case.x)) % 3 + 0.5
    assert fit.converged
    model = fit.model
    somewhere = first_params(model, labels(name, seed=3), x)
    for params, w in [(somewhere, weight), (fit.params, jnp.ones(len(x)))]:
        ours, program, other, slope, curvature = _densities(model, params, x, w, case.rows)
        np.testing.assert_allclose([ours, program], other, rtol=1e-10)
        assert np.all(np.isfinite(curvature))
    np.testing.assert_allclose(fit.log_joint, other, rtol=1e-10)
    # Multiplicative steps are free of units; at an edge the slope goes to zero with the value.
    assert np.max(np.abs(slope)) < 1e-6 * len(x)
    assert (fit.log_prior == 0) == (prior == "none")
    if prior != "sites":  # of which the concentrations differ
        first, second = (jax.tree.map(lambda a, s=s: a[s], fit.restarts.params) for s in (0, 1))
        renamed = model.permute(first, jnp.array([1, 0]))
        tree_allclose(renamed, second, 1e-6, 1e-8)
        np.testing.assert_allclose(*fit.restarts.log_joint, rtol=1e-12)


# -- laws 3, 4 and 5 -----------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames="steps")
def _chain(model, x, labels, sample_weight=None, steps=60):
    """Raw M and E steps: objectives and parameters, and the last ones."""

    def step(params, _):
        statistics, log_likelihood = model.e_step(params, x, sample_weight)
        return model.m_step(statistics, params), log_likelihood + model.log_prior(params)

    first = model.m_step(model.statistics(labels, x, sample_weight))
    params, objectives = jax.lax.scan(step, first, length=steps)
    return objectives, params


@each_family
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_em_never_descends(name, dtype):
    x = jnp.asarray(FAMILIES[name].x, dtype)
    model = mixture(name, "sites").resolve(x)
    objectives, params = _chain(model, x, jnp.asarray(labels(name), dtype))
    assert objectives.dtype == params.weights.dtype == dtype
    bound = jnp.finfo(dtype).eps * 64 * (jnp.max(jnp.abs(objectives)) + len(x))
    assert jnp.min(jnp.diff(objectives)) >= -bound
    assert objectives[-1] - objectives[0] > 100 * bound


@each_family
def test_a_weight_counts_rows(name):
    x, counts = FAMILIES[name].x, np.arange(40) % 3
    model = mixture(name, "weak")
    repeated, each = np.repeat(x, counts, axis=0), np.repeat(labels(name), counts, axis=0)
    weighted = _chain(
        model.resolve(x, counts), x, labels(name), jnp.asarray(counts, float), steps=9
    )
    rows = _chain(model.resolve(repeated), jnp.asarray(repeated), each, steps=9)
    tree_allclose(weighted, rows, 1e-11)


@each_family
def test_statistics_add(name):
    x, model = jnp.asarray(FAMILIES[name].x), mixture(name).resolve(FAMILIES[name].x)
    params = first_params(model, labels(name), x)
    e_step = jax.jit(lambda rows: model.e_step(params, rows))
    whole, value = e_step(x)
    parts = [e_step(rows)[0] for rows in (x[:20], x[20:])]
    tree_allclose(model.add(*parts), whole, 1e-13)
    twice = model.add(whole, whole)
    tree_allclose(
        model.add(whole, twice, (2.0, 1.5)), model.add(twice, model.add(twice, whole)), 1e-13
    )
    many, sum_of_many = e_step(jnp.tile(x, (200, 1)))  # several blocks
    tree_allclose((many.counts, sum_of_many), (200 * whole.counts, 200 * value), 1e-11)


def test_an_exponential_fit_moves_with_the_units():
    x = FAMILIES["exponential"].x
    here, there = (
        jg.fit(mixture("exponential", "weak"), scale * x, start=labels("exponential"))
        for scale in (1.0, 1e-9)
    )
    assert here.n_iter == there.n_iter
    tree_allclose(here.params.rates, 1e-9 * there.params.rates, 1e-8)


# -- law 7: one program ---------------------------------------------------------------------


def test_vmap_over_starts_and_priors_is_a_loop():
    x, case = jnp.asarray(FAMILIES["poisson"].x), FAMILIES["poisson"]

    def run(start, shape):
        prior = {"weights": dist.Dirichlet(jnp.ones(2)), "rates": dist.Gamma(shape, 0.5)}
        # Nothing here is resolved: the rows tell what has to be known.
        return jg.em.run(jg.Mixture(case.family, 2, prior=prior), x, start, max_iter=3)

    stack, shapes = jnp.stack([labels("poisson", seed=s) for s in (0, 1)]), jnp.array([1.5, 3.0])
    together = jax.jit(jax.vmap(run))(stack, shapes)
    loop = [jax.jit(run)(*one) for one in zip(stack, shapes, strict=True)]
    tree_allclose(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *loop), 1e-12)


def test_a_second_call_compiles_nothing(compilations):
    case = FAMILIES["poisson"]

    def fit(shape, x):
        prior = {"weights": dist.Dirichlet(jnp.ones(2)), "rates": dist.Gamma(shape, 0.5)}
        return jg.fit(jg.Mixture(case.family, 2, prior=prior), x, start=labels("poisson"))

    fit(2.0, case.x)
    with compilations:
        fit(3.0, case.x[::-1] + 1)
    assert compilations.count == 0


# -- law 9: parameter counts are ranks --------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "k", "rank"),
    [
        ("bernoulli", 2, 11),
        ("categorical", 2, 17),
        ("multinomial", 2, 5),
        ("poisson", 2, 5),
        ("exponential", 2, 5),
        ("geometric", 2, 5),
    ],
)
def test_counts_of_parameters_are_ranks(name, k, rank):
    case = FAMILIES[name]
    model = mixture(name, k=k).resolve(case.x)
    assert model.n_parameters(case.x.shape[1]) == rank
    rows = jnp.asarray(np.unique(case.x, axis=0))
    params = first_params(model, 0.2 / k + 0.8 * labels(name, k), case.x)
    assert model.tangent_size(params) == rank
    along = lambda step: model.log_prob(model.retract(params, step), rows)
    singular = np.linalg.svd(jax.jit(jax.jacfwd(along))(jnp.zeros(rank)), compute_uv=False)
    assert singular[-1] > 1e-4 * singular[0]


# -- law 10: small enough to enumerate ---------------------------------------------------------

FEW = {
    "bernoulli": np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1], [0, 0, 1.0]]),
    "poisson": np.array([[0.0, 3], [1, 4], [0, 5], [6, 1], [4, 0], [7, 2]]),
}
ALPHA = 1.5
GIVEN = {"bernoulli": (1.3, 1.7), "poisson": (2.0, 0.6)}


def few_model(name):
    kind = {"bernoulli": dist.Beta, "poisson": dist.Gamma}[name]
    (site,) = FAMILIES[name].family.conjugate
    prior = {"weights": dist.Dirichlet(jnp.full(2, ALPHA)), site: kind(*GIVEN[name])}
    return jg.Mixture(FAMILIES[name].family, 2, prior=prior)


def few_rows(name, holes):
    """The rows, with some values missing where there are to be ``holes``."""
    gone = np.random.default_rng(1).random(FEW[name].shape) < 0.3
    return np.where(gone & holes, np.nan, FEW[name])


def exact(name, holes=False):
    """Log evidence, and probabilities of how many rows the first label has."""
    x, (a, b) = few_rows(name, holes), GIVEN[name]

    def one_component(rows):
        n, ones = np.sum(~np.isnan(rows), axis=0), np.nansum(rows, axis=0)
        if name == "bernoulli":
            return np.sum(betaln(a + ones, b + n - ones) - betaln(a, b))
        gain = gammaln(a + ones) - gammaln(a) + a * np.log(b) - (a + ones) * np.log(b + n)
        return np.sum(gain) - np.nansum(gammaln(rows + 1))

    logs, firsts = [], []
    for z in map(np.array, itertools.product(range(2), repeat=len(x))):
        counts = np.bincount(z, minlength=2)
        weights = np.sum(gammaln(ALPHA + counts) - gammaln(ALPHA))
        weights += gammaln(2 * ALPHA) - gammaln(2 * ALPHA + len(x))
        logs.append(weights + one_component(x[z == 0]) + one_component(x[z == 1]))
        firsts.append(counts[0])
    total = logsumexp(logs)
    return total, np.bincount(firsts, np.exp(np.array(logs) - total), len(x) + 1)


@pytest.mark.parametrize("name", ["poisson", pytest.param("bernoulli", marks=pytest.mark.slow)])
@pytest.mark.parametrize("holes", [pytest.param(False, marks=pytest.mark.slow), True])
def test_engines_agree_with_enumeration(name, holes):
    model, x = few_model(name), few_rows(name, holes)
    total, first_count = exact(name, holes)
    post = jg.sample(
        model, x, key=jax.random.key(2), method="gibbs", n_draws=2000, n_warmup=50, progress=False
    )
    found = jg.evidence(post, key=jax.random.key(3), n_assignments=64)
    assert abs(found.log_evidence - total) < 4 * found.error < 0.1
    # Labels of the draws as drawn; the sampler visits both labellings.
    ones = np.sum(post.sample_assignments(jax.random.key(4)) == 0, axis=-1).ravel()
    seen = np.bincount(ones, minlength=len(x) + 1) / len(ones)
    both = lambda shares: shares + shares[::-1]  # matched labels are a convention
    assert np.max(np.abs(both(seen) - both(first_count))) < 0.06
    end = jg.bayes.variational(
        model.resolve(x), jnp.asarray(x), jax.tree.map(lambda a: a[0, 0], post.params)
    )
    assert total - 5 < end.elbo < total
    assert np.all(np.diff(np.asarray(end.trace)[: int(end.n_iter) + 1]) > -1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("holes", [False, True])
def test_slower_engines_agree_with_enumeration(name, holes):
    model, x = few_model(name), few_rows(name, holes)
    total, _ = exact(name, holes)
    for method in ("smc", "laplace", "nuts"):
        post = jg.sample(model, x, key=jax.random.key(5), method=method, progress=False)
        found = post.evidence or jg.evidence(post, key=jax.random.key(6))
        assert abs(found.log_evidence - total) < 4 * found.error + 0.02, method


@pytest.mark.slow
def test_three_estimates_of_one_evidence():
    x = table("poisson_mix")[:, :2]
    prior = {"weights": dist.Dirichlet(jnp.ones(3)), "rates": dist.Gamma(2.0, 0.4)}
    model = jg.Mixture(jg.families.Poisson(), 3, prior=prior)
    fit = jg.fit(model, x, key=jax.random.key(0))
    draw = functools.partial(jg.sample, fit.model, x, start=fit, progress=False)
    bridge = jg.evidence(draw(key=jax.random.key(1), method="gibbs"), key=jax.random.key(2))
    np.testing.assert_allclose(bridge.log_evidence, -1507.955, atol=0.01)
    for method in ("laplace", "smc"):
        found = draw(key=jax.random.key(3), method=method).evidence
        assert abs(found.log_evidence - bridge.log_evidence) < 4 * found.error


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_calibration(name):
    """Gibbs sampling against the model that it samples: six numbers in all."""
    from jaxgmm.bayes._gibbs import labelled

    (site,) = FAMILIES[name].family.conjugate

    def sweep(model, x, params, key):
        key_labels, key_params = jax.random.split(key)
        statistics, _ = labelled(model, x, None, params, key_labels)
        return model.updated(statistics).draw_prior(key_params)

    def draw(model, x, params, key):
        again = lambda p, k: (sweep(model, x, p, k), None)
        return jax.lax.scan(again, params, jax.random.split(key, 4))[0]

    def summaries(model, params, x):
        values = params.own[site]
        return jnp.array([params.weights[0], values[0, 0], model.log_likelihood(params, x)])

    model = few_model(name).resolve(FEW[name])
    p_values = calibration(model, draw, summaries, 12, jax.random.key(13))
    assert np.all(p_values > FALSE_ALARM)


def test_the_page_on_families():
    page = REFS.parents[1] / "docs" / "families.md"
    found = doctest.testfile(str(page), module_relative=False)
    assert found.attempted
    assert not found.failed


# -- references ----------------------------------------------------------------------------------


@pytest.mark.turn
@pytest.mark.parametrize(
    ("k", "log_likelihood", "n_parameters"),
    [
        pytest.param(2, -317.2568, 15, marks=pytest.mark.slow),
        (3, -293.7050, 23),
        pytest.param(4, -289.2858, 31, marks=pytest.mark.slow),
    ],
)
def test_latent_classes_of_carcinoma(k, log_likelihood, n_parameters):
    """Linzer and Lewis (2011), J. Stat. Softw. 42(10), section 5.1, from the default starts."""
    fit = jg.fit(jg.Mixture(jg.families.Bernoulli(), k), CARCINOMA, key=jax.random.key(1))
    assert fit.converged
    assert fit.n_parameters == n_parameters
    assert fit.log_likelihood == pytest.approx(log_likelihood, abs=5e-5)
    if k == 3:
        errors = jg.standard_errors(fit, CARCINOMA)
        assert errors.n_boundary == 10
        assert errors.definite
        assert errors.status.endswith("; 10 parameters lie on the boundary, taken as known")
        at_edge = (fit.params.probs < 1e-6) | (fit.params.probs > 1 - 1e-6)
        np.testing.assert_array_equal(errors.standard_errors["probs"] == 0, at_edge)
        twice = jg.Mixture(jg.families.Categorical(levels=2), k)
        again = jg.fit(twice, CARCINOMA, start=fit.model.responsibilities(fit.params, CARCINOMA))
        np.testing.assert_allclose(again.log_likelihood, fit.log_likelihood, rtol=1e-9)
        shape = jg.report.curvature(errors)
        assert shape.stationary
        assert shape.n_flat == shape.n_negative == 0


@pytest.mark.slow
@pytest.mark.parametrize("acceleration", [None, "squarem", "anderson"])
def test_other_systems_agree(acceleration):
    """flexmix for Poisson, mixtools for multinomial components, from the default starts."""
    record = json.loads((REFS / "em_extra.json").read_text())
    options = {"key": jax.random.key(0), "acceleration": acceleration}
    wanted = record["poisson_mixture"]
    x = table("poisson_mix")[:, :2]
    fit = jg.fit(jg.Mixture(jg.families.Poisson(), 3), x, tol=1e-13, **options)
    assert fit.n_parameters == wanted["df"]
    np.testing.assert_allclose(fit.log_likelihood, wanted["loglik"], rtol=1e-9)
    order = np.argsort(fit.params.rates[:, 0])
    np.testing.assert_allclose(fit.params.rates[order], wanted["lambda"], rtol=1e-5)
    wanted = record["multmixEM"]
    fit = jg.fit(
        jg.Mixture(jg.families.Multinomial(), 2), table("multinomial_mix")[:, :5], **options
    )
    reported = wanted["loglik_with_multinomial_coefficient"]
    np.testing.assert_allclose(fit.log_likelihood, reported, rtol=1e-9)
    if acceleration:
        many = jg.fit(jg.Mixture(jg.families.Bernoulli(), 3), CARCINOMA, tol=1e-12, **options)
        assert np.all(many.restarts.status == jg.Status.CONVERGED)
        assert many.log_likelihood == pytest.approx(-293.7050, abs=5e-5)


# -- doors and edges -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "column", "value", "words"),
    [(name, *wrong) for name, case in FAMILIES.items() for wrong in case.wrong],
)
def test_values_that_no_row_has(name, column, value, words):
    x = FAMILIES[name].x.copy()
    x[3, column] = value
    with pytest.raises(ValueError, match="needs") as refusal:
        jg.fit(mixture(name), x, start=labels(name))
    assert words in str(refusal.value)
    assert str(refusal.value).startswith(f"x: {FAMILIES[name].family.label} needs ")


def test_a_column_is_called_by_its_name():
    import pandas as pd

    frame = pd.DataFrame({"smokes": [0, 1, 2], "drinks": [0, 1, 1]})
    with pytest.raises(ValueError, match="found 2 at row 2, column 'smokes'"):
        jg.fit(jg.Mixture(jg.families.Bernoulli(), 1), frame, key=jax.random.key(0))


def test_counts_that_float32_does_not_have():
    x = np.array([[2.0**24 + 2], [3.0]], np.float32)
    with pytest.raises(ValueError, match=r"counts up to 16777216, found 16777218 at row 0"):
        jg.fit(jg.Mixture(jg.families.Poisson(), 1), x, key=jax.random.key(0))


def test_priors_that_do_not_fit():
    x = FAMILIES["poisson"].x
    fit = lambda prior, k=2: jg.fit(
        jg.Mixture(jg.families.Poisson(), k, prior=prior), x, key=jax.random.key(0)
    )
    weights = {"weights": dist.Dirichlet(jnp.ones(2))}
    with pytest.raises(ValueError, match="needs a distribution for 'weights'"):
        fit({"rates": dist.Gamma(2.0, 1.0)})
    with pytest.raises(ValueError, match="all positive numbers, found Beta"):
        fit({**weights, "rates": dist.Beta(2.0, 1.0)})
    with pytest.raises(ValueError, match=r"concentration of 0.5, below 1"):
        fit({**weights, "rates": dist.Gamma(0.5, 1.0)})
    with pytest.raises(TypeError, match="ConjugatePrior is of Gaussian components"):
        fit(jg.ConjugatePrior(mean=[0.0], mean_precision=1.0, dof=3.0, scale=[[1.0]]))
    with pytest.raises(ValueError, match="unknown name 'fraley-raftery'"):
        fit("fraley-raftery")
    with pytest.raises(ValueError, match=r'improper.*use prior="weak"'):
        jg.sample(jg.Mixture(jg.families.Poisson(), 2), x, key=jax.random.key(0))
    sticks = {"sticks": dist.Beta(1.0, 2.0).expand((1,)), "rates": dist.Gamma(2.0, 1.0)}
    model = jg.Mixture(jg.families.Poisson(), 2, prior=sticks).resolve(x)
    with pytest.raises(ValueError, match="'sticks' need a Dirichlet"):
        model.updated(model.statistics(jnp.asarray(labels("poisson")), x))
    with pytest.raises(ValueError, match="levels"):
        jg.families.Categorical(levels=1)


def test_a_rule_hears_its_name():
    heard = []

    class Loud(jg.families.Poisson):
        rules = ("weak", "loud")

        def default_prior(self, rule, *shape):
            heard.append(rule)
            return super().default_prior(rule, *shape)

    jg.model.pytree(Loud)
    jg.Mixture(Loud(), 2, prior="loud").resolve(FAMILIES["poisson"].x)
    assert heard == ["loud"]
    x = jg.datasets.load("faithful").x
    names = ("weak", "fraley-raftery")
    tree_allclose(*(jg.Mixture(jg.Gaussian(), 2, prior=n).resolve(x).prior for n in names), 0.0)


def test_when_every_restart_collapses_no_covariance_is_blamed():
    given = np.zeros((40, 2))
    given[:, 0] = 1
    with pytest.raises(ValueError, match="a component lost its rows; use a proper prior"):
        jg.fit(mixture("poisson"), FAMILIES["poisson"].x, start=given)


def test_parameters_are_checked():
    model = jg.Mixture(jg.families.Poisson(), 2)
    with pytest.raises(ValueError, match=r"rates: needs shape \(2, D\), found \(3, 1\)"):
        model.params(rates=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="rates: needs values on all positive numbers"):
        model.params(rates=[1.0, -2.0])
    with pytest.raises(TypeError, match="probs: not a parameter of Poisson"):
        model.params(probs=[1.0, 2.0])
    params = model.params(rates=[0.0, 2.0])
    assert params.rates.shape == (2, 1)
    with pytest.raises(AttributeError, match="has no 'means'"):
        params.means  # noqa: B018
    tree_allclose(pickle.loads(pickle.dumps(params)), params, 0.0)


@pytest.mark.parametrize("name", ["bernoulli", "poisson"])
def test_an_edge_has_finite_derivatives(name):
    """A probability of exactly 0 or 1, and a rate of 0, under a flat conjugate prior too."""
    case, k = FAMILIES[name], 2
    (site,), x = case.family.conjugate, jnp.asarray(case.x)
    flat = {"bernoulli": dist.Beta(1.0, 1.0), "poisson": dist.Gamma(1.0, 0.5)}[name]
    prior = {"weights": dist.Dirichlet(jnp.ones(k)), site: flat}
    model = jg.Mixture(case.family, k, prior=prior).resolve(x)
    value = jnp.full((k, x.shape[1]), 0.5).at[0, 0].set(0.0)
    value = value.at[1, 1].set(1.0)
    params = model.from_sites({"weights": jnp.array([0.5, 0.5]), site: value})
    along = lambda step: model.log_joint(model.retract(params, step), x)
    twice = jax.jit(lambda step: (jax.grad(along)(step), jax.hessian(along)(step)))
    for derivatives in twice(jnp.zeros(model.tangent_size(params))):
        assert np.all(np.isfinite(derivatives))
    inside = model.inwards(params, 1e-3)
    assert float(inside.own[site][0, 0]) > 0
    near = np.asarray(model.edges(params))
    assert near[k - 1]
    assert near.sum() == (2 if name == "bernoulli" else 1)


def test_jax_tells_families_apart():
    """It may take one of two equal structures for the other, and its program too."""
    structures = [jax.tree.structure(jg.Mixture(case.family, 2)) for case in FAMILIES.values()]
    for one, other in itertools.combinations(structures, 2):
        assert one != other


def test_code_that_makes_the_model_again():
    model = mixture("multinomial", "sites").resolve(FAMILIES["multinomial"].x)
    again = eval(model.describe().code(2), {"jg": jg, "dist": dist, "np": np})
    tree_allclose(again.prior, model.prior, 0.0)
    assert again.family == jg.families.Multinomial()
    geometric = mixture("geometric").describe()
    assert geometric.code("k") == "jg.Mixture(Geometric(), n_components=k)"


@each_family
def test_an_empty_component_has_a_flat_mode(name):
    model = mixture(name).resolve(FAMILIES[name].x)
    given = jnp.zeros((40, 2)).at[:, 0].set(1)
    params = first_params(model, given, FAMILIES[name].x)
    assert all(np.all(np.isfinite(site)) for site in params.own.values())
    assert bool(model.collapsed(params))


@each_family
def test_rows_are_drawn_as_the_model_says(name):
    case = FAMILIES[name]
    model = mixture(name).resolve(case.x)
    params = first_params(model, labels(name), case.x)
    sample = jax.jit(lambda key: model.sample(params, key, 4000))
    drawn = np.asarray(sample(jax.random.key(3)))
    assert drawn.shape == (4000, case.x.shape[1])
    model.family.check_rows(drawn)
    # The M-step keeps means of what families count, and those of the rows are among them.
    error = np.std(drawn, axis=0) / np.sqrt(len(drawn))
    assert np.all(np.abs(drawn.mean(axis=0) - case.x.mean(axis=0)) < 5 * error)


@pytest.mark.slow
def test_select_over_families_and_numbers_of_components():
    models = [mixture("poisson", k=k) for k in (1, 2)] + [mixture("multinomial", k=2)]
    choice = jg.select(
        models, FAMILIES["poisson"].x, key=jax.random.key(0), n_init=2, progress=False
    )
    assert choice.table["structure"].tolist() == ["Poisson", "Poisson", "Multinomial"]
    assert (choice.table["reason"] == "").all()
    alone = [jg.fit(m, FAMILIES["poisson"].x, key=jax.random.key(1), n_init=2) for m in models[:2]]
    for row, fit in enumerate(alone):
        found = choice.table["log_likelihood"].iloc[row]
        np.testing.assert_allclose(found, fit.log_likelihood, rtol=1e-7)
        assert choice.table["n_parameters"].iloc[row] == fit.n_parameters


@pytest.mark.slow
@each_family
def test_the_whole_way(name, tmp_path):
    """Fit, errors, bootstrap, each sampler, the verdict and its report."""
    case = FAMILIES[name]
    fit = jg.fit(mixture(name, "weak"), case.x, key=jax.random.key(0))
    errors = jg.standard_errors(fit, case.x)
    assert errors.definite
    if name != "geometric":  # files hold kinds that the library knows
        kept = jg.load(fit.save(tmp_path / "fit.npz"))
        tree_allclose((kept.model, kept.params), (fit.model, fit.params), 0.0)
    for kind in ("nonparametric", "parametric"):
        boot = jg.bootstrap(fit, case.x, key=jax.random.key(1), n_replicates=50, kind=kind)
        site = next(iter(case.family.site_dims()))
        ratio = boot.standard_errors[site] / errors.standard_errors[site]
        assert 0.4 < np.median(ratio) < 2.5
    for method in ("gibbs", "nuts", "vb", "laplace", "svi"):
        post = jg.sample(
            fit.model, case.x, key=jax.random.key(2), start=fit, method=method, n_draws=300,
            progress=False,
        )  # fmt: skip
        table = post.summary()
        assert np.all(np.isfinite(table["mean"].to_numpy(float)))
        if method in ("gibbs", "laplace"):
            verdict = jg.compare(fit, post)
            assert verdict.checks.loc["Newton decrement (sd)", "verdict"] == "ok"
            page = verdict.save(tmp_path / method)
            assert page.exists()
