"""`regfs du`: where the bytes of an image are, by layer and by directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import NamedTuple

from regfs.app.composition import build
from regfs.app.config import Config
from regfs.images.image import Image
from regfs.images.reports.layer_totals import layer_totals
from regfs.model.attributes import Attributes
from regfs.mount.mountpoint import mounts
from regfs.process.waiting.deadline import Deadline, under
from regfs.rootfs.file_tree import FileTree
from regfs.rootfs.rootfs import Rootfs
from regfs.rootfs.wasted import wasted_files
from regfs.verbs.image import fetching, find_image, merged_files
from regfs.verbs.image_paths import find_wanted, read_image_path

_PAGE = 1000


class LayerSize(NamedTuple):
    """One layer: bytes of its blob and of its files, number of its entries; *wasted*: bytes that upper layers hide."""

    layer: int
    digest: str
    compressed: int
    size: int
    entries: int
    wasted: int


class DirectorySize(NamedTuple):
    """A directory of the merged files, with everything below it; a hard link's bytes count once."""

    path: str
    size: int
    entries: int


class Sizes(NamedTuple):
    """Where the bytes are at and below *path*, the layers of the whole image for its root, else none.

    The first of *directories* is that path; the others have at most the depth asked for.
    """

    path: str
    layers: tuple[LayerSize, ...]
    directories: tuple[DirectorySize, ...]


def du(
    image_text: str, *, depth: int, config: Config, environment: Mapping[str, str], say: Callable[[str], None]
) -> Sizes:
    """Return the sizes of the image, its directories to *depth* below the root or the path, the biggest first.

    *image_text* is an IMAGE, an IMAGE:/PATH, or a path in a mount; symbolic links on the way are followed.
    Blocks on the network for the layers, of lazy ones only for their tables. Raises RegfsErrors.
    """
    wanted = read_image_path(image_text, config.default_registry, mounts())
    with closing(build(config, environment)) as app:
        image = find_image(wanted.reference, app)
        with fetching(app, say=say, environment=environment):
            files = merged_files(image, app)
        top = find_wanted(wanted, image, files)
        path = files.path(top)
        return Sizes(
            f"/{os.fsdecode(path)}", _layers(image, files, config) if not path else (), _sizes(files, top, depth)
        )


def _layers(image: Image, files: Rootfs, config: Config) -> tuple[LayerSize, ...]:
    wasted = [0] * len(image.layers)
    for each in wasted_files(files):
        wasted[each.layer] += each.size
    with under(Deadline(config.timeout_s, is_users=True)):
        totals = [layer_totals(image, layer) for layer in image.layers]
    return tuple(
        LayerSize(
            layer.number, str(layer.descriptor.digest), layer.descriptor.size, total.size, total.files,
            wasted[layer.number],
        )
        for layer, total in zip(image.layers, totals, strict=True)
    )  # fmt: skip


def _sizes(files: FileTree, top: int, depth: int) -> tuple[DirectorySize, ...]:
    """Return the directory *top*, and those down to *depth* below it, the biggest first; of a file, that alone."""
    prefix = files.path(top)
    attributes = Attributes.unpack(files.attributes(top))
    if not stat.S_ISDIR(attributes.mode):
        return (DirectorySize(f"/{os.fsdecode(prefix)}", attributes.size if stat.S_ISREG(attributes.mode) else 0, 1),)
    sizes: dict[bytes, list[int]] = {}
    seen: set[int] = set()
    waiting: list[tuple[bytes, int, tuple[bytes, ...]]] = [(prefix and b"/" + prefix, top, ())]
    while waiting:
        path, node, shown = waiting.pop()
        level = len(shown)
        if level <= depth:
            shown = (*shown, path)
            sizes[path] = [0, 0]
        start = 0
        while page := files.children(node, start, _PAGE):
            start += len(page)
            for name, child, packed in page:
                attributes = Attributes.unpack(packed)
                size = 0
                if stat.S_ISDIR(attributes.mode):
                    waiting.append((path + b"/" + name, child, shown))
                elif stat.S_ISREG(attributes.mode) and (attributes.nlink < 2 or child not in seen):
                    seen.add(child)
                    size = attributes.size
                for above in shown:
                    sizes[above][0] += size
                    sizes[above][1] += 1
    root, *others = [DirectorySize(os.fsdecode(path) or "/", *counted) for path, counted in sizes.items()]
    return (root, *sorted(others, key=lambda each: (-each.size, each.path)))
