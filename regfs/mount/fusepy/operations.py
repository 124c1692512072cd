"""The operations of fusepy's path API, answered by the tree.

Called by adapter.py. Paths come in as str: fusepy decodes them with Latin-1, so that one character is one byte and
names in any bytes come through unchanged.

Thread rule: requests run in the threads of the session; everything here is shared by them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from regfs.errors import NoSuchXattr, ReadOnly
from regfs.model.names import NAME_MAX
from regfs.mount.fusepy.libfuse import fuse
from regfs.mount.fusepy.paths import PathNode, Paths
from regfs.mount.handles import Handles

if TYPE_CHECKING:
    from regfs.mount.filesystem import FileSystem
    from regfs.tree.listings import Listing
    from regfs.tree.node import OpenFile

ENCODING = "latin-1"
_MOST_KEPT = 50_000
_STATFS_BLOCK = 4096


class Opened(NamedTuple):
    """A file that is open, what its path led to, and the descriptor that holds its bytes, or None."""

    file: OpenFile
    path_node: PathNode
    path: bytes
    fd: int | None


class OpenedDirectory(NamedTuple):
    """A directory that is being listed."""

    listing: Listing
    path_node: PathNode
    path: bytes


class TreeOperations(fuse.Operations):  # type: ignore[misc]
    """fusepy's operations. Methods raise RegfsErrors, which the session turns into errnos."""

    use_ns = True
    # Requests for what is open come without a path: libfuse need not build one.
    flag_nullpath_ok = True
    flag_nopath = True
    # Not answered at all, so that the kernel stops asking: there is nothing to flush, and no device to control.
    ioctl = None
    flush = None
    fsync = None
    fsyncdir = None
    # There is nothing to destroy, and libfuse would ask in a thread that serves no requests.
    destroy = None

    def __init__(self, tree: FileSystem) -> None:
        self.on_ready: Callable[[], None] | None = None
        self.tree = tree
        self.paths = Paths(tree)
        self.files: Handles[Opened] = Handles()
        self.directories: Handles[OpenedDirectory] = Handles()
        self._opened_before: dict[bytes, bytes] = {}

    def init(self, path: str) -> None:
        """Call on_ready: from now on requests are answered."""
        del path
        if self.on_ready is not None:
            self.on_ready()

    def access(self, path: str, mask: int) -> int:
        """Allow everything but to write: the kernel has checked permissions already. chdir and chroot come here."""
        name = path.encode(ENCODING)
        if mask & os.W_OK and not self.tree.may_unlink(self.paths.find(name).node):
            raise ReadOnly(path)
        if mask & os.X_OK:
            self._enter(name)
        return 0

    def open(self, path: str, fi: fuse.fuse_file_info) -> int:
        """Open the file at *path*; its handle and how it may be cached go into *fi*."""
        if fi.flags & os.O_ACCMODE != os.O_RDONLY:
            raise ReadOnly(path)
        name = path.encode(ENCODING)
        path_node = self.paths.find(name)
        self.paths.hold(path_node)
        try:
            opened = self.tree.open(path_node.node)
        except BaseException:  # a file that is not open must not hold its path_node
            self.paths.release(path_node)
            raise
        fi.fh = self.files.add(Opened(opened, path_node, name, opened.backing_fd()))
        # What may have changed is read past the page cache: its pages and its cached size could be the old ones.
        fi.direct_io = not opened.keep_cache
        fi.keep_cache = opened.keep_cache and self._is_as_before(name, path_node)
        return 0

    def release(self, path: str | None, fi: fuse.fuse_file_info) -> int:
        """Close a file."""
        del path
        opened = self.files.take(fi.fh)
        self.paths.release(opened.path_node)
        opened.file.close()
        return 0

    def readlink(self, path: str) -> str:
        """Return the target of a symbolic link."""
        return self.tree.read_link(self.paths.find(path.encode(ENCODING)).node).decode(ENCODING)

    def opendir(self, path: str) -> int:
        """Open a directory and return its handle."""
        name = path.encode(ENCODING)
        path_node = self._enter(name)
        return self.directories.add(OpenedDirectory(self.tree.listing(path_node.node), path_node, name))

    def releasedir(self, path: str | None, fh: int) -> int:
        """Close a directory."""
        del path
        self.directories.take(fh)
        return 0

    def listxattr(self, path: str) -> list[str]:
        """Return the names of the extended attributes."""
        return [name.decode(ENCODING) for name in self.tree.xattrs(self.paths.find(path.encode(ENCODING)).node)]

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        """Return the bytes of one extended attribute."""
        del position
        xattrs = self.tree.xattrs(self.paths.find(path.encode(ENCODING)).node)
        try:
            return xattrs[name.encode(ENCODING)]
        except KeyError:
            raise NoSuchXattr(f"{path} has no {name}") from None

    def statfs(self, path: str) -> dict[str, int]:
        """Return what df(1) shows."""
        del path
        usage = self.tree.usage()
        return {
            "f_bsize": _STATFS_BLOCK,
            "f_frsize": _STATFS_BLOCK,
            "f_blocks": usage.total_bytes // _STATFS_BLOCK,
            "f_bfree": usage.free_bytes // _STATFS_BLOCK,
            "f_bavail": usage.available_bytes // _STATFS_BLOCK,
            "f_files": usage.total_files,
            "f_ffree": usage.free_files,
            "f_favail": usage.free_files,
            "f_namemax": NAME_MAX,
        }

    def unlink(self, path: str) -> int:
        """Evict a part of the cache; all other files are read-only."""
        name = path.encode(ENCODING)
        above, _, last = name.rpartition(b"/")
        self.tree.unlink(self.paths.find(above or b"/").node, last)
        self.paths.drop(name)
        return 0

    def _refuse(self, path: str, *_arguments: object) -> int:
        raise ReadOnly(f"{path}: registries are shown, not written")

    chmod = chown = create = link = mkdir = mknod = removexattr = rename = rmdir = setxattr = _refuse
    symlink = truncate = utimens = write = _refuse

    def _enter(self, path: bytes) -> PathNode:
        """Return the place of *path*, with real attributes in place of the placeholders of a listing."""
        path_node = self.paths.find(path)
        if self.tree.enter(path_node.node):
            self.paths.drop(path)
            path_node = self.paths.find(path)
        return path_node

    def _is_as_before(self, path: bytes, path_node: PathNode) -> bool:
        """Return whether the last open of *path* found the same inode, so that the kernel's pages are right."""
        inode = path_node.attributes[:8]
        if self._opened_before.get(path) == inode:
            return True
        if len(self._opened_before) >= _MOST_KEPT:
            self._opened_before.clear()
        self._opened_before[path] = inode
        return False
