"""Data and starts at the edge: a refusal that says what to do, or a status that is right."""

import dataclasses
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import STRUCTURE_OF, STRUCTURES, mixture

import jaxgmm as jg

UNIT = {0: 1.0, 1: np.ones(2), 2: np.eye(2)}
N = 40
NORMAL = np.random.default_rng(0).standard_normal((N, 2))
GROUPS = NORMAL + 6.0 * (np.arange(N) >= 20)[:, None]


def _with(rows, value):
    x = GROUPS.copy()
    x[rows] = value
    return x


# By name: rows, and their weights.
CASES = {
    "ten equal rows": (_with(slice(10), GROUPS[0]), None),
    "a group of equal rows": (_with(slice(20), GROUPS[0]), None),
    "two different rows": (GROUPS[np.arange(N) // 20], None),
    "equal rows": (np.ones((N, 2)), None),
    "constant column": (_with((slice(None), 1), 5.0), None),
    "equal columns": (GROUPS[:, [0, 0]], None),
    "outlier": (_with((3, 0), 1e8), None),
    "outlier in both": (_with(3, 1e8), None),
    "few weighted rows": (GROUPS, 1.0 * (np.arange(N) % 8 == 0)),
    "one weighted row": (GROUPS, 1.0 * (np.arange(N) == 3)),
    "weightless outlier": (_with(0, 1e8), 1.0 * (np.arange(N) > 0)),
    "large": (1e150 * GROUPS, None),
    "small": (1e-150 * GROUPS, None),
    "too large": (1e155 * GROUPS, None),
    "too small": (1e-155 * GROUPS, None),
}


def _model(structure, prior, k=2, d=2):
    if prior != "conjugate":
        return mixture(structure, prior, None, k)
    scale = UNIT[len(STRUCTURE_OF[structure].prior_scale_shapes(2)[0])]
    scale = np.eye(d) if np.ndim(scale) == 2 else scale
    numbers = {"mean": np.zeros(d), "mean_precision": 0.1, "dof": d + 3.0, "scale": scale}
    return jg.Mixture(jg.Gaussian(structure), k, prior=jg.ConjugatePrior(**numbers))


def _hard(labels, k):
    return np.eye(k)[labels]


def _starts(n=N):
    """The halves, one row against the rest, a label without rows, and a random one."""
    rows = np.arange(n)
    random = np.random.default_rng(1).dirichlet([1.0, 1.0], n)
    halves, one = _hard((2 * rows >= n).astype(int), 2), _hard((rows == 3).astype(int), 2)
    return np.stack([halves, one, _hard(0 * rows, 2), random])


def _refused(name, structure, prior, dtype):
    """Whether the likelihood has no bound, or the rule no scale, from any start."""
    products, isotropic = STRUCTURE_OF[structure].uses_products, STRUCTURE_OF[structure].isotropic
    if name.startswith("too "):
        return True
    if prior == "conjugate":
        return False
    if name in ("equal rows", "one weighted row"):
        return True
    if name == "equal columns":
        return products
    if name == "outlier in both":  # in float64 what is left between the columns are digits
        return products and (prior == "fraley-raftery" or dtype == np.float32)
    if name == "two different rows":
        return products
    if name == "constant column":
        return not isotropic if prior == "none" else products
    return False


# Where every start ends without a density: on rows that are equal, or few, or, under a prior
# whose units are not those of the data, on correlations or densities that have no digits.
HOPELESS = {
    ("full", "none"): (
        "a group of equal rows",
        "outlier",
        "outlier in both",
        "few weighted rows",
    ),
    ("tied", "none"): ("outlier in both",),
    ("full", "conjugate"): ("outlier in both",),
    ("spherical", "none"): (
        "a group of equal rows",
        "two different rows",
        "outlier",
        "outlier in both",
    ),
    ("EII", "conjugate"): ("small",),
    ("EVE", "none"): ("outlier", "outlier in both", "few weighted rows"),
}


def _assert_sound(fit, k, about):
    """What every fit and every restart must satisfy, whatever the data."""
    record = fit.restarts
    status = np.array([jg.Status(code) for code in record.status])
    finite = np.array(
        [np.all([np.isfinite(leaf).all() for leaf in jax.tree.leaves(one)]) for one in _each(fit)]
    )
    has_density = np.isfinite(record.log_joint)
    failed = np.isin(status, [jg.Status.COLLAPSED, jg.Status.NONFINITE_OBJECTIVE])
    # NaN only where not even the start had a density, and then the status says so.
    assert np.all(has_density | (failed & (record.n_iter == 0))), about
    assert np.all(finite | ~has_density), about
    last = record.trace[np.arange(len(status)), record.n_iter]
    np.testing.assert_array_equal(last[has_density], record.log_joint[has_density])
    weights = record.params.weights
    assert weights.shape == (len(status), k), about
    eps = np.finfo(weights.dtype).eps
    np.testing.assert_allclose(weights[has_density].sum(axis=1), 1, rtol=8 * eps)
    # The fit itself has numbers throughout, those of its restart.
    numbers = [fit.log_likelihood, fit.log_prior, fit.log_joint, fit.bic, fit.aic, fit.icl]
    assert np.all(np.isfinite(numbers)), (about, numbers)
    assert fit.log_likelihood == float(record.log_likelihood[fit.best])
    assert fit.status == status[fit.best] != jg.Status.COLLAPSED, about
    assert np.all(np.isfinite(fit.trace)), about


def _each(fit):
    leaves, tree = jax.tree.flatten(fit.restarts.params)
    return [jax.tree.unflatten(tree, one) for one in zip(*leaves, strict=True)]


def _log_likelihood(params, x, weight):
    """By NumPy alone, every row from every mean."""
    means, covariances = (np.asarray(a, np.float64) for a in (params.means, params.covariances))
    apart = np.asarray(x, np.float64)[:, None] - means
    square = np.einsum("nki,kij,nkj->nk", apart, np.linalg.inv(covariances), apart)
    log_det = np.linalg.slogdet(covariances)[1] + x.shape[1] * np.log(2 * np.pi)
    logits = np.log(np.asarray(params.weights, np.float64)) - (square + log_det) / 2
    return np.logaddexp.reduce(logits, axis=1) @ (np.ones(len(x)) if weight is None else weight)


# One of each kind of minimiser (free, shared, diagonal, one variance, iterated, common axes)
# and, over them, every prior; a lane is a program to compile.
LANES = [
    ("full", "none", np.float64),
    ("full", "fraley-raftery", np.float64),
    ("full", "conjugate", np.float64),
    ("tied", "none", np.float64),
    ("diag", "fraley-raftery", np.float64),
    ("spherical", "none", np.float64),
    ("EII", "conjugate", np.float64),
    ("VEV", "conjugate", np.float64),
    ("EVE", "none", np.float64),
    ("EVE", "fraley-raftery", np.float64),
    ("full", "none", np.float32),
    ("spherical", "fraley-raftery", np.float32),
]


# One lane for each prior and dtype is enough for the quick tests.
QUICK = (0, 4, 6, 10)


@pytest.mark.parametrize(
    ("structure", "prior", "dtype"),
    [
        pytest.param(*lane, marks=[pytest.mark.slow] * (i not in QUICK))
        for i, lane in enumerate(LANES)
    ],
)
def test_a_refusal_or_a_status(structure, prior, dtype):
    model = _model(structure, prior)
    for name, (x, weight) in CASES.items():
        if dtype == np.float32 and name in ("large", "small", "too large", "too small"):
            continue
        about = (name, structure, prior)
        options = {"start": _starts(), "sample_weight": weight, "max_iter": 200}
        rows = x.astype(dtype)
        if _refused(name, structure, prior, dtype):
            with pytest.raises(ValueError, match=r"^(x|prior): .*(drop|use|give|rescale)"):
                jg.fit(model, rows, **options)
            continue
        if name in HOPELESS.get((structure, prior), ()):
            with pytest.raises(ValueError, match=r"4 restart\(s\) .*prior"):
                jg.fit(model, rows, **options)
            continue
        fit = jg.fit(model, rows, **options)
        _assert_sound(fit, 2, about)
        status = fit.restarts.status
        if prior == "none":
            assert status[2] == jg.Status.COLLAPSED, about
            assert not np.isfinite(fit.restarts.log_joint[2]), about
        if name in ("ten equal rows", "large", "weightless outlier"):
            assert fit.converged, about
            expected = _log_likelihood(fit.params, rows, weight)
            rtol = 1e-9 if dtype == np.float64 else 1e-4
            if name != "large":  # NumPy's inverse underflows there
                np.testing.assert_allclose(fit.log_likelihood, expected, rtol=rtol)


def test_a_component_that_collapses_stops_where_it_last_had_a_density():
    """On its way to the equal rows, from a start that is still sound."""
    x = jnp.asarray(CASES["a group of equal rows"][0])
    model = mixture("full", "none", x, 2).resolve(x)
    run = jg.em.run(model, x, jnp.asarray(0.9 * _starts()[0] + 0.05))
    assert run.status == jg.Status.COLLAPSED
    assert run.n_iter > 0
    assert np.all([np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params)])
    np.testing.assert_allclose(run.log_joint, run.trace[run.n_iter], rtol=1e-9)


TIES = {
    "ten equal rows far out": np.append(NORMAL.ravel(), np.full(10, 10.0)),
    "nine in ten are zero": np.where(np.arange(80) % 10, 0.0, 3 + NORMAL.ravel()),
}


@pytest.mark.turn
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", TIES)
def test_shrinking_onto_equal_rows_is_a_collapse(key, name, dtype):
    """Before it is anything else, in data of few digits without a prior."""
    x = TIES[name].astype(dtype)
    with pytest.raises(ValueError, match=r"all 4 restart\(s\) collapsed.*use a proper prior"):
        jg.fit(mixture("full", "none", x, 2), x, key=key, n_init=4)


def test_whole_numbers_collapse_or_end_well(key):
    x = np.round(3 * NORMAL[:, 0])
    record = jg.fit(mixture("full", "none", x, 2), x, key=key).restarts
    well = [jg.Status.CONVERGED, jg.Status.OUT_OF_ITERATIONS, jg.Status.COLLAPSED]
    assert np.all(np.isin(record.status, well))


@pytest.mark.turn
@pytest.mark.parametrize("structure", ["full", "EII"])
def test_converged_means_that_nothing_moves(structure):
    model = _model(structure, "fraley-raftery")
    for name in ("ten equal rows", "outlier", "large"):
        x, _ = CASES[name]
        fit = jg.fit(model, x, start=_starts(), max_iter=200)
        again = jg.fit(model, x, start=fit.params, tol=0, max_iter=500)
        assert fit.converged
        np.testing.assert_allclose(again.log_joint, fit.log_joint, atol=1e-6, rtol=1e-12)


@pytest.mark.turn
def test_an_empty_component_stays_and_is_named():
    start = _starts()[2]
    with pytest.raises(ValueError, match=r"all 1 restart\(s\) collapsed.*lost its rows"):
        jg.fit(_model("full", "none"), GROUPS, start=start)
    fit = jg.fit(_model("full", "fraley-raftery"), GROUPS, start=start)
    assert fit.params.weights.shape == (2,)
    assert fit.n_empty == 1
    assert "1 of 2 components hold no rows" in fit.message
    # Its weight need not be zero: a prior may hold it up, or the user have fixed it.
    far = {"concentration": 3.0, "mean": np.full(2, 300.0)}
    prior = dataclasses.replace(_model("full", "conjugate").prior, **far)
    for model in (
        jg.Mixture(jg.Gaussian("full"), 2, prior=prior),
        jg.Mixture(jg.Gaussian("full"), 2, prior="fraley-raftery", weights=[1 - 1e-9, 1e-9]),
    ):
        held = jg.fit(model, GROUPS, start=start)
        assert held.params.weights[1] > 1e-10
        assert held.n_empty == 1
    full_house = jg.fit(_model("full", "fraley-raftery"), GROUPS, start=_starts()[0])
    assert full_house.n_empty == 0
    assert "hold no rows" not in full_house.message


# -- few rows --------------------------------------------------------------------------

X3 = np.random.default_rng(2).standard_normal((N, 3))
# Rows, D, K; whether ML is refused where covariances have products, and where they have not.
FEW = {
    "n < D": (2, 3, 1, True, False),
    "n = D + 1": (4, 3, 1, False, False),
    "n = D + 1, K = 2": (4, 3, 2, True, False),
    "K = n - 1": (6, 2, 5, True, False),
    "K = n": (6, 2, 6, True, True),
    "K > n": (6, 2, 7, True, True),
    "n = 1": (1, 2, 1, True, True),
}


def _few(name):
    n, d, k, *refused = FEW[name]
    return X3[:n, :d], k, 0.98 * _hard(np.arange(n) % k, k) + 0.02 / k, refused


@pytest.mark.parametrize("structure", ["full", pytest.param("EII", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FEW)
def test_few_rows_without_a_prior(name, structure):
    x, k, start, refused = _few(name)
    model = mixture(structure, "none", x, k)
    if refused[structure == "EII"]:
        with pytest.raises(ValueError, match="prior"):
            jg.fit(model, x, start=start)
        return
    fit = jg.fit(model, x, start=start)
    _assert_sound(fit, k, name)
    assert fit.converged
    # A covariance on D + 1 rows is spurious; a size that all components share is not.
    assert fit.spurious == (structure == "full")


@pytest.mark.turn
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in ("n < D", "K > n"))) for n in FEW]
)
def test_few_rows_with_a_prior(name):
    x, k, start, _ = _few(name)
    fit = jg.fit(_model("full", "conjugate", k, x.shape[1]), x, start=start, max_iter=300)
    _assert_sound(fit, k, name)
    assert fit.status in (jg.Status.CONVERGED, jg.Status.OUT_OF_ITERATIONS)


