"""An image's directory: which parts there are, and that listings and look-ups agree about them."""

from __future__ import annotations

import json

import pytest

from regfs.errors import BadManifest, NotFound, PlatformMissing, RegfsError, Unsupported
from regfs.model import media_types
from regfs.model.digest import Digest
from regfs.model.platform import Platform
from regfs.mount.errnos import is_failure
from tests.support.images import BuiltImage, file, image_of, index_of, layer
from tests.support.memory_registry import INDEX, MANIFEST
from tests.support.served import Served
from tests.support.shown import Shown

SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
EMPTY = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": str(Digest.of(b"{}")), "size": 2}
PARTS = [
    "blobs",
    "config.json",
    "digest",
    "history",
    "layers",
    "manifest-digest",
    "manifest.json",
    "oci",
    "packages",
    "referrers",
    "rootfs",
    "wasted",
]
INDEXED = sorted([*PARTS, "index.json", "manifests"])
ALL = sorted([*INDEXED, "files"])
AMD64 = {"platform": {"os": "linux", "architecture": "amd64"}}
ARM64 = {"platform": {"os": "linux", "architecture": "arm64"}}
UNKNOWN = {
    "platform": {"os": "unknown", "architecture": "unknown"},
    "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
}


def image(content: str = "content", **more: str) -> BuiltImage:
    return image_of(layer(file("file", content.encode())), **more)  # type: ignore[arg-type]


def opens(shown: Shown, path: str) -> bool:
    """Tell whether *path* is found, and can be listed or read."""
    try:
        if shown.attributes(path).mode & 0o170000 == 0o040000:
            shown.names(path)
        else:
            shown.read(path)
    except RegfsError:
        return False
    return True


def found_parts(shown: Shown, path: str) -> list[str]:
    return [name for name in ALL if opens(shown, f"{path}/{name}")]


def test_an_image_has_its_parts_and_they_are_exact(served: Served) -> None:
    built = served.push("app", "1", image())
    shown = served.show()
    assert sorted(shown.names("app/1")) == PARTS
    assert found_parts(shown, "app/1") == PARTS
    assert shown.read("app/1/digest") == f"{built.digest}\n".encode()
    assert shown.read("app/1/manifest-digest") == f"{built.digest}\n".encode()
    assert shown.read("app/1/manifest.json") == built.manifest
    assert shown.read("app/1/config.json") == built.config


def test_every_listed_entry_has_the_inode_number_and_mode_that_a_look_up_finds(served: Served) -> None:
    built = served.push("app", "one", image())
    served.document("app", "1", index_of(built.descriptor(**AMD64), image().descriptor(**UNKNOWN)), INDEX)
    shown = served.show()
    shown.names("app/1/rootfs")
    pending = [b""]
    seen = 0
    while pending:
        path = pending.pop()
        node = shown.find(path).node
        for entry in shown.tree.listing(node).entries(0, 1000):
            below = path + b"/" + entry.name
            found = shown.find(below)
            assert entry.attributes[:8] == found.attributes[:8], below
            assert entry.attributes[60:62] == found.attributes[60:62], below
            seen += 1
            if found.attributes[61] >> 4 == 4:
                pending.append(below)
    assert seen > 40


def test_an_index_shows_the_image_for_the_platform_and_every_other(served: Served) -> None:
    amd64, arm64 = served.push("app", "a", image("a")), served.push("app", "b", image("b", architecture="arm64"))
    index = index_of(amd64.descriptor(**AMD64), arm64.descriptor(**ARM64))
    served.document("app", "1", index, INDEX)
    shown = served.show()
    assert sorted(shown.names("app/1")) == INDEXED
    assert found_parts(shown, "app/1") == INDEXED
    assert shown.read("app/1/index.json") == index
    assert shown.read("app/1/digest") == f"{Digest.of(index)}\n".encode()
    assert shown.read("app/1/manifest-digest") == f"{amd64.digest}\n".encode()
    assert shown.read("app/1/manifests/linux-arm64/manifest-digest") == f"{arm64.digest}\n".encode()
    assert shown.read("app/1/rootfs/file") == b"a"
    assert shown.read("app/1/manifests/linux-arm64/rootfs/file") == b"b"


