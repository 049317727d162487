"""EM, standard errors and posteriors of NumPyro programs with discrete latent sites."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density
from programs import TUTORIAL, at_rows, latent_class, three_coins, tutorial, zero_inflated

import jaxgmm as jg

THROWS = np.array([1, 1, 0, 1, 0, 0, 1, 0, 1, 1])


def _counts(n=200, seed=3):
    noise = np.random.default_rng(seed)
    return np.where(noise.random(n) < 0.3, 0, noise.poisson(3.0, n))


@pytest.fixture(scope="module")
def mixture():
    return jg.from_numpyro(tutorial, TUTORIAL)


@pytest.fixture(scope="module")
def fit(mixture):
    return jg.fit(mixture, TUTORIAL, start=at_rows, n_init=64, key=jax.random.key(0))


# -- the tutorial's mixture ------------------------------------------------------------------


def test_the_log_joint_is_that_of_numpyro(mixture):
    params = {"weights": jnp.array([0.375, 0.625]), "locs": jnp.array([0.4989534, 10.984944])}
    params["scale"] = jnp.array(0.651434)
    ours = mixture.log_joint(params, TUTORIAL)
    # What funsor's enumeration gives.
    assert ours == pytest.approx(-17.44325570220451, abs=1e-12)
    assert log_density(mixture.numpyro_model, (jnp.asarray(TUTORIAL),), {}, params)[0] == ours


def test_the_log_joint_is_that_of_funsor():
    """By itself: funsor sets NumPyro's handlers for the whole process."""
    pytest.importorskip("funsor")
    import os
    import pathlib
    import subprocess
    import sys

    code = """
import jax; jax.config.update("jax_enable_x64", True)
import numpy as np, jax.numpy as jnp
from numpyro.contrib.funsor import config_enumerate, enum
from numpyro.contrib.funsor.infer_util import log_density
import programs
at = {"weights": jnp.array([.3, .7]), "locs": jnp.array([1.0, 9.0]), "scale": jnp.array(1.3)}
model = enum(config_enumerate(programs.tutorial), first_available_dim=-2)
print(repr(float(log_density(model, (programs.TUTORIAL,), {}, at)[0])))
"""
    here = str(pathlib.Path(__file__).parent)
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([here, *sys.path])},
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    model = jg.from_numpyro(tutorial, TUTORIAL)
    at = {"weights": jnp.array([0.3, 0.7]), "locs": jnp.array([1.0, 9.0]), "scale": jnp.array(1.3)}
    assert model.log_joint(at, TUTORIAL) == pytest.approx(float(found.stdout), rel=1e-12)


@pytest.mark.turn
def test_em_finds_the_mode_from_rows_as_locations(fit):
    at_mode = np.abs(fit.restarts.log_joint - fit.log_joint) < 1e-6
    assert np.sum(at_mode & fit.restarts.converged) >= 60
    order = np.argsort(fit.params["locs"])
    np.testing.assert_allclose(fit.params["weights"][order], [0.375, 0.625], atol=1e-6)
    np.testing.assert_allclose(fit.params["locs"][order], [0.4989, 10.9845], atol=1e-4)
    np.testing.assert_allclose(fit.params["scale"], 0.6514, atol=1e-4)
    gradient = jax.grad(lambda p: fit.model.log_joint(p, TUTORIAL))(fit.params)
    slope = gradient["weights"] - jnp.mean(gradient["weights"])
    assert max(float(jnp.max(jnp.abs(g))) for g in (slope, gradient["locs"])) < 1e-4


def test_no_step_that_is_kept_falls(fit):
    heights = fit.restarts.trace
    assert np.nanmin(np.diff(heights, axis=1)) > -1e-12


def test_labels_are_found_exchangeable(mixture, fit):
    assert mixture.exchangeable
    swapped = mixture.permute(fit.params, jnp.array([1, 0]))
    np.testing.assert_array_equal(swapped["locs"], fit.params["locs"][::-1])
    np.testing.assert_array_equal(swapped["weights"], fit.params["weights"][::-1])
    assert swapped["scale"] == fit.params["scale"]
    assert mixture.log_joint(swapped, TUTORIAL) == pytest.approx(fit.log_joint, rel=1e-12)


