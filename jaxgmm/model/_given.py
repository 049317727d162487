"""Where a run may begin: points that a user gives, and draws of the prior."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from jaxgmm._checks import check_axes
from jaxgmm._contract import LatentModel, Params
from jaxgmm._programs import program


def forms_of_start(model: LatentModel, x: Array) -> tuple[jax.ShapeDtypeStruct, Params]:
    """Shapes and dtypes of responsibilities (n, K), and of parameters."""
    responsibilities = jax.ShapeDtypeStruct((x.shape[0], model.n_components), x.dtype)
    return responsibilities, model.form(x)


def no_labels(model: LatentModel) -> str:
    """The refusal of responsibilities where they are not enough to start from."""
    return (
        f"start: {type(model).__name__} begins at parameters and not at labels, as its M-step is a "
        'step from where it is; use start="prior", parameters, or a function of a key that returns '
        "parameters"
    )


def same_form(given: Any, needed: Any, stack: bool = False) -> bool:
    """Whether a pytree, or each of a stack of them, has the structure and shapes of another."""
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (given, needed)]
    if stack:
        if len({shape[:1] for shape in shapes[0]}) != 1:
            return False
        shapes[0] = [shape[1:] for shape in shapes[0]]
    return jax.tree.structure(given) == jax.tree.structure(needed) and shapes[0] == shapes[1]


def stacked(argument: str, kind: str, given: Any, needed: Any, dtype: Any) -> Any:
    """One of ``needed``, or a stack of them, with a leading axis: finite, in a dtype.

    Both are pytrees of one structure.
    """
    leaves = [np.asarray(leaf, dtype) for leaf in jax.tree.leaves(given)]
    if not all(np.all(np.isfinite(leaf)) for leaf in leaves):
        raise ValueError(f"{argument}: {kind} hold a non-finite value")
    if same_form(given, needed):
        leaves = [leaf[None] for leaf in leaves]
    elif not same_form(given, needed, stack=True):
        shapes = [leaf.shape for leaf in leaves]
        single = [leaf.shape for leaf in jax.tree.leaves(needed)]
        raise ValueError(
            f"{argument}: {kind} need shapes {single} (a stack of S has (S, ...)), found {shapes}"
        )
    return jax.tree.unflatten(jax.tree.structure(needed), jax.device_put(leaves))


def check_start(
    model: LatentModel, x: Array, start: Any, sample_weight: Array | None, labels: bool
) -> None:
    """Refuse, by shapes alone, a start of a pure loop that does not fit; holds inside ``jit``.

    ``labels`` says whether it may be responsibilities.
    """
    axes = {"x": (x, "n d")}
    if sample_weight is not None:
        axes["sample_weight"] = (sample_weight, "n")
    check_axes(axes)
    width = getattr(model, "n_features", None)
    if width is not None and x.shape[1] != width:
        raise ValueError(f"x: the model was resolved for {width} column(s), found {x.shape[1]}")
    labels = labels and model.starts_from_labels
    responsibilities, params = forms_of_start(model, x)
    for form in (responsibilities, params) if labels else (params,):
        if same_form(start, form):
            return
        arrays = all(hasattr(leaf, "shape") for leaf in jax.tree.leaves(start))
        if arrays and jax.tree.structure(form) == jax.tree.structure(start):
            needed = [leaf.shape for leaf in jax.tree.leaves(form)]
            found = [jnp.shape(leaf) for leaf in jax.tree.leaves(start)]
            raise ValueError(
                f"start: needs shapes {needed}, found {found}; one start at a time, jax.vmap takes "
                "a stack of them"
            )
    raise TypeError(
        "start: needs parameters of this model, such as model.params(...) makes"
        f"{', or responsibilities (n, K)' * labels}; found {type(start).__name__}"
    )


def prior_draws(
    model: LatentModel, key: PRNGKeyArray, shape: tuple[int, int], argument: str
) -> Params:
    """Parameters drawn from the prior, with leading axes ``shape``.

    A `ValueError` that names the ``argument`` where the prior has no draws.
    """
    try:
        return _prior_draws(model, key, shape)
    except NotImplementedError as error:  # what distributions without draws raise
        raise ValueError(f"{argument}: needs draws of the prior, but {error}") from error


@program(static_argnames="shape")
def _prior_draws(model: LatentModel, key: PRNGKeyArray, shape: tuple[int, int]) -> Params:
    return jax.vmap(jax.vmap(model.draw_prior))(jax.random.split(key, shape))
