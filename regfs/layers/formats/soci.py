"""SOCI: an unmodified gzip layer, with a table beside it (ztoc.py) by which any span can be inflated alone.

    image manifest   annotation com.amazon.soci.index-digest: the digest of a SOCI index in the same repository (v2)
    SOCI index       an image manifest whose config has the media type …soci.index.v2+json (or v1) and the bytes {};
                     its layers are zTOCs, each with the digest of the image's layer that it is for
    zTOC             names, attributes and offsets of the layer's files; checkpoints to inflate from

The manifest authenticates the index, the index the zTOC, and the zTOC the compressed bytes of each span. Nothing
vouches for the names in the zTOC, so the tar header of a file is compared at its first read. A wrong or unusable zTOC
costs only speed: the layer is read whole. Source: soci-snapshotter, soci/soci_index.go, soci/soci_convert.go,
fs/span-manager. Pure; any thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from regfs.errors import BadLayer, InvalidName, TooLarge, Unsupported
from regfs.layers.compression.gzip import ERROR, header_size, raw_inflater
from regfs.layers.formats.ztoc import Ztoc
from regfs.layers.tar.feed import ByteFeed
from regfs.layers.tar.tar_reader import TarEntry, TarReader
from regfs.model.digest import Digest
from regfs.model.manifest import Descriptor, Manifest

IMAGE_MANIFEST_DIGEST = "com.amazon.soci.image-manifest-digest"
LAYER_DIGEST = "com.amazon.soci.image-layer-digest"
LAYER_MEDIA_TYPE = "com.amazon.soci.image-layer-mediaType"
BUILD_TOOL = "com.amazon.soci.build-tool-identifier"
SPAN_SIZE = "com.amazon.soci.span-size"
INDEX_V1 = "application/vnd.amazon.soci.index.v1+json"
INDEX_V2 = "application/vnd.amazon.soci.index.v2+json"

NAME = "SOCI"
"""What an index of a layer's names says that they came from."""

_TRAILER = 8
_MOST_MEMBERS = 1 << 16


@dataclass(frozen=True, slots=True)
class Soci:
    """A layer's zTOC: *load* returns the verified bytes of *ztoc*, and may wait for the network."""

    ztoc: Digest
    load: Callable[[], bytes]
    name: str = NAME

    def table_id(self, _descriptor: Descriptor) -> str:
        """Return the zTOC's digest. See Format."""
        return str(self.ztoc)

    def hidden(self, _descriptor: Descriptor) -> frozenset[bytes]:
        """Return no names: the layer is as it was without its table. See Format."""
        return frozenset()


def ztocs_of(index: Manifest) -> Mapping[Digest, Descriptor]:
    """Return the zTOCs that a SOCI index names, by the layers that they are for; none where it is no SOCI index."""
    if index.config.media_type not in (INDEX_V1, INDEX_V2):
        return {}
    found: dict[Digest, Descriptor] = {}
    for ztoc in index.layers:
        try:
            found.setdefault(Digest.parse(ztoc.annotations[LAYER_DIGEST]), ztoc)
        except (KeyError, InvalidName):  # a list of spans to prefetch, or one of a layer that cannot be
            continue
    return found


def read_ztoc(descriptor: Descriptor, content: bytes) -> Ztoc:
    """Return the zTOC *content*, verified bytes, of the layer *descriptor*. Raises Unsupported where it is unusable.

    A wrong zTOC says nothing about the layer, so there is no other error.
    """
    try:
        ztoc = Ztoc(content)
    except (BadLayer, TooLarge) as error:
        raise Unsupported(f"its zTOC cannot be read: {error}") from None
    if ztoc.blob_size != descriptor.size:
        raise Unsupported(f"its zTOC is that of a layer of {ztoc.blob_size} bytes, not {descriptor.size}")
    return ztoc


