# %% [markdown]
# # A panel: who responds to a treatment
#
# Patients were seen up to six times, at doses that were changed from visit to visit. Some respond
# to the dose and some do not; nobody knows who, but it may depend on age. All visits of a patient
# belong to one label (`Repeated`), and the odds of the label depend on the patient's age (`gates`).

# %%
from __future__ import annotations

import argparse

import jax
import numpy as np
import pandas as pd

import jaxgmm as jg

jax.config.update("jax_enable_x64", True)

parser = argparse.ArgumentParser()
parser.add_argument("--small", action="store_true", help="fewer patients, restarts and draws")
args, _ = parser.parse_known_args()
n, n_init, n_draws, n_warmup = (40, 4, 40, 40) if args.small else (120, 16, 300, 300)

rng = np.random.default_rng(0)
age = rng.uniform(20, 80, n).round()
responds = rng.random(n) < 1 / (1 + np.exp(0.12 * (age - 50)))
visits = pd.DataFrame({"patient": np.repeat(np.arange(n), 6), "age": np.repeat(age, 6)})
visits["dose"] = rng.uniform(0, 10, len(visits)).round(1)
slope = np.where(responds, -1.2, 0.0)[visits.patient]
visits["pressure"] = 150 + slope * visits.dose + rng.normal(0, 6, len(visits))
visits = visits[rng.random(len(visits)) < 0.8]  # some did not come
print(visits.head(8).to_string(index=False))

# %% [markdown]
# ## A row for each patient
#
# `jg.repeated` puts the visits of a patient side by side; the age, which is the same at all of
# them, stays one column at the end. A visit that was missed is a hole.

# %%
patients, m = jg.repeated(visits, by="patient", once=["age"])
print(f"{len(patients)} patients with up to {m} visits, columns {list(patients.columns)}")

# %% [markdown]
# ## How many kinds of patients
#
# A visit alone says little, all visits of a patient together say much: groups are what is counted.

# %%
lines = jg.families.Repeated(jg.families.LinearRegression(on=["dose"], response="pressure"), m)
models = [
    jg.Mixture(lines, k, prior="weak", gates=["age"]) for k in ((1, 2) if args.small else (1, 2, 3))
]
choice = jg.select(models, patients, key=jax.random.key(0), n_init=n_init, progress=False)
print(choice)

# %%
fit = jg.fit(models[1], patients, key=jax.random.key(1), n_init=n_init)
errors = jg.standard_errors(fit, patients)
print(errors)

# %% [markdown]
# Who responds was simulated, so that we can look:

# %%
there = visits.patient.unique()
steep = int(np.argmin(np.asarray(fit.params.coefficients)[:, 1]))
found = np.asarray(fit.model.predict(fit.params, patients)) == steep
print(
    f"{np.mean(found == responds[there]):.0%} of the patients are in the group they were drawn from"
)

# %% [markdown]
# ## What is known of lines and odds
#
# Gates have no conjugate prior, so NUTS draws. The odds of a response fall by 11% with each year
# of age (exp(-0.12)).

# %%
post = jg.sample(
    fit.model, patients, key=jax.random.key(2), start=fit, n_draws=n_draws, n_warmup=n_warmup,
    progress=False,
)  # fmt: skip
table = post.summary()
told = [name.startswith(("gates", "coefficients")) for name in table.index]
print(table.loc[told, ["mean", "sd", "r_hat"]].astype(float).round(3))
jg.report.plot_components(fit, post).savefig("panel.png", dpi=120)

# %% [markdown]
# ## A new patient
#
# Of age 30, with two visits: the probability of a response before and after they are looked at.

# %%
new = patients.iloc[:1].copy()
new[:] = np.nan
new["age"] = 30.0
before = np.asarray(fit.model.responsibilities(fit.params, new))[0, steep]
for r, (dose, pressure) in enumerate([(8.0, 141.0), (9.0, 138.0)]):
    new[[f"dose[{r}]", f"pressure[{r}]"]] = dose, pressure
after = np.asarray(fit.model.responsibilities(fit.params, new))[0, steep]
print(f"{before:.2f} by age alone, {after:.2f} by two visits")
