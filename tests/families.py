"""Mixtures beside the Gaussian, and their rows written a second time.

A new family is an entry of `MODELS`, over which the laws of `test_laws.py` run, or of `FAMILIES`
where its prior is conjugate (`test_families.py`).
"""

import pathlib
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import jaxgmm as jg


class Case(NamedTuple):
    """A family at work.

    Attributes
    ----------
    family : Family
    x : (n, D) array
        Rows of two groups.
    rows : callable
        From the sites of the components and rows (n, 1, D) to log densities (n, K), by NumPyro.
    prior : dict
        A conjugate distribution by site, nobody's default.
    wrong : list of (column, value, words)
        What the door refuses, and what it says then.
    """

    family: Any
    x: np.ndarray
    rows: Any
    prior: dict[str, Any]
    wrong: list[tuple[int, float, str]]


_rng = np.random.default_rng(20)
_group = np.arange(40) % 2
_two = lambda draw, one, other: draw(np.where(_group[:, None] == 0, one, other)).astype(float)


def _codes(probs, other):
    edges = np.cumsum(np.where(_group[:, None, None] == 0, probs, other), axis=-1)[..., :-1]
    return np.sum(edges < _rng.random((40, len(probs), 1)), axis=-1).astype(float)


def _totals(probs, other):
    drawn = [_rng.multinomial(6 + i % 3, probs if g == 0 else other) for i, g in enumerate(_group)]
    return np.array(drawn, float)


def _shares(sites, x):
    """Multinomial rows, the total of each its own."""
    return dist.MultinomialProbs(sites["probs"], x.sum(-1), total_count_max=8).log_prob(x)


def _documented(name):
    """A class that a page of the documentation shows."""
    page = pathlib.Path(__file__).parents[1] / "docs" / "families.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    (code,) = (block for block in blocks if f"class {name}(" in block)
    shown: dict[str, Any] = {"__name__": "shown"}
    exec(code, shown)
    assert len(code.splitlines()) <= 40
    return shown[name]


FAMILIES = {
    "bernoulli": Case(
        jg.families.Bernoulli(),
        _two(
            lambda p: _rng.random(p.shape) < p, [0.9, 0.8, 0.2, 0.7, 0.3], [0.2, 0.1, 0.7, 0.4, 0.8]
        ),
        lambda sites, x: dist.Bernoulli(probs=sites["probs"]).to_event(1).log_prob(x),
        {"probs": dist.Beta(1.5, jnp.array([2.0, 1.2, 1.4, 1.6, 2.1]))},
        [(1, 2.0, "codes 0 and 1, found 2 at row 3, column 1"), (0, -1.0, "found -1")],
    ),
    "categorical": Case(
        jg.families.Categorical(levels=3),
        _codes(
            [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]],
            [[0.1, 0.3, 0.6], [0.6, 0.2, 0.2], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]],
        ),
        lambda sites, x: dist.Categorical(sites["probs"]).to_event(1).log_prob(x.astype(int)),
        {"probs": dist.Dirichlet(jnp.array([1.5, 1.2, 1.8]))},
        [(2, 3.0, "codes 0, ..., 2, found 3 at row 3, column 2"), (0, 0.5, "found 0.5")],
    ),
    "multinomial": Case(
        jg.families.Multinomial(),
        _totals([0.6, 0.3, 0.1], [0.1, 0.3, 0.6]),
        _shares,
        {"probs": dist.Dirichlet(jnp.array([1.5, 1.2, 1.8]))},
        [(0, -2.0, "counts 0, 1, 2, ..., found -2 at row 3, column 0"), (1, 1.5, "found 1.5")],
    ),
    "poisson": Case(
        jg.families.Poisson(),
        _two(_rng.poisson, [1.5, 6.0], [7.0, 2.0]),
        lambda sites, x: dist.Poisson(sites["rates"]).to_event(1).log_prob(x),
        {"rates": dist.Gamma(jnp.array([2.0, 3.0]), 0.5)},
        [(1, 2.5, "counts 0, 1, 2, ..., found 2.5 at row 3, column 1"), (0, -1.0, "found -1")],
    ),
    "exponential": Case(
        jg.families.Exponential(),
        _two(_rng.exponential, [0.5, 8.0], [6.0, 1.0]),
        lambda sites, x: dist.Exponential(sites["rates"]).to_event(1).log_prob(x),
        {"rates": dist.Gamma(2.0, jnp.array([1.5, 0.7]))},
        [(0, -0.5, "positive numbers, found -0.5 at row 3, column 0"), (1, 0.0, "above 0")],
    ),
    "geometric": Case(
        _documented("Geometric")(),
        _two(_rng.geometric, [0.5, 0.1], [0.15, 0.6]) - 1,
        lambda sites, x: dist.GeometricProbs(sites["probs"]).to_event(1).log_prob(x),
        {"probs": dist.Beta(1.5, jnp.array([2.0, 1.2]))},
        [],
    ),
}


