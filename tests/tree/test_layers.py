"""`layers/`: what an image is made of, base first, and each layer's files alone."""

from __future__ import annotations

import json
import re

import pytest

from regfs.errors import BadContent, BadManifest, NotFound, Unsupported
from regfs.model.digest import Digest
from tests.support.images import directory, file, image_of, layer, whiteout
from tests.support.memory_registry import MANIFEST
from tests.support.served import Served

BASE = layer(directory("etc"), file("etc/motd", b"hello"))
TOP = layer(whiteout("etc/motd"), file("etc/issue", b"top"), compression="zstd")


def test_a_layer_tells_what_it_is(served: Served) -> None:
    served.push("app", "1", image_of(BASE, TOP))
    shown = served.show()
    assert shown.names("app/1/layers") == ["000", "001"]
    for number, built in enumerate((BASE, TOP)):
        facts = {"digest": built.digest, "diff_id": built.diff_id, "media_type": built.media_type,
                 "size": len(built.blob), "created_by": f"layer {number}"}  # fmt: skip
        told = {name: shown.read(f"app/1/layers/{number}/{name}") for name in facts}
        assert told == {name: f"{fact}\n".encode() for name, fact in facts.items()}
        assert sorted(shown.names(f"app/1/layers/{number}")) == sorted([*facts, "blob", "files", "real-size", "tree"])
    assert served.server.paths(f"blobs/{BASE.digest}|blobs/{TOP.digest}") == []


def test_a_layer_s_link_leads_to_its_blob(served: Served) -> None:
    served.push("app", "1", image_of(BASE))
    shown = served.show()
    assert shown.link("app/1/layers/0/blob") == f"../../blobs/{BASE.digest}".encode()
    assert shown.read(f"app/1/blobs/{BASE.digest}") == BASE.blob


def test_a_layer_s_tree_has_its_files_alone_and_its_whiteouts_as_they_are_stored(served: Served) -> None:
    served.push("app", "1", image_of(BASE, TOP))
    shown = served.show()
    assert shown.names("app/1/layers/0/tree/etc") == ["motd"]
    assert shown.names("app/1/layers/1/tree/etc") == [".wh.motd", "issue"]
    assert shown.names("app/1/rootfs/etc") == ["issue"]


def test_looking_into_one_layer_does_not_fetch_the_others(served: Served) -> None:
    served.push("app", "1", image_of(BASE, TOP))
    shown = served.show()
    assert shown.read("app/1/layers/1/tree/etc/issue") == b"top"
    assert served.server.paths(f"blobs/{BASE.digest}") == []


@pytest.mark.parametrize("number", ["2", "002", "00", "0000", "-1", "+0", "0x0", "١", "0 "])
def test_numbers_are_written_with_three_digits_or_without_leading_zeros(served: Served, number: str) -> None:
    served.push("app", "1", image_of(BASE, TOP))
    with pytest.raises(NotFound):
        served.show().find(f"app/1/layers/{number}")


def test_a_manifest_and_a_config_that_disagree_about_the_layers_are_an_error(served: Served) -> None:
    built = served.push("app", "one", image_of(BASE, TOP))
    manifest = json.loads(built.manifest)
    del manifest["layers"][1]
    served.document("app", "1", json.dumps(manifest).encode(), MANIFEST)
    shown = served.show()
    for name in ("layers", "rootfs"):
        with pytest.raises(BadManifest, match="1 layers in the manifest, 2 diff ids"):
            shown.names(f"app/1/{name}")
    assert shown.read(f"app/1/blobs/{BASE.digest}") == BASE.blob