def test_an_index_without_the_platform_has_only_what_is_the_index_s(served: Served) -> None:
    arm64 = served.push("app", "b", image("b", architecture="arm64"))
    served.document("app", "1", index_of(arm64.descriptor(**ARM64)), INDEX)
    shown = served.show(platform=Platform("linux", "s390x"))
    there = ["digest", "index.json", "manifests", "referrers"]
    assert sorted(shown.names("app/1")) == ["PLATFORM-MISSING.txt", *there]
    assert found_parts(shown, "app/1") == there
    with pytest.raises(PlatformMissing, match="linux/arm64") as missing:
        shown.find("app/1/rootfs")
    assert is_failure(missing.value)  # so that .regfs/errors has it
    note = shown.read("app/1/PLATFORM-MISSING.txt").decode()
    assert "not built for linux/s390x" in note
    assert "--platform linux/arm64" in note
    assert shown.names("app/1/manifests/linux-arm64/rootfs") == ["file"]
    assert "PLATFORM-DIFFERS.txt" not in shown.names("app/1/manifests/linux-arm64")
    assert shown.read("app/1/manifests/linux-arm64/rootfs/file") == b"b"


def test_a_single_image_for_another_platform_says_why_its_programs_do_not_run(served: Served) -> None:
    served.push("app", "1", image("b", architecture="arm64"))
    served.push("app", "2", image("c", architecture="386"))
    shown = served.show()
    assert "PLATFORM-DIFFERS.txt" not in shown.names("app/1")  # its config was not asked for
    assert shown.names("app/1/rootfs") == ["file"]
    assert "PLATFORM-DIFFERS.txt" in shown.names("app/1")
    assert (
        "built for linux/arm64; the platform of this mount is linux/amd64"
        in shown.read("app/1/PLATFORM-DIFFERS.txt").decode()
    )
    assert shown.names("app/2/rootfs") == ["file"]
    assert "PLATFORM-DIFFERS.txt" not in shown.names("app/2")  # amd64 runs programs for 386
    with pytest.raises(NotFound):
        shown.find("app/2/PLATFORM-DIFFERS.txt")


def test_f45_attestations_are_never_chosen(served: Served) -> None:
    built = served.push("app", "a", image("a"))
    served.document("app", "1", index_of(built.descriptor(**UNKNOWN)), INDEX)
    shown = served.show()
    there = ["digest", "index.json", "manifests", "referrers"]
    assert sorted(shown.names("app/1")) == there
    assert found_parts(shown, "app/1") == there
    assert shown.names("app/1/manifests") == [str(built.digest)]


def test_f45_entries_without_a_platform_are_chosen_by_their_configs(served: Served) -> None:
    arm64, amd64 = served.push("app", "b", image("b", architecture="arm64")), served.push("app", "a", image("a"))
    served.document("app", "1", index_of(arm64.descriptor(), amd64.descriptor()), INDEX)
    assert served.show().read("app/1/rootfs/file") == b"a"


def test_an_entry_that_the_registry_lacks_does_not_cost_the_others(served: Served) -> None:
    lost, amd64 = image("lost"), served.push("app", "a", image("a"))
    served.document("app", "1", index_of(lost.descriptor(), amd64.descriptor()), INDEX)
    shown = served.show()
    assert shown.read("app/1/rootfs/file") == b"a"
    with pytest.raises(NotFound):
        shown.names(f"app/1/manifests/{lost.digest}")


