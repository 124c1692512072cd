"""Arranges blobs in one directory by their names, which are untrusted.

A name is a path from the top of the directory: parts between `/`. It is refused if a part is empty, `.` or `..`, has a
NUL or more than 255 bytes, or if there are too many parts; then the blob's name is its digest. The first of two equal
names stays, and so does a file where a later name needs a directory; the later one gets a suffix:

    notes.txt                          two blobs called notes.txt
    notes.txt (sha256-440129be81b2)

Equal names of equal blobs are one file. A remark reports each changed name. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.names import NAME_MAX

MAX_PARTS = 64
MAX_DIRECTORIES = 10_000
"""How many directories one artifact may have; a manifest of 4 MiB could name millions."""

_SHORT_DIGEST = 12
_MAX_REMARKS = 20


class ArtifactFile(NamedTuple):
    """A blob that is a file or, if it *is_archive* (a tar), a directory.

    *inside* is the directory of the archive that is shown, if the whole archive is below it. *diff_id* is the digest of
    the tar inside a compressed blob, if the manifest has it. *mode* has the permission bits; *mode* to *mtime_ns* are
    fields of stat(2).
    """

    descriptor: Descriptor
    is_archive: bool = False
    inside: tuple[str, ...] = ()
    diff_id: Digest | None = None
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0


Directory = dict[str, ArtifactFile | None]
"""The entries of a directory by name: a file or an archive; None for a subdirectory."""


class Layout(NamedTuple):
    """The directories by their paths ("" is the top one), and remarks about changed names."""

    directories: Mapping[str, Mapping[str, ArtifactFile | None]]
    remarks: tuple[str, ...]


class Placing:
    """Collects blobs with their names, in the order of the manifest, and arranges them."""

    def __init__(self) -> None:
        self._directories: dict[str, Directory] = {"": {}}
        self._remarks: list[str] = []

    def add(self, name: str, file: ArtifactFile) -> None:
        """Add *file* under *name*, or under a similar free name."""
        parts = safe_parts(name)
        if parts is None:
            plain = digest_name(file.descriptor)
            self._remark(f"{name[:300]!r} cannot be a name below files/; the file is called {plain}")
            parts = (plain,)
        path = ""
        for part in parts[:-1]:
            below = self._directory(path, part, file.descriptor.digest)
            if below is None:
                plain = digest_name(file.descriptor)
                self._remark(f"{name[:300]!r} is in too many directories; the file is called {plain}")
                path, parts = "", (plain,)
                break
            path = below
        self._put(path, parts[-1], file)

    def layout(self) -> Layout:
        """Return the layout of all files."""
        return Layout(self._directories, tuple(self._remarks))

    def _directory(self, path: str, name: str, digest: Digest) -> str | None:
        """Return the path of the directory *name* in *path*, made if it is missing; None if there are too many."""
        directory = self._directories[path]
        if directory.get(name) is not None:
            free = self._free_name(path, name, digest, for_directory=True)
            self._remark(f"{_joined(path, name)!r} is a file and a directory; the directory is called {free!r}")
            name = free
        below = _joined(path, name)
        if name not in directory:
            if len(self._directories) >= MAX_DIRECTORIES:
                return None
            directory[name] = None
            self._directories[below] = {}
        return below

    def _put(self, path: str, name: str, file: ArtifactFile) -> None:
        directory = self._directories[path]
        if name in directory:
            there = directory[name]
            if there is not None and there.descriptor.digest == file.descriptor.digest:
                return
            free = self._free_name(path, name, file.descriptor.digest)
            self._remark(f"{_joined(path, name)!r} is the name of two blobs; the second is called {free!r}")
            name = free
        directory[name] = file

    def _free_name(self, path: str, name: str, digest: Digest, *, for_directory: bool = False) -> str:
        directory = self._directories[path]
        suffix = f" ({digest.algorithm[:_SHORT_DIGEST]}-{digest.encoded[:_SHORT_DIGEST]})"
        name = name.encode()[: NAME_MAX - len(suffix) - 8].decode(errors="ignore")
        free, number = f"{name}{suffix}", 1
        while free in directory and not (for_directory and directory[free] is None):
            number += 1
            free = f"{name}{suffix} {number}"
        return free

    def _remark(self, text: str) -> None:
        if len(self._remarks) < _MAX_REMARKS:
            self._remarks.append(text)


def safe_parts(name: str) -> tuple[str, ...] | None:
    """Return the parts of the path *name*, None if it is unsafe. A leading `./` is dropped."""
    while name.startswith("./"):
        name = name[2:]
    parts = tuple(name.split("/"))
    if len(parts) > MAX_PARTS or any(part in ("", ".", "..") or "\0" in part for part in parts):
        return None
    return None if any(len(part.encode()) > NAME_MAX for part in parts) else parts


def digest_name(descriptor: Descriptor, suffix: str = "") -> str:
    """Return the file name of a blob without a name: `sha256-<hex>` plus *suffix*, by default `.json` for JSON."""
    if not suffix and descriptor.media_type.endswith("+json"):
        suffix = ".json"
    digest = descriptor.digest
    return f"{digest.algorithm}-{digest.encoded}"[: NAME_MAX - len(suffix)] + suffix


def _joined(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name
