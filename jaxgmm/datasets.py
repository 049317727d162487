"""Bundled data sets, and numeric CSV files from the user's disk."""

from __future__ import annotations

import csv
import dataclasses
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxgmm._checks import check_name


@dataclasses.dataclass(frozen=True, repr=False)
class Dataset:
    """Rows, the names of their columns, labels where there are any, and the source.

    It goes wherever data go, with the names of its columns.

    Attributes
    ----------
    x : (n, D) float64 array
    feature_names : tuple of str
    labels : tuple of str, or None
        A class per row, for looking at only.
    description : str
        Units, source and licence.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> jg.datasets.load("iris", columns=["Petal.Length"])
    Dataset 'iris': 150 x 1 (Petal.Length), 3 classes
    """

    name: str
    x: np.ndarray
    feature_names: tuple[str, ...]
    labels: tuple[str, ...] | None
    description: str

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a table, whose names go into every result."""
        return pd.DataFrame(self.x, columns=list(self.feature_names))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names again, where those of a table are looked for."""
        return self.feature_names

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.x, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        rows, columns = self.x.shape
        labels = "" if self.labels is None else f", {len(set(self.labels))} classes"
        names = ", ".join(self.feature_names)
        return f"Dataset {self.name!r}: {rows} x {columns} ({names}){labels}"


_DESCRIPTIONS = {
    "faithful": "Old Faithful geyser: eruption time (min) and waiting time to the next (min); "
    "Azzalini and Bowman (1990), Applied Statistics 39:357-365; R datasets::faithful, GPL-2",
    "galaxies": "velocities (1000 km/s) of 82 galaxies from Corona Borealis; Roeder (1990), "
    "JASA 85:617-624; R MASS::galaxies / 1000, GPL-2 | GPL-3. MASS holds the 78th value as "
    "26690 where the published one is 26960; this file keeps MASS's",
    "iris": "four lengths (cm) of 150 irises and their species; Anderson (1935), Fisher (1936); "
    "R datasets::iris, public domain",
}
NAMES = tuple(_DESCRIPTIONS)


def load(name: str, columns: list[str] | None = None) -> Dataset:
    """A bundled data set.

    Parameters
    ----------
    name : str
        ``"faithful"``, ``"galaxies"`` or ``"iris"``.
    columns : list of str, optional
        Feature names, or positions from 0; all features by default.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        For an unknown name or column, with the nearest one.

    Examples
    --------
    >>> import jaxgmm as jg
    >>> jg.datasets.load("faithful").x.shape
    (272, 2)
    """
    check_name("name", name, NAMES)
    with resources.as_file(resources.files("jaxgmm") / "data" / f"{name}.csv") as path:
        header, rows = _read(path)
    labels = None
    if name == "iris":
        labels = tuple(row[-1] for row in rows)
        header, rows = header[:-1], [row[:-1] for row in rows]
    chosen = _positions(columns, header)
    x = np.array(rows, dtype=np.float64)[:, chosen]
    return Dataset(name, x, tuple(header[j] for j in chosen), labels, _DESCRIPTIONS[name])


def read_csv(path: str | Path, columns: list[str] | None = None) -> Dataset:
    """Numeric columns of a comma-separated file.

    Parameters
    ----------
    path : str or Path
        A file with or without a header line.
    columns : list of str, optional
        Names from the header, or positions from 0; all columns by default.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        For an empty or ragged file, an unknown column, or a cell that is not a number,
        naming it.
    OSError
        Where the file cannot be read.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import jaxgmm as jg
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "two.csv"
    >>> _ = path.write_text("a,b\\n1,2\\n3,4\\n")
    >>> jg.datasets.read_csv(path, columns=["b"]).x.tolist()
    [[2.0], [4.0]]
    """
    path = Path(path)
    header, rows = _read(path)
    chosen = _positions(columns, header)
    x = np.empty((len(rows), len(chosen)))
    for i, row in enumerate(rows):
        for j, column in enumerate(chosen):
            try:
                x[i, j] = float(row[column])
            except ValueError:
                raise ValueError(
                    f"{path}: column {header[column]!r} is not numeric, found {row[column]!r} in "
                    f"data row {i}; choose the numeric columns"
                ) from None
    names = tuple(header[column] for column in chosen)
    return Dataset(path.stem, x, names, None, f"read from {path.name}")


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    """Column names and cells; a first line that holds no number is the header."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        try:
            lines = [line for line in csv.reader(file) if any(cell.strip() for cell in line)]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a comma-separated text file ({error})") from None
    if not lines:
        raise ValueError(f"{path}: the file has no rows")
    width = len(lines[0])
    for i, line in enumerate(lines):
        if len(line) != width:
            raise ValueError(f"{path}: line {i + 1} has {len(line)} cells, the first has {width}")
    if any(_is_number(cell) for cell in lines[0]):
        return [f"x{j}" for j in range(width)], lines
    if len(lines) == 1:
        raise ValueError(f"{path}: only a header line, no rows")
    return [cell.strip() for cell in lines[0]], lines[1:]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _positions(columns: list[Any] | None, header: list[str]) -> list[int]:
    if columns is None:
        return list(range(len(header)))
    positions = []
    for column in columns:
        text = str(column)
        if text in header:
            positions.append(header.index(text))
        elif text.isdecimal() and int(text) < len(header):
            positions.append(int(text))
        else:
            check_name("columns", text, header)
    return positions
