"""The report's pictures: vector charts that follow the page's colours, and inline images.

Charts are drawn by matplotlib's figure classes alone (no pyplot, no display), and their colours are
then exchanged for the page's variables, so that one file is readable by day and in dark mode.
"""

import base64
import html
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcl.evaluate.plane import FeatureMap
from jaxcl.typing import NumpyArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Stand-ins that matplotlib can draw with, and what they become in the page.
INK, GRID, TRAIN, EVAL = "#010203", "#010204", "#010205", "#010206"
VARIABLES = {
    INK: "var(--muted)",
    GRID: "var(--line)",
    TRAIN: "var(--train)",
    EVAL: "var(--eval)",
}
COLOURS = (
    "#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1",
    "#edc948", "#17a2b8", "#ff7fa7", "#9c755f", "#8f9296",
)  # fmt: skip
MARKERS = "o^sDv*Pp<>"
CURVE_POINTS = 200
LABELLED_CLASSES = 30
IMAGE_SIDE = 96


def curve(name: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """A small chart of a scalar over steps, as SVG.

    Args:
      name: of the scalar.
      series: (step, value) pairs under "train" and "eval"; each may be missing. Beyond 200 points,
        neighbouring ones are averaged.
    """
    figure, axes = _axes(3.4, 2.0)
    for kind, color in (("train", TRAIN), ("eval", EVAL)):
        points = _thinned(np.array(series.get(kind, ()), float).reshape(-1, 2))
        few = len(points) <= 30
        marker = ("o" if kind == "train" else "D") if few else ""
        axes.plot(*points.T, color=color, lw=1.6, marker=marker, ms=3.5)
    axes.grid(color=GRID, lw=0.6)
    axes.margins(x=0.02, y=0.08)
    axes.locator_params(nbins=5)
    axes.xaxis.set_major_locator(_integers())
    return _svg(figure, f"{name} over steps")


def scatter(plane: FeatureMap, classes: Sequence[str]) -> str:
    """A map of features, as SVG: a colour and a marker for each class, its name at its middle."""
    figure, axes = _axes(6.4, 5.2)
    axes.set_axis_off()
    for name in np.unique(plane.labels):
        points = plane.points[plane.labels == name]
        color, marker = class_style(int(name))
        axes.scatter(*points.T, s=14, c=color, marker=marker, lw=0, alpha=0.8)
    named = np.unique(plane.labels[plane.labels >= 0])
    for name in named if len(named) <= LABELLED_CLASSES else ():
        x, y = np.median(plane.points[plane.labels == name], axis=0)
        text = axes.text(x, y, _short(classes[name]), ha="center", va="center", parse_math=False)
        text.set(fontsize=11, color=INK)
    return _svg(figure, f"{plane.method} map of the features")


def class_style(name: int) -> tuple[str, str]:
    """Colour and marker of a class; grey points for rows without a label."""
    if name < 0:
        return "#8f9296", "."
    return COLOURS[name % len(COLOURS)], MARKERS[name // len(COLOURS) % len(MARKERS)]


def heat(shares: NumpyArray) -> str:
    """A square of [c, c] shares in [0, 1] as a data URL: blue on the diagonal, orange off it."""
    size = len(shares)
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[..., :3] = np.where(np.eye(size, dtype=bool)[..., None], (42, 120, 214), (217, 89, 38))
    pixels[..., 3] = np.round(255 * np.sqrt(np.clip(shares, 0, 1)))
    return _png(pixels)


def picture(image: NumpyArray) -> str:
    """An image [h, w, c], uint8 or float in [0, 1], as a data URL, at most 96 pixels a side.

    One channel is shown as grey, three as colours, any other number as the grey of its mean.
    """
    image = np.asarray(image)
    pixels = image.astype(np.float64) / (255 if image.dtype == np.uint8 else 1)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.shape[2] != 3:
        pixels = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
    factor = -(-max(pixels.shape[:2]) // IMAGE_SIDE)
    height, width = (max(1, side // factor) for side in pixels.shape[:2])
    pixels = pixels[: height * factor, : width * factor]
    pixels = pixels.reshape(height, -1, width, pixels.shape[1] // width, 3).mean(axis=(1, 3))
    return _png(np.round(255 * np.clip(np.nan_to_num(pixels), 0, 1)).astype(np.uint8))


def _png(pixels: NumpyArray) -> str:
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, pixels, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _axes(width: float, height: float) -> tuple["Figure", Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(colors=INK, labelsize=8, length=0)
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)
    return figure, axes


def _integers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=5, integer=True)


def _svg(figure: "Figure", name: str) -> str:
    """The figure as an element of a page; `name` says what it shows, and sets its ids apart."""
    import matplotlib

    file = io.StringIO()
    settings: dict[Any, str] = {"svg.fonttype": "none", "svg.hashsalt": name}
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # The browser has the glyphs that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    box = re.search(r'viewBox="[^"]*"', text)
    body = text[text.index("</style>") :].partition("</defs>")[2]
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # the same in every figure, and used by none
    body = re.sub(r"font-family: [^;\"]*; ?", "", body).replace("xlink:href", "href")
    for color, variable in VARIABLES.items():
        body = body.replace(color, variable)
    label = html.escape(name)
    return f'<svg role="img" aria-label="{label}" {box[0] if box else ""}>{body}'


def _thinned(points: NumpyArray) -> NumpyArray:
    """The finite points in order of their step, averaged in bins where there are many."""
    points = points[np.isfinite(points).all(axis=1)]
    points = points[np.argsort(points[:, 0], kind="stable")]
    if len(points) <= CURVE_POINTS:
        return points
    size = -(-len(points) // CURVE_POINTS)
    bins = [points[start : start + size] for start in range(0, len(points), size)]
    return np.array([rows.mean(axis=0) for rows in bins])


def _short(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"
