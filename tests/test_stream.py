"""Streams: the rows of every kind of source, EM on them as in memory, and what is refused."""

import threading

import h5py
import jax
import numpy as np
import pandas as pd
import pytest
from helpers import DATA, PRIORS, STRUCTURE_OF, tree_allclose

import jaxgmm as jg
from jaxgmm.em._moments import Moments
from jaxgmm.em._progress import bar
from jaxgmm.em._survey import survey
from jaxgmm.model._incomplete import available_moments

X = DATA["faithful"]
NAMES = ("eruptions", "waiting")
MODEL = jg.Mixture(jg.Gaussian(), 2)


def start(dtype=np.float64):
    means = np.array([[3.0, 65.0], [3.5, 70.0]], dtype)
    covariance = np.diag([1.0, 100.0]).astype(dtype)
    return MODEL.params(means=means, covariances=np.stack([covariance] * 2))


def table(x=X):
    return pd.DataFrame(x, columns=list(NAMES))


def parquet(path, x=X, row_group=50):
    pytest.importorskip("pyarrow")
    table(x).to_parquet(path, row_group_size=row_group)
    return path


def parquet_folder(path):
    for number, part in enumerate(np.split(X, [100, 120])):
        parquet(path / f"part-{number}.parquet", part, 30)
    return path


def npy(path):
    np.save(path / "rows.npy", X)
    return path / "rows.npy"


def hdf5(path):
    file = h5py.File(path / "rows.h5", "w")
    return file.create_dataset("rows", data=X)


def zarr(path):
    made = pytest.importorskip("zarr").create_array(path / "rows.zarr", data=X, chunks=(90, 1))
    return made


def dask_array(_):
    array = pytest.importorskip("dask.array")
    return array.from_array(X, chunks=(90, 1))


def dask_frame(_):
    frame = pytest.importorskip("dask.dataframe")
    return frame.from_pandas(table(), npartitions=3)


def some_blocks(_=None, x=X):
    return [x[:7], x[7:7], x[7:150], x[150:]]


SOURCES = {
    "array": lambda _: X,
    "table": lambda _: table(),
    "list": some_blocks,
    "function": lambda _: lambda: iter(some_blocks()),
    "iterator": lambda _: iter(some_blocks()),
    "npy": npy,
    "hdf5": hdf5,
    "zarr": zarr,
    "parquet": lambda path: parquet(path / "rows.parquet"),
    "folder": parquet_folder,
    "dask array": dask_array,
    "dask frame": dask_frame,
}


NAMED = ("table", "parquet", "folder", "dask frame")


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_its_rows_in_blocks_of_one_size(kind, tmp_path):
    rows = jg.stream(SOURCES[kind](tmp_path), block_rows=64)
    blocks = list(rows.blocks())
    assert {block.rows.shape for block in blocks} == {(64, 2)}
    assert rows.n_columns == 2
    assert rows.feature_names == (NAMES if kind in NAMED else ("x0", "x1"))
    np.testing.assert_array_equal(np.concatenate([b.rows[: b.n_rows] for b in blocks]), X)
    weight = np.concatenate([block.weight for block in blocks])
    assert weight.sum() == len(X)
    # The copies at the end are of a row that is there, so that they have a density.
    assert np.all(np.concatenate([b.rows for b in blocks])[len(X) :] == X[-1])
    assert rows.again == (kind != "iterator")


def test_columns_are_read_in_the_order_asked_for(tmp_path):
    path = parquet(tmp_path / "rows.parquet")
    for source, columns in [(path, NAMES[::-1]), (table(), NAMES[::-1]), (X, [1, 0])]:
        block = next(jg.stream(source, columns=columns).blocks())
        np.testing.assert_array_equal(block.rows[: block.n_rows], X[:, ::-1])
    assert jg.stream(path, columns=["waiting"]).feature_names == ("waiting",)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_blocks_keep_the_precision_of_the_source(dtype):
    expected = np.float64 if dtype == np.int16 else dtype
    rows = jg.stream(X.astype(dtype))
    assert rows.dtype == next(rows.blocks()).rows.dtype == expected


def test_one_block_is_read_ahead():
    read, third = [], threading.Event()

    def blocks():
        for number in range(4):
            read.append(number)
            if number == 2:
                third.set()
            yield np.full((5, 1), number, float)

    found = jg.stream(blocks, block_rows=5).blocks()
    read.clear()
    next(found)
    next(found)
    assert third.wait(10)  # while the second is used
    assert read == [0, 1, 2]
    assert [block.rows[0, 0] for block in found] == [2, 3]


def test_map_leaves_out_the_copies():
    rows = jg.stream(X, block_rows=64)
    params = start()
    for name in ("predict", "log_prob", "responsibilities"):
        function = getattr(MODEL, name)
        found = np.concatenate(list(rows.map(lambda x, f=function: f(params, x))))
        np.testing.assert_allclose(found, function(params, X), rtol=1e-12, atol=1e-15)


# -- weights ------------------------------------------------------------------------------

WEIGHT = np.random.default_rng(0).integers(0, 3, len(X)).astype(float)


def weighted_parquet(path):
    pytest.importorskip("pyarrow")
    table().assign(times=WEIGHT.astype(int)).to_parquet(path / "rows.parquet", row_group_size=50)
    return path / "rows.parquet"


WEIGHTED = {
    "column of an array": lambda _: (np.column_stack([X, WEIGHT]), {"weight": 2}),
    "column of a table": lambda _: (table().assign(times=WEIGHT), {"weight": "times"}),
    "column of a file": lambda path: (weighted_parquet(path), {"weight": "times"}),
    "chosen columns": lambda path: (
        weighted_parquet(path),
        {"weight": "times", "columns": ["eruptions", "waiting"]},
    ),
    "array": lambda _: (X, {"weight": WEIGHT}),
    "blocks": lambda _: (some_blocks(), {"weight": [WEIGHT[:90], WEIGHT[90:]]}),
    "function": lambda _: (some_blocks, {"weight": lambda: iter([WEIGHT])}),
    "iterator": lambda _: (X, {"weight": iter([WEIGHT])}),
}


