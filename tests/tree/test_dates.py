"""Dates above rootfs/: those of the image, once its config is known, and no request for them."""

from __future__ import annotations

import json
import stat

import pytest

from regfs.model.attributes import Attributes
from regfs.model.digest import Digest
from tests.support.images import BuiltImage, file, image_of, index_of, layer
from tests.support.memory_registry import INDEX, MANIFEST
from tests.support.served import Served
from tests.support.shown import Shown

MADE = "2021-02-03T04:05:06.5Z"
MADE_NS = 1_612_325_106_500_000_000
STEP_NS = 1_500_000_000_000_000_000
BASE, TOP = layer(file("base")), layer(file("top"))


def push(served: Served, tag: str, created: object, steps: list[dict[str, object]] | None = None) -> BuiltImage:
    """Push an image of two layers that was made at *created*."""
    built = image_of(BASE, TOP)
    config = json.loads(built.config) | {"created": created, "history": steps or []}
    content = json.dumps(config).encode()
    manifest = json.loads(built.manifest)
    manifest["config"] |= {"digest": str(Digest.of(content)), "size": len(content)}
    for blob in (content, BASE.blob, TOP.blob):
        served.registry.add_blob("app", blob)
    served.document("app", tag, json.dumps(manifest).encode(), MANIFEST)
    return built


def mtime(shown: Shown, path: str) -> int:
    return shown.attributes(path).mtime_ns


def test_looking_at_tags_asks_for_no_date(served: Served) -> None:
    push(served, "1", MADE)
    shown = served.show()
    shown.names("app")
    asked = len(served.server.seen)
    assert mtime(shown, "app/1") == 0
    assert len(served.server.seen) == asked
    assert shown.find("app/1").valid_s <= 2.0  # so that the kernel asks again soon


def test_everything_above_rootfs_has_the_image_s_date_once_its_config_is_known(served: Served) -> None:
    push(served, "1", MADE)
    shown = served.show()
    assert shown.read("app/1/config.json")
    assert mtime(shown, "app/1") == MADE_NS
    for name in ("", "digest", "manifest-digest", "manifest.json", "config.json", "blobs", "layers", "layers/000"):
        assert mtime(shown, f"app/1/{name}") == MADE_NS, name
    assert mtime(shown, f"app/1/blobs/{BASE.digest}") == MADE_NS
    assert mtime(shown, "app/1/layers/000/digest") == MADE_NS
    assert mtime(shown, "app/1/layers/000/blob") == MADE_NS
    assert shown.find("app/1").valid_s > 2.0
    assert stat.S_ISDIR(shown.attributes("app/1").mode)


def test_a_node_that_is_held_gets_the_date_when_it_is_known(served: Served) -> None:
    push(served, "1", MADE)
    shown = served.show()
    held = shown.find("app/1/digest")
    assert shown.tree.attributes(held.node).valid_s <= 2.0
    assert shown.names("app/1/rootfs")
    found = shown.tree.attributes(held.node)
    assert Attributes.unpack(found.attributes[8:]).mtime_ns == MADE_NS
    assert found.valid_s > 2.0


def test_another_mount_of_the_cache_knows_the_date_at_once(served: Served) -> None:
    push(served, "1", MADE)
    assert served.show().names("app/1/rootfs")
    assert mtime(served.show(offline=True), "app/1") == MADE_NS


def test_layers_have_the_dates_of_their_steps(served: Served) -> None:
    steps: list[dict[str, object]] = [
        {"created": "2017-07-14T02:40:00Z"}, {"created": MADE, "empty_layer": True}, {"created": "0001-01-01T00:00:00Z"}
    ]  # fmt: skip
    push(served, "1", MADE, steps)
    shown = served.show()
    assert mtime(shown, "app/1/layers/0") == STEP_NS
    assert mtime(shown, "app/1/layers/000/size") == STEP_NS
    assert mtime(shown, "app/1/layers/001") == MADE_NS  # a step without a date: that of the image


def test_a_tag_of_several_images_has_the_date_of_the_one_that_is_shown(served: Served) -> None:
    push(served, "one", MADE)
    digest = served.registry.repository("app").tags["one"]
    content = served.registry.repository("app").manifests[digest][0]
    amd64 = {"platform": {"os": "linux", "architecture": "amd64"}}
    served.document(
        "app", "1", index_of({"mediaType": MANIFEST, "digest": digest, "size": len(content), **amd64}), INDEX
    )
    shown = served.show()
    assert shown.names("app/1/rootfs")
    for name in ("", "index.json", "manifests", "manifests/linux-amd64", "manifests/linux-amd64/digest"):
        assert mtime(shown, f"app/1/{name}") == MADE_NS, name


@pytest.mark.parametrize("created", ["", "yesterday", "0001-01-01T00:00:00Z", "1901-01-01T00:00:00Z"])
def test_a_config_without_a_sane_date_is_of_1970(served: Served, created: str) -> None:
    push(served, "1", created)
    shown = served.show()
    assert shown.names("app/1/rootfs")
    assert mtime(shown, "app/1") == 0