def test_f40_an_index_in_an_index_is_looked_through(served: Served) -> None:
    built = served.push("app", "a", image("a"))
    inner = index_of(built.descriptor(**AMD64))
    digest = served.document("app", "inner", inner, INDEX)
    outer = index_of({"mediaType": INDEX, "digest": digest, "size": len(inner)})
    served.document("app", "1", outer, INDEX)
    shown = served.show()
    assert found_parts(shown, "app/1") == INDEXED
    assert shown.read("app/1/rootfs/file") == b"a"
    assert shown.read(f"app/1/manifests/{digest}/manifests/linux-amd64/rootfs/file") == b"a"


def test_f40_an_index_that_is_too_deep_is_an_error_and_not_a_recursion(served: Served) -> None:
    document = index_of(image().descriptor(**AMD64))
    for depth in range(20):
        digest = served.document("app", f"d{depth}", document, INDEX)
        document = index_of({"mediaType": INDEX, "digest": digest, "size": len(document)})
    served.document("app", "1", document, INDEX)
    shown = served.show()
    with pytest.raises(BadManifest, match="deep"):
        shown.find("app/1/rootfs")
    assert shown.read("app/1/index.json") == document
    assert len(served.server.paths("manifests")) < 15


def test_an_artifact_has_blobs_and_no_rootfs(served: Served) -> None:
    served.registry.add_blob("app", b"a chart")
    chart = {"mediaType": "application/x-chart", "digest": str(Digest.of(b"a chart")), "size": 7}
    artifact = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "a/b", "config": EMPTY, "layers": [chart]}
    served.document("app", "1", json.dumps(artifact).encode(), MANIFEST)
    shown = served.show()
    there = ["blobs", "config.json", "digest", "files", "manifest-digest", "manifest.json", "oci", "referrers"]
    assert sorted(shown.names("app/1")) == there
    assert found_parts(shown, "app/1") == there
    assert shown.read("app/1/config.json") == b"{}"
    assert shown.read(f"app/1/blobs/{EMPTY['digest']}") == b"{}"
    assert shown.read(f"app/1/blobs/{Digest.of(b'a chart')}") == b"a chart"
    assert served.server.paths(str(EMPTY["digest"])) == []


def test_a_signature_that_calls_itself_an_image_shows_no_rootfs(served: Served) -> None:
    signature = layer(file("a"), media_type="application/vnd.dev.cosign.simplesigning.v1+json")
    served.push("app", "signature", image_of(signature))
    shown = served.show()
    there = ["blobs", "config.json", "digest", "files", "manifest-digest", "manifest.json", "oci", "referrers"]
    assert sorted(shown.names("app/signature")) == there
    assert found_parts(shown, "app/signature") == there
    with pytest.raises(NotFound, match="simplesigning"):
        shown.find("app/signature/rootfs")


def test_an_image_without_layers_has_an_empty_rootfs(served: Served) -> None:
    served.push("app", "1", image_of())
    shown = served.show()
    assert found_parts(shown, "app/1") == PARTS
    assert shown.names("app/1/layers") == []
    assert shown.names("app/1/rootfs") == []
    assert shown.attributes("app/1/rootfs").mode == 0o040755


def test_f39_of_schema_1_the_raw_manifest_is_there_and_nothing_else(served: Served) -> None:
    document = json.dumps({"schemaVersion": 1, "name": "app", "tag": "1", "fsLayers": [], "history": []}).encode()
    served.document("app", "1", document, SCHEMA1)
    shown = served.show()
    assert sorted(shown.names("app/1")) == ["digest", "manifest.json"]
    assert shown.read("app/1/manifest.json") == document
    for name in ("config.json", "layers", "rootfs", "blobs", "index.json", "manifests"):
        with pytest.raises(Unsupported, match="schema 1"):
            shown.find(f"app/1/{name}")


