"""What a posterior says of rows, against plain loops; weights; its forms for other tools."""

import dataclasses
import functools

import arviz as az
import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from posteriors import FAITHFUL, by_hand

import jaxgmm as jg
from jaxgmm.bayes._evidence import Evidence
from jaxgmm.files._tables import row_names

X_NEW = np.array([[2.0, 55.0], [4.3, 80.0], [3.2, 67.0], [9.0, 10.0]])


@functools.cache
def small(weighted):
    """Two chains of 20 draws, and their weights."""
    post = by_hand(n_draws=20)[1].relabel()
    weights = np.full((2, 20), 1 / 40)
    if weighted:
        weights = np.random.default_rng(4).integers(0, 5, (2, 20)).astype(float)
        weights[0, 0] = 1e-3
        weights /= weights.sum()
        with np.errstate(divide="ignore"):
            post = dataclasses.replace(post, log_weights=np.log(weights), pareto_k=0.2)
    return post, weights


def each_draw(post):
    for c in range(post.n_chains):
        for d in range(post.n_draws):
            yield (c, d), jax.tree.map(lambda leaf, c=c, d=d: jnp.asarray(leaf[c, d]), post.params)


@pytest.mark.turn
@pytest.mark.parametrize("weighted", [False, True])
def test_predictions_are_averages_over_the_draws(weighted):
    post, weights = small(weighted)
    mean, together, density = 0, 0, 0
    for at, params in each_draw(post):
        probability = np.asarray(post.model.responsibilities(params, X_NEW))
        mean = mean + weights[at] * probability
        density = density + weights[at] * np.exp(np.asarray(post.model.log_prob(params, X_NEW)))
        rows = np.asarray(post.model.responsibilities(params, FAITHFUL[:3]))
        together = together + weights[at] * rows @ rows.T
    np.fill_diagonal(together, 1)
    assert np.allclose(post.responsibilities(X_NEW), mean, rtol=1e-12)
    assert np.allclose(post.log_prob(X_NEW), np.log(density), rtol=1e-12)
    assert np.allclose(post.co_clustering(rows=[0, 1, 2]), together, rtol=1e-12)
    assert np.array_equal(post.predict(X_NEW), np.argmax(mean, axis=1))
    assert post.responsibilities().shape == (272, 2)
    assert post.co_clustering(rows=np.arange(272) < 5).shape == (5, 5)


def test_a_weight_is_a_number_of_copies():
    """Draws with weights 2 : 1 : 0 predict like the first one twice and the second once."""
    post = by_hand(n_draws=20)[1].relabel()
    counts = np.arange(40).reshape(2, 20) % 3
    with np.errstate(divide="ignore"):
        weighted = dataclasses.replace(post, log_weights=np.log(counts / counts.sum()))
    repeat = lambda leaf: np.repeat(leaf.reshape(40, *leaf.shape[2:]), counts.ravel(), axis=0)[None]
    copies = dataclasses.replace(
        post, params=jax.tree.map(repeat, post.params), log_prior=repeat(post.log_prior)
    )
    assert np.allclose(weighted.log_prob(X_NEW), copies.log_prob(X_NEW), rtol=1e-12)
    assert np.allclose(weighted.responsibilities(X_NEW), copies.responsibilities(X_NEW), rtol=1e-12)
    rows = [0, 5, 9]
    assert np.allclose(weighted.co_clustering(rows), copies.co_clustering(rows), rtol=1e-12)
    assert weighted.effective_draws == pytest.approx(counts.sum() ** 2 / np.sum(counts**2))
    assert post.effective_draws == 40


def test_the_summary_counts_the_weights_themselves():
    """As the verdict's table does: resampled draws would round them."""
    post, weights = small(weighted=True)
    draws = post.draws["weights"][..., 0]
    table = post.summary().loc["weights[0]"]
    mean = np.sum(weights * draws)
    assert np.isclose(table["mean"], mean, rtol=1e-12)
    assert np.isclose(table["sd"], np.sqrt(np.sum(weights * (draws - mean) ** 2)), rtol=1e-12)


