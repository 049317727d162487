"""Noise of each row, known beforehand: the density without it, in every engine that there is."""

import functools

import jax
import numpy as np
import pytest
from helpers import soft_labels, tree_allclose
from scipy import stats
from scipy.special import logsumexp

import jaxgmm as jg

KEY = jax.random.key(0)
N = 90
# An estimate misses by so many of its errors once in 15,000 keys.
SIGMAS = 4.0


def _stars(n=N, seed=0):
    """Two groups of rows, what was seen of them, and the covariances of the noise."""
    rng = np.random.default_rng(seed)
    first = rng.random(n) < 0.5
    truth = np.where(
        first[:, None],
        rng.multivariate_normal([0, 0], [[1.0, 0.6], [0.6, 1.0]], n),
        rng.normal([5, 3], [0.5, 1.0], (n, 2)),
    )
    roots = rng.normal(size=(n, 2, 2)) * rng.uniform(0.2, 0.8, (n, 1, 1))
    noise = roots @ np.swapaxes(roots, 1, 2)
    seen = truth + np.einsum("nij,nj->ni", roots, rng.normal(size=(n, 2)))
    return truth, seen, noise


TRUTH, SEEN, NOISE = _stars()
VARIANCES = np.diagonal(NOISE, axis1=1, axis2=2)
HOLES = SEEN.copy()
HOLES[::5, 0] = np.nan
HOLES[7] = np.nan
START = soft_labels(N, 2, 3)


def _expectations(x, noise, shares, means, covariances):
    """Bovy, Hogg and Roweis (2011), equations 13 to 15, row by row; NaN is no value."""
    (k, d), n = means.shape, len(x)
    logits, expected, spread = np.empty((n, k)), np.empty((n, k, d)), np.empty((n, k, d, d))
    for i, row in enumerate(x):
        there = ~np.isnan(row)
        project = np.eye(d)[there]
        for j in range(k):
            logits[i, j] = np.log(shares[j])
            expected[i, j], spread[i, j] = means[j], covariances[j]
            if there.any():
                seen = project @ (covariances[j] + noise[i]) @ project.T
                gain = covariances[j] @ project.T @ np.linalg.inv(seen)
                centre = project @ means[j]
                logits[i, j] += stats.multivariate_normal.logpdf(row[there], centre, seen)
                expected[i, j] += gain @ (row[there] - centre)
                spread[i, j] = covariances[j] - gain @ project @ covariances[j]
    total = logsumexp(logits, axis=1)
    return np.exp(logits - total[:, None]), expected, spread, total


def _maximum(responsibilities, expected, spread, weight):
    """Their equation 16."""
    r = responsibilities * weight[:, None]
    counts = r.sum(axis=0)
    means = np.einsum("nk,nkd->kd", r, expected) / counts[:, None]
    apart = expected - means
    covariances = np.einsum("nk,nki,nkj->kij", r, apart, apart)
    covariances = (covariances + np.einsum("nk,nkij->kij", r, spread)) / counts[:, None, None]
    return counts / counts.sum(), means, covariances


CASES = {
    "variances": (SEEN, VARIANCES),
    "matrices": (SEEN, NOISE),
    "holes": (HOLES, NOISE),
}


@pytest.mark.parametrize("name", CASES)
def test_em_is_that_of_a_reference_in_numpy(name):
    x, noise = CASES[name]
    whole = noise if noise.ndim == 3 else np.einsum("ni,ij->nij", noise, np.eye(2))
    weight, steps = np.arange(N) % 3 + 0.5, 8
    model, rows = jg.Mixture(jg.Gaussian(), 2), jg.rows(x, noise=noise)
    run = functools.partial(jg.fit, model, rows, start=START, sample_weight=weight)
    if name == "holes":
        # Where the reference stands still: at the start holes are filled by other means.
        fit = run(tol=1e-14, max_iter=5000)
        own = [getattr(fit.params, each) for each in ("weights", "means", "covariances")]
        own = _maximum(*_expectations(x, whole, *map(np.asarray, own))[:3], weight)
    else:
        fit = run(tol=0.0, max_iter=steps)
        # At the start noise is taken for a part of the components.
        own = _maximum(START, np.stack([x, x], axis=1), np.zeros((N, 2, 2, 2)), weight)
        for _ in range(steps):
            own = _maximum(*_expectations(x, whole, *own)[:3], weight)
    labels, expected, _, total = _expectations(x, whole, *own)
    assert fit.feature_names == ("x0", "x1")
    assert fit.log_likelihood == pytest.approx(weight @ total, rel=1e-8)
    rtol = 1e-5 if name == "holes" else 1e-8
    found = fit.params.weights, fit.params.means, fit.params.covariances
    for ours, theirs in zip(found, own, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-8)
    # What the rows are without noise, the labels summed out.
    filled = np.asarray(fit.impute(rows))
    mean = np.einsum("nk,nkd->nd", labels, expected)
    np.testing.assert_allclose(filled, mean, rtol=rtol, atol=1e-6)
    if name == "matrices":
        assert np.mean((filled - TRUTH) ** 2) < 0.8 * np.mean((SEEN - TRUTH) ** 2)


