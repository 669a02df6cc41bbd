"""The figures against the number of nodes, as an SVG: one panel for each, one line for each share of dead nodes."""

from collections.abc import Callable, Sequence
from math import log10
from typing import Any

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 50, 15, 34, 34
COLOURS = ("#1b7f5c", "#c7771a", "#b3304f", "#44507f")

Cell = dict[str, Any]
Panel = tuple[str, Callable[[Cell], float]]

PANELS: tuple[Panel, ...] = (
    ("success, %", lambda cell: 100 * cell["lookups_after_announcing"]["success"]),
    ("datagrams per lookup", lambda cell: cell["lookups_at_once"]["datagrams"]),
    (
        "the same without further pages",
        lambda cell: cell["lookups_at_once"]["datagrams_without_further_pages"],
    ),
    ("kB per lookup", lambda cell: cell["lookups_at_once"]["bytes"] / 1000),
    ("time p50, ms", lambda cell: cell["lookups_at_once"]["milliseconds_p50"]),
    ("time p99, ms", lambda cell: cell["lookups_at_once"]["milliseconds_p99"]),
)


def draw(cells: Sequence[Cell]) -> str:
    """The SVG's text."""
    rows = -(-len(PANELS) // 2)
    width, height = 2 * WIDTH, rows * HEIGHT + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for index, (title, value) in enumerate(PANELS):
        x, y = index % 2 * WIDTH, index // 2 * HEIGHT
        parts.append(f'<g transform="translate({x} {y})">{_panel(title, value, cells)}</g>')
    for index, dead in enumerate(_shares(cells)):
        x = LEFT + index * 130
        parts.append(f'<rect x="{x}" y="{height - 18}" width="18" height="3" fill="{_colour(index)}"/>')
        parts.append(f'<text x="{x + 24}" y="{height - 12}">{dead:.0%} dead contacts</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(title: str, value: Callable[[Cell], float], cells: Sequence[Cell]) -> str:
    sizes = sorted({cell["nodes"] for cell in cells})
    top = max(value(cell) for cell in cells) * 1.1 or 1.0
    first, last = log10(sizes[0]), log10(sizes[-1])

    def across(size: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (
            (log10(size) - first) / (last - first) if last > first else 0.5
        )

    def up(figure: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * figure / top

    parts = [f'<text x="{LEFT}" y="{TOP - 12}" font-size="13">{title}</text>']
    for step in range(5):
        figure = top * step / 4
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(figure):.1f}" y2="{up(figure):.1f}" stroke="#ddd"/>'
            f'<text x="{LEFT - 6}" y="{up(figure) + 4:.1f}" text-anchor="end">{figure:.3g}</text>'
        )
    for size in sizes:
        parts.append(
            f'<text x="{across(size):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{size:,}</text>'
        )
    for index, dead in enumerate(_shares(cells)):
        line = sorted((cell["nodes"], value(cell)) for cell in cells if cell["dead"] == dead)
        points = " ".join(f"{across(size):.1f},{up(figure):.1f}" for size, figure in line)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{_colour(index)}" stroke-width="2"/>'
            + "".join(
                f'<circle cx="{point.split(",")[0]}" cy="{point.split(",")[1]}" r="3" fill="{_colour(index)}"/>'
                for point in points.split()
            )
        )
    return "".join(parts)


def _shares(cells: Sequence[Cell]) -> list[float]:
    return sorted({cell["dead"] for cell in cells})


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]
