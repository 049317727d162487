"""Which start finds the best optimum: those of jaxgmm beside those of scikit-learn.

Gaussian mixtures with full covariances, without a prior. Of the restarts from each kind of
start, the share that ends at the best known optimum: not collapsed, not spurious by
jaxgmm's rule, and within 1e-3 nats of the highest such log likelihood that any restart of any
kind reached, or EM from the true labels where they are known. Scikit-learn runs by
itself (``n_init=1``, its ``reg_covar``, ``tol`` 1e-6) and is carried on from where it ends
by the same EM as all others, so that neither its tolerance nor its ridge counts against it.

- data: the bundled data sets, and those in ``--files``, at K 2 to 5;
- plain sight: 200 rows each of N(0, 1), N(4, 1) and N(far, 1); ten peaks 8 sd apart;
- mixtures: K 2 to 12, D 1 to 8, means 2 to 50 sd apart, weights down to .02; a third with
  components, a third with columns whose scales differ by up to 10^3.

    python examples/benchmarks/starts.py [--mixtures 200] [--restarts 10] [--files CSV ...]
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from sklearn.mixture import GaussianMixture

import jaxgmm as jg

SHAPES = list(itertools.product((1, 2, 4, 8), (2, 3, 5, 8, 12)))
KINDS = ("mixtures", "mixtures, component scales", "mixtures, column scales")
THEIRS = ("kmeans", "k-means++")
NATS, TOL, ROWS = 1e-3, 1e-8, 1000

Case = tuple[str, str, np.ndarray, np.ndarray | None, int]


def mixture(seed: int) -> Case:
    """Rows of a random mixture, and their labels."""
    rng = np.random.default_rng([12, seed])
    (d, k), kind = SHAPES[seed % len(SHAPES)], KINDS[(seed + seed // len(SHAPES)) % len(KINDS)]
    apart = np.exp(rng.uniform(np.log(2), np.log(50)))
    sd = 10 ** rng.uniform(-1.5, 1.5, k) if kind.endswith("component scales") else np.ones(k)
    means: list[np.ndarray] = []
    side = apart * sd.max()
    while len(means) < k:  # in a box that grows until all have room
        mean, own = rng.uniform(-side / 2, side / 2, d), sd[len(means)]
        room = [np.linalg.norm(mean - other) - apart * (own + s) / 2
                for other, s in zip(means, sd, strict=False)]  # fmt: skip
        if min(room, default=0) >= 0:
            means.append(mean)
        else:
            side *= 1.02
    weights = np.maximum(rng.dirichlet(np.ones(k)), 0.02)
    labels = rng.choice(k, ROWS, p=weights / weights.sum())
    axes = [np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(k)]
    lengths = np.exp(rng.uniform(-1, 1, (k, d))) if d > 1 else np.ones((k, d))
    factors = np.array(axes) * lengths[:, None] * sd[:, None, None]
    noise = rng.standard_normal((ROWS, d, 1))
    x = np.array(means)[labels] + (factors[labels] @ noise)[..., 0]
    if kind.endswith("column scales"):
        x = x * 10 ** rng.uniform(-1.5, 1.5, d)
    return kind, f"{kind} {seed}", x, labels, k


def plain_sight() -> Iterator[Case]:
    """Peaks in one column."""
    rng = np.random.default_rng(0)
    for centres, n in (([0, 4, 100], 200), ([0, 4, 20], 200), (range(0, 80, 8), 100)):
        k = len(centres)
        labels = np.repeat(np.arange(k), n)
        x = np.array(centres)[labels] + rng.standard_normal(k * n)
        yield "plain sight", f"peaks at {list(centres)}", x[:, None], labels, k


def data(files: list[str]) -> Iterator[Case]:
    """The bundled data sets and numeric columns of CSV files, each at several K."""
    sets = {name: np.asarray(jg.datasets.load(name).x) for name in jg.datasets.NAMES}
    for file in files:
        columns = pd.read_csv(file).select_dtypes(float)
        sets[pathlib.Path(file).stem] = columns.to_numpy()
    for name, k in itertools.product(sets, (2, 3, 4, 5)):
        yield "data", f"{name}, K = {k}", sets[name], None, k


def clusters(x: np.ndarray, labels: np.ndarray, k: int) -> jg.model.GaussianParams | None:
    """Weights, means and covariances of labelled rows, where each label has enough of them."""
    rows = [x[labels == label] for label in range(k)]
    d = x.shape[1]
    if min(map(len, rows)) <= d + 1:
        return None
    covariances = [np.cov(own, rowvar=False, bias=True).reshape(d, d) for own in rows]
    shares, means = [len(own) / len(x) for own in rows], [own.mean(axis=0) for own in rows]
    return parameters(np.array(shares), np.array(means), np.array(covariances))


def parameters(*leaves: np.ndarray) -> jg.model.GaussianParams:
    return jg.model.GaussianParams(*map(jnp.asarray, leaves), "full")


def study(case: Case, restarts: int, kinds: list[str]) -> dict[str, Any]:
    """The share of restarts at the best known optimum, by kind of start."""
    group, name, x, labels, k = case
    model = jg.Mixture(jg.Gaussian("full"), k)

    def heights(start: Any, key: Any = None) -> np.ndarray:
        try:
            run = jg.fit(model, x, key=key, n_init=restarts, start=start, tol=TOL).restarts
        except ValueError:  # all collapsed
            return np.full(restarts, -np.inf)
        sound = ~run.spurious & (run.status <= jg.Status.OUT_OF_ITERATIONS)
        return np.where(sound, run.log_likelihood, -np.inf)

    ends = {kind: heights(kind, jax.random.key(i)) for i, kind in enumerate(kinds)}
    for kind in THEIRS:
        peers = [
            GaussianMixture(k, init_params=kind, tol=1e-6, max_iter=1000, random_state=seed).fit(x)
            for seed in range(restarts)
        ]
        found = [parameters(one.weights_, one.means_, one.covariances_) for one in peers]
        ends[f"scikit-learn {kind}"] = heights(jax.tree.map(lambda *a: jnp.stack(a), *found))
    best = max(np.max(height) for height in ends.values())
    truth = None if labels is None else clusters(x, labels, k)
    if truth is not None:
        # As many copies as there are restarts, for the program that is compiled already.
        copies = jax.tree.map(lambda leaf: jnp.stack([leaf] * restarts), truth)
        best = max(best, heights(copies)[0])
    share = {kind: float(np.mean(height > best - NATS)) for kind, height in ends.items()}
    return {"group": group, "name": name} | (share if np.isfinite(best) else {})


def main(
    mixtures: int = 200,
    restarts: int = 10,
    starts: list[str] | None = None,
    files: list[str] | None = None,
    csv: str | None = None,
) -> pd.DataFrame:
    """Mean share by group; cases in which every restart collapsed or is spurious are left out."""
    warnings.simplefilter("ignore")
    rows = []
    for case in itertools.chain(plain_sight(), data(files or []), map(mixture, range(mixtures))):
        rows.append(study(case, restarts, starts or list(jg.em.STARTS)))
        if csv:
            pd.DataFrame(rows).to_csv(csv, index=False)
    table = pd.DataFrame(rows).dropna()
    groups = table.drop(columns="name").groupby("group", sort=False)
    everything = table.drop(columns=["group", "name"]).mean().rename("all")
    columns = groups.mean().T.join(everything)
    columns.loc["cases"] = [*groups.size(), len(table)]
    return columns


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mixtures", type=int, default=200)
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--starts", nargs="*", help="kinds of start (all)")
    parser.add_argument("--files", nargs="*", help="more data, as CSV files")
    parser.add_argument("--csv", help="where the shares of each case go")
    jax.config.update("jax_enable_x64", True)
    print(main(**vars(parser.parse_args())).round(3).to_string())
