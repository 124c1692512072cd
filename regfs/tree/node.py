"""The interfaces of nodes (directory, file, link, directory of a table), and the simple nodes.

Invented nodes (registries, tags, `digest`, `blobs/` …) are objects of the classes of this package, one kind a file.
Entries of a rootfs/ or a layer's tree/ are rows of a table and never objects; a TableDirectory is the directory that a
table is shown as. The *key* of a node is its path in the mount, with the digest behind a tag (`app/1@sha256:…/rootfs`).
It is the node's identity: equal keys are one node, and the node id is a hash of it.
Used by all of this package. Thread rule: nodes are immutable; any thread.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from regfs.errors import DigestMismatch, RegfsError
from regfs.model.attributes import Attributes
from regfs.process.waiting.deadline import NON_BLOCKING, under
from regfs.rootfs.file_tree import FileTree

FOREVER = float("inf")

DIRECTORY_MODE = stat.S_IFDIR | 0o555
FILE_MODE = stat.S_IFREG | 0o444
TABLE_MODE = stat.S_IFDIR | 0o755
LINK_MODE = stat.S_IFLNK | 0o777


class Dated:
    """A node with the date of an image; the date is 0 (1970) until the image's config is known.

    It is not the time of the mount, which changes with each mount: `ls -t` would then list unopened images first.
    """

    __slots__ = ()


class Live:
    """A file whose content may change at any time: the kernel may not cache its attributes."""

    __slots__ = ()


class OpenFile(Protocol):
    """An open file. Any thread may read it; `close` is called once."""

    @property
    def keep_cache(self) -> bool:
        """Whether the kernel may keep cached pages from an earlier open, because the bytes cannot have changed."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly *size* bytes from *offset* on, fewer only at the end of the file. May block on the network."""

    def backing_fd(self) -> int | None:
        """Return a descriptor of an ordinary file with exactly these bytes; None if there is none."""

    def close(self) -> None:
        """Close the file."""


class Child(NamedTuple):
    """A name in a listing, the mode of its node, and the key of the node that a look-up finds.

    *table* is set where that node is the directory of a table.
    """

    name: str
    mode: int
    key: str
    table: TableDirectory | None = None


class Found(NamedTuple):
    """The node that a name means in an invented directory, and for how many seconds this holds."""

    node: Node
    valid_s: float


@runtime_checkable
class Directory(Protocol):
    """An invented directory. lookup() and children() may block on the network and raise any RegfsError."""

    @property
    def key(self) -> str: ...

    def attributes(self) -> Attributes: ...

    def lookup(self, name: str) -> Found:
        """Return what *name* means here. Raises NotFound."""

    def children(self) -> list[Child]:
        """Return the names that a listing shows; others may open too."""


@runtime_checkable
class Evicting(Protocol):
    """A directory in which unlink(2) evicts parts of the cache. All other directories are read-only."""

    def evict(self, name: str) -> None:
        """Evict the part *name*; blocks on the disk. Raises NotFound, InUse, CacheFailure."""


@runtime_checkable
class File(Protocol):
    """An invented file. attributes() has the size; both methods may block on the network."""

    @property
    def key(self) -> str: ...

    def attributes(self) -> Attributes: ...

    def open(self) -> OpenFile: ...


@dataclass(frozen=True, slots=True)
class Link(Dated):
    """A symbolic link."""

    key: str
    target: bytes
    created_ns: Callable[[], int]

    def attributes(self) -> Attributes:
        """Return the link's attributes."""
        return Attributes(LINK_MODE, len(self.target), mtime_ns=self.created_ns())


@dataclass(frozen=True, slots=True)
class TableDirectory:
    """A directory that is a table: rootfs/ or layers/N/tree/.

    *load* returns the table; where the cache lacks it, *load* downloads, unpacks and merges the layers, and waits for
    that. *identity* depends only on the image or layer: it is the key of the table's inode numbers. *origin* returns
    the xattrs that describe the layer with that number.
    """

    key: str
    identity: str
    load: Callable[[], FileTree]
    origin: Callable[[int], Mapping[bytes, bytes]] | None = None

    def placeholder(self) -> Attributes:
        """Return placeholder attributes for a listing: `ls -l` beside a rootfs/ must not download it."""
        return Attributes(TABLE_MODE, 4096, 2)

    def load_at_once(self) -> FileTree | None:
        """Return the table if it is in the cache; None if not, or on a failure, which a look-up reports. No waiting."""
        try:
            with under(NON_BLOCKING):
                return self.load()
        except RegfsError:
            return None


Invented = Directory | File | Link
Node = Invented | TableDirectory


class OpenBytes:
    """A file of which all bytes are in memory."""

    def __init__(self, content: bytes, *, keep_cache: bool = True) -> None:
        self._content = content
        self.keep_cache = keep_cache

    def read_at(self, offset: int, size: int) -> bytes:
        return self._content[offset : offset + size]

    def backing_fd(self) -> int | None:
        return None

    def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class BytesFile(Dated):
    """A small file of known bytes: `digest`, `diff_id`, `media_type` … *created_ns* returns its date."""

    key: str
    content: bytes
    created_ns: Callable[[], int]

    def attributes(self) -> Attributes:
        """Return the file's attributes."""
        return Attributes(FILE_MODE, len(self.content), mtime_ns=self.created_ns())

    def open(self) -> OpenFile:
        """Return the bytes."""
        return OpenBytes(self.content)


@dataclass(frozen=True, slots=True)
class FetchedFile(Dated):
    """A file of known size whose bytes are read when it is opened: manifest.json, config.json."""

    key: str
    size: int
    read: Callable[[], bytes]
    created_ns: Callable[[], int]

    def attributes(self) -> Attributes:
        """Return the file's attributes."""
        return Attributes(FILE_MODE, self.size, mtime_ns=self.created_ns())

    def open(self) -> OpenFile:
        """Return the bytes; may block on the network. Raises DigestMismatch unless they are *size* bytes."""
        content = self.read()
        if len(content) != self.size:
            raise DigestMismatch(f"{self.key} has {len(content)} bytes, its descriptor says {self.size}")
        return OpenBytes(content)


def children_of(key: str, modes: Mapping[str, int]) -> list[Child]:
    """Return the children of the directory *key* whose names and modes are *modes*."""
    return [Child(name, mode, f"{key}/{name}") for name, mode in modes.items()]


def text_file(key: str, text: str, created_ns: Callable[[], int]) -> BytesFile:
    """Return a file of one line."""
    return BytesFile(key, f"{text}\n".encode("utf-8", "surrogateescape"), created_ns)


def directory_attributes(created_ns: int = 0) -> Attributes:
    """Return the attributes of an invented directory."""
    return Attributes(DIRECTORY_MODE, 0, 2, mtime_ns=created_ns)
