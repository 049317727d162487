"""The command line: what it prints, what it writes, and one clear line for bad input."""

import contextlib
import io
import json
import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pandas as pd
import pytest
from helpers import full_disk

import jaxgmm as jg
from jaxgmm.__main__ import main


@pytest.fixture(autouse=True)
def _restore_precision():
    yield
    jax.config.update("jax_enable_x64", True)


@pytest.fixture
def csv_file(tmp_path):
    """A file with a header, a column of text and one of numbers with a gap."""
    path = tmp_path / "birds.csv"
    rows = np.random.default_rng(0).standard_normal((30, 2)) + np.arange(30)[:, None] % 2 * 6
    lines = [f"{a},{b},robin,{i if i else ''}" for i, (a, b) in enumerate(rows)]
    path.write_text("wing,tail,kind,ring\n" + "\n".join(lines) + "\n")
    return path


def _exit_code(*argv):
    try:
        return main(list(map(str, argv)))
    except SystemExit as stop:  # argparse's own way out
        return stop.code


# -- what works --------------------------------------------------------------------


def test_fit_prints_tables_and_writes_json(capsys, tmp_path):
    out = tmp_path / "fit.json"
    assert _exit_code("fit", "faithful", "-k", 2, "--restarts", 8, "--json", out) == 0
    printed = capsys.readouterr()
    for text in ("log joint -1157.1651", "Weights and means", "eruptions", "Covariances", "-1157"):
        assert text in printed.out
    assert "EM: 8 start(s) ..." in printed.err
    record = json.loads(out.read_text())
    assert record["feature_names"] == ["eruptions", "waiting"]
    assert record["converged"] is True
    assert sum(end["restarts"] for end in record["optima"]) == 8
    np.testing.assert_allclose(record["log_joint"], -1157.165053, atol=1e-5)
    np.testing.assert_allclose(sorted(record["weights"]), [0.35608, 0.64392], atol=1e-5)


def test_a_fit_is_kept_for_labels_and_rows(capsys, tmp_path):
    kept = tmp_path / "fit.npz"
    assert _exit_code("fit", "faithful", "-k", 2, "--restarts", 4, "--save", kept) == 0
    fit, x = jg.load(kept), jg.datasets.load("faithful").x
    capsys.readouterr()
    assert _exit_code("predict", kept, "faithful") == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(table) == ["component", "p0", "p1", "log_density"]
    np.testing.assert_array_equal(table["component"], fit.model.predict(fit.params, x))
    np.testing.assert_allclose(table["log_density"].sum(), fit.log_likelihood, rtol=1e-12)
    # Columns go by name, in whatever order.
    swapped = tmp_path / "swapped.csv"
    jg.datasets.load("faithful").frame[["waiting", "eruptions"]].to_csv(swapped, index=False)
    assert _exit_code("predict", kept, swapped) == 0
    again = pd.read_csv(io.StringIO(capsys.readouterr().out))
    pd.testing.assert_frame_equal(again, table)
    assert _exit_code("sample", kept, "-n", 5, "--seed", 3) == 0
    drawn = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(drawn) == ["eruptions", "waiting"]
    rows = fit.model.sample(fit.params, jax.random.key(3), 5)
    np.testing.assert_allclose(drawn, rows, rtol=1e-12)
    # What does not fit is one line.
    assert _exit_code("predict", kept, "iris") == 2
    assert "the fit is of the columns eruptions, waiting" in capsys.readouterr().err
    assert _exit_code("predict", swapped, "faithful") == 2
    assert "no file of jaxgmm's" in capsys.readouterr().err
    assert _exit_code("sample", tmp_path / "none.npz") == 2
    assert "No such file" in capsys.readouterr().err


