"""The noun that every room agrees on: engines and the report see a model as a `LatentModel`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro import handlers

from jaxgmm._contract._conjugate import Conjugate
from jaxgmm._contract._definition import Params, Sites
from jaxgmm._contract._description import Description, how_it_climbs
from jaxgmm._contract._em import EM
from jaxgmm._contract._health import Health
from jaxgmm._contract._labels import Labels
from jaxgmm._contract._local import Local
from jaxgmm._contract._names import Names
from jaxgmm._contract._notation import site_formulas
from jaxgmm._contract._rows import Rows
from jaxgmm._numerics import as_rows
from jaxgmm._programs import program
from jaxgmm._sharded import shared


class LatentModel(EM, Conjugate, Health, Local, Names, Labels, Rows):
    """A model whose rows carry one unseen label each, written once.

    From `prior_sites` and `likelihood` come the log densities and the NumPyro program
    (one function computes both); from `e_step` and `m_step` comes EM. ``params``
    is a pytree that only the model looks into.

    Subclasses are frozen dataclasses registered as pytrees: hyper-parameters are
    leaves, counts and names are static.
    """

    def form(self, x: Array) -> Params:
        """Shapes and dtypes of the parameters for such rows."""

        def first(responsibilities: Array) -> Params:
            working = self.standardise(x)
            return working.m_step(working.statistics(responsibilities, x))

        shape = jax.ShapeDtypeStruct((x.shape[0], self.n_components), x.dtype)
        return jax.eval_shape(first, shape)

    def describe(self) -> Description:
        """What the model is: in words, in formulas, as code."""
        sites = self.prior_sites()

        def prior(site: str, _: tuple[int, ...]) -> Any:
            try:
                return sites[site]({})
            except KeyError:  # it depends on the sites before it
                return None

        formulas, code = site_formulas(sites), f"...  # {self!r}"
        return self._described(formulas, (), lambda _: code, prior)

    def _described(self, *facts: Any) -> Description:
        climbs = how_it_climbs(self.closed, self.iterates, self.newton)
        return Description(repr(self), self.n_components, self.label_groups, *climbs, *facts)

    def log_prior(self, params: Params) -> Array:
        """Log density of the sites under the prior, constants included."""
        sites = self.sites(params)
        terms = [jnp.sum(d(sites).log_prob(sites[name])) for name, d in self.prior_sites().items()]
        units = self.log_units()
        total = sum(terms[1:], terms[0])
        return total if units is None else total + units

    def log_prob(self, params: Params, x: Array) -> Float[Array, " n"]:
        """Log density of each row, the label summed out."""
        return self.likelihood(params).log_prob(as_rows(x))

    def log_likelihood(self, params: Params, x: Array, sample_weight: Array | None = None) -> Array:
        """Weighted sum of `log_prob` over the rows."""
        rows = self.log_prob(params, x)
        return jnp.sum(rows if sample_weight is None else sample_weight * rows)

    def log_joint(self, params: Params, x: Array, sample_weight: Array | None = None) -> Array:
        """`log_prior` plus `log_likelihood`: EM's objective and NumPyro's log density."""
        return self.log_prior(params) + self.log_likelihood(params, x, sample_weight)

    def predict(self, params: Params, x: Array) -> Array:
        """Index of the most probable label of each row."""
        found = self.responsibilities(params, x)
        if isinstance(found, Tracer):
            return jnp.argmax(found, axis=-1)
        if shared(found):
            return _most_probable(found)
        return jax.device_put(np.argmax(np.asarray(found), axis=-1))

    def draw_prior(self, key: PRNGKeyArray) -> Params:
        """Draw parameters from the prior."""
        sites: Sites = {}
        prior = self.prior_sites()
        for site_key, name in zip(jax.random.split(key, len(prior)), prior, strict=True):
            sites[name] = prior[name](sites).sample(site_key)
        return self.from_sites(sites)

    def sample(self, params: Params, key: PRNGKeyArray, n: int, *, given: Any = None) -> Array:
        """Draw ``n`` rows.

        A model that `needs_given` keeps the columns that are not drawn of the rows ``given``; no
        other need take them.
        """
        return self.likelihood(params).sample(key, (n,))

    def sample_like(self, params: Params, key: PRNGKeyArray, x: Array) -> Array:
        """As many rows as there are in ``x``, with what is given in these where something is."""
        if self.needs_given:
            return self.sample(params, key, x.shape[0], given=x)
        return self.sample(params, key, x.shape[0])

    def numpyro_model(
        self,
        x: Array | None = None,
        n_rows: int | None = None,
        sample_weight: Array | None = None,
    ) -> None:
        """The model as a plain NumPyro program.

        Parameters
        ----------
        x : array of n rows, optional
            Observed rows; None draws ``n_rows`` of them (for `numpyro.infer.Predictive`).
        n_rows : int, optional
            Number of rows; taken from ``x`` where that is given.
        sample_weight : (n,) array, optional
            Multiplies the log density of each row.
        """
        if x is None and n_rows is None:
            raise ValueError("numpyro_model: give x (observed rows) or n_rows (rows to draw)")
        sites: Sites = {}
        for name, conditional in self.prior_sites().items():
            sites[name] = numpyro.sample(name, conditional(sites))
        units = self.log_units()
        if units is not None:
            numpyro.factor("units", units)
        scale = 1.0 if sample_weight is None else sample_weight
        count = n_rows if x is None else x.shape[0]
        with numpyro.plate("obs", count), handlers.scale(scale=scale):
            self._observe(self.from_sites(sites), None if x is None else as_rows(x), count)

    def _observe(self, params: Params, rows: Array | None, count: int | None) -> None:
        """The site ``x`` of `numpyro_model`, in its plate."""
        numpyro.sample("x", self.likelihood(params), obs=rows)


@program()
def _most_probable(responsibilities: Float[Array, "n k"]) -> Array:
    return jnp.argmax(responsibilities, axis=-1)
