"""Formulas of the pages as MathML, made when the site is: it opens without a network or scripts."""

import html
import logging
import re
from importlib.util import find_spec
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# A warning ends a strict build.
_LOG = logging.getLogger("mkdocs.hooks.formulas")
# What `pymdownx.arithmatex` makes of \( \) and \[ \].
_MARKED = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
# Where latex2mathml sets other than TeX: letters of \mathrm (which it writes as their codes) and
# \sim, bars, and the space around names of functions.
_SET_AS_TEX = [
    (r"<mi>(&#x000[4-7][0-9A-F];)</mi>(?<!7E;</mi>)", r'<mi mathvariant="normal">\1</mi>'),
    (r"<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>"),
    (r'<mo stretchy="false">&#x0007C;', '<mo stretchy="false" lspace="0" rspace="0">&#x0007C;'),
    (r"(<mrow>|&#x00028;</mo>)<mi>(log|exp|sinh|cosh)</mi>", r'\1<mo lspace="0">\2</mo>'),
    (r"<mi>(log|exp|sinh|cosh)</mi>", r'<mo lspace="0.167em">\1</mo>'),
    (r'(<mo lspace="[^"]+")(>\w+</mo><mo[^>]*>&#x00028;)', r'\1 rspace="0"\2'),
    (r'(<mo lspace="[^"]+")>', r'\1 rspace="0.167em">'),
]
_UNKNOWN = re.compile(r"\\[a-zA-Z]+")
# Named by stylesheets/formulas.css; most fonts have no table of how formulas are set.
_FONT = "fonts/STIXTwoMath-Regular.ttf"


def on_files(files: Files, config: MkDocsConfig, **_: object) -> None:
    """Called by MkDocs with the files of the site: the font of formulas is one of them."""
    package = find_spec("ziamath")
    assert package is not None
    assert package.origin is not None
    font = Path(package.origin).parent / _FONT
    files.append(File.generated(config, _FONT, abs_src_path=str(font)))


def on_page_content(content: str, page: Page, **_: object) -> str:
    """Called by MkDocs with the HTML of each page."""

    def formula(found: re.Match[str]) -> str:
        tex = html.unescape(found[2]).strip()
        made = convert(tex, display="block" if found[1] == "div" else "inline")
        for pattern, becomes in _SET_AS_TEX:
            made = re.sub(pattern, becomes, made)
        for command in _UNKNOWN.findall(made):
            _LOG.warning("%s: latex2mathml does not know %s", page.file.src_uri, command)
        return made

    return _MARKED.sub(formula, content)
