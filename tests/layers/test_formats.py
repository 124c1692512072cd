"""What holds for every format with a table of contents: the same names as the archive has, and verified bytes only."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.errors import BadLayer, DigestMismatch, RegfsError, TooLarge, Unsupported
from regfs.layers.compression.detection import decompressed
from regfs.layers.formats import toc
from regfs.layers.formats.format import MAX_MEMBER
from regfs.layers.formats.recognise import recognise
from tests.layers.tables import Listed, quick_rows, rows_of_tar
from tests.support.images import (
    BuiltLayer,
    TarEntry,
    device,
    directory,
    fifo,
    file,
    hardlink,
    layer,
    opaque,
    symlink,
    tar_of,
    whiteout,
)
from tests.support.lazy_layers import WRONG, Change, Fields, descriptor_of, estargz, with_annotations, zstd_chunked

Build = Callable[..., BuiltLayer]

BUILDERS: dict[str, Build] = {
    "eStargz": estargz,
    "stargz": partial(estargz, kind="stargz"),
    "eStargz, inner offsets": partial(estargz, least_member=5000),
    "zstd:chunked 2021": partial(zstd_chunked, generation="2021"),
    "zstd:chunked 2022": partial(zstd_chunked, generation="2022"),
    "zstd:chunked 2023": partial(zstd_chunked, generation="2023"),
    "zstd:chunked of stargz": partial(zstd_chunked, generation="stargz"),
}
every_format = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)

BIG = os.urandom(20_000) + bytes(30_000) + os.urandom(7) + bytes(2000)
EVERYTHING = (
    directory("./"),
    directory("etc", mode=0o1777, mtime_ns=0),
    file(
        "etc/motd", b"hello\n", mode=0o4751, uid=1000, gid=4_000_000_000, xattrs={"user.b": b"\0\xff", "user.a": b"1"}
    ),
    file("etc/empty"),
    symlink("etc/issue", "motd"),
    hardlink("etc/hard", "etc/motd"),
    file("big", BIG),
    file("implied/parents/file", b"x" * 700),
    device("dev/null", 1, 3),
    device("dev/sda", 259, 70_000, block=True),
    fifo("pipe"),
    file("old", b"1960", mtime_ns=-300_000_000 * 10**9),
    file("ünï/ <&>\n", b"u"),
    whiteout("gone"),
    opaque("etc"),
    file("etc/motd2", b"first"),
    file("etc/motd2", b"second, and longer"),
)


@every_format
def test_a_table_leads_to_the_rows_that_the_archive_leads_to(build: Build) -> None:
    listed = Listed(build(*EVERYTHING))
    assert listed.rows() == listed.quick_rows()[0] == rows_of_tar(tar_of(*EVERYTHING))


@every_format
def test_plain_files_are_taken_in_one_step_with_the_chunks_that_they_have(build: Build) -> None:
    files = [directory("d"), *(file(f"d/{number}", os.urandom(100 + number)) for number in range(50))]
    listed = Listed(build(*files))
    rows, chunks = listed.quick_rows()
    assert rows == rows_of_tar(tar_of(*files))
    if listed.chunks(b"d/0")[0].at != listed.chunks(b"d/1")[0].at:  # else they share members
        alone = [chunk for _, [chunk] in listed.entries[1:]]
        # The first in a directory makes it known, and the last entry has no comma behind it.
        assert chunks == [(chunk.size, chunk.at, chunk.stored, str(chunk.digest)) for chunk in alone[1:-1]]


@every_format
@pytest.mark.parametrize("chunk_size", [1, 999, 1 << 16])
def test_every_file_is_read_from_its_chunks_alone(build: Build, chunk_size: int) -> None:
    written = [(entry.name, entry.content) for entry in EVERYTHING if entry.type == b"0"]
    files = EVERYTHING if chunk_size > 1 else (file("big", BIG[19_990:20_050]), file("etc/motd", b"hello\n"))
    listed = Listed(build(*files, chunk_size=chunk_size))
    if chunk_size == 1:
        written = [(entry.name, entry.content) for entry in files]
    seen: dict[bytes, bytes] = {}
    for entry, chunks in listed.entries:
        content = b"".join(listed.read(chunk) or b"?" for chunk in chunks)
        assert len(content) == entry.size
        seen[entry.path] = content
    assert seen.items() >= dict(written).items()
    assert listed.table.remark == ""


@every_format
def test_a_blob_is_a_plain_layer_too(build: Build) -> None:
    """The builders are held to the formats' promise: any decompressor makes the archive of the blob."""
    built = build(*EVERYTHING)
    assert b"".join(decompressed([built.blob], block_size=1 << 20)) == built.tar


