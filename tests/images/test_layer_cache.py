"""What layers hold: ingested once, merged once, opened at once from then on, and made again where it was lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from regfs.errors import BadContent, CacheFailure, RegfsError, Unsupported, WouldBlock
from regfs.images.layers.layer_ingests import LayerIngests
from regfs.images.layers.merges import Merges
from regfs.model.chain_id import chain_id
from regfs.model.digest import Digest
from regfs.model.names import RepositoryName
from regfs.process.waiting.deadline import NON_BLOCKING, under
from regfs.store.eviction.budget import Budget
from regfs.store.files.checksums import format_sums, sha256_of
from regfs.store.layers.layer_store import LayerStore
from regfs.store.layers.layer_writer import LayerWriter
from tests.support.caches import MIB, full_directory, link_to_itself, tmpfs
from tests.support.descriptors import no_descriptor_left
from tests.support.fault_server import Connection, silence
from tests.support.images import BuiltLayer, compressed, directory, file, image_of, layer, tar_of
from tests.support.served import Served

BASE = layer(directory("d"), file("d/base", b"base"))
TOP = layer(file("top", b"top"))


def test_chain_ids_are_those_of_the_image_specification() -> None:
    a, b, c = (Digest.of(text) for text in (b"a", b"b", b"c"))
    assert chain_id([a]) == a
    assert chain_id([a, b]) == Digest.of(f"{a} {b}".encode())
    assert chain_id([a, b, c]) == Digest.of(f"{Digest.of(f'{a} {b}'.encode())} {c}".encode())
    assert chain_id([]) not in (a, b, c)


def test_many_who_go_into_a_rootfs_at_once_are_one_pass_of_each_layer_and_one_merge(served: Served) -> None:
    served.push("app", "1", image_of(BASE, TOP))
    shown = served.show()
    with ThreadPoolExecutor(20) as pool:
        read = list(pool.map(shown.read, ["app/1/rootfs/top", "app/1/rootfs/d/base"] * 20))
    assert read == [b"top", b"base"] * 20
    assert shown.stats.value("layers.ingests") == 2
    assert shown.stats.value("images.merges") == 1
    for built in (BASE, TOP):
        assert len(served.server.paths(f"blobs/{built.digest}")) == 1


def test_the_next_mount_asks_for_nothing_and_merges_nothing(served: Served) -> None:
    built = served.push("app", "1", image_of(BASE, TOP))
    assert served.show().read(f"app/{built.digest}/rootfs/top") == b"top"
    asked = len(served.server.seen)
    shown = served.show()
    with under(NON_BLOCKING):
        repository = shown.repositories.repository(RepositoryName(served.server.address, "app"))
        rootfs = shown.images.image(repository, built.digest).rootfs()
    assert [name for name, _, _ in rootfs.children(rootfs.root, 0, 10)] == [b"d", b"top"]
    assert len(served.server.seen) == asked
    assert shown.stats.value("layers.ingests") == shown.stats.value("images.merges") == 0


def test_two_images_of_the_same_layers_have_one_merged_table(served: Served) -> None:
    served.push("app", "1", image_of(BASE, TOP))
    served.push("app", "2", image_of(BASE, TOP, command=["/top"]))
    shown = served.show()
    assert shown.read("app/1/rootfs/top") == shown.read("app/2/rootfs/top") == b"top"
    assert shown.stats.value("images.merges") == 1


@pytest.mark.parametrize("pattern", ["layers/*.index", "images/*.merged"])
def test_a_torn_table_is_made_again(served: Served, pattern: str) -> None:
    served.push("app", "1", image_of(BASE, TOP))
    assert served.show().read("app/1/rootfs/top") == b"top"
    for table in served.cache.glob(pattern):
        table.chmod(0o644)
        table.write_bytes(b"torn by a crash of the machine")
    shown = served.show()
    assert shown.read("app/1/rootfs/top") == b"top"
    assert shown.read("app/1/layers/0/tree/d/base") == b"base"


@pytest.mark.parametrize("make", [full_directory, os.mkfifo, link_to_itself])
def test_what_is_no_file_in_the_cache_gives_way_to_what_is_fetched_again(
    make: Callable[[Path], object], served: Served
) -> None:
    big = os.urandom(300_000)
    image = served.push("app", "1", image_of(BASE, layer(file("big", big), file("top", b"top"))))
    doors = ["app/1/rootfs/big", "app/1/rootfs/top", "app/1/rootfs/d/base", f"app/1/blobs/{image.layers[0].digest}"]
    right = [big, b"top", b"base", image.layers[0].blob]
    assert [served.show().read(door) for door in doors] == right
    for path in [path for path in served.cache.rglob("*") if path.is_file() and path.parent.name != "uses"]:
        path.unlink()
        make(path)
    assert [served.show().read(door) for door in doors] == right
    assert all(path.is_file() for path in served.cache.glob("layers/*.tar"))


def test_descriptors_that_run_out_are_no_damaged_cache_and_drop_no_layer(served: Served) -> None:
    served.push("app", "1", image_of(BASE, TOP))
    assert served.show().read("app/1/rootfs/top") == b"top"
    kept = sorted(path.name for path in served.cache.glob("*/*.*"))
    asked, shown = len(served.server.seen), served.show()
    shown.names("app/1/layers")
    with no_descriptor_left(), pytest.raises(CacheFailure, match="Too many open files"):
        shown.find("app/1/rootfs/top")
    assert sorted(path.name for path in served.cache.glob("*/*.*")) == kept
    assert shown.read("app/1/rootfs/top") == b"top"
    assert shown.stats.value("layers.ingests") == shown.stats.value("images.merges") == 0
    assert len(served.server.seen) == asked


def test_with_descriptors_used_up_tables_that_are_idle_make_room(served: Served) -> None:
    served.push("app", "1", image_of(BASE, TOP))
    shown = served.show()
    assert shown.read("app/1/layers/0/tree/d/base") == b"base"
    assert shown.names("app/1/rootfs") == ["d", "top"]
    with no_descriptor_left():
        assert shown.read("app/1/rootfs/top") == b"top"
        assert shown.read("app/1/rootfs/d/base") == b"base"


def of_another_release(table: Path) -> None:
    with closing(sqlite3.connect(table)) as connection:
        connection.execute("PRAGMA user_version = 1")


@pytest.mark.parametrize(("suffix", "ingests"), [("merged", 0), ("index", 1)])
def test_a_table_of_another_release_is_made_again_and_kept(served: Served, suffix: str, ingests: int) -> None:
    """The merged table had its checksum and stayed: each read said that it vanished, and nothing was kept any more."""
    served.push("app", "1", image_of(BASE, TOP))
    assert served.show().read("app/1/rootfs/top") == b"top"
    for path in served.cache.glob(f"*/*.{suffix}"):
        of_another_release(path)
        name = path.relative_to(served.cache).as_posix()
        path.with_suffix(".sums").write_bytes(format_sums({name: sha256_of(path)}))
    asked = len(served.server.paths("blobs/"))
    with served.show(offline=True) as shown:
        assert shown.read("app/1/rootfs/top") == b"top"
        assert shown.stats.value("layers.ingests") == ingests
        assert shown.stats.value("layers.bytes") == 0
    assert len(served.server.paths("blobs/")) == asked
    with served.show() as shown:
        assert shown.read("app/1/rootfs/top") == b"top"
        assert shown.stats.value("layers.ingests") == shown.stats.value("images.merges") == 0


def test_an_index_is_not_made_of_an_archive_that_rotted_with_it(served: Served) -> None:
    served.push("app", "1", image_of(BASE, TOP))
    assert served.show().read("app/1/rootfs/top") == b"top"
    for path in served.cache.glob("layers/*.index"):
        path.write_bytes(b"torn")
        data = path.with_suffix(".tar")
        data.write_bytes(data.read_bytes().replace(b"top", b"pot"))
    with served.show() as shown:
        assert shown.read("app/1/rootfs/top") == b"top"
        assert shown.stats.value("layers.bytes") == len(TOP.blob)


def test_indexes_are_made_again_offline_in_a_cache_that_has_no_room_for_a_second_archive(served: Served) -> None:
    """The archives were evicted as leftovers by the first ingest of one of them, and all was to be fetched again."""
    size = 700_000
    served.push("app", "1", image_of(*(layer(file(f"{number}", os.urandom(size))) for number in range(3))))
    assert len(served.show(limit=4 * size).read("app/1/rootfs/2")) == size
    for path in served.cache.glob("layers/*.index"):
        of_another_release(path)
    with served.show(limit=4 * size, offline=True) as shown:
        assert [len(shown.read(f"app/1/rootfs/{number}")) for number in range(3)] == [size] * 3


def test_no_more_is_received_than_there_is_where_an_index_is_made_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of the archive were counted against the size of the compressed blob."""
    served.push("app", "1", image_of(layer(file("x", bytes(300_000)))))
    assert len(served.show().read("app/1/rootfs/x")) == 300_000
    of_another_release(next(served.cache.glob("layers/*.index")))
    shown, publish = served.show(), LayerStore.publish
    seen: list[tuple[int, int]] = []

    def look(store: LayerStore, writer: LayerWriter, diff_id: Digest) -> None:
        seen.extend((each.progress.received, each.blob.descriptor.size) for each in shown.contents.under_way())
        publish(store, writer, diff_id)

    monkeypatch.setattr(LayerStore, "publish", look)
    assert len(shown.read("app/1/rootfs/x")) == 300_000
    ((received, size),) = seen
    assert 300_000 < received == size