BROKEN = {
    "F37 not UTF-8": b'{"schemaVersion":2,"config":"\xff"}',
    "F37 UTF-16": '{"schemaVersion":2}'.encode("utf-16"),
    "F37 a byte order mark": b'\xef\xbb\xbf{"schemaVersion":2}',
    "F37 a key twice": b'{"schemaVersion":2,"layers":[],"layers":[]}',
    "F37 a size that is true": json.dumps({"schemaVersion": 2, "config": EMPTY | {"size": True}}).encode(),
    "F37 a negative size": json.dumps({"schemaVersion": 2, "config": EMPTY | {"size": -1}}).encode(),
    "F37 a size beyond 2**63": json.dumps({"schemaVersion": 2, "config": EMPTY | {"size": 2**80}}).encode(),
    "F37 NaN": b'{"schemaVersion":2,"config":{"size":NaN}}',
    "F38 manifests and layers": b'{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}',
    "F38 Layers": json.dumps({"schemaVersion": 2, "config": EMPTY, "Layers": []}).encode(),
    "F38 another mediaType": json.dumps({"schemaVersion": 2, "mediaType": INDEX, "config": EMPTY}).encode(),
    "F41 a digest that is a path": json.dumps(
        {"schemaVersion": 2, "config": EMPTY, "layers": [EMPTY | {"digest": "sha256:../../x"}]}
    ).encode(),
    "F43 one digest, two sizes": json.dumps(
        {"schemaVersion": 2, "config": EMPTY, "layers": [EMPTY, EMPTY | {"size": 3}]}
    ).encode(),
}


@pytest.mark.parametrize("what", BROKEN)
def test_of_a_broken_manifest_the_exact_bytes_are_there_and_the_rest_is_an_error(served: Served, what: str) -> None:
    served.document("app", "1", BROKEN[what], MANIFEST)
    served.push("app", "good", image())
    shown = served.show()
    assert sorted(shown.names("app/1")) == ["digest", "manifest.json"]
    assert shown.read("app/1/manifest.json") == BROKEN[what]
    for name in ("config.json", "layers", "rootfs", "blobs", "index.json", "manifests"):
        with pytest.raises(BadManifest):
            shown.find(f"app/1/{name}")
    assert shown.read("app/good/rootfs/file") == b"content"


def test_f38_of_a_broken_index_the_exact_bytes_are_there(served: Served) -> None:
    document = b'{"schemaVersion":2,"manifests":[],"layers":[]}'
    served.document("app", "1", document, INDEX)
    shown = served.show()
    assert sorted(shown.names("app/1")) == ["digest", "index.json"]
    assert shown.read("app/1/index.json") == document
    with pytest.raises(BadManifest):
        shown.find("app/1/manifest.json")


def test_a_broken_manifest_in_an_index_leaves_the_index_readable(served: Served) -> None:
    digest = served.document("app", "a", BROKEN["F37 NaN"], MANIFEST)
    entry = {"mediaType": MANIFEST, "digest": digest, "size": len(BROKEN["F37 NaN"]), **AMD64}
    served.document("app", "1", index_of(entry), INDEX)
    shown = served.show()
    there = ["digest", "index.json", "manifest-digest", "manifest.json", "manifests", "referrers"]
    assert sorted(shown.names("app/1")) == there
    assert found_parts(shown, "app/1") == there


def test_f41_a_digest_that_cannot_be_verified_is_shown_and_unsupported(served: Served) -> None:
    digest = "md5:d41d8cd98f00b204e9800998ecf8427e"
    built = served.push("app", "a", image("a"))
    entry = {"mediaType": MANIFEST, "digest": digest, "size": 100}
    served.document("app", "1", index_of(built.descriptor(**AMD64), entry), INDEX)
    shown = served.show()
    assert shown.names("app/1/manifests") == ["linux-amd64", digest]
    with pytest.raises(Unsupported):
        shown.read(f"app/1/manifests/{digest}/manifest.json")
    assert served.server.paths(digest.partition(":")[2]) == []
    assert shown.read("app/1/rootfs/file") == b"a"