def inflate_span(stored: bytes, *, bits: int, window: bytes, size: int) -> bytes:
    """Return the *size* bytes that a span inflates to; see ztoc.Span. Raises BadLayer.

    A member of the gzip file may end within it, and others follow.
    """
    parts: list[bytes] = []
    left = size
    inflater = raw_inflater(window)
    source = _aligned(stored, bits)
    for _ in range(_MOST_MEMBERS):
        try:
            part = inflater.decompress(source, left)
        except ERROR as error:
            raise BadLayer(f"a span cannot be inflated: {error}") from None
        parts.append(part)
        left -= len(part)
        if not left:
            return b"".join(parts)
        if not inflater.eof:
            break
        source = inflater.unused_data[_TRAILER:].lstrip(b"\0")  # padding
        size_of_header = header_size(memoryview(source))
        if not size_of_header:
            break
        source = source[size_of_header:]
        inflater = raw_inflater()
    raise BadLayer(f"a span inflates to {size - left} bytes, not {size}")


def _aligned(stored: bytes, bits: int) -> bytes:
    """Return *stored* from the highest *bits* bits of its first byte on (0: from the first byte on), to be inflated.

    zlib's inflatePrime() takes single bits, but Python has no such thing. So empty blocks come before these bits, of
    as many bits as are to be left out. To shift all bits to the beginning will not do: blocks that are stored and not
    compressed begin at a byte, and would no longer.
    """
    if not bits:
        return stored
    prefix = _PREFIXES[8 - bits]
    mask = 0xFF << (8 - bits) & 0xFF
    return prefix[:-1] + bytes([prefix[-1] | stored[0] & mask]) + stored[1:]


def _prefixes() -> tuple[bytes, ...]:
    """Return, for each number of bits below 8, deflate blocks without content that end at that bit of their last byte.

    An empty block of fixed codes has 10 bits. One that has codes of its own, of which there is one for its end and one
    for a distance, has 93. Source: RFC 1951, 3.2.5 to 3.2.7.
    """
    fixed = "0100000000"
    lengths = ["000"] * 19
    lengths[2] = lengths[17] = "100"  # the codes 1 for "138 or 118 zeros" and 0 for "a code of 1 bit"
    own = "00100000000001111" + "".join(lengths) + "1111111111101011000"
    found: dict[int, str] = {}
    for blocks in [fixed * count for count in range(1, 5)] + [own + fixed * count for count in range(4)]:
        found.setdefault(len(blocks) % 8, blocks)
    return tuple(int(found[end][::-1], 2).to_bytes((len(found[end]) + 7) // 8, "little") for end in range(8))


_PREFIXES = _prefixes()


def fingerprint(entry: TarEntry) -> bytes:
    """Return a hash of 16 bytes over all fields of a file's tar header."""
    xattrs = sorted((entry.xattrs or {}).items())
    numbers = (entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.mtime_ns, entry.rdev)
    parts = (repr(numbers).encode(), entry.path, entry.link, *(part for pair in xattrs for part in pair))
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little") + part)
    return hasher.digest()


def check_headers(headers: bytes, expected: bytes) -> None:
    """Raise BadLayer unless *headers*, of the archive up to a file's bytes, say what the zTOC says: *expected*."""
    feed = ByteFeed(iter([headers] if headers else []))
    try:
        entry = next(iter(TarReader(feed)), None)
    except (BadLayer, TooLarge) as error:
        raise BadLayer(f"the zTOC says that a file is where no tar header is: {error}") from None
    if entry is None or entry.extents is not None or feed.offset != len(headers):
        raise BadLayer("the zTOC says that a file is where no tar header is")
    if fingerprint(entry) != expected:
        raise BadLayer(f"the tar header of {entry.path[:300]!r} is not what the zTOC says of the file")


def unpacked(stored: bytes, *, digest: Digest, bits: int, window: bytes, size: int) -> bytes:
    """Return what a span inflates to, *stored* being its bytes of the blob. Raises BadLayer where they are wrong."""
    if not digest.matches(stored):
        raise BadLayer("a span of the layer is not what the zTOC says")
    return inflate_span(stored, bits=bits, window=window, size=size)