def test_a_merged_table_that_is_gone_is_made_again_without_a_pass(served: Served) -> None:
    served.push("app", "1", image_of(BASE, TOP))
    assert served.show().read("app/1/rootfs/top") == b"top"
    for table in served.cache.glob("images/*"):
        table.unlink()
    shown = served.show()
    assert shown.read("app/1/rootfs/top") == b"top"
    assert shown.stats.value("layers.ingests") == 0
    assert shown.stats.value("images.merges") == 1


def test_without_patience_nothing_is_ingested(served: Served) -> None:
    served.push("app", "1", image_of(BASE))
    shown = served.show()
    shown.names("app/1/layers")
    image = shown.find("app/1").node
    with under(NON_BLOCKING), pytest.raises(WouldBlock):
        shown.tree.lookup(image, b"rootfs")
    assert served.server.paths(f"blobs/{BASE.digest}") == []


def test_a_data_file_that_is_cut_off_while_it_is_in_use_fails_one_read_and_is_made_again(served: Served) -> None:
    content = os.urandom(10_000)
    served.push("app", "1", image_of(layer(file("a", content), file("b", content))))
    shown = served.show()
    assert shown.read("app/1/rootfs/b") == content
    [data] = (served.cache / "layers").glob("*.tar")
    os.truncate(data, 12_000)
    with pytest.raises(CacheFailure, match="ends at byte"):
        shown.read("app/1/rootfs/b")
    assert shown.read("app/1/rootfs/b") == shown.read("app/1/rootfs/a") == content
    assert shown.app.stats.value("layers.ingests") == 2


