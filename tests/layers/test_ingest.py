"""The ingest of a layer: verified or not there at all; what is kept, and where."""

from __future__ import annotations

import gzip
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regfs.errors import (
    BadLayer,
    CacheFailure,
    DigestMismatch,
    OutOfThreads,
    RegistryUnavailable,
    TooLarge,
    Unsupported,
)
from regfs.images.workers.ingest import Progress, ingest_here
from regfs.layers.ingest import MAX_HOLES
from regfs.layers.rows.sink import LayerSink
from regfs.model.digest import Digest
from regfs.model.verification import verified
from regfs.store.layers.data_writer import DataWriter
from regfs.store.layers.layer_store import LayerStore
from regfs.store.verify import verify
from tests.layers.ingested import Ingested, Named, ignore, in_chunks, ingested, ingested_tar, left_behind, named
from tests.support.images import BuiltLayer, directory, file, layer, layer_of_tar, tar_of
from tests.support.no_threads import no_threads

WRONG = Digest.of(b"something else")
SMALL, BIG = os.urandom(10_000), os.urandom(300_000)
LAYER = layer(directory("d"), file("d/small", SMALL), file("d/big", BIG), file("empty"))


def try_to_ingest(root: Path, built: BuiltLayer, *, blob: bytes | None = None, **changed: Any) -> None:
    wanted = named(built, **changed)
    descriptor = wanted["descriptor"]
    chunks = verified(in_chunks(built.blob if blob is None else blob), descriptor.digest, descriptor.size)
    ingest_here(chunks, **wanted, store=LayerStore(root), progress=Progress(), report=ignore)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("chunk", [100, 1 << 20])
def test_a_layer_is_ingested(tmp_path: Path, compression: str, chunk: int) -> None:
    built = layer_of_tar(LAYER.tar, compression=compression, media_type="application/vnd.oci.image.layer.v1.tar+gzip")
    found = Ingested(tmp_path, built, chunk=chunk)
    assert found.paths() == [b"d", b"d/big", b"d/small", b"empty"]
    assert found.content("d/small") == SMALL
    assert found.content("d/big") == BIG
    assert found.content("empty") == b""
    assert (found.progress.received, found.progress.inflated, found.progress.entries) == (
        len(built.blob), len(built.tar), 4
    )  # fmt: skip


def test_a_pass_for_which_no_thread_can_be_started_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    with no_threads(), pytest.raises(OutOfThreads):
        try_to_ingest(tmp_path, LAYER)
    assert left_behind(tmp_path) == []
    try_to_ingest(tmp_path, LAYER)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("tail", [b"", b"x" * 700, bytes(20_000), b"junk" * 300])
def test_the_data_file_is_the_tar_and_each_file_a_span_of_it(tmp_path: Path, compression: str, tail: bytes) -> None:
    tar = LAYER.tar + tail
    found = Ingested(tmp_path, layer_of_tar(tar, compression=compression))
    data = found.store.data_path(found.diff_id).read_bytes()
    assert data[: len(tar)] == tar
    assert (len(data) % 512, data[len(tar) :].strip(b"\0")) == (0, b"")
    assert found["d/small"].content == 1024
    assert found["d/big"].content == 1024 + 10_240 + 512
    assert found["empty"].content is None
    assert list(verify(tmp_path, drop=True)) == []


def test_a_sparse_file_lies_expanded_behind_the_tar(tmp_path: Path) -> None:
    pax = {"GNU.sparse.map": b"1000,3,70000,2", "GNU.sparse.size": b"90000"}
    tar = tar_of(file("one", b"abcde", pax=pax), file("two", b"xyz12", pax=pax), file("plain", b"plain"))
    found = ingested_tar(tmp_path, tar)
    expanded = bytes(1000) + b"abc" + bytes(68_997) + b"de" + bytes(19_998)
    assert found.content("one") == expanded
    assert found.content("two") == expanded.replace(b"abc", b"xyz").replace(b"de", b"12")
    assert found.content("plain") == b"plain"
    assert found["one"].content == len(tar)
    assert found["two"].content == len(tar) + 90_112
    data = found.store.data_path(found.diff_id)
    assert data.read_bytes()[: len(tar)] == tar
    rotten = bytearray(data.read_bytes())
    rotten[len(tar) + 1000] ^= 1
    data.write_bytes(rotten)
    (problem,) = verify(tmp_path, drop=False)
    assert "sparse files" in problem.reason


def test_a_layer_ingested_twice_is_the_same(tmp_path: Path) -> None:
    assert Ingested(tmp_path, LAYER).rows == Ingested(tmp_path, LAYER).rows


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_nothing_is_left_of_a_layer_with_the_wrong_digest(tmp_path: Path, compression: str) -> None:
    built = layer_of_tar(LAYER.tar, compression=compression)
    with pytest.raises(DigestMismatch, match="the bytes that came"):
        try_to_ingest(tmp_path, built, digest=WRONG)
    assert left_behind(tmp_path) == []


