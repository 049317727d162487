"""Large batches of matrices end on a machine of two threads.

`jaxgmm._numerics.then` says why they may not; `jaxgmm._programs` what the library's own programs
do about it.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

EM = """
import sys
import jax
import numpy as np

jax.config.update("jax_enable_x64", True)
import jaxgmm as jg

k, d = 16, 32
prior = sys.argv[1] if len(sys.argv) > 1 else None
x = np.random.default_rng(0).standard_normal((4000, d))
model = jg.Mixture(jg.Gaussian("full"), k, prior=prior).resolve(x)
start = model.params(means=x[:k], covariances=np.broadcast_to(np.eye(d), (k, d, d)))
run = jax.jit(jg.em.run, static_argnames="max_iter")
for _ in range(3):
    assert int(run(model, x, start, max_iter=20).n_iter) > 1
"""


SMC = """
import jax
import numpy as np

jax.config.update("jax_enable_x64", True)
import jaxgmm as jg

k, d = 3, 8
x = np.random.default_rng(0).standard_normal((60, d))
x[::3] += 4
x[1::3] -= 4
model = jg.Mixture(jg.Gaussian("full"), k, prior="fraley-raftery")
fit = jg.fit(model, x, key=jax.random.key(0), n_init=1)
counts = dict(n_chains=2, n_draws=100, n_moves=1)
jg.sample(fit.model, x, key=jax.random.key(1), start=fit, method="smc", progress=False, **counts)
"""


FITS = """
import threading
import jax
import joblib
import numpy as np

jax.config.update("jax_enable_x64", True)
import jaxgmm as jg

n, k, d = 800, 4, 32
rng = np.random.default_rng(0)
x = rng.standard_normal((n, d)) + 6 * rng.standard_normal((k, d))[np.arange(n) % k]
models = [jg.Mixture(jg.Gaussian(code), k) for code in ("VVV", "EEV")]


def fits(model, seeds):
    for seed in range(seeds):
        jg.fit(model, x, key=jax.random.key(seed), n_init=4)


# Compiled first: then they run at the same time.
for model in models:
    fits(model, 1)
print("threads", flush=True)
threads = [threading.Thread(target=fits, args=(model, 6)) for model in models]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("joblib", flush=True)
run = joblib.Parallel(n_jobs=2, backend="threading")
run(joblib.delayed(fits)(models[0], 6) for _ in range(2))
print("select", flush=True)
for seed in range(4):
    choice = jg.select(models, x, key=jax.random.key(seed), n_init=4, progress=False)
    assert (choice.table["reason"] == "").all()
"""


def _on_two_threads(*command, timeout=120):
    subprocess.run(
        [sys.executable, "-W", "error", *command],
        env={**os.environ, "NPROC": "2"},
        check=True,
        timeout=timeout,
    )


@pytest.mark.turn
@pytest.mark.parametrize("prior", [pytest.param((), marks=pytest.mark.turn), ("fraley-raftery",)])
def test_em_under_the_users_own_jit(prior):
    _on_two_threads("-c", EM, *prior)


@pytest.mark.turn
def test_a_population_of_particles():
    _on_two_threads("-c", SMC)


@pytest.mark.turn
def test_fits_side_by_side():
    _on_two_threads("-c", FITS)


@pytest.mark.turn
def test_select_from_the_command_line(tmp_path):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((800, 32)) + 6 * rng.standard_normal((8, 32))[np.arange(800) % 8]
    header = ",".join(f"x{i}" for i in range(32))
    np.savetxt(tmp_path / "wide.csv", x, delimiter=",", header=header, comments="")
    argv = ["-k", "8", "--structures", "VVV,EEE,EEV,VEV", "--restarts", "8"]
    argv += ["--out", str(tmp_path / "out")]
    _on_two_threads("-m", "jaxgmm", "select", str(tmp_path / "wide.csv"), *argv, timeout=600)
