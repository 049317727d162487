"""Milliseconds per EM iteration: jaxgmm beside its peers and its own bounds.

Everything starts from the same parameters and is timed in one process, in turns; ratios are
what to read. A time is the difference between a long and a short run divided by the
difference in iterations, so that compilation, copies and starts cancel. Two bounds stand
beside: the two matrix products with one exponential per row and component, in blocks of the
same size, and the floating-point operations of the products at the rate of a large square
product (OpenBLAS through NumPy).

scikit-learn, gmmx (float32 only) and Armadillo (float64 only, needs g++) are timed where
they are installed.

    python examples/benchmarks/em.py [--wide | --shape N,D,K ...]
        [--structure full | diag | spherical] [--json FILE] [--figure FILE]
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import shutil
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxgmm as jg

SHAPES = [(131072, 2, 8), (131072, 8, 16), (131072, 16, 32), (32768, 32, 64)]
WIDE = [(1000, 2, 4), (10_000, 1, 8), (100_000, 4, 8), (1_000_000, 2, 8), (20_000, 64, 16)]
WIDE += [(200_000, 8, 128), (10_000_000, 2, 4)]
ROUNDS = 4
LONG = 10  # seconds
ENOUGH_ROWS = 1_000_000

ARMADILLO = r"""
#include <armadillo>
#include <chrono>
#include <cstdlib>
int main(int, char** argv) {
  arma::mat x, means; x.load(argv[1], arma::raw_binary); means.load(argv[2], arma::raw_binary);
  const int d = std::atoi(argv[3]); x.reshape(d, x.n_elem / d); means.reshape(d, means.n_elem / d);
  for (int iterations : {2, std::atoi(argv[4])}) {
    arma::gmm_full model;
    arma::cube covariances(d, d, means.n_cols);
    covariances.each_slice() = arma::mat(d, d, arma::fill::eye);
    model.set_params(means, covariances, arma::rowvec(means.n_cols).fill(1.0 / means.n_cols));
    auto begin = std::chrono::steady_clock::now();
    model.learn(x, means.n_cols, arma::maha_dist, arma::keep_existing, 0, iterations, 1e-10, false);
    std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    std::printf("%.9f\n", taken.count());
  }
}
"""


def data(n, d, k, dtype):
    """Rows of k Gaussian groups, and parameters near them to start from."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((k, d))
    x = centres[rng.integers(k, size=n)] + rng.standard_normal((n, d))
    start = centres + 0.3 * rng.standard_normal((k, d))
    return x.astype(dtype), start.astype(dtype)


def timed(run, short=2, long=8):
    """A measurement: seconds of ``short`` and of ``long`` iterations, and how many lie between.

    ``run`` may return how many it took: in float32 a fit can be over before.
    """

    def seconds(count):
        begin = time.perf_counter()
        taken = run(count)
        return time.perf_counter() - begin, taken or count

    def measure():
        (first, few), (second, many) = seconds(short), seconds(long)
        return first, second, many - few

    return measure


