"""Makes the images of docs/figures.md: ``python docs/images/figures.py``."""

import io
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from PIL import Image

import jaxgmm as jg

jax.config.update("jax_enable_x64", True)
HERE = Path(__file__).parent


def data(name):
    found = jg.datasets.load(name)
    return pd.DataFrame(found.x, columns=list(found.feature_names))


def keep(name, figure, dpi=90):
    """As a PNG with a palette, which is a third of the size."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    image = Image.open(buffer).convert("RGB").quantize(128)
    image.save(HERE / f"{name}.png", optimize=True)


def judged(model, x):
    """A fit, draws by Gibbs, and the verdict."""
    fit = jg.fit(model, x, key=jax.random.key(0), n_init=64)
    post = jg.sample(
        fit.model, x, key=jax.random.key(1), start=fit, method="gibbs",
        n_draws=4000, thinning=8, progress=False,
    )  # fmt: skip
    return jg.compare(fit, post)


faithful = data("faithful")
faithful = (faithful - faithful.mean()) / faithful.std(ddof=0)
prior = jg.ConjugatePrior(
    concentration=2.0, mean=[0.0, 0.0], mean_precision=0.1, dof=4.0, scale=0.5 * np.eye(2)
)
verdict = judged(jg.Mixture(jg.Gaussian("full"), 3, prior=prior), faithful)
fit, post = verdict.fit, verdict.posterior
keep("components", jg.report.plot_components(fit, post))
keep("basins", jg.report.plot_basins(verdict))
keep("density", jg.report.plot_density(fit, post))
keep("marginals", jg.report.plot_marginals(fit, post), dpi=75)
keep("co_clustering", jg.report.plot_co_clustering(fit, post))
keep("uncertainty", jg.report.plot_uncertainty(fit, post), dpi=80)
keep("pairs", jg.report.plot_pairs(fit, faithful))
keep("traces", jg.report.plot_traces(fit))
keep("optima", jg.report.plot_optima(fit))
keep("predictive", jg.report.plot_predictive(post, key=jax.random.key(2)))

galaxies = judged(
    jg.Mixture(jg.Gaussian("full"), 4, prior="fraley-raftery"), data("galaxies")
)  # fmt: skip
keep("density_galaxies", jg.report.plot_density(galaxies.fit, galaxies.posterior))

grid = [jg.Mixture(jg.Gaussian(s), k) for s in ("EII", "EEE", "VVV") for k in range(1, 6)]
choice = jg.select(grid, data("faithful"), key=jax.random.key(0), progress=False)
keep("criteria", choice.plot())

iris = data("iris")
given = iris.mask(np.random.default_rng(0).random(iris.shape) < 0.15)
fit = jg.fit(jg.Mixture(jg.Gaussian(), 3, prior="weak"), given, key=jax.random.key(0), n_init=8)
post = jg.sample(
    fit.model, given, key=jax.random.key(1), start=fit, method="gibbs", n_draws=500, progress=False
)
keep("missing", jg.report.plot_missing(post, jax.random.key(2)), dpi=75)

tailed = jg.Mixture(jg.families.StudentT("diag"), 1, prior="weak")
galaxies = data("galaxies")
fit = jg.fit(tailed, galaxies, key=jax.random.key(0), n_init=1)
post = jg.sample(
    fit.model, galaxies, key=jax.random.key(1), start=fit, method="laplace", progress=False
)
keep("row_weights", jg.report.plot_row_weights(fit, post), dpi=80)

factors = jg.Mixture(jg.families.FactorAnalyser(1), 2, prior="weak")
fit = jg.fit(factors, iris, key=jax.random.key(0), n_init=8)
post = jg.sample(fit.model, iris, key=jax.random.key(1), start=fit, n_draws=300, progress=False)
keep("communalities", jg.report.plot_communalities(fit, post), dpi=80)
