"""Bundled data are the published ones; CSV files are read or refused by name."""

import numpy as np
import pytest

import jaxgmm as jg

SETS = {
    # shape, first row, column sums
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


def test_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        jg.datasets.read_csv(tmp_path / "none.csv")
