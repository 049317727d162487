"""Selection: one row per model, published criteria, failures as rows."""

import dataclasses
import html
import json
import re

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from enumeration import one_component
from helpers import SMALL, soft_labels, tree_allclose
from scipy.special import xlogy

import jaxgmm as jg
from jaxgmm.report.selection._merge import MergeTree
from jaxgmm.report.selection._page import _code
from jaxgmm.report.selection._selection import Selection

FAITHFUL = jg.datasets.load("faithful").x
GALAXIES = jg.datasets.load("galaxies").x
EVERY = ("bic", "icl", "icl_entropy", "aic", "mclust_bic")


def models(structures, counts, **settings):
    return [jg.Mixture(jg.Gaussian(s), k, **settings) for s in structures for k in counts]


def select(grid, x, **settings):
    options = {"key": jax.random.key(2), "n_init": 8, "progress": False}
    return jg.select(grid, x, **{**options, **settings})


@pytest.fixture(scope="module")
def galaxies():
    return select(models(("E", "V"), (1, 3)), GALAXIES, criteria=EVERY, n_init=32)


# -- numbers ---------------------------------------------------------------------------


def test_old_faithful_agrees_with_mclusts_published_table():
    """BIC of G = 1, 2 (mclust's with the sign turned), VVV and EEE."""
    choice = select(models(("VVV", "EEE"), (1, 2)), FAITHFUL, n_init=4)
    published = [2607.623, 2322.192, 2607.623, 2325.220]
    assert np.allclose(choice.table["bic"], published, atol=0.01)
    assert list(choice.table["n_parameters"]) == [5, 11, 5, 8]
    assert choice.best.bic == choice.table["bic"].min()
    assert choice.best.model.family.name == "full"


@pytest.mark.slow
def test_galaxies_agree_with_mclust(galaxies):
    """mclust 6.0.0 at E; its ICL has BIC's sign and its own, looser tolerance."""
    table = galaxies.table
    heights = [-240.3378911957212, -212.35185518034442]
    assert np.allclose(table["log_likelihood"].iloc[:2], heights, rtol=1e-9)
    assert np.allclose(table["mclust_bic"].iloc[:2], [-489.4892209, -451.1440411], atol=1e-3)
    assert np.allclose(-table["icl"].iloc[:2], [-489.4892209, -451.3057213], atol=1e-3)
    assert list(table["n_parameters"]) == [2, 6, 2, 8]
    assert table["structure"].tolist() == ["tied", "tied", "full", "full"]
    assert table["n_components"].tolist() == [1, 3, 1, 3]


@pytest.mark.turn
def test_criteria_are_their_formulas(galaxies):
    for (_, row), fit in zip(galaxies.table.iterrows(), galaxies.fits, strict=True):
        labels = np.asarray(fit.model.responsibilities(fit.params, GALAXIES))
        bic = row["n_parameters"] * np.log(len(GALAXIES)) - 2 * row["log_likelihood"]
        assert row["bic"] == pytest.approx(bic, rel=1e-12)
        assert row["mclust_bic"] == -row["bic"]
        assert row["aic"] == pytest.approx(2 * row["n_parameters"] - 2 * row["log_likelihood"])
        certainty = np.log(labels.max(axis=1)).sum()
        assert row["icl"] == pytest.approx(bic - 2 * certainty, rel=1e-9)
        entropy = -xlogy(labels, labels).sum()
        assert row["icl_entropy"] == pytest.approx(bic + 2 * entropy, rel=1e-9)
        # The entropy of labels is at least the surprise of the most probable ones.
        assert row["bic"] <= row["icl"] <= row["icl_entropy"] + 1e-9


@pytest.mark.turn
def test_weights_count_as_rows():
    x, times = GALAXIES[::2], np.arange(41) % 2 + 1
    grid = models(("E",), (2,))
    weighted = select(grid, x, criteria=EVERY, sample_weight=times)
    repeated = select(grid, np.repeat(x, times, axis=0), criteria=EVERY)
    for name in EVERY:
        assert weighted.table[name].iloc[0] == pytest.approx(repeated.table[name].iloc[0])


