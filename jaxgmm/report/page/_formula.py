"""Formulas, lines of text in which ``_`` opens a subscript, as HTML."""

from __future__ import annotations

import re
from html import escape

_LETTER = "[A-Za-zΑ-Ωα-ω]"
# What a letter alone, a sign or a bracket has under it: a word, or what braces hold.
_SUBSCRIPT = re.compile(rf"(?<![A-Za-z0-9]{_LETTER})(?<=[^\s_])_(?:\{{([^}}]*)\}}|([A-Za-z0-9]+))")
# A symbol is a letter alone; a function has a bracket behind it.
_SYMBOL = re.compile(rf"(?<!{_LETTER})({_LETTER})(?![A-Za-zΑ-Ωα-ω(])")
_INDICES = re.compile(r"(?<![A-Za-z])([A-Za-z]{1,2})(?![A-Za-z])")


def formula_html(text: str) -> str:
    """One formula: symbols in italics, subscripts below."""
    parts, end = [], 0
    for found in _SUBSCRIPT.finditer(text):
        parts.append(_italic(_SYMBOL, text[end : found.start()]))
        parts.append(f"<sub>{_italic(_INDICES, found[1] or found[2])}</sub>")
        end = found.end()
    return "".join([*parts, _italic(_SYMBOL, text[end:])])


def _italic(what: re.Pattern[str], text: str) -> str:
    pieces = what.split(text)
    return "".join(f"<i>{p}</i>" if i % 2 else escape(p) for i, p in enumerate(pieces))
