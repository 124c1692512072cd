"""PathWalk: resolves a path component by component, and inserts the targets of symbolic links.

The one resolver of paths: layers/rows/archive_rows.py walks within one layer, rootfs/working_tree.py within the
layers merged so far, rootfs/paths.py in a merged table (verbs, unpack), library/path_resolver.py in the tree of a
mount. They differ in how a name is looked up, and share what is followed, and where it ends. Every walk ends, also in a
hostile layer: after 255 links, as in umoci and containerd, or 8,192 steps. Pure; one thread.
"""

from __future__ import annotations

from collections.abc import Iterable

from regfs.errors import BadLayer
from regfs.model.names import NAME_MAX

MAX_LINKS = 255
MAX_STEPS = 8192


class PathWalk:
    """The components that are still to be walked.

    The caller looks each component up, handles `..`, and calls follow() for a symbolic link.
    """

    def __init__(self, components: Iterable[bytes]) -> None:
        self._rest = [*components][::-1]
        self._links = 0
        self._steps = 0

    def next(self) -> bytes | None:
        """Return the next component, which may be `..`; None at the end. Raises BadLayer."""
        while self._rest:
            self._steps += 1
            if self._steps > MAX_STEPS:
                raise BadLayer("too many symbolic links on the way")
            name = self._rest.pop()
            if name not in (b"", b"."):
                if len(name) > NAME_MAX:
                    raise BadLayer(f"a symbolic link leads to a name of more than {NAME_MAX} bytes")
                return name
        return None

    def follow(self, target: bytes, directory: int, *, root: int) -> int:
        """Walk a symbolic link's *target* next; return the directory that it starts from: *root* or *directory*.

        Raises BadLayer for a loop.
        """
        self._links += 1
        if self._links > MAX_LINKS:
            raise BadLayer(f"too many symbolic links on the way: more than {MAX_LINKS}")
        self._rest.extend(reversed(target.split(b"/")))
        return root if target.startswith(b"/") else directory

    def rest(self) -> list[bytes]:
        """Return what is still to be walked, in order."""
        return self._rest[::-1]
