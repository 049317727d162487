"""Every float32 product of the library is one of float32: by default GPUs keep ten bits of them."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density

import jaxgmm as jg
from jaxgmm._programs import _store as _programs

PRODUCT = re.compile(r"stablehlo\.dot(?:_general)?\b.*tensor<[0-9x]*f32>")


def rounded(text: str) -> list[str]:
    """Products of float32 in a lowered program that do not name their precision."""
    products = [line for line in text.splitlines() if PRODUCT.search(line)]
    return [line for line in products if "precision = [HIGHEST, HIGHEST]" not in line]


def rows(n: int = 60, d: int = 2) -> jax.Array:
    x = np.random.default_rng(4).standard_normal((n, d)) + 6 * (np.arange(n) % 2)[:, None]
    return jnp.asarray(x, jnp.float32)


def model_of(structure: str, prior: Any) -> jg.Mixture:
    return jg.Mixture(jg.Gaussian(structure), 2, prior=prior).resolve(rows())


def start_of(model: jg.Mixture) -> Any:
    means = jnp.asarray([[0.0, 0.0], [6.0, 6.0]], jnp.float32)
    covariances = jnp.broadcast_to(jnp.eye(2, dtype=jnp.float32), (2, 2, 2))
    return model.params(weights=jnp.full(2, 0.5, jnp.float32), means=means, covariances=covariances)


def lowered(function: Callable[..., Any], *args: Any) -> str:
    text = jax.jit(function).lower(*args).as_text()
    assert PRODUCT.search(text)
    return text


def test_a_product_that_names_nothing_is_seen():
    x = rows()
    assert rounded(lowered(lambda x: x.T @ x, x))
    assert not rounded(lowered(lambda x: jnp.matmul(x.T, x, precision="highest"), x))


FAST = ("VVV", "VVI", "EEE")


@pytest.mark.parametrize(
    "structure",
    [pytest.param(s, marks=[] if s in FAST else pytest.mark.slow) for s in jg.model.STRUCTURES],
)
def test_the_loop_in_a_program_of_the_users(structure: str):
    model = model_of(structure, "fraley-raftery")
    run = lambda x, start: jg.em.run(model, x, start, max_iter=5)
    assert not rounded(lowered(run, rows(), start_of(model)))


@pytest.mark.parametrize("structure", ["VVV", "VVI", "VII", "EEE"])
def test_the_density_in_numpyros_hands(structure: str):
    model = model_of(structure, "fraley-raftery")
    sites = model.sites(start_of(model))
    density = lambda sites, x: log_density(model.numpyro_model, (x,), {}, sites)[0]
    assert not rounded(lowered(jax.value_and_grad(density), sites, rows()))


@pytest.mark.slow
def test_programs_that_the_host_calls(monkeypatch: pytest.MonkeyPatch):
    """Of the main job: fit, draws of each kind, comparison, selection, errors."""
    texts: dict[str, str] = {}
    run = _programs._Compiled.__call__

    def seen(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self._ready or self._run.__name__ not in texts:
            texts[self._run.__name__] = self._run.lower(*args, **kwargs).as_text()
        return run(self, *args, **kwargs)

    monkeypatch.setattr(_programs._Compiled, "__call__", seen)
    x, keys = rows(), iter(jax.random.split(jax.random.key(0), 8))
    few: Any = {"n_chains": 2, "n_draws": 20, "n_warmup": 20, "progress": False}
    fit = jg.fit(model_of("full", "fraley-raftery"), x, key=next(keys), n_init=2)
    jg.em.standard_errors(fit, x)
    for method in ("nuts", "gibbs"):
        post = jg.sample(fit.model, x, key=next(keys), method=method, start=fit, **few)
    jg.compare(fit, post)
    assert len(texts) > 20
    assert not {name: found for name, text in texts.items() if (found := rounded(text))}
