"""zstd:chunked: a tar of many zstd frames, and at its end frames that a decompressor skips, with a table of contents.

    [frame]… [skippable: the table, zstd] [skippable: tar-split, zstd; since 2023] [skippable: footer]

A skippable frame is 50 2a 4d 18, its size (u32, little-endian), and that many bytes. Each file's content, and each
chunk of it, is a frame of its own. Where the table is, and the sha256 of its compressed bytes, stand in the
annotations of the manifest's descriptor, of which there are two generations of keys:

    io.github.containers.zstd-chunked.manifest-position    offset:size:uncompressed size:type, offset past the eight
    io.github.containers.zstd-chunked.manifest-checksum    bytes of the frame's header, type 1
    io.containers.zstd-chunked.…                           the same, of podman until 2022 and of stargz to this day

The footer, of which there are three kinds, only repeats that, is authenticated by nothing, and is not read. stargz adds
the digest of the uncompressed table, as for eStargz, and puts its landmarks into the archive.
Sources: containers/storage, pkg/chunked/internal/minimal/compression.go, pkg/chunked/compression_linux.go;
stargz-snapshotter, estargz/zstdchunked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from regfs.errors import BadLayer, DigestMismatch, InvalidName, TooLarge, Unsupported
from regfs.layers.formats.estargz import HIDDEN, MAX_STORED_TABLE, TOC_DIGEST, toc_digest
from regfs.layers.formats.format import Chunk, FindTable
from regfs.layers.formats.gzip_member import verified
from regfs.layers.formats.toc import Toc
from regfs.layers.source import ByteSource
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor
from regfs.model.media_types import is_tar_layer, layer_compression

_PREFIXES = ("io.github.containers.zstd-chunked.", "io.containers.zstd-chunked.")
_POSITION, _CHECKSUM = "manifest-position", "manifest-checksum"
_NUMBERS = re.compile(r"(\d{1,18}):(\d{1,18}):(\d{1,18}):(\d{1,9})", re.ASCII)
_TYPE = 1
_FRAME_HEADER = 8
_BLOCK_SIZE = 1 << 18


class ZstdChunked:
    """The format; see Format."""

    name = "zstd:chunked"

    def recognises(self, descriptor: Descriptor) -> bool:
        """Tell whether the layer is zstd, and its manifest has place and digest of a table."""
        media_type, annotations = descriptor.media_type, descriptor.annotations
        return (
            _annotation(descriptor, _POSITION) is not None
            and (_annotation(descriptor, _CHECKSUM) is not None or TOC_DIGEST in annotations)
            and is_tar_layer(media_type)
            and layer_compression(media_type) == "zstd"
        )

    def table_id(self, descriptor: Descriptor) -> str:
        """Return the table's place and digests. See Format."""
        named = (_annotation(descriptor, _POSITION), _annotation(descriptor, _CHECKSUM))
        return " ".join(filter(None, [*named, descriptor.annotations.get(TOC_DIGEST)]))

    def hidden(self, descriptor: Descriptor) -> frozenset[bytes]:
        """Return the names of the landmarks where stargz wrote the layer. See Format."""
        return HIDDEN if TOC_DIGEST in descriptor.annotations else frozenset()

    def table(self, descriptor: Descriptor, source: ByteSource, _find_table: FindTable, /) -> Toc:
        """Return the table of contents, by one read. See Format."""
        at, size = _position(descriptor, source.size)
        stored = source.read_at(at, size)
        checksum = _checksum(descriptor)
        if checksum is not None and not checksum.matches(stored):
            raise DigestMismatch(f"the table of contents has {Digest.of(stored)}, the manifest says {checksum}")
        return Toc(
            _decompressed(stored),
            digest=toc_digest(descriptor) if TOC_DIGEST in descriptor.annotations else None,
            end=at - _FRAME_HEADER,
            hidden=self.hidden(descriptor),
        )

    def read(self, chunks: Sequence[Chunk], stored: bytes) -> dict[Chunk, bytes]:
        """Return the bytes of *chunks*. See Format."""
        return verified(chunks, _decompressed(stored))


def _annotation(descriptor: Descriptor, key: str) -> str | None:
    return next((value for prefix in _PREFIXES if (value := descriptor.annotations.get(prefix + key))), None)


def _position(descriptor: Descriptor, layer_size: int) -> tuple[int, int]:
    """Return where the compressed table is, and its size. Raises BadLayer, TooLarge, Unsupported."""
    text = _annotation(descriptor, _POSITION) or ""
    match = _NUMBERS.fullmatch(text)
    if match is None:
        raise BadLayer(f"{text[:80]!r} is not a place of a table of contents")
    at, size, _, kind = map(int, match.groups())
    if kind != _TYPE:
        raise Unsupported(f"a zstd:chunked table of contents of type {kind}; regfs reads {_TYPE}")
    if not _FRAME_HEADER <= at < at + size <= layer_size:
        raise BadLayer(f"the table of contents should be at {at} to {at + size} of a layer of {layer_size} bytes")
    if size > MAX_STORED_TABLE:
        raise TooLarge(f"a table of contents of {size} bytes; regfs reads up to {MAX_STORED_TABLE}")
    return at, size


def _checksum(descriptor: Descriptor) -> Digest | None:
    text = _annotation(descriptor, _CHECKSUM)
    try:
        return None if text is None else Digest.parse(text)
    except InvalidName as error:
        raise BadLayer(f"the checksum of the table of contents: {error}") from None


def _decompressed(stored: bytes) -> Iterator[bytes]:
    # Imported here because few layers need it.
    from regfs.layers.compression import zstd

    return zstd.decompress([stored], block_size=_BLOCK_SIZE)