CODES = tuple(jg.model.STRUCTURES)
FAST = ("VVV",)


@pytest.mark.parametrize(
    "code", [pytest.param(code, marks=[pytest.mark.slow] * (code not in FAST)) for code in CODES]
)
def test_without_noise_rows_are_rows(code):
    prior = None if code in ("VVV", "EVE") else "fraley-raftery"
    model = jg.Mixture(jg.Gaussian(code), 2, prior=prior)
    run = functools.partial(jg.fit, model, start=START, max_iter=40, tol=0.0)
    plain = run(SEEN)
    for nothing in (0 * VARIANCES, 0 * NOISE):
        fit = run(jg.rows(SEEN, noise=nothing))
        assert fit.log_joint == pytest.approx(plain.log_joint, rel=1e-10)
        tree_allclose(fit.model.sites(fit.params), plain.model.sites(plain.params), 1e-8)
        assert fit.bic == pytest.approx(plain.bic, rel=1e-10)
    # Rows that come without noise have none.
    np.testing.assert_allclose(
        fit.model.log_prob(fit.params, SEEN), plain.model.log_prob(plain.params, SEEN), rtol=1e-8
    )
    np.testing.assert_allclose(fit.impute(SEEN), SEEN, atol=1e-12)
    assert np.min(np.diff(fit.trace)) > -1e-10 * abs(fit.log_joint)


@functools.cache
def the_fit():
    model = jg.Mixture(jg.Gaussian(), 2, prior="weak")
    return jg.fit(model, jg.rows(SEEN, noise=NOISE), key=KEY, n_init=4)


# -- draws ---------------------------------------------------------------------------------------


def test_imputations_have_the_distribution_given_what_was_seen():
    """Of one component: a normal regression on the values and their noise."""
    model = jg.Mixture(jg.Gaussian(), 1)
    params = model.params(means=[[1.0, 2.0]], covariances=[[[1.0, 0.5], [0.5, 2.0]]])
    noise = np.array([[0.5, 0.2], [0.2, 0.3]])
    rows = np.tile(np.array([[2.0, 0.5], [np.nan, 3.0]]), (20_000, 1))
    seen = jg.rows(rows, noise=np.broadcast_to(noise, (len(rows), 2, 2)))
    model, seen = model.read(seen)
    drawn = np.asarray(model.impute(params, seen, KEY)).reshape(-1, 2, 2)
    covariance = np.asarray(params.covariances[0])
    for j, there in enumerate(([0, 1], [1])):
        project = np.eye(2)[there]
        gain = covariance @ project.T @ np.linalg.inv(project @ (covariance + noise) @ project.T)
        centre = params.means[0] + gain @ (rows[j][there] - project @ params.means[0])
        spread = covariance - gain @ project @ covariance
        np.testing.assert_allclose(drawn[:, j].mean(axis=0), centre, atol=0.03)
        np.testing.assert_allclose(np.cov(drawn[:, j].T), spread, atol=0.04)


