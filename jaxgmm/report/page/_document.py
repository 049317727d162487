"""What a report is made of, whether it is written as a page or as Markdown."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import NamedTuple

import pandas as pd

_PACKAGES = ("jaxgmm", "jax", "numpyro", "arviz-stats", "matplotlib", "numpy", "scipy")


class Words(NamedTuple):
    """A paragraph: a conclusion (``"decided"`` or ``"undecided"``), a heading, a note."""

    text: str
    kind: str = "note"


class Table(NamedTuple):
    """A frame of text, the names of the rows its index; of numbers, words or checks."""

    frame: pd.DataFrame
    kind: str = "numbers"


class Pairs(NamedTuple):
    """Names and values, as text; ``symbols`` where the names are formulas."""

    rows: list[tuple[str, str]]
    symbols: bool = False


class Formulas(NamedTuple):
    """Lines of mathematics, in which ``_`` opens a subscript."""

    lines: tuple[str, ...]


class Code(NamedTuple):
    """Python."""

    text: str


class Illustration(NamedTuple):
    """A figure."""

    name: str
    title: str
    caption: str
    png: bytes

    @property
    def file(self) -> str:
        return f"{self.name}.png"


class Folded(NamedTuple):
    """A table that opens under its title."""

    title: str
    table: Table


Block = Words | Table | Pairs | Formulas | Code | Illustration | Folded


class Section(NamedTuple):
    """A part of the table of contents."""

    key: str
    title: str
    blocks: list[Block]


class Document(NamedTuple):
    """A report: the first section is the conclusion, the contents follow it."""

    title: str
    subject: list[str]
    sections: list[Section]


def versions() -> list[tuple[str, str]]:
    """Of what results depend on."""
    return [*((name, _version(name)) for name in _PACKAGES), ("Python", platform.python_version())]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed as a package"
