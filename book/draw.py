"""Draw what the book is dressed with: the logo, the favicon and the road of the class.

    python book/draw.py

writes images/logo.svg, images/favicon.svg and images/road.html. The road is drawn twice, wide and tall;
the style sheet shows the one that fits the screen and colors both for light and for dark pages.
"""

from itertools import pairwise
from math import cos, pi, sin
from pathlib import Path

IMAGES = Path(__file__).resolve().parent / "images"

STOPS = [  # number, title in two lines, when and what, page
    ("0", "The whole", "road once", "week 0", "notebooks/00_journey.html"),
    ("I", "From neuron", "to transformer", "weeks 1–3", "parts/transformer.html"),
    ("II", "Loop", "and data", "weeks 4–5", "parts/loop.html"),
    ("III", "The", "machine", "weeks 6–7", "parts/machine.html"),
    ("IV", "One", "billion", "week 8", "parts/billion.html"),
    ("V", "Teach it,", "judge it", "weeks 9–10", "parts/teach.html"),
    ("VI", "Use and", "science", "weeks 11–12", "parts/science.html"),
    ("VII", "Dandelion", "", "the last days", "parts/dandelion.html"),
]


def seed(x: float, y: float, size: float, lean: float = 0.0, rays: int = 11) -> str:
    """A dandelion seed whose parachute opens at (x, y); `lean` turns it, in radians."""

    def at(angle: float, length: float) -> str:
        return f"{x + length * sin(angle + lean):.1f} {y - length * cos(angle + lean):.1f}"

    angles = [pi * (i / (rays - 1) - 0.5) * 1.15 for i in range(rays)]
    lengths = [size * (0.86 + 0.14 * cos(angle)) for angle in angles]
    filaments = "".join(f"M{at(0, 0)}L{at(a, n)}" for a, n in zip(angles, lengths, strict=True))
    tips = "".join(f"M{at(a, n)}h.01" for a, n in zip(angles, lengths, strict=True))
    stalk = f"M{at(0, 0)}L{at(pi, size * 0.85)}"
    fruit = f"M{at(pi, size * 0.8)}L{at(pi, size * 1.12)}"
    width = size / 22
    return (
        f'<g fill="none" stroke-linecap="round" class="seed">'
        f'<path d="{filaments}{stalk}" stroke-width="{width:.2f}"/>'
        f'<path d="{tips}" stroke-width="{width * 3.4:.2f}"/>'
        f'<path d="{fruit}" stroke-width="{width * 4.6:.2f}"/></g>'
    )


def clock(x: float, y: float, size: float) -> str:
    """A dandelion's head, some of whose seeds have left."""
    parts = [f'<path d="M{x} {y}C{x} {y + size} {x - 4} {y + 1.6 * size} {x - 8} {y + 2.1 * size}" class="stem"/>']
    for i in range(17):
        angle = 2 * pi * i / 17
        if not 0.5 < angle < 1.5:
            parts.append(seed(x + 0.62 * size * sin(angle), y - 0.62 * size * cos(angle), size * 0.36, angle, 7))
    parts.append(f'<circle cx="{x}" cy="{y}" r="{size * 0.13:.1f}" class="heart"/>')
    return "".join(parts)


def logo() -> str:
    """One seed on a square without ground; its amber is legible on white and on black."""
    style = "<style>.seed{stroke:#c58417}</style>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">{style}{seed(30, 31, 26, 0.2)}</svg>\n'


def road(points: list[tuple[float, float]], upright: bool) -> str:
    """A smooth path through points: the ground and its dashed middle."""
    d = f"M{points[0][0]:.0f} {points[0][1]:.0f}"
    for (x0, y0), (x1, y1) in pairwise(points):
        mx, my = (x0 + x1) / 2, (y0 + y1) / 2
        d += f"C{x0:.0f} {my:.0f} {x1:.0f} {my:.0f}" if upright else f"C{mx:.0f} {y0:.0f} {mx:.0f} {y1:.0f}"
        d += f" {x1:.0f} {y1:.0f}"
    return f'<path d="{d}" class="ground"/><path d="{d}" class="middle"/>'


def stop(x: float, y: float, number: str) -> str:
    """A milestone."""
    return f'<circle cx="{x:.0f}" cy="{y:.0f}" r="19"/><text x="{x:.0f}" y="{y + 5:.0f}" class="number">{number}</text>'


def wide() -> str:
    """The road from left to right, for a desk."""
    xs = [52 + 100 * i for i in range(len(STOPS))]
    ys = [318, 268, 296, 232, 258, 190, 214, 150]
    body = seed(38, 222, 30, -0.15) + road(list(zip(xs, ys, strict=True)), upright=False) + clock(755, 58, 50)
    body += seed(812, 40, 15, 0.9, 7) + seed(640, 44, 13, -0.5, 7) + seed(580, 88, 10, 0.4, 7)
    for x, y, (number, first, second, when, page) in zip(xs, ys, STOPS, strict=True):
        lines = [line for line in (first, second) if line]
        text = "".join(f'<text x="{x}" y="{y + 46 + 18 * i}">{line}</text>' for i, line in enumerate(lines))
        text += f'<text x="{x}" y="{y + 46 + 18 * len(lines)}" class="when">{when}</text>'
        body += f'<a href="{page}">{stop(x, y, number)}{text}</a>'
    return f'<svg class="road wide" viewBox="0 0 840 410" role="img" aria-label="{LABEL}">{body}</svg>'


def tall() -> str:
    """The road from top to bottom, for a phone."""
    ys = [96 + 78 * i for i in range(len(STOPS))]
    xs = [58 if i % 2 else 92 for i in range(len(STOPS))]
    body = seed(92, 36, 24, -0.15) + road(list(zip(xs, ys, strict=True)), upright=True) + clock(290, 640, 44)
    body += seed(338, 566, 14, 0.8, 7) + seed(316, 508, 11, -0.4, 7)
    for x, y, (number, first, second, when, page) in zip(xs, ys, STOPS, strict=True):
        text = f'<text x="140" y="{y}" class="left">{first} {second}</text>'
        text += f'<text x="140" y="{y + 20}" class="when left">{when}</text>'
        body += f'<a href="{page}">{stop(x, y, number)}{text}</a>'
    return f'<svg class="road tall" viewBox="0 0 360 760" role="img" aria-label="{LABEL}">{body}</svg>'


LABEL = "The road of the class: eight stops from a first run in week 0 to the dandelion at the end"


def main() -> None:
    """Write the pictures."""
    (IMAGES / "logo.svg").write_text(logo())
    (IMAGES / "favicon.svg").write_text(logo())
    (IMAGES / "road.html").write_text(f'<div class="road">\n{wide()}\n{tall()}\n</div>\n')


if __name__ == "__main__":
    main()