def _mixed(sites, x):
    """A product of four parts."""
    shape = jnp.broadcast_shapes(x.shape[:-1], sites["wait.rates"].shape[:1])
    parts = [
        dist.Bernoulli(probs=sites["a:b.probs"]).log_prob(x[..., :2]),
        dist.Categorical(sites["colour.probs"]).log_prob(x[..., 2:3].astype(int)),
        dist.Poisson(sites["visits.rates"]).log_prob(x[..., 3:4]),
        dist.Exponential(sites["wait.rates"]).log_prob(x[..., 4:]),
    ]
    return sum(jnp.broadcast_to(part.sum(-1), shape) for part in parts)


FAMILIES["product"] = Case(
    jg.families.Product(
        {
            ("a", "b"): jg.families.Bernoulli(),
            "colour": jg.families.Categorical(levels=3),
            "visits": jg.families.Poisson(),
            "wait": jg.families.Exponential(),
        }
    ),
    np.hstack(
        [
            FAMILIES["bernoulli"].x[:, :2],
            FAMILIES["categorical"].x[:, :1],
            FAMILIES["poisson"].x[:, :1],
            FAMILIES["exponential"].x[:, :1],
        ]
    ),
    _mixed,
    {
        "a:b.probs": dist.Beta(1.5, jnp.array([2.0, 1.2])),
        "colour.probs": dist.Dirichlet(jnp.array([1.5, 1.2, 1.8])),
        "visits.rates": dist.Gamma(2.0, 0.5),
        "wait.rates": dist.Gamma(2.0, 1.5),
    },
    [],
)


def component_sites(family, k, d):
    """Shapes and supports, of a product under the names of its parts."""
    if not isinstance(family, jg.families.Product):
        return family.component_sites(k, d)
    return {
        name: site
        for part in family.each
        for name, site in part.named(part.family.component_sites(k, part.width)).items()
    }


# By name, what makes ``prior=`` of a case and K.
PRIORS = {
    "none": lambda case, k: None,
    "weak": lambda case, k: "weak",
    "sites": lambda case, k: {
        "weights": dist.Dirichlet(1.5 + jnp.arange(k, dtype=float)),
        **case.prior,
    },
}


def mixture(name, prior="none", k=2, **other):
    case = FAMILIES[name]
    return jg.Mixture(case.family, k, prior=PRIORS[prior](case, k), **other)


# -- all other mixtures ---------------------------------------------------


