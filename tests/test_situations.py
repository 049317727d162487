"""Staged situations whose truth is known: what the verdict says of each, held against it."""

import dataclasses
import pathlib
import re

import numpy as np
import pandas as pd
import pytest
import situations as staged
import truths
from situations import PRIOR, SITUATIONS, changed

import jaxgmm as jg

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "situations.md"
LOO = "optimism of the plug-in score over LOO (nats)"
GAUSSIAN = "Pareto k of the Gaussian at the mode"  # of draws: only its verdict is known
ERRORS = "posterior sd / standard error, farthest from 1"
# Monte-Carlo errors that an average may be off: once in 15,000.
SIGMAS = 4.0


def slowly(names):
    slow = lambda name: pytest.mark.slow if SITUATIONS[name].slow else ()
    return [pytest.param(name, marks=slow(name)) for name in names]


def judge(name, **options):
    """Assert that the verdict is what has to be said."""
    one = SITUATIONS[name]
    if one.decided is None:
        with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the words are looked at below
            staged.verdict(name, **options)
        said = str(refusal.value)
    else:
        found = staged.verdict(name, **options)
        said = staged.words(found)
        assert found.decided == one.decided, said
    assert [phrase for phrase in one.says if phrase not in said] == [], said
    assert [phrase for phrase in one.not_said if phrase in said] == [], said


@pytest.mark.parametrize("name", slowly(SITUATIONS))
def test_the_verdict_says_what_is_true(name):
    judge(name)


def test_the_page_has_the_table():
    assert staged.table() in PAGE.read_text()


# -- numbers against the truth ---------------------------------------------------------------


def test_the_truth_is_checked_where_there_is_a_closed_form():
    """Laplace and importance sampling by SciPy, on one Gaussian."""
    x = staged.single(40).x
    exact = truths.one_gaussian(x, PRIOR).log_evidence
    found = truths.mode(x, PRIOR, np.zeros(len(x), int), 1)
    assert found.log_evidence == pytest.approx(exact, abs=0.02)
    assert found.laplace == pytest.approx(exact, abs=0.1)


@pytest.mark.turn
def test_how_far_an_early_stop_is_from_the_top():
    fit, _ = SITUATIONS["stopped_early"].stage()
    truth = truths.shape(staged.two(5.0).x, PRIOR, fit.params)
    assert truth.n_rising == 0
    found = staged.verdict("stopped_early")
    distance = found.checks.loc["Newton decrement (sd)", "value"]
    assert distance == pytest.approx(truth.newton_decrement, rel=1e-3)
    assert f"it is {distance:.2g} posterior sd away" in found.summary


def test_in_how_many_directions_a_saddle_rises():
    fit, _ = SITUATIONS["saddle"].stage()
    truth = truths.shape(staged.two(5.0).x, PRIOR, fit.params)
    assert truth.n_rising == 3
    assert truth.newton_decrement < 1e-5


def modes(data):
    """By SciPy: the two modes of three clusters, the left one first."""
    partitions = staged.with_left(data), staged.with_right(data)
    return [truths.mode(data.x, PRIOR, labels) for labels in partitions]


@pytest.mark.slow
def test_how_much_lower_a_minor_mode_is():
    high, low = modes(staged.lopsided())
    found = staged.verdict("minor_mode")
    assert f"log joint is {high.height - low.height:.2f} higher" in found.summary
    assert found.basins["log_joint"].tolist() == pytest.approx([low.height, high.height], abs=1e-4)


@pytest.mark.turn
@pytest.mark.parametrize("name", ["stuck_below", "stuck_above", "mirrored"])
def test_what_each_mode_holds(name):
    data = staged.three() if name == "mirrored" else staged.lopsided()
    evidence = np.array([one.log_evidence for one in modes(data)])
    truth = np.exp(evidence - np.logaddexp(*evidence))
    if name == "mirrored":
        assert truth == pytest.approx([0.5, 0.5], abs=0.005)
    basins = staged.verdict(name).basins
    assert basins["laplace_share"].to_numpy() == pytest.approx(truth, abs=0.02)
    missed = basins["laplace_share"][basins["visited"] == 0]
    for share in missed:
        assert f"holds about {share:.1%}" in staged.verdict(name).summary


def exact_errors(n, prior):
    """Posterior sd over the error from the curvature at the mode: of a mean, of a variance.

    One Gaussian. The mode of the joint density has the covariance scale / (dof + D + 2), the
    posterior mean is scale / (dof - D - 1).
    """
    d, dof = len(prior.scale), float(prior.dof) + n
    at_mode, free = dof + d + 2, dof - d - 1
    return np.sqrt(at_mode / free), at_mode**1.5 / (free * np.sqrt(free - 2))


