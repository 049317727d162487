"""An iteration of EM beside that of Spark MLlib's Gaussian mixture, on this machine.

Spark runs in local mode on all cores and takes the start by its interface of RDDs, the one that
has an `initialModel`. Both work in float64, as Spark always does, with the same rows and start, and
end at the same means, which is checked. Seconds of an iteration are the difference between two
fits, one with more of them, so that neither compilation, nor the start of a Java machine, nor the
way of the rows into memory counts. Spark's interface of data frames takes no start: only its
seconds stand beside. Needs `pip install pyspark` and Java 17 or later.

    python examples/benchmarks/spark.py [--rows N ...] [--iterations FEW MANY] [--memory 6g]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

import jaxgmm as jg

D, K = 8, 16


def made(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, and the means and covariances of a start near the truth."""
    generator = np.random.default_rng(0)
    means = generator.normal(scale=2, size=(K, D))
    rows = means[generator.integers(K, size=n)]
    rows += generator.standard_normal(size=rows.shape)
    return rows, means + 0.5, np.broadcast_to(2 * np.eye(D), (K, D, D))


def timed(fit: Callable[[int], np.ndarray], counts: list[int]) -> tuple[float, np.ndarray]:
    """Seconds of an iteration, and the means after the last."""
    means, taken = np.zeros(0), []
    for count in counts:
        begin = time.perf_counter()
        means = fit(count)
        taken.append(time.perf_counter() - begin)
    return (taken[1] - taken[0]) / (counts[1] - counts[0]), means


def by_jaxgmm(
    rows: np.ndarray, means: np.ndarray, covariances: np.ndarray, counts: list[int]
) -> tuple[float, np.ndarray]:
    model, x = jg.Mixture(jg.Gaussian("full"), K), jax.numpy.asarray(rows)
    start = model.params(means=means, covariances=covariances)

    def fit(count: int) -> np.ndarray:
        found = jg.fit(model, x, start=start, max_iter=count, tol=0)
        assert found.n_iter == count
        return np.asarray(found.params.means)

    for count in counts:  # each a program of its own
        fit(count)
    return timed(fit, counts)


def by_spark(
    rows: np.ndarray,
    means: np.ndarray,
    covariances: np.ndarray,
    counts: list[int],
    memory: str,
) -> tuple[float, np.ndarray, float]:
    """Both of Spark's interfaces: the first one's seconds and means, the other's seconds."""
    from pyspark.ml.clustering import GaussianMixture as OfFrames
    from pyspark.mllib.clustering import GaussianMixture
    from pyspark.mllib.linalg import DenseMatrix, Vectors
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[*]").config("spark.driver.memory", memory)
    session = builder.config("spark.ui.enabled", "false").getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    gaussians = [
        SimpleNamespace(mu=Vectors.dense(mean), sigma=DenseMatrix(D, D, covariance.ravel()))
        for mean, covariance in zip(means, covariances, strict=True)
    ]
    start: Any = SimpleNamespace(k=K, weights=[1 / K] * K, gaussians=gaussians)
    with tempfile.TemporaryDirectory() as folder:
        for part, some in enumerate(np.array_split(rows, 16)):
            np.save(Path(folder) / f"{part}.npy", some)

        def vectors(part: int) -> Any:
            return map(Vectors.dense, np.load(f"{folder}/{part}.npy"))

        data = session.sparkContext.parallelize(range(16), 16).flatMap(vectors)

        def fit(count: int) -> np.ndarray:
            # Only a log likelihood that stands still would end it.
            found = GaussianMixture.train(data, K, 0.0, count, initialModel=start)
            return np.array([gaussian.mu.toArray() for gaussian in found.gaussians])

        def fit_frame(count: int) -> np.ndarray:
            found = OfFrames(k=K, maxIter=count, tol=0.0, seed=0).fit(frame)
            return np.array(found.weights)

        try:
            fit(counts[0])  # the Java machine compiles as it goes
            seconds, means = timed(fit, counts)
            frame = data.map(lambda row: (row.asML(),)).toDF(["features"])
            fit_frame(counts[0])
            return seconds, means, timed(fit_frame, counts)[0]
        finally:
            session.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--iterations", type=int, nargs=2, default=[2, 12])
    parser.add_argument("--memory", default="6g", help="of the Java machine")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    few, many = args.iterations
    print(f"{many - few} iterations, D = {D}, K = {K}, float64")
    print("| rows | Spark, s an iteration | by data frames | jaxgmm | ratios | means differ by |")
    print("|---|---|---|---|---|---|")
    for n in args.rows:
        problem = made(n)
        ours, means = by_jaxgmm(*problem, args.iterations)
        theirs, other, frames = by_spark(*problem, args.iterations, args.memory)
        apart, ratios = np.abs(means - other).max(), f"{theirs / ours:.0f}, {frames / ours:.0f}"
        seconds = f"{theirs:.3f} | {frames:.3f} | {ours:.4f}"
        print(f"| {n:,} | {seconds} | {ratios} | {apart:.1g} |", flush=True)


if __name__ == "__main__":
    main()
