"""Variational Bayes: against the textbook's formulas, sums over assignments, scikit-learn."""

import dataclasses
import functools
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density
from posteriors import FAITHFUL
from scipy.special import betaln, digamma, gammaln, logsumexp, multigammaln, xlogy

import jaxgmm as jg
from jaxgmm.bayes._chains import Schedule, Starts
from jaxgmm.bayes._importance import importance
from jaxgmm.bayes._vb import VB, ascend

STRUCTURES = ("full", "tied", "diag", "spherical", "EII", "EEI")
X = np.array([[0.0, 0.3], [0.4, -0.2], [1.1, 0.9], [2.9, 3.6], [3.2, 2.4], [4.5, 3.9], [0.2, 2.0]])
CUT = np.where(np.arange(len(X))[:, None] % 2 == [0, 1], 0.7, 0.3)


def the_model(structure, k=2, weights=None, stick_breaking=False):
    """Under a proper prior with labels that are not exchangeable."""
    matrix, diagonal = np.array([[4.0, 1.0], [1.0, 3.0]]), np.array([4.0, 3.0])
    scale = {"full": matrix, "tied": matrix, "diag": diagonal, "EEI": diagonal}
    prior = jg.ConjugatePrior(
        concentration=1.7 if stick_breaking else 1.5 + np.arange(k),
        mean=[1.0, 0.5],
        mean_precision=0.3,
        dof=4.5,
        scale=scale.get(structure, 3.5),
        stick_breaking=stick_breaking,
    )
    return jg.Mixture(jg.Gaussian(structure), k, prior=prior, weights=weights)


def ascent(model, x, labels, sample_weight=None, tol=0.0, max_iter=500):
    """The climb from responsibilities, the posterior prior (working units), and the model."""
    x = jnp.asarray(x)
    weight = None if sample_weight is None else jnp.asarray(sample_weight, x.dtype)
    return _ascent(model.resolve(x, weight), x, jnp.asarray(labels, x.dtype), weight, tol, max_iter)


@functools.partial(jax.jit, static_argnames="max_iter")
def _ascent(model, x, labels, weight, tol, max_iter):
    working = model.standardise(x, weight)
    start = working.statistics(labels, x, weight)
    return working, ascend(working, x, weight, start, tol, max_iter)


def finite(trace):
    trace = np.asarray(trace)
    return trace[np.isfinite(trace)]


# -- the textbook, by hand -------------------------------------------------------------


