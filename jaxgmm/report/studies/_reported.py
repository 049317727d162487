"""What the results of this folder share: a report on disk."""

from __future__ import annotations

import abc
import os
from pathlib import Path
from typing import Any, NamedTuple

from jaxgmm.files import Content
from jaxgmm.report.page._document import Document
from jaxgmm.report.page._written import written


class Report(NamedTuple):
    """What `Reported.save` writes: the name of its files, the page, the record, tables."""

    name: str
    document: Document
    record: dict[str, Any]
    tables: dict[str, Content]


class Reported(abc.ABC):
    """A result with a report."""

    @abc.abstractmethod
    def _report(self) -> Report: ...

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the report: a page, Markdown, JSON, CSV files and figures, named after the result.

        The page is self-contained, the JSON file has every frame at full precision.

        Parameters
        ----------
        folder : path
            Made where it does not exist; files of the same names are replaced.

        Returns
        -------
        Path
            Of the page.
        """
        return written(Path(folder), *self._report())
