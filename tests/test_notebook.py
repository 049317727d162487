"""What notebooks and terminals show: a fit as HTML, and bars where somebody can see them."""

import dataclasses
import functools
import io
import sys

import jax
import numpy as np
import pytest
from posteriors import FAITHFUL

import jaxgmm as jg
from jaxgmm.bayes._chains import run
from jaxgmm.em._progress import bar


@functools.cache
def fitted():
    """Two of three clusters of Old Faithful, from two starts of which one ends lower."""
    model = jg.Mixture(jg.Gaussian("spherical"), 2)
    starts = [
        model.params(means=m, covariances=[30.0] * 2) for m in ([[2, 55], [4, 80]], [[3, 70]] * 2)
    ]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *starts)
    return jg.fit(model, FAITHFUL, start=stacked)


def test_a_fit_in_a_notebook_holds_its_numbers():
    fit = fitted()
    html = fit._repr_html_()
    assert f"log joint {fit.log_joint:.4f}" in html
    assert f"<td>{fit.params.means[1, 0]:.5g}</td>" in html
    assert "means[1, x0]" in html
    assert len(fit.optima) == 2
    for optimum in fit.optima:
        assert f"<td>{optimum.log_joint:.4f}</td>" in html


def test_names_in_a_fit_are_escaped():
    html = dataclasses.replace(fitted(), feature_names=("<b>a</b>", "b & c"))._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;a&lt;/b&gt;" in html
    assert "b &amp; c" in html


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("watched", "parts"), [(True, 20), (False, 1)])
def test_work_goes_in_parts_where_somebody_watches(monkeypatch, watched, parts):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    stderr = Terminal() if watched else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    seen = []
    advance = lambda state, kept, start, stop: (state, seen.append((start, stop)))
    run(advance, None, None, 1000, "Gibbs, 4 chains", True)
    assert len(seen) == parts
    assert (seen[0][0], seen[-1][1]) == (0, 1000)
    assert ("Gibbs, 4 chains" in stderr.getvalue()) == watched
    # The bar goes when it is done: blanks are written over it.
    assert stderr.getvalue().strip("\r").split("\r")[-1].isspace() == watched


def test_no_bar_where_none_is_asked_for_or_stderr_is_closed(monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with bar("models", False, 3) as shown:
        shown.update()
    assert terminal.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", None)
    with bar("models", True, 3) as shown:
        assert shown.disable
