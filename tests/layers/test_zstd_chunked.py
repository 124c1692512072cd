"""zstd:chunked: where annotations say that its table is, its holes, and its generations."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise

import pytest

from regfs.errors import BadLayer, DigestMismatch, TooLarge, Unsupported
from regfs.layers.formats.recognise import recognise
from tests.layers.tables import Listed
from tests.support.images import file
from tests.support.lazy_layers import LANDMARK, TOC_DIGEST, WRONG, descriptor_of, with_annotations, zstd_chunked

FILES = (file("a", b"a" * 900), file("b", os.urandom(9000)))


def test_times_have_nanoseconds() -> None:
    [(entry, _)] = Listed(zstd_chunked(file("a", mtime_ns=1_600_000_000_123_456_789))).entries
    assert entry.mtime_ns == 1_600_000_000_123_456_789


def test_a_run_of_zeros_is_a_hole_that_is_fetched_from_nowhere() -> None:
    content = b"x" * 10 + bytes(5000) + b"y" * 10 + bytes(1023) + b"z" + bytes(2000)
    listed = Listed(zstd_chunked(file("sparse", content)))
    holes = [(chunk.offset, chunk.size) for chunk in listed.chunks(b"sparse") if chunk.digest is None]
    assert holes == [(10, 5000), (6044, 2000)]
    assert all((chunk.at, chunk.stored) == (0, 0) for chunk in listed.chunks(b"sparse") if chunk.digest is None)
    assert listed.content(b"sparse") == content


def test_a_file_of_zeros_alone_is_one_chunk_without_a_type() -> None:
    """podman writes a type only where a file has several chunks."""
    listed = Listed(zstd_chunked(file("zeros", bytes(5000))))
    [chunk] = listed.chunks(b"zeros")
    assert chunk.digest is not None
    assert listed.content(b"zeros") == bytes(5000)


def test_a_chunk_ends_where_its_file_or_the_next_chunk_says() -> None:
    listed = Listed(zstd_chunked(*FILES, chunk_size=4000))
    chunks = listed.chunks(b"b")
    for chunk, following in pairwise(chunks):
        assert chunk.at + chunk.stored == following.at
    assert chunks[-1].at + chunks[-1].stored < len(listed.built.blob)


def test_podmans_own_layers_hide_nothing_and_stargzs_hide_the_landmark() -> None:
    mine = file(LANDMARK, b"mine")
    assert Listed(zstd_chunked(mine)).paths() == [LANDMARK.encode()]
    assert Listed(zstd_chunked(file("a"), generation="stargz")).paths() == [b"a"]


@pytest.mark.parametrize(
    ("position", "error"),
    [
        ("0:10:10:1", BadLayer),
        ("7:10:10:1", BadLayer),
        ("100:0:10:1", BadLayer),
        ("100:999999999:10:1", BadLayer),
        ("999999999:10:10:1", BadLayer),
        ("100:10:10", BadLayer),
        ("100:10:10:1:1", BadLayer),
        ("-1:10:10:1", BadLayer),
        ("٣00:10:10:1", BadLayer),
        ("99999999999999999999:10:10:1", BadLayer),
        ("100:10:10:2", Unsupported),
        ("100:10:10:1", DigestMismatch),
    ],
)
def test_a_place_where_no_table_is_is_refused(position: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        Listed(with_annotations(zstd_chunked(*FILES), manifest_position=position))


def test_a_table_over_the_limit_is_refused_before_it_is_read() -> None:
    built = with_annotations(zstd_chunked(*FILES), manifest_position=f"100:{1 << 30}:10:1")
    found = recognise(descriptor_of(built))
    assert found is not None

    class Huge:
        size = 1 << 40

        def read_at(self, offset: int, size: int) -> bytes:
            raise AssertionError((offset, size))

    with pytest.raises(TooLarge):
        found.table(descriptor_of(built), Huge(), lambda _: None)


def test_a_checksum_that_is_none_is_a_wrong_layer() -> None:
    with pytest.raises(BadLayer):
        Listed(with_annotations(zstd_chunked(*FILES), manifest_checksum="sha256:abc"))


def test_the_digest_that_stargz_adds_has_to_be_right_as_well() -> None:
    with pytest.raises(DigestMismatch):
        Listed(with_annotations(zstd_chunked(*FILES, generation="stargz"), toc_digest=WRONG))


def test_a_place_without_any_digest_is_not_trusted() -> None:
    built = zstd_chunked(*FILES)
    kept = {key: value for key, value in built.annotations.items() if not key.endswith("checksum")}
    assert recognise(descriptor_of(replace(built, annotations=kept))) is None
    assert TOC_DIGEST not in kept


def test_a_layer_is_zstd_chunked_even_where_it_has_the_annotation_of_estargz() -> None:
    found = recognise(descriptor_of(zstd_chunked(*FILES, generation="stargz")))
    assert found is not None
    assert found.name == "zstd:chunked"
