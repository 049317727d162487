"""Truths to study by name, from exact theory to hardly two components."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxgmm._checks import check_name
from jaxgmm.model import Gaussian, GaussianParams, Mixture

_ROUND, _TILTED = ((1.0, 0.0), (0.0, 1.0)), ((1.0, 0.5), (0.5, 1.5))

# Weights, means, covariances.
TRUTHS: dict[str, tuple[Any, Any, Any]] = {
    "one": ((1.0,), ((0.0, 0.0),), (_TILTED,)),
    "separated": ((0.4, 0.6), ((0.0, 0.0), (6.0, 0.0)), (_ROUND, _TILTED)),
    "touching": ((0.4, 0.6), ((0.0, 0.0), (4.0, 1.0)), (_ROUND, _TILTED)),
    "overlapping": ((0.4, 0.6), ((0.0, 0.0), (2.0, 1.0)), (_ROUND, _TILTED)),
}


def truth(name: str, prior: Any = "fraley-raftery") -> tuple[Mixture, GaussianParams]:
    """A mixture of full Gaussians in two dimensions by the name of ``TRUTHS``, and its parameters.

    Parameters
    ----------
    name : str
        ``"one"`` component; two that are ``"separated"``, ``"touching"`` or ``"overlapping"``.
    prior : str or ConjugatePrior or None
        Of the model, for methods that need one.

    Returns
    -------
    (Mixture, GaussianParams)
        What `jaxgmm.study` takes.

    Raises
    ------
    ValueError
        For an unknown name.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> model, params = jg.report.truth("touching")
    >>> params.means.tolist()
    [[0.0, 0.0], [4.0, 1.0]]
    """
    weights, means, covariances = TRUTHS[check_name("truth", name, TRUTHS)]
    model = Mixture(Gaussian("full"), len(weights), prior=prior)
    arrays = {"weights": weights, "means": means, "covariances": covariances}
    return model, model.params(**{name: jnp.array(values) for name, values in arrays.items()})
