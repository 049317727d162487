"""Evidence by bridge sampling, with the mixture of complete-data posteriors as proposal."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from arviz_stats.base import array_stats
from jax import lax
from jax.nn import logsumexp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from jaxgmm._checks import check_count, check_key
from jaxgmm._contract import LatentModel, Params, Sites, Statistics
from jaxgmm._numerics import widened
from jaxgmm._programs import on_rung, program
from jaxgmm.bayes._evidence import Evidence
from jaxgmm.bayes._gibbs import labelled
from jaxgmm.bayes._posterior import Posterior
from jaxgmm.labels import n_renamings, renamings

# All labellings are summed: those of six components.
_MOST_LABELLINGS = math.factorial(6)

# Draws whose proposal density is computed at once.
_BATCH = 16

# The fixed point of Meng and Wong contracts by a constant factor.
_BRIDGE_RTOL, _MOST_ROUNDS = 1e-12, 1000


def evidence(
    posterior: Posterior,
    *,
    key: PRNGKeyArray,
    n_assignments: int = 200,
    n_proposals: int = 2000,
) -> Evidence:
    r"""Log evidence of a model with a conjugate prior, from draws of its posterior.

    Bridge sampling (Meng and Wong, 1996) between the posterior and the mixture

    .. math:: q(\theta) = \frac{1}{S K!} \sum_{s=1}^S \sum_\pi p(\pi\theta \mid z_s, x)

    of the complete-data posteriors of S assignments, over all K! renamings of the labels, or those
    within groups of labels (Fruehwirth-Schnatter, 2004). Assignments are drawn anew given draws of
    the first half of each chain; the second half is what the bridge rests on. The evidence is
    therefore that of all labellings, whether or not the chains visited them.

    Parameters
    ----------
    posterior : Posterior
        From ``method="gibbs"``, ``"nuts"`` or ``"smc"``, with a conjugate prior and at most six
        components.
    key : typed random key
    n_assignments : int
        S. Twice as many cost twice the time; overlapping components gain from more.
    n_proposals : int
        Draws from q.

    Returns
    -------
    Evidence
        ``error`` is the relative mean-squared error of Meng and Wong, with the
        autocorrelation of the posterior draws (Fruehwirth-Schnatter, 2004, section 3).

    Raises
    ------
    ValueError, TypeError
        For more than six components, a prior that is not conjugate, weights that are not
        whole numbers (each copy of a row has a label), draws that are not the posterior's
        own.

    Notes
    -----
    Labels that the prior does not treat alike (unequal concentrations or fixed weights) are
    counted with their own densities, but then chains must have visited all labellings.

    References
    ----------
    Meng and Wong (1996), Statistica Sinica 6:831-860; Fruehwirth-Schnatter (2004),
    Econometrics Journal 7:143-167; Gronau et al. (2017), J. Math. Psychology 81:80-97, for
    the split of the draws.

    Examples
    --------
    >>> import jax
    >>> import jaxgmm as jg
    >>> x = jg.datasets.load("galaxies").x
    >>> model = jg.Mixture(jg.Gaussian("tied"), n_components=1, prior="fraley-raftery")
    >>> post = jg.sample(
    ...     model, x, key=jax.random.key(0), method="gibbs", n_draws=50, progress=False
    ... )
    >>> found = jg.evidence(post, key=jax.random.key(1))
    >>> bool(found.error < 1e-6)  # one component: exact
    True
    """
    _check(posterior)
    posterior = posterior.near
    check_key(key, "assignments and proposals are drawn")
    check_count("n_assignments", n_assignments, 1)
    check_count("n_proposals", n_proposals, 1)
    data = posterior.model, posterior.x, posterior.sample_weight
    model, x, sample_weight, sites = widened((*data, posterior.draws_raw))
    wide = model, *on_rung(model, x, sample_weight), sites
    working, params = _to_working(*wide)
    data = working, *wide[1:3]
    half = posterior.n_draws // 2
    first, second = _flat(params, slice(half)), _flat(params, slice(half, None))
    key_labels, key_proposals = jax.random.split(key)
    n_assignments = min(n_assignments, posterior.n_chains * half)
    spread = np.linspace(0, posterior.n_chains * half - 1, n_assignments).round().astype(int)
    first = jax.tree.map(lambda leaf: leaf[spread], first)
    statistics = _labelled(*data, first, jax.random.split(key_labels, n_assignments))
    _check_conjugate(working, statistics)
    proposals = _propose(working, statistics, jax.random.split(key_proposals, n_proposals))
    at_draws, at_proposals = (
        np.asarray(_log_ratio(*data, statistics, p)) for p in (second, proposals)
    )
    return _bridge(at_draws.reshape(posterior.n_chains, -1), at_proposals)


def _check(posterior: Posterior) -> None:
    if not isinstance(posterior, Posterior):
        raise TypeError(
            f"posterior: needs a Posterior from jaxgmm.sample, found {type(posterior).__name__}"
        )
    posterior.check_rows("posterior")
    if posterior.log_weights is not None:
        raise ValueError(
            f"posterior: draws by {posterior.method!r} are an approximation's; use "
            'method="gibbs", "nuts" or "smc", or look at posterior.evidence'
        )
    k, labellings = posterior.model.n_components, n_renamings(posterior.model.label_groups)
    if labellings > _MOST_LABELLINGS:
        raise ValueError(
            f"posterior: {k} components have {labellings} labellings, too many to sum "
            f"(at most {_MOST_LABELLINGS}, those of 6 components); "
            'use the evidence of method="smc", or BIC by jaxgmm.select'
        )
    weight = posterior.sample_weight
    if weight is not None and np.any(np.asarray(weight) % 1 != 0):
        raise ValueError(
            "posterior: bridge sampling labels each copy of a row, so sample weights must be "
            'whole numbers; use the evidence of method="smc"'
        )


def _check_conjugate(model: LatentModel, statistics: Statistics) -> None:
    try:
        jax.eval_shape(jax.vmap(model.updated), statistics)
    except ValueError as error:
        raise ValueError(
            "posterior: bridge sampling needs a conjugate prior, which labelled rows update; use "
            'the evidence of method="smc"'
        ) from error


@program()
def _to_working(
    model: LatentModel, x: Array, sample_weight: Array | None, sites: Sites
) -> tuple[LatentModel, Params]:
    working = model.standardise(x, sample_weight)
    one = lambda s: working.to_working(model.from_sites(s))
    return working, jax.vmap(jax.vmap(one))(sites)


def _flat(params: Params, part: slice) -> Params:
    """A part of each chain, the chains one after the other."""
    flat = lambda leaf: np.asarray(leaf)[:, part].reshape(-1, *leaf.shape[2:])
    return jax.tree.map(flat, params)


@program()
def _labelled(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    params: Params,
    keys: Key[Array, " s"],
) -> Statistics:
    """Statistics of one assignment given each of S parameters."""
    one = lambda pair: labelled(model, x, sample_weight, *pair)[0]
    return lax.map(one, (params, keys))


@program()
def _propose(model: LatentModel, statistics: Statistics, keys: Key[Array, " n"]) -> Params:
    """Draws from q."""
    orders = jnp.asarray(renamings(model.label_groups))
    count = jax.tree.leaves(statistics)[0].shape[0]

    def one(key: PRNGKeyArray) -> Params:
        key_assignment, key_order, key_draw = jax.random.split(key, 3)
        which = jax.random.randint(key_assignment, (), 0, count)
        chosen = jax.tree.map(lambda leaf: leaf[which], statistics)
        drawn = model.updated(chosen).draw_prior(key_draw)
        renamed = model.permute(drawn, orders[jax.random.randint(key_order, (), 0, len(orders))])
        # Weights that are fixed stay where they are.
        return model.from_sites(model.sites(renamed))

    return lax.map(one, keys, batch_size=_BATCH)


@program()
def _log_ratio(
    model: LatentModel,
    x: Array,
    sample_weight: Array | None,
    statistics: Statistics,
    params: Params,
) -> Float[Array, " n"]:
    """Log of prior times likelihood over q, at each of n parameters."""
    orders = renamings(model.label_groups)
    basis, combine = map(jnp.asarray, _spanning(orders))
    count = jax.tree.leaves(statistics)[0].shape[0]

    def one(params: Params) -> Array:
        def complete(order: Array) -> Array:
            renamed = model.permute(params, order)
            return jax.vmap(lambda s: model.updated(s).log_prior(renamed))(statistics)

        log_densities = combine @ jax.vmap(complete)(basis)
        log_q = logsumexp(log_densities) - jnp.log(len(orders) * count)
        return model.log_joint(params, x, sample_weight) - log_q

    return lax.map(one, params, batch_size=_BATCH)


def _spanning(orders: Int[np.ndarray, "orders k"]) -> tuple[np.ndarray, np.ndarray]:
    """Some of the orders, and how their log densities add up to those of all.

    Given the labels, components are independent: the log density is a sum over matched pairs
    of labels, linear in the permutation matrix. (K - 1)^2 + 1 permutation matrices span all
    K! of them.
    """
    k = orders.shape[1]
    matrices = np.eye(k)[orders].reshape(-1, k * k)
    basis: list[int] = []
    for i in range(len(matrices)):
        if np.linalg.matrix_rank(matrices[[*basis, i]]) > len(basis):
            basis.append(i)
    combine = np.linalg.lstsq(matrices[basis].T, matrices.T, rcond=None)[0].T
    return orders[basis], combine.round()


def _bridge(
    at_draws: Float[np.ndarray, "chain draw"], at_proposals: Float[np.ndarray, " n"]
) -> Evidence:
    """Log evidence from log p / q at draws of the posterior and of the proposal."""
    centre = np.median(at_proposals)
    draws, proposals = at_draws - centre, at_proposals - centre
    effective = _effective(draws)
    share = effective / (effective + proposals.size)

    def terms(log_z: float) -> tuple[np.ndarray, np.ndarray]:
        """q and p / z, each over the weighted sum of both, where the other is drawn."""
        log_p, log_q = np.log(share), np.log1p(-share)
        of_q = np.exp(-np.logaddexp(log_p + draws - log_z, log_q))
        of_p = np.exp(-np.logaddexp(log_p, log_q + log_z - proposals))
        return of_q, of_p

    log_z = 0.0
    for _ in range(_MOST_ROUNDS):
        of_q, of_p = terms(log_z)
        change = np.log(of_p.mean() / of_q.mean())
        log_z += change
        if abs(change) < _BRIDGE_RTOL:
            break
    of_q, of_p = terms(log_z)
    variance = np.var(of_p) / of_p.mean() ** 2 / proposals.size
    variance += np.var(of_q) / of_q.mean() ** 2 / _effective(of_q)
    return Evidence(
        float(log_z + centre),
        float(np.sqrt(variance)),
        "bridge sampling with the Gibbs mixture over all labellings",
    )


def _effective(draws: Float[np.ndarray, "chain draw"]) -> float:
    """Effective size of draws; all of them where they do not differ."""
    if np.ptp(draws) == 0:
        return draws.size
    return np.asarray(array_stats.ess(draws, method="mean")).item()
