"""The figures of the report card: as PNG files for Markdown, and as SVG that takes its colors from the page."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minigpt.config import RunConfig

WIDE, NARROW = (7.2, 3.2), (4.0, 3.1)
"""Inches: on a screen and in Markdown; on a phone."""

MOST_POINTS = 1500
"""So many points a line has at most; of longer ones, the lowest and the highest of each stretch are kept."""


@dataclass(frozen=True)
class Palette:
    """What the colors of a figure are for."""

    ink: str
    muted: str
    faint: str
    accent: str
    warning: str


PAPER = Palette(ink="#1a1a1a", muted="#8a8a8a", faint="#d0d0d0", accent="#1f77b4", warning="#c0392b")

PAGE = Palette(ink="#010101", muted="#020202", faint="#030303", accent="#040404", warning="#050505")
"""Stand-ins: in the SVG each becomes a variable of the page's style, var(--ink) and so on."""

Drawing = Callable[[Axes, Palette], None]


def png(path: Path, draw: Drawing) -> None:
    """One figure into a PNG file, without touching a notebook's own plotting."""
    partial = path.with_name(path.name + ".partial")
    with matplotlib.rc_context(style(PAPER)):
        figure = Figure(figsize=WIDE, dpi=150, layout="constrained")
        draw(figure.add_subplot(), PAPER)
        figure.savefig(partial, format="png")
    partial.replace(path)


def svg(name: str, draw: Drawing, size: tuple[float, float]) -> str:
    """One figure as an element that stands in a page, with the page's colors and nothing from outside."""
    text = io.StringIO()
    with matplotlib.rc_context(style(PAGE) | {"svg.hashsalt": f"{name} {size}"}):
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0)
        draw(figure.add_subplot(), PAGE)
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawn = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text.getvalue(), flags=re.DOTALL)
    for use, color in vars(PAGE).items():
        drawn = drawn.replace(color, f"var(--{use})")
    return drawn[drawn.index("<svg") :]


def style(palette: Palette) -> dict[str, Any]:
    """matplotlib's settings for a figure in these colors."""
    return {"svg.fonttype": "none", "font.size": 9, "text.color": palette.ink, "axes.edgecolor": palette.muted,
            "axes.labelcolor": palette.ink, "xtick.color": palette.ink, "ytick.color": palette.ink,
            "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none",
            "legend.frameon": False, "legend.fontsize": 8}


def thin(x: list[float], y: list[float]) -> tuple[list[float], list[float]]:
    """A line of few points that looks like one of many: of each stretch, its lowest and its highest point."""
    if len(x) <= MOST_POINTS:
        return x, y
    keep: list[int] = []
    for stretch in np.array_split(np.arange(len(x)), MOST_POINTS // 2):
        values = [y[i] for i in stretch]
        keep += sorted({int(stretch[int(np.argmin(values))]), int(stretch[int(np.argmax(values))])})
    return [x[i] for i in keep], [y[i] for i in keep]


def unit(tokens: float) -> tuple[float, str]:
    """The unit for so many tokens."""
    return (1e9, "billions") if tokens >= 2e9 else (1e6, "millions")


def draw_loss(log: list[dict[str, float]], events: list[dict[str, Any]], config: RunConfig) -> Drawing:
    """Training loss as a line and validation loss as points; where the run came back, spiked, rewound, or lost a
    checkpoint."""
    scale, word = unit(log[-1]["tokens"])
    at = config.tokens_per_step / scale

    def draw(axes: Axes, palette: Palette) -> None:
        x, losses = [row["tokens"] / scale for row in log], [row["loss"] for row in log]
        top = ceiling(losses)
        axes.plot(*thin(x, losses), color=palette.muted, linewidth=0.8, label="training, each step")
        measured = [row for row in log if "validation_loss" in row]
        axes.plot([row["tokens"] / scale for row in measured], [row["validation_loss"] for row in measured], "o-",
                  color=palette.accent, markersize=4, label="validation")
        mark(axes, palette, events, at, top)
        axes.set_ylim(min(losses) - 0.06 * (top - min(losses)), top)
        axes.set_xlabel(f"training tokens ({word})")
        axes.set_ylabel("loss (nats a token)")
        axes.figure.legend(loc="outside lower center", ncols=3 if axes.figure.get_figwidth() > NARROW[0] else 2)

    return draw


def ceiling(losses: list[float]) -> float:
    """The upper edge: above the first losses and nearly all others, so that a spike does not press the curve flat."""
    usual = max(losses[0], float(np.percentile(losses, 99)))
    return min(1.06 * max(losses), 1.25 * usual)


def mark(axes: Axes, palette: Palette, events: list[dict[str, Any]], at: float, top: float) -> None:
    """What happened, each kind under one label: at the step where it happened, `at` to a step."""
    def places(kind: str) -> list[float]:
        return [event["step"] * at for event in events if event["event"] == kind]

    back = [event["step"] * at for event in events if event["event"] == "start" and event.get("checkpoint")]
    for number, x in enumerate(back):
        axes.axvline(x, color=palette.ink, linewidth=0.8, linestyle=(0, (4, 3)),
                     label="came back" if number == 0 else None)
    for number, event in enumerate(event for event in events if event["event"] == "rewind"):
        axes.axvspan(event["to_step"] * at, event["step"] * at, color=palette.warning, alpha=0.15, linewidth=0,
                     label="rewound" if number == 0 else None)
    for kind, marker, label in (("alarm", "v", "spike"), ("damaged", "X", "damaged checkpoint")):
        if found := places(kind):
            axes.plot(found, [top] * len(found), marker, color=palette.warning, markersize=7, clip_on=False,
                      linestyle="none", label=label, zorder=5)


def draw_speed(log: list[dict[str, float]]) -> Drawing:
    """Tokens a second at every step, and their median."""
    scale, word = unit(log[-1]["tokens"])
    rates = [row["tokens_per_second"] for row in log]
    middle = float(np.median(rates))

    def draw(axes: Axes, palette: Palette) -> None:
        axes.plot(*thin([row["tokens"] / scale for row in log], rates), color=palette.muted, linewidth=0.8)
        axes.axhline(middle, color=palette.accent, linewidth=1.2, label=f"median {middle:,.0f}")
        axes.legend(loc="lower right")
        axes.set_ylim(0, 1.1 * max(rates))
        axes.set_xlabel(f"training tokens ({word})")
        axes.set_ylabel("tokens a second")
        axes.yaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))

    return draw


def draw_ladder(figures: dict[str, float], intervals: dict[str, tuple[float, float] | None]) -> Drawing:
    """Bits per byte as bars, one a model, labeled with their value; a line over each end where 95 % lie."""
    names, values = list(figures), list(figures.values())

    def draw(axes: Axes, palette: Palette) -> None:
        axes.barh(names, values, color=[palette.faint] * (len(names) - 1) + [palette.accent])
        for row, (name, value) in enumerate(figures.items()):
            low, high = intervals.get(name) or (value, value)
            axes.plot([low, high], [row, row], color=palette.ink, linewidth=1.2)
            axes.annotate(f"{value:.2f}", (max(value, high), row), xytext=(4, 0), textcoords="offset points",
                          va="center")
        axes.invert_yaxis()
        axes.set_xlabel("bits per byte of validation text (lower is better)")
        axes.margins(x=0.12)

    return draw
