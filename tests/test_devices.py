"""Chains, data sets and rows on several devices are those of one."""

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


def on_devices(count, program, *args, flags=""):
    flags = f"--xla_force_host_platform_device_count={count} {flags}"
    subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *args, str(count)],
        env={**os.environ, "XLA_FLAGS": flags},
        check=True,
        timeout=600,
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


ROWS = """
import dataclasses
import re
import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_enable_compilation_cache", False)
import jaxgmm as jg

dumped, asked, count = Path(sys.argv[1]), sys.argv[2].split(), int(sys.argv[3])
rng, n = np.random.default_rng(0), 53 * count
x = rng.normal(size=(n, 2)) + 3 * rng.integers(0, 2, size=(n, 1))
weights = np.arange(n) % 3 + 0.0 if "weights" in asked else None
# Neither of the axes is called as the library's own.
mesh = Mesh(np.array(jax.devices()), ("i",))
put = lambda a: None if a is None else jax.device_put(a, NamedSharding(mesh, PartitionSpec("i")))
key, here, there = jax.random.key(0), (x, weights), (put(x), put(weights))
model = jg.Mixture(jg.Gaussian("diag"), 2, prior="fraley-raftery")
start = model.params(means=[[0.0, 0.0], [3.0, 3.0]], covariances=[[1.0, 1.0]] * 2)


def close(one, many, tol=1e-10):
    one, many = jax.tree.leaves(one), jax.tree.leaves(many)
    assert len(one) == len(many) > 0
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(np.asarray(b), np.asarray(a), rtol=tol, atol=tol)


if "run" in asked:
    # Within the user's own program the axis has to be called rows.
    mesh = Mesh(np.array(jax.devices()), ("rows",))
    rows = jax.device_put(x, NamedSharding(mesh, PartitionSpec("rows")))
    known = model.resolve(x)
    run = lambda x, start: jg.em.run(known, x, start, max_iter=20)
    found = jax.jit(run).lower(rows, start).compile()
    text = found.as_text()
    assert "all-reduce" in text and "all-gather" not in text
    close(jax.jit(run)(x, start), found(rows, start))
    # Arrays of all rows beside the data, and what variational Bayes and samplers go by.
    labels = np.random.default_rng(1).dirichlet([1.0, 1.0], size=n)

    def others(x, labels, start):
        at = lambda means: known.log_joint(dataclasses.replace(start, means=means), x)
        begun = known.standardise(x)
        begun = begun.m_step(begun.statistics(labels, x))
        q = jg.bayes.variational(known, x, start, max_iter=3)
        return begun, q.elbo, jax.grad(at)(start.means)

    shared = rows, jax.device_put(labels, rows.sharding), start
    found = jax.jit(others).lower(*shared).compile()
    assert "all-gather" not in found.as_text()
    close(jax.jit(others)(x, labels, start), found(*shared))


def fitted(x, weights, start, **options):
    return jg.fit(model, x, sample_weight=weights, start=start, **options)


one, many = fitted(*here, start), fitted(*there, start)
numbers = lambda fit: (fit.params, fit.log_joint, fit.icl, fit.trace, fit.n_iter, fit.bic)
close(numbers(one), numbers(many))
assert one.fingerprint == many.fingerprint
close(one.log_likelihood, one.model.log_likelihood(one.params, *there))
labels = many.model.predict(many.params, there[0])
assert len(labels.sharding.device_set) == count
close(one.model.predict(one.params, x), labels)
if "errors" in asked:
    a = jg.standard_errors(one, x, sample_weight=weights)
    b = jg.standard_errors(many, there[0], sample_weight=there[1])
    close(a.standard_errors, b.standard_errors)
for name in ("k-means++", "k-means", "random", "random-responsibilities"):
    if name in asked:
        a, b = (fitted(*rows, name, key=key, n_init=2) for rows in (here, there))
        close(numbers(a), numbers(b), 1e-8)
for method in ("gibbs", "vb", "laplace", "nuts", "svi", "smc"):
    if method in asked:
        options = {"n_chains": 2, "n_draws": 16, "progress": False, "method": method, "key": key}
        options |= {"n_warmup": 4} if method in ("gibbs", "nuts") else {}
        options |= {"n_steps": 40} if method == "svi" else {}
        a = jg.sample(model, x, start=one, sample_weight=weights, **options)
        b = jg.sample(model, there[0], start=many, sample_weight=there[1], **options)
        if method == "smc":
            # Where bad particles move, rounding grows until draws are others.
            low = lambda post: post.diagnostics["powers"][:, :10]
            close(low(a), low(b))
            assert abs(a.evidence.log_evidence - b.evidence.log_evidence) < 4 * a.evidence.error
        else:
            close((a.draws, a.log_likelihood), (b.draws, b.log_likelihood), 1e-6)

# No program, of ours or the user's, has gathered rows.
texts = [file.read_text() for file in dumped.glob("*after_optimizations.txt")]
gathered = [re.findall(r"= ([^=]*?) all-gather(?:-start)?[(]", text) for text in texts]
assert any("all-reduce" in text for text in texts)
assert not [shape for shapes in gathered for shape in shapes if re.search(rf"\\b{n}\\b", shape)]
"""


def rows_shared(asked, folder):
    flags = f"--xla_dump_to={folder} --xla_dump_hlo_as_text"
    on_devices(8, ROWS, str(folder), asked, flags=flags)


@pytest.mark.turn
def test_eight_devices_share_the_rows(tmp_path):
    rows_shared("run", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        "weights errors gibbs k-means++ k-means",
        "weights vb laplace",
        "weights nuts random",
        "gibbs smc",
        "weights svi random-responsibilities",
    ],
)
def test_eight_devices_share_the_rows_in_every_engine(asked, tmp_path):
    rows_shared(asked, tmp_path)


FAMILIES = """
import sys

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)
import jaxgmm as jg
from tests.families import FAMILIES, MODELS

cases = [(name, jg.Mixture(case.family, 2), case.x) for name, case in FAMILIES.items()]
cases += [(name, case.mixture(case.usual), case.rows()) for name, case in MODELS.items()]
cases += [("gamma", jg.Mixture(jg.families.Gamma(), 2), MODELS["factors"].x ** 2)]
part, count = map(int, sys.argv[1:])
place = NamedSharding(Mesh(np.array(jax.devices()), ("rows",)), PartitionSpec("rows"))
for name, model, x in cases[part::PARTS]:
    model, x = model.read(x)
    x, _ = model.check_data(x)
    model, n = model.resolve(x), len(x)
    labels = np.random.default_rng(0).dirichlet(np.ones(model.n_components), n)

    def both(x, labels):
        run = jg.em.run(model, x, labels, max_iter=3)
        score = jax.grad(lambda params: model.log_likelihood(params, x))(run.params)
        return run.params, run.log_joint, model.responsibilities(run.params, x), score

    shared = [jax.device_put(np.asarray(array), place) for array in (x, labels)]
    found = jax.jit(both).lower(*shared).compile()
    text = found.as_text()
    assert f"f64[{n}" not in "".join(l for l in text.splitlines() if " all-gather(" in l), name
    one, many = jax.jit(both)(np.asarray(x), labels), found(*shared)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-7, atol=1e-7, err_msg=name)
    print(name, flush=True)
"""
# The families are many, and programs for each of them take their time.
PARTS = 4


@pytest.mark.turn
@pytest.mark.parametrize("part", range(PARTS))
def test_four_devices_share_the_rows_of_every_family(part):
    on_devices(4, FAMILIES.replace("PARTS", str(PARTS)), str(part))
