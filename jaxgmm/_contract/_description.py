"""What a model says of itself."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

_OWN = "each with a meaning of its own"


class Hyper(NamedTuple):
    """A number, or an array of them, in a prior; in the units of the data."""

    name: str
    symbol: str
    value: Any


@dataclasses.dataclass(frozen=True, repr=False)
class Description:
    """A model in words; prints as a paragraph.

    Attributes
    ----------
    model : str
        As it prints.
    n_components : int
        How many labels there are.
    label_groups : tuple of int
        A number for each label: those of equal numbers may be renamed.
    m_step : str
        ``"closed form"`` or ``"numerical"``.
    how : str
        What the M-step does with the expected log joint.
    formulas : tuple of str
        The density of a row and the prior, lines in which ``_`` opens a subscript.
    hyper : tuple of Hyper
        Name, symbol and value of each number in a conjugate prior.
    code : callable
        Python that makes the model, from its number of components, or the name of that.
    prior : callable
        From a site and the index of a number in it, what the number is distributed like: a NumPyro
        distribution of the site, a density along an array, or None where neither is known.
    """

    model: str
    n_components: int
    label_groups: tuple[int, ...]
    m_step: str
    how: str
    formulas: tuple[str, ...]
    hyper: tuple[Hyper, ...]
    code: Callable[[object], str]
    prior: Callable[[str, tuple[int, ...]], Any]

    def __repr__(self) -> str:
        sizes = collections.Counter(self.label_groups).values()
        renamed = "which may be renamed"
        if len(sizes) > 1:
            alike = max(sizes)
            renamed = f"{alike} of which may be renamed" if alike > 1 else _OWN
        return (
            f"{self.model}\n"
            f"  labels: {self.n_components}, {renamed}\n"
            f"  M-step: {self.m_step}: {self.how}"
        )


def how_it_climbs(closed: bool, iterates: bool, newton: int) -> tuple[str, str]:
    """`Description.m_step` and `Description.how` of a model."""
    joint = "the expected log joint"
    if closed:
        if not iterates:
            return "closed form", f"the maximum of {joint}"
        return "numerical", f"Newton's method to the maximum of {joint}, on sums over rows"
    steps = f"one Newton step on {joint}"
    if newton > 1:
        steps = f"{newton} Newton steps on {joint}, the labels held"
    return "numerical", f"{steps}; refused and shortened where the log joint falls"
