"""Calibration: right posteriors pass, a sampler that forgets its prior is caught by name."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxgmm as jg
from jaxgmm.report import Calibration
from jaxgmm.report.studies._calibrate import _counted
from jaxgmm.report.studies._ranks import bands, cumulative, rank_table

PRIOR = jg.ConjugatePrior(
    mean=[1.0, 0.5], mean_precision=0.5, dof=9.0, scale=[[3.0, 1.0], [1.0, 2.0]]
)
ONE = jg.Mixture(jg.Gaussian("full"), 1, prior=PRIOR)


def exact(model, x, params, key):
    """The posterior of one component, which labelled rows update in closed form."""
    working = model.standardise(x)
    known = working.updated(working.statistics(jnp.ones((len(x), 1), x.dtype), x))
    return working.to_user(known.draw_prior(key))


def forgetful(model, x, params, key):
    """The same without the prior of the covariance, but for what makes it proper."""
    prior = dataclasses.replace(model.prior, dof=model.prior.dof - 6, scale=model.prior.scale / 10)
    return exact(dataclasses.replace(model, prior=prior), x, params, key)


def made(model=ONE, **options):
    settings = {"n": 8, "n_datasets": 400, "key": jax.random.key(3), "n_draws": 49, "thinning": 1}
    return jg.calibrate(model, **{**settings, "progress": False, **options})


@pytest.fixture(scope="module")
def wrong():
    return made(method=forgetful)


@pytest.mark.slow
def test_exact_draws_have_uniform_ranks():
    right = made(method=exact)
    assert right.uniform
    assert right.ranks.min() == 0
    assert right.ranks.max() == 49
    assert "the ranks of all 6 quantities are uniform" in repr(right)
    assert np.all(np.abs(right.table["mean_rank"] - 0.5) < 5 / np.sqrt(12 * 400))
    assert right.ends.loc["drawn"].tolist() == [400, 400]


@pytest.mark.turn
def test_a_sampler_that_forgets_its_prior_is_caught_by_name(wrong):
    assert not wrong.uniform
    off = wrong.table.index[~wrong.table["uniform"]]
    assert {"overall covariance[x0, x0]", "overall covariance[x1, x1]"} <= set(off)
    first = wrong.conclusions[0]
    assert first.startswith("forgetful at n = 8, over 400 data sets: ranks are not uniform: ")
    assert "overall covariance[x0, x0] (draws too " in first
    assert np.all(wrong.table.loc[off, "p_value"] < 0.05)


@pytest.mark.parametrize(("draws", "words"), [(0.7, "too narrow"), (1.4, "too wide")])
def test_what_a_departure_means(draws, words):
    rng = np.random.default_rng(0)
    truth, drawn = rng.normal(size=1000), draws * rng.normal(size=(1000, 49))
    ranks = np.sum(drawn < truth[:, None], axis=1)
    table = rank_table(ranks[:, None], ["q"], 49, 0.95)
    assert table.loc["q", "meaning"] == f"draws {words}"
    shifted = np.sum(drawn / draws + 0.5 < truth[:, None], axis=1)
    assert rank_table(shifted[:, None], ["q"], 49, 0.95).loc["q", "meaning"] == "draws too high"


def test_bands_hold_uniform_ranks_as_often_as_they_say():
    n_ranks, n_draws, level, sets = 200, 19, 0.9, 2000
    band = bands(n_ranks, n_draws, level)
    rng = np.random.default_rng(1)
    counts = [cumulative(rng.integers(n_draws + 1, size=n_ranks), n_draws) for _ in range(sets)]
    inside = np.mean([np.all((band.low <= c) & (c <= band.high)) for c in counts])
    # Counts are whole numbers, so that the bands hold a little more.
    assert -5 * np.sqrt(level * (1 - level) / sets) < inside - level < 0.05
    assert np.allclose(band.expected, n_ranks * np.arange(1, 20) / 20)


@pytest.mark.parametrize("n_draws", [19, 100])  # 101 ranks are a prime number of them
def test_p_values_of_uniform_ranks_are_uniform(n_draws):
    ranks = np.random.default_rng(2).integers(n_draws + 1, size=(300, 200))
    table = rank_table(ranks, list(map(str, range(200))), n_draws, 0.95)
    for name in ("p_value", "chi2_p_value"):
        assert stats.kstest(table[name], "uniform").pvalue > 1e-3
    assert table["uniform"].mean() > 0.99


def test_data_sets_without_an_answer_have_no_ranks():
    ranks = np.array([[3, 3], [-1, -1], [0, 1], [2, 3]])
    assert rank_table(ranks, ["a", "b"], 3, 0.95)["n_ranked"].tolist() == [3, 3]


def test_every_data_set_is_counted_and_said():
    end = np.array([0, 0, 3, 3, 1, 4])
    ends = _counted(end, np.array([True, True, True, False, False, False]), "converged")
    assert ends["data_sets"].sum() == 6
    assert ends.loc["not converged"].tolist() == [2, 1]
    assert ends["ranked"].sum() == 3
    settings = {"method": "em", "n": 8, "n_datasets": 6}
    table = rank_table(np.array([[3], [1], [0]]), ["a"], 3, 0.95)
    said = Calibration(table, np.zeros((6, 1)), ends, settings).conclusions
    assert said[1:] == [
        "Data sets ranked though not converged: 1.",
        "Data sets without ranks: 1 collapsed, 1 not converged, 1 not a maximum.",
    ]


@pytest.mark.slow
def test_a_kernel_that_leaves_the_numbers_has_no_ranks():
    def lost(model, x, params, key):
        return jax.tree.map(lambda leaf: jnp.where(jnp.sum(x) > 16, jnp.nan, leaf), params)

    found = made(method=lost, n_datasets=50, n_draws=9)
    drawn, ranked = found.ends.loc["drawn"]
    assert drawn == 50
    assert 0 < ranked < 50
    assert (found.table["n_ranked"] == ranked).all()
    assert "Data sets without ranks: " in repr(found)


@pytest.mark.turn
def test_the_report_stands_alone(wrong, tmp_path):
    page = wrong.save(tmp_path)
    refuse = lambda constant: pytest.fail(f"{constant} is no JSON")
    record = json.loads((tmp_path / "calibration.json").read_text(), parse_constant=refuse)
    assert record["conclusions"] == wrong.conclusions
    assert np.array_equal(record["ranks"], wrong.ranks)
    assert page.read_text().count("data:image/png;base64,") == 1
    assert (tmp_path / "ranks.png").read_bytes()[:4] == b"\x89PNG"
    assert 'class="jaxgmm-verdict"' in wrong._repr_html_()
    assert "**forgetful at n = 8" in (tmp_path / "calibration.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gibs"}, "method: unknown name 'gibs'; did you mean 'gibbs'"),
        ({"n_datasets": 3}, "n_datasets: must be at least 20, found 3"),
        ({"level": 95}, "level: needs a number between 0 and 1, such as 0.95; found 95"),
        ({"model": 3}, "model: needs one such as jaxgmm.Mixture, found int"),
        (
            {"model": jg.Mixture(jg.Gaussian(), 2, prior="fraley-raftery")},
            "model: .* has no prior as numbers to draw from; give a ConjugatePrior, or model.resol",
        ),
        ({"key": None}, "key: parameters and data sets are random; pass key="),
    ],
)
def test_bad_input_is_refused_with_what_to_do(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        made(**options)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "n_datasets"), [("gibbs", 300), ("nuts", 60), ("smc", 200)])
def test_the_samplers_are_right(method, n_datasets):
    model = dataclasses.replace(ONE, n_components=2)
    settings = {"n": 20, "n_draws": 20, "thinning": 8, "level": 0.999}
    found = made(model, method=method, n_datasets=n_datasets, **settings)
    assert found.uniform
    assert "smallest weight" in found.table.index


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "n_datasets"), [("em", 500), ("laplace", 500), ("vb", 500), ("svi", 250)]
)
def test_approximations_are_told_from_posteriors(method, n_datasets):
    model = dataclasses.replace(ONE, n_components=2)
    found = made(model, method=method, n=20, n_datasets=n_datasets)
    assert not found.uniform
    assert ("log likelihood" in found.table.index) == (method != "em")
