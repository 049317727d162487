# %% [markdown]
# # Measurements that were not made
#
# Lengths of 150 irises stand for the lab values of 150 patients, of which a sixth is taken away at
# random. Rows that lack one value still have the others: what does a fit to all that is there know,
# what one to the rows that are whole, and can the missing values be filled in?

# %%
from __future__ import annotations

import argparse

import jax
import numpy as np

import jaxgmm as jg

jax.config.update("jax_enable_x64", True)

parser = argparse.ArgumentParser()
parser.add_argument("--small", action="store_true", help="fewer restarts and draws")
args, _ = parser.parse_known_args()
n_init, n_draws = (4, 60) if args.small else (20, 1000)

data = jg.datasets.load("iris")
complete = data.frame
gone = np.random.default_rng(0).random(complete.shape) < 1 / 6
x = complete.mask(gone)
whole = x.dropna()
print(f"{len(whole)} of {len(x)} rows are whole, {gone.sum()} values are missing")

# %% [markdown]
# ## Three fits
#
# One structure and prior, thrice: to the rows as they were, to all that is there, and to the whole
# rows alone. The NaN need nothing of the user.

# %%
model = jg.Mixture(jg.Gaussian("tied"), 3, prior="weak")
key = jax.random.key(0)
best = jg.fit(model, complete, key=key, n_init=n_init)
fit = jg.fit(model, x, key=key, n_init=n_init)
fewer = jg.fit(model, whole, key=key, n_init=n_init)
for name, found in (("complete", best), ("with holes", fit), ("whole rows", fewer)):
    score = float(np.mean(found.model.log_prob(found.params, complete)))
    print(f"{name:10s}  log density of a complete row {score:.3f}")

species = np.unique(np.array(data.labels), return_inverse=True)[1]
for name, found, rows in (("complete", best, complete), ("with holes", fit, x)):
    labels = np.asarray(found.model.predict(found.params, rows))
    table = np.array([[np.sum((labels == k) & (species == s)) for s in range(3)] for k in range(3)])
    print(f"{name}: components by species\n{table}")

# %% [markdown]
# ## Filling in
#
# Expectations given the values that are there, against means of the columns. Distances are in
# standard deviations of a column.

# %%
spread = complete.std().to_numpy()
truth = complete.to_numpy()
by_fit = np.asarray(fit.impute(x))
by_column = x.fillna(x.mean()).to_numpy()
for name, filled in (("expectation", by_fit), ("column mean", by_column)):
    error = np.sqrt(np.mean(((filled - truth) / spread)[gone] ** 2))
    print(f"{name:12s} root mean square error {error:.2f} sd")

# %% [markdown]
# Draws of the posterior have the spread that expectations lack: 95% intervals should hold 95% of
# what was taken away.

# %%
post = jg.sample(
    fit.model, x, key=jax.random.key(1), start=fit, method="gibbs", n_draws=n_draws, progress=False
)
drawn = post.impute(jax.random.key(2)).reshape(-1, *x.shape)
low, high = np.quantile(drawn[:, gone], [0.025, 0.975], axis=0)
inside = np.mean((low < truth[gone]) & (truth[gone] < high))
print(f"{inside:.0%} of the values that were taken away are inside")
jg.report.plot_missing(post, jax.random.key(3)).savefig("missing.png", dpi=120)
