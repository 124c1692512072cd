"""What is in the cache: its files by kind, with the room that they take on the disk.

    blobs       blobs/<algorithm>/<hh>/<hex>                    manifests, configs, layers as they were sent
    objects     objects/<boot id>/<diff id>/<offset>-<size>     copies of big files of layers (promotion.py)
    layers      layers/<diff id>.index .tar .sums .chunks       tables and data files of layers
                layers/<diff id>.parts                          what was fetched again of an evicted data file
                layers/<diff id>.digests                        digests of their files (content_digests.py)
    images      images/<chain id>.merged .sums .erofs           merged tables, and EROFS images of them
                images/<chain id>.same-<other chain id>         what comparisons of two images found (verdicts.py)
                images/<chain id>.added-<other chain id> …      trees of that (tables_of_differences.py)
    under way   ingests/**, and files whose name begins with a dot  what is being written, or was left by a crash

Sizes are those of st_blocks, because the disk is what is limited. A walk takes some 3 us a file. Used by the budget and
the verbs. Thread rule: a value; files may come and go while it is made.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

KINDS = ("blobs", "objects", "layers", "images", "under way")
BLOBS, OBJECTS, LAYERS, IMAGES, INGESTS = "blobs", "objects", "layers", "images", "ingests"
INDEX, DATA, CHUNKS, DIGESTS, MERGED, EROFS = ".index", ".tar", ".chunks", ".digests", ".merged", ".erofs"
PARTS = ".parts"
OLD_PACK = ".pack"
"""What an older release kept beside an index of its own in place of a data file."""
OLD_INGESTS = "passes"
"""Where an older release had what is in INGESTS now."""
_BLOCK = 512


class CachedFile(NamedTuple):
    """A file of the cache: bytes on the disk, and when it was used last (nanoseconds since 1970).

    A cache has some hundred thousand: all files of a directory share its string, and paths are made on demand.
    """

    directory: str
    name: str
    size: int
    used_ns: int

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.directory, self.name)

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return os.path.splitext(self.name)[0]

    @property
    def suffix(self) -> str:
        """The last dot of the name, and what follows."""
        return os.path.splitext(self.name)[1]

    @property
    def is_temporary(self) -> bool:
        """Whether it is being written, or was when its writer died."""
        return self.name.startswith(".")


@dataclass(slots=True)
class Inventory:
    """The files of a cache. Layers and images by the stem of their files' names, and then by suffix."""

    blobs: list[CachedFile] = field(default_factory=list)
    objects: list[CachedFile] = field(default_factory=list)
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
        of_kinds = (self.blobs, self.objects, layers, images, self.under_way)
        return {kind: sum(file.size for file in files) for kind, files in zip(KINDS, of_kinds, strict=True)}

    def promoted(self, layer: str) -> list[CachedFile]:
        """Return the copies of big files of the layer that is called *layer*."""
        return [file for file in self.objects if os.path.basename(file.directory) == layer]

    @property
    def size(self) -> int:
        """All bytes on the disk."""
        return sum(self.sizes().values())


def take_inventory(root: Path) -> Inventory:
    """Return what is in the cache at *root*; an empty Inventory if there is none. Raises OSError."""
    found = Inventory()
    for directory in (INGESTS, OLD_INGESTS):
        found.under_way.extend(_files(root / directory))
    for directory, files in ((BLOBS, found.blobs), (OBJECTS, found.objects)):
        for file in _files(root / directory):
            (found.under_way if file.is_temporary else files).append(file)
    for directory, tables in ((LAYERS, found.layers), (IMAGES, found.images)):
        for file in _files(root / directory):
            if file.is_temporary:
                found.under_way.append(file)
            else:
                tables.setdefault(file.stem, {})[sys.intern(file.suffix)] = file
    return found


def used_by(root: Path) -> int:
    """Return the bytes on the disk of all that is in the cache at *root*. Keeps nothing in memory. Raises OSError."""
    kinds = (BLOBS, OBJECTS, LAYERS, IMAGES, INGESTS, OLD_INGESTS)
    return sum(status.st_blocks for kind in kinds for _, _, status in _walk(root / kind)) * _BLOCK


def _files(directory: Path) -> Iterator[CachedFile]:
    """Yield the files below *directory*."""
    for where, name, status in _walk(directory):
        yield CachedFile(where, name, status.st_blocks * _BLOCK, status.st_mtime_ns)


def _walk(directory: Path | str) -> Iterator[tuple[str, str, os.stat_result]]:
    """Yield directory, name and status of each file below *directory*."""
    where, below = os.fspath(directory), []
    try:
        with os.scandir(where) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                    continue
                try:
                    yield where, entry.name, entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in below:
        yield from _walk(os.path.join(where, name))
