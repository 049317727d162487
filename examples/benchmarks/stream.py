"""EM on a Parquet folder: rows per second beside reading alone, and memory beyond the reader.

Each figure comes from a process of its own, which says what it peaked at. Seconds of a pass are
the difference between two fits from the same start, one with more passes, so that neither
compilation nor the first reading counts.

    python examples/benchmarks/stream.py [--rows N] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd

import jaxgmm as jg

D, K, FILE_ROWS = 8, 16, 250_000
FEW, MANY = 2, 6


def truth() -> tuple[np.ndarray, np.random.Generator]:
    generator = np.random.default_rng(0)
    return generator.normal(scale=2, size=(K, D)), generator


def write(folder: Path, n: int) -> None:
    means, generator = truth()
    for number in range(n // FILE_ROWS):
        label = generator.integers(K, size=FILE_ROWS)
        rows = means[label] + generator.normal(size=(FILE_ROWS, D))
        table = pd.DataFrame(rows.astype(np.float32), columns=[f"x{j}" for j in range(D)])
        table.to_parquet(folder / f"part-{number:04d}.parquet")


def read(folder: Path) -> float:
    """Seconds of reading all rows in blocks."""
    begin = time.perf_counter()
    for _ in jg.stream(folder).blocks():
        pass
    return time.perf_counter() - begin


def fit(folder: Path) -> float:
    """Seconds of a pass of EM."""
    model, (means, _) = jg.Mixture(jg.Gaussian("full"), K), truth()
    covariances = np.broadcast_to(2 * np.eye(D, dtype=np.float32), (K, D, D))
    start = model.params(means=np.float32(means + 0.5), covariances=covariances)
    seconds = []
    for passes in (FEW, MANY):
        begin = time.perf_counter()
        jg.fit(model, jg.stream(folder), start=start, passes=passes, tol=0)
        seconds.append(time.perf_counter() - begin)
        print(f"{passes} passes: {seconds[-1]:.1f} s", file=sys.stderr)
    return (seconds[1] - seconds[0]) / (MANY - FEW)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", choices=["read", "fit"])
    args = parser.parse_args()
    if args.only:
        jax.numpy.zeros(1).block_until_ready()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = {"read": read, "fit": fit}[args.only](args.folder)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            f"{args.only:4}: {seconds:6.2f} s a pass, {args.rows / seconds:,.0f} rows per second, "
            f"peak {peak / 1024:.0f} MB, {(peak - before) / 1024:.0f} MB above the start"
        )
        return
    with tempfile.TemporaryDirectory() as made:
        folder = args.folder or Path(made)
        if not any(folder.glob("*.parquet")):
            write(folder, args.rows)
        for only in ("read", "fit"):
            command = [sys.executable, __file__, "--only", only, "--folder", str(folder)]
            subprocess.run([*command, "--rows", str(args.rows)], check=True)


if __name__ == "__main__":
    main()
