"""Results on disk: every number back bit for bit, and files that are something else refused."""

import dataclasses
import io
import json
import os
import pathlib
import subprocess
import sys
import zipfile
from typing import NamedTuple

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr

import jaxgmm as jg
from jaxgmm.files import _archive

X = np.random.default_rng(3).standard_normal((40, 2)) + 5 * (np.arange(40) % 2)[:, None]
CONJUGATE = jg.ConjugatePrior(mean=[0.0, 0.0], mean_precision=0.1, dof=4.0, scale=np.eye(2))
BY_SITE = {
    "weights": dist.Dirichlet(np.array([2.0, 3.0])),
    "means": dist.Normal(0, 5),
    "scales": dist.HalfNormal(2),
    "correlations": dist.LKJ(2, 1.5),
}
PRIORS = {
    "none": None,
    "fraley-raftery": "fraley-raftery",
    "conjugate": CONJUGATE,
    "sticks": dataclasses.replace(CONJUGATE, stick_breaking=True),
    "by site": BY_SITE,
    "expanded": BY_SITE | {"means": dist.StudentT(4.0, 0.0, 9.0).expand((2,)).to_event(1)},
}


def fitted(structure="full", prior="fraley-raftery", dtype="float64", **model):
    made = jg.Mixture(jg.Gaussian(structure), 2, prior=prior, **model)
    return jg.fit(made, X.astype(dtype), key=jax.random.key(0), n_init=2, max_iter=40)


