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
        [--structure full | tied | diag | ... | Poisson | ...] [--json FILE] [--figure FILE]
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import json
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxgmm as jg

SHAPES = [(131072, 2, 8), (131072, 8, 16), (131072, 16, 32), (32768, 32, 64)]
WIDE = [(1000, 2, 4), (10_000, 1, 8), (100_000, 4, 8), (1_000_000, 2, 8), (20_000, 64, 16)]
WIDE += [(200_000, 8, 128), (10_000_000, 2, 4)]
STRUCTURES = ("full", "tied", "diag", "EEI", "spherical", "EII")
SHARED = ("tied", "EEI", "EII")
PEER = ("full", "tied", "diag", "spherical")  # scikit-learn's
LEVELS, TOTAL = 4, 20
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


class Case(NamedTuple):
    """Rows of k groups, a family for them, and its parameters near the groups to start from."""

    family: Any
    x: np.ndarray
    start: dict[str, np.ndarray]
    width: int  # numbers that the products have of each row


def case(structure, n, d, k, dtype):
    """A covariance structure of Gaussians, or a family of counts or codes by its name."""
    rng = np.random.default_rng(0)
    make = FAMILIES.get(structure, functools.partial(gaussian, structure))
    family, x, start, width = make(rng, rng.integers(k, size=n), d, k)
    as_dtype = lambda numbers: np.asarray(numbers, dtype)
    return Case(family, as_dtype(x), {name: as_dtype(own) for name, own in start.items()}, width)


def gaussian(structure, rng, groups, d, k):
    centres = rng.standard_normal((k, d))
    x = centres[groups] + rng.standard_normal((len(groups), d))
    means = centres + 0.3 * rng.standard_normal((k, d))
    one = identity(structure, d)
    covariances = one if structure in SHARED else np.broadcast_to(one, (k, *one.shape))
    squares = [1, d, d * (d + 1) // 2][one.ndim]
    start = {"means": means, "covariances": covariances}
    return jg.Gaussian(structure), x, start, 1 + d + squares


def identity(structure, d):
    """A unit covariance as the structure keeps one."""
    if structure in ("full", "tied"):
        return np.eye(d)
    return np.ones(d) if structure in ("diag", "EEI") else np.ones(())


def poisson(rng, groups, d, k):
    rates = rng.gamma(4.0, 1.0, (k, d))
    start = {"rates": rates * np.exp(0.1 * rng.standard_normal((k, d)))}
    return jg.families.Poisson(), rng.poisson(rates[groups]), start, 2 + d


def bernoulli(rng, groups, d, k):
    probs = rng.beta(2.0, 2.0, (k, d))
    x = rng.random((len(groups), d)) < probs[groups]
    return jg.families.Bernoulli(), x, {"probs": near(probs, 2)}, 1 + 2 * d


def categorical(rng, groups, d, k):
    probs = rng.dirichlet(np.ones(LEVELS), (k, d))
    below = np.cumsum(probs, axis=-1)[groups, :, :-1]
    x = np.sum(rng.random((len(groups), d, 1)) > below, axis=-1)
    return jg.families.Categorical(LEVELS), x, {"probs": near(probs, LEVELS)}, 1 + LEVELS * d


def multinomial(rng, groups, d, k):
    probs = rng.dirichlet(np.ones(d), k)
    x = rng.multinomial(TOTAL, probs[groups])
    return jg.families.Multinomial(), x, {"probs": near(probs, d)}, 2 + d


def near(probs, levels):
    """Probabilities a tenth of the way to equal ones."""
    return 0.9 * probs + 0.1 / levels


FAMILIES: dict[str, Callable[..., tuple]] = {
    "Poisson": poisson,
    "Bernoulli": bernoulli,
    "Categorical": categorical,
    "Multinomial": multinomial,
}


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


def ours(own, k):
    model = jg.Mixture(own.family, k).resolve(own.x)
    start = model.params(**own.start)
    rows = jnp.asarray(own.x)

    @functools.partial(jax.jit, static_argnums=1)
    def run(rows, count):
        return jg.em.run(model, rows, start, tol=0.0, max_iter=count)

    def go(count):
        result = jax.block_until_ready(run(rows, count))
        assert np.isfinite(result.log_joint), result.status
        return int(result.n_iter)

    long = iterations(own.x, 8)
    go(2), go(long)  # compile
    return timed(go, 2, long)


def sklearn(x, means, covariances, structure):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    def go(count):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            GaussianMixture(
                len(means), covariance_type=structure, tol=0.0, max_iter=count,
                init_params="random_from_data",
                weights_init=np.full(len(means), 1 / len(means), x.dtype), means_init=means,
                precisions_init=covariances, random_state=0,
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


def products(x, k, count):
    """Both matrix products and the exponentials on ready-made features, block by block."""
    n = len(x)
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
    own = case(structure, n, d, k, dtype)
    x, means, covariances = own.x, own.start.get("means"), own.start.get("covariances")
    has = importlib.util.find_spec
    contenders = {"jaxgmm": ours(own, k), "two products": products(x, k, own.width)}
    if structure in PEER and has("sklearn") and n * k <= 10**8:
        contenders["scikit-learn"] = sklearn(x, means, covariances, structure)
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
    best["flops at the GEMM rate"] = 4 * n * k * own.width / gemm_rate(dtype)
    found = {"structure": structure, "n": n, "D": d, "K": k, "dtype": dtype}
    return {**found, "ms": {name: 1e3 * seconds for name, seconds in best.items()}}


COLUMNS = ["jaxgmm", "scikit-learn", "gmmx", "Armadillo", "two products", "flops at the GEMM rate"]


def line(result):
    ms = result["ms"]
    cells = [
        result["structure"],
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
    labels = [f"{r['n']}, {r['D']}, {r['K']}\n{r['structure']}, {r['dtype']}" for r in results]
    for name, marker in zip(COLUMNS, "os^Dx+", strict=True):
        shown = [(i, r["ms"][name]) for i, r in enumerate(results) if name in r["ms"]]
        axes.plot(*zip(*shown, strict=True), marker, label=name) if shown else None
    axes.set_yscale("log")
    axes.set_ylabel("ms per EM iteration")
    axes.set_xticks(range(len(labels)), labels, fontsize=7)
    axes.set_xlabel("rows, features, components")
    axes.legend(fontsize=7)
    figure.savefig(file, dpi=150)


def main(shapes, json_file=None, figure_file=None, structures=("full",)):
    print("| | n, D, K | dtype | " + " | ".join(COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 3) + "|")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for wanted in itertools.product(structures, shapes, ("float64", "float32")):
            structure, shape, dtype = wanted
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
    parser.add_argument(
        "--structure", nargs="+", choices=[*STRUCTURES, *FAMILIES], default=["full"],
        help="covariance structures, or families of counts and codes",
    )  # fmt: skip
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--figure", help="also draw them to this file")
    arguments = parser.parse_args()
    shapes = SHAPES + WIDE * arguments.wide
    if arguments.shape:
        shapes = [tuple(int(count) for count in shape.split(",")) for shape in arguments.shape]
    main(shapes, arguments.json, arguments.figure, arguments.structure)