@every_format
def test_the_names_cost_a_small_part_of_the_blob(build: Build) -> None:
    listed = Listed(build(file("big", os.urandom(2_000_000)), *EVERYTHING, chunk_size=1 << 20))
    assert len(listed.table_reads) == 1
    assert sum(size for _, size in listed.table_reads) <= 1 << 16


@every_format
def test_a_layer_of_nothing_has_no_names(build: Build) -> None:
    assert Listed(build()).entries == []


@every_format
def test_a_layer_whose_manifest_vouches_for_no_table_is_not_recognised(build: Build) -> None:
    built = build(*EVERYTHING)
    assert recognise(descriptor_of(replace(built, annotations={}))) is None


@every_format
def test_a_layer_of_another_media_type_is_not_recognised(build: Build) -> None:
    built = build(*EVERYTHING)
    for media_type in ("application/vnd.oci.image.layer.v1.tar", "application/octet-stream"):
        assert recognise(descriptor_of(replace(built, media_type=media_type))) is None


@every_format
def test_a_table_with_another_digest_is_refused(build: Build) -> None:
    built = build(*EVERYTHING)
    key = "toc_digest" if "toc" in str(built.annotations) else "manifest_checksum"
    with pytest.raises(DigestMismatch):
        Listed(with_annotations(built, **{key: WRONG}))


@every_format
def test_no_byte_of_a_table_may_be_another(build: Build) -> None:
    built = build(file("a", b"content"))
    refused = 0
    for at in range(len(built.blob)):
        blob = bytearray(built.blob)
        blob[at] ^= 1
        try:
            listed = Listed(replace(built, blob=bytes(blob)))
        except (BadLayer, DigestMismatch):
            refused += 1
        else:
            # Nothing of the table was changed, so that a file is right or cannot be read.
            assert listed.paths() == [b"a"]
            assert listed.content(b"a") in (b"content", None)
    assert refused > 100


@every_format
def test_a_wrong_chunk_is_never_given_out_and_costs_that_file_alone(build: Build) -> None:
    built = build(file("a", b"a" * 3000), file("b", os.urandom(3000)), file("c", b"c" * 3000))
    [chunk] = Listed(built).chunks(b"b")
    blob = bytearray(built.blob)
    middle = chunk.at + min(chunk.stored, 3000) // 2
    blob[middle : middle + 20] = bytes(20)
    listed = Listed(replace(built, blob=bytes(blob)))
    assert listed.content(b"b") is None
    for other in (b"a", b"c"):
        if listed.chunks(other)[0].at != chunk.at:  # else it is in the same member
            assert listed.content(other) == other * 3000


def changed(name: str, **fields: object) -> Change:
    def change(entries: list[Fields]) -> None:
        next(entry for entry in entries if entry["name"] == name).update(fields)

    return change


