"""A treemap for the terminal: directories as areas as big as their bytes, those of the biggest inside them.

    ┌ /usr 1018 MiB ───────────────────┐┌ /var 9.4 MiB ┐
    │┌ lib 612 MiB ──────┐┌ bin 90 MiB ┐│└──────────────┘

An area is cut along its longer side, the biggest first, and so are those in it, as long as there is room for a name.
Used by verbs/du.py. Pure; one thread. Source: B. Johnson, B. Shneiderman, "Tree-Maps", 1991 (slice and dice).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

# A character is about twice as high as it is wide.
_ASPECT = 2
_LEAST_WIDTH, _LEAST_HEIGHT = 8, 2
_STYLES = ("green", "cyan", "yellow", "magenta", "blue", "red")


class Area(NamedTuple):
    """A directory: its name, its *size* in the same unit as those *inside*, and what to write beside the name."""

    name: str
    size: int
    note: str
    inside: Sequence[Area] = ()


class _Box(NamedTuple):
    left: int
    top: int
    width: int
    height: int


def treemap(areas: Sequence[Area], width: int, height: int) -> Iterator[list[tuple[str, str]]]:
    """Yield the lines of the map, each as pieces of text with the style of each, by its name in rich."""
    letters = [[" "] * width for _ in range(height)]
    styles = [[""] * width for _ in range(height)]
    _draw(areas, _Box(0, 0, width, height), letters, styles, 0)
    for row, of_row in zip(letters, styles, strict=True):
        pieces: list[tuple[str, str]] = []
        for letter, style in zip(row, of_row, strict=True):
            if pieces and pieces[-1][1] == style:
                pieces[-1] = (pieces[-1][0] + letter, style)
            else:
                pieces.append((letter, style))
        yield pieces


def _draw(areas: Sequence[Area], box: _Box, letters: list[list[str]], styles: list[list[str]], first: int) -> None:
    """Draw *areas* into *box*, the biggest first, in styles from *first* on; those without room are left out."""
    left = sum(area.size for area in areas)
    for number, area in enumerate(sorted(areas, key=lambda each: -each.size)):
        if not left or box.width < _LEAST_WIDTH or box.height < _LEAST_HEIGHT or not area.size:
            return
        part, box = _cut(box, area.size / left)
        left -= area.size
        own = first + number
        if part.width >= _LEAST_WIDTH and part.height >= _LEAST_HEIGHT:
            _frame(area, part, letters, styles, _STYLES[own % len(_STYLES)])
            inside = _Box(part.left + 1, part.top + 1, part.width - 2, part.height - 2)
            _draw(area.inside, inside, letters, styles, own + 1)


def _cut(box: _Box, share: float) -> tuple[_Box, _Box]:
    """Return *share* of *box*, and the rest of it, cut across its longer side."""
    if box.width >= box.height * _ASPECT:
        width = round(box.width * share)
        return box._replace(width=width), box._replace(left=box.left + width, width=box.width - width)
    height = round(box.height * share)
    return box._replace(height=height), box._replace(top=box.top + height, height=box.height - height)


def _frame(area: Area, box: _Box, letters: list[list[str]], styles: list[list[str]], style: str) -> None:
    title = f" {area.name} {area.note} "
    if len(title) > box.width - 2:
        title = f" {area.name} "[: box.width - 2]
    lines = [f"┌{title}{'─' * (box.width - 2 - len(title))}┐"]
    lines += [f"│{' ' * (box.width - 2)}│"] * (box.height - 2)
    lines.append(f"└{'─' * (box.width - 2)}┘")
    for row, line in enumerate(lines, box.top):
        letters[row][box.left : box.left + box.width] = line
        styles[row][box.left : box.left + box.width] = [style] * box.width
