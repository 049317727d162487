"""The prior of a product of families: that of each part beside that of the weights."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxgmm.files import stored
from jaxgmm.model._site_prior import SitePrior
from jaxgmm.model._tree import pytree


@stored
@pytree
@dataclasses.dataclass(frozen=True)
class ProductPrior(SitePrior):
    """`SitePrior` of the weights, and by name the prior of every part.

    Attributes
    ----------
    parts : dict
        What `Family.prior_of` or a rule of each part has made, or a `ConjugatePrior`.
    """

    parts: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def nested(self) -> tuple[Any, ...]:
        return tuple(self.parts.values())

    @property
    def by_site(self) -> dict[str, Any]:
        found = dict(self.distributions)
        for key, prior in self.parts.items():
            if not isinstance(prior, SitePrior):
                found[key] = prior
                continue
            for site, written in prior.by_site.items():
                if site not in self.distributions:
                    found[f"{key}.{site}"] = written
        return found
