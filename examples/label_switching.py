# %% [markdown]
# # Label switching: what the names of components hide
#
# The density of a mixture does not change when its components are renamed, so a posterior has
# K! copies of every answer. A sampler that moves between them is right, and averages of its raw
# draws mean nothing. This notebook looks at raw draws, names them by five rules, and asks which
# names to believe.

# %%
from __future__ import annotations

import argparse
import itertools

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from arviz_stats.base import array_stats

import jaxgmm as jg

jax.config.update("jax_enable_x64", True)

parser = argparse.ArgumentParser()
parser.add_argument("--small", action="store_true", help="fewer restarts and draws")
args, _ = parser.parse_known_args()
n_init, n_draws = (8, 500) if args.small else (40, 4000)

# %% [markdown]
# ## One component too many
#
# Old Faithful has two kinds of eruption. The third of three components has no fixed place:
# where it goes the others give way, and labels are exchanged on the way.

# %%
data = jg.datasets.load("faithful")
x = (data.x - data.x.mean(axis=0)) / data.x.std(axis=0)
prior = jg.ConjugatePrior(
    concentration=2.0, mean=[0.0, 0.0], mean_precision=0.1, dof=4.0, scale=0.5 * np.eye(2)
)
model = jg.Mixture(jg.Gaussian("full"), n_components=3, prior=prior)
fit = jg.fit(model, x, key=jax.random.key(0), n_init=n_init)
post = jg.sample(
    fit.model, x, key=jax.random.key(1), method="gibbs", start=fit, n_draws=n_draws, progress=False
)
print(post)

# %% [markdown]
# ## As drawn, and named
#
# R-hat near 1 says that chains agree. The log joint has no names in it; the means have.


# %%
def r_hat(draws: np.ndarray) -> float:
    """The largest of all numbers in draws (chain, draw, ...)."""
    numbers = draws.reshape(*draws.shape[:2], -1)
    return max(float(np.asarray(array_stats.rhat(one))) for one in np.moveaxis(numbers, -1, 0))


first_means = lambda draws: np.round(draws["means"].mean(axis=(0, 1))[:, 0], 2).tolist()
print(f"R-hat: log joint {r_hat(post.log_joint):.3f}, means as drawn", end=" ")
print(f"{r_hat(post.draws_raw['means']):.3f}, with names {r_hat(post.draws['means']):.3f}")
print("average first means as drawn", first_means(post.draws_raw), end=", ")
print("with names", first_means(post.draws))

# %%
figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
titles = {"as drawn": post.draws_raw, "named by Stephens' rule": post.draws}
for axes, (title, draws) in zip(panels, titles.items(), strict=True):
    for k, colour in enumerate(["#0072B2", "#D55E00", "#009E73"]):
        line = draws["means"][:, ::4, k, 0].ravel()
        axes.plot(line, lw=0.5, color=colour, label=f"component {k}" if axes is panels[0] else None)
    axes.set(xlabel="every fourth draw, chains one after another", title=title)
panels[0].set_ylabel("mean of the first feature")
legend = figure.legend(loc="outside lower center", ncols=3, frameon=False)
for handle in legend.get_lines():
    handle.set_linewidth(2.5)
figure.savefig("label_switching.png", dpi=120)

# %% [markdown]
# ## Five rules
#
# `sample` names draws by Stephens' rule, from the responsibilities of the fit. The others start
# again from the raw draws. A draw is ambiguous where other names would suit it as well.

# %%
named = {
    "Stephens": post,
    "data-based": post.relabel("data-based", reference=fit.params),
    "ordering by first mean": post.relabel("ordering", by="means"),
    "ordering by weight": post.relabel("ordering", by="weights"),
    "ECR, pivot the fit": post.relabel("ecr", reference=fit.params),
    "pivot, the fit": post.relabel("pivot", reference=fit.params),
}


def row(other: jg.Posterior) -> dict:
    """What a rule makes of the draws, components by their average weight."""
    weights, means = other.draws["weights"], other.draws["means"][..., 0]
    order = np.argsort(weights.mean(axis=(0, 1)))
    listed = lambda values: " ".join(f"{value:.2f}" for value in values[order])
    agree = lambda names: (other.labels[..., names] == post.labels).all(axis=-1).mean()
    same = max(agree(list(names)) for names in itertools.permutations(range(3)))
    return {
        "R-hat": round(max(r_hat(weights), r_hat(other.draws["means"])), 3),
        "weights": listed(weights.mean(axis=(0, 1))),
        "sd of first means": listed(means.std(axis=(0, 1))),
        "ambiguous": f"{other.ambiguous_labels:.1%}",
        "as Stephens": f"{same:.1%}",
    }


print(pd.DataFrame({rule: row(other) for rule, other in named.items()}).T.to_string())

# %% [markdown]
# R-hat does not find the bad rules: a scrambled chain agrees with other scrambled chains. The
# share of ambiguous draws does. A pivot at the mode is the wrong reference exactly here, where
# the mode is not typical of the posterior: its components have similar weights, those of most
# draws have not.

# %%
print("the fit's weights", np.sort(np.round(fit.params.weights, 2)))
for rule, other in named.items():
    print(f"{rule:>22}: {other.label_note or 'no remark'}")

# %% [markdown]
# ## What needs no names
#
# Densities, co-clustering and sorted weights are the same for every rule.

# %%
grid = np.array([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]])
for rule in ("Stephens", "pivot, the fit"):
    print(f"{rule:>22}: log density", np.round(named[rule].log_prob(grid), 6))
