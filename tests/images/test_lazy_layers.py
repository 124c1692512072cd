"""Images with tables of contents: names cost the tables, files their chunks, and nothing unverified is shown."""

from __future__ import annotations

import gc
import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from regfs.errors import BadContent, CacheFailure, DigestMismatch, Offline, RegistryUnavailable
from regfs.images.external_tocs import LAYER_DIGEST
from regfs.images.image import Image
from regfs.images.layers.layer_ingests import stored_by_table
from regfs.layers.formats.recognise import recognise
from regfs.model.digest import Digest
from regfs.model.names import RepositoryName
from regfs.rootfs.paths import files_below, find
from regfs.store.eviction.eviction import evict
from tests.layers.tables import Listed
from tests.support.fault_server import Connection, Response, changed, reply
from tests.support.images import BuiltLayer, directory, file, hardlink, image_of, symlink, whiteout
from tests.support.lazy_layers import (
    WRONG,
    Fields,
    descriptor_of,
    estargz,
    estargz_and_table,
    with_annotations,
    zstd_chunked,
)
from tests.support.promotions import join_promotions
from tests.support.read_only import needs_root, read_only
from tests.support.served import Served
from tests.support.shown import Shown

Build = Callable[..., BuiltLayer]
BUILDERS: dict[str, Build] = {
    "eStargz": partial(estargz, chunk_size=50_000),
    "eStargz, inner offsets": partial(estargz, chunk_size=50_000, least_member=100_000),
    "zstd:chunked": partial(zstd_chunked, chunk_size=50_000),
    "zstd:chunked of stargz": partial(zstd_chunked, chunk_size=50_000, generation="stargz"),
}
BIG, OTHER, SPARSE = os.urandom(400_000), os.urandom(300_000), b"x" * 5000 + bytes(50_000) + b"y" * 5000
BASE = (
    directory("d", mode=0o1750),
    file("d/big", BIG),
    file("d/small", b"small"),
    hardlink("link", "d/big"),
    symlink("to", "d/small"),
    file("other", OTHER),
    file("gone", b"gone"),
    file("sparse", SPARSE),
    file("empty"),
)
TOP = (whiteout("gone"), file("d/small", b"of the top"), hardlink("below", "other"))


# For what becomes of layers in the cache: it knows chunks and members, and no format.
by_two_formats = pytest.mark.parametrize("build", ["eStargz, inner offsets", "zstd:chunked"], indirect=True)


@pytest.fixture(params=sorted(BUILDERS))
def build(request: pytest.FixtureRequest) -> Build:
    return BUILDERS[request.param]


def pushed(served: Served, build: Build, **fields: object) -> list[BuiltLayer]:
    layers = [build(*BASE, **fields), build(*TOP)]
    served.push("app", "1", image_of(*layers))
    return layers


def stored(built: BuiltLayer) -> Digest:
    """Return what the store knows the layer by."""
    table_format = recognise(descriptor_of(built))
    assert table_format is not None
    return stored_by_table(descriptor_of(built), table_format)


def image_in(shown: Shown) -> Image:
    repository = shown.repositories.repository(RepositoryName(shown.app.config.default_registry, "app"))
    return shown.images.image(repository, repository.tags.resolve("1").digest)


def received(served: Served, built: BuiltLayer) -> int:
    """Return how many bytes of the layer's blob the server sent, as its answers' ranges say."""
    ranges = served.server.headers("range", f"/blobs/{built.digest}")
    total = 0
    for each in ranges:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", each or "")
        total += int(match[2]) + 1 - int(match[1]) if match else len(built.blob)
    return total


def join_threads(name: str) -> None:
    """Wait until what runs in the background under *name* has ended."""
    for thread in threading.enumerate():
        if thread.name.startswith(name):
            thread.join(60)


def test_names_cost_the_tables_alone(served: Served, build: Build) -> None:
    layers = pushed(served, build)
    shown = served.show()
    assert shown.names("app/1/rootfs") == ["below", "d", "empty", "link", "other", "sparse", "to"]
    assert shown.attributes("app/1/rootfs/d").mode & 0o7777 == 0o1750
    assert shown.app.stats.value("layers.tables") == 2
    assert shown.app.stats.value("layers.ingests") == 0
    assert shown.app.stats.value("chunks.requests") == 0
    assert received(served, layers[0]) <= 1 << 16


