"""SOCI indexes of version 1, which refer to an image: found by the referrers API, or its tag, where the user asks."""

from __future__ import annotations

import json
import os

import pytest

from regfs.images import soci_indexes
from tests.support.fault_server import reply
from tests.support.images import file, image_of, index_of, layer
from tests.support.memory_registry import INDEX
from tests.support.served import Served
from tests.support.shown import Shown
from tests.support.soci_layers import Fields, named, push_soci, push_soci_v1, soci

OTHER = os.urandom(300_000)
ENTRIES = (file("big", os.urandom(400_000)), file("other", OTHER))
LAYER = soci(*ENTRIES, span=50_000)


@pytest.fixture(autouse=True)
def _small_layers_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small layers count as soci's do from 10 MiB on."""
    monkeypatch.setattr(soci_indexes, "LEAST_LAYER", 100_000)


def used(shown: Shown, name: str) -> int:
    return int(shown.app.stats.value(name))


def asked(served: Served) -> int:
    return len(served.server.paths("/referrers/"))


def test_an_index_that_refers_to_the_image_saves_its_bytes(served: Served) -> None:
    push_soci_v1(served, "app", "1", LAYER)
    shown = served.show(soci_v1=True, rest_from=2.0)
    assert shown.read("app/1/rootfs/other") == OTHER
    assert (used(shown, "layers.tables"), used(shown, "layers.ingests"), asked(served)) == (1, 0, 1)
    assert 0 < used(shown, "chunks.bytes") < len(LAYER.layer.blob)
    again = served.show(soci_v1=True, offline=True)
    assert again.read("app/1/rootfs/other") == OTHER
    assert asked(served) == 1


def test_without_the_option_nothing_is_asked_and_the_layer_is_read_whole(served: Served) -> None:
    push_soci_v1(served, "app", "1", LAYER)
    shown = served.show()
    assert shown.read("app/1/rootfs/other") == OTHER
    assert (used(shown, "layers.ingests"), asked(served)) == (1, 0)


def test_under_a_policy_no_index_is_believed_that_only_refers_to_the_image(served: Served) -> None:
    push_soci_v1(served, "app", "1", LAYER)
    policy = served.cache.parent / "policy.json"
    scopes = {f"{served.server.address}/app": [{"type": "insecureAcceptAnything"}]}
    policy.write_text(json.dumps({"default": [{"type": "reject"}], "transports": {"docker": scopes}}))
    shown = served.show(soci_v1=True, policy=str(policy))
    assert shown.read("app/1/rootfs/other") == OTHER
    assert (used(shown, "layers.tables"), used(shown, "layers.ingests"), asked(served)) == (0, 1, 0)


def test_an_index_is_found_by_its_tag_where_the_registry_has_no_referrers_api(served: Served) -> None:
    image = push_soci_v1(served, "app", "1", LAYER)
    entries = served.registry.repository("app").referrers[str(image.digest)]
    served.document("app", f"sha256-{image.digest.encoded}", index_of(*entries), INDEX)
    served.server.on("GET", "/referrers/", reply(404))
    shown = served.show(soci_v1=True)
    assert shown.read("app/1/rootfs/other") == OTHER
    assert (used(shown, "layers.tables"), asked(served)) == (1, 1)


def test_an_image_without_an_index_costs_one_request_also_of_the_next_daemon(served: Served) -> None:
    served.push("app", "1", image_of(LAYER.layer))
    served.push("app", "2", image_of(LAYER.layer, layer(file("x"))))
    for _ in range(2):
        shown = served.show(soci_v1=True)
        assert shown.read("app/1/rootfs/other") == OTHER
    assert asked(served) == 1
    # the one layer that counts is here whole
    assert shown.read("app/2/rootfs/other") == OTHER
    assert asked(served) == 1


def test_a_registry_that_fails_to_list_referrers_costs_one_request_and_no_file(served: Served) -> None:
    push_soci_v1(served, "app", "1", LAYER)
    served.server.on("GET", "/referrers/", reply(500))
    shown = served.show(soci_v1=True)
    assert shown.read("app/1/rootfs/other") == OTHER
    assert used(shown, "layers.ingests") == 1


@pytest.mark.parametrize("which", ["another subject", "no manifest"])
def test_an_index_that_is_not_of_this_image_is_not_used(served: Served, which: str) -> None:
    other = served.push("app", "other", image_of(layer(file("x"))))
    image = push_soci_v1(served, "app", "1", LAYER, subject=other if which == "another subject" else None)
    if which == "no manifest":
        for entry in served.registry.repository("app").referrers[str(image.digest)]:
            del served.registry.repository("app").manifests[str(entry["digest"])]
    shown = served.show(soci_v1=True)
    assert shown.read("app/1/rootfs/other") == OTHER
    assert used(shown, "layers.ingests") == 1


def test_what_one_index_says_of_a_layer_is_not_believed_by_an_image_that_names_another(served: Served) -> None:
    def lie(fields: Fields) -> None:
        named(fields, "other")["mode"] = 0o4755

    lying = soci(*ENTRIES, span=50_000, change=lie)
    assert lying.layer.digest == LAYER.layer.digest
    push_soci(served, "evil", "1", lying)
    push_soci(served, "app", "1", LAYER)
    shown = served.show()
    assert shown.attributes("evil/1/rootfs/other").mode & 0o7777 == 0o4755
    assert shown.attributes("app/1/rootfs/other").mode & 0o7777 == 0o644
    assert served.show(offline=True).attributes("app/1/rootfs/other").mode & 0o7777 == 0o644
