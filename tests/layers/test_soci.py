"""SOCI: the names of a gzip layer from its zTOC, its bytes span by span, and no zTOC that is believed too much."""

from __future__ import annotations

import ctypes
import gzip
import os
import random
import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regfs.errors import BadLayer, DigestMismatch, Unsupported
from regfs.layers.compression.checkpoints import CheckpointedGzip
from regfs.layers.formats.soci import check_headers, fingerprint, read_ztoc, unpacked
from regfs.layers.formats.ztoc import Span, Ztoc
from regfs.layers.formats.ztoc_writer import write_ztoc
from regfs.model.digest import Digest
from tests.layers.ingested import in_chunks
from tests.layers.tables import rows_of, rows_of_tar
from tests.layers.test_formats import EVERYTHING
from tests.support.images import BLOCK, TarEntry, file, layer, layer_of_tar, padded, tar_of
from tests.support.soci_layers import Fields, FlatTable, SociLayer, flat, named, soci, spans_of

FILES = (
    *EVERYTHING,
    file("noise", os.urandom(70_000)),
    file("text", b"the quick brown fox " * 5000, xattrs={"user.a": b"1"}),
)


def made(*entries: TarEntry, span: int = 10_000) -> SociLayer:
    """Return a layer of *entries*, and the zTOC that regfs makes of it."""
    built = layer(*entries)
    return SociLayer(built, ztoc_of(built.blob, built.tar, span=span))


def ztoc_of(blob: bytes, tar: bytes, *, span: int = 10_000, chunk: int = 1 << 16) -> bytes:
    return write_ztoc(in_chunks(blob, chunk), diff_id=Digest.of(tar), tool="a test", span_size=span)


def read(built: SociLayer) -> Ztoc:
    return read_ztoc(built.descriptor, built.ztoc)


def archive_of(built: SociLayer) -> bytes:
    """Return what the spans inflate to, one after the other."""
    blob = built.layer.blob
    return b"".join(inflated(span, blob) for span in read(built).spans)


def inflated(span: Span, blob: bytes) -> bytes:
    stored = blob[span.at : span.at + span.stored]
    return unpacked(stored, digest=span.digest, bits=span.bits, window=span.window, size=span.size)


both_writers = pytest.mark.parametrize("build", [soci, made], ids=["after the schema", "of regfs"])
Build = Callable[..., SociLayer]


@both_writers
def test_a_ztoc_leads_to_the_rows_that_the_archive_leads_to(build: Build) -> None:
    built = build(*FILES)
    assert rows_of(entry for entry, _ in read(built).entries()) == rows_of_tar(built.layer.tar)


@both_writers
@pytest.mark.parametrize("span", [1000, 40_000, 1 << 20])
def test_the_spans_inflate_to_the_archive(build: Build, span: int) -> None:
    built = build(*FILES, span=span)
    assert archive_of(built) == built.layer.tar


@both_writers
def test_each_file_is_where_the_ztoc_says_and_so_are_its_headers(build: Build) -> None:
    built = build(*FILES)
    contents = [entry.content for entry in FILES]
    for (entry, place), content in zip(read(built).entries(), contents, strict=True):
        assert place is not None
        assert built.layer.tar[place.start : place.start + entry.size] == content[: entry.size]
        check_headers(built.layer.tar[place.header : place.start], fingerprint(entry))


def test_a_span_may_begin_at_any_bit() -> None:
    chosen = random.Random(11)
    words = b" ".join(chosen.choice([b"alpha", b"beta", b"gamma", chosen.randbytes(3)]) for _ in range(500_000))
    built = made(file("words", words), span=20_000)
    assert {span.bits for span in read(built).spans} == set(range(8))
    assert archive_of(built) == built.layer.tar


@pytest.mark.parametrize("chunk", [1, 7, 4096, 1 << 30])
def test_checkpoints_do_not_depend_on_how_the_bytes_come(chunk: int) -> None:
    built = layer(file("text", b"some words, and others " * 4000), file("noise", os.urandom(3000)))
    assert ztoc_of(built.blob, built.tar, chunk=chunk) == ztoc_of(built.blob, built.tar)


@pytest.mark.parametrize("members", [1, 3])
def test_a_span_begins_in_a_later_member(members: int) -> None:
    built = soci(*FILES, members=members)
    assert archive_of(built) == built.layer.tar