@functools.cache
def _drawn(method, **options):
    return jg.sample(
        the_fit().model, jg.rows(SEEN, noise=NOISE), key=jax.random.key(1), start=the_fit(),
        method=method, progress=False, **options,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gibbs", "laplace", "smc"])
def test_engines_agree_with_nuts(method):
    """Gibbs draws the complete rows, the others see the density."""
    post, nuts = _drawn(method, n_draws=500), _drawn("nuts", n_draws=500)
    for site in ("means", "weights"):
        found, known = (one.draws[site].mean(axis=(0, 1)) for one in (post, nuts))
        np.testing.assert_allclose(found, known, atol=0.08)
    if method != "laplace":
        spread = [one.draws["covariances_full"].mean(axis=(0, 1)) for one in (post, nuts)]
        np.testing.assert_allclose(*spread, rtol=0.2, atol=0.1)
    found = post.evidence or jg.evidence(post, key=jax.random.key(2))
    known = jg.evidence(nuts, key=jax.random.key(2))
    apart = abs(found.log_evidence - known.log_evidence)
    assert apart < SIGMAS * np.hypot(found.error, known.error) + 0.05


def test_variational_bayes_says_why_not():
    with pytest.raises(ValueError, match="variational Bayes has no bound for rows with missing"):
        _drawn("vb")


# -- doors ---------------------------------------------------------------------------------------


def test_what_is_no_noise_is_refused():
    rows = functools.partial(jg.rows, SEEN)
    with pytest.raises(ValueError, match=r"noise: needs a variance for each .* \(90, 2\)"):
        rows(noise=np.ones(N))
    with pytest.raises(ValueError, match="noise: negative variance -1 at row 3"):
        rows(noise=np.where(np.arange(N)[:, None] == 3, -1.0, VARIANCES))
    with pytest.raises(ValueError, match="noise: not finite at row 4"):
        rows(noise=np.where(np.arange(N)[:, None] == 4, np.nan, VARIANCES))
    with pytest.raises(ValueError, match="noise: the matrix at row 0 is not symmetric, or has"):
        rows(noise=NOISE - 5 * np.eye(2))
    twisted = NOISE + np.array([[0.0, 0.3], [0.0, 0.0]])
    with pytest.raises(ValueError, match="noise: the matrix at row 0 is not symmetric"):
        rows(noise=twisted)
    # Of what is missing noise is not read.
    jg.rows(HOLES, noise=np.where(np.isnan(HOLES), np.nan, VARIANCES))


def test_who_knows_nothing_of_noise_says_so():
    seen = jg.rows(np.abs(SEEN), noise=VARIANCES)
    with pytest.raises(ValueError, match=r"noise of each row goes with jaxgmm\.Gaussian"):
        jg.fit(jg.Mixture(jg.families.StudentT(), 2), seen, key=KEY)
    with pytest.raises(ValueError, match="noise: needs matrices of 2 column"):
        jg.fit(the_fit().model, jg.rows(SEEN, noise=VARIANCES), key=KEY)
    with pytest.raises(ValueError, match=r"x: needs 2 column\(s\), or jaxgmm\.rows"):
        the_fit().model.log_prob(the_fit().params, np.ones((4, 3)))


def test_files_and_criteria_know_it(tmp_path):
    the_fit().save(tmp_path / "fit.npz")
    found, seen = jg.load(tmp_path / "fit.npz"), jg.rows(SEEN, noise=NOISE)
    assert repr(found.model) == repr(the_fit().model)
    np.testing.assert_array_equal(found.impute(seen), the_fit().impute(seen))
    assert the_fit().model.n_parameters(2) == 11


def test_new_rows_have_the_noise_that_is_given():
    model = jg.Mixture(jg.Gaussian(), 1)
    params = model.params(means=[[1.0, 2.0]], covariances=[[[1.0, 0.5], [0.5, 2.0]]])
    many = jg.rows(np.zeros((40_000, 2)), noise=np.broadcast_to(NOISE[0], (40_000, 2, 2)))
    model, many = model.read(many)
    drawn = np.asarray(model.sample(params, KEY, 40_000, given=many))
    np.testing.assert_array_equal(drawn[:, 2:], many.values[:, 2:])
    expected = np.asarray(params.covariances[0]) + NOISE[0]
    np.testing.assert_allclose(np.cov(drawn[:, :2].T), expected, atol=0.1)
    with pytest.raises(ValueError, match="given: "):
        model.sample(params, KEY, 10)


@pytest.mark.slow
def test_reports_show_rows_as_they_were_seen(tmp_path):
    post = _drawn("gibbs", n_draws=500)
    verdict = jg.compare(the_fit(), post)
    verdict.save(tmp_path / "report")
    assert "without their noise" in (tmp_path / "report" / "report.html").read_text()
    tree = post.to_arviz(posterior_predictive=True, key=KEY)
    assert tree.observed_data.x.shape == (N, 2)
    assert tree.constant_data.noise.shape == (N, 3)
    assert post.impute(KEY).shape[-2:] == (N, 2)


@pytest.mark.slow
def test_a_background_takes_what_no_noise_explains():
    x = np.concatenate([SEEN, [[20.0, -15.0], [-18.0, 16.0]]])
    seen = jg.rows(x, noise=np.concatenate([NOISE, NOISE[:2]]))
    model = jg.Mixture(jg.Gaussian(), 3, prior="weak", background=jg.Uniform())
    fit = jg.fit(model, seen, key=KEY, n_init=4)
    outlying = np.asarray(fit.model.responsibilities(fit.params, seen))[:, 2]
    assert outlying[-2:].min() > 0.9 > 0.5 > np.sort(outlying[:-2])[-3]
    assert fit.impute(seen).shape == x.shape


@pytest.mark.slow
def test_select_tells_structures_apart():
    seen = jg.rows(SEEN, noise=NOISE)
    models = [jg.Mixture(jg.Gaussian(code), k) for code in ("VVV", "EII") for k in (1, 2)]
    choice = jg.select(models, seen, key=KEY, n_init=4)
    assert choice.best.model.n_components == 2
    boot = jg.bootstrap(the_fit(), seen, key=KEY, n_replicates=20)
    assert boot.unmatched < 0.3
