"""Simulation-based calibration: is the truth anywhere among a sampler's draws alike?"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

# Data sets; draws of each, whose ranks fill the bins evenly; and how often chi-squared may
# call uniform ranks uneven.
_DATA_SETS, _DRAWS, _BINS = 2000, 31, 16
FALSE_ALARM = 1e-5


def calibration(model, draw, summaries, n_rows, key):
    """By number in ``summaries(model, params, x)``, the p-value that its ranks are uniform.

    The rank is that of the truth, drawn from the prior and ``n_rows`` rows from it, among
    draws given these (Talts et al., 2018, arXiv:1804.06788). The truth stands at a random
    place of a chain that runs from it both ways, which a reversible one may do: ranks are
    then uniform however slowly it mixes (Gandy and Scott, 2021, arXiv:2001.06465).
    ``draw(model, x, params, key)`` is the chain's next member.
    """

    def rank(key):
        key_truth, key_rows, key_place, key_steps, key_ties = jax.random.split(key, 5)
        truth = model.draw_prior(key_truth)
        x = model.sample(truth, key_rows, n_rows)
        place = jax.random.randint(key_place, (), 0, _DRAWS + 1)

        def step(params, step):
            i, key = step
            params = jax.tree.map(lambda a, b: jnp.where(i == place, a, b), truth, params)
            params = draw(model, x, params, key)
            return params, summaries(model, params, x)

        steps = jnp.arange(_DRAWS), jax.random.split(key_steps, _DRAWS)
        _, drawn = jax.lax.scan(step, truth, steps)
        own = summaries(model, truth, x)
        # A chain that stands still ties with the truth but for rounding.
        tied = jnp.isclose(drawn, own, rtol=1e-9, atol=1e-9)
        ties = jnp.sum(tied, axis=0)
        below = jnp.sum(~tied & (drawn < own), axis=0)
        return below + jax.random.randint(key_ties, ties.shape, 0, ties + 1)

    keys = jax.random.split(key, _DATA_SETS)
    ranks = np.asarray(jax.jit(lambda k: jax.lax.map(rank, k, batch_size=250))(keys))
    counts = [np.bincount(own * _BINS // (_DRAWS + 1), minlength=_BINS) for own in ranks.T]
    return stats.chisquare(counts, axis=1).pvalue
