"""What a covariance structure is: three letters, second moments, and one minimiser.

The letters are mclust's (Banfield and Raftery, 1993; Celeux and Govaert, 1995): volume,
shape and orientation of the covariances, each E (equal over components), V (varying) or
I (absent). For every structure and prior the M-step over covariances minimises

    sum_k N_k log|Sigma_k| + tr(Sigma_k^-1 S_k),

with (N, S) the counts and scatter that the prior has added its own to. A structure is
thus a kind of second moments (`_spherical`, `_diagonal`, `_matrix`), which knows densities,
units and priors, and the minimiser of this sum over its covariances.
"""

from __future__ import annotations

import abc

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import digamma
from jaxtyping import Array, Float
from numpyro.distributions import biject_to, constraints

from jaxgmm._contract import improper
from jaxgmm.model._charts import Chart
from jaxgmm.model._prior import ConjugatePrior
from jaxgmm.model._support import OfStructure, restricted


class Structure(abc.ABC):
    """One covariance structure; has no state, so one instance serves every model.

    An entry below is what the site holds of one covariance: a matrix, D variances or one.
    """

    # Own name, and mclust's: the letters of volume, shape and orientation.
    name: str
    code: str
    # Which affine maps keep the structure: a scale per column, or one for all.
    scales_columns: bool
    # Whether covariances between features are free, so that rows must span them.
    uses_products: bool
    # ArviZ dimensions of an entry.
    entry_dims: tuple[str, ...]

    # -- read off the letters -----------------------------------------------------

    @property
    def shared(self) -> bool:
        """Whether one covariance serves all components, so that its prior counts once."""
        return "V" not in self.code

    @property
    def iterates(self) -> bool:
        """Whether `minimise` has no formula (Celeux and Govaert, 1995, table 1)."""
        return self.code in ("VEI", "VEE", "EVE", "VVE", "VEV")

    @property
    def isotropic(self) -> bool:
        """Whether all directions have the same variance."""
        return self.code[1] == "I"

    @property
    def resizes(self) -> bool:
        """Whether a component may shrink in some direction while the others do not."""
        return "V" in self.code[:2]

    @property
    def keeps_ridge(self) -> bool:
        """Whether a multiple of the identity may be added within the structure.

        Added to all volumes it changes the shapes, and the other way round, unless both
        are free, or both common, or there is no shape.
        """
        return self.isotropic or self.code[0] == self.code[1]

    def n_parameters(self, k: int, d: int) -> int:
        """Free parameters of the covariances."""
        return sum(copies * each for copies, each in self.free_shapes(k, d))

    def free_shapes(self, k: int, d: int) -> list[tuple[int, int]]:
        """How many volumes, shapes and orientations are free, and the numbers in each."""
        copies = {"E": 1, "V": k, "I": 0}
        each = (1, d - 1, d * (d - 1) // 2)
        return [(copies[letter], n) for letter, n in zip(self.code, each, strict=True)]

    # -- second moments: (D, n) of shifted rows to (S, n), and their algebra ----

    @abc.abstractmethod
    def squares(self, z: Float[Array, "d n"]) -> list[Float[Array, "_ n"]]:
        """The quadratic sufficient statistics of each row, in pieces to be stacked."""

    @abc.abstractmethod
    def n_products(self, d: int) -> int:
        """Number of rows of `squares`."""

    @abc.abstractmethod
    def scatter(self, squares: Float[Array, "k s"], d: int) -> Array:
        """Sums of squares as scatter, an entry by component."""

    @abc.abstractmethod
    def squares_of(self, scatter: Array) -> Float[Array, "k s"]:
        """The inverse of `scatter`."""

    @abc.abstractmethod
    def scatter_of(self, apart: Float[Array, "k d n"], weights: Float[Array, "k n"]) -> Array:
        """Weighted scatter of differences that are each component's own."""

    @abc.abstractmethod
    def scatter_in(self, matrices: Float[Array, "k d d"]) -> Array:
        """Scatter of whole matrices, in the form that is kept."""

    @abc.abstractmethod
    def outer(self, vectors: Float[Array, "k d"]) -> Array:
        """``v v^T`` in the same form as `scatter`."""

    @abc.abstractmethod
    def variances(self, entries: Array) -> Array:
        """The variances in entries, or in scatter; one where features are not told apart."""

    @abc.abstractmethod
    def natural(self, means: Float[Array, "k d"], covariances: Array) -> Array:
        """Natural parameters (K, 1 + D + S) of normal densities."""

    @abc.abstractmethod
    def whiten(
        self, covariances: Array, apart: Float[Array, "k d n"]
    ) -> tuple[Float[Array, "k d n"], Float[Array, " k"]]:
        """Differences from the means in units in which their covariance is the identity.

        Beside them the log determinant of each covariance.
        """

    def unconstrain(self, scatter: Array) -> Array:
        """Scatter in coordinates that any real numbers may replace."""
        return biject_to(self.entry_support()).inv(scatter)

    def constrain(self, coordinates: Array) -> Array:
        """The inverse of `unconstrain`."""
        return biject_to(self.entry_support())(coordinates)

    # -- the site: entries, one or K of them ----------------------------------------

    @abc.abstractmethod
    def entry_shape(self, d: int) -> tuple[int, ...]:
        """Shape of an entry."""

    @abc.abstractmethod
    def matrices(self, entries: Array, d: int) -> Float[Array, "*b d d"]:
        """Entries as matrices."""

    @abc.abstractmethod
    def entries(self, matrices: Float[Array, "*b d d"]) -> Array:
        """The inverse of `matrices`."""

    @abc.abstractmethod
    def entry_support(self) -> constraints.Constraint:
        """Support of an entry by itself."""

    def site_shape(self, k: int, d: int) -> tuple[int, ...]:
        """Shape of the site ``covariances``."""
        return (() if self.shared else (k,)) + self.entry_shape(d)

    def site_dims(self) -> list[str]:
        """ArviZ dimensions of the site ``covariances``."""
        return ([] if self.shared else ["component"]) + list(self.entry_dims)

    def expand(self, covariances: Array, k: int, d: int) -> Float[Array, "*b k d d"]:
        """The site as one matrix per component; leading batch axes pass through."""
        matrices = self.matrices(covariances, d)
        if not self.shared:
            return matrices
        batch = matrices.shape[:-2]
        return jnp.broadcast_to(matrices[..., None, :, :], (*batch, k, d, d))

    def contract(self, covariances: Float[Array, "k d d"]) -> Array:
        """The inverse of `expand`."""
        entries = self.entries(covariances)
        return entries[0] if self.shared else entries

    def contains(self, covariances: Array, rtol: float) -> Array:
        """Whether the site's array is of the structure; leading batch axes pass through."""
        return jnp.all(self.entry_support()(covariances))

    def support(self, k: int, d: int) -> constraints.Constraint:
        """Support of the site."""
        return self.entry_support()

    def retract(self, covariances: Array, tangent: Float[Array, " p"], k: int, d: int) -> Array:
        """The site a step away along the structure; zero leaves it where it is."""
        to_site = biject_to(self.support(k, d))
        origin = to_site.inv(covariances)
        return to_site(origin + tangent.reshape(origin.shape))

    # -- the prior ------------------------------------------------------------------

    @abc.abstractmethod
    def entry_prior(self, prior: ConjugatePrior, d: int) -> dist.Distribution:
        """The conjugate prior of an entry, or of each of its variances.

        Here and in `mean_prior` each component may have hyper-parameters of its own, as it
        has once rows have updated them.
        """

    @abc.abstractmethod
    def mean_prior(
        self, prior: ConjugatePrior, covariances: Array, k: int, d: int
    ) -> dist.Distribution:
        """The conjugate prior of ``means`` given the covariances."""

    @abc.abstractmethod
    def prior_rows(self, dof: Array, d: int) -> Array:
        """How many rows the prior of an entry counts for in the M-step's ``N_k``."""

    def dof_of_row(self, d: int) -> int:
        """How many degrees of freedom a row adds to those of an entry's prior."""
        return 1

    @abc.abstractmethod
    def entry_volume_power(self, d: int) -> float:
        """p where scaling column j by s_j multiplies an entry's volume by prod s_j^p."""

    @abc.abstractmethod
    def prior_scale_shapes(self, d: int) -> list[tuple[int, ...]]:
        """Shapes in which a user may write the prior's scale."""

    @abc.abstractmethod
    def prior_scale(self, covariance: Float[Array, "d d"], n_components: int) -> Array:
        """Scale of the default prior for data with this covariance (Fraley and Raftery, 2007)."""

    def covariance_prior(self, prior: ConjugatePrior, k: int, d: int) -> dist.Distribution:
        """The conjugate prior of the site ``covariances``."""
        entry, shape = self.entry_prior(prior, d), self.site_shape(k, d)
        batch = shape[: len(shape) - entry.event_dim]
        return restricted(entry.expand(batch).to_event(len(batch)), self.support(k, d))

    def flat_prior(self, k: int, d: int) -> dist.Distribution:
        return improper(self.support(k, d), self.site_shape(k, d))

    def log_volume_power(self, k: int, d: int) -> float:
        """p where scaling column j by s_j multiplies the site's volume by prod s_j^p."""
        return (1 if self.shared else k) * self.entry_volume_power(d)

    def harmonic_mean(self, prior: ConjugatePrior, k: int, d: int) -> Array:
        """The site whose precisions are the prior's means of them."""
        dof = jnp.asarray(prior.dof)
        entries = prior.scale / dof.reshape(dof.shape + (1,) * len(self.entry_dims))
        return jnp.broadcast_to(entries, self.site_shape(k, d))

    def log_det_excess(self, dof: Array, d: int) -> Array:
        """log|Sigma| at the `harmonic_mean` less the prior's mean of it."""
        return d * (digamma(dof / 2) - jnp.log(dof / 2))

    # -- the update ---------------------------------------------------------------

    def mode(
        self, posterior: ConjugatePrior, k: int, d: int, previous: Array | None = None
    ) -> Array:
        """The site at the mode of the joint density of means and covariances.

        A minimiser without a closed form ends no higher than at ``previous``, the site before.
        """
        # The mean of each component is one more normal row with its covariance.
        rows = self.prior_rows(posterior.dof, d) + (k if self.shared else 1)
        return self.minimise(posterior.scale, rows, d, previous)

    def gathered(self, scatter: Array, counts: Float[Array, " k"]) -> tuple[Array, Array]:
        """Scatter and counts by entry of the site: summed where one entry serves all."""
        return (jnp.sum(scatter, 0), jnp.sum(counts)) if self.shared else (scatter, counts)

    @abc.abstractmethod
    def minimise(self, scatter: Array, counts: Array, d: int, previous: Array | None) -> Array:
        """The site that minimises ``sum_k N_k log|Sigma_k| + tr(Sigma_k^-1 S_k)``.

        ``scatter`` (S) and ``counts`` (N) come by component, or summed where the covariance
        is `shared`.
        """

    @abc.abstractmethod
    def ridge(self, covariances: Array, amount: Float[Array, " d"]) -> Array:
        """Add ``amount`` to the diagonal."""

    @abc.abstractmethod
    def pivots(self, covariances: Array) -> Array:
        """Conditional variance of each feature given those before it, (..., D) or (..., 1)."""

    @abc.abstractmethod
    def data_pivots(self, covariance: Float[Array, "d d"]) -> Array:
        """`pivots` of one component that covers all the data."""

    @abc.abstractmethod
    def rescale(self, covariances: Array, scale: Float[Array, " d"]) -> Array:
        """The site, or the prior's scale, after column j is multiplied by ``scale[j]``."""


class Curved(Structure):
    """A structure whose covariances fill no open set of entries, nor a product of such.

    Its site holds an entry per component, of which only some combinations are allowed.
    """

    # What maps real numbers to the site.
    chart: type[Chart]

    def support(self, k, d):
        return OfStructure(self, k, d)

    def contains(self, covariances, rtol):
        # What minimises log|Sigma_k| + tr(Sigma_k^-1 S_k) over the structure is S itself
        # exactly if S is of the structure.
        k, d = covariances.shape[0], covariances.shape[1]
        nearest = self.minimise(covariances, jnp.ones(k, covariances.dtype), d, None)
        size = jnp.max(jnp.abs(covariances), axis=tuple(range(1, covariances.ndim)), keepdims=True)
        apart = jnp.abs(nearest - covariances) > rtol * size
        positive = jnp.all(self.entry_support()(covariances))
        return positive & jnp.all(jnp.isfinite(nearest)) & ~jnp.any(apart)
