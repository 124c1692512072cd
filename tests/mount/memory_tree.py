"""A file system in memory (mount/filesystem.py) with everything that a driver can meet.

/stable     as below a digest: recorded nodes, valid for ever
/moving     as at a registry: valid for no time at all
/tag        two recorded directories; a look-up of /move lets the name mean the other one
/errors     one name for each error, raised by its look-up
/slow       look-ups and reads that wait until /release is looked up; each says WAITING on standard output
/parts      files that unlink removes, but for `held`
/live       a file of which the size is not known before it is read
/counters   how often each name was looked up, and the sizes of the reads of some files, as JSON
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
import struct
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from regfs import errors
from regfs.model.attributes import Attributes, device_number
from regfs.model.node_id import INVENTED, ROOT, SLOT_SHIFT, is_entry
from regfs.process.waiting.deadline import current
from regfs.tree.entry import FoundEntry, ListedEntry
from regfs.tree.usage import Usage

RECORDED = 1 << SLOT_SHIFT
MTIME_NS = 1_600_000_000_123_456_789
BIG = bytes(range(256)) * 4 * 1024 * 3  # 3 MiB
SCRIPT = b"#!/bin/sh\necho hello from the mount\n"
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
STRANGE_NAMES = [b"plain", b"\xff\xfe bytes", "k\u00e4se".encode(), b"new\nline", b"a" * 255, b" ", b"\x01", b"-rf"]
LONG_WHITEOUT = b".wh." + b"a" * 255
MANY = 10_000
HELD = b"held"
"""The file of /parts that cannot be removed."""
PARTS = [HELD, *(b"part-%d" % number for number in range(4))]

# What each name in /errors raises, whatever is asked of it.
FAILURES: dict[str, tuple[type[errors.RegfsError], int]] = {
    "not-found": (errors.NotFound, errno.ENOENT),
    "invalid-name": (errors.InvalidName, errno.ENOENT),
    "name-too-long": (errors.NameTooLong, errno.ENAMETOOLONG),
    "access-denied": (errors.AccessDenied, errno.EACCES),
    "rate-limited": (errors.RateLimited, errno.EBUSY),
    "timeout": (errors.RegistryTimeout, errno.ETIMEDOUT),
    "unavailable": (errors.RegistryUnavailable, errno.EHOSTUNREACH),
    "offline": (errors.Offline, errno.EHOSTUNREACH),
    "digest-mismatch": (errors.DigestMismatch, errno.EIO),
    "protocol-violation": (errors.ProtocolViolation, errno.EIO),
    "bad-manifest": (errors.BadManifest, errno.EIO),
    "bad-layer": (errors.BadLayer, errno.EIO),
    "too-large": (errors.TooLarge, errno.EFBIG),
    "unsupported": (errors.Unsupported, errno.EOPNOTSUPP),
    "in-use": (errors.InUse, errno.EBUSY),
    "interrupted": (errors.Interrupted, errno.EINTR),
    "cache-failure": (errors.CacheFailure, errno.EIO),
}


@dataclass
class Entry:
    """One inode."""

    mode: int
    content: bytes = b""
    rdev: int = 0
    uid: int = 0
    gid: int = 0
    nlink: int = 1
    children: dict[bytes, int] = field(default_factory=dict)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    parent: int = ROOT
    valid_s: float = 60.0
    wait: Callable[[], None] | None = None
    backing: int | None = None
    keep_cache: bool = True
    evicts: bool = False
    known: bytes = b""
    reads: list[int] = field(default_factory=list)

    def packed(self, number: int) -> bytes:
        """Return the 88 bytes of attributes; a recorded entry's are packed once, as in a table."""
        if not self.known or not is_entry(number):
            self.known = self._pack(number)
        return self.known

    def _pack(self, number: int) -> bytes:
        directory = stat.S_ISDIR(self.mode)
        size = 4096 if directory else len(self.content)
        attributes = Attributes(self.mode, size, self.nlink, self.uid, self.gid, self.rdev, MTIME_NS)
        return struct.pack("<Q", number & (RECORDED - 1)) + attributes.pack()


