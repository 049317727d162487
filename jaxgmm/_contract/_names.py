"""What tables, ArviZ and the report ask: what the numbers are called."""

from __future__ import annotations

from typing import Any

from jaxgmm._contract._definition import Definition, Params, Sites


class Names(Definition):
    """Dimensions, names along them, and what the model says of itself."""

    def site_dims(self) -> dict[str, list[str]]:
        """ArviZ dimension names by site."""
        return {}

    def derived_sites(self, params: Params) -> Sites:
        """Further quantities reported beside the sites."""
        return {}

    def coords(self, feature_names: tuple[str, ...]) -> dict[str, list[Any]]:
        """What stands along the dimensions of `site_dims`, where it is not counted from zero."""
        names = list(feature_names)
        return {"feature": names, "feature_bis": names}
