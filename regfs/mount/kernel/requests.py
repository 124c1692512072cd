"""Computes the answer to each request of the kernel: opcode -> method of the tree. Does not read or write /dev/fuse.

A method takes the node and the body of a request and returns the body of the answer, or None if the kernel expects
none. It raises what the tree raises (RegfsError), Refused for an errno that is not a failure, and struct.error for a
malformed request; session.py turns these into answers. Under NON_BLOCKING it raises WouldBlock if it would have to
wait, before anything is opened or counted, so that the pool can answer the same request. Used by session.py. Thread
rule: any thread, but an object with prefetchers is for the thread that reads requests.

Answered with ENOSYS: FLUSH, FSYNC, LSEEK, POLL, GETLK and others, after which the kernel itself does the right thing
for a read-only file and does not ask again; STATX, after which it asks GETATTR: STATX adds the birth time alone, which
images do not have. OPENDIR is answered, although without it a walk would send a third fewer requests: a program that
archives a rootfs opens it a moment after it was listed, and must get its real attributes; and C libraries take an error
as late as READDIR for the end of the directory if it is ENOENT.
"""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from regfs.errors import NoSuchXattr, NotFound
from regfs.model.names import NAME_MAX
from regfs.model.node_id import is_entry
from regfs.model.whiteout import is_too_long
from regfs.mount.kernel import abi
from regfs.mount.kernel.abi import Opcode
from regfs.mount.kernel.directory import OpenDirectory, looked_up
from regfs.mount.kernel.passthrough import CACHED
from regfs.mount.kernel.prefetch import NO_PREFETCH, DirectoryPrefetch, FilePrefetch, NoPrefetch
from regfs.mount.kernel.state import SessionState

if TYPE_CHECKING:
    from regfs.mount.filesystem import FileSystem

Method = Callable[[int, bytes], bytes | None]

_EXECUTE = 1
_WRITE = 2
_XATTR_NAME_AT = 8
_DONE = b""
_NO_SUCH_NAME_FOR_EVER = abi.pack_entry(0, b"", math.inf)


