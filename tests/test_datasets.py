"""Bundled data are the published ones; CSV files are read or refused by name."""

import numpy as np
import pandas as pd
import pytest

import jaxgmm as jg

SETS = {
    # shape, first row, column sums
    "carcinoma": ((118, 7), [0.0] * 7, [66.0, 79.0, 45.0, 32.0, 71.0, 25.0, 66.0]),
    "faithful": ((272, 2), [3.6, 79.0], [948.677, 19284.0]),
    "galaxies": ((82, 1), [9.172], [1707.91]),
    "iris": ((150, 4), [5.1, 3.5, 1.4, 0.2], [876.5, 458.6, 563.7, 179.9]),
}


@pytest.mark.parametrize("name", jg.datasets.NAMES)
def test_bundled(name):
    shape, first, sums = SETS[name]
    data = jg.datasets.load(name)
    assert data.name == name
    assert data.x.shape == shape
    assert data.x.dtype == np.float64
    assert len(data.feature_names) == shape[1]
    assert data.description
    np.testing.assert_array_equal(data.x[0], first)
    np.testing.assert_allclose(data.x.sum(axis=0), sums, rtol=1e-12)


def test_iris_has_fifty_of_each_species():
    labels = jg.datasets.load("iris").labels
    assert {name: labels.count(name) for name in set(labels)} == {
        "setosa": 50,
        "versicolor": 50,
        "virginica": 50,
    }
    assert jg.datasets.load("faithful").labels is None


def test_bundled_columns():
    data = jg.datasets.load("iris", columns=["Petal.Width", "0"])
    assert data.feature_names == ("Petal.Width", "Sepal.Length")
    np.testing.assert_array_equal(data.x[0], [0.2, 5.1])
    assert len(data.labels) == 150


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'galaxies'"):
        jg.datasets.load("galaxy")
    with pytest.raises(ValueError, match="did you mean 'eruptions'"):
        jg.datasets.load("faithful", columns=["eruption"])


@pytest.mark.parametrize(
    ("text", "names", "first"),
    [
        ("a,b\n1,2\n3,4\n", ("a", "b"), [1, 2]),
        ("1,2\n3,4\n", ("x0", "x1"), [1, 2]),
        (' a , "b"\n1,2\n3,4\n', ("a", '"b"'), [1, 2]),
        ('"a","b, c"\n1,2\n', ("a", "b, c"), [1, 2]),
        ("\ufeffa,b\r\n1e3,-2.5\r\n\r\n", ("a", "b"), [1000, -2.5]),
        ("a\n1\n\n2", ("a",), [1]),
        ("a,b\n1,2\n,\n", ("a", "b"), [1, 2]),
        ("a;b\n1,5;2,5\n3;4\n", ("a", "b"), [1.5, 2.5]),
        ("a\tb\n1.5\t2\n", ("a", "b"), [1.5, 2]),
        ("a  b\n 1   2\n3 4\n", ("a", "b"), [1, 2]),
        ("a|b\n1|2\n", ("a", "b"), [1, 2]),
        ("a\n0.1234567890123456789\n", ("a",), [0.1234567890123456789]),
    ],
)
def test_read_csv(tmp_path, text, names, first):
    path = tmp_path / "some.csv"
    path.write_text(text, encoding="utf-8", newline="")
    data = jg.datasets.read_csv(path)
    assert data.name == "some"
    assert data.feature_names == names
    np.testing.assert_array_equal(data.x[0], first)


