"""`select`: several models on the same data, one row each, criteria in columns."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import PRNGKeyArray

from jaxgmm import em
from jaxgmm._checks import check_count, check_key, check_name, key_numbers
from jaxgmm._contract import LatentModel
from jaxgmm._programs import program
from jaxgmm.em import Fit, Status, bar, check_no_weights
from jaxgmm.report.selection._criteria import CRITERIA, DECIDING, Case, evaluate, missing
from jaxgmm.report.selection._selection import Selection

_DEFAULT = ("bic", "icl", "aic")

# Up to so many rows a fit takes less time than its program takes to compile, and models that
# differ in K share one with room for the largest.
_FEW_ROWS = 10_000


def select(
    models: Iterable[LatentModel],
    x: Any,
    *,
    key: PRNGKeyArray,
    criterion: str = "bic",
    criteria: Sequence[str] = _DEFAULT,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    n_init: int = 16,
    sample_weight: Any = None,
    progress: bool = True,
) -> Selection:
    """Fit several models to the same data and compare them.

    Models of one shape (structure, number of components, kind of prior) share a compiled
    program; programs are compiled side by side, one on each processor.

    Parameters
    ----------
    models : iterable of LatentModel
        What to try.
    x : (n, D) or (n,) array, or Stream
        Data. Of a stream there are the criteria that need no rows beyond the fit: BIC, AIC, ICL.
    key : typed random key
    criterion : str
        Decides ``best``; any of the criteria below but ``"mclust_bic"`` and ``"lrt"``.
    criteria : sequence of str
        Columns of the table, the deciding one always among them.
        ``"bic"`` (Schwarz, 1978), ``"aic"`` (Akaike, 1974).
        ``"icl"``: BIC less twice the log probability of the most probable labels, as mclust
        has it; ``"icl_entropy"``: BIC plus twice the entropy of the labels (both after
        Biernacki, Celeux and Govaert, 2000).
        ``"mclust_bic"``: BIC with mclust's sign, higher is better.
        ``"elbo"``: -2 (variational bound + log K!), where the prior is conjugate.
        ``"loo"``: -2 elpd by leave-one-out, labels summed out, with ``loo_error`` and the
        number of rows ``loo_bad_k`` for which it fails (Vehtari, Gelman and Gabry, 2017).
        ``"evidence"``: -2 log p(x), all labellings counted, with ``evidence_error``
        and ``evidence_k``, the Pareto k of its weights, where it has some: neither number is to be
        trusted above 0.7.
        ``"lrt"``: ``lrt_p``, the bootstrap p-value of K against K + 1 (McLachlan, 1987).
    options : mapping, optional
        By criterion, what goes to the engine behind it. ``"elbo"`` and ``"loo"``: arguments of
        `sample` (``"loo"`` draws by NUTS unless given another ``method``). ``"evidence"``:
        ``method``, an engine of `sample` that estimates it (``"laplace"``) or a function
        ``(fit, x, key=, sample_weight=)`` that returns an object with ``log_evidence`` and
        ``error``; and its arguments. ``"lrt"``: arguments of `bootstrap_lrt` (99 replicates
        unless given).
    n_init : int
        Random starts of each model.
    sample_weight : (n,) array, optional
        Weights of the rows.
    progress : bool
        Whether to show a bar.

    Returns
    -------
    Selection
        A model that cannot be fitted is a row with its reason; collapsed and spurious
        optima never win.

    Raises
    ------
    ValueError, TypeError
        For an empty list, what is no model, unknown criteria or options, data that cannot be
        read, or a key that is none.

    Notes
    -----
    With a prior, BIC, AIC and ICL take the log likelihood at the mode (Fraley and Raftery,
    2007). All criteria are on the scale of BIC, twice a log density with its sign turned.

    References
    ----------
    Akaike (1974), IEEE Transactions on Automatic Control 19:716-723; Biernacki, Celeux and
    Govaert (2000), IEEE PAMI 22:719-725; Bishop (2006), Pattern Recognition and Machine
    Learning, section 10.2.4; Fraley and Raftery (2007), J. Classification 24:155-181;
    McLachlan (1987), Applied Statistics 36:318-324; Schwarz (1978), Annals of Statistics
    6:461-464; Vehtari, Gelman and Gabry (2017), Statistics and Computing 27:1413-1432.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("galaxies").x
    >>> models = [jg.Mixture(jg.Gaussian("tied"), k) for k in (1, 2)]
    >>> choice = jg.select(models, x, key=jax.random.key(0), progress=False)
    >>> choice.best.model.n_components
    2
    """
    models = list(models)
    if not models:
        raise ValueError("models: needs at least one model")
    for model in models:
        if not isinstance(model, LatentModel):
            raise TypeError(f"models: needs models such as jaxgmm.Mixture, found {model!r}")
    check_name("criterion", criterion, DECIDING)
    if isinstance(criteria, str):
        criteria = (criteria,)
    for name in criteria:
        check_name("criteria", name, CRITERIA)
    names = tuple(dict.fromkeys((*criteria, criterion)))
    chosen = {check_name("options", name, names): dict(o) for name, o in (options or {}).items()}
    check_count("n_init", n_init, 1)
    check_key(key, "starts are random")
    if isinstance(x, em.Stream):
        check_no_weights(sample_weight)
        if needing := [name for name in names if not CRITERIA[name].of_fit]:
            known = [name for name in CRITERIA if CRITERIA[name].of_fit]
            raise ValueError(
                f"criteria: {needing[0]!r} needs all rows in memory; of a stream there are "
                f"{', '.join(map(repr, known))}"
            )
    else:
        models[0].check_data(x, sample_weight)

    keys = [_keys(key, np.uint32(i)) for i in range(len(models))]
    with bar("models", progress, len(models)) as shown:
        fitted = _fit_all(models, x, [k[0] for k in keys], n_init, sample_weight, shown)
    rows = []
    asking = [name for name in names if CRITERIA[name].asks]
    with bar("criteria", progress and bool(asking), len(models)) as shown:
        for model, end, (_, own) in zip(models, fitted, keys, strict=True):
            fit, reason = (None, end) if isinstance(end, str) else (end, _why_not(end))
            values, trouble = missing(names), {}
            if fit is not None:
                # No posterior is drawn about an optimum that cannot win.
                able = tuple(n for n in names if not reason or n not in asking)
                found, trouble = evaluate(able, Case(fit, model, x, sample_weight, own), chosen)
                values |= found
            if not reason and not np.isfinite(values[criterion]):
                reason = trouble.pop(criterion, f"{criterion} is not finite")
            rows.append(_row(model, fit, values, reason, trouble))
            shown.update()
    table = pd.DataFrame(rows).set_index("model")
    fits = [None if isinstance(f, str) else f for f in fitted]
    return Selection(table, models, fits, criterion, n_init, key_numbers(key))


@program()
def _keys(key: PRNGKeyArray, number: Any) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    """For the fit of a model and for its criteria."""
    return tuple(jax.random.split(jax.random.fold_in(key, number)))


def _fit_all(
    models: list[LatentModel],
    x: Any,
    keys: list[PRNGKeyArray],
    n_init: int,
    sample_weight: Any,
    shown: Any,
) -> list[Fit | str]:
    """The fit of each model, or why there is none."""
    fits: list[Fit | str] = [""] * len(models)
    stream = isinstance(x, em.Stream)
    fitted = models if stream or np.shape(x)[0] > _FEW_ROWS else _with_room(models)

    def fit_group(group: list[int]) -> None:
        for i in group:
            try:
                found = em.fit(
                    fitted[i], x, key=keys[i], n_init=n_init, sample_weight=sample_weight
                )
                fits[i] = (
                    found
                    if fitted[i] is models[i]
                    else _trimmed(found, models[i], x, sample_weight)
                )
            except ValueError as error:
                fits[i] = str(error)
            shown.update()

    # Compilation leaves the interpreter's lock, so threads compile side by side. Models of
    # one shape stay in one thread: the first compiles, the others find its program.
    groups: dict[Any, list[int]] = {}
    for i, model in enumerate(fitted):
        groups.setdefault(_shape(model), []).append(i)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # A thread does not see the context managers that its caller stands in.
        alike = pool.submit(_settings).result() == _settings()
        # A stream is read by one fit at a time.
        run = pool.map if alike and len(groups) > 1 and not stream else map
        list(run(fit_group, groups.values()))
    return fits


def _with_room(models: list[LatentModel]) -> list[LatentModel]:
    """Models with room for the largest K among them, where they can; one K stays as it is."""
    most = max(model.n_components for model in models)
    if all(model.n_components == most for model in models):
        return models
    return [model.padded(most) or model for model in models]


def _trimmed(found: Fit, model: LatentModel, x: Any, sample_weight: Any) -> Fit:
    """The fit of a model with room for more components as that of the model itself."""
    near = found.near
    # On the host: programs would be compiled for each number of components.
    on_host = lambda tree: jax.tree.map(np.asarray, tree)
    trimmed = lambda params: on_host(near.model.trimmed(on_host(params)))
    restart = lambda s: jax.tree.map(lambda leaf: np.asarray(leaf)[s], near.restarts.params)
    ends = [trimmed(restart(s)) for s in range(len(near.restarts.status))]
    record = near.restarts._replace(params=jax.tree.map(lambda *each: np.stack(each), *ends))
    own = em.prepare(model, x, sample_weight).model
    best = jax.device_put(trimmed(near.params))
    changes = {"model": own, "params": best, "restarts": record}
    near = dataclasses.replace(near, row_sums=None, **changes)
    return near if found.origin is None else near.moved(found.origin, found.fingerprint)


def _shape(model: LatentModel) -> Any:
    """What a compiled program depends on."""
    leaves, structure = jax.tree.flatten(model)
    return structure, tuple(np.shape(leaf) for leaf in leaves)


def _settings() -> tuple[Any, ...]:
    config: Any = jax.config
    return jnp.result_type(float), config.jax_default_device, config.jax_disable_jit


def _row(
    model: LatentModel,
    fit: Fit | None,
    values: dict[str, float],
    reason: str,
    trouble: dict[str, str],
) -> dict[str, Any]:
    family = getattr(model, "family", model)
    return {
        "model": repr(model),
        "structure": getattr(family, "name", type(family).__name__),
        "n_components": model.n_components,
        "log_likelihood": np.nan if fit is None else fit.log_likelihood,
        "n_parameters": np.nan if fit is None else fit.n_parameters,
        **values,
        "status": "" if fit is None else fit.status.name.lower().replace("_", " "),
        "reason": reason,
        "note": "; ".join(_notes(fit, trouble)),
    }


def _notes(fit: Fit | None, trouble: dict[str, str]) -> list[str]:
    """What was set aside, and which criteria could not be computed."""
    notes = [f"{name}: {why}" for name, why in trouble.items()]
    if fit is not None and fit.n_spurious_better:
        notes.insert(0, f"{fit.n_spurious_better} better-scoring restart(s) set aside as spurious")
    return notes


def _why_not(fit: Fit) -> str:
    """Why a fit cannot win, in words; nothing where it can."""
    if fit.spurious:
        return "spurious optimum: a component hangs on a handful of rows"
    usable = fit.status in (Status.CONVERGED, Status.OUT_OF_ITERATIONS)
    return "" if usable else str(fit.status)