WRONG_CHUNKS: dict[str, Change] = {
    "offset past the end": changed("b", offset=1 << 40),
    "offset in the table": changed("b", offset=100_000_000),
    "negative offset": changed("b", offset=-1),
    "an offset that is no number": changed("b", offset="7"),
    "huge offset": changed("b", offset=1 << 70),
    "chunkSize past the end": changed("b", chunkSize=3001),
    "chunkSize too small": changed("b", chunkSize=2999),
    "a first chunk not at the start": changed("b", chunkOffset=1),
    "size and no chunks for it": changed("b", size=3001, chunkSize=3000),
    "no digest": changed("b", chunkDigest="", digest=""),
    "a digest that is none": changed("b", chunkDigest="sha256:abc"),
    "a digest that nothing verifies": changed("b", chunkDigest="md5:" + "0" * 32),
    "a negative inner offset": changed("b", innerOffset=-1),
}


@every_format
@pytest.mark.parametrize("change", WRONG_CHUNKS.values(), ids=WRONG_CHUNKS)
def test_a_table_that_is_wrong_about_one_file_costs_that_file_alone(build: Build, change: Change) -> None:
    listed = Listed(build(file("a", b"a" * 3000), file("b", b"b" * 3000), file("c", b"c" * 3000), change=change))
    assert listed.chunks(b"b") == ()
    assert listed.content(b"b") is None
    assert listed.content(b"a") == b"a" * 3000
    assert listed.content(b"c") == b"c" * 3000
    assert "1 files" in listed.table.remark
    assert "b'b'" in listed.table.remark


def _second_chunk(**fields: object) -> Change:
    def change(entries: list[Fields]) -> None:
        next(entry for entry in entries if entry["type"] == "chunk").update(fields)

    return change


@every_format
@pytest.mark.parametrize(
    "fields",
    [{"chunkOffset": 0}, {"chunkOffset": 999}, {"chunkOffset": 1001}, {"chunkSize": 0}, {"chunkSize": 999}],
    ids=str,
)
def test_chunks_that_overlap_or_leave_something_out_are_not_read(build: Build, fields: dict[str, object]) -> None:
    """A chunkSize of 0 means to the end of the file, and so does not go before another chunk."""
    built = build(file("b", os.urandom(3000)), file("c", b"c"), chunk_size=1000, change=_second_chunk(**fields))
    listed = Listed(built)
    assert listed.chunks(b"b") == ()
    assert "b'b'" in listed.table.remark
    assert listed.content(b"c") == b"c"


@every_format
def test_a_file_of_more_chunks_than_memory_should_hold_lets_the_layer_be_read_whole(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toc, "MAX_CHUNKS", 3)
    assert Listed(build(file("a", os.urandom(4000)), chunk_size=1000)).content(b"a") is not None
    with pytest.raises(Unsupported, match="more than 3 chunks"):
        Listed(build(file("a", os.urandom(5000)), chunk_size=1000))


@every_format
def test_a_chunk_of_no_file_is_a_wrong_table(build: Build) -> None:
    with pytest.raises(BadLayer, match="follows no file"):
        Listed(build(change=lambda entries: entries.insert(0, {"type": "chunk", "name": "a"})))


@every_format
def test_a_chunk_too_big_to_be_unpacked_in_memory_lets_the_layer_be_read_whole(build: Build) -> None:
    size = MAX_MEMBER + 1
    change = changed("a", size=size, chunkSize=size)
    with pytest.raises(Unsupported, match="unpacked at once"):
        Listed(build(file("a", b"a"), change=change))


@every_format
def test_a_small_member_that_unpacks_to_very_much_is_not_unpacked_further_than_its_chunk(build: Build) -> None:
    bomb = bytes([1]) * (20 << 20)
    built = build(file("a", bomb), file("b", b"b"), chunk_size=MAX_MEMBER, change=changed("a", size=5))
    assert Listed(built).content(b"a") is None


