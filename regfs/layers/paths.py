"""Paths of tar entries: bytes that mean a place below the layer's root, however they are spelt.

`./`, a leading, trailing or doubled `/` mean nothing, and `..` goes up at most to the root, lexically: what umoci does
before it looks at the file system. Pure.
"""

from __future__ import annotations

from regfs.errors import BadLayer

NAME_MAX = 255
PATH_MAX = 4096


def components_of(path: bytes) -> list[bytes]:
    """Return the components of *path*, none for the root. Raises BadLayer where Linux takes no such path."""
    if len(path) >= PATH_MAX:
        raise BadLayer(f"a path of {len(path)} bytes: {path[:60]!r}…")
    components = path.split(b"/")
    if b"" in components or b"." in components or b".." in components:
        components = _cleaned(components)
    if len(path) > NAME_MAX and any(len(component) > NAME_MAX for component in components):
        raise BadLayer(f"a name of more than {NAME_MAX} bytes: {path[:60]!r}…")
    return components


def _cleaned(components: list[bytes]) -> list[bytes]:
    cleaned: list[bytes] = []
    for component in components:
        if component == b"..":
            if cleaned:
                cleaned.pop()
        elif component not in (b"", b"."):
            cleaned.append(component)
    return cleaned
