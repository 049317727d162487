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
kinds = ["k-means++", "random"] if args.small else ["k-means++", "k-means", "random"]

# %% [markdown]
# ## A thousand starts
#
# Old Faithful with three components where two would do, by maximum likelihood.

# %%
x = jg.datasets.load("faithful").x
model = jg.Mixture(jg.Gaussian("full"), n_components=3)
begin = time.perf_counter()
fit = jg.fit(model, x, key=jax.random.key(0), n_init=n_init)
print(fit)
print(f"{n_init} starts in {time.perf_counter() - begin:.1f} s, compilation included")

# %% [markdown]
# ## The optima
#
# Ends of one height and one density are one optimum, whatever the labels. `below` is how far
# under the fit an end lies; it is negative for spurious ends, which score better and are set
# aside.

# %%
table = fit.optima_table
print(table.head(12).round(3).to_string(index=False))
sound = table[~table["spurious"] & (table["status"] == "converged")]
print(
    f"{len(table)} ends, {len(sound)} of them sound optima; "
    f"{table.loc[table['spurious'], 'restarts'].sum()} restarts ended at spurious ones"
)

# %%
jg.report.plot_optima(fit).savefig("optima.png", dpi=120)
jg.report.plot_traces(fit).savefig("restarts.png", dpi=120)

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
# The same model and number of starts, other places to begin. `fit.optima` are told apart by
# height and density, so the best of all kinds can be compared.

# %%
fits = {kinds[0]: fit}
for kind in kinds[1:]:
    fits[kind] = jg.fit(model, x, key=jax.random.key(0), n_init=n_init, start=kind)
best = max(one.log_joint for one in fits.values())
rows = []
for kind, one in fits.items():
    ends = np.asarray(one.restarts.log_joint)
    usable = one.restarts.converged & ~np.asarray(one.restarts.spurious)
    rows.append(
        {
            "start": kind,
            "best found": round(one.log_joint, 3),
            "reach the best of all": f"{np.mean(usable & (ends > best - 0.01)):.1%}",
            "spurious": f"{np.mean(one.restarts.spurious):.1%}",
            "median iterations": int(np.median(one.restarts.n_iter)),
        }
    )
print(pd.DataFrame(rows).to_string(index=False))
