"""What data sets are given of their rows, such as covariates: the same of all of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgmm._checks import key_numbers
from jaxgmm._contract import LatentModel, Params


class Given(NamedTuple):
    """Rows beside which those of the data sets are drawn, and those held out."""

    rows: Float[Array, "n d"]
    held_out: Float[Array, "m d"]


def check_given(model: LatentModel, given: Any) -> None:
    """Refuse, with a `ValueError`, nothing where something is needed, and the other way round."""
    if not model.needs_given and given is not None:
        raise ValueError(f"given: {model!r} draws all columns; leave it out")
    if model.needs_given and given is None:
        raise ValueError(
            f"given: {model!r} draws rows beside columns that are given, such as covariates; pass "
            "a table or rows that have them"
        )


def given_of(
    model: LatentModel, params: Params, given: Any, key: PRNGKeyArray
) -> Float[np.ndarray, "n d"] | None:
    """The user's rows, whole; None where the model draws all columns.

    A `ValueError` or `TypeError` that names ``given`` where the two do not fit together.
    """
    check_given(model, given)
    if given is None:
        return None
    try:
        count = len(given)
    except TypeError:
        count = np.shape(given)[0] if np.ndim(given) else 0
    if count == 0:
        raise ValueError("given: needs at least one row, found none")
    whole = model.sample(params, key, count, given=given)
    return np.asarray(whole).astype(jnp.result_type(*jax.tree.leaves(params)))


def some_of(
    given: Float[np.ndarray, "n d"], n: int, key: PRNGKeyArray, draw: int
) -> Float[np.ndarray, "m d"]:
    """``n`` of the rows: all of them as they are, or else as many drawn with replacement.

    ``draw`` tells apart what a key chooses.
    """
    if len(given) == n:
        return given
    rng = np.random.default_rng((*key_numbers(key), draw))
    return given[rng.integers(len(given), size=n)]


def filled(rows: Float[np.ndarray, "n d"], n: int) -> Float[Array, "m d"]:
    """With the first ones again until there are ``n``."""
    return jax.device_put(rows[np.arange(n) % len(rows)])


def rows_beside(
    model: LatentModel, params: Params, key: PRNGKeyArray, n: int, given: Array | None
) -> Float[Array, "n d"]:
    """``n`` rows of the model, beside as many that are given where it needs them."""
    if given is None:
        return model.sample(params, key, n)
    return model.sample_like(params, key, given)
