"""What all figures share: palette, panels, names. Matplotlib is imported when one is made."""

from __future__ import annotations

from typing import Any

import numpy as np

# Okabe and Ito's palette, which colour-blind readers can tell apart; its yellow is too
# pale for lines on white and its black is EM's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#8c8c8c"
MARKERS = "osD^vP*X<>phd8"
# Scales from light to dark, read as that in grey and in any colour vision.
PROBABILITY, UNCERTAINTY = "Blues", "YlOrBr"

LEGEND: dict[str, Any] = {"loc": "best", "fontsize": 9, "framealpha": 0.9}
TITLE: dict[str, Any] = {"fontsize": 11, "loc": "left"}

MOST_ROWS = 5000  # points drawn of the data
MOST_FEATURES = 6  # of a grid of pairs or of marginals


def canvas(ax: Any, size: tuple[float, float]) -> tuple[Any, Any]:
    """The axes given, or those of a new figure."""
    figure, axes = panels(ax, (1, 1), size)
    return figure, axes[0, 0]


def panels(
    ax: Any, shape: tuple[int, int], size: tuple[float, float], **shared: Any
) -> tuple[Any, np.ndarray]:
    """A figure and a grid of its axes: those given, one a panel, or new ones."""
    from jaxgmm.report.plots._figure import Canvas

    if ax is None:
        figure = Canvas(figsize=size, layout="constrained")
        axes = figure.subplots(*shape, squeeze=False, **shared)
        for one in axes.ravel():
            one.spines[["right", "top"]].set_visible(False)
        return figure, axes
    axes = np.asarray(ax, dtype=object)
    if axes.size != shape[0] * shape[1]:
        raise ValueError(
            f"ax: this picture has {shape[0]} x {shape[1]} panels, found {axes.size} axes; "
            "leave ax out, or give an array of as many"
        )
    axes = axes.reshape(shape)
    return axes[0, 0].figure, axes


def colour(k: int) -> str:
    return COLOURS[k % len(COLOURS)]


def dash(k: int) -> str:
    """Colours come round again after six; dashes then tell components apart."""
    return ("-", "--", ":", "-.")[k // len(COLOURS) % 4]


def plain(text: str) -> str:
    """A name as it is, where matplotlib would read dollar signs as mathematics."""
    return text.replace("$", r"\$")


def spread(indices: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the indices, evenly spaced."""
    return indices[np.linspace(0, len(indices) - 1, min(most, len(indices))).astype(int)]


def span(values: np.ndarray, margin: float = 0.1) -> tuple[float, float]:
    """Ends of an axis that holds the values, whichever of them are missing."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    beyond = margin * (high - low) or 1.0
    return low - beyond, high + beyond
