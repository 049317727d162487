# %% [markdown]
# # Two lines: pay and age in two careers
#
# Pay rises with age in one career and hardly in the other, and nobody wrote down who is in which.
# A mixture of regressions finds the lines, and the posterior says how well they are known.

# %%
from __future__ import annotations

import argparse

import jax
import numpy as np
import pandas as pd

import jaxgmm as jg

jax.config.update("jax_enable_x64", True)

parser = argparse.ArgumentParser()
parser.add_argument("--small", action="store_true", help="fewer people, restarts and draws")
args, _ = parser.parse_known_args()
n, n_init, n_draws = (80, 4, 100) if args.small else (400, 64, 1000)

rng = np.random.default_rng(0)
steep = rng.random(n) < 0.4
age = rng.uniform(20, 65, n)
pay = np.where(steep, 5 + 0.9 * age, 30 + 0.15 * age) + rng.normal(0, 4, n)
people = pd.DataFrame({"age": age, "pay": pay})

# %% [markdown]
# ## One line, two or three
#
# The response is the column that is no covariate.

# %%
lines = jg.families.LinearRegression(on=["age"])
models = [jg.Mixture(lines, k) for k in ((1, 2) if args.small else (1, 2, 3))]
choice = jg.select(models, people, key=jax.random.key(0), n_init=n_init, progress=False)
print(choice)

# %% [markdown]
# ## What is known of the lines
#
# The weak prior is conjugate, so that Gibbs sampling needs no tuning.

# %%
model = jg.Mixture(lines, 2, prior="weak")
fit = jg.fit(model, people, key=jax.random.key(1), n_init=n_init)
print(jg.standard_errors(fit, people))
post = jg.sample(
    fit.model, people, key=jax.random.key(2), method="gibbs", start=fit, n_draws=n_draws,
    progress=False,
)  # fmt: skip
jg.report.plot_components(fit, post).savefig("lines.png", dpi=120)

# %% [markdown]
# ## Pay at an age
#
# Rows are drawn beside ages that are given: half of all people of 60 earn between

# %%
ages = pd.DataFrame({"age": np.full(2000, 60.0)})
drawn = np.asarray(fit.model.sample(fit.params, jax.random.key(3), len(ages), given=ages))[:, 1]
print(np.quantile(drawn, [0.25, 0.75]).round(1))