def test_f41_entries_with_impossible_digests_are_left_out(served: Served) -> None:
    built = served.push("app", "a", image("a"))
    wrong = [{"mediaType": MANIFEST, "digest": d, "size": 1} for d in ("sha256:../../x", "sha256:" + "A" * 64, "x")]
    served.document("app", "1", index_of(*wrong, built.descriptor(**AMD64)), INDEX)
    shown = served.show()
    assert shown.names("app/1/manifests") == ["linux-amd64"]
    assert shown.read("app/1/rootfs/file") == b"a"


def test_f46_names_of_platforms_cannot_lead_anywhere(served: Served) -> None:
    built = served.push("app", "a", image("a"))
    strange = ["../../x", "a/b", "a\0b", "\ud800", "x" * 10_000, "new\nline", ".."]
    entries = [
        image(str(number)).descriptor(platform={"os": name, "architecture": name})
        for number, name in enumerate(strange)
    ]
    served.document("app", "1", index_of(*entries, built.descriptor(**AMD64)), INDEX)
    shown = served.show()
    names = shown.names("app/1/manifests")
    assert "linux-amd64" in names
    assert all(name == "linux-amd64" or name.startswith("sha256:") for name in names)


def test_f46_texts_of_a_config_cannot_break_a_file(served: Served) -> None:
    one = layer(file("file"))
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [str(one.diff_id)]},
        "history": [{"created_by": "\ud800 \u0000 /../" + "x" * 10_000}],
    }
    content = json.dumps(config).encode()
    built = image_of(one)
    manifest = json.loads(built.manifest)
    manifest["config"] |= {"digest": str(Digest.of(content)), "size": len(content)}
    served.registry.add_blob("app", content)
    served.registry.add_blob("app", one.blob)
    served.document("app", "1", json.dumps(manifest).encode(), MANIFEST)
    shown = served.show()
    assert shown.read("app/1/layers/0/created_by").endswith(b"x\n")


def test_f43_a_manifest_of_another_size_than_the_index_says_is_there_for_its_digest_is_right(served: Served) -> None:
    built = served.push("app", "a", image("a"))
    served.document("app", "1", index_of(built.descriptor(**AMD64) | {"size": 10}), INDEX)
    shown = served.show()
    assert shown.attributes("app/1/manifest.json").size == len(built.manifest)
    assert shown.read("app/1/manifest.json") == built.manifest
    assert shown.read("app/1/manifests/linux-amd64/manifest.json") == built.manifest


def test_a_manifest_that_an_index_calls_an_index_is_refused_there_and_opens_by_its_digest(served: Served) -> None:
    built = served.push("app", "a", image("a"))
    named = {"mediaType": INDEX, "digest": str(built.digest), "size": len(built.manifest), **AMD64}
    served.document("app", "1", index_of(named), INDEX)
    shown = served.show()
    for path in (f"app/{built.digest}/rootfs", "app/a/rootfs"):
        assert shown.find(path)
    assert "rootfs" not in shown.names("app/1")
    with pytest.raises(BadManifest, match="announced as"):
        shown.find("app/1/rootfs")
    assert "rootfs" not in shown.names(f"app/1/manifests/{shown.names('app/1/manifests')[0]}")
    assert shown.find(f"app/{built.digest}/rootfs")


@pytest.mark.parametrize("docker", [True, False])
def test_an_index_of_one_vendor_opens_with_manifests_of_the_other(served: Served, docker: bool) -> None:
    built = served.push("app", "a", image_of(layer(file("file", b"a")), docker=docker))
    entry = built.descriptor(**AMD64) | {"mediaType": MANIFEST if docker else media_types.DOCKER_MANIFEST}
    served.document("app", "1", index_of(entry, docker=not docker), media_types.DOCKER_INDEX if not docker else INDEX)
    shown = served.show()
    assert shown.read("app/1/rootfs/file") == b"a"
    assert shown.read("app/1/manifests/linux-amd64/rootfs/file") == b"a"


def test_what_an_image_does_not_have_is_named_with_what_it_has(served: Served) -> None:
    served.push("app", "1", image())
    with pytest.raises(NotFound, match=r"rootfs"):
        served.show().find("app/1/rootfz")
