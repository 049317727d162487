"""Chains on several devices are the chains of one."""

import os
import subprocess
import sys

import numpy as np
import pytest

DRAWS = """
import sys
import jax
import numpy as np

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)
import jaxgmm as jg

method, file, count = sys.argv[1:]
assert len(jax.local_devices()) == int(count)
# Rows that are tied to one device stay usable.
x = jax.device_put(jg.datasets.load("faithful").x[:40], jax.devices()[0])
model = jg.Mixture(jg.Gaussian("diag"), 2, prior="fraley-raftery")
fit = jg.fit(model, x, key=jax.random.key(0), n_init=2)
post = jg.sample(
    fit.model, x, key=jax.random.key(1), start=fit, method=method, n_draws=20, n_warmup=10
)
np.save(file, post.draws["means"])
"""


@pytest.mark.parametrize("method", ["gibbs", pytest.param("nuts", marks=pytest.mark.slow)])
def test_two_devices_share_four_chains(method, tmp_path):
    draws = []
    for count in (1, 2):
        file = tmp_path / f"{count}.npy"
        flags = f"--xla_force_host_platform_device_count={count}"
        subprocess.run(
            [sys.executable, "-W", "error", "-c", DRAWS, method, str(file), str(count)],
            env={**os.environ, "XLA_FLAGS": flags},
            check=True,
            timeout=300,
        )
        draws.append(np.load(file))
    assert np.unique(draws[0][:, -1], axis=0).shape[0] == 4
    np.testing.assert_allclose(draws[1], draws[0], rtol=1e-6)