class Refused(Exception):
    """The answer is an errno, which is not reported as a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.errno = number


class Requests:
    """Answers requests from *tree*; the prefetchers learn of opens and listings. *state* may be shared with others."""

    def __init__(
        self,
        tree: FileSystem,
        state: SessionState,
        *,
        directory_prefetch: DirectoryPrefetch | NoPrefetch = NO_PREFETCH,
        file_prefetch: FilePrefetch | NoPrefetch = NO_PREFETCH,
    ) -> None:
        self._tree = tree
        self._lookup = tree.lookup
        self._state = state
        self._notifications = state.notifications
        self._page_cache = state.page_cache
        self._open_nodes = state.open_nodes
        self._files = state.files
        self._directories = state.directories
        self._directory_prefetch = directory_prefetch
        self._file_prefetch = file_prefetch
        self.methods: Mapping[int, Method] = {
            Opcode.LOOKUP: self.lookup,
            Opcode.FORGET: self.forget,
            Opcode.BATCH_FORGET: self.batch_forget,
            Opcode.GETATTR: self.attributes,
            Opcode.READLINK: self.read_link,
            Opcode.OPEN: self.open,
            Opcode.READ: self.read,
            Opcode.RELEASE: self.release,
            Opcode.OPENDIR: self.open_directory,
            Opcode.READDIR: self.read_directory,
            Opcode.READDIRPLUS: self.read_directory_plus,
            Opcode.RELEASEDIR: self.release_directory,
            Opcode.GETXATTR: self.xattr,
            Opcode.LISTXATTR: self.xattr_names,
            Opcode.STATFS: self.usage,
            Opcode.ACCESS: self.access,
            **dict.fromkeys(abi.WRITING, self.write),
            Opcode.UNLINK: self.unlink,
        }

    def lookup(self, node: int, body: bytes) -> bytes:
        """LOOKUP: name, zero byte. The kernel caches a missing name only below a digest, where none can appear."""
        try:
            entry = self._lookup(node, _name(body))
        except NotFound:
            if is_entry(node):
                return _NO_SUCH_NAME_FOR_EVER
            raise
        return abi.pack_entry(*entry)

    def forget(self, node: int, body: bytes) -> None:
        """FORGET: u64 count."""
        self._tree.forget(node, abi.FORGET_IN.unpack_from(body)[0])
        self._directory_prefetch.clear()
        self._file_prefetch.clear()

    def batch_forget(self, _node: int, body: bytes) -> None:
        """BATCH_FORGET: u32 number, u32 zero, (u64 node, u64 count) that often."""
        number, _ = abi.BATCH_FORGET_IN.unpack_from(body)
        for node, count in abi.FORGET_ONE.iter_unpack(body[8 : 8 + 16 * number]):
            self._tree.forget(node, count)
        self._directory_prefetch.clear()
        self._file_prefetch.clear()

    def attributes(self, node: int, _body: bytes) -> bytes:
        """GETATTR."""
        _, attributes, valid_s, _ = self._tree.attributes(node)
        return abi.pack_attributes(attributes, valid_s)

    def read_link(self, node: int, _body: bytes) -> bytes:
        """READLINK."""
        return self._tree.read_link(node)

    def open(self, node: int, body: bytes) -> bytes:
        """OPEN: u32 flags, u32 more flags.

        The kernel reads the file itself where it can (passthrough). Otherwise the first bytes go into its page cache
        before the answer, so that a small file needs no READ (page_cache.py).
        """
        flags, _ = abi.OPEN_IN.unpack_from(body)
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            raise Refused(errno.EROFS)
        self._file_prefetch.opening(node)
        file = self._page_cache.open(node)
        if not file.keep_cache:
            return abi.OPEN_OUT.pack(self._files.add(file), abi.FOPEN_NOFLUSH | abi.FOPEN_DIRECT_IO, 0)
        backing_id, alone = self._open_nodes.opened(node, file.backing_fd)
        handle = self._files.add(file)
        if backing_id != CACHED:
            return abi.OPEN_OUT.pack(handle, abi.FOPEN_NOFLUSH | abi.FOPEN_PASSTHROUGH, backing_id)
        if alone:
            self._file_prefetch.opened(node, file)
        return abi.OPEN_OUT.pack(handle, abi.FOPEN_NOFLUSH | abi.FOPEN_KEEP_CACHE, 0)

    def read(self, _node: int, body: bytes) -> bytes:
        """READ: u64 handle, u64 offset, u32 size, and fields that are not used here."""
        handle, offset, size = abi.READ_IN.unpack_from(body)
        return self._files.get(handle).read_at(offset, size)

    def release(self, node: int, body: bytes) -> bytes:
        """RELEASE: u64 handle, and fields that are not used here."""
        self._state.release(node, abi.RELEASE_IN.unpack_from(body)[0])
        return _DONE

    def open_directory(self, node: int, _body: bytes) -> bytes:
        """OPENDIR. Below a digest the kernel keeps the listing for ever."""
        self._enter(node)
        flags = 0
        if is_entry(node):
            flags = abi.FOPEN_CACHE_DIR | abi.FOPEN_KEEP_CACHE
            self._directory_prefetch.entered(node)
        directory = OpenDirectory(self._tree, node, self._tree.listing(node))
        return abi.OPEN_OUT.pack(self._directories.add(directory), flags, 0)

    def read_directory(self, node: int, body: bytes) -> bytes:
        """READDIR: u64 handle, u64 offset, u32 size, …"""
        handle, offset, size = abi.READ_IN.unpack_from(body)
        return self._directory(node, handle).read(offset, size)

    def read_directory_plus(self, node: int, body: bytes) -> bytes:
        """READDIRPLUS: as READDIR."""
        handle, offset, size = abi.READ_IN.unpack_from(body)
        directory = self._directory(node, handle)
        part = self._directory_prefetch.take(node, offset, size) or directory.read_plus(offset, size)
        if is_entry(node):
            self._directory_prefetch.listed(directory, part)
        return part.answer

    def release_directory(self, node: int, body: bytes) -> bytes:
        """RELEASEDIR: as RELEASE."""
        (handle,) = abi.RELEASE_IN.unpack_from(body)
        if not self._directories.is_of_earlier(handle):
            self._directories.take(handle)
        self._directory_prefetch.left(node)
        return _DONE

    def xattr(self, node: int, body: bytes) -> bytes:
        """GETXATTR: u32 size, u32 zero, name, zero byte. Size 0 asks how long the value is."""
        size, _ = abi.XATTR_IN.unpack_from(body)
        name = _name(body[_XATTR_NAME_AT:])
        value = self._tree.xattrs(node).get(name)
        if value is None:
            raise NoSuchXattr(os.fsdecode(name))
        return _sized(value, size)

    def xattr_names(self, node: int, body: bytes) -> bytes:
        """LISTXATTR: u32 size, u32 zero."""
        size, _ = abi.XATTR_IN.unpack_from(body)
        return _sized(b"".join(name + b"\0" for name in self._tree.xattrs(node)), size)

    def usage(self, _node: int, _body: bytes) -> bytes:
        """STATFS: the limit of the cache and the room left in it, in pages; files of its disk."""
        usage = self._tree.usage()
        page = abi.PAGE_SIZE
        free, available = usage.free_bytes // page, usage.available_bytes // page
        return abi.STATFS_OUT.pack(
            usage.total_bytes // page, free, available, usage.total_files, usage.free_files, page, NAME_MAX, page, 0
        )

    def access(self, node: int, body: bytes) -> bytes:
        """ACCESS: u32 mask, u32 zero. Sent only if the kernel does not check modes: the owner may read everything.

        X_OK must still tell programs from other files, for `test -x` and searches in $PATH.
        """
        mask, _ = abi.ACCESS_IN.unpack_from(body)
        if mask & _WRITE and not self._tree.may_unlink(node):
            raise Refused(errno.EROFS)
        if mask & _EXECUTE:
            self._enter(node)  # chdir and chroot come here
            mode = abi.mode_of(self._tree.attributes(node).attributes)
            if not stat.S_ISDIR(mode) and not mode & 0o111:
                raise Refused(errno.EACCES)
        return _DONE

    def write(self, _node: int, _body: bytes) -> bytes:
        """Refuse a request that would change something."""
        raise Refused(errno.EROFS)

    def unlink(self, node: int, body: bytes) -> bytes:
        """UNLINK: name, zero byte. Evicts a part of the cache; all other files are read-only.

        What was prefetched is given up first: it keeps the image that it belongs to in use.
        """
        self._directory_prefetch.clear()
        self._file_prefetch.clear()
        self._tree.unlink(node, _name(body))
        return _DONE

    def undo(self, opcode: int, node: int, answer: bytes) -> None:
        """Take back the handle or look-ups in *answer*: the kernel refused it, since the request was interrupted."""
        if opcode == Opcode.OPEN:
            self.release(node, answer)
        elif opcode == Opcode.OPENDIR:
            self.release_directory(node, answer)
        elif opcode == Opcode.LOOKUP:
            found = abi.ENTRY_HEAD.unpack_from(answer)[0]
            if found:
                self._tree.forget(found, 1)
        elif opcode == Opcode.READDIRPLUS:
            for found in looked_up(answer):
                self._tree.forget(found, 1)

    def _directory(self, node: int, handle: int) -> OpenDirectory:
        """Return the open directory *handle*; one that an earlier daemon has opened is opened again."""
        if self._directories.is_of_earlier(handle):
            self._directories.restore(handle, OpenDirectory(self._tree, node, self._tree.listing(node)))
        return self._directories.get(handle)

    def _enter(self, node: int) -> None:
        """Let the kernel drop the attributes that a listing gave of the directory *node* before its table was there."""
        if self._tree.enter(node):
            self._notifications.invalidate_attributes(node)


def _name(body: bytes) -> bytes:
    """Return the name before the zero byte that *body* ends with."""
    if not 2 <= len(body) <= NAME_MAX + 1 or body[-1]:
        if body[2:] and not body[-1] and not is_too_long(body[:-1]):
            return body[:-1]
        raise Refused(errno.ENAMETOOLONG if len(body) > 2 else errno.EIO)
    return body[:-1]


def _sized(value: bytes, size: int) -> bytes:
    if size == 0:
        return abi.XATTR_OUT.pack(len(value), 0)
    if len(value) > size:
        raise Refused(errno.ERANGE)
    return value
