"""Bundled data sets, and tables of numbers from the user's disk."""

from __future__ import annotations

import bz2
import csv
import dataclasses
import gzip
import io
import itertools
import lzma
import re
import zlib
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
    notes : tuple of str
        What was taken for granted while a file was read.

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
    notes: tuple[str, ...] = ()

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
    "carcinoma": "whether each of seven pathologists, A to G, saw carcinoma of the uterine cervix "
    "(1) in 118 slides; Landis and Koch (1977), Biometrics 33:363-374; Agresti (2002), Categorical "
    "Data Analysis, 2nd ed., table 13.1; R poLCA::carcinoma less one, GPL-2 | GPL-3",
    "faithful": "Old Faithful geyser: eruption time (min) and waiting time to the next (min); "
    "Azzalini and Bowman (1990), Applied Statistics 39:357-365; R datasets::faithful, GPL-2",
    "galaxies": "velocities (1000 km/s) of 82 galaxies from Corona Borealis; Roeder (1990), "
    "JASA 85:617-624; R MASS::galaxies / 1000, GPL-2 | GPL-3. MASS holds the 78th value as "
    "26690 where the published one is 26960; this file keeps MASS's",
    "iris": "four lengths (cm) of 150 irises and their species; Anderson (1935), Fisher (1936); "
    "R datasets::iris, public domain",
}
NAMES = tuple(_DESCRIPTIONS)

# pandas before 3.1 rounds the last digit unless it is told not to; later it warns when told.
_OLD_PANDAS = tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1)
_EXACT: dict[str, Any] = {"float_precision": "round_trip"} if _OLD_PANDAS else {}