def same(one, other):
    """Kind by kind and bit by bit."""
    assert type(one) is type(other)
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    elif isinstance(one, (jax.Array, np.ndarray, np.generic)):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    elif dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            same(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for name in one:
            same(one[name], other[name])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    elif isinstance(one, dist.Distribution):
        same(jax.tree.leaves(one), jax.tree.leaves(other))
        assert jax.tree.structure(one) == jax.tree.structure(other)
    else:
        np.testing.assert_equal(one, other)


def returned(value, tmp_path, own=()):
    path = value.save(tmp_path / "kept.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["kept.npz"]
    again = jg.load(path, own)
    same(again, value)
    return again


@pytest.mark.parametrize(
    "prior",
    [pytest.param(p, marks=pytest.mark.slow) if p == "expanded" else p for p in PRIORS],
)
def test_a_fit_comes_back_under_every_prior(prior, tmp_path):
    fit = fitted(prior=PRIORS[prior])
    again = returned(fit, tmp_path)
    assert repr(again) == repr(fit)
    assert float(again.model.log_joint(again.params, X)) == float(
        fit.model.log_joint(fit.params, X)
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("structure", jg.model.STRUCTURES)
def test_a_fit_comes_back_in_every_structure(structure, dtype, tmp_path):
    returned(fitted(structure, dtype=dtype), tmp_path)


FAMILIES = {
    "conjugate": (jg.families.Poisson(), "weak"),
    "without a prior": (jg.families.Bernoulli(), None),
    "numerical": (jg.families.Gamma(), "weak"),
    "a distribution": (
        jg.families.Custom(dist.Exponential, rate=dist.constraints.positive),
        "weak",
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_other_families_come_back(name, tmp_path):
    family, prior = FAMILIES[name]
    x = np.arange(1.0, 13)[:, None] % (2 if name == "without a prior" else 5)
    model = jg.Mixture(family, 1, prior=prior)
    rows = x + 1 if name in ("numerical", "a distribution") else x
    returned(jg.fit(model, rows, key=jax.random.key(0), n_init=1), tmp_path)


UNIT = np.array([0.2, 0.7, 0.4, 0.9, 0.6, 0.3])
SLOPED = np.column_stack([np.arange(6.0), UNIT])
# What a family is made of, and rows that suit it, where it is not plain numbers between 0 and 1.
MADE_OF = {
    "Bernoulli": ((), np.round(UNIT)),
    "Binomial": ((4,), np.round(UNIT)),
    "Categorical": ((3,), np.round(UNIT)),
    "LinearRegression": (([0],), SLOPED),
    "LogisticRegression": (([0],), np.round(SLOPED)),
    "Multinomial": ((), np.array([[2, 1], [1, 2], [3, 0], [0, 3]], float)),
    "NegativeBinomial": ((), np.round(UNIT)),
    "Poisson": ((), np.round(UNIT)),
    "PoissonRegression": (([0],), np.round(SLOPED)),
    "Product": (
        ({"a": jg.Gaussian(), "b": jg.families.StudentT()},),
        pd.DataFrame(SLOPED, columns=["a", "b"]),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("prior", [None, "weak"])
@pytest.mark.parametrize(
    "name", sorted(set(jg.families.__all__) - {"Custom", "Gaussian", "MixtureParams"})
)
def test_every_family_comes_back(name, prior, tmp_path):
    options, x = MADE_OF.get(name, ((), UNIT))
    model = jg.Mixture(getattr(jg.families, name)(*options), 1, prior=prior)
    returned(jg.fit(model, x, key=jax.random.key(0), n_init=1, max_iter=5), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("structure", jg.model.STRUCTURES)
def test_t_components_come_back_in_every_structure(structure, tmp_path):
    model = jg.Mixture(jg.families.StudentT(structure), 2, prior="weak")
    returned(jg.fit(model, X, key=jax.random.key(0), n_init=1, max_iter=5), tmp_path)


F = jg.families
TABLE = pd.DataFrame(
    {
        "y": X[:, 0],
        "z": X[:, 1],
        "w": np.random.default_rng(4).standard_normal(40),
        "count": np.arange(40) % 5,
        "sex": np.arange(40) % 3 // 2,
    }
)
BOTH = F.Product({("y", "z", "w"): F.FactorAnalyser(1), "count": F.Poisson()})
# What stands around families, and priors by site of several: model and its columns of the table.
AROUND = {
    "gates": (jg.Mixture(F.Poisson(), 2, gates=["sex"], prior="weak"), ["count", "sex"]),
    "gates of lines": (
        jg.Mixture(F.LinearRegression(on=["z"], response="y"), 2, gates=["sex"]),
        ["y", "z", "sex"],
    ),
    "repeats": (jg.Mixture(F.Repeated(F.Poisson(), 2), 2, prior="weak"), ["count", "sex"]),
    "factors beside counts": (jg.Mixture(BOTH, 2, prior="weak"), ["y", "z", "w", "count"]),
    "sites of a product": (
        jg.Mixture(
            F.Product({"count": F.Poisson(), "sex": F.Bernoulli()}),
            2,
            prior={
                "weights": dist.Dirichlet(np.array([2.0, 3.0])),
                "count.rates": dist.Gamma(2.0, 0.5),
                "sex.probs": dist.Beta(2.0, 2.0),
            },
        ),
        ["count", "sex"],
    ),
    "tails and background": (
        jg.Mixture(F.StudentT(), 3, prior="weak", background=jg.Uniform()),
        ["y", "z"],
    ),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.turn] * (n != "sites of a product")) for n in AROUND],
)
def test_what_stands_around_families_comes_back(name, tmp_path):
    model, columns = AROUND[name]
    fit = jg.fit(model, TABLE[columns], key=jax.random.key(0), n_init=1, max_iter=5)
    again = returned(fit, tmp_path)
    assert repr(again) == repr(fit)
    if model.prior == "weak":
        few = {"n_draws": 20, "n_chains": 2, "progress": False}
        post = jg.sample(
            fit.model, TABLE[columns], key=jax.random.key(1), method="laplace", start=fit, **few
        )
        returned(post, tmp_path)


# -- code of one's own ------------------------------------------------------------------


class Point(NamedTuple):
    weights: jax.Array
    rates: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Counts(jg.NumericalModel):
    """Two Poisson components, the parameters of a kind of their own."""

    rate: jax.Array
    n_components = 2

    def prior_sites(self):
        rates = dist.Gamma(2.0, self.rate).expand([2]).to_event(1)
        return {"weights": lambda _: dist.Dirichlet(np.full(2, 2.0)), "rates": lambda _: rates}

    def sites(self, params):
        return params._asdict()

    def from_sites(self, sites):
        return Point(sites["weights"], sites["rates"])

    def logits(self, params, x):
        rows = dist.Poisson(params.rates[:, None]).log_prob(x[:, 0])
        return jax.numpy.log(params.weights)[:, None] + rows


def counted(x, rate=0.5):
    weights = numpyro.sample("weights", dist.Dirichlet(np.full(2, 2.0)))
    rates = numpyro.sample("rates", dist.Gamma(2.0, rate).expand([2]).to_event(1))
    with numpyro.plate("rows", len(x)):
        label = numpyro.sample("label", dist.Categorical(weights))
        numpyro.sample("x", dist.Poisson(rates[label]), obs=x)


def waits(rate):
    return dist.Exponential(rate)


COUNTED = np.array([0.0, 1, 1, 2, 6, 7, 9, 8])
# What makes the model, its code, and how it is sampled.
OWN = {
    "function": (
        lambda: jg.Mixture(F.Custom(waits, rate=dist.constraints.positive), 1),
        [waits],
        None,
    ),
    "model": (lambda: Counts(np.asarray(0.5)), [Counts, Point], "laplace"),
    "program": (lambda: jg.from_numpyro(counted, COUNTED, rate=0.4), [counted], "nuts"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.turn] * (n != "function")) for n in OWN]
)
def test_code_of_ones_own_is_named_and_handed_over(name, tmp_path):
    make, own, method = OWN[name]
    model = make()
    x = COUNTED + 1 if name == "function" else COUNTED
    fit = jg.fit(model, x, key=jax.random.key(0), n_init=2, max_iter=20)
    again = returned(fit, tmp_path, own)
    assert again.model.log_joint(again.params, x) == fit.model.log_joint(fit.params, x)
    with pytest.raises(ValueError, match=rf"own=\[.*{own[0].__qualname__}"):
        jg.load(tmp_path / "kept.npz", own[1:])
    if method is not None:
        few = {"n_draws": 20, "n_chains": 2, "progress": False}
        post = jg.sample(fit.model, x, key=jax.random.key(1), method=method, start=fit, **few)
        returned(post, tmp_path, own)


def test_other_code_is_refused(tmp_path):
    family = F.Custom(lambda rate: dist.Exponential(rate), rate=dist.constraints.positive)
    with pytest.raises(TypeError, match=r"custom\.function: .*functions with a name"):
        _archive.save(family, tmp_path / "family.npz")
    assert not list(tmp_path.iterdir())
    with pytest.raises(TypeError, match="own: needs classes and functions, found str"):
        jg.load(tmp_path / "any.npz", own=["Counts"])


def test_a_class_that_has_changed_since_is_refused(tmp_path):
    def make(**fields):
        kind = dataclasses.make_dataclass("Kind", fields.items())
        kind.__module__ = "of_ones_own"
        return kind

    before, since = make(x=float), make(x=float, y=float)
    path = _archive.save(before(1.5), tmp_path / "kept.npz")
    assert jg.load(path, own=[before]) == before(1.5)
    with pytest.raises(ValueError, match="has a Kind of another version of your code"):
        jg.load(path, own=[since])


# -- rows, posteriors, choices ----------------------------------------------------------

HOLES = np.where(np.arange(80).reshape(40, 2) % 7, X, np.nan)
WORDS = pd.DataFrame({"size": X[:, 0], "kind": pd.Categorical(["a", "b", "c", "b"] * 10)})
WORDS.loc[3, "kind"] = np.nan
BY_KIND = F.Product({"size": jg.Gaussian(), "kind": F.Categorical(3)})
LINE = F.LinearRegression(on=[0])
ALL_THAT_GOES_WITH_ROWS = {
    "holes": (jg.Mixture(jg.Gaussian(), 2, prior="weak"), HOLES, "gibbs"),
    "words": (jg.Mixture(BY_KIND, 2, prior="weak"), WORDS, "gibbs"),
    "noise": (jg.Mixture(jg.Gaussian(), 2, prior="weak"), jg.rows(X, noise=0.1 * X**2), "gibbs"),
    "background": (jg.Mixture(LINE, 2, prior="weak", background=jg.Uniform()), X, "laplace"),
}


@pytest.mark.turn
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n != "words")) for n in ALL_THAT_GOES_WITH_ROWS],
)
def test_rows_of_every_kind_come_back_with_their_posterior(name, tmp_path):
    model, x, method = ALL_THAT_GOES_WITH_ROWS[name]
    fit = jg.fit(model, x, key=jax.random.key(0), n_init=1, max_iter=30)
    returned(fit, tmp_path)
    few = {"n_draws": 20, "n_chains": 2, "progress": False}
    post = jg.sample(fit.model, x, key=jax.random.key(1), method=method, start=fit, **few)
    again = returned(post, tmp_path)
    np.testing.assert_array_equal(again.log_prob(x), post.log_prob(x))