@pytest.mark.parametrize("kind", WEIGHTED)
def test_weights_are_a_column_or_a_source_of_their_own(kind, tmp_path):
    source, options = WEIGHTED[kind](tmp_path)
    rows = jg.stream(source, block_rows=64, **options)
    assert rows.weighted
    assert rows.n_columns == 2
    assert rows.again == (kind != "iterator")
    blocks = list(rows.blocks())
    np.testing.assert_array_equal(np.concatenate([b.rows[: b.n_rows] for b in blocks]), X)
    np.testing.assert_array_equal(np.concatenate([b.weight for b in blocks])[: len(X)], WEIGHT)
    assert not np.concatenate([b.weight for b in blocks])[len(X) :].any()


def test_weights_keep_float32():
    frame = table(X.astype(np.float32)).assign(times=WEIGHT)
    rows = jg.stream(frame, weight="times", block_rows=64)
    assert rows.dtype == next(rows.blocks()).weight.dtype == np.float32


def test_a_weighted_stream_is_fitted_as_in_memory():
    whole = jg.fit(MODEL, X, start=start(), sample_weight=WEIGHT, tol=1e-4)
    rows = jg.stream(X, weight=WEIGHT, block_rows=100)
    streamed = jg.fit(MODEL, rows, start=start(), tol=1e-4, subsample=120)
    same_run(streamed, whole, len(X))


@pytest.mark.turn
def test_restarts_of_a_weighted_stream(key):
    weight = 1.5 * WEIGHT
    whole = jg.fit(MODEL, X, key=key, n_init=4, sample_weight=weight)
    rows = jg.stream(X, weight=weight, block_rows=100)
    streamed = jg.fit(MODEL, rows, key=key, n_init=4, subsample=120)
    assert streamed.log_joint == pytest.approx(whole.log_joint, abs=1e-6)


def test_moments_of_weighted_rows():
    generator = np.random.default_rng(0)
    rows = jg.stream(X, weight=WEIGHT, block_rows=100)
    seen = survey(rows, 120, generator, bar("", False))
    copies = np.repeat(X, WEIGHT.astype(int), axis=0)
    assert seen.total_weight == len(copies)
    np.testing.assert_allclose(np.diagonal(seen.moments.means), copies.mean(axis=0), rtol=1e-13)
    scatter = len(copies) * np.cov(copies.T, bias=True)
    np.testing.assert_allclose(seen.moments.scatter, scatter, rtol=1e-12)
    assert np.all(seen.sample_weight > 0)
    for of_moments in (True, False):
        _, weight = seen.stand_in(of_moments)
        assert weight.sum() == pytest.approx(len(copies))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": WEIGHT[:-1]}, "weight: has fewer rows than the source"),
        ({"weight": np.append(WEIGHT, 1)}, "weight: has more rows than the source"),
        ({"weight": WEIGHT - 1}, "weight: negative value -1.0 at row"),
        ({"weight": WEIGHT * np.nan}, "weight: non-finite value nan at row 0"),
        ({"weight": X}, "weight: needs a number for each row, found 2 columns"),
        ({"weight": 3}, "weight: the source has no column 3; it has 0 to 1"),
        ({"weight": 1, "columns": [0, 1]}, "weight: column 1 is among the columns"),
        ({"weight": 2.5}, "weight: needs a Parquet file .* found float"),
        ({"weight": 0 * WEIGHT}, "weight: all weights are zero"),
    ],
)
def test_weights_that_are_none(options, message):
    def used():
        survey(jg.stream(X, **options), 9, np.random.default_rng(0), bar("", False))

    with pytest.raises((ValueError, TypeError), match=message):
        used()


def test_a_weight_deep_inside_is_found_where_it_stands(tmp_path):
    pytest.importorskip("pyarrow")
    frame = table().assign(times=np.where(np.arange(len(X)) == 217, -1.0, 1.0))
    frame.to_parquet(tmp_path / "rows.parquet", row_group_size=50)
    with pytest.raises(ValueError, match=r"-1.0 at rows.parquet, row group 4, row 17"):
        list(jg.stream(tmp_path, weight="times", block_rows=16).blocks())
    blocks = [table().assign(times=1.0), table().assign(copies=1.0)]
    with pytest.raises(ValueError, match=r"block 1 of the source has columns .*, copies, and its"):
        list(jg.stream(blocks, weight="times").blocks())


# -- sums and standard errors -------------------------------------------------------------


def test_sums_are_those_in_memory():
    params = start()
    rows = jg.stream(X, weight=WEIGHT, block_rows=64)
    total = rows.sum(lambda x: MODEL.log_prob(params, x))
    assert total == pytest.approx(float(MODEL.log_likelihood(params, X, WEIGHT)), rel=1e-13)
    counts = rows.sum(lambda x: MODEL.responsibilities(params, x))
    np.testing.assert_allclose(counts, WEIGHT @ MODEL.responsibilities(params, X), rtol=1e-12)


