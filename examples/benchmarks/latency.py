"""What waiting is made of: programs and seconds where the shapes of data keep changing.

- sizes: data sets of as many sizes, 50 to 2,000 rows, D = 2, K = 3, 4 starts each, beside the
  same loop of scikit-learn's `GaussianMixture` (``n_init=4``);
- nearby: everything that is done with a data set of 260 rows, then with one of 270;
- filling up: Old Faithful's 272 rows, which become 288, beside the same fit of exactly 272;
- one size: as many data sets of one size in one program, `jax.vmap` of `jg.em.run`;
- jobs: `jaxgmm compare faithful` (fit, NUTS, verdict and report) and `jaxgmm select faithful` in
  fresh processes, with an empty cache of compiled programs and with the one that this filled;
- select: fourteen structures at nine numbers of components, first and second call;
- chains: NUTS of Old Faithful by one chain to sixteen, once compiled.

    python examples/benchmarks/latency.py [--sizes 300] [--jobs 5] [--only jobs select]
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.mixture import GaussianMixture

import jaxgmm as jg

CENTRES = np.array([[0.0, 0.0], [6.0, 0.0], [3.0, 5.3]])
STARTS = 4
_programs = 0


def _listen(event: str, _seconds: float, **_: Any) -> None:
    global _programs
    _programs += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_listen)


def rows(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) + CENTRES[rng.integers(0, len(CENTRES), n)]


def timed(call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> tuple:
    """Seconds and programs of a call."""
    before, start = _programs, clock()
    jax.block_until_ready(call())
    return clock() - start, _programs - before


def maps() -> str:
    """Pieces of memory that the process holds, where the kernel tells."""
    path = pathlib.Path("/proc/self/maps")
    return f"{len(path.read_bytes().splitlines()):,}" if path.exists() else "unknown"


def sizes(count: int) -> None:
    each = np.unique(np.linspace(50, 2000, count).astype(int))
    np.random.default_rng(0).shuffle(each)
    model = jg.Mixture(jg.Gaussian(), len(CENTRES))
    ours, theirs, compiled = [], [], []
    for seed, n in enumerate(each):
        x, key = rows(n, seed), jax.random.key(seed)
        fit = lambda x=x, key=key: jg.fit(model, x, key=key, n_init=STARTS).params
        seconds, programs = timed(fit)
        ours.append(seconds)
        compiled.append(programs)
        peer = GaussianMixture(len(CENTRES), n_init=STARTS, random_state=seed)
        theirs.append(timed(lambda peer=peer, x=x: peer.fit(x) and None)[0])
    ready = [s for s, programs in zip(ours, compiled, strict=True) if programs <= 1]
    print(
        f"{len(each)} sizes: {sum(compiled)} programs at {sum(c > 1 for c in compiled)} of them, "
        f"{maps()} pieces of memory\n"
        f"  seconds, first {ours[0]:.2f} ({compiled[0]} programs), median "
        f"{statistics.median(ours):.3f}, where the program was there "
        f"{statistics.median(ready):.3f}; in all {sum(ours):.0f}\n"
        f"  scikit-learn, median {statistics.median(theirs):.3f}, in all {sum(theirs):.0f}"
    )


def nearby() -> None:
    model = jg.Mixture(jg.Gaussian(), len(CENTRES), prior="fraley-raftery")
    taken: dict[str, list[str]] = {}

    def call(name: str, function: Callable[[], Any]) -> Any:
        found: list[Any] = []
        seconds, programs = timed(lambda: found.append(function()))
        taken.setdefault(name, []).append(f"{seconds:.2f} s, {programs} programs")
        return found[0]

    for n in (260, 270):
        x, key = rows(n, n), jax.random.key(n)
        fit = call("fit", lambda x=x, key=key: jg.fit(model, x, key=key, n_init=16))
        call("standard_errors", lambda fit=fit, x=x: jg.standard_errors(fit, x))
        call("bootstrap", lambda fit=fit, x=x, key=key: jg.bootstrap(fit, x, key=key))
        options = {"key": jax.random.key(1), "start": fit, "progress": False}
        draws = functools.partial(jg.sample, fit.model, x, **options)
        posteriors = {m: call(m, functools.partial(draws, method=m)) for m in jg.bayes.METHODS}
        for name in ("nuts", "gibbs"):
            post = posteriors[name]
            call(f"compare, {name}", lambda fit=fit, post=post: jg.compare(fit, post))
        evidence = functools.partial(jg.evidence, posteriors["gibbs"], key=jax.random.key(2))
        call("evidence", evidence)
    print("260 rows, then 270:")
    for name, both in taken.items():
        print(f"  {name}: {'; '.join(both)}")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Exact(jg.Mixture):
    """A mixture that is compiled for its number of rows."""

    fills_up = False


def filling(rounds: int = 15) -> None:
    x, ratios = jg.datasets.load("faithful").x, {}
    for n_init in (1, 64, 1000):
        seconds = {kind: [] for kind in (Exact, jg.Mixture)}
        for seed in range(1 + rounds):  # the first compiles
            for kind, taken in seconds.items():
                options = {"n_init": n_init, "tol": 1e-6, "start": "k-means++"}
                model, key = kind(jg.Gaussian(), 3), jax.random.key(seed)
                fit = functools.partial(jg.fit, model, x, key=key, **options)
                taken.append(timed(lambda fit=fit: fit().params)[0])
        exact, filled = (statistics.median(taken[1:]) for taken in seconds.values())
        ratios[n_init] = f"{n_init} restarts {filled / exact:.2f}"
    print("filled up over exact rows:", ", ".join(ratios.values()))


def one_size(count: int, n: int = 200) -> None:
    x = jnp.asarray(np.stack([rows(n, seed) for seed in range(count)]))
    labels = jax.vmap(lambda x: jnp.argmin(((x[:, None] - CENTRES) ** 2).sum(-1), axis=1))(x)
    model = jg.Mixture(jg.Gaussian(), len(CENTRES))
    run = jax.jit(jax.vmap(lambda x, start: jg.em.run(model, x, start).log_joint))
    start = jax.nn.one_hot(labels, len(CENTRES), dtype=x.dtype)
    first, second = (timed(lambda: run(x, start))[0] for _ in range(2))
    print(f"{count} data sets of {n} rows in one program: {first:.2f} s, again {second:.3f} s")


def jobs(count: int) -> None:
    for asked in (("compare", "faithful", "-k", "2"), ("select", "faithful")):
        job(count, *asked)


def job(count: int, *asked: str) -> None:
    program = [sys.executable, "-c", _COUNTED, *asked, "--quiet"]
    empty, filled, worked, compiled = [], [], {}, ""
    for _ in range(count):
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"XDG_CACHE_HOME": folder}
            environment.pop("JAX_COMPILATION_CACHE_DIR", None)
            for seconds in (empty, filled):
                out = pathlib.Path(folder) / f"report{len(seconds)}{seconds is filled}"
                start, before = time.perf_counter(), sum(os.times()[2:4])
                said = subprocess.run([*program, "--out", str(out)], env=environment, check=True,
                                      capture_output=True, text=True).stdout  # fmt: skip
                seconds.append(time.perf_counter() - start)
                worked.setdefault(seconds is filled, []).append(sum(os.times()[2:4]) - before)
                compiled = said.splitlines()[-1]
    said = [
        f"{statistics.median(seconds):.1f} s ({statistics.median(worked[cached]):.0f} of processor "
        f"time) with {'a filled' if cached else 'an empty'} cache"
        for cached, seconds in ((False, empty), (True, filled))
    ]
    print(f"jaxgmm {' '.join(asked)}, medians of {count}: {', '.join(said)}; {compiled} programs")


# The command line, and how many programs it asked XLA for, or the cache.
_COUNTED = """
import sys
from jax import monitoring
count = []
monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: count.append(event) if event.endswith("backend_compile_duration") else 0
)
from jaxgmm.__main__ import main
code = main(sys.argv[1:])
print(len(count))
sys.exit(code)
"""


def select() -> None:
    x = jg.datasets.load("faithful").x
    codes = dict.fromkeys(structure.code for structure in jg.model.STRUCTURES.values())
    models = [jg.Mixture(jg.Gaussian(code), k) for code in codes for k in range(1, 10)]
    best: list[str] = []

    def call() -> None:
        choice = jg.select(models, x, key=jax.random.key(0), progress=False)
        best.append(f"{choice.best.model!r}, BIC {choice.best.bic:.2f}")

    (first, programs), (second, _) = (timed(call, time.process_time) for _ in range(2))
    print(
        f"select, {len(models)} models: {first:.1f} s of processor time, {programs} programs, "
        f"{maps()} pieces of memory; again {second:.1f} s; the best: {best[0]}"
    )


def chains() -> None:
    x = jg.datasets.load("faithful").x
    model = jg.Mixture(jg.Gaussian(), 2, prior="fraley-raftery")
    fit, taken = jg.fit(model, x, key=jax.random.key(0), n_init=4), []
    for count in (1, 2, 4, 8, 16):
        options = {"start": fit, "n_chains": count, "n_draws": 1000, "progress": False}
        draw = functools.partial(jg.sample, fit.model, x, key=jax.random.key(1), **options)
        (first, programs), *again = (
            timed(lambda draw=draw: draw() and None, time.process_time) for _ in range(4)
        )
        seconds = statistics.median(seconds for seconds, _ in again)
        taken.append(f"{count}: {seconds:.2f} s (first {first:.1f} s, {programs} programs)")
    print("NUTS, processor seconds by chains:", ", ".join(taken))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=5)
    parts: dict[str, Callable[[argparse.Namespace], None]] = {
        "sizes": lambda args: sizes(args.sizes),
        "nearby": lambda _: nearby(),
        "filling": lambda _: filling(),
        "one-size": lambda _: one_size(1000),
        "jobs": lambda args: jobs(args.jobs),
        "select": lambda _: select(),
        "chains": lambda _: chains(),
    }
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    for part in args.only:
        parts[part](args)