def test_read_csv_selects_before_it_reads_numbers(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text("kind,wing,tail\nrobin,1,2\nwren,3,4\n")
    for columns in (["tail", "wing"], ["2", "1"], [2, 1]):
        data = jg.datasets.read_csv(path, columns)
        assert data.feature_names == ("tail", "wing")
        assert data.x.tolist() == [[2, 1], [4, 3]]
    with pytest.raises(
        ValueError, match="column 'kind' is not numeric, found 'robin' in data row 0"
    ):
        jg.datasets.read_csv(path)
    with pytest.raises(ValueError, match="did you mean 'wing'"):
        jg.datasets.read_csv(path, ["wings"])


def test_columns_by_position(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text("a,b\n1,2\n")
    assert jg.datasets.read_csv(path, ["1"]).feature_names == ("b",)
    with pytest.raises(ValueError, match="unknown name '3'"):
        jg.datasets.read_csv(path, ["3"])


NORMAL = np.random.default_rng(0).standard_normal((6, 2))
BIRDS = pd.DataFrame(NORMAL, columns=["wing", "tail"])
YEARS = BIRDS.set_axis(["2019", "2020"], axis=1)


def _read(tmp_path, text, *args, **options):
    path = tmp_path / "some.csv"
    path.write_text(text)
    return jg.datasets.read_csv(path, *args, **options)


@pytest.mark.parametrize("table", [BIRDS, YEARS], ids=["text header", "numeric header"])
@pytest.mark.parametrize("index", [range(6), list("abcdef")], ids=["numbers", "text"])
def test_the_index_of_rows_is_left_out_and_that_is_said(tmp_path, table, index):
    data = _read(tmp_path, table.set_axis(index).to_csv())
    assert data.feature_names == tuple(table.columns)
    np.testing.assert_array_equal(data.x, NORMAL)
    assert "left out as the row index" in data.notes[-1]


def test_the_index_of_rows_may_be_chosen(tmp_path):
    assert _read(tmp_path, BIRDS.to_csv(), ["0", "tail"]).feature_names == ("x0", "tail")
    again = pd.DataFrame({"Unnamed: 0": range(6), **BIRDS}).to_csv()
    assert _read(tmp_path, again).feature_names == ("wing", "tail")


def test_a_first_line_of_numbers_is_refused_or_said(tmp_path):
    for table in (YEARS, pd.DataFrame(NORMAL)):
        with pytest.raises(ValueError, match=r"may name the columns or be a row; say which"):
            _read(tmp_path, table.to_csv(index=False))
    text = YEARS.to_csv(index=False)
    named = _read(tmp_path, text, header=True)
    assert (named.feature_names, named.notes) == (("2019", "2020"), ())
    assert _read(tmp_path, text, header=False).x[0].tolist() == [2019, 2020]
    bare = _read(tmp_path, "1.5,2\n3,4\n")
    assert bare.notes == (
        "no header, since the first line is 1.5,2: columns are called x0, x1, ...",
    )
    assert "names the columns" in _read(tmp_path, "id,2019\n1,2.5\n2,3\n").notes[0]
    with pytest.raises(ValueError, match="'x0' is missing in data row 0"):  # not a header
        _read(tmp_path, "NA,2.5\n1,3\n")


def test_what_was_found_out_is_said(tmp_path):
    assert _read(tmp_path, "a,b\n1,2\n").notes == ()
    guessed = _read(tmp_path, "a;b\n1,5;2\n")
    assert guessed.notes == ("separated by ';'", "with decimal commas")
    told = _read(tmp_path, "a;b\n1,5;2\n", sep=";", decimal=",")
    assert told.notes == ()
    np.testing.assert_array_equal(told.x, guessed.x)


@pytest.mark.parametrize(
    ("columns", "names"),
    [("b, c", ("b, c",)), ('"b, c", a', ("b, c", "a")), (" a , 1 ", ("a", "b, c"))],
)
def test_columns_in_one_string(tmp_path, columns, names):
    assert _read(tmp_path, 'a,"b, c"\n1,2\n', columns).feature_names == names


REFUSED = {
    "missing": ("a,b\n1,2\n3,\n", {}, r"column 'b' is missing in data row 1 \(1 missing cell"),
    "truth": ("a\nTrue\n", {}, "column 'a' is not numeric, found 'True'"),
    "thousands": ("a;b\n1,234,567;2\n", {}, "column 'a' is not numeric, found '1,234,567'"),
    "short": ("a,b\n1,2\n3\n", {}, "line 3 has 1 cells, the first has 2"),
    "long": ("a,b\n1,2\n3,4,5\n", {}, "line 3 has 3 cells, the first has 2"),
    "long sep": ("a\n1\n", {"sep": "::"}, "sep: needs one character, found '::'"),
    "same": ("a,b\n1,2\n", {"decimal": ","}, "decimal: ',' already separates the cells"),
    "twice": ("a,a\n1,2\n", {"columns": "a"}, "columns: 'a' names 2 columns; give positions"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_read_csv_refuses_by_name(tmp_path, case):
    text, options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        _read(tmp_path, text, **options)


ENCODED = {
    "UTF-16": ("a,b\n1,2\n".encode("utf-16"), "UTF-16.*save it as UTF-8"),
    "UTF-16 without a mark": ("a,b\n1,2\n".encode("utf-16-le"), "UTF-16.*save it as UTF-8"),
    "Latin-1": ("a,é\n1,2\n".encode("latin-1"), "not UTF-8 text .*perhaps Latin-1; save it"),
}


@pytest.mark.parametrize("case", ENCODED)
def test_other_encodings_are_named(tmp_path, case):
    content, message = ENCODED[case]
    path = tmp_path / "some.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        jg.datasets.read_csv(path)


def test_packed_files(tmp_path):
    for ending in ("gz", "bz2", "xz"):
        BIRDS.to_csv(tmp_path / f"birds.csv.{ending}", index=False)
        data = jg.datasets.read_csv(tmp_path / f"birds.csv.{ending}")
        assert (data.name, data.feature_names) == ("birds", ("wing", "tail"))
        np.testing.assert_array_equal(data.x, NORMAL)
    (tmp_path / "no.csv.gz").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="cannot be unpacked"):
        jg.datasets.read_csv(tmp_path / "no.csv.gz")


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    BIRDS.to_parquet(tmp_path / "birds.parquet")
    data = jg.datasets.read_csv(tmp_path / "birds.parquet", "tail")
    np.testing.assert_array_equal(data.x[:, 0], NORMAL[:, 1])
    BIRDS.mask(BIRDS > 1).to_parquet(tmp_path / "gap.parquet")
    with pytest.raises(ValueError, match="is missing in data row"):
        jg.datasets.read_csv(tmp_path / "gap.parquet")


def test_parquet_without_pyarrow_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(pd, "read_parquet", lambda _: (_ for _ in ()).throw(ImportError("engine")))
    with pytest.raises(ValueError, match=r"birds.parquet: Parquet files need pyarrow: pip install"):
        jg.datasets.read_csv(tmp_path / "birds.parquet")


def test_a_data_set_is_a_table():
    data = jg.datasets.load("iris", ["Petal.Width", "Sepal.Width"])
    assert repr(data) == "Dataset 'iris': 150 x 2 (Petal.Width, Sepal.Width), 3 classes"
    assert list(data.frame.columns) == ["Petal.Width", "Sepal.Width"]
    np.testing.assert_array_equal(data.frame, data.x)
    np.testing.assert_array_equal(np.asarray(data), data.x)


def test_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        jg.datasets.read_csv(tmp_path / "none.csv")
