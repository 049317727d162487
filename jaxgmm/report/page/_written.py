"""A report on disk: the page, Markdown, strict JSON, the figures, and what goes with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxgmm.files import Content, write
from jaxgmm.report.page._document import Document, Illustration
from jaxgmm.report.page._html import page
from jaxgmm.report.page._json import dumps
from jaxgmm.report.page._markdown import markdown


def written(
    folder: Path, name: str, document: Document, record: dict[str, Any], others: dict[str, Content]
) -> Path:
    """Write ``name.html``, ``.md`` and ``.json``, the document's figures and other files.

    The path of the page.
    """
    blocks = [block for section in document.sections for block in section.blocks]
    figures = [block for block in blocks if isinstance(block, Illustration)]
    files: dict[str, Content] = {figure.file: figure.png for figure in figures}
    files |= others
    files[f"{name}.json"] = dumps(record)
    files[f"{name}.md"] = markdown(document)
    files[f"{name}.html"] = page(document)
    write(folder, files)
    return folder / f"{name}.html"
