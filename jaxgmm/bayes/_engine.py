"""What every engine is: options, and a way to draw."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

from jaxtyping import Array, PRNGKeyArray

from jaxgmm._contract import LatentModel
from jaxgmm.bayes._chains import Draws, Schedule, Starts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine(abc.ABC):
    """A way to draw from a posterior, with its options as fields, checked where they are written.

    `jaxgmm.sample` takes one as ``method``; its ``name`` stands for the defaults.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def draw(
        self,
        model: LatentModel,
        x: Array,
        sample_weight: Array | None,
        starts: Starts,
        key: PRNGKeyArray,
        schedule: Schedule,
        progress: bool,
    ) -> Draws:
        """Draws of a model in working units, chains first."""

    @property
    def options(self) -> dict[str, Any]:
        """Those that are not the defaults."""
        each = [(f.name, getattr(self, f.name), f.default) for f in dataclasses.fields(self)]
        return {name: value for name, value, usual in each if value != usual}


def check_share(argument: str, value: float) -> None:
    """Refuse what is no number strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{argument}: a share between 0 and 1, found {value!r}")
