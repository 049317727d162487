# %% [markdown]
# # Old Faithful: EM and the posterior of the very same mixture
#
# 272 eruptions: how long each lasted and how long people waited for the next one. Two kinds
# of eruption show at a glance. This script fits two Gaussians by EM, samples the posterior
# of the same model, and asks whether the two agree.
#
# Run it as a script (`python examples/old_faithful.py --out old_faithful`) or cell by cell.

# %%
from __future__ import annotations

import argparse
from pathlib import Path

import jax
import numpy as np
import pandas as pd

import jaxgmm as jg

jax.config.update("jax_enable_x64", True)

parser = argparse.ArgumentParser()
parser.add_argument("--small", action="store_true", help="fewer restarts and draws, by Gibbs")
parser.add_argument("--out", default="old_faithful", help="folder for the report")
args, _ = parser.parse_known_args()
n_init, method, n_draws = (8, "gibbs", 250) if args.small else (64, "nuts", 1000)

# %% [markdown]
# ## The model, once
#
# Full covariances, and the weakly informative conjugate prior of Fraley and Raftery (2007),
# whose numbers come from the data. Without a prior the likelihood of a mixture has no upper
# bound and no posterior exists.

# %%
data = jg.datasets.load("faithful")
x = pd.DataFrame(data.x, columns=list(data.feature_names))
model = jg.Mixture(jg.Gaussian("full"), n_components=2, prior="fraley-raftery")
print(model, "with", model.n_parameters(n_features=2), "free parameters")

# %% [markdown]
# ## A point: MAP by EM, every restart in one compiled call

# %%
fit = jg.fit(model, x, key=jax.random.key(0), n_init=n_init)
print(fit)
print("weights", np.round(fit.params.weights, 3))
print("means", np.round(fit.params.means, 3).tolist())

# %% [markdown]
# The record of every restart is kept: here all of them end at the same optimum.

# %%
ends = np.asarray(fit.restarts.log_joint)
print("log joint of the restarts:", ends.min().round(4), "to", ends.max().round(4))

# %% [markdown]
# ## A posterior: the same model, sampled
#
# `fit.model` carries the prior as numbers, so both see the same density. Chains start
# around the fit; labels are matched afterwards by Stephens' (2000) algorithm.

# %%
post = jg.sample(
    fit.model, x, key=jax.random.key(1), method=method, start=fit, n_draws=n_draws, progress=False
)
print(post)

# %% [markdown]
# ## The verdict

# %%
verdict = jg.compare(fit, post)
print(verdict)

# %% [markdown]
# `verdict.table` is a DataFrame with a row per parameter. The variances lean one way: the
# mode of a skewed posterior lies below its mean.

# %%
variances = [name for name in verdict.table.index if name.startswith("covariances")]
print(verdict.table.loc[variances, ["map", "mean", "sd", "z"]].round(3))

# %% [markdown]
# ## What to keep
#
# A self-contained page, the figures, the draws; and the same draws for ArviZ.

# %%
page = verdict.save(args.out)
print("written:", sorted(path.name for path in Path(page).parent.iterdir()))
inference_data = post.to_arviz()
print(inference_data.posterior["means"].dims)