def test_a_pass_under_way_is_told_and_then_no_more(served: Served) -> None:
    served.push("app", "1", image_of(BASE))
    arrived, go = threading.Event(), threading.Event()

    def hold(connection: Connection) -> bool:
        arrived.set()
        go.wait(100)
        return connection.answer(connection.right())

    served.server.on("GET", f"blobs/{BASE.digest}", hold)
    shown = served.show()
    waiter = threading.Thread(target=lambda: shown.names("app/1/rootfs"))
    waiter.start()
    assert arrived.wait(100)
    (ingest,) = shown.contents.under_way()
    assert (ingest.blob.descriptor.digest, ingest.blob.descriptor.size) == (BASE.digest, len(BASE.blob))
    go.set()
    waiter.join(100)
    assert shown.contents.under_way() == []


@pytest.mark.parametrize("size", [0, 2_000_000], ids=["ingested here", "ingested by a process"])
def test_an_entry_of_an_unknown_type_is_shown_and_noted_in_errors_once(served: Served, size: int) -> None:
    odd = layer(file("odd/u", b"data", type=b"Q"), file("odd/v", type=b"Q"), file("big", os.urandom(size)))
    served.push("app", "1", image_of(BASE, odd))
    shown = served.show()
    assert shown.names("app/1/rootfs/odd") == ["u"]
    assert shown.read("app/1/rootfs/odd/u") == b"data"
    (noted,) = shown.journal.text().splitlines()
    assert f"layer {odd.digest}: 2 tar entries of an unknown type, the first of them b'odd/u'" in noted
    assert shown.stats.value("errors") == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a tmpfs")
def test_on_a_full_disk_an_image_that_does_not_fit_leaves_the_cached_one_readable(tmp_path: Path) -> None:
    cached, fits_alone, too_large = (layer(file("x", os.urandom(size * MIB))) for size in (4, 2, 12))
    with tmpfs(tmp_path / "disk", "size=30m") as disk, closing(Served(disk / "cache")) as served:
        served.push("app", "1", image_of(cached))
        served.push("big", "1", image_of(fits_alone, too_large))
        shown = served.show()
        content = shown.read("app/1/rootfs/x")
        (disk / "of another program").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
        for _ in range(2):
            assert len(shown.read("big/1/rootfs/x")) == 12 * MIB
            assert shown.read("app/1/rootfs/x") == content
        assert "needs 14.0 MiB" in shown.read(".regfs/errors").decode()
        assert len(served.server.paths(f"blobs/{cached.digest}")) == 1
        assert shown.stats.value("images.merges") == 2
        (disk / "of another program").unlink()
        assert shown.names("big/1/rootfs") == ["x"]


