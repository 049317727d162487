"""What a verdict writes: the page, the figures, the draws, and the notebook's HTML."""

import dataclasses
import html.parser
import importlib.util
import pathlib
import re
import sys

import jax
import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure

import jaxgmm as jg
from jaxgmm.report._figure import png
from jaxgmm.report._html import report_page
from jaxgmm.report._notation import formulas, hyper_parameters
from jaxgmm.report._save import illustrations

FIGURES = ("components", "marginals", "restarts", "optima", "chains")
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


def test_save_writes_every_file(folder):
    expected = {"report.html", "posterior.nc", *(f"{name}.png" for name in FIGURES)}
    assert {path.name for path in folder.iterdir()} == expected


def test_saving_again_replaces(verdict, folder, page):
    verdict.save(str(folder))
    assert (folder / "report.html").read_text(encoding="utf-8") == page


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
    for part in (verdict.summary, "inverse-gamma", "Dirichlet", "n_init=4", "n_draws=100"):
        assert part in text
    assert jax.__version__ in text
    assert re.search(r"restarts\s*4\s", text)


def test_names_are_escaped(verdict, page):
    for text in (page, verdict._repr_html_()):
        assert "<b>eruptions" not in text
        assert "&lt;b&gt;eruptions&lt;/b&gt; &amp; $x$" in text


def test_notebook_html_is_scoped_and_whole(verdict):
    text = verdict._repr_html_()
    assert all(load.startswith("data:image/png") for load in Tags(text).loads)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL).group(1)
    for rule in re.findall(r"([^{}]+)\{", style):
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


@pytest.mark.parametrize(
    ("structure", "words"),
    [
        ("full", "inverse-Wishart"),
        ("tied", "one for all components"),
        ("diag", "diag("),
        ("spherical", "<i>I</i>"),
        ("EEI", "<i>&Sigma;</i> = diag("),
        ("EII", "<i>&sigma;</i>² <i>I</i>"),
    ],
)
def test_notation_of_each_structure(structure, words):
    x = jg.datasets.load("faithful").x
    model = jg.Mixture(jg.Gaussian(structure), 2, prior="fraley-raftery").resolve(x)
    lines = formulas(model, {})
    assert len(lines) == 4
    assert any(words in line for line in lines)
    for line in lines:
        Tags(line)
    assert len(hyper_parameters(model)) == 5


# -- figures ----------------------------------------------------------------------------


def test_given_axes_are_used_and_returned(verdict):
    fit, post = verdict.fit, verdict.posterior
    for draw in (
        lambda ax: jg.report.plot_components(fit, post, ax=ax),
        lambda ax: jg.report.plot_traces(fit, ax=ax),
        lambda ax: jg.report.plot_optima(fit, ax=ax),
        lambda ax: jg.report.plot_chains(post, ax=ax),
    ):
        ax = Figure().subplots()
        assert draw(ax) is ax
        assert ax.has_data()
        assert ax.get_xlabel()
        assert ax.get_ylabel()


def test_new_figures_show_in_notebooks_without_pyplot(verdict):
    figure = jg.report.plot_traces(verdict.fit)
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")
    if "matplotlib.pyplot" in sys.modules:
        assert not matplotlib.pyplot.get_fignums()


@pytest.mark.parametrize("k", [1, 3])
def test_one_feature_is_a_density(k):
    x = jg.datasets.load("galaxies").x
    fit = fitted(x, k)
    figure = jg.report.plot_components(fit, pretend(fit, x))
    assert figure.axes[0].get_ylabel() == "density"
    png(figure)


def test_three_features_are_a_grid_of_pairs():
    x = jg.datasets.load("iris").x[:, :3]
    fit = fitted(x, 2)
    post = pretend(fit, x)
    figure = jg.report.plot_components(fit, post)
    assert len(figure.axes) == 3
    png(figure)
    with pytest.raises(ValueError, match="leave ax out"):
        jg.report.plot_components(fit, post, ax=Figure().subplots())


def test_what_is_left_out_is_in_the_caption():
    x = jg.datasets.load("iris").x
    fit = fitted(x, 2)
    post = pretend(fit, x)
    assert len(jg.report.plot_components(fit, post).axes) == 6
    assert len(jg.report.plot_marginals(fit, post).axes) == 24
    stub = jg.Verdict("", True, pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), fit, post)
    caption = next(f.caption for f in illustrations(stub) if f.name == "marginals")
    assert "6 more parameters are in the table only" in caption


def test_weights_of_rows_are_drawn():
    x = jg.datasets.load("faithful").x
    weights = np.arange(len(x)) % 3.0
    fit = fitted(x, 2, sample_weight=weights)
    axes = jg.report.plot_components(fit, pretend(fit, x, weights)).axes[0]
    points = axes.collections[0]
    assert len(points.get_offsets()) == np.sum(weights > 0)
    assert len(set(points.get_sizes())) == 2


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


def test_float32(verdict):
    x = np.asarray(jg.datasets.load("faithful").x, np.float32)
    fit = fitted(x, 2)
    png(jg.report.plot_traces(fit))
    png(jg.report.plot_components(fit, pretend(fit, x)))


# -- a model that is no mixture ----------------------------------------------------------


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
    assert [figure.name for figure in figures] == list(FIGURES[1:])
    page = report_page(stub, figures)
    text = Tags(page).text
    for site in ("pi", "p", "q"):
        assert re.search(rf"\b{site} ~ Beta\(", text)
    assert "read these numbers with the failed checks in mind" in text
    assert "<img" not in stub._repr_html_()
