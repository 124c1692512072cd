"""Documents that say strange things, seen by the user of a mount: F37 to F46 of the fault catalogue.

The bytes of these documents are those that their digests name, so that they can be read; what would be made of them
is an error, or goes without the part that is wrong. All variants of a fault are tags of one repository.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from errno import EOPNOTSUPP, errorcode
from pathlib import Path

import pytest

from regfs.model import media_types
from regfs.model.digest import Digest
from tests.e2e.faults.conftest import by_both_drivers
from tests.registry.test_faults_manifests import signed_schema1
from tests.support.cache import blobs_in
from tests.support.fault_server import reply
from tests.support.faulty_mount import FaultyMount
from tests.support.hello import host_architecture
from tests.support.images import BuiltImage, file, image_of, index_of, layer
from tests.support.memory_registry import INDEX, LAYER, MANIFEST

EMPTY: Mapping[str, object] = {
    "mediaType": "application/vnd.oci.empty.v1+json",
    "digest": str(Digest.of(b"{}")),
    "size": 2,
}
UNSUPPORTED = errorcode[EOPNOTSUPP]  # another name of it is ENOTSUP
DERIVED = ("config.json", "layers", "rootfs", "blobs", "manifests")
HERE = {"os": "linux", "architecture": host_architecture()}


@pytest.fixture
def faulty(faulty: FaultyMount) -> FaultyMount:
    """The same, mounted with the time that tags have by default, for none moves here."""
    faulty.mount("--tag-ttl", "60s")
    return faulty


def image(content: str, **more: str) -> BuiltImage:
    """Return an image of one file."""
    return image_of(layer(file("file", content.encode())), **({"architecture": HERE["architecture"]} | more))  # type: ignore[arg-type]


def put(faulty: FaultyMount, tag: str, document: object, media_type: str = MANIFEST) -> str:
    """Put a document into the registry as app:*tag* and return its digest; what is not bytes becomes JSON."""
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return str(faulty.registry.add_manifest("app", content, tag=tag, media_type=media_type))


def manifest_of(**fields: object) -> bytes:
    return json.dumps({"schemaVersion": 2, **fields}).encode()


def only_its_bytes_are_there(faulty: FaultyMount, tag: str, document: bytes, *, errno: str, raw: str) -> None:
    """Insist that of app:*tag* the file *raw* is *document*, that `digest` is right, and that the rest is *errno*."""
    directory = faulty.path(f"app/{tag}")
    assert sorted(os.listdir(directory)) == sorted(["digest", raw])
    assert (directory / raw).read_bytes() == document
    assert os.stat(directory / raw).st_size == len(document)
    assert (directory / "digest").read_text() == f"{Digest.of(document)}\n"
    for name in DERIVED:
        assert (tag, faulty.fails(directory / name, os.stat)) == (tag, errno)
    assert str(Digest.of(document)) in faulty.errors()


def app_is_fine(faulty: FaultyMount) -> bool:
    """Tell whether the image beside the strange ones can be read."""
    return faulty.reads(faulty.path("app/1/rootfs/motd"))


NO_DOCUMENTS: Mapping[str, bytes] = {
    "no-utf8": b'{"schemaVersion":2,"config":"\xff"}',
    "utf16": '{"schemaVersion":2}'.encode("utf-16"),
    "byte-order-mark": b'\xef\xbb\xbf{"schemaVersion":2}',
    "a-key-twice": b'{"schemaVersion":2,"layers":[],"layers":[]}',
    "NaN": b'{"schemaVersion":2,"config":{"size":NaN}}',
    "size-true": manifest_of(config={**EMPTY, "size": True}),
    "size-negative": manifest_of(config={**EMPTY, "size": -1}),
    "size-text": manifest_of(config={**EMPTY, "size": "7"}),
    "size-huge": manifest_of(config={**EMPTY, "size": 2**80}),
    "size-broken": manifest_of(config={**EMPTY, "size": 2.5}),
    "a-list": b"[]",
    "cut": b'{"schemaVersion":2,"config":{',
}


def test_f37_of_what_is_no_document_the_bytes_are_there_and_nothing_is_guessed(faulty: FaultyMount) -> None:
    faulty.push_app()
    for tag, document in NO_DOCUMENTS.items():
        put(faulty, tag, document)
        only_its_bytes_are_there(faulty, tag, document, errno="EIO", raw="manifest.json")
    assert faulty.server.paths("/blobs/") == []
    assert app_is_fine(faulty)


TWO_FACED: Mapping[str, tuple[bytes, str]] = {
    "both": (manifest_of(manifests=[], layers=[], config=EMPTY), MANIFEST),
    "both-as-index": (manifest_of(manifests=[], layers=[]), INDEX),
    "index-as-manifest": (manifest_of(mediaType=MANIFEST, manifests=[]), MANIFEST),
    "manifest-as-index": (manifest_of(mediaType=INDEX, config=EMPTY, layers=[]), INDEX),
    "Layers": (manifest_of(config=EMPTY, Layers=[]), MANIFEST),
    "Digest": (manifest_of(config=EMPTY, layers=[{**EMPTY, "Digest": "sha256:" + "0" * 64}]), MANIFEST),
}


def test_f38_of_what_could_be_read_in_two_ways_the_bytes_are_there_and_neither_is_picked(faulty: FaultyMount) -> None:
    faulty.push_app()
    for tag, (document, media_type) in TWO_FACED.items():
        put(faulty, tag, document, media_type)
        raw = "index.json" if media_type == INDEX else "manifest.json"
        other = "manifest.json" if media_type == INDEX else "index.json"
        only_its_bytes_are_there(faulty, tag, document, errno="EIO", raw=raw)
        assert (tag, faulty.fails(faulty.path(f"app/{tag}/{other}"), os.stat)) == (tag, "EIO")
    assert faulty.server.paths("/blobs/") == []
    assert app_is_fine(faulty)


def test_f39_of_a_schema_1_manifest_the_signed_bytes_are_there_and_the_rest_is_unsupported(faulty: FaultyMount) -> None:
    faulty.push_app()
    signed, payload = signed_schema1()
    repository = faulty.registry.repository("app")
    repository.manifests[str(Digest.of(payload))] = (signed, media_types.DOCKER_SCHEMA1_SIGNED)
    repository.tags["old"] = str(Digest.of(payload))
    only_its_bytes_are_there(faulty, "old", payload, errno=UNSUPPORTED, raw="manifest.json")
    assert faulty.path(f"app/{Digest.of(payload)}/manifest.json").read_bytes() == payload
    assert "schema 1" in faulty.errors()
    assert "DigestMismatch" not in faulty.errors()
    assert app_is_fine(faulty)


def test_f40_an_index_that_is_too_deep_is_an_error_and_not_walked_to_its_end(faulty: FaultyMount) -> None:
    app = faulty.push_app()
    document = index_of(app.descriptor(platform=HERE))
    for depth in range(200):
        digest = put(faulty, f"depth-{depth}", document, INDEX)
        document = index_of({"mediaType": INDEX, "digest": digest, "size": len(document)})
    put(faulty, "deep", document, INDEX)
    assert faulty.fails(faulty.path("app/deep/rootfs"), os.listdir) == "EIO"
    assert len(faulty.server.paths("GET .*/manifests/")) < 15
    assert "deep" in faulty.errors()
    assert faulty.path("app/deep/index.json").read_bytes() == document
    assert os.listdir(faulty.path("app/deep/manifests")) == [digest]
    assert faulty.path("app/depth-3/rootfs/etc/hosts").read_bytes() == b"127.0.0.1 localhost\n"


@by_both_drivers
def test_f40_an_index_of_ten_thousand_images_is_listed_and_none_of_them_is_asked_for(faulty: FaultyMount) -> None:
    app = faulty.push_app()
    entries = [{"mediaType": MANIFEST, "digest": str(Digest.of(b"%d" % n)), "size": 9} for n in range(9_999)]
    put(faulty, "many", index_of(app.descriptor(platform=HERE), *entries), INDEX)
    with os.scandir(faulty.path("app/many/manifests")) as found:
        assert sum(entry.is_dir() for entry in found) == 10_000
    assert len(faulty.server.paths("GET .*/manifests/")) <= 2
    assert faulty.path("app/many/rootfs/etc/hosts").read_bytes() == b"127.0.0.1 localhost\n"


def test_f40_an_index_of_30_000_entries_is_too_large(faulty: FaultyMount) -> None:
    faulty.push_app()
    entries = [{"digest": str(Digest.of(b"%d" % n)), "size": 9} for n in range(30_000)]
    document = index_of(*entries)
    assert len(document) < 4 * 1024 * 1024
    put(faulty, "more", document, INDEX)
    only_its_bytes_are_there(faulty, "more", document, errno="EFBIG", raw="index.json")
    put(faulty, "most", index_of(*entries * 4), INDEX)
    assert faulty.fails(faulty.path("app/most"), os.listdir) == "EFBIG"
    assert app_is_fine(faulty)


UNVERIFIABLE = ("md5:d41d8cd98f00b204e9800998ecf8427e", "sha3-256:" + "c" * 64)
IMPOSSIBLE = ("sha256:../../x", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "sha256:", "x", "a:b/c")


def test_f41_an_entry_whose_digest_cannot_be_verified_is_shown_and_not_asked_for(faulty: FaultyMount) -> None:
    app = faulty.push_app()
    entries = [{"mediaType": MANIFEST, "digest": digest, "size": 100} for digest in (*UNVERIFIABLE, *IMPOSSIBLE)]
    put(faulty, "strange", index_of(*entries, app.descriptor(platform=HERE)), INDEX)
    manifests = faulty.path("app/strange/manifests")
    name = f"linux-{HERE['architecture']}"
    assert sorted(os.listdir(manifests)) == sorted([name, *UNVERIFIABLE])
    for digest in UNVERIFIABLE:
        assert faulty.fails(manifests / digest / "manifest.json", Path.read_bytes) == UNSUPPORTED
    for digest in IMPOSSIBLE:
        assert faulty.fails(manifests / digest, os.stat) == "ENOENT"
    assert (manifests / name / "manifest.json").read_bytes() == app.manifest
    assert faulty.path("app/strange/rootfs/etc/hosts").read_bytes() == b"127.0.0.1 localhost\n"
    assert faulty.server.paths("md5|d41d8cd|sha3|cccc|AAAA|aaaa|/x|b/c") == []


def test_f41_a_layer_whose_digest_cannot_be_verified_is_unsupported_and_one_that_is_none_is_an_error(
    faulty: FaultyMount,
) -> None:
    app = faulty.push_app()
    manifest = json.loads(app.manifest)
    for number, digest in enumerate(UNVERIFIABLE):
        manifest["layers"][0]["digest"] = digest
        put(faulty, f"unverifiable-{number}", manifest)
        assert faulty.fails(faulty.path(f"app/unverifiable-{number}/rootfs"), os.listdir) == UNSUPPORTED
        blob = faulty.path(f"app/unverifiable-{number}/blobs/{digest}")
        assert faulty.fails(blob, Path.read_bytes) == UNSUPPORTED
        assert faulty.path(f"app/unverifiable-{number}/config.json").read_bytes() == app.config
    for number, digest in enumerate(IMPOSSIBLE):
        manifest["layers"][0]["digest"] = digest
        document = json.dumps(manifest).encode()
        put(faulty, f"impossible-{number}", document)
        only_its_bytes_are_there(faulty, f"impossible-{number}", document, errno="EIO", raw="manifest.json")
    assert faulty.server.paths("md5|d41d8cd|sha3|cccc|AAAA|aaaa|/x|b/c") == []


def test_f41_no_manifest_is_asked_for_by_a_digest_that_is_none(faulty: FaultyMount) -> None:
    faulty.push_app()
    assert app_is_fine(faulty)
    asked = faulty.server.paths(r"manifests/(sha256|sha3):|%|\.\.")
    for name in ("sha256:" + "A" * 64, "sha256:" + "a" * 63, "sha256:", "sha256:..", "sha256:%2e%2e"):
        for path in (f"app/{name}", f"app@{name}"):
            assert (path, faulty.fails(faulty.path(path), os.stat)) == (path, "ENOENT")
    assert faulty.server.paths(r"manifests/(sha256|sha3):|%|\.\.") == asked


def test_f42_bytes_in_a_descriptor_that_are_wrong_are_not_served(faulty: FaultyMount) -> None:
    app = faulty.push_app()
    manifest = json.loads(app.manifest)
    config = manifest["config"]["digest"]
    for number, embedded in enumerate(("e30=", "not base64!", "x" * 100, "", 7)):
        manifest["config"]["data"] = embedded
        put(faulty, f"data-{number}", manifest)
        assert faulty.path(f"app/data-{number}/config.json").read_bytes() == app.config
        assert faulty.path(f"app/data-{number}/rootfs/etc/hosts").read_bytes() == b"127.0.0.1 localhost\n"
    assert len(faulty.server.paths(f"/blobs/{config}")) == 1


@by_both_drivers
def test_f43_a_blob_of_another_size_than_its_descriptor_says_is_an_error_and_never_a_short_file(
    faulty: FaultyMount,
) -> None:
    app = faulty.push_app()
    one = app.layers[0]
    for what, tag, change in (("layers", "longer", 10), ("layers", "shorter", -10), ("config", "config", 10)):
        manifest = json.loads(app.manifest)
        descriptor = manifest["layers"][0] if what == "layers" else manifest["config"]
        descriptor["size"] += change
        put(faulty, tag, manifest)
        blob = faulty.path(f"app/{tag}/blobs/{descriptor['digest']}")
        for _ in range(2):
            assert os.stat(blob).st_size == descriptor["size"]
            assert faulty.fails(blob, Path.read_bytes) == "EIO"
            assert faulty.fails(faulty.path(f"app/{tag}/rootfs"), os.listdir) == "EIO"
        assert descriptor["digest"] in faulty.errors()
    assert app_is_fine(faulty)
    assert faulty.path(f"app/1/blobs/{one.digest}").read_bytes() == one.blob
    # Now that the right ones are in the cache, they are still not what those descriptors say.
    assert faulty.fails(faulty.path(f"app/longer/blobs/{one.digest}"), Path.read_bytes) == "EIO"
    assert faulty.fails(faulty.path("app/config/config.json"), Path.read_bytes) == "EIO"


def test_f43_one_digest_with_two_sizes_is_an_error(faulty: FaultyMount) -> None:
    document = manifest_of(config=EMPTY, layers=[EMPTY, {**EMPTY, "size": 3}])
    put(faulty, "two-sizes", document)
    only_its_bytes_are_there(faulty, "two-sizes", document, errno="EIO", raw="manifest.json")


def test_f44_addresses_in_a_descriptor_are_not_asked(faulty: FaultyMount) -> None:
    inside = faulty.other_server()
    lost = layer(file("lost"))
    inside.on("*", "", reply(200, lost.blob))
    faulty.log_in()
    app = faulty.push_app()
    manifest = json.loads(app.manifest)
    urls = [f"{inside.url}/layer", "file:///etc/passwd", f"ftp://{inside.address}/layer", "//", ""] * 10
    foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    for tag, media_type, errno in (("foreign", foreign, "ENOTSUP"), ("ordinary", LAYER, "EIO")):
        manifest["layers"] = [{**lost.descriptor(), "mediaType": media_type, "urls": urls}]
        put(faulty, tag, manifest)
        assert faulty.fails(faulty.path(f"app/{tag}/rootfs"), os.listdir) == errno
        assert faulty.fails(faulty.path(f"app/{tag}/blobs/{lost.digest}"), Path.read_bytes) == errno
        assert faulty.path(f"app/{tag}/config.json").read_bytes() == app.config
    assert inside.connections == 0
    assert str(lost.digest) in faulty.errors()
    assert str(lost.digest) not in blobs_in(faulty.cache)


UNKNOWN = {
    "platform": {"os": "unknown", "architecture": "unknown"},
    "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
}


def test_f45_an_attestation_is_never_taken_for_an_image(faulty: FaultyMount) -> None:
    app = faulty.push_app()
    put(faulty, "attested", index_of(app.descriptor(**UNKNOWN)), INDEX)
    directory = faulty.path("app/attested")
    assert sorted(os.listdir(directory)) == ["digest", "index.json", "manifests", "referrers"]
    for name in ("rootfs", "manifest.json", "config.json", "blobs", "layers"):
        assert faulty.fails(directory / name, os.stat) == "ENOENT"
    assert faulty.server.paths(f"GET .*/manifests/{app.digest}") == []
    assert os.listdir(directory / "manifests") == [str(app.digest)]
    assert (directory / "manifests" / str(app.digest) / "manifest.json").read_bytes() == app.manifest


def test_f45_entries_without_a_platform_are_chosen_by_their_configs(faulty: FaultyMount) -> None:
    other, here = (image(name, architecture=name) for name in ("mips", HERE["architecture"]))
    for each, tag in ((other, "other"), (here, "here")):
        faulty.push("app", tag, each)
    put(faulty, "plain", index_of(other.descriptor(), here.descriptor()), INDEX)
    assert faulty.path("app/plain/rootfs/file").read_text() == HERE["architecture"]
    assert sorted(os.listdir(faulty.path("app/plain/manifests"))) == sorted([str(other.digest), str(here.digest)])


def test_f45_of_two_equal_platforms_each_can_be_had(faulty: FaultyMount) -> None:
    first, second = (faulty.push("app", name, image(name)) for name in ("first", "second"))
    put(faulty, "twins", index_of(first.descriptor(platform=HERE), second.descriptor(platform=HERE)), INDEX)
    manifests = faulty.path("app/twins/manifests")
    name = f"linux-{HERE['architecture']}"
    assert sorted(os.listdir(manifests)) == sorted([name, str(second.digest)])
    assert faulty.path("app/twins/rootfs/file").read_text() == "first"
    assert (manifests / name / "rootfs/file").read_text() == "first"
    assert (manifests / str(second.digest) / "rootfs/file").read_text() == "second"


STRANGE = ("../../x", "a/b", "a\0b", "\ud800", "x" * 10_000, "new\nline", "..", "", "\x1b[31m", "ä" * 200)


def test_f46_no_name_of_a_platform_leads_anywhere(faulty: FaultyMount) -> None:
    app = faulty.push_app()
    entries = [
        image(str(number)).descriptor(platform={"os": text, "architecture": text, "variant": text, "os.version": text})
        for number, text in enumerate(STRANGE)
    ]
    put(faulty, "strange", index_of(*entries, app.descriptor(platform=HERE)), INDEX)
    names = os.listdir(faulty.path("app/strange/manifests"))
    assert sorted(names) == sorted([f"linux-{HERE['architecture']}", *(str(entry["digest"]) for entry in entries)])
    assert faulty.path("app/strange/rootfs/etc/hosts").read_bytes() == b"127.0.0.1 localhost\n"


def test_f46_of_tags_the_possible_ones_are_listed(faulty: FaultyMount) -> None:
    faulty.push_app()
    tags = json.dumps({"name": "app", "tags": ["1", *STRANGE, "sha256:" + "a" * 64, ".hidden", "-x", "v1\n"]})
    faulty.server.on("GET", "/app/tags/", reply(200, tags))
    assert os.listdir(faulty.path("app")) == ["1"]
    assert app_is_fine(faulty)


def test_f46_texts_of_a_manifest_and_a_config_break_no_file(faulty: FaultyMount) -> None:
    app = faulty.push_app()
    text = "".join(STRANGE)
    config = json.loads(app.config)
    config |= {"history": [{"created_by": text}], "author": text, "variant": text}
    content = json.dumps(config).encode()
    faulty.registry.add_blob("app", content)
    manifest = json.loads(app.manifest)
    manifest["config"] |= {"digest": str(Digest.of(content)), "size": len(content)}
    manifest["annotations"] = {text: text}
    manifest["layers"][0]["annotations"] = {text: text}
    put(faulty, "texts", manifest)
    directory = faulty.path("app/texts")
    assert (directory / "config.json").read_bytes() == content
    created_by = (directory / "layers/0/created_by").read_bytes()
    assert os.stat(directory / "layers/0/created_by").st_size == len(created_by) > 10_000
    assert (directory / "rootfs/etc/hosts").read_bytes() == b"127.0.0.1 localhost\n"
    parts = {"blobs", "config.json", "digest", "layers", "manifest-digest", "manifest.json", "referrers", "rootfs"}
    # The variant in this config is a text that is no platform's, which is told.
    assert {"PLATFORM-DIFFERS.txt", *parts} < set(os.listdir(directory))
    assert os.stat(directory / "PLATFORM-DIFFERS.txt").st_size > 0
    assert faulty.errors() == ""
