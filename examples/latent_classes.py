# %% [markdown]
# # Latent classes with missing answers
#
# Seven pathologists said of 118 slides whether they show a carcinoma. Without knowing who is right:
# what kinds of slides are there, how does each pathologist judge them, and which slides are
# in doubt? Some of the answers are then taken away.

# %%
from __future__ import annotations

import argparse

import jax
import numpy as np
import pandas as pd

import jaxgmm as jg

jax.config.update("jax_enable_x64", True)

parser = argparse.ArgumentParser()
parser.add_argument("--small", action="store_true", help="fewer classes, restarts and draws")
args, _ = parser.parse_known_args()
n_init, n_draws = (4, 60) if args.small else (20, 1000)
counts = [2, 3] if args.small else [1, 2, 3, 4]

answers = jg.datasets.load("carcinoma").frame
gone = np.random.default_rng(0).random(answers.shape) < 0.15
x = answers.mask(gone)

# %% [markdown]
# ## How many classes
#
# BIC's n counts the slides that were seen by anybody.

# %%
models = [jg.Mixture(jg.families.Bernoulli(), k) for k in counts]
choice = jg.select(models, x, key=jax.random.key(0), n_init=n_init, progress=False)
print(choice)

# %% [markdown]
# ## Three classes
#
# Slides that all take for healthy, slides that all take for ill, and a class about which they
# differ. Probabilities of exactly 0 and 1 are fits; their errors are said to be known.

# %%
fit = jg.fit(models[counts.index(3)], x, key=jax.random.key(0), n_init=n_init)
order = np.argsort(np.asarray(fit.params.probs).mean(axis=1))
probs = pd.DataFrame(np.asarray(fit.params.probs)[order], columns=list(answers)).round(2)
probs.insert(0, "weight", np.asarray(fit.params.weights)[order].round(2))
print(probs)
print(jg.standard_errors(fit, x).status)

whole = jg.fit(fit.model, answers, start=fit.params)
same = fit.model.predict(fit.params, x) == whole.model.predict(whole.params, answers)
print(f"{np.mean(same):.0%} of the slides are in the class that the complete answers put them in")

# %% [markdown]
# ## What would they have said?
#
# The most probable answers, and how sure they are.

# %%
labels = np.asarray(fit.model.responsibilities(fit.params, x))
chance = labels @ np.asarray(fit.params.probs)
filled = np.asarray(fit.impute(x))
right = filled[gone] == answers.to_numpy()[gone]
sure = np.abs(chance - 0.5)[gone] > 0.4
print(
    f"right: {np.mean(right):.0%} of all, {np.mean(right[sure]):.0%} of the {sure.sum()} sure ones"
)

# %% [markdown]
# ## The posterior
#
# Missing answers drop out of every sum, so that Gibbs sampling has nothing to impute. Error bars
# at the edges come from a prior worth one answer.

# %%
model = jg.Mixture(jg.families.Bernoulli(), 3, prior="weak")
fit = jg.fit(model, x, key=jax.random.key(0), n_init=n_init)
post = jg.sample(
    fit.model, x, key=jax.random.key(1), start=fit, method="gibbs", n_draws=n_draws, progress=False
)
jg.report.plot_components(fit, post).savefig("profiles.png", dpi=120)
doubt = 1 - post.responsibilities().max(axis=0)
print(f"{np.sum(doubt > 0.2)} slides are in doubt")
