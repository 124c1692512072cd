"""eStargz: three footers, inner offsets, tables kept elsewhere; what footers and tables may not do."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from regfs.errors import BadLayer, DigestMismatch, TooLarge, Unsupported
from regfs.layers.formats import estargz as format_module
from regfs.layers.formats.estargz import MAX_STORED_TABLE
from regfs.model.digest import Digest
from tests.layers.tables import Listed
from tests.support.images import BuiltLayer, file
from tests.support.lazy_layers import (
    LANDMARK,
    MemorySource,
    descriptor_of,
    estargz,
    estargz_and_table,
    footer,
    packed_table,
    with_annotations,
)

FILES = (file("a", b"a" * 900), file("b", b"b" * 900), file("d/c", b"c" * 9000))
PREFETCH = file(".prefetch.landmark", b"\x0f")


def test_the_formats_own_files_are_hidden_in_the_root_alone() -> None:
    built = estargz(PREFETCH, file("./stargz.index.json", b"{}"), file(f"d/{LANDMARK}", b"mine"), *FILES)
    assert Listed(built).paths() == [f"d/{LANDMARK}".encode(), b"a", b"b", b"d/c"]


def test_times_are_whole_seconds_in_the_table() -> None:
    """The archive may have finer ones; the format rounds them, and so does what shows the layer by its table."""
    entries = [file("a", mtime_ns=5 * 10**8), file("b", mtime_ns=499_999_999)]
    assert [entry.mtime_ns for entry, _ in Listed(estargz(*entries)).entries] == [10**9, 0]


def test_files_that_share_a_member_are_told_apart_by_their_inner_offsets() -> None:
    listed = Listed(estargz(*FILES, least_member=100_000))
    chunks = [chunk for _, chunks in listed.entries for chunk in chunks]
    assert {chunk.at for chunk in chunks} == {0}
    assert len({chunk.inner for chunk in chunks}) == 3
    stored = listed.source.read_at(0, chunks[0].stored)
    assert list(listed.format.read(chunks, stored).values()) == [entry.content for entry in FILES]


def test_a_table_that_is_kept_elsewhere_is_asked_for_by_the_layers_digest() -> None:
    built, table = estargz_and_table(*FILES, kind="external")
    asked: list[Digest] = []

    def find(digest: Digest) -> MemorySource:
        asked.append(digest)
        return MemorySource(table)

    listed = Listed(built, find)
    assert asked == [built.digest]
    assert listed.content(b"d/c") == FILES[2].content


def test_a_table_that_is_kept_elsewhere_and_not_found_lets_the_layer_be_read_whole() -> None:
    with pytest.raises(Unsupported, match="elsewhere"):
        Listed(estargz(*FILES, kind="external"))


def test_a_table_that_is_kept_elsewhere_has_to_have_the_right_digest_too() -> None:
    built, _ = estargz_and_table(*FILES, kind="external")
    _, other = estargz_and_table(file("z"), kind="external")
    with pytest.raises(DigestMismatch):
        Listed(built, lambda _: MemorySource(other))


def test_a_big_layer_costs_a_second_read_for_what_the_first_did_not_have() -> None:
    many = [file(f"{number:04}" + os.urandom(80).hex()) for number in range(1500)]
    listed = Listed(estargz(*many))
    assert len(listed.table_reads) == 2
    assert sum(size for _, size in listed.table_reads) < len(listed.built.blob)
    assert len(listed.entries) == 1500


def with_footer(built: BuiltLayer, wrong: bytes) -> BuiltLayer:
    return replace(built, blob=built.blob[:-51] + wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        footer(1 << 40),
        footer(1 << 63),
        footer(0),
        footer(100),
        footer(0).replace(b"0" * 16, b"-" + b"0" * 15),
        footer(0).replace(b"0" * 16, b"0x" + b"0" * 14),
        footer(0).replace(b"STARGZ", b"STARGY"),
        footer(0)[:-1] + b"\1",
        bytes(51),
        b"",
    ],
    ids=lambda wrong: wrong[12:34].hex(),
)
def test_a_footer_that_points_to_no_table_is_refused(wrong: bytes) -> None:
    with pytest.raises(BadLayer):
        Listed(with_footer(estargz(*FILES), wrong))


def test_a_footer_that_points_to_itself_is_refused() -> None:
    built = estargz(*FILES)
    with pytest.raises(BadLayer):
        Listed(with_footer(built, footer(len(built.blob) - 51)))


def test_a_blob_smaller_than_a_footer_is_refused() -> None:
    for size in range(60):
        with pytest.raises(BadLayer):
            Listed(replace(estargz(*FILES), blob=bytes(size)))


def test_a_table_under_another_name_is_none() -> None:
    built, table = estargz_and_table(*FILES, kind="external")
    assert table
    with pytest.raises(BadLayer, match=r"is no stargz\.index\.json"):
        Listed(built, lambda _: MemorySource(packed_table(b"{}", name="other.json")))


def test_a_digest_that_is_none_is_a_wrong_layer() -> None:
    with pytest.raises(BadLayer):
        Listed(with_annotations(estargz(*FILES), toc_digest="sha256:abc"))


def test_a_compressed_table_over_the_limit_is_refused_before_it_is_read() -> None:
    built = estargz(*FILES)

    class Sparse:
        """A layer with nothing but zeros between its start and its footer."""

        size = MAX_STORED_TABLE + (1 << 21)
        reads = 0

        def read_at(self, offset: int, size: int) -> bytes:
            self.reads += size
            return bytes(size - 51) + footer(1)

    source = Sparse()
    with pytest.raises(TooLarge, match=str(MAX_STORED_TABLE)):
        format_module.Estargz().table(descriptor_of(built), source, lambda _: None)
    assert source.reads <= 1 << 20


def test_a_table_that_unpacks_to_more_than_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_module, "MAX_TABLE", 1000)
    with pytest.raises(BadLayer):
        Listed(estargz(*FILES * 10))
