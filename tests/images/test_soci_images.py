"""Images with a SOCI index: plain gzip layers whose names cost their zTOCs, and whose files cost a span or two."""

from __future__ import annotations

from dataclasses import replace

import pytest

from regfs.errors import BadContent, Offline
from tests.images.test_lazy_layers import BASE, BIG, OTHER, TOP
from tests.support.fault_server import changed
from tests.support.served import Served
from tests.support.shown import Shown
from tests.support.soci_layers import Fields, named, push_soci, soci

# The first file's span has headers only, so that its bytes come from another span than those of the next.
LAYERS = (soci(*BASE, span=50_000), soci(*TOP, span=50_000))


def used(shown: Shown, name: str) -> int:
    return int(shown.app.stats.value(name))


def test_names_of_a_plain_gzip_image_cost_its_ztocs_alone(served: Served) -> None:
    push_soci(served, "app", "1", *LAYERS)
    shown = served.show()
    assert shown.names("app/1/rootfs") == ["below", "d", "empty", "link", "other", "sparse", "to"]
    assert shown.attributes("app/1/rootfs/d").mode & 0o7777 == 0o1750
    assert (used(shown, "layers.tables"), used(shown, "layers.ingests"), used(shown, "chunks.requests")) == (2, 0, 0)
    assert not served.server.paths(f"/blobs/{LAYERS[0].layer.digest}")


def test_a_file_costs_its_span_and_the_second_time_nothing(served: Served) -> None:
    push_soci(served, "app", "1", *LAYERS)
    shown = served.show()
    assert shown.read("app/1/rootfs/sparse")[:5] == b"xxxxx"
    assert 0 < used(shown, "chunks.bytes") < 300_000
    requests = used(shown, "chunks.requests")
    assert shown.read("app/1/rootfs/sparse")[:5] == b"xxxxx"
    assert used(shown, "chunks.requests") == requests


def test_every_file_is_what_the_archive_has(served: Served) -> None:
    push_soci(served, "app", "1", *LAYERS)
    shown = served.show()
    assert shown.read("app/1/rootfs/d/big") == shown.read("app/1/rootfs/link") == BIG
    assert shown.read("app/1/rootfs/other") == shown.read("app/1/rootfs/below") == OTHER
    assert shown.read("app/1/rootfs/d/small") == b"of the top"
    assert shown.read("app/1/layers/000/tree/gone") == b"gone"
    assert used(shown, "layers.ingests") == 0


def test_what_was_read_is_there_for_the_next_daemon_and_without_a_network(served: Served) -> None:
    push_soci(served, "app", "1", *LAYERS)
    assert served.show(rest_from=1.0).read("app/1/rootfs/other") == OTHER
    shown = served.show(offline=True)
    assert shown.read("app/1/rootfs/other") == OTHER
    with pytest.raises(Offline):
        shown.read("app/1/rootfs/d/big")


def test_a_span_that_is_wrong_twice_costs_its_files_alone(served: Served) -> None:
    def change(fields: Fields) -> None:
        fields.digests[0] = f"sha256:{'0' * 64}"

    push_soci(served, "app", "1", soci(*BASE, span=100_000, change=change))
    shown = served.show()
    with pytest.raises(BadContent):
        shown.read("app/1/rootfs/d/big")
    assert shown.read("app/1/rootfs/other") == OTHER


def test_wrong_bytes_of_a_span_are_fetched_once_more(served: Served) -> None:
    push_soci(served, "app", "1", *LAYERS)
    served.server.on(
        "GET",
        f"blobs/{LAYERS[0].layer.digest}",
        changed(lambda answer: replace(answer, body=answer.body[:-1] + b"?")),
        times=1,
    )
    shown = served.show()
    assert shown.read("app/1/rootfs/other") == OTHER


@pytest.mark.parametrize(
    "lie", [{"mode": 0o4755}, {"uid": 1}, {"time": "2001-01-01T00:00:00Z"}, {"size": 299_999}, {"offset": 1 << 40}]
)
def test_a_file_that_the_ztoc_lies_about_is_refused_and_told(served: Served, lie: dict[str, object]) -> None:
    push_soci(served, "app", "1", soci(*BASE, change=lambda fields: named(fields, "other").update(lie)))
    shown = served.show()
    with pytest.raises(BadContent):
        shown.read("app/1/rootfs/other")
    assert "zTOC" in shown.read(".regfs/errors").decode()
    assert shown.read("app/1/rootfs/d/big") == BIG


@pytest.mark.parametrize(
    "change", [lambda fields: setattr(fields, "count", 1), lambda fields: setattr(fields, "version", "1")]
)
def test_a_layer_with_a_ztoc_of_no_use_is_read_whole(served: Served, change: object) -> None:
    push_soci(served, "app", "1", soci(*BASE, change=change))  # type: ignore[arg-type]
    shown = served.show()
    assert shown.read("app/1/rootfs/d/big") == BIG
    assert used(shown, "layers.ingests") == 1


def test_an_image_whose_soci_index_is_gone_is_read_whole(served: Served) -> None:
    push_soci(served, "app", "1", soci(*BASE))
    repository = served.registry.repositories["app"]
    del repository.manifests[repository.tags["1-index"]]
    shown = served.show()
    assert shown.read("app/1/rootfs/d/big") == BIG
    assert used(shown, "layers.ingests") == 1