@pytest.mark.parametrize("kind", ["information", "sandwich"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["rows", "weighted"])
def test_standard_errors_are_those_in_memory(kind, weight):
    model = jg.Mixture(jg.Gaussian(), 2, prior="fraley-raftery")
    fit = jg.fit(model, X, start=start(), sample_weight=weight)
    rows = jg.stream(X, weight=weight, block_rows=100)
    whole = jg.standard_errors(fit, X, kind=kind, sample_weight=weight)
    streamed = jg.standard_errors(fit, rows, kind=kind)
    tree_allclose(streamed.standard_errors, whole.standard_errors, rtol=1e-10)
    np.testing.assert_allclose(streamed.covariance, whole.covariance, rtol=1e-9, atol=1e-12)
    assert streamed.status == whole.status
    assert streamed.newton_decrement == pytest.approx(whole.newton_decrement, abs=1e-9)


def test_standard_errors_in_float32():
    x = X.astype(np.float32)
    fit = jg.fit(MODEL, x, start=start(np.float32))
    whole = jg.standard_errors(fit, x)
    streamed = jg.standard_errors(fit, jg.stream(x, block_rows=100))
    tree_allclose(streamed.standard_errors, whole.standard_errors, rtol=1e-4)


def test_standard_errors_of_other_rows():
    fit = jg.fit(MODEL, X, start=start(), max_iter=2)
    for x, weight in [(X[::-1], None), (X, WEIGHT), (X[:-1], None)]:
        rows = jg.stream(x, weight=weight, block_rows=100)
        with pytest.raises(ValueError, match="x: this stream does not have the rows of the fit"):
            jg.standard_errors(fit, rows)
    with pytest.raises(ValueError, match="sample_weight: weights of a stream are read with"):
        jg.standard_errors(fit, jg.stream(X), sample_weight=WEIGHT)


# -- posteriors ---------------------------------------------------------------------------

PROPER = jg.Mixture(jg.Gaussian("diag"), 2, prior="fraley-raftery")
SAMPLED = {
    "vb": {"n_init": 1, "n_draws": 20},
    "gibbs": {"n_draws": 6, "n_warmup": 2, "thinning": 2},
    "laplace": {"n_draws": 20},
}


@pytest.mark.turn
@pytest.mark.parametrize(
    ("method", "weight"),
    [
        ("vb", None),
        ("gibbs", WEIGHT),
        ("laplace", None),
        pytest.param("vb", WEIGHT, marks=pytest.mark.slow),
        pytest.param("gibbs", None, marks=pytest.mark.slow),
        pytest.param("laplace", WEIGHT, marks=pytest.mark.slow),
    ],
    ids=lambda value: value if isinstance(value, str) else "rows" if value is None else "weighted",
)
def test_posteriors_are_those_in_memory(method, weight, key):
    x = X[:, 1:]
    first = PROPER.params(means=[[55.0], [80.0]], covariances=[[40.0], [40.0]])
    options = {"key": key, "method": method, "n_chains": 2, "progress": False, **SAMPLED[method]}
    fit = jg.fit(PROPER, x, start=first, sample_weight=weight, tol=1e-12)
    whole = jg.sample(PROPER, x, start=fit, sample_weight=weight, **options)
    rows = jg.stream(x, weight=weight, block_rows=100)
    options = {**options, "passes": 100} if method == "laplace" else options
    streamed = jg.sample(PROPER, rows, start=fit, **options)
    tree_allclose(streamed.draws, whole.draws, rtol=1e-7)
    np.testing.assert_allclose(streamed.log_joint, whole.log_joint, rtol=1e-9)
    if method != "gibbs":
        np.testing.assert_allclose(streamed.log_weights, whole.log_weights, atol=1e-5)
        assert streamed.diagnostics["status"] == whole.diagnostics["status"]
    assert streamed.fingerprint == whole.fingerprint
    assert streamed.n_warmup == whole.n_warmup
    # All rows are in the sample, but those of weight zero.
    assert not streamed.sampled
    assert len(streamed.x) == len(x) if weight is None else np.sum(weight > 0)


def test_a_chain_on_a_stream_goes_on(key):
    fit = jg.fit(PROPER, X[:, 1:], start="hierarchical")
    rows = jg.stream(X[:, 1:], block_rows=100)
    options = {"method": "gibbs", "n_chains": 2, "n_draws": 4, "progress": False}
    post = jg.sample(PROPER, rows, key=key, start=fit, n_warmup=0, **options)
    on = jg.sample(PROPER, rows, key=key, start=post, **options)
    assert on.start == "posterior"
    assert on.n_warmup == 0


def test_what_is_said_of_a_sample_is_not_said_of_all_rows(key, monkeypatch):
    monkeypatch.setattr("jaxgmm.bayes._sample._SAMPLE", 90)
    x = X[:, 1:]
    fit = jg.fit(PROPER, x, start="hierarchical")
    options = {"key": key, "method": "gibbs", "n_chains": 1, "n_draws": 4, "n_warmup": 0}
    post = jg.sample(PROPER, jg.stream(x, block_rows=100), start=fit, progress=False, **options)
    assert post.sampled
    assert post.x.shape == (90, 1)
    assert post.sample_weight.sum() == pytest.approx(len(x))
    assert post.responsibilities().shape == (90, 2)
    whole = jg.sample(PROPER, x, start=fit, progress=False, **options)
    np.testing.assert_allclose(post.log_joint, whole.log_joint, rtol=1e-9)
    for use in (lambda: jg.compare(fit, post), lambda: jg.evidence(post, key=key)):
        with pytest.raises(ValueError, match="posterior: this posterior is of a stream, of whose"):
            use()


@pytest.mark.turn
def test_models_of_a_stream_are_compared(key):
    models = [jg.Mixture(jg.Gaussian("tied"), k) for k in (1, 2)]
    options = {"key": key, "n_init": 1, "progress": False}
    whole = jg.select(models, X, **options).table
    streamed = jg.select(models, jg.stream(X, block_rows=100), **options).table
    for column in ("bic", "icl", "aic"):
        np.testing.assert_allclose(streamed[column], whole[column], atol=1e-4)
    with pytest.raises(ValueError, match="criteria: 'loo' needs all rows in memory; of a stream"):
        jg.select(models, jg.stream(X), criteria="loo", **options)


def test_samplers_that_need_all_rows_say_so(key):
    rows, fit = jg.stream(X), jg.fit(PROPER, X, start="hierarchical", max_iter=1)
    for method in ("nuts", "smc", "svi"):
        with pytest.raises(ValueError, match=f"x: method='{method}' needs all rows in memory, and"):
            jg.sample(PROPER, rows, key=key, start=fit, method=method)
    for options, message in [
        ({"sample_weight": WEIGHT}, "sample_weight: weights of a stream are read with"),
        ({"start": jg.fit(PROPER, X[:-1], start="hierarchical", max_iter=1)}, "of other rows or"),
        ({"passes": 0}, "passes: must be at least 1"),
        ({"max_iter": 9}, "max_iter: not an option of method='vb'; its options are n_init, tol"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            jg.sample(PROPER, rows, key=key, method="vb", **{"start": fit, **options})
    halves = jg.stream(X, weight=WEIGHT / 2)
    fit = jg.fit(PROPER, X, start="hierarchical", sample_weight=WEIGHT / 2, max_iter=1)
    with pytest.raises(ValueError, match="Gibbs sampling labels each copy of a row"):
        jg.sample(PROPER, halves, key=key, start=fit, method="gibbs", progress=False)


# -- EM ---------------------------------------------------------------------------------


def same_run(one, other, n_rows):
    """Two fits from one start, to rounding."""
    assert one.status == other.status
    assert one.n_iter == other.n_iter
    eps = float(np.finfo(one.trace.dtype).eps)
    np.testing.assert_allclose(one.trace, other.trace, rtol=64 * eps, atol=64 * eps * n_rows)
    tree_allclose(one.params, other.params, rtol=eps**0.75)
    for name in ("n_rows", "total_weight", "n_parameters", "fingerprint", "n_empty", "start"):
        assert getattr(one, name) == getattr(other, name), name
    for name in ("log_likelihood", "log_prior", "bic", "aic", "icl"):
        a, b = getattr(one, name), getattr(other, name)
        assert a == pytest.approx(b, rel=eps**0.75), name


@pytest.mark.parametrize("dtype", [np.float64, pytest.param(np.float32, marks=pytest.mark.slow)])
def test_passes_are_the_steps_of_em_in_memory(dtype):
    x = X.astype(dtype)
    options = {"start": start(dtype), "tol": 1e-4}
    whole = jg.fit(MODEL, x, **options)
    streamed = jg.fit(MODEL, jg.stream(x, block_rows=100), **options)
    assert whole.n_iter > 3
    same_run(streamed, whole, len(x))


def test_a_prior_made_of_the_data_is_made_of_all_rows():
    model = jg.Mixture(jg.Gaussian(), 2, prior="fraley-raftery")
    generator = np.random.default_rng(0)
    seen = survey(jg.stream(X, block_rows=100), 120, generator, bar("", False))
    np.testing.assert_allclose(np.diagonal(seen.moments.means), X.mean(axis=0), rtol=1e-14)
    scatter = len(X) * np.cov(X.T, bias=True)
    np.testing.assert_allclose(seen.moments.scatter, scatter, rtol=1e-13)
    rows, weight = seen.stand_in(of_moments=True)
    assert len(rows) == 4
    tree_allclose(model.resolve(rows, weight).prior, model.resolve(X).prior, rtol=1e-12)


def test_a_sample_is_drawn_evenly_and_keeps_the_order_of_rows():
    x = np.arange(1000.0)
    counts = np.zeros(1000)
    for seed in range(100):
        rows = [jg.stream(x, block_rows=size) for size in (70, 300)]
        one, other = (survey(r, 50, np.random.default_rng(seed), bar("", False)) for r in rows)
        np.testing.assert_array_equal(one.sample, other.sample)
        assert np.all(np.diff(one.sample[:, 0]) > 0)
        counts[one.sample[:, 0].astype(int)] += 1
    assert counts.sum() == 100 * 50
    # Of 5,000 drawn each tenth of the rows has 500 on average, with a standard deviation of 21.
    assert np.all(np.abs(counts.reshape(10, 100).sum(axis=1) - 500) < 4 * 21)


@pytest.mark.turn
def test_restarts_on_a_sample_end_at_the_optimum_of_all_rows(key):
    whole = jg.fit(MODEL, X, key=key, n_init=4)
    options = {"key": key, "n_init": 4, "subsample": 120}
    streamed = jg.fit(MODEL, jg.stream(X, block_rows=100), **options)
    assert streamed.converged
    assert streamed.log_joint == pytest.approx(whole.log_joint, abs=1e-6)
    assert streamed.log_joint == pytest.approx(streamed.trace[-1], abs=1e-9)
    again = jg.fit(
        MODEL, jg.stream(some_blocks(), block_rows=100), key=key, n_init=4, subsample=120
    )
    np.testing.assert_array_equal(again.trace, streamed.trace)


def test_more_rows_compile_nothing(compilations):
    def fit(x):
        return jg.fit(MODEL, jg.stream(x, block_rows=100), start=start(), subsample=120)

    fit(X)
    with compilations:
        fit(np.concatenate([X, X[:90]]))
    assert compilations.count == 0


def test_out_of_passes():
    fit = jg.fit(MODEL, jg.stream(X, block_rows=100), start=start(), subsample=120, passes=2)
    assert fit.status == jg.Status.OUT_OF_ITERATIONS
    assert len(fit.trace) == 3


def two_lines(n):
    generator = np.random.default_rng(0)
    age, steep = generator.uniform(0, 10, n), generator.random(n) < 0.5
    response = np.where(steep, 1 + 2 * age, 20 - age) + generator.normal(0, 0.5, n)
    return np.column_stack([age, response])


def test_lines_on_a_stream(key):
    """Whose sums are seen from the lines of each step."""
    x = two_lines(200)
    model = jg.Mixture(jg.families.LinearRegression(on=[0]), 2)
    first = jg.fit(model, x, key=key, n_init=1, max_iter=2).params
    whole = jg.fit(model, x, start=first, tol=1e-4)
    streamed = jg.fit(model, jg.stream(x, block_rows=70), start=first, tol=1e-4)
    np.testing.assert_allclose(streamed.trace, whole.trace, rtol=1e-10)


# -- online EM ----------------------------------------------------------------------------


def two_groups(n, seed=0):
    generator = np.random.default_rng(seed)
    first = generator.random(n) < 0.3
    scale = np.where(first, 1.0, 2.0)[:, None]
    return np.where(first[:, None], 0.0, [4.0, 2.0]) + scale * generator.normal(size=(n, 2))


def distance(one, other):
    """Of two fits with the same labels, in parameters."""
    pairs = zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True)
    return float(np.sqrt(sum(np.sum((np.asarray(a) - np.asarray(b)) ** 2) for a, b in pairs)))


ONLINE = jg.Mixture(jg.Gaussian(), 2)
NEAR = ONLINE.params(means=[[0.5, 0.5], [3.0, 1.0]], covariances=[np.eye(2), 3 * np.eye(2)])


@pytest.mark.parametrize("averaging", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_one_pass_comes_close_to_batch_em(averaging):
    x = two_groups(200_000)
    whole = jg.fit(ONLINE, x, start=NEAR, tol=1e-8)
    online = jg.em.Online(averaging=averaging)
    rows = jg.stream(iter(np.split(x, 50)), block_rows=20_000)
    fit = jg.fit(ONLINE, rows, start=NEAR, algorithm=online, subsample=2000)
    assert fit.status == jg.Status.UNJUDGED
    assert not fit.converged
    # Standard errors of batch EM: 0.006 of a mean. The last steps alone are noisier.
    np.testing.assert_allclose(
        fit.params.means, whole.params.means, atol=0.02 if averaging else 0.1
    )
    np.testing.assert_allclose(fit.params.weights, whole.params.weights, atol=0.01)
    assert (fit.n_rows, fit.total_weight) == (len(x), len(x))
    assert fit.fingerprint == whole.fingerprint
    assert len(fit.trace) == fit.n_iter + 1
    assert fit.trace[-20:].mean() == pytest.approx(whole.log_likelihood / len(x), abs=0.02)
    # The rows are gone.
    assert np.isnan([fit.log_likelihood, fit.log_joint, fit.bic, fit.icl]).all()
    assert "not known" in repr(fit)
    again = jg.stream(iter(np.split(x, 50)), block_rows=20_000)
    again = jg.fit(ONLINE, again, start=NEAR, algorithm=online, subsample=2000)
    tree_allclose(again.params, fit.params, rtol=0)


def test_online_em_where_rows_can_be_read_again(key):
    x = two_groups(2000)
    rows = jg.stream(x, block_rows=300)
    online = jg.em.Online(batch_rows=100)
    fit = jg.fit(ONLINE, rows, key=key, n_init=2, algorithm=online, subsample=500, passes=2)
    assert fit.log_likelihood == pytest.approx(
        float(ONLINE.log_likelihood(fit.params, x)), rel=1e-10
    )
    assert fit.log_joint == fit.log_likelihood + fit.log_prior
    assert np.isfinite([fit.bic, fit.aic, fit.icl]).all()
    # Two readings; the first begins with the sample. Each block has three batches.
    assert fit.n_iter == 15 + 20
    assert fit.row_sums.statistics.counts.sum() == pytest.approx(len(x))


def test_absent_rows_are_not_learned():
    x = two_groups(600)
    present = np.random.default_rng(1).random(600) < 0.7
    present[:200] = True
    weight = present.astype(float)
    online = jg.em.Online(batch_rows=50)
    options = {"start": NEAR, "algorithm": online, "subsample": 200}
    rows = jg.stream(x, weight=weight, block_rows=50)
    fit = jg.fit(ONLINE, rows, **options)
    assert fit.total_weight == present.sum()
    assert fit.row_sums.statistics.counts.sum() == pytest.approx(present.sum())
    x = np.where(present[:, None], x, 1e3)
    again = jg.fit(ONLINE, jg.stream(x, weight=weight, block_rows=50), **options)
    tree_allclose(again.params, fit.params, rtol=1e-12)


@pytest.mark.turn
def test_with_an_exponent_of_one_every_row_counts_the_same():
    """Sums at labels made when each row came: those of one M-step where labels are known."""
    x = two_groups(600)
    model = jg.Mixture(jg.Gaussian(), 1, prior="fraley-raftery")
    first = jg.fit(model, x[:200], start="hierarchical")
    online = jg.em.Online(exponent=1.0, batch_rows=50, averaging=False)
    rows = jg.stream(x, block_rows=100)
    options = {"start": first.params, "algorithm": online, "subsample": 200}
    fit = jg.fit(first.model, rows, **options)
    whole = jg.fit(first.model, x, start=first.params)
    tree_allclose(fit.params, whole.params, rtol=1e-9)
    assert fit.log_joint == pytest.approx(whole.log_joint, rel=1e-10)


@pytest.mark.turn
@pytest.mark.parametrize("dtype", [np.float64, pytest.param(np.float32, marks=pytest.mark.slow)])
def test_an_update_comes_closer_to_the_fit_of_all_rows(dtype):
    x = two_groups(3000).astype(dtype)
    old, new = x[:1000], x[1000:]
    near = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), NEAR)
    whole = jg.fit(ONLINE, x, start=near)
    fit = jg.fit(ONLINE, old, start=near)
    updated = fit.update(new)
    assert distance(updated, whole) < 0.5 * distance(fit, whole)
    assert updated.status == jg.Status.UNJUDGED
    assert (updated.n_rows, updated.total_weight) == (3000, 3000)
    assert updated.trace.dtype == updated.params.means.dtype == dtype
    # As a stream, and twice in turn.
    streamed = fit.update(jg.stream(new, block_rows=2048))
    tree_allclose(streamed.params, updated.params, rtol=1e-5)
    twice = fit.update(new[:1024]).update(new[1024:])
    assert twice.n_rows == 3000
    assert distance(twice, whole) < 0.5 * distance(fit, whole)
    # What was learned is a start like any other.
    arrived = jg.fit(ONLINE, x, start=updated.params)
    assert arrived.converged
    assert arrived.log_joint == pytest.approx(whole.log_joint, rel=1e-6)


@pytest.mark.parametrize(
    "family", [jg.families.Repeated(jg.Gaussian("diag"), 2), jg.families.PPCA(1)], ids=repr
)
def test_groups_and_factors_are_learned_as_rows_are(family):
    """Whose statistics are moments, or those of the repeats inside."""
    x = np.hstack([two_groups(300), two_groups(300)])
    model = jg.Mixture(family, 1)
    first = jg.fit(model, x[:100], start="hierarchical")
    whole = jg.fit(first.model, x, start="hierarchical")
    tree_allclose(first.update(x[100:]).params, whole.params, rtol=1e-9)


@pytest.mark.turn
def test_rows_with_noise_are_learned():
    x = two_groups(80)
    noise = np.random.default_rng(1).uniform(0.1, 0.5, x.shape)
    measured = lambda some: jg.rows(x[some], noise=noise[some])
    model = jg.Mixture(jg.Gaussian(), 2, prior="weak")
    old = jg.fit(model, measured(slice(50)), start=NEAR, max_iter=0)
    step = jg.fit(old.model, measured(slice(80)), start=old.params, max_iter=1, tol=0.0)
    updated = old.update(measured(slice(50, 80)))
    tree_allclose(updated.params, step.params, 1e-10)


def test_a_fit_that_was_saved_goes_on(tmp_path):
    x = two_groups(400)
    fit = jg.fit(ONLINE, x[:200], start=NEAR, max_iter=3)
    kept = jg.load(fit.save(tmp_path / "fit.npz"))
    tree_allclose(kept.update(x[200:]).params, fit.update(x[200:]).params, rtol=0)


def test_what_online_em_refuses(key):
    x = two_groups(100)
    fit = jg.fit(ONLINE, x, start=NEAR, max_iter=1)
    t = jg.Mixture(jg.families.StudentT(), 2)
    for call, message in [
        (lambda: jg.em.Online(exponent=0.5), "exponent: must be above 0.5"),
        (lambda: jg.em.Online(batch_rows=0), "batch_rows: must be at least 1"),
        (lambda: jg.fit(ONLINE, x, algorithm="online"), "algorithm: online EM reads a stream"),
        (lambda: jg.fit(t, jg.stream(x), key=key, algorithm="online"), "M-step of this model is"),
        (lambda: fit.update(x[:, :1]), r"x: needs the 2 column\(s\) of the fit, found 1"),
        (lambda: fit.update(x, algorithm="em"), "algorithm: needs a jaxgmm.em.Online"),
        (lambda: fit.update(jg.stream(x), sample_weight=x[:, 0]), "sample_weight: weights of a"),
        (lambda: fit.moved(np.ones(2), "").update(x), "fit: keeps no sums over its rows"),
        (
            lambda: jg.fit(ONLINE, jg.stream(iter([x])), key=key, algorithm="online", passes=2),
            "this stream can be read once",
        ),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            call()


# -- missing values -----------------------------------------------------------------------


def with_holes(x, seed=0):
    """A fifth of the values is gone, one row has none, and one pattern comes late."""
    x = np.where(np.random.default_rng(seed).random(x.shape) < 0.2, np.nan, x)
    x[:150] = np.where(np.isnan(x[:150, 1:]), 60.0, x[:150])
    x[200] = np.nan
    return x


HOLES = with_holes(X)
CODES = np.where(np.isnan(HOLES), np.nan, (np.nan_to_num(HOLES) > [3.0, 70.0]).astype(float))
FEW_COUNTS = np.round(HOLES / [1.0, 10.0])
# A model, its rows, and parameters to start at.
MISSING = {
    "full": (jg.Mixture(jg.Gaussian(), 2, prior="fraley-raftery"), HOLES, start()),
    "VEI": (
        jg.Mixture(jg.Gaussian("VEI"), 2, prior="fraley-raftery"),
        HOLES,
        jg.Mixture(jg.Gaussian("VEI"), 2).params(
            means=[[3.0, 65.0], [3.5, 70.0]], covariances=[np.diag([1.0, 100.0])] * 2
        ),
    ),
    "bernoulli": (
        jg.Mixture(jg.families.Bernoulli(), 2),
        CODES,
        jg.Mixture(jg.families.Bernoulli(), 2).params(probs=[[0.3, 0.4], [0.6, 0.7]]),
    ),
    "poisson": (
        jg.Mixture(jg.families.Poisson(), 2),
        FEW_COUNTS,
        jg.Mixture(jg.families.Poisson(), 2).params(rates=[[2.0, 6.0], [4.0, 8.0]]),
    ),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "name", ["full", *(pytest.param(n, marks=pytest.mark.turn) for n in MISSING if n != "full")]
)
def test_missing_values_are_those_of_memory(name, weighted):
    """Patterns that the sample does not have, and a row without any value, among them."""
    model, x, first = MISSING[name]
    # Rows of weight zero are read too.
    weight = np.arange(len(x)) % 3 / 2 if weighted else None
    rows = jg.stream(x, block_rows=64, weight=weight)
    here = jg.fit(model, x, start=first, sample_weight=weight, max_iter=9, tol=0.0)
    there = jg.fit(model, rows, start=first, subsample=60, passes=9, tol=0.0)
    assert there.model.incomplete
    tree_allclose(there.params, here.params, 1e-9)
    for number in ("log_joint", "log_likelihood", "log_prior", "bic", "icl", "total_weight"):
        assert getattr(there, number) == pytest.approx(getattr(here, number), rel=1e-10)
    assert there.fingerprint == here.fingerprint
    np.testing.assert_allclose(there.trace, here.trace, rtol=1e-10)
    errors = [jg.standard_errors(there, rows), jg.standard_errors(here, x, sample_weight=weight)]
    if weight is None:
        filled = np.concatenate(list(rows.map(there.impute)))
        np.testing.assert_allclose(filled, here.impute(x), rtol=1e-8)
    tree_allclose(errors[0].standard_errors, errors[1].standard_errors, 1e-6)


@pytest.mark.turn
def test_a_fit_of_a_stream_with_missing_values_from_its_own_starts(key):
    model, x, _ = MISSING["full"]
    rows = jg.stream(x, block_rows=64)
    found = [jg.fit(model, data, key=key, n_init=4, tol=1e-12) for data in (rows, x)]
    assert found[0].converged
    assert found[0].log_joint == pytest.approx(found[1].log_joint, abs=1e-6)
    post = jg.sample(found[0].model, rows, key=key, start=found[0], method="laplace", n_draws=200)
    assert np.all(np.isfinite(post.draws["means"]))
    for method, words in (("gibbs", "imputes no rows of a stream"), ("vb", "has no bound")):
        with pytest.raises(ValueError, match=words):
            jg.sample(found[0].model, rows, key=key, start=found[0], method=method)


LEARNED = [*MISSING, *(name for name in STRUCTURE_OF if name not in MISSING), "product", "repeated"]


def learned(name):
    """As an entry of `MISSING`."""
    if name in MISSING:
        return MISSING[name]
    own = {"means": [[2.0], [4.0]], "covariances": [[[1.0]], [[1.0]]]}
    if name == "product":
        parts = {"t": jg.Gaussian(), "w": jg.families.Bernoulli()}
        model = jg.Mixture(jg.families.Product(parts), 2, prior="weak")
        params = model.params(
            **{f"t.{site}": value for site, value in own.items()}, **{"w.probs": [[0.3], [0.6]]}
        )
        return model, np.column_stack([HOLES[:, 1] / 20, CODES[:, 0]]), params
    if name == "repeated":
        model = jg.Mixture(jg.families.Repeated(jg.Gaussian(), 2), 2, prior="weak")
        return model, HOLES / [1.0, 20.0], model.params(**own)
    model = jg.Mixture(jg.Gaussian(name), 2, prior="fraley-raftery")
    spread = 30.0 * np.eye(2) if STRUCTURE_OF[name].isotropic else np.diag([1.0, 100.0])
    return model, HOLES, model.params(means=[[3.0, 65.0], [3.5, 70.0]], covariances=[spread] * 2)


@pytest.mark.parametrize(
    "name", [n if n == "full" else pytest.param(n, marks=pytest.mark.turn) for n in LEARNED]
)
def test_online_em_learns_rows_with_missing_values(name):
    """Old rows and one batch of new ones at the same parameters are a step of EM on both.

    The first rows lack values in one column, a later one has none, and patterns come late.
    """
    model, x, first = learned(name)
    old = jg.fit(model, x[:150], start=first, max_iter=0)
    step = jg.fit(old.model, x, start=old.params, max_iter=1, tol=0.0)
    at_once = jg.em.Online(exponent=1.0, batch_rows=len(x), averaging=False)
    updated = old.update(x[150:])
    tree_allclose(updated.params, step.params, 1e-8)
    assert updated.model.incomplete
    assert updated.n_rows == len(x)
    options = {"start": old.params, "algorithm": at_once, "subsample": 150}
    fit = jg.fit(old.model, jg.stream(x, block_rows=300), **options)
    tree_allclose(fit.params, step.params, 1e-8)
    assert fit.log_likelihood == pytest.approx(step.log_likelihood, rel=1e-9)
    # The row without any value is not among the n of BIC.
    assert fit.bic == pytest.approx(step.bic, rel=1e-9)
    assert fit.fingerprint == step.fingerprint


@pytest.mark.turn
def test_patterns_that_come_late_are_as_if_known_from_the_start():
    model, x, first = MISSING["full"]
    online = jg.em.Online(batch_rows=20)
    options = {"start": first, "algorithm": online, "subsample": 160, "passes": 2}
    known, late = (jg.fit(model, jg.stream(x, block_rows=b), **options) for b in (300, 40))
    tree_allclose(late.params, known.params, 1e-10)
    assert late.log_likelihood == pytest.approx(known.log_likelihood, rel=1e-10)
    np.testing.assert_allclose(late.trace, known.trace, rtol=1e-10)


@pytest.mark.turn
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_one_pass_over_rows_with_missing_values_comes_close_to_batch_em(dtype):
    x = two_groups(20_000)
    x = np.where(np.random.default_rng(1).random(x.shape) < 0.2, np.nan, x).astype(dtype)
    near = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), NEAR)
    whole = jg.fit(ONLINE, x, start=near)
    rows, online = jg.stream(iter(np.split(x, 10)), block_rows=2000), jg.em.Online(batch_rows=100)
    fit = jg.fit(ONLINE, rows, start=near, algorithm=online, subsample=1000)
    assert fit.status == jg.Status.UNJUDGED
    assert fit.params.means.dtype == dtype
    np.testing.assert_allclose(fit.params.means, whole.params.means, atol=0.1)
    np.testing.assert_allclose(fit.params.covariances, whole.params.covariances, atol=0.2)
    np.testing.assert_allclose(fit.impute(x[:50]), whole.impute(x[:50]), atol=0.2)


