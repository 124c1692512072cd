"""oci/: an image layout that the tools of others read as it is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from regfs.images.referring import attached
from regfs.model.digest import Digest
from tests.support.artifacts import TITLE, Artifact, artifact_of, blob, push_artifact
from tests.support.attached import BUNDLE, SIMPLE_SIGNING, SPDX, attach, bundle, refer, simple_signing, statement
from tests.support.fault_server import reply
from tests.support.images import BuiltImage, file, image_of, index_of, layer
from tests.support.memory_registry import INDEX
from tests.support.served import Served
from tests.support.shown import Shown

REF_NAME = "org.opencontainers.image.ref.name"
AMD64 = {"platform": {"os": "linux", "architecture": "amd64"}}


def built(**more: bool) -> BuiltImage:
    return image_of(layer(file("etc/base", b"base")), layer(file("top", b"top")), **more)  # type: ignore[arg-type]


def manifest_in(shown: Shown, path: str) -> tuple[dict[str, object], bytes]:
    """Return the only entry of index.json, and the manifest that it names, after a look at its digest."""
    (entry,) = json.loads(shown.read(f"{path}/index.json"))["manifests"]
    algorithm, _, encoded = entry["digest"].partition(":")
    content = shown.read(f"{path}/blobs/{algorithm}/{encoded}")
    assert Digest.of(content) == Digest(algorithm, encoded)
    assert entry["size"] == len(content)
    return entry, content


def test_the_layout_has_the_manifest_of_the_platform_and_its_blobs(served: Served) -> None:
    image = served.push("app", "a", built())
    served.document("app", "1", index_of(image.descriptor(**AMD64)), INDEX)
    shown = served.show()
    assert shown.names("app/1/oci") == ["oci-layout", "index.json", "blobs"]
    assert json.loads(shown.read("app/1/oci/oci-layout")) == {"imageLayoutVersion": "1.0.0"}
    entry, content = manifest_in(shown, "app/1/oci")
    assert content == image.manifest
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "latest"}
    assert entry["platform"] == {"os": "linux", "architecture": "amd64"}
    blobs = {str(digest).removeprefix("sha256:") for digest in (*image.blobs(), image.digest)}
    assert set(shown.names("app/1/oci/blobs/sha256")) == blobs
    assert [seen for seen in served.server.seen if "blobs" in seen.path] == []
    for digest, expected in image.blobs().items():
        assert shown.read(f"app/1/oci/blobs/sha256/{digest.encoded}") == expected


def test_a_manifest_of_docker_s_type_is_an_oci_one_there(served: Served) -> None:
    image = served.push("app", "1", built(docker=True))
    shown = served.show()
    entry, content = manifest_in(shown, "app/1/oci")
    manifest = json.loads(content)
    assert entry["mediaType"] == manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert {each["mediaType"] for each in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar+gzip"}
    assert [each["digest"] for each in manifest["layers"]] == [str(each.digest) for each in image.layers]


def test_an_artifact_has_a_layout_too(served: Served) -> None:
    pushed = artifact_of(blob(b"text", "text/plain", {TITLE: "a"}), kind="application/vnd.example")
    push_artifact(served.registry, "notes", "1", pushed)
    shown = served.show()
    entry, content = manifest_in(shown, "notes/1/oci")
    assert content == pushed.manifest
    assert entry["artifactType"] == "application/vnd.example"
    assert shown.read(f"notes/1/oci/blobs/sha256/{Digest.of(b'{}').encoded}") == b"{}"


def with_referrers(served: Served) -> tuple[BuiltImage, dict[str, Artifact]]:
    """Push an index of an image that a bundle refers to by its subject, and a signature by cosign's tag."""
    image = served.push("app", "a", built())
    index = Digest.parse(served.document("app", "1", index_of(image.descriptor(**AMD64)), INDEX))
    sbom = bundle(statement(image.digest, SPDX, {"spdxVersion": "SPDX-2.3"}), SPDX)
    signature = artifact_of(simple_signing(index), config_type="application/vnd.oci.image.config.v1+json")
    sbom = refer(served.registry, "app", image.digest, sbom)
    attach(served.registry, "app", index, ".sig", signature)
    return image, {"": sbom, f"sha256-{index.encoded}.sig": signature}


