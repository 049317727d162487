"""Python that does it all again, for reports."""

from __future__ import annotations

import numpy as np

from jaxgmm._contract import LatentModel
from jaxgmm.bayes import Posterior


def key_code(seed: tuple[int, ...] | None) -> str:
    """The random key that has these numbers; any where they are not known."""
    if seed is None:
        return "jax.random.key(0)"
    if len(seed) == 2 and seed[0] == 0:
        return f"jax.random.key({seed[1]})"
    return f'jax.random.wrap_key_data(jax.numpy.array({list(seed)}, "uint32"))'


def quoted(name: str) -> str:
    return f'"{name}"'


def model_code(model: LatentModel) -> str:
    """Python that makes the model."""
    return model.describe().code(model.n_components)


def snippet(model: LatentModel, calls: list[str], post: Posterior) -> str:
    """Python that makes the comparison again, the data left to the reader."""
    shape = " x ".join(map(str, np.shape(post.x)))
    weights = "" if post.sample_weight is None else "\nsample_weight = ...  # a number per row"
    wide = np.asarray(post.x).dtype == np.float64
    switch = 'jax.config.update("jax_enable_x64", True)\n' if wide else ""
    made = model_code(model)
    numpy = "import numpy as np\nimport numpyro.distributions as dist\n" if "dist." in made else ""
    return (
        f"import jax\nimport jaxgmm as jg\n{numpy}\n{switch}"
        f"x = ...  # the data, {shape}, fingerprint {post.fingerprint[:12]}{weights}\n"
        f"model = {made}\n" + "\n".join(calls) + "\n"
    )
