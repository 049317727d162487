"""What a verdict writes: the page, the figures, the draws, and the notebook's HTML."""

import dataclasses
import html.parser
import importlib.util
import json
import pathlib
import re
import sys

import jax
import matplotlib
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from helpers import full_disk
from matplotlib.figure import Figure
from scipy import stats

import jaxgmm as jg
from jaxgmm._checks import key_numbers
from jaxgmm.report._code import key_code
from jaxgmm.report.page._formula import formula_html
from jaxgmm.report.page._html import page as html_page
from jaxgmm.report.plots._figure import png
from jaxgmm.report.plots._gaussians import Gaussians
from jaxgmm.report.plots._prior_density import prior_density
from jaxgmm.report.verdict._illustrations import _marginals as marginals_caption
from jaxgmm.report.verdict._illustrations import illustrations
from jaxgmm.report.verdict._report import report

FIGURES = ("components", "basins", "density", "marginals", "co_clustering", "uncertainty",
           "predictive", "restarts", "optima", "chains")  # fmt: skip
HOSTILE = ("<b>eruptions</b> & $x$", 'waiting "$')
VOID = {"meta", "br", "img", "link", "hr", "input"}


@pytest.fixture(scope="session")
def verdict():
    data = jg.datasets.load("faithful")
    x = pd.DataFrame(data.x, columns=HOSTILE)
    model = jg.Mixture(jg.Gaussian("diag"), n_components=2, prior="fraley-raftery")
    fit = jg.fit(model, x, key=jax.random.key(0), n_init=4)
    post = jg.sample(
        fit.model, x, key=jax.random.key(1), start=fit, n_draws=100, n_warmup=100, progress=False
    )
    return jg.compare(fit, post)


@pytest.fixture(scope="session")
def folder(verdict, tmp_path_factory):
    target = tmp_path_factory.mktemp("made") / "by" / "save"
    assert verdict.save(target) == target / "report.html"
    return target


