"""A walk along a path of a layer: the components to come, symbolic links' targets put in front of them.

It has so many links and so many steps at most, as paths of Linux have. Used by archive_rows.py; one thread.
"""

from __future__ import annotations

from regfs.errors import BadLayer
from regfs.model.layer_entry import ROOT_ROW
from regfs.model.names import NAME_MAX

MAX_EXPANSIONS = 255
MAX_STEPS = 8192


class Walk:
    """The components that are still to be walked, those of symbolic links' targets put in front."""

    def __init__(self, components: list[bytes]) -> None:
        self._rest = components[::-1]
        self._expansions = 0
        self._steps = 0

    def next(self) -> bytes | None:
        """Return the next component (perhaps `..`), None at the end. Raises BadLayer."""
        while self._rest:
            self._steps += 1
            if self._steps > MAX_STEPS:
                raise BadLayer("too many symbolic links on the way")
            name = self._rest.pop()
            if name not in (b"", b"."):
                if len(name) > NAME_MAX:
                    raise BadLayer(f"a symbolic link to a name of more than {NAME_MAX} bytes")
                return name
        return None

    def expand(self, target: bytes, row: int) -> int:
        """Walk *target* next; return the row to walk it from: *row*, or the root. Raises BadLayer for loops."""
        self._expansions += 1
        if self._expansions > MAX_EXPANSIONS:
            raise BadLayer("too many symbolic links on the way")
        self._rest.extend(reversed(target.split(b"/")))
        return ROOT_ROW if target.startswith(b"/") else row

    def rest(self) -> list[bytes]:
        """Return what is still to be walked, in order."""
        return self._rest[::-1]