class Model(NamedTuple):
    """A mixture at work, with what the laws have to know of it.

    Attributes
    ----------
    family : Family
    x : (n, D) array
        Rows, of a number that three divides.
    logits : callable
        From the sites and rows to (n, K): log densities and log weights, by NumPyro.
    priors : dict
        By name, as users write them.
    maps : tuple of (factors, shift)
        Of the columns, under which a fit moves with the rows.
    drawn : sequence of int, optional
        Columns that have a density, where others are given.
    noise : (n, D, D) array, optional
        Of rows with noise.
    options : dict
        Others of `Mixture`.
    k : int
        A label that is no component included.
    quick : bool
        Whether it is in the quick lane; few are, since all have programs of their own.
    """

    family: Any
    x: np.ndarray
    logits: Any
    priors: dict[str, Any]
    maps: tuple[tuple[Any, Any], ...] = ()
    drawn: Any = slice(None)
    noise: np.ndarray | None = None
    options: Any = None
    k: int = 2
    quick: bool = False

    def mixture(self, prior):
        return jg.Mixture(self.family, self.k, prior=self.priors[prior], **(self.options or {}))

    def rows(self, dtype=float, factors=1.0, shift=0.0):
        """As `jaxgmm.fit` takes them, in other units where asked for."""
        x = (self.x * factors + shift).astype(dtype)
        if self.noise is None:
            return x
        unit = np.broadcast_to(factors, self.x.shape[1:]) * np.eye(self.x.shape[1])
        return jg.rows(x, noise=(unit @ self.noise @ unit).astype(dtype))

    @property
    def usual(self):
        """A prior under which units mean nothing."""
        return "none" if "none" in self.priors else "weak"

    @property
    def order(self):
        """Two labels that change places."""
        return np.array([1, 0, *range(2, self.k)])


def _weighted(rows):
    """Log densities (n, K) beside weights that are the same for all rows."""
    return lambda sites, x: jnp.log(sites["weights"]) + rows(sites, x)


MODELS: dict[str, Model] = {}
_FLAT: dict[str, Any] = {"none": None}
_N = 60
_split = np.arange(_N) % 2 == 0
_z = _rng.normal([2.0, -5.0], [1.0, 3.0], (_N, 2))


# Regressions: a response between its covariates, and one after them.


def _predictor(sites, z):
    b = sites["coefficients"]
    return b[:, 0] + z @ b[:, 1:].T


def _of_line(sites, z, y):
    return dist.Normal(_predictor(sites, z), jnp.sqrt(sites["variances"])).log_prob(y)


_heights = np.where(_split, 1 + _z @ [2.0, -0.3], 6 - _z @ [0.5, 0.4]) + 0.4 * _rng.normal(size=_N)
_counts = _rng.poisson(np.exp(np.where(_split, 0.3 + 0.5 * _z[:, 0], 2.5 - 0.2 * _z[:, 0])))
_answers = _rng.random(_N) < 1 / (1 + np.exp(-np.where(_split, 2 - _z[:, 0], _z[:, 0] - 1)))
MODELS |= {
    "line": Model(
        jg.families.LinearRegression(on=[0, 2]),
        np.column_stack([_z[:, 0], _heights, _z[:, 1]]),
        _weighted(lambda sites, x: _of_line(sites, x[:, [0, 2]], x[:, 1:2])),
        {
            **_FLAT,
            "sites": {
                "weights": dist.Dirichlet(jnp.array([1.5, 2.0])),
                "coefficients": dist.MultivariateNormal(jnp.zeros(3), 9 * jnp.eye(3) + 1),
                "variances": dist.InverseGamma(2.0, 1.0),
            },
        },
        (([2.0, 3.0, 0.5], 0.0), (1.0, [-300.0, 1e6, 7.0])),
        [1],
        quick=True,
    ),
    "counts on a line": Model(
        jg.families.PoissonRegression(on=[0]),
        np.column_stack([_z[:, 0], _counts]).astype(float),
        _weighted(
            lambda sites, x: dist.Poisson(jnp.exp(_predictor(sites, x[:, :1]))).log_prob(x[:, 1:])
        ),
        _FLAT,
        (([7.0, 1.0], [-300.0, 0.0]),),
        [1],
    ),
    "answers on a line": Model(
        jg.families.LogisticRegression(on=[0]),
        np.column_stack([_z[:, 0], _answers]).astype(float),
        _weighted(
            lambda sites, x: dist.Bernoulli(logits=_predictor(sites, x[:, :1])).log_prob(x[:, 1:])
        ),
        {"weak": "weak"},
        (([7.0, 1.0], [-300.0, 0.0]),),
        [1],
    ),
}

# Components of numbers: t, rows with noise, rows with holes, factors.