def test_resampling_rounds_the_weights_and_keeps_records_together():
    post, weights = small(weighted=True)
    equal = post.resample()
    assert equal.log_weights is None
    assert equal.resample() is equal
    chosen = [np.flatnonzero(post.log_prior.ravel() == v)[0] for v in equal.log_prior.ravel()]
    counts = np.bincount(chosen, minlength=40)
    assert np.all(np.abs(counts - 40 * weights.ravel()) < 1)
    for name, leaf in equal.draws.items():
        assert leaf.shape == post.draws[name].shape
        source = post.draws[name].reshape(40, *leaf.shape[2:])
        assert np.array_equal(leaf.reshape(40, *leaf.shape[2:]), source[chosen])
    assert np.array_equal(equal.log_likelihood.ravel(), post.log_likelihood.ravel()[chosen])
    data = post.to_arviz()
    assert np.array_equal(data["posterior"]["means"], equal.draws["means"])
    assert data.attrs["resampled"] == "systematic"


def test_drawn_labels_cluster_rows_as_their_probabilities_say():
    post = by_hand()[1].relabel()
    drawn = post.sample_assignments(jax.random.key(5))
    assert drawn.shape == (2, 500, 272)
    assert drawn.dtype == np.int32
    rows = np.argsort(np.max(post.responsibilities(), axis=1))[:15]  # the least certain ones
    labels = drawn[..., rows].reshape(1000, 15)
    expected = post.co_clustering(rows)
    together = np.mean(labels[:, :, None] == labels[:, None, :], axis=0)
    # Labels of different draws are independent given the draws.
    error = np.sqrt(expected * (1 - expected) / 1000)
    assert np.all(np.abs(together - expected) <= 5 * error + 1e-12)
    assert np.any((expected > 0.05) & (expected < 0.95))
    means, chance = np.mean(labels == 1, axis=0), post.responsibilities()[rows, 1]
    assert np.all(np.abs(means - chance) < 5 * np.sqrt(chance * (1 - chance) / 1000))
    assert not np.array_equal(drawn, post.sample_assignments(jax.random.key(6)))


def test_results_have_the_dtype_of_the_data():
    post = small(False)[0]
    single = dataclasses.replace(post, x=jnp.asarray(post.x, jnp.float32))
    for values in (single.responsibilities(), single.log_prob(), single.co_clustering([0, 1])):
        assert values.dtype == np.float32
    assert np.allclose(single.log_prob(), post.log_prob(), atol=1e-4)


def test_rows_of_the_wrong_width_are_refused():
    post = small(False)[0]
    for call in (post.responsibilities, post.predict, post.log_prob):
        with pytest.raises(ValueError, match=r"x_new: needs rows of shape \(2,\)"):
            call(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="non-finite"):
        post.log_prob([[np.inf, 1.0]])
    with pytest.raises(TypeError, match="typed random key"):
        post.sample_assignments(0)
    for group in ("prior", "posterior_predictive"):
        with pytest.raises(ValueError, match="key: these groups are drawn"):
            post.to_arviz(**{group: True})


def test_other_rows_of_the_same_shape_compile_nothing(compilations):
    post, _ = small(False)
    calls = (post.responsibilities, post.log_prob, post.predict)
    for call in calls:
        call(X_NEW)
    with compilations:
        for call in calls:
            call(X_NEW + 0.3)
    assert compilations.count == 0


# -- the table -----------------------------------------------------------------------


def test_the_summary_is_computed_from_the_draws():
    post = by_hand()[1].relabel()
    table = post.summary()
    # 2 weights, 2 x 2 means, 2 variances.
    assert len(table) == 8
    draws = post.draws["means"][..., 1, 0]
    row = table.loc["means[1, x0]"]
    assert row["mean"] == pytest.approx(draws.mean())
    assert row["sd"] == pytest.approx(draws.std(ddof=1))
    assert row["eti89_low"] == pytest.approx(np.quantile(draws, 0.055))
    reference = az.summary(post.to_arviz(log_likelihood=False), var_names=["means"])
    assert row["r_hat"] == pytest.approx(float(reference.loc["means[1, x0]", "r_hat"]), abs=6e-3)
    html = post._repr_html_()
    assert "means[1, x0]" in html
    assert "<pre>Posterior of Mixture" in html


