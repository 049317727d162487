# %% [markdown]
# # Does EM deserve its error bars?
#
# A standard error is a promise: it is the spread of the estimate over data sets that were never
# seen. Where the truth is known they can be seen. Basford, Greenway, McLachlan and Peel (1997)
# found the errors of component means that come from the information too unstable unless the
# sample is very large, and recommended the bootstrap; O'Hagan, Murphy, Scrucca and Gormley (2019)
# compared bootstraps. Here both are asked at several sample sizes.

# %%
from __future__ import annotations

import argparse

import jax
import pandas as pd

import jaxgmm as jg

jax.config.update("jax_enable_x64", True)

parser = argparse.ArgumentParser()
parser.add_argument("--small", action="store_true", help="fewer data sets, one method")
args, _ = parser.parse_known_args()
sizes = [50] if args.small else [50, 100, 500]
n_datasets = 40 if args.small else 500
methods = ["em"] if args.small else ["em", "em-sandwich", "bootstrap", "bootstrap-parametric"]

# %% [markdown]
# ## Two components that touch, by maximum likelihood
#
# Two bivariate normals, 40% and 60%, four standard deviations apart. Every data set is fitted
# from several starts; what a method has no answer for is counted.

# %%
truth, params = jg.report.truth("touching", prior=None)
found = {
    n: jg.study(
        truth,
        params,
        n=n,
        n_datasets=n_datasets,
        methods=methods,
        key=jax.random.key(n),
        n_init=4 if args.small else 16,
    )
    for n in sizes
}
print(found[sizes[0]])

# %% [markdown]
# ## Standard errors against the spread of the estimates, and coverage
#
# One means honest. Errors are roots of mean squares, so that a few wild ones count.

# %%
means = [f"means[{k}, x{j}]" for k in range(2) for j in range(2)]
ratio = {n: s.table["ratio"].unstack("method")[methods].loc[means] for n, s in found.items()}
print(pd.concat(ratio, names=["n"]).round(2).to_string())

# %%
columns = {
    n: s.groups["coverage_0.95"].unstack("method")[methods].loc[["weights", "means", "covariances"]]
    for n, s in found.items()
}
print(pd.concat(columns, names=["n"]).round(3).to_string())

# %% [markdown]
# ## The whole story
#
# `findings` has what is off by more than Monte-Carlo error; the page has the rest.

# %%
last = found[sizes[-1]]
print(last.findings.head(10).to_string())
last.plot_coverage().savefig("coverage.png", dpi=120)
last.save("error_bars")
