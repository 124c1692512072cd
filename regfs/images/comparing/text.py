"""The differences of two images as lines of text, for `regfs diff` and for `summary` in a mount. Pure; any thread.

    M /etc/os-release  size 300 -> 312, content  [b 002: RUN apt-get upgrade]
    D /etc/motd  [b 001: RUN rm /etc/motd]
    A config env LANG  C.UTF-8

Brackets name the image and the layer that made the difference.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from regfs.model.attributes import TYPES, Attributes
from regfs.model.path_text import printable

if TYPE_CHECKING:
    from regfs.images.comparing.image_differences import ConfigChange, FileChange

LETTERS = {"added": "A", "removed": "D", "changed": "M"}
"""The first letter of a line, by the kind of change."""
_MOST_COMMAND = 90


def file_line(change: FileChange) -> str:
    """Return the line for one path."""
    fields = ", ".join(_field(field, change) for field in change.fields)
    parts = (f"{LETTERS[change.kind]} /{printable(change.path)}", fields, layer_text(*change[3:5], change.command))
    return "  ".join(filter(None, parts))


def _field(field: str, change: FileChange) -> str:
    """Return the name of a field, with both values if these are short."""
    a, b = change.a, change.b
    if a is None or b is None:
        return field
    values = {
        "type": (type_of(a), type_of(b)),
        "mode": (f"{stat.S_IMODE(a.mode):04o}", f"{stat.S_IMODE(b.mode):04o}"),
        "owner": (f"{a.uid}:{a.gid}", f"{b.uid}:{b.gid}"),
        "size": (str(a.size), str(b.size)),
    }.get(field)
    return field if values is None else f"{field} {values[0]} -> {values[1]}"


def layer_text(image: str, layer: int | None, command: str) -> str:
    """Return image, layer and the beginning of its command in brackets; '' without a layer."""
    if layer is None:
        return ""
    words = _one_line(" ".join(command.split()))
    shown = words if len(words) <= _MOST_COMMAND else f"{words[: _MOST_COMMAND - 1]}…"
    return f"[{image} {layer:03d}{': ' if shown else ''}{shown}]"


def config_line(change: ConfigChange) -> str:
    """Return the line for one setting."""
    name = _one_line(" ".join(filter(None, (change.field, change.key))))
    if change.a is None or change.b is None:
        letter, value = ("A", change.b) if change.a is None else ("D", change.a)
        return f"{letter} config {name}  {_one_line(value or '')}".rstrip()
    return f"M config {name}  {_one_line(change.a)} -> {_one_line(change.b)}"


def _one_line(text: str) -> str:
    return printable(text.encode("utf-8", "backslashreplace"))


def type_of(of: Attributes) -> str:
    """Return the name of a file's type, by its mode."""
    return TYPES.get(stat.S_IFMT(of.mode), "unknown")
