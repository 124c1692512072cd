"""Change: one path that differs between two images, as regfs.diff() tells it. Made by client.py. Values; any thread."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from regfs.images.comparing.image_differences import FileChange, file_changes
from regfs.images.image import Image
from regfs.library.failures import asking


@dataclass(frozen=True, slots=True)
class Change:
    """One path that was added, removed or changed from the image a to the image b.

    *fields* are what changed of a path that both have: type, mode, owner, size, content, target, xattrs, device.
    *layer* is the number of the layer that did it, None for a directory that no layer describes; it is a layer of
    *image*: "b", or "a" where that has what b lacks. *command* made the layer, where that is known.
    """

    kind: Literal["added", "removed", "changed"]
    path: str
    fields: tuple[str, ...]
    image: str
    layer: int | None
    command: str


def changes(a: Image, b: Image, path: str, *, timeout_s: float) -> Iterator[Change]:
    """Yield what differs from *a* to *b*, at and below *path*. Each step may wait for *timeout_s*."""
    found = file_changes(a, b, path=os.fsencode(path))
    while True:
        with asking(timeout_s):  # for one step: between two of them, the thread is the program's
            each = next(found, None)
        if each is None:
            return
        yield _change(each)


def _change(of: FileChange) -> Change:
    return Change(of.kind, f"/{os.fsdecode(of.path)}", of.fields, of.image, of.layer, of.command)
