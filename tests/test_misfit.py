"""Priors in conflict, heavy tails, outliers: each is said where it is so, and nowhere else."""

import functools

import jax
import numpy as np
import pytest
from posteriors import FAITHFUL, old_faithful

import jaxgmm as jg
from jaxgmm.report.verdict._conflict import CONFLICT
from jaxgmm.report.verdict._misfit import ALONE, TAILS, named_rows

# What each line puts into the summary.
WORDS = {
    CONFLICT: "rior in conflict with the data",
    TAILS: "eavier tails than the model",
    ALONE: "ow 57: the fit would be another one without it",
}
DTYPES = [pytest.param("float64"), pytest.param("float32", marks=pytest.mark.turn)]


def judged(x, k=1, dtype="float64", prior="fraley-raftery", n_init=8, start=None, **options):
    x = np.reshape(x, (len(x), -1)).astype(dtype)
    model = jg.Mixture(jg.Gaussian(), k, prior=prior)
    fit = jg.fit(model, x, key=jax.random.key(0), n_init=n_init, start=start)
    options = {"method": "gibbs", "n_draws": 500, "progress": False} | options
    return jg.compare(fit, jg.sample(fit.model, x, key=jax.random.key(1), start=fit, **options))


def assert_said(verdict, *names):
    assert verdict.decided
    for name in WORDS:
        said = name in names
        assert (verdict.checks.loc[name, "verdict"] == "warning") == said, (name, verdict.summary)
        assert (WORDS[name] in verdict.summary) == said, (name, verdict.summary)


def held(mean, mean_precision):
    """A prior whose mean has the weight of so many rows."""
    return jg.ConjugatePrior(
        mean=np.array([mean]), mean_precision=mean_precision, dof=3.0, scale=np.eye(1)
    )


def spread(x, sd, rows):
    """A prior whose standard deviation has the weight of so many rows of each component."""
    d = x.shape[1]
    return jg.ConjugatePrior(
        concentration=2.0,
        mean=x.mean(axis=0),
        mean_precision=0.01,
        dof=float(rows),
        scale=rows * sd**2 * np.eye(d),
    )


def with_outlier(x, at):
    x = np.array(x)
    x[57] = at
    return x


NORMAL = np.random.default_rng(0).normal(size=200)
TAILED = np.random.default_rng(1).standard_t(2, size=200)


@pytest.mark.turn
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_component(dtype):
    one = functools.partial(judged, dtype=dtype, n_init=1)
    assert_said(one(NORMAL, prior=held(0.0, 0.01)))
    assert_said(one(NORMAL, prior=held(40.0, 200.0)), CONFLICT)
    # As strong, and right.
    assert_said(one(NORMAL, prior=held(0.0, 200.0)))
    assert_said(one(with_outlier(NORMAL, 30.0), prior=held(0.0, 0.01)), TAILS, ALONE)
    tailed = one(TAILED, prior=held(0.0, 0.01))
    assert tailed.checks.loc[TAILS, "verdict"] == "warning"
    assert WORDS[TAILS] in tailed.summary
    # Rows are named by their numbers.
    least = int(np.argmax(np.abs(TAILED)))
    assert f"row {least}" in tailed.summary or f"rows {least}" in tailed.summary


@pytest.mark.turn
def test_old_faithful_has_neither():
    assert_said(jg.compare(*old_faithful()))


def test_rows_in_words():
    assert named_rows(np.array([3])) == "row 3"
    assert named_rows(np.array([3, 1, 2])) == "rows 3, 1 and 2"
    assert named_rows(np.arange(8)) == "rows 0, 1, 2, 3, 4 and 3 more"


def clusters(seed, n, d, k, apart, dof=np.inf):
    """Clusters at least ``apart`` sd from each other, of t or normal rows, and their labels."""
    rng = np.random.default_rng(seed)
    while True:
        means = rng.uniform(0, 1.3 * apart * k ** (1 / d), size=(k, d))
        between = np.linalg.norm(means[:, None] - means, axis=-1)
        if between[~np.eye(k, dtype=bool)].min() > apart:
            break
    label = rng.choice(k, n, p=rng.dirichlet(np.full(k, 8.0)))
    scale = 1 if np.isinf(dof) else np.sqrt(rng.chisquare(dof, size=(n, 1)) / dof)
    sd = rng.uniform(0.6, 1.5, size=k)
    return means[label] + rng.normal(size=(n, d)) / scale * sd[label, None], np.eye(k)[label]


@pytest.mark.turn
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("n", "d", "k"), [(300, 2, 2), (200, 1, 3)])
def test_no_false_alarm_on_mixtures_of_normals(n, d, k, dtype):
    fired = []
    for seed in range(10):
        x, _ = clusters(seed, n, d, k, 4 + 2 * (seed % 4))
        verdict = judged(x, k, dtype)
        lines = verdict.checks.loc[list(WORDS), "verdict"]
        fired += [(seed, name) for name in lines.index[lines == "warning"]]
    assert fired == []


@pytest.mark.turn
def test_no_false_alarm_on_iris_and_by_other_engines():
    iris = jg.datasets.load("iris").x
    assert_lines(judged(iris, 3, n_draws=2000))
    for method in ("nuts", "laplace", "vb"):
        assert_lines(judged(FAITHFUL, 2, method=method))


def assert_lines(verdict, *names):
    lines = verdict.checks.loc[list(WORDS), "verdict"]
    assert set(lines.index[lines == "warning"]) == set(names), verdict.summary


@pytest.mark.turn
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_two_components(dtype):
    two = functools.partial(judged, k=2, dtype=dtype, n_init=1)
    for seed in range(3):
        x, labels = clusters(seed, 300, 2, 2, 6)
        assert_lines(two(x, prior=spread(x, 3.0, 200), start=labels), CONFLICT)
        # Of two modes that in which the row is with its cluster.
        assert_lines(two(with_outlier(x, [30, -20]), start=labels), TAILS, ALONE)
        # A component of its own hides a row from its density.
        assert_lines(two(with_outlier(x, [90, 90]), start="k-means"), ALONE)
    for seed in range(5):
        x, labels = clusters(seed, 300, 2, 2, 8, dof=2)
        verdict = two(x, start=labels)
        assert verdict.checks.loc[TAILS, "verdict"] == "warning"
        assert "heavier tails than the model" in verdict.checks.loc[TAILS, "meaning"]
        assert verdict.checks.loc[CONFLICT, "verdict"] == "ok"