class Textbook:
    """Posterior hyper-parameters, means of logs and marginal likelihoods of labelled rows.

    Bishop (2006), section 10.2, for matrices; the same with inverse-gamma variances else.
    """

    def __init__(self, model, x):
        self.model, self.prior, self.x = model, model.prior, x
        self.k, (self.n, self.d) = model.n_components, x.shape
        self.name = model.family.name
        self.matrix = self.name in ("full", "tied")
        self.shared = self.name in ("tied", "EII", "EEI")
        self.single = self.name in ("spherical", "EII")

    def posterior(self, r):
        """counts, kappa, means, and (dof, scale) of each entry of the covariances."""
        prior, counts = self.prior, r.sum(axis=0)
        m0, kappa0 = np.array(prior.mean), prior.mean_precision
        kappa = kappa0 + counts
        means = (kappa0 * m0 + r.T @ self.x) / kappa[:, None]
        added = []
        for j in range(self.k):
            # Gelman et al. (2013): the same scatter, taken about the posterior mean.
            apart, pull = self.x - means[j], means[j] - m0
            scatter = (r[:, j, None] * apart).T @ apart + kappa0 * np.outer(pull, pull)
            if not self.matrix:
                scatter = np.trace(scatter) if self.single else np.diag(scatter)
            added.append(scatter)
        rows = counts * (self.d if self.single else 1)
        if self.shared:
            added, rows = [sum(added)], [rows.sum()]
        entries = [(prior.dof + n, prior.scale + s) for n, s in zip(rows, added, strict=True)]
        return counts, kappa, means, entries

    def log_normaliser(self, dof, scale):
        if self.matrix:
            return multigammaln(dof / 2, self.d) - dof / 2 * np.linalg.slogdet(scale / 2)[1]
        return np.sum(gammaln(dof / 2) - dof / 2 * np.log(np.asarray(scale) / 2))

    def weights(self, counts):
        """Concentrations (Beta's of the sticks if the weights are sticks) after counts."""
        if self.prior.stick_breaking:
            later = np.cumsum(counts[::-1])[::-1]
            return 1 + counts[:-1], self.prior.concentration + later[1:]
        return np.array(self.prior.concentration) + counts

    def log_weights(self, counts):
        if self.model.weights is not None:
            return np.log(self.model.weights)
        if self.prior.stick_breaking:
            a, b = self.weights(counts)
            taken, left = digamma(a) - digamma(a + b), digamma(b) - digamma(a + b)
            return np.append(taken, 0) + np.append(0, np.cumsum(left))
        alpha = self.weights(counts)
        return digamma(alpha) - digamma(alpha.sum())

    def log_joint_of_labels(self, r):
        """log p(x, labels), or what it is of soft labels: all parameters integrated out."""
        counts, kappa, _, entries = self.posterior(r)
        if self.model.weights is not None:
            value = counts @ np.log(self.model.weights)
        elif self.prior.stick_breaking:
            a, b = self.weights(counts)
            value = np.sum(betaln(a, b) - betaln(1, self.prior.concentration))
        else:
            normaliser = lambda alpha: np.sum(gammaln(alpha)) - gammaln(np.sum(alpha))
            value = normaliser(self.weights(counts)) - normaliser(self.weights(0 * counts))
        value += self.d / 2 * np.sum(np.log(self.prior.mean_precision / kappa))
        value += sum(self.log_normaliser(*entry) for entry in entries)
        value -= len(entries) * self.log_normaliser(self.prior.dof, self.prior.scale)
        return value - counts.sum() * self.d / 2 * np.log(2 * np.pi)

    def log_evidence(self):
        """The sum over all assignments of the rows."""
        every = itertools.product(np.eye(self.k), repeat=self.n)
        return logsumexp([self.log_joint_of_labels(np.array(z)) for z in every])

    def responsibilities(self, r):
        """One round: the best labels for the best parameters for labels ``r``."""
        counts, kappa, means, entries = self.posterior(r)
        logits = np.tile(self.log_weights(counts), (self.n, 1))
        for j in range(self.k):
            dof, scale = entries[0 if self.shared else j]
            if self.matrix:
                precision = dof * np.linalg.inv(scale)
                log_det = self.d * np.log(2) - np.linalg.slogdet(scale)[1]
                log_det += np.sum(digamma((dof - np.arange(self.d)) / 2))
            else:
                one = np.broadcast_to(scale, self.d)
                precision = np.diag(dof / one)
                log_det = np.sum(digamma(dof / 2) - np.log(one / 2))
            apart = self.x - means[j]
            square = np.einsum("ni,ij,nj->n", apart, precision, apart) + self.d / kappa[j]
            logits[:, j] += 0.5 * (log_det - self.d * np.log(2 * np.pi) - square)
        return np.exp(logits - logsumexp(logits, axis=1, keepdims=True))

    def climbed(self, r, rounds):
        for _ in range(rounds):
            r = self.responsibilities(r)
        return r

    def bound(self, r):
        return self.log_joint_of_labels(r) - np.sum(xlogy(r, r))


def check_against_textbook(model, rows, labels=CUT):
    working, end = ascent(model, rows, labels)
    textbook = Textbook(model, rows)
    r = textbook.climbed(labels, int(end.n_iter))
    bound = textbook.bound(r)
    assert float(end.elbo) == pytest.approx(bound, rel=1e-12)
    assert bound < textbook.log_evidence() - 1e-3
    counts, kappa, means, _ = textbook.posterior(r)
    q = working.updated(end.statistics)
    np.testing.assert_allclose(q.prior.mean_precision, kappa, rtol=1e-9)
    np.testing.assert_allclose(q.family.chart.invert(q.prior.mean), means, rtol=1e-9)
    np.testing.assert_allclose(q.prior.concentration, textbook.weights(counts), rtol=1e-9)
    # The trace: each round's bound, at the best labels for the parameters before it.
    trace, bounds = finite(end.trace), [textbook.bound(labels)]
    for _ in range(5):
        labels = textbook.responsibilities(labels)
        bounds.append(textbook.bound(labels))
    assert np.all(np.diff(trace) > -1e-12 * abs(bound))
    for t in range(5):
        assert bounds[t] <= trace[t] + 1e-12 <= bounds[t + 1] + 2e-12
    return end


