# %% [markdown]
# # EM, variational Bayes and NUTS: three answers from one density
#
# EM finds the highest point of the joint density, variational Bayes the closest distribution
# under which labels and parameters are independent, NUTS draws from the posterior itself. Here
# all three get the same model, so that what differs is the method and nothing else.

# %%
from __future__ import annotations

import argparse
import time

import jax
import numpy as np
import pandas as pd
from numpyro.infer.util import log_density

import jaxgmm as jg

jax.config.update("jax_enable_x64", True)

parser = argparse.ArgumentParser()
parser.add_argument("--small", action="store_true", help="fewer restarts and draws")
args, _ = parser.parse_known_args()
n_init, n_draws = (8, 200) if args.small else (64, 2000)

seconds = {}


def timed(name: str, function):
    """What the function returns; its seconds, compilation included, go into the table."""
    begin = time.perf_counter()
    result = function()
    seconds[name] = time.perf_counter() - begin
    return result


# %% [markdown]
# ## One density
#
# Sepal lengths of 150 irises, two components of one variance that overlap. NumPyro's own
# log density of the model at EM's answer is the number that EM climbed to.

# %%
x = jg.datasets.load("iris", columns=["Sepal.Length"]).x
model = jg.Mixture(jg.Gaussian("tied"), n_components=2, prior="fraley-raftery")
fit = timed("EM", lambda: jg.fit(model, x, key=jax.random.key(0), n_init=n_init))
numpyro_value, _ = log_density(fit.model.numpyro_model, (x,), {}, fit.model.sites(fit.params))
print(f"log joint by EM {fit.log_joint:.10f}, by NumPyro {float(numpyro_value):.10f}")

# %% [markdown]
# ## Two posteriors
#
# Both start at the fit.

# %%
settings = {"start": fit, "n_draws": n_draws, "progress": False}
sample = lambda method, seed: jg.sample(
    fit.model, x, key=jax.random.key(seed), method=method, **settings
)
vb = timed("VB", lambda: sample("vb", 1))
nuts = timed("NUTS", lambda: sample("nuts", 2))
print(vb)
print(nuts)

# %% [markdown]
# ## Moments
#
# `vb.draws` are draws of q. Their weights (`vb.log_weights`) turn them into draws of the
# posterior where Pareto k is below 0.7, and `summary` uses them; the column q does not.

# %%
rows = {}
exact, weighed = nuts.summary(), vb.summary()
for k in range(2):
    for site in ("weights", "means"):
        name = f"{site}[{k}]" if site == "weights" else f"{site}[{k}, {fit.feature_names[0]}]"
        of_q = vb.draws[site][:, :, k].reshape(-1)
        rows[name] = {
            "MAP": float(np.ravel(fit.model.sites(fit.params)[site])[k]),
            "q": of_q.mean(),
            "NUTS": exact.loc[name, "mean"],
            "sd of q": of_q.std(),
            "sd of q, weighed": weighed.loc[name, "sd"],
            "sd by NUTS": exact.loc[name, "sd"],
        }
moments = pd.DataFrame(rows).T
moments["q / NUTS"] = moments["sd of q"] / moments["sd by NUTS"]
print(moments.round(3).to_string())
print(
    f"Pareto k {vb.pareto_k:.2f}, {vb.effective_draws:.0f} effective of {vb.log_weights.size} draws"
)

# %% [markdown]
# The means are near each other, the spreads are not: rows between the two clusters could belong
# to either, and q, which makes labels and parameters independent, does not let a component move
# when they change sides. Pareto k above 0.7 says that weights do not repair it.

# %% [markdown]
# ## The bound and the evidence
#
# The variational bound knows one of the K! labellings; log K! makes up for the others. Bridge
# sampling on the draws of NUTS estimates the evidence itself.

# %%
bound = vb.diagnostics["elbo"] + np.log(2)
evidence = timed("evidence", lambda: jg.evidence(nuts, key=jax.random.key(3)))
print(f"bound + log 2! {bound:.3f}, log evidence {evidence.log_evidence:.3f}", end=" ")
print(f"+- {evidence.error:.3f}: the bound is {evidence.log_evidence - bound:.3f} below")

# %% [markdown]
# ## Seconds
#
# The first call compiles, a second one on data of this shape does not.

# %%
first = dict(seconds)
timed("EM", lambda: jg.fit(model, x, key=jax.random.key(4), n_init=n_init))
timed("VB", lambda: sample("vb", 5))
timed("NUTS", lambda: sample("nuts", 6))
print(pd.DataFrame({"first": first, "again": seconds}).drop("evidence").round(2))
