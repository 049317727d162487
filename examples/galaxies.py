# %% [markdown]
# # Galaxies: how many components?
#
# The velocities of 82 galaxies come in clumps, and how many there are has been asked of
# mixtures since Roeder (1990). This notebook asks with information criteria, looks at optima
# that no criterion should trust, and ends with a posterior over the number of components.

# %%
from __future__ import annotations

import argparse

import jax
import numpy as np
import pandas as pd

import jaxgmm as jg

jax.config.update("jax_enable_x64", True)

parser = argparse.ArgumentParser()
parser.add_argument("--small", action="store_true", help="fewer models, restarts and draws")
args, _ = parser.parse_known_args()
n_init, n_draws = 64, 200 if args.small else 2000
structures = ["V"] if args.small else ["E", "V"]
asked = [5] if args.small else [1, 2, 3, 4, 5, 6]
weighed = [3] if args.small else [3, 4, 5, 6]

# %% [markdown]
# ## Maximum likelihood and BIC
#
# One common variance (E) or one for each component (V). Lower is better.

# %%
x = jg.datasets.load("galaxies").x
models = [jg.Mixture(jg.Gaussian(s), k) for s in structures for k in asked]
choice = jg.select(models, x, key=jax.random.key(0), n_init=n_init, progress=False)
print(choice)
choice.plot().savefig("criteria.png", dpi=120)

# %% [markdown]
# ## Optima that hang on two galaxies
#
# With five variances the likelihood has no upper bound: a component may shrink around two
# velocities that nearly coincide. Such ends score best and say nothing. `select` sets them aside
# and says so above; the fit keeps them all.

# %%
five = next(f for f in choice.fits if f.model.n_components == 5 and f.model.family.structure == "V")
print(five.optima_table.head(8).round(3).to_string(index=False))

# %% [markdown]
# The highest of all, and the component that it owes its height to:

# %%
top = int(np.nanargmax(five.restarts.log_likelihood))
end = jax.tree.map(lambda leaf: np.asarray(leaf[top]), five.restarts.params)
tight = int(np.argmin(end.covariances[:, 0, 0]))
print(
    f"log likelihood {five.restarts.log_likelihood[top]:.2f}: {82 * end.weights[tight]:.1f} of 82 "
    f"galaxies at {end.means[tight, 0]:.3f} with sd {end.covariances[tight, 0, 0] ** 0.5:.4f}; "
    f"the fit has {five.log_likelihood:.2f}"
)

# %% [markdown]
# ## A posterior over K
#
# A prior makes the question one of probabilities. The evidence p(x | K) comes from bridge
# sampling on Gibbs draws, with all K! labellings; numbers of components are equally probable a
# priori. A component has a variance of about 1 (inverse gamma, mode 2/3, mean 2), and its mean
# lies about 21, within so many times its standard deviation.


# %%
def evidence(k: int, spread: float, key) -> tuple[float, float]:
    """log p(x | K) under unequal variances, and its error."""
    prior = jg.ConjugatePrior(mean=[21.0], mean_precision=spread**-2, dof=4.0, scale=[[4.0]])
    model = jg.Mixture(jg.Gaussian("V"), k, prior=prior)
    keys = jax.random.split(key, 3)
    fit = jg.fit(model, x, key=keys[0])
    post = jg.sample(
        fit.model, x, key=keys[1], method="gibbs", start=fit, n_draws=n_draws, progress=False
    )
    found = jg.evidence(post, key=keys[2])
    return found.log_evidence, found.error


rows = {}
for spread in (10.0, 30.0):
    for k in weighed:
        rows[spread, k] = evidence(k, spread, jax.random.key(k))
table = pd.DataFrame.from_dict(rows, orient="index", columns=["log_evidence", "error"])
table.index = pd.MultiIndex.from_tuples(rows, names=["spread", "K"])
relative = np.exp(table["log_evidence"] - table.groupby("spread")["log_evidence"].transform("max"))
table["probability"] = relative / relative.groupby("spread").transform("sum")
print(table.round(3))