def test_weighted_draws_have_the_effective_number_of_their_weights():
    post, weights = small(weighted=True)
    table = post.summary()
    assert table["ess_bulk"].to_numpy() == pytest.approx(1 / np.sum(weights**2))
    assert table["r_hat"].isna().all()
    assert "Pareto k 0.20" in repr(post)
    assert post._repr_html_()


# -- ArviZ ---------------------------------------------------------------------------


def test_all_groups_have_named_dimensions():
    post = small(False)[0]
    plain = post.to_arviz()
    assert set(groups(plain)) == {"posterior", "sample_stats", "log_likelihood", "observed_data"}
    assert "log_likelihood" not in groups(post.to_arviz(log_likelihood=False))
    data = post.to_arviz(posterior_predictive=True, prior=True, key=jax.random.key(0))
    assert data["posterior_predictive"]["x"].dims == ("chain", "draw", "obs", "feature")
    assert data["posterior_predictive"]["x"].shape == (2, 20, 272, 2)
    assert data["prior"]["means"].dims == ("chain", "draw", "component", "feature")
    assert list(data["prior"]["means"]["feature"].values) == ["x0", "x1"]
    assert data["log_likelihood"]["x"].dims == ("chain", "draw", "obs")
    # Drawn from the model at each draw, and from the prior.
    replicated = data["posterior_predictive"]["x"].values.mean(axis=(0, 1, 2))
    assert np.allclose(replicated, FAITHFUL.mean(axis=0), rtol=0.05)
    spread = lambda group: np.std(data[group]["means"].values, axis=(0, 1))
    assert np.all(spread("prior") > 5 * spread("posterior"))


def test_the_prior_predicts_rows_of_its_own_draws():
    post = small(False)[0]
    plain = post.to_arviz(prior_predictive=True, key=jax.random.key(0))
    assert "prior" not in groups(plain)
    data = post.to_arviz(prior=True, prior_predictive=True, key=jax.random.key(0))
    drawn, prior = data["prior_predictive"]["x"], data["prior"]
    assert drawn.dims == ("chain", "draw", "obs", "feature")
    assert drawn.shape == (2, 20, 272, 2)
    assert np.array_equal(drawn.values, plain["prior_predictive"]["x"].values)
    # The mean of the rows is that of the mixture which they are of, to its own error.
    centre = (prior["weights"] * prior["means"]).sum("component")
    second = prior["covariances"] + (prior["means"] - centre) ** 2
    error = np.sqrt((prior["weights"] * second).sum("component") / 272)
    assert np.all(np.abs(drawn.mean("obs") - centre) < 5 * error)
    family = dataclasses.replace(post.model.family, structure="VEE")
    curved = dataclasses.replace(post, model=dataclasses.replace(post.model, family=family))
    with pytest.raises(ValueError, match=r"prior_predictive: needs draws of the prior, but"):
        curved.to_arviz(prior_predictive=True, key=jax.random.key(0))


def test_weights_and_evidence_are_in_the_file(tmp_path):
    post, weights = small(weighted=True)
    copies = np.arange(272) % 3 + 1.0
    found = Evidence(-1131.5, 0.02, "by hand")
    post = dataclasses.replace(post, evidence=found, sample_weight=copies)
    post.to_arviz().to_netcdf(str(tmp_path / "posterior.nc"))
    data = az.from_netcdf(str(tmp_path / "posterior.nc"))
    assert data.attrs["log_evidence"] == -1131.5
    assert data.attrs["log_evidence_error"] == 0.02
    assert data.attrs["log_evidence_method"] == "by hand"
    assert data.attrs["effective_draws"] == pytest.approx(1 / np.sum(weights**2))
    assert data.attrs["total_weight"] == copies.sum()
    assert np.array_equal(data["constant_data"]["sample_weight"].values, copies)
    assert data["constant_data"]["sample_weight"].dims == ("obs",)
    # Copies stand for weights: so many of each, to one.
    chosen = np.exp(data["sample_stats"]["log_weight"].values.ravel())
    for value, count in zip(*np.unique(chosen, return_counts=True), strict=True):
        same = np.sum(np.isclose(weights, value, rtol=1e-12))
        assert abs(count - 40 * value * same) <= same
    plain = small(weighted=False)[0].to_arviz()
    assert "constant_data" not in groups(plain)
    assert "log_weight" not in plain["sample_stats"]
    assert not {"log_evidence", "total_weight", "effective_draws"} & set(plain.attrs)


