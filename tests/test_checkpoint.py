"""A fit that was stopped goes on from its file to the same numbers."""

import jax
import numpy as np
import pytest

import jaxgmm as jg
from jaxgmm.em import _checkpoint

MODEL = jg.Mixture(jg.Gaussian("diag"), 2)
SETTINGS = {"n_init": 3, "start": "random", "algorithm": "stochastic", "max_iter": 12, "every": 4}


def fit(path, **other):
    x = np.asarray(jg.datasets.load("faithful").x)[:60]
    return jg.fit(MODEL, x, key=jax.random.key(0), checkpoint=path, **{**SETTINGS, **other})


def test_a_stopped_fit_goes_on(tmp_path, monkeypatch):
    """By an algorithm whose state holds random keys."""
    whole = fit(tmp_path / "whole.npz")
    path, written, write = tmp_path / "fit.npz", [], _checkpoint.write

    def stopping(folder, files):
        write(folder, files)
        written.append(folder)
        if len(written) == 2:
            raise InterruptedError

    monkeypatch.setattr(_checkpoint, "write", stopping)
    with pytest.raises(InterruptedError):
        fit(path)
    for again in (fit(path), fit(path)):
        for one, other in zip(*map(jax.tree.leaves, (whole.restarts, again.restarts)), strict=True):
            np.testing.assert_array_equal(other, one)
        # What had ended is not computed again.
        assert len(written) == len(list(range(0, 13, SETTINGS["every"])))
    for change in ({"max_iter": 13}, {"n_init": 2}):
        with pytest.raises(ValueError, match=r"checkpoint: .*fit.npz is of a fit to other data"):
            fit(path, **change)


def test_files_that_are_no_checkpoints(tmp_path):
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match=r"checkpoint: .*torn.npz is no checkpoint"):
        fit(tmp_path / "torn.npz")
    with pytest.raises(ValueError, match="every: must be at least 1"):
        fit(tmp_path / "fit.npz", every=0)
    stream = jg.stream(np.ones((4, 1)))
    with pytest.raises(ValueError, match="checkpoint: a stream"):
        jg.fit(MODEL, stream, key=jax.random.key(0), checkpoint=tmp_path / "fit.npz")
    assert not (tmp_path / "fit.npz").exists()
