"""float64 data far from zero where JAX has no float64: every engine, as if they lay near."""

import subprocess
import sys
import textwrap

import pytest

PREPARED = """
    import warnings

    import jax
    import numpy as np
    import pandas as pd
    import jaxgmm as jg

    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message="x: float64 data, computed in float32")
    assert not jax.config.jax_enable_x64
    near = 60 * np.random.default_rng(0).standard_normal((300, 1))
    near[200:] += 400
    origin = 1.7e9
    far = near + origin
    labels = np.eye(2)[(near[:, 0] > 200).astype(int)]

    def model(shift):
        prior = jg.ConjugatePrior(
            mean=np.full(1, shift + 100.0), mean_precision=0.1, dof=5.0, scale=np.full((1, 1), 1e4)
        )
        return jg.Mixture(jg.Gaussian(), 2, prior=prior)

    here, there = (jg.fit(model(s), x, start=labels) for s, x in ((0, near), (origin, far)))
    # Origins are numbers of float32, so that rows differ in their last digit.
    close = dict(rtol=5e-3, atol=0.1)
    key = jax.random.key(0)
"""

ENGINES = """
    np.testing.assert_allclose(there.params.means - origin, here.params.means, **close)
    joints = [f.model.log_joint(f.params, x) for f, x in ((here, near), (there, far))]
    np.testing.assert_allclose(*joints, rtol=1e-5)
    np.testing.assert_allclose(joints[1], there.log_joint, rtol=1e-5)
    np.testing.assert_array_equal(
        here.model.predict(here.params, near), there.model.predict(there.params, far)
    )
    options = dict(key=key, method="gibbs", n_draws=400, progress=False)
    posts = [
        jg.sample(f.model, x, start=f, **options) for f, x in ((here, near), (there, far))
    ]
    table, moved = (post.summary() for post in posts)
    means = [name for name in table.index if name.startswith("means")]
    np.testing.assert_allclose(moved["mean"][means] - origin, table["mean"][means], atol=1.5)
    np.testing.assert_allclose(moved["sd"], table["sd"], rtol=0.15)
    post = posts[1]
    assert post.x.dtype == post.draws["means"].dtype == np.float64
    np.testing.assert_array_equal(post.x, far)
    # The same draws, seen from either place.
    moved_there = post.draws["means"] - post.origin
    np.testing.assert_allclose(post.near.draws["means"], moved_there, atol=1e-4)
    density = [np.exp(p.log_prob(x[:50])) for p, x in zip(posts, (near, far))]
    np.testing.assert_allclose(*density, rtol=0.2)
    assert np.mean(posts[0].predict() == posts[1].predict()) > 0.99
    options["n_draws"] = 100
    for start in (post, "prior", there.params):  # chains that go on, and others
        more = jg.sample(there.model, far, start=start, **options)
        assert np.all(np.abs(more.draws["means"][:, -1] - far.mean()) < 1e3)
        assert more.fingerprint == there.fingerprint
    replicates = post.replicate(key)
    assert abs(np.mean(replicates) - np.mean(far)) < 10
    pivot = post.relabel("pivot")
    assert np.all(np.abs(pivot.draws["means"] - far.mean()) < 1e3)
    whole = jg.fit(model(origin), far.round().astype(np.int64), start=labels)
    np.testing.assert_allclose(whole.params.means, there.params.means, rtol=0, atol=0.5)
    hard = jg.kmeans(far, 2, key=key, n_init=4)
    np.testing.assert_allclose(np.sort(hard.centres[:, 0]) - origin, [0, 400], atol=30)
    errors = [jg.standard_errors(f, x) for f, x in ((here, near), (there, far))]
    for one, other in zip(*[e.standard_errors.values() for e in errors]):
        np.testing.assert_allclose(other, one, **close)
    estimates = errors[1].table["estimate"].filter(like="means")
    np.testing.assert_allclose(estimates, there.params.means[:, 0], rtol=1e-12)
"""

VERDICTS = """
    nuts = dict(key=key, n_draws=300, n_warmup=200, progress=False)
    posts = [
        jg.sample(f.model, x, start=f, **nuts) for f, x in ((here, near), (there, far))
    ]
    one, other = (jg.compare(f, p) for f, p in zip((here, there), posts))
    assert one.decided and other.decided
    assert one.point == other.point == "mode"
    means = [name for name in one.table.index if name.startswith("means")]
    for place in ("map", "mean", "eti95_low", "eti95_high"):
        np.testing.assert_allclose(
            other.table[place][means] - origin, one.table[place][means], atol=3.0
        )
    np.testing.assert_allclose(other.table["sd"][means], one.table["sd"][means], rtol=0.2)
    assert other.fit.origin is not None and other.posterior.fingerprint == posts[1].fingerprint
    boot = jg.bootstrap(there, far, key=key, n_replicates=100)
    low, high = boot.intervals(0.9)["means"]
    assert np.all((low < there.params.means) & (there.params.means < high))
    assert np.all(high - low < 60)
    models = [jg.Mixture(jg.Gaussian(), k) for k in (1, 2, 3)]
    criteria = ("bic", "icl_entropy")
    choices = [
        jg.select(models, x, key=key, n_init=4, criteria=criteria, progress=False)
        for x in (near, far)
    ]
    assert choices[1].best.model.n_components == 2
    np.testing.assert_allclose(
        choices[1].table["icl_entropy"], choices[0].table["icl_entropy"], rtol=1e-4
    )
    rule = [jg.Mixture(jg.Gaussian(), k, prior="fraley-raftery") for k in (1, 2)]
    for fit in jg.select(rule, far, key=key, n_init=4, progress=False).fits:
        assert abs(float(fit.model.prior.mean[0]) - np.mean(far)) < 1
    table = pd.DataFrame({"time": far[:, 0]})
    test = jg.bootstrap_lrt(models[0], table, key=key, n_replicates=19)
    assert test.p_value == 0.05 and test.null.feature_names == ("time",)
    assert np.all(np.abs(test.alternative.params.means - origin - 200) < 400)
"""

