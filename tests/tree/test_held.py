"""`.regfs/cache/`: what the cache holds, and by whom."""

from __future__ import annotations

import pytest

from regfs.errors import NotFound, WouldBlock
from regfs.process.waiting.deadline import NON_BLOCKING, under
from regfs.store.eviction.pins import keep_pin
from tests.support.images import BuiltImage, file, image_of, layer
from tests.support.served import Served
from tests.support.shown import Shown


@pytest.fixture
def built(served: Served) -> BuiltImage:
    return served.push("app", "1", image_of(layer(file("a", b"a" * 100_000)), layer(file("b", b"b"))))


def told(shown: Shown, path: str) -> dict[str, str]:
    lines = shown.read(f".regfs/cache/{path}").decode().splitlines()
    return dict(line.split(": ", 1) for line in lines)


def test_an_image_tells_its_name_size_parts_and_who_holds_it(served: Served, built: BuiltImage) -> None:
    shown = served.show()
    opened = shown.tree.open(shown.find("app/1/rootfs/a").node)
    short = built.digest.encoded[:12]
    assert shown.names(".regfs/cache/images") == [short]
    facts = told(shown, f"images/{short}")
    assert facts["name"] == f"{served.server.address}/app:1"
    assert facts["manifest"] == str(built.digest)
    assert facts["layers"] == "2 of 2"
    assert int(facts["size"]) > 100_000
    assert facts["held"] == "open"
    opened.close()


def test_a_layer_tells_whose_it_is_and_when_it_was_used(served: Served, built: BuiltImage) -> None:
    shown = served.show()
    shown.names("app/1/rootfs")
    assert len(shown.names(".regfs/cache/layers")) == 2
    name = built.layers[0].diff_id.encoded
    assert told(shown, f"layers/{name}")["image"] == f"{served.server.address}/app:1"
    used_ns = shown.app.layers.index_path(built.layers[0].diff_id).stat().st_mtime_ns
    assert shown.attributes(f".regfs/cache/layers/{name}").mtime_ns == used_ns
    assert len(shown.names(".regfs/cache/tables")) == 1
    assert shown.names(".regfs/cache/blobs") != []


def test_what_is_pinned_says_so_and_what_nothing_holds_too(served: Served, built: BuiltImage) -> None:
    with served.show() as shown:
        shown.names("app/1/rootfs")
    first, second = (served.show().app.layers.index_path(each.diff_id) for each in built.layers)
    keep_pin(served.cache, built.digest, "app:1", [first])
    shown = served.show()
    assert told(shown, f"layers/{first.stem}")["held"] == "pinned"
    assert told(shown, f"layers/{second.stem}")["held"] == "by nothing"


def test_what_is_not_held_is_not_there_and_no_reader_of_requests_works_it_out(served: Served) -> None:
    shown = served.show()
    with pytest.raises(NotFound, match="images, layers, tables, blobs"):
        shown.find(".regfs/cache/others")
    directory = shown.find(".regfs/cache/images")
    with under(NON_BLOCKING), pytest.raises(WouldBlock):
        shown.tree.listing(directory.node)
    assert shown.names(".regfs/cache/images") == []
    with pytest.raises(NotFound):
        shown.find(".regfs/cache/images/0123456789ab")
    assert served.server.seen == []
