"""What a Gaussian mixture refuses before anything runs, and what to do instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxgmm._checks import blocks, wider
from jaxgmm.files import ColumnRefused, numeric
from jaxgmm.model._prior import ConjugatePrior
from jaxgmm.model._registry import UNIVARIATE, structure_named

_REMEDY = (
    'use a proper prior (jaxgmm.ConjugatePrior, or prior="fraley-raftery" where the data vary), '
    "or a ridge (reg_covar)"
)

# In units of rounding: columns differ by no more, in some combination; and a matrix with so small
# an eigenvalue of its correlations is singular.
_DEPENDENT_EPS = 50.0


def check_squares(x: np.ndarray, name: str) -> None:
    """Refuse data whose variances, or the sums they are made of, leave the range of the dtype."""
    info = np.finfo(x.dtype)
    spread = np.zeros(x.shape[1], x.dtype)
    with np.errstate(over="ignore"):
        for _, block in blocks(x):
            spread = np.maximum(spread, np.max(np.abs(block - x[0]), axis=0))
    if structure_named(name).isotropic:
        spread = np.max(spread, keepdims=True)
    # A component may be a thousand times narrower than the data.
    least, most = 1e3 * np.sqrt(info.tiny), np.sqrt(info.max / x.size)
    outside = (spread > most) | ((spread > 0) & (spread < least))
    if np.any(outside):
        column = int(np.argmax(outside))
        raise ColumnRefused(
            f"x: {{column}} spreads over {spread[column]:.3g}, whose square leaves the range "
            f"of {x.dtype}; rescale x",
            column,
        )


def check_univariate(name: str, d: int) -> None:
    """mclust's one-letter names hold in one dimension only."""
    if name in UNIVARIATE and d != 1:
        raise ValueError(
            f"structure: {name!r} is for one feature, the data have {d}; "
            f"use {structure_named(name).name!r}"
        )


def check_bounded(x: np.ndarray, name: str, n_components: int) -> None:
    """Refuse data on which the likelihood without a prior grows without bound.

    Every structure needs more distinct rows than a start can put components on; one with
    shapes needs columns that vary, and one with orientations rows that span all features.
    """
    check_univariate(name, x.shape[1])
    n, d = x.shape
    distinct = _distinct_rows(x, max(2, n_components))
    if n < n_components:
        raise ValueError(
            f"x: {n} rows cannot carry {n_components} components without a prior; {_REMEDY}"
        )
    if distinct == 1:
        raise ValueError(f"x: all rows are equal, so the likelihood is unbounded; {_REMEDY}")
    if distinct < n_components:
        raise ValueError(
            f"x: only {distinct} distinct rows for {n_components} components, "
            f"so the likelihood is unbounded; {_REMEDY}"
        )
    if structure_named(name).isotropic:
        return
    constant = _constant_columns(x)
    if constant.size:
        raise ColumnRefused(
            "x: {column} is constant, so the likelihood is unbounded; "
            f"drop the column, or {_REMEDY}",
            constant[0],
        )
    if not structure_named(name).uses_products:
        return
    if n <= d:
        raise ValueError(
            f"x: {n} rows do not span {d} features, so the likelihood is unbounded; {_REMEDY}"
        )
    if _dependent(x):
        raise ValueError(
            f"x: the columns are linearly dependent to the precision of {x.dtype}, so the "
            "likelihood is unbounded; drop a column (or a row far from all others), or "
            f"{_REMEDY}{wider(x.dtype)}"
        )