@pytest.mark.parametrize(
    ("index", "names"),
    [
        (pd.Index([f"row {i}" for i in range(60)]), ["row 0", "row 1"]),
        (pd.RangeIndex(5, 65), [5, 6]),
        (pd.date_range("2020-01-01", periods=60), np.array(["2020-01-01", "2020-01-02"], "M8[ns]")),
        (
            pd.date_range("2020-01-01", periods=60, tz="CET"),
            ["2020-01-01 00:00:00+01:00", "2020-01-02 00:00:00+01:00"],
        ),
        (pd.MultiIndex.from_product([["a", "b"], range(30)]), ["('a', 0)", "('a', 1)"]),
    ],
)
def test_rows_are_called_as_in_the_data_frame(index, names, tmp_path):
    frame = pd.DataFrame(FAITHFUL[:60], columns=["eruptions", "waiting"], index=index)
    for x in (frame, frame["waiting"]):
        assert np.array_equal(row_names(x)[:2], np.array(names))
    assert row_names(FAITHFUL) is row_names(FAITHFUL.tolist()) is None
    post = dataclasses.replace(small(False)[0], x=FAITHFUL[:60], row_names=row_names(frame))
    data = post.to_arviz()
    data.to_netcdf(str(tmp_path / "posterior.nc"))
    back = az.from_netcdf(str(tmp_path / "posterior.nc"))
    for group in ("observed_data", "log_likelihood"):
        assert np.array_equal(data[group]["obs"].values[:2], np.array(names))
        assert np.array_equal(back[group]["obs"].values[:2], np.array(names))


@pytest.mark.slow
def test_a_sampler_keeps_the_index():
    frame = pd.DataFrame(FAITHFUL[:60], index=np.arange(60) + 100)
    model = jg.Mixture(jg.Gaussian("full"), 1, prior="fraley-raftery")
    post = jg.sample(model, frame, key=jax.random.key(0), method="gibbs", n_draws=4, progress=False)
    assert post.to_arviz()["log_likelihood"]["obs"].values[0] == 100


def groups(data):
    """Names of the groups, of an InferenceData as of a DataTree."""
    return data.groups() if callable(data.groups) else list(data.children)


@pytest.mark.parametrize("weighted", [False, True])
def test_netcdf_and_back(weighted, tmp_path):
    post = small(weighted)[0]
    post = dataclasses.replace(post, sample_stats={"diverging": np.zeros((2, 20), bool)})
    data = post.to_arviz(posterior_predictive=True, prior=True, key=jax.random.key(0))
    data.to_netcdf(str(tmp_path / "posterior.nc"))
    back = az.from_netcdf(str(tmp_path / "posterior.nc"))
    assert set(groups(back)) == set(groups(data))
    for group in groups(data):
        for name, values in data[group].data_vars.items():
            assert back[group][name].dims == values.dims
            assert np.array_equal(back[group][name].values, values.values), (group, name)
    assert back.attrs["sampler"] == "hand"


@pytest.mark.filterwarnings("default")  # ArviZ's and Matplotlib's own
def test_the_installed_arviz_takes_it():
    matplotlib.use("agg")
    post = by_hand()[1].relabel()
    data = post.to_arviz(posterior_predictive=True, prior=True, key=jax.random.key(0))
    assert len(az.summary(data, var_names=["weights", "means"])) == 6
    loo = az.loo(data)
    elpd = loo.elpd if hasattr(loo, "elpd") else loo.elpd_loo
    assert np.isfinite(elpd)
    # The draws hardly depend on the data: leaving a row out costs next to nothing.
    assert elpd == pytest.approx(post.log_prob().sum(), rel=0.02)
    worse = by_hand(gap=0.0, swap=0.0)[1]
    table = az.compare({"two": data, "one": worse.to_arviz()})
    assert table.index[0] == "two"
    plots = ["plot_trace", "plot_forest", "plot_pair", "plot_rank"]
    plots += ["plot_posterior", "plot_ppc"] if hasattr(az, "plot_ppc") else ["plot_dist"]
    for name in plots:
        some = {} if name == "plot_ppc" else {"var_names": ["weights"]}
        assert getattr(az, name)(data, **some) is not None
        plt.close("all")
