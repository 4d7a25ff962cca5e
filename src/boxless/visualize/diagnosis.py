"""A diagnosis as a chart: the outcomes of the detections, beside the recall of objects."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from boxless.visualize.colours import OKABE_ITO, Colour, text_colour_on
from boxless.visualize.text import drawable, families
from boxless.wording import counted, supervision_note

if TYPE_CHECKING:
    from boxless.metrics.errors import Outcome

LEGEND: dict["Outcome", tuple[Colour, str]] = {
    "correct": (OKABE_ITO["green"], "correct"),
    "part": (OKABE_ITO["orange"], "part: inside an object, too small"),
    "group": (OKABE_ITO["sky blue"], "group: several objects in one box"),
    "too_large": (OKABE_ITO["blue"], "too large: one object and much background"),
    "poorly_placed": (OKABE_ITO["purple"], "poorly placed: overlaps an object"),
    "duplicate": (OKABE_ITO["yellow"], "duplicate: of an object already found"),
    "other_class": (OKABE_ITO["vermilion"], "other class: on an object of another class"),
    "background": ((150, 150, 150), "background"),
}
"""Colour and description of every outcome."""
KINDS = {
    "size": "by size of the object (COCO)",
    "fraction": "by share of the image",
    "count": "by objects of its class in the image",
    "order": "first of its class in the image, or further",
}
"""By key in `recall_by`, how objects are grouped."""
# Inches, as all lengths here.
_WIDTH, _BARS, _RECALLS = 13.4, 5.6, 1.8
_LINE = 0.32
_DPI = 110
_LONGEST = 20
"""The maximum number of letters of a class name."""


def plot_diagnosis(diagnosis: dict[str, Any]) -> NDArray[np.uint8]:
    """Draw stacked bars of the outcomes of the detections, for every class, and bars of the share of objects found.

    Args:
        diagnosis: what `boxless.diagnose` gives.

    Returns:
        (h, w, 3) uint8, RGB; the more classes, the higher.
    """
    rows = _rows(diagnosis)
    bars, legend = len(rows) * min(0.6, max(0.34, 3 / len(rows))), 2.2
    recalls = _LINE * (sum(1.3 + len(bins) for bins in diagnosis["recall_by"].values()) - 0.3)
    height = 1.5 + max(bars + legend, recalls)
    figure = Figure((_WIDTH, height), dpi=_DPI)
    figure.text(0.3 / _WIDTH, 1 - 0.4 / height, headline(diagnosis), fontsize=15, weight="bold")
    images = counted(diagnosis["images"], "image")
    beside = drawable(f"{diagnosis['data']}, {images} with boxes{supervision_note(diagnosis)}")
    place, fonts = (0.3 / _WIDTH, 1 - 0.65 / height), families(beside)
    figure.text(*place, beside, fontsize=11, color="0.4", parse_math=False, fontfamily=fonts)

    def axes(left: float, top: float, width: float, high: float) -> Axes:
        return figure.add_axes((left / _WIDTH, 1 - (top + high) / height, width / _WIDTH, high / height))

    _draw_outcomes(axes(2.7, 1.25, _BARS, bars), rows)
    _draw_legend(axes(2.7, 1.25 + bars, _BARS, legend))
    _draw_recalls(axes(_WIDTH - 2.2 - _RECALLS, 1.25, _RECALLS, recalls), diagnosis)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def _rows(diagnosis: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    classes = list(diagnosis["classes"].items())
    return classes if len(classes) == 1 else [("all classes", diagnosis), *classes]


def headline(diagnosis: dict[str, Any]) -> str:
    """A diagnosis in one line."""
    count, outcomes = diagnosis["detections"], diagnosis["outcomes"]
    if not count:
        return "Nothing detected"
    said = counted(count, "top-scored detection is", "top-scored detections are")
    text = f"{_percent(diagnosis['correct_rate'])} of the {said} correct"
    worst = max((name for name in outcomes if name != "correct"), key=lambda name: outcomes[name])
    if not outcomes[worst]:
        return text
    return f"{text}; most frequent error: {worst.replace('_', ' ')} ({_percent(diagnosis[f'{worst}_rate'])})"


def _draw_outcomes(axes: Axes, rows: list[tuple[str, dict[str, Any]]]) -> None:
    places = np.arange(len(rows))
    ends = np.zeros(len(rows))
    for outcome, (colour, _) in LEGEND.items():
        shares = np.array([row[f"{outcome}_rate"] or 0 for _, row in rows])
        bars = axes.barh(places, shares, left=ends, height=0.8, color=_tone(colour), edgecolor="white", linewidth=1)
        labels = [f"{share:.0%}".rstrip("%") if share >= 0.025 else "" for share in shares]
        axes.bar_label(bars, labels, label_type="center", color=text_colour_on(colour), fontsize=10)
        ends += shares
    for place, (_, row) in enumerate(rows):
        if not row["detections"]:
            text = "nothing detected" if row["objects"] else "no objects, so nothing to evaluate"
            axes.text(0.01, place, text, va="center", color="0.4")
    axes.set_title("Outcomes of the top-scored detections, in % (number in brackets)", loc="left", fontsize=12, pad=10)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    names = [f"{_short(drawable(name))} ({row['detections']})" for name, row in rows]
    axes.set_yticks(places, names, parse_math=False, fontfamily=families("".join(names)))
    if len(rows) > 1:
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.axhline(0.5, color="0.4", linewidth=1)
    _strip(axes)


def _draw_legend(axes: Axes) -> None:
    patches = [Patch(color=_tone(colour), label=text) for colour, text in LEGEND.values()]
    axes.legend(handles=patches, loc="upper left", frameon=False, fontsize=11)
    axes.set_axis_off()


def _draw_recalls(axes: Axes, diagnosis: dict[str, Any]) -> None:
    places, names, line = [], [], 0.0
    for kind, title in KINDS.items():
        axes.text(0, line, title, va="center", weight="bold", fontsize=11)
        for name, row in diagnosis["recall_by"][kind].items():
            line += 1
            places.append(line)
            names.append(name)
            axes.barh(line, 1, height=0.8, color="0.92")
            axes.barh(line, row["recall"] or 0, height=0.8, color=_tone(OKABE_ITO["green"]))
            counts = f"({row['found']} of {row['objects']})"
            text = f"{_percent(row['recall'])}  {counts}" if row["objects"] else "no objects"
            axes.text(1.04, line, text, va="center", fontsize=11)
        line += 1.3
    objects, found = diagnosis["objects"], diagnosis["found"]
    total = f"{_percent(diagnosis['recall'])}, {found} of {objects}" if objects else "there are no objects"
    axes.set_title(f"Objects found: {total}", loc="left", fontsize=12, pad=10)
    axes.set_xlim(0, 1)
    axes.set_ylim(line - 0.8, -0.5)
    axes.set_yticks(places, names)
    _strip(axes)


def _strip(axes: Axes) -> None:
    """Remove ticks and frame, which the labels make redundant."""
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0, labelsize=11)
    axes.spines[:].set_visible(False)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1].rstrip()}…"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _tone(colour: Colour) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255
