"""The cache on disks that are full, small or read-only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regfs.errors import CacheFailure, CacheFull, NotFound
from regfs.model.cache_limits import Limits
from regfs.model.digest import Digest
from regfs.store.blobs import BlobStore
from regfs.store.layers.content import Span
from regfs.store.layers.ingest_directories import ingest_directory
from regfs.store.layers.layer_store import LayerStore
from tests.store.filled_store import big, kept_merged, names_of, needs_root
from tests.support.caches import MIB, keep_layer, size_of, tmpfs


@needs_root
def test_a_twentieth_of_the_disk_stays_free(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=20m") as disk:
        store = LayerStore(disk, limits=Limits(100 * MIB))
        layers = [keep_layer(store, f"layer {number}", files=[big(number, 4 * MIB)]) for number in range(6)]
        assert os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize >= MIB
        assert store.is_whole(layers[-1])
        index = store.open_index(layers[-1])
        with pytest.raises(
            CacheFull, match=r"needs .* MiB; the disk of .* has .* to spare \(1.0 MiB .*--cache-dir, .*"
        ):
            keep_layer(LayerStore(disk), "more", files=[big(7, 17 * MIB)])
        index.close()
        (disk / "of somebody else").write_bytes(bytes(19 * MIB + MIB // 2 - size_of(disk)))
        kept = names_of(store, layers)
        keep_layer(LayerStore(disk), "more", files=[big(7, MIB)])
        assert len(names_of(store, layers)) < len(kept)


@contextmanager
def full_disk(at: Path, options: str) -> Iterator[tuple[Path, LayerStore, Digest, Path]]:
    """Yield a disk that something else has filled, a store on it, and the layer and the merged table in it."""
    with tmpfs(at, options) as disk:
        layer = keep_layer(LayerStore(disk), "layer", files=[big(1, 4 * MIB)])
        table = kept_merged(disk)
        (disk / "of another program").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
        yield disk, LayerStore(disk, limits=Limits(100 * MIB)), layer, table


@needs_root
def test_an_image_that_cannot_fit_evicts_nothing_of_the_one_that_is_cached(tmp_path: Path) -> None:
    with full_disk(tmp_path / "disk", "size=40m") as (_, store, layer, table):
        held = store.open_index(layer)
        for ask in (store.budget.reserve, store.budget.require, store.budget.reserve_table):
            with pytest.raises(CacheFull):
                ask(6 * MIB)
            assert table.exists()
            assert store.is_whole(layer)
        held.close()
        with pytest.raises(CacheFull):
            store.budget.reserve(6 * MIB)
        assert table.exists()
        assert store.is_whole(layer)
        store.budget.reserve(MIB)  # what can be had is had
        assert not store.is_whole(layer)


@needs_root
def test_a_document_that_a_full_disk_does_not_take_evicts_no_layer(tmp_path: Path) -> None:
    with full_disk(tmp_path / "disk", "size=40m") as (disk, store, layer, table):
        blobs = BlobStore(disk / "blobs", reserve=store.budget.reserve, reserve_document=store.budget.reserve_document)
        blobs.keep(Digest.of(b"document"), b"document")
        assert blobs.load(Digest.of(b"document"), at_most=1 << 20) is None
        assert table.exists()
        assert store.is_whole(layer)


@needs_root
def test_a_merged_table_may_take_of_the_twentieth_that_stays_free(tmp_path: Path) -> None:
    with full_disk(tmp_path / "disk", "size=100m") as (disk, store, layer, _):
        os.truncate(disk / "of another program", (disk / "of another program").stat().st_size - 3 * MIB)
        store.budget.reserve_table(MIB)
        store.budget.reserve_document(MIB // 2)
        assert store.is_whole(layer)
        held = store.open_index(layer)
        with pytest.raises(CacheFull):
            store.budget.reserve(MIB)
        with pytest.raises(CacheFull):
            store.budget.reserve_table(3 * MIB)
        held.close()


@needs_root
def test_an_ingest_for_which_the_disk_has_no_inode_leaves_none_behind(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=1m,nr_inodes=3") as disk:  # its root, `ingests`, and one
        with pytest.raises(CacheFull), ingest_directory(disk / "ingests"):
            pass
        assert os.listdir(disk / "ingests") == []


@needs_root
def test_a_disk_without_inodes_is_full(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=100m,nr_inodes=120") as disk:
        store = LayerStore(disk, limits=Limits(100 * MIB))
        for number in range(30):
            layer = keep_layer(
                LayerStore(disk, limits=Limits(100 * MIB)), f"layer {number}", files=[big(number, 100_000)]
            )
        assert store.is_whole(layer)


@needs_root
def test_a_read_only_cache_is_read_and_documents_are_served_unkept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tmpfs(tmp_path / "disk", "size=20m") as disk:
        store = LayerStore(disk)
        layer = keep_layer(store, "layer", files=[big(1)])
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert store.open_index(layer).lookup(0, b"file1") is not None
        assert store.open_content(Span(layer, 512, 5)).read_at(0, 5) == b"small"
        blobs = BlobStore(disk / "blobs", reserve=store.budget.reserve)
        for _ in range(3):
            blobs.keep(Digest.of(b"document"), b"document")
        # Threads of earlier tests may have something to say too.
        told = [record.levelname for record in caplog.records if record.name.startswith("regfs.store.")]
        assert told == ["WARNING"]
        with pytest.raises(CacheFailure, match=r"Read-only file system; remount it, or name another with --cache-dir"):
            keep_layer(store, "more")
        store.close()


@needs_root
def test_an_unexpected_end_of_the_disk_names_path_and_remedy(tmp_path: Path) -> None:
    # The budget has just looked; then somebody else takes all that there was.
    with tmpfs(tmp_path / "disk", "size=16m") as disk:
        store = LayerStore(disk, limits=Limits(100 * MIB))
        with store.begin_layer() as writer:
            store.budget.reserve(1)
            (disk / "filler").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
            with pytest.raises(CacheFailure, match=rf"{disk}.*No space left on device.*--cache-dir"):
                writer.write(big(1))
        assert size_of(disk) == 0


@needs_root
@pytest.mark.parametrize("limit", [None, 0, 4 * MIB])
def test_a_file_system_that_tells_no_size_has_room(tmp_path: Path, limit: int | None) -> None:
    with tmpfs(tmp_path / "disk", "size=0,nr_inodes=0") as disk:
        assert os.statvfs(disk).f_blocks == 0
        store = LayerStore(disk, limits=Limits(limit))
        assert store.is_whole(keep_layer(store, "layer", files=[big(1)]))
        store.close()


def test_a_layer_that_is_gone_is_not_found(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer = keep_layer(store, "layer")
    store.budget.trim(0)
    with pytest.raises(NotFound):
        store.open_index(layer)