def iterations(x, least):
    """So many that they are noticed."""
    return max(least, ENOUGH_ROWS // len(x))


def identities(structure, x, means):
    """Unit covariances in the shape of a structure."""
    k, d = means.shape
    whole = {"full": np.eye(d), "diag": np.ones(d), "spherical": np.ones(())}[structure]
    return np.broadcast_to(whole.astype(x.dtype), (k, *whole.shape))


def width(structure, d):
    """Numbers that the products have of each row."""
    return 1 + d + {"full": d * (d + 1) // 2, "diag": d, "spherical": 1}[structure]


def ours(x, means, structure):
    model = jg.Mixture(jg.Gaussian(structure), len(means)).resolve(x)
    covariances = identities(structure, x, means)
    start = model.params(means=means, covariances=covariances)
    rows = jnp.asarray(x)

    @functools.partial(jax.jit, static_argnums=1)
    def run(rows, count):
        return jg.em.run(model, rows, start, tol=0.0, max_iter=count)

    def go(count):
        result = jax.block_until_ready(run(rows, count))
        assert np.isfinite(result.log_joint), result.status
        return int(result.n_iter)

    long = iterations(x, 8)
    go(2), go(long)  # compile
    return timed(go, 2, long)


def sklearn(x, means, structure):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    eye = identities(structure, x, means)

    def go(count):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            GaussianMixture(
                len(means), covariance_type=structure, tol=0.0, max_iter=count,
                init_params="random_from_data",
                weights_init=np.full(len(means), 1 / len(means), x.dtype), means_init=means,
                precisions_init=eye, random_state=0,
            ).fit(x)  # fmt: skip

    return timed(go, 1, iterations(x, 4))


def gmmx(x, means):
    import gmmx

    k, d = means.shape
    covariances = gmmx.gmm.FullCovariances.from_squeezed(jnp.broadcast_to(jnp.eye(d), (k, d, d)))
    start = gmmx.GaussianMixtureModelJax(
        weights=jnp.full((1, k, 1, 1), 1 / k), means=jnp.asarray(means)[None, :, :, None],
        covariances=covariances,
    )  # fmt: skip
    rows = jnp.asarray(x)

    def go(count):
        # It returns before it has computed.
        jax.block_until_ready(gmmx.EMFitter(max_iter=count, tol=0.0).fit(rows, start).gmm)

    long = iterations(x, 3)
    go(1), go(long)  # compile
    return timed(go, 1, long)


def armadillo(x, means, folder):
    program = Path(folder) / "armadillo"
    if not program.exists():
        source = program.with_suffix(".cpp")
        source.write_text(ARMADILLO)
        build = ["g++", "-O3", "-march=native", "-fopenmp", str(source), "-o", str(program)]
        subprocess.run([*build, "-larmadillo"], check=True)
    x.tofile(Path(folder) / "x.bin")
    means.tofile(Path(folder) / "means.bin")
    many = iterations(x, 8)
    numbers = [str(x.shape[1]), str(many)]
    command = [str(program), f"{folder}/x.bin", f"{folder}/means.bin", *numbers]

    def measure():
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        short, long = map(float, done.stdout.split())
        return short, long, many - 2

    return measure


def products(x, means, structure):
    """Both matrix products and the exponentials on ready-made features, block by block."""
    (n, d), k = x.shape, len(means)
    count = width(structure, d)
    block = min(n, jg._numerics.block_rows(count + k, x.dtype))
    rng = np.random.default_rng(1)
    natural = jnp.asarray(-rng.random((k, count)).astype(x.dtype) / count)
    features = jnp.asarray(rng.random((count, block)).astype(x.dtype))

    @jax.jit
    def passes(natural, features):
        def add(total, _):
            # The total in the first product keeps XLA from doing the same block once.
            powers = jnp.exp((natural + 0 * total) @ features)
            return total + powers @ features.T, None

        return lax.scan(add, jnp.zeros_like(natural), length=n // block)[0]

    jax.block_until_ready(passes(natural, features))

    def measure():
        begin = time.perf_counter()
        jax.block_until_ready(passes(natural, features))
        return 0.0, time.perf_counter() - begin, 1

    return measure


def gemm_rate(dtype):
    """Floating-point operations per second of a large square product, the best of five."""
    square = np.random.default_rng(2).random((2048, 2048)).astype(dtype)
    best = np.inf
    for _ in range(5):
        begin = time.perf_counter()
        square @ square
        best = min(best, time.perf_counter() - begin)
    return 2 * 2048**3 / best


def row(shape, dtype, folder, structure):
    n, d, k = shape
    jax.config.update("jax_enable_x64", dtype == "float64")
    x, means = data(n, d, k, dtype)
    has = importlib.util.find_spec
    contenders = {
        "jaxgmm": ours(x, means, structure),
        "two products": products(x, means, structure),
    }
    if has("sklearn") and n * k <= 10**8:
        contenders["scikit-learn"] = sklearn(x, means, structure)
    full = structure == "full"
    if full and has("gmmx") and dtype == "float32" and n * k * d * d <= 4 * 10**8:
        contenders["gmmx"] = gmmx(x, means)
    if full and shutil.which("g++") and dtype == "float64":
        try:
            contenders["Armadillo"] = armadillo(x, means, folder)
        except subprocess.CalledProcessError:
            print("Armadillo: does not compile here")
    rounds = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, measure in contenders.items():
            # Once is enough of what takes that long: the noise of a machine is far below it.
            if not rounds[name] or sum(rounds[name][0][:2]) < LONG:
                rounds[name].append(measure())
    # The fastest short and the fastest long run: the least of their differences would be
    # that of the unluckiest short run.
    best = {}
    for name, measured in rounds.items():
        short, long, iterations = np.min(measured, axis=0)
        best[name] = (long - short) / iterations
    flops = 4 * n * k * width(structure, d)
    best["flops at the GEMM rate"] = flops / gemm_rate(dtype)
    return {"n": n, "D": d, "K": k, "dtype": dtype, "ms": {m: 1e3 * t for m, t in best.items()}}


COLUMNS = ["jaxgmm", "scikit-learn", "gmmx", "Armadillo", "two products", "flops at the GEMM rate"]


def line(result):
    ms = result["ms"]
    cells = [
        f"{result['n']}, {result['D']}, {result['K']}",
        result["dtype"][0] + result["dtype"][5:],
    ]
    for name in COLUMNS:
        ratio = f" ({ms[name] / ms['jaxgmm']:.2g}x)" if name != "jaxgmm" and name in ms else ""
        cells.append(f"{ms[name]:.3g}{ratio}" if name in ms else "")
    return "| " + " | ".join(cells) + " |"


def picture(results, file):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    labels = [f"{r['n']}, {r['D']}, {r['K']}\n{r['dtype']}" for r in results]
    for name, marker in zip(COLUMNS, "os^Dx+", strict=True):
        shown = [(i, r["ms"][name]) for i, r in enumerate(results) if name in r["ms"]]
        axes.plot(*zip(*shown, strict=True), marker, label=name) if shown else None
    axes.set_yscale("log")
    axes.set_ylabel("ms per EM iteration")
    axes.set_xticks(range(len(labels)), labels, fontsize=7)
    axes.set_xlabel("rows, features, components")
    axes.legend(fontsize=7)
    figure.savefig(file, dpi=150)


def main(shapes, json_file=None, figure_file=None, structure="full"):
    print("| n, D, K | dtype | " + " | ".join(COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for shape in shapes:
            for dtype in ("float64", "float32"):
                results.append(row(shape, dtype, folder, structure))
                print(line(results[-1]), flush=True)
                if json_file:  # rows as they come: the slowest contenders take minutes
                    Path(json_file).write_text(json.dumps(results, indent=1))
    if figure_file:
        picture(results, figure_file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wide", action="store_true", help="n from 10^3 to 10^7 as well")
    parser.add_argument(
        "--shape", nargs="+", help="rows, features and components, as in 131072,8,16"
    )
    parser.add_argument("--structure", choices=["full", "diag", "spherical"], default="full")
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--figure", help="also draw them to this file")
    arguments = parser.parse_args()
    shapes = SHAPES + WIDE * arguments.wide
    if arguments.shape:
        shapes = [tuple(int(count) for count in shape.split(",")) for shape in arguments.shape]
    main(shapes, arguments.json, arguments.figure, arguments.structure)
