# %% [markdown]
# # Noisy stars: the distribution behind what was measured
#
# Velocities of stars are measured with errors, and everybody says how large each is. A mixture
# fitted to what was measured is one of velocities and errors together: too wide, and in directions
# that the errors have. With the covariance of each row's noise the mixture is that of the
# velocities themselves (extreme deconvolution; Bovy, Hogg and Roweis, 2011).

# %%
from __future__ import annotations

import argparse

import jax
import numpy as np

import jaxgmm as jg

jax.config.update("jax_enable_x64", True)

parser = argparse.ArgumentParser()
parser.add_argument("--small", action="store_true", help="fewer stars and draws, no figure")
args, _ = parser.parse_known_args()
n, n_draws = (150, 100) if args.small else (600, 1000)

# %% [markdown]
# ## Simulated stars
#
# A disc and a moving group. Errors are several times larger for faint stars than for bright ones,
# and those of the two components of a velocity are correlated.

# %%
rng = np.random.default_rng(1)
in_group = rng.random(n) < 0.3
disc = rng.multivariate_normal([0, -15], [[35.0**2, 200], [200, 20.0**2]], n)
group = rng.multivariate_normal([40, -60], [[5.0**2, 0], [0, 5.0**2]], n)
velocities = np.where(in_group[:, None], group, disc)
size = rng.uniform(2, 25, (n, 1, 1))
noise = size**2 * np.array([[1.0, 0.6], [0.6, 1.0]])
errors = np.einsum("nij,nj->ni", np.linalg.cholesky(noise), rng.normal(size=(n, 2)))
measured = velocities + errors

# %% [markdown]
# ## The same model, with and without the noise
#
# `jg.rows` puts the noise beside the rows; nothing else changes. The parameters are those of the
# velocities without errors.

# %%
model = jg.Mixture(jg.Gaussian(), 2, prior="fraley-raftery")
stars = jg.rows(measured, noise=noise)
fit = jg.fit(model, stars, key=jax.random.key(0))
naive = jg.fit(model, measured, key=jax.random.key(0))
for name, found in (("as measured", naive), ("deconvolved", fit)):
    narrow = int(np.argmin(np.linalg.det(found.params.covariances)))
    width = np.sqrt(np.diagonal(found.params.covariances[narrow]))
    share = float(found.params.weights[narrow])
    print(f"{name}: the group has {share:.0%} of the stars, widths {np.round(width, 1)}")
print(f"truth:       the group has {in_group.mean():.0%} of the stars, widths [5. 5.]")

# %% [markdown]
# ## The velocity of each star
#
# What a star was measured at and where stars are say together what its velocity is.

# %%
found = np.asarray(fit.impute(stars))
apart = lambda x: np.sqrt(np.mean((x - velocities) ** 2))
print(f"root mean square error, measured {apart(measured):.1f}, deconvolved {apart(found):.1f}")

# %% [markdown]
# ## The posterior, and new stars
#
# Gibbs sampling draws every velocity; NUTS, SMC and Laplace integrate them out. New rows are drawn
# with the noise of the rows that are given.

# %%
post = jg.sample(
    fit.model, stars, key=jax.random.key(1), method="gibbs", start=fit, n_draws=n_draws,
    progress=False,
)  # fmt: skip
low, high = np.quantile(np.asarray(post.draws["weights"]).min(axis=-1), [0.025, 0.975])
print(f"share of the smaller component, 95% of the posterior: {low:.2f} to {high:.2f}")
again = np.asarray(fit.model.sample(fit.params, jax.random.key(2), n, given=stars))[:, :2]
print(
    f"spread of new stars as measured {again.std(0).round(1)}, of these {measured.std(0).round(1)}"
)
if not args.small:
    jg.report.plot_components(fit, post).savefig("noisy_stars.png")
