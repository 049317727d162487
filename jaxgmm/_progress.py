"""The bar of whatever takes a while: a widget in notebooks, text in terminals, none in files."""

from __future__ import annotations

import sys
from typing import Any


def bar(title: str, progress: bool, total: int | None = None) -> Any:
    """A tqdm bar that goes when it is done, for a ``with`` block.

    It is shown where ``progress`` asks for it and somebody can see it: its ``disable`` tells.
    In a log file or a pipe every step would be another line.
    """
    from tqdm.auto import tqdm

    return tqdm(desc=title, total=total, disable=not (progress and _watched()), leave=False)


def _watched() -> bool:
    """Whether stderr is a terminal, or this is the kernel of a notebook, whose stderr is none."""
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())
