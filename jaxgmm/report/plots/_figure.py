"""Figures that belong to nobody's pyplot state and that notebooks show all the same."""

from __future__ import annotations

import io
import warnings

from matplotlib.figure import Figure

_DPI = 150


class Canvas(Figure):
    """A figure that notebooks display without pyplot or a backend."""

    def _repr_png_(self) -> bytes:
        return png(self)


def png(figure: Figure, dpi: int = _DPI) -> bytes:
    """The figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A feature name in a script that the font lacks shows boxes; it is no error.
        warnings.filterwarnings("ignore", message="Glyph")
        # Without the version of matplotlib, the same results give the same bytes.
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