def test_holes_of_independent_columns_that_come_too_late():
    model, x, first = MISSING["bernoulli"]
    complete = np.nan_to_num(x[:150])
    fit = jg.fit(model, complete, start=first, max_iter=0)
    late = np.concatenate([complete, x[150:]])
    online = {"start": first, "algorithm": "online", "subsample": 150}
    for call in (
        lambda: fit.update(x),
        lambda: jg.fit(model, jg.stream(late, block_rows=100), **online),
    ):
        with pytest.raises(ValueError, match="x: values are missing in other columns than in the"):
            call()


def test_missing_values_that_a_stream_cannot_have(key):
    many = np.where(np.random.default_rng(0).random((200, 8)) < 0.5, np.nan, 1.0)
    model = jg.Mixture(jg.Gaussian(), 1, prior="weak")
    with pytest.raises(ValueError, match="in more than 20 ways, the rows of a block"):
        jg.fit(model, jg.stream(many, block_rows=20), key=key)
    empty = HOLES.copy()
    empty[:, 1] = np.nan
    with pytest.raises(ValueError, match="'x1' of the stream has no value at all; leave it out"):
        jg.fit(model, jg.stream(empty, block_rows=64), key=key)


def test_moments_of_pieces_are_those_of_the_whole():
    weight = np.arange(len(X)) % 3 + 0.5
    for x in (X, HOLES):
        parts = [Moments.of(x[rows], weight[rows]) for rows in (slice(0, 50), slice(50, None))]
        tree_allclose(parts[0].add(parts[1]), Moments.of(x, weight), 1e-12)
        stand_in = Moments.of(x, weight).in_rows(weight.sum())
        tree_allclose(available_moments(*stand_in), available_moments(x, weight), 1e-12, 1e-13)
        rows, of_rows = stand_in
        assert np.isnan(rows).any() == np.isnan(x).any()
        assert of_rows.sum() == pytest.approx(weight.sum(), rel=1e-14)


