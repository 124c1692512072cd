"""gzip that is inflated in place gives the same bytes and refuses the same streams as block by block."""

from __future__ import annotations

import gzip
import os
import random
import zlib
from collections.abc import Iterator

import pytest

from regfs.errors import BadLayer
from regfs.layers.compression import archive_stream
from regfs.layers.compression.archive_stream import open_archive

CONTENT = os.urandom(20_000) + bytes(200_000)
PACKED = gzip.compress(CONTENT, mtime=0)


def with_header(flags: int, rest: bytes) -> bytes:
    return PACKED[:3] + bytes([flags]) + PACKED[4:10] + rest + PACKED[10:]


CHECKED = PACKED[:3] + b"\2" + PACKED[4:10]
STREAMS = {
    "one member": PACKED,
    "two members": PACKED * 2,
    "a thousand empty members": gzip.compress(b"") * 1000 + PACKED,
    "padded": PACKED + bytes(1000),
    "padding between members": PACKED + bytes(10) + PACKED,
    "junk": PACKED + b"junkjunkjunk",
    "little junk": PACKED + b"j",
    "junk that begins like a header": PACKED + b"\x1f\x8b\x07junkjunkjunk",
    "junk like the sentinel": PACKED + b"\xff" * 40,
    "half a magic": PACKED + b"\x1f",
    "a magic and no more": PACKED + b"\x1f\x8b",
    "a header that is cut off": PACKED + PACKED[:7],
    "a second member that is cut off": PACKED + PACKED[:-3],
    "no trailer": PACKED[:-8],
    "half a trailer": PACKED[:-1],
    "half a member": PACKED[:1000],
    "half a header": PACKED[:9],
    "a wrong checksum": PACKED[:-8] + b"aaaa" + PACKED[-4:],
    "a wrong size": PACKED[:-4] + b"aaaa",
    "broken": PACKED[:500] + b"\xff\xff\xff" + PACKED[503:],
    "a name": with_header(8, b"name\0"),
    "an extra field": with_header(4, b"\3\0abc"),
    "a comment": with_header(16, b"comment\0"),
    "a right header checksum": CHECKED + (zlib.crc32(CHECKED) & 0xFFFF).to_bytes(2, "little") + PACKED[10:],
    "a wrong header checksum": CHECKED + b"ab" + PACKED[10:],
    "an endless name": with_header(8, b"n" * (3 << 20)),
    "an empty member and junk": gzip.compress(b"") + b"junk",
}


def read(stream: bytes, *, chunk: int, block: int) -> bytes | None:
    """Return what *stream* inflates to, None where it is refused."""
    chunks: Iterator[bytes] = (stream[at : at + chunk] for at in range(0, len(stream), chunk))
    archive, view, blocks = open_archive(chunks), memoryview(bytearray(block)), list[bytes]()
    try:
        while size := archive.readinto(view):
            assert size == block or not blocks or len(blocks[-1]) == block
            blocks.append(bytes(view[:size]))
    except BadLayer:
        return None
    return b"".join(blocks)


def block_by_block(stream: bytes, monkeypatch: pytest.MonkeyPatch) -> bytes | None:
    with monkeypatch.context() as patch:
        patch.setattr(archive_stream, "_Reader", None)
        return read(stream, chunk=1 << 16, block=1 << 20)


@pytest.mark.parametrize("name", STREAMS)
def test_each_stream_is_read_or_refused_in_both_ways(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = STREAMS[name]
    expected = block_by_block(stream, monkeypatch)
    for chunk in (1, 13, 1000, 1 << 18)[0 if len(stream) < 300_000 else 2 :]:
        for block in (4096, 1 << 20):
            assert read(stream, chunk=chunk, block=block) == expected


def test_what_is_known_to_be_right_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one member", "padded", "junk", "little junk", "half a magic", "a name", "a right header checksum"):
        assert read(STREAMS[name], chunk=1000, block=4096) == CONTENT
    for name in ("no trailer", "half a member", "broken", "a magic and no more", "a wrong header checksum"):
        assert read(STREAMS[name], chunk=1000, block=4096) is None
    assert read(STREAMS["two members"], chunk=1000, block=4096) == CONTENT * 2


@pytest.mark.parametrize("seed", range(60))
def test_chance_damage_is_taken_in_the_same_way(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    members = [gzip.compress(chance.randbytes(chance.randrange(3000)), mtime=0) for _ in range(chance.randrange(1, 6))]
    stream = bytearray(b"".join(members))
    for _ in range(chance.randrange(3)):
        stream[chance.randrange(3, len(stream))] = chance.randrange(256)
    cut = bytes(stream[: chance.randrange(4, len(stream) + 1)]) if seed % 2 else bytes(stream)
    assert read(cut, chunk=chance.randrange(1, 5000), block=4096) == block_by_block(cut, monkeypatch)
