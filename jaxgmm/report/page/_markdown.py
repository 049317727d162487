"""Reports as Markdown, the figures beside them as files."""

from __future__ import annotations

import re

import pandas as pd

from jaxgmm.report.page._document import (
    Block,
    Code,
    Document,
    Folded,
    Formulas,
    Illustration,
    Pairs,
    Table,
    Words,
)


def markdown(document: Document) -> str:
    """The document in GitHub's dialect, which has tables."""
    name, *more = document.subject
    parts = [f"# {_plain(document.title)}", "  \n".join([f"`{name}`", *map(_plain, more)])]
    for section in document.sections:
        parts += [f"## {_plain(section.title)}", *map(_block, section.blocks)]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    match block:
        case Words(text, "decided" | "undecided"):
            return f"**{_plain(text)}**"
        case Words(text, "tier"):
            return f"### {_plain(text)}"
        case Words(text, _):
            return _plain(text)
        case Table(frame, _):
            return _table(frame)
        case Pairs(rows, _):
            return _table(pd.DataFrame({"": [v for _, v in rows]}, index=[n for n, _ in rows]))
        case Formulas(lines):
            return "```text\n" + "\n".join(lines) + "\n```"
        case Code(text):
            return f"```python\n{text.rstrip()}\n```"
        case Folded(title, inside):
            return f"<details><summary>{_plain(title)}</summary>\n\n{_block(inside)}\n\n</details>"
        case Illustration(_, title, caption, _):
            return f"### {_plain(title)}\n\n![{_plain(title)}]({block.file})\n\n{_plain(caption)}"


def _table(frame: pd.DataFrame) -> str:
    row = lambda cells: "| " + " | ".join(_plain(str(cell)) for cell in cells) + " |"
    lines = [row(["", *frame.columns]), "|" + " --- |" * (len(frame.columns) + 1)]
    lines += [row([name, *cells]) for name, *cells in frame.itertuples()]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text in which nothing is markup."""
    return re.sub(r"([\\`*<|$])", r"\\\1", text).replace("\n", " ")
