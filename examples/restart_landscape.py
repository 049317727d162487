# %% [markdown]
# # A landscape of restarts: what one start of EM does not show
#
# EM climbs to the next optimum, and where that is depends on the start. A thousand starts in
# one compiled call show the landscape: which optima there are, how often each is reached, how
# far below the best they lie, and which of them hang on a handful of rows.

# %%
from __future__ import annotations

import argparse
import time

import jax
import numpy as np
import pandas as pd

import jaxgmm as jg

jax.config.update("jax_enable_x64", True)

parser = argparse.ArgumentParser()
parser.add_argument("--small", action="store_true", help="fewer restarts")
args, _ = parser.parse_known_args()
n_init = 100 if args.small else 1000
kinds = ["short-run"] if args.small else ["short-run", "k-means", "random"]

# %% [markdown]
# ## A thousand starts
#
# Old Faithful with three components where two would do, by maximum likelihood.

# %%
x = jg.datasets.load("faithful").x
model = jg.Mixture(jg.Gaussian("full"), n_components=3)
begin = time.perf_counter()
fit = jg.fit(model, x, key=jax.random.key(0), n_init=n_init, start="k-means++")
print(fit)
print(f"{n_init} starts in {time.perf_counter() - begin:.1f} s, compilation included")

# %% [markdown]
# ## The optima
#
# Ends of one height and one density are one optimum, whatever the labels. `below` is how far
# under the fit an end lies. The optimum that is reached most often is not the best one.

# %%
print(fit.optima_table.round(3).to_string(index=False))

# %%
jg.report.plot_optima(fit).savefig("optima.png", dpi=120)
jg.report.plot_traces(fit).savefig("traces.png", dpi=120)

# %% [markdown]
# ## How many starts are enough?
#
# If a start reaches the fit with probability p, none of m does with probability (1 - p)^m.

# %%
p = np.mean(fit.optimum_of == fit.optimum_of[fit.best])
needed = 1 if p == 1 else int(np.ceil(np.log(0.01) / np.log1p(-p)))
print(f"a start reaches the fit with probability {p:.3f}: {needed} starts miss it once in 100")

# %% [markdown]
# ## Other starts
#
# The same model, the same number of starts, other places to begin. Seeds and k-means go by
# distances alone; short runs, the default, also by the likelihood.

# %%
fits = {"k-means++": fit}
for kind in kinds:
    fits[kind] = jg.fit(model, x, key=jax.random.key(0), n_init=n_init, start=kind)
best = max(one.log_joint for one in fits.values())
rows = [
    {
        "start": kind,
        "optima": len(one.optima),
        "best found": round(one.log_joint, 3),
        "reach the best of all": f"{np.mean(one.restarts.log_joint > best - 0.01):.1%}",
        "median iterations": int(np.median(one.restarts.n_iter)),
    }
    for kind, one in fits.items()
]
print(pd.DataFrame(rows).to_string(index=False))

# %% [markdown]
# ## Ends that score best and say nothing
#
# With unequal variances the likelihood has no upper bound: a component may shrink around rows
# that nearly coincide. Five components for the velocities of 82 galaxies, again from all starts;
# `below` is negative for ends that score better than the fit and are set aside as spurious.

# %%
galaxies = jg.datasets.load("galaxies").x
crowd = jg.fit(jg.Mixture(jg.Gaussian("V"), 5), galaxies, key=jax.random.key(1), n_init=n_init)
print(crowd.message)
print(crowd.optima_table.head(8).round(3).to_string(index=False))
shares = crowd.optima_table.groupby("spurious")["share"].sum()
print(f"{shares.get(True, 0):.1%} of the starts end at a spurious optimum")
jg.report.plot_optima(crowd).savefig("galaxies.png", dpi=120)