def check_rule_defined(rule: str, x: np.ndarray, total_weight: float, name: str) -> None:
    """Refuse data from which the rule cannot compute a positive definite scale."""
    check_univariate(name, x.shape[1])
    n, d = x.shape
    explicit = "give explicit hyper-parameters (jaxgmm.ConjugatePrior)"
    if n < 2 or len(_constant_columns(x)) == d:
        raise ValueError(
            f"prior: {rule!r} needs rows that differ to set its scale, found {n} equal row(s); "
            f"{explicit}"
        )
    if total_weight < 1 or np.isclose(total_weight, 1):
        raise ValueError(
            f"prior: {rule!r} takes weights as counts of rows and needs a total above 1, found "
            f"{total_weight:.3g}; scale sample_weight to sum to the number of rows, or {explicit}"
        )
    if not structure_named(name).uses_products:
        return
    constant = _constant_columns(x)
    if constant.size:
        raise ColumnRefused(
            f"prior: {rule!r} has no scale for {{column}}, which is constant; "
            f"drop the column or {explicit}",
            constant[0],
        )
    if n > d and np.linalg.eigvalsh(_correlations(x))[0] < _noise(x):
        raise ValueError(
            f"prior: {rule!r} has a singular scale, the columns are linearly dependent to the "
            f"precision of {x.dtype}; drop a column (or a row far from all others) or {explicit}"
            f"{wider(x.dtype)}"
        )


def check_prior(prior: ConjugatePrior, name: str, k: int, d: int) -> None:
    """Refuse hyper-parameters that do not fit, or of which there is no distribution."""
    check_univariate(name, d)
    structure = structure_named(name)
    check_concentration_shape(prior, k)
    mean = numeric("prior.mean", prior.mean)
    if mean.shape != (d,):
        raise ValueError(f"prior: mean needs shape ({d},) for these data, found {mean.shape}")
    for field in ("mean_precision", "dof"):
        value = numeric(f"prior.{field}", getattr(prior, field))
        least = d - 1 if field == "dof" and structure.uses_products else 0
        if value.shape != () or not value > least:
            raise ValueError(
                f"prior: {field} must be one number above {least}, found {value.tolist()}"
            )
    scale = numeric("prior.scale", prior.scale)
    shapes = structure.prior_scale_shapes(d)
    if scale.shape not in shapes:
        raise ValueError(
            f"prior: scale needs shape {' or '.join(map(str, shapes))} for "
            f"{structure.name!r} covariances of {d} feature(s), found {scale.shape}"
        )
    positive = np.linalg.eigvalsh(scale) if structure.uses_products else scale
    symmetric = not structure.uses_products or np.allclose(scale, scale.T)
    if not symmetric or not np.all(positive > 0):
        raise ValueError("prior: scale must be symmetric and positive definite")


def check_concentration_shape(prior: ConjugatePrior, k: int) -> None:
    """Refuse what is no concentration of the weights of so many components."""
    concentration = numeric("prior.concentration", prior.concentration)
    shape = (2, k - 1) if prior.stick_breaking else (k,)
    if concentration.shape not in {(), shape}:
        raise ValueError(
            f"prior: concentration needs one number or shape {shape}, found {concentration.shape}"
        )
    if not np.all(concentration > 0):
        raise ValueError(f"prior: concentration must be positive, found {concentration.tolist()}")


def check_concentration(concentration: np.ndarray, method: str) -> None:
    """Refuse weights whose density has no highest point, where a mode is looked for."""
    if not np.all(concentration >= 1):
        raise ValueError(
            f"prior: concentration {concentration.tolist()} is below 1, so that the joint is "
            "unbounded at the edge of the simplex and has no mode; raise it to at least 1, or "
            f'sample without a fit: jaxgmm.sample(model, x, key=key, method="{method}", '
            'start="prior"), or start=the fit of this model under a concentration of 1'
        )


# A share of the prior that may lie beyond a rounded edge without notice.
_BEYOND_EDGE = 0.01


def check_coordinates(concentration: np.ndarray, dtype: np.dtype) -> None:
    """Refuse weights much of whose prior lies closer to zero than unconstrained coordinates go.

    NumPyro's cut the shares of a stick off at a rounding from one; below it a density that
    rises as w^(c - 1) holds a share of about eps^c.
    """
    least = float(np.min(concentration))
    if (1 - least) * np.finfo(dtype).eps ** least > _BEYOND_EDGE:
        wider = "" if dtype == np.float64 else " or float64 (jax_enable_x64)"
        raise ValueError(
            f"prior: under a concentration of {least:g} weights lie closer to zero than the "
            f"coordinates of this method can tell in {np.dtype(dtype).name}; use "
            f'method="gibbs"{wider}'
        )