@pytest.mark.parametrize(
    ("media_type", "reason"),
    [
        ("application/vnd.oci.image.layer.v1.tar+encrypted", "encrypted"),
        ("application/vnd.erofs.layer.v1", "an EROFS image"),
        ("application/vnd.erofs.layer.v1+zstd", "an EROFS image"),
    ],
)
def test_a_layer_of_an_unknown_type_is_unsupported_and_is_not_fetched(
    served: Served, media_type: str, reason: str
) -> None:
    odd = layer(file("a"), media_type=media_type)
    served.push("app", "1", image_of(BASE, odd))
    shown = served.show()
    for path in ("app/1/layers/1/tree", "app/1/rootfs"):
        with pytest.raises(Unsupported, match=re.escape(f"{media_type!r} cannot be shown as files")) as refused:
            shown.names(path)
        assert reason in str(refused.value)
    assert shown.names("app/1/layers/0/tree/etc") == ["motd"]
    assert served.server.paths(f"blobs/{odd.digest}") == []
    assert shown.read(f"app/1/blobs/{odd.digest}") == odd.blob


def test_a_wrong_diff_id_is_an_error_where_the_files_are_and_the_blob_is_fine(served: Served) -> None:
    built = image_of(BASE)
    config = built.config.replace(str(BASE.diff_id).encode(), str(Digest.of(b"another tar")).encode())
    manifest = json.loads(built.manifest)
    manifest["config"] |= {"digest": str(Digest.of(config)), "size": len(config)}
    served.registry.add_blob("app", config)
    served.registry.add_blob("app", BASE.blob)
    served.document("app", "1", json.dumps(manifest).encode(), MANIFEST)
    shown = served.show()
    for path in ("app/1/layers/0/tree", "app/1/rootfs"):
        with pytest.raises(BadContent):
            shown.names(path)
    assert shown.read(f"app/1/blobs/{BASE.digest}") == BASE.blob
    assert list(served.cache.glob("layers/*")) == []


def test_images_that_share_a_layer_ingest_it_once(served: Served) -> None:
    served.push("app", "1", image_of(BASE))
    served.push("other", "1", image_of(BASE, TOP))
    shown = served.show()
    assert shown.names("app/1/rootfs/etc") == ["motd"]
    assert shown.names("other/1/rootfs/etc") == ["issue"]
    assert shown.stats.value("layers.ingests") == 2
    assert len(served.server.paths(f"blobs/{BASE.digest}")) == 1


def test_a_layer_twice_in_one_image_is_ingested_once(served: Served) -> None:
    served.push("app", "1", image_of(BASE, TOP, BASE))
    shown = served.show()
    assert shown.names("app/1/rootfs/etc") == ["issue", "motd"]
    assert shown.stats.value("layers.ingests") == 2


def test_layers_sort_by_their_numbers_and_the_short_number_opens(served: Served) -> None:
    served.push("app", "1", image_of(*[layer(file(f"f{number}")) for number in range(13)]))
    shown = served.show()
    assert sorted(shown.names("app/1/layers")) == [f"{number:03}" for number in range(13)]
    for spelled in ("12", "012"):
        assert shown.read(f"app/1/layers/{spelled}/created_by") == b"layer 12\n"
        assert shown.names(f"app/1/layers/{spelled}/tree") == ["f12"]


def test_a_layer_that_no_step_is_named_for_has_no_empty_created_by(served: Served) -> None:
    built = image_of(BASE)
    config = json.loads(built.config)
    del config["history"]
    content = json.dumps(config).encode()
    manifest = json.loads(built.manifest)
    manifest["config"] |= {"digest": str(Digest.of(content)), "size": len(content)}
    for blob in (content, BASE.blob):
        served.registry.add_blob("app", blob)
    served.document("app", "1", json.dumps(manifest).encode(), MANIFEST)
    shown = served.show()
    assert "created_by" not in shown.names("app/1/layers/000")
    with pytest.raises(NotFound):
        shown.find("app/1/layers/000/created_by")


def test_a_whiteout_that_is_longer_than_a_name_may_be_can_be_looked_at(served: Served) -> None:
    name = "n" * 255
    served.push("app", "1", image_of(layer(file(name), file("a")), layer(whiteout(name))))
    shown = served.show()
    assert shown.names("app/1/rootfs") == ["a"]
    assert shown.names("app/1/layers/1/tree") == [f".wh.{name}"]
    assert shown.read(f"app/1/layers/1/tree/.wh.{name}") == b""