_cloud = np.where(
    _split[:, None],
    _rng.standard_t(4, (_N, 2)) @ [[1.0, 0.6], [0.0, 0.8]],
    [7.0, 3.0] + _rng.standard_t(6, (_N, 2)) * [0.5, 1.2],
)
_holes = np.where(_rng.random((_N, 2)) < 0.2, np.nan, _cloud)
_holes[5] = np.nan
_roots = 0.4 * _rng.normal(size=(_N, 2, 2))
_noise = _roots @ np.swapaxes(_roots, 1, 2)
_places = (([300.0, 0.01], 0.0), (1.0, [1e6, -1e6]))
_PATTERNS = np.array([[True, True], [True, False], [False, True]])


def _where_there(rows):
    """Log densities of what each row has; ``rows(sites, columns)`` makes a distribution."""
    known = [(has, np.all(~np.isnan(_holes) == has, axis=1)) for has in _PATTERNS]

    def logits(sites, x):
        total = jnp.zeros((_N, 2))
        for has, here in known:
            columns, at = np.flatnonzero(has), np.flatnonzero(here)
            each = rows(sites, columns).log_prob(x[at[:, None], columns][:, None])
            total = total.at[at].set(each)
        return jnp.log(sites["weights"]) + total

    return logits


def _normal(sites, columns):
    covariances = sites["covariances"][:, columns[:, None], columns]
    return dist.MultivariateNormal(sites["means"][:, columns], covariances)


def _t(sites, columns):
    scale = sites["scale_matrices"][:, columns[:, None], columns]
    factor = jnp.linalg.cholesky(scale)
    return dist.MultivariateStudentT(sites["dof"], sites["locations"][:, columns], factor)


_both = np.arange(2)


def _whole(rows):
    return _weighted(lambda sites, x: rows(sites, _both).log_prob(x[:, None]))


def _with_noise(sites, x):
    covariances = sites["covariances"] + jnp.asarray(_noise)[:, None]
    return dist.MultivariateNormal(sites["means"], covariances).log_prob(x[:, None, :2])


def _numbers(family, logits=None, x=_cloud, maps=_places, priors=_FLAT, **more):
    return Model(family, x, logits or _whole(_normal), priors, maps, **more)


MODELS |= {
    "t": _numbers(jg.families.StudentT(), _whole(_t)),
    "t with holes": _numbers(jg.families.StudentT(), _where_there(_t), _holes),
    "noise": _numbers(jg.Gaussian(), _weighted(_with_noise), noise=_noise),
    "holes": _numbers(jg.Gaussian(), _where_there(_normal), _holes),
}


def _of_factors(seed):
    rng = np.random.default_rng(seed)
    loadings, noise = rng.standard_normal((6, 2)), rng.uniform(0.3, 1.5, 6)
    factors, rest = rng.standard_normal((_N, 2)), rng.standard_normal((_N, 6))
    return factors @ loadings.T + np.sqrt(noise) * rest + rng.standard_normal(6)


_wide = np.concatenate([_of_factors(1), _of_factors(2)])


def _low_rank(sites, x):
    loadings, noise = sites["loadings"], sites["noise_variances"].reshape(2, -1, 1)
    covariances = loadings @ jnp.swapaxes(loadings, 1, 2) + noise * jnp.eye(6)
    return dist.MultivariateNormal(sites["means"], covariances).log_prob(x[:, None])


_sized = ([300.0, 0.01, 1.0, 2.0, 5.0, 0.1], 1e3)
MODELS |= {
    "factors": _numbers(
        jg.families.FactorAnalyser(2), _weighted(_low_rank), _wide, (_sized,), {"weak": "weak"}
    ),
    "ppca": _numbers(jg.families.PPCA(2), _weighted(_low_rank), _wide, ((7.0, 1e3),)),
}

# A background beside components, and weights of each row.


def _beside(rows, volume):
    """Log densities of two components and of a box."""

    def logits(sites, x):
        own = rows(sites, x)
        flat = jnp.full((len(x), 1), -np.log(volume))
        return jnp.log(sites["weights"]) + jnp.concatenate([own, flat], axis=1)

    return logits


