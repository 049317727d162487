"""Leave-one-out: against exact sums, and with weights as numbers of copies."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from enumeration import X, exact, the_model
from posteriors import FAITHFUL

import jaxgmm as jg
from jaxgmm.report.verdict._loo import leave_one_out

COPIES = np.array([4.0, 1, 2, 1, 0, 1, 1])
ELPD = "optimism of the plug-in score over LOO (nats)"


@functools.cache
def leave_one_copy_out():
    """By the evidence with and without one copy of each row, all assignments summed over."""

    def log_evidence(copies):
        return exact(np.repeat(X, copies.astype(int), axis=0), 2).log_evidence

    total = log_evidence(COPIES)
    held = np.flatnonzero(COPIES)
    return sum(COPIES[i] * (total - log_evidence(COPIES - np.eye(len(X))[i])) for i in held)


def drawn(model, x, fit, copies=None):
    return jg.sample(
        model, x, key=jax.random.key(1), method="gibbs", start=fit, n_draws=2000,
        sample_weight=copies, progress=False,
    )  # fmt: skip


@pytest.mark.turn
def test_one_copy_of_a_row_is_left_out():
    options = {"loo": {"method": "gibbs", "n_draws": 5000}}
    select = functools.partial(
        jg.select, [the_model(2)], key=jax.random.key(0), criterion="loo", options=options,
        n_init=4, progress=False,
    )  # fmt: skip
    weighted = select(X, sample_weight=COPIES).table.iloc[0]
    copied = select(np.repeat(X, COPIES.astype(int), axis=0)).table.iloc[0]
    truth = -2 * leave_one_copy_out()
    # Monte-Carlo error; all copies of a row at once would be 7 lower.
    assert weighted["loo"] == pytest.approx(truth, abs=0.5)
    assert copied["loo"] == pytest.approx(truth, abs=0.5)
    assert weighted["loo_error"] == pytest.approx(copied["loo_error"], abs=0.5)


@pytest.mark.turn
def test_every_number_of_a_verdict_takes_a_weight_for_copies():
    """The same draws, as those of weighted and of repeated rows."""
    x = FAITHFUL[::4]
    copies = np.tile([3, 1, 0, 2], len(x) // 4)
    repeated = np.repeat(x, copies, axis=0)
    model = jg.Mixture(jg.Gaussian("full"), 2, prior="fraley-raftery")
    settled = functools.partial(jg.fit, tol=1e-14)
    fit = settled(model, x, key=jax.random.key(0), sample_weight=copies, n_init=4)
    post = drawn(fit.model, x, fit, copies)
    again = settled(fit.model, repeated, start=fit.restarts.params)
    same = dataclasses.replace(
        post, model=again.model, x=jax.numpy.asarray(repeated), sample_weight=None,
        fingerprint=again.fingerprint,
    )  # fmt: skip
    one, other = jg.compare(fit, post), jg.compare(again, same)

    def differing(ours, theirs):
        ours, theirs = ours.astype(float), theirs.astype(float)
        near = np.isclose(ours, theirs, rtol=1e-5, atol=1e-5, equal_nan=True)
        return list(ours.index[~near])

    values = lambda verdict: verdict.checks["value"].drop("EM status")
    assert differing(values(one), values(other)) == []
    for name in one.table:
        assert differing(one.table[name], other.table[name]) == [], name
    assert np.allclose(one.basins["share"], other.basins["share"])
    assert one.checks["verdict"].equals(other.checks["verdict"])


def test_nothing_hangs_on_a_row_without_values():
    """Its density is one under every draw, and the other rows are as they were without it."""
    density = np.random.default_rng(0).standard_normal((200, 3))
    rounded = 1e-16 * (np.arange(200) % 3)  # the weights sum to one but for rounding
    beside = np.insert(density, 1, rounded, axis=1)
    alone, found = (leave_one_out(SimpleNamespace(log_density=d)) for d in (density, beside))
    assert (found.log_density[1], found.pareto_k[1]) == (pytest.approx(0, abs=1e-15), -np.inf)
    np.testing.assert_array_equal(np.delete(found.log_density, 1), alone.log_density)
    np.testing.assert_array_equal(np.delete(found.pareto_k, 1), alone.pareto_k)
    assert np.all(np.isfinite(alone.log_density))
