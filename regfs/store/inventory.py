"""What is in the cache: its files by kind, with the room that they take on the disk.

    blobs       blobs/<algorithm>/<hh>/<hex>                    manifests, configs, layers as they were sent
    objects     objects/<hh>/<hex>                              big files of layers
    layers      layers/<diff id>.index .pack .sums              tables and small files of layers
    images      images/<chain id>.merged .sums                  merged tables
    under way   passes/**, and files whose name begins with a dot  what is being written, or was left by a crash

Sizes are those of st_blocks, because the disk is what is limited. A walk takes some 3 us a file. Used by the budget and
the verbs. Thread rule: a value; files may come and go while it is made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

KINDS = ("blobs", "objects", "layers", "images", "under way")
BLOBS, OBJECTS, LAYERS, IMAGES, PASSES = "blobs", "objects", "layers", "images", "passes"
INDEX, PACK, MERGED = ".index", ".pack", ".merged"
_BLOCK = 512


class CachedFile(NamedTuple):
    """A file of the cache: bytes on the disk, and when it was used last (nanoseconds since 1970)."""

    path: Path
    size: int
    used_ns: int


@dataclass(slots=True)
class Inventory:
    """The files of a cache. Layers and images by the stem of their files' names, and then by suffix."""

    blobs: list[CachedFile] = field(default_factory=list)
    objects: dict[str, CachedFile] = field(default_factory=dict)
    layers: dict[str, dict[str, CachedFile]] = field(default_factory=dict)
    images: dict[str, dict[str, CachedFile]] = field(default_factory=dict)
    under_way: list[CachedFile] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Return how many blobs, objects, layers … there are."""
        numbers = (len(self.blobs), len(self.objects), len(self.layers), len(self.images), len(self.under_way))
        return dict(zip(KINDS, numbers, strict=True))

    def sizes(self) -> dict[str, int]:
        """Return the bytes on the disk of each kind."""
        layers = [file for files in self.layers.values() for file in files.values()]
        images = [file for files in self.images.values() for file in files.values()]
        of_kinds = (self.blobs, self.objects.values(), layers, images, self.under_way)
        return {kind: sum(file.size for file in files) for kind, files in zip(KINDS, of_kinds, strict=True)}

    @property
    def size(self) -> int:
        """All bytes on the disk."""
        return sum(self.sizes().values())


def take_inventory(root: Path) -> Inventory:
    """Return what is in the cache at *root*; nothing where there is none. Raises OSError."""
    found = Inventory()
    # A pass gives objects that are there already a second name: their bytes are counted where they have the first.
    found.under_way.extend(_files(root / PASSES, links=1))
    for file in _files(root / BLOBS):
        (found.under_way if file.path.name.startswith(".") else found.blobs).append(file)
    for file in _files(root / OBJECTS):
        found.objects[file.path.name] = file
    for directory, tables in ((LAYERS, found.layers), (IMAGES, found.images)):
        for file in _files(root / directory):
            if file.path.name.startswith("."):
                found.under_way.append(file)
            else:
                tables.setdefault(file.path.stem, {})[file.path.suffix] = file
    return found


def _files(directory: Path, *, links: int = 1 << 30) -> Iterator[CachedFile]:
    """Yield the files below *directory* that have at most that many names."""
    try:
        entries = list(os.scandir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path), links=links)
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if status.st_nlink <= links:
            yield CachedFile(Path(entry.path), status.st_blocks * _BLOCK, status.st_mtime_ns)
