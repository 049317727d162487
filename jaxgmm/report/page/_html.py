"""Reports as HTML: a page that needs nothing but itself, and fragments for notebooks."""

from __future__ import annotations

import base64
from html import escape
from importlib.resources import files

import pandas as pd

from jaxgmm.report.page._document import (
    Block,
    Code,
    Document,
    Folded,
    Formulas,
    Illustration,
    Pairs,
    Section,
    Table,
    Words,
)
from jaxgmm.report.page._formula import formula_html

# Words that have a colour of their own in tables of checks.
_STATES = ("ok", "warning", "fail")


def page(document: Document) -> str:
    """An HTML5 document that loads nothing from elsewhere."""
    first, *rest = document.sections
    links = "\n".join(f'<li><a href="#{s.key}">{escape(s.title)}</a></li>' for s in rest)
    contents = f'<nav aria-label="Contents">\n<ul>\n{links}\n</ul>\n</nav>'
    name, *more = document.subject
    subject = "<br>".join([f"<code>{escape(name)}</code>", *map(escape, more)])
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(document.title)}: {escape(name)}</title>\n"
        f"<style>{style('page.css')}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(document.title)}</h1>\n<p class="subject">{subject}</p>\n'
        f"{_section(first)}\n{contents}\n" + "\n".join(map(_section, rest)) + "\n"
        "</main>\n</body>\n</html>\n"
    )


def fragment(blocks: list[Block], *more: str) -> str:
    """What a notebook shows, with a style that touches nothing else."""
    body = "\n".join([*map(html, blocks), *more])
    return f'<div class="jaxgmm-verdict">\n<style>{style("notebook.css")}</style>\n{body}\n</div>'


def html(block: Block) -> str:
    """One block."""
    match block:
        case Words(text, "decided" | "undecided" as state):
            return f'<p class="summary {state}">{escape(text)}</p>'
        case Words(text, kind):
            return f'<p class="{kind}">{escape(text)}</p>'
        case Table(frame, kind):
            return table(frame, kind)
        case Pairs(rows, symbols):
            names = [formula_html(name) if symbols else escape(name) for name, _ in rows]
            cells = zip(names, rows, strict=True)
            lines = "".join(f"<tr><th>{n}</th><td>{escape(v)}</td></tr>\n" for n, (_, v) in cells)
            return f'<div class="scroll"><table class="pairs">\n{lines}</table></div>'
        case Formulas(lines):
            items = "".join(f"<li>{formula_html(line)}</li>\n" for line in lines)
            return f'<ul class="formulas">\n{items}</ul>'
        case Code(text):
            return f"<pre><code>{escape(text)}</code></pre>"
        case Illustration(name, title, caption, png):
            return (
                f'<figure id="figure-{escape(name)}" {_width(png)}>\n<h3>{escape(title)}</h3>\n'
                f'<div class="scroll">{image(png, title)}</div>\n'
                f"<figcaption>{escape(caption)}</figcaption>\n</figure>"
            )
        case Folded(title, inside):
            return f"<details>\n<summary>{escape(title)}</summary>\n{html(inside)}\n</details>"


def table(frame: pd.DataFrame, kind: str = "numbers") -> str:
    checked = kind == "checks"
    classes = "words" if checked else kind
    text = frame.to_html(escape=True, border=0, justify="unset", classes=classes)
    for name in _STATES if checked else ():
        text = text.replace(f"<td>{name}</td>", f'<td class="{name}">{name}</td>')
    return f'<div class="scroll">{text}</div>'


def image(png: bytes, alt: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{escape(alt)}" {_width(png)} src="data:image/png;base64,{data}">'


def _width(png: bytes) -> str:
    """In proportion to that of the figure, so that letters are as large in all of them."""
    return f'style="--width: {int.from_bytes(png[16:20], "big") // 3 * 2}px"'


def style(name: str) -> str:
    return files("jaxgmm.report.page").joinpath(name).read_text(encoding="utf-8")


def _section(section: Section) -> str:
    pictures = [block for block in section.blocks if isinstance(block, Illustration)]
    links = "\n".join(
        f'<li><a href="#figure-{escape(p.name)}">{escape(p.title)}</a></li>' for p in pictures
    )
    contents = f"<nav>\n<ul>\n{links}\n</ul>\n</nav>\n" if len(pictures) > 1 else ""
    body = "\n".join(map(html, section.blocks))
    return (
        f'<section id="{section.key}">\n<h2>{escape(section.title)}</h2>\n'
        f"{contents}{body}\n</section>"
    )