def _gated(rows):
    """Log densities of the first column beside log weights by the other two."""

    def logits(sites, x):
        u = jnp.concatenate([jnp.ones((len(x), 1)), x[:, 1:]], axis=1)
        gates = jnp.concatenate([sites["gates"], jnp.zeros((1, 3))])
        return jax.nn.log_softmax(u @ gates.T, axis=1) + rows(sites, x[:, :1])

    return logits


def _of_counts(sites, x):
    return dist.Poisson(sites["rates"]).to_event(1).log_prob(x[:, None])


def _of_heights(sites, x):
    means, variances = sites["means"], sites["covariances"].reshape(2, -1)
    return dist.Normal(means, jnp.sqrt(variances)).to_event(1).log_prob(x[:, None])


_far = np.concatenate([_cloud[:51], _rng.uniform(-12, 18, (9, 2))])
_visits = _rng.poisson(np.where(_split, 1.5, 6.0))
_two_counts = np.column_stack([_visits, _rng.poisson(np.where(_split, 7.0, 2.0))]).astype(float)
_two_counts[:6] = _rng.integers(0, 30, (6, 2))
_sex = _rng.integers(0, 2, _N)
_age = 40 + 9 * _rng.normal(size=_N) + 4 * _split
_box = {"background": jg.Uniform()}
_gates = {"gates": [1, 2]}
MODELS |= {
    "background": Model(
        jg.Gaussian(),
        _far,
        _beside(
            lambda sites, x: _normal(sites, _both).log_prob(x[:, None]),
            np.prod(np.ptp(_far, axis=0)),
        ),
        _FLAT,
        _places,
        options=_box,
        k=3,
    ),
    "background of counts": Model(
        jg.families.Poisson(),
        _two_counts,
        _beside(_of_counts, np.prod(np.ptp(_two_counts, axis=0) + 1)),
        _FLAT,
        options=_box,
        k=3,
    ),
    "gates": Model(
        jg.families.Poisson(),
        np.column_stack([_visits, _sex, _age]).astype(float),
        _gated(_of_counts),
        {
            **_FLAT,
            "sites": {
                "gates": dist.Normal(0, jnp.array([2.0, 1.0, 0.2])),
                "rates": dist.Gamma(2.0, 0.5),
            },
        },
        (([1.0, 1.0, 12.0], [0.0, 0.0, 500.0]),),
        [0],
        options=_gates,
        quick=True,
    ),
}

# Repeats that share a label: sums over them.


def _summed(rows, m):
    def logits(sites, x):
        each = jnp.split(x, m, axis=1)
        there = [~jnp.isnan(one) for one in each]
        whole = [jnp.where(here, one, 1.0) for here, one in zip(there, each, strict=True)]
        sums = [
            jnp.where(jnp.all(here, axis=1, keepdims=True), rows(sites, one), 0.0)
            for here, one in zip(there, whole, strict=True)
        ]
        return jnp.log(sites["weights"]) + sum(sums)

    return logits


_panel = _rng.poisson(np.where(_split, 2.0, 5.0)[:, None], (_N, 3)).astype(float)
_panel[::3, 2] = np.nan
_when = _rng.normal(0, 2, (_N, 2))
_paths = np.where(_split[:, None], 1 + 2 * _when, 1 - _when) + 0.5 * _rng.normal(size=(_N, 2))
_paths = np.stack([_when, _paths], axis=-1).reshape(_N, 4)
_paths[::4, 2:] = np.nan
MODELS |= {
    "repeated counts": Model(
        jg.families.Repeated(jg.families.Poisson(), 3), _panel, _summed(_of_counts, 3), _FLAT
    ),
    "repeated lines": Model(
        jg.families.Repeated(jg.families.LinearRegression(on=[0]), 2),
        _paths,
        _summed(lambda sites, x: _of_line(sites, x[:, :1], x[:, 1:]), 2),
        _FLAT,
        (([2.0, 3.0, 2.0, 3.0], [-30.0, 100.0, -30.0, 100.0]),),
        [1, 3],
    ),
}