DOOR = """
    from jaxgmm.sklearn import BayesianGaussianMixture, GaussianMixture

    doors = [GaussianMixture(2, random_state=0).fit(x) for x in (near, far)]
    np.testing.assert_allclose(doors[1].means_ - origin, doors[0].means_, **close)
    np.testing.assert_allclose(*[d.bic(x) for d, x in zip(doors, (near, far))], rtol=1e-5)
    np.testing.assert_allclose(
        *[d.predict_proba(x) for d, x in zip(doors, (near, far))], atol=1e-4
    )
    rows, _ = doors[1].sample(200)
    assert len(np.unique(rows)) > 190
    try:
        BayesianGaussianMixture(n_components=2).fit(far)
    except ValueError as refusal:
        assert "x64 switch" in str(refusal)
    else:
        raise AssertionError("not refused")
"""


def _run(code):
    code = textwrap.dedent(PREPARED) + textwrap.dedent(code)
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_sampling_and_standard_errors():
    _run(ENGINES)


@pytest.mark.slow
def test_the_verdict_the_bootstrap_and_the_choice():
    _run(VERDICTS)


@pytest.mark.slow
def test_the_door_of_scikit_learn():
    _run(DOOR)


PRODUCT = """
    import warnings

    import jax
    import numpy as np
    import jaxgmm as jg

    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message="x: float64 data, computed in float32")
    rng = np.random.default_rng(0)
    late = np.arange(300) >= 200
    near = np.column_stack([
        60 * rng.standard_normal(300) + 400 * late, rng.poisson(np.where(late, 9.0, 2.0)),
        rng.standard_normal(300) + late, rng.standard_t(4, 300) + 8 * late,
    ])
    near[::9, 0] = np.nan
    origin = np.array([1.7e9, 0, 0, -3e7])
    far = near + origin
    family = jg.families.Product({
        "time": jg.Gaussian(), "count": jg.families.Poisson(), "size": jg.Gaussian(),
        "place": jg.families.StudentT(),
    })
    model, labels = jg.Mixture(family, 2, prior="weak"), np.eye(2)[late.astype(int)]
    here, there = (jg.fit(model, x, start=labels) for x in (near, far))
    assert here.origin is None and there.origin.tolist()[1:3] == [0, 0]
    close = dict(rtol=2e-2, atol=0.1)
    for name, at in (("time.means", 1.7e9), ("place.locations", -3e7), ("size.means", 0)):
        np.testing.assert_allclose(there.params.own[name] - at, here.params.own[name], **close)
    rates = [f.params.own["count.rates"] for f in (here, there)]
    np.testing.assert_allclose(*rates, rtol=1e-3)
    np.testing.assert_allclose(there.log_joint, here.log_joint, rtol=1e-4)
    np.testing.assert_allclose(there.model.log_joint(there.params, far), there.log_joint, rtol=1e-5)
    labels = [np.asarray(f.model.predict(f.params, x)) for f, x in ((here, near), (there, far))]
    np.testing.assert_array_equal(*labels)
    errors = [jg.standard_errors(f, x) for f, x in ((here, near), (there, far))]
    errors = [each.standard_errors["time.means"] for each in errors]
    np.testing.assert_allclose(*errors, rtol=1e-2)
    filled = [np.asarray(f.impute(x), np.float64) for f, x in ((here, near), (there, far))]
    np.testing.assert_allclose(filled[1] - origin, filled[0], rtol=0, atol=2.0)
    post = jg.sample(there.model, far, start=there, key=jax.random.key(0), method="laplace",
                     n_draws=100, progress=False)
    assert post.draws["time.means"].dtype == np.float64
    assert np.all(np.abs(post.draws["time.means"] - 1.7e9) < 1e3)
"""


@pytest.mark.slow
def test_columns_of_a_product():
    """Only numbers that lie far are moved, and not counts."""
    subprocess.run([sys.executable, "-c", textwrap.dedent(PRODUCT)], check=True)
