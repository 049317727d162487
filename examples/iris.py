# %% [markdown]
# # Iris: choosing a structure and a number of components
#
# 150 flowers of three species, four lengths each. Which covariance structure, and how many
# components? BIC decides about a density; whether its components are the groups that a
# botanist sees is another question.

# %%
from __future__ import annotations

import argparse

import jax
import numpy as np
import pandas as pd

import jaxgmm as jg

jax.config.update("jax_enable_x64", True)

parser = argparse.ArgumentParser()
parser.add_argument("--small", action="store_true", help="two models and fewer restarts")
args, _ = parser.parse_known_args()
n_init = 8 if args.small else 50
structures = ["EEE"] if args.small else ["EEE", "VEV", "VVE", "VVV"]
counts = [2, 4] if args.small else [1, 2, 3, 4, 5]

# %% [markdown]
# ## The grid
#
# Codes are mclust's: is the volume, the shape, the orientation of the components Equal or does
# it Vary? The species are not used.

# %%
data = jg.datasets.load("iris")
x = pd.DataFrame(data.x, columns=list(data.feature_names))
models = [jg.Mixture(jg.Gaussian(s), k) for s in structures for k in counts]
choice = jg.select(
    models, x, key=jax.random.key(0), criteria=("bic", "icl"), n_init=n_init, progress=False
)
print(choice)
choice.plot().savefig("criteria.png", dpi=120)

# %% [markdown]
# ## Components and species

# %%
species = pd.Series(data.labels, name="species")
labels = np.asarray(choice.best.model.predict(choice.best.params, data.x))
print(choice.best.model)
print(pd.crosstab(species, pd.Series(labels, name="component")))

# %% [markdown]
# ## Three components
#
# The best model among those with as many components as there are species.

# %%
k = 4 if args.small else 3
ranked = [choice.fits[i] for i in choice.ranking]
three = next(fit for fit in ranked if fit.model.n_components == k)
labels = np.asarray(three.model.predict(three.params, data.x))
print(three.model, f"BIC {three.bic:.2f}, {three.bic - choice.best.bic:.2f} above the best")
print(pd.crosstab(species, pd.Series(labels, name="component")))

# %% [markdown]
# ## Merging
#
# A group that is no Gaussian takes several components. `merge_components` joins them into
# clusters, each time the two whose union makes the labels most certain; the density stays. What
# is certain here are two clusters, setosa and the rest.

# %%
many = next(fit for fit in ranked if fit.model.n_components == counts[-1])
tree = jg.merge_components(many, x)
print(many.model)
print(tree)
tree.plot().savefig("entropies.png", dpi=120)

# %%
for n_clusters in (3, 2):
    clusters = pd.Series(tree.predict(n_clusters), name=f"{n_clusters} clusters")
    print(pd.crosstab(species, clusters))
