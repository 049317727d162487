# %% [markdown]
# # A straight line with outliers
#
# Most points lie along a line, some are anywhere: a detector fired, a number was mistyped. Least
# squares follow them all. With a background beside the line each point says how probably it
# belongs to the line, and the others hardly count.

# %%
from __future__ import annotations

import argparse

import jax
import numpy as np
import pandas as pd

import jaxgmm as jg

jax.config.update("jax_enable_x64", True)

parser = argparse.ArgumentParser()
parser.add_argument("--small", action="store_true", help="fewer draws, no figure")
args, _ = parser.parse_known_args()
n_draws = 200 if args.small else 1000

# %%
rng = np.random.default_rng(3)
n_line, n_anywhere = 80, 20
along = rng.uniform(0, 10, n_line)
line = np.column_stack([along, 2.0 + 0.7 * along + rng.normal(0, 0.4, n_line)])
anywhere = rng.uniform([0, -5], [10, 20], (n_anywhere, 2))
x = pd.DataFrame(np.concatenate([line, anywhere]), columns=["time", "height"])

# %% [markdown]
# ## Without and with a background
#
# `n_components` counts the background: two labels are one line and, given the time, a uniform
# height. That density has no parameters; its weight is one.

# %%
family = jg.families.LinearRegression(on=["time"])
plain = jg.fit(jg.Mixture(family, 1), x, key=jax.random.key(0))
model = jg.Mixture(family, 2, prior="weak", background=jg.Uniform())
fit = jg.fit(model, x, key=jax.random.key(0))
print(f"slope of all points        {plain.params.coefficients[0, 1]:.3f}")
print(f"slope beside a background  {fit.params.coefficients[0, 1]:.3f}   (truth 0.700)")
print(f"share of the background    {fit.params.weights[-1]:.2f}    (truth 0.20)")

# %% [markdown]
# ## Which points are outliers?
#
# The last column of the responsibilities. Points that fell on the line by chance are no outliers,
# whatever brought them forth.

# %%
outlying = np.asarray(fit.model.responsibilities(fit.params, x)[:, -1])
print("probability of the background above one half:")
print(f"  {np.sum(outlying[:n_line] > 0.5)} of {n_line} points of the line")
print(f"  {np.sum(outlying[n_line:] > 0.5)} of {n_anywhere} others")

# %% [markdown]
# ## The posterior
#
# The background's label keeps its name: relabelling, evidence and bootstrap rename components
# only.

# %%
post = jg.sample(
    fit.model, x, key=jax.random.key(1), method="gibbs", start=fit, n_draws=n_draws, progress=False
)
low, high = np.quantile(np.asarray(post.draws["coefficients"])[..., 0, 1], [0.025, 0.975])
print(f"slope, 95% of the posterior: {low:.3f} to {high:.3f}")
if not args.small:
    jg.report.plot_background(fit, post).savefig("outliers.png")