BAD_ENTRIES: dict[str, tuple[Change, type[RegfsError]]] = {
    "no name": (lambda entries: entries.append({"type": "dir"}), BadLayer),
    "a name that is a number": (lambda entries: entries.append({"type": "dir", "name": 1}), BadLayer),
    "a name with NUL": (lambda entries: entries.append({"type": "dir", "name": "a\0"}), BadLayer),
    "a name that was lost": (lambda entries: entries.append({"type": "dir", "name": "\ufffd"}), Unsupported),
    "no type": (lambda entries: entries.append({"name": "a"}), Unsupported),
    "unknown type": (lambda entries: entries.append({"name": "a", "type": "door"}), Unsupported),
    "a size that is negative": (lambda entries: entries.append({"name": "a", "type": "reg", "size": -1}), BadLayer),
    "a mode that is true": (lambda entries: entries.append({"name": "a", "type": "dir", "mode": True}), BadLayer),
    "an owner that is text": (lambda entries: entries.append({"name": "a", "type": "dir", "uid": "0"}), BadLayer),
    "an owner of 40 bits": (lambda entries: entries.append({"name": "a", "type": "dir", "uid": 1 << 40}), BadLayer),
    "no time": (lambda entries: entries.append({"name": "a", "type": "dir", "modtime": "now"}), BadLayer),
    "a time that is a list": (lambda entries: entries.append({"name": "a", "type": "dir", "modtime": []}), BadLayer),
    "xattrs that are a list": (lambda entries: entries.append({"name": "a", "type": "dir", "xattrs": [1]}), BadLayer),
    "xattr of no base64": (
        lambda entries: entries.append({"name": "a", "type": "dir", "xattrs": {"user.a": "?"}}),
        BadLayer,
    ),
    "xattr of a number": (
        lambda entries: entries.append({"name": "a", "type": "dir", "xattrs": {"user.a": 5}}),
        BadLayer,
    ),
}


@every_format
@pytest.mark.parametrize(("change", "error"), BAD_ENTRIES.values(), ids=BAD_ENTRIES)
def test_a_table_that_is_wrong_about_an_entry_is_refused(build: Build, change: Change, error: type[RegfsError]) -> None:
    with pytest.raises(error):
        Listed(build(file("b", b"b"), change=change))


@every_format
def test_dots_stay_below_the_root_as_in_an_archive(build: Build) -> None:
    entries = (file("../../etc/shadow", b"s"), file("/abs", b"a"), file("a/../b", b"b"), hardlink("c", "../b"))
    assert Listed(build(*entries)).rows() == rows_of_tar(tar_of(*entries))


@every_format
def test_hard_links_to_nowhere_are_what_they_are_in_an_archive(build: Build) -> None:
    entries = (hardlink("a", "nowhere"), file("b", b"b"), hardlink("c", "b"))
    assert Listed(build(*entries)).rows() == rows_of_tar(tar_of(*entries))


NAMES = st.sampled_from(
    ["a", "b", "d", "./a", "a/b", "d/e", "d/e/f", "..", "d/../a", "/a", "l/x", ".wh.a", "d/.wh.e", ".wh..wh..opq", "ü"]
)


@st.composite
def archives(draw: st.DrawFn) -> list[TarEntry]:
    entries = []
    for _ in range(draw(st.integers(0, 8))):
        name = draw(NAMES)
        shared: dict[str, Any] = {
            "mode": draw(st.integers(0, 0o7777)),
            "uid": draw(st.integers(0, (1 << 32) - 2)),
            "gid": draw(st.integers(0, 3)),
            "mtime_ns": draw(st.integers(-(1 << 35), (1 << 33) - 1)) * 10**9,
            "xattrs": draw(st.dictionaries(st.sampled_from(["user.a", "security.selinux", "trusted.x"]), st.binary())),
        }
        kind = draw(st.sampled_from("fdlhcp"))
        made = {
            "f": lambda name=name: file(name, draw(st.binary(max_size=40)) * draw(st.sampled_from([1, 100]))),
            "d": lambda name=name: directory(name),
            "l": lambda name=name: symlink(name, draw(NAMES)),
            "h": lambda name=name: hardlink(name, draw(NAMES)),
            "c": lambda name=name: device(name, draw(st.integers(0, 4095)), draw(st.integers(0, 1 << 20))),
            "p": lambda name=name: fifo(name),
        }[kind]()
        entries.append(replace(made, **shared))
    return entries


