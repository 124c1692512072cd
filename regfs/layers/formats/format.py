"""The interface of a layer format with a table of contents: Format, Table and Chunk.

A format reads the table of a layer (names, attributes, where each file's bytes are) and unpacks chunks. Both are
verified: the table against a digest in the manifest, each chunk against a digest in the table. Used by images/ and the
formats. Pure but for Format.table, which reads from a ByteSource; any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from regfs.layers.formats.toc_text import BoundedRun
from regfs.layers.source import ByteSource
from regfs.layers.tar.tar_reader import TarEntry
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor

MAX_MEMBER = 32 << 20
"""Bytes that one compressed member may have up to the end of a chunk in it: they are unpacked in memory.

stargz cuts at 4 MiB, podman at some 64 KiB on average. A layer with a greater one is read whole."""


class Chunk(NamedTuple):
    """A range of a file, which is fetched, verified and kept as a whole.

    *offset*, *size*: where it is in the file. *at*, *stored*: the range of the blob that has it, beginning with a
    compressed member and reaching at least to that member's end. *inner*: how many bytes that member has before it.
    *digest*: of the *size* bytes; None for a hole, whose bytes are zeros and are stored nowhere.
    """

    offset: int
    size: int
    at: int
    stored: int
    inner: int
    digest: Digest | None


Take = Callable[[BoundedRun], Iterable[range]]
"""Takes the entries of a run; tells the numbers of each file that it leaves, which is to be added before it goes on."""


class Table(Protocol):
    """The table of contents of one layer. It is verified once it was read to its end: use nothing of it before."""

    @property
    def hidden(self) -> frozenset[bytes]:
        """The names in the root that are the format's own files."""

    def entries(self, take: Take | None = None) -> Iterator[tuple[TarEntry, tuple[Chunk, ...]]]:
        """Yield the entries in archive order, without the format's own files and those that *take* takes. Call it once.

        The chunks of a file are in order and cover it. A file of some size without chunks is one whose part of the
        table is wrong: only that file cannot be read; *remark* says why.
        Raises BadLayer where the table is wrong as a whole, Unsupported where it cannot stand for the archive,
        TooLarge; at the end DigestMismatch where it is not the one that the manifest names.
        """

    def verify(self) -> None:
        """Raise DigestMismatch where the table is not the one that the manifest names; its entries() ended early."""

    @property
    def remark(self) -> str:
        """What is wrong with single files, "" for nothing; complete when entries() has ended."""


FindTable = Callable[[Digest], ByteSource | None]
"""Finds the blob that has the table of the layer of that digest, where the layer does not hold it itself."""


class Format(Protocol):
    """One format of layers."""

    @property
    def name(self) -> str:
        """Its name in messages."""

    def recognises(self, descriptor: Descriptor) -> bool:
        """Tell whether a layer is of this format, and its manifest authenticates its table. No request."""

    def table_id(self, descriptor: Descriptor, /) -> str:
        """Return an id of the layer's table. The manifests of two images may name two tables for one blob."""

    def hidden(self, descriptor: Descriptor, /) -> frozenset[bytes]:
        """Return the names in the root of the archive that are the format's own files, which trees must not show."""

    def table(self, descriptor: Descriptor, source: ByteSource, find_table: FindTable, /) -> Table:
        """Return the table of a layer, in few small reads of *source*.

        Raises DigestMismatch and BadLayer where it is wrong at first sight, TooLarge, Unsupported where the layer has
        to be read whole, and what *source* raises.
        """

    def read(self, chunks: Sequence[Chunk], stored: bytes) -> dict[Chunk, bytes]:
        """Return the bytes of *chunks*, which have the same *at*; *stored* is that range of the blob.

        Chunks with a wrong digest are left out.
        """


def found_nowhere(_: Digest) -> None:
    """Find no table outside the layer: a FindTable for callers that have no registry to ask."""