def test_weightless_rows_count_as_absent_in_the_default_prior():
    weight = 1.0 * (np.arange(N) < 3)
    model = jg.Mixture(jg.Gaussian("full"), 1, prior="fraley-raftery")
    with_them, without = model.resolve(X3, weight).prior, model.resolve(X3[:3]).prior
    np.testing.assert_allclose(with_them.scale, without.scale, rtol=1e-12)
    assert np.all(without.scale == np.diag(np.diag(without.scale)))  # three rows span no space


def test_the_default_prior_needs_weights_that_are_counts():
    model = jg.Mixture(jg.Gaussian("full"), 2, prior="fraley-raftery")
    with pytest.raises(ValueError, match=r"total above 1.*sum to the number of rows"):
        jg.fit(model, GROUPS, start=_starts()[0], sample_weight=np.full(N, 1 / N))


def test_no_finite_objective_is_an_error():
    x, _ = CASES["small"]
    with pytest.raises(ValueError, match=r"none of 4 restart\(s\).*units of the data"):
        jg.fit(_model("EII", "conjugate"), x, start=_starts())


@pytest.mark.parametrize("factor", [1e150, 1e-150])
def test_a_fit_far_from_one_is_the_same_fit(factor):
    for structure in ("diag", "full"):
        model = jg.Mixture(jg.Gaussian(structure), 2, prior="fraley-raftery")
        one, other = (jg.fit(model, c * GROUPS, start=_starts()[0]) for c in (1.0, factor))
        expected = one.log_likelihood - GROUPS.size * np.log(factor)
        np.testing.assert_allclose(other.log_likelihood, expected, rtol=1e-12)
        # Means and covariances have densities too: K D numbers, and K D or K D (D + 1) / 2 squares.
        power = 4 + 2 * (4 if structure == "diag" else 6)
        expected = one.log_prior - power * np.log(factor)
        np.testing.assert_allclose(other.log_prior, expected, rtol=1e-12)
        np.testing.assert_allclose(other.params.means, factor * one.params.means, rtol=1e-9)


