"""gzip and zstd as layers have them, told by their bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import pytest

from regfs.errors import BadLayer, TooLarge, Unsupported
from regfs.layers.compression.detection import check_media_type, decompressed

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CONTENT = os.urandom(50_000) + bytes(3_000_000) + b"text " * 20_000
CHECKSUM: dict[int, int] = {zstd.CompressionParameter.checksum_flag: 1}
Pack = Callable[[bytes], bytes]
SKIPPABLE = struct.pack("<II", 0x184D2A5E, 7) + b"skipped"


def inflated(stream: bytes, *, chunk: int = 10_000, block: int = 1 << 16) -> bytes:
    blocks = list(decompressed((stream[at : at + chunk] for at in range(0, len(stream), chunk)), block_size=block))
    assert all(blocks)
    return b"".join(blocks)


def gzip_with_all_header_fields(content: bytes) -> bytes:
    packed = gzip.compress(content, mtime=0)
    head = packed[:3] + bytes([0x02 | 0x04 | 0x08 | 0x10]) + packed[4:10]
    head += struct.pack("<H", 5) + b"extra" + b"name.tar\0" + b"comment\0"
    return head + struct.pack("<H", zlib.crc32(head) & 0xFFFF) + packed[10:]


@pytest.mark.parametrize("chunk", [1, 7, 1000, 1 << 20])
@pytest.mark.parametrize(
    "pack", [gzip.compress, zstd.compress, gzip_with_all_header_fields], ids=["gzip", "zstd", "gzip with fields"]
)
def test_compressed_streams_are_inflated(pack: Pack, chunk: int) -> None:
    content = CONTENT if chunk > 100 else CONTENT[49_000:60_000]
    assert inflated(pack(content), chunk=chunk) == content


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
@pytest.mark.parametrize("chunk", [1, 3, 100_000])
def test_members_and_frames_follow_each_other(pack: Pack, chunk: int) -> None:
    parts = [b"", b"a", b"", CONTENT[:1000], b"b" * 5000, b""]
    assert inflated(b"".join(map(pack, parts)), chunk=chunk) == b"".join(parts)


def test_thousands_of_tiny_members_are_inflated() -> None:
    assert inflated(gzip.compress(b"x") * 20_000, chunk=1 << 20) == b"x" * 20_000


def test_skippable_frames_are_skipped() -> None:
    assert inflated(SKIPPABLE + zstd.compress(b"one") + SKIPPABLE + zstd.compress(b"two") + SKIPPABLE) == b"onetwo"


@pytest.mark.parametrize("garbage", [b"\0", bytes(10_000), b"garbage", b"\x1f"])
def test_what_follows_the_last_gzip_member_is_passed_over(garbage: bytes) -> None:
    for chunk in (1, 100, 1 << 20):
        assert inflated(gzip.compress(b"content") + garbage, chunk=chunk) == b"content"


def test_a_plain_archive_is_taken_as_it_is() -> None:
    assert inflated(b"ab") == b"ab"
    assert inflated(b"") == b""
    assert inflated(CONTENT) == CONTENT


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
def test_truncated_streams_are_no_layer(pack: Pack) -> None:
    stream = pack(CONTENT)
    for cut in (7, 20, len(stream) // 2, len(stream) - 1):
        with pytest.raises(BadLayer, match="ends in the middle"):
            inflated(stream[:cut])


@pytest.mark.parametrize("pack", [gzip.compress, lambda content: zstd.compress(content, options=CHECKSUM)])
def test_corrupt_streams_are_no_layer(pack: Pack) -> None:
    stream = bytearray(pack(CONTENT))
    for at in (len(stream) // 2, len(stream) - 6):
        broken = stream[:at] + bytes([stream[at] ^ 0x40]) + stream[at + 1 :]
        with pytest.raises(BadLayer):
            inflated(bytes(broken))


def test_a_window_beyond_128_megabytes_is_too_large() -> None:
    window: dict[int, int] = {
        zstd.CompressionParameter.window_log: 28,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    packed = io.BytesIO()
    with zstd.ZstdFile(packed, "w", options=window) as stream:
        stream.write(b"x" * 10_000)
    with pytest.raises(TooLarge, match="window"):
        inflated(packed.getvalue())


@pytest.mark.parametrize(("pack", "name"), [(bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_other_compressions_are_named(pack: Pack, name: str) -> None:
    with pytest.raises(Unsupported, match=name):
        inflated(pack(b"x"))


def test_an_encrypted_layer_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="encrypted"):
        check_media_type("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")


def test_gzip_is_inflated_without_isal_too() -> None:
    program = """
import gzip, sys
sys.modules["isal"] = None
from regfs.errors import BadLayer
from regfs.layers.compression.detection import decompressed
stream = gzip.compress(b"one") + gzip.compress(b"two" * 100_000) + bytes(100)
assert b"".join(decompressed([stream[:50], stream[50:]], block_size=1000)) == b"one" + b"two" * 100_000
try:
    list(decompressed([stream[:40] + b"broken" + stream[46:]], block_size=1000))
except BadLayer:
    print("as it should")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "as it should\n", done.stderr