@pytest.mark.slow
def test_integrated_criteria_at_one_component_are_the_exact_evidence():
    """There variational Bayes is exact and there is one labelling; lower is better."""
    model = models(("V",), (1,), prior="fraley-raftery")
    choice = select(
        model, GALAXIES, criteria=("bic", "elbo", "evidence"), criterion="evidence", n_init=1
    )
    exact = -2 * float(one_component(GALAXIES, choice.best.model.prior))
    row = choice.table.iloc[0]
    assert row["elbo"] == pytest.approx(exact, rel=1e-8)
    assert abs(row["evidence"] - exact) < 5 * row["evidence_error"] + 1e-6
    assert row["evidence_k"] < 0.7
    assert (row["reason"], row["note"]) == ("", "")


@pytest.mark.turn
def test_evidence_by_a_function_of_the_users_own(galaxies):
    class Found:
        log_evidence, error = -7.0, 0.5

    def integrate(fit, x, *, key, sample_weight, scale):
        assert isinstance(fit, jg.Fit)
        assert len(x) == 82
        assert sample_weight is None
        assert scale == 3
        return Found

    choice = select(
        models(("E",), (1,)),
        GALAXIES,
        criteria="evidence",
        options={"evidence": {"method": integrate, "scale": 3}},
    )
    assert choice.table["evidence"].iloc[0] == 14
    assert choice.table["evidence_error"].iloc[0] == 1
    assert np.isnan(choice.table["evidence_k"].iloc[0])


@pytest.mark.slow
def test_iris_agrees_with_mclust():
    """mclust's best model of iris is VEV with two components."""
    x = jg.datasets.load("iris").x
    choice = select(models(("EEE", "VEV", "VVV"), (2,)), x, criteria=("bic", "icl"))
    published = [688.0972201, 561.7284621, 574.0178323]
    assert np.allclose(choice.table["bic"], published, atol=1e-3)
    assert np.allclose(choice.table["icl"], [688.0985043, 561.7288757, 574.0190987], atol=1e-3)
    assert choice.best.model.family.name == "VEV"


@pytest.mark.slow
def test_integrated_criteria_find_three_groups_of_galaxies():
    grid = models(("V",), (1, 2, 3), prior="fraley-raftery")
    choice = select(
        grid,
        GALAXIES,
        criterion="loo",
        criteria=("bic", "elbo", "loo", "evidence", "lrt"),
        options={
            "loo": {"method": "gibbs", "n_chains": 2, "n_draws": 300},
            "lrt": {"n_replicates": 19},
        },
    )
    table = choice.table.reset_index(drop=True)
    assert (table["note"] == "").all()
    for name in ("bic", "elbo", "loo", "evidence"):
        assert table[name].astype(float).idxmin() == 2, name
    # Two estimates of one number. At K = 2 they are 1.0 apart, far outside the error: the
    # posterior has two modes, and Laplace's evidence knows the lower, wider one only from afar.
    assert (abs(table["elbo"] - table["evidence"]) < 1.5).all()
    assert (table["loo_error"] > 0).all()
    assert table["lrt_p"].iloc[0] == 0.05
    assert table["lrt_p"].iloc[2] > 0.05


# -- rows that cannot win ----------------------------------------------------------------


def test_a_model_that_fails_is_a_row_with_its_reason():
    x = np.repeat([[0.0, 1.0], [2.0, 0.5], [5.0, 5.0]], 20, axis=0)
    grid = [jg.Mixture(jg.Gaussian("spherical"), 1), jg.Mixture(jg.Gaussian("full"), 5)]
    choice = select(grid, x, n_init=2)
    assert "distinct rows" in choice.table["reason"].iloc[1]
    assert np.isnan(choice.table["bic"].iloc[1])
    assert choice.best.model.n_components == 1
    assert list(choice.ranking) == [0]
    assert "distinct rows" in repr(choice)
    failed = select(grid[1:], x, n_init=2)
    with pytest.raises(ValueError, match="no model could be fitted"):
        _ = failed.best
    assert "None of 1 model(s) could be fitted" in repr(failed)
    assert "distinct rows" in failed._repr_html_()