@pytest.mark.parametrize("structure", STRUCTURES)
def test_bound_parameters_and_trace_are_the_textbooks(structure):
    check_against_textbook(the_model(structure), X)


def test_sticks():
    model = the_model("tied", k=3, stick_breaking=True)
    cut = np.eye(3)[[0, 0, 2, 1, 1, 1, 2]] * 0.85 + 0.05
    check_against_textbook(model, X[:6], cut[:6])


def test_fixed_weights():
    check_against_textbook(the_model("diag", weights=[0.2, 0.8]), X)


@pytest.mark.parametrize(
    "structure",
    [pytest.param(s, marks=[pytest.mark.slow] * (s not in ("full", "EII"))) for s in STRUCTURES],
)
def test_one_component_is_exact(structure):
    model = the_model(structure, k=1)
    _, end = ascent(model, X, np.ones((len(X), 1)))
    evidence = Textbook(model, X).log_evidence()
    assert float(end.elbo) == pytest.approx(evidence, rel=1e-13)
    assert end.n_iter == 1


# -- laws --------------------------------------------------------------------------------


def test_a_weight_counts_rows_in_every_block_of_them():
    """A weight of two is the row twice, zero is no row; these are several blocks."""
    copies = np.arange(5000) % 3
    x = np.tile(X, (715, 1))[:5000] + 0.1 * np.sin(np.arange(5000))[:, None]
    labels = np.where(x[:, :1] + np.cos(np.arange(5000))[:, None] > 1.5, [0.9, 0.1], [0.1, 0.9])
    model = the_model("diag")
    working, weighted = ascent(model, x, labels, sample_weight=copies, max_iter=20)
    rows, cut = np.repeat(x, copies, axis=0), np.repeat(labels, copies, axis=0)
    again, repeated = ascent(model, rows, cut, max_iter=20)
    np.testing.assert_allclose(weighted.trace, repeated.trace, rtol=1e-12)
    for one, other in zip(
        jax.tree.leaves(working.updated(weighted.statistics).prior),
        jax.tree.leaves(again.updated(repeated.statistics).prior),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_renamed_labels_are_the_same_climb():
    model = the_model("tied")
    equal = dataclasses.replace(model.prior, concentration=1.5)
    turned = dataclasses.replace(model.prior, concentration=[2.5, 1.5])
    for prior, other in ((equal, equal), (model.prior, turned)):
        _, one = ascent(dataclasses.replace(model, prior=prior), X, CUT)
        _, two = ascent(dataclasses.replace(model, prior=other), X, CUT[:, ::-1])
        shared = slice(0, min(int(one.n_iter), int(two.n_iter)))
        np.testing.assert_allclose(one.trace[shared], two.trace[shared], rtol=1e-12)
        assert float(one.elbo) == pytest.approx(float(two.elbo), rel=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_units_move_the_bound_by_their_jacobian(shift):
    scale, model = np.array([1e3, 1e-2]), the_model("full")
    _, here = ascent(model, X, CUT)
    prior = dataclasses.replace(
        model.prior,
        mean=scale * np.array(model.prior.mean) + shift,
        scale=scale * model.prior.scale * scale[:, None],
    )
    _, there = ascent(dataclasses.replace(model, prior=prior), scale * X + shift, CUT)
    jacobian = len(X) * np.sum(np.log(scale))
    # At the offset the data themselves keep eight digits of the second column.
    rel = 1e-12 if shift == 0 else 1e-7
    assert float(there.elbo) == pytest.approx(float(here.elbo) - jacobian, rel=rel)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_component_without_rows_is_no_rounding_error(dtype):
    """Under a weak prior of the mean its mean log density is a thousand below."""
    model = the_model("full")
    model = dataclasses.replace(model, prior=dataclasses.replace(model.prior, mean_precision=1e-3))
    one = np.tile([1.0, 0.0], (len(X), 1))
    _, end = ascent(model, X.astype(dtype), one, max_iter=3)
    bound = Textbook(model, X).bound(one)
    assert float(end.elbo) == pytest.approx(bound, rel=64 * float(np.finfo(dtype).eps))


# -- scikit-learn 1.9.1 --------------------------------------------------------------------

FOLDER = Path(__file__).parent / "data"
SKLEARN = json.loads((FOLDER / "sklearn_bayes.json").read_text())


def _case(record):
    names = ("data", "k", "covariance_type", "weight_concentration_prior_type", "reg_covar")
    marks = [] if record["reg_covar"] == 0 else [pytest.mark.slow]
    return pytest.param(record, id="-".join(str(record[n]) for n in names), marks=marks)


@pytest.mark.parametrize("record", [_case(record) for record in SKLEARN["fits"]])
def test_scikit_learn(record):
    """After as many rounds from the same responsibilities.

    Its updates are the textbook's for full covariances and Dirichlet weights; for diagonal ones,
    and for the sticks but the last, where labels are certain. By default it adds a ridge of
    1e-6 to variances, of which the least is 0.07 here.
    """
    k, structure = record["k"], record["covariance_type"]
    x = FAITHFUL
    if record["data"] != "faithful":
        x = np.loadtxt(FOLDER / f"{record['data']}.csv", delimiter=",", skiprows=1)[:, :2]
    sticks = record["weight_concentration_prior_type"] == "dirichlet_process"
    concentration = record["weight_concentration_prior"]
    prior = jg.ConjugatePrior(
        concentration=concentration,
        mean=record["mean_prior"],
        mean_precision=record["mean_precision_prior"],
        dof=record["degrees_of_freedom_prior"],
        scale=np.array(record["covariance_prior"]),
        stick_breaking=sticks,
    )
    labels = np.array(list(SKLEARN["labels0"][record["data"]][str(k)]), int)
    start = 0.9 * np.eye(k)[labels] + 0.1 / k
    model = jg.Mixture(jg.Gaussian(structure), k, prior=prior)
    working, end = ascent(model, x, start, tol=-np.inf, max_iter=record["n_iter"])
    assert end.n_iter == record["n_iter"]
    q = working.updated(end.statistics)
    theirs = np.array(record["weight_concentration_"])
    if sticks:
        theirs = theirs[:, :-1]
    rtol = 1e-11 if record["reg_covar"] == 0 else 3e-5
    close = functools.partial(np.testing.assert_allclose, rtol=rtol, atol=rtol / 30)
    close(q.prior.concentration, theirs)
    close(q.prior.mean_precision, record["mean_precision_"])
    close(q.prior.dof, record["degrees_of_freedom_"])
    close(q.family.chart.invert(q.prior.mean), record["means"])
    close(working.to_user(q.centre()[0]).covariance_site, record["covariances"])


# -- the door ------------------------------------------------------------------------------


def faithful_model(k):
    """Under a prior that is wide in units of the data's standard deviations."""
    prior = jg.ConjugatePrior(
        concentration=2.0,
        mean=FAITHFUL.mean(axis=0),
        mean_precision=0.1,
        dof=4.0,
        scale=np.diag(0.5 * FAITHFUL.var(axis=0)),
    )
    return jg.Mixture(jg.Gaussian("full"), k, prior=prior)


@functools.cache
def faithful_fit():
    return jg.fit(faithful_model(2), FAITHFUL, key=jax.random.key(0), n_init=4)


# log density of the data in standard units, as other methods have it for this prior: closed
# form for K = 1, bridge sampling for K = 2 (error 0.0005, over both labellings).
JACOBIAN = len(FAITHFUL) * np.sum(np.log(FAITHFUL.std(axis=0)))
EVIDENCE = {1: -563.177028 - JACOBIAN, 2: -415.942 - JACOBIAN}


def faithful(**options):
    fit = faithful_fit()
    options = {"progress": False, "method": "vb", "start": fit, "key": jax.random.key(1)} | options
    return jg.sample(fit.model, FAITHFUL, **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_component_of_old_faithful(dtype):
    x = FAITHFUL.astype(dtype)
    _, end = ascent(faithful_model(1), x, np.ones((len(x), 1)), tol=1e-6)
    assert end.elbo.dtype == end.trace.dtype == dtype
    assert end.status == jg.Status.CONVERGED
    digits = {"float64": 5e-7, "float32": 1e-2}
    assert float(end.elbo) == pytest.approx(EVIDENCE[1], abs=digits[dtype])


def test_old_faithful():
    post = faithful(n_init=3)
    said = post.diagnostics
    assert post.method == "vb"
    assert post.evidence is None
    assert said["converged"]
    assert "converged" in str(said["status"])
    assert len(said["elbo_trace"]) == said["n_iter"] + 1
    assert said["elbo"] == said["elbo_trace"][-1] == np.max(said["start_elbos"])
    assert said["start_elbos"].shape == (7,)
    one_labelling = EVIDENCE[2] - np.log(2)
    assert one_labelling - 0.3 < said["elbo"] < one_labelling
    assert post.pareto_k < 0.7
    assert post.draws["means"].shape == (4, 1000, 2, 2)


def faithful_modes(x):
    """The working model and the fit as the start of four chains."""
    fit = faithful_fit()
    working = fit.model.standardise(x)
    one = working.to_working(fit.params)
    return working, jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), one)


@pytest.mark.turn
def test_draws_are_independent_and_of_the_density_that_is_said():
    """Importance sampling turns the bound into the evidence of the labelling it is around."""
    x = jnp.asarray(FAITHFUL)
    working, modes = faithful_modes(x)
    draws = VB().draw(
        working, x, None, Starts(modes), jax.random.key(2), Schedule(1000, 0, 1), False
    )
    log_joint = jax.jit(jax.vmap(jax.vmap(lambda p: working.log_joint(p, x))))(draws.params)
    weighing = importance(np.asarray(log_joint), np.asarray(draws.log_proposal))
    assert weighing.pareto_k < 0.7
    assert weighing.error < 0.02
    assert abs(weighing.log_mean - (EVIDENCE[2] - np.log(2))) < 5 * weighing.error
    assert np.mean(log_joint - draws.log_proposal) > draws.diagnostics["elbo"]
    first = np.asarray(draws.params.weights[..., 0])
    assert len(np.unique(first)) == 4000
    lag = np.corrcoef(first[:, 1:].ravel(), first[:, :-1].ravel())[0, 1]
    assert abs(lag) < 5 / np.sqrt(4000)


def test_draws_of_the_posterior_itself_have_equal_weights():
    """K = 1: q is exact, and the weights differ by rounding only."""
    log_joint = np.random.default_rng(0).normal(-600, 2, (4, 1000))
    noise = np.random.default_rng(1).choice([-1, 0, 1], (4, 1000)) * 2**-43
    weighing = importance(log_joint, log_joint + 563.2 + noise)
    assert weighing.pareto_k == -np.inf
    assert np.all(weighing.log_weights == -np.log(4000))
    assert weighing.log_mean == pytest.approx(-563.2)
    assert weighing.error == 0


def test_a_second_call_compiles_nothing(compilations):
    faithful()
    fit, x = faithful_fit(), FAITHFUL
    prior = dataclasses.replace(fit.model.prior, dof=7.5, concentration=jnp.array([3.0, 1.0]))
    other = jg.fit(dataclasses.replace(fit.model, prior=prior), x[::-1], start=fit.params)
    with compilations:
        jg.sample(
            other.model, x[::-1], key=jax.random.key(6), start=other, method="vb", tol=1e-7,
            progress=False,
        )  # fmt: skip
    assert compilations.count == 0


def test_stopping_is_said():
    said = faithful(max_iter=2).diagnostics
    assert not said["converged"]
    assert "out of iterations" in str(said["status"])
    assert said["n_iter"] == 2


def test_what_vb_cannot_do_it_refuses():
    for options, error, message in (
        ({"n_init": -1}, ValueError, "n_init: must be at least 0"),
        ({"tol": -1.0}, ValueError, "tol: must be at least 0"),
        ({"max_iter": 0}, ValueError, "max_iter: must be at least 1"),
        ({"restarts": 3}, TypeError, "restarts: not an option of method='vb'.*n_init"),
    ):
        with pytest.raises(error, match=message):
            faithful(**options)
    model = faithful_fit().model
    with pytest.raises(ValueError, match=r"Mixture has no mean log density.*nuts"):
        jg.LatentModel.expected_step(model, None)
    with pytest.raises(ValueError, match=r"Mixture has no divergence.*nuts"):
        jg.LatentModel.divergence(model, model)
    curved = the_model("full")
    curved = dataclasses.replace(curved, family=jg.Gaussian("VVE")).resolve(X)
    with pytest.raises(ValueError, match=r"structure: 'VVE' .*nuts"):
        curved.expected_step(jnp.asarray(X))


def test_a_bound_that_is_not_finite_is_never_a_result():
    x = jnp.asarray(FAITHFUL)
    working, modes = faithful_modes(x)
    broken = x.at[3, 1].set(jnp.nan)
    with pytest.raises(ValueError, match="not finite from any start"):
        VB().draw(working, broken, None, Starts(modes), jax.random.key(0), Schedule(4, 0, 1), False)


# -- sticks as a prior of the model --------------------------------------------------------


@pytest.mark.turn
def test_sticks_are_one_density_for_every_engine():
    model = the_model("diag", k=2, stick_breaking=True)
    fit = jg.fit(model, X, key=jax.random.key(0), n_init=4, tol=1e-14, max_iter=20_000)
    sites = fit.model.sites(fit.params)
    assert sites["sticks"].shape == (1,)
    x = jnp.asarray(X)
    program = jax.jit(lambda s: log_density(fit.model.numpyro_model, (x,), {}, s)[0])
    assert float(program(sites)) == pytest.approx(fit.log_joint, rel=1e-12)
    gradient = jax.grad(program)(sites)
    assert max(float(jnp.max(jnp.abs(g))) for g in gradient.values()) < 1e-6 * len(X)
    # The prior by hand.
    weights, v = np.asarray(fit.params.weights), np.asarray(sites["sticks"])
    np.testing.assert_allclose(weights, [v[0], 1 - v[0]])
    rest = {name: value for name, value in sites.items() if name != "sticks"}
    expected = float(np.sum(0.7 * np.log1p(-v) + np.log(1.7)))
    for name, conditional in fit.model.prior_sites().items():
        if name != "sticks":
            expected += float(jnp.sum(conditional(rest).log_prob(rest[name])))
    assert fit.log_prior == pytest.approx(expected, rel=1e-12)
    # One stick is a Dirichlet of two weights.
    same = dataclasses.replace(model.prior, concentration=[1.0, 1.7], stick_breaking=False)
    same = dataclasses.replace(model, prior=same).resolve(X)
    assert fit.log_prior == pytest.approx(float(same.log_prior(fit.params)), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["vb", "gibbs"])
def test_sticks_are_drawn(method):
    model = the_model("diag", stick_breaking=True)
    post = jg.sample(model, X, key=jax.random.key(1), method=method, progress=False)
    assert post.draws["sticks"].shape == (4, 1000, 1)
    np.testing.assert_allclose(post.draws["weights"].sum(axis=-1), 1)
    assert "stick" in post.to_arviz()["posterior"]["sticks"].dims


def test_sticks_are_checked_at_the_door():
    model = the_model("diag", k=3, stick_breaking=True)
    for concentration, message in (([1.0, 2.0], r"shape \(2, 2\)"), (0.5, "at least 1")):
        prior = dataclasses.replace(model.prior, concentration=concentration)
        with pytest.raises(ValueError, match=message):
            jg.fit(dataclasses.replace(model, prior=prior), X, key=jax.random.key(0))


def test_variational_refuses_shapes_that_do_not_fit():
    x = jnp.asarray(FAITHFUL)
    model = faithful_fit().model
    start, weight = faithful_fit().params, jnp.ones(len(x))
    stack = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), start)
    cases = [
        ((x, stack), ValueError, r"start: needs shapes .*found .*jax.vmap takes a stack"),
        ((x, start, weight[:, None]), ValueError, r"sample_weight: needs axes \(n\) with n = 272"),
        ((x, start, weight[1:]), ValueError, r"sample_weight: .*found shape \(271,\)"),
        ((x[:, :1], start), ValueError, r"x: the model was resolved for 2 column\(s\), found 1"),
        ((x, jnp.ones((272, 2)) / 2), TypeError, r"start: needs parameters .*; found"),
    ]
    for arguments, error, words in cases:
        with pytest.raises(error, match=words):
            jg.bayes.variational(model, *arguments)
