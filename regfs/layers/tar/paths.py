"""Normalises the paths of tar entries: bytes that mean a place below the layer's root, in many spellings.

`./`, a leading, trailing or doubled `/` mean nothing, and `..` goes up at most to the root, lexically: what umoci does
before it looks at the file system. Pure.
"""

from __future__ import annotations

from regfs.errors import BadLayer
from regfs.model.names import NAME_MAX
from regfs.model.whiteout import is_too_long

PATH_MAX = 4096


def components_of(path: bytes) -> list[bytes]:
    """Return the components of *path*, none for the root. Raises BadLayer where Linux takes no such path."""
    if len(path) >= PATH_MAX:
        raise BadLayer(f"a path of {len(path)} bytes: {path[:60]!r}…")
    components = path.split(b"/")
    if b"" in components or b"." in components or b".." in components:
        components = _cleaned(components)
    if len(path) > NAME_MAX and any(len(component) > NAME_MAX for component in components) and _is_too_long(components):
        raise BadLayer(f"a name of more than {NAME_MAX} bytes: {max(components, key=len)[:300]!r}")
    return components


def is_plain_name(name: bytes) -> bool:
    """Tell whether a path's last component is the entry's name as it stands."""
    return name not in (b"", b".", b"..") and len(name) <= NAME_MAX


def _is_too_long(components: list[bytes]) -> bool:
    *directories, last = components
    return is_too_long(last) or any(len(component) > NAME_MAX for component in directories)


def _cleaned(components: list[bytes]) -> list[bytes]:
    cleaned: list[bytes] = []
    for component in components:
        if component == b"..":
            if cleaned:
                cleaned.pop()
        elif component not in (b"", b"."):
            cleaned.append(component)
    return cleaned