# -- what is refused ----------------------------------------------------------------------


def poisoned(x=X, row=217, value=np.nan):
    x = x.copy()
    x[row, 1] = value
    return x


def test_a_number_that_is_none_is_found_where_it_stands(tmp_path):
    path = parquet(tmp_path / "rows.parquet", poisoned(), 50)
    with pytest.raises(ValueError, match=r"nan at rows.parquet, row group 4, row 17, .*'waiting'"):
        list(jg.stream(path, block_rows=16).blocks())
    with pytest.raises(ValueError, match=r"source: non-finite value nan at row 217, column 1"):
        list(jg.stream(poisoned(), block_rows=16).blocks())
    with pytest.raises(ValueError, match=r"at block 1, row 117, column 1"):
        list(jg.stream([X[:100], poisoned()[100:]], block_rows=64).blocks())


def test_a_bad_block_deep_inside_ends_the_fit(key):
    fit = lambda model, value: jg.fit(
        model, jg.stream(poisoned(value=value), block_rows=100), key=key, n_init=4
    )
    with pytest.raises(ValueError, match="non-finite value inf at row 217"):
        fit(MODEL, np.inf)
    with pytest.raises(ValueError, match="non-finite value nan at row 217"):
        fit(jg.Mixture(jg.families.PPCA(1), 2), np.nan)


