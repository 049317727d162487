"""Sums of a Dask collection are made where its partitions live, and are those of rows in memory."""

import numpy as np
import pytest

import jaxgmm as jg
from jaxgmm.em._stream import Stream

distributed = pytest.importorskip("distributed")
frames = pytest.importorskip("dask.dataframe")

FAITHFUL = jg.datasets.load("faithful")
TIMES = np.arange(272) % 3 + 0.0
MODEL = jg.Mixture(jg.Gaussian(), 2, prior="fraley-raftery")


@pytest.fixture(scope="module")
def _cluster():
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster):
        yield


@pytest.fixture
def readings(monkeypatch):
    """How often this process read all rows."""
    counted, blocks = [], Stream.blocks
    monkeypatch.setattr(Stream, "blocks", lambda self: counted.append(1) or blocks(self))
    return counted


@pytest.mark.turn
@pytest.mark.usefixtures("_cluster")
def test_workers_sum_their_partitions(readings):
    table = FAITHFUL.frame[list(FAITHFUL.feature_names)].assign(times=TIMES)
    rows = jg.stream(frames.from_pandas(table, npartitions=5), weight="times")
    covariances = [np.diag([0.2, 40.0])] * 2
    start = MODEL.params(means=[[2.0, 55.0], [4.3, 80.0]], covariances=covariances)
    fit = jg.fit(MODEL, rows, start=start, tol=1e-8)
    assert len(readings) == 1  # the first
    one = jg.fit(MODEL, FAITHFUL.x, sample_weight=TIMES, start=start, tol=1e-8)
    assert fit.converged
    assert fit.fingerprint == one.fingerprint
    np.testing.assert_allclose(fit.trace, one.trace, rtol=1e-10)
    for name, value in one.model.sites(one.params).items():
        np.testing.assert_allclose(fit.model.sites(fit.params)[name], value, rtol=1e-10)
    np.testing.assert_allclose(fit.icl, one.icl, rtol=1e-10)
    # The same numbers to the last digit, whichever worker is done first.
    again = jg.fit(MODEL, rows, start=start, tol=1e-8)
    np.testing.assert_array_equal(again.trace, fit.trace)
