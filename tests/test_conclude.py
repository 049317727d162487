"""The conclusion, clause by clause: each follows from the lines that measure it, and no other."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pandas as pd
import pytest
from posteriors import agreement

from jaxgmm.report.verdict._conclude import CLAUSES, conclude
from jaxgmm.report.verdict._decide import HEALTH, _transitions
from jaxgmm.report.verdict._targets import SAME_MODEL, SAME_TARGET

# What the conclusion withdraws where the line on the left warns.
FEEDS = {
    "quantities with the MAP inside their 95% interval": "its estimates are typical of it",
    "largest |z| of the MAP": "its estimates are typical of it",
    "draws with ambiguous labels": "its estimates are typical of it",
    "posterior sd / standard error, farthest from 1": (
        "its standard errors are the posterior's spread"
    ),
    "Pareto k of the Gaussian at the mode": "the posterior is normal around it",
    "largest Wasserstein distance to Laplace (sd)": "the posterior is normal around it",
    "co-clustering, mean difference from EM's": "its partition is the posterior's",
    "expected adjusted Rand index of EM's partition": "its partition is the posterior's",
    "total variation, plug-in against predictive": "predictions from it are the posterior's",
}
# Lines that the agreement of mode and posterior does not need: the shape around the mode.
SHAPE = ("Pareto k of the Gaussian at the mode", "largest Wasserstein distance to Laplace (sd)")
LABELS = "draws with ambiguous labels"
CAVEATS = "not that the model is right, nor that the draws have seen every mode"

# What is to be done where the line on the left fails alone.
CURES = {
    "largest R-hat, invariants": "Draw more, or from more chains",
    "smallest bulk ESS, invariants": "Draw more, or from more chains",
    "smallest tail ESS, invariants": "Draw more, or from more chains",
    "largest R-hat, basin membership": "More draws are no cure",
    "divergences": "ask for a higher target_acceptance and n_warmup",
    "smallest E-BFMI": "higher n_warmup",
    "Pareto k of the approximation": 'method="nuts" or "gibbs"',
    "effective draws of the weights": "Draw more.",
    "mass of the optima without a draw, by Laplace": "More draws are no cure",
}


def concluded(line, verdict, value=0.5, point="mode", n_negative=0, **others):
    """The conclusion that is drawn of Old Faithful where one line says something else."""
    found = agreement()
    checks = found.checks.copy()
    checks.loc[line, "verdict"], checks.at[line, "value"] = verdict, value
    for other, warns in others.get("also", {}).items():
        checks.loc[other, "verdict"] = warns
    shape = SimpleNamespace(n_negative=n_negative, n_flat=0, newton_decrement=1e-6)
    basins, fit = others.get("basins", found.basins), others.get("fit", found.fit)
    post = dataclasses.replace(found.posterior, method=others.get("method", "nuts"))
    if line.startswith("mass of"):  # which speaks of an optimum
        missed = basins.assign(visited=0, share=0.0, log_joint=basins["log_joint"] - 1.0)
        basins = pd.concat([basins, missed], ignore_index=True)
        basins["laplace_share"] = 0.5
    return conclude(point, checks, shape, basins, found.table, fit, post)


def test_every_clause_has_its_lines_and_every_line_its_clause():
    assert {line: words for lines, words in CLAUSES.values() for line in lines} == FEEDS
    assert set(CURES) == set(HEALTH)


@pytest.mark.parametrize("line", FEEDS)
def test_a_line_that_warns_withdraws_its_own_clause(line):
    decided, summary = concluded(line, "warning")
    assert decided
    withdrawn = {words for words in FEEDS.values() if f"not that {words}" in summary}
    assert withdrawn == {FEEDS[line]}
    assert f"({line}: 0.5)" in summary
    assert ("so the two agree" in summary) == (line in SHAPE)
    assert ("Labels are ambiguous" in summary) == ("labels" in line)
    assert CAVEATS in summary


def test_without_a_warning_nothing_is_withdrawn():
    summary = agreement().summary
    assert "so the two agree" in summary
    assert summary.count("not that") == 1
    assert CAVEATS in summary


@pytest.mark.parametrize("decided", [True, False])
def test_ambiguous_labels_come_first(decided):
    """The ratio of an sd to its standard error then measures how labels vary."""
    by_label = ("standard errors", "normal approximation")
    warns = {line: "warning" for clause in by_label for line in CLAUSES[clause][0]}
    found, summary = concluded(LABELS, "warning", also=warns if decided else {HEALTH[0]: "fail"})
    assert found == decided
    assert "Labels are ambiguous" in summary
    for clause in by_label:
        assert clause not in summary
        assert CLAUSES[clause][1] not in summary
    assert ("yet the draws do not agree on labels" in summary) == decided
    assert "the mode is not typical" not in summary


def test_one_start_tells_of_one_optimum():
    fit = agreement().fit
    first = jax.tree.map(lambda leaf: leaf[:1], fit.restarts)
    alone = concluded(LABELS, "ok", fit=dataclasses.replace(fit, restarts=first))[1]
    assert "so the two agree as far as one start of EM can tell:" in alone
    assert "so the two agree:" in agreement().summary


@pytest.mark.parametrize(
    ("above", "words"),
    [(1.0, "a higher optimum"), (0.0, "an equally high optimum"), (-1.0, "a lower optimum")],
)
def test_how_high_the_optimum_of_most_draws_is(above, words):
    first = agreement().basins.iloc[:1].assign(share=0.1)
    other = first.assign(share=0.9, log_joint=first["log_joint"] + above)
    summary = concluded(LABELS, "ok", basins=pd.concat([first, other], ignore_index=True))[1]
    assert f"lies in that of {words}" in summary
    assert ("the highest mode is not where the mass is" in summary) == (above < 0)


@pytest.mark.parametrize("n_negative", [0, 2])
def test_how_far_an_early_stop_is(n_negative):
    """By the local quadratic where it has a top; by the climb that is left in any case."""
    found = agreement()
    higher = found.basins.assign(log_joint=found.fit.log_joint + 2.5)
    words = concluded(LABELS, "ok", 0.0, "stopped early", n_negative, basins=higher)[1]
    assert "going on from there leads 2.50 higher" in words
    assert ("sd away" in words) == (n_negative == 0)
    assert ("the density still rises in two directions" in words) == (n_negative == 2)


@pytest.mark.parametrize("line", CURES)
def test_what_to_do_follows_from_what_failed(line):
    decided, summary = concluded(line, "fail")
    assert not decided
    assert "No verdict on the posterior" in summary
    assert CURES[line] in summary
    assert not [cure for cure in set(CURES.values()) - {CURES[line]} if cure in summary]
    assert "the two agree" not in summary


def test_populations_that_disagree_ask_for_what_smc_has():
    summary = concluded("largest R-hat, invariants", "fail", method="smc")[1]
    assert "n_moves" in summary
    assert "more chains" not in summary


@pytest.mark.parametrize(("energy", "verdict"), [(True, "fail"), (False, "warning")])
def test_divergent_moves_of_particles_caution_and_end_nothing(energy, verdict):
    """A trajectory that diverges is refused: chains never get there, particles came from there."""
    found = agreement().posterior
    stats = {"diverging": np.ones((2, 50), bool)}
    if energy:
        stats["energy"] = np.random.default_rng(0).normal(size=(2, 50))
    line = _transitions(dataclasses.replace(found, sample_stats=stats))[0]
    assert (line.value, line.verdict) == (100, verdict)
    decided, summary = concluded("divergences", line.verdict, method="nuts" if energy else "smc")
    assert decided != energy
    assert ("No verdict" in summary) == energy


@pytest.mark.parametrize("line", [SAME_TARGET, SAME_MODEL])
def test_different_targets_end_everything(line):
    decided, summary = concluded(line, "fail", np.float64(1.8))
    assert not decided
    assert "different targets (their log densities differ by 1.8" in summary