def test_a_criterion_that_fails_is_a_note_and_a_reason_where_it_decides():
    grid = models(("E",), (1,))
    choice = select(grid, GALAXIES, criteria=("bic", "elbo"))
    assert choice.table["reason"].iloc[0] == ""
    assert choice.table["note"].iloc[0].startswith("elbo: prior")
    assert np.isnan(choice.table["elbo"].iloc[0])
    assert choice.best.model.n_components == 1
    decided = select(grid, GALAXIES, criterion="elbo")
    assert decided.table["reason"].iloc[0].startswith("prior")
    assert not len(decided.ranking)


def test_a_spurious_optimum_never_wins():
    """Galaxies with five unequal variances: -190.07 hangs on two rows."""
    choice = select(models(("V",), (5,)), GALAXIES, n_init=64, criterion="aic")
    record = choice.fits[0].restarts
    assert record.spurious.any()
    assert record.log_likelihood[record.spurious].max() > -190.08
    row = choice.table.iloc[0]
    assert not choice.best.spurious
    assert row["log_likelihood"] < -195
    assert "set aside as spurious" in row["note"]


def test_a_spurious_fit_has_a_reason_and_no_rank():
    """Two of ten rows nearly coincide, and every start puts them together."""
    x = np.concatenate([np.linspace(0, 1, 8), [5.0, 5.0 + 1e-4]])
    choice = select(models(("V",), (2,)), x)
    assert choice.table["reason"].iloc[0].startswith("spurious optimum")
    assert not len(choice.ranking)


# -- the call ----------------------------------------------------------------------------


def test_models_of_one_shape_share_a_program(compilations):
    prior = lambda dof: jg.ConjugatePrior(
        mean=[20.0], mean_precision=0.1, dof=dof, scale=np.array([[4.0]])
    )
    grid = [jg.Mixture(jg.Gaussian("V"), 2, prior=prior(dof)) for dof in (3.0, 4.0)]
    first = select(grid, GALAXIES, n_init=3)
    others = [jg.Mixture(jg.Gaussian("V"), 2, prior=prior(dof)) for dof in (5.0, 6.0, 7.0)]
    with compilations:
        again = select(grid, GALAXIES, n_init=3)
        select(others, GALAXIES + 0.01, n_init=3, key=jax.random.key(5))
    assert compilations.count == 0
    assert again.table.equals(first.table)


def test_numbers_of_components_compile_nothing_each(compilations):
    select(models("V", (1, 5)), GALAXIES, n_init=3)
    with compilations:
        choice = select(models("V", (2, 3, 4, 5)), GALAXIES, n_init=3)
    assert compilations.count == 0
    assert [len(fit.params.weights) for fit in choice.fits] == [2, 3, 4, 5]
    assert choice.fits[0].restarts.params.means.shape == (3, 2, 1)


CODES = ("VVV", *(pytest.param(c, marks=pytest.mark.slow) for c in jg.model.STRUCTURES))


@pytest.mark.turn
@pytest.mark.parametrize("beside", [None, jg.Uniform()], ids=["alone", "background"])
@pytest.mark.parametrize("code", CODES)
def test_room_for_more_components_changes_nothing(code, beside):
    x, k = jnp.asarray(SMALL), 2 if beside is None else 3
    labels = soft_labels(len(SMALL), k)
    model = jg.Mixture(jg.Gaussian(code), k, background=beside).resolve(x)
    roomy = model.padded(k + 2)
    wide = np.insert(labels, [2, 2], 0, axis=1)
    own = jg.em.run(model, x, jnp.asarray(labels), max_iter=50)
    run = jg.em.run(roomy, x, jnp.asarray(wide), max_iter=50)
    assert run.status == own.status
    np.testing.assert_allclose(run.trace, own.trace, rtol=1e-10)
    tree_allclose(roomy.trimmed(run.params), own.params, rtol=1e-6, atol=1e-8)
    assert run.spurious == own.spurious
    assert roomy.n_parameters(2) == model.n_parameters(2)


def test_numbers_of_components_beside_a_background_share_a_program():
    grid = [jg.Mixture(jg.Gaussian("V"), k, background=jg.Uniform()) for k in (2, 3, 4)]
    choice = select(grid, GALAXIES, n_init=3)
    for row, model in enumerate(grid):
        alone = jg.fit(model, GALAXIES, key=jax.random.key(7), n_init=6)
        assert choice.fits[row].model.n_components == model.n_components
        found = choice.table.iloc[row]
        assert found["log_likelihood"] == pytest.approx(alone.log_likelihood, rel=1e-6)
        assert found["n_parameters"] == alone.n_parameters
        assert len(choice.fits[row].params.weights) == model.n_components


