"""The selection as a noun, with the ways to read it."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from jaxgmm import files
from jaxgmm.files import stored
from jaxgmm.report.plots._selection import plot_criterion
from jaxgmm.report.selection._choice import Choice
from jaxgmm.report.selection._page import save, selection_html, selection_text


@stored
@dataclasses.dataclass(frozen=True, repr=False)
class Selection(Choice):
    """What `select` found.

    Attributes
    ----------
    table : DataFrame
        A row per model, in the order given: ``structure``, ``n_components``,
        ``log_likelihood``, ``n_parameters``, the columns of the criteria (lower is better),
        ``status``; ``reason``: why a row cannot win, empty where it can; and ``note``: how
        many restarts were set aside as spurious, and which other criteria could not be
        computed.
    models : list of LatentModel
        As they were given.
    fits : list of Fit or None
        In the order of the models; None where the fit failed.
    criterion : str
        The column that decides.
    n_init : int
        Random starts of each model.
    seed : tuple of int or None
        The numbers in the random key, as `jax.random.key_data` has them.
    """

    def plot(self, ax: Any = None, *, criterion: str | None = None) -> Any:
        """A criterion against the number of components, one line per structure.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw.
        criterion : str, optional
            A column of the table; the one that decides by default.

        Returns
        -------
        matplotlib Figure or Axes
            A new figure, which notebooks show; or ``ax``, where it was given.

        Raises
        ------
        ValueError
            For a column that the table does not have.
        """
        return plot_criterion(self, ax, criterion)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the report: select.html, .md, .json and .csv, and criteria.png; or one file.

        ``select.html`` is self-contained, ``select.json`` has every number at full precision.

        Parameters
        ----------
        folder : path
            Made where it does not exist. A name that ends in ``.npz`` is that of one file, which
            `jaxgmm.load` reads.

        Returns
        -------
        Path
            Of the page, or of the file.
        """
        if Path(folder).suffix == ".npz":
            return files.save(self, Path(folder))
        return save(self, Path(folder))

    def __repr__(self) -> str:
        return selection_text(self)

    def _repr_html_(self) -> str:
        return selection_html(self)