@pytest.mark.slow
def test_standard_errors_are_those_of_the_hessian(fit):
    names = ("locs", "scale", "weights")

    def log_joint(free):
        weights = jnp.append(free[3], 1 - free[3])
        params = {"locs": free[:2], "scale": free[2], "weights": weights}
        return fit.model.log_joint(params, TUTORIAL)

    here = jnp.concatenate(
        [fit.params["locs"], fit.params["scale"][None], fit.params["weights"][:1]]
    )
    errors = jnp.sqrt(jnp.diag(jnp.linalg.inv(-jax.hessian(log_joint)(here))))
    found = jg.standard_errors(fit, TUTORIAL)
    assert found.definite
    flat = np.concatenate([np.ravel(found.standard_errors[name]) for name in names])
    np.testing.assert_allclose(flat[:4], errors, rtol=1e-4)


def test_rows_are_drawn_by_the_program(mixture, fit):
    rows = mixture.sample(fit.params, jax.random.key(2), 4000)
    assert rows.shape == (4000, 1)
    near = jnp.abs(rows - fit.params["locs"]).min(axis=1) < 4 * fit.params["scale"]
    assert jnp.mean(near) > 0.99
    left = jnp.mean(rows < 5)
    assert abs(left - 0.375) < 4 * np.sqrt(0.375 * 0.625 / 4000)


# -- other programs ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_latent_class_program_is_a_mixture_of_bernoullis():
    """Log joint, optimum and standard errors."""
    noise = np.random.default_rng(0)
    truth = np.array([[0.9, 0.8, 0.7, 0.9], [0.2, 0.1, 0.3, 0.15]])
    x = (noise.random((200, 4)) < truth[noise.integers(0, 2, 200)]).astype(int)
    program = jg.from_numpyro(latent_class, x)
    assert program.exchangeable
    prior = {"weights": dist.Dirichlet(jnp.ones(2)), "probs": dist.Beta(2.0, 2.0)}
    mixture = jg.Mixture(jg.families.Bernoulli(), 2, prior=prior)

    start = {"weights": jnp.array([0.4, 0.6]), "probs": jnp.asarray(0.3 + 0.5 * truth)}
    closed = jg.fit(mixture, x, start=mixture.params(**start), tol=1e-14, max_iter=5000)
    fit = jg.fit(program, x, start=start, tol=1e-14, max_iter=5000)
    rows = jnp.asarray(x, float)
    here = float(program.log_joint(start, rows))
    assert closed.model.log_joint(mixture.params(**start), rows) == pytest.approx(here, abs=1e-9)
    assert fit.converged
    assert fit.log_joint == pytest.approx(closed.log_joint, abs=1e-9)
    found = closed.model.sites(closed.params)
    for name in prior:
        np.testing.assert_allclose(fit.params[name], found[name], atol=1e-8)
    errors = [jg.standard_errors(each, x).standard_errors for each in (fit, closed)]
    for name in prior:
        np.testing.assert_allclose(errors[0][name], errors[1][name], rtol=1e-6)


@pytest.mark.slow
def test_a_zero_inflated_program_is_numpyros_distribution():
    """Derivatives too, though a label takes a parameter away."""
    y = _counts()
    model = jg.from_numpyro(zero_inflated, y)
    fit = jg.fit(model, y, key=jax.random.key(0), n_init=4)
    assert fit.converged
    assert not model.exchangeable
    assert model.bounded()

    def log_joint(vector):
        extra, rate = vector
        rows = dist.ZeroInflatedPoisson(extra, rate).log_prob(y)
        return (
            jnp.sum(rows)
            + dist.Beta(1.0, 1.0).log_prob(extra)
            + dist.Gamma(2.0, 0.5).log_prob(rate)
        )

    here = jnp.array([fit.params["extra"], fit.params["rate"]])
    assert fit.log_joint == pytest.approx(float(log_joint(here)), abs=1e-9)
    assert jnp.max(jnp.abs(jax.grad(log_joint)(here))) < 1e-2
    errors = jg.standard_errors(fit, y).standard_errors
    expected = jnp.sqrt(jnp.diag(jnp.linalg.inv(-jax.hessian(log_joint)(here))))
    np.testing.assert_allclose([errors["extra"], errors["rate"]], expected, rtol=1e-3)


