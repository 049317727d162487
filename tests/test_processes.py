"""Rows of several processes are fitted as those of one."""

import re
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxgmm as jg

PROCESS = """
import os
import signal
import sys

import jax
import numpy as np

me, count, port, folder, task = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{port}", count, me, initialization_timeout=120)
import jaxgmm as jg
from jaxgmm.em import _checkpoint

x = np.load(f"{folder}/x.npy")
own = np.array_split(x, np.arange(1, count) * len(x) // count + 2)[me]
model = jg.Mixture(jg.Gaussian("diag"), 2, prior="fraley-raftery")
start = model.params(means=[[0.0, 0.0], [3.0, 3.0]], covariances=[[1.0, 1.0]] * 2)
key = jax.random.key(0)


def stopped(error):
    print(f"{type(error).__name__}: {error}", flush=True)
    # Not by way of JAX's own end, which waits for the processes that are gone.
    os._exit(3)


if task == "refused":
    own[1, 1] = np.inf if me == 1 else own[1, 1]
rows, weights = jg.share(own)
assert len(rows) == len(weights) and not rows.is_fully_addressable
options = {"start": start, "sample_weight": weights, "tol": 1e-13}
if task in ("killed", "resumed"):
    options |= {"checkpoint": f"{folder}/fit.npz", "every": 5}
    written, write = [], _checkpoint.Checkpoint._write

    def writing(checkpoint):
        write(checkpoint)
        written.append(1)
        if task == "killed" and me == 1 and len(written) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    _checkpoint.Checkpoint._write = writing
try:
    fit = jg.fit(model, rows, **options)
except (RuntimeError, ValueError) as error:
    stopped(error)
found = {"log_joint": fit.log_joint, "icl": fit.icl, "trace": fit.trace, "n_iter": fit.n_iter}
found |= {"means": fit.params.means, "weights": fit.params.weights}
found["again"] = fit.model.log_likelihood(fit.params, rows, weights)
if task == "resumed":
    found["written"] = len(written)
if task == "engines":
    searched = jg.fit(model, rows, sample_weight=weights, key=key, n_init=3)
    found["best"] = searched.log_joint
    errors = jg.standard_errors(fit, rows, sample_weight=weights)
    found["errors"] = errors.standard_errors["means"]
    for method in ("vb", "laplace", "nuts", "gibbs"):
        many = {"n_warmup": 4} if method in ("nuts", "gibbs") else {}
        post = jg.sample(
            model, rows, key=key, start=fit, method=method, sample_weight=weights,
            n_chains=2, n_draws=16, progress=False, **many,
        )
        found[method] = post.draws["means"]
np.savez(f"{folder}/{task}{me}.npz", **found)
"""


def in_processes(count, task, folder, ends=None):
    """What each process saved, or what those that did not end well said."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-W", "error", "-c", PROCESS]
    said = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [
        subprocess.Popen([*command, str(me), str(count), port, str(folder), task], **said)
        for me in range(count)
    ]
    try:
        outputs = [process.communicate(timeout=600) for process in running]
    finally:
        for process in running:
            process.kill()
    for process, (_, errors), end in zip(running, outputs, ends or [0] * count, strict=True):
        assert process.returncode == end, errors
    if ends:
        return [out for out, _ in outputs]
    return [dict(np.load(folder / f"{task}{me}.npz")) for me in range(count)]


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(301, 2)) + 2.5 * rng.integers(0, 2, size=(301, 1))
    np.save(tmp_path / "x.npy", x)
    return tmp_path


def fit_of_one(folder, **options):
    x = np.load(folder / "x.npy")
    model = jg.Mixture(jg.Gaussian("diag"), 2, prior="fraley-raftery")
    start = model.params(means=[[0.0, 0.0], [3.0, 3.0]], covariances=[[1.0, 1.0]] * 2)
    return jg.fit(model, x, start=start, tol=1e-13, **options), x


def is_that_of_one(found, one):
    np.testing.assert_allclose(found["log_joint"], one.log_joint, rtol=1e-12)
    np.testing.assert_allclose(found["again"], one.log_likelihood, rtol=1e-12)
    np.testing.assert_allclose(found["icl"], one.icl, rtol=1e-10)
    np.testing.assert_allclose(found["means"], one.params.means, rtol=1e-6)


@pytest.mark.turn
def test_two_processes_fit_rows_of_their_own(folder):
    both = in_processes(2, "fit", folder)
    for name, value in both[0].items():
        np.testing.assert_array_equal(both[1][name], value)
    is_that_of_one(both[0], fit_of_one(folder)[0])


@pytest.mark.slow
def test_four_processes_run_every_engine(folder):
    each = in_processes(4, "engines", folder)
    for other in each[1:]:
        for name, value in each[0].items():
            np.testing.assert_array_equal(other[name], value)
    one, x = fit_of_one(folder)
    is_that_of_one(each[0], one)
    errors = jg.standard_errors(one, x).standard_errors["means"]
    np.testing.assert_allclose(each[0]["errors"], errors, rtol=1e-6)
    # Filled rows stand elsewhere, so that draws that depend on their order are others.
    for method in ("vb", "laplace"):
        post = jg.sample(
            one.model, x, key=jax.random.key(0), start=one, method=method, n_chains=2, n_draws=16,
            progress=False,
        )  # fmt: skip
        np.testing.assert_allclose(each[0][method], post.draws["means"], rtol=1e-6)


@pytest.mark.slow
def test_rows_that_one_process_refuses_are_refused_by_all(folder):
    first, second = in_processes(2, "refused", folder, ends=[3, 3])
    assert "ValueError: x: process 1 refused its rows" in first
    assert re.search(r"ValueError: x: non-finite value inf at row \d+, column 1", second)


@pytest.mark.slow
def test_a_process_that_is_killed_is_named_and_the_fit_goes_on(folder):
    whole = in_processes(2, "fit", folder)[0]
    first, _ = in_processes(2, "killed", folder, ends=[3, -9])
    assert "RuntimeError: x: another process that shares the rows has ended" in first
    resumed = in_processes(2, "resumed", folder)
    for found in resumed:
        for name, value in whole.items():
            np.testing.assert_array_equal(found[name], value)
    # It did not begin anew.
    assert resumed[0]["written"] <= -(-int(whole["n_iter"]) // 5) - 2
