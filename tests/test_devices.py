"""Chains and data sets on several devices are those of one."""

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


def on_devices(count, program, *args):
    subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *args, str(count)],
        env={**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"},
        check=True,
        timeout=300,
    )


@pytest.mark.turn
@pytest.mark.parametrize("method", ["gibbs", pytest.param("nuts", marks=pytest.mark.slow)])
def test_two_devices_share_four_chains(method, tmp_path):
    draws = []
    for count in (1, 2):
        file = tmp_path / f"{count}.npy"
        on_devices(count, DRAWS, method, str(file))
        draws.append(np.load(file))
    assert np.unique(draws[0][:, -1], axis=0).shape[0] == 4
    np.testing.assert_allclose(draws[1], draws[0], rtol=1e-6)


STUDY = """
import sys
import jax
import numpy as np

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)
import jaxgmm as jg

file, count = sys.argv[1:]
assert len(jax.local_devices()) == int(count)
key = jax.random.key(0)
truth, params = jg.report.truth("touching")
# Parameters that are tied to one device stay usable.
params = jax.device_put(params, jax.devices()[0])
options = {"n": 40, "n_datasets": 6, "n_init": 2, "n_draws": 20, "n_warmup": 5, "n_held_out": 20}
study = jg.study(truth, params, methods=["em", "gibbs"], key=key, **options)
prior = jg.ConjugatePrior(mean=[0.0], mean_precision=0.1, dof=6.0, scale=[[1.0]])
model = jg.Mixture(jg.Gaussian(), 2, prior=prior)
check = jg.calibrate(model, n=20, n_datasets=22, n_draws=8, n_warmup=2, n_init=1, key=key)
np.savez(file, check.ranks, *jax.tree.leaves(study.record._replace(seconds={})))
"""


@pytest.mark.slow
def test_four_devices_share_the_data_sets_of_studies(tmp_path):
    """Six and 22, which four devices cannot share evenly."""
    found = []
    for count in (1, 4):
        file = tmp_path / f"{count}.npz"
        on_devices(count, STUDY, str(file))
        with np.load(file) as arrays:
            found.append(dict(arrays))
    assert len(found[0]["arr_0"]) == 22
    for name, one in found[0].items():
        np.testing.assert_allclose(found[1][name], one, rtol=1e-6, atol=1e-9)
