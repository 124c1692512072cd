"""Change: a path that differs between two images, as regfs.diff() yields it. Made by client.py. Values; any thread."""

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

    *fields* names what changed of a path that both images have: type, mode, owner, size, content, target, xattrs,
    device. *layer* is the number of the layer that made the difference, None for a directory that no layer describes.
    It is a layer of *image*: "b", or "a" if a's layer made the difference. *command* is the build step of that layer,
    "" if unknown.
    """

    kind: Literal["added", "removed", "changed"]
    path: str
    fields: tuple[str, ...]
    image: str
    layer: int | None
    command: str


def changes(a: Image, b: Image, path: str, *, timeout_s: float) -> Iterator[Change]:
    """Yield what differs from *a* to *b*, at and below *path*. Each step may wait up to *timeout_s* seconds."""
    found = file_changes(a, b, path=os.fsencode(path))
    while True:
        with asking(timeout_s):  # only for this step: between two steps the program's own code runs in this thread
            each = next(found, None)
        if each is None:
            return
        yield _change(each)


def _change(of: FileChange) -> Change:
    return Change(of.kind, f"/{os.fsdecode(of.path)}", of.fields, of.image, of.layer, of.command)