@pytest.mark.turn
@pytest.mark.parametrize(
    ("newton", "end"),
    [
        pytest.param(1, (0.4062, 0.5378, 0.6425), marks=pytest.mark.slow),
        (8, (0.4064, 0.5368, 0.6432)),
    ],
)
def test_three_coins_end_on_the_ridge_where_the_m_step_leads(newton, end):
    """Exact M-steps end where the closed form does; single steps elsewhere, as high."""
    model = jg.from_numpyro(three_coins, THROWS, newton=newton)
    fit = jg.fit(model, THROWS, start={"pi": 0.4, "p": 0.6, "q": 0.7})
    assert fit.converged
    assert fit.log_likelihood == pytest.approx(-6.7301167, abs=1e-6)
    np.testing.assert_allclose([fit.params[name] for name in ("pi", "p", "q")], end, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("acceleration", ["squarem", "anderson"])
def test_leaps_lead_to_the_same_mode(acceleration):
    y = _counts()
    model = jg.from_numpyro(three_coins, (y > 2).astype(int))
    plain = jg.fit(model, y > 2, key=jax.random.key(0), n_init=4)
    leapt = jg.fit(model, y > 2, key=jax.random.key(0), n_init=4, acceleration=acceleration)
    assert leapt.converged
    assert leapt.log_joint == pytest.approx(plain.log_joint, abs=1e-6)


@pytest.mark.slow
def test_single_precision_ends_at_the_same_mode(fit):
    data = TUTORIAL.astype(np.float32)
    single = jg.fit(jg.from_numpyro(tutorial, data), data, start=at_rows, key=jax.random.key(0))
    assert single.converged
    assert {leaf.dtype for leaf in single.params.values()} == {np.dtype("float32")}
    assert single.log_joint == pytest.approx(fit.log_joint, abs=1e-4)


@pytest.mark.slow
def test_a_pole_of_the_prior_is_a_collapse_and_never_wins(mixture, fit):
    runs = jg.fit(mixture, TUTORIAL, key=jax.random.key(0), n_init=64)
    record = runs.restarts
    lost = record.status == jg.Status.COLLAPSED
    assert lost.any()
    assert runs.converged
    assert runs.log_joint == pytest.approx(fit.log_joint, abs=1e-6)
    assert set(np.unique(record.status)) <= {jg.Status.CONVERGED, jg.Status.COLLAPSED}
    assert not mixture.bounded()


def test_a_rate_of_zero_is_a_fit():
    """It creeps there, and is no collapse: the log joint has a bound."""

    def silent(counts):
        rates = numpyro.sample("rates", dist.HalfNormal(1.0).expand([2]).to_event(1))
        with numpyro.plate("rows", len(counts)):
            z = numpyro.sample("z", dist.Bernoulli(0.5))
            numpyro.sample("counts", dist.Poisson(rates[z]), obs=counts)

    zeros = np.zeros(20, int)
    model = jg.from_numpyro(silent, zeros)
    fit = jg.fit(model, zeros, key=jax.random.key(0), n_init=2, tol=0.0, max_iter=100)
    assert fit.converged
    assert fit.log_joint == pytest.approx(2 * np.log(2 / np.sqrt(2 * np.pi)), abs=1e-8)
    assert np.max(fit.params["rates"]) < 1e-9


# -- what works on any model -------------------------------------------------------------------


@pytest.mark.slow
def test_samplers_and_the_verdict(tmp_path):
    y = _counts()
    model = jg.from_numpyro(zero_inflated, y)
    fit = jg.fit(model, y, key=jax.random.key(0))
    post = {
        method: jg.sample(
            model, y, key=jax.random.key(1), start=fit, method=method, n_draws=500, progress=False
        )
        for method in ("nuts", "laplace", "smc")
    }
    means = [_mean(each, "rate") for each in post.values()]
    assert max(means) - min(means) < 0.05
    laplace, smc = post["laplace"].evidence, post["smc"].evidence
    # Nothing is added for labels that can not be renamed.
    assert abs(laplace.log_evidence - smc.log_evidence) < 4 * (laplace.error + smc.error)
    verdict = jg.compare(fit, post["nuts"])
    assert verdict.decided
    assert "is a mode" in verdict.summary
    verdict.save(tmp_path)
    assert (tmp_path / "report.html").exists()
    record = json.loads((tmp_path / "report.json").read_text())
    assert record["model"]["m_step"] == "numerical"
    assert "one Newton step on the expected log joint" in (tmp_path / "report.md").read_text()


def _mean(posterior, site):
    draws, log_weights = np.ravel(posterior.draws[site]), posterior.log_weights
    return np.average(draws, weights=None if log_weights is None else np.exp(log_weights).ravel())


@pytest.mark.slow
def test_programs_are_selected():
    y = _counts()

    def poisson(counts):
        """One of two rates, as a mixture of two rates."""
        rates = numpyro.sample("rates", dist.Gamma(2.0, 0.5).expand([2]).to_event(1))
        with numpyro.plate("rows", len(counts)):
            label = numpyro.sample("label", dist.Bernoulli(0.5))
            numpyro.sample("counts", dist.Poisson(rates[label]), obs=counts)

    models = [jg.from_numpyro(program, y) for program in (zero_inflated, poisson)]
    choice = jg.select(models, y, key=jax.random.key(0), n_init=4)
    assert choice.best.model.program is zero_inflated
    assert choice.table.index[0].startswith("zero_inflated, a NumPyro program")


@pytest.mark.slow
def test_em_works_inside_jit_and_vmap(mixture):
    starts = jax.vmap(at_rows)(jax.random.split(jax.random.key(4), 3))
    data = jnp.asarray(TUTORIAL)
    run = jax.jit(lambda start: jg.em.run(mixture, data, start))
    together = jax.jit(jax.vmap(lambda start: jg.em.run(mixture, data, start)))(starts)
    for i in range(3):
        alone = run({name: stack[i] for name, stack in starts.items()})
        np.testing.assert_allclose(alone.log_joint, together.log_joint[i], rtol=1e-10)
        assert alone.status == together.status[i]


# -- refusals ----------------------------------------------------------------------------------


def _no_label(x):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def _continuous(x):
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        effect = numpyro.sample("effect", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(effect + z, 1.0), obs=x)


def _param(x):
    mean = numpyro.param("mean", 0.0)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(mean + z, 1.0), obs=x)


