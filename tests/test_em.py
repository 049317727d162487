"""EM: what a run records, how it ends, and which restart wins."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    DATA,
    PRIORS,
    SMALL,
    STRUCTURES,
    mixture,
    soft_labels,
    some_params,
    split_labels,
    starts,
    tree_allclose,
)
from scipy import stats

import jaxgmm as jg

GALAXIES = DATA["galaxies"]


# -- the record ---------------------------------------------------------------------


def test_trace_counts_the_steps_and_ends_at_the_objective():
    fit = jg.fit(mixture("full", "fraley-raftery", SMALL, 2), SMALL, start=starts(SMALL, 2, 3))
    assert fit.trace.shape == (fit.n_iter + 1,)
    np.testing.assert_allclose(fit.trace[-1], fit.log_joint, rtol=1e-13)
    runs = fit.restarts
    assert runs.trace.shape == (3, fit.max_iter + 1)
    for trace, n_iter, last in zip(runs.trace, runs.n_iter, runs.log_joint, strict=True):
        assert np.isfinite(trace[: n_iter + 1]).all()
        assert np.isnan(trace[n_iter + 1 :]).all()
        np.testing.assert_allclose(trace[n_iter], last, rtol=1e-13)
    assert fit.best == np.argmax(runs.log_joint)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("prior", PRIORS)
def test_no_iterations_from_responsibilities_is_one_m_step(structure, prior):
    labels, x = jnp.asarray(soft_labels(len(SMALL), 2)), jnp.asarray(SMALL)
    run = jg.fit(mixture(structure, prior, SMALL, 2), SMALL, start=labels, max_iter=0)
    assert run.status == jg.Status.OUT_OF_ITERATIONS
    assert run.n_iter == 0
    assert run.trace.shape == (1,)
    # The textbook M-step: weighted means and scatter about them, pulled by the prior.
    counts, k, d = labels.sum(axis=0), 2, 2
    means = labels.T @ x / counts[:, None]
    scatter = jnp.einsum("nk,nki,nkj->kij", labels, x[:, None] - means, x[:, None] - means)
    p, weights = run.model.prior, counts / len(x)
    denominator = {"full": counts, "tied": len(x), "diag": counts, "spherical": d * counts}
    if p is not None:
        pull = p.mean_precision * counts / (p.mean_precision + counts)
        apart = means - p.mean
        scatter = scatter + pull[:, None, None] * apart[:, :, None] * apart[:, None, :]
        means = (counts[:, None] * means + p.mean_precision * p.mean) / (counts + p.mean_precision)[
            :, None
        ]
        weights = (counts + p.concentration - 1) / (len(x) + jnp.sum(p.concentration - 1))
        denominator = {
            "full": counts + p.dof + d + 2,
            "tied": len(x) + p.dof + d + k + 1,
            "diag": counts + p.dof + 3,
            "spherical": d * (counts + 1) + p.dof + 2,
        }
    if structure == "tied":
        site = scatter.sum(axis=0)
    elif structure == "full":
        site, denominator["full"] = scatter, denominator["full"][:, None, None]
    elif structure == "diag":
        site = jnp.diagonal(scatter, axis1=1, axis2=2)
        denominator["diag"] = denominator["diag"][:, None]
    else:
        site = jnp.trace(scatter, axis1=1, axis2=2)
    site = (site + (0 if p is None else p.scale)) / denominator[structure]
    tree_allclose(
        [run.params.weights, run.params.means, run.params.covariance_site],
        [weights, means, site],
        1e-12,
    )


def test_tolerance_zero_goes_on_while_anything_is_gained():
    start, model = split_labels(SMALL, 2), mixture("full", "none", SMALL, 2)
    loose = jg.fit(model, SMALL, start=start, tol=1e-3)
    tight = jg.fit(model, SMALL, start=start)
    last = jg.fit(model, SMALL, start=start, tol=0)
    assert loose.n_iter < tight.n_iter < last.n_iter
    assert loose.converged
    assert last.converged
    # The stated bound: what was left to gain, per unit of weight.
    assert last.log_joint - loose.log_joint <= 1e-3 * len(SMALL)
    assert last.log_joint - tight.log_joint <= 1e-10 * len(SMALL)


def test_stacks_of_starts_of_either_kind():
    model, stack = mixture("diag", "none", SMALL, 2), starts(SMALL, 2, 3)
    params = [jg.fit(model, SMALL, start=s, max_iter=0).params for s in stack]
    by_labels = jg.fit(model, SMALL, start=stack).restarts
    by_params = jg.fit(
        model, SMALL, start=jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    ).restarts
    assert by_labels.status.shape == (3,)
    np.testing.assert_array_equal(by_labels.n_iter, by_params.n_iter)
    tree_allclose(by_labels.params, by_params.params, 1e-9)


def test_restarts_are_drawn_from_the_key(key):
    model = mixture("full", "fraley-raftery", SMALL, 2)
    one, same, other = (
        jg.fit(model, SMALL, key=k, n_init=3, start="random").restarts.trace[:, 0]
        for k in (key, key, jax.random.key(1))
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert len(np.unique(one)) > 1


def test_ridge_is_added_to_every_diagonal():
    """As in scikit-learn; in the units of the data, whatever the working units."""
    labels, ridge = soft_labels(len(SMALL), 2), 0.7
    for structure in STRUCTURES:
        without, with_it = (
            jg.fit(
                jg.Mixture(jg.Gaussian(structure, reg_covar=r), 2), SMALL, start=labels, max_iter=0
            ).params.covariances
            for r in (0.0, ridge)
        )
        tree_allclose(with_it, without + ridge * jnp.eye(2), 1e-12)


# -- how a run ends (law 8) -------------------------------------------------------------


@pytest.mark.parametrize("max_iter", [0, 50])
def test_non_finite_input_has_that_status_and_no_other(max_iter):
    x, weight = jnp.asarray(SMALL), jnp.ones(len(SMALL))
    model, labels = mixture("full", "none", SMALL, 2).resolve(x), split_labels(SMALL, 2)
    run = jax.jit(lambda x, r, w: jg.em.run(model, x, r, w, max_iter=max_iter))
    for bad in (jnp.nan, jnp.inf):
        for spoilt in (
            run(x.at[3, 1].set(bad), labels, weight),
            run(x, labels, weight.at[0].set(bad)),
            run(x, jnp.asarray(labels).at[0, 0].set(bad), weight),
        ):
            assert spoilt.status == jg.Status.NONFINITE_INPUT
            assert not spoilt.converged
    assert run(x, labels, weight).status != jg.Status.NONFINITE_INPUT


@pytest.mark.turn
def test_an_objective_that_overflows_is_not_converged():
    x = jnp.asarray(SMALL)
    model = mixture("full", "none", SMALL, 2).resolve(x)
    start = model.params(means=[[1e200, 0.0], [-1e200, 0.0]], covariances=[np.eye(2)] * 2)
    for max_iter in (0, 50):
        run = jg.em.run(model, x, start, max_iter=max_iter)
        assert run.status == jg.Status.NONFINITE_OBJECTIVE


@dataclasses.dataclass(frozen=True)
class Worsening(jg.Mixture):
    """A wrong M-step: every step moves the means away from the data."""

    def m_step(self, statistics, params=None):
        right = super().m_step(statistics, params)
        return right if params is None else dataclasses.replace(right, means=params.means + 1.0)


def test_an_objective_that_falls_is_named_before_anything_else():
    x = jnp.asarray(SMALL)
    model = Worsening(jg.Gaussian("diag"), 2).resolve(x)
    run = jg.em.run(model, x, jnp.asarray(split_labels(SMALL, 2)), max_iter=1)
    assert run.status == jg.Status.OBJECTIVE_FELL  # and not: out of iterations
    assert not run.converged


def test_the_last_allowed_step_may_converge():
    model, start = mixture("full", "none", SMALL, 2), split_labels(SMALL, 2)
    steps = jg.fit(model, SMALL, start=start).n_iter
    assert jg.fit(model, SMALL, start=start, max_iter=steps).status == jg.Status.CONVERGED
    short = jg.fit(model, SMALL, start=start, max_iter=steps - 1)
    assert short.status == jg.Status.OUT_OF_ITERATIONS
    assert "max_iter" in short.message


# Six rows that coincide inside a cluster: a component on them alone has no variance.
REPEATED = np.concatenate([np.tile(SMALL[:1], (6, 1)), SMALL[1:]])
TRAP = np.eye(2)[(np.arange(len(REPEATED)) >= 6).astype(int)]


def test_a_collapsing_restart_leaves_its_siblings_alone():
    model, good = mixture("full", "none", REPEATED, 2), split_labels(REPEATED, 2)
    alone = jg.fit(model, REPEATED, start=good[None])
    assert alone.converged
    fit = jg.fit(model, REPEATED, start=np.stack([TRAP, good]))
    assert list(fit.restarts.status) == [jg.Status.COLLAPSED, jg.Status.CONVERGED]
    assert fit.best == 1
    assert fit.n_iter == alone.n_iter
    tree_allclose(fit.params, alone.params, 1e-9)


def test_when_every_restart_collapses_the_error_says_what_to_do():
    model, start = mixture("full", "none", REPEATED, 2), TRAP
    with pytest.raises(ValueError, match=r"all 1 restart\(s\) collapsed.*proper prior"):
        jg.fit(model, REPEATED, start=start)
    bounded = jg.fit(mixture("full", "fraley-raftery", REPEATED, 2), REPEATED, start=start)
    assert bounded.converged


def test_one_bad_start_in_a_batch_harms_no_other():
    x, labels = jnp.asarray(SMALL), jnp.asarray(starts(SMALL, 2, 3))
    model = mixture("tied", "none", SMALL, 2).resolve(x)
    run = jax.jit(jax.vmap(lambda r: jg.em.run(model, x, r, max_iter=200)))
    clean, dirty = run(labels), run(labels.at[1].set(jnp.nan))
    assert dirty.status[1] == jg.Status.NONFINITE_INPUT
    others = jnp.array([0, 2])
    tree_allclose(
        *(jax.tree.map(lambda leaf: leaf[others], r.params) for r in (dirty, clean)), 1e-12
    )
    np.testing.assert_array_equal(dirty.status[others], clean.status[others])


@pytest.mark.turn
def test_more_restarts_than_slots_take_turns(monkeypatch):
    model, stack = mixture("full", "none", SMALL, 2), starts(SMALL, 2, 7)
    together = jg.fit(model, SMALL, start=stack, max_iter=300).restarts
    jax.clear_caches()
    monkeypatch.setattr("jaxgmm._numerics._LIVE_BYTES", 2 * len(SMALL) * 2 * 8)
    in_turn = jg.fit(model, SMALL, start=stack, max_iter=300).restarts
    jax.clear_caches()
    assert len(set(in_turn.n_iter)) > 3  # they end at different times
    np.testing.assert_array_equal(in_turn.n_iter, together.n_iter)
    np.testing.assert_array_equal(in_turn.status, together.status)
    tree_allclose(in_turn.params, together.params, 1e-9)
    np.testing.assert_allclose(in_turn.trace, together.trace, rtol=1e-11)


# -- which restart wins -----------------------------------------------------------------


def _slices(x, *cuts):
    return np.eye(len(cuts) + 1)[np.searchsorted(cuts, x[:, 0])]


def test_an_optimum_on_two_rows_is_flagged_and_does_not_win():
    model = jg.Mixture(jg.Gaussian("V"), 5)
    # Galaxies 8 and 9 lie 86 km/s apart with nobody near: a component fits them alone.
    pair = _slices(GALAXIES, 15.0, 17.0, 21.0, 30.0)
    plain = split_labels(GALAXIES, 5)
    fit = jg.fit(model, GALAXIES, start=np.stack([pair, plain]), max_iter=5000)
    np.testing.assert_allclose(fit.restarts.log_joint[0], -190.0711504, atol=1e-6)
    np.testing.assert_array_equal(fit.restarts.spurious, [True, False])
    assert fit.restarts.status[0] == jg.Status.CONVERGED
    assert fit.best == 1
    assert fit.n_spurious_better == 1
    assert "set aside as spurious" in fit.message


def test_an_optimum_on_three_rows_that_lie_apart_is_not_spurious():
    model = jg.Mixture(jg.Gaussian("V"), 3)
    fit = jg.fit(model, GALAXIES, start=_slices(GALAXIES, 15.0, 30.0))
    np.testing.assert_allclose(fit.log_likelihood, -203.1792280, atol=1e-6)
    assert not fit.restarts.spurious[0]


def test_optima_of_equal_height_are_told_apart_and_renamed_ones_are_not():
    # Three groups that a reflection maps onto themselves: two components share them in two
    # ways, which no renaming of the labels turns into each other.
    half = np.array([-0.3, -0.1, 0.1, 0.3])
    x = np.concatenate([half - 5, half, half + 5])
    left, right = np.repeat([0, 0, 1], 4), np.repeat([0, 1, 1], 4)
    stack = np.eye(2)[np.stack([left, right, 1 - left, 1 - right, left])]
    fit = jg.fit(jg.Mixture(jg.Gaussian("V"), 2), x, start=0.98 * stack + 0.01)
    heights = fit.restarts.log_joint
    np.testing.assert_allclose(heights, heights[0], rtol=1e-12)
    np.testing.assert_array_equal(fit.optimum_of == fit.optimum_of[0], [1, 0, 1, 0, 1])
    assert sorted(len(optimum.starts) for optimum in fit.optima) == [2, 3]
    table = fit.optima_table
    assert sorted(table["restarts"]) == [2, 3]
    np.testing.assert_allclose(table["share"].sum(), 1)
    np.testing.assert_allclose(table["below"], 0, atol=1e-10)
    assert "2 distinct end(s)" in repr(fit)


# -- inside the user's own transformations -------------------------------------------------


@pytest.mark.turn
def test_two_hundred_data_sets_in_one_vmap(key):
    truth = jg.Mixture(jg.Gaussian("full"), 2).params(
        weights=[0.3, 0.7], means=[[0.0, 0.0], [4.0, 1.0]], covariances=[np.eye(2), 0.5 * np.eye(2)]
    )
    model = dataclasses.replace(jg.Mixture(jg.Gaussian("full"), 2), n_features=2)
    sets = jax.vmap(lambda k: model.sample(truth, k, 150))(jax.random.split(key, 200))
    runs = jax.jit(jax.vmap(lambda x: jg.em.run(model, x, truth)))(sets)
    assert runs.status.shape == (200,)
    assert jnp.all(runs.converged)
    # Estimates scatter about the truth with the standard error of a mean of 150 estimates:
    # Var(weight) >= 0.3 0.7 / 150 per set, the mean over 200 sets within four of its own.
    error = 4 * np.std(runs.params.weights[:, 0]) / np.sqrt(200)
    assert abs(jnp.mean(runs.params.weights[:, 0]) - 0.3) < error
    assert jnp.std(runs.params.weights[:, 0]) > np.sqrt(0.3 * 0.7 / 150) / 1.2
    one = jg.em.run(model, sets[17], truth)
    tree_allclose(jax.tree.map(lambda leaf: leaf[17], runs.params), one.params, 1e-9)


@pytest.mark.turn
@pytest.mark.parametrize("structure", ["full", "diag"])
def test_a_converged_fit_differentiates_in_a_hyper_parameter(structure):
    x, start = jnp.asarray(SMALL), jnp.asarray(split_labels(SMALL, 2))
    model = mixture(structure, "conjugate", SMALL, 2).resolve(x)

    @jax.jit
    def fitted(mean_precision, dof):
        prior = dataclasses.replace(model.prior, mean_precision=mean_precision, dof=dof)
        run = jg.em.run(dataclasses.replace(model, prior=prior), x, start, tol=1e-14)
        return jnp.concatenate(
            [run.params.weights, run.params.means.ravel(), run.params.covariance_site.ravel()]
        ), run.log_joint

    at = (0.2, 6.0)
    slopes = jax.jacrev(fitted, argnums=(0, 1))(*at)
    step = 1e-4  # central differences: error of order step^2, rounding eps / step
    for i in range(2):
        up, down = (
            fitted(*(a + sign * step * (i == j) for j, a in enumerate(at))) for sign in (1, -1)
        )
        for part in range(2):
            difference = (up[part] - down[part]) / (2 * step)
            size = float(np.max(np.abs(difference)))
            np.testing.assert_allclose(slopes[part][i], difference, atol=1e-5 * size)


@pytest.mark.turn
def test_a_prior_as_numbers_needs_no_resolving_inside_jit():
    """The rows tell the width and the dtype, for each data set of a batch."""
    prior = jg.ConjugatePrior(mean=[0.0, 0], mean_precision=0.1, dof=4, scale=np.eye(2).tolist())
    model = jg.Mixture(jg.Gaussian("full"), 2, prior=prior)
    x, labels = jnp.asarray(SMALL), jnp.asarray(split_labels(SMALL, 2))
    data = jnp.stack([x, 2 * x])
    runs = jax.jit(jax.vmap(lambda rows: jg.em.run(model, rows, labels)))(data)
    alone = [jg.fit(model, rows, start=labels) for rows in data]
    np.testing.assert_allclose(runs.log_joint, [fit.log_joint for fit in alone], rtol=1e-9)
    with pytest.raises(ValueError, match="fraley-raftery"):
        jg.em.run(mixture("full", "fraley-raftery", SMALL, 2), x, labels)


# -- small enough to enumerate (law 10) ------------------------------------------------------


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_e_step_is_the_sum_over_all_assignments(structure):
    x = SMALL[:7]
    model = mixture(structure, "fraley-raftery", SMALL, 2).resolve(SMALL)
    params = some_params(model, jnp.asarray(SMALL))
    density = np.stack(
        [
            w * stats.multivariate_normal(m, c).pdf(x)
            for w, m, c in zip(params.weights, params.means, params.covariances, strict=True)
        ],
        axis=1,
    )
    labels = np.array(list(itertools.product([0, 1], repeat=len(x))))
    joint = np.prod(density[np.arange(len(x)), labels], axis=1)
    total = joint.sum()
    exact = np.stack([joint @ (labels == k) for k in (0, 1)], axis=1) / total
    np.testing.assert_allclose(model.log_likelihood(params, x), np.log(total), rtol=1e-12)
    np.testing.assert_allclose(model.responsibilities(params, x), exact, rtol=1e-9)
    working = model.standardise(jnp.asarray(SMALL))
    expected, log_likelihood = working.e_step(working.to_working(params), x)
    np.testing.assert_allclose(log_likelihood, np.log(total), rtol=1e-12)
    np.testing.assert_allclose(expected.counts, exact.sum(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(model.predict(params, x), exact.argmax(axis=1))


def test_the_pure_loop_refuses_shapes_that_do_not_fit():
    x = jnp.asarray(DATA["faithful"])
    model = jg.Mixture(jg.Gaussian("full"), 2).resolve(x)
    start = model.params(means=x[:2], covariances=[np.eye(2)] * 2)
    labels, weight = jnp.ones((272, 2)) / 2, jnp.ones(272)
    stack = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), start)
    cases = [
        ((x, stack), ValueError, r"start: needs shapes .*found .*jax.vmap takes a stack"),
        ((x, labels.T), ValueError, r"start: needs shapes .*272, 2.*, found .*2, 272"),
        ((x, labels[1:]), ValueError, r"start: needs shapes .*found \[\(271, 2\)\]"),
        ((x, "k-means"), TypeError, r"start: needs parameters .*responsibilities .*found str"),
        ((x, start, weight[:, None]), ValueError, r"sample_weight: needs axes \(n\) with n = 272"),
        ((x, start, weight[1:]), ValueError, r"sample_weight: .*found shape \(271,\)"),
        ((x[None], start), ValueError, r"x: needs axes \(n, d\), found shape \(1, 272, 2\)"),
        ((x.T, start), ValueError, r"x: the model was resolved for 2 column\(s\), found 272"),
    ]
    for arguments, error, words in cases:
        with pytest.raises(error, match=words):
            jg.em.run(model, *arguments)


# -- what is shown -----------------------------------------------------------------------


def test_a_status_and_the_restarts_show_themselves_in_words():
    x = DATA["faithful"]
    record = jg.fit(mixture("full", "none", x, 2), x, start=starts(x, 2), max_iter=200).restarts
    shown = repr(record)
    assert len(shown) < 400
    assert shown.startswith("Run of 4 start(s): ")
    assert f"log joint {record.log_joint.min():.4f}" in shown
    stopped = record._replace(status=np.array([0, 1, 1, 2]), spurious=np.array([1, 0, 0, 0]))
    assert "1 converged, 2 out of iterations, 1 collapsed (1 spurious)" in repr(stopped)
    nothing = record._replace(log_joint=np.full(4, np.nan))
    assert "log joint not finite" in repr(nothing)
    traced = []
    jax.eval_shape(lambda run: traced.append(repr(run)), record)
    assert "ShapedArray" in traced[0] or "Tracer" in traced[0]
    assert repr(jg.Status.COLLAPSED) == str(jg.Status.COLLAPSED)
    assert "a component collapsed" in repr(jg.Status.COLLAPSED)


# The rungs are 32, 36, 40, ...
@pytest.mark.turn
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_are_filled_up_and_nothing_else_changes(weighted, compilations):
    model, rng = jg.Mixture(jg.Gaussian(), 2, prior="fraley-raftery"), np.random.default_rng(3)
    for n in (36, 33, 35):  # on an edge, and below it
        x = jnp.asarray(rng.normal(size=(n, 2)) + 4 * (np.arange(n) % 2)[:, None])
        weight = jnp.asarray(rng.uniform(0.5, 2, n)) if weighted else None
        labels = np.eye(2)[np.arange(n) % 2]
        with compilations:
            fit = jg.fit(model, x, sample_weight=weight, start=labels)
        exact = jg.em.run(model.resolve(x, weight), x, labels, weight)
        for ours, theirs in zip(
            jax.tree.leaves(fit.params), jax.tree.leaves(exact.params), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(fit.log_joint, exact.log_joint, rtol=1e-12)
        assert fit.n_rows == n
    # What is left is of the exact rows: the prior that a rule makes of them.
    assert compilations.count <= 2
