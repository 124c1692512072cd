"""libfuse's callbacks: the operations of fusepy's path API, answered by the tree. The only importer of fuse.

Used by fusepy/session.py. Paths come in as str: fusepy decodes them with Latin-1 here, so that one character is one
byte and names in any bytes come through unchanged.

fusepy takes care of libfuse's structures and callbacks; fusepy/session.py starts and ends it. Errors are answered
here: fusepy turns an exception that it does not know into EINVAL, which blames the program that asks.

Thread rule: requests run in the threads of the session; everything here is shared by them.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from regfs.errors import MountFailure, NoSuchXattr, ReadOnly, RegfsError
from regfs.model.names import NAME_MAX
from regfs.mount.errnos import errno_of, is_failure
from regfs.mount.fusepy import LIBRARY
from regfs.mount.fusepy.own_threads import OwnThreads
from regfs.mount.fusepy.paths import PathNode, Paths
from regfs.mount.fusepy.request_deadline import RequestDeadline
from regfs.mount.fusepy.stat_fields import fill_stat, inode_and_mode
from regfs.mount.handles import Handles
from regfs.waiting.deadline import current

if TYPE_CHECKING:
    from regfs.mount.filesystem import FileSystem
    from regfs.telemetry.stats import Stats
    from regfs.tree.listings import Listing
    from regfs.tree.node import OpenFile

try:
    try:
        import fusepy as fuse  # as Debian calls it: its package python3-fuse has another library of this name
    except ModuleNotFoundError:
        import fuse
except ModuleNotFoundError:
    raise MountFailure(
        "the fusepy driver needs the Python package fusepy (apt install python3-fusepy, or pip install fusepy); "
        "--driver kernel needs none"
    ) from None
except OSError as error:
    raise MountFailure(
        f"the fusepy driver needs {LIBRARY} ({error}): apt install libfuse2 (or libfuse2t64), dnf install fuse-libs, "
        "apk add fuse or pacman -S fuse2; --driver kernel needs none"
    ) from error

log = logging.getLogger(__name__)

libfuse: ctypes.CDLL = fuse._libfuse
ErrorCallback = Callable[[str, RegfsError], None]

_ENCODING = "latin-1"
_PAGE = 1000
_MOST_REMEMBERED = 5000
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
        """Allow everything: the kernel has checked permissions already. chdir and chroot come here."""
        if mask & os.X_OK:
            self._enter(path.encode(_ENCODING))
        return 0

    def open(self, path: str, fi: fuse.fuse_file_info) -> int:
        """Open the file at *path*; its handle and how it may be cached go into *fi*."""
        if fi.flags & os.O_ACCMODE != os.O_RDONLY:
            raise ReadOnly(path)
        name = path.encode(_ENCODING)
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
        return self.tree.read_link(self.paths.find(path.encode(_ENCODING)).node).decode(_ENCODING)

    def opendir(self, path: str) -> int:
        """Open a directory and return its handle."""
        name = path.encode(_ENCODING)
        path_node = self._enter(name)
        return self.directories.add(OpenedDirectory(self.tree.listing(path_node.node), path_node, name))

    def releasedir(self, path: str | None, fh: int) -> int:
        """Close a directory."""
        del path
        self.directories.take(fh)
        return 0

    def listxattr(self, path: str) -> list[str]:
        """Return the names of the extended attributes."""
        return [name.decode(_ENCODING) for name in self.tree.xattrs(self.paths.find(path.encode(_ENCODING)).node)]

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        """Return the bytes of one extended attribute."""
        del position
        xattrs = self.tree.xattrs(self.paths.find(path.encode(_ENCODING)).node)
        try:
            return xattrs[name.encode(_ENCODING)]
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

    def _refuse(self, path: str, *_arguments: object) -> int:
        raise ReadOnly(f"{path}: registries are shown, not written")

    chmod = chown = create = link = mkdir = mknod = removexattr = rename = rmdir = setxattr = _refuse
    symlink = truncate = unlink = utimens = write = _refuse

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


class Adapter(fuse.FUSE):  # type: ignore[misc]
    """fusepy's adapter between libfuse's structures and the operations, with its busiest methods replaced."""

    def __init__(
        self,
        operations: TreeOperations,
        stats: Stats,
        *,
        errors: ErrorCallback,
        end: Callable[[RequestDeadline], None],
        own_threads: OwnThreads,
    ) -> None:
        """*end* hears of each request that has waited; the threads that serve have a RequestDeadline.

        *own_threads* run what may need the disk while that hangs.
        """
        # Not fusepy's own __init__, which would mount and not come back.
        self.operations = operations
        self.raw_fi = True
        self.encoding = _ENCODING
        self.use_ns = True
        self._stats = stats
        self._errors = errors
        self._end = end
        self._own_threads = own_threads
        own_threads.undo = {"open": self.release, "opendir": self.releasedir}

    def table(self) -> fuse.fuse_operations:
        """Return libfuse's table of callbacks: each runs the method of that name through `_answer`."""
        table = fuse.fuse_operations()
        for field in fuse.fuse_operations._fields_:
            name, prototype = field[:2]
            implemented = getattr(
                self.operations, {"fgetattr": "getattr", "ftruncate": "truncate"}.get(name, name), None
            )
            if implemented is None:
                continue
            if hasattr(prototype, "argtypes"):
                implemented = prototype(self._callback(getattr(self, name)))
            setattr(table, name, implemented)
        return table

    def getattr(self, path: bytes, buf: object) -> int:
        """Fill in the attributes of *path*."""
        fill_stat(buf.contents, self.operations.paths.find(path).attributes)  # type: ignore[attr-defined]
        return 0

    def fgetattr(self, path: bytes | None, buf: object, fip: object) -> int:
        """Fill in the attributes of an open file: those that it had when it was opened."""
        del path
        attributes = self.operations.files.get(fip.contents.fh).path_node.attributes  # type: ignore[attr-defined]
        fill_stat(buf.contents, attributes)  # type: ignore[attr-defined]
        return 0

    def read(self, path: bytes | None, buf: object, size: int, offset: int, fip: object) -> int:
        """Read into libfuse's buffer; from an ordinary file with no copy in between."""
        del path
        opened = self.operations.files.get(fip.contents.fh)  # type: ignore[attr-defined]
        address = ctypes.addressof(buf.contents)  # type: ignore[attr-defined]
        if opened.fd is not None:
            got = os.preadv(opened.fd, [(ctypes.c_char * size).from_address(address)], offset)
            if got == size:
                return got
        # Also where an ordinary file gave less than was asked: it ends here, or an error has to be raised.
        content = opened.file.read_at(offset, size)
        ctypes.memmove(address, content, len(content))
        return len(content)

    def readdir(self, path: bytes | None, buf: object, filler: Callable[..., int], offset: int, fip: object) -> int:
        """Give all names to libfuse, which keeps them until the directory is closed; offsets are its own."""
        del path, offset
        opened = self.operations.directories.get(fip.contents.fh)  # type: ignore[attr-defined]
        stat = fuse.c_stat()
        for name, inode, mode in self._entries(opened):
            stat.st_ino, stat.st_mode = inode, mode
            if filler(buf, name, stat, 0) != 0:
                return -errno.ENOMEM
        return 0

    def _entries(self, opened: OpenedDirectory) -> Iterator[tuple[bytes, int, int]]:
        tree, paths = self.operations.tree, self.operations.paths
        yield b".", *inode_and_mode(opened.path_node.attributes)
        yield b"..", *inode_and_mode(tree.attributes(tree.parent(opened.path_node.node)).attributes)
        prefix = opened.path.rstrip(b"/") + b"/"
        start = 0
        while entries := opened.listing.entries(start, _PAGE):
            for position, entry in enumerate(entries, start):
                if entry.node and start < _MOST_REMEMBERED:
                    paths.remember(opened.path_node, prefix + entry.name, entry)
                elif entry.valid_s and not entry.node:
                    at_once = partial(opened.listing.at_once, position)
                    paths.remember_for_a_moment(opened.path_node, prefix + entry.name, at_once)
                yield entry.name, *inode_and_mode(entry.attributes)
            start += len(entries)

    def _callback(self, method: Callable[..., int]) -> Callable[..., int]:
        def answer(*arguments: object) -> int:
            return self._answer(method, arguments)

        return answer

    def _answer(self, method: Callable[..., int], arguments: Sequence[object]) -> int:
        """Run one request under its deadline; return its result, or the negative errno of what it raised."""
        deadline = current()
        assert isinstance(deadline, RequestDeadline)
        deadline.renew(arguments[0])
        try:
            if self._own_threads.is_needed:
                return self._own_threads.run(method, arguments, path=self._path_of(arguments)) or 0
            return method(*arguments) or 0
        except RegfsError as error:
            if is_failure(error):
                self._errors(self._object_of(method, arguments), error)
            return -errno_of(error)
        except BaseException:
            # A bug must be an answer: nothing above us but C would see the exception.
            log.exception("a bug in %s", self._object_of(method, arguments))
            self._stats.count("bugs")
            return -errno.EIO
        finally:
            if deadline.has_waited:
                self._end(deadline)

    def _object_of(self, method: Callable[..., int], arguments: Sequence[object]) -> str:
        return f"{method.__name__} {os.fsdecode(self._path_of(arguments))}".strip()

    def _path_of(self, arguments: Sequence[object]) -> bytes:
        path = arguments[0] if arguments else None
        if path is None and arguments:
            handle = getattr(getattr(arguments[-1], "contents", None), "fh", 0)
            for handles in (self.operations.files, self.operations.directories):
                try:
                    path = handles.get(handle).path
                except RegfsError:
                    continue
        return path if isinstance(path, bytes) else b""
