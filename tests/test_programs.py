"""The store of programs: what it keeps, what it forgets, and that they run in turn."""

import _thread
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgmm._programs import _store as _programs
from jaxgmm._programs._store import free_programs, program


@program(static_argnames="power")
def scaled(x, by, power=1):
    return by * x**power


@pytest.fixture(autouse=True)
def _empty_store():
    _programs._options(False)  # tries what XLA knows, once in a process
    free_programs()
    yield
    free_programs()


def count(compilations, *args, **kwargs):
    with compilations:
        scaled(*args, **kwargs)
    return compilations.count


def test_compiled_once_for_arguments_of_one_form(compilations):
    x = np.arange(3.0)
    assert count(compilations, x, 2.0) == 1
    assert count(compilations, x + 1, 3.0) == 0
    assert count(compilations, x, 2.0, 2) == 1
    assert count(compilations, x, 2.0, power=2) == 1  # another call, to JAX as well
    assert count(compilations, x, 5.0, power=2) == 0
    assert count(compilations, x.astype("float32"), 2.0) == 1
    assert count(compilations, np.arange(4.0), 2.0) == 1
    np.testing.assert_array_equal(scaled(x, 2.0, 2), [0, 2, 8])
    free_programs()
    assert count(compilations, x, 2.0) == 1


def test_the_least_recently_used_go_first(compilations, monkeypatch):
    monkeypatch.setattr(_programs, "_MOST_PROGRAMS", 3)
    monkeypatch.setattr(_programs, "_LEAST_PROGRAMS", 1)
    rows = [np.ones(n) for n in range(1, 6)]
    for x in rows[:4]:
        scaled(x, 1.0)
    assert count(compilations, rows[0], 1.0) == 0  # used again, so it stays
    scaled(rows[4], 1.0)
    assert count(compilations, rows[0], 1.0) == 0
    assert count(compilations, rows[1], 1.0) == 1


@pytest.mark.skipif(not _programs._MAPS.exists(), reason="no /proc: programs are counted")
def test_memory_maps_stay_below_the_limit(monkeypatch):
    @program()
    def large(x):
        return jnp.linalg.eigh(jnp.sort(x @ x.T))

    def maps():
        return _programs._MAPS.read_bytes().count(b"\n")

    large(np.ones((2, 2)))
    before = maps()
    for n in range(3, 6):
        large(np.ones((n, n)))
    each = (maps() - before) / 3
    assert each > 10
    monkeypatch.setattr(_programs, "_LEAST_PROGRAMS", 1)
    monkeypatch.setattr(_programs, "_most_maps", lambda: before + 8 * each)
    for n in range(6, 18):
        large(np.ones((n, n)))
    assert maps() < before + 12 * each
    free_programs()
    assert maps() < before + each


def test_part_of_another_function():
    x = jnp.arange(3.0)
    inside = jax.jit(lambda x: scaled(x, 2.0, power=2))
    np.testing.assert_array_equal(inside(x), [0, 2, 8])
    np.testing.assert_array_equal(jax.vmap(lambda by: scaled(x, by))(jnp.ones(2)), [x, x])
    assert jax.grad(lambda by: jnp.sum(scaled(x, by)))(1.0) == 3


def test_not_compiled_where_the_user_says_so(compilations):
    seen = []

    @program()
    def looked_at(x):
        seen.append(isinstance(x, jax.core.Tracer))
        return x

    with jax.disable_jit():
        looked_at(jnp.ones(2))
    assert seen == [False]