@pytest.mark.parametrize("weights", ["equal", pytest.param([0.3, 0.7], marks=pytest.mark.turn)])
def test_fixed_weights_come_back(weights, tmp_path):
    returned(fitted(prior=None, weights=weights), tmp_path)


@pytest.mark.turn
def test_what_streams_gave_comes_back_and_goes_on(tmp_path):
    model, few = jg.Mixture(jg.Gaussian(), 2, prior="weak"), {"n_chains": 2, "n_draws": 20}
    for algorithm in ("em", "online"):
        rows = jg.stream(X, block_rows=20)
        options = {"algorithm": algorithm, "subsample": 30, "n_init": 1}
        fit = jg.fit(model, rows, key=jax.random.key(0), **options)
        again = returned(fit, tmp_path)
        same(again.update(X[:10]).params, fit.update(X[:10]).params)
    for method in ("gibbs", "vb", "laplace"):
        rows = jg.stream(X, block_rows=20)
        post = jg.sample(
            fit.model, rows, key=jax.random.key(1), method=method, progress=False, **few
        )
        returned(post, tmp_path)


@pytest.mark.turn
def test_a_posterior_comes_back_and_goes_on(tmp_path):
    fit = fitted()
    x = pd.DataFrame(X, columns=["a", "b"], index=pd.Index([f"row {i}" for i in range(len(X))]))
    few = {"n_chains": 2, "n_draws": 20, "n_warmup": 10, "progress": False}
    post = jg.sample(fit.model, x, key=jax.random.key(1), method="gibbs", start=fit, **few)
    again = returned(post, tmp_path)
    verdict, other = jg.compare(fit, post), jg.compare(fit, again)
    same(other.table, verdict.table)
    assert other.summary == verdict.summary
    returned(verdict, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["nuts", "laplace", "vb", "svi", "smc"])
