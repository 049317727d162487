"""What the build of the documentation refuses: pages that ask a network for anything."""

import doctest
import importlib.util
import pathlib

import pytest

HOOK = pathlib.Path(__file__).parents[1] / ".mkdocs_offline.py"


@pytest.fixture(scope="module")
def offline():
    spec = importlib.util.spec_from_file_location("offline", HOOK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


@pytest.mark.turn
def test_the_page_on_modes_runs():
    found = doctest.testfile("../docs/modes.md")
    assert found.attempted
    assert not found.failed
