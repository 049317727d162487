"""What the doors ask: rows as users have them, checked, measured and filled."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgmm._contract._definition import Definition, Params, Sites
from jaxgmm._contract._proper import innermost, instead
from jaxgmm._sharded import rows_here, total_over_rows
from jaxgmm.files import Measured


class Rows(Definition):
    """From the user's data to arrays in working units, and back."""

    # Whether rows are places, so that `translate` applies.
    moves: bool | ClassVar[bool] = False
    # Whether a NaN in the data is a value missing at random; and whether the model, once
    # resolved, knows of some.
    holes: bool | ClassVar[bool] = False
    incomplete: bool | ClassVar[bool] = False
    # Whether statistics hold what is missing, expected or drawn; else it drops out of them.
    imputes: bool | ClassVar[bool] = False
    # Whether some columns of a row are given and not drawn, such as covariates: `sample` then
    # takes the rows that they are of.
    needs_given: bool | ClassVar[bool] = False
    # Whether rows of weight zero may be added, so that few numbers of rows are compiled for.
    fills_up: bool | ClassVar[bool] = False

    @property
    def places(self) -> Any:
        """Which columns are places, by column where not all are alike."""
        return self.moves

    def read(self, x: Any) -> tuple[Self, Any]:
        """The model that knows the columns of a table, and the table as numbers in its order.

        By default what the user wrote, of which `check_data` makes numbers.
        """
        if isinstance(x, Measured):
            raise ValueError(
                f"x: {type(self).__name__} knows nothing of noise of each row; it goes with "
                "jaxgmm.Gaussian components"
            )
        return self, x

    def check_names(self, feature_names: tuple[str, ...]) -> None:
        """Refuse, with a `ValueError`, columns of a stream that are not those of a row."""

    def check_data(self, x: Any, sample_weight: Any = None) -> tuple[Any, Any]:
        """Arrays made of the user's data, or a `ValueError` that says what to do."""
        from jaxgmm._checks import check_rows, check_sample_weight

        rows = check_rows(x, self.holes)
        return rows, check_sample_weight(sample_weight, rows)

    def n_informative(self, x: Array, sample_weight: Array | None) -> float:
        """How many rows there are, for criteria: of weights the sum, without rows of no value."""
        here = rows_here(x)
        there = ~np.all(np.isnan(here), axis=1) if self.incomplete else np.ones(len(here), bool)
        weights = there if sample_weight is None else rows_here(sample_weight) * there
        return total_over_rows(x, weights)

    def readable(self, x: Array) -> Array:
        """Whether all numbers are finite, or missing where the model knows of missing ones."""
        return jnp.all(jnp.isfinite(x) | (self.incomplete & jnp.isnan(x)))

    def resolve(self, x: Any, sample_weight: Any = None) -> Self:
        """The same model with every data-dependent rule turned into numbers."""
        return self

    def check_model(self, x: Any, sample_weight: Any = None) -> None:
        """Refuse, with a `ValueError`, data that leave the objective unbounded."""

    def check_samplable(self) -> None:
        """Refuse, with a `ValueError`, a prior under which no posterior exists.

        By default a flat one at any site: no data need make its posterior proper.
        """
        sites: Sites = {}
        for name, conditional in self.prior_sites().items():
            prior = conditional(sites)
            if isinstance(innermost(prior), dist.ImproperUniform):
                raise ValueError(
                    f"prior: site {name!r} has an improper distribution, under which this model "
                    f"may have no posterior; {instead(prior)}"
                )
            sites[name] = prior.sample(jax.random.key(0))  # any value will do

    def standardise(self, x: Array, sample_weight: Array | None = None) -> Self:
        """The same model in working units; its log densities stay in the user's."""
        return self

    def to_working(self, params: Params) -> Params:
        """The user's parameters in the units of a standardised model."""
        return params

    def to_user(self, params: Params) -> Params:
        """Parameters of a standardised model in the user's units."""
        return params

    def translate(self, offset: Any, params: Params = None) -> tuple[Self, Params]:
        """This model, and its parameters where given, for rows moved by ``offset`` (D,).

        ``params`` may have leading axes, or be the sites by name; what moves comes back as
        NumPy's float64.
        Only called where `moves` says that rows are places which could be moved.
        """
        raise NotImplementedError(f"translate: {type(self).__name__} has no rows to be moved")

    def embed(self, x: Array) -> Float[Array, "n e"]:
        """Rows as vectors whose Euclidean distances make sense, for starts."""
        return x.reshape(x.shape[0], -1)

    def imputing(self, key: PRNGKeyArray) -> Self:
        """The model whose `e_step` draws missing values where they are `incomplete`."""
        return self

    def impute(self, params: Params, x: Array, key: PRNGKeyArray | None = None) -> Array:
        """The rows with their missing values filled in, of a model that has such."""
        raise ValueError(f"impute: {type(self).__name__} has no missing values; NaN is refused")
