# %% [markdown]
# # A prior of your own: standard deviations and correlations
#
# A conjugate prior ties the mean of a component to its covariance, and all variances to one
# number of degrees of freedom. What people know is often something else: where the means may
# lie, how large standard deviations are, that correlations are rather small. A dictionary of
# NumPyro distributions says just that, one for each site, in the units of the data.

# %%
from __future__ import annotations

import argparse

import jax
import numpy as np
import numpyro.distributions as dist

import jaxgmm as jg

jax.config.update("jax_enable_x64", True)

parser = argparse.ArgumentParser()
parser.add_argument(
    "--small", action="store_true", help="fewer restarts, Laplace for NUTS, no verdict"
)
args, _ = parser.parse_known_args()
n_init, method = (4, "laplace") if args.small else (16, "nuts")

# %% [markdown]
# ## The model, once
#
# Eruptions of Old Faithful last minutes, and people wait for them about an hour. Smaller shapes
# are expanded: both components have the same two distributions of means and of standard
# deviations, and one of correlation matrices (Lewandowski, Kurowicka and Joe, 2009).

# %%
x = jg.datasets.load("faithful").x
prior = {
    "weights": dist.Dirichlet(np.ones(2)),
    "means": dist.Normal(np.array([3.0, 60.0]), np.array([3.0, 30.0])),
    "scales": dist.HalfNormal(np.array([1.0, 15.0])),
    "correlations": dist.LKJ(2, 2.0),
}
model = jg.Mixture(jg.Gaussian("full"), n_components=2, prior=prior)
print(model)

# %% [markdown]
# ## A mode, and the posterior of the same density
#
# Nothing else changes. The mode is one of the density of these sites, here of standard deviations
# and correlations.

# %%
fit = jg.fit(model, x, key=jax.random.key(0), n_init=n_init)
print(fit)
for name, value in fit.model.sites(fit.params).items():
    print(name, np.round(value, 3).tolist())

# %%
post = jg.sample(fit.model, x, key=jax.random.key(1), method=method, start=fit, progress=False)
print(post)
print(post.summary().round(3))

# %%
if not args.small:
    print(jg.compare(fit, post))
    jg.report.plot_marginals(fit, post).savefig("marginals.png", dpi=120)

# %% [markdown]
# ## The same data under the conjugate prior
#
# A half-normal distribution does not keep a standard deviation away from zero, nor LKJ's a
# correlation from one: the joint density has no highest point, and MAP is a local mode, as in
# maximum likelihood. The prior of Fraley and Raftery (2007) bounds it.

# %%
conjugate = jg.Mixture(jg.Gaussian("full"), n_components=2, prior="fraley-raftery")
print("bounded:", model.bounded(), "and", conjugate.bounded())
if not args.small:
    other = jg.fit(conjugate, x, key=jax.random.key(0), n_init=n_init)
    spread = lambda fit: np.sqrt(np.diagonal(fit.params.covariances, axis1=1, axis2=2))
    print("standard deviations", np.round(spread(fit), 3).tolist())
    print("under the conjugate prior", np.round(spread(other), 3).tolist())
