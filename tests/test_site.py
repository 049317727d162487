"""What the build of the documentation makes of pages, and what it refuses: asking a network."""

import doctest
import importlib.util
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def hook(name):
    """What MkDocs calls, as a module."""
    spec = importlib.util.spec_from_file_location("hook", ROOT / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def offline():
    return hook(".mkdocs_offline.py")


@pytest.mark.parametrize(
    ("page", "named"),
    [
        ('<script src="https://example.org/a.js"></script>', "https://example.org/a.js"),
        ('<script src="//example.org/a.js"></script>', "//example.org/a.js"),
        ('<link rel="stylesheet" href="http://example.org/a.css">', "http://example.org/a.css"),
        ('<link rel="preconnect" href="https://example.org">', "https://example.org"),
        ('<img src="kept.png" srcset="kept.png 1x, https://example.org/b.png 2x">', "b.png"),
        ("<style>@import 'https://example.org/a.css';</style>", "https://example.org/a.css"),
        ("<p style=\"background: url('https://example.org/c.png')\">", "https://example.org/c.png"),
        ('<img src="gone.png">', "gone.png"),
    ],
)
def test_what_is_loaded_from_elsewhere_is_named(offline, page, named, tmp_path):
    (tmp_path / "kept.png").touch()
    (tmp_path / "index.html").write_text(page)
    (sentence,) = offline.missing(tmp_path)
    assert sentence.startswith("index.html: loads ")
    assert named in sentence


def test_styles_are_read_too(offline, tmp_path):
    styles = tmp_path / "styles"
    styles.mkdir()
    (tmp_path / "font.ttf").touch()
    (styles / "a.css").write_text("a { src: url(../font.ttf), url(https://example.org/f) }")
    (sentence,) = offline.missing(tmp_path)
    assert "https://example.org/f" in sentence


def test_links_and_what_lies_beside_are_fine(offline, tmp_path):
    (tmp_path / "a picture.png").touch()
    (tmp_path / "index.html").write_text(
        '<link rel="canonical" href="https://example.org"><a href="https://example.org">there</a>'
        '<img src="a%20picture.png?v=1"><img src="data:image/png;base64,AA"><script>1</script>'
    )
    assert not list(offline.missing(tmp_path))


PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_number_that_ends_a_sentence_is_taken_for_a_list(page):
    """Within a list, a line that begins with "200. At less" would be one, and the 200 lost."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert not re.findall(r"^ +\d+\. .*", text, re.MULTILINE)


def test_names_in_tables_break_at_joints_and_options_nowhere():
    words = hook(".mkdocs_words.py")
    shown = words.on_page_content(
        "<td><code>fit.params, .means, f(a_b.html)</code></td><p><code>f(a) --out DIR</code></p>"
    )
    assert shown == (
        "<td><code>fit.<wbr>params, .means, f(<wbr>a_<wbr>b.html)</code></td>"
        '<p><code>f(a) <span class="whole">--out</span> DIR</code></p>'
    )


@pytest.mark.turn
def test_the_page_on_modes_runs():
    found = doctest.testfile("../docs/modes.md")
    assert found.attempted
    assert not found.failed
