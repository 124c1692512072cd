"""What never changes of the suite's tree, as an EROFS image that the kernel has mounted: /stable as its root.

Sockets are left out, which no archive can hold, and names of whiteouts, which no image can show.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regfs.export.erofs.mounting import mount_image
from regfs.model.node_id import ROOT
from tests.mount.memory_tree import MTIME_NS, Entry, MemoryTree
from tests.support.images import TarEntry, hardlink, layer
from tests.support.trees import MergedImage, stat_device

_TYPES = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}


@contextmanager
def mounted_image(tree: MemoryTree, directory: Path) -> Iterator[Path]:
    """Mount an image of /stable of *tree* as `regfs mount` does; *directory* gets its cache and the mount point."""
    entries = list(_entries(tree, tree.nodes[ROOT].children[b"stable"]))
    image = MergedImage(directory / "cache", layer(*entries, compression="none"))
    point = directory / "mnt"
    point.mkdir()
    try:
        mount_image(image.rootfs, image.store, str(point), name="stable")
    finally:
        image.close()
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


def _entries(tree: MemoryTree, top: int) -> Iterator[TarEntry]:
    """Yield what is below the directory *top*, each directory before what is in it."""
    first_names: dict[int, bytes] = {}
    pending = [(b"", top)]
    while pending:
        prefix, parent = pending.pop()
        for name, number in tree.nodes[parent].children.items():
            entry, path = tree.nodes[number], prefix + name
            if stat.S_ISSOCK(entry.mode) or name == b"whiteouts":
                continue
            if number in first_names:
                yield hardlink(path, first_names[number])
                continue
            first_names[number] = path
            yield _tar_entry(path, entry)
            if stat.S_ISDIR(entry.mode):
                pending.append((path + b"/", number))


def _tar_entry(path: bytes, entry: Entry) -> TarEntry:
    kind = _TYPES[stat.S_IFMT(entry.mode)]
    is_link, device = stat.S_ISLNK(entry.mode), stat_device(entry.rdev)
    return TarEntry(
        name=path,
        type=kind,
        content=b"" if is_link else entry.content,
        target=entry.content if is_link else b"",
        mode=stat.S_IMODE(entry.mode),
        uid=entry.uid,
        gid=entry.gid,
        mtime_ns=MTIME_NS,
        device=(os.major(device), os.minor(device)),
        xattrs={name.decode(): value for name, value in entry.xattrs.items()},
    )
