"""Labels: every rule undoes known permutations; how clear they are is said."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from posteriors import by_hand

from jaxgmm.bayes import RELABELLINGS, data_based, ecr, ordering, pivotal, stephens
from jaxgmm.labels import _relabel


def shuffled(k, n_draws=30, n=90, seed=0):
    """Draws of one clear allocation under known permutations, with some noise.

    Label j of draw s is label ``shuffle[s, j]`` of the truth.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    truth = np.where(np.arange(k)[:, None] == labels, 0.9, 0.1 / max(k - 1, 1))
    noise = rng.dirichlet(np.ones(k), size=(n_draws, n)).swapaxes(1, 2)
    clear = 0.8 * truth + 0.2 * noise
    shuffle = np.array([rng.permutation(k) for _ in range(n_draws)])
    drawn = np.take_along_axis(clear, shuffle[:, :, None], axis=1)
    centres = rng.permutation(k)[:, None] * np.array([3.0, -2.0])
    x = centres[labels] + rng.normal(size=(n, 2))
    coordinates = (centres + 0.3 * rng.normal(size=(n_draws, k, 2)))[
        np.arange(n_draws)[:, None], shuffle
    ]
    return shuffle, drawn, truth, x, coordinates, centres


def by_rule(rule, drawn, truth, x, coordinates, centres):
    """Orders that a rule finds, the truth its reference."""
    return np.asarray(
        {
            "stephens": lambda: stephens(drawn, truth),
            "ecr": lambda: ecr(drawn, jnp.argmax(jnp.asarray(truth), axis=0)),
            "pivot": lambda: pivotal(coordinates, centres),
            "ordering": lambda: ordering(coordinates[..., 0]),
            "data-based": lambda: data_based(drawn, x, truth),
        }[rule]()
    )


@pytest.mark.parametrize("k", [3, 6])
@pytest.mark.parametrize("rule", RELABELLINGS)
def test_every_rule_undoes_known_permutations(rule, k):
    shuffle, *case = shuffled(k)
    restored = np.take_along_axis(shuffle, by_rule(rule, *map(jnp.asarray, case)), axis=1)
    # The truth's own labels, or for an ordering those that ascend.
    centres = case[-1]
    expected = np.argsort(centres[:, 0]) if rule == "ordering" else np.arange(k)
    assert np.array_equal(restored, np.tile(expected, (len(shuffle), 1)))


@pytest.mark.parametrize("rule", RELABELLINGS)
def test_renaming_the_draws_renames_the_orders(rule):
    """Whatever the draws were called, the relabelled draws are the same."""
    _, drawn, truth, x, coordinates, centres = shuffled(3)
    names = np.array([np.random.default_rng(s).permutation(3) for s in range(len(drawn))])
    renamed = np.take_along_axis(drawn, names[:, :, None], axis=1)
    moved = np.take_along_axis(coordinates, names[:, :, None], axis=1)
    one = by_rule(rule, *map(jnp.asarray, (drawn, truth, x, coordinates, centres)))
    other = by_rule(rule, *map(jnp.asarray, (renamed, truth, x, moved, centres)))
    assert np.array_equal(np.take_along_axis(names, other, axis=1), one)


def test_ecr_of_drawn_labels_maximises_the_rows_that_agree():
    """The published algorithm, by a search through all permutations."""
    rng = np.random.default_rng(2)
    labels, pivot = rng.integers(0, 3, (8, 12)), rng.integers(0, 3, 12)
    ones = np.eye(3)[labels].swapaxes(1, 2)
    found = np.asarray(ecr(jnp.asarray(ones), jnp.asarray(pivot)))
    for drawn, order in zip(labels, found, strict=True):
        agreed = lambda perm, drawn=drawn: np.sum(np.array(perm)[pivot] == drawn)
        assert agreed(order) == max(map(agreed, itertools.permutations(range(3))))


def test_exchanged_axes_are_refused():
    """(S, n, K) in place of (S, K, n) would match rows in place of labels, for hours."""
    _, p, truth, x, coordinates, centres = shuffled(3)
    swap = lambda a: np.swapaxes(a, -1, -2)
    pivot = np.argmax(truth, axis=0)
    exchanged = "exchanged: pass probabilities.swapaxes"
    cases = [
        (lambda: stephens(swap(p), truth), exchanged),
        (lambda: stephens(swap(p), swap(truth)), exchanged),
        (lambda: ecr(swap(p), pivot), exchanged),
        (lambda: data_based(swap(p), x, truth), exchanged),
        (lambda: stephens(p, swap(truth)), "exchanged: pass reference.swapaxes"),
        (lambda: stephens(p[0], truth), r"probabilities: needs axes \(s, k, n\), found shape"),
        (lambda: stephens(p[..., :50], truth), r"reference: .* k = 3, n = 50, found"),
        (lambda: stephens(2 * p, truth), "probabilities: .*must sum to one; labels come before"),
        (lambda: ecr(p, truth), r"pivot: needs axes \(n\) with n = 90, found shape \(3, 90\)"),
        (lambda: data_based(p, x.T, truth), r"x: needs axes \(n, \*d\) with n = 90"),
        (lambda: pivotal(coordinates, centres.T), r"pivot: .* k = 3, p = 2, found shape"),
        (lambda: ordering(coordinates), r"values: needs axes \(s, k\), found shape"),
        # Shapes are checked inside compiled code as well.
        (lambda: jax.jit(stephens)(p, truth[:, 1:]), r"reference: .* n = 90"),
    ]
    for call, words in cases:
        with pytest.raises(ValueError, match=words):
            call()
    # Of one column, a vector will do.
    order = data_based(*map(jnp.asarray, (p, x[:, 0], truth)))
    assert np.array_equal(order, data_based(*map(jnp.asarray, (p, x[:, :1], truth))))