@pytest.mark.parametrize("size", [1, 3000, 25_000])
def test_a_span_goes_on_in_the_next_member(size: int) -> None:
    tar = tar_of(*FILES)
    blob = b"".join(gzip.compress(tar[at : at + size], mtime=0) for at in range(0, min(len(tar), 40 * size), size))
    tar = tar[: 40 * size]
    stream = CheckpointedGzip(span_size=10_000)
    assert b"".join(stream.inflate(in_chunks(blob, 999))) == tar
    spans = spans_of([tuple(point) for point in stream.checkpoints], len(blob))  # type: ignore[misc]
    assert [Digest.of(blob[start:end]).encoded for start, end in spans] == stream.span_digests
    ztoc = flat_ztoc(stream, len(blob), len(tar))
    assert b"".join(inflated(span, blob) for span in ztoc.spans) == tar


def flat_ztoc(stream: CheckpointedGzip, blob_size: int, archive_size: int) -> Ztoc:
    checkpoints = struct.pack("<iq", len(stream.checkpoints), 0)
    for at, out, bits, window in stream.checkpoints:
        checkpoints += struct.pack("<qqB", at, out, bits) + window
    digests = [f"sha256:{digest}" for digest in stream.span_digests]
    info = (("b", 1), ("i", len(digests) - 1), digests, bytearray(checkpoints))
    return Ztoc(flat(("0.9", "", ("q", blob_size), ("q", archive_size), ([],), info)))


def test_what_follows_the_last_member_is_part_of_the_last_span() -> None:
    tar = tar_of(*FILES)
    blob = gzip.compress(tar) + b"no gzip"
    built = SociLayer(replace(layer_of_tar(tar), blob=blob), ztoc_of(blob, tar))
    assert archive_of(built) == tar


def test_the_first_version_leaves_out_the_first_checkpoint() -> None:
    def first_version(fields: Fields) -> None:
        fields.first_point = 1

    built = made(*FILES)
    ztoc = FlatTable(built.ztoc)
    points = ztoc.table(5).octets(3)
    count = struct.unpack_from("<i", points)[0]
    info = (
        ("b", 1), ("i", count - 1), ztoc.table(5).texts(2), bytearray(points[:12] + points[12 + 32_785 :]),
    )  # fmt: skip
    sizes = (("q", len(built.layer.blob)), ("q", len(built.layer.tar)))
    old = SociLayer(built.layer, flat(("0.9", "", *sizes, ([],), info)))
    assert archive_of(old) == built.layer.tar
    # with a name in the gzip header the implied byte 10 is wrong: no bytes rather than wrong ones
    with pytest.raises(BadLayer):
        archive_of(soci(*FILES, change=first_version))


def test_the_library_and_inflate_prime_read_what_regfs_writes() -> None:
    """Read a zTOC of ours after the schema alone: FlatBuffers by their library, spans as zlib's authors mean it."""
    built = made(*FILES, span=3000)
    blob, tar = built.layer.blob, built.layer.tar
    root = FlatTable(built.ztoc)
    assert (root.text(0), root.number(2), root.number(3)) == (b"0.9", len(blob), len(tar))
    info, points = root.table(5), []
    packed = info.octets(3)
    count, span_size = struct.unpack_from("<iq", packed)
    assert (info.number(0, "b") or 1, info.number(1, "i"), span_size) == (1, count - 1, 3000)
    for at in range(12, len(packed), 32_785):
        points.append((*struct.unpack_from("<qqB", packed, at), packed[at + 17 : at + 32_785]))
    outs = [point[1] for point in points[1:]] + [len(tar)]
    for (start, end), (_, out, bits, window), stop, digest in zip(
        spans_of(points, len(blob)), points, outs, info.texts(2), strict=True
    ):
        assert digest.decode() == str(Digest.of(blob[start:end]))
        assert primed(blob[start:end], bits, window, stop - out) == tar[out:stop]
    files = [(each.text(0), each.text(1), each.number(2), each.number(3)) for each in root.table(4).tables(0)]
    assert (b"text", b"reg", tar.index(b"the quick brown fox"), 100_000) in files
    records = next(each for each in root.table(4).tables(0) if each.text(0) == b"text").tables(13)
    assert [(each.text(0), each.text(1)) for each in records] == [(b"SCHILY.xattr.user.a", b"1")]


