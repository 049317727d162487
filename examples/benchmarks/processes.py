"""An iteration of EM in one process and in two, each with a core of its own.

One process has all rows on the first core; then each of two has half of them, on the first and on
the second core, and JAX's distributed runtime adds their sums up. All are fresh and take the same
start; how far apart their means end stands beside. Seconds of an iteration are the difference
between two fits, one with more of them, so that neither compilation nor the way of the rows counts.
Needs a system that can tell a process its cores, such as Linux.

    python examples/benchmarks/processes.py [--rows N ...] [--turns T]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time

import jax
import numpy as np

import jaxgmm as jg

D, K = 8, 16
FEW, MANY = 2, 22


def iterated(me: int, count: int, n: int) -> tuple[float, list[float]]:
    """Seconds of an iteration on the rows of this process, and the means after ``MANY``."""
    generator = np.random.default_rng(0)
    means = generator.normal(scale=2, size=(K, D)).astype(np.float32)
    rows = means[generator.integers(K, size=n)]
    rows += generator.standard_normal(size=rows.shape, dtype=np.float32)
    own, weights = jg.share(np.array_split(rows, count)[me])
    model = jg.Mixture(jg.Gaussian("full"), K)
    covariances = np.broadcast_to(2 * np.eye(D, dtype=np.float32), (K, D, D))
    start = model.params(means=means + np.float32(0.5), covariances=covariances)

    def fit(iterations: int) -> tuple[float, np.ndarray]:
        begin = time.perf_counter()
        options = {"max_iter": iterations, "tol": 0}
        found = jg.fit(model, own, sample_weight=weights, start=start, **options)
        assert found.n_iter == iterations
        return time.perf_counter() - begin, np.asarray(found.params.means)

    for iterations in (FEW, MANY):  # each a program of its own
        fit(iterations)
    few, (many, ends) = fit(FEW)[0], fit(MANY)
    return (many - few) / (MANY - FEW), ends.ravel().tolist()


def one_of(me: int, count: int, port: int, n: int) -> None:
    """What a process does: it prints the seconds and the means."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[me]})
    if count > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"localhost:{port}", count, me)
    print(json.dumps(iterated(me, count, n)), flush=True)


def run(count: int, n: int) -> tuple[float, np.ndarray]:
    """Seconds of an iteration in so many processes, and the means at which they end."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--one", str(count), str(port), str(n)]
    running = [
        subprocess.Popen([*command, str(me)], stdout=subprocess.PIPE, text=True)
        for me in range(count)
    ]
    said = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit("a process has failed")
    each = [json.loads(out.splitlines()[-1]) for out in said]
    return max(seconds for seconds, _ in each), np.array(each[0][1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--one", type=int, nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        count, port, n, me = args.one
        return one_of(me, count, port, n)
    print(f"{MANY - FEW} iterations, D = {D}, K = {K}, float32, the least of {args.turns} turns")
    print("| rows | one process, seconds an iteration | two | ratio | means differ by |")
    print("|---|---|---|---|---|")
    for n in args.rows:
        turns = [(run(1, n), run(2, n)) for _ in range(args.turns)]
        one, two = (min(turn[k][0] for turn in turns) for k in range(2))
        apart = max(np.abs(a[1] - b[1]).max() for a, b in turns)
        print(f"| {n:,} | {one:.4f} | {two:.4f} | {one / two:.2f} | {apart:.1g} |", flush=True)
    return None


if __name__ == "__main__":
    main()