def _subsampled(x):
    with numpyro.plate("rows", len(x), subsample_size=2) as index:
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x[index])


def _two_plates(x):
    numpyro.sample("all", dist.Bernoulli(0.5))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def _two_row_plates(x):
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
    with numpyro.plate("again", len(x)):
        also = numpyro.sample("also", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(z + also, 1.0), obs=x)


def _nested_label(x):
    with numpyro.plate("rows", len(x), dim=-2), numpyro.plate("items", 2, dim=-1):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x[:, None])


def _groups(x):
    with numpyro.plate("groups", 2):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(z[0], 1.0), obs=x)


def _scaled_prior(x):
    with numpyro.handlers.scale(scale=2.0):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(mean + z, 1.0), obs=x)


def _python_if(x):
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(1.0 if z[0] else 0.0, 1.0), obs=x)


def _endless(x):
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Poisson(2.0))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def _fixed_size(x):
    with numpyro.plate("rows", 5):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def _centred(x):
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x - jnp.mean(x))


def _factor(x):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.factor("penalty", -(mean**2))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(mean + z, 1.0), obs=x)


def _chain(x):
    from numpyro.contrib.control_flow import scan

    def step(before, row):
        z = numpyro.sample("z", dist.Bernoulli(0.2 + 0.6 * before))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=row)
        return z, None

    scan(step, 0, x)


