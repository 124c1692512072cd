"""libfuse's callbacks: fusepy's adapter between libfuse's structures and the operations (operations.py).

fusepy takes care of libfuse's structures and callbacks; session.py starts and ends it. Errors are answered here: fusepy
turns an exception that it does not know into EINVAL, which blames the program that asks.

Thread rule: requests run in the threads of the session; everything here is shared by them.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from regfs.errors import RegfsError
from regfs.mount.errnos import errno_of, is_failure
from regfs.mount.fusepy.libfuse import fuse
from regfs.mount.fusepy.operations import ENCODING, OpenedDirectory, TreeOperations
from regfs.mount.fusepy.own_threads import OwnThreads
from regfs.mount.fusepy.request_deadline import RequestDeadline
from regfs.mount.fusepy.stat_fields import fill_stat, inode_and_mode
from regfs.process.waiting.deadline import current

if TYPE_CHECKING:
    from regfs.telemetry.stats import Stats

log = logging.getLogger(__name__)

ErrorCallback = Callable[[str, RegfsError], None]

_PAGE = 1000
_MOST_REMEMBERED = 5000


class Adapter(fuse.FUSE):  # type: ignore[misc]
    """fusepy's FUSE class, which calls the operations, with its most used methods replaced."""

    def __init__(
        self,
        operations: TreeOperations,
        stats: Stats,
        *,
        errors: ErrorCallback,
        end: Callable[[RequestDeadline], None],
        own_threads: OwnThreads,
    ) -> None:
        """*end* is called after each request that has waited; the threads that serve have a RequestDeadline.

        *own_threads* run what may need the disk while that hangs.
        """
        # Not fusepy's own __init__, which would mount and not return.
        self.operations = operations
        self.raw_fi = True
        self.encoding = ENCODING
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
            # A bug must become an answer: only C code is above this frame, and would not see the exception.
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
