"""`sample`: a fit first where none is given, then the posterior."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from jaxgmm import em
from jaxgmm._checks import check_key, key_numbers
from jaxgmm._contract import LatentModel
from jaxgmm._sharded import in_company
from jaxgmm.bayes._engine import Engine
from jaxgmm.bayes._posterior import Posterior
from jaxgmm.bayes._sampled import engine_of, named, sampled
from jaxgmm.bayes._streamed import STREAMED, sample_stream
from jaxgmm.em import bar, check_no_weights


@in_company
def sample(
    model: LatentModel,
    x: Any,
    *,
    key: PRNGKeyArray,
    method: str | Engine = "nuts",
    start: Any = None,
    n_chains: int | None = None,
    n_draws: int = 1000,
    n_warmup: int | None = None,
    thinning: int = 1,
    sample_weight: Any = None,
    progress: bool = True,
    **options: Any,
) -> Posterior:
    """Draw from the posterior of the model that EM fits.

    Compiled once for each shape of data and settings: a second call compiles nothing.

    Parameters
    ----------
    model : LatentModel
        With a proper prior.
    x : (n, D) or (n,) array, or Stream
        Data. Of a stream by ``"vb"``, ``"laplace"`` and ``"gibbs"``, whose rounds are sums over all
        rows, each a reading; see the page on large data.
    key : typed random key
    method : str or engine
        `jaxgmm.bayes.NUTS`, `Gibbs`, `SMC`, `Laplace`, `VB` or `SVI` with its options, or the name
        of one. ``"nuts"``: NumPyro's no-U-turn sampler on ``model.numpyro_model``. ``"gibbs"``:
        all labels given the parameters, then all parameters given the labels, where the prior is
        conjugate; a sweep costs one step of EM. ``"smc"``: adaptive tempering by blackjax,
        ``n_chains`` populations of ``n_draws`` particles that start from the prior and not from
        the fit; for several modes, any proper prior, and the evidence with its error.
        ``"laplace"``: the Gaussian at the mode of ``start``, with importance weights and the
        evidence. ``"vb"``: independent draws of the closest distribution under which labels and
        parameters are independent, by coordinate ascent where the prior is conjugate. ``"svi"``:
        a NumPyro guide fitted from EM's mode by stochastic gradients. Both with importance weights.
    start : Fit, parameters, "prior" or Posterior, optional
        A fit: chains start spread over its optimum, or over its distinct optima where several
        are in reach, within 10 units of log joint of the highest;
        ``posterior.diagnostics["starts"]`` says what that left out. Parameters, as
        ``model.params(...)`` makes: chains start right there, all at one point or each at its
        own of a stack. ``"prior"``: each at a draw of the prior. A posterior of ``"nuts"`` or
        ``"gibbs"``: its chains go on from their last draws, NUTS with the step sizes and mass
        matrices that they have. Without it `jaxgmm.fit` runs first.
    n_chains : int, optional
        4, or as many as a stack or a posterior given as ``start`` has.
    n_draws, n_warmup : int
        Kept draws of each chain, and iterations before them, in which NUTS adapts: 500 by
        default, none where a posterior goes on; SMC has none.
    thinning : int
        Iterations per kept draw.
    sample_weight : (n,) array, optional
        Multiplies the log density of each row, as in `fit`. Whole numbers for Gibbs, which
        draws a label for each copy of a row.
    progress : bool
        Whether to show a bar.
    **options
        Those of a method that is given by name: what its engine takes, such as
        ``target_acceptance`` of `jaxgmm.bayes.NUTS`.

    Returns
    -------
    Posterior
        Draws relabelled by Stephens' algorithm from the responsibilities of the fit, of the
        posterior that goes on, or of the highest draw.

    Raises
    ------
    ValueError, TypeError
        For arguments that do not fit; for a model without a proper prior, whose
        posterior does not exist; without a start, for a concentration of the weights below one,
        under which there is no fit; for a start from other data, a posterior of another model or
        method, or one without chains; for Gibbs, for weights that
        are not whole numbers; for Gibbs and variational Bayes, for a model that has no
        conjugate prior or ties its covariances together without making them one (see
        `Gaussian`); for a bound that is finite from no start; for Laplace, where the log
        joint has no finite derivatives at the fit; for SMC, for one chain or thinning.
    FloatingPointError
        For particles of SMC that never reach the posterior.

    References
    ----------
    Stephens (2000), JRSS B 62:795-809; Vehtari and others (2024), JMLR 25(72):1-58. Those of the
    methods stand with their engines.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("galaxies").x
    >>> model = jg.Mixture(jg.Gaussian("tied"), n_components=1, prior="fraley-raftery")
    >>> post = jg.sample(model, x, key=jax.random.key(0), n_draws=50, progress=False)
    >>> post.draws["means"].shape
    (4, 50, 1, 1)
    """
    name, written = named(method, options)
    if not isinstance(x, em.Stream):
        engine_of(method, options)  # what is wrong with them is said before a fit
    check_key(key, "sampling is random")
    model.check_samplable()
    key_fit, key_draws = jax.random.split(key)
    counts = {"n_chains": n_chains, "n_draws": n_draws, "n_warmup": n_warmup, "thinning": thinning}
    settings = {"thinning": thinning, **written}
    if isinstance(x, em.Stream):
        how = {"method": name, "start": start, **counts, **written}
        posterior = _of_stream(model, x, key_fit, key_draws, sample_weight, progress, how)
        return dataclasses.replace(posterior, settings=settings, seed=key_numbers(key))
    if start is None:
        start = em.fit(model, x, key=key_fit, sample_weight=sample_weight)
    posterior = sampled(
        model,
        x,
        key=key_draws,
        start=start,
        method=method,
        sample_weight=sample_weight,
        progress=progress,
        **counts,
        **options,
    )
    return dataclasses.replace(posterior, settings=settings, seed=key_numbers(key))


# Rows that stand for all where labels are matched and rows are asked for.
_SAMPLE = 65_536


def _of_stream(
    model: LatentModel,
    x: em.Stream,
    key_fit: PRNGKeyArray,
    key: PRNGKeyArray,
    sample_weight: Any,
    progress: bool,
    how: dict[str, Any],
) -> Posterior:
    method = how["method"]
    if method not in STREAMED:
        raise ValueError(
            f"x: method={method!r} needs all rows in memory, and a stream is read in blocks; take "
            f"one of {', '.join(map(repr, STREAMED))}, or as many rows as fit, as an array"
        )
    check_no_weights(sample_weight)
    key_fit, drawing = jax.random.split(key_fit)
    if how["start"] is None:
        how["start"] = em.fit(model, x, key=key_fit)
    generator = np.random.default_rng(key_numbers(drawing))
    with bar(f"{method} on a stream", progress, unit="rows") as shown:
        rows = em.readings(model, x, generator, shown, _SAMPLE)
        return sample_stream(rows, key=key, **how)