def _product(x):
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Poisson(rate * z), obs=jnp.round(x))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (_no_label, "no discrete latent site"),
        (_continuous, "'effect' is continuous and latent.*marginalise it by hand"),
        (_param, "'mean' is a numpyro.param.*ImproperUniform"),
        (_subsampled, "'rows' is subsampled.*leave out subsample_size"),
        (_two_plates, "'all' is discrete in no plate"),
        (_two_row_plates, "'also' is in 'again', other labels in another plate"),
        (_nested_label, "'z' is discrete in 'items' and 'rows'; a label is one number per row"),
        (_groups, "plate 'groups' of size 2, but x has 5 rows; give each row its label"),
        (_scaled_prior, "prior of site 'mean' is scaled"),
        (_python_if, "Python reads the value of a latent site.*z.*jnp.where"),
        (_endless, "'z', Poisson, is discrete without an end"),
        (_fixed_size, "another number of rows.*len\\(x\\)"),
        (_centred, "changes where other rows are left out"),
        (_factor, "'penalty' is observed.*move it into the plate"),
        (_chain, "hidden Markov model.*dynamax"),
        (_product, "no derivatives under a value of its label.*jnp.where"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_refusals_name_the_site_and_the_remedy(program, message):
    with pytest.raises(ValueError, match=message):
        jg.from_numpyro(program, TUTORIAL)


def test_data_that_a_program_was_not_read_with_are_refused(mixture):
    with pytest.raises(ValueError, match=r"x: needs rows and columns .* found shape \(\)"):
        jg.from_numpyro(tutorial, 3.0)
    with pytest.raises(ValueError, match="x: non-finite value nan at row 1"):
        jg.from_numpyro(tutorial, [1.0, np.nan, 2.0])
    with pytest.raises(ValueError, match=r"read with 1 column\(s\), found 2"):
        jg.fit(mixture, np.ones((5, 2)), key=jax.random.key(0))
    with pytest.raises(ValueError, match="newton: must be at least 1"):
        jg.from_numpyro(tutorial, TUTORIAL, newton=0)


def test_rows_that_are_made_of_the_data_can_not_be_drawn():
    def halves(x):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.5))
            numpyro.sample("half", dist.Normal(mean + z, 1.0), obs=x / 2)

    model = jg.from_numpyro(halves, TUTORIAL)
    with pytest.raises(ValueError, match="site 'half' observes something made of the columns"):
        model.sample({"mean": jnp.array(0.0)}, jax.random.key(0), 3)


def test_a_start_by_labels_is_refused(mixture):
    for start in ("k-means++", np.full((5, 2), 0.5)):
        with pytest.raises(ValueError, match='use start="prior"'):
            jg.fit(mixture, TUTORIAL, start=start, key=jax.random.key(0))
    with pytest.raises(ValueError, match="M-step of this model is numerical"):
        jg.fit(mixture, TUTORIAL, algorithm="classification", key=jax.random.key(0))


@pytest.mark.turn
@pytest.mark.parametrize("method", ["gibbs", "vb"])
def test_samplers_by_conjugacy_are_refused(method, mixture, fit):
    with pytest.raises(ValueError, match=r'no Gibbs sampler and no variational Bayes.*"nuts"'):
        jg.sample(mixture, TUTORIAL, key=jax.random.key(1), start=fit, method=method)


def test_a_program_is_code_that_its_owner_hands_over(fit, tmp_path):
    path = fit.save(tmp_path / "fit.npz")
    with pytest.raises(ValueError, match=r"names code of your own; .*own=\[tutorial\]"):
        jg.load(path)
    again = jg.load(path, own=[tutorial])
    assert again.log_joint == fit.log_joint
    one, other = (f.model.log_joint(f.params, TUTORIAL) for f in (again, fit))
    assert one == other


def test_a_stream_of_rows_is_refused(mixture):
    with pytest.raises(ValueError, match="is numerical, for which EM needs all rows in memory"):
        jg.fit(mixture, jg.stream(TUTORIAL[:, None]), key=jax.random.key(0))


def test_a_fixed_argument_is_a_constant(mixture):
    def scaled(data, k, width):
        locs = numpyro.sample("locs", dist.Normal(0.0, width).expand([k]).to_event(1))
        with numpyro.plate("data", len(data)):
            label = numpyro.sample("label", dist.Categorical(jnp.full(k, 1 / k)))
            numpyro.sample("obs", dist.Normal(locs[label], 1.0), obs=data)

    model = jg.from_numpyro(scaled, TUTORIAL, k=3, width=np.array(10.0))
    assert model.n_components == 3
    assert model.exchangeable
    other = dataclasses.replace(model, arrays={"width": jnp.array(20.0)})
    at = {"locs": jnp.zeros(3)}
    gain = other.log_prior(at) - model.log_prior(at)
    assert gain == pytest.approx(-3 * np.log(2))