def test_clarity_is_what_the_best_other_renaming_costs():
    _, drawn, truth, *_ = shuffled(3, n_draws=6, n=12)
    order = np.array(stephens(jnp.asarray(drawn), jnp.asarray(truth)))
    order[0] = order[0][[1, 0, 2]]  # one draw under a wrong name
    found = np.asarray(_relabel.clarity(jnp.asarray(drawn), jnp.asarray(order)))
    average = np.mean([p[o] for p, o in zip(drawn, order, strict=True)], axis=0)
    unit = lambda p: p / np.linalg.norm(p, axis=1, keepdims=True)
    for p, chosen, clarity in zip(drawn, order, found, strict=True):
        agreement = {
            perm: np.sum(unit(p[list(perm)]) * unit(average))
            for perm in itertools.permutations(range(3))
        }
        own = agreement.pop(tuple(chosen))
        assert clarity == pytest.approx((own - max(agreement.values())) / 2)
    assert found[0] < 0 < found[1:].min()
    certain = jnp.asarray(np.eye(3)[[[0, 1, 2]] * 2])
    assert np.allclose(_relabel.clarity(certain, jnp.asarray([[0, 1, 2]] * 2)), 1)


# -- on a posterior ------------------------------------------------------------------


@pytest.mark.parametrize("method", RELABELLINGS)
def test_a_posterior_is_relabelled_from_its_raw_draws(method):
    shuffle, post = by_hand()
    found = post.relabel(method)
    assert found.label_method == method
    # One labelling for all draws: that of the truth or its reverse.
    restored = np.take_along_axis(shuffle, found.labels, axis=-1)
    assert np.array_equal(restored, np.broadcast_to(restored[0, 0], restored.shape))
    for name in ("weights", "means", "covariances_full"):
        order = found.labels.reshape(*found.labels.shape, *[1] * (found.draws[name].ndim - 3))
        expected = np.take_along_axis(post.draws_raw[name], order, axis=2)
        assert np.array_equal(found.draws[name], expected)
    assert np.array_equal(found.params.means, found.draws["means"])
    # Once more from there: nothing depends on the labels it had.
    again = found.relabel("ordering", by="weights").relabel(method)
    names = np.argsort(found.labels[0, 0])[again.labels[0, 0]]
    assert np.array_equal(again.labels, found.labels[..., names])


def test_clear_labels_are_not_ambiguous_and_others_are():
    _, post = by_hand()
    assert post.relabel().ambiguous_labels == 0
    _, vague = by_hand(gap=0.02)
    assert vague.relabel().ambiguous_labels > 0.5
    # A rule that cuts through the posterior is found out: weights overlap, means do not.
    assert post.relabel("ordering", by="means", coordinate=1).ambiguous_labels == 0
    wrong = post.relabel("ordering", by="weights")
    assert 0 < wrong.ambiguous_labels < 0.1
    # Weighted draws count by their weight.
    worst = wrong.label_clarity < 0.05
    weights = np.where(worst, 3.0, 1.0)
    weighted = dataclasses.replace(wrong, log_weights=np.log(weights / weights.sum()))
    assert weighted.ambiguous_labels == pytest.approx(weights[worst].sum() / weights.sum())


def test_a_posterior_that_labels_do_not_divide_says_so():
    _, clear = by_hand(swap=0.0)
    assert clear.relabel().label_note == ""
    assert "labels: stephens, 0.0% of the draws ambiguous" in repr(clear.relabel())
    _, moving = by_hand(swap=0.5)
    note = moving.relabel().label_note
    assert "change their labelling at" in note
    assert "coincide" not in note
    assert "convention" in repr(moving.relabel())
    _, same = by_hand(gap=0.0, swap=0.0)
    assert "components 0 and 1 coincide" in same.label_note


def test_relabel_refuses_what_it_does_not_know():
    _, post = by_hand()
    with pytest.raises(ValueError, match=r"method: .*did you mean 'stephens'"):
        post.relabel("stephen")
    with pytest.raises(TypeError, match=r"by: not an option of method='ecr'"):
        post.relabel("ecr", by="means")
    with pytest.raises(ValueError, match=r"by: unknown name 'mean'.*'means'"):
        post.relabel("ordering", by="mean")
    with pytest.raises(ValueError, match=r"coordinate: 2 is no index into 'means'"):
        post.relabel("ordering", coordinate=2)
    with pytest.raises(ValueError, match="coordinate"):
        post.relabel("ordering", coordinate=(0, 1))


def test_rules_compile_once(compilations):
    _, post = by_hand()
    _, other = by_hand(seed=1)
    for method in RELABELLINGS:
        post.relabel(method)
    with compilations:
        for method in RELABELLINGS:
            other.relabel(method)
    assert compilations.count == 0