@pytest.mark.turn
@pytest.mark.parametrize(
    ("name", "prior", "n"),
    [
        pytest.param("one_component", PRIOR, staged.ROWS, marks=pytest.mark.slow),
        pytest.param("twelve_rows", PRIOR, 12, marks=pytest.mark.slow),
        ("conflict_exact", changed(mean=[40.0, 0.0], mean_precision=200.0), staged.ROWS),
    ],
)
def test_one_gaussian_in_every_number(name, prior, n):
    found, x = staged.verdict(name), staged.single(n).x
    exact = truths.one_gaussian(x, prior)
    rows = found.table
    of_mean, of_variance = exact_errors(n, prior)
    for i in range(2):
        for label, mean, sd, ratio in (
            (f"means[0, x{i}]", exact.mean[i], exact.mean_sd[i], of_mean),
            (
                f"covariances[0, x{i}, x{i}]",
                exact.covariance[i, i],
                exact.variance_sd[i],
                of_variance,
            ),
        ):
            row = rows.loc[label]
            assert abs(row["mean"] - mean) < SIGMAS * sd / np.sqrt(row["ess_bulk"]), label
            assert row["standard_error"] == pytest.approx(sd / ratio, rel=1e-5), label
            assert row["sd"] == pytest.approx(sd, rel=0.1 if n > 12 else 0.25), label
    assert found.checks.loc["log evidence", "value"] == pytest.approx(exact.log_evidence, abs=0.1)
    # What is constant has no spread, no distance and no error.
    for label in ("weights[0]", "sorted_weights[0]"):
        assert not np.isfinite(rows.loc[label, "z"])
    elpd = truths.left_out(x, prior)
    assert loo(found) == pytest.approx(elpd, abs=1.0 if n > 12 else 2.0)


def loo(found):
    """The sum of leave-one-out log densities that a verdict mentions."""
    return float(re.search(r"LOO elpd (-?[\d.]+)", found.checks.loc[LOO, "meaning"])[1])


@pytest.mark.slow
def test_errors_that_are_far_from_the_spread():
    d = 8
    ratio = exact_errors(6, SITUATIONS["fewer_rows_than_columns"].stage()[0].model.prior)[1]
    assert ratio == pytest.approx(8.47, abs=0.01)
    found = staged.verdict("fewer_rows_than_columns")
    labels = [f"covariances[0, x{i}, x{i}]" for i in range(d)]
    ratios = found.table.loc[labels, "sd"] / found.table.loc[labels, "standard_error"]
    assert np.median(ratios) == pytest.approx(ratio, rel=0.2)
    assert found.checks.loc[ERRORS, "value"] > 0.8 * ratio


@pytest.mark.slow
def test_a_rule_of_labels_decides_what_ambiguous_ones_mean():
    post = SITUATIONS["equal_means"].stage()[1]
    weight = lambda rule: post.relabel(rule).draws["weights"][..., 0].mean()
    assert abs(weight("stephens") - weight("ordering")) > 0.2
    clear = SITUATIONS["one_component"].stage()[1]
    assert clear.ambiguous_labels == 0


@pytest.mark.slow
def test_spread_of_vb():
    _, vb = SITUATIONS["vb_overlapping"].stage()
    _, exact = staged.both(staged.two(2.5))
    sd = lambda post: post.draws["means"][..., 0, 0].std()
    assert sd(vb) < 0.8 * sd(exact)


@pytest.mark.slow
def test_svi_goes_on_where_it_was_stopped():
    _, stopped = SITUATIONS["svi_stopped"].stage()
    _, longer = staged.both(staged.two(2.5), method="svi", n_steps=2000)
    assert longer.pareto_k < stopped.pareto_k
    assert not stopped.diagnostics["converged"]


# What the verdict itself draws, rows, labels or points of a Gaussian, is equal but for its noise.
DRAWN = (
    *("total variation", "expected adjusted Rand", "log evidence", "largest Wasserstein"),
    *("least likely row", "rows that decide"),
)


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_weights_are_copies_in_every_number(k):
    """The draws of tripled rows, handed to the weighted fit, give equal verdicts."""
    (fit, post), (tripled, many) = staged.weighted(k)
    fields = ("draws", "draws_raw", "params", "labels", "log_prior", "log_likelihood")
    same = {name: getattr(many, name) for name in (*fields, "label_clarity")}
    one = jg.compare(fit, dataclasses.replace(post, **same))
    other = jg.compare(tripled, many)
    assert one.decided == other.decided
    for name, line in other.checks.iterrows():
        value, ours = line["value"], one.checks.loc[name, "value"]
        assert one.checks.loc[name, "verdict"] == line["verdict"], name
        if pd.isna(value) or isinstance(value, str) or name == GAUSSIAN:
            continue
        close = {"abs": 0.1} if name.startswith(DRAWN) else {"rel": 1e-4, "abs": 1e-4}
        assert ours == pytest.approx(value, **close), name
    assert loo(one) == pytest.approx(loo(other), abs=0.11)
    shared = other.table.index.intersection(one.table.index)
    numbers = ["map", "mean", "sd", "standard_error", "standard_error_sandwich"]
    assert np.allclose(
        one.table.loc[shared, numbers].astype(float),
        other.table.loc[shared, numbers].astype(float),
        rtol=1e-5, atol=1e-8, equal_nan=True,
    )  # fmt: skip
