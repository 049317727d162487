"""The bar of whatever takes a while: a widget in notebooks, text in terminals, none in files."""

from __future__ import annotations

import sys
from typing import Any


def bar(title: str, progress: bool, total: int | None = None, unit: str = "it") -> Any:
    """A tqdm bar that goes when it is done, for a ``with`` block.

    Units other than iterations may be many, and are shown in thousands and millions.

    It is shown where ``progress`` asks for it and somebody can see it: its ``disable`` tells.
    In a log file or a pipe every step would be another line.
    """
    from tqdm.auto import tqdm

    hidden, many = not (progress and _watched()), unit != "it"
    return tqdm(desc=title, total=total, disable=hidden, leave=False, unit=unit, unit_scale=many)


def _watched() -> bool:
    """Whether stderr is a terminal, or this is the kernel of a notebook, whose stderr is none."""
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())
