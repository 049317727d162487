"""The families beside the Gaussian, one line each, and their rows written a second time.

A new family is one line in `FAMILIES`; the laws of `test_families.py` run over it.
"""

import pathlib
import re
from typing import Any, NamedTuple

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