# -- a ridge in float32 ------------------------------------------------------------------


@pytest.mark.turn
@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize(
    "structure",
    [pytest.param(s, marks=[pytest.mark.slow] * (s != "full")) for s in STRUCTURES],
)
def test_two_rows_far_apart_keep_their_ridge(structure, offset, key):
    """scikit-learn's variances are 112 (spherical) and 60 (tied) here."""
    x = np.array([[9999.0], [0.0]], np.float32) + np.float32(offset)
    model = jg.Mixture(jg.Gaussian(structure, reg_covar=0.1), 2)
    for options in ({"key": key}, {"start": np.eye(2)}):
        fit = jg.fit(model, x, **options)
        assert fit.converged
        assert fit.params.covariances.dtype == np.float32
        np.testing.assert_allclose(fit.params.covariances, 0.1, rtol=1e-6)
        np.testing.assert_array_equal(np.sort(fit.params.means, axis=0), np.sort(x, axis=0))


# -- float64 data where JAX has no float64 ---------------------------------------------------

NARROW = """
    import warnings

    import jax
    import numpy as np
    import jaxgmm as jg

    x = np.asarray(jg.datasets.load("faithful").x, np.float64)
    far, labels = x + 1e6, np.eye(2)[(x[:, 0] > 3).astype(int)]
    kinds = {
        "none": lambda shift: None,
        "fraley-raftery": lambda shift: "fraley-raftery",
        "conjugate": lambda shift: jg.ConjugatePrior(
            mean=x.mean(axis=0) + shift, mean_precision=5.0, dof=6.0, scale=np.eye(2)
        ),
    }
    for prior in kinds.values():
        near_model, far_model = (
            jg.Mixture(jg.Gaussian("full"), 2, prior=prior(s)) for s in (0, 1e6)
        )
        near, moved = jg.fit(near_model, x, start=labels), jg.fit(far_model, far, start=labels)
        assert moved.converged
        assert moved.params.means.dtype == moved.restarts.params.means.dtype == np.float64
        np.testing.assert_allclose(moved.log_joint, near.log_joint, rtol=1e-6)
        np.testing.assert_allclose(moved.params.covariances, near.params.covariances, rtol=2e-3)
        # Where the data lie float32 has steps of a sixteenth: the means are NumPy's.
        np.testing.assert_allclose(moved.params.means - 1e6, near.params.means, rtol=1e-3)
        if prior(0) is not None:
            mean = moved.model.prior.mean
            np.testing.assert_allclose(mean - 1e6, near.model.prior.mean, rtol=1e-5)
            assert mean.dtype == np.float64
        # A start in the units of the data, and a model that knows its data again.
        again = jg.fit(far_model, far, start=moved.params)
        np.testing.assert_allclose(again.log_joint, near.log_joint, rtol=1e-6)
        jg.standard_errors(moved, far)
    tails = lambda: jg.Mixture(jg.families.StudentT("full"), 2, prior="weak")
    near_t, moved_t = jg.fit(tails(), x, start=labels), jg.fit(tails(), far, start=labels)
    assert moved_t.params.own["locations"].dtype == np.float64
    np.testing.assert_allclose(moved_t.log_joint, near_t.log_joint, rtol=1e-6)
    places = moved_t.params.own["locations"] - 1e6
    np.testing.assert_allclose(places, near_t.params.own["locations"], rtol=1e-3)
    total = moved_t.model.log_prob(moved_t.params, far).sum()
    np.testing.assert_allclose(total, near_t.log_likelihood, rtol=1e-5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rounded = jg.fit(far_model, far.astype(np.float32), start=labels)
    assert "float32 has steps of 0.0625" in str(caught[0].message), caught
    assert abs(rounded.log_joint - near.log_joint) > 0.1
"""


@pytest.mark.turn
def test_float64_rows_are_centred_before_jax_narrows_them():
    code = textwrap.dedent(NARROW)
    subprocess.run([sys.executable, "-c", code], check=True)
