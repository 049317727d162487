# %% [markdown]
# # Soft and hard: EM beside k-means
#
# k-means is EM with one spherical variance for all clusters, equal weights, and labels that
# are made hard at every step; or EM's limit as that variance goes to 0. This script shows
# the limit, what hard and equal spheres cost where clusters differ, and how often EM finds
# the best optimum from each kind of start.
#
# Run it as a script (`python examples/soft_and_hard.py`) or cell by cell.

# %%
from __future__ import annotations

import argparse
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import jaxgmm as jg

jax.config.update("jax_enable_x64", True)

STARTS = ["k-means", "k-means++", "random", "random-responsibilities"]

# %% [markdown]
# ## The limit
#
# Means stay where k-means left them; the common variance shrinks. What a row gives to other
# clusters than its nearest vanishes.


# %%
def limit(x, hard) -> pd.DataFrame:
    k, d = hard.centres.shape
    model = jg.Mixture(jg.Gaussian("spherical"), k, weights="equal").resolve(x)
    rows = []
    for variance in [1.0, 0.1, 0.01, 0.001]:
        covariances = jnp.broadcast_to(variance * jnp.eye(d), (k, d, d))
        soft = model.responsibilities(model.params(means=hard.centres, covariances=covariances), x)
        elsewhere = 1 - soft[jnp.arange(len(x)), hard.labels].mean()
        agree = (soft.argmax(axis=1) == hard.labels).mean()
        rows.append((variance, float(elsewhere), float(agree)))
    return pd.DataFrame(rows, columns=["variance", "given elsewhere", "same label"])


# %% [markdown]
# ## Clusters of unequal size and spread
#
# Five tight clusters around a wide one. k-means sees distances only, so it cuts the wide
# cluster up; a mixture learns spreads and weights.


# %%
def unequal_clusters(n: int, seed: int = 0):
    """Rows and their true labels: one wide cluster amid five tight ones."""
    rng = np.random.default_rng(seed)
    angles = 2 * np.pi * np.arange(5) / 5
    means = np.vstack([[0, 0], 5 * np.stack([np.cos(angles), np.sin(angles)], axis=1)])
    spread = np.array([2.0, 0.4, 0.4, 0.8, 0.4, 0.8])
    labels = rng.choice(6, size=n, p=[0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
    return means[labels] + spread[labels, None] * rng.standard_normal((n, 2)), labels


def misplaced(labels, truth) -> float:
    """Share of rows outside their cluster, for the best naming of the clusters."""
    counts = np.zeros((6, 6))
    np.add.at(counts, (np.asarray(labels), truth), 1)
    best = max(
        sum(counts[k, order[k]] for k in range(6)) for order in itertools.permutations(range(6))
    )
    return float(1 - best / len(truth))


# %% [markdown]
# ## Where to start EM
#
# Twelve clusters in three groups: a start that puts too many centres in one group leaves
# another short, and EM rarely moves a centre across. What counts is the share of restarts
# that end at the best optimum that any of them found.


# %%
def grouped_clusters(n: int, seed: int = 0):
    """Rows of twelve clusters, in three groups of four."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([[-8.0, 0.0], [8.0, 0.0], [0.0, 12.0]], 4, axis=0)
    corners = np.tile([[-2.0, -2.0], [-2.0, 2.0], [2.0, -2.0], [2.0, 2.0]], (3, 1))
    means = groups + corners
    return means[rng.integers(12, size=n)] + 0.7 * rng.standard_normal((n, 2))


# %%
def shares_of_the_best(model, x, key, n_init: int, starts: list[str]) -> pd.DataFrame:
    fits = {name: jg.fit(model, x, key=key, start=name, n_init=n_init) for name in starts}
    top = max(fit.log_joint for fit in fits.values())
    rows = []
    for name, fit in fits.items():
        ends = np.asarray(fit.restarts.log_joint)
        usable = ~np.asarray(fit.restarts.spurious) & np.isfinite(ends)
        reached = np.mean(usable & (ends > top - 0.01))
        rows.append((name, reached, float(np.median(fit.restarts.n_iter))))
    return pd.DataFrame(rows, columns=["start", "best optimum", "iterations"]).set_index("start")


# %%
def draw(x, hard, fit, shares, path: str) -> None:
    import matplotlib.pyplot as plt
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Ellipse

    colours = np.array(
        [to_rgb(c) for c in ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]]
    )
    # A cluster has one colour in both panels: that of the nearest mean.
    gaps = np.linalg.norm(hard.centres[:, None] - fit.params.means, axis=-1)
    _, same = min(
        (sum(gaps[k, order[k]] for k in range(6)), order)
        for order in itertools.permutations(range(6))
    )
    soft = np.asarray(fit.model.responsibilities(fit.params, x))[:, list(same)]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    left.scatter(*x.T, s=5, c=colours[np.asarray(hard.labels)], lw=0)
    left.scatter(*np.asarray(hard.centres).T, marker="x", c="black", s=50)
    left.set_title("k-means: every row in one cluster", loc="left")
    middle.scatter(*x.T, s=5, c=soft @ colours, lw=0)
    for mean, covariance in zip(fit.params.means, fit.params.covariances, strict=True):
        values, vectors = np.linalg.eigh(np.asarray(covariance))
        angle = np.degrees(np.arctan2(*vectors[::-1, 1]))
        width, height = 2 * np.sqrt(-2 * np.log(0.1) * values[::-1])
        middle.add_patch(Ellipse(np.asarray(mean), width, height, angle=angle, fill=False))
    middle.set_title("EM: shares of clusters mix their colours", loc="left")
    for axes in (left, middle):
        axes.set(aspect="equal", xlim=(-8, 8), ylim=(-8, 8))
    right.barh(shares.index[::-1], 100 * shares["best optimum"][::-1], color="#0072B2")
    right.set(xlim=(0, 100), xlabel="restarts that reach the best optimum, %")
    right.set_title("Twelve clusters: EM by its start", loc="left")
    figure.savefig(path, dpi=120)
    print("written:", path)


# %%
def main(small: bool = False) -> pd.DataFrame:
    faithful = jg.datasets.load("faithful").x
    faithful = faithful / faithful.std(axis=0)
    print("Old Faithful, three clusters: responsibilities as the variance goes to 0")
    print(limit(faithful, jg.kmeans(faithful, 3, key=jax.random.key(0))).to_string(index=False))

    x, truth = unequal_clusters(500 if small else 2000)
    hard = jg.kmeans(x, 6, key=jax.random.key(1))
    model = jg.Mixture(jg.Gaussian("full"), n_components=6)
    n_init = 20 if small else 200
    fit = jg.fit(model, x, key=jax.random.key(2), n_init=n_init)
    labels = fit.model.predict(fit.params, x)
    print("\nUnequal clusters: rows outside their cluster")
    print(f"k-means {misplaced(hard.labels, truth):.1%}, EM {misplaced(labels, truth):.1%}")

    crowd = grouped_clusters(400 if small else 1000)
    model = jg.Mixture(jg.Gaussian("full"), n_components=12)
    starts = STARTS[::2] if small else STARTS
    shares = shares_of_the_best(model, crowd, jax.random.key(3), n_init, starts)
    print(f"\nTwelve clusters, EM from {n_init} starts of each kind")
    print(shares.round(3))
    draw(x, hard, fit, shares, "soft_and_hard.png")
    return shares


# %%
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="fewer rows and restarts")
    main(**vars(parser.parse_args()))
