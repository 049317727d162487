"""`select`: several models on the same data, one row each, criteria in columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd
from jaxtyping import PRNGKeyArray
from tqdm.auto import tqdm

from jaxgmm import em
from jaxgmm._checks import check_key, check_name
from jaxgmm._contract import LatentModel
from jaxgmm._results import Fit, Status

_CRITERIA = ("bic", "aic", "icl")


@dataclasses.dataclass(frozen=True, repr=False)
class Selection:
    """What `select` found.

    Attributes
    ----------
    table : DataFrame
        A row per model: ``log_likelihood``, ``n_parameters``, the criteria ``bic``,
        ``icl`` and ``aic`` (lower is better), ``status``, and ``reason``: why a row cannot
        win, empty where it can.
    fits : list of Fit or None
        In the order of the models; None where the fit failed.
    criterion : str
        The column that decides.
    """

    table: pd.DataFrame
    fits: list[Fit | None]
    criterion: str

    @property
    def best(self) -> Fit:
        """The fit with the lowest criterion among the rows without a reason."""
        able = self.table.reset_index(drop=True)
        able = able[able["reason"] == ""]
        if able.empty:
            raise ValueError("select: no model could be fitted; see the table's reasons")
        fit = self.fits[int(able[self.criterion].astype(float).idxmin())]
        assert fit is not None
        return fit

    def __repr__(self) -> str:
        return self.table.to_string(float_format="{:.3f}".format)

    def _repr_html_(self) -> str:
        return self.table.to_html(float_format="{:.3f}".format, border=0)


def select(
    models: Sequence[LatentModel],
    x: Any,
    *,
    key: PRNGKeyArray,
    criterion: str = "bic",
    n_init: int = 16,
    sample_weight: Any = None,
    progress: bool = False,
) -> Selection:
    """Fit several models to the same data and compare them by information criteria.

    Parameters
    ----------
    models : sequence of LatentModel
        What to try.
    x : (n, D) or (n,) array
        Data.
    key : typed random key
    criterion : str
        ``"bic"`` (Schwarz, 1978), ``"icl"`` (Biernacki, Celeux and Govaert, 2000) or
        ``"aic"`` (Akaike, 1974); decides ``best``.
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
        For an empty list, an unknown criterion, or a key that is none.

    References
    ----------
    Schwarz (1978), Annals of Statistics 6:461-464; Biernacki, Celeux and Govaert (2000),
    IEEE PAMI 22:719-725.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("galaxies").x
    >>> models = [jg.Mixture(jg.Gaussian("tied"), k) for k in (1, 2)]
    >>> jg.select(models, x, key=jax.random.key(0)).best.model.n_components
    2
    """
    models = list(models)
    if not models:
        raise ValueError("models: needs at least one model")
    check_name("criterion", criterion, _CRITERIA)
    keys = jax.random.split(check_key(key, "starts are random"), len(models))
    fits: list[Fit | None] = []
    rows = []
    for model, one in zip(tqdm(models, "models", disable=not progress), keys, strict=True):
        fit, reason = None, ""
        try:
            fit = em.fit(model, x, key=one, n_init=n_init, sample_weight=sample_weight)
            reason = _why_not(fit)
        except ValueError as error:
            reason = str(error)
        fits.append(fit)
        rows.append(_row(model, fit, reason))
    return Selection(pd.DataFrame(rows).set_index("model"), fits, criterion)


def _row(model: LatentModel, fit: Fit | None, reason: str) -> dict[str, Any]:
    names = ("log_likelihood", "n_parameters", "bic", "icl", "aic")
    numbers = {name: np.nan if fit is None else getattr(fit, name) for name in names}
    status = "" if fit is None else fit.status.name.lower().replace("_", " ")
    return {"model": repr(model), **numbers, "status": status, "reason": reason}


def _why_not(fit: Fit) -> str:
    """Why a fit cannot win, in words; nothing where it can."""
    if fit.spurious:
        return "spurious optimum: a component hangs on a handful of rows"
    usable = fit.status in (Status.CONVERGED, Status.OUT_OF_ITERATIONS)
    return "" if usable else str(fit.status)
