"""Finds what differs between two images: files, with the layer and command that made the difference, and configs.

Used by tree/, verbs/diff.py and library/. Thread rule: functions; any thread.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from regfs.errors import NotADirectory, NotFound
from regfs.images.comparing.contents import Nodes, Report, compared
from regfs.images.image import Image
from regfs.model.attributes import Attributes
from regfs.rootfs.differences import Child, Kind
from regfs.rootfs.origins import Origins
from regfs.rootfs.paths import find
from regfs.rootfs.rootfs import Rootfs


class FileChange(NamedTuple):
    """One path, without a slash in front, that differs from image a to image b; the root's is empty.

    *fields* are of a changed one: type, mode, owner, size, content, target, xattrs, device. *layer* is the number of
    the layer of *image* ("a" or "b") that made the difference, None for a directory that no layer describes; *digest*
    is that of its blob. *a* and *b* are what stat(2) says on both sides.
    """

    path: bytes
    kind: Kind
    fields: tuple[str, ...]
    image: str
    layer: int | None
    digest: str
    command: str
    a: Attributes | None
    b: Attributes | None


class ConfigChange(NamedTuple):
    """One setting of the configs that differs. *key* names it within `env`, `labels`, `ports` or `volumes`.

    *a* and *b* are its values, None if it is not set.
    """

    field: str
    key: str
    a: str | None
    b: str | None


_SETTINGS = {
    "env": "Env", "entrypoint": "Entrypoint", "cmd": "Cmd", "labels": "Labels", "ports": "ExposedPorts",
    "volumes": "Volumes", "user": "User", "workdir": "WorkingDir", "stop signal": "StopSignal",
}  # fmt: skip


def ignore(_layer: str, _done: int, _of: int) -> None:
    """Ignore progress."""


def file_changes(a: Image, b: Image, *, path: bytes = b"", report: Report = ignore) -> Iterator[FileChange]:
    """Yield the files that differ between *a* and *b*, at and below *path*, in the order of paths.

    Symbolic links in *path* are followed. Blocks on the network for the layers. Raises NotFound if neither image has
    *path*, and the errors of Image.rootfs().
    """
    left, right = a.rootfs(), b.rootfs()
    path = b"/".join(name for name in path.split(b"/") if name not in (b"", b"."))
    nodes = _nodes(left, right, path) if path else None
    origins = Origins(left, right)
    for each in compared(b.contents, left, right, report=report, path=path, nodes=nodes):
        origin = origins.of(each)
        layer = None if origin.layer is None else (b if origin.is_of_b else a).layers[origin.layer]
        yield FileChange(
            each.path,
            each.kind,
            each.fields.words(),
            "b" if origin.is_of_b else "a",
            origin.layer,
            "" if layer is None else str(layer.descriptor.digest),
            "" if layer is None else layer.created_by,
            _attributes(each.a),
            _attributes(each.b),
        )


def config_changes(a: Image, b: Image) -> list[ConfigChange]:
    """Return the differing settings of how the images are run. Blocks on the network for both configs."""
    left, right = _settings(a), _settings(b)
    return [
        ConfigChange(field, key, left.get((field, key)), right.get((field, key)))
        for field, key in sorted(left.keys() | right.keys(), key=lambda each: (list(_SETTINGS).index(each[0]), each[1]))
        if left.get((field, key)) != right.get((field, key))
    ]


def _nodes(a: Rootfs, b: Rootfs, path: bytes) -> Nodes:
    found = [_found(tree, path) for tree in (a, b)]
    if found == [None, None]:
        raise NotFound(f"/{path.decode(errors='backslashreplace')} is in neither image")
    return found[0], found[1]


def _found(tree: Rootfs, path: bytes) -> int | None:
    try:
        return find(tree, path)
    except (NotFound, NotADirectory):
        return None


def _attributes(child: Child | None) -> Attributes | None:
    return None if child is None else Attributes.unpack(child[2])


def _settings(image: Image) -> dict[tuple[str, str], str]:
    """Return the settings of the config by field and key."""
    _ = image.config  # raises for an artifact's config, and if two programs could read it differently
    inner = json.loads(image.config_content).get("config")
    settings: dict[tuple[str, str], str] = {}
    for field, name in _SETTINGS.items():
        value = inner.get(name) if isinstance(inner, Mapping) else None
        settings.update({(field, key): text for key, text in _texts(field, value)})
    return settings


def _texts(field: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield key and text of each value of one setting; nothing if it is empty."""
    if isinstance(value, Mapping):
        yield from ((str(key), text if isinstance(text, str) else "") for key, text in value.items())
    elif field == "env" and isinstance(value, list):
        yield from ((key, text) for key, _, text in (str(each).partition("=") for each in value))
    elif value:
        yield "", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
