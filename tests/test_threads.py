"""Large batches of matrices end on a machine of two threads.

`jaxgmm._numerics.then` says why they may not; `jaxgmm._programs` what the library's own programs
do about it.
"""

import os
import subprocess
import sys

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


def _on_two_threads(program, *arguments):
    subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        env={**os.environ, "NPROC": "2"},
        check=True,
        timeout=120,
    )


@pytest.mark.parametrize("prior", [(), ("fraley-raftery",)])
def test_em_under_the_users_own_jit(prior):
    _on_two_threads(EM, *prior)


def test_a_population_of_particles():
    _on_two_threads(SMC)