def _threads(*functions):
    """Run side by side; fail where one does not end."""
    threads = [threading.Thread(target=function, daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive(), "waits for ever"


def test_programs_run_in_turn(monkeypatch):
    monkeypatch.setattr(_programs, "_in_turn", lambda: True)
    running, most = [0], [0]
    step = threading.Event()

    def busy(x):
        running[0] += 1
        most[0] = max(most[0], running[0])
        step.wait(0.02)
        running[0] -= 1
        return x

    @program()
    def slow(x):
        return jax.pure_callback(busy, x, x)

    def calls():
        for _ in range(5):
            slow(np.float64(1))

    _threads(calls, calls)
    assert most == [1]


def test_compiling_does_not_wait_for_what_runs(monkeypatch):
    monkeypatch.setattr(_programs, "_in_turn", lambda: True)
    started, traced = threading.Event(), threading.Event()

    def until_traced(x):
        started.set()
        assert traced.wait(60)
        return x

    @program()
    def running(x):
        return jax.pure_callback(until_traced, x, x)

    @program()
    def compiling(x):
        traced.set()
        return x + 1

    def second():
        assert started.wait(60)
        compiling(np.float64(1))

    _threads(lambda: running(np.float64(1)), second)
    assert traced.is_set()


def test_a_program_may_call_back_for_another(monkeypatch):
    monkeypatch.setattr(_programs, "_in_turn", lambda: True)

    def inner_on_a_foreign_thread(x):
        found, ended = [], threading.Event()

        def call():
            found.append(scaled(np.float64(x), 2.0))
            ended.set()

        _thread.start_new_thread(call, ())
        assert ended.wait(60)
        return np.asarray(found[0])

    @program()
    def outer(x):
        return 1 + jax.pure_callback(inner_on_a_foreign_thread, x, x)

    ends = []
    _threads(lambda: ends.append(outer(np.float64(3))))
    assert ends == [7]


FORK = """
import multiprocessing, os, subprocess, sys, warnings

def fork():
    os.waitpid(os.fork() or os._exit(0), 0)

if __name__ == "__main__":
    import joblib
    from jaxgmm._programs._store import program

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fork()
        assert not said, "nothing has run yet"
        program()(lambda x: x)(1.0)
        subprocess.run([sys.executable, "-c", ""], check=True)
        os.waitpid(os.posix_spawn(sys.executable, [sys.executable, "-c", ""], os.environ), 0)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.map(abs, [-1]) == [1]
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-i) for i in range(2)) == [0, 1]
        assert not said, said[0].message
        fork()
    assert [w.category for w in said] == [RuntimeWarning] and "fork" in str(said[0].message), said
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_fork_is_warned_of_once_and_new_processes_are_not(tmp_path):
    (tmp_path / "fork.py").write_text(FORK)
    subprocess.run([sys.executable, tmp_path / "fork.py"], check=True, timeout=120)


HOST = """
import tempfile
import traceback

import jax

jax.config.update("jax_enable_x64", True)
import jaxgmm as jg


def told(event, *_, fun_name="", **__):
    stack = traceback.extract_stack()
    files = [frame.filename for frame in stack]
    # JAX has programs of its own for keys, which it shares with the user.
    if (
        event.endswith("backend_compile_duration")
        and not any(file.endswith("_store.py") or "_src/random" in file for file in files)
        and "random.split" not in next(f.line for f in stack[::-1] if "jaxgmm" in f.filename)
    ):
        print(fun_name, *(f"{f.filename}:{f.lineno}" for f in stack if "jaxgmm" in f.filename))


x = jg.datasets.load("faithful").x
keys = [jax.random.key(i) for i in range(9)]
jax.monitoring.register_event_duration_secs_listener(told)
fixed = jg.Mixture(jg.Gaussian("diag"), 2)
fixed.sample(fixed.params(means=x[:2], covariances=x[:2]), keys[0], 5)
model = jg.Mixture(jg.Gaussian(), 2, prior="weak")
fit = jg.fit(model, x, key=keys[0], n_init=4)
fit.model.sample(fit.params, keys[1], 9)
fit.model.predict(fit.params, x)
fit.model.log_prob(fit.params, x)
fit.model.log_likelihood(fit.params, x)
jg.standard_errors(fit, x)
options = {"key": keys[2], "start": fit, "n_draws": 40, "progress": False}
for method in ("vb", "svi", "laplace"):
    post = jg.sample(fit.model, x, method=method, **options)
verdict = jg.compare(fit, post)
post.summary(), verdict.details()
with tempfile.TemporaryDirectory() as folder:
    verdict.save(folder)
jg.select([model, fixed], x, key=keys[3], n_init=2)
"""


@pytest.mark.turn
def test_no_single_operation_is_compiled_from_the_host():
    run = [sys.executable, "-c", HOST]
    ended = subprocess.run(run, capture_output=True, text=True, timeout=600)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