def test_the_layout_has_what_refers_to_the_image_and_to_the_index_that_it_is_from(served: Served) -> None:
    image, referrers = with_referrers(served)
    shown = served.show()
    first, *others = json.loads(shown.read("app/1/oci/index.json"))["manifests"]
    assert first["digest"] == str(image.digest)
    assert {each.get("annotations", {}).get(REF_NAME, "") for each in others} == set(referrers)
    assert {each["artifactType"] for each in others} == {BUNDLE, SIMPLE_SIGNING}
    names = shown.names("app/1/oci/blobs/sha256")
    assert [seen for seen in served.server.seen if "blobs" in seen.path] == []
    for each in others:
        content = shown.read(f"app/1/oci/blobs/sha256/{each['digest'][7:]}")
        assert str(Digest.of(content)) == each["digest"]
        assert len(content) == each["size"]
    assert shown.read("app/1/digest").decode().strip()[7:] in names  # which the signature is of
    for name in names:
        assert Digest.of(shown.read(f"app/1/oci/blobs/sha256/{name}")).encoded == name
    by_platform = json.loads(shown.read("app/1/manifests/linux-amd64/oci/index.json"))["manifests"]
    assert [each["digest"] for each in by_platform[:1]] == [str(image.digest)]
    assert len(by_platform) == 2


def test_an_image_that_is_here_has_its_layout_where_the_registry_does_not_tell_what_refers_to_it(
    served: Served,
) -> None:
    image = served.push("app", "1", built())
    served.server.on("GET", "referrers", reply(500))
    with served.show() as shown:
        shown.names("app/1/rootfs")
        entry, _ = manifest_in(shown, "app/1/oci")
        assert entry["digest"] == str(image.digest)
        assert "oci/ has it without what refers to it" in shown.read(".regfs/errors").decode()
    assert manifest_in(served.show(offline=True), "app/1/oci")[0] == entry


def test_a_referrer_that_the_registry_lost_is_left_out_and_told(served: Served) -> None:
    _, referrers = with_referrers(served)
    served.server.on("GET", f"manifests/{referrers[''].digest}", reply(404))
    shown = served.show()
    assert len(json.loads(shown.read("app/1/oci/index.json"))["manifests"]) == 2
    assert "is left out of oci/" in shown.read(".regfs/errors").decode()


@pytest.mark.parametrize("bound", ["MOST", "MOST_BYTES"])
def test_a_layout_has_a_bounded_number_of_referrers_and_says_so(
    served: Served, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    image = served.push("app", "1", built())
    for number in range(5):
        sbom = bundle(statement(image.digest, SPDX, {"spdxVersion": f"SPDX-2.{number}"}), SPDX)
        size = len(refer(served.registry, "app", image.digest, sbom).manifest)
    monkeypatch.setattr(attached, bound, 3 if bound == "MOST" else 3 * size)
    shown = served.show()
    assert len(json.loads(shown.read("app/1/oci/index.json"))["manifests"]) == 1 + 3
    assert "of 5 manifests that refer to it oci/ has 3" in shown.read(".regfs/errors").decode()


def test_tools_take_image_and_signature_from_a_layout_with_referrers(served: Served, tmp_path: Path) -> None:
    image, referrers = with_referrers(served)
    layout = written(served.show(), "app/1/oci", tmp_path / "layout")
    copied = tmp_path / "copied"
    for tag in ("latest", *filter(None, referrers)):
        subprocess.run(["skopeo", "copy", "--quiet", f"oci:{layout}:{tag}", f"dir:{copied}-{tag}"], check=True)
    assert {digest.encoded for digest in image.blobs()} <= {path.name for path in Path(f"{copied}-latest").iterdir()}
    bundle = tmp_path / "bundle"
    unpack = ["umoci", "unpack", "--rootless", "--image", f"{layout}:latest", str(bundle)]
    subprocess.run(unpack, check=True, capture_output=True)
    assert (bundle / "rootfs/top").read_bytes() == b"top"


def written(shown: Shown, path: str, target: Path) -> Path:
    """Copy the directory *path* of the tree to *target*, and return that."""
    target.mkdir()
    for name in shown.names(path):
        if shown.attributes(f"{path}/{name}").mode & 0o170000 == 0o040000:
            written(shown, f"{path}/{name}", target / name)
        else:
            (target / name).write_bytes(shown.read(f"{path}/{name}"))
    return target


@pytest.mark.parametrize("docker", [False, True])
def test_skopeo_and_umoci_read_it(served: Served, tmp_path: Path, *, docker: bool) -> None:
    image = served.push("app", "1", built(docker=docker))
    layout = written(served.show(), "app/1/oci", tmp_path / "layout")
    subprocess.run(["skopeo", "copy", "--quiet", f"oci:{layout}", f"dir:{tmp_path / 'copied'}"], check=True)
    names = {path.name for path in (tmp_path / "copied").iterdir()}
    assert {digest.encoded for digest in image.blobs()} <= names
    bundle = tmp_path / "bundle"
    unpack = ["umoci", "unpack", "--rootless", "--image", f"{layout}:latest", str(bundle)]
    subprocess.run(unpack, check=True, capture_output=True)
    assert (bundle / "rootfs/etc/base").read_bytes() == b"base"
    assert (bundle / "rootfs/top").read_bytes() == b"top"