def test_truncated_parquet(tmp_path):
    path = parquet(tmp_path / "rows.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"rows.parquet cannot be read as Parquet, so it may"):
        jg.stream(path)


def test_a_file_that_is_damaged_within(tmp_path):
    path = parquet(tmp_path / "rows.parquet")
    rows, whole = jg.stream(path, block_rows=50), path.read_bytes()
    middle = len(whole) // 3
    path.write_bytes(whole[:middle] + bytes(200) + whole[middle + 200 :])
    with pytest.raises(ValueError, match=r"rows.parquet cannot be read as Parquet"):
        list(rows.blocks())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "source: has no rows"),
        (np.empty((0, 2)), "source: has no rows"),
        (lambda: iter([]), "source: has no rows"),
        (np.empty((3, 0)), "source: has no columns"),
        (np.zeros((2, 2, 2)), r"source: the array needs rows and columns, found shape \(2, 2, 2\)"),
        ([[1.0, 2.0]], "source: block 0 needs to be an array or a table, found a list"),
        (7, "source: needs a Parquet file .* found int"),
        ("rows.csv", "source: there is no rows.csv"),
    ],
)
def test_sources_that_are_none(source, message):
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        jg.stream(source)


def test_files_that_are_none(tmp_path):
    (tmp_path / "rows.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"rows.csv is neither Parquet nor .npy"):
        jg.stream(tmp_path / "rows.csv")
    with pytest.raises(ValueError, match="holds no Parquet file"):
        jg.stream(tmp_path)


def test_pieces_of_another_width():
    with pytest.raises(ValueError, match=r"block 1 of the source has 1 column\(s\), .* have 2"):
        list(jg.stream([X, X[:, :1]]).blocks())
    with pytest.raises(ValueError, match=r"block 1 of the source has columns waiting, eruptions"):
        list(jg.stream([table(), table()[list(NAMES[::-1])]]).blocks())


def test_a_file_and_a_partition_of_another_width(tmp_path):
    parquet_folder(tmp_path)
    table().assign(depth=1.0).to_parquet(tmp_path / "part-9.parquet")
    with pytest.raises(ValueError, match=r"part-9.parquet, row group 0 of the source has columns "):
        list(jg.stream(tmp_path).blocks())
    delayed = pytest.importorskip("dask").delayed
    frame = pytest.importorskip("dask.dataframe").from_delayed(
        [delayed(table)(), delayed(lambda: table().assign(depth=1.0))()],
        meta=table(),
        verify_meta=False,
    )
    with pytest.raises(ValueError, match=r"partition 1 of the source has columns .*, depth, and"):
        list(jg.stream(frame).blocks())


def test_columns_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"columns: the source has no column 2; it has 0 to 1"):
        jg.stream(X, columns=[2])
    with pytest.raises(ValueError, match=r"no column 'depth'; it has 'eruptions', 'waiting'"):
        jg.stream(table(), columns=["depth"])
    path = parquet(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"rows.parquet has no column 'depth'; it has 'erupt"):
        jg.stream(path, columns=["depth"])