def check_poles(name: str, kind: str, powers: list[Any]) -> None:
    """Refuse a density with a pole at an edge, where a mode is looked for."""
    least = min(float(np.min(np.asarray(power))) for power in powers)
    if least < 1:
        raise ValueError(
            f"prior: {name!r} has a {kind} distribution with a concentration of {least:g}, below "
            "1, so that the joint is unbounded at the edge and has no mode; raise it to at least "
            '1, or sample without a fit: jaxgmm.sample(model, x, key=key, method="gibbs", '
            'start="prior")'
        )


def check_values(
    family: str,
    x: np.ndarray,
    holds: Callable[[np.ndarray], np.ndarray],
    needs: str,
    remedy: str,
) -> None:
    """Refuse rows with a value that a family does not have, by the first of them.

    Whether values may be missing is asked before.
    """
    for start, block in blocks(x):
        wrong = ~(holds(block) | np.isnan(block))
        if np.any(wrong):
            row, column = np.argwhere(wrong)[0]
            raise ColumnRefused(
                f"x: {family} needs {needs}, found {block[row, column]:.9g} at row {start + row}, "
                f"{{column}}; {remedy}",
                int(column),
            )


def check_counts(family: str, x: np.ndarray) -> None:
    """Refuse what is no count, and counts between which the dtype has no steps of one."""
    whole = lambda rows: (rows >= 0) & (rows % 1 == 0)
    check_values(family, x, whole, "counts 0, 1, 2, ...", "round, or leave the column out")
    most = 2.0 ** (np.finfo(x.dtype).nmant + 1)
    remedy = f"beyond it {x.dtype} skips whole numbers{wider(x.dtype)}"
    check_values(family, x, lambda rows: rows <= most, f"counts up to {most:.0f}", remedy)


# Block by block, so that checks of large data take no memory.


def _distinct_rows(x: np.ndarray, enough: int) -> int:
    """How many rows differ, counted no further than ``enough``."""
    seen = x[:0]
    for _, block in blocks(x):
        seen = np.unique(np.concatenate([seen, block]), axis=0)
        if len(seen) >= enough:
            return enough
    return len(seen)


def _constant_columns(x: np.ndarray) -> np.ndarray:
    constant = np.ones(x.shape[1], bool)
    for _, block in blocks(x):
        constant &= np.all(block == x[0], axis=0)
        if not constant.any():
            break
    return np.flatnonzero(constant)


def _noise(x: np.ndarray) -> float:
    return max(x.shape[1], _DEPENDENT_EPS) * float(np.finfo(x.dtype).eps)


def _correlations(x: np.ndarray) -> np.ndarray:
    centred = _centred(x)
    gram = sum(block.T @ block for block in centred())
    size = np.sqrt(np.diag(gram))
    return gram / size / size[:, None]


def _dependent(x: np.ndarray) -> bool:
    """Whether some combination of the columns is no more than their rounding."""
    # The Gram matrix squares what is small: where it is in doubt, a triangular factor decides.
    if np.linalg.eigvalsh(_correlations(x))[0] > np.sqrt(_DEPENDENT_EPS * np.finfo(float).eps):
        return False
    factor = np.zeros((0, x.shape[1]))
    for block in _centred(x)():
        factor = np.linalg.qr(np.concatenate([factor, block]), mode="r")
    size = np.linalg.norm(factor, axis=0)
    length = np.sqrt(sum(np.sum(np.square(b, dtype=float), axis=0) for _, b in blocks(x)))
    least = np.linalg.svd(factor / size, compute_uv=False)[-1]
    return bool(least < _noise(x) * np.max(length / size))


def _centred(x: np.ndarray) -> Callable[[], Iterator[np.ndarray]]:
    """Blocks of the rows in float64, their mean taken away, as often as they are asked for."""
    mean = sum(block.sum(axis=0, dtype=np.float64) for _, block in blocks(x)) / len(x)
    return lambda: (block - mean for _, block in blocks(x))