def test_posteriors_of_every_engine_come_back(method, tmp_path):
    fit = fitted()
    few = {"n_chains": 2, "n_draws": 40, "progress": False}
    returned(
        jg.sample(fit.model, X, key=jax.random.key(1), method=method, start=fit, **few), tmp_path
    )


def test_a_posterior_in_a_netcdf_file(tmp_path):
    """ArviZ reads its groups there, and `load` all of it; also after another program's copy."""
    fit = fitted()
    post = jg.sample(fit.model, X, key=jax.random.key(1), method="laplace", start=fit, n_draws=8)
    path = post.save(tmp_path / "post.nc")
    with xr.open_datatree(path) as tree:
        np.testing.assert_array_equal(tree["observed_data"]["x"], X)
        tree.load().to_netcdf(tmp_path / "copy.nc")
    same(jg.load(path), post)
    same(jg.load(tmp_path / "copy.nc"), post)
    whole = path.read_bytes()
    for size in (0, 5, len(whole) // 3, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="no file of jaxgmm's, or one that is truncated"):
            jg.load(path)
    post.to_arviz().to_netcdf(str(path))
    with pytest.raises(ValueError, match="no file of jaxgmm's"):
        jg.load(path)
    with pytest.raises(FileNotFoundError):
        jg.load(tmp_path / "none.nc")
    same(jg.load(fit.save(tmp_path / "fit.nc")), fit)


def test_a_selection_comes_back(tmp_path):
    models = [jg.Mixture(jg.Gaussian("tied"), k) for k in (1, 2)]
    choice = jg.select(models, X, key=jax.random.key(0), n_init=2)
    again = returned(choice, tmp_path)
    assert again.best.bic == choice.best.bic


def test_the_arrays_are_numpys(tmp_path):
    path = fitted().save(tmp_path / "fit.npz")
    with np.load(path, allow_pickle=False) as arrays:
        names = [name for name in arrays.files if name != "record.json"]
        assert any(np.array_equal(arrays[name], fitted().trace) for name in names)


# -- files of other versions ---------------------------------------------------------


def kept(version):
    return pathlib.Path(__file__).parent / "data" / f"kept-{version}.npz"


@pytest.mark.parametrize("version", ["3.11", "3.13"])
def test_a_file_of_another_python_and_its_libraries_is_read(version, tmp_path):
    verdict = jg.load(kept(version))
    fit, post = verdict.fit, verdict.posterior
    np.testing.assert_allclose(fit.model.log_joint(fit.params, X), fit.log_joint, rtol=1e-12)
    near = [post.summary().loc["means[0, x0]", "mean"], verdict.table.loc["means[0, x0]", "mean"]]
    np.testing.assert_allclose(near, post.draws["means"][..., 0, 0].mean(), rtol=1e-12)
    np.testing.assert_allclose(fit.log_joint, fitted().log_joint, rtol=1e-9)
    returned(verdict, tmp_path)


# -- what is refused -----------------------------------------------------------------


def archive(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, content in members.items():
            # Of the same bytes whenever it is made: tests are named by them.
            made.writestr(zipfile.ZipInfo(name.replace("_", ".")), content)
    return buffer.getvalue()


def record(**changes):
    return archive(record_json=json.dumps({"format": "jaxgmm", "version": 1, "value": 1} | changes))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no file of jaxgmm's"),
        (b"x0,x1\n1,2\n", "no file of jaxgmm's"),
        (archive(a_npy=b""), "not one of jaxgmm's"),
        (archive(record_json="{}"), "not one of jaxgmm's"),
        (archive(record_json="[1"), "damaged"),
        (record(version=99), "newer jaxgmm"),
        (record(value={"kind": "Popen", "parts": {"args": "true"}}), "'Popen', which"),
        (record(value={"numpyro": "__loader__", "arguments": {}}), "'__loader__', which"),
        (record(value={"numpy": "a0", "scalar": False}), "damaged"),
    ],
)
def test_what_is_no_result_is_refused(content, says, tmp_path):
    path = tmp_path / "some.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=says) as refusal:
        jg.load(path)
    assert str(path) in str(refusal.value)


