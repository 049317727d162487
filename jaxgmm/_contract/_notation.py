"""Numbers and distributions in words and as code: what a report says of a prior.

A formula is a line of text in which ``_`` opens a subscript: ``μ_k``, ``w_{a b}``.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from jaxgmm._contract._definition import Prior, Sites
from jaxgmm._contract._proper import innermost

# Larger arrays are named by their shape.
_MOST_NUMBERS = 36
# What a table of numbers rebuilds.
_REBUILT = (dist.Beta, dist.Dirichlet, dist.Gamma)


def number_text(value: Any) -> str:
    """A number or a small array to four figures, a large array as its shape."""
    array = np.asarray(value)
    if array.size > _MOST_NUMBERS:
        return f"array of shape {array.shape}"
    text = lambda entry: f"{entry:.4g}"
    if array.ndim == 0:
        return text(array)
    if array.ndim == 1:
        return "(" + ", ".join(map(text, array)) + ")"
    rows = array.reshape(-1, array.shape[-1])
    return "[" + "; ".join(" ".join(map(text, row)) for row in rows) + "]"


def distribution_text(distribution: Any) -> str:
    """A distribution by name and arguments, as the user wrote it."""
    distribution = innermost(distribution)
    values = {
        name: getattr(distribution, name)
        for name in distribution.arg_constraints
        if name in vars(distribution)
    }
    arguments = ", ".join(f"{name}={number_text(value)}" for name, value in values.items())
    if type(distribution) is dist.TransformedDistribution:
        steps = ", ".join(type(t).__name__ for t in distribution.transforms)
        arguments = f"{distribution_text(distribution.base_dist)}, {steps}"
    return f"{type(distribution).__name__}({arguments})"


def distribution_code(distribution: Any) -> str | None:
    """Python that makes a distribution; None where it holds more than a table of numbers."""
    inner = innermost(distribution)
    if not isinstance(inner, _REBUILT):
        return None
    values = (np.asarray(getattr(inner, argument)) for argument in inner.arg_constraints)
    numbers = ", ".join(f"np.array({value.tolist()})" for value in values)
    return f"dist.{type(inner).__name__}({numbers})"


def site_formulas(prior: Prior) -> tuple[str, ...]:
    """A line for each site: its distribution, by name alone where it depends on other sites."""
    kinds = {}

    def walk() -> None:
        values: Sites = {}
        for name, conditional in prior.items():
            found = conditional(values)
            kinds[name] = type(innermost(found)).__name__
            values[name] = jnp.zeros(found.shape())

    jax.eval_shape(walk)
    lines = []
    for name, conditional in prior.items():
        try:
            text = distribution_text(conditional({}))
        except KeyError:
            text = f"{kinds[name]} given the sites above"
        lines.append(f"{name} ~ {text}")
    return tuple(lines)