def test_nothing_is_left_of_a_layer_with_the_wrong_diff_id(tmp_path: Path) -> None:
    with pytest.raises(DigestMismatch, match="config says"):
        try_to_ingest(tmp_path, LAYER, diff_id=WRONG)
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("cut", [0, 1, 1000, -1])
def test_a_transfer_that_ends_early_is_not_told_as_a_broken_layer(tmp_path: Path, cut: int) -> None:
    with pytest.raises(DigestMismatch, match="bytes came"):
        try_to_ingest(tmp_path, LAYER, blob=LAYER.blob[:cut])
    assert left_behind(tmp_path) == []


def test_a_transfer_that_goes_on_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(DigestMismatch, match="or more came"):
        try_to_ingest(tmp_path, LAYER, blob=LAYER.blob + b"x")
    assert left_behind(tmp_path) == []


def test_bytes_that_changed_on_the_way_are_not_told_as_a_broken_layer(tmp_path: Path) -> None:
    broken = bytearray(LAYER.blob)
    broken[len(broken) // 2] ^= 1
    with pytest.raises(DigestMismatch):
        try_to_ingest(tmp_path, LAYER, blob=bytes(broken))


@pytest.mark.parametrize(
    "blob", [LAYER.blob[:-9], LAYER.blob[:5000], b"<html>not found</html>", gzip.compress(b"x" * 1000, mtime=0)]
)
def test_a_layer_that_is_none_says_so(tmp_path: Path, blob: bytes) -> None:
    built = BuiltLayer(LAYER.tar, blob, LAYER.media_type)
    diff_id = Digest.of(gzip.decompress(blob)) if blob[-1:] == b"\0" else built.diff_id
    with pytest.raises((BadLayer, DigestMismatch)):
        try_to_ingest(tmp_path, built, diff_id=diff_id)
    assert left_behind(tmp_path) == []


def test_an_error_of_the_source_is_passed_on(tmp_path: Path) -> None:
    def failing() -> Iterator[bytes]:
        yield LAYER.blob[:1000]
        raise RegistryUnavailable("connection reset")

    with pytest.raises(RegistryUnavailable):
        ingest_here(failing(), **named(LAYER), store=LayerStore(tmp_path), progress=Progress(), report=ignore)
    assert left_behind(tmp_path) == []


def test_an_unsupported_layer_is_not_even_received(tmp_path: Path) -> None:
    with pytest.raises(Unsupported):
        try_to_ingest(tmp_path, LAYER, media_type="a/b+encrypted")
    with pytest.raises(Unsupported):
        try_to_ingest(tmp_path, LAYER, diff_id=Digest("md5", "0" * 32))


def test_a_run_of_zeros_is_a_hole(tmp_path: Path) -> None:
    content = b"x" + bytes(40_000_000) + b"y" + bytes(30_000_000)
    found = ingested(tmp_path, file("zeros", content))
    assert found.content("zeros") == content
    assert found.store.data_path(found.diff_id).stat().st_blocks * 512 < 5_000_000


def test_a_sparse_file_of_absurd_size_is_too_large(tmp_path: Path) -> None:
    pax = {"GNU.sparse.map": b"0,0", "GNU.sparse.size": str(MAX_HOLES + 1).encode()}
    with pytest.raises(TooLarge, match="holes"):
        ingested_tar(tmp_path, tar_of(file("f", pax=pax)))
    assert left_behind(tmp_path) == []


def test_a_full_cache_is_a_cache_failure_and_leaves_nothing(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    with store.begin_layer() as writer:
        full = os.open("/dev/full", os.O_WRONLY)
        assert isinstance(writer._data, DataWriter)
        os.dup2(full, writer._data._fd)
        os.close(full)
        with pytest.raises(CacheFailure, match="No space"):
            writer.write(b"x")
    assert left_behind(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_a_cache_failure(tmp_path: Path) -> None:
    (tmp_path / "ingests").write_text("in the way")
    with pytest.raises(CacheFailure, match="ingests"):
        Ingested(tmp_path, LAYER)


def test_a_sink_that_fails_ends_the_pass_early(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    taken = []

    def endless() -> Iterator[bytes]:
        blob = LAYER.tar[:-1024]
        for _ in range(10_000):
            taken.append(blob)
            yield blob

    with store.begin_layer() as writer:
        writer.rows.abandon()
        with pytest.raises(CacheFailure):
            _run(endless(), named(LAYER, size=1 << 40), writer)
    assert len(taken) < 10_000
    assert left_behind(tmp_path) == []


def _run(chunks: Iterator[bytes], layer: Named, sink: LayerSink) -> None:
    from regfs.layers.ingest import run_ingest

    run_ingest(chunks, **layer, sink=sink, progress=Progress())


def test_rows_tell_types_in_their_mode(tmp_path: Path) -> None:
    assert stat.S_ISREG(Ingested(tmp_path, LAYER).attributes("d/big").mode)
