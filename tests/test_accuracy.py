"""EM's trajectory against the same steps in fifty decimal digits, on data that cost digits."""

from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgmm as jg

DIGITS = 50
STEPS = 12
RELATIVE = {"float64": 1e-9, "float32": 1e-3}
_decimals = np.vectorize(lambda value: Decimal(float(value)), otypes=[object])
_ln = np.vectorize(lambda value: value.ln(), otypes=[object])
TWO_PI = "6.2831853071795864769252867665590057683943387987502"


def log(array):
    """Of `Decimal` or of NumPy's extended precision; ``np.exp`` and ``np.sqrt`` do both."""
    return _ln(array) if np.asarray(array).dtype.hasobject else np.log(array)


def _cholesky(matrix):
    d, lower = len(matrix), np.zeros_like(matrix)
    for i in range(d):
        for j in range(i + 1):
            rest = matrix[i, j] - sum(lower[i, m] * lower[j, m] for m in range(j))
            lower[i, j] = np.sqrt(rest) if i == j else rest / lower[j, j]
    return lower


def _two_pi(dtype):
    return Decimal(TWO_PI) if dtype.hasobject else dtype.type(TWO_PI)


def _log_density(x, mean, covariance):
    lower, rest = _cholesky(covariance), x - mean
    constant, square, whitened = 0, 0, []
    for i in range(len(mean)):
        y = (rest[:, i] - sum(lower[i, m] * whitened[m] for m in range(i))) / lower[i, i]
        whitened.append(y)
        square = square + y * y
        constant = constant + log(lower[i, i] ** 2 * _two_pi(x.dtype))[()]
    return -(square + constant) / 2


def _constrained(scatter, counts, structure):
    """Covariances of a structure from each component's scatter."""
    d = scatter[0].shape[0]
    eye = np.eye(d, dtype=int)
    if structure == "tied":
        return [sum(scatter) / sum(counts)] * len(counts)
    own = [s / c for s, c in zip(scatter, counts, strict=True)]
    if structure == "diag":
        return [s * eye for s in own]
    if structure == "spherical":
        return [eye * np.trace(s) / d for s in own]
    return own


def reference_trace(x, labels, structure, steps):
    """Log-likelihood at the start and after each of ``steps`` EM iterations from labels."""
    trace = []
    for _ in range(steps + 1):
        counts = labels.sum(axis=0)
        means = labels.T.dot(x) / counts[:, None]
        scatter = [((x - m) * labels[:, k : k + 1]).T.dot(x - m) for k, m in enumerate(means)]
        covariances = _constrained(scatter, counts, structure)
        weights = log(counts / counts.sum())
        logits = np.stack(
            [_log_density(x, means[k], c) + weights[k] for k, c in enumerate(covariances)], axis=1
        )
        top = logits.max(axis=1, keepdims=True)
        powers = np.exp(logits - top)
        total = powers.sum(axis=1, keepdims=True)
        labels = powers / total
        trace.append(float((log(total) + top).sum()))
    return np.array(trace)


def _two_groups(dtype, centres, spreads, n=40, seed=3):
    """Rows of two groups that overlap in the labels they start from."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((2, n, np.shape(centres)[1]))
    x = np.concatenate(np.asarray(centres)[:, None] + noise * np.asarray(spreads)[:, None])
    labels = np.eye(2)[np.repeat([0, 1], n)] * 0.9 + 0.05
    return x.astype(dtype), labels


def _far(dtype):
    offset = {"float64": 1e6, "float32": 1e4}[dtype]
    return _two_groups(dtype, offset + np.array([[0.0, 0.0], [2.0, 1.0]]), np.ones((2, 2)))


def _mixed_scales(dtype):
    scales = np.array([1e-6, 1.0, 1e6])
    centres = np.array([[0.0, 0.0, 0.0], [2.0, -1.0, 1.0]]) * scales
    return _two_groups(dtype, centres, np.ones((2, 3)) * scales)


def _one_scale(scale):
    def data(dtype):
        return _two_groups(dtype, scale * np.array([[0.0, 0], [2, 1]]), scale * np.ones((2, 2)))

    return data


def _tiny_component(dtype):
    return _two_groups(dtype, [[0.0, 0.0], [0.7, -0.4]], [[1.0, 1.0], [1e-4, 1e-4]])


def _flat_component(dtype):
    """Standard deviations whose squares are 1e-2 / eps apart, in the other order each."""
    flat = np.sqrt(np.finfo(dtype).eps * 100)
    return _two_groups(dtype, [[0.0, 0.0], [0.3, 0.2]], [[1.0, flat], [flat, 1.0]])


FOUR = ("full", "tied", "diag", "spherical")
CASES = [
    *[(_far, s) for s in FOUR],
    *[(_mixed_scales, s) for s in ("full", "tied", "diag")],
    *[(_one_scale(1e-6), s) for s in FOUR],
    *[(_one_scale(1e6), s) for s in FOUR],
    *[(_tiny_component, s) for s in ("full", "diag", "spherical")],
    *[(_flat_component, s) for s in ("full", "diag")],
]


@pytest.mark.parametrize("dtype", RELATIVE)
@pytest.mark.parametrize(("data", "structure"), CASES)
def test_trajectory(data, structure, dtype):
    x, labels = data(dtype)
    model = jg.Mixture(jg.Gaussian(structure), 2)
    fit = jg.fit(model, x, start=labels, tol=0, max_iter=STEPS)
    with localcontext() as context:
        context.prec = DIGITS
        digits = _decimals(x), _decimals(labels.astype(dtype))
        expected = reference_trace(*digits, structure, fit.n_iter)
    assert fit.n_iter > 2
    np.testing.assert_allclose(fit.trace, expected, rtol=RELATIVE[dtype])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", RELATIVE)
def test_trajectory_of_a_million_rows(dtype):
    x, labels = _two_groups(dtype, [[0.0, 0.0], [2.0, 1.0]], np.ones((2, 2)), n=500_000)
    model = jg.Mixture(jg.Gaussian("full"), 2)
    fit = jg.fit(model, x, start=labels, tol=0, max_iter=5)
    wide = x.astype(np.longdouble), labels.astype(dtype).astype(np.longdouble)
    expected = reference_trace(*wide, "full", 5)
    np.testing.assert_allclose(fit.trace, expected, rtol=RELATIVE[dtype])


def test_the_centred_form_costs_nothing_unused():
    """Under ``vmap`` over starts it stays a branch: no lane pays for it unless one needs it."""
    x, labels = _two_groups("float64", [[0.0, 0.0], [2.0, 1.0]], np.ones((2, 2)))
    model = jg.Mixture(jg.Gaussian("full"), 2).resolve(x).standardise(jnp.asarray(x))
    stack = jnp.stack([labels, labels[::-1]])

    def e_step(start):
        return model.e_step(model.m_step(model.statistics(start, x)), x)

    text = jax.jit(jax.vmap(e_step)).lower(stack).compile().as_text()
    entry = text[text.index("ENTRY") :]
    solves = "triangular-solve", "trsm"  # only the centred form solves for every row
    assert "conditional(" in entry
    branch = [part for part in text.split("\n\n") if any(name in part for name in solves)]
    assert any(f",{len(x)}]" in part for part in branch)
    assert not any(
        name in line and f",{len(x)}]" in line for name in solves for line in entry.splitlines()
    )
