"""Studies: what they say where the truth about a method is known, and that they can go on."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from truths import left_out, one_gaussian

import jaxgmm as jg
from jaxgmm.report.studies import _asked, _batches, _study
from jaxgmm.report.studies._case import adjusted_rand
from jaxgmm.report.studies._methods import METHODS, wald
from jaxgmm.report.studies._plots import _ticks
from jaxgmm.report.studies._quantities import quantities, values

N, SETS, KEY = 40, 300, jax.random.key(5)
LEVELS = (0.5, 0.89, 0.95)
# Between a share and its exact value, in Monte-Carlo errors: 15 comparisons fail by chance in one
# of 30,000 seeds.
SIGMAS = 5.0

TRUTH = jg.Mixture(jg.Gaussian("full"), 1)
PARAMS = TRUTH.params(means=[[1.0, -2.0]], covariances=[[[2.0, 0.6], [0.6, 1.0]]])


def too_sure(case):
    """EM with standard errors of four fifths."""
    right = METHODS["em"](case)
    error, rest = 0.8 * right.standard_error, (right.end, right.log_density, right.adjusted_rand)
    return wald(case, right.estimate, error, *rest)


def made(truth=TRUTH, params=PARAMS, **options):
    settings = {"n": N, "n_datasets": SETS, "key": KEY, "n_init": 2, "n_held_out": 50}
    return jg.study(truth, params, **{**settings, "progress": False, **options})


def simulated(numbers, n=N):
    """The rows of some of these data sets."""
    setting = dataclasses.make_dataclass("Rows", ["n_rows", "n_held_out"], frozen=True)(n, 50)
    return _batches._simulate(TRUTH, PARAMS, None, _batches._keys(KEY, numbers), n, setting)


def exact(monkeypatch, n_rows):
    """No rows are filled up: the first of as many are drawn, and cut."""
    simulate = _batches._simulate

    def cut(truth, params, given, keys, n, setting):
        rows = simulate(truth, params, given, keys, n, setting._replace(n_rows=n_rows))
        return _batches._first_rows(rows, n)

    monkeypatch.setattr(_study, "size_for", lambda n: n)
    monkeypatch.setattr(_batches, "_simulate", cut)


@pytest.fixture(scope="module")
def one_component():
    return made(methods={"em": "em", "too sure": too_sure})


@pytest.mark.turn
def test_one_component_has_the_coverage_of_normal_theory(one_component):
    """Of Wald's intervals, by Student's t and chi-squared."""
    coverage = one_component.coverage.loc["em"]
    for level in LEVELS:
        z = stats.norm.ppf((1 + level) / 2)
        mean = 2 * stats.t(N - 1).cdf(z * np.sqrt((N - 1) / N)) - 1
        reach = z * np.sqrt(2 / N)
        chi2 = stats.chi2(N - 1).cdf
        variance = chi2(N / (1 - reach)) - chi2(N / (1 + reach))
        exact = {"means": mean, "covariances": variance}
        for site, share in exact.items():
            for feature in ("x0", "x1"):
                place = feature if site == "means" else f"{feature}, {feature}"
                found = coverage.loc[(f"{site}[0, {place}]", level)]
                error = np.sqrt(share * (1 - share) / SETS)
                assert abs(found["coverage"] - share) < SIGMAS * error
                assert found["n_used"] == SETS


@pytest.mark.turn
def test_means_are_unbiased_and_their_errors_honest(one_component):
    table = one_component.table.loc["em"].loc["means[0, x0]"]
    assert abs(table["bias"]) < SIGMAS * table["bias_error"]
    assert table["rmse"] == pytest.approx(np.sqrt(2.0 / N), abs=SIGMAS * table["rmse_error"])
    assert table["ratio"] == pytest.approx(1, abs=SIGMAS * table["ratio_error"])
    # Half the relative error of a variance that is chi-squared.
    assert table["ratio_error"] == pytest.approx(np.sqrt(0.5 / SETS), rel=0.2)


def test_standard_errors_too_small_by_a_fifth_are_caught_by_name(one_component):
    ratios = one_component.findings[one_component.findings["what"] == "standard error / spread"]
    assert set(ratios["method"]) == {"too sure"}
    assert {"means[0, x0]", "means[0, x1]"} <= set(ratios["quantity"])
    assert np.allclose(ratios["found"], 0.8, atol=0.15)
    assert "too sure: " in repr(one_component)


@pytest.mark.turn
def test_estimates_and_errors_are_those_of_the_doors():
    """Of 37 rows, which three more fill up."""
    study, keys = made(n=37), _batches._keys(KEY, np.arange(2))
    x = np.asarray(simulated(np.arange(2)).x)[1, :37]
    fit = jg.fit(TRUTH, x, key=jax.random.fold_in(keys[1], _batches._STARTS), n_init=2)
    outcome = study.record.outcomes["em"]
    labels = study.table.loc["em"].index
    for kind, found in (("estimate", outcome.estimate), ("standard_error", outcome.standard_error)):
        own = jg.standard_errors(fit, x).table[kind]
        there = [labels.get_loc(name) for name in own.index[own.index != "weights[0]"]]
        assert np.allclose(found[1, there], own[own.index != "weights[0]"], rtol=1e-8)


def test_the_report_stands_alone_and_holds_every_frame(one_component, tmp_path):
    page = one_component.save(tmp_path / "made")
    text = page.read_text()
    assert page.name == "study.html"
    assert "http" not in text.replace("http://www.w3.org", "")
    assert text.count("data:image/png;base64,") == 3
    refuse = lambda constant: pytest.fail(f"{constant} is no JSON")
    record = json.loads((page.parent / "study.json").read_text(), parse_constant=refuse)
    assert record["conclusions"] == one_component.conclusions
    first = record["coverage"][0]
    at = one_component.coverage.loc[(first["method"], first["quantity"], first["level"])]
    assert at["coverage"] == first["coverage"]
    assert len(record["table"]) == len(one_component.table)
    assert "| too sure |" in (page.parent / "study.md").read_text()
    assert 'class="jaxgmm-verdict"' in one_component._repr_html_()
    for name in ("coverage", "errors", "failures"):
        assert f"figure-{name}" in text


def test_the_first_sentence_is_what_may_be_concluded(one_component):
    first = one_component.conclusions[0]
    assert first.startswith(f"At n = {N}, over {SETS} data sets, em: 95% intervals cover ")
    assert repr(one_component).startswith(first[:60])
    assert any(
        said.startswith("too sure: standard error / spread") for said in one_component.conclusions
    )


@pytest.mark.turn
def test_how_often_criteria_pick_the_truth(tmp_path):
    """One component against one without correlation, which is 0.42."""
    models = [dataclasses.replace(TRUTH, family=jg.Gaussian(name)) for name in ("diag", "full")]
    found = made(select=models, n_datasets=100)
    picked = found.selection["picked"].unstack("model")
    assert np.allclose(picked.sum(axis=1), 1)
    assert found.selection["truth"].tolist() == 3 * [False, True]
    # AIC asks for less than BIC at 40 rows, so it picks the larger one more often.
    full = repr(TRUTH)
    assert picked.loc["aic", full] > picked.loc["bic", full] > 0.5
    assert picked.loc["icl", full] == picked.loc["bic", full]  # one component has one label
    # The likelihood ratio of zero correlation, in closed form from each data set.
    rows = simulated(np.arange(100))
    ratio = np.array([-N * np.log(1 - np.corrcoef(x.T)[0, 1] ** 2) for x in np.asarray(rows.x)])
    assert picked.loc["bic", full] == pytest.approx(np.mean(ratio > np.log(N)))
    assert picked.loc["aic", full] == pytest.approx(np.mean(ratio > 2))
    assert any("picked by BIC on" in said for said in found.conclusions)
    assert "Choice of models" in found.save(tmp_path).read_text()


def test_a_test_stops_at_the_first_model_that_is_not_given_up(monkeypatch):
    p_values = {(0, 1): 0.01, (1, 2): 0.3, (2, 3): 0.01}
    tested = []

    def lrt(model, x, *, key, alternative, n_replicates):
        tested.append((model, alternative))
        if n_replicates != 99:
            raise ValueError("no proper fit to compare")
        return SimpleNamespace(p_value=p_values[model, alternative])

    monkeypatch.setattr(_asked.em, "bootstrap_lrt", lrt)
    walk = lambda models, **options: _asked._p_values(models, None, KEY, options)
    found = [walk((0, 1, 2, 3)), walk((2, 3)), walk((0,)), walk((1, 2), n_replicates=9)]
    assert tested == [(0, 1), (1, 2), (2, 3), (1, 2)]
    np.testing.assert_array_equal(found[0], [0.01, 0.3, np.nan, np.nan])
    of = lambda values: _asked.picked("lrt", values[None])[0]
    assert [of(values) for values in found] == [1, 1, 0, -1]
    # Lowest, and no model where none has a value.
    values = np.array([[2.0, 1.0], [np.inf, np.inf], [0.0, np.inf]])
    assert _asked.picked("loo", values).tolist() == [1, -1, 0]


@pytest.mark.slow
def test_criteria_that_draw_are_those_of_select_and_the_evidence_is_exact():
    """One component under two priors, whose posteriors are known."""
    priors = [
        jg.ConjugatePrior(mean=[m, 0.0], mean_precision=1.0, dof=6.0, scale=np.eye(2) * 3)
        for m in (1.0, 0.0)
    ]
    models = [dataclasses.replace(TRUTH, prior=prior) for prior in priors]
    criteria = {"bic": {}, "evidence": {"n_draws": 200}, "loo": {}}
    options = {"n": 10, "n_datasets": 12, "n_draws": 100, "select": models}
    found = made(model=models[0], criteria=criteria, **options)
    values, picked = found.record.criteria, found.selection["picked"].unstack("model")
    assert list(values) == list(criteria)
    assert values["loo"].shape == (12, 2)
    rows = np.asarray(simulated(np.arange(12), n=10).x)
    of = lambda exact: np.array([[-2 * exact(x, prior) for prior in priors] for x in rows])
    exact, left = of(lambda x, prior: one_gaussian(x, prior).log_evidence), of(left_out)
    np.testing.assert_allclose(values["evidence"], exact, atol=0.3)
    np.testing.assert_allclose(values["loo"], left, atol=3)
    best = np.mean(np.argmin(exact, axis=1) == 0)
    assert picked.loc["evidence", f"{models[0]!r} (select[0])"] == pytest.approx(best, abs=0.1)
    assert "the evidence on" in found.conclusions[-1]


@pytest.mark.slow
def test_the_bootstrap_test_finds_two_components():
    truth, params = jg.report.truth("separated", prior=None)
    models = [jg.Mixture(jg.Gaussian("full"), k) for k in (1, 2)]
    options = {
        "n": 60,
        "n_datasets": 5,
        "select": models,
        "criteria": {"lrt": {"n_replicates": 19}},
    }
    found = made(truth, params, **options)
    assert found.selection["picked"].tolist() == [0, 1]
    assert np.all(found.record.criteria["lrt"] == [0.05, 1.0])


def test_the_code_in_the_report_makes_the_same_truth(one_component):
    code = made(n_datasets=100).settings["code"]
    head, call = code.split("found = ")
    scope = {}
    exec(head, scope)
    assert np.array_equal(scope["params"].means, PARAMS.means)
    assert np.array_equal(scope["params"].covariances, PARAMS.covariances)
    assert f"n={N},\n" in call
    assert "key=jax.random.key(5)" in call


def test_every_data_set_is_counted(one_component):
    ends = one_component.failures.drop(columns=["missed", "elsewhere"])
    assert (ends.sum(axis=1) == SETS).all()
    assert (one_component.table["n_used"] == SETS).all()


def test_a_study_that_was_interrupted_goes_on_with_the_same_numbers(tmp_path, monkeypatch):
    whole, written = made(), []

    def stop_at_the_third(folder, files):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(files)
        write(folder, files)

    write = _batches.write
    monkeypatch.setattr(_batches, "write", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        made(path=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.undo()
    resumed = made(path=tmp_path)
    for one, other in zip(
        jax.tree.leaves(whole.record._replace(seconds={})),
        jax.tree.leaves(resumed.record._replace(seconds={})),
        strict=True,
    ):
        assert np.array_equal(one, other)
    assert list(resumed.record.outcomes) == ["em"]
    with pytest.raises(ValueError, match=r"path: .* another study .*name another folder"):
        made(path=tmp_path, key=jax.random.key(6))


def test_a_second_study_and_numbers_of_rows_nearby_compile_nothing(compilations):
    made()
    with compilations:
        made(key=jax.random.key(7), n_datasets=2 * SETS)
        found = [made(n=n) for n in (37, 38, 39)]
    assert compilations.count == 0
    spread = [study.table.loc["em"].loc["means[0, x0]", "spread"] for study in found]
    assert len(set(spread)) == 3


@pytest.mark.slow
def test_rows_that_fill_up_leave_no_trace(monkeypatch):
    """At 37 rows the programs are those of 40."""
    options = {"n": 37, "n_datasets": 20, "methods": {"em": "em", "mine": too_sure}}
    models = [TRUTH, dataclasses.replace(TRUTH, family=jg.Gaussian("diag"))]
    filled = made(**options, select=models)
    exact(monkeypatch, 40)
    same_records(filled, made(**options, select=models), rtol=1e-10)


def test_methods_of_ones_own_see_the_rows_of_a_data_set_and_no_others():
    seen = []

    def mine(case):
        seen.append((case.x.shape, case.rows.labels.shape))
        known, found = case.values(case.found.params), case.found
        return wald(case, known, jnp.ones_like(known), found.end, known[0], known[0])

    made(n=37, methods={"mine": mine})
    assert set(seen) == {((37, 2), (37,))}


def same_records(one, other, rtol):
    one, other = (study.record._replace(seconds={}) for study in (one, other))
    for (path, a), b in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["me"]}, "methods: unknown name 'me'.*did you mean 'em'"),
        ({"methods": []}, "methods: needs at least one of em,.*found none"),
        ({"n": 1}, "n: must be at least 2, found 1"),
        ({"n_datasets": 0}, "n_datasets: must be at least 2, found 0"),
        ({"levels": [95]}, "levels: need numbers between 0 and 1, such as 0.95; found 95"),
        ({"key": 3}, "key: needs a typed random key, found int"),
        ({"truth": 3}, "truth: needs a model such as jaxgmm.Mixture, found int; pass truth=fit"),
        ({"params": "these"}, "params: needs parameters of the truth, such as truth.params"),
        ({"params": {"means": np.zeros(2)}}, "params: do not fit .*found dict with shapes"),
        ({"model": 3}, "model: needs models such as jaxgmm.Mixture, found int"),
        ({"select": [TRUTH, 3]}, "select: needs models such as jaxgmm.Mixture, found int"),
        ({"methods": ["gibbs"]}, "prior: .*improper"),
        ({"criteria": ["bicc"]}, "criteria: unknown name 'bicc'.*did you mean 'bic'"),
        ({"criteria": {"aic": {"n_draws": 9}}}, "criteria: 'aic' has no options, found {'n_dr"),
        ({"select": [TRUTH], "criteria": ["evidence"]}, "prior: .*improper"),
        (
            {"select": [dataclasses.replace(TRUTH, n_components=2), TRUTH], "criteria": "lrt"},
            'select: criteria "lrt" tests each model .* as many components; found 2, 1',
        ),
    ],
)
def test_bad_input_is_refused_with_what_to_do(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        made(**options)


def test_adjusted_rand_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for k_one, k_other in ((2, 3), (4, 2), (1, 1), (1, 3)):
        one, other = rng.integers(k_one, size=50), rng.integers(k_other, size=50)
        labels, weight = (jnp.array(one), jnp.array(other)), jnp.arange(50.0) < 40
        found = float(adjusted_rand(*labels, k_one, k_other, weight))
        own = metrics.adjusted_rand_score(one[:40], other[:40])
        assert found == pytest.approx(own, abs=1e-12)


@pytest.mark.parametrize("width", [1.02, 1.2, 2, 3.9, 4.1, 30, 1e3, 1e6])
@pytest.mark.parametrize("low", [0.3, 0.93, 1e-3])
def test_an_axis_of_ratios_has_a_few_round_ticks(low, width):
    ticks = _ticks(low, low * width)
    assert 2 <= len(ticks) <= 12
    assert all(low <= tick <= low * width for tick in ticks)
    assert len({f"{tick:g}" for tick in ticks}) == len(ticks)


# -- families ------------------------------------------------------------------------------

OTHERS = {
    "poisson": (jg.families.Poisson(), {"rates": [[2.0], [11.0]]}),
    "bernoulli": (
        jg.families.Bernoulli(),
        {"probs": [[0.1, 0.2, 0.1, 0.2, 0.1], [0.9, 0.8, 0.9, 0.8, 0.7]]},
    ),
    "student": (
        jg.families.StudentT("diag"),
        {
            "locations": [[0.0, 0.0], [9.0, 0.0]],
            "scale_matrices": [[1.0, 2.0], [1.0, 1.0]],
            "dof": [6.0, 6.0],
        },
    ),
}


def of_family(name):
    family, own = OTHERS[name]
    truth = jg.Mixture(family, 2, prior="weak")
    return truth, truth.params(weights=[0.4, 0.6], **own)


@pytest.mark.parametrize(
    ("name", "label", "value"),
    [
        ("poisson", "average rates[x0]", 7.4),
        ("bernoulli", "average probs[x4]", 0.46),
        ("student", "average scale_matrices[x1]", 1.4),
        ("student", "average dof", 6.0),
    ],
)
def test_families_have_quantities_that_no_renaming_changes(name, label, value):
    truth, params = of_family(name)
    truth = truth.resolve(truth.sample(params, KEY, 20))
    names = tuple(f"x{j}" for j in range(5))
    wanted = quantities(truth, params, names)
    found = zip(wanted, values(wanted, truth, params), strict=True)
    at = {q.label: (q.invariant, number) for q, number in found}
    assert at[label] == (True, pytest.approx(value))
    assert at["shared component"] == (True, pytest.approx(0.52))
    renamed = truth.permute(params, jnp.array([1, 0]))
    for quantity, number in zip(wanted, values(wanted, truth, renamed), strict=True):
        assert not quantity.invariant or number == pytest.approx(at[quantity.label][1])


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_families_are_studied(name):
    methods = ["em", "em-sandwich", "bootstrap", "laplace"]
    methods += ["vb", "gibbs"] if name != "student" else []
    settings = {"methods": methods, "n_draws": 100, "n_replicates": 60, "n_warmup": 50}
    # Degrees of freedom of normal-looking samples are on the edge of their range.
    found = made(*of_family(name), n=300, n_datasets=60, n_init=4, **settings)
    ends = found.failures.drop(columns=["missed", "elsewhere"])
    assert (ends.sum(axis=1) == 60).all()
    assert (found.failures["used"] >= (30 if name == "student" else 58)).all()
    site = {"poisson": "rates", "bernoulli": "probs", "student": "locations"}[name]
    groups = found.groups.xs(site, level="group").drop("vb", errors="ignore")
    off = np.abs(groups["coverage_0.95"] - 0.95) / np.maximum(groups["error_0.95"], 0.01)
    assert np.all(off < SIGMAS)


# -- two components ------------------------------------------------------------------------


def two(dtype="float64", apart=6.0, prior="fraley-raftery"):
    truth = jg.Mixture(jg.Gaussian("full"), 2, prior=prior)
    params = truth.params(
        weights=np.array([0.4, 0.6], dtype),
        means=np.array([[0.0, 0.0], [apart, 0.0]], dtype),
        covariances=np.array([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.5], [0.5, 1.5]]], dtype),
    )
    return truth, params


@pytest.mark.slow
def test_separated_components_at_many_rows_have_nominal_coverage():
    methods = ["em", "em-sandwich"]
    found = made(*two(prior=None), n=2000, n_datasets=1000, n_init=4, methods=methods)
    assert (found.failures["used"] == 1000).all()
    coverage = found.coverage.reset_index()
    error = np.sqrt(coverage["level"] * (1 - coverage["level"]) / coverage["n_used"])
    assert np.all(np.abs(coverage["coverage"] - coverage["level"]) < SIGMAS * error + 0.005)
    assert np.all(np.abs(found.table["ratio"] - 1) < SIGMAS * found.table["ratio_error"] + 0.005)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_method_covers_separated_components(dtype):
    """Where all are right: 60 data sets cannot tell them from their promises."""
    found = made(
        *two(dtype), n=200, n_datasets=60, methods=list(METHODS), n_draws=100, n_replicates=100
    )
    assert found.settings["dtype"] == dtype
    assert (found.failures["used"] > 50).all()
    # Wald's and percentile intervals of variances are short at 80 rows.
    groups = found.groups.drop(["covariances", "overall covariance"], level="group")
    off = np.abs(groups["coverage_0.95"] - 0.95) / np.maximum(groups["error_0.95"], 0.01)
    assert np.all(off < SIGMAS)
    # The predictive density lies nearer to the truth than that of a point.
    short = found.scores["below_truth"]
    assert short["gibbs"] < short["em"]


@pytest.mark.slow
def test_no_method_sees_the_rows_that_fill_up(monkeypatch):
    """But for rounding, which draws of chains do not let grow in so few steps."""
    methods = [name for name in METHODS if name not in ("nuts", "smc", "svi")]
    settings = {"n_draws": 30, "n_replicates": 20, "n_warmup": 10, "methods": methods}
    options = {"n": 49, "n_datasets": 6, **settings}
    filled = made(*two(apart=4.0), **options)
    exact(monkeypatch, 52)
    same_records(filled, made(*two(apart=4.0), **options), rtol=1e-8)


@pytest.mark.slow
def test_a_model_without_the_truth_is_compared_with_the_nearest_parameters():
    truth, _ = two(prior=None)
    spread = np.array([1.0, 9.0])
    params = truth.params(
        weights=[0.4, 0.6],
        means=[[0.0, 0.0], [20.0, 0.0]],
        covariances=spread[:, None, None] * np.eye(2),
    )
    model = jg.Mixture(jg.Gaussian("tied"), 2)
    found = made(truth, params, model=model, n=500, n_datasets=300, methods=["em", "em-sandwich"])
    assert not found.settings["contains_truth"]
    pooled = found.table.loc[("em", "covariances[x0, x0]")]
    weights = np.array([0.4, 0.6])
    assert pooled["truth"] == pytest.approx(weights @ spread, rel=0.03)
    # White (1982): fourth moments of a mixture, where the information has those of a normal.
    claimed = 2 * (weights @ spread) ** 2
    right = weights @ (3 * spread**2) - (weights @ spread) ** 2
    ratios = found.table.xs("covariances[x0, x0]", level="quantity")
    for method, exact in (("em", np.sqrt(claimed / right)), ("em-sandwich", 1.0)):
        row = ratios.loc[method]
        assert row["ratio"] == pytest.approx(exact, abs=SIGMAS * row["ratio_error"])
    assert ratios.loc["em", "ratio"] < 0.85


@pytest.mark.slow
def test_overlapping_components_are_counted_by_reason():
    found = made(*two(apart=1.0, prior=None), n=50, n_datasets=200, n_init=8)
    ends = found.failures.loc["em"]
    assert ends["unmatched"] > 0
    assert ends["elsewhere"] > 0
    assert ends.drop(["missed", "elsewhere"]).sum() == 200
    # Ambiguous labels leave what belongs to none.
    used = found.table.loc["em"]
    assert used.loc["overall mean[x0]", "n_used"] == ends["used"] + ends["unmatched"]
    assert used.loc["means[0, x0]", "n_used"] == ends["used"]