def _outcome(rows: Callable[[], object]) -> object:
    try:
        return rows()
    except (BadLayer, TooLarge, Unsupported) as error:
        return type(error)


@given(archives(), st.sampled_from(sorted(BUILDERS)), st.integers(1, 3000))
def test_any_archive_leads_to_the_same_rows_and_contents_by_its_table(
    entries: list[TarEntry], kind: str, chunk_size: int
) -> None:
    built = BUILDERS[kind](*entries, chunk_size=chunk_size)
    rows = _outcome(lambda: rows_of_tar(tar_of(*entries)))
    assert _outcome(lambda: Listed(built).rows()) == rows
    listed = Listed(built)
    assert _outcome(lambda: listed.quick_rows()[0]) == rows
    files = [entry for entry in entries if entry.type == b"0"]
    found = [(entry, chunks) for entry, chunks in listed.entries if entry.kind == 0o100000]
    for written, (entry, chunks) in zip(files, found, strict=True):
        assert entry.path == written.name
        parts = [listed.read(chunk) for chunk in chunks]
        assert b"".join(part for part in parts if part is not None) == written.content


@given(st.data(), st.sampled_from(sorted(BUILDERS)))
def test_whatever_a_table_says_files_taken_in_one_step_are_those_of_the_slow_way(
    data: st.DataObject, kind: str
) -> None:
    values: st.SearchStrategy[object] = st.sampled_from(
        [None, True, 0, 1, 420, 420.0, -1, 1 << 40, "", "1", "2020-09-13T12:26:40Z", [], {}]
    )
    keys = ["mode", "uid", "gid", "modtime", "size", "digest", "chunkDigest", "chunkSize", "type", "name", "xattrs"]

    def change(entries: list[Fields]) -> None:
        for entry in entries:
            entry.update(data.draw(st.dictionaries(st.sampled_from(keys), values, max_size=1)))
            shuffled = data.draw(st.permutations(list(entry.items())))
            entry.clear()
            entry.update(shuffled[: data.draw(st.sampled_from([len(shuffled)] * 9 + [len(shuffled) - 1]))])

    files = [directory("d"), *(file(f"d/{number}", b"a" * (20 + number)) for number in range(5))]
    built = BUILDERS[kind](*files, change=change)
    quick, slow = _outcome(lambda: quick_rows(built)[0]), _outcome(lambda: Listed(built).rows())
    # Of two wrong entries, each way may tell of another one.
    assert quick == slow or (isinstance(quick, type) and isinstance(slow, type))


@given(st.data(), st.sampled_from(sorted(BUILDERS)))
def test_whatever_a_table_says_no_byte_is_given_out_that_has_not_its_digest(data: st.DataObject, kind: str) -> None:
    values: st.SearchStrategy[object] = (
        st.none() | st.booleans() | st.integers(-5, 5000) | st.integers() | st.text(max_size=5) | st.just([])
    )
    keys = [
        "offset",
        "chunkOffset",
        "chunkSize",
        "size",
        "innerOffset",
        "endOffset",
        "chunkType",
        "type",
        "name",
        "mode",
    ]

    def change(entries: list[Fields]) -> None:
        for entry in entries:
            entry.update(data.draw(st.dictionaries(st.sampled_from(keys), values, max_size=2)))

    good = os.urandom(1500)
    built = BUILDERS[kind](file("a", good), file("b", b"b" * 1500), chunk_size=1000, change=change)
    try:
        listed = Listed(built)
    except RegfsError:
        return
    for _, chunks in listed.entries:
        for chunk in chunks:
            content = listed.read(chunk)
            if chunk.digest is not None and content is not None:
                assert hashlib.sha256(content).hexdigest() == chunk.digest.encoded


def test_a_plain_layer_is_of_no_such_format() -> None:
    for compression in ("gzip", "zstd", "none"):
        assert recognise(descriptor_of(layer(*EVERYTHING, compression=compression))) is None