@pytest.mark.slow
def test_large_grids_free_their_programs(compilations, monkeypatch):
    grid = models(("E", "V"), (2,))
    whole = select(grid, GALAXIES, n_init=2)
    jg.em.free_programs()
    monkeypatch.setattr("jaxgmm._programs._store._MOST_PROGRAMS", 2)
    monkeypatch.setattr("jaxgmm._programs._store._LEAST_PROGRAMS", 1)
    parts = select(grid, GALAXIES, n_init=2)
    assert parts.table.equals(whole.table)
    monkeypatch.undo()
    with compilations:
        select(grid[:1], GALAXIES, n_init=2)
    assert compilations.count > 0
    with compilations:
        select(grid[:1], GALAXIES, n_init=2)
    assert compilations.count == 0


def test_rows_do_not_depend_on_the_threads(galaxies):
    """The fit of a row is `fit` of that model alone, whoever compiled beside it."""
    alone = jax.random.split(jax.random.fold_in(jax.random.key(2), 3))[0]
    fit = jg.fit(models(("V",), (3,))[0], GALAXIES, key=alone, n_init=32)
    row = galaxies.table["log_likelihood"].iloc[3]
    assert fit.log_likelihood == pytest.approx(row, rel=1e-12)


def test_bad_arguments_name_themselves():
    model = jg.Mixture(jg.Gaussian(), 1)
    with pytest.raises(ValueError, match="models"):
        select([], FAITHFUL)
    with pytest.raises(TypeError, match="models: needs models"):
        select([jg.Gaussian()], FAITHFUL)
    with pytest.raises(ValueError, match=r"criterion.*did you mean 'bic'"):
        select([model], FAITHFUL, criterion="bik")
    with pytest.raises(ValueError, match="criterion: unknown name 'mclust_bic'"):
        select([model], FAITHFUL, criterion="mclust_bic")
    with pytest.raises(ValueError, match="criteria: unknown name 'lo'"):
        select([model], FAITHFUL, criteria=("lo",))
    with pytest.raises(ValueError, match="options: unknown name 'loo'"):
        select([model], FAITHFUL, options={"loo": {}})
    with pytest.raises(ValueError, match="n_init"):
        select([model], FAITHFUL, n_init=0)
    with pytest.raises(ValueError, match="x: non-finite"):
        select([model], np.where(FAITHFUL > 5, np.inf, FAITHFUL))
    with pytest.raises(ValueError, match="key"):
        select([model], FAITHFUL, key=None)


# -- what it shows -----------------------------------------------------------------------


def test_the_text_says_who_wins_and_ranks(galaxies):
    text = repr(galaxies)
    assert text.startswith("Mixture(Gaussian('full'), n_components=3, prior=none) has the lowest")
    assert "No model with more components was tried." in text
    shown = [line[:11] for line in text.splitlines() if line[4:10] == ", K = "]
    assert shown[:2] == ["full, K = 3", "tied, K = 3"]
    assert set(shown[2:]) == {"full, K = 1", "tied, K = 1"}
    assert "delta" in text


def test_the_plot_draws_a_line_for_each_structure(galaxies):
    axes = galaxies.plot().axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines) == ["tied", "full", "best by BIC"]
    assert np.allclose(lines["full"].get_ydata(), galaxies.table["bic"].iloc[2:])
    assert lines["best by BIC"].get_xdata() == [3]
    assert "lower is better" in axes.get_title("left")
    given = matplotlib.figure.Figure().subplots()
    assert galaxies.plot(given, criterion="mclust_bic") is given
    assert "higher is better" in given.get_title("left")
    with pytest.raises(ValueError, match="criterion"):
        galaxies.plot(criterion="reason")


def test_hopeless_models_do_not_flatten_the_picture(galaxies):
    table = galaxies.table.iloc[[0] * 10].copy()
    table["n_components"] = range(1, 11)
    table["bic"] = [9000.0, *np.arange(100.0, 109.0)]
    axes = Selection(table, [galaxies.models[0]] * 10, [None] * 10, "bic", 1).plot().axes[0]
    low, high = axes.get_ylim()
    assert low < 100
    assert 108 < high < 200
    assert "1 not shown" in axes.get_title("left")


