"""`regfs which`: which layer of an image brought a path, by which command, and what is hidden below it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import NamedTuple

from regfs.app.composition import build
from regfs.app.config import Config
from regfs.errors import InvalidOption, NotADirectory, NotFound
from regfs.model.attributes import Attributes
from regfs.model.names import Reference
from regfs.mount.mountpoint import mounts
from regfs.rootfs.paths import find
from regfs.rootfs.rootfs import Rootfs
from regfs.rootfs.versions import versions
from regfs.verbs.image import fetching, find_image, merged_files
from regfs.verbs.image_argument import read_reference
from regfs.verbs.image_paths import read_image_path


class Brought(NamedTuple):
    """What one layer has at the path: *state* is `shown`, or `replaced` or `deleted` by the layer of number *by*."""

    layer: int
    digest: str
    command: str
    mode: int
    size: int
    state: str
    by: int | None


def which(
    image_text: str, path: str | None, *, config: Config, environment: Mapping[str, str], say: Callable[[str], None]
) -> tuple[str, list[Brought]]:
    """Return *path* without links on the way, and the layers that brought it, the uppermost first.

    *image_text* is an IMAGE, or without *path* an IMAGE:/PATH or the path of a file in a mount.
    A path that the image does not show is looked for in the layers as it is. Blocks on the network for the layers.
    Raises NotFound where no layer has it, InvalidOption without a path, and other RegfsErrors.
    """
    reference, path = _wanted(image_text, path, config.default_registry)
    with closing(build(config, environment)) as app:
        image = find_image(reference, app)
        with fetching(app, say=say, environment=environment):
            files = merged_files(image, app)
        real = _real_path(files, os.fsencode(path))
        found = versions(files, real) if real else []
        if not found:
            raise NotFound(f"{path} is in no layer of {image}")
        brought = []
        for each in found:
            layer, attributes = image.layers[each.layer], Attributes.unpack(each.attributes)
            state = "shown" if each.hidden_by is None else "deleted" if each.is_deleted else "replaced"
            brought.append(
                Brought(
                    each.layer, str(layer.descriptor.digest), layer.created_by, attributes.mode, attributes.size, state,
                    each.hidden_by,
                )
            )  # fmt: skip
    return f"/{os.fsdecode(real)}", brought


def _wanted(image_text: str, path: str | None, default_registry: str) -> tuple[Reference, str]:
    if path is not None:
        return read_reference(image_text, default_registry, mounts()), path
    wanted = read_image_path(image_text, default_registry, mounts())
    if not wanted.path:
        raise InvalidOption(f"required: PATH, or {image_text}:/PATH")
    return wanted.reference, f"/{wanted.path}"


def _real_path(files: Rootfs, path: bytes) -> bytes:
    """Return *path* without links on the way. A link at its end stays: the question is about the link."""
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if not names or names[-1] == b"..":
        return files.path(find(files, path))
    try:
        directory = files.path(find(files, b"/".join(names[:-1])))
    except (NotFound, NotADirectory):
        return b"/".join(names)
    return b"/".join(filter(None, (directory, names[-1])))