def test_after_a_failed_pass_the_next_one_may_be_right(served: Served) -> None:
    built = served.push("app", "1", image_of(BASE))
    served.registry.repository("app").blobs[str(BASE.digest)] = bytes(len(BASE.blob))
    shown = served.show()
    with pytest.raises(BadContent):
        shown.names("app/1/rootfs")
    assert shown.contents.under_way() == []
    served.push("app", "1", built)
    assert shown.read("app/1/rootfs/d/base") == b"base"


def test_a_layer_that_fails_is_told_while_another_is_still_coming(served: Served) -> None:
    odd = layer(file("odd"), media_type="application/x-odd")
    served.push("app", "1", image_of(BASE, odd))
    go = threading.Event()

    def hold(connection: Connection) -> bool:
        go.wait(60)
        return connection.answer(connection.right())

    served.server.on("GET", f"blobs/{BASE.digest}", hold)
    shown = served.show()
    try:
        with pytest.raises(Unsupported):
            shown.names("app/1/rootfs")
        assert not go.is_set()
    finally:
        go.set()
    assert shown.names("app/1/layers/0/tree") == ["d"]


def test_a_layer_and_a_table_that_another_daemon_would_evict_at_once_are_kept_for_those_who_wait_for_them(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def and_then_evict(run: Callable[..., None]) -> Callable[..., None]:
        def run_and_evict(*arguments: object) -> None:
            run(*arguments)
            Budget(served.cache).trim(0)

        return run_and_evict

    monkeypatch.setattr(LayerIngests, "run", and_then_evict(LayerIngests.run))
    monkeypatch.setattr(Merges, "run", and_then_evict(Merges.run))
    served.push("app", "1", image_of(BASE, TOP))
    shown = served.show()
    assert shown.read("app/1/rootfs/top") == b"top"
    assert shown.stats.value("layers.ingests") == 2
    assert shown.stats.value("images.merges") == 1


def test_a_cache_that_was_deleted_under_open_directories_is_made_again(served: Served) -> None:
    big = os.urandom(300_000)
    served.push("app", "1", image_of(layer(file("big", big), file("small", b"s"))))
    shown = served.show()
    rootfs = shown.find("app/1/rootfs").node
    shown.tree.listing(rootfs)
    shutil.rmtree(served.cache)
    for name, content in ((b"big", big), (b"small", b"s")):
        opened = shown.tree.open(shown.tree.lookup(rootfs, name).node)
        assert opened.read_at(0, 1 << 20) == content
        opened.close()


def test_tables_that_are_let_go_by_one_thread_and_taken_up_by_another_are_not_closed_under_it(served: Served) -> None:
    served.push("app", "1", image_of(BASE, TOP))
    shown = served.show()
    shown.names("app/1/rootfs")
    shown.names("app/1/layers/0/tree")
    errors: list[BaseException] = []

    def take_and_let_go() -> None:
        try:
            for _ in range(100):
                shown.find("app/1/rootfs/top")
                shown.find("app/1/layers/0/tree/d/base")
                for door in ("app/1/rootfs", "app/1/layers/0/tree"):
                    # As often as it was looked up here, and no more: others may be in it.
                    shown.tree.forget(shown.find(door).node, 2)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=take_and_let_go) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert errors == []


def test_a_wrong_blob_of_one_image_does_not_refuse_the_right_one_of_another(served: Served) -> None:
    right = layer(file("a", b"a"))
    wrong = BuiltLayer(right.tar, compressed(tar_of(file("b", b"b")), "gzip"), right.media_type)
    served.push("wrong", "1", image_of(wrong))
    served.push("right", "1", image_of(right))
    shown = served.show()
    with pytest.raises(BadContent):
        shown.names("wrong/1/rootfs")
    assert shown.read("right/1/rootfs/a") == b"a"


def test_the_right_blob_of_one_image_does_not_wait_for_a_wrong_one_of_another(served: Served) -> None:
    right = layer(file("a", b"a"))
    wrong = BuiltLayer(right.tar, compressed(tar_of(file("b", b"b")), "gzip"), right.media_type)
    served.push("wrong", "1", image_of(wrong))
    served.push("right", "1", image_of(right))
    asked = threading.Event()

    def hang(connection: Connection) -> bool:
        asked.set()
        return silence(connection)

    served.server.on("GET", f"wrong/blobs/{wrong.digest}", hang)
    shown = served.show()

    def look() -> None:
        with pytest.raises(RegfsError):
            shown.names("wrong/1/rootfs")

    waiting = threading.Thread(target=look)
    waiting.start()
    assert asked.wait(100)
    assert shown.read("right/1/rootfs/a") == b"a"
    served.server.stop()
    waiting.join(60)
    assert not waiting.is_alive()
