"""`blobs/`: exact bytes under their digests, with sizes from the descriptors."""

from __future__ import annotations

import json
import os

import pytest
from blake3 import blake3

from regfs.errors import BadContent, DigestMismatch, NotFound
from regfs.model.digest import Digest
from tests.support.cache import blobs_in
from tests.support.images import BuiltImage, file, image_of, layer
from tests.support.memory_registry import MANIFEST
from tests.support.served import Served


def image() -> BuiltImage:
    return image_of(layer(file("a", os.urandom(5000))), layer(file("b", b"b")))


def resized(built: BuiltImage, change: int) -> bytes:
    """Return the manifest of *built* with another size for its first layer."""
    manifest = json.loads(built.manifest)
    manifest["layers"][0]["size"] += change
    return json.dumps(manifest).encode()


def test_sizes_are_told_without_fetching_a_blob(served: Served) -> None:
    built = served.push("app", "1", image())
    shown = served.show()
    sizes = {name: shown.attributes(f"app/1/blobs/{name}").size for name in shown.names("app/1/blobs")}
    assert sizes == {str(digest): len(content) for digest, content in built.blobs().items()}
    assert served.server.paths("GET.*/blobs/") == []


def test_a_blob_is_fetched_once_and_has_its_exact_bytes(served: Served) -> None:
    built = served.push("app", "1", image())
    shown = served.show()
    path = f"app/1/blobs/{built.layers[0].digest}"
    assert shown.read(path) == shown.read(path) == built.layers[0].blob
    assert len(served.server.paths(f"blobs/{built.layers[0].digest}")) == 1


def test_a_blob_is_backed_by_an_ordinary_file_that_may_be_cached(served: Served) -> None:
    built = served.push("app", "1", image())
    shown = served.show()
    opened = shown.tree.open(shown.find(f"app/1/blobs/{built.layers[0].digest}").node)
    fd = opened.backing_fd()
    assert fd is not None
    assert os.pread(fd, 100_000, 0) == built.layers[0].blob
    assert opened.read_at(3, 5) == built.layers[0].blob[3:8]
    assert opened.read_at(len(built.layers[0].blob), 5) == b""
    assert opened.keep_cache
    opened.close()


def test_a_layer_that_was_read_as_a_blob_is_not_fetched_again_for_its_files(served: Served) -> None:
    built = served.push("app", "1", image_of(layer(file("a", b"a"))))
    shown = served.show()
    shown.read(f"app/1/blobs/{built.layers[0].digest}")
    assert shown.read("app/1/rootfs/a") == b"a"
    assert len(served.server.paths(f"blobs/{built.layers[0].digest}")) == 1


def test_a_digest_that_the_image_does_not_name_is_no_blob_of_it(served: Served) -> None:
    served.push("app", "1", image())
    other = served.push("app", "2", image())
    with pytest.raises(NotFound):
        served.show().find(f"app/1/blobs/{other.layers[0].digest}")


@pytest.mark.parametrize("change", [-1, 1, 10_000])
def test_f43_a_blob_of_another_size_than_its_descriptor_says_is_an_error(served: Served, change: int) -> None:
    built = served.push("app", "right", image())
    served.document("app", "1", resized(built, change), built.media_type)
    shown = served.show()
    name = str(built.layers[0].digest)
    assert shown.attributes(f"app/1/blobs/{name}").size == len(built.layers[0].blob) + change
    with pytest.raises(BadContent):
        shown.read(f"app/1/blobs/{name}")
    assert name not in blobs_in(served.cache)
    assert shown.read(f"app/1/blobs/{built.layers[1].digest}") == built.layers[1].blob


@pytest.mark.parametrize("change", [-1, 1])
def test_f43_the_right_blob_in_the_cache_is_not_served_under_a_wrong_size(served: Served, change: int) -> None:
    built = served.push("app", "right", image())
    served.document("app", "1", resized(built, change), built.media_type)
    shown = served.show()
    name = str(built.layers[0].digest)
    assert shown.read(f"app/right/blobs/{name}") == built.layers[0].blob
    with pytest.raises(BadContent):
        shown.read(f"app/1/blobs/{name}")
    assert shown.read(f"app/right/blobs/{name}") == built.layers[0].blob


def test_f43_a_config_of_another_size_is_an_error_for_it_and_for_what_is_made_of_it(served: Served) -> None:
    built = served.push("app", "right", image())
    manifest = json.loads(built.manifest)
    manifest["config"]["size"] += 1
    served.document("app", "1", json.dumps(manifest).encode(), built.media_type)
    shown = served.show()
    for _ in ("fetched", "cached by the right image"):
        with pytest.raises(BadContent):
            shown.read("app/1/config.json")
        with pytest.raises(BadContent):
            shown.names("app/1/layers")
        shown.read("app/right/config.json")


