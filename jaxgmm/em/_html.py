"""Fits as notebooks show them: what it is, its numbers, and where the restarts ended."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# Rows of the tables: numbers, and optima.
_MOST_SHOWN = 40
_MOST_OPTIMA = 10


def fit_html(text: str, numbers: Iterable[tuple[str, Any]], optima: pd.DataFrame) -> str:
    """A fragment of HTML, of the fit as text, its numbers by name, and its optima."""
    import pandas as pd

    first = itertools.islice(numbers, _MOST_SHOWN)
    values = {label: f"{value:.5g}" for label, value in first}
    table = pd.DataFrame({"estimate": values}).to_html(border=0)
    parts = [f"<pre>{escape(text)}</pre>", table]
    if len(values) == _MOST_SHOWN:
        parts.append(f"<p>The first {_MOST_SHOWN}; <code>params</code> has all.</p>")
    if len(optima) > 1:
        shown = optima.head(_MOST_OPTIMA)
        parts.append("<p>Where the restarts ended; <code>optima_table</code> has all.</p>")
        parts.append(shown.to_html(border=0, index=False, float_format="{:.4f}".format))
    return '<div class="jaxgmm-fit">\n' + "\n".join(parts) + "\n</div>"
