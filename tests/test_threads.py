"""Large batches of matrices end on a machine of two threads (`jaxgmm._numerics.then` says why)."""

import os
import subprocess
import sys

import pytest

STEPS = """
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


@pytest.mark.parametrize("prior", [(), ("fraley-raftery",)])
def test_em_under_the_users_own_jit(prior):
    subprocess.run(
        [sys.executable, "-W", "error", "-c", STEPS, *prior],
        env={**os.environ, "NPROC": "2"},
        check=True,
        timeout=120,
    )
