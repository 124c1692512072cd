"""Writes the merged files of an image into a directory, as an unpacker would: `regfs unpack`.

As root, everything is as in the image: owners, modes with set-id bits, devices, extended attributes, hard links,
modification times to the nanosecond. An ordinary user gets what tar(1) makes: files of their own, modes under the
umask, no devices. Nothing is written outside the directory: every name is made relative to the descriptor of
its directory, and no symbolic link is followed. Long runs of zeros become holes.

Used by `regfs unpack`. One thread; blocks on the disk alone, the image being in the cache.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from regfs.errors import BadLayer, CacheFailure, InvalidOption
from regfs.model.attributes import Attributes
from regfs.rootfs.file_tree import FileTree
from regfs.store.layers.content import Content, OpenContent

_PAGE = 1000
_CHUNK = 256 * 1024
_ZEROS = bytes(_CHUNK)
_MOST_FAILURES = 1000
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
_PERMISSIONS = 0o777


@dataclass(slots=True)
class Summary:
    """What was written, what was left out on purpose, and what failed."""

    entries: int = 0
    size: int = 0
    devices_left_out: int = 0
    xattrs_left_out: int = 0
    failures: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Return notes on what an ordinary user did not get."""
        notes = []
        if self.devices_left_out:
            notes.append(f"{self.devices_left_out} device files were left out: only root can make them")
        if self.xattrs_left_out:
            notes.append(f"{self.xattrs_left_out} extended attributes were left out: only root can set them")
        return notes


@dataclass(slots=True)
class _Directory:
    """A directory that is being filled: its descriptor, its path for messages and links, the entries still to write."""

    descriptor: int
    path: bytes
    node: int
    attributes: Attributes
    children: Iterator[tuple[bytes, int, bytes]]


def check_directory(directory: Path) -> None:
    """Raise InvalidOption if *directory* exists and is not empty, or cannot be made. Makes nothing."""
    try:
        if os.path.lexists(directory):
            _insist_on_empty(directory)
            return
        above = next(parent for parent in directory.parents if parent.exists())
    except OSError as error:
        raise InvalidOption(f"{directory} cannot be made: {error.strerror}") from None
    if not above.is_dir():
        raise InvalidOption(f"{directory} cannot be made: {os.strerror(errno.ENOTDIR)}")
    if not os.access(above, os.W_OK | os.X_OK, effective_ids=True):
        raise InvalidOption(f"{directory} cannot be made: {above} is not writable")


def prepare_directory(directory: Path) -> None:
    """Make *directory* if it does not exist. Raises InvalidOption if it is not empty or cannot be made."""
    try:
        directory.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        _insist_on_empty(directory)
    except OSError as error:
        raise InvalidOption(f"{directory} cannot be made: {error.strerror}") from None


def _insist_on_empty(directory: Path) -> None:
    if not directory.is_dir():
        raise InvalidOption(f"{directory} exists and is not a directory")
    if any(directory.iterdir()):
        raise InvalidOption(f"{directory} is not empty; name a new directory")


def total_size(rows: FileTree) -> int:
    """Return the bytes of all regular files, hard links once: a walk of some tenths of a second."""
    total, seen, waiting = 0, set[int](), [rows.root]
    while waiting:
        for _, node, packed in _children(rows, waiting.pop()):
            attributes = Attributes.unpack(packed)
            if stat.S_ISDIR(attributes.mode):
                waiting.append(node)
            elif stat.S_ISREG(attributes.mode) and not (attributes.nlink > 1 and node in seen):
                total += attributes.size
                if attributes.nlink > 1:
                    seen.add(node)
    return total