def test_a_ztoc_has_owners_and_modes_as_the_header_has_them() -> None:
    """soci's reader compares these with the header; archives of old tools have the file's type in the mode."""
    built = made(
        file("old", b"x", mode=0o100755, owners=(b"root", b"wheel")),
        file("pax", b"x", owners=(b"short", b"short"), pax={"uname": b"a longer name", "gname": b"another"}),
    )
    old, pax = FlatTable(built.ztoc).table(4).tables(0)
    assert (old.number(5), old.text(8), old.text(9)) == (0o100755, b"root", b"wheel")
    assert (pax.number(5), pax.text(8), pax.text(9)) == (0o644, b"a longer name", b"another")
    assert [entry.mode for entry, _ in read(built).entries()] == [0o755, 0o644]


def primed(stored: bytes, bits: int, window: bytes, size: int) -> bytes:
    """Inflate a span by inflatePrime() and inflateSetDictionary()."""
    zlib = ctypes.CDLL("libz.so.1")

    class Stream(ctypes.Structure):
        _fields_ = (
            ("next_in", ctypes.c_char_p), ("avail_in", ctypes.c_uint), ("total_in", ctypes.c_ulong),
            ("next_out", ctypes.c_void_p), ("avail_out", ctypes.c_uint), ("total_out", ctypes.c_ulong),
            ("rest", ctypes.c_char * 64),
        )  # fmt: skip

    stream, out = Stream(), ctypes.create_string_buffer(size)
    assert zlib.inflateInit2_(ctypes.byref(stream), -15, b"1.2.11", 112) == 0
    if bits:
        assert zlib.inflatePrime(ctypes.byref(stream), bits, stored[0] >> (8 - bits)) == 0
        stored = stored[1:]
    assert zlib.inflateSetDictionary(ctypes.byref(stream), window, len(window)) == 0
    stream.next_in, stream.avail_in = stored, len(stored)
    stream.next_out, stream.avail_out = ctypes.addressof(out), size
    zlib.inflate(ctypes.byref(stream), 2)
    zlib.inflateEnd(ctypes.byref(stream))
    return out.raw[: size - stream.avail_out]


# What is wrong


def broken(change: Callable[[Fields], None]) -> SociLayer:
    return soci(*FILES, change=change)


def wrong_digest(fields: Fields) -> None:
    fields.digests[1] = str(Digest.of(b"something else"))


def test_a_span_with_another_digest_gives_no_bytes() -> None:
    built = broken(wrong_digest)
    right, wrong, *_ = read(built).spans
    blob = built.layer.blob
    assert inflated(right, blob) == built.layer.tar[: right.size]
    with pytest.raises(BadLayer, match="is not what the zTOC says"):
        inflated(wrong, blob)


def point(number: int, **changed: object) -> Callable[[Fields], None]:
    def change(fields: Fields) -> None:
        names = ("at", "out", "bits", "window")
        values = dict(zip(names, fields.points[number], strict=True)) | changed
        fields.points[number] = tuple(values[name] for name in names)  # type: ignore[assignment]

    return change


def of(**values: object) -> Callable[[Fields], None]:
    def change(fields: Fields) -> None:
        for name, value in values.items():
            setattr(fields, name, value)

    return change


def shorter(fields: Fields) -> None:
    fields.points[2] = (*fields.points[2][:3], bytes(100))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(point(1, at=1 << 40), id="a checkpoint beyond the blob"),
        pytest.param(point(1, at=-5), id="a checkpoint before the blob"),
        pytest.param(point(2, at=30), id="checkpoints out of order"),
        pytest.param(point(2, out=1), id="checkpoints out of order in the archive"),
        pytest.param(point(0, out=512), id="a first span that begins late"),
        pytest.param(point(1, bits=8), id="more bits than a byte has"),
        pytest.param(shorter, id="a window that is too short"),
        pytest.param(of(count=1 << 30), id="more checkpoints than there are"),
        pytest.param(of(count=-1), id="less than no checkpoints"),
        pytest.param(of(max_span=1 << 30), id="more spans than there are"),
        pytest.param(of(digests=[]), id="no digests"),
        pytest.param(of(digests=["sha256:00"] * 24), id="digests that are none"),
        pytest.param(of(algorithm=2), id="another compression"),
        pytest.param(of(version="1.0"), id="another version"),
        pytest.param(of(blob_size=1 << 20), id="the size of another blob"),
        pytest.param(of(archive_size=1 << 50), id="one span of everything"),
    ],
)
def test_a_ztoc_that_is_wrong_as_a_whole_is_of_no_use(change: Callable[[Fields], None]) -> None:
    with pytest.raises(Unsupported):
        read(broken(change))