def test_a_truncated_file_is_refused(tmp_path):
    path = fitted().save(tmp_path / "fit.npz")
    whole = path.read_bytes()
    for size in (len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="truncated or damaged"):
            jg.load(path)
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    path.write_bytes(bytes(flipped))
    with pytest.raises(ValueError, match="damaged"):
        jg.load(path)


def test_objects_are_not_unpickled(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.array([os.system], object), allow_pickle=True)
    path = tmp_path / "some.npz"
    told = {"format": "jaxgmm", "version": 1, "value": {"numpy": "a0", "scalar": False}}
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("record.json", json.dumps(told))
        made.writestr("a0.npy", buffer.getvalue())
    with pytest.raises(ValueError, match="damaged"):
        jg.load(path)


def test_no_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        jg.load(tmp_path / "none.npz")


def test_what_is_code_is_not_saved(tmp_path):
    class Mine(dist.Normal):
        pass

    fit = fitted(prior=BY_SITE | {"means": Mine(0.0, 5.0)})
    with pytest.raises(TypeError, match=r"fit\.model\.prior\.distributions\['means'\].*Mine"):
        fit.save(tmp_path / "fit.npz")
    assert not list(tmp_path.iterdir())


def test_double_precision_needs_its_switch(tmp_path):
    path = fitted().save(tmp_path / "fit.npz")
    code = f"import jaxgmm as jg; jg.load({str(path)!r})"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert "ValueError" in run.stderr
    assert "JAX_ENABLE_X64=1" in run.stderr


def test_what_a_class_has_gained_since_has_its_default():
    @_archive.stored
    @dataclasses.dataclass(frozen=True)
    class Grown:
        before: int
        since: str | None = None

    try:
        grown = _archive._KINDS["Grown"].together
        assert grown({"before": 1}) == Grown(1)
        for parts in ({"since": "a"}, {"before": 1, "later": 2}):
            with pytest.raises(_archive._Unreadable, match="of another version"):
                grown(parts)
    finally:
        del _archive._KINDS["Grown"]


if __name__ == "__main__":
    # Writes the file of this Python: python tests/test_archive.py
    jax.config.update("jax_enable_x64", True)
    made = fitted()
    short = {"n_chains": 2, "n_draws": 10, "n_warmup": 10, "progress": False}
    drawn = jg.sample(made.model, X, key=jax.random.key(1), method="gibbs", start=made, **short)
    version = ".".join(map(str, sys.version_info[:2]))
    print(jg.compare(made, drawn).save(kept(version)))
