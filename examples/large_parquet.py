# %% [markdown]
# # Ten million rows in a folder of Parquet files
#
# The rows are drawn here so that the truth is known, and written file by file; no step holds all of
# them. `jg.stream` reads them in blocks: restarts run on a sample, and the best of their ends go on
# with every row, one reading per iteration of EM. Needs pyarrow (`pip install 'jaxgmm[large]'`).

# %%
from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd

import jaxgmm as jg

parser = argparse.ArgumentParser()
parser.add_argument("--small", action="store_true", help="100,000 rows and few restarts")
parser.add_argument("--rows", type=int, help="how many, ten million if nobody says")
args, _ = parser.parse_known_args()
n_rows = args.rows or (100_000 if args.small else 10_000_000)
n_files = max(4, n_rows // 250_000)
rows_per_file = n_rows // n_files
n_init = 4 if args.small else 16
D, K = 8, 4 if args.small else 16

# %% [markdown]
# ## A folder of rows
#
# Single precision: it halves what is read, and a sum over blocks loses few digits.

# %%
generator = np.random.default_rng(0)
means = generator.normal(scale=4, size=(K, D))
weights = generator.dirichlet(np.full(K, 5.0))
scales = generator.uniform(0.5, 1.5, (K, D))
folder = Path(tempfile.mkdtemp()) / "rows"
folder.mkdir()
columns = [f"feature {j}" for j in range(D)]
for number in range(n_files):
    label = generator.choice(K, rows_per_file, p=weights)
    rows = means[label] + scales[label] * generator.normal(size=(rows_per_file, D))
    table = pd.DataFrame(rows.astype(np.float32), columns=columns)
    table.to_parquet(folder / f"part-{number:03d}.parquet")

rows = jg.stream(folder)
print(rows)

# %% [markdown]
# ## The fit
#
# It is a `Fit` like any other, with the fingerprint that the same rows have in memory.

# %%
model = jg.Mixture(jg.Gaussian("full"), K)
begin = time.perf_counter()
fit = jg.fit(model, rows, key=jax.random.key(0), n_init=n_init)
print(fit)
print(f"{fit.n_rows:,} rows, {time.perf_counter() - begin:.0f} s")

# %% [markdown]
# The estimated means beside the true ones, each true one with the nearest estimate.

# %%
distance = np.linalg.norm(np.asarray(fit.params.means)[None] - means[:, None], axis=2)
print(f"furthest mean: {distance.min(axis=1).max():.3f} from its true place")

# %% [markdown]
# ## In one reading
#
# Online EM learns the rows as they come: the first ones in memory, then an M-step after every
# thousand. One more reading gives the log likelihood; nothing says how far the optimum is.

# %%
begin = time.perf_counter()
once = jg.fit(model, rows, key=jax.random.key(0), n_init=n_init, algorithm="online")
print(once)
print(f"{time.perf_counter() - begin:.0f} s, {fit.log_likelihood - once.log_likelihood:.1f} below")

# %% [markdown]
# ## Labels, block by block
#
# `rows.map` hands each block to a function of rows; here the labels are only counted.

# %%
counts = np.zeros(K, int)
for labels in rows.map(lambda x: fit.model.predict(fit.params, x)):
    counts += np.bincount(labels, minlength=K)
print("rows by component:", np.sort(counts)[::-1])
shutil.rmtree(folder.parent)
