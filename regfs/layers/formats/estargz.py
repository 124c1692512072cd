"""eStargz, and stargz before it: a tar of many gzip members, and at its end a table of contents.

    [member]… [member with the table: a tar whose first file is stargz.index.json] [footer]

Each file's content, and each chunk of a big one, begins a member; its tar header is in the member before. The footer
is an empty member whose header has the offset of the table's member in its extra field:

    eStargz         51   1f 8b 08 04, 6 bytes; 1a 00 `SG` 16 00; 16 hex digits, `STARGZ`; an empty block, 8 zeros
    stargz          47   the same with 16 00 for `1a 00 SG 16 00`
    external table  46   1f 8b 08 04, 6 bytes; 15 00 `SG` 11 00; `STARGZEXTERNALTOC`; …: the table is another blob,
                         a tar.gz that begins with stargz.index.json

The manifest has the sha256 of the table's JSON, uncompressed; without it the layer counts as plain gzip. Times are
whole seconds in the table, rounded, whatever the tar has. Sources: stargz-snapshotter, docs/estargz.md;
estargz/gzip.go; estargz/externaltoc/externaltoc.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from regfs.errors import BadLayer, InvalidName, TooLarge, Unsupported
from regfs.layers.compression import gzip
from regfs.layers.formats.format import Chunk, FindTable
from regfs.layers.formats.gzip_member import bytes_needed, verified
from regfs.layers.formats.toc import MAX_TABLE, Toc
from regfs.layers.source import ByteSource
from regfs.layers.tar.feed import ByteFeed
from regfs.layers.tar.tar_reader import TarReader
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.media_types import is_tar_layer, layer_compression

TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
TABLE_FILE = b"stargz.index.json"
HIDDEN = frozenset((b".prefetch.landmark", b".no.prefetch.landmark", TABLE_FILE))
"""The format's own files, in the root of the archive."""

MAX_STORED_TABLE = 64 << 20
"""Bytes of the compressed table, which is held in memory while it is read."""

_HEADER = b"\x1f\x8b\x08\x04"
_FLAGS_END = 10  # where the extra field begins: time, flags and operating system vary
_EMPTY = b"\x01\x00\x00\xff\xff" + bytes(8)
_DIGITS = 16
_FOOTERS = (b"\x1a\x00SG\x16\x00", b"\x16\x00")
_EXTERNAL = b"\x15\x00SG\x11\x00STARGZEXTERNALTOC"
# Read with the footer: most tables fit, and then one request does.
_LEAST_TAIL, _MOST_TAIL = 1 << 16, 1 << 21
_BLOCK_SIZE = 1 << 18


class Estargz:
    """The format; see Format."""

    name = "eStargz"

    def recognises(self, descriptor: Descriptor) -> bool:
        """Tell whether the layer is gzip, and its manifest has the digest of a table."""
        media_type = descriptor.media_type
        return (
            TOC_DIGEST in descriptor.annotations
            and is_tar_layer(media_type)
            and layer_compression(media_type) == "gzip"
        )

    def table_id(self, descriptor: Descriptor) -> str:
        """Return the table's digest. See Format."""
        return descriptor.annotations[TOC_DIGEST]

    def hidden(self, _descriptor: Descriptor) -> frozenset[bytes]:
        """Return the names of the landmarks and of the table. See Format."""
        return HIDDEN

    def table(self, descriptor: Descriptor, source: ByteSource, find_table: FindTable, /) -> Toc:
        """Return the table of contents. See Format."""
        digest = toc_digest(descriptor)
        tail_size = min(source.size, max(_LEAST_TAIL, min(_MOST_TAIL, source.size // 256)))
        tail = source.read_at(source.size - tail_size, tail_size)
        offset, footer_size = _footer(tail)
        end = source.size - footer_size
        if offset is None:
            external = find_table(descriptor.digest)
            if external is None:
                raise Unsupported("the layer's table of contents is kept elsewhere, and was not found there")
            stored = _whole(external)
        else:
            if not 0 <= offset < end:
                raise BadLayer(f"the footer says that the table of contents is at byte {offset} of {end}")
            stored, end = _stored(source, tail, offset, end), offset
        return Toc(_json(stored), digest=digest, end=end, hidden=self.hidden(descriptor))

    def read(self, chunks: Sequence[Chunk], stored: bytes) -> dict[Chunk, bytes]:
        """Return the bytes of *chunks*. See Format."""
        # In one go: *stored* is hardly more than the one member, whose bytes are not copied then.
        blocks = gzip.inflate([stored], block_size=bytes_needed(chunks), first_bite=len(stored))
        return verified(chunks, blocks)


def toc_digest(descriptor: Descriptor) -> Digest:
    """Return the digest of the table that the manifest has. Raises BadLayer, Unsupported."""
    try:
        return Digest.parse(descriptor.annotations[TOC_DIGEST])
    except InvalidName as error:
        raise BadLayer(f"the digest of the table of contents: {error}") from None


def _footer(tail: bytes) -> tuple[int | None, int]:
    """Return the table's offset, None where it is another blob, and the footer's size. Raises BadLayer."""
    for extra in _FOOTERS:
        size = _FLAGS_END + len(extra) + _DIGITS + len(b"STARGZ") + len(_EMPTY)
        footer = tail[-size:]
        fixed, digits = footer[_FLAGS_END : _FLAGS_END + len(extra)], footer[_FLAGS_END + len(extra) :][:_DIGITS]
        rest = footer[_FLAGS_END + len(extra) + _DIGITS :]
        if footer.startswith(_HEADER) and fixed == extra and rest == b"STARGZ" + _EMPTY:
            try:
                return int(digits.decode("ascii"), 16), size
            except ValueError:
                raise BadLayer(f"the footer has {digits!r} for an offset") from None
    size = _FLAGS_END + len(_EXTERNAL) + len(_EMPTY)
    footer = tail[-size:]
    if footer.startswith(_HEADER) and footer[_FLAGS_END:] == _EXTERNAL + _EMPTY:
        return None, size
    raise BadLayer("the manifest has the digest of a table of contents, and the layer has no footer that tells where")


def _stored(source: ByteSource, tail: bytes, offset: int, end: int) -> bytes:
    """Return the compressed table, what is in *tail* not read again. Raises TooLarge."""
    if end - offset > MAX_STORED_TABLE:
        raise TooLarge(f"a table of contents of {end - offset} bytes; regfs reads up to {MAX_STORED_TABLE}")
    tail_at = source.size - len(tail)
    missing = source.read_at(offset, tail_at - offset) if offset < tail_at else b""
    return missing + tail[max(offset - tail_at, 0) : end - tail_at]


def _whole(source: ByteSource) -> bytes:
    if source.size > MAX_STORED_TABLE:
        raise TooLarge(f"a table of contents of {source.size} bytes; regfs reads up to {MAX_STORED_TABLE}")
    return source.read_at(0, source.size)


def _json(stored: bytes) -> Iterator[bytes]:
    """Yield the first file of the tar.gz that is *stored*. Raises BadLayer, TooLarge."""
    reader = TarReader(ByteFeed(gzip.inflate([stored], block_size=_BLOCK_SIZE)))
    for entry in reader:
        if entry.path != TABLE_FILE or entry.size > MAX_TABLE:
            break
        yield from map(bytes, reader.content())
        return
    raise BadLayer(f"where the table of contents should be is no {TABLE_FILE.decode()}")
