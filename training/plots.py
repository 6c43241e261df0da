"""What all plots of reports have in common: colours, style, and how a figure becomes a part of a page."""

import io
import re
import warnings
from typing import Any, Final

from markupsafe import Markup
from matplotlib.figure import Figure

COLOURS: Final = {
    "model": "#1d5fbf",
    "naive": "#c2691c",
    "seasonal_naive": "#3f8f5f",
    "naive2": "#8a6d3b",
    "moving_average": "#8d6cab",
    "drift": "#b0893f",
    "linear_autoregression": "#b3446c",
    "ets": "#2f8c99",
    "theta": "#7a8a2a",
    "arima": "#c0504d",
}
"""Of each method, by name."""

TRUTH: Final = "#1c2430"
QUIET: Final = "#697384"
EDGE: Final = "#c3cad4"
STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "leadtime",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": EDGE,
    "axes.labelcolor": QUIET,
    "axes.titlesize": 10,
    "axes.titlecolor": TRUTH,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#eceff3",
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "legend.frameon": False,
    "legend.labelcolor": TRUTH,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def short(stamp: str) -> str:
    """A timestamp without a time of day that says nothing."""
    return stamp.removesuffix(":00").removesuffix(" 00:00")


def svg(figure: Figure, label: str) -> Markup:
    """A figure as SVG to stand inside HTML: no prolog, no metadata, no namespaces, no fixed size."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with warnings.catch_warnings():
        # The browser draws the letters; that the font which measures them here lacks some does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    opening = text[: text.index(">") + 1]
    box = re.search(r'viewBox="[^"]*"', opening)
    if box is None:
        raise ValueError("the figure has no viewBox")
    # The drawing is made by matplotlib and holds names from the data only as escaped text.
    return Markup(f'<svg {box[0]} role="img" aria-label="{label}">' + text[len(opening) :])