@pytest.fixture(scope="session")
def page(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


def pretend(fit, x, sample_weight=None, n_chains=2, n_draws=30):
    """A posterior whose draws are the fit, blown up and shrunk a little."""
    noise = 1 + 0.02 * np.random.default_rng(0).standard_normal((n_chains, n_draws))
    blur = lambda leaf: noise.reshape(*noise.shape, *[1] * np.ndim(leaf)) * leaf
    params = jax.tree.map(blur, jax.tree.map(np.asarray, fit.params))
    draws = {k: np.asarray(v) for k, v in fit.model.sites(params).items()}
    return jg.Posterior(
        model=fit.model,
        method="pretended",
        x=np.asarray(x).reshape(len(x), -1),
        sample_weight=sample_weight,
        draws=draws,
        draws_raw=draws,
        params=params,
        labels=np.zeros((n_chains, n_draws, fit.model.n_components), int),
        log_prior=0 * noise,
        log_likelihood=fit.log_joint - noise,
        sample_stats={},
        n_warmup=0,
        fingerprint=fit.fingerprint,
        feature_names=fit.feature_names,
    )


def fitted(x, k, structure="full", prior="fraley-raftery", **settings):
    model = jg.Mixture(jg.Gaussian(structure), n_components=k, prior=prior)
    return jg.fit(model, x, key=jax.random.key(0), **{"n_init": 3, **settings})


class Tags(html.parser.HTMLParser):
    """Fails on a tag that is closed twice or never; collects what is loaded."""

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.loads += [value for name, value in attrs if name in ("src", "href", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


# -- files ------------------------------------------------------------------------------


@pytest.mark.turn
def test_save_writes_every_file(folder):
    expected = {f"{name}.png" for name in FIGURES}
    expected |= {"report.html", "report.md", "report.json", "posterior.nc"}
    assert {path.name for path in folder.iterdir()} == expected


def test_saving_again_replaces(verdict, folder, page):
    verdict.save(str(folder))
    assert (folder / "report.html").read_text(encoding="utf-8") == page


def test_a_full_disk_gets_an_error_and_no_file(verdict, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxgmm.report.verdict._save.illustrations", lambda _: [])
    with full_disk(20_000), pytest.raises(OSError, match="File too large") as error:
        verdict.save(tmp_path / "made")
    assert error.value.filename == str(tmp_path / "made" / "posterior.nc")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_png(folder, name):
    data = (folder / f"{name}.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert data.endswith(b"IEND\xaeB`\x82")
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    assert 400 < width < 3000
    assert 200 < height < 3000


def test_draws_read_back(verdict, folder):
    post = verdict.posterior
    with xr.open_datatree(folder / "posterior.nc") as tree:
        means = tree["posterior"]["means"]
        assert means.dims == ("chain", "draw", "component", "feature")
        assert tuple(means["feature"].values) == HOSTILE
        for name, draws in post.draws.items():
            np.testing.assert_array_equal(tree["posterior"][name], draws)
        np.testing.assert_array_equal(tree["observed_data"]["x"], post.x)
        np.testing.assert_array_equal(tree["sample_stats"]["lp"], post.log_joint)
        assert tree["sample_stats"]["diverging"].dtype == bool
        assert tree["log_likelihood"]["x"].dims == ("chain", "draw", "obs")


@pytest.mark.filterwarnings("ignore:.*refactoring:FutureWarning")
def test_draws_read_back_by_arviz(folder, verdict):
    import arviz

    if "InferenceData" in vars(arviz):  # 1.x has xarray read them, as above
        data = arviz.from_netcdf(folder / "posterior.nc")
        np.testing.assert_array_equal(data.posterior["weights"], verdict.posterior.draws["weights"])
        data.close()


# -- the page ---------------------------------------------------------------------------


def test_page_loads_nothing(page):
    loads = Tags(page).loads
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in loads)
    assert "http://" not in page
    assert "https://" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert "<script" not in page


def test_page_has_every_figure_inside(page):
    assert page.count("data:image/png;base64,") == len(FIGURES)
    for name in FIGURES:
        assert f'id="figure-{name}"' in page


def test_contents_lead_somewhere(page):
    targets = [value[1:] for value in Tags(page).loads if value.startswith("#")]
    assert len(targets) > 5
    for target in targets:
        assert f'id="{target}"' in page


def test_page_says_what_was_done(verdict, page):
    text = Tags(page).text
    settings = ("n_init=4", "n_draws=100", "jax.random.key(1)", 'start="short-run"')
    for part in (verdict.summary, "inverse-gamma", "Dirichlet", *settings):
        assert part in text
    assert jax.__version__ in text
    assert re.search(r"restarts\s*4, short-run", text)
    assert re.search(r"M-step\s*closed form: the maximum of the expected log joint", text)


def test_lines_that_do_not_apply_fold_away(verdict, folder, page):
    apart = verdict.checks["verdict"] == "not applicable"
    folded = re.findall(r"<details>.*?</details>", page, re.S)
    assert len(folded) == verdict.checks["tier"][apart].nunique()
    for name, away in apart.items():
        cell = f"<th>{html.escape(name, quote=False)}</th>"
        assert any(cell in part for part in folded) == away
        assert cell in page
    assert (folder / "report.md").read_text().count("<details>") == len(folded)


def test_names_are_escaped(verdict, page):
    for text in (page, verdict._repr_html_()):
        assert "<b>eruptions" not in text
        assert "&lt;b&gt;eruptions&lt;/b&gt; &amp; $x$" in text


def test_notebook_html_is_scoped_and_whole(verdict):
    text = verdict._repr_html_()
    assert all(load.startswith("data:image/png") for load in Tags(text).loads)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL).group(1)
    for rule in re.findall(r"([^{}]+)\{", re.sub(r"/\*.*?\*/", "", style, flags=re.DOTALL)):
        assert all(part.strip().startswith(".jaxgmm-verdict") for part in rule.split(","))


def test_snippet_builds_the_same_model(verdict, page):
    code = re.search(r"<pre><code>(.*?)</code></pre>", page, re.DOTALL).group(1)
    code = html.unescape(code)
    compile(code, "snippet", "exec")
    lines = code.split("fit = ")[0].replace("jax.config", "# jax.config")
    scope = {}
    exec(lines, scope)
    again = scope["model"].resolve(np.asarray(verdict.posterior.x))
    assert jax.tree.structure(again) == jax.tree.structure(verdict.fit.model)
    jax.tree.map(np.testing.assert_array_equal, again, verdict.fit.model)


NOTATION = {
    "VVV": "Σ_k ~ inverse-Wishart(",
    "EEE": "N(μ_k, Σ), k = 1, 2, one for all components",
    "VVI": "Σ_k = diag(σ²_k1, …, σ²_kD)",
    "VII": "Σ_k = σ²_k I",
    "EEI": "Σ = diag(σ²_1, …, σ²_D)",
    "EII": "σ² I",
    "VEI": "Σ_k = λ_k A, A diagonal, |A| = 1",
    "EVI": "Σ_k = λ A_k,",
    "VEE": "Σ_k = λ_k D A Dᵀ",
    "EVE": "Σ_k = λ D A_k Dᵀ",
    "VVE": "Σ_k = λ_k D A_k Dᵀ",
    "EEV": "Σ_k = λ D_k A D_kᵀ",
    "VEV": "Σ_k = λ_k D_k A D_kᵀ",
    "EVV": "Σ_k = λ D_k A_k D_kᵀ",
}


@pytest.mark.parametrize(("structure", "words"), NOTATION.items())
def test_notation_of_each_structure(structure, words):
    x = jg.datasets.load("faithful").x
    model = jg.Mixture(jg.Gaussian(structure), 2, prior="fraley-raftery").resolve(x)
    found = model.describe()
    assert len(found.formulas) == 4
    assert any(words in line for line in found.formulas)
    for line in found.formulas:
        Tags(formula_html(line))
    assert len(found.hyper) == 5


def test_a_formula_is_a_line_of_text():
    shown = formula_html("σ²_kj ~ N(m, Λ_{a <b>}/κ), log_rate & t(μ_k)")
    assert shown == (
        "<i>σ</i>²<sub><i>kj</i></sub> ~ N(<i>m</i>, <i>Λ</i><sub><i>a</i> &lt;<i>b</i>&gt;</sub>"
        "/<i>κ</i>), log_rate &amp; t(<i>μ</i><sub><i>k</i></sub>)"
    )


@pytest.mark.parametrize("split", [False, True])
def test_code_of_a_key_makes_the_key(split):
    key = jax.random.split(jax.random.key(3))[0] if split else jax.random.key(3)
    again = eval(key_code(key_numbers(key)), {"jax": jax})
    assert key_numbers(again) == key_numbers(key)


# -- the same for machines ---------------------------------------------------------------


def test_json_is_strict_and_has_every_number(verdict, folder):
    def no_constant(name):
        raise AssertionError(name)

    text = (folder / "report.json").read_text(encoding="utf-8")
    record = json.loads(text, parse_constant=no_constant)
    assert record["summary"] == verdict.summary
    assert [row["check"] for row in record["checks"]] == list(verdict.checks.index)
    assert [row["sd"] for row in record["parameters"]] == verdict.table["sd"].tolist()
    assert [row["share"] for row in record["basins"]] == verdict.basins["share"].tolist()
    assert record["map"]["means"] == np.asarray(verdict.fit.params.means).tolist()
    assert record["model"]["hyper_parameters"]["concentration"] == [1, 1]
    assert record["settings"]["fit"]["seed"] == [0, 0]
    assert record["settings"]["posterior"]["seed"] == [0, 1]
    assert record["versions"]["jax"] == jax.__version__
    for figure in record["figures"]:
        assert (folder / figure["file"]).exists()


def test_markdown_says_what_the_page_says(verdict, folder, page):
    text = (folder / "report.md").read_text(encoding="utf-8")
    for heading in re.findall(r"<h2>(.*?)</h2>", page):
        assert f"\n## {heading}\n" in text
    for figure in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (folder / figure).exists()
    assert "<b>" not in text.replace("\\<b>", "")
    lines = [line for line in text.splitlines() if line.startswith("| means[1,")]
    assert len(lines) == 2
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 13 for line in lines)


# -- figures ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "structure", ["full", "spherical", pytest.param("diag", marks=pytest.mark.slow)]
)
def test_priors_are_those_of_draws(structure):
    prior = jg.ConjugatePrior(
        concentration=[2.0, 3.0],
        mean=[1.0, 5.0],
        mean_precision=0.5,
        dof=6.0,
        scale={"full": [[2.0, 0.6], [0.6, 1.0]], "spherical": 2.0, "diag": [2.0, 1.0]}[structure],
    )
    model = jg.Mixture(jg.Gaussian(structure), 2, prior=prior).resolve(np.zeros((3, 2)))
    keys = jax.random.split(jax.random.key(0), 20_000)
    sites = jax.jit(jax.vmap(lambda key: model.sites(model.draw_prior(key))))(keys)
    for site, draws in sites.items():
        for index in [i for i in np.ndindex(draws.shape[1:]) if i[0] == 1]:
            values = np.asarray(draws[(slice(None), *index)])
            low, high = np.quantile(values, [0.1, 0.8])
            density = prior_density(model, site, index, np.linspace(low, high, 400))
            assert np.mean(density) * (high - low) == pytest.approx(0.7, abs=0.01), (site, index)


def test_priors_by_site():
    prior = {
        "weights": dist.Dirichlet(np.array([2.0, 3.0])),
        "means": dist.Normal(np.array([1.0, 5.0]), 2.0),
        "scales": dist.HalfNormal(3.0),
        "correlations": dist.LKJ(2, 1.5),
    }
    model = jg.Mixture(jg.Gaussian("full"), 2, prior=prior).resolve(np.zeros((3, 2)))
    of = lambda site, *index, at: prior_density(model, site, index, np.array([at]))
    assert of("weights", 1, at=0.4) == pytest.approx(stats.beta.pdf(0.4, 3, 2))
    assert of("means", 0, 1, at=4.0) == pytest.approx(stats.norm.pdf(4.0, 5, 2))
    assert of("scales", 1, 0, at=2.0) == pytest.approx(stats.halfnorm.pdf(2.0, scale=3))
    assert of("scales", 1, 0, at=-2.0) == 0
    assert of("correlations", 1, 0, 1, at=0.0) is None


def test_weighted_draws_are_drawn_by_their_weights(verdict):
    """All the weight on the first draw: the predictive density is that of it."""
    fit, post = verdict.fit, verdict.posterior
    log_weights = np.full(post.log_prior.shape, -np.inf)
    log_weights[0, 0] = 0
    one = dataclasses.replace(post, log_weights=log_weights)
    assert len(np.unique(Gaussians.drawn(post, 200).weights[:, 0])) == 200
    assert len(np.unique(Gaussians.drawn(one, 200).weights[:, 0])) == 1
    heights = jg.report.plot_chains(one).axes[0].lines[0].get_ydata()
    assert set(heights) == {post.log_joint[0, 0]}
    seen = jg.report.plot_co_clustering(fit, one).axes[0].images[0].get_array()
    rows = np.asarray(post.x)
    ours = np.asarray(fit.model.responsibilities(fit.params, rows))
    at_draw = jax.tree.map(lambda leaf: leaf[0, 0], one.params)
    theirs = np.asarray(fit.model.responsibilities(at_draw, rows))
    labels = np.argmax(ours, 1)
    order = np.lexsort((-np.max(ours, 1), labels))
    i, j = 7, len(rows) - 9
    assert seen[i, j] == pytest.approx(ours[order[i]] @ ours[order[j]])
    assert seen[j, i] == pytest.approx(theirs[order[i]] @ theirs[order[j]])


def test_densities_are_those_of_the_model(verdict):
    fit, post = verdict.fit, verdict.posterior
    heights = Gaussians.of(fit.model, fit.params).densities(np.asarray(post.x)).sum(0)
    np.testing.assert_allclose(np.log(heights), fit.model.log_prob(fit.params, post.x))
    rows = Gaussians.of(fit.model, fit.params).rows(np.random.default_rng(0), 20_000)
    labels = fit.model.predict(fit.params, rows)
    assert np.mean(np.asarray(labels) == 0) == pytest.approx(float(fit.params.weights[0]), abs=0.01)
    np.testing.assert_allclose(rows.mean(0), fit.params.weights @ fit.params.means, rtol=0.02)


def test_given_axes_are_used_and_returned(verdict):
    fit, post = verdict.fit, verdict.posterior
    for draw in (
        lambda ax: jg.report.plot_components(fit, post, ax=ax),
        lambda ax: jg.report.plot_traces(fit, ax=ax),
        lambda ax: jg.report.plot_optima(fit, ax=ax),
        lambda ax: jg.report.plot_chains(post, ax=ax),
        lambda ax: jg.report.plot_density(fit, post, ax=ax),
        lambda ax: jg.report.plot_basins(verdict, ax=ax),
        lambda ax: jg.report.plot_co_clustering(fit, post, ax=ax),
    ):
        ax = Figure().subplots()
        assert draw(ax) is ax
        assert ax.has_data()
        assert ax.get_xlabel()
        assert ax.get_ylabel() or ax.get_yticklabels()
    for shape, draw in (
        (2, lambda ax: jg.report.plot_uncertainty(fit, post, ax=ax)),
        (2, lambda ax: jg.report.plot_predictive(post, ax=ax, key=jax.random.key(0))),
        ((2, 2), lambda ax: jg.report.plot_pairs(fit, post.x, ax=ax)),
        (1, lambda ax: jg.report.plot_marginals(fit, post, ax=ax, names=["weights[0]"])),
    ):
        axes = Figure().subplots(*np.atleast_1d(shape))
        assert draw(axes) is axes
        assert np.ravel(axes)[0].has_data()
        with pytest.raises(ValueError, match="ax: this picture has"):
            draw(Figure().subplots(1, 7))


def test_new_figures_show_in_notebooks_without_pyplot(verdict):
    figure = jg.report.plot_traces(verdict.fit)
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")
    if "matplotlib.pyplot" in sys.modules:
        assert not matplotlib.pyplot.get_fignums()


@pytest.mark.turn
@pytest.mark.parametrize("k", [1, 3])
def test_one_feature_is_a_density(k):
    x = jg.datasets.load("galaxies").x
    fit = fitted(x, k)
    post = pretend(fit, x)
    for draw in (jg.report.plot_components, jg.report.plot_density):
        figure = draw(fit, post)
        assert figure.axes[0].get_ylabel() == "density"
        png(figure)
    assert jg.report.plot_uncertainty(fit, post).axes[0].get_xlabel() == "x0"
    assert jg.report.plot_pairs(fit, x).axes[0].get_ylabel() == "rows"


@pytest.mark.slow
def test_three_features_are_a_grid_of_pairs():
    x = jg.datasets.load("iris").x[:, :3]
    fit = fitted(x, 2)
    post = pretend(fit, x)
    for draw, n_axes in (
        (jg.report.plot_components, 3),
        (jg.report.plot_density, 3),
        (jg.report.plot_uncertainty, 10),  # with the bar of colours
    ):
        figure = draw(fit, post)
        assert len(figure.axes) == n_axes
        png(figure)
    assert len(jg.report.plot_pairs(fit, x).axes) == 6
    with pytest.raises(ValueError, match="leave ax out"):
        jg.report.plot_components(fit, post, ax=Figure().subplots())


@pytest.mark.turn
def test_what_is_left_out_is_in_the_caption(verdict):
    x = jg.datasets.load("iris").x
    fit = fitted(x, 2)
    post = pretend(fit, x)
    assert len(jg.report.plot_components(fit, post).axes) == 6
    assert len(jg.report.plot_marginals(fit, post).axes) == 24
    stub = dataclasses.replace(verdict, fit=fit, posterior=post)
    assert "6 more parameters are in the table only" in marginals_caption(stub)


@pytest.mark.slow
def test_arviz_plots_draws_what_is_exported(verdict):
    import arviz_plots

    groups = {"posterior_predictive": True, "prior": True}
    data = verdict.posterior.to_arviz(**groups, key=jax.random.key(0))
    arviz_plots.plot_ppc_dist(data)
    arviz_plots.plot_ppc_tstat(data)
    arviz_plots.plot_prior_posterior(data, var_names=["means"])
    matplotlib.pyplot.close("all")


@pytest.mark.slow
def test_weights_of_rows_are_drawn():
    x = jg.datasets.load("faithful").x
    weights = np.arange(len(x)) % 3.0
    fit = fitted(x, 2, sample_weight=weights)
    axes = jg.report.plot_components(fit, pretend(fit, x, weights)).axes[0]
    points = axes.collections[0]
    assert len(points.get_offsets()) == np.sum(weights > 0)
    assert len(set(points.get_sizes())) == 2


@pytest.mark.slow
def test_a_single_restart_and_component():
    x = jg.datasets.load("faithful").x
    fit = fitted(x, 1, n_init=1)
    for figure in (
        jg.report.plot_traces(fit),
        jg.report.plot_optima(fit),
        jg.report.plot_components(fit, pretend(fit, x)),
        jg.report.plot_marginals(fit, pretend(fit, x)),
    ):
        png(figure)


def test_collapsed_and_spurious_restarts_are_named(verdict):
    record = verdict.fit.restarts
    best = verdict.fit.best
    others = [i for i in range(4) if i != best]
    status, spurious = np.array(record.status), np.array(record.spurious)
    log_joint, trace = np.array(record.log_joint), np.array(record.trace)
    status[others[0]], log_joint[others[0]] = jg.Status.COLLAPSED, np.inf
    trace[others[0], 2:] = np.nan
    spurious[others[1]], log_joint[others[1]] = True, verdict.fit.log_joint + 30
    log_joint[others[2]] -= 5
    restarts = record._replace(status=status, spurious=spurious, log_joint=log_joint, trace=trace)
    fit = dataclasses.replace(verdict.fit, restarts=restarts, n_spurious_better=1)
    optima = jg.report.plot_optima(fit).axes[0]
    traces = jg.report.plot_traces(fit).axes[0]
    for axes in (optima, traces):
        labels = "; ".join(text.get_text() for text in axes.get_legend().get_texts())
        for part in ("collapsed or failed (1", "spurious optimum (1)", "another optimum (1)"):
            assert part in labels
        png(axes.figure)
    low, high = optima.get_xlim()
    assert low < verdict.fit.log_joint < verdict.fit.log_joint + 30 < high


@pytest.mark.slow
def test_float32(verdict):
    x = np.asarray(jg.datasets.load("faithful").x, np.float32)
    fit = fitted(x, 2)
    png(jg.report.plot_traces(fit))
    png(jg.report.plot_components(fit, pretend(fit, x)))


# -- a model that is no mixture ----------------------------------------------------------


@pytest.mark.slow
def test_a_model_without_components(verdict):
    path = pathlib.Path(__file__).parents[1] / "examples" / "three_coins.py"
    spec = importlib.util.spec_from_file_location("three_coins", path)
    coins = importlib.util.module_from_spec(spec)
    sys.modules["three_coins"] = coins
    spec.loader.exec_module(coins)
    x = np.array(coins.THROWS, float)
    start = coins.Coins(*(np.array([0.4, 0.5]) for _ in range(3)))
    fit = jg.fit(coins.ThreeCoins(), x, start=start)
    post = pretend(fit, x)
    with pytest.raises(TypeError, match="no component means"):
        jg.report.plot_components(fit, post)
    stub = jg.Verdict("x", False, verdict.checks, verdict.table, verdict.basins, fit, post)
    figures = illustrations(stub)
    names = [figure.name for figure in figures]
    assert names == [n for n in FIGURES if n not in ("components", "density", "predictive")]
    page = html_page(report(stub, figures))
    text = Tags(page).text
    for site in ("pi", "p", "q"):
        assert re.search(rf"\b{site} ~ Beta\(", text)
    assert "read these numbers with the failed checks in mind" in text
    assert "<img" not in stub._repr_html_()