@given(st.data())
@settings(max_examples=150)
def test_bytes_that_are_no_ztoc_raise_nothing_else(data: st.DataObject) -> None:
    content = bytearray(flat_of_little())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    try:
        ztoc = read_ztoc(LITTLE.descriptor, bytes(content))
        list(ztoc.entries())
    except (Unsupported, BadLayer):
        pass


LITTLE = soci(file("a", b"x" * 1000, xattrs={"user.a": b"1"}), file("b"), span=1 << 20)


def flat_of_little() -> bytes:
    """Return a zTOC whose window, which is nearly all of it, is not in the way."""
    ztoc = LITTLE.ztoc
    start = max(0, ztoc.index(bytes(32_000)) - 600)
    return ztoc[: start + 600] + ztoc[start + 600 + 32_000 :] if start else ztoc


def test_names_that_go_up_stay_below_the_root() -> None:
    def change(fields: Fields) -> None:
        named(fields, "big")["name"] = b"../../etc/shadow"

    names = {row.name for row in rows_of(entry for entry, _ in read(broken(change)).entries()).values()}
    assert b"shadow" in names
    assert b".." not in names


@pytest.mark.parametrize(
    ("changed", "is_placed"),
    [
        ({"name": b"another"}, True),
        ({"size": 699}, True),
        ({"mode": 0o4755}, True),
        ({"uid": 7}, True),
        ({"gid": 7}, True),
        ({"time": "2001-01-01T00:00:00Z"}, True),
        ({"records": {b"SCHILY.xattr.user.more": b"1"}}, True),
        ({"offset": 512}, False),
        ({"offset": 1 << 40}, False),
        ({"offset": -512}, False),
        ({"size": 1 << 40}, False),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_file_that_the_ztoc_lies_about_cannot_be_read(changed: dict[str, object], *, is_placed: bool) -> None:
    built = broken(lambda fields: named(fields, "implied/parents/file").update(changed))
    places = {entry.path: (entry, place) for entry, place in read(built).entries()}
    entry, place = places[changed.get("name", b"implied/parents/file")]  # type: ignore[index]
    assert (place is not None) == is_placed
    if place is not None:
        with pytest.raises(BadLayer):
            check_headers(built.layer.tar[place.header : place.start], fingerprint(entry))
    others = [found for path, found in places.items() if found[0].size and path != entry.path]
    for other, where in others:
        assert where is not None
        check_headers(built.layer.tar[where.header : where.start], fingerprint(other))


def test_headers_that_are_none_are_told() -> None:
    entry = next(read(LITTLE).entries())[0]
    for headers in (b"", bytes(BLOCK), b"x" * BLOCK, LITTLE.layer.tar[:BLOCK] + padded(b"y")):
        with pytest.raises(BadLayer):
            check_headers(headers, fingerprint(entry))


# What regfs makes no zTOC of


SPARSE = {"GNU.sparse.major": b"1", "GNU.sparse.minor": b"0", "GNU.sparse.realsize": b"1000"}


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([file("sparse", b"0\n".ljust(BLOCK, b"\0"), pax=SPARSE)], id="a sparse file"),
        pytest.param([file("far", pax={"mtime": b"99999999999999"})], id="a time that has no date"),
        pytest.param([file("g", b"13 uid=12345\n", type=b"g"), file("a")], id="records for all files"),
        pytest.param([file("odd", b"content", type=b"Z")], id="a type that no one knows"),
    ],
)
def test_no_ztoc_is_made_of_what_it_cannot_stand_for(entries: list[TarEntry]) -> None:
    with pytest.raises(Unsupported, match="no zTOC can stand for it"):
        made(*entries)


def test_no_ztoc_is_made_of_a_layer_that_is_another_than_the_config_says() -> None:
    tar = tar_of(file("a", b"1"))
    with pytest.raises(DigestMismatch):
        ztoc_of(gzip.compress(tar), tar_of(file("a", b"2")))


def test_no_ztoc_is_made_of_a_stream_that_breaks_off() -> None:
    built = layer(*FILES)
    for blob in (built.blob[:-20], b"no gzip at all", built.blob[:5000] + b"\0" * 100 + built.blob[5100:]):
        with pytest.raises(BadLayer):
            ztoc_of(blob, built.tar)