def load(name: str, columns: str | list[Any] | None = None) -> Dataset:
    """A bundled data set.

    Parameters
    ----------
    name : str
        ``"carcinoma"``, ``"faithful"``, ``"galaxies"`` or ``"iris"``.
    columns : str or list, optional
        Feature names, or positions from 0; as for `read_csv`.

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
        table = pd.read_csv(path, **_EXACT)
    labels = tuple(table.pop("Species")) if name == "iris" else None
    x = table.iloc[:, _positions(columns, list(table.columns))]
    rows = np.ascontiguousarray(x, float)
    return Dataset(name, rows, tuple(x.columns), labels, _DESCRIPTIONS[name])


def read_csv(
    path: str | Path,
    columns: str | list[Any] | None = None,
    *,
    sep: str | None = None,
    decimal: str | None = None,
    header: bool | None = None,
) -> Dataset:
    """Numeric columns of a text file, packed by gzip, bzip2 or xz or not, or of a Parquet file.

    Parameters
    ----------
    path : str or Path
        UTF-8 text, a row a line; ``.gz``, ``.bz2``, ``.xz`` and ``.parquet`` (which needs
        pyarrow) are told by their endings.
    columns : str or list, optional
        Names from the header, or positions from 0; a string holds them between commas, a name
        with a comma in double quotes. By default all columns, but for leading ones without a
        name, which are the row index of a table that was written with it.
    sep : str, optional
        What stands between cells: one character, of which a space stands for any white space.
        By default a tab, ``;``, ``,``, ``|`` or white space, the first that splits all lines
        alike.
    decimal : str, optional
        The decimal point; by default ``,`` where the cells show it and it separates nothing.
    header : bool, optional
        Whether the first line names the columns; by default where it holds no number, or text
        above a number.

    Returns
    -------
    Dataset
        What was not told but found is in its ``notes``.

    Raises
    ------
    ValueError
        For an empty or ragged file, text that is not UTF-8, an unknown column, a missing cell
        or one that is not a number, naming it, and where a first line of integers in sequence
        may be either a header or a row.
    OSError
        Where the file cannot be read.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import jaxgmm as jg
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "two.csv"
    >>> _ = path.write_text("a;b\\n1,5;2\\n3,5;4\\n")
    >>> data = jg.datasets.read_csv(path, columns="a")
    >>> data.x.tolist(), data.notes
    ([[1.5], [3.5]], ("separated by ';'", 'with decimal commas'))
    """
    path = Path(path)
    if path.suffix in (".parquet", ".pq"):
        names, table, notes = *_read_parquet(path), []
    else:
        names, table, notes = _read_text(path, sep, decimal, header)
    chosen = _positions(columns, names)
    index = _index(names) if columns is None else []
    if index:
        chosen = chosen[len(index) :]
        left_out = ", ".join(map(repr, index))
        notes.append(f"column(s) {left_out} left out as the row index; choose by position, from 0")
    x = np.empty((len(table), len(chosen)))
    called = tuple(names[column] or f"x{column}" for column in chosen)
    for j, column in enumerate(chosen):
        x[:, j] = _numbers(path, called[j], table.iloc[:, column])
    return Dataset(path.name.split(".")[0], x, called, None, f"read from {path.name}", tuple(notes))


def _read_parquet(path: Path) -> tuple[list[str], pd.DataFrame]:
    try:
        table = pd.read_parquet(path)
    except ImportError:
        raise ValueError(f"{path}: Parquet files need pyarrow: pip install pyarrow") from None
    return [str(name) for name in table.columns], table


def _read_text(
    path: Path, sep: str | None, decimal: str | None, header: bool | None
) -> tuple[list[str], pd.DataFrame, list[str]]:
    """Column names, cells, and what was found out about the file."""
    lines, notes = _lines(path), []
    if not lines:
        raise ValueError(f"{path}: the file has no rows")
    for argument, value in (("sep", sep), ("decimal", decimal)):
        if value is not None and len(value) != 1:
            raise ValueError(f"{argument}: needs one character, found {value!r}")
    if sep is None:
        sep = _separator(lines[:_SAMPLE])
        if sep != ",":
            notes.append(f"separated by {_SEPARATORS[sep]}")
    sample = _split(lines[:_SAMPLE], sep)
    if decimal is None:
        decimal = _decimal(sample, sep)
        if decimal == ",":
            notes.append("with decimal commas")
    if decimal == sep:
        raise ValueError(f"decimal: {decimal!r} already separates the cells; say sep=';', perhaps")
    if header is None:
        header, why = _has_header(path, lines[0].strip(), sample, decimal)
        notes += why
    width = len(sample[0])
    names = [cell.strip() for cell in sample[0]] if header else [f"x{j}" for j in range(width)]
    if len(lines) == header:
        raise ValueError(f"{path}: only a header line, no rows")
    try:
        table = pd.read_csv(
            io.StringIO("".join(lines[header:])),
            sep=r"\s+" if sep == " " else sep,
            decimal=decimal,
            header=None,
            skipinitialspace=True,
            **_EXACT,
            low_memory=False,
        )
    except pd.errors.ParserError as error:
        _refuse_ragged(path, lines, sep)
        raise ValueError(f"{path}: cannot be read as a table ({error})") from None
    if table.shape[1] != width or table.isna().to_numpy().any():
        _refuse_ragged(path, lines, sep)
    return names, table, notes


# Lines that tell how a file is written.
_SAMPLE = 100
_SEPARATORS = {"\t": "tabs", ";": "';'", ",": "','", "|": "'|'", " ": "white space"}
_OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def _lines(path: Path) -> list[str]:
    """The lines of a text file that hold anything, or a `ValueError` that says what it is."""
    try:
        with _OPENERS.get(path.suffix, open)(path, "rb") as file:
            content = file.read()
    except (gzip.BadGzipFile, lzma.LZMAError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be unpacked ({error})") from None
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in content[:1000]:
        raise ValueError(f"{path}: UTF-16, or no text at all; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not UTF-8 text (byte {content[error.start]:#x} at {error.start}), perhaps "
            "Latin-1; save it as UTF-8"
        ) from None
    nothing = "\r\n" + "".join(_SEPARATORS)
    return [line for line in io.StringIO(text, newline=None) if line.strip(nothing)]


def _split(lines: list[str], sep: str) -> list[list[str]]:
    if sep == " ":
        return [line.split() for line in lines]
    return list(csv.reader(lines, delimiter=sep))


def _separator(lines: list[str]) -> str:
    """The first that splits all lines into equally many cells, or else the first line."""
    for sep in _SEPARATORS:
        widths = {len(cells) for cells in _split(lines, sep)}
        if len(widths) == 1 and widths != {1}:
            return sep
    return next((sep for sep in _SEPARATORS if sep != " " and sep in lines[0]), ",")


def _decimal(sample: list[list[str]], sep: str) -> str:
    cells = itertools.chain.from_iterable(sample)
    commas = sep != "," and any(re.fullmatch(r"\s*[-+]?\d*,\d+([eE].*)?", cell) for cell in cells)
    return "," if commas else "."


def _has_header(
    path: Path, shown: str, sample: list[list[str]], decimal: str
) -> tuple[bool, list[str]]:
    """Whether the first line names columns, and what to say of it where it holds numbers."""
    first, *below = [[_kind(cell, decimal) for cell in line] for line in sample]
    if "number" not in first:
        return True, []
    columns = [{line[j] for line in below if j < len(line)} for j in range(len(first))]
    text_above_numbers = any(
        kind == "text" and column == {"number"} for kind, column in zip(first, columns, strict=True)
    )
    # Where pandas writes the index of rows, it has no name.
    if text_above_numbers or not (sample[0][0].strip() or "missing" in columns[0]):
        return True, [f"the first line, {shown}, names the columns"]
    if set(first) == {"number"} and _in_sequence([_value(cell, decimal) for cell in sample[0]]):
        cells = zip(itertools.chain(*sample[1:]), itertools.chain(*below), strict=True)
        numbers = [_value(cell, decimal) for cell, kind in cells if kind == "number"]
        if not all(number.is_integer() for number in numbers):
            raise ValueError(
                f"{path}: the first line, {shown}, may name the columns or be a row; say which by "
                "header=True or header=False (--header or --no-header)"
            )
    return False, [f"no header, since the first line is {shown}: columns are called x0, x1, ..."]


def _in_sequence(values: list[float]) -> bool:
    """2019, 2020, 2021: as years and positions go, and measurements rarely."""
    return len(values) > 1 and values[0].is_integer() and bool(np.all(np.diff(values) == 1))


# What pandas takes for a missing cell.
_MISSING = re.compile(r"(#?n/?a|#n/a n/a|<na>|nan|null|none|-?1\.#(ind|qnan))?", re.IGNORECASE)


def _kind(cell: str, decimal: str) -> str:
    if _MISSING.fullmatch(cell.strip()):
        return "missing"
    try:
        _value(cell, decimal)
    except ValueError:
        return "text"
    return "number"


def _value(cell: str, decimal: str) -> float:
    return float(cell.replace(decimal, "."))


def _refuse_ragged(path: Path, lines: list[str], sep: str) -> None:
    cells = _split(lines, sep)
    for i, line in enumerate(cells):
        if len(line) != len(cells[0]):
            raise ValueError(
                f"{path}: line {i + 1} has {len(line)} cells, the first has {len(cells[0])}"
            )


def _numbers(path: Path, name: str, cells: pd.Series) -> np.ndarray:
    """A column as numbers; raises at the first cell that is none."""
    where = f"{path}: column {name!r}"
    missing, numbers = cells.isna(), pd.to_numeric(cells, errors="coerce")
    truth = pd.api.types.is_bool_dtype(cells)
    text = ~missing if truth else numbers.isna() & ~missing
    if text.any():
        row = int(np.argmax(text))
        raise ValueError(
            f"{where} is not numeric, found {str(cells.iloc[row])!r} in data row {row}; choose the "
            "numeric columns"
        )
    if missing.any():
        raise ValueError(
            f"{where} is missing in data row {int(np.argmax(missing))} ({missing.sum()} missing "
            "cell(s)); drop or fill such rows"
        )
    return numbers.to_numpy(float)


def _index(names: list[str]) -> list[str]:
    """Leading columns without a name, as pandas and R write the index of rows."""
    nameless = re.compile(r"(Unnamed: \d+)?")
    return list(itertools.takewhile(nameless.fullmatch, names))


def _positions(columns: str | list[Any] | None, header: list[str]) -> list[int]:
    if columns is None:
        return list(range(len(header)))
    if isinstance(columns, str):
        one = columns in header
        columns = [columns] if one else next(csv.reader([columns], skipinitialspace=True))
    positions = []
    for column in columns:
        text = str(column).strip()
        if header.count(text) > 1:
            raise ValueError(
                f"columns: {text!r} names {header.count(text)} columns; give positions"
            )
        if text in header:
            positions.append(header.index(text))
        elif text.isdecimal() and int(text) < len(header):
            positions.append(int(text))
        else:
            check_name("columns", text, header)
    return positions