def test_f57_a_blob_that_the_registry_lacks_is_an_error_and_the_others_are_fine(served: Served) -> None:
    built = served.push("app", "1", image())
    lost, there = built.layers
    content = served.registry.repository("app").blobs.pop(str(lost.digest))
    shown = served.show()
    with pytest.raises(BadContent):
        shown.read(f"app/1/blobs/{lost.digest}")
    assert shown.read(f"app/1/blobs/{there.digest}") == there.blob
    assert shown.read("app/1/layers/1/tree/b") == b"b"
    served.registry.repository("app").blobs[str(lost.digest)] = content
    assert shown.read(f"app/1/blobs/{lost.digest}") == lost.blob


def test_f60_a_rotten_copy_of_a_layer_is_fetched_again_before_its_files_are_made(served: Served) -> None:
    built = served.push("app", "1", image_of(layer(file("a", b"a"))))
    shown = served.show()
    digest = built.layers[0].digest
    shown.read(f"app/1/blobs/{digest}")
    (copy,) = served.cache.rglob(digest.encoded)
    copy.chmod(0o644)
    copy.write_bytes(bytes(len(built.layers[0].blob)))
    assert shown.read("app/1/rootfs/a") == b"a"


def test_f60_a_rotten_copy_of_a_config_is_fetched_again(served: Served) -> None:
    built = served.push("app", "1", image())
    assert served.show().read("app/1/config.json") == built.config
    (copy,) = served.cache.rglob(Digest.of(built.config).encoded)
    copy.chmod(0o644)
    copy.write_bytes(b"{" + b" " * (len(built.config) - 2) + b"}")
    assert served.show().read("app/1/config.json") == built.config


def test_f60_a_copy_that_was_cut_short_is_fetched_again(served: Served) -> None:
    built = served.push("app", "1", image())
    digest = built.layers[0].digest
    served.show().read(f"app/1/blobs/{digest}")
    (copy,) = served.cache.rglob(digest.encoded)
    copy.chmod(0o644)
    copy.write_bytes(built.layers[0].blob[:100])
    assert served.show().read(f"app/1/blobs/{digest}") == built.layers[0].blob


def test_a_huge_blob_that_is_named_as_a_document_is_not_read_into_memory(served: Served) -> None:
    built = served.push("app", "1", image_of(layer(file("big", os.urandom(5_000_000)))))
    huge = built.layers[0]
    shown = served.show()
    shown.read(f"app/1/blobs/{huge.digest}")
    manifest = json.loads(built.manifest)
    manifest["config"] |= {"digest": str(huge.digest), "size": len(huge.blob)}
    served.document("app", "2", json.dumps(manifest).encode(), built.media_type)
    with pytest.raises(Exception, match="at most") as raised:
        shown.read("app/2/config.json")
    assert type(raised.value).__name__ == "TooLarge"


def test_wrong_bytes_of_a_blob_are_not_kept(served: Served) -> None:
    built = served.push("app", "1", image())
    digest = str(built.layers[0].digest)
    served.registry.repository("app").blobs[digest] = bytes(len(built.layers[0].blob))
    shown = served.show()
    with pytest.raises(DigestMismatch):
        shown.read(f"app/1/blobs/{digest}")
    assert digest not in blobs_in(served.cache)


def test_a_layer_that_is_named_by_its_blake3_digest_is_verified_by_it(served: Served) -> None:
    built = image_of(layer(file("a", b"1")))
    digest = f"blake3:{blake3(built.layers[0].blob).hexdigest()}"
    manifest = json.loads(built.manifest)
    manifest["layers"][0]["digest"] = digest
    served.push("app", "built", built)
    served.registry.repository("app").blobs[digest] = built.layers[0].blob
    served.document("app", "1", json.dumps(manifest).encode(), MANIFEST)
    manifest["layers"][0]["digest"] = wrong = "blake3:" + "0" * 64
    served.registry.repository("app").blobs[wrong] = built.layers[0].blob
    served.document("app", "wrong", json.dumps(manifest).encode(), MANIFEST)
    shown = served.show()
    assert shown.read("app/1/rootfs/a") == b"1"
    assert shown.read(f"app/1/blobs/{digest}") == built.layers[0].blob
    with pytest.raises(DigestMismatch):
        shown.read(f"app/wrong/blobs/{wrong}")
