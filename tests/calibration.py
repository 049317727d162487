"""Calibration of a sampler's kernel, at the size that the suite affords."""

import jaxgmm as jg

# How often chi-squared may call uniform ranks uneven.
FALSE_ALARM = 1e-5


def calibration(model, draw, summaries, n_rows, key):
    """By number in ``summaries(model, params, x)``, the p-value that its ranks are uniform."""
    named = lambda *at: {f"{i:02d}": value for i, value in enumerate(summaries(*at))}
    found = jg.calibrate(
        model, n=n_rows, key=key, method=draw, quantities=named, n_datasets=2000, n_draws=31,
        thinning=1, progress=False,
    )  # fmt: skip
    return found.table["chi2_p_value"].to_numpy()
