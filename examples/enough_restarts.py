# %% [markdown]
# # How many restarts are enough?
#
# It depends on how far apart the components are. Three bivariate normals move towards each other;
# at each distance many data sets are fitted from many starts, and two questions asked of each:
# how many starts find the highest optimum, and is that the one near the truth?

# %%
from __future__ import annotations

import argparse

import jax
import numpy as np
import pandas as pd

import jaxgmm as jg

jax.config.update("jax_enable_x64", True)

parser = argparse.ArgumentParser()
parser.add_argument("--small", action="store_true", help="fewer data sets, starts and distances")
args, _ = parser.parse_known_args()
distances = [6.0, 2.0] if args.small else [6.0, 4.0, 3.0, 2.5, 2.0]
n_datasets, n_starts = (5, 16) if args.small else (100, 64)
asked = [1, 4, 8] if args.small else [1, 2, 4, 8, 16, 32]

# %% [markdown]
# ## Every start of every data set
#
# `jg.em.search` is `jg.fit` inside a program of one's own: here one restart for each key. EM from
# the truth says which optimum lies near. The truth is an argument, so that all distances share
# one program.

# %%
model = jg.Mixture(jg.Gaussian("full"), 3, prior="fraley-raftery")


def truth_at(distance: float) -> jg.GaussianParams:
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])
    return model.params(
        weights=[0.5, 0.3, 0.2], means=distance * corners, covariances=3 * [np.eye(2)]
    )


@jax.jit
def heights(params: jg.GaussianParams, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of each data set the log joint at the end of every start, and at the end from the truth."""

    def of_data_set(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        key_rows, key_starts = jax.random.split(key)
        x = model.sample(params, key_rows, 200)
        own = model.resolve(x)
        start = lambda key: jg.em.search(own, x, key, n_init=1).best.log_joint
        ends = jax.lax.map(start, jax.random.split(key_starts, n_starts))
        return ends, jg.em.run(own, x, params).log_joint

    return jax.lax.map(of_data_set, keys)


# %% [markdown]
# ## How many are enough
#
# If a share p of the starts ends at the top of a data set, m of them miss it with probability
# (1 - p)^m; the mean over data sets is how often a study with m restarts misses. The top is the
# highest end of all starts and of the run from the truth.

# %%
rows = []
for distance in distances:
    ends, near = heights(truth_at(distance), jax.random.split(jax.random.key(0), n_datasets))
    top = np.maximum(np.max(ends, axis=1), near)
    share = np.mean(ends > top[:, None] - 0.01, axis=1)
    missed = {f"{m} starts miss": float(np.mean((1 - share) ** m)) for m in asked}
    rows.append(
        {"distance": distance, **missed, "another is higher": float(np.mean(near < top - 0.01))}
    )
table = pd.DataFrame(rows).set_index("distance")
print(table.map("{:.1%}".format).T.to_string())

# %% [markdown]
# The last row is the share of data sets whose highest optimum is not the one near the truth. No
# number of restarts helps there: more of them find the other optimum only more surely. A study
# counts both, as `missed` and `elsewhere` in `study.failures`.

# %%
shares = table.drop(columns="another is higher").T.set_axis(asked)
axes = shares.plot(logx=True, marker="o", xlabel="restarts", ylabel="share of tops missed")
axes.set_xticks(asked, [str(m) for m in asked])
axes.figure.savefig("restarts.png", dpi=120)
