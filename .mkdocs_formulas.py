"""Formulas of the pages as MathML, made when the site is: it opens without a network or scripts."""

import html
import re

from latex2mathml.converter import convert

# What `pymdownx.arithmatex` makes of \( \) and \[ \].
_MARKED = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: object) -> str:
    """Called by MkDocs with the HTML of each page."""

    def formula(found: re.Match[str]) -> str:
        display = "block" if found[1] == "div" else "inline"
        return convert(html.unescape(found[2]).strip(), display=display)

    return _MARKED.sub(formula, content)