@pytest.mark.turn
def test_kept_results_are_compared(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = jg.datasets.load("galaxies").frame
    fit = jg.fit(
        jg.Mixture(jg.Gaussian("tied"), 2, prior="weak"), x, key=jax.random.key(0), n_init=2
    )
    post = jg.sample(fit.model, x, key=jax.random.key(1), method="laplace", start=fit, n_draws=200)
    fit.save("fit.npz")
    post.save("post.npz")
    kept = ["compare", "--fit", "fit.npz", "--posterior", "post.npz", "--quiet", "--no-cache"]
    assert _exit_code(*kept) == 0
    printed = capsys.readouterr().out
    assert jg.compare(fit, post).summary in " ".join(printed.split())
    assert (tmp_path / "post_report" / "report.html").is_file()
    for argv, says in [
        ([*kept[:4], "fit.npz"], "fit.npz: holds a Fit; a posterior is needed"),
        (["sample", "post.npz"], "post.npz: holds a Posterior; a fit is needed"),
    ]:
        assert _exit_code(*argv) == 2
        assert says in capsys.readouterr().err


@pytest.mark.turn
def test_rows_of_several_kinds_are_labelled_and_drawn(capsys, tmp_path):
    """By names, whatever stands around the family; words where codes have some."""
    table = pd.DataFrame({"visits": np.arange(30) % 7, "sex": np.arange(30) % 2.0})
    table.to_csv(tmp_path / "visits.csv", index=False)
    gated = jg.Mixture(jg.families.Poisson(), 2, prior="weak", gates=["sex"])
    fit = jg.fit(gated, table, key=jax.random.key(0), n_init=1, max_iter=20)
    kept = fit.save(tmp_path / "gated.npz")
    assert _exit_code("predict", kept, tmp_path / "visits.csv") == 0
    labels = pd.read_csv(io.StringIO(capsys.readouterr().out))
    np.testing.assert_allclose(labels["log_density"].sum(), fit.log_likelihood, rtol=1e-10)
    assert _exit_code("sample", kept) == 2
    assert "given" in capsys.readouterr().err

    words = table.assign(sex=np.where(table["sex"], "f", "m"))
    parts = {"visits": jg.families.Poisson(), "sex": jg.families.Bernoulli()}
    model = jg.Mixture(jg.families.Product(parts), 2, prior="weak")
    fit = jg.fit(model, words, key=jax.random.key(0), n_init=1, max_iter=20)
    assert _exit_code("sample", fit.save(tmp_path / "words.npz"), "-n", 20) == 0
    drawn = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(drawn) == ["visits", "sex"]
    assert set(drawn["sex"]) == {"f", "m"}


def test_fit_is_the_library_call(capsys, tmp_path):
    out = tmp_path / "fit.json"
    argv = ["fit", "iris", "-k", "2", "--columns", "Petal.Length,1", "--covariance", "tied"]
    assert _exit_code(*argv, "--restarts", 4, "--seed", 3, "--quiet", "--json", out) == 0
    assert capsys.readouterr().err == ""
    model = jg.Mixture(jg.Gaussian("tied"), 2, prior="fraley-raftery")
    x = jg.datasets.load("iris").x[:, [2, 1]]
    fit = jg.fit(model, x, key=jax.random.key(3), n_init=4)
    record = json.loads(out.read_text())
    assert record["feature_names"] == ["Petal.Length", "Sepal.Width"]
    assert record["log_joint"] == fit.log_joint


def test_fit_reports_distinct_optima_best_first(capsys, tmp_path):
    out = tmp_path / "fit.json"
    argv = ["fit", "galaxies", "-k", 4, "--prior", "none", "--restarts", 32, "--quiet"]
    assert _exit_code(*argv, "--json", out) == 0
    optima = json.loads(out.read_text())["optima"]
    heights = [end["log_joint"] for end in optima]
    assert len(heights) > 1
    assert heights == sorted(heights, reverse=True)


@pytest.mark.turn
def test_compare_prints_the_verdict_and_writes_the_report(capsys, tmp_path, monkeypatch, csv_file):
    monkeypatch.chdir(tmp_path)
    argv = ["compare", csv_file, "-k", 1, "--columns", "wing", "--covariance", "tied"]
    argv += ["--restarts", 2, "--chains", 2, "--draws", 400]
    assert _exit_code(*argv, "--details") == 0
    printed = capsys.readouterr()
    assert "EM's answer is a mode of this posterior" in printed.out
    assert "means[0, wing]" in printed.out
    assert str(pathlib.Path("birds_report") / "report.html") in printed.out
    stages = [line.split(" ...")[0] for line in printed.err.splitlines()]
    assert stages == [
        "birds: 30 rows of wing",
        "EM: 2 start(s)",
        "NUTS: 2 chain(s) of 400 draws, compiled first",
        "comparing",
        "writing report",
    ]
    out = tmp_path / "birds_report"
    assert (out / "report.html").stat().st_size > 10_000
    assert (out / "posterior.nc").stat().st_size > 10_000
    assert list(out.glob("*.png"))


def test_select_prints_the_models_and_writes_the_report(capsys, tmp_path):
    out = tmp_path / "made"
    argv = ["select", "galaxies", "-k", "1:2", "--structures", "E,V", "--restarts", 4]
    assert _exit_code(*argv, "--criterion", "icl", "--criteria", "bic", "--out", out) == 0
    printed = capsys.readouterr()
    assert "lowest ICL (most probable labels) of 4 model(s)" in " ".join(printed.out.split())
    assert str(out / "select.html") in printed.out
    assert [line.split(" ...")[0] for line in printed.err.splitlines()] == [
        "galaxies: 82 rows of velocity",
        "EM: 4 model(s), 4 start(s) each, compiled first",
        "writing report",
    ]
    record = json.loads((out / "select.json").read_text())
    assert record["criterion"] == "icl"
    assert [row["n_components"] for row in record["models"]] == [1, 2, 1, 2]
    np.testing.assert_allclose(record["models"][0]["bic"], 489.48922, atol=1e-4)
    assert "aic" not in record["models"][0]


@pytest.mark.turn
def test_study_prints_what_may_be_concluded_and_goes_on(capsys, tmp_path):
    run = ["study", "one", "-n", 30, "--datasets", 20, "--methods", "em", "--restarts", 1]
    run += ["--out", tmp_path, "--float32"]
    assert _exit_code(*run) == 0
    printed = capsys.readouterr()
    assert "At n = 30, over 20 data sets, em: 95% intervals cover" in printed.out
    assert f"Written: {tmp_path / 'study.html'}" in printed.out
    record = json.loads((tmp_path / "study.json").read_text())
    assert record["settings"]["dtype"] == "float32"
    batch = next((tmp_path / "batches").iterdir())
    before = batch.stat().st_mtime_ns
    assert _exit_code(*run) == 0
    assert batch.stat().st_mtime_ns == before


@pytest.mark.turn
def test_rows_beside_covariates_of_a_file(capsys, tmp_path):
    people = pd.DataFrame({"age": np.linspace(0.0, 3.0, 30)})
    pay = people["age"] + np.random.default_rng(0).normal(size=30)
    line = jg.Mixture(jg.families.LinearRegression(on=["age"], response="pay"), 1)
    fit = jg.fit(line, people.assign(pay=pay), key=jax.random.key(0), n_init=1)
    kept, ages = fit.save(tmp_path / "line.npz"), tmp_path / "ages.csv"
    people.assign(house=1.0).to_csv(ages, index=False, sep=";")
    assert _exit_code("sample", kept, "--given", ages, "--seed", 3) == 0
    printed = capsys.readouterr()
    assert "ages: separated by ';'" in printed.err
    drawn = pd.read_csv(io.StringIO(printed.out))
    rows = fit.model.sample(fit.params, jax.random.key(3), 30, given=people)
    np.testing.assert_allclose(drawn[["age", "pay"]], rows, rtol=1e-12)
    study = ["study", kept, "--datasets", 20, "--methods", "em", "--restarts", 1]
    assert _exit_code(*study, "--given", ages, "--out", tmp_path / "made") == 0
    assert "At n = 30, over 20 data sets" in capsys.readouterr().out
    record = json.loads((tmp_path / "made" / "study.json").read_text())
    assert record["settings"]["n_given"] == 30
    # As in the library.
    found = jg.study(
        fit.model, fit.params, n=30, n_datasets=20, key=jax.random.key(0), n_init=1, given=people,
        feature_names=fit.feature_names, progress=False,
    )  # fmt: skip
    made = pd.read_csv(tmp_path / "made" / "table.csv")
    np.testing.assert_allclose(made["bias"], found.table["bias"], rtol=1e-9)


def test_what_is_given_is_refused_in_one_line(capsys, tmp_path):
    out = ["--out", tmp_path, "--quiet"]
    line = jg.Mixture(jg.families.LinearRegression(on=["age"], response="pay"), 1)
    people = pd.DataFrame({"age": [0.0, 1.0, 2.0, 3.0], "pay": [1.0, 0.0, 2.0, 1.0]})
    kept = jg.fit(line, people, start=line.params(coefficients=[[0.0, 1.0]], variances=[1.0]))
    kept = kept.save(tmp_path / "line.npz")
    for argv, says in [
        (["study", "one", *out, "--given", "iris"], "--given: Mixture("),
        (["study", kept, *out], "--given: Mixture("),
        (["study", kept, *out, "--given", "iris"], "--given: has no column 'age'"),
        (["study", kept, *out, "--given", tmp_path / "ages.csv"], "ages.csv: No such file"),
        (["sample", kept, "--given", "iris"], "--given: has no column 'age'"),
        (["sample", kept, "-n", 3, "--given", "faithful"], "--given: has no column 'age'"),
        (["sample", kept], "--given: "),
    ]:
        assert _exit_code(*argv) == 2
        assert says in _one_line(capsys)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--save", "--json"])
def test_a_fit_is_the_truth_of_a_study(capsys, tmp_path, option):
    kept = tmp_path / ("fit.npz" if option == "--save" else "fit.json")
    assert _exit_code("fit", "faithful", "-k", 2, "--restarts", 4, option, kept) == 0
    run = ["study", kept, "--datasets", 20, "--methods", "em", "--out", tmp_path / "made"]
    assert _exit_code(*run, "--select", "1:3") == 0
    printed = capsys.readouterr().out
    assert "At n = 272" in printed
    assert "The truth's model is picked by BIC on" in printed
    record = json.loads((tmp_path / "made" / "study.json").read_text())
    assert record["settings"]["criteria"] == ["bic", "icl", "aic"]
    assert {row["model"].split("n_components=")[1][0] for row in record["selection"]} == set("123")
    assert "means[0, eruptions]" in (tmp_path / "made" / "table.csv").read_text()


@pytest.mark.turn
def test_float32_computes_in_float32(capsys, tmp_path):
    out = tmp_path / "fit.json"
    argv = ["fit", "faithful", "-k", 2, "--restarts", 4, "--float32", "--quiet", "--json", out]
    assert _exit_code(*argv) == 0
    assert not jax.config.jax_enable_x64
    record = json.loads(out.read_text())
    assert record["means"] == np.float32(record["means"]).astype(float).tolist()
    np.testing.assert_allclose(record["log_joint"], -1157.165, atol=0.05)


def test_header_is_optional_and_columns_selectable(capsys, tmp_path, csv_file):
    bare = tmp_path / "bare.csv"
    bare.write_text("\n".join(csv_file.read_text().splitlines()[1:]))
    ends = []
    for file, columns in [(csv_file, "wing,tail"), (csv_file, "0,1"), (bare, "x0,x1")]:
        argv = ["fit", file, "-k", 2, "--columns", columns, "--restarts", 2, "--quiet"]
        assert _exit_code(*argv) == 0
        ends.append(capsys.readouterr().out.splitlines()[1])
    assert len(set(ends)) == 1


def test_what_was_taken_for_granted_is_said_even_when_quiet(capsys, tmp_path):
    path = tmp_path / "birds.csv"
    x = jg.datasets.load("faithful").frame[:40]
    x.to_csv(path, sep=";", decimal=",")
    argv = ["fit", path, "-k", 1, "--restarts", 1, "--quiet"]
    assert _exit_code(*argv) == 0
    guessed = capsys.readouterr()
    assert guessed.err.splitlines() == [
        "birds: separated by ';'",
        "birds: with decimal commas",
        "birds: column(s) '' left out as the row index; choose by position, from 0",
    ]
    told = ["--sep", ";", "--decimal", ",", "--header", "--columns", " waiting, eruptions"]
    assert _exit_code(*argv, *told) == 0
    assert capsys.readouterr().err == ""
    x.to_csv(path.with_suffix(".csv.gz"), sep="\t", index=False)
    assert _exit_code("fit", f"{path}.gz", "-k", 1, "--restarts", 1, "--quiet", "--sep", "tab") == 0
    unpacked = capsys.readouterr()
    assert (unpacked.out, unpacked.err) == (guessed.out, "")


def test_data_lists_and_prints(capsys):
    assert _exit_code("data") == 0
    listed = capsys.readouterr().out
    assert all(f"{name}: " in listed for name in jg.datasets.NAMES)
    assert _exit_code("data", "iris") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Sepal.Length,Sepal.Width,Petal.Length,Petal.Width,Species"
    assert len(lines) == 151


@pytest.mark.parametrize("argv", [["--help"], ["compare", "--help"], ["fit", "-h"]])
def test_help(capsys, argv):
    assert _exit_code(*argv) == 0
    assert "jaxgmm" in capsys.readouterr().out


# -- bad input: exit code 2, one line, no traceback -----------------------------------

_NO_FIT = str(pathlib.Path(__file__).parent / "data" / "sklearn.json")

BAD = {
    "no command": ([], "needs a command"),
    "unknown command": (["fot", "faithful", "-k", "2"], "invalid choice: 'fot'"),
    "no K": (["fit", "faithful"], "-k"),
    "K = 0": (["fit", "faithful", "-k", "0"], "must be at least 1, found 0"),
    "K in words": (["fit", "faithful", "-k", "two"], "whole number, found 'two'"),
    "unknown option": (["fit", "faithful", "-k", "2", "--restart", "3"], "--restart"),
    "no restarts": (["fit", "faithful", "-k", "2", "--restarts", "0"], "--restarts"),
    "negative seed": (["fit", "faithful", "-k", "2", "--seed", "-1"], "at least 0, found -1"),
    "large seed": (["fit", "faithful", "-k", "2", "--seed", str(2**32)], "must be below"),
    "seed in words": (["fit", "faithful", "-k", "2", "--seed", "x"], "whole number, found 'x'"),
    "too few draws": (["compare", "faithful", "-k", "2", "--draws", "3"], "--draws"),
    "unknown data": (["fit", "fathful", "-k", "2"], "did you mean 'faithful'?"),
    "missing file": (["fit", "none.csv", "-k", "2"], "none.csv: No such file"),
    "folder": (["fit", ".", "-k", "2"], "."),
    "unknown column": (["fit", "faithful", "-k", "2", "--columns", "watin"], "--columns: "),
    "column too far": (["fit", "faithful", "-k", "2", "--columns", "2"], "'2'"),
    "unknown covariance": (["fit", "faithful", "-k", "2", "--covariance", "dag"], "--covariance: "),
    "unknown prior": (["fit", "faithful", "-k", "2", "--prior", "fraley"], "--prior: "),
    "unknown method": (["compare", "faithful", "-k", "2", "--method", "nut"], "--method: "),
    "falling range": (["select", "faithful", "-k", "3:1"], "must not fall, found '3:1'"),
    "open range": (["select", "faithful", "-k", "1:"], "whole number, found ''"),
    "unknown structure": (["select", "faithful", "--structures", "VVW"], "--structures: "),
    "unknown criterion": (["select", "galaxies", "--criterion", "bik"], "--criterion: "),
    "unknown criteria": (["select", "galaxies", "--criteria", "bik"], "--criteria: "),
    "no components": (["compare", "faithful"], "needs DATA and -k, or --fit and --posterior"),
    "a fit alone": (["compare", "--fit", "fit.npz"], "needs DATA and -k, or --fit and"),
    "data and a fit": (
        ["compare", "iris", "-k", "2", "--fit", "a.npz", "--posterior", "b.npz"],
        "needs DATA and -k, or --fit and --posterior",
    ),
    "no posterior": (["compare", "faithful", "-k", "2", "--prior", "none"], "improper"),
    "unknown truth": (["study", "separatd"], "did you mean 'separated'?"),
    "unknown way": (["study", "one", "--methods", "em,gibs"], "--methods: unknown name 'gibs'"),
    "unknown choice": (["study", "one", "--criteria", "bik"], "--criteria: unknown name 'bik'"),
    "no rows": (["study", "one", "-n", "1"], "must be at least 2, found 1"),
    "no fit": (
        ["study", str(pathlib.Path(__file__).parent / "data" / "sklearn.json")],
        "is no fit",
    ),
    "unknown set": (["data", "irs"], "did you mean 'iris'?"),
}


def _one_line(capsys):
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith("\n")
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("jaxgmm: error: ")
    return printed.err


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(capsys, case):
    argv, said = BAD[case]
    assert _exit_code(*argv) == 2
    assert said in _one_line(capsys)


FILES = {
    "text column": (
        "a,b\n1,2\n3,robin\n",
        "column 'b' is not numeric, found 'robin' in data row 1",
    ),
    "gap": ("a,b\n1,2\n3,\n", "column 'b' is missing in data row 1"),
    "ragged": ("a,b\n1,2\n3\n", "line 3 has 1 cells, the first has 2"),
    "empty": ("", "no rows"),
    "header only": ("a,b\n", "only a header"),
    "nan": ("a,b\n1,2\n3,nan\n4,5\n", "column 'b' is missing in data row 1"),
    "not finite": ("a,b\n1,2\n3,inf\n4,5\n", "inf at row 1, column 'b'"),
    "years": ("2019,2020\n1.5,2.5\n", "2019,2020, may name the columns or be a row"),
    "constant": ("a,b\n1,2\n3,2\n4,2\n", "bad.csv: column 'b' is constant"),
    "too few rows": ("a\n1\n2\n", "rows"),
}


@pytest.mark.parametrize("case", FILES)
def test_bad_files(capsys, tmp_path, case):
    text, said = FILES[case]
    path = tmp_path / "bad.csv"
    path.write_text(text)
    assert _exit_code("fit", path, "-k", 3, "--prior", "none") == 2
    assert said in _one_line(capsys)


def test_bytes_are_not_csv(capsys, tmp_path):
    path = tmp_path / "bytes.csv"
    path.write_bytes(b"\xff\xfe\x00\x01")
    assert _exit_code("fit", path, "-k", 2) == 2
    assert "bytes.csv: UTF-16, or no text at all" in _one_line(capsys)


def test_unwritable_outputs(capsys, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    argv = ["fit", "galaxies", "-k", 1, "--restarts", 1, "--quiet"]
    assert _exit_code(*argv, "--json", file / "fit.json") == 2
    assert "file: File exists" in capsys.readouterr().err
    argv = ["compare", "galaxies", "-k", 1, "--restarts", 1, "--quiet"]
    assert _exit_code(*argv, "--out", file) == 2
    assert "File exists" in _one_line(capsys)


@pytest.mark.turn
def test_a_full_disk_is_one_line_after_what_was_found(capsys, tmp_path):
    argv = ["select", "galaxies", "-k", 1, "--structures", "E", "--restarts", 1, "--quiet"]
    there, new = tmp_path / "there", tmp_path / "made" / "here"
    assert _exit_code(*argv, "--out", there) == 0
    before = {path: path.read_bytes() for path in there.iterdir()}
    for out in (there, new):
        capsys.readouterr()
        with full_disk(20_000):
            assert _exit_code(*argv, "--out", out) == 2
        printed = capsys.readouterr()
        assert "has the lowest BIC" in printed.out
        assert len(printed.err.splitlines()) == 1
        assert f"{out / 'criteria.png'}: File too large" in printed.err
    assert {path: path.read_bytes() for path in there.iterdir()} == before
    assert list(tmp_path.iterdir()) == [there]


# -- as a program ----------------------------------------------------------------------


def _program(*argv, first="pass", stdout=subprocess.PIPE):
    code = f"import sys; {first}; from jaxgmm.__main__ import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *map(str, argv)]
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=300, check=False
    )


def test_program_exit_codes():
    good = _program("--version")
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.startswith("jaxgmm ")
    bad = _program("fit", "fathful", "-k", "2")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert len(bad.stderr.splitlines()) == 1


CACHE_OF_ITS_OWN = (
    "import os; os.environ.pop('JAX_COMPILATION_CACHE_DIR', None); "
    "os.environ['XDG_CACHE_HOME'] = {!r}"
)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the folder has another name")
def test_the_next_process_finds_what_was_compiled(tmp_path):
    argv = ["fit", "galaxies", "-k", 1, "--restarts", 1, "--quiet"]
    first = CACHE_OF_ITS_OWN.format(str(tmp_path))
    kept = lambda: {path.name for path in (tmp_path / "jaxgmm").glob("*-cache")}
    uncached = _program(*argv, "--no-cache", first=first)
    assert (uncached.returncode, uncached.stderr) == (0, "")
    assert not kept()
    found = []
    for _ in range(2):
        ended = _program(*argv, first=first)
        assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", uncached.stdout)
        found.append(kept())
    assert found[0]
    assert found[1] == found[0]


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_a_note(tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    ended = _program(
        *["fit", "galaxies", "-k", 1, "--restarts", 1], first=CACHE_OF_ITS_OWN.format(str(blocked))
    )
    assert ended.returncode == 0
    assert f"note: compiled programs are not kept for the next time ({blocked}" in ended.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has /dev/full")
def test_output_that_nobody_takes():
    with open("/dev/full", "w") as full:
        ended = _program("data", "galaxies", stdout=full)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert "No space left" in ended.stderr


@pytest.mark.slow
def test_a_full_disk_does_not_kill_the_program(tmp_path, tmp_path_factory):
    pytest.importorskip("resource", reason="Windows limits no file sizes")
    first = "import os, resource as r; r.setrlimit(r.RLIMIT_FSIZE, (20_000, 20_000)); "
    first += CACHE_OF_ITS_OWN.format(str(tmp_path_factory.mktemp("cache")))
    argv = ["compare", "galaxies", "-k", 1, "--restarts", 1, "--draws", 100, "--quiet"]
    ended = _program(*argv, "--method", "gibbs", "--out", tmp_path / "made", first=first)
    assert ended.returncode == 2, ended.stderr
    assert "File too large" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
    assert "EM's answer" in ended.stdout
    assert not list(tmp_path.iterdir())


@contextlib.contextmanager
def _interruptible(*argv):
    # A background shell starts its children deaf to SIGINT, so the child listens by itself.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from jaxgmm.__main__ import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *map(str, argv)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        yield process


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to a child")
def test_interrupt_is_quiet():
    with _interruptible("fit", "galaxies", "-k", 3) as process:
        assert process.stderr.readline() == b"galaxies: 82 rows of velocity\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    assert err in (b"", b"EM: 64 start(s) ... ")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to a child")
def test_interrupt_leaves_no_folder(tmp_path):
    argv = ["select", "galaxies", "-k", 1, "--structures", "E", "--restarts", 1]
    with _interruptible(*argv, "--out", tmp_path / "made") as process:
        while b"compiled first ..." not in process.stderr.read1():
            pass
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert not list(tmp_path.iterdir())