@pytest.mark.turn
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:-1], "has 271 rows where there were 272"),
        (lambda x: x + 1e-9, "has other numbers in its 272 rows"),
    ],
)
def test_a_second_reading_that_differs(change, message):
    readings = []

    def blocks():
        readings.append(None)
        yield change(X) if len(readings) == 4 else X  # the first is that of `stream`

    with pytest.raises(ValueError, match=f"x: the stream, read again, {message}"):
        jg.fit(MODEL, jg.stream(blocks, block_rows=100), start=start(), subsample=120)


def test_rows_in_another_order_are_the_same_rows():
    generator = np.random.default_rng(0)
    rows = jg.stream(lambda: iter([generator.permutation(X)]), block_rows=100)
    fit = jg.fit(MODEL, rows, start=start(), subsample=120)
    whole = jg.fit(MODEL, X, start=start())
    assert fit.converged
    assert fit.log_joint == pytest.approx(whole.log_joint, abs=1e-6)


def test_what_a_stream_cannot_do(key):
    rows = jg.stream(X)
    responsibilities = np.full((len(X), 2), 0.5)
    for options, message in [
        ({"sample_weight": np.ones(len(X))}, "sample_weight: weights of a stream are read with"),
        ({"acceleration": "squarem"}, "acceleration: a stream"),
        ({"algorithm": "annealing"}, "algorithm: a stream"),
        ({"start": responsibilities}, "start: responsibilities belong to rows in memory"),
        ({"passes": -1}, "passes: must be at least 0"),
        ({"subsample": 0}, "subsample: must be at least 1"),
        ({}, "key: "),
    ]:
        with pytest.raises(ValueError, match=message):
            jg.fit(MODEL, rows, **options)
    with pytest.raises(ValueError, match="a stream is not held in memory"):
        jg.bootstrap(jg.fit(MODEL, X, start=start()), rows, key=key)


