"""NumPyro programs with discrete latent sites, as models: EM, samplers and the verdict of them.

The program is traced once for each value of the labels, and what its plate of rows holds is kept
row by row: no enumeration by funsor.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro import handlers

from jaxgmm._checks import check_count, check_rows
from jaxgmm._contract import Params, Prior, Sites
from jaxgmm._programs import filled, size_for
from jaxgmm._programs import program as compiled
from jaxgmm.files import stored
from jaxgmm.local import from_vector, to_vector
from jaxgmm.model._numerical import NumericalModel
from jaxgmm.model._plan import TRACING, Plan, not_of_any_size, plan_of, seeded
from jaxgmm.model._tree import pytree

# Rows that stand for all where nothing is made of them.
_FEW = 4

# Log joints that differ by this share are two.
_RTOL = 1e-9


@stored
@pytree
@dataclasses.dataclass(frozen=True, repr=False)
class NumPyroProgram(NumericalModel):
    """The model of a NumPyro program; `from_numpyro` makes it.

    Attributes
    ----------
    program : callable
    plan : Plan
    constants : tuple
        What the program is given beside the rows, by name, where that is no array.
    newton : int
    label_axes : tuple of (str, int)
        Sites and their axis along which a renaming of the labels moves them.
    exchangeable : bool
        Whether all labels may be renamed; else each has a meaning of its own.
    shielded : bool
        Whether derivatives by forward differentiation are 0 / 0 where a label takes a parameter
        away, as of ``Poisson(jnp.where(label == 1, 0.0, rate))``.
    form_of_rows : tuple
        Of the data the program was written for: (columns,) or () where rows are numbers, and dtype.
    example : array
        The rows that the program was read with: all of them, or a few where its prior is not made
        of them and it draws all columns.
    arrays : dict
        What the program is given beside the rows, where that is an array.
    """

    program: Callable[..., Any] = dataclasses.field(metadata={"static": True})
    plan: Plan = dataclasses.field(metadata={"static": True})
    constants: tuple[tuple[str, Hashable], ...] = dataclasses.field(metadata={"static": True})
    newton: int = dataclasses.field(metadata={"static": True})
    label_axes: tuple[tuple[str, int], ...] = dataclasses.field(metadata={"static": True})
    exchangeable: bool = dataclasses.field(metadata={"static": True})
    shielded: bool = dataclasses.field(metadata={"static": True})
    form_of_rows: tuple[tuple[int, ...], str] = dataclasses.field(metadata={"static": True})
    example: Array
    arrays: dict[str, Array]

    def __repr__(self) -> str:
        labels = ", ".join(label.name for label in self.plan.labels)
        name = getattr(self.program, "__name__", type(self.program).__name__)
        return f"{name}, a NumPyro program with {self.n_components} labels ({labels})"

    @property
    def name(self) -> str:
        return getattr(self.program, "__name__", type(self.program).__name__)

    @property
    def n_components(self) -> int:  # type: ignore[override]
        """Of several label sites, the number of their combinations."""
        return math.prod(len(label.values) for label in self.plan.labels)

    @property
    def label_groups(self) -> tuple[int, ...]:
        return (0,) * self.n_components if self.exchangeable else tuple(range(self.n_components))

    # -- the program -----------------------------------------------------------------------

    def _fixed(self) -> dict[str, Any]:
        return {**self.arrays, **dict(self.constants)}

    def _rows(self, x: Array) -> Array:
        """Rows as the program was written for them."""
        shape, dtype = self.form_of_rows
        return x.reshape(len(x), *shape).astype(dtype if dtype != "float" else x.dtype)

    def _trace(
        self, sites: Sites, x: Array, values: tuple[Any, ...], seed: int = 0
    ) -> dict[str, Any]:
        """The sites of a run with given parameters, and every row with the same labels."""
        given = dict(sites)
        for label, value in zip(self.plan.labels, values, strict=True):
            shape = list(label.shape)
            shape[self.plan.axis] = len(x)
            given[label.name] = jnp.full(shape, value)
        with TRACING, handlers.block():  # this may run within another program
            run = handlers.substitute(self.program, data=given)
            run = handlers.trace(seeded(run, jax.random.key(seed)))
            return run.get_trace(self._rows(x), **self._fixed())

    def logits(self, params: Params, x: Array) -> Float[Array, "k n"]:
        terms = self._terms(params, x)
        if self.shielded:
            still = jax.tree.map(lax.stop_gradient, (params, terms))
            _, slopes = jax.jvp(lambda p: self._terms(p, x), still[:1], still[:1])
            constant = lambda slope, value, term: jnp.where(jnp.isnan(slope), value, term)
            terms = jax.tree.map(constant, slopes, still[1], terms)
        axis = self.plan.axis
        by_row = [
            jnp.sum(term, axis=[i for i in range(1 - term.ndim, 0) if i != axis]) for term in terms
        ]
        return sum(by_row[1:], by_row[0])

    def _terms(self, params: Params, x: Array) -> list[Float[Array, "k ..."]]:
        """The log probabilities of each site in the plate of the rows."""

        def one(values: tuple[Any, ...]) -> list[Array]:
            sites = self._trace(params, x, values)
            found = [sites[name]["fn"].log_prob(sites[name]["value"]) for name in self.plan.rows]
            scales = [sites[name]["scale"] for name in self.plan.rows]
            scaled = lambda term, scale: term if scale is None else scale * term
            return list(map(scaled, found, scales))

        values = itertools.product(*(label.values for label in self.plan.labels))
        return [jnp.stack(each) for each in zip(*map(one, values), strict=True)]

    # -- the contract ----------------------------------------------------------------------

    def prior_sites(self) -> Prior:
        return {
            name: functools.partial(self._prior, name, self.plan.parameters[:i])
            for i, name in enumerate(self.plan.parameters)
        }

    def _prior(self, name: str, before: tuple[str, ...], sites: Sites) -> dist.Distribution:
        first = tuple(label.values[0] for label in self.plan.labels)
        found = lambda seed: self._trace(sites, self.example, first, seed)[name]["fn"]
        prior = found(0)
        missing = [other for other in before if other not in sites]
        # What is missing was drawn: does it matter?
        if missing and not all(map(np.array_equal, *map(jax.tree.leaves, (prior, found(1))))):
            raise KeyError(f"the prior of {name!r} depends on {missing}")
        return prior.to_event(len(prior.batch_shape))

    def check_data(self, x: Any, sample_weight: Any = None) -> tuple[Any, Any]:
        rows, weight = super().check_data(x, sample_weight)
        if rows.shape[1] != self.example.shape[1]:
            raise ValueError(
                f"x: the program was read with {self.example.shape[1]} column(s), found "
                f"{rows.shape[1]}"
            )
        return rows, weight

    def sample(self, params: Params, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        """Rows of the program; columns that it does not draw are those it was read with."""
        given = [name for name, columns in self.plan.columns if not columns]
        if given:
            raise ValueError(
                f"sample: site {given[0]!r} observes something made of the columns of x, so that "
                "rows can not be drawn; observe the columns themselves"
            )
        rows = jnp.resize(self.example, (n, self.example.shape[1]))
        with TRACING, handlers.block():
            free = handlers.substitute(handlers.uncondition(self.program), data=params)
            trace = handlers.trace(handlers.seed(free, key))
            sites = trace.get_trace(self._rows(rows), **self._fixed())
        for name, columns in self.plan.columns:
            drawn = sites[name]["value"].reshape(n, -1).astype(rows.dtype)
            rows = rows.at[:, np.array(columns)].set(drawn)
        return rows

    def permute(self, params: Params, order: Array) -> Params:
        moved = {name: jnp.take(params[name], order, axis) for name, axis in self.label_axes}
        return {**params, **moved}

    def site_dims(self) -> dict[str, list[str]]:
        return {name: ["component"] for name, axis in self.label_axes if axis == 0}


def from_numpyro(
    program: Callable[..., Any], x: Any, *, newton: int = 1, **fixed: Any
) -> NumericalModel:
    """The model of a NumPyro program whose rows carry discrete latent labels.

    The labels are summed out, row by row; what the program samples outside of the plate of the
    rows are the parameters, with the prior that it gives them. EM maximises the log joint of the
    sites as the program declares them, by numerical M-steps (`NumericalModel`), and NUTS, SMC,
    Laplace and SVI draw from the posterior of that very density; `compare`, `select` and
    `standard_errors` work as they do for mixtures.

    Parameters
    ----------
    program : callable
        ``program(x, **fixed)``, a NumPyro program that observes the rows of ``x`` in
        ``numpyro.plate(name, len(x))``. Given the labels and the parameters, rows are independent.
    x : (n,) or (n, D) array
        Data, as the program takes them, whole numbers as such.
    newton : int
        Newton steps of an M-step: more of them come closer to the maximum of the expected log
        joint, which matters where the model is not identified.
    **fixed
        Further arguments of the program, the same for all rows; what has a value per row must be
        a column of ``x``.

    Returns
    -------
    NumericalModel
        Its parameters are the dictionary of the sites; labels are numbered in the order of their
        values, of several label sites the last one running fastest. Where a rotation and a swap
        of the labels of one site leave the log joint as it is, along an axis of each site that
        is as long, labels are exchangeable: `permute` moves them.

    Raises
    ------
    ValueError
        For values that are not finite. Naming the site, for: no discrete latent site, labels in
        more plates than that of the rows or with values without an end, continuous latent sites
        in that plate, observed ones and factors outside of it, `param` sites, subsampled plates,
        scan, Python that reads the value of a site, rows whose density depends on other rows.

    References
    ----------
    Dempster, Laird and Rubin (1977), JRSS B 39:1-38; Lange (1995), JRSS B 57:425-437.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> import jaxgmm as jg
    >>> import numpyro, numpyro.distributions as dist
    >>> def two_coins(flips):
    ...     chance = numpyro.sample("chance", dist.Beta(2.0, 2.0).expand([2]).to_event(1))
    ...     with numpyro.plate("throws", len(flips)):
    ...         coin = numpyro.sample("coin", dist.Bernoulli(0.5))
    ...         numpyro.sample("heads", dist.Binomial(10, chance[coin]), obs=flips)
    >>> flips = jnp.array([9, 8, 2, 1, 9, 3])
    >>> model = jg.from_numpyro(two_coins, flips)
    >>> fit = jg.fit(model, flips, key=jax.random.key(0))
    >>> [round(float(chance), 2) for chance in sorted(fit.params["chance"])]
    [0.22, 0.84]
    """
    check_count("newton", newton, 1)
    rows, columns = check_rows(x), np.shape(x)[1:]
    whole = np.issubdtype(np.asarray(x).dtype, np.integer)
    data = jax.device_put(np.asarray(x if whole else rows).reshape(len(rows), *columns))
    is_array = lambda value: isinstance(value, (np.ndarray, jax.Array))
    arrays = {name: jnp.asarray(value) for name, value in fixed.items() if is_array(value)}
    constants = tuple((name, value) for name, value in fixed.items() if name not in arrays)
    model = NumPyroProgram(
        program=program,
        plan=plan_of(program, data, arrays, constants),
        constants=constants,
        newton=newton,
        label_axes=(),
        exchangeable=False,
        shielded=False,
        form_of_rows=(columns, str(data.dtype) if whole else "float"),
        example=jax.device_put(filled(rows, size_for(len(rows)))),
        arrays=arrays,
    )
    params = _apart(model)
    _check_rows_apart(model, params)
    return _with_its_rows(_with_labels(_with_shield(model, params), params), params, rows)


@compiled()
def _apart(model: NumPyroProgram) -> Params:
    """Parameters without symmetries."""
    like = model._somewhere(jnp.result_type(float))
    at = to_vector(model, like)
    noise = jax.random.normal(jax.random.key(1), at.shape, at.dtype)
    return from_vector(model, at + noise, like)[0]


def _check_rows_apart(model: NumPyroProgram, params: Params) -> None:
    """Refuse rows whose density is another one where fewer rows are seen."""
    x, labels = np.asarray(model.example), tuple(label.name for label in model.plan.labels)
    half = len(x) // 2
    if half == 0:
        return
    try:
        parts = [_logits(model, params, rows) for rows in (x[:half], x[half:])]
    except (TypeError, ValueError) as error:
        raise not_of_any_size(labels, error) from error
    found, whole = np.concatenate(parts, axis=1), _logits(model, params, x)
    if not np.allclose(found, whole, rtol=1e-4, atol=1e-4, equal_nan=True):
        names = ", ".join(map(repr, labels))
        raise ValueError(
            f"program: the density of a row given its label ({names}) changes where other rows "
            "are left out; what is made of all rows must be given as an argument of the program"
        )


@compiled()
def _logits(model: NumPyroProgram, params: Params, x: Array) -> Array:
    return model.logits(params, x)


def _with_shield(model: NumPyroProgram, params: Params) -> NumPyroProgram:
    """The model as it has derivatives, or a refusal."""
    shielded = dataclasses.replace(model, shielded=bool(np.isnan(_slope(model, params)[0])))
    forward, backward = _slope(shielded, params)
    if not np.allclose(forward, backward, rtol=1e-4):
        labels = ", ".join(repr(label.name) for label in model.plan.labels)
        raise ValueError(
            f"program: a row has no derivatives under a value of its label ({labels}); where a "
            "label takes a parameter away use jnp.where(label == 1, 0.0, rate), not a product"
        )
    return shielded


@compiled()
def _slope(model: NumPyroProgram, params: Params) -> tuple[Array, Array]:
    """Of the log density of all rows along the parameters, forwards and backwards."""

    def total(params: Params) -> Array:
        return jnp.sum(model.log_prob(params, model.example))

    _, forward = jax.jvp(total, (params,), (params,))
    products = jax.tree.map(jnp.vdot, jax.grad(total)(params), params)
    return forward, jnp.sum(jnp.stack(jax.tree.leaves(products)))


@compiled()
def _height(model: NumPyroProgram, params: Params) -> Array:
    return model.log_joint(params, model.example)


def _with_labels(model: NumPyroProgram, params: Params) -> NumPyroProgram:
    """The model with what a renaming of its labels moves, found by trying."""
    k = model.n_components
    if k == 1 or len(model.plan.labels) > 1:
        return model
    choices = [
        [None, *(axis for axis in range(jnp.ndim(value)) if value.shape[axis] == k)][::-1]
        for value in params.values()
    ]
    here = _height(model, params)
    orders = [jnp.array(order) for order in ([*range(1, k), 0], [1, 0, *range(2, k)])]
    for axes in itertools.product(*choices):
        moved = [(name, a) for name, a in zip(params, axes, strict=True) if a is not None]
        found = dataclasses.replace(model, label_axes=tuple(moved), exchangeable=True)
        heights = [_height(model, found.permute(params, order)) for order in orders if moved]
        if heights and np.allclose(heights, here, rtol=_RTOL, atol=0):
            return found
    return model


def _with_its_rows(model: NumPyroProgram, params: Params, rows: Array) -> NumPyroProgram:
    """The model with the rows that its prior and its draws are made of.

    Where these have to do with no row, a few stand for all, and numbers of rows share programs.
    """
    few = dataclasses.replace(model, example=jax.device_put(np.asarray(rows)[:_FEW]))
    drawn = {column for _, columns in model.plan.columns for column in columns}
    made_of_rows = not all(map(np.array_equal, *_priors((few, model), params)))
    if made_of_rows or len(drawn) < rows.shape[1] or not all(c for _, c in model.plan.columns):
        return dataclasses.replace(model, example=rows)
    return few


@compiled()
def _priors(models: tuple[NumPyroProgram, ...], params: Params) -> list[list[Array]]:
    """The numbers of each model's prior at ``params``."""
    at = lambda model: [prior(params) for prior in model.prior_sites().values()]
    return [jax.tree.leaves(at(model)) for model in models]
