"""The spans of layers: each can be unpacked alone, and together they are the archive."""

from __future__ import annotations

import gzip
import random
import struct
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from regfs.images.lazy.plain_spans import unpack_spans
from regfs.images.workers.ingest import Progress, ingest_here
from regfs.layers.formats.format import Chunk
from regfs.store.layers.layer_store import LayerStore
from regfs.store.layers.span_table import SpanTable
from tests.layers.ingested import ignore, in_chunks, named
from tests.support.images import BuiltLayer, compressed, file, tar_of

MIB = 1 << 20
BYTES = random.Random(3)
TEXT = b"".join(b"%d words of a text that compresses\n" % number for number in range(150_000))
TAR = tar_of(file("random", BYTES.randbytes(5 * MIB)), file("text", TEXT), file("zeros", bytes(3 * MIB)))
BIG = TAR + tar_of(file("big", BYTES.randbytes(36 * MIB)))
PACKED = tar_of(*(file(f"{number}.gz", gzip.compress(BYTES.randbytes(MIB - 512 - 23))) for number in range(9)))
SKIPPABLE = struct.pack("<II", 0x184D2A50, 5000) + bytes(5000)


def cut(tar: bytes, size: int, pack: Callable[[bytes], bytes]) -> bytes:
    return b"".join(pack(tar[at : at + size]) for at in range(0, len(tar), size))


def stored_blocks(content: bytes) -> bytes:
    packer = zlib.compressobj(0, zlib.DEFLATED, 31)
    return packer.compress(content) + packer.flush()


def frame(content: bytes) -> bytes:
    return compressed(content, "zstd")


BLOBS: dict[str, tuple[bytes, bytes]] = {
    "gzip": (TAR, gzip.compress(TAR)),
    "gzip without compression": (TAR, stored_blocks(TAR)),
    "gzip of many members": (TAR, cut(TAR, 300_000, gzip.compress)),
    "gzip with padding between members": (TAR, cut(TAR, 300_000, lambda part: gzip.compress(part) + bytes(100_000))),
    "gzip with a tail": (TAR, gzip.compress(TAR) + bytes(2000)),
    "zstd": (TAR, frame(TAR)),
    "zstd of many frames": (TAR, cut(TAR, 3 * MIB, frame)),
    "zstd of small frames": (TAR, cut(TAR, 10_000, frame)),
    "zstd with frames to skip": (TAR, SKIPPABLE + cut(TAR, MIB, lambda part: frame(part) + SKIPPABLE + frame(b""))),
    "zstd in one big frame": (BIG, frame(BIG)),
    "zstd with a big frame among others": (BIG + TAR, frame(BIG) + cut(TAR, 2 * MIB, frame)),
    "tar": (TAR, TAR),
    "tar of gzip": (PACKED, PACKED),
    "nothing": (tar_of(), gzip.compress(tar_of())),
}


@pytest.mark.parametrize("name", BLOBS)
def test_the_spans_of_a_layer_of_names_are_all_of_its_archive(tmp_path: Path, name: str) -> None:
    tar, blob = BLOBS[name]
    table, restart = spans_of(tmp_path, tar, blob, names_only=True)
    assert sum(chunk.size for chunk in table) == len(tar)
    assert all(chunk.size <= 4 * MIB for chunk in table)
    streamed = sum(chunk.size for chunk in table if not chunk.stored)
    assert streamed == {"zstd in one big frame": len(BIG), "zstd with a big frame among others": len(BIG)}.get(name, 0)
    assert_unpacked(table, restart, tar, blob)


@pytest.mark.parametrize("name", BLOBS)
def test_the_spans_of_a_layer_that_is_kept_are_its_frames(tmp_path: Path, name: str) -> None:
    tar, blob = BLOBS[name]
    table, restart = spans_of(tmp_path, tar, blob, names_only=False)
    has_some = name in ("zstd of many frames", "zstd of small frames", "zstd with frames to skip")
    assert sum(chunk.size for chunk in table) == (len(tar) if has_some else 0)
    assert_unpacked(table, restart, tar, blob)


def test_wrong_bytes_of_a_span_are_left_out(tmp_path: Path) -> None:
    for name in ("gzip", "zstd of many frames", "tar"):
        tar, blob = BLOBS[name]
        table, restart = spans_of(tmp_path / name, tar, blob, names_only=True)
        stored = bytearray(blob[table[0].at : table[0].at + table[0].stored])
        stored[len(stored) // 2] ^= 1
        assert unpack_spans(restart, table[:1], bytes(stored)) == {}


Restart = Callable[[int], tuple[int, bytes] | None]


def spans_of(root: Path, tar: bytes, blob: bytes, *, names_only: bool) -> tuple[list[Chunk], Restart]:
    """Return the spans in the index of the layer, and its places to begin inflating at."""
    built = BuiltLayer(tar, blob, "application/vnd.oci.image.layer.v1.tar+gzip")
    store = LayerStore(root)
    ingest_here(
        in_chunks(blob, 77_777), **named(built), store=store, progress=Progress(), report=ignore, names_only=names_only
    )
    assert store.is_ingested(built.diff_id) is not names_only
    found = SpanTable.of(store.open_index(built.diff_id))
    chunks = [Chunk(each.start, each.size, each.at, each.stored, each.inner, each.digest) for each in found.all]
    assert all(before.offset + before.size == after.offset for before, after in pairwise(chunks))
    return chunks, found.restart


def assert_unpacked(table: list[Chunk], restart: Restart, tar: bytes, blob: bytes) -> None:
    for chunk in table:
        expected = tar[chunk.offset : chunk.offset + chunk.size]
        assert chunk.digest is not None
        assert chunk.digest.matches(expected)
        if chunk.stored:
            stored = blob[chunk.at : chunk.at + chunk.stored]
            assert unpack_spans(restart, [chunk], stored) == {chunk: expected}