def test_files(galaxies, tmp_path):
    page = galaxies.save(tmp_path / "made")
    assert page == tmp_path / "made" / "select.html"
    text = page.read_text()
    assert "Choosing among 4 models" in text
    assert "http" not in text.replace("http://www.w3.org", "")
    assert (page.parent / "criteria.png").read_bytes()[1:4] == b"PNG"
    code = re.search(r"<code>(import.*?)</code>", text, re.DOTALL)[1]
    compile(html.unescape(code), "select.html", "exec")
    assert "k) for k in [1, 3])" in code
    assert "maximum likelihood" in text
    assert "![BIC by number of components](criteria.png)" in (page.parent / "select.md").read_text()
    record = json.loads((page.parent / "select.json").read_text())
    assert record["best"] == galaxies.table.index[galaxies.ranking[0]]
    assert [row["bic"] for row in record["models"]] == galaxies.table["bic"].tolist()
    assert len((page.parent / "select.csv").read_text().splitlines()) == 5


def test_the_code_of_a_choice_makes_its_models(galaxies):
    """From the models themselves: no description is read back."""
    prior = jg.ConjugatePrior(mean=[20.0], mean_precision=0.1, dof=3.0, scale=[[1.0]])
    ridge = jg.Gaussian("full", reg_covar=0.01)
    models = [
        jg.Mixture(jg.Gaussian("full"), 1, prior=prior),
        jg.Mixture(jg.Gaussian("full"), 2, prior=prior),
        jg.Mixture(jg.Gaussian("full"), 2, prior="fraley-raftery", weights="equal"),
        jg.Mixture(ridge, 3),
    ]
    choice = dataclasses.replace(galaxies, models=models)
    lines = re.search(r"models = \[\n(.*?)\n\]\n", _code(choice), re.DOTALL)[1]
    made = eval(f"[{lines}]", {"jg": jg})
    for one, other in zip(made, models, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    assert choice.kinds[2] == "full, prior fraley-raftery"


def test_a_fit_that_failed_is_null_in_json(galaxies, tmp_path):
    table = galaxies.table.copy()
    table.iloc[0, table.columns.get_loc("bic")] = np.nan
    table.iloc[0, table.columns.get_loc("reason")] = "<b>no</b>"
    choice = Selection(table, galaxies.models, galaxies.fits, "bic", 1)
    page = choice.save(tmp_path)
    assert json.loads((tmp_path / "select.json").read_text())["models"][0]["bic"] is None
    assert "&lt;b&gt;no" in page.read_text()


# -- merging -----------------------------------------------------------------------------


def test_merging_joins_the_halves_of_one_group():
    """Two components on one group, one on another far away; entropies by hand."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, 60), rng.normal(30, 1, 40)])
    model = jg.Mixture(jg.Gaussian("V"), 3)
    start = model.params(
        weights=[0.3, 0.4, 0.3], means=[-0.5, 30.0, 0.5], covariances=np.ones((3, 1, 1))
    )
    fit = jg.fit(model, x, start=start, max_iter=0)
    tree = jg.merge_components(fit, x)
    assert isinstance(tree, MergeTree)
    assert tree.groups(3) == [[0], [1], [2]]
    assert tree.groups(2) == [[0, 2], [1]]
    assert tree.groups(1) == [[0, 1, 2]]
    labels = np.asarray(model.responsibilities(fit.params, x[:, None]))
    assert tree.entropies[2] == pytest.approx(-xlogy(labels, labels).sum())
    assert tree.entropies[2] > 30
    assert tree.entropies[1] < 1e-6
    assert tree.entropies[0] == pytest.approx(0, abs=1e-9)
    assert np.array_equal(tree.predict(2), np.repeat([0, 1], [60, 40]))
    assert np.allclose(tree.responsibilities(2).sum(axis=1), 1)
    assert "{0,2} {1}" in repr(tree)
    assert np.allclose(tree.plot().axes[0].get_lines()[0].get_ydata(), tree.entropies)
    with pytest.raises(ValueError, match="there are 3 components, found 4"):
        tree.groups(4)
    with pytest.raises(ValueError, match="not the data"):
        jg.merge_components(fit, x[1:])