def test_a_file_costs_its_chunks_and_the_second_time_nothing(served: Served, build: Build) -> None:
    pushed(served, build)
    shown = served.show()
    assert shown.read("app/1/rootfs/d/small") == b"of the top"
    assert shown.app.stats.value("chunks.requests") == 1
    assert shown.app.stats.value("chunks.bytes") < 100_000
    requests = len(served.server.paths("/blobs/"))
    assert shown.read("app/1/rootfs/d/small") == b"of the top"
    assert len(served.server.paths("/blobs/")) == requests


def test_every_file_is_what_the_archive_has(served: Served, build: Build) -> None:
    pushed(served, build)
    shown = served.show()
    assert shown.read("app/1/rootfs/d/big") == shown.read("app/1/rootfs/link") == BIG
    assert shown.read("app/1/rootfs/other") == shown.read("app/1/rootfs/below") == OTHER
    assert shown.read("app/1/rootfs/sparse") == SPARSE
    assert shown.read("app/1/rootfs/empty") == b""
    assert shown.link("app/1/rootfs/to") == b"d/small"
    assert shown.read("app/1/layers/000/tree/gone") == b"gone"
    assert shown.app.stats.value("layers.ingests") == 0


def test_a_part_of_a_big_file_costs_a_part_of_it(served: Served, build: Build) -> None:
    pushed(served, build)
    shown = served.show()
    opened = shown.tree.open(shown.find("app/1/rootfs/d/big").node)
    assert opened.read_at(200_000, 10) == BIG[200_000:200_010]
    assert opened.backing_fd() is None
    opened.close()
    assert shown.app.stats.value("chunks.bytes") < 150_000


@by_two_formats
def test_what_was_read_is_there_for_the_next_daemon_and_without_a_network(served: Served, build: Build) -> None:
    pushed(served, build)
    assert served.show(rest_from=1.0).read("app/1/rootfs/other") == OTHER
    shown = served.show(offline=True)
    assert shown.read("app/1/rootfs/other") == OTHER
    assert "big" in shown.names("app/1/rootfs/d")
    with pytest.raises(Offline):
        shown.read("app/1/rootfs/d/big")


def test_all_of_it_can_be_fetched_in_one_go(served: Served, build: Build) -> None:
    layers = pushed(served, build)
    shown = served.show()
    shown.names("app/1/rootfs")
    image_in(shown).complete()
    assert shown.app.stats.value("chunks.whole_layers") == 2
    assert served.show(offline=True).read("app/1/rootfs/d/big") == BIG
    before = received(served, layers[0])
    image_in(shown).complete()
    assert received(served, layers[0]) == before


def test_where_no_ranges_are_given_the_layer_is_read_whole(served: Served, build: Build) -> None:
    layers = pushed(served, build)
    for built in layers:
        served.server.on("GET", f"/blobs/{built.digest}", reply(200, built.blob))
    shown = served.show()
    assert shown.read("app/1/rootfs/d/big") == BIG
    assert shown.read("app/1/rootfs/d/small") == b"of the top"
    # The table of a layer that is smaller than a first read came with all of it. Two threads ask for the two layers:
    # one may hear of the other's refusal only after it has read its own table, and asks once more then.
    assert shown.app.stats.value("layers.ingests") >= 1
    assert len(served.server.paths(f"/blobs/{layers[0].digest}")) in (2, 3)
    assert served.show(offline=True).read("app/1/rootfs/other") == OTHER


@pytest.mark.parametrize("status", [416, 501, 400])
@by_two_formats
def test_where_ranges_fail_later_the_layer_is_read_whole_and_once(served: Served, build: Build, status: int) -> None:
    layers = pushed(served, build)
    shown = served.show()
    shown.names("app/1/rootfs")

    def refuse(right: Response) -> Response:
        return Response(status) if right.status == 206 else right

    served.server.on("GET", f"/blobs/{layers[0].digest}", changed(refuse))
    assert shown.read("app/1/rootfs/d/big") == BIG
    assert shown.read("app/1/rootfs/other") == OTHER
    assert shown.app.stats.value("chunks.whole_layers") == 1
    assert shown.app.stats.value("layers.ingests") == 0


