"""k-means: jaxgmm beside scikit-learn, the same seeds, the same rounds, the same restarts.

scikit-learn runs Lloyd's algorithm from jaxgmm's seeds until nothing changes, and makes seeds
of its own (which are not used) in a time that is given apart: jaxgmm's time holds both, and
its seeds are looked for on at most 65,536 rows. Compilation is left out; times are the best
of several calls that take turns. Ratios are what to read, on a machine that does nothing else.

    python examples/benchmarks/kmeans.py [--small] [--json FILE] [--figure FILE]
"""

from __future__ import annotations

import argparse
import json
import time
import warnings

import jax
import numpy as np

import jaxgmm as jg

SHAPES = [
    (10_000, 2, 8), (10_000, 8, 16), (10_000, 32, 64),
    (100_000, 2, 8), (100_000, 2, 64), (100_000, 8, 16), (100_000, 32, 8), (100_000, 32, 64),
    (1_000_000, 2, 8), (1_000_000, 8, 16),
]  # fmt: skip
N_INIT, ROUNDS = 4, 300


def clusters(n: int, d: int, k: int, dtype: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = 2 * rng.standard_normal((k, d))
    return (centres[rng.integers(k, size=n)] + rng.standard_normal((n, d))).astype(dtype)


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(n: int, d: int, k: int, dtype: str, repeats: int) -> dict[str, float | str | int]:
    x = clusters(n, d, k, dtype)
    on_device = jax.numpy.asarray(x)

    def ours():
        key = jax.random.key(0)
        result = jg.kmeans(on_device, k, key=key, n_init=N_INIT, max_iter=ROUNDS)
        return jax.block_until_ready(result.labels), result

    _, result = ours()
    row = {"n": n, "D": d, "K": k, "dtype": dtype, "rounds": int(result.restarts.n_iter.sum())}
    calls = {"jaxgmm": ours}
    try:
        from sklearn.cluster import KMeans, kmeans_plusplus
        from sklearn.exceptions import ConvergenceWarning
    except ImportError:
        pass
    else:
        warnings.simplefilter("ignore", ConvergenceWarning)
        seeds = [np.asarray(start) for start in result.restarts.start]

        def theirs():
            fits = [KMeans(k, init=c, n_init=1, max_iter=ROUNDS, tol=0).fit(x) for c in seeds]
            return fits, min(fit.inertia_ for fit in fits)

        def seeding():
            return [kmeans_plusplus(x, k, random_state=seed) for seed in range(N_INIT)]

        fits, inertia = theirs()
        row["rounds of scikit-learn"] = sum(fit.n_iter_ for fit in fits)
        row["inertia, difference"] = abs(result.inertia - inertia) / inertia
        calls["scikit-learn's rounds"] = theirs
        calls["scikit-learn's seeds"] = seeding
    times = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(seconds(call))
    row.update({f"{name}, s": min(found) for name, found in times.items()})
    if len(calls) > 1:
        rounds = row["scikit-learn's rounds, s"]
        row["ratio, rounds only"] = rounds / row["jaxgmm, s"]
        row["ratio"] = (rounds + row["scikit-learn's seeds, s"]) / row["jaxgmm, s"]
    return row


def draw(rows: list[dict], path: str) -> None:
    import matplotlib.pyplot as plt

    labels = [f"n={row['n']:,} D={row['D']} K={row['K']} {row['dtype']}" for row in rows]
    colours = ["#0072B2" if row["dtype"] == "float64" else "#D55E00" for row in rows]
    figure, axes = plt.subplots(figsize=(7, 1 + 0.25 * len(rows)), layout="constrained")
    axes.barh(labels[::-1], [row["ratio"] for row in rows][::-1], color=colours[::-1])
    axes.axvline(1, color="black", lw=1)
    axes.set_xlabel("times as fast as scikit-learn, seeds and rounds")
    figure.savefig(path, dpi=120)


def main(small: bool = False) -> list[dict]:
    rows = []
    for n, d, k in SHAPES[:2] if small else SHAPES:
        for dtype in ("float64", "float32"):
            rows.append(measure(n, d, k, dtype, repeats=1 if small else 3))
            shown = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in rows[-1].values()]
            if len(rows) == 1:
                print(" | ".join(rows[-1]))
            print(" | ".join(shown), flush=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="two shapes, one call each")
    parser.add_argument("--json", help="also write the rows to this file")
    parser.add_argument("--figure", help="also draw the ratios (needs scikit-learn)")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    found = main(arguments.small)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(found, file, indent=1)
    if arguments.figure and "ratio" in found[0]:
        draw(found, arguments.figure)