def test_an_iterator_is_read_once(key):
    rows = jg.stream(iter(some_blocks()), block_rows=100)
    with pytest.raises(ValueError, match="this stream can be read once"):
        jg.fit(MODEL, rows, key=key)
    list(rows.blocks())
    with pytest.raises(ValueError, match="an iterator is read once, and its rows are gone"):
        list(rows.blocks())


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "rows.parquet").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxgmm\[large\]'"):
        jg.stream(tmp_path / "rows.parquet")


# -- every structure and prior --------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("structure", ["full", "tied", "diag", "spherical", "VEE", "EVI"])
def test_passes_of_every_structure(structure, prior):
    if prior != "none" and structure in ("VEE", "EVI"):
        prior = "fraley-raftery"
    model = jg.Mixture(jg.Gaussian(structure), 2, prior=PRIORS[prior](structure, X, 2))
    first = jg.fit(model, X, key=jax.random.key(0), n_init=1, start="random", max_iter=0).params
    # The first steps: where a run leaves a saddle later on, rounding grows with it.
    whole = jg.fit(model, X, start=first, tol=1e-4, max_iter=10)
    rows = jg.stream(X, block_rows=100)
    streamed = jg.fit(model, rows, start=first, tol=1e-4, passes=10, subsample=120)
    same_run(streamed, whole, len(X))