class MemoryFile:
    """An open file of a MemoryTree."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self.keep_cache = entry.keep_cache

    def read_at(self, offset: int, size: int) -> bytes:
        self._entry.reads.append(size)
        return self._entry.content[offset : offset + size]

    def backing_fd(self) -> int | None:
        return self._entry.backing

    def close(self) -> None:
        pass


class MemoryListing:
    """An open directory of a MemoryTree."""

    def __init__(self, entries: list[ListedEntry]) -> None:
        self._entries = entries

    def entries(self, start: int, limit: int) -> list[ListedEntry]:
        return self._entries[start : start + limit]

    def at_once(self, position: int) -> ListedEntry:
        return self._entries[position]


class MemoryTree:
    """Entries by number; numbers from RECORDED to INVENTED are recorded nodes."""

    def __init__(self) -> None:
        self.nodes: dict[int, Entry] = {ROOT: Entry(stat.S_IFDIR | 0o755, nlink=2)}
        self.lookups: dict[int, int] = {}
        self._listings: dict[int, list[ListedEntry]] = {}

    # Building

    def add(self, parent: int, name: bytes, entry: Entry) -> int:
        """Put *entry* into *parent* and return its number; recorded below what is recorded."""
        return self.link(parent, name, self.keep(entry, recorded=is_entry(parent)))

    def keep(self, entry: Entry, *, recorded: bool) -> int:
        """Give *entry* its number."""
        number = (RECORDED if recorded else INVENTED) + len(self.nodes) + 1
        if recorded:
            entry.valid_s = math.inf
        self.nodes[number] = entry
        return number

    def link(self, parent: int, name: bytes, number: int) -> int:
        """Give the entry *number* one more name."""
        entry = self.nodes[number]
        self.nodes[parent].children[name] = number
        if stat.S_ISDIR(entry.mode):
            entry.parent, entry.nlink = parent, 2
            self.nodes[parent].nlink += 1
        return number

    def directory(self, parent: int, name: bytes, mode: int = 0o755) -> int:
        return self.add(parent, name, Entry(stat.S_IFDIR | mode))

    def file(self, parent: int, name: bytes, content: bytes, mode: int = 0o644) -> int:
        return self.add(parent, name, Entry(stat.S_IFREG | mode, content))

    # What drivers ask

    def lookup(self, parent: int, name: bytes) -> FoundEntry:
        directory = self._entry(parent)
        if not stat.S_ISDIR(directory.mode):
            raise errors.NotADirectory("no directory")
        number = directory.children.get(name)
        if number is None:
            raise errors.NotFound(os.fsdecode(name))
        entry = self._entry(number)
        if entry.wait is not None:
            entry.wait()
        if not is_entry(number):
            self.lookups[number] = self.lookups.get(number, 0) + 1
        return FoundEntry(number, entry.packed(number), entry.valid_s)

    def attributes(self, node: int) -> FoundEntry:
        entry = self._entry(node)
        return FoundEntry(node, entry.packed(node), entry.valid_s)

    def enter(self, node: int) -> bool:
        return False

    def parent(self, node: int) -> int:
        return self._entry(node).parent

    def unlink(self, parent: int, name: bytes) -> None:
        """Remove a file of a directory whose `evicts` is set, as `.regfs/cache/layers` is; wait as for the disk."""
        if not self._entry(parent).evicts:
            raise errors.ReadOnly("shown, not written")
        current().remaining_s(0.0)
        if name == HELD:
            raise errors.InUse("a process has it open")
        if self._entry(parent).children.pop(name, None) is None:
            raise errors.NotFound(os.fsdecode(name))
        self._listings.pop(parent, None)

    def may_unlink(self, node: int) -> bool:
        return self._entry(node).evicts or self._entry(self._entry(node).parent).evicts

    def name_of(self, node: int) -> str:
        return f"node {node:#x}"

    def listing(self, node: int) -> MemoryListing:
        entry = self._entry(node)
        if not stat.S_ISDIR(entry.mode):
            raise errors.NotADirectory("no directory")
        known = self._listings.get(node)
        if known is None:
            known = self._listings[node] = [self._listed(name, number) for name, number in entry.children.items()]
        return MemoryListing(known)

    def read_link(self, node: int) -> bytes:
        entry = self._entry(node)
        if not stat.S_ISLNK(entry.mode):
            raise errors.NotASymlink("no link")
        return entry.content

    def open(self, node: int) -> MemoryFile:
        entry = self._entry(node)
        if stat.S_ISDIR(entry.mode):
            raise errors.IsADirectory("a directory")
        return MemoryFile(entry)

    def read_following(self, node: int, limit: int, buffer: bytearray) -> list[tuple[int, bytes]]:
        following: list[tuple[int, bytes]] = []
        size = len(buffer)
        for number in range(node + 1, node + 65):
            entry = self.nodes.get(number)
            if entry is not None and stat.S_ISREG(entry.mode) and entry.content and entry.backing is None:
                size -= len(entry.content)
                if size < 0 or len(following) == limit:
                    break
                following.append((number, entry.content))
        return following

    def xattrs(self, node: int) -> Mapping[bytes, bytes]:
        return self._entry(node).xattrs

    def forget(self, node: int, count: int) -> None:
        if node in self.lookups:
            self.lookups[node] -= count

    def changing_entries(self) -> list[tuple[int, bytes]]:
        return []

    def usage(self) -> Usage:
        return Usage(total_bytes=1 << 40, free_bytes=1 << 39, available_bytes=1 << 38, total_files=1000, free_files=500)

    def _entry(self, node: int) -> Entry:
        try:
            return self.nodes[node]
        except KeyError:
            raise errors.StaleNode(f"{node:#x}") from None

    def _listed(self, name: bytes, number: int) -> ListedEntry:
        entry = self.nodes[number]
        recorded = is_entry(number)
        return ListedEntry(name, number if recorded else 0, entry.packed(number), entry.valid_s if recorded else 0.0)


class SlowFile(MemoryFile):
    """A file whose bytes come when *arrived* is set."""

    def __init__(self, entry: Entry, arrived: threading.Event) -> None:
        super().__init__(entry)
        self._arrived = arrived

    def read_at(self, offset: int, size: int) -> bytes:
        wait_until(self._arrived)
        return super().read_at(offset, size)


class SuiteTree(MemoryTree):
    """The tree of the behaviour suite. What waits in it waits until `/release` is looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = threading.Event()
        self.slow_reads: set[int] = set()
        stable = self.add(ROOT, b"stable", Entry(stat.S_IFDIR | 0o755, valid_s=math.inf))
        self._recorded(self._as_recorded(ROOT, b"stable", stable))
        moving = self.add(ROOT, b"moving", Entry(stat.S_IFDIR | 0o755, valid_s=0.0))
        self.add(moving, b"file", Entry(stat.S_IFREG | 0o644, b"moving\n", valid_s=0.0))
        self.live = self.add(ROOT, b"live", Entry(stat.S_IFREG | 0o444, keep_cache=False))
        self.counters = self.add(ROOT, b"counters", Entry(stat.S_IFREG | 0o444, keep_cache=False))
        self.asked: Counter[str] = Counter()
        self._images = [self._image(text) for text in (b"old", b"new")]
        self.file(ROOT, b"move", b"")
        self._failures()
        self._slow()
        parts = self.add(ROOT, b"parts", Entry(stat.S_IFDIR | 0o755, evicts=True, valid_s=0.0))
        for name in PARTS:
            part = Entry(stat.S_IFREG | 0o644, b"a part\n", parent=parts, valid_s=0.0, keep_cache=False)
            self.add(parts, name, part)

    def _image(self, text: bytes) -> int:
        number = self.keep(Entry(stat.S_IFDIR | 0o755, nlink=2), recorded=True)
        self.file(number, b"file", text * 1000)
        self.file(number, b"later", text)
        return number

    def lookup(self, parent: int, name: bytes) -> FoundEntry:
        self.asked[os.fsdecode(name)] += 1
        if parent == ROOT and name == b"move":
            self._images.reverse()
        if parent == ROOT and name == b"tag":
            return FoundEntry(self._images[0], self._entry(self._images[0]).packed(self._images[0]), 0.0)
        return super().lookup(parent, name)

    def changing_entries(self) -> list[tuple[int, bytes]]:
        """Return one entry that is valid for ever, so that only a notice can make the kernel ask for it again."""
        return [(ROOT, b"stable")]

    def _as_recorded(self, parent: int, name: bytes, number: int) -> int:
        entry = self.nodes.pop(number)
        self.nodes[parent].nlink -= 1
        return self.link(parent, name, self.keep(entry, recorded=True))

    def _recorded(self, top: int) -> None:
        self.nodes[self.file(top, b"file", b"hello\n")].xattrs = {
            b"user.comment": b"\x00\xffbinary",
            b"security.capability": CAPABILITY,
        }
        self.file(top, b"empty", b"")
        self.file(top, b"big", BIG)
        self.file(top, b"script", SCRIPT, 0o755)
        self.file(top, b"suid", b"x", 0o6755)
        self.nodes[self.file(top, b"owned", b"x", 0o640)].uid = 1234
        self._backing_file = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the tree)
        self._backing_file.write(BIG)
        self._backing_file.flush()
        self.nodes[self.file(top, b"backed", BIG)].backing = self._backing_file.fileno()
        linked = self.file(top, b"link-1", b"one inode\n")
        self.link(top, b"link-2", linked)
        self.nodes[linked].nlink = 2
        self.add(top, b"symlink", Entry(stat.S_IFLNK | 0o777, b"file"))
        self.add(top, b"dangling", Entry(stat.S_IFLNK | 0o777, b"/no/\xff/where"))
        self.add(top, b"null", Entry(stat.S_IFCHR | 0o666, rdev=device_number(1, 3)))
        self.add(top, b"disk", Entry(stat.S_IFBLK | 0o660, rdev=device_number(259, 70000)))
        self.add(top, b"fifo", Entry(stat.S_IFIFO | 0o600))
        self.add(top, b"socket", Entry(stat.S_IFSOCK | 0o600))
        whited = self.directory(top, b"whiteouts")
        for name in (b".wh.gone", b".wh..wh..opq", LONG_WHITEOUT):
            self.file(whited, name, b"")
        self.directory(top, b"bare")
        names = self.directory(top, b"names")
        for name in STRANGE_NAMES:
            self.file(names, name, name)
        many = self.directory(top, b"many")
        for number in range(MANY):
            self.file(many, b"%05d" % number, b"")

    def _recorded_entry(self, name: str) -> Entry:
        stable = self.nodes[self.nodes[ROOT].children[b"stable"]]
        return self.nodes[stable.children[name.encode()]]

    def _failures(self) -> None:
        directory = self.directory(ROOT, b"errors")
        for name, (kind, _) in FAILURES.items():
            self.nodes[self.file(directory, name.encode(), b"")].wait = raising(kind(f"{name}, as asked"))
        self.nodes[self.file(directory, b"bug", b"")].wait = raising(ZeroDivisionError("a bug, as asked"))

    def _slow(self) -> None:
        slow = self.directory(ROOT, b"slow")
        for number in range(100):
            self.nodes[self.file(slow, b"lookup-%d" % number, b"late\n")].wait = self._wait
            self.slow_reads.add(self.file(slow, b"read-%d" % number, b"late\n"))
        self.nodes[self.file(ROOT, b"release", b"")].wait = self.arrived.set

    def _wait(self) -> None:
        wait_until(self.arrived)

    def open(self, node: int) -> MemoryFile:
        if node == self.live:
            return MemoryFile(Entry(0, b"alive\n", keep_cache=False))
        if node == self.counters:
            reads = {f"reads of {name}": self._recorded_entry(name).reads for name in ("file", "big", "backed")}
            return MemoryFile(Entry(0, json.dumps({**self.asked, **reads}).encode(), keep_cache=False))
        if node in self.slow_reads:
            return SlowFile(self.nodes[node], self.arrived)
        return super().open(node)


def wait_until(arrived: threading.Event) -> None:
    """Wait for *arrived* as whatever waits for the network does: with the deadline of the thread."""
    if arrived.is_set():
        return
    current().remaining_s(0.0)
    os.write(1, b"WAITING\n")
    future: Future[None] = Future()

    def wait() -> None:
        arrived.wait()
        future.set_result(None)

    threading.Thread(target=wait, daemon=True).start()
    current().wait_for(future)


def raising(error: Exception) -> Callable[[], None]:
    """Return a function that raises *error*."""

    def wait() -> None:
        raise error

    return wait


def bench_tree(directories: int = 200, files: int = 250) -> MemoryTree:
    """Return /stable with so many recorded directories of so many files of 4 KiB."""
    tree = MemoryTree()
    top = tree.link(ROOT, b"stable", tree.keep(Entry(stat.S_IFDIR | 0o755), recorded=True))
    content = os.urandom(4096)
    for directory in range(directories):
        number = tree.directory(top, b"dir-%03d" % directory)
        for file in range(files):
            tree.file(number, b"file-%03d" % file, content)
    return tree
