"""Settings of the suite: 64 bits, a typed key, a counter of compilations."""

import os
import shutil
import tempfile
import zlib

import jax
import jaxlib
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)  # with --single, off again
# The laws do not depend on how hard XLA tries; what a user runs, with everything on, is the
# main job.
jax.config.update("jax_disable_most_optimizations", True)
# Compilation is most of the suite's time: what one worker has compiled is there for the other, for
# later modules and for new processes. Who makes the folder removes it.
_FOLDER = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _FOLDER = tempfile.mkdtemp(prefix="jaxgmm-tests-")
    for _name, _value in {
        "jax_compilation_cache_dir": _FOLDER,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }.items():
        jax.config.update(_name, _value)
        os.environ[_name.upper()] = str(_value)
# As in jaxgmm/_programs.py, for what tests compile themselves; XLA ends where it knows no flag.
if jaxlib.__version__.startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

# Shapes in signatures are checked inside the engines; doors have checks of their own.
_TYPED = (
    "bayes._labelling",
    "bayes._predictive",
    "labels._relabel",
    "em._accelerate",
    "em._loop",
    "em._step",
    "em._variants",
    "em._start",
    "bayes._ascent",
    "bayes._chains",
    "bayes._gibbs",
    "bayes._laplace",
    "bayes._nuts",
    "local._unconstrained",
    "bayes._vb",
    "bayes._smc",
)
with install_import_hook([f"jaxgmm.{name}" for name in _TYPED], "beartype.beartype"):
    import jaxgmm  # noqa: F401


# Examples in docstrings that take as long as tests which take turns.
_IN_TURN = {
    "jaxgmm.bayes._bridge.evidence",
    "jaxgmm.bayes._modes.mode_evidence",
    "jaxgmm.bayes._posterior.Posterior.relabel",
    "jaxgmm.bayes._sample.sample",
    "jaxgmm.em._bootstrap.bootstrap",
    "jaxgmm.em._lrt.bootstrap_lrt",
    "jaxgmm.em._search.search",
    "jaxgmm.model._distributions.Gamma",
    "jaxgmm.model._program.from_numpyro",
    "jaxgmm.report.plots._labels.plot_pairs",
    "jaxgmm.report.selection._merge.merge_components",
    "jaxgmm.report.studies._calibrate.calibrate",
    "jaxgmm.report.studies._study.study",
    "jaxgmm.report.verdict._compare.compare",
    "jaxgmm.sklearn.BayesianGaussianMixture",
}


def pytest_addoption(parser):
    parser.addoption("--turn", metavar="I/N", help="of the tests marked turn the I-th of N parts")
    parser.addoption("--single", action="store_true", help="tests of float32, JAX's x64 switch off")


def pytest_configure(config):
    if config.getoption("--single"):
        jax.config.update("jax_enable_x64", False)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Tests that take turns are slow ones; what ``--turn`` and ``--single`` keep."""
    marked = lambda item, name: item.get_closest_marker(name) is not None
    for item in items:
        if item.name in _IN_TURN:
            item.add_marker("turn")
        if marked(item, "turn"):
            item.add_marker("slow")
    asked = lambda item: True
    if config.getoption("--turn"):
        part, parts = map(int, config.getoption("--turn").split("/"))
        function = lambda item: item.nodeid.partition("[")[0].encode()
        asked = lambda item: marked(item, "turn") and zlib.crc32(function(item)) % parts == part
    elif config.getoption("--single"):
        asked = lambda item: "float32" in item.name and not marked(item, "double")
    config.hook.pytest_deselected(items=[item for item in items if not asked(item)])
    items[:] = [item for item in items if asked(item)]


def pytest_unconfigure():
    if _FOLDER is not None:
        shutil.rmtree(_FOLDER, ignore_errors=True)


@pytest.fixture
def key():
    return jax.random.key(20260101)


class Compilations:
    """Counts what XLA compiles inside a ``with`` block."""

    _total = _freed = 0

    def __enter__(self):
        jax.random.key(0)  # JAX compiles this for the test's own keys
        self._before = Compilations._total
        self.count = None
        return self

    def __exit__(self, *_):
        self.count = Compilations._total - self._before


def _listen(event, _seconds, **_):
    if event == "/jax/core/compile/backend_compile_duration":
        Compilations._total += 1


jax.monitoring.register_event_duration_secs_listener(_listen)


# XLA maps memory for each compiled program, some seventy pieces, and a process may hold
# only 65,530 of them.
_MOST_PROGRAMS = 250


def _free_programs():
    Compilations._freed = Compilations._total
    jax.clear_caches()


@pytest.fixture(autouse=True, scope="module")
def _free_programs_of_a_module():
    yield
    _free_programs()


@pytest.fixture(autouse=True)
def _free_many_programs():
    yield
    if Compilations._total - Compilations._freed > _MOST_PROGRAMS:
        _free_programs()


@pytest.fixture
def compilations():
    """``with compilations: ...``, then ``compilations.count``."""
    return Compilations()