def test_a_table_with_a_wrong_digest_costs_the_image_and_is_told(served: Served, build: Build) -> None:
    built = build(*BASE)
    key = "toc_digest" if "toc" in str(built.annotations) else "manifest_checksum"
    served.push("app", "1", image_of(with_annotations(built, **{key: WRONG})))
    shown = served.show()
    with pytest.raises(DigestMismatch, match="table of contents"):
        shown.names("app/1/rootfs")


def test_a_table_that_is_wrong_about_one_file_costs_that_file_alone(served: Served, build: Build) -> None:
    def change(entries: list[Fields]) -> None:
        next(entry for entry in entries if entry["name"] == "other").update(offset=1 << 40)

    pushed(served, build, change=change)
    shown = served.show()
    with pytest.raises(BadContent):
        shown.read("app/1/rootfs/other")
    assert shown.read("app/1/rootfs/d/big") == BIG


def test_a_wrong_chunk_costs_the_files_in_it_alone(served: Served, build: Build) -> None:
    layers = pushed(served, build)
    blob = bytearray(layers[0].blob)
    chunk = Listed(layers[0]).chunks(b"d/big")[0]
    blob[chunk.at + chunk.stored // 2] ^= 1

    def wrong(right: Response) -> Response:
        content_range = dict(right.headers).get("Content-Range", "")
        match = re.match(r"bytes (\d+)-(\d+)/", content_range)
        return Response(206, right.headers, bytes(blob[int(match[1]) : int(match[2]) + 1])) if match else right

    served.server.on("GET", f"/blobs/{layers[0].digest}", changed(wrong))
    shown = served.show()
    with pytest.raises(DigestMismatch):
        shown.read("app/1/rootfs/d/big")
    assert shown.read("app/1/rootfs/other") == OTHER


def test_a_table_that_cannot_tell_a_name_lets_the_layer_be_read_whole(served: Served) -> None:
    def lose(entries: list[Fields]) -> None:
        entries[-1]["name"] = "d/\ufffd"

    served.push("app", "1", image_of(estargz(file("a", b"a"), file("d/b", b"b"), change=lose)))
    shown = served.show()
    assert shown.read("app/1/rootfs/d/b") == b"b"
    assert shown.app.stats.value("layers.ingests") == 1


def test_without_its_annotation_a_layer_is_plain(served: Served, build: Build) -> None:
    built = build(*BASE)
    served.push("app", "1", image_of(BuiltLayer(built.tar, built.blob, built.media_type)))
    shown = served.show()
    assert shown.read("app/1/rootfs/d/big") == BIG
    assert (shown.app.stats.value("layers.ingests"), shown.app.stats.value("layers.tables")) == (1, 0)


def test_two_images_of_one_archive_in_two_formats_are_two_layers_of_the_cache(served: Served) -> None:
    """Their tables differ from the archive in the format's own files, and so do their rows."""
    lazy = estargz(*BASE)
    plain = BuiltLayer(lazy.tar, lazy.blob, lazy.media_type)
    served.push("app", "lazy", image_of(lazy))
    served.push("app", "plain", image_of(plain))
    shown = served.show()
    assert "stargz.index.json" not in shown.names("app/lazy/rootfs")
    assert "stargz.index.json" in shown.names("app/plain/rootfs")
    assert shown.read("app/lazy/rootfs/other") == shown.read("app/plain/rootfs/other") == OTHER


def tree_of(shown: Shown, path: str) -> dict[str, tuple[int, int, int]]:
    """Return mode, links and size of everything below *path*, by its name."""
    found: dict[str, tuple[int, int, int]] = {}
    for name in shown.names(path):
        attributes = shown.attributes(f"{path}/{name}")
        found[name] = attributes.mode, attributes.nlink, attributes.size
        if name == "d":
            found |= {f"d/{below}": rest for below, rest in tree_of(shown, f"{path}/d").items()}
    return found


def test_a_tree_is_the_same_with_ranges_and_without_and_after_its_plain_image(
    served: Served, build: Build, tmp_path: Path
) -> None:
    layers = [build(*BASE, file("d/.no.prefetch.landmark", b"mine")), build(*TOP, file(".prefetch.landmark", b"\x0f"))]
    served.push("app", "1", image_of(*layers))
    served.push("app", "plain", image_of(*[BuiltLayer(each.tar, each.blob, each.media_type) for each in layers]))
    paths = [f"app/1/{each}" for each in ("rootfs", "layers/000/tree", "layers/001/tree")]
    first = served.show()
    right = [tree_of(first, path) for path in paths]
    wasted = first.read("app/1/wasted")
    assert "d/.no.prefetch.landmark" in right[0]
    with Shown(tmp_path / "after-plain", default_registry=served.server.address) as shown:
        assert tree_of(shown, "app/plain/rootfs").keys() >= right[0].keys()
        assert [tree_of(shown, path) for path in paths] == right
        assert shown.read("app/1/wasted") == wasted
        assert shown.app.stats.value("layers.tables") == 0
        hidden = set(shown.names("app/plain/rootfs")) - set(shown.names("app/1/rootfs"))
        assert set(shown.names("app/.diff/1..plain/added")) == hidden
    for built in layers:
        served.server.on(
            "GET", f"/blobs/{built.digest}", changed(partial(lambda blob, _: Response(200, (), blob), built.blob))
        )
    with Shown(tmp_path / "without-ranges", default_registry=served.server.address) as shown:
        assert [tree_of(shown, path) for path in paths] == right


@by_two_formats
def test_a_registry_that_is_away_fails_a_read_and_not_the_next_one(served: Served, build: Build) -> None:
    layers = pushed(served, build)
    shown = served.show()
    shown.names("app/1/rootfs")
    served.server.on("GET", f"/blobs/{layers[0].digest}", reply(503))
    with pytest.raises(RegistryUnavailable):
        shown.read("app/1/rootfs/other")
    served.server.heal()
    assert shown.read("app/1/rootfs/other") == OTHER


@by_two_formats
def test_files_of_the_cache_that_are_gone_are_made_again(served: Served, build: Build) -> None:
    pushed(served, build)
    shown = served.show()
    assert shown.read("app/1/rootfs/other") == OTHER
    for path in (served.cache / "layers").iterdir():
        path.unlink()
    assert served.show().read("app/1/rootfs/other") == OTHER


@by_two_formats
def test_a_data_file_that_lost_its_end_is_made_again_and_never_read_as_zeros(served: Served, build: Build) -> None:
    pushed(served, build)
    shown = served.show(rest_from=1.0)
    assert shown.read("app/1/rootfs/other") == OTHER
    big = shown.tree.open(shown.find("app/1/rootfs/d/big").node)
    assert big.read_at(0, 1000) == BIG[:1000]
    for path in (served.cache / "layers").glob("*.tar"):
        os.truncate(path, 600)
    for offset in (0, 200_000, 0):
        with suppress(CacheFailure):  # what was here of a file that is open is lost
            assert big.read_at(offset, 1000) == BIG[offset : offset + 1000]
    big.close()
    assert shown.read("app/1/rootfs/other") == OTHER
    assert shown.read("app/1/rootfs/d/big") == BIG
    assert served.show(offline=True).read("app/1/rootfs/other") == OTHER


@by_two_formats
def test_chunks_that_were_evicted_are_fetched_again_by_their_ranges(served: Served, build: Build) -> None:
    layers = pushed(served, build)
    with served.show(rest_from=1.0) as first:  # what was read is a third of the layer: the rest would come, too
        assert first.read("app/1/rootfs/d/small") == b"of the top"
        assert first.read("app/1/rootfs/other") == OTHER
    join_threads("flight ")  # read-ahead uses the layers, too
    del first
    gc.collect()
    evict(served.cache)
    assert not list((served.cache / "layers").glob("*.chunks"))
    before = received(served, layers[0])
    again = served.show(rest_from=1.0)
    assert again.read("app/1/rootfs/other") == OTHER
    join_threads("flight ")
    assert again.app.stats.value("layers.ingests") == again.app.stats.value("chunks.whole_layers") == 0
    assert received(served, layers[0]) - before < len(layers[0].blob)


def test_a_table_in_an_image_of_its_own_is_found_by_its_name(served: Served) -> None:
    built, table = estargz_and_table(*BASE, kind="external")
    served.push("app", "1", image_of(built))
    kept = BuiltLayer(b"", table, built.media_type, {LAYER_DIGEST: str(built.digest)})
    served.push("app", "1-esgztoc", image_of(kept))
    shown = served.show()
    assert shown.read("app/1/rootfs/d/small") == b"small"
    assert shown.app.stats.value("layers.tables") == 1
    assert shown.app.stats.value("layers.ingests") == 0
    assert received(served, built) < len(built.blob) / 2


def test_without_the_image_that_has_its_table_a_layer_is_read_whole(served: Served) -> None:
    built, table = estargz_and_table(*BASE, kind="external")
    served.push("app", "1", image_of(built))
    other = BuiltLayer(b"", table, built.media_type, {LAYER_DIGEST: WRONG})
    served.push("app", "1-esgztoc", image_of(other))
    shown = served.show()
    assert shown.read("app/1/rootfs/d/small") == b"small"
    assert shown.app.stats.value("layers.ingests") == 1
    assert b"kept elsewhere" in shown.read(".regfs/errors")


def test_a_wrong_table_that_is_odd_besides_is_no_reason_to_read_the_layer_whole(served: Served) -> None:
    """What an unverified table says decides nothing: its digest is looked at first."""
    built = estargz(*BASE, change=lambda entries: entries[2].update(type="door"))
    served.push("app", "1", image_of(with_annotations(built, toc_digest=WRONG)))
    shown = served.show()
    with pytest.raises(DigestMismatch):
        shown.names("app/1/rootfs")
    assert shown.app.stats.value("layers.ingests") == 0


@needs_root
@by_two_formats
def test_on_a_disk_that_became_read_only_files_are_served_and_it_is_said_once(served: Served, build: Build) -> None:
    pushed(served, build)
    shown = served.show()
    assert shown.read("app/1/rootfs/d/small") == b"of the top"
    with read_only(served.cache / "layers"):
        assert shown.read("app/1/rootfs/d/big") == BIG
        assert shown.read("app/1/rootfs/other") == OTHER
        fresh = served.show()
        assert fresh.read("app/1/rootfs/d/small") == b"of the top"
        assert fresh.read("app/1/rootfs/sparse") == SPARSE
        assert fresh.stats.value("chunks.whole_layers") == 0
        assert fresh.read(".regfs/errors").count(b"is not kept") == 1
        requests = len(served.server.paths("/blobs/"))
    assert shown.read("app/1/rootfs/other") == OTHER
    assert len(served.server.paths("/blobs/")) == requests


@by_two_formats
def test_in_the_background_all_of_an_image_comes_once_it_was_opened(served: Served, build: Build) -> None:
    layers = pushed(served, build)
    shown = served.show(background_fetch=True)
    shown.names("app/1/rootfs")
    join_threads("background fetch")
    assert all(shown.app.layers.is_complete(stored(built)) for built in layers)
    assert shown.app.stats.value("chunks.background_requests") >= 2
    assert shown.app.stats.value("chunks.whole_layers") == 0
    assert received(served, layers[0]) < 2 * len(layers[0].blob)
    requests = len(served.server.paths("/blobs/"))
    assert shown.read("app/1/rootfs/d/big") == BIG
    assert len(served.server.paths("/blobs/")) == requests
    assert served.show(offline=True).read("app/1/rootfs/other") == OTHER


@by_two_formats
def test_nothing_comes_in_the_background_unasked(served: Served, build: Build) -> None:
    pushed(served, build)
    shown = served.show()
    shown.names("app/1/rootfs")
    assert shown.read("app/1/rootfs/d/small") == b"of the top"
    assert shown.app.stats.value("chunks.background_requests") == 0
    assert [thread.name for thread in threading.enumerate() if thread.name == "background fetch"] == []


@by_two_formats
def test_in_the_background_nothing_is_begun_once_the_mount_has_ended(served: Served, build: Build) -> None:
    layers = pushed(served, build)
    held, going_on = threading.Event(), threading.Event()

    def hold(connection: Connection) -> bool:
        held.set()
        assert going_on.wait(60)
        return connection.answer(connection.right())

    served.show().names("app/1/rootfs")
    for built in layers:
        served.server.on("GET", f"/blobs/{built.digest}", hold)
    shown = served.show(background_fetch=True)
    shown.names("app/1/rootfs")
    assert held.wait(60)
    shown.app.layer_cache.stop()
    requests = len(served.server.paths("/blobs/"))
    going_on.set()
    join_threads("background fetch")
    assert len(served.server.paths("/blobs/")) == requests


@by_two_formats
def test_a_cache_that_holds_as_little_as_possible_gets_nothing_in_the_background(served: Served, build: Build) -> None:
    pushed(served, build)
    shown = served.show(background_fetch=True, limit=0)
    shown.names("app/1/rootfs")
    assert [thread.name for thread in threading.enumerate() if thread.name == "background fetch"] == []


@by_two_formats
def test_from_a_third_of_a_layer_on_the_rest_comes_too(served: Served, build: Build) -> None:
    layers = pushed(served, build)
    shown = served.show()
    assert shown.read("app/1/rootfs/d/big") == BIG
    join_threads("flight ('rest'")
    assert shown.app.layers.is_complete(stored(layers[0]))
    assert shown.app.stats.value("chunks.rests") == 1
    assert shown.app.stats.value("chunks.whole_layers") == 0


BIGGER = os.urandom(3 << 20)


@by_two_formats
def test_a_big_file_that_was_read_to_its_end_gets_a_file_of_its_own(served: Served, build: Build) -> None:
    served.push("app", "1", image_of(build(file("before", OTHER), file("big", BIGGER), file("behind", OTHER))))
    shown = served.show()
    node = shown.find("app/1/rootfs/big").node

    def read(*, share: int) -> int | None:
        opened = shown.tree.open(node)
        fd = opened.backing_fd()
        for at in range(0, len(BIGGER) // share, 100_000):
            assert opened.read_at(at, 100_000) == BIGGER[at : at + 100_000]
        backing = None if fd is None else os.pread(fd, len(BIGGER) + 1, 0)
        opened.close()
        join_promotions()
        assert backing in (None, BIGGER)
        return fd

    assert read(share=2) is None
    assert read(share=2) is None
    assert read(share=1) is None
    assert read(share=1) is not None


def fetched_paths(shown: Shown, *paths: bytes) -> list[tuple[str, int, int]]:
    """Fetch what is at and below *paths* of the image, and return what was told of it."""
    image, told = image_in(shown), list[tuple[str, int, int]]()
    files = image.rootfs()
    contents = [files.content(node) for path in paths for node in files_below(files, find(files, path))]
    image.fetch(contents, lambda *words: told.append(words))
    return told


@by_two_formats
def test_parts_of_an_image_come_alone_and_in_few_requests(served: Served, build: Build) -> None:
    many = [directory("many"), *[file(f"many/{number}", os.urandom(2000)) for number in range(50)]]
    built = build(*BASE, *many)
    served.push("app", "1", image_of(built))
    shown = served.show(rest_from=1.0)
    told = fetched_paths(shown, b"/many")
    assert shown.app.stats.value("chunks.requests") == 1
    assert shown.app.stats.value("chunks.bytes") < 350_000
    assert told[-1][1] == told[-1][2]
    offline = served.show(offline=True)
    assert offline.read("app/1/rootfs/many/7") == many[8].content
    with pytest.raises(Offline):
        offline.read("app/1/rootfs/d/big")
    assert fetched_paths(shown, b"many/", b"/many/3") == []


@by_two_formats
def test_a_part_is_found_through_links_and_in_whichever_layer_it_is(served: Served, build: Build) -> None:
    pushed(served, build)
    fetched_paths(served.show(rest_from=1.0), b"/to", b"below")
    offline = served.show(offline=True)
    assert offline.read("app/1/rootfs/d/small") == b"of the top"
    assert offline.read("app/1/rootfs/other") == OTHER


@by_two_formats
def test_what_is_open_of_a_layer_is_closed_when_its_descriptors_are_needed(served: Served, build: Build) -> None:
    pushed(served, build)
    shown = served.show()
    # So little of the layer that nothing more of it is fetched in the background.
    assert shown.read("app/1/layers/000/tree/gone") == b"gone"
    assert open_maps(served)
    gc.collect()
    shown.tables.close_idle()
    assert not open_maps(served)
    assert shown.read("app/1/rootfs/d/big") == BIG


def open_maps(served: Served) -> list[str]:
    """Return the maps of chunks that this process has open."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [path for path in found if path.startswith(str(served.cache)) and path.endswith(".chunks")]
