"""EM on a Parquet folder: rows per second beside reading alone, and memory beyond the reader.

Each figure comes from a process of its own, which says what it peaked at. A pass of EM is from
the beginning of one reading to that of the next, the median of those after compilation; reading
alone is the median of as many. Processor seconds stand beside, which other work on the machine
hardly changes. The folder is made in a temporary place, 50 bytes a row.

    python examples/benchmarks/stream.py [--rows N ...] [--folder FOLDER]

    python examples/benchmarks/stream.py --rows 10_000_000 100_000_000
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

import jaxgmm as jg

D, K, FILE_ROWS = 8, 16, 250_000
PASSES = 6


def truth() -> tuple[np.ndarray, np.random.Generator]:
    generator = np.random.default_rng(0)
    return generator.normal(scale=2, size=(K, D)).astype(np.float32), generator


def write(folder: Path, n: int) -> None:
    """Files of one row group each, so that no more than one is in memory."""
    means, generator = truth()
    for number in range(-(-n // FILE_ROWS)):
        size = min(FILE_ROWS, n - number * FILE_ROWS)
        rows = means[generator.integers(K, size=size)]
        rows += generator.standard_normal(size=(size, D), dtype=np.float32)
        table = pd.DataFrame(rows, columns=[f"x{j}" for j in range(D)])
        table.to_parquet(folder / f"part-{number:05d}.parquet")


def clocks() -> np.ndarray:
    """Seconds on the wall and of processors."""
    return np.array([time.perf_counter(), time.process_time()])


def read(folder: Path) -> np.ndarray:
    """Seconds of reading all rows in blocks."""
    begun = [clocks()]
    for _ in range(PASSES - 1):
        for _ in jg.stream(folder).blocks():
            pass
        begun.append(clocks())
    return np.median(np.diff(begun, axis=0), axis=0)


def fit(folder: Path) -> np.ndarray:
    """Seconds of a pass of EM."""
    model, (means, _) = jg.Mixture(jg.Gaussian("full"), K), truth()
    covariances = np.broadcast_to(2 * np.eye(D, dtype=np.float32), (K, D, D))
    start = model.params(means=means + np.float32(0.5), covariances=covariances)
    rows, begun = jg.stream(folder), []
    blocks = rows.blocks

    def noted() -> Any:
        begun.append(clocks())
        return blocks()

    rows.blocks = noted  # type: ignore
    jg.fit(model, rows, start=start, passes=PASSES, tol=0)
    # Not the first reading, nor that of the pass that compiles.
    return np.median(np.diff(begun, axis=0)[2:], axis=0)


def measured(only: str, folder: Path) -> dict[str, float]:
    """What this process takes for one of them."""
    jax.numpy.zeros(1).block_until_ready()
    wall, processor = {"read": read, "fit": fit}[only](folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall": wall, "processor": processor, "peak": peak}


def table(n: int, folder: Path) -> str:
    """Both, and what the second has beyond the first."""
    found = {}
    for only in ("read", "fit"):
        command = [sys.executable, __file__, "--only", only, "--folder", str(folder)]
        found[only] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    read, fit = found["read"], found["fit"]
    lines = [f"{n:,} rows", "| | seconds a pass | processor seconds | rows a second | peak MB |"]
    lines += ["|---|---|---|---|---|"]
    for name, each in (("reading alone", read), ("EM", fit)):
        figures = f"{each['wall']:.2f} | {each['processor']:.2f} | {n / each['wall']:,.0f}"
        lines.append(f"| {name} | {figures} | {each['peak']:,.0f} |")
    speed, memory = read["wall"] / fit["wall"], fit["peak"] - read["peak"]
    lines.append(f"EM has {speed:.2f} of the speed of reading and {memory:,.0f} MB beyond it")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000_000])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", choices=["read", "fit"])
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measured(args.only, args.folder)))
        return
    for n in args.rows:
        with tempfile.TemporaryDirectory() as made:
            folder = args.folder or Path(made)
            if not any(folder.glob("*.parquet")):
                write(folder, n)
            print(table(n, folder), flush=True)


if __name__ == "__main__":
    main()