class Unpacker:
    """Unpacks one tree.

    *as_root*: whether owners and devices are made. *umask*: the permissions that an ordinary user's files lack.
    *on_bytes* is called with the size of each chunk that was written.
    """

    def __init__(
        self,
        rows: FileTree,
        open_content: Callable[[Content], OpenContent],
        *,
        as_root: bool,
        umask: int,
        on_bytes: Callable[[int], None],
    ) -> None:
        self._rows = rows
        self._open_content = open_content
        self._as_root = as_root
        self._on_bytes = on_bytes
        self._umask = umask
        self._links: dict[int, bytes] = {}
        self._root = -1
        self.summary = Summary()

    def into(self, directory: Path) -> Summary:
        """Write everything into *directory*, which exists and is empty. Holds a descriptor for each level of the tree.

        Entries that cannot be written are in the summary. Raises CacheFailure where going on makes no sense (a full
        disk, a cached file that cannot be read), BadLayer for a name that no directory can have.
        """
        try:
            self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            self._fill(self._root)
        except OSError as error:
            raise CacheFailure(f"{directory} cannot be written: {error.strerror}") from error
        return self.summary

    def _fill(self, root: int) -> None:
        """Walk the tree depth first. A directory gets its mode and time after its content."""
        rows = self._rows
        top = Attributes.unpack(rows.attributes(rows.root))
        stack = [_Directory(root, b"", rows.root, top, _children(rows, rows.root))]
        try:
            while stack:
                directory = stack[-1]
                entry = next(directory.children, None)
                if entry is None:
                    with self._noting(directory.path):
                        self._finish(directory)
                    os.close(stack.pop().descriptor)
                else:
                    self._add(directory, stack, *entry)
        finally:
            for unfinished in stack:
                os.close(unfinished.descriptor)

    def _add(self, directory: _Directory, stack: list[_Directory], name: bytes, node: int, packed: bytes) -> None:
        """Write one entry of *directory*. A directory is opened and pushed onto *stack*, to be filled next."""
        if not name or b"/" in name or b"\0" in name or name in (b".", b".."):
            raise BadLayer(f"{os.fsdecode(directory.path)}: {name!r} is not a name")
        attributes = Attributes.unpack(packed)
        with self._noting(_join(directory.path, name)):
            if stat.S_ISDIR(attributes.mode):
                stack.append(self._enter(directory, name, node, attributes))
            else:
                self._write(directory, name, node, attributes)

    @contextmanager
    def _noting(self, path: bytes) -> Iterator[None]:
        """Note an error about one entry and go on; a full disk ends everything."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL or len(self.summary.failures) >= _MOST_FAILURES:
                raise
            self.summary.failures.append(f"{os.fsdecode(path) or '.'}: {error.strerror}")

    def _enter(self, above: _Directory, name: bytes, node: int, attributes: Attributes) -> _Directory:
        os.mkdir(name, 0o700, dir_fd=above.descriptor)
        if self._umask & 0o700:
            os.chmod(name, 0o700, dir_fd=above.descriptor)  # the process's umask has closed it to ourselves
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above.descriptor)
        path = _join(above.path, name)
        return _Directory(descriptor, path, node, attributes, _children(self._rows, node))

    def _finish(self, directory: _Directory) -> None:
        self.summary.entries += 1
        self._set_all(directory.descriptor, directory.node, directory.attributes)

    def _write(self, directory: _Directory, name: bytes, node: int, attributes: Attributes) -> None:
        if attributes.nlink > 1 and self._is_linked(directory, name, node):
            pass
        elif stat.S_ISREG(attributes.mode):
            self._write_file(directory, name, node, attributes)
        elif stat.S_ISLNK(attributes.mode):
            os.symlink(self._rows.target(node), name, dir_fd=directory.descriptor)
            self._set_by_name(directory, name, node, attributes)
        elif not self._as_root and (stat.S_ISCHR(attributes.mode) or stat.S_ISBLK(attributes.mode)):
            self.summary.devices_left_out += 1
            return
        else:
            os.mknod(name, stat.S_IFMT(attributes.mode) | 0o600, attributes.rdev, dir_fd=directory.descriptor)
            self._set_by_name(directory, name, node, attributes)
        if attributes.nlink > 1:
            self._links.setdefault(node, _join(directory.path, name))
        self.summary.entries += 1

    def _is_linked(self, directory: _Directory, name: bytes, node: int) -> bool:
        """Make *name* a link to the first name of the same inode, if that is written; return whether it was."""
        first = self._links.get(node)
        if first is None:
            return False
        # This process has made the directories on the way, closed to others until they are full: none can be a link.
        os.link(first, name, src_dir_fd=self._root, dst_dir_fd=directory.descriptor, follow_symlinks=False)
        return True

    def _write_file(self, directory: _Directory, name: bytes, node: int, attributes: Attributes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(name, flags, 0o600, dir_fd=directory.descriptor)
        try:
            if attributes.size:
                self._copy(self._open_content(self._rows.content(node)), descriptor, attributes.size)
            self._set_all(descriptor, node, attributes)
        finally:
            os.close(descriptor)

    def _copy(self, content: OpenContent, descriptor: int, size: int) -> None:
        has_holes = False
        try:
            for offset in range(0, size, _CHUNK):
                chunk = content.read_at(offset, _CHUNK)
                if chunk == _ZEROS:
                    has_holes = True
                elif os.pwrite(descriptor, chunk, offset) != len(chunk):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._on_bytes(len(chunk))
        finally:
            content.close()
        if has_holes:
            os.truncate(descriptor, size)
        self.summary.size += size

    def _set_all(self, descriptor: int, node: int, attributes: Attributes) -> None:
        """Set owner, mode, extended attributes and time, in the one order that keeps them.

        A change of the owner clears set-id bits and capabilities.
        """
        if self._as_root:
            os.chown(descriptor, attributes.uid, attributes.gid)
            os.chmod(descriptor, stat.S_IMODE(attributes.mode))
        else:
            os.chmod(descriptor, attributes.mode & _PERMISSIONS & ~self._umask)
        for name, value in self._xattrs(node):
            os.setxattr(descriptor, name, value)
        os.utime(descriptor, ns=(attributes.mtime_ns, attributes.mtime_ns))

    def _set_by_name(self, directory: _Directory, name: bytes, node: int, attributes: Attributes) -> None:
        """Set the same as _set_all() for entries that cannot be opened: links and special files."""
        if self._as_root:
            os.chown(name, attributes.uid, attributes.gid, dir_fd=directory.descriptor, follow_symlinks=False)
        if not stat.S_ISLNK(attributes.mode):
            mode = stat.S_IMODE(attributes.mode) if self._as_root else attributes.mode & _PERMISSIONS & ~self._umask
            os.chmod(name, mode, dir_fd=directory.descriptor)
        for key, value in self._xattrs(node):
            os.setxattr(b"/proc/self/fd/%d/%b" % (directory.descriptor, name), key, value, follow_symlinks=False)
        times = (attributes.mtime_ns, attributes.mtime_ns)
        os.utime(name, ns=times, dir_fd=directory.descriptor, follow_symlinks=False)

    def _xattrs(self, node: int) -> Iterator[tuple[bytes, bytes]]:
        for name, value in self._rows.xattrs(node).items():
            if self._as_root or name.startswith(b"user."):
                yield name, value
            else:
                self.summary.xattrs_left_out += 1


def _children(rows: FileTree, node: int) -> Iterator[tuple[bytes, int, bytes]]:
    start = 0
    while page := rows.children(node, start, _PAGE):
        yield from page
        start += len(page)


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name
