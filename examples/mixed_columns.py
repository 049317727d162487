# %% [markdown]
# # Columns of several kinds
#
# A table of customers has numbers with outliers, counts and words, and cells that are empty. Which
# groups are there, and what tells them apart? The data are simulated, so that the answer is known.

# %%
from __future__ import annotations

import argparse

import jax
import numpy as np
import pandas as pd

import jaxgmm as jg

jax.config.update("jax_enable_x64", True)

parser = argparse.ArgumentParser()
parser.add_argument("--small", action="store_true", help="fewer rows and restarts")
args, _ = parser.parse_known_args()
n, n_init = (150, 2) if args.small else (1000, 20)

rng = np.random.default_rng(0)
often = rng.random(n) < 0.35
customers = pd.DataFrame(
    {
        "spent": np.where(often, 60, 30) + 8 * rng.standard_t(3, n),
        "age": rng.normal(np.where(often, 52, 44), 9),
        "visits": rng.poisson(np.where(often, 9, 3)).astype(float),
        "pays": np.where(rng.random(n) < np.where(often, 0.8, 0.3), "card", "cash"),
        "found us": rng.choice(["friends", "search", "street"], n),
    }
)
customers = customers.mask(rng.random(customers.shape) < 0.1)
print(customers.head())

# %% [markdown]
# ## One family for each column
#
# Numbers in one family are correlated within a group; t components do not let outliers widen it.

# %%
family = jg.families.Product(
    {
        ("spent", "age"): jg.families.StudentT(),
        "visits": jg.families.Poisson(),
        "pays": jg.families.Bernoulli(),
        "found us": jg.families.Categorical(levels=3),
    }
)
model = jg.Mixture(family, 2, prior="weak")
fit = jg.fit(model, customers, key=jax.random.key(0), n_init=n_init)
print(fit)
for name, site in fit.model.sites(fit.params).items():
    print(name, np.asarray(site).round(2).tolist())

labels = np.asarray(fit.model.predict(fit.params, customers))
agree = np.mean(labels == often)
print(f"{max(agree, 1 - agree):.0%} of the customers are in their group")
jg.report.plot_pairs(fit, customers).savefig("groups.png", dpi=120)

# %% [markdown]
# ## Words back
#
# Empty cells as they most probably were, and new customers drawn from the model.

# %%
print(fit.model.table(fit.impute(customers)).head())
print(fit.model.table(fit.model.sample(fit.params, jax.random.key(1), 3)))

# %% [markdown]
# ## Who is unusual
#
# Outliers count little in the M-step of t components.

# %%
weights = np.asarray(fit.model.row_weights(fit.params, customers))
for i in np.argsort(weights)[:3]:
    print(f"{weights[i]:.2f}", customers.iloc[i].to_dict())
